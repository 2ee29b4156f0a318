"""`explain` beside the truth, of models that answer classes or regions: where each map lies against a mask or boxes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pellucid.errors import AbsentError, MediaError, PellucidError
from pellucid.evaluation.boxes import box_figures, mean_figures
from pellucid.evaluation.reliability import Localisation, localisation
from pellucid.keep.files import comma_separated, write_together
from pellucid.media import Volume
from pellucid.media.magic import nifti_stem
from pellucid.media.medium import PICTURE, VOLUME, Medium
from pellucid.models.targets import Target
from pellucid.models.targets.classes import label_of, resolve_class
from pellucid.models.targets.regions import RegionTarget
from pellucid.models.tasks import RegionTask, Task
from pellucid.results import Heatmap, Heatmaps
from pellucid.truth.matching import LEAST
from pellucid.verbs.truths import TruthSource
from pellucid.verbs.volume_truths import VolumeTruth

FIGURES = ("pointing", "energy", "mask_iou")
VOLUME_FIGURES = ("pointing", "energy", "dice", "distance_mm")
TABLE = "truth.csv"

Outcome = tuple[str, Heatmaps | PellucidError]


class Located:
    """Maps beside the truth of their pictures or volumes, and what became of each.

    Args:
        truth: annotations of any kind, or a folder of masks (see `TruthSource`); of volumes `VolumeTruth`'s.
        task: what the model answers. A region is judged by the annotations of its own class; the map of a class by
            those of its class, or by all where none are of it.
        labels: of the model's classes.
        medium: what the model takes.

    Attributes:
        figures: what is measured of each map.
        rows: a row for each map, and for each region that the network misses.
        unknown: the pictures of which the truth says nothing.

    Raises:
        MediaError: there is nothing of the kind, or it cannot be read.
    """

    def __init__(self, truth: str | Path, task: Task, labels: Sequence[str] = (), medium: Medium = PICTURE) -> None:
        known, of_volumes = tuple(labels) if isinstance(task, RegionTask) else (), medium is VOLUME
        self.truth = VolumeTruth(truth, len(known)) if of_volumes else TruthSource(truth, known)
        self.figures = VOLUME_FIGURES if of_volumes else FIGURES
        self.labels, self.medium = labels, medium
        self.rows: list[dict[str, Any]] = []
        self.unknown: list[str] = []
        self.missed: list[tuple[str, str]] = []

    def beside(self, outcomes: Iterable[Outcome], files: Sequence[str], targets: Sequence[Target]) -> Iterator[Outcome]:
        """Outcomes of `explain_each`, with the figures of each map in its record and in its remarks.

        A region that truly is there, and that the network gives no place, is missed: that is a row, and no failure.

        Args:
            files: the inputs, by whose paths pictures are known.
            targets: what is asked.
        """
        for name, found in outcomes:
            if isinstance(found, AbsentError) and self._miss(name, found, files, targets):
                continue
            try:
                if isinstance(found, Heatmaps):
                    self._locate(found)
            except MediaError as error:
                yield name, error
            else:
                yield name, found

    def _locate(self, found: Heatmaps) -> None:
        first = found[0]
        source = str(first.record.input["source"] or first.name)
        if isinstance(first.picture, Volume):
            source = first.picture.given or source
        if not self._speaks_of(source, first.name):
            self.unknown.append(str(first.record.input["source"] or first.name))
            for e in found:
                e.remarks.append(f"The truth says nothing of this {self.medium.name}, so its map is not judged.")
            return
        if not first.geometry.known:
            raise MediaError(
                f"The map of {first.name} can't be laid beside the truth: the model's transform has no known way back "
                "to the picture."
            )
        for e in found:
            mask = self._mask(e, source)
            figures = figures_of(e, mask)
            e.extras["truth"] = mask[None]
            e.record = replace(e.record, input={**e.record.input, "truth": figures})  # maps share theirs
            e.remarks += told(figures, _label(e), self.medium.name)

    def _speaks_of(self, source: str, name: str) -> bool:
        if isinstance(self.truth, VolumeTruth):
            return self.truth.file(source, name) is not None
        return self.truth.speaks_of(source)

    def _mask(self, e: Heatmap, source: str) -> Tensor:
        asked = e.explained
        region = isinstance(asked, RegionTarget)
        if isinstance(self.truth, VolumeTruth):
            index = asked.classes[0] if isinstance(asked, RegionTarget) and asked.classes else None
            file = self.truth.file(source, e.name)
            mask = None if file is None else self.truth.of(file, e.geometry, index)
        else:
            mask = self.truth.of(source, 0, e.geometry.source_size, _label(e), alone=region)
        assert mask is not None
        return mask

    def _miss(self, name: str, absent: AbsentError, files: Sequence[str], targets: Sequence[Target]) -> bool:
        """Whether the one region that is asked for truly is in the picture, which the network does not say."""
        target = targets[0]
        sources = [file for file in files if name in _called(file)]
        if not sources and isinstance(self.truth, VolumeTruth):
            sources = [name]  # a series is called by its hash, for the patient's sake
        if len(targets) > 1 or len(sources) != 1 or not isinstance(target, RegionTarget) or target.label is None:
            return False
        label = target.label if isinstance(target.label, str) else label_of(target.label, self.labels or None)
        where = files[0] if len(files) == 1 else sources[0]
        if not _whole(target) or not self._holds(where, name, label):
            return False
        self.missed.append((sources[0], label))
        about = {"picture": sources[0], "target": label, "method": ""}
        self.rows.append(about | self._row({"kind": "miss", "region_iou": 0.0}) | {"explanation": ""})
        return True

    def _holds(self, source: str, name: str, label: str) -> bool:
        if isinstance(self.truth, VolumeTruth):
            file = self.truth.file(source, name)
            return file is not None and self.truth.holds(file, resolve_class(label, self.labels or None))
        return self.truth.holds(source, label)

    def _row(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        return {name: figures.get(name) for name in ("kind", "region_iou", "share", *self.figures)}

    def noted(self, found: Heatmaps, entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """What `--json` tells of each explanation, with its figures; each becomes a row."""
        for k, (e, entry) in enumerate(zip(found, entries, strict=True)):
            figures = e.record.input.get("truth")
            entry["truth"] = figures
            if figures is not None:
                records = [file for file in entry["files"] if file.endswith(".json")]
                about = {"picture": entry["input"], "target": e.target, "method": e.method}
                self.rows.append(about | self._row(figures) | {"explanation": Path(records[k]).name})
        return list(entries)

    def means(self) -> dict[str, dict[str, tuple[float, float, float, int]]]:
        """Of each method the means of `figures` and `share`, with the ends of their 95 % intervals, and of how many."""
        found: dict[str, list[dict[str, float]]] = {}
        for row in self.rows:
            if row["method"] and row["pointing"] is not None:
                figures = {name: math.nan if row[name] is None else row[name] for name in ("share", *self.figures)}
                found.setdefault(row["method"], []).append(figures)
        return {method: mean_figures(rows) for method, rows in found.items()}

    def save(self, folder: str | Path) -> Path:
        """Write all rows as `truth.csv`."""
        (written,) = write_together({Path(folder) / TABLE: comma_separated(self.rows, nan="").encode()})
        return written


def figures_of(e: Heatmap, mask: Tensor) -> dict[str, Any]:
    """Figures of an explanation beside a mask, bool over the original.

    Returns:
        `share`, that of the picture which is true; `pointing`, `energy` and `mask_iou` as `box_figures` has them, None
        where nothing is true, or no map is there; of a volume `dice` and `distance_mm` for `mask_iou` (see
        `Localisation`). Of a whole region `region_iou`, how far it overlaps the mask, and `kind`, `hit` or `false`.
    """
    found: dict[str, Any] = {"share": int(mask.sum()) / mask.numel()}
    region = e.extras.get("region")
    if region is not None and isinstance(e.explained, RegionTarget) and _whole(e.explained):
        inside = region[0].bool()
        overlap = float((inside & mask).sum()) / max(1, int((inside | mask).sum()))
        found |= {"kind": "hit" if overlap >= LEAST else "false", "region_iou": overlap}
    if mask.any() and e.kind == "map" and mask.ndim == 3:
        place = localisation(e, mask)
        measured = (float(place.hit), place.mass, place.dice, place.distance)
        there = not math.isnan(place.mass)
        found |= {name: v if there else None for name, v in zip(VOLUME_FIGURES, measured, strict=True)}
    elif mask.any() and e.kind == "map":
        figures = box_figures(e, mask)
        found |= {name: None if math.isnan(figures[name]) else figures[name] for name in FIGURES}
    return found


def told(figures: Mapping[str, Any], label: str, medium: str = "picture") -> list[str]:
    """Figures in sentences."""
    found, share = [], figures["share"]
    if "kind" in figures:
        overlap = figures["region_iou"]
        if not share:
            found.append(f"A false region: there is truly no {label} here.")
        elif figures["kind"] == "hit":
            found.append(f"A hit: the region overlaps the true one by {overlap:.0%} (IoU).")
        else:
            found.append(f"A false region: it overlaps the true one by {overlap:.0%} (IoU); a hit takes {LEAST:.0%}.")
    elif not share:
        found.append("The truth holds nothing here, so there is nothing for the map to lie on.")
    if "pointing" not in figures:
        return found
    if medium == "volume":
        dice, distance, energy = (figures[name] for name in ("dice", "distance_mm", "energy"))
        nowhere = energy is None
        place = Localisation(
            dice or 0.0, figures["pointing"] == 1, distance or 0.0, math.nan if nowhere else energy, "mm"
        )
        return [*found, f"The truth takes {share:.2%} of the volume, outlined in green.", place.line()]
    pointing, energy, overlap = (figures[name] for name in FIGURES)
    if energy is None:
        return [*found, "Beside the truth: the map has no positive evidence, so it points nowhere."]
    peak = "peak outside" if pointing == 0 else "peak inside" if pointing == 1 else "peak partly inside"
    found.append(
        f"Beside the truth ({share:.0%} of the picture, outlined in green): {peak}, {energy:.0%} of the evidence "
        f"inside, overlap {overlap:.2f} (IoU)."
    )
    return found


def _called(file: str) -> tuple[str, ...]:
    """What an input is called, by its path."""
    inner = Path(file.rpartition(":")[2])
    return file, inner.name, inner.stem, nifti_stem(inner.name)


def _whole(target: RegionTarget) -> bool:
    """Whether all that the network gives to a class is meant, which a mask of the class judges."""
    return target.piece is None and target.at is None and target.part in ("", "iou")


def _label(e: Heatmap) -> str:
    """The class that is explained, as the model calls it."""
    asked = e.explained
    if isinstance(asked, RegionTarget) and e.session is not None and asked.classes:
        return e.session.model.label(asked.classes[0])
    return e.target
