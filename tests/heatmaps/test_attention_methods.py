"""Methods on attention against the papers' formulas, written out over a vision transformer that is written out too."""

import pytest
import torch
from torch import nn

from helpers.nets import noise, seeded
from pellucid.errors import MethodError
from pellucid.heatmaps import get_method
from pellucid.testing import check_method

NAMES = ["raw-attention", "transformer-attribution", "legrad", "beyond-intuition", "transition-attention"]


class Block(nn.Module):
    def __init__(self, width, heads, normed):
        super().__init__()
        self.heads, self.seen = heads, None
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width) if normed else nn.Identity()

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        self.seen = (3 * q @ k.transpose(-2, -1)).softmax(-1)
        self.out = (self.seen @ v).transpose(1, 2).reshape(n, t, d)
        self.after = x + self.proj(self.out)
        return self.after


class ViT(nn.Module):
    """Patches of 4 x 4 of a picture of 8 x 12: six tokens, and a class token or none."""

    def __init__(self, depth=3, heads=2, width=8, classes=3, pool="class", normed=True):
        super().__init__()
        self.embed, self.pool = nn.Conv2d(3, width, 4, 4), pool
        self.first = nn.Parameter(torch.randn(1, 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, normed) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def read(self, tokens):
        return self.head(tokens[:, 0] if self.pool == "class" else tokens.mean(1))

    def forward(self, x):
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        if self.pool == "class":
            tokens = torch.cat([self.first.expand(len(x), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.read(tokens)


def net_of(**options):
    return seeded(lambda: ViT(**options)).eval()


X = noise(1, 3, 8, 12, seed=3)


def attentions(net, x, target):
    """Attentions and the score's gradients to them, `(heads, L, L)` each."""
    score = net(x)[:, target].sum()
    weights = [b.seen for b in net.blocks]
    return [w[0].detach() for w in weights], [g[0] for g in torch.autograd.grad(score, weights)]


def last_gain(net, x, target, steps):
    """The gradient to the last attention, averaged at midpoints of the way from zero."""
    return sum(attentions(net, x * (k + 0.5) / steps, target)[1][-1] for k in range(steps)) / steps


def on_grid(rows, pool):
    """The class token's row, or the mean of all, without the class token's column."""
    row = rows[0, 1:] if pool == "class" else rows.mean(0)
    return row.reshape(1, 2, 3)


def test_raw_attention_is_the_class_tokens_row_head_by_head():
    net = net_of()
    weights, _ = attentions(net, X, 0)
    (found,) = get_method("raw-attention").explain(net, X, [0])
    torch.testing.assert_close(found.values, on_grid(weights[-1].mean(0), "class"))
    for head in (0, 1):
        expected = on_grid(weights[1][head], "class")
        torch.testing.assert_close(get_method("raw-attention", layer=1, head=head).attribute(net, X, 0), expected)
        torch.testing.assert_close(found.extras["heads"][:, head], on_grid(weights[-1][head], "class"))


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_transition_attention_is_the_chain_of_states_times_the_gain(pool):
    net = net_of(pool=pool)
    (a, b, c), _ = attentions(net, X, 1)
    identity = torch.eye(c.shape[-1])
    states = c.mean(0) @ (b.mean(0) + identity)  # a, one third of the attentions, is left out
    gain = last_gain(net, X, 1, 7).clamp(min=0).mean(0)
    found = get_method("transition-attention", steps=7)
    torch.testing.assert_close(found.attribute(net, X, 1), on_grid(states * gain, pool))
    whole = states @ (a.mean(0) + identity)
    found = get_method("transition-attention", steps=7, first=0)
    torch.testing.assert_close(found.attribute(net, X, 1), on_grid(whole * gain, pool))


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_beyond_intuition_is_perception_times_feedback(pool):
    net = net_of(pool=pool)
    weights, slopes = attentions(net, X, 2)
    size = weights[0].shape[-1]
    perceived = torch.eye(size)
    for w, g in zip(weights, slopes, strict=True):  # 3 // 4: none is left out
        worth = torch.stack([(w[h].T @ g[h]).abs().mean() for h in range(2)])
        mixed = sum(worth[h] / worth.sum() * w[h] for h in range(2))
        perceived = perceived + mixed @ perceived
    gain = last_gain(net, X, 2, 5).clamp(min=0).mean(0)
    found = get_method("beyond-intuition", steps=5).attribute(net, X, 2)
    torch.testing.assert_close(found, on_grid(perceived * gain, pool))


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_legrad_asks_the_head_about_each_layer_in_one_pass(pool):
    net = net_of(pool=pool)
    net(X)
    prefix = 1 if pool == "class" else 0
    each = []
    for block in net.blocks:
        (slope,) = torch.autograd.grad(net.read(block.after)[0, 1], block.seen, retain_graph=True)
        each.append(slope[0].clamp(min=0).mean((0, 1))[prefix:].reshape(1, 2, 3))
    (found,) = get_method("legrad").explain(net, X, [1])
    torch.testing.assert_close(found.values, sum(each) / 3)
    assert (found.cost.forwards, found.cost.backwards) == (2, 1)
    torch.testing.assert_close(get_method("legrad", first=1).attribute(net, X, 1), (each[1] + each[2]) / 2)


def led_back(layer, x, relevance):
    """`R_j = sum_k R_k (x_j w_jk)+ / sum_i (x_i w_ik)+`, term by term."""
    parts = (x[..., None, :] * layer.weight).clamp(min=0)
    return (parts / (parts.sum(-1, keepdim=True) + 1e-6) * relevance[..., None]).sum(-2)


def test_transformer_attribution_is_rollout_of_relevance_by_the_papers_rules():
    """The last layer, taken apart by hand: head, sum, projection, half of a product; the first adds nothing."""
    net = net_of(depth=2, normed=False)
    for weight in net.blocks[0].proj.parameters():
        weight.data.zero_()
    _, (_, slope) = attentions(net, X, 1)
    block, start = net.blocks[1], net.embed(X).flatten(2).transpose(1, 2)
    with torch.no_grad():
        before = torch.cat([net.first, start], 1)
        out, taken = block.out, block.proj(block.out)
        one = torch.zeros(1, 3)
        one[0, 1] = 1
        relevance = torch.zeros_like(before)
        relevance[:, 0] = led_back(net.head, block.after[:, 0], one)
        parts = [relevance * t / block.after for t in (before, taken)]
        totals = torch.stack([p.sum() for p in parts])
        mine = parts[1] * totals[1].abs() / totals.abs().sum() * totals.sum() / totals[1]
        mine = led_back(block.proj, out, mine).reshape(1, 7, 2, 4).transpose(1, 2)
        values = block.qkv(before).reshape(1, 7, 3, 2, 4).permute(2, 0, 3, 1, 4)[2]
        mixed = block.seen @ values
        of_attention = block.seen * ((mine / mixed) @ values.transpose(-2, -1)) / 2
    expected = (slope * of_attention[0]).relu().mean(0)
    found = get_method("transformer-attribution").attribute(net, X, 1)
    torch.testing.assert_close(found, on_grid(expected, "class"), rtol=1e-3, atol=1e-7)
    assert found.max() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_torchs_own_attention_is_read_like_one_written_out(name):
    """`nn.MultiheadAttention` with the same weights gives the same map."""

    class Own(Block):
        def forward(self, x):
            h = self.norm(x)
            return x + self.mha(h, h, h, need_weights=True)[0]

    net, other = net_of(), net_of()
    for block in other.blocks:
        block.__class__ = Own
        block.mha = nn.MultiheadAttention(8, 2, batch_first=True)
        with torch.no_grad():  # torch scales by 1/2 where the other takes 3
            scale = torch.ones(24, 1)
            scale[:8] = 6
            block.mha.in_proj_weight.copy_(block.qkv.weight * scale)
            block.mha.in_proj_bias.copy_(block.qkv.bias * scale[:, 0])
            block.mha.out_proj.load_state_dict(block.proj.state_dict())
    other.eval()
    torch.testing.assert_close(other(X), net(X))
    method = get_method(name)
    torch.testing.assert_close(method.attribute(other, X, 0), method.attribute(net, X, 0), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_networks_without_attention_are_refused(name):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    with pytest.raises(MethodError, match="runs no attention that can be read"):
        get_method(name).attribute(net, X, 0)


def test_what_is_not_there_is_said():
    net = net_of()
    for method, said in [
        (get_method("raw-attention", layer=3), "has 3 attentions"),
        (get_method("raw-attention", head=2), "has 2 heads"),
        (get_method("legrad", first=3), "has 3 layers"),
        (get_method("transition-attention", first=4), "has 3 attentions"),
    ]:
        with pytest.raises(MethodError, match=said):
            method.attribute(net, X, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_contract_holds(name):
    check_method(get_method(name), network=net_of, inputs=noise(2, 3, 8, 12), busy=False)
