"""What nature offers for the objectives of a run: exemplars of each, out of as few passes over the folder as can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pellucid.engine import unwrap
from pellucid.errors import LayerError, MethodError
from pellucid.features.exemplars import Selection, UnitExemplars, find_exemplars
from pellucid.features.folder import Folder
from pellucid.features.measures import ByActivation, ByRelevance, ByScore, Measure, check_channels
from pellucid.features.natural import Choice, Standing, compare
from pellucid.features.objectives import Channel, Objective, Score, Token
from pellucid.models.layers import best_layer, describe
from pellucid.models.model import VisionModel
from pellucid.models.targets import Target

By = Literal["activation", "relevance"]

CONTRASTED = 4  # pictures that excite a unit least, for the forced choice
_LARGEST_TABLE = 2**31  # bytes; beyond it only the channels asked for are ranked


@dataclass(frozen=True)
class Natural:
    """An objective among natural pictures.

    Attributes:
        shown: the exemplars to show.
        levels: the unit's own distribution and the pictures for the forced choice: `shown`, or by activation.
        measure: what `levels` is of.
        means: `(101,)` percentiles of the channel's mean rather than its peak, where they were asked for.
    """

    shown: UnitExemplars
    levels: UnitExemplars
    measure: Measure
    means: Tensor | None = None


@dataclass(frozen=True)
class Nature:
    """What was found.

    Attributes:
        objectives: one entry an objective; None for those of which natural pictures can't be ranked.
        pictures: how many were ranked.
        data: hash of the pictures.
        forwards: passes that it took.
        notes: what a reader must know.
    """

    objectives: tuple[Natural | None, ...]
    pictures: int
    data: str
    forwards: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Ranking:
    """What natural pictures are ranked by.

    Attributes:
        by: `relevance`: show those in which a channel counts most for `target`.
        target: what relevance is to.
        top: exemplars to show.
        means: rank by the channels' means too, which is what the ascent on a channel climbs.
    """

    by: By = "activation"
    target: Target | None = None
    top: int = 4
    means: bool = False


def measure_of(model: VisionModel, objective: Objective, sample: Tensor) -> Measure | None:
    """What natural pictures are ranked by for an objective; None for a layer, a direction, a sum, a token.

    Raises:
        LayerError, TargetError: no such layer, channel or class.
    """
    module = unwrap(model.module)
    if isinstance(objective, Channel) and not isinstance(objective, Token):
        try:
            layer = describe(module, sample, objective.layer)
        except LayerError:
            objective.bind(model, sample)  # no such layer, or one of plain features
            return None
        check_channels(layer, [objective.channel])
        return ByActivation(layer, (objective.channel,))
    if isinstance(objective, Score):
        target = model.bound(objective.target, sample)
        return ByScore(best_layer(module, sample, target.typical.score, watch=target.layers, key=target.kind), target)
    objective.bind(model, sample)
    return None


def find_natural(
    model: VisionModel,
    objectives: Sequence[Objective],
    pictures: Sequence[str | Path],
    sample: Tensor,
    ranking: Ranking = Ranking(),
    *,
    cache: Path | str | bool = True,
    seed: int = 0,
) -> Nature:
    """Exemplars of every objective that has some; channels of one layer share one pass over the pictures.

    Args:
        model: left as it was.
        objectives: what is visualised.
        pictures: folder, glob, files, `sample:*`.
        sample: an input `(1, C, *space)`.
        ranking: what they are ranked by.
        cache, seed: see `find_exemplars`.
    """
    measures = [measure_of(model, o, sample) for o in objectives]
    rows = len(Folder.of(pictures))
    found: list[Natural | None] = [None] * len(objectives)
    notes: list[str] = []
    forwards, ranked, data = 0, 0, ""
    for together in _groups(measures):
        units = [measures[i].units[0] for i in together]  # type: ignore[union-attr]
        measure = _widened(measures[together[0]], units, rows)
        search = partial(find_exemplars, model, pictures, cache=cache, seed=seed)
        levels = search(measure, Selection(ranking.top, CONTRASTED, units=units))
        shown = levels
        forwards += levels.forwards
        if ranking.by == "relevance" and isinstance(measure, ByActivation):
            bound = _bound(model, ranking.target, sample)
            relevance = ByRelevance(measure.layer, measure.channels, target=bound)
            shown = search(relevance, Selection(ranking.top, units=units))
            forwards += shown.forwards
        mean: Sequence[UnitExemplars | None] = [None] * len(units)
        if ranking.means and isinstance(measure, ByActivation):
            mean = search(replace(measure, reduction="mean"), Selection(0, units=units)).units
        for i, a, b, m in zip(together, shown.units, levels.units, mean, strict=True):
            found[i] = Natural(a, b, measure, m.percentiles if m else None)
        notes += [n for n in levels.notes if n not in notes]
        ranked, data = levels.units[0].count, levels.data
    return Nature(tuple(found), ranked, data, forwards, tuple(notes))


def _bound(model: VisionModel, target: Target | None, sample: Tensor) -> Target:
    if target is None:
        raise MethodError("Relevance is to a target: name one, such as target='espresso'.")
    return model.bound(target, sample)


def _groups(measures: Sequence[Measure | None]) -> list[list[int]]:
    """Places of the objectives that share a pass: channels of one layer."""
    groups: dict[object, list[int]] = {}
    for i, measure in enumerate(measures):
        if isinstance(measure, ByActivation):
            groups.setdefault(measure.layer.name, []).append(i)
        elif measure is not None:
            groups.setdefault(i, []).append(i)
    return list(groups.values())


def _widened(measure: Measure | None, units: Sequence[int], rows: int) -> Measure:
    """All channels of a layer are ranked at the price of one, and kept for the next time, while the table is small."""
    assert measure is not None
    if not isinstance(measure, ByActivation):
        return measure
    wide = 4 * rows * measure.layer.layout.channels <= _LARGEST_TABLE
    return replace(measure, channels=None if wide else tuple(sorted(set(units))))


def compared(
    model: VisionModel, nature: Nature, inputs: Sequence[Tensor]
) -> list[tuple[Standing, Choice | None] | None]:
    """The synthetic pictures against the natural ones, an entry an objective.

    Args:
        model: left as it was.
        nature: of the same objectives.
        inputs: their first pictures as the model takes them, `(C, *space)` each.
    """
    found: list[tuple[Standing, Choice | None] | None] = [None] * len(inputs)
    groups: dict[int, list[int]] = {}
    for i, natural in enumerate(nature.objectives):
        if natural is not None:
            groups.setdefault(id(natural.measure), []).append(i)
    for together in groups.values():
        naturals = [n for i in together if (n := nature.objectives[i]) is not None]
        made = torch.stack([inputs[i] for i in together])
        results = compare(model, naturals[0].measure, [n.levels for n in naturals], made)
        for i, result in zip(together, results, strict=True):
            found[i] = result
    return found
