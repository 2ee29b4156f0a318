"""Attention that is masked, pooled or written by torch itself: the map is the product of the matrices by definition."""

import itertools

import pytest
import timm
import torch
import torchvision
from torch import nn

from helpers.nets import noise, seeded
from pellucid.engine.attention import reading_attention
from pellucid.errors import MethodError
from pellucid.heatmaps import AttentionRelevance, AttentionRollout

sdpa = nn.functional.scaled_dot_product_attention


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_query_whose_keys_are_all_masked_weighs_nothing(kind):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 5, 4, requires_grad=True) for _ in "qkv")
    mask = torch.ones(5, 5, dtype=torch.bool)
    mask[3] = False
    given = mask if kind == "bool" else torch.zeros(5, 5).masked_fill(~mask, -torch.inf)
    plain = sdpa(q, k, v, attn_mask=given)
    with reading_attention() as found:
        out = sdpa(q, k, v, attn_mask=given)
    torch.testing.assert_close(out, plain)
    (weights,) = found.weights
    torch.testing.assert_close(weights.sum(-1), torch.tensor([1.0, 1, 1, 0, 1]).expand(2, 2, 5))
    slopes = [torch.autograd.grad(y.square().sum(), (q, k, v)) for y in (out, plain)]
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("first", "bias", "append", "other"), [*itertools.product([True, False], repeat=4)])
def test_torchs_multi_head_attention_answers_the_same_with_gradients_to_its_weights(first, bias, append, other):
    torch.manual_seed(0)
    sizes = {"kdim": 6, "vdim": 5} if other else {}
    net = nn.MultiheadAttention(
        8, 2, bias=bias, batch_first=first, add_bias_kv=append, add_zero_attn=append, **sizes
    ).eval()
    q, k, v = torch.randn(3, 5, 8), torch.randn(3, 4, sizes.get("kdim", 8)), torch.randn(3, 4, sizes.get("vdim", 8))
    q, k, v = (t if first else t.transpose(0, 1) for t in (q, k, v))
    hidden = torch.rand(5, 4) < 0.4
    hidden[:, 0] = False
    padded = torch.zeros(3, 4, dtype=torch.bool)
    padded[1, 3] = True
    for mask, padding, wanted, averaged in itertools.product(
        (None, hidden, torch.randn(6, 5, 4)), (None, padded), (True, False), (True, False)
    ):
        if mask is not None and mask.is_floating_point() and padding is not None:
            padding = torch.zeros(3, 4).masked_fill(padding, -torch.inf)
        options = {
            "attn_mask": mask, "key_padding_mask": padding, "need_weights": wanted, "average_attn_weights": averaged
        }  # fmt: skip
        plain, shown = net(q, k, v, **options)
        with reading_attention() as found:
            out, read = net(q, k, v, **options)
        torch.testing.assert_close(out, plain, atol=1e-5, rtol=1e-4)
        assert (read is None) == (shown is None)
        if shown is not None:
            torch.testing.assert_close(read, shown, atol=1e-5, rtol=1e-4)
        assert torch.autograd.grad(out.square().sum(), found.weights[0])[0].abs().sum() > 0


def test_what_cannot_be_written_out_is_refused():
    q = torch.randn(1, 2, 5, 4)
    with reading_attention(), pytest.raises(MethodError, match="answers otherwise when its weights are written out"):
        sdpa(q, q, q, dropout_p=0.5)


def test_relevance_of_a_network_of_torchs_own_attention_is_the_product_of_matrices():
    """`nn.MultiheadAttention` throughout: the weights that it returns beside its answer are not on the way to it."""
    net = seeded(lambda: torchvision.models.VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=3)).eval()
    nn.init.normal_(net.heads.head.weight, generator=torch.Generator().manual_seed(0))
    x = noise(1, 3, 16, 16)
    with torch.enable_grad(), reading_attention() as found:
        score = net(x)[0, 1]
    row = torch.zeros(17)
    row[0] = 1.0
    for w in reversed(found.weights):
        slope = torch.autograd.grad(score, w, retain_graph=True)[0]
        row = row + row @ (slope * w).relu().mean(1)[0].detach()
    relevance = AttentionRelevance().attribute(net, x, 1)
    assert relevance.sum() > 0
    torch.testing.assert_close(relevance.flatten(), row[1:])


def siglip(class_token):
    net = timm.create_model(
        "vit_tiny_patch16_224", global_pool="map", class_token=class_token, img_size=64, depth=2, num_classes=3
    )
    with torch.no_grad():
        net.attn_pool.q.weight *= 100  # so that it prefers some tokens clearly
        net.attn_pool.kv.weight *= 20
    return net.eval()


def matrices(net, x, relevant):
    """Each attention as one matrix, `relu(slope A)` for relevance."""
    with torch.enable_grad(), reading_attention() as found:
        score = net(x)[0, 1]
    weights = found.weights
    if not relevant:
        return [w.mean(1)[0].detach() for w in weights]
    slopes = torch.autograd.grad(score, weights)
    return [(g * w).relu().mean(1)[0].detach() for g, w in zip(slopes, weights, strict=True)]


METHODS = [(AttentionRollout(), 0.5), (AttentionRelevance(), 1.0)]


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize(("method", "share"), METHODS)
def test_a_pooling_query_is_where_the_map_starts(method, share, class_token):
    net, x = seeded(lambda: siglip(class_token)), noise(1, 3, 64, 64)
    *blocks, last = matrices(net, x, method.name == "attention-relevance")
    assert last.shape[0] == 1
    row = torch.zeros(16 + class_token)
    row[-last.shape[1] :] = last[0]
    for A in reversed(blocks):
        row = share * (row + row @ A)
    (found,) = method.explain(net, x, [1])
    torch.testing.assert_close(found.values.flatten(), row[class_token:])
    assert found.notes == [
        f"The map starts from the attention pooling at the end of the network: one query over {last.shape[1]} tokens."
    ]
    mean = type(method)(start="mean").explain(net, x, [1])[0]
    assert not mean.notes
    assert not torch.allclose(mean.values, found.values, rtol=1e-3)


@pytest.mark.parametrize(("method", "share"), METHODS)
def test_a_class_token_that_joins_late_keeps_a_part_for_itself(method, share):
    """CaiT: two last layers in which the class token alone asks, of itself and of all patches."""
    net = seeded(
        lambda: timm.models.cait.Cait(64, 16, embed_dim=24, depth=2, num_heads=2, num_classes=3, init_values=0.5)
    ).eval()
    nn.init.normal_(net.head.weight, generator=torch.Generator().manual_seed(0))
    x = noise(1, 3, 64, 64)
    *blocks, one, two = matrices(net, x, method.name == "attention-relevance")
    assert one.shape == two.shape == (1, 17)
    state = torch.zeros(17)
    state[0] = 1.0  # the class token, then the patches
    for A in (two, one):
        whole = torch.zeros(17, 17)
        whole[0] = A[0]
        kept = torch.diag(torch.tensor([share, *[1.0] * 16]))  # the patches are not touched
        state = state @ (kept + share * whole)
    row = state[1:]
    for A in reversed(blocks):
        row = share * (row + row @ A)
    torch.testing.assert_close(method.attribute(net, x, 1).flatten(), row)


def test_keys_of_another_grid_are_refused():
    class Reduced(nn.Module):
        """Attention over keys pooled two by two, then among all: what the first mixed is no square matrix."""

        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 2)

        def forward(self, x):
            cells = self.embed(x)
            small = nn.functional.avg_pool2d(cells, 2).flatten(2).mT[:, None]
            tokens = cells.flatten(2).mT[:, None]
            tokens = sdpa(tokens, small, small)
            return self.head(sdpa(tokens, tokens, tokens)[:, 0].mean(1))

    with pytest.raises(MethodError, match="between tokens of two kinds"):
        AttentionRollout().attribute(seeded(Reduced).eval(), noise(1, 3, 16, 16), 0)
