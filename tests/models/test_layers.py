from copy import deepcopy
from dataclasses import replace

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from helpers.nets import Sevens, Shuffled, noise, pooled, random_net, seeded
from helpers.oracles import activation_and_gradient
from pellucid.errors import LayerError, TargetError
from pellucid.heatmaps import EigenCAM, GradCAM, HiResCAM, Saliency
from pellucid.models.layers import best_layer, describe, finer_layers, layers
from pellucid.models.layouts import Layout, readings
from pellucid.models.sources import load
from pellucid.models.targets import Unit

SQUARE, WIDE, CLIP, SIGNAL = (224, 224), (96, 160), (16, 112, 112), (400,)


# --- reading a shape ---


@pytest.mark.parametrize(
    ("shape", "space", "expected"),
    [
        ((1, 512, 7, 7), SQUARE, [("channels-first", (7, 7), 512, 0)]),
        ((1, 7, 7, 512), SQUARE, [("channels-last", (7, 7), 512, 0)]),
        ((1, 8, 8, 8), SQUARE, [("channels-first", (8, 8), 8, 0), ("channels-last", (8, 8), 8, 0)]),
        ((1, 64, 3, 5), WIDE, [("channels-first", (3, 5), 64, 0)]),
        ((1, 64, 5, 3), WIDE, []),
        ((1, 64, 7, 6), SQUARE, []),
        ((1, 512, 1, 1), SQUARE, []),
        ((1, 3, 300, 300), SQUARE, []),
        ((1, 64, 4, 14, 14), CLIP, [("channels-first", (4, 14, 14), 64, 0)]),
        ((1, 4, 14, 14, 64), CLIP, [("channels-last", (4, 14, 14), 64, 0)]),
        ((1, 64, 50), SIGNAL, [("channels-first", (50,), 64, 0), ("channels-last", (64,), 50, 0)]),
        ((1, 10), SQUARE, []),
        ((1, 12, 197, 64), SQUARE, []),
    ],
)
def test_readings_of_pictures(shape, space, expected):
    found = [(r.kind, r.grid, r.channels, r.prefix) for r in readings(shape, space)]
    assert found == expected
    assert all(r.fits(shape) and r.shape(1) == shape for r in readings(shape, space))


@pytest.mark.parametrize(
    ("shape", "space", "first"),
    [
        ((1, 196, 192), SQUARE, ((14, 14), 0)),
        ((1, 197, 192), SQUARE, ((14, 14), 1)),
        ((1, 198, 192), SQUARE, ((14, 14), 2)),
        ((1, 261, 192), (256, 256), ((16, 16), 5)),
        ((1, 61, 32), WIDE, ((6, 10), 1)),
    ],
)
def test_readings_of_tokens_begin_with_the_likeliest(shape, space, first):
    reading = next(readings(shape, space))
    assert (reading.kind, reading.grid, reading.prefix) == ("tokens", *first)


def test_layouts_move_every_value_to_its_place():
    N, C, H, W = 2, 3, 4, 5
    truth = torch.arange(N * C * H * W).reshape(N, C, H, W)
    order = torch.randperm(H * W, generator=torch.Generator().manual_seed(0))
    tokens = torch.full((N, 2 + H * W, C), -1)
    for i in range(H * W):
        tokens[:, 2 + order[i]] = truth[:, :, i // W, i % W]
    for layout, activation in (
        (Layout("channels-first", (H, W), C), truth),
        (Layout("channels-last", (H, W), C), truth.permute(0, 2, 3, 1)),
        (Layout("tokens", (H, W), C), truth.flatten(2).mT),
        (Layout("tokens", (H, W), C, 2, tuple(order.tolist())), tokens),
    ):
        assert torch.equal(layout.to_map(activation), truth)
        with pytest.raises(LayerError, match="give inputs of one size"):
            layout.to_map(activation[:, :-1])


# --- the layer that is found ---

KNOWN = {
    "resnet18": ((128, 128), "layer4", "channels-first", (4, 4), 0),
    "convnext_atto": ((96, 160), "norm_pre", "channels-first", (3, 5), 0),
    "deit_tiny_distilled_patch16_224": (SQUARE, "blocks.11.norm1", "tokens", (14, 14), 2),
    "vit_tiny_patch16_224": (SQUARE, "blocks.11.norm1", "tokens", (14, 14), 1),
    "pit_xs_224": (SQUARE, "transformers.2.blocks.3.norm1", "tokens", (7, 7), 1),
    "vit_tiny_r_s16_p8_224": (SQUARE, "blocks.11.norm1", "tokens", (7, 7), 1),
    "swin_tiny_patch4_window7_224": (SQUARE, "norm", "channels-last", (7, 7), 0),
    "mixer_s32_224": (SQUARE, "norm", "tokens", (7, 7), 0),
    "hiera_tiny_224": (SQUARE, "blocks.11", "tokens", (7, 7), 0),
}
_SLOW = {"swin_tiny_patch4_window7_224", "hiera_tiny_224"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in _SLOW)) for n in KNOWN])
def test_the_layer_of_known_networks(name):
    size, layer, kind, grid, prefix = KNOWN[name]
    net = load(f"timm:{name}", random_weights=True).module
    found = best_layer(net, noise(1, 3, *size))
    assert (found.name, found.layout.kind, found.layout.grid, found.layout.prefix) == (layer, kind, grid, prefix)
    assert found.coverage == 1
    assert found.layout.order is None


def small_vit(**options):
    options = {"img_size": 96, "patch_size": 16, "embed_dim": 48, "depth": 3, "num_heads": 2, **options}
    return seeded(lambda: VisionTransformer(num_classes=5, **options)).eval()


@pytest.mark.parametrize(
    ("options", "size", "layer", "grid", "prefix"),
    [
        ({}, (96, 96), "blocks.2.norm1", (6, 6), 1),
        ({"reg_tokens": 4}, (96, 96), "blocks.2.norm1", (6, 6), 5),
        ({"reg_tokens": 4, "class_token": False, "global_pool": "avg"}, (96, 96), "norm", (6, 6), 4),
        ({"class_token": False, "global_pool": "avg"}, (96, 96), "norm", (6, 6), 0),
        ({"img_size": (64, 112)}, (64, 112), "blocks.2.norm1", (4, 7), 1),
    ],
)
def test_the_tokens_of_vision_transformers(options, size, layer, grid, prefix):
    found = best_layer(small_vit(**options), noise(1, 3, *size))
    assert (found.name, found.layout.grid, found.layout.prefix) == (layer, grid, prefix)


def test_the_choice_is_behind_the_last_layer_with_live_cells():
    """The truth by ordinary gradients: behind the layer found, the cells of no layer carry gradient."""
    net, x = small_vit(), noise(1, 3, 96, 96)
    chosen = best_layer(net, x).name
    for layer in ("blocks.1", "blocks.2.norm1", "blocks.2", "norm"):
        _, G = activation_and_gradient(net, layer, x, lambda y: y[:, 0])
        alive = bool(G[:, 1:].abs().sum(-1).ne(0).all())
        assert alive == (layer in ("blocks.1", chosen))


def test_the_choice_does_not_hang_on_the_picture_and_is_made_once():
    net, x = small_vit(), noise(2, 3, 96, 96)
    runs = []
    net.register_forward_hook(lambda *_: runs.append(1))
    found = best_layer(net, x)
    assert runs
    runs.clear()
    assert best_layer(net, torch.zeros_like(x)) == found
    assert best_layer(net, noise(5, 3, 96, 96, seed=9)) == found
    assert not runs


FOUND = ["test_convnext", "test_efficientnet", "test_resnet", "test_vit", "mobilevit_xxs", "crossvit_9_240"]


@pytest.mark.parametrize("name", FOUND)
def test_layers_that_were_found_read_as_they_do_when_asked_for_by_name(name):
    """In a copy that has found none; and in the model itself nothing runs again for it."""
    net, size = load(f"timm:{name}", random_weights=True).module, 240 if name == "crossvit_9_240" else 128
    x, fresh, runs = noise(1, 3, size, size), deepcopy(net), []

    def score(output, _watched):
        return output.sum()

    finer = finer_layers(net, x, score, key="sum")
    net.register_forward_hook(lambda *_: runs.append(1))
    best = best_layer(net, x, score, key="sum")
    assert not runs, "one search finds them all"
    assert best == best_layer(fresh, x, score, key="sum")
    fresh = deepcopy(fresh)
    for layer in (best, *finer):
        known = describe(net, x, layer.name, score, key="sum")
        assert replace(known, coverage=0.0) == replace(layer, coverage=0.0)
        assert replace(known, coverage=0.0) == replace(describe(fresh, x, layer.name, score, key="sum"), coverage=0.0)
    assert not runs


# --- proof ---


class Headed(nn.Module):
    """Attention whose keys (heads, tokens, width) look like a picture: 16 tokens of width 16."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 32, 16, 16)
        self.qkv, self.key, self.score = nn.Linear(32, 96), nn.Identity(), nn.Identity()
        self.join, self.fc = nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x):
        t = self.embed(x).flatten(2).mT
        q, k, v = self.qkv(t).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        a = self.score((q @ self.key(k).mT).softmax(-1))
        t = t + self.join((a @ v).transpose(1, 2).flatten(2))
        return self.fc(t.mean(1))


def test_heads_and_scores_are_not_taken_for_pictures():
    net, x = seeded(Headed).eval(), noise(1, 3, 64, 64)
    assert any(r.grid == (16, 16) for r in readings((1, 2, 16, 16), (64, 64)))  # the shape alone would do
    found = {layer.name: layer.layout for layer in layers(net, x)}
    assert {"key", "score"}.isdisjoint(found)
    assert (found["embed"].kind, found["embed"].grid) == ("channels-first", (4, 4))
    assert (found["join"].kind, found["join"].grid) == ("tokens", (4, 4))
    with pytest.raises(LayerError, match="does not read as a picture"):
        GradCAM(layer="key").attribute(net, x, 0)


def test_a_transposed_picture_is_no_picture():
    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.turned, self.fc = nn.Conv2d(3, 4, 4, 4), nn.Identity(), nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(self.turned(self.body(x).permute(0, 3, 2, 1)).mean((1, 2)))

    names = [layer.name for layer in layers(seeded(Transposed).eval(), noise(1, 3, 32, 32))]
    assert names == ["body"]


def permutation(cells, seed):
    return torch.randperm(cells, generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize(
    ("grid", "patch", "prefix", "seed"), [((4, 4), 8, 0, 0), ((4, 6), 8, 2, 1), ((8, 8), 4, 1, 2), ((3, 7), 8, 0, 3)]
)
def test_tokens_in_another_order_are_found_and_put_back(grid, patch, prefix, seed):
    order = permutation(grid[0] * grid[1], seed)
    net = seeded(lambda: Shuffled(grid, patch, order, prefix)).eval()
    size = (grid[0] * patch, grid[1] * patch)
    found = best_layer(net, noise(1, 3, *size))
    assert found.name == "mlp"
    assert found.layout == Layout("tokens", grid, 8, prefix, tuple(order))
    # Grad-CAM of class 0 is by hand the positive part of each patch's mean, over the number of cells
    x = noise(2, 3, *size, seed=1)
    means = nn.functional.avg_pool2d(x.mean(1), patch)
    torch.testing.assert_close(GradCAM().attribute(net, x, 0), means.relu() / means[0].numel())
    # and an object is where it is
    for row, column in ((0, grid[1] - 1), (grid[0] - 1, 0), (1, 2)):
        x = torch.zeros(1, 3, *size)
        x[..., row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = 1
        assert GradCAM().attribute(net, x, 0)[0].nonzero().tolist() == [[row, column]]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [(32, 96), (96, 32), (64, 64)])
def test_an_object_is_where_it_is_whatever_the_layout(size, channels_last):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.act, self.fc = nn.Conv2d(3, 4, 8, 8), nn.ReLU(), nn.Linear(4, 2)
            with torch.no_grad():
                self.embed.weight[0], self.embed.bias[0] = 1 / 192, 0
                self.fc.weight[1] = torch.tensor([1.0, 0, 0, 0])

        def forward(self, x):
            f = self.embed(x)
            f = self.act(f.permute(0, 2, 3, 1) if channels_last else f)
            return self.fc(f.mean((1, 2) if channels_last else (2, 3)))

    net, x = seeded(Net).eval(), torch.zeros(1, 3, *size)
    rows, columns = size[0] // 8, size[1] // 8
    x[..., 8:16, -16:-8] = 1
    expected = torch.zeros(1, rows, columns)
    expected[0, 1, -2] = 1 / (rows * columns)
    torch.testing.assert_close(GradCAM(layer="act").attribute(net, x, 1), expected)


# --- what the user names ---


def test_a_layer_behind_the_last_mixing_is_refused_and_the_right_one_named():
    net, x = small_vit(), noise(1, 3, 96, 96)
    for layer in ("blocks.2", "norm", "blocks.2.mlp.fc2"):
        with pytest.raises(LayerError, match=rf"'{layer}' cannot explain.*use 'blocks\.2\.norm1'"):
            HiResCAM(layer=layer).attribute(net, x, 1)
    assert EigenCAM(layer="blocks.2").attribute(net, x).any()  # reads no gradient


@pytest.mark.parametrize(
    ("name", "hint"),
    [("layer5", "'layer4'"), ("layer4.1.convv2", r"'layer4\.1\.conv2'"), ("", "no layer ''"), ("zzz", "similar name")],
)
def test_a_wrong_name_gets_near_misses(name, hint):
    net, x = random_net("resnet18"), noise(1, 3, 64, 64)
    for attempt in (
        lambda: describe(net, x, name),
        lambda: GradCAM(layer=name).attribute(net, x, 1),
        lambda: Saliency().attribute(net, x, Unit(name, 0)),
    ):
        with pytest.raises(LayerError, match=hint):
            attempt()


def test_layers_that_cannot_be_explained_say_why():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc, self.unused = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 2), nn.Conv2d(1, 1, 1)

        def forward(self, x):
            return self.fc(self.body(x).mean((2, 3)))

    net, x = seeded(Net).eval(), noise(1, 3, 32, 32)
    with pytest.raises(LayerError, match="'unused' never ran"):
        GradCAM(layer="unused").attribute(net, x, 0)
    with pytest.raises(LayerError, match=r"'fc'.*does not read as a picture"):
        GradCAM(layer="fc").attribute(net, x, 0)
    net.fc.weight.data.zero_()
    with pytest.raises(LayerError, match="zero at every layer"):
        GradCAM().attribute(seeded(Net).apply(lambda m: m.weight.data.zero_() if isinstance(m, nn.Linear) else None), x)


def test_no_layer_at_all_points_to_methods_without_one():
    net = nn.Sequential(nn.Flatten(), seeded(lambda: nn.Linear(3 * 64, 4)))
    with pytest.raises(LayerError, match="needs no layer"):
        GradCAM().attribute(net, noise(1, 3, 8, 8), 0)
    assert Saliency().attribute(net, noise(1, 3, 8, 8), 0).any()


# --- units ---


@pytest.mark.parametrize("position", [None, (2, 3), (0, 0)])
def test_units_by_hand(position):
    net, x = seeded(Sevens).eval(), noise(2, 3, 32, 32)
    deep = net.body[2](net.body[1](net.body[0](x))).detach()

    def score(y):
        unit = y[:, 4]
        return unit.mean((1, 2)) if position is None else unit[:, position[0], position[1]]

    front = nn.Sequential(*net.body[:3])
    A, G = activation_and_gradient(front, "1", x, score)
    found = HiResCAM(layer="body.1").attribute(net, x, Unit("body.2", 4, position))
    torch.testing.assert_close(found, (A * G).sum(1))
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(front(leaf)).sum(), leaf)
    torch.testing.assert_close(Saliency(absolute=False).attribute(net, x, Unit("body.2", 4, position)), gradient)
    bound = Unit("body.2", 4, position).bind(net, x, None)
    torch.testing.assert_close(bound.score(None, {"body.2": deep}), score(deep))


def test_units_in_tokens_count_cells_and_not_tokens():
    net, x = small_vit(), noise(1, 3, 96, 96)
    tokens = {}
    hook = net.blocks[1].register_forward_hook(lambda _m, _a, y: tokens.update(y=y.detach()))
    net(x)
    hook.remove()
    bound = Unit("blocks.1", 7, (2, 5)).bind(net, x, None)
    assert bound.score(None, {"blocks.1": tokens["y"]}).tolist() == [float(tokens["y"][0, 1 + 2 * 6 + 5, 7])]


def test_a_unit_is_explained_by_the_layers_before_it():
    net, x = pooled(), noise(1, 3, 32, 32)
    unit = Unit("2", 1, (3, 3))
    with pytest.raises(LayerError, match=r"'3' cannot explain this target.*use '2'"):
        HiResCAM(layer="3").attribute(net, x, unit)
    # a channel's mean is a mean over its own layer, so that layer explains it: its map is the channel's activation
    A = net[:3](x).detach()
    torch.testing.assert_close(HiResCAM().attribute(net, x, Unit("2", 1)), A[:, 1] / 64)
    nested, y = seeded(Sevens).eval(), noise(2, 3, 32, 32)  # `body` ends with `body.3`, and returns the same
    found = HiResCAM().explain(nested, y, [Unit("body.3", 2)])[0]
    assert found.layer.name == "body.3"
    torch.testing.assert_close(found.values, nested.body(y).detach()[:, 2] / 64)
    with pytest.raises(LayerError, match=r"'body' cannot explain.*use 'body\.3'"):
        HiResCAM(layer="body").attribute(nested, y, Unit("body.3", 2))
    # of a unit at one place in its own layer only its own value counts
    expected = torch.zeros(1, 8, 8)
    expected[0, 3, 3] = A[0, 1, 3, 3]
    torch.testing.assert_close(HiResCAM(layer="2").attribute(net, x, unit), expected)


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        (Unit("2", 6), "6 channels; there is no channel 6"),
        (Unit("2", -1), "no channel -1"),
        (Unit("2", 0, (8, 0)), r"no position \(8, 0\)"),
        (Unit("2", 0, (1,)), r"no position \(1,\)"),
    ],
)
def test_units_out_of_range(unit, message):
    with pytest.raises(TargetError, match=message):
        GradCAM(layer="1").attribute(pooled(), noise(1, 3, 32, 32), unit)


# --- the zoo ---

# fmt: off
ZOO = [
    "test_convnext", "test_efficientnet", "test_resnet", "test_vit", "resnetv2_18", "mobilevit_xxs",
    "edgenext_xx_small", "coat_lite_tiny", "levit_128s", "xcit_nano_12_p8_224", "pvt_v2_b0", "repghostnet_050",
    "regnetx_002", "ghostnet_050", "lcnet_035", "rexnet_100", "visformer_tiny", "convit_tiny", "cait_xxs24_224",
    "crossvit_9_240", "dla46_c", "efficientformerv2_s0", "fastvit_t8", "mixer_s32_224", "gmlp_s16_224",
    "poolformer_s12", "swiftformer_xs", "tiny_vit_5m_224", "vit_relpos_small_patch16_224", "eva02_tiny_patch14_224",
]
# fmt: on


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ZOO if timm.is_model(n)])
def test_a_layer_is_found_on_small_members_of_many_families(name):
    model = load(f"timm:{name}", random_weights=True)
    size = model.preprocess.input_size
    x = noise(1, 3, *size)
    found = best_layer(model.module, x)
    assert all(1 < cells < side for cells, side in zip(found.layout.grid, size, strict=True))
    assert found.coverage >= 0.7
    # the proof once more, with other pictures: an object at either side moves the cells of that side most
    layer, moved = describe(model.module, x, found.name), []
    for rows, columns in ((slice(0, size[0] // 4),) * 2, (slice(-(size[0] // 4), None),) * 2):
        other = x.clone()
        other[..., rows, columns] = noise(1, 3, *size, seed=1)[..., rows, columns]
        a, b = (
            layer.layout.to_map(activation_and_gradient(model.module, found.name, v, lambda y: y[0].sum())[0])
            for v in (x, other)
        )
        change = (a - b).square().sum(1)[0]
        places = torch.arange(change.shape[0]).float()
        moved.append(float((change.sum(1) * places).sum() / change.sum()))
    assert moved[0] < moved[1]
