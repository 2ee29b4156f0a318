"""`audit`: where a model goes wrong on many pictures, on what evidence, and what is wrong with the data."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from pellucid.audit import reasons as wrong_reasons
from pellucid.audit import slices
from pellucid.audit.cases import cases, leaked
from pellucid.audit.columns import describe
from pellucid.audit.failures import failure_score
from pellucid.audit.groups import Likeness
from pellucid.audit.metadata import Given, known_of, source_in
from pellucid.audit.objects import placed
from pellucid.audit.odd import odd_pictures
from pellucid.audit.review import review
from pellucid.audit.samples import SampleTable, arrays, build, reread
from pellucid.audit.truth import shortcomings
from pellucid.engine.trace import interruptible
from pellucid.errors import DataError, MediaError, ModelError, StorageError
from pellucid.keep.artefact import Artefact
from pellucid.media import VOLUME, Shown, address
from pellucid.models.model import VisionModel
from pellucid.results.audit import FORMAT, Audit
from pellucid.results.audit import read_audit as opened
from pellucid.verbs.inputs import ModelLike, as_model
from pellucid.verbs.labelled import LabelledPictures, labelled
from pellucid.verbs.records import opening, record, reloaded, reopened
from pellucid.verbs.request import REQUESTS, Again, Maker, Request

__all__ = ["Audit", "audit", "opened", "recompute"]

_NO_LABELS = (
    "Nothing is known of the true classes, so this audit is reduced: what the answers rest on, and files that show one "
    "picture. Give a folder with a sub-folder for each class, or a labels.csv."
)
_FEW = "With fewer than 100 labelled pictures slices can hardly be told from chance: no slice found is no proof."


@dataclass(frozen=True, kw_only=True)
class AuditRequest(Request):
    """What `audit` is asked; its settings are those of the verb."""

    verb: ClassVar[str] = "audit"

    layer: str | None = None
    truth: str | Path | None = None
    given: Given = None
    training: Shown | None = None
    seed: int = 0


@interruptible
def audit(
    model: ModelLike,
    pictures: Shown,
    *,
    layer: str | None = None,
    truth: str | Path | None = None,
    given: Given = None,
    keep: str | Path | None = None,
    training: Shown | None = None,
    seed: int = 0,
) -> Audit:
    """Where is it wrong, and why?

    Args:
        model: a `VisionModel`, a model's name for `load`, or a bare module; of pictures or clips, with class scores.
        pictures: a folder (sub-folders or a `labels.csv` are classes), a CSV of files and their classes, a glob,
            `digits:`, or a list; or a COCO file beside its pictures.
        layer: module path; None finds the last that reads as a picture.
        truth: the classes, and where the objects lie: a COCO file, VOC or YOLO files, a folder of masks, a CSV. A
            picture is of the class of its annotations, where they agree. None: what `pictures` tell.
        given: what is known of the pictures besides, by name a text for each: a site, a device, a year; or a CSV whose
            first column is the picture's file.
        keep: folder where finished batches are kept, so that a run goes on where it stopped.
        training: pictures that the model learned from, given like `pictures`: beside wrong answers the most similar of
            them are shown, and pictures that are in both are told. None: similar ones among `pictures`.
        seed: of whatever is random.

    Returns:
        `Audit`.

    Raises:
        PellucidError: one sentence with the cure.
    """
    loaded = as_model(model)
    if loaded.medium is VOLUME:
        raise ModelError(
            f"An audit looks at pictures or clips, and {loaded.name} takes volumes: audit it slice by slice."
        )
    shown = labelled(pictures, loaded.medium, truth, loaded.labels or ())
    looked = shown.pictures
    known = known_of(given, looked, pictures)
    begun, weights = time.perf_counter(), loaded.fingerprint()
    settled, samples, unplaced = _table(loaded, shown, layer, Path(keep) if keep is not None else None)
    labels = [settled.label(k) for k in range(samples.scores.shape[1])]
    found = wrong_reasons.find(settled, samples, lambda rows: reread(settled, looked, samples, rows), seed)
    told = {name: [str(texts[int(i)]) for i in samples.positions] for name, texts in known.columns.items()}
    weak = slices.find(describe(samples, labels, told, seed), samples.wrong, samples.known, seed, Likeness.of(samples))
    notes = [*settled.reading.notes, *shown.notes, *known.notes, *unplaced]
    notes += [] if samples.known.any() else [_NO_LABELS]
    notes += [_FEW] if 0 < samples.known.sum() < 100 else []
    notes += shortcomings(settled, looked, samples.truth, samples.failed, labels)
    about = {
        **opening(pictures),
        "name": looked.name,
        "sha256": hashlib.sha256(" ".join(looked.digest(int(i)) for i in samples.positions).encode()).hexdigest(),
        "count": len(samples),
    }
    run = {"seed": seed, "layer": samples.layer, "seconds": round(time.perf_counter() - begun, 3)}
    asked = {"layer": layer, "truth": None if truth is None else address(truth)}
    provenance = record(settled, weights, about, "audit", asked, None, run)
    bounded = settled.reading.bounded
    reviewed = review(samples, bounded=bounded, seed=seed)
    sources = [source_in(looked, int(i)) for i in samples.positions]
    pool, beside = (samples, sources) if training is None else _pool(settled, training, samples.layer, keep)
    return Audit(
        samples=samples,
        sources=sources,
        labels=labels,
        reasons=found,
        slices=weak,
        review=reviewed,
        record=provenance,
        notes=notes,
        failure=failure_score(samples, reviewed.duplicates, seed) if bounded else None,
        cases=cases(samples, pool, beside, labels),
        leaked=() if training is None else leaked(samples, pool),
        odd=odd_pictures(samples, None if training is None else pool),
    )


def _table(
    model: VisionModel, shown: LabelledPictures, layer: str | None, keep: Path | None
) -> tuple[VisionModel, SampleTable, list[str]]:
    """The model settled, the table with the places of objects that are known, and why some are not."""
    settled, samples = build(model, shown.pictures, layer, keep)
    if shown.truth is None:
        return settled, samples, []
    sources = [source_in(shown.pictures, int(i)) for i in samples.positions]
    samples, reason = placed(samples, shown.truth, sources)
    return settled, samples, [reason] if reason else []


def _pool(model: VisionModel, training: Shown, layer: str, keep: str | Path | None) -> tuple[SampleTable, list[str]]:
    """The table of the pictures that were learned from, and what opens each."""
    looked = labelled(training, model.medium).pictures
    _, pool = build(model, looked, layer, Path(keep) if keep is not None else None)
    return pool, [source_in(looked, int(i)) for i in pool.positions]


def requested(model: VisionModel, pictures: Any, asked: AuditRequest) -> Audit:
    """`audit` as it was requested."""
    return audit(model, pictures, **vars(asked))


def recompute(artefact: Artefact, model: ModelLike | None, given: Any) -> Again:
    """The stored table made again from its record, and the score learned again: see `verify`."""
    stored, told = opened(artefact), list[str]()
    about = stored.record
    pictures = reopened(about, given)
    loaded = reloaded(about, model, pictures, told)
    try:
        shown = labelled(pictures, loaded.medium, about.method["parameters"].get("truth"), loaded.labels or ())
        _, samples, _ = _table(loaded, shown, about.run["layer"], None)
    except (DataError, MediaError) as error:
        raise StorageError(f"{error} The pictures of the record are not at hand: give inputs=...") from error
    again: dict[str, Any] = arrays(samples)
    if stored.failure is not None:  # of the table as it is stored: that is compared by itself
        learned = failure_score(stored.samples, stored.review.duplicates, about.run["seed"])
        again |= learned.arrays() if learned is not None else {}
    return Again({name: torch.from_numpy(value) for name, value in again.items()}, told)


REQUESTS[FORMAT] = Maker(AuditRequest, requested, opened, recompute)
