"""Networks of every layout with a layer to change, and masked inputs scored one by one."""

import itertools

import torch
from torch import nn
from torch.nn.functional import interpolate

from helpers.nets import Sevens, noise, pooled, random_net, seeded
from pellucid.models.layers import describe


def close(a, b, tolerance=1e-5):
    """Equal up to `tolerance` of the largest value, and not for want of values."""
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    assert a.shape == b.shape
    assert b.abs().max() > 0
    assert (a - b).abs().max() <= tolerance * b.abs().max()


class LastChannels(nn.Module):
    """A net whose layer `body` keeps its channels last, with views behind it that want memory in order."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.fc = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6), nn.Linear(6 * 64, 5)

    def forward(self, x):
        cells = self.body(self.stem(x).movedim(1, -1))
        return self.fc(cells.view(len(cells), -1).tanh())


class Concat(nn.Module):
    """Dense: what comes before the layer `grow` is put beside it, so that the tail does not broadcast."""

    def __init__(self):
        super().__init__()
        self.stem, self.grow = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 6, 3, 1, 1)
        self.mix, self.fc = nn.Conv2d(10, 6, 3, 2, 1), nn.Linear(6, 5)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.fc(self.mix(torch.cat([x, self.grow(x)], 1)).relu().mean((2, 3)))


def tiny_vit(**options):
    return random_net("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, num_heads=2, depth=2, **options)


CASES = {
    "pictures": (pooled, "3", (32, 32)),
    "places matter": (lambda: seeded(Sevens).eval(), "body", (32, 32)),
    "channels last": (lambda: seeded(LastChannels).eval(), "body", (32, 32)),
    "tokens": (tiny_vit, "blocks.1.norm1", (32, 32)),
    "tokens without prefix": (lambda: tiny_vit(class_token=False, global_pool="avg"), "blocks.0", (32, 32)),
    "dense": (lambda: seeded(Concat).eval(), "grow", (32, 32)),
    "signals": (lambda: pooled(1), "3", (40,)),
    "volumes": (lambda: pooled(3), "3", (12, 16, 16)),
}


def opened(name):
    """(net, layer, inputs, the layer's activation as a map, a function to put another map in its place)"""
    build, layer, space = CASES[name]
    net, x = build(), noise(2, 3, *space, seed=1)
    layout = describe(net, x, layer).layout
    kept = {}

    def keep(_module, _args, output):
        kept["A"] = output.detach().clone()

    handle = net.get_submodule(layer).register_forward_hook(keep)
    with torch.no_grad():
        net(x)
    handle.remove()

    def score_changed(n, cells, target):
        """The score of sample n with its cells `(C, *grid)` at the layer changed, by a hook and one full pass."""
        raw = kept["A"][n : n + 1].clone()
        if layout.kind == "channels-first":
            raw[0] = cells
        elif layout.kind == "channels-last":
            raw[0] = cells.movedim(0, -1)
        else:
            raw[0, layout.prefix :] = cells.flatten(1).T
        handle = net.get_submodule(layer).register_forward_hook(lambda _m, _a, _o: raw)
        with torch.no_grad():
            y = net(x[n : n + 1])[0, target].double()
        handle.remove()
        return y

    return net, layer, x, layout.to_map(kept["A"]), score_changed


def drawn(cells, space):
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(space)]
    return interpolate(cells[None, None], size=space, mode=mode, align_corners=False)[0, 0]


def mask_by_hand(cells, space):
    m = drawn(cells, space)
    return torch.zeros_like(m) if m.max() == m.min() else (m - m.min()) / (m.max() - m.min())


def masked_scores(net, x, A, target, changes=(lambda m: m,), score=lambda y, t: y[0, t]):
    """`(N, C)`: mean over `changes` of the score of the input times each channel's changed mask, one pass each."""
    out = torch.zeros(A.shape[:2], dtype=torch.float64)
    with torch.no_grad():
        for n, c in itertools.product(range(A.shape[0]), range(A.shape[1])):
            m = mask_by_hand(A[n, c], tuple(x.shape[2:]))
            out[n, c] = sum(score(net(x[n : n + 1] * change(m)), target).double() for change in changes) / len(changes)
    return out


def weighted(A, w):
    return sum(w[:, c].reshape(-1, *[1] * (A.ndim - 2)) * A[:, c] for c in range(A.shape[1])).relu()
