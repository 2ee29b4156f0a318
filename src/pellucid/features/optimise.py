"""Gradient ascent on pictures: parametrisation -> views -> model -> objective, and back.

The two halves of the chain rule are taken apart. The model's half gives the gradient to the views, in micro-batches and
without a gradient to any weight; the picture's half brings it to the parameters. Every picture has parameters, random
generators, learning rate and history of its own, so that one of many comes out as it would alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pellucid.engine import default_batch
from pellucid.engine.trace import interruptible
from pellucid.errors import TargetError
from pellucid.features.canvas import Canvas
from pellucid.features.colour import Colours
from pellucid.features.objectives import Objective, activation_part
from pellucid.features.parametrisations import Fourier, Parameters, Parametrisation
from pellucid.features.passes import Passes, bound, opened
from pellucid.features.result import Synthesis
from pellucid.features.settings import Settings
from pellucid.models.model import VisionModel
from pellucid.models.targets import TargetLike
from pellucid.progress import task

_RESCUES = 32  # steps in which a silent unit may have redirected gradients
_COOL = 0.3  # share of the steps, the last ones, in which the learning rate falls to a tenth
_VARIANT, _RESTART = 1_000_003, 10_000_019  # set the seeds of variants and restarts apart
_OPTIMISERS = {"adam": torch.optim.Adam, "nadam": torch.optim.NAdam}


@interruptible
def synthesise(
    model: VisionModel,
    objectives: Sequence[Objective | TargetLike],
    settings: Settings | str = "fast",
    *,
    seed: int = 0,
    natural: Sequence[Tensor | None] | None = None,
) -> list[Synthesis]:
    """Pictures that excite units of a model, one an objective (several for one that asks for them, in turn).

    Args:
        model: left bit for bit as it was.
        objectives: `Channel`, `Neuron`, `Direction`, ..., sums of them; or a `Unit`, a class by index or label.
        settings: or the name of a preset, `fast`, `standard` or `fine`.
        seed: of the starts and the views; equal for all objectives.
        natural: for each objective the activations of natural pictures, `(N,)`, or None; with `settings.factor` the
            ascent stops once it is that far beyond them.

    Raises:
        MethodError: settings that make no sense, or a black box.
        LayerError, TargetError: an objective that does not fit the model.
        ModelError: an input shape that the model does not take.
    """
    settings = Settings.preset(settings) if isinstance(settings, str) else settings
    if not objectives:
        raise TargetError("Name at least one unit or class to visualise.")
    if natural is not None and len(natural) != len(objectives):
        raise TargetError(f"{len(natural)} natural distributions for {len(objectives)} objectives: give one for each.")
    with torch.inference_mode(False):
        canvas = Canvas.of(model, settings.shape)
        found = bound(model, objectives, canvas)
        limits = [_limit(values, settings.factor) for values in natural or [None] * len(found)]
        studio = _Studio(canvas, settings)
        pieces = [_Piece(o, seed, limit) for o, limit in zip(found, limits, strict=True)]
        together = max(1, default_batch(model.device) // settings.views)
        with opened(model, found, canvas, graph=True) as passes, task("features", settings.steps * len(pieces)) as tick:
            for start in range(0, len(pieces), together):
                _Run(passes, studio, pieces[start : start + together], tick).run()
            with torch.no_grad():
                return [s for piece in pieces for s in piece.results(passes, studio, model.labels)]


def _limit(natural: Tensor | None, factor: float | None) -> float | None:
    """The value to stop at: beyond the maximum by `factor`, measured from the median, so that signs do not matter."""
    if natural is None or factor is None:
        return None
    values = natural.detach().double().flatten()
    if not len(values) or not values.isfinite().all():
        raise TargetError("Natural activations are finite numbers, one for each natural picture.")
    return float(values.max() + (factor - 1) * (values.max() - values.median()))


class _Studio:
    """Everything about how pictures are drawn and viewed; knows no model."""

    def __init__(self, canvas: Canvas, settings: Settings) -> None:
        self.canvas, self.settings = canvas, settings
        size = tuple(max(2, round(n * settings.zoom)) for n in canvas.space[-2:])
        self.sheet = Canvas((*canvas.shape[:-2], *size), canvas.black, canvas.white)
        self.colours = settings.colours or Colours.natural(canvas.channels)
        self.parametrisation: Parametrisation = settings.parametrisation.prepared(self.sheet, self.colours)
        self.veil = Canvas((1, *self.sheet.space), canvas.black[:1], canvas.white[:1]) if self.learns_alpha else None

    @property
    def learns_alpha(self) -> bool:
        """Whether an alpha channel is optimised along."""
        return self.settings.alpha == "learnt"

    def start(self, generators: Sequence[torch.Generator]) -> Parameters:
        """Leaves, one row a picture; with a learnt alpha its own come last."""
        parameters = self.parametrisation.start(self.sheet, generators)
        if self.veil is not None:
            parameters += Fourier().start(self.veil, generators)
        return [p.to(self.canvas.black.device).requires_grad_() for p in parameters]

    def draw(self, parameters: Parameters) -> tuple[Tensor, Tensor | None]:
        """Pictures `(P, C, *sheet)`, and alpha `(P, 1, *sheet)` where it is learnt."""
        if self.veil is None:
            return self.parametrisation.draw(parameters, self.sheet, self.colours), None
        veil = Fourier().draw(parameters[-1:], self.veil, Colours.independent(1))
        return self.parametrisation.draw(parameters[:-1], self.sheet, self.colours), veil

    def views(self, pictures: Tensor, alpha: Tensor | None, generators: Sequence[torch.Generator]) -> Tensor:
        """What the model is shown, in its units: `(P * views, C, *space)`."""
        if alpha is not None:
            fourier = Fourier(spread=0.3)
            noise = [p.to(pictures) for p in fourier.start(self.sheet, generators)]
            pictures = torch.lerp(fourier.draw(noise, self.sheet, self.colours), pictures, alpha)
        size = self.canvas.space[-2:]
        return self.canvas.to_input(self.settings.robustness.views(pictures, self.settings.views, generators, size))

    def fitted(self, pictures: Tensor) -> Tensor:
        """Pictures of the sheet's size brought to the size of the model's input."""
        if self.sheet.space == self.canvas.space:
            return pictures
        folded = pictures.flatten(1, -3)
        resized = interpolate(folded, self.canvas.space[-2:], mode="bilinear", antialias=True)
        return resized.reshape(*pictures.shape[:-2], *self.canvas.space[-2:])


@dataclass(eq=False)
class _Piece:
    """An objective on its way: parameters, generators, and what has happened so far."""

    objective: Objective
    seed: int
    limit: float | None
    parameters: Parameters = field(default_factory=list)
    generators: list[torch.Generator] = field(default_factory=list)
    history: list[float] = field(default_factory=list)
    gradient: Tensor | None = None
    notes: list[str] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    rescues: int = 0
    restarts: int = 0
    done: bool = False

    def begin(self, studio: _Studio) -> None:
        """(Re)start from noise."""
        seeds = [self.seed + _VARIANT * p + _RESTART * self.restarts for p in range(self.objective.pictures)]
        self.generators = [torch.Generator().manual_seed(s) for s in seeds]
        self.parameters = studio.start(self.generators)
        self.history, self.gradient = [], None

    def finish(self, note: str = "", **facts: float) -> None:
        """No more steps."""
        self.done = True
        self.notes += [note] if note else []
        self.facts |= facts

    def results(self, passes: Passes, studio: _Studio, labels: Sequence[str] | None) -> list[Synthesis]:
        """The pictures, measured as they are."""
        drawn, veil = studio.draw(self.parameters)
        pictures = drawn.clamp(0, 1)
        inputs = studio.canvas.to_input(studio.fitted(pictures))
        part = activation_part(self.objective)
        reached = passes.plain([part], inputs)[0].tolist()
        alphas = self._alphas(studio, veil, len(pictures))
        clipped = [float(((d < 0) | (d > 1)).float().mean()) for d in drawn]
        facts = self.facts | {"steps": float(len(self.history))}
        facts |= {"rescued_steps": float(self.rescues)} if self.rescues else {}
        return [
            Synthesis(
                self.objective.name(labels),
                self.objective.spec(),
                pictures[p].float().cpu(),
                inputs[p].float().cpu(),
                alphas[p],
                list(self.history),
                reached[p],
                facts | {"clipped": clipped[p]},
                list(self.notes),
                self.seed,
                p,
            )
            for p in range(len(pictures))
        ]

    def _alphas(self, studio: _Studio, veil: Tensor | None, count: int) -> list[Tensor | None]:
        if veil is not None:
            return [a.squeeze(0).float().cpu() for a in veil]
        if studio.settings.alpha is None or self.gradient is None:
            return [None] * count
        # The largest gradients are few and lonely: what is above the 95th percentile is opaque.
        top = torch.quantile(self.gradient.flatten(1)[:, :: max(1, studio.sheet.pixels // 10**6)], 0.95, dim=1)
        scaled = self.gradient / top.clamp(min=1e-30).reshape(-1, *[1] * len(studio.sheet.space))
        return list(scaled.clamp(0, 1).float().cpu())


class _Run:
    """Some pieces, optimised side by side."""

    def __init__(self, passes: Passes, studio: _Studio, pieces: Sequence[_Piece], tick: Callable[[int], None]) -> None:
        self.passes, self.studio, self.pieces, self.tick = passes, studio, list(pieces), tick
        self.settings = studio.settings
        for piece in self.pieces:
            piece.begin(studio)
        kind = _OPTIMISERS[studio.parametrisation.optimiser]
        groups = [{"params": piece.parameters} for piece in self.pieces]
        self.optimiser = kind(groups, lr=studio.parametrisation.rate, eps=1e-12)

    def run(self) -> None:
        """All steps."""
        while live := [piece for piece in self.pieces if not piece.done]:
            self.step(live)
            for piece in live:
                self.tick(self._advance(piece))

    def _advance(self, piece: _Piece) -> int:
        """Whether the piece is finished; the steps it is further, the spared ones included."""
        steps = len(piece.history)
        if not piece.done:
            if steps >= self.settings.steps:
                piece.finish()
            elif piece.limit is not None and steps >= 16 and statistics.fmean(piece.history[-8:]) > piece.limit:
                piece.finish(stopped_beyond_natural=1.0)
            elif self._on_plateau(piece.history):
                piece.finish(stopped_on_plateau=1.0)
        return 1 + (self.settings.steps - steps) * piece.done

    def _on_plateau(self, history: Sequence[float]) -> bool:
        wait = self.settings.patience
        if not self.settings.plateau or len(history) < 2 * wait:
            return False
        late, early = statistics.fmean(history[-wait:]), statistics.fmean(history[-2 * wait : -wait])
        return late - early < self.settings.plateau * (late - history[0])

    def step(self, live: Sequence[_Piece]) -> None:
        """One step of all that are not finished."""
        columns = zip(*(piece.parameters for piece in live), strict=True)
        stacked = [torch.cat(column) for column in columns]
        generators = [g for piece in live for g in piece.generators]
        drawn, alpha = self.studio.draw(stacked)
        views = self.studio.views(drawn, alpha, generators)
        objectives = [piece.objective for piece in live]
        scores, to_views, to_pictures = self.passes.slopes(objectives, views.detach(), drawn.detach())
        self._rescue(live, scores, to_views, views.detach(), drawn.detach())
        ends, slopes = [views, drawn], [to_views, to_pictures]
        if alpha is not None:  # what is opaque costs its share of the score
            each = scores.reshape(len(drawn), -1).mean(1).abs()
            ends.append(alpha)
            slopes.append(-(each / self.studio.sheet.pixels).reshape(-1, *[1] * (alpha.ndim - 1)).expand_as(alpha))
        wanted = [drawn, *(p for piece in live for p in piece.parameters)]
        to_drawn, *found = torch.autograd.grad(ends, wanted, slopes, allow_unused=True)
        self._update(live, scores, to_drawn, found)

    def _rescue(
        self,
        live: Sequence[_Piece],
        scores: Tensor,
        to_views: Tensor,
        views: Tensor,
        drawn: Tensor,
    ) -> None:
        """Where a piece has no gradient at all, take it again with redirected rectifiers; written into `to_views`."""
        each, first = len(views) // len(drawn), 0
        for piece in live:
            count = piece.objective.pictures
            pictures, rows = slice(first, first + count), slice(first * each, (first + count) * each)
            first += count
            if to_views[rows].any() or piece.objective.regulariser or not scores[rows].isfinite().all():
                continue
            piece.rescues += 1
            if piece.rescues <= _RESCUES:
                _, slopes, _ = self.passes.slopes([piece.objective], views[rows], drawn[pictures], redirect=True)
                to_views[rows] = slopes
            if not to_views[rows].any():
                piece.finish(
                    "The unit never fired and no gradient leads to it, not even past silent rectifiers: it is dead, or "
                    "the model cuts its graph before it. The picture is noise.",
                    never_fired=1.0,
                )

    def _update(self, live: Sequence[_Piece], scores: Tensor, to_drawn: Tensor, found: Sequence[Tensor | None]) -> None:
        gradients, first = iter(found), 0
        each = len(scores) // len(to_drawn)
        for piece in live:
            count, own = piece.objective.pictures, [next(gradients) for _ in piece.parameters]
            value = scores[first * each : (first + count) * each].mean()
            sound = value.isfinite() and all(g is None or g.isfinite().all() for g in own)
            if not sound:
                self._restart(piece)
            elif not piece.done:
                piece.history.append(float(value))
                if self.settings.alpha == "gradient":
                    size = to_drawn[first : first + count].abs().mean(1)
                    piece.gradient = size if piece.gradient is None else piece.gradient + size
                for parameter, gradient in zip(piece.parameters, own, strict=True):
                    parameter.grad = None if gradient is None else -gradient  # the optimisers descend
            first += count
        for piece, group in zip(self.pieces, self.optimiser.param_groups, strict=True):
            group["lr"] = self.studio.parametrisation.rate * self._cooled(len(piece.history)) * 0.5**piece.restarts
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def _cooled(self, step: int) -> float:
        left = (self.settings.steps - step) / (_COOL * self.settings.steps)
        return min(1.0, 0.1 + 0.9 * left)

    def _restart(self, piece: _Piece) -> None:
        """After NaN or infinity: once more from other noise at half the rate, then give up."""
        if piece.done:
            return
        piece.restarts += 1
        if piece.restarts > 1:
            piece.finish(
                f"The model answered with NaN or infinity twice, the second time after {len(piece.history)} steps from "
                "other noise at half the learning rate: run it in single precision, or check its weights. The picture "
                "is where it stood.",
                not_finite=1.0,
            )
            return
        piece.notes.append("The model answered with NaN or infinity; started again from other noise at half the rate.")
        for parameter in piece.parameters:
            self.optimiser.state.pop(parameter, None)
        piece.begin(self.studio)
        self.optimiser.param_groups[self.pieces.index(piece)]["params"] = piece.parameters
