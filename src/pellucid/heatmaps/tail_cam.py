"""Class activation maps without gradients: the layer's activation is changed, and only the tail behind it runs again.

Each input's prefix is run once, whatever the number of changes (`pellucid.engine.tail`). In tokens only those
that have a place are changed; class and register tokens stay as they are.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid.engine import Cost
from pellucid.engine.tail import Tail
from pellucid.heatmaps.activations import activation_and_gradients, choose_layer, map_notes, refuse_dead_layer
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.perturbation import PerturbationMethod
from pellucid.models.layers import Layer
from pellucid.models.targets import Target
from pellucid.numerics.grids import coordinates
from pellucid.scoring.job import Job

Change = Callable[[Tensor, Tensor], Tensor]
"""(one input's cells `(1, C, *grid)`, numbers of changes `(m,)`) -> changed cells `(m, C, *grid)`."""

_CHANGES, _BYTES = 512, 2**28  # at a time, and of memory for them
_IDLE = 1e-4  # of the score: a layer whose loss costs less is suspected not to reach the target


class _Score:
    """The scores of one input's targets, fixed by the first output it sees, that of the untouched input."""

    def __init__(self, targets: Sequence[Target], probability: bool) -> None:
        self._targets, self._probability, self._fixed = list(targets), probability, False

    def __call__(self, output: Any, watched: Mapping[str, Tensor], rows: Tensor) -> list[Tensor]:
        if not self._fixed:
            self._targets, self._fixed = [t.freeze(output) for t in self._targets], True
        bound = [t.select(rows) for t in self._targets]
        return [(t.probability if self._probability else t.score)(output, watched) for t in bound]


@dataclass(frozen=True, kw_only=True)
class TailCAM(PerturbationMethod):
    """Base: owns the layer, the tails and the refusal of layers that the target does not depend on.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        probability: the target's probability, where it has one, in place of its score.
    """

    layer: str | None = None
    probability: bool = False

    @abstractmethod
    def changes(self, cells: Tensor) -> tuple[Change, int]:
        """What is done to one input's cells `(1, C, *grid)`, and in how many ways."""

    @abstractmethod
    def combine(self, cells: Tensor, scores: Tensor, plain: Tensor, empty: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The maps `(T, *grid)` of one input, and what is kept beside them, each `(T, ...)`.

        Args:
            cells: `(1, C, *grid)`.
            scores: `(T, changes)`.
            plain: `(T,)`, the untouched input's scores.
            empty: `(T,)`, the scores with all cells zero.
        """

    def perturb(self, job: Job) -> list[Attribution]:
        """One tail for each input, with all targets at once."""
        layer = choose_layer(self.layer, job, gradient=False)
        cost, maps, kept, idle = Cost(), [], [], []
        for n in range(len(job.inputs)):
            score = _Score([t.select(torch.tensor([n])) for t in job.targets], self.probability)
            x = job.inputs[n : n + 1]
            with Tail(
                job.module, x, layer.name, score, targets=len(job.targets), watch=job.watch, runs=layer.runs
            ) as tail:
                tail.batch = max(1, min(_CHANGES, _BYTES // tail.activation.nbytes))
                cells = layer.layout.to_map(tail.activation)
                scores, empty = self._scores(tail, layer, cells)
                values, extras = self.combine(cells, scores, tail.plain, empty)
            maps.append(values.float())
            kept.append(extras)
            idle.append((tail.plain - empty).abs() <= _IDLE * tail.plain.abs())
            cost.forwards += tail.cost.forwards
        results = []
        for t, target in enumerate(job.targets):
            if all(i[t] for i in idle):
                self._refuse_dead_layer(job, target, layer)
            values = torch.stack([m[t] for m in maps])
            extras = {name: torch.stack([k[name][t].float() for k in kept]) for name in kept[0]}
            notes = [*layer.notes, *map_notes(values, self.signed, self.name)]
            results.append(Attribution(values, layer, notes=notes, extras=extras, cost=cost))
        return results

    def _scores(self, tail: Tail, layer: Layer, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Scores `(T, changes)`, and `(T,)` of the layer with all cells zero, which runs as the last change."""
        change, count = self.changes(cells)

        def changed(activation: Tensor, start: int, stop: int) -> Tensor:
            now = layer.layout.to_map(activation)
            parts = [change(now, torch.arange(start, min(stop, count)))] if start < count else []
            parts += [torch.zeros_like(now)] if stop > count else []
            return layer.layout.from_map(torch.cat(parts), activation)

        scores = tail(changed, count + 1, label=self.name).T
        return scores[:, :-1], scores[:, -1]

    def _refuse_dead_layer(self, job: Job, target: Target, layer: Layer) -> None:
        """Of a suspect the gradient says whether its cells reach the target at all."""
        _, gradients = activation_and_gradients(replace(job, targets=(target,)), layer, True)
        if not layer.layout.to_map(gradients[0]).any():
            refuse_dead_layer(job, target, layer)


@method(
    "ablation-cam",
    family="cam",
    needs="outputs, a layer",
    cost="1 forward + 1 tail a channel",
    paper="Desai & Ramaswamy 2020, doi:10.1109/WACV45572.2020.9093360",
)
@dataclass(frozen=True, kw_only=True)
class AblationCAM(TailCAM):
    """`relu(sum_c w_c A_c)`, `w_c = y - y_c`: a channel counts by what the score loses when it is set to zero.

    The paper divides by `y`. For a negative score (any logit may be) that turns evidence for the target into evidence
    against it, and near zero it explodes; for a positive one it scales the whole map and changes nothing else. So it is
    left out, and the weights are in units of the score. Channels that are zero everywhere lose nothing and are not run.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        probability: the target's probability, where it has one, in place of its score.
    """

    signed: ClassVar[bool] = False

    def changes(self, cells: Tensor) -> tuple[Change, int]:
        """Each channel that is alive set to zero."""
        alive = _alive(cells)

        def without(cells: Tensor, which: Tensor) -> Tensor:
            changed = cells.repeat(len(which), *[1] * (cells.ndim - 1))
            changed[torch.arange(len(which)), alive[which.to(alive.device)]] = 0
            return changed

        return without, len(alive)

    def combine(self, cells: Tensor, scores: Tensor, plain: Tensor, empty: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses as weights of the channels."""
        weights = scores.new_zeros(len(scores), cells.shape[1])
        weights[:, _alive(cells)] = plain[:, None] - scores
        return torch.einsum("tc,c...->t...", weights, cells[0].double()).relu(), {"weights": weights}


def _alive(cells: Tensor) -> Tensor:
    """Numbers of the channels of `(1, C, *grid)` that are not zero everywhere."""
    return cells[0].flatten(1).any(1).nonzero()[:, 0]


@method(
    "recipro-cam",
    family="cam",
    needs="outputs, a layer",
    cost="1 forward + 1 tail a cell",
    paper="Byun & Lee 2022, arXiv:2209.14074; for tokens Byun & Lee 2023, arXiv:2310.02588",
)
@dataclass(frozen=True, kw_only=True)
class ReciproCAM(TailCAM):
    """`f(A * M_p) - f(A * 0)` at each cell `p`: what the cell alone gives to the score of an empty layer. `(N, *grid)`.

    `M_p` is 1 at the cell and 0 elsewhere, smoothed by the binomial kernel (1/4, 1/2, 1/4) along each axis: 1/4 at the
    cell of a picture, 1/8 and 1/16 at its neighbours. The score of the empty layer, one number for all cells, is taken
    off so that zero means nothing; the papers scale to run from 0 to 1, where it makes no difference.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        probability: the target's probability, where it has one, in place of its score.
        gaussian: smooth the mask; False keeps the one cell as it is.
    """

    gaussian: bool = True

    def changes(self, cells: Tensor) -> tuple[Change, int]:
        """Each cell kept alone, with its neighbours by their share."""
        grid = cells.shape[2:]
        kernels = [self._kernel(size).to(cells) for size in grid]

        def alone(cells: Tensor, which: Tensor) -> Tensor:
            return cells * _products(kernels, coordinates(which, grid))[:, None]

        return alone, grid.numel()

    def combine(self, cells: Tensor, scores: Tensor, plain: Tensor, empty: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Each cell's score over that of none."""
        return (scores - empty[:, None]).reshape(-1, *cells.shape[2:]), {}

    def _kernel(self, size: int) -> Tensor:
        """`(size, size)`: row p is the mask of cell p along one axis, cut off at the edges."""
        one = torch.eye(size)
        return one if not self.gaussian else one / 2 + (torch.ones(size, size).tril(1).triu(-1) - one) / 4


def _products(kernels: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
    """The masks `(m, *grid)` of m cells: the product of one row `kernels[a][places[a]]` along each axis a."""
    masks = kernels[0][places[0]]
    for kernel, at in zip(kernels[1:], places[1:], strict=True):
        rows = kernel[at]
        masks = masks[..., None] * rows.reshape(len(rows), *[1] * (masks.ndim - 1), -1)
    return masks
