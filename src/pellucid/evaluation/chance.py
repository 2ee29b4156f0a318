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
_ROUNDING = 1e-12  # what is no more than this, of shares and of sums of squares, is nothing but rounding


@dataclass(frozen=True)
class Agreement:
    """How well a map agrees with what the model says of masked pictures.

    Attributes:
        correlation: of the map's share inside a mask with the effect of that mask, in [-1, 1].
        p_value: the chance that the same map, moved anywhere, agrees as well; the best of them, `among` several.
        among: how many maps were tested, of which the best is taken.
        alone: the p-value of this map had no other been tested.
    """

    correlation: float
    p_value: float
    among: int
    alone: float


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


def moves(grid: Sequence[int]) -> Tensor:
    """From which cell each cell of a moved map comes `(moves, cells)`; the first move leaves the map as it lies.

    All shifts round the edges of all mirror images and quarter turns, where axes of equal length are exchanged; where
    there are more than `_MOVES`, so many are drawn from them.
    """
    axes, cells = range(len(grid)), math.prod(grid)
    turns = [p for p in itertools.permutations(axes) if all(grid[a] == grid[b] for a, b in zip(p, axes, strict=True))]
    flips = [f for k in range(len(grid) + 1) for f in itertools.combinations(axes, k)]
    chosen = torch.arange(len(turns) * len(flips) * cells)
    if len(chosen) > _MOVES:
        drawn = torch.randperm(len(chosen) - 1, generator=torch.Generator().manual_seed(0))[: _MOVES - 1] + 1
        chosen = torch.cat([chosen[:1], drawn])
    lying = torch.arange(cells).reshape(*grid)
    images = torch.stack([lying.permute(p).flip(f).flatten() for p in turns for f in flips])
    place = torch.zeros(len(chosen), cells, dtype=torch.long)
    unit = cells
    for n in grid:
        unit //= n
        place += (lying.flatten() // unit + (chosen % cells // unit)[:, None]) % n * unit
    return images[chosen // cells].gather(1, place)


class Trial:
    """Maps of one picture and all their moves beside masks that come block by block.

    Of each move are kept the five sums that its correlation is made of, so a block costs what it holds, however many
    came before it.

    Args:
        maps: each `(*grid)`, on one grid.
    """

    def __init__(self, maps: Sequence[Tensor]) -> None:
        flat = torch.stack([m.double().flatten() / _size(m.double()) for m in maps])
        self._maps = flat - flat.mean(1, keepdim=True)
        self._moves = moves(maps[0].shape)
        self._sums = torch.zeros(len(maps), len(self._moves), 4, dtype=torch.float64)  # of shares, beside `_known`
        self._known = torch.zeros(0, 3, dtype=torch.float64)

    def add(self, masks: Tensor, scores: Tensor) -> None:
        """A block of masks `(2, pairs, cells)`, each with its complement, and what the model says of them `(2, pairs)`.

        A map's share is what lies inside of a mask less what lies outside.
        """
        shown = masks[0].double()
        known = torch.stack([torch.ones(len(shown)), shown.mean(1), (scores[0] - scores[1]).double()], 1)
        signs = (2 * shown - 1).T.contiguous()
        for values, sums in zip(self._maps, self._sums, strict=True):
            share = values[self._moves] @ signs
            sums[:, :3] += share @ known
            sums[:, 3] += share.square().sum(1)
        self._known = torch.cat([self._known, known])

    def correlations(self) -> Tensor:
        """Of the shares of each move of each map with the difference of the two scores `(maps, moves)`.

        What the number of cells shown explains of the difference, in a straight line, is nobody's merit and is taken
        out of both.
        """
        one, count, effect = self._known.T
        scale = _size(effect)
        effect = effect / scale
        middle = count.mean()
        line = count - middle
        slope = 1 / line.norm() if line.norm() > _ROUNDING else 0.0  # masks that all show as much have no line
        level = max(len(one), 1) ** -0.5
        along = torch.stack([one * level, line * slope])
        shares, counts, effects, squares = self._sums.unbind(2)
        own = torch.stack([shares * level, (counts - middle * shares) * slope], 2)
        left = (effect - (along @ effect) @ along).norm()
        together = effects / scale - own @ (along @ effect)
        rest = squares - own.square().sum(2)
        size = torch.where(rest > _ROUNDING * squares, rest, 0.0).sqrt() * left
        return torch.where(size > _TINY, together / size.clamp(min=_TINY), 0.0)  # of NaN too: no proof

    def agreements(self) -> list[Agreement]:
        """Those of all maps, of which the best will be taken: the p-values allow for that.

        All maps are moved alike. At each move, the smallest p-value that any of the moved maps has among its own moves
        is what a blind choice would have shown (the minimum p-value of Westfall & Young 1993); so the best is believed
        wrongly no more often than one map alone would be. Maps that are much alike, as those of one pass are, lose
        little by it.
        """
        found = self.correlations()
        ordered = found.sort(1).values
        shares = 1 - torch.searchsorted(ordered, found - _EQUAL).double() / found.shape[1]  # of moves that do as well
        best = shares.amin(0)
        return [
            Agreement(float(own[0]), float((best <= share[0]).double().mean()), len(shares), float(share[0]))
            for own, share in zip(found, shares, strict=True)
        ]


def _size(values: Tensor) -> float:
    """The largest size, to divide by: rare classes have probabilities whose squares are no numbers any more."""
    largest = float(values.abs().max()) if values.numel() else 0.0
    return largest if largest > 0 else 1.0
