"""`check`: what insertion, deletion, chance and shuffled weights say of explanations, shared by those of a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from pellucid.engine import Capture
from pellucid.engine.runtimes.converted import Converted
from pellucid.engine.trace import interruptible
from pellucid.errors import ModelError, PellucidError, StorageError
from pellucid.evaluation.chance import Agreement
from pellucid.evaluation.faithfulness import Blends, Perturbed, cell_grid, cell_ranking, frame_grid
from pellucid.evaluation.objections import objected
from pellucid.evaluation.sanity import sanity_correlations, shuffled_once
from pellucid.evaluation.slope import slope
from pellucid.evaluation.verdict import diagnose, judge
from pellucid.explanation import Curve, Explanation, Quality
from pellucid.heatmaps.base import Attribution, Method, explain_all
from pellucid.models.layers import lend_layers
from pellucid.models.model import VisionModel
from pellucid.models.opens import opens
from pellucid.models.targets import Target

E = TypeVar("E", bound="Explained")

_PASSES = 110  # that a check takes at least
_MASKS = 0  # the same for every picture of a size, so that a map has one verdict, whatever the seed of its run
_Wanted = tuple[tuple[int, str | None], Target | None]  # a method's id and the layer that it explained; for what


@dataclass
class Session:
    """One picture as one model saw it: what `check` needs, shared by all explanations of that picture.

    Attributes:
        model: the model explained.
        x: the picture as the model takes it, `(1, C, *space)`.
        seed: of whatever is random in the methods; no verdict depends on it.
        weights: the model's fingerprint when it was explained.
    """

    model: VisionModel
    x: Tensor
    seed: int = 0
    weights: str = ""
    _targets: list[Target] = field(default_factory=list, repr=False)
    _blends: dict[bool, Blends] = field(default_factory=dict, repr=False)
    _perturbed: dict[tuple[Target, bool], Perturbed] = field(default_factory=dict, repr=False)
    _quick: dict[tuple[str, ...], tuple[Converted | None, int]] = field(default_factory=dict, repr=False)
    _slopes: dict[Target, float | None] = field(default_factory=dict, repr=False)
    passes: int = field(default=0, repr=False)  # of masked pictures, so far
    _stack: ExitStack | None = field(default=None, repr=False)
    _captures: dict[tuple[str, ...], Capture] = field(default_factory=dict, repr=False)  # that are open

    @property
    def grid(self) -> tuple[int, ...]:
        """The cells that masks are drawn on."""
        return cell_grid(self.x.shape[2:])

    def slope(self, target: Target) -> float | None:
        """See `pellucid.evaluation.slope`; measured once."""
        if target not in self._slopes:
            self._slopes[target] = slope(self.model, self.x, target)
        return self._slopes[target]

    def probability(self, target: Target, x: Tensor) -> float:
        """The target's probability, or its score where it has none, of one input."""
        return float(self._score((target,), x)[0, 0])

    def expect(self, targets: Iterable[Target]) -> None:
        """Targets that will be asked about: what is shown to the model is scored for all of them in one pass."""
        new = [t for t in dict.fromkeys(targets) if t not in self._targets]
        if new:
            self._targets, self._blends = [*self._targets, *new], {}

    def perturbed(self, target: Target, *, frames: bool = False) -> Perturbed:
        """The perturbed scores of a target; a masked picture is measured once, for all targets.

        With `frames` whole frames of a clip are shown and hidden, rather than cells of space (and time). The masks are
        a fixed design: what is drawn anew in the test is where the map might lie, so its p-value holds for any masks.
        """
        if (target, frames) not in self._perturbed:
            self.expect([target])
            grid = (frame_grid if frames else cell_grid)(self.x.shape[2:])
            if frames not in self._blends:
                self._blends[frames] = Blends(partial(self._score, tuple(self._targets)), self.x, grid)
            self._perturbed[target, frames] = Perturbed(
                None, self.x, _MASKS, grid, self._blends[frames], self._targets.index(target)
            )
        return self._perturbed[target, frames]

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Inside, the model is borrowed once for all masked pictures; else for each batch, which takes as long as one.

        Nothing else may run the model meanwhile.
        """
        with ExitStack() as stack:
            self._stack = stack
            try:
                yield
            finally:
                self._stack, self._captures = None, {}

    def _capture(self, watch: tuple[str, ...]) -> AbstractContextManager[Capture]:
        if self._stack is None:
            return Capture(self.model.module, watch=watch)
        if watch not in self._captures:
            self._captures[watch] = self._stack.enter_context(Capture(self.model.module, watch=watch))
        return nullcontext(self._captures[watch])

    def _score(self, targets: tuple[Target, ...], inputs: Tensor) -> Tensor:
        self.passes += len(inputs)
        watch = tuple(dict.fromkeys(name for t in targets for name in t.layers))
        with self._capture(watch) as capture, torch.no_grad():
            self._quicken(capture, len(inputs))
            output = capture.forward(inputs)
            rows = torch.zeros(len(inputs), dtype=torch.long)
            return torch.stack([t.select(rows).probability(output, capture.watched) for t in targets], 1)

    def _quicken(self, capture: Capture, passes: int) -> None:
        """Another runtime, where it pays, asked for again whenever twice as many passes have run; else the twin."""
        capture.converted, asked = self._quick.get(capture.watch, (None, 0))
        if capture.converted is None and asked.bit_length() < (asked + passes).bit_length():
            capture.convert(self.x, max(_PASSES, asked + passes))
        if capture.converted is None and self._stack is not None and asked:  # a pass of the model itself is timed first
            capture.fold(self.x, _PASSES)
        self._quick[capture.watch] = capture.converted, asked + passes


@dataclass(repr=False)
class Explained(Explanation):
    """An explanation with what made it, which measuring it needs; read from disk it has none of that.

    Attributes:
        session: the picture as the model saw it.
        ran: the method.
        explained: the target, as it was frozen for this picture.
        chosen: it was measured when it was chosen among others, and is not measured again.
    """

    session: Session | None = field(default=None, repr=False)
    ran: Method | None = field(default=None, repr=False)
    explained: Target | None = field(default=None, repr=False)
    chosen: bool = field(default=False, repr=False)


def by_picture(explanations: Iterable[E]) -> list[list[E]]:
    """Grouped by picture (and model), in order, also where they were read from disk."""
    groups: dict[object, list[E]] = {}
    for e in explanations:
        groups.setdefault(_picture_key(e), []).append(e)
    return list(groups.values())


def _picture_key(e: Explained) -> object:
    content = e.record.input.get("sha256")
    if e.session is not None or not content:
        return id(e.session or e)
    return e.name, content, e.record.model.get("weights"), e.geometry.source_size


@interruptible
def check(explanations: Iterable[Explained]) -> None:
    """Measure the quality of explanations, sharing random masks and randomised models among those of a picture."""
    groups = by_picture(explanations)
    with shuffled_once() if len(groups) > 1 else nullcontext():
        for group in groups:
            _check(group)


def _check(group: Sequence[Explained]) -> None:
    """Of one picture."""
    session = group[0].session
    if session is None and "windows" in group[0].record.input:
        raise StorageError(
            "A clip explained in windows is not measured as a whole: check one stretch of it, frames='dense:16@12.5'."
        )
    if session is None:
        raise StorageError("This explanation was read from disk: explain the picture again with its model to check it.")
    if session.weights and session.model.fingerprint() != session.weights:
        raise ModelError(
            "The model's weights have changed since this map was made, so it can't be measured on them: explain "
            "the picture again, and check before training goes on."
        )
    new = [e for e in group if not e.chosen]
    sound = [e for e in new if diagnose(e.attribution, signed=False) is None]
    sanity = dependence(session, sound)
    session.expect(e.explained for e in sound if e.explained is not None and e.kind != "channels")
    for e in new:
        e.quality = judged(e, session, sanity.get(id(e)), sound=id(e) in sanity)


def dependence(session: Session, sound: Sequence[Explained]) -> dict[int, float | None]:
    """By the `id` of each explanation: its correlation with those of shuffled weights, None where there are none."""
    found: dict[int, float | None] = dict.fromkeys(map(id, sound))
    if sound and "layers" in opens(session.model.module):  # a black box has no weights to shuffle
        found |= zip(map(id, sound), _sanity(session, sound), strict=True)
    return found


def judged(
    e: Explained, session: Session, sanity: float | None, *, sound: bool, agreement: Agreement | None = None
) -> Quality:
    """The quality of one explanation; `agreement` is measured here, unless it was measured with those of others."""
    problem = diagnose(e.attribution, e.signed)
    gap, jump = e.facts.get("completeness_gap"), e.facts.get("jump_at_baseline", 0.0)
    if not sound or e.kind == "channels" or e.explained is None:
        return judge(sanity=sanity, completeness_gap=gap, jump=jump, problem=problem)
    perturbed = session.perturbed(e.explained)
    with session.borrowed():
        insertion, deletion = perturbed.curves(cell_ranking(e.map()[0], perturbed.grid))
        agreement = agreement or perturbed.agreement(e.map()[0])
        in_time = _in_time(e, session, e.explained)
    quality = judge(
        insertion=insertion,
        deletion=deletion,
        agreement=agreement,
        in_time=in_time,
        sanity=sanity,
        completeness_gap=gap,
        jump=jump,
        problem=problem,
    )
    return objected(quality, e, session, e.explained, e.ran and e.ran.quick())


def _in_time(e: Explained, session: Session, target: Target) -> tuple[Curve, Curve] | None:
    """Insertion and deletion of a clip's frames in the order of the temporal curve; None for pictures."""
    if not e.is_clip or session.x.shape[2] < 2:
        return None
    perturbed = session.perturbed(target, frames=True)
    when = e.tube().flatten(1).sum(1).reshape(-1, 1, 1)
    return perturbed.curves(cell_ranking(when, perturbed.grid))


def _sanity(session: Session, explanations: Sequence[Explained]) -> list[float | None]:
    """Correlation of each map with the same method's map of the same layer, in the model with shuffled weights.

    None where the copies can't be explained, or have no weights.
    """
    wanted: list[_Wanted] = [((id(e.ran), e.record.run.get("layer")), e.explained) for e in explanations]
    ran = {key: at_layer(e.ran, key[1]) for (key, _), e in zip(wanted, explanations, strict=True) if e.ran}
    targets = [t for t in dict.fromkeys(t for _, t in wanted) if t is not None]

    def explain(twin: nn.Module) -> list[Tensor | None]:
        lend_layers(session.model.module, twin, {layer for (_, layer), _ in wanted if layer})
        maps: dict[_Wanted, Attribution] = {}
        try:
            found = explain_all(list(ran.values()), twin, session.x, targets)
            maps |= {(k, t): a for k, row in zip(ran, found, strict=True) for t, a in zip(targets, row, strict=True)}
        except PellucidError:  # a method that fails on the copy must not take the others with it
            for key, target in dict.fromkeys(wanted):
                with suppress(PellucidError):
                    maps[key, target] = ran[key].explain(twin, session.x, [target])[0]
        return [maps[key].values.cpu() if key in maps else None for key in wanted]

    return sanity_correlations(explain, session.model.module, session.x, [e.attribution for e in explanations])


def at_layer(ran: Method, layer: str | None) -> Method:
    """The method's quick version, at the layer that it explained rather than at one that it would choose anew."""
    return ran.quick().at(layer)
