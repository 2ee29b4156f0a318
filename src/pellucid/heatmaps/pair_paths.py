"""What two pictures share: the cosine of their embeddings, told apart by pairs of cells, one of either picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from pellucid.engine import Capture, Cost
from pellucid.engine.baselines import make_baseline
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.layer_paths import given_activation
from pellucid.heatmaps.newer_cams import LayerPasses
from pellucid.models.layers import Layer
from pellucid.models.targets import PairTarget, Target
from pellucid.models.targets.pairs import embedding_of
from pellucid.progress import task
from pellucid.scoring.job import Job

_MOST_CELLS = 4096  # of either picture: all pairs of them are held at once
_GAP = 1e-4  # of the cosine, which is at most 1


@method(
    "integrated-jacobians",
    family="path",
    needs="gradients, a layer, a pair",
    cost="steps (1 where the tail is linear, up to 32) forwards + tail backwards a number of the embedding, 2 pictures",
    paper="Moeller et al. 2023, arXiv:2310.05703, eq. 5-7, of a layer's activation in place of the input",
)
@dataclass(frozen=True, kw_only=True)
class IntegratedJacobians(LayerPasses):
    """What each cell of one picture has in common with each cell of the other; both maps sum to the cosine.

    The embedding of a picture is shared out among the cells of a layer, `E_i = (A_i - A'_i) . integral over a in [0,
    1] of de(A' + a (A - A'))/dA_i`; what `e(A')` holds already, and what tokens of no place add, goes to all cells
    alike. A pair of cells has `E_i . F_j / (|e(a)| |e(b)|)`, and a cell of either map what all pairs have that it is
    part of. `extras` hold `other_map` `(N, *grid)`, the map of the other picture, `other_box`, where that lies on it,
    and `matches` `(N, K, 5)`: row and column of a cell in either picture, and what the two have in common; each of the
    two is the other's best. Rows without a match are NaN.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        baseline: where the way starts: `zero`, `mean`, `blur`, or a tensor that expands to the inputs.
        max_steps: nodes of the way (Gauss and Legendre's) at the most; they are doubled from one on until the cosine is
            reached to within 1e-4.
        matches: how many pairs of cells to keep at the most, the strongest first.

    Raises:
        MethodError: the target is no pair, or the layer has more than 4096 cells.
    """

    baseline: str | Tensor = "zero"
    max_steps: int = 32
    matches: int = 8
    signed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.matches < 0:
            raise MethodError(
                "integrated-jacobians needs at least 1 step, and a number of matches that is not below 0."
            )

    def quick(self) -> Self:
        """Few nodes."""
        return replace(self, max_steps=min(4, self.max_steps))

    def explain_target(self, job: Job, target: Target, layer: Layer) -> Attribution:
        """Both maps, and the pairs of cells that match."""
        if not isinstance(target, PairTarget) or not target.companions:
            raise MethodError(
                "integrated-jacobians explains what two pictures have in common, and this target is no pair: give "
                "pair:OTHER.jpg to a model made by pl.wrap or pl.load."
            )
        _check(layer)
        (other,) = target.companions
        cost = Cost()
        way = _Way(job, target.output, layer, self.baseline, self.max_steps, cost)
        theirs = way.shares(other.x[None].to(job.inputs), 0)
        maps, other_maps, matches, facts = [], [], [], []
        for k in range(len(job.inputs)):
            ours = way.shares(job.inputs[k : k + 1].detach(), k)
            pairs = _Pairs(ours, theirs)
            maps.append(pairs.rows.reshape(layer.layout.grid))
            other_maps.append(pairs.columns.reshape(layer.layout.grid))
            matches.append(pairs.matches(self.matches, layer.layout.grid[-1]))
            facts.append((pairs.cosine, pairs.gap, pairs.even, float(max(ours.steps, theirs.steps))))
        made = self.attribution(torch.stack(maps), layer, cost)
        names = ("cosine", "completeness_gap", "of_no_place", "steps")
        made.facts |= {name: list(found) for name, found in zip(names, zip(*facts, strict=True), strict=True)}
        sides = zip(other.geometry.box[-2:], other.geometry.source_size[-2:], strict=True)
        box = torch.tensor([[start / size, stop / size] for (start, stop), size in sides])
        made.extras |= {
            "other_map": torch.stack(other_maps).float(),
            "other_box": box.expand(len(maps), 2, 2).clone(),
            "matches": torch.stack(matches).float(),
        }
        if (worst := max(made.facts["completeness_gap"])) > _GAP:
            made.notes.append(
                f"The maps miss the cosine by {worst:.2g} after {max(made.facts['steps']):.0f} steps: raise max_steps, "
                "or name a later layer."
            )
        return made


def _check(layer: Layer) -> None:
    cells = int(np.prod(layer.layout.grid))
    if layer.runs is not None or len(layer.layout.grid) != 2:
        raise MethodError(
            f"integrated-jacobians needs a layer of pictures that runs once in a pass, and {layer.name!r} does not: "
            "name another."
        )
    if cells > _MOST_CELLS:
        raise MethodError(
            f"Layer {layer.name!r} has {cells} cells, and integrated-jacobians holds all pairs of them: name a later "
            f"layer, of {_MOST_CELLS} cells at most."
        )


@dataclass(frozen=True)
class _Shares:
    """One picture's embedding, shared out.

    Attributes:
        cells: `(cells, D)`, double precision.
        even: `(D,)`, what belongs to no cell.
        embedding: `(D,)`, what the model answers.
        steps: nodes of the way that were taken.
    """

    cells: Tensor
    even: Tensor
    embedding: Tensor
    steps: int

    @property
    def whole(self) -> Tensor:
        """`(cells, D)`, which sum to the embedding."""
        return self.cells + self.even / len(self.cells)


@dataclass(frozen=True)
class _Way:
    """From the baseline to a picture at a layer, with the embedding at the end."""

    job: Job
    output: str | None
    layer: Layer
    baseline: str | Tensor
    most: int
    cost: Cost

    def shares(self, x: Tensor, row: int) -> _Shares:
        """Of one input `(1, C, *space)`; `row` is its place in a baseline that differs from input to input."""
        baseline = self.baseline
        if isinstance(baseline, Tensor) and baseline.ndim == x.ndim and len(baseline) > 1:
            baseline = baseline[row : row + 1]
        start = make_baseline(baseline, x, torch.Generator().manual_seed(0))
        begin, before = self._seen(start)
        end, embedding = self._seen(x)
        step, steps = end - begin, 1
        while True:
            cells, total = self._integral(x, begin, step, steps)
            missed = float((embedding - before - total).norm() / embedding.norm())
            if missed <= _GAP / 4 or 2 * steps > self.most:  # a quarter: two pictures meet, and the cosine adds both
                return _Shares(cells, before + total - cells.sum(0), embedding, steps)
            steps *= 2

    def _seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's activation, and the embedding `(D,)` in double precision."""
        name = self.layer.name
        with Capture(self.job.module, [name]) as capture, torch.no_grad():
            output = capture.forward(x)
            self.cost.forwards += 1
            return capture.activations[name].detach(), embedding_of(output, self.output)[0].detach().double()

    def _integral(self, x: Tensor, begin: Tensor, step: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """What each cell adds to each number of the embedding, `(cells, D)`, and what all that moves adds, `(D,)`."""
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        name, found = self.layer.name, None
        with task("integrated jacobians", steps) as advance:
            for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
                with (
                    Capture(self.job.module, [name]) as capture,
                    given_activation(capture, name, begin + float(node) * step),
                ):
                    _, scores = capture.scored(x, lambda y, _: list(embedding_of(y, self.output).unbind(1)))
                    self.cost.forwards += 1
                    self.cost.backwards += len(scores)
                    parts = [self._added(capture, scores, d, step) for d in range(len(scores))]
                cells = float(weight) * torch.stack([c for c, _ in parts], 1)
                total = float(weight) * torch.stack([t for _, t in parts])
                found = (cells, total) if found is None else (found[0] + cells, found[1] + total)
                advance(1)
        assert found is not None
        return found

    def _added(self, capture: Capture, scores: list[Tensor], d: int, step: Tensor) -> tuple[Tensor, Tensor]:
        """To number d of the embedding: by each cell, and by all."""
        (slopes,) = capture.gradients([scores[d]], last=d == len(scores) - 1)
        moved = (slopes[self.layer.name] * step).double()
        return self.layer.layout.to_map(moved)[0].sum(0).flatten(), moved.sum()


class _Pairs:
    """All pairs of cells of two pictures."""

    def __init__(self, ours: _Shares, theirs: _Shares) -> None:
        scale = ours.embedding.norm() * theirs.embedding.norm()
        self.cosine = float(ours.embedding @ theirs.embedding / scale)
        self.rows = ours.whole @ theirs.whole.sum(0) / scale
        self.columns = theirs.whole @ ours.whole.sum(0) / scale
        self.gap = max(abs(float(m.sum()) - self.cosine) for m in (self.rows, self.columns))
        self.even = self.cosine - float(ours.cells.sum(0) @ theirs.cells.sum(0) / scale)
        self._common = ours.cells @ theirs.cells.T / scale

    def matches(self, most: int, width: int) -> Tensor:
        """`(most, 5)`: pairs of which each is the other's best, the strongest first."""
        common = self._common
        best = common.argmax(1)
        mutual = common.argmax(0)[best] == torch.arange(len(best), device=best.device)
        strength = common.amax(1).masked_fill(~mutual, -torch.inf)
        order = strength.argsort(descending=True)[:most]
        order = order[strength[order] > 0]
        found = torch.full((most, 5), torch.nan)
        here, there = order, best[order]
        columns = (here // width, here % width, there // width, there % width, strength[order])
        found[: len(order)] = torch.stack([c.double() for c in columns], 1).cpu().float()
        return found
