"""The layer that is found is on the way to the score: the gradient at the cut is the uncut network's."""

import copy

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models import resnet18

from helpers.nets import noise, random_net, seeded
from helpers.oracles import activation_and_gradient
from pellucid.errors import LayerError
from pellucid.heatmaps import AblationCAM, EigenCAM, GradCAM, HiResCAM
from pellucid.models.layers import Layer, _on_the_stream, _reordered, best_layer, describe, layers
from pellucid.models.layouts import Layout
from pellucid.models.probe import probe


def trunk(channels=3):
    return nn.Sequential(nn.Conv2d(channels, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())


class TwoAnswers(nn.Module):
    """Its encoder answers a map and that map's mean; the head reads one of the two."""

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = trunk()

        def forward(self, x):
            found = self.body(x)
            return {"map": found, "pooled": found.mean((2, 3))}

    def __init__(self, reads):
        super().__init__()
        self.reads, self.encoder, self.fc = reads, self.Encoder(), nn.Linear(8, 3)

    def forward(self, x):
        found = self.encoder(x)
        return self.fc(found["pooled"] if self.reads == "pooled" else found["map"].mean((2, 3)))


@pytest.mark.parametrize(("reads", "layer"), [("pooled", "encoder.body"), ("map", "encoder")])
def test_a_module_is_chosen_only_for_the_answer_that_is_read(reads, layer):
    net, x = seeded(lambda: TwoAnswers(reads)).eval(), noise(2, 3, 32, 32)
    (found,) = HiResCAM().explain(net, x, [1])
    assert found.layer.name == layer
    truth = net(x).detach()[:, 1] - net.fc.bias.detach()[1]
    torch.testing.assert_close(found.values.sum((1, 2)), truth)


def test_a_named_layer_beside_the_way_is_refused_and_never_blames_the_target():
    net, x = seeded(lambda: TwoAnswers("pooled")).eval(), noise(1, 3, 32, 32)
    for method in (HiResCAM, GradCAM, AblationCAM):
        with pytest.raises(LayerError, match=r"'encoder' cannot explain.*beside the way.*use 'encoder\.body'"):
            method(layer="encoder").attribute(net, x, 1)
    assert EigenCAM(layer="encoder").attribute(net, x).any()  # reads no gradient


def test_where_no_gradient_arrives_on_one_input_the_note_says_so():
    class Gated(nn.Module):
        """Bright pictures alone reach the head."""

        def __init__(self):
            super().__init__()
            self.body, self.fc = trunk(), nn.Linear(8, 3)

        def forward(self, x):
            bright = (x.mean((1, 2, 3)) > -0.5).float()[:, None]
            return self.fc(self.body(x).mean((2, 3)) * bright)

    net, x = seeded(Gated).eval(), noise(1, 3, 32, 32) - 3
    (found,) = GradCAM().explain(net, x, [1])
    assert not found.values.any()
    assert "no gradient reaches layer 'body'" in found.notes[0]
    assert "in favour" not in found.notes[0]


class Adapted(nn.Module):
    """A linear layer with a side branch whose dropout hands its input on, as low-rank adapters are built."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base, self.dropout = base, nn.Dropout(0.3)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(self.dropout(x)))

    def merged(self):
        base = copy.deepcopy(self.base)
        base.weight.data += self.up.weight.data @ self.down.weight.data
        return base


class Apart(nn.Module):
    """A timm block's joint projection as three layers that read the same tokens."""

    def __init__(self, qkv):
        super().__init__()
        width = qkv.in_features
        self.parts = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        for part, weight, bias in zip(self.parts, qkv.weight.data.chunk(3), qkv.bias.data.chunk(3), strict=True):
            part.weight.data, part.bias.data = weight.clone(), bias.clone()

    def forward(self, x):
        return torch.cat([part(x) for part in self.parts], -1)


def test_one_network_in_four_forms_has_one_map():
    plain = seeded(
        lambda: VisionTransformer(img_size=64, patch_size=16, embed_dim=24, depth=3, num_heads=2, num_classes=4)
    ).eval()
    adapted = copy.deepcopy(plain)
    for block in adapted.blocks:
        block.attn.qkv = seeded(lambda block=block: Adapted(block.attn.qkv)).eval()
    merged, apart = copy.deepcopy(adapted), copy.deepcopy(adapted)
    for a, b in zip(merged.blocks, apart.blocks, strict=True):
        a.attn.qkv = a.attn.qkv.merged()
        b.attn.qkv = Apart(b.attn.qkv.merged()).eval()
    x = noise(2, 3, 64, 64)
    expected = HiResCAM().attribute(merged, x, 1)
    assert expected.abs().max() > 0
    for net in (adapted, apart):
        torch.testing.assert_close(net(x), merged(x), rtol=1e-4, atol=1e-5)
        (found,) = HiResCAM().explain(net, x, [1])
        assert found.layer.name == "blocks.2.norm1"
        torch.testing.assert_close(found.values, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_050", "convnext_atto", "densenet121"])
def test_the_map_is_of_the_uncut_networks_gradient(name):
    net, x = random_net(name), noise(1, 3, 64, 64)
    (found,) = HiResCAM().explain(net, x, [2])
    A, G = activation_and_gradient(net, found.layer.name, x, lambda y: y[:, 2])
    torch.testing.assert_close(found.values, (A * G).sum(1), rtol=1e-3, atol=1e-7)


# --- a layer that runs several times ---


class Pairs(nn.Module):
    """One encoder for the picture before and the picture after."""

    def __init__(self):
        super().__init__()
        self.encoder, self.fc = trunk(), nn.Linear(16, 3)

    def forward(self, x):
        return self.fc(torch.cat([self.encoder(x[:, :3]), self.encoder(x[:, 3:])], 1).mean((2, 3)))


def test_runs_side_by_side_are_summed_and_said():
    net, x = seeded(Pairs).eval(), noise(2, 6, 32, 32)
    (found,) = HiResCAM().explain(net, x, [1])
    weight = net.fc.weight.detach()[1] / 64
    with torch.no_grad():
        parts = [net.encoder(x[:, a : a + 3]) for a in (0, 3)]
    expected = sum((part * w[:, None, None]).sum(1) for part, w in zip(parts, weight.chunk(2), strict=True))
    torch.testing.assert_close(found.values, expected)
    assert found.notes == ["Layer 'encoder' runs 2 times in a pass: the map is their sum."]
    assert found.layer.layout.channels == 16
    eigen = EigenCAM().attribute(net, x)
    assert eigen.shape == found.values.shape
    (named,) = HiResCAM(layer="encoder.2").explain(net, x, [1])
    assert named.layer.runs.kept == (0, 1)


def test_runs_in_a_chain_are_read_where_they_end():
    class Chained(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.step, self.fc = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 2)

        def forward(self, x):
            x = self.stem(x)
            for _ in range(3):
                x = self.step(x).relu()
            return self.fc(x.mean((2, 3)))

    net, x = seeded(Chained).eval(), noise(1, 3, 32, 32)
    found = describe(net, x, "step")
    assert found.runs is None
    assert not found.notes


def test_a_loop_over_frames_is_explained_as_frames_in_the_batch_are():
    class Frames(nn.Module):
        def __init__(self, loop):
            super().__init__()
            self.loop, self.cnn = loop, trunk()
            self.rnn, self.fc = nn.GRU(8, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, v):  # (N, C, T, H, W)
            v = v.transpose(1, 2)
            if self.loop:
                found = torch.stack([self.cnn(v[:, t]).mean((2, 3)) for t in range(v.shape[1])], 1)
            else:
                found = self.cnn(v.flatten(0, 1)).mean((2, 3)).unflatten(0, v.shape[:2])
            return self.fc(self.rnn(found)[0][:, -1])

    folded, x = seeded(lambda: Frames(False)).eval(), noise(2, 3, 6, 32, 32)
    loop = Frames(True).eval()
    loop.load_state_dict(folded.state_dict())
    for method in (HiResCAM(), GradCAM(), GradCAM(per_frame=True)):
        a, b = (method.explain(net, x, [1])[0] for net in (folded, loop))
        assert (a.layer.name, a.layer.layout.grid) == (b.layer.name, b.layer.layout.grid) == ("cnn", (6, 8, 8))
        assert a.values.any()
        torch.testing.assert_close(b.values, a.values)


def test_runs_on_other_sizes_are_left_out_and_said():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head, self.fc = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 1), nn.Linear(8, 2)

        def forward(self, x):
            fine = self.stem(x)
            coarse = nn.functional.avg_pool2d(fine, 2)
            return self.fc(self.head(fine).mean((2, 3)) + self.head(coarse).mean((2, 3)))

    net, x = seeded(Pyramid).eval(), noise(1, 3, 64, 64)
    found = best_layer(net, x)
    assert found.name in {"head", "stem"}
    (named,) = HiResCAM(layer="head").explain(net, x, [0])
    assert "of its runs" in named.notes[0]


# --- dense outputs ---


class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.mix, self.head = trunk(), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        logits = self.head(self.mix(self.body(x)).relu())
        grown = nn.functional.interpolate(logits, size=x.shape[-2:], mode="bilinear")
        return {"out": grown.softmax(1), "aux": None}


def share(output):
    return output["out"][:, 2].mean((1, 2))


def test_a_dense_output_is_no_candidate_and_is_said_where_it_is_named():
    net, x = seeded(Segmenter).eval(), noise(1, 3, 32, 32)
    (found,) = GradCAM().explain(net, x, [share])
    assert found.layer.name == "mix"
    assert not found.layer.is_output
    assert not any("own output" in note for note in found.notes)
    (named,) = HiResCAM(layer="head").explain(net, x, [share])
    assert "the model's own output" in named.notes[0]
    assert "head" in {layer.name for layer in layers(net, x)}  # it can still be looked at


def test_a_classifier_that_also_returns_its_map_is_explained_by_the_map():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = trunk(), nn.Linear(8, 3)

        def forward(self, x):
            found = self.body(x)
            return self.fc(found.mean((2, 3))), found

    net, x = seeded(Both).eval(), noise(1, 3, 32, 32)
    (found,) = HiResCAM().explain(net, x, [lambda y: y[0][:, 1]])
    assert found.layer.name == "body"
    assert not found.notes


class Rejoined(nn.Module):
    """A block whose last part is given the block's input too, and adds it."""

    class Join(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.conv = nn.Conv2d(channels, channels, 1)

        def forward(self, before, x):
            return before + self.conv(x)

    def __init__(self, channels=8):
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1), nn.ReLU())
        self.join = self.Join(channels)

    def forward(self, x):
        return self.join(x, self.expand(x))


def test_what_joins_a_branch_to_the_trunk_is_on_the_trunk():
    net = seeded(lambda: nn.Sequential(trunk(), Rejoined(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)))
    x = noise(1, 3, 32, 32)
    found = probe(net.eval(), x, lambda y, _w: y[:, 1])
    assert not any(seen.beside for seen in found.all.values())  # as where the block itself adds its input
    assert best_layer(net, x, lambda y, _w: y[:, 1]).name == "1"


def test_an_activation_that_a_block_shares_in_place_is_no_branch():
    net, x = seeded(lambda: resnet18(num_classes=3)).eval(), noise(1, 3, 64, 64)
    found = probe(net, x, lambda y, _w: y[:, 1])
    beside = {name for name, seen in found.all.items() if seen.beside}
    assert "layer2.0.downsample" in beside
    assert not beside & {f"layer{k}{end}" for k in (1, 2, 3, 4) for end in ("", ".0", ".1")}
    assert best_layer(net, x, lambda y, _w: y[:, 1]).name == "layer4"


def test_of_widths_that_are_as_frequent_the_narrower_is_the_stream():
    widths = [("0.qkv", 24), ("0.norm", 8), ("0.wide", 24), ("0", 8), ("1.norm", 8), ("1.qkv", 24)]
    found = [Layer(name, "", Layout("tokens", (4, 4), width), 1.0) for name, width in widths]
    assert [layer.name for layer in _on_the_stream(found)] == ["0.norm", "0", "1.norm"]


def test_in_front_of_a_linear_score_of_a_pointwise_head_the_map_would_be_the_output():
    def raw(output):
        return output[:, 2].mean((1, 2))

    head = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    net, x = seeded(lambda: nn.Sequential(trunk(), head)).eval(), noise(1, 3, 32, 32)
    (named,) = HiResCAM(layer="1.2").explain(net, x, [raw])
    torch.testing.assert_close(named.values[0] * 64, net(x)[0, 2].detach() - head[3].bias[2].detach())
    assert "the model's own output" in named.notes[0]
    (found,) = HiResCAM().explain(net, x, [raw])
    assert found.layer.name == "0"
    assert not found.notes
    (soft,) = HiResCAM().explain(net, x, [lambda y: y.softmax(1)[:, 2].mean((1, 2))])
    assert soft.layer.name == "1.2"


def test_an_order_that_tells_each_cell_twice_is_none(monkeypatch):
    layout = Layout("tokens", (2, 2), 8)
    found = {"once": [2, 0, 3, 1], "twice": [2, 0, 3, 1] * 2, "one cell only": [1, 1, 1, 1]}
    monkeypatch.setattr("pellucid.models.layers.owners", lambda *_: found)
    guesses = {name: [layout] for name in found}
    orders = _reordered(nn.Identity(), noise(1, 3, 8, 8), guesses, dict.fromkeys(found))
    assert {name: reading.order for name, reading in orders.items()} == {"once": (2, 0, 3, 1)}
