"""A report computed again from itself: every result in it, and every word on its cards."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid import storage
from pellucid.errors import PellucidError, StorageError
from pellucid.explanation import Explanation
from pellucid.render.viewer.stored import KeptResult, opened
from pellucid.verbs.explain import explained_again
from pellucid.verbs.inputs import ModelLike
from pellucid.verbs.kinds import REQUESTS
from pellucid.verbs.verify import Verification, again_compared, compared


@dataclass(frozen=True)
class Checked:
    """What `verify_report` found of one result, or of the page itself.

    Attributes:
        name: the file of the result, or the card.
        found: as `verify` says it; `not verified` where the values are neither in the page nor beside it.
    """

    name: str
    found: Verification


def verify_report(file: str | Path, *, model: ModelLike | None = None, tolerance: float = 5e-3) -> Iterator[Checked]:
    """Compute the results in a page again, one after the other, and compare; then the words of its cards.

    Of heat maps that is the raw map, what the model said, and each measured figure of quality; of other results
    their arrays.

    Args:
        file: a page that `report` wrote.
        model: needed where a record can't load it: a wrapped module.
        tolerance: largest relative difference still called the same.

    Raises:
        StorageError: not such a page.
    """
    path = Path(file)
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"Cannot read {path}: give a page that `pellucid report` wrote.") from error
    page = opened(text)
    for kept in page.results:
        try:
            yield Checked(kept.file, _again(kept, path.parent, model, tolerance))
        except PellucidError as error:
            yield Checked(kept.file, Verification("not verified", math.nan, (str(error),)))
    if not page.sealed:
        yield Checked("the page", Verification("different", math.nan, ("its data was changed after it was written",)))
    for number, reasons in enumerate(page.reasons):
        if reasons:
            yield Checked(
                f"card {number}" if number else "the head of the page",
                Verification("different", math.nan, tuple(reasons)),
            )


def _again(kept: KeptResult, home: Path, model: ModelLike | None, tolerance: float) -> Verification:
    reasons = [] if storage.sealed(kept.meta) else ["its record was changed after it was written"]
    stored = storage.Artefact(kept.meta["format"], kept.meta, kept.arrays, Path(kept.file))
    if not stored.arrays:
        stored = _beside(kept, home)
    if stored.format == storage.FORMAT:
        return _heatmap_again(stored, model, reasons, tolerance)
    return again_compared(stored, REQUESTS[stored.format].recompute(stored, model, None), tolerance, reasons)


def _beside(kept: KeptResult, home: Path) -> storage.Artefact:
    """The saved file that the page names, where its values are not in the page."""
    try:
        stored = storage.read_artefact(home / kept.file, REQUESTS)
    except StorageError as error:
        raise StorageError(f"Its values are not in the page, and {kept.file} cannot be read: put it there.") from error
    if stored.meta != kept.meta:
        raise StorageError(f"{kept.file} is not the result that the page shows.")
    return stored


def _heatmap_again(
    stored: storage.Artefact, model: ModelLike | None, reasons: list[str], tolerance: float
) -> Verification:
    before = storage.explanation(stored)
    again, further = explained_again(stored, model, None)
    reasons = [*reasons, *further]
    if before.quality is not None and again.session is not None:
        again.check()
    reasons += list(differing(figures(before), figures(again), tolerance))
    maps = {"map": before.attribution}, {"map": again.attribution}
    if before.kind == "map":
        maps = {"map": before.map()}, {"map": again.map()}
    return compared(*maps, tolerance, reasons)


def figures(e: Explanation) -> dict[str, float]:
    """Every number that is told of a heat map beside its values, by name."""
    found: dict[str, float] = {}
    for p in e.prediction:
        found[f"the probability of {p.label}"] = p.probability
    for name, value in e.facts.items():
        found[f"the fact {name.replace('_', ' ')}"] = float(value)
    if e.quality is not None:
        found |= dict(_flat("the quality’s", dataclasses.asdict(e.quality)))
    return found


def _flat(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(f"{name} {key.replace('_', ' ')}", part)
    elif isinstance(value, list):
        for k, part in enumerate(value):
            yield from _flat(f"{name} [{k}]", part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)


def differing(before: dict[str, float], after: dict[str, float], tolerance: float) -> Iterator[str]:
    """A sentence for each number that is not what it was, to within a share of the larger of both (or of 1 in 20)."""
    for name, a in before.items():
        b = after.get(name, math.nan)
        if math.isnan(a) and math.isnan(b):
            continue
        if not abs(a - b) <= tolerance * max(abs(a), abs(b), 0.05):
            yield f"{name} is {b:.6g}, not {a:.6g}"
