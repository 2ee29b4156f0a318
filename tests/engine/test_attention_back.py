"""Attention that is written out on the way back only: what it tells is what autograd says of one written out."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional

from helpers.nets import noise, seeded
from pellucid.engine.attention import reading_attention
from pellucid.engine.attention_back import attention_back
from pellucid.heatmaps import get_method

MASKS = {
    "none": {},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.2},
    "added": {"attn_mask": noise(5, 5, seed=7)},
    "left out": {"attn_mask": torch.eye(5) + noise(5, 5, seed=8) > 0.2},
    "grouped": {"enable_gqa": True},
}


@pytest.mark.parametrize("case", MASKS)
def test_what_is_told_is_what_autograd_says(case):
    options = MASKS[case]
    heads = 1 if case == "grouped" else 2
    q, k, v = noise(3, 2, 5, 4), noise(3, heads, 5, 4, seed=1), noise(3, heads, 5, 4, seed=2)

    def layers(*leaves):
        q, k, v = leaves
        first = functional.scaled_dot_product_attention(q, k, v, **options)
        return functional.scaled_dot_product_attention(first, k, v + 1, **options).square().sum()

    one, other = ([t.clone().requires_grad_() for t in (q, k, v)] for _ in range(2))
    with reading_attention() as read:
        score = layers(*one)
    expected = torch.autograd.grad(score, [*one, *read.weights])
    with attention_back() as back:
        score = layers(*other)
    met = []
    back.met = lambda *told: met.append(told)
    found = torch.autograd.grad(score, other)
    torch.testing.assert_close(found, expected[:3])
    assert [place for place, _, _ in met] == [1, 0]
    assert [tuple(s) for s in back.sizes] == [tuple(w.shape) for w in read.weights]
    for place, weights, slope in met:
        torch.testing.assert_close(weights, read.weights[place].detach())
        torch.testing.assert_close(slope, expected[3 + place])


class Fused(nn.Module):
    """Tokens of a picture of 16 x 16 in patches of 2 x 2, without a class token; attention as torch has it."""

    def __init__(self, depth):
        super().__init__()
        self.embed, self.head = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 3)
        self.blocks = nn.ModuleList(Attending() for _ in range(depth))

    def forward(self, x):
        x = self.embed(x).flatten(2).mT
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        return x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def most_alive(name, depth):
    """How many tensors as large as an attention autograd holds at one time."""
    alive, most = weakref.WeakSet(), 0

    class Held:
        def __init__(self, tensor):
            self.tensor = tensor

    def pack(tensor):
        nonlocal most
        held = Held(tensor)
        if tensor.numel() >= 2 * 64 * 64:
            alive.add(held)
            most = max(most, len(alive))
        return held

    net = seeded(lambda: Fused(depth)).eval()
    gc.collect()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
        get_method(name).explain(net, noise(1, 3, 16, 16), [0, 2])
    return most


@pytest.mark.parametrize("name", ["generic-attention", "legrad"])
def test_no_more_attentions_are_held_in_a_deep_network_than_in_a_flat_one(name):
    flat, deep = most_alive(name, 2), most_alive(name, 6)
    assert flat == deep <= 4
    assert most_alive("transformer-attribution", 6) > 6, "which keeps all of them"
