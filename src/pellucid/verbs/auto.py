"""`auto` in a method's place: maps that cost one pass together, of which the one is shown that measures best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pellucid.errors import LayerError, MethodError, PellucidError
from pellucid.evaluation.choice import better_of, choose, leaves_doubt
from pellucid.heatmaps import Attribution, Method, get_method
from pellucid.heatmaps.activations import layers_of
from pellucid.registry import settings_of
from pellucid.results import Heatmap
from pellucid.scoring.job import Job

_USUAL = (
    "grad-cam",
    "hires-cam",
    "layer-cam",
    "grad-cam-elementwise",
    "grad-cam++",
    "xgrad-cam",
    "eigen-cam",
    "eigen-grad-cam",
)
_FINER = ("hires-cam", "layer-cam", "grad-cam-elementwise", "eigen-grad-cam")  # what holds at shallower layers too
_AT_THE_INPUT = ("deep-lift",)
_ELSE = (("input-x-gradient", "saliency"), ("rise",))  # where a model does not open what the others need
_LAST, _MASKS = "rise", 500  # as many forwards as a check takes at most


@dataclass(frozen=True, kw_only=True)
class Auto(Method):
    """Whichever of the maps that share one pass measures best on this picture; `explain` puts it in their place.

    Args:
        layer: module path; None finds one.
        seed: of maps that are sampled.
    """

    layer: str | None = None
    seed: int = 0
    name: ClassVar[str] = "auto"
    needs: ClassVar[str] = "outputs"
    cost: ClassVar[str] = "1 forward + tail backward, and its check; 500 forwards more where none is faithful"

    def candidates(self, job: Job) -> Iterator[list[Method]]:
        """Sets of methods to be measured together, the usual one first; the next set where one cannot be run.

        The maps of a layer share a pass, and there are up to three layers; the check of one map costs a hundred.
        """
        if self.layer is not None:
            yield [get_method(name, layer=self.layer) for name in _USUAL]
            return
        with suppress(PellucidError):
            for method in _USUAL:
                get_method(method).check_model(job.module)
            best, *finer = layers_of(job)
            maps = [
                *(get_method(name, layer=best.name) for name in _USUAL),
                *(get_method(name, layer=layer.name) for layer in finer for name in _FINER),
            ]
            yield [*maps, *(get_method(name) for name in _AT_THE_INPUT)]
            yield maps  # where what is at the input cannot be had
        for names in _ELSE:
            made = [get_method(name) for name in names]
            yield [replace(m, seed=self.seed) if "seed" in settings_of(m) else m for m in made]  # type: ignore[type-var]

    def last_resort(self) -> Method | None:
        """What is asked where no map of a pass is faithful: what the model says of masks. None where a layer was named.

        The masked pictures of the check serve it too, so it costs its own masks alone.
        """
        return get_method(_LAST, samples=_MASKS, seed=self.seed) if self.layer is None else None

    @classmethod
    def run(cls, methods: Sequence[Any], job: Job) -> list[list[Attribution]]:
        """Never alone: what it finds depends on its check."""
        raise MethodError("auto chooses by what is measured on a picture: ask pl.explain for it, or name a method.")


Found = list[list[Attribution]]


def with_candidates(
    methods: Sequence[Method], run: Callable[[list[Method]], Found], job: Callable[[], Job]
) -> tuple[list[Method], list[int], Found]:
    """Run methods, candidates in the place of each `auto`.

    Returns:
        What was run; for each of these the place of the `auto` that it stands for, -1 for a method of its own; found.
    """
    place = next((k for k, m in enumerate(methods) if isinstance(m, Auto)), None)
    if place is None:
        return list(methods), [-1] * len(methods), run(list(methods))
    auto, failure = methods[place], None
    assert isinstance(auto, Auto)
    for candidates in auto.candidates(job()):
        try:
            ready, stands, found = with_candidates([*methods[:place], *candidates, *methods[place + 1 :]], run, job)
        except (MethodError, LayerError) as error:
            failure = error
            continue
        stands[place : place + len(candidates)] = [place] * len(candidates)
        return ready, stands, found
    assert failure is not None
    raise failure


def settled(
    found: Sequence[Heatmap],
    stands: Sequence[int],
    asked: Sequence[Method],
    further: Callable[[Method, int], Heatmap],
) -> list[Heatmap]:
    """Of one picture's maps, those of a target after the other: the ones that are shown, in order.

    Args:
        found: all that were drawn.
        stands: see `with_candidates`.
        asked: methods before candidates took the place of `auto`.
        further: draws the map of another method for the target of a number.
    """
    rows = [found[i : i + len(stands)] for i in range(0, len(found), len(stands))]
    own = {k: [i for i, stand in enumerate(stands) if stand == k] for k in stands if k >= 0}
    chosen = {k: choose([[row[i] for i in places] for row in rows]) for k, places in own.items()}
    for k, best in chosen.items():
        auto = asked[k]
        last = auto.last_resort() if isinstance(auto, Auto) else None
        if last is not None and all(rows[0][i].method != last.name for i in own[k]):
            chosen[k] = [_or_last(e, number, last, further) for number, e in enumerate(best)]
    shown: list[Heatmap] = []
    for number, row in enumerate(rows):
        for i, e in enumerate(row):
            k = stands[i]
            if k < 0:
                shown.append(e)
            elif i == own[k][0]:
                shown.append(chosen[k][number])
    return shown


def _or_last(best: Heatmap, number: int, last: Method, further: Callable[[Method, int], Heatmap]) -> Heatmap:
    if leaves_doubt(best):
        with suppress(MethodError, LayerError):
            return better_of(best, further(last, number))
    return best
