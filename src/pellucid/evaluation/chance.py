"""Would a map that knows nothing do as well? Masked pictures, the agreement of a map with them, and its p-value.

The picture is shown through random smooth masks, and through their complements. How much more the model believes in
one than in the other is the effect of what they show; a map that knows where the evidence is predicts it from the share
of the map inside of each mask. The correlation of the two is the faithfulness correlation of Bhatt et al. 2020
(arXiv:2005.00631).

How high it comes by chance depends on how smooth a map is, so it is compared with what the same map reaches when it is
moved: shifted (round the edges), mirrored and turned. A map that was made without looking at the model might as well
lie there. The p-value is the share of these that agree at least as well, the map itself among them (a permutation test;
Phipson & Smyth 2010). They ask the model nothing, since the masked pictures serve all of them. Nor need masks be
drawn anew: the test holds for any masks that were not chosen to please the map.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 16  # of a curve, at most one for each cell
_OFTEN = 3  # masks of a block for each step; one for the outermost, which show nearly all or nothing and teach little
_OUTERMOST = 1 / 8
_SMOOTHNESS = (1.5, 3.0)  # standard deviation in cells of the Gaussian that the random fields are smoothed by
_MOVES = 2000  # places and turns that a map is moved to, where there are more
_EQUAL, _TINY = 1e-9, 1e-18  # of correlations; of what they are divided by


@dataclass(frozen=True)
class Agreement:
    """How well a map agrees with what the model says of masked pictures.

    Attributes:
        correlation: of the map's share inside a mask with the effect of that mask, in [-1, 1].
        p_value: the chance that the same map, moved anywhere, agrees as well; the best of them, `among` several.
        among: how many maps were tested, of which the best is taken.
    """

    correlation: float
    p_value: float
    among: int = 1


def steps_shown(cells: int) -> Tensor:
    """How many cells are shown at each step of a curve `(steps + 1,)`, from none to all."""
    return torch.linspace(0, cells, min(STEPS, cells) + 1).round().long()


def mask_pairs(grid: Sequence[int], seed: int, block: int) -> Tensor:
    """Random masks and their complements `(2, pairs, cells)`; smooth, since single cells teach little.

    Each mask shows the cells where a smoothed random field is greatest, as many as some step of the curves shows.
    """
    counts = steps_shown(math.prod(grid))
    last = len(counts) - 1
    outer = [min(k, last - k) <= _OUTERMOST * last for k in range(last + 1)]
    shown = [int(counts[k]) for k in range(1, last) for _ in range(1 if outer[k] else _OFTEN)]
    if not shown:
        return torch.zeros(2, 0, math.prod(grid), dtype=torch.bool)
    generator = torch.Generator().manual_seed((seed * 1_000_003 + block) % 2**63)
    smooth = [smooth_field(grid, _SMOOTHNESS[k % len(_SMOOTHNESS)], generator) for k in range(len(shown))]
    rank = torch.stack(smooth).argsort(1, descending=True).argsort(1)
    masks = rank < torch.tensor(shown)[:, None]
    return torch.stack([masks, ~masks])


def smooth_field(grid: Sequence[int], sigma: float, generator: torch.Generator) -> Tensor:
    """White noise `(cells,)` smoothed by a Gaussian of `sigma` cells; drawn wider and cut, so that no edges meet."""
    wide = [2 * n for n in grid]
    noise = torch.fft.fftn(torch.randn(*wide, generator=generator, dtype=torch.float64))
    for axis, n in enumerate(wide):
        shape = [n if a == axis else 1 for a in range(len(wide))]
        waves = torch.fft.fftfreq(n, dtype=torch.float64).reshape(shape)
        noise = noise * torch.exp(-2 * (math.pi * sigma * waves) ** 2)
    field: Tensor = torch.fft.ifftn(noise).real
    return field[tuple(slice(n) for n in grid)].flatten()


def moved(values: Tensor) -> Tensor:
    """A map `(*grid)` moved: `(moves, cells)`, all shifts round the edges of its mirror images and quarter turns.

    Axes of equal length are exchanged; where there are more than `_MOVES`, so many are drawn from them.
    """
    grid, axes = tuple(values.shape), range(values.ndim)
    turns = [p for p in itertools.permutations(axes) if all(grid[a] == grid[b] for a, b in zip(p, axes, strict=True))]
    flips = [f for k in range(values.ndim + 1) for f in itertools.combinations(axes, k)]
    kinds = [(p, f) for p in turns for f in flips]
    cells = math.prod(grid)
    chosen = torch.arange(len(kinds) * cells)  # the first is the map as it lies
    if len(chosen) > _MOVES:
        drawn = torch.randperm(len(chosen) - 1, generator=torch.Generator().manual_seed(0))[: _MOVES - 1] + 1
        chosen = torch.cat([chosen[:1], drawn])
    images = torch.stack([values.permute(p).flip(f).flatten() for p, f in kinds])
    steps = torch.arange(cells)
    place = torch.zeros(len(chosen), cells, dtype=torch.long)
    unit = cells
    for n in grid:
        unit //= n
        place += (steps // unit + (chosen % cells // unit)[:, None]) % n * unit
    return images[chosen // cells].gather(1, place)


def agreement(values: Tensor, masks: Tensor, scores: Tensor) -> Agreement:
    """The agreement of a map `(*grid)` with the scores `(2, pairs)` of masks `(2, pairs, cells)` and complements."""
    return agreements([values], masks, scores)[0]


def agreements(maps: Sequence[Tensor], masks: Tensor, scores: Tensor) -> list[Agreement]:
    """Those of several maps of one picture, of which the best will be taken: the p-values allow for that.

    All maps are moved alike. At each move, the smallest p-value that any of the moved maps has among its own moves is
    what a blind choice would have shown (the minimum p-value of Westfall & Young 1993); so the best is believed wrongly
    no more often than one map alone would be. Maps that are much alike, as those of one pass are, lose little by it.
    """
    found = torch.stack([_correlations(moved(_of_size_one(m.double())), masks, scores) for m in maps])
    ordered = found.sort(1).values
    shares = 1 - torch.searchsorted(ordered, found - _EQUAL).double() / found.shape[1]  # of moves that do as well
    best = shares.amin(0) if len(maps) > 1 else shares[0]
    return [
        Agreement(float(own[0]), float((best <= share[0]).double().mean()), len(maps))
        for own, share in zip(found, shares, strict=True)
    ]


def _correlations(maps: Tensor, masks: Tensor, scores: Tensor) -> Tensor:
    """Of each map `(maps, cells)`: its share in a mask less that outside, with the difference of the two scores.

    What the number of cells shown explains of the difference, in a straight line, is nobody's merit and is taken out.
    """
    shown = masks[0].double()
    count = shown.mean(1)
    known = torch.stack([torch.ones_like(count), count - count.mean()], dim=1)
    basis = torch.linalg.qr(known).Q
    effect = _of_size_one((scores[0] - scores[1]).double())
    share = (maps - maps.mean(1, keepdim=True)) @ (2 * shown - 1).T
    effect, share = (t - (t @ basis) @ basis.T for t in (effect, share))
    scale = share.norm(dim=1) * effect.norm()
    return torch.where(scale > _TINY, share @ effect / scale.clamp(min=_TINY), 0.0)  # of NaN too: no proof


def _of_size_one(values: Tensor) -> Tensor:
    """Divided by its largest size: rare classes have probabilities whose squares are no numbers any more."""
    largest = values.abs().max() if values.numel() else values.sum()
    return values / largest if largest > 0 else values
