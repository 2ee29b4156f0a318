"""`repair`: the last layer learned anew without the wrong reasons that an audit found, and proven on other pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from pellucid.audit import reasons as wrong_reasons
from pellucid.audit import repair as head
from pellucid.audit import slices
from pellucid.audit.columns import describe
from pellucid.audit.groups import Likeness
from pellucid.audit.proof import ProvenGroup
from pellucid.audit.samples import SampleTable, build, reread
from pellucid.audit.slices import SURE, distinct
from pellucid.audit.truth import unusable
from pellucid.engine.trace import interruptible
from pellucid.errors import DataError, ModelError
from pellucid.keep.files import write_bytes
from pellucid.media import PICTURE, PictureSet, read_folder
from pellucid.media.pictures import TABLE
from pellucid.models.model import VisionModel
from pellucid.results.repair import Repair
from pellucid.verbs.compare import compare
from pellucid.verbs.inputs import ModelLike, as_model


@interruptible
def repair(
    model: ModelLike,
    pictures: str | Path,
    out: str | Path,
    *,
    layer: str | None = None,
    keep: str | Path | None = None,
    seed: int = 0,
) -> Repair:
    """Learn the last layer anew without the wrong reasons, and prove it on pictures that had no part in it.

    Half of the pictures are audited, and teach the new layer; the other half is looked at by the model as it was and as
    it is. Source: Kirichenko et al. 2023, arXiv:2204.02937, with exchanged pictures in the place of group labels.

    Args:
        model: a `VisionModel`, a model's name for `load`, or a bare module; its scores are those of one linear layer.
            It stays as it is.
        pictures: a folder whose sub-folders or `labels.csv` are the classes.
        out: folder for the new weights (`weights.safetensors`), both halves (`labels.csv`) and the comparison.
        layer: that is read for the audit; None finds the last that reads as a picture.
        keep: folder where finished batches are kept, so that a run goes on where it stopped.
        seed: of the halves and of whatever else is random.

    Returns:
        `Repair`; its `model` is the repaired one.

    Raises:
        DataError: the audit found nothing to repair, or pictures are too few.
        ModelError: no such last layer.
    """
    loaded, home = as_model(model), Path(out)
    if loaded.medium is not PICTURE:
        raise ModelError(f"A repair exchanges parts of pictures, and {loaded.name} takes none: audit it instead.")
    looked = read_folder(pictures, absent=True)
    if not len(looked.labels):
        raise DataError("A repair needs the true classes: give a folder with sub-folders of classes, or a labels.csv.")
    teaching, proving = _halves(looked, seed)
    kept = Path(keep) if keep is not None else None
    settled, samples = build(loaded, teaching, layer, kept)
    labels = [settled.label(k) for k in range(samples.scores.shape[1])]
    head.require_classes(samples.truth, labels)

    def opened(rows: Sequence[int]) -> Tensor:
        return reread(settled, teaching, samples, rows)

    last = head.last_layer(settled, opened([0]))
    reasons = [r for r in wrong_reasons.find(settled, samples, opened, seed) if r.relied]
    found = slices.find(describe(samples, labels, seed=seed), samples.wrong, samples.known, seed, Likeness.of(samples))
    weak = distinct([s for s in found if s.p <= SURE])
    if not reasons and not weak:
        raise DataError(
            "The audit of the teaching half found no wrong reason and no slice that errs more often, so there is "
            "nothing to repair; `pellucid audit` shows all its tests."
        )
    every = head.forms(reasons, tuple(opened([0]).shape[-2:]))  # type: ignore[arg-type]
    taught = head.lesson(settled, last, opened, samples.truth, every, [s.members for s in weak], labels, seed)
    layer_bias = dict(settled.module.named_parameters()).get(f"{last}.bias") is not None
    weight, bias, strength = head.learned(taught, len(labels), bias=layer_bias)
    again = head.repaired(settled, last, weight, bias)
    files = _written(again, home, teaching, proving)
    if settled.source:
        kept_settings = {k: v for k, v in settled.source.items() if k != "random_weights"}
        again.source = {**kept_settings, "weights": str(files[0])}
    again.name = f"{settled.name}, repaired"
    compared = compare(settled, again, str(files[2].parent), keep=kept, seed=seed)
    groups = _groups(settled, again, proving, compared.first, every, labels, seed)
    notes = [*unusable(samples.failed), *compared.notes]
    found_reasons, found_slices = [r.line for r in reasons], [w.line for w in weak]
    return Repair(again, last, strength, found_reasons, found_slices, groups, compared, files, notes)


def _halves(looked: PictureSet, seed: int) -> tuple[PictureSet, PictureSet]:
    """Each class cut in two at random."""
    rng = np.random.default_rng(seed)
    first: list[int] = []
    for k in range(len(looked.classes)):
        mine = np.flatnonzero(looked.labels == k)
        first += rng.permutation(mine)[: (len(mine) + 1) // 2].tolist()
    chosen = np.isin(np.arange(len(looked)), first)
    return _part(looked, "teaching", chosen), _part(looked, "proving", ~chosen)


def _part(looked: PictureSet, name: str, chosen: np.ndarray) -> PictureSet:
    rows = np.flatnonzero(chosen)
    return replace(looked.select(rows), name=name)


def _written(again: VisionModel, home: Path, *halves: PictureSet) -> list[Path]:
    """The weights, then a table of each half."""
    from safetensors.torch import save

    state = {name: value.detach().cpu().contiguous().clone() for name, value in again.module.state_dict().items()}
    files = [home / "weights.safetensors", *(home / half.name / TABLE for half in halves)]
    write_bytes(files[0], save(state))
    for file, half in zip(files[1:], halves, strict=True):
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["file", "class"])
        for source, k in zip(half.sources, half.labels, strict=True):
            rows.writerow([Path(source).resolve(), half.classes[k]])
        write_bytes(file, text.getvalue().encode())
    return [file.resolve() for file in files]


def _groups(
    before: VisionModel,
    now: VisionModel,
    proving: PictureSet,
    samples: SampleTable,
    every: Sequence[head.Form],
    labels: Sequence[str],
    seed: int,
) -> list[ProvenGroup]:
    """Each class in each form: how often each model is right."""
    rng = np.random.default_rng(seed + 1)
    head.require_classes(samples.truth, labels)
    found = []
    for form in every:
        given = head.donors(samples.truth, form, labels, rng)
        marks = np.zeros((2, len(samples)), bool)
        for start in range(0, len(samples), before.batch):
            some = np.arange(start, min(start + before.batch, len(samples)))
            x = reread(before, proving, samples, some.tolist())
            x = form.of(x, x if form.part is None else reread(before, proving, samples, given[some].tolist()))
            for m, one in enumerate((before, now)):
                marks[m, some] = head.right(one, x, samples.truth[some], before.reading)
        for k, label in enumerate(labels):
            inside = samples.truth == k
            found.append(ProvenGroup(label, form.name, *(tuple(row[inside].tolist()) for row in marks)))
    return found
