"""Attention read at function level equals the weights by hand; rollout equals the product of whole matrices."""

import pytest
import torch
from torch import nn

from helpers.nets import noise, seeded
from pellucid.engine.attention import reading_attention
from pellucid.errors import MethodError
from pellucid.heatmaps import AttentionRelevance, AttentionRollout
from pellucid.models.suite_nets import VideoViT
from video.nets import Attention, Divided, Factorised

CLIP = (1, 3, 4, 16, 16)


@pytest.mark.parametrize("way", ["sdpa", "softmax"])
def test_weights_are_those_of_the_formula(way):
    torch.manual_seed(0)
    layer, x = Attention(8, 2, way), torch.randn(3, 5, 8)
    q, k, _ = layer.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
    with reading_attention() as found:
        out = layer(x)
    (weights,) = found.weights
    torch.testing.assert_close(weights, (torch.einsum("bhqd,bhkd->bhqk", q, k) / 2).softmax(-1))
    torch.testing.assert_close(out, layer(x))


@pytest.mark.parametrize("layer", ["attention", "encoder"])
@pytest.mark.parametrize("grad", [True, False])
def test_torchs_own_attention_is_read_and_answers_the_same(layer, grad):
    """Also where torch would take its fused path, which calls no softmax."""
    torch.manual_seed(0)
    net = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    if layer == "encoder":
        net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(2, 5, 8)
    call = (lambda: net(x, x, x, need_weights=False)[0]) if layer == "attention" else (lambda: net(x))
    with torch.set_grad_enabled(grad):
        plain = call()
        with reading_attention() as found:
            out = call()
        torch.testing.assert_close(out, plain, rtol=1e-5, atol=1e-6)
    (weights,) = found.weights
    assert weights.shape == (2, 2, 5, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 5))


def test_masks_causality_scale_and_groups():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8)
    full = [t.repeat_interleave(2, 1) for t in (k, v)]
    mask = torch.rand(6, 6) < 0.7
    mask.fill_diagonal_(True)
    sdpa = nn.functional.scaled_dot_product_attention
    for given, options in (
        ((q, *full), {"attn_mask": mask}),
        ((q, *full), {"attn_mask": torch.randn(6, 6)}),
        ((q, *full), {"is_causal": True, "scale": 0.3}),
        ((q, k, v), {"enable_gqa": True}),
    ):
        with reading_attention() as found:
            out = sdpa(*given, **options)
        torch.testing.assert_close(out, sdpa(*given, **options), rtol=1e-4, atol=1e-5)
        assert len(found.weights) == 1


def test_joint_rollout_is_the_product_of_matrices():
    net, x = (
        seeded(lambda: VideoViT(classes=2, frames=4, side=16, width=16, depth=2, heads=2, tubelet=(2, 8, 8))).eval(),
        noise(*CLIP),
    )
    with torch.no_grad(), reading_attention() as found:
        net(x)
    product = torch.eye(9)
    for weights in found.weights:
        product = (weights[0].mean(0) + torch.eye(9)) / 2 @ product
    rolled = AttentionRollout().attribute(net, x, 0)
    assert rolled.shape == (1, 2, 2, 2)
    torch.testing.assert_close(rolled.flatten(), product[0, 1:])
    mean = AttentionRollout(start="mean").attribute(net, x, 0)
    torch.testing.assert_close(mean.flatten(), product[1:, 1:].mean(0))


def whole_matrices(net, x, mix):
    """Each attention of the divided net as one matrix over (class token, all cells), by its definition."""
    frames, places, p = 4, 4, net.token.shape[1]
    with torch.enable_grad(), reading_attention() as found:
        y = net(x)
    size = p + frames * places
    matrices = []
    for weights, kind in zip(found.weights, ["time", "space"] * 2, strict=True):
        W, A = mix(weights, y), torch.zeros(size, size)
        for t in range(frames):
            for s in range(places):
                q = p + t * places + s
                if kind == "time":
                    for u in range(frames):
                        A[q, p + u * places + s] = W[s, t, u]
                    continue
                A[q, :p] = W[t, p + s, :p]
                for v in range(places):
                    A[q, p + t * places + v] = W[t, p + s, p + v]
                    for c in range(p):
                        A[c, p + t * places + v] = W[t, c, p + v] / frames
            if kind == "space":
                for c in range(p):
                    A[c, :p] += W[t, c, :p] / frames
        matrices.append((kind, A))
    return matrices, p


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("way", ["sdpa", "softmax"])
def test_divided_rollout(way, class_token):
    net, x = seeded(lambda: Divided(way=way, class_token=class_token)).eval(), noise(*CLIP)
    matrices, p = whole_matrices(net, x, lambda w, _: w.detach().mean(1))
    row = torch.zeros(p + 16)
    row[:p] = 1.0
    if not p:
        row[:] = 1 / 16
    for kind, A in reversed(matrices):
        if kind == "time":  # the class token sits out the attention over time
            A = A + torch.diag(torch.tensor([1.0] * p + [0.0] * 16))
        row = (row + row @ A) / 2
    rolled = AttentionRollout().attribute(net, x, 0)
    assert rolled.shape == (1, 4, 2, 2)
    torch.testing.assert_close(rolled.flatten(), row[p:])


def test_relevance_weighs_attention_by_its_gradient():
    net, x = seeded(Divided).eval(), noise(*CLIP)
    matrices, p = whole_matrices(
        net, x, lambda w, y: (torch.autograd.grad(y[0, 1], w, retain_graph=True)[0] * w).relu().mean(1).detach()
    )
    row = torch.zeros(p + 16)
    row[:p] = 1.0
    for _, A in reversed(matrices):
        row = row + row @ A
    torch.testing.assert_close(AttentionRelevance().attribute(net, x, 1).flatten(), row[p:])


def test_factorised_rollout_weighs_frames_then_places():
    net, x = seeded(Factorised).eval(), noise(*CLIP)
    with torch.no_grad(), reading_attention() as found:
        net(x)
    frames = torch.eye(5)
    for w in found.weights[2:]:
        frames = (w[0].mean(0) + torch.eye(5)) / 2 @ frames
    rolled = AttentionRollout().attribute(net, x, 0)
    for t in range(4):
        places = torch.eye(5)
        for w in found.weights[:2]:
            places = (w[t].mean(0) + torch.eye(5)) / 2 @ places
        torch.testing.assert_close(rolled[0, t].flatten(), frames[0, 1 + t] * places[0, 1:])


def test_batch_is_the_loop_and_several_targets_are_each_alone():
    net, x = seeded(Divided).eval(), noise(3, *CLIP[1:])
    for m in (AttentionRollout(), AttentionRelevance()):
        found = m.explain(net, x, [0, 2])
        for k, target in enumerate((0, 2)):
            for n in range(3):
                torch.testing.assert_close(found[k].values[n : n + 1], m.attribute(net, x[n : n + 1], target))


def test_windows_and_networks_without_attention_are_refused():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.attend, self.fc = (
                nn.Conv3d(3, 8, (1, 4, 4), (1, 4, 4)),
                Attention(8, 2, "sdpa"),
                nn.Linear(8, 2),
            )

        def forward(self, x):
            cells = self.embed(x).flatten(2).mT
            return self.fc(
                self.attend(cells.unflatten(1, (-1, 8)).flatten(0, 1)).mean(1).unflatten(0, (len(x), -1)).mean(1)
            )

    for net in (seeded(Windows), nn.Sequential(nn.Conv3d(3, 2, 4), nn.AdaptiveAvgPool3d(1), nn.Flatten())):
        with pytest.raises(MethodError, match="use grad-cam"):
            AttentionRollout().attribute(net.eval(), noise(*CLIP), 0)
    with pytest.raises(MethodError, match="no class token"):
        AttentionRollout(start="class").attribute(seeded(lambda: Divided(class_token=False)).eval(), noise(*CLIP), 0)
