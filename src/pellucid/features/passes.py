"""Passes through the model: scores of views, and their gradients to the views and to the pictures themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.engine import Capture, adaptive_batches, default_batch, unwrap
from pellucid.engine.capture import gradients
from pellucid.errors import MethodError
from pellucid.features.canvas import Canvas
from pellucid.features.objectives import Objective, Seen, as_objective
from pellucid.features.rectifiers import RedirectedRectifiers
from pellucid.models.model import VisionModel
from pellucid.models.opens import opens
from pellucid.models.targets import TargetLike

_GRAPH = 4  # a row with a graph keeps every activation: so many times fewer go together


@dataclass
class Passes:
    """An open model, for objectives that are bound to it; made by `opened`."""

    capture: Capture
    canvas: Canvas
    dtype: torch.dtype
    batch: int = 0

    def slopes(
        self, objectives: Sequence[Objective], views: Tensor, pictures: Tensor, *, redirect: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, and the gradients of each picture's mean score over its views.

        Args:
            objectives: one after the other they own their `objective.pictures` pictures.
            views: `(R, C, *space)` in model units, R / P of each picture, picture by picture.
            pictures: `(P, C, *canvas)` in display units, for regularisers.
            redirect: let gradients through rectifiers that would stop all of a view's.

        Returns:
            scores `(R,)`, gradients to `views` and to `pictures`; not finite where the model is not.
        """
        each = len(views) // len(pictures)
        owner = torch.arange(len(pictures)).repeat_interleave(each)
        ends = torch.tensor([o.pictures for o in objectives]).cumsum(0) * each
        scores = torch.empty(len(views), device=views.device)
        to_views, to_pictures = torch.empty_like(views), torch.zeros_like(pictures)

        def run(start: int, stop: int) -> None:
            leaf = pictures.detach().requires_grad_()
            with RedirectedRectifiers() if redirect else nullcontext():
                output = self.capture.forward(views[start:stop].to(self.dtype))
            with torch.enable_grad():
                seen = Seen(output, self.capture.watched, leaf, owner[start:stop])
                parts = list(_shares(objectives, ends.tolist(), start, stop))
                found = torch.cat([o.score(seen.part(a - start, b - start)).float() for o, a, b in parts])
                wrt = [self.capture.activations["input"], leaf]
                to_input, to_leaf = gradients([found / each], wrt, needed=True)[0]
            scores[start:stop], to_views[start:stop] = found.detach(), to_input
            to_pictures.add_(to_leaf)

        self._batches(run, objectives, ends.tolist(), len(views))
        return scores, to_views, to_pictures

    def plain(self, objectives: Sequence[Objective], inputs: Tensor) -> Tensor:
        """Every objective on every input `(N, C, *space)`: `(objectives, N)`, without a graph."""
        found = torch.empty(len(objectives), len(inputs), device=inputs.device)

        def run(start: int, stop: int) -> None:
            x = inputs[start:stop]
            output = self.capture.forward(x.to(self.dtype))
            shown = self.canvas.to_display(x.float())
            seen = Seen(output, self.capture.watched, shown, torch.arange(stop - start))
            found[:, start:stop] = torch.stack([o.score(seen).detach().float() for o in objectives])

        before, self.capture.input_gradient = self.capture.input_gradient, False
        try:
            with torch.no_grad():
                adaptive_batches(run, len(inputs), default_batch(inputs.device))
        finally:
            self.capture.input_gradient = before
        return found

    def _batches(
        self, run: Callable[[int, int], None], objectives: Sequence[Objective], ends: list[int], rows: int
    ) -> None:
        self.batch = self.batch or max(1, default_batch(self.canvas.black.device) // _GRAPH)
        if all(o.pictures == 1 for o in objectives):
            self.batch = adaptive_batches(run, rows, self.batch)
        else:  # pictures that are compared with each other are run together
            for start, stop in zip([0, *ends], ends, strict=False):
                run(start, stop)


def _shares(
    objectives: Sequence[Objective], ends: Sequence[int], start: int, stop: int
) -> Iterator[tuple[Objective, int, int]]:
    """The objectives that own rows in `start` to `stop`, each with its first and last row there."""
    low = 0
    for objective, high in zip(objectives, ends, strict=True):
        a, b = max(low, start), min(high, stop)
        if a < b:
            yield objective, a, b
        low = high


@contextmanager
def opened(model: VisionModel, objectives: Sequence[Objective], canvas: Canvas, *, graph: bool) -> Iterator[Passes]:
    """The model, open for passes that end behind the last layer the bound `objectives` read.

    Args:
        model: left bit for bit as it was.
        objectives: bound to it.
        canvas: of its input.
        graph: for `slopes`; `plain` needs none.
    """
    layers = tuple(dict.fromkeys(name for o in objectives for name in o.layers))
    with Capture(unwrap(model.module), watch=layers, input_gradient=graph) as capture:
        if layers and not any(o.needs_output for o in objectives):
            with torch.no_grad():
                capture.forward(torch.zeros(1, *canvas.shape, device=model.device, dtype=model.dtype))
            capture.shorten()
        yield Passes(capture, canvas, model.dtype)


def bound(model: VisionModel, objectives: Sequence[Objective | TargetLike], canvas: Canvas) -> list[Objective]:
    """Objectives bound to a model.

    Raises:
        MethodError: the model is a black box.
        LayerError, TargetError: an objective that does not fit the model.
    """
    if not {"gradients", "layers"} <= opens(model.module):
        raise MethodError(
            "Feature visualisation looks inside a network and needs gradients, and this model is a black box: load the "
            "network itself."
        )
    sample = torch.zeros(1, *canvas.shape, device=model.device, dtype=model.dtype)
    return [as_objective(o).bind(model, sample) for o in objectives]


def activation(
    model: VisionModel,
    inputs: Tensor,
    objectives: Sequence[Objective | TargetLike],
) -> Tensor:
    """What every objective says of every input as it is: `(objectives, N)`, on the CPU.

    Args:
        model: left bit for bit as it was.
        inputs: `(N, C, *space)` in model units.
        objectives: units, classes, or any objectives.

    Raises:
        MethodError, LayerError, TargetError: as `bound` does.
    """
    canvas = Canvas.of(model, tuple(inputs.shape[1:]))
    found = bound(model, objectives, canvas)
    with torch.inference_mode(False), opened(model, found, canvas, graph=False) as passes:
        return passes.plain(found, inputs.detach().to(model.device)).cpu()
