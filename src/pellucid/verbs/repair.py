"""`repair`: a model learns anew without the wrong reasons that an audit found, and it is proven on other pictures."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from pellucid.audit import reasons as wrong_reasons
from pellucid.audit import repair as head
from pellucid.audit import slices
from pellucid.audit.columns import describe
from pellucid.audit.groups import Likeness
from pellucid.audit.samples import Reopened, build
from pellucid.audit.slices import SURE, distinct
from pellucid.audit.truth import unusable
from pellucid.audit.ways import KnownPictures, chosen, ways
from pellucid.engine.trace import interruptible
from pellucid.errors import DataError, ModelError
from pellucid.keep.files import write_bytes
from pellucid.media import PICTURE, PictureSet, read_folder
from pellucid.media.pictures import TABLE
from pellucid.models.model import VisionModel
from pellucid.results.repair import Repair
from pellucid.verbs.compare import compare
from pellucid.verbs.inputs import ModelLike, as_model

_PARTS = ("teaching", "choosing", "proving")
_PROVES = head.LEAST // 2  # pictures of each class that prove


@interruptible
def repair(
    model: ModelLike,
    pictures: str | Path,
    out: str | Path,
    *,
    layer: str | None = None,
    keep: str | Path | None = None,
    seconds: float = 30.0,
    seed: int = 0,
) -> Repair:
    """Learn anew without the wrong reasons, and prove it on pictures that had no part in it.

    Half of the pictures are audited, and teach. Two ways are tried: a last layer on frozen features (Kirichenko et al.
    2023, arXiv:2204.02937, with exchanged pictures in the place of group labels), and the whole network taught further
    on pictures whose wrong parts are those of any picture. An eighth chooses the way whose worst group is best; the
    rest is looked at by the model as it was and as it is.

    Args:
        model: a `VisionModel`, a model's name for `load`, or a bare module. It stays as it is.
        pictures: a folder whose sub-folders or `labels.csv` are the classes.
        out: folder for the new weights (`weights.safetensors`), the parts (`labels.csv`) and the comparison.
        layer: that is read for the audit; None finds the last that reads as a picture.
        keep: folder where finished batches are kept, so that a run goes on where it stopped.
        seconds: of processor time, for which the whole network is taught at most; 0 learns the last layer alone.
        seed: of the parts and of whatever else is random.

    Returns:
        `Repair`; its `model` is the repaired one.

    Raises:
        DataError: the audit found nothing to repair, or pictures are too few.
        ModelError: neither way can be gone.
    """
    loaded, home = as_model(model), Path(out)
    if loaded.medium is not PICTURE:
        raise ModelError(f"A repair exchanges parts of pictures, and {loaded.name} takes none: audit it instead.")
    looked = read_folder(pictures, absent=True)
    if not len(looked.labels):
        raise DataError("A repair needs the true classes: give a folder with sub-folders of classes, or a labels.csv.")
    teaching, choosing, proving = _parts(looked, seed)
    kept = Path(keep) if keep is not None else None
    settled, samples = build(loaded, teaching, layer, kept)
    labels = [settled.label(k) for k in range(samples.scores.shape[1])]
    head.require_classes(samples.truth, labels)
    opened = Reopened(settled, teaching, samples)
    reasons = [r for r in wrong_reasons.find(settled, samples, opened, seed) if r.relied]
    found = slices.find(describe(samples, labels, seed=seed), samples.wrong, samples.known, seed, Likeness.of(samples))
    weak = distinct([s for s in found if s.p <= SURE])
    if not reasons and not weak:
        raise DataError(
            "The audit of the teaching half found no wrong reason and no slice that errs more often, so there is "
            "nothing to repair; `pellucid audit` shows all its tests."
        )
    every = head.forms(reasons, tuple(opened([0]).shape[-2:]))  # type: ignore[arg-type]
    taught = KnownPictures(opened, samples.truth, every, labels, seed)
    found_ways, lacking = ways(settled, taught, [s.members for s in weak], seconds)
    _, others = build(settled, choosing, samples.layer, kept)
    head.require_classes(others.truth, labels, 1)
    choice = KnownPictures(Reopened(settled, choosing, others), others.truth, every, labels, seed + 2)
    way, tries = chosen(found_ways, choice)
    again = way.model
    files = _written(again, home, teaching, choosing, proving)
    if settled.source:
        kept_settings = {k: v for k, v in settled.source.items() if k != "random_weights"}
        again.source = {**kept_settings, "weights": str(files[0])}
    again.name = f"{settled.name}, repaired"
    compared = compare(settled, again, str(files[-1].parent), keep=kept, seed=seed)
    rest = compared.first
    head.require_classes(rest.truth, labels, _PROVES)
    proof = KnownPictures(Reopened(settled, proving, rest), rest.truth, every, labels, seed + 1)
    return Repair(
        model=again,
        layer=way.layer,
        strength=way.strength,
        reasons=[r.line for r in reasons],
        slices=[w.line for w in weak],
        groups=proof.groups((settled, again), ~np.stack([rest.wrong, compared.second.wrong])),
        comparison=compared,
        files=files,
        notes=[*unusable(samples.failed), *lacking, *compared.notes],
        tries=tries,
    )


def _parts(looked: PictureSet, seed: int) -> list[PictureSet]:
    """Each class cut at random: half teaches, an eighth chooses, the rest proves."""
    rng = np.random.default_rng(seed)
    part = np.full(len(looked), _PARTS.index("proving"))
    for k in range(len(looked.classes)):
        mine = rng.permutation(np.flatnonzero(looked.labels == k))
        half = (len(mine) + 1) // 2
        part[mine[:half]] = _PARTS.index("teaching")
        part[mine[half : half + -(-(len(mine) - half) // 4)]] = _PARTS.index("choosing")
    return [replace(looked.select(np.flatnonzero(part == p)), name=name) for p, name in enumerate(_PARTS)]


def _written(again: VisionModel, home: Path, *sets: PictureSet) -> list[Path]:
    """The weights, then a table of each part."""
    from safetensors.torch import save

    state = {name: value.detach().cpu().contiguous().clone() for name, value in again.module.state_dict().items()}
    files = [home / "weights.safetensors", *(home / one.name / TABLE for one in sets)]
    write_bytes(files[0], save(state))
    for file, one in zip(files[1:], sets, strict=True):
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["file", "class"])
        for source, k in zip(one.sources, one.labels, strict=True):
            rows.writerow([Path(source).resolve(), one.classes[k]])
        write_bytes(file, text.getvalue().encode())
    return [file.resolve() for file in files]
