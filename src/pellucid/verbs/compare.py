"""`compare`: what changed from one model to another, on the same pictures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from pellucid.audit import paired
from pellucid.audit.columns import describe
from pellucid.audit.review import review
from pellucid.audit.samples import SampleTable, arrays, build
from pellucid.audit.truth import shortcomings
from pellucid.engine.trace import interruptible
from pellucid.errors import DataError
from pellucid.keep.artefact import Artefact
from pellucid.media import PictureSet, Shown
from pellucid.models.model import VisionModel
from pellucid.results.comparison import FORMAT, Comparison
from pellucid.results.comparison import read_comparison as opened
from pellucid.verbs.inputs import ModelLike, as_model
from pellucid.verbs.labelled import labelled
from pellucid.verbs.records import opening, record, reloaded, reopened
from pellucid.verbs.request import REQUESTS, Again, Maker, Request

__all__ = ["Comparison", "compare", "opened", "recompute"]


@dataclass(frozen=True, kw_only=True)
class CompareRequest(Request):
    """What `compare` is asked of two models; its settings are those of the verb."""

    verb: ClassVar[str] = "compare"

    seed: int = 0


@interruptible
def compare(
    first: ModelLike,
    second: ModelLike,
    pictures: Shown,
    *,
    keep: str | Path | None = None,
    seed: int = 0,
) -> Comparison:
    """What changed?

    Args:
        first: the model before; a `VisionModel`, a name for `load`, or a bare module.
        second: the model now, of the same classes (mapped by name).
        pictures: a folder (sub-folders or a `labels.csv` are classes), a CSV of files and their classes, a COCO
            file beside its pictures, a glob, `digits:`, or a list.
        keep: folder where finished batches are kept, so that a run goes on where it stopped.
        seed: of whatever is random.

    Returns:
        `Comparison`.

    Raises:
        PellucidError: one sentence with the cure; the models have other classes.
    """
    models = [as_model(first), as_model(second)]
    shown = labelled(pictures, models[0].medium, None, models[0].labels or ())
    looked = shown.pictures
    home = Path(keep) if keep is not None else None
    settled, tables = zip(*(build(m, looked, None, home) for m in models), strict=True)
    names = [[m.label(k) for k in range(t.scores.shape[1])] for m, t in zip(settled, tables, strict=True)]
    before, now = _common(tables[0], paired.aligned(tables[1], *names))
    bounded = all(m.reading.bounded for m in settled)
    sure = tuple(review(t, bounded=bounded, seed=seed).calibration for t in (before, now))
    found = paired.compare(before, now, describe(before, names[0], seed=seed), (sure[0], sure[1]), seed)
    notes = [*shown.notes]
    notes += [] if before.known.any() else ["Nothing is known of the true classes: give sub-folders or a labels.csv."]
    failed = list(dict.fromkeys(sentence for table in tables for sentence in table.failed))
    notes += shortcomings(settled[0], looked, before.truth, failed, names[0])
    digests = [looked.digest(int(i)) for i in before.positions]
    about = {
        **opening(pictures),
        "name": looked.name,
        "sha256": hashlib.sha256(" ".join(digests).encode()).hexdigest(),
        "count": len(before),
    }
    run = {"seed": seed, "layers": [before.layer, now.layer]}
    told = [record(m, m.fingerprint(), about, "compare", {}, None, run) for m in settled]
    told[0].method["parameters"] = {"second": told[1].model}
    sources = [
        looked.sources[int(i)] if isinstance(looked, PictureSet) else f"{looked.name} {i}" for i in before.positions
    ]
    return Comparison(before, now, sources, names[0], (settled[0].name, settled[1].name), found, told[0], notes)


def _common(first: SampleTable, second: SampleTable) -> tuple[SampleTable, SampleTable]:
    """Both tables of the pictures that both models could use."""
    both = np.intersect1d(first.positions, second.positions)
    if not len(both):
        raise DataError("No picture could be used with both models.")

    def rows(table: SampleTable) -> SampleTable:
        kept = np.isin(table.positions, both)
        return replace(table, **{name: value[kept] for name, value in arrays(table).items()})  # type: ignore[arg-type]

    return rows(first), rows(second)


def requested(models: tuple[VisionModel, VisionModel], pictures: Any, asked: CompareRequest) -> Comparison:
    """`compare` as it was requested."""
    return compare(*models, pictures, **vars(asked))


def recompute(artefact: Artefact, model: Any, given: Any) -> Again:
    """Both stored tables made again from their record; `model`: a pair, or one that stands for both."""
    stored, told = opened(artefact), list[str]()
    about = stored.record
    pictures = reopened(about, given)
    pair = model if isinstance(model, tuple | list) else (model, model)
    records = (about, replace(about, model=about.method["parameters"]["second"]))
    models = [reloaded(r, m, pictures, told) for r, m in zip(records, pair, strict=True)]
    again = requested((models[0], models[1]), pictures, CompareRequest(seed=about.run["seed"]))
    found = {
        f"{which}.{name}": torch.from_numpy(value)
        for which, table in (("first", again.first), ("second", again.second))
        for name, value in arrays(table).items()
    }
    return Again(found, told)


REQUESTS[FORMAT] = Maker(CompareRequest, requested, opened, recompute)
