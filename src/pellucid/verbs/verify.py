"""`verify` and `read`: results on disk, computed again and compared, or opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid import storage
from pellucid.engine.runtimes.asked import AUTO, asked, runtime
from pellucid.engine.trace import interruptible
from pellucid.errors import MediaError, StorageError
from pellucid.media import VOLUME, Clip, Picture, Volume, open_clip, read_image, read_volume
from pellucid.models.targets import TargetLike
from pellucid.verbs.inputs import Input, ModelLike
from pellucid.verbs.kinds import REQUESTS
from pellucid.verbs.records import opens_again, source_of
from pellucid.verbs.request import Again


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        status: `same` (bit for bit), `within tolerance`, or `different`.
        difference: largest absolute difference, relative to the largest absolute value; NaN if not comparable.
        reasons: what differs, one sentence each.
    """

    status: str
    difference: float
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        known = self.status != "same" and self.difference == self.difference
        numbers = f" (largest difference {self.difference:.2g} of the largest value)" if known else ""
        return f"{self.status}{numbers}" + "".join(f"; {r}" for r in self.reasons)


@interruptible
def verify(
    file: str | Path,
    *,
    model: ModelLike | None = None,
    inputs: Input | None = None,
    target: TargetLike = None,
    tolerance: float = 5e-3,
) -> Verification:
    """Recompute a saved explanation from its record, and compare.

    Args:
        file: its .json or .npz.
        model: needed where the record can't load it: a wrapped module.
        inputs: needed where the record can't open it: a picture that was only in memory, or has moved.
        target: needed where the record can't hold it: a function of the output.
        tolerance: largest relative difference still called the same result.

    Raises:
        StorageError: the file can't be read, or cannot be recomputed from its record.
    """
    stored = storage.read_artefact(file, REQUESTS)
    maker = REQUESTS[stored.format]
    if target is not None and not maker.targeted:
        raise StorageError("This result has no target that could be given: leave out target=.")
    wanted = {} if target is None else {"target": target}
    with _precision_of(stored):
        again = maker.recompute(stored, model, inputs, **wanted)
    return again_compared(stored, again, tolerance, stored.tampered)


def _precision_of(stored: storage.Artefact) -> AbstractContextManager[None]:
    """Inside, sums are as rough as they were; which runtime takes them makes no difference beyond the tolerance."""
    run = stored.meta.get("record", {}).get("run", {})
    precision = run.get("runtime", {}).get("precision", "f32")
    return nullcontext() if precision in ("f32", asked().precision) else runtime(AUTO, precision)


def again_compared(stored: storage.Artefact, again: Again, tolerance: float, reasons: Sequence[str]) -> Verification:
    """A stored result beside the same computed again; `reasons` are those that are known already."""
    before = {name: torch.from_numpy(stored.arrays[name]) for name in again.arrays}
    found = compared(before, again.arrays, tolerance, [*reasons, *again.reasons])
    if found.status == "different" and again.cause:
        return replace(found, reasons=(*found.reasons, again.cause))
    return found


def compared(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], tolerance: float, reasons: list[str]
) -> Verification:
    """Arrays of the same names, each relative to its own largest value; `reasons` are those that are known already."""
    differences = [0.0]
    for name, a in before.items():
        b = after[name]
        if a.shape != b.shape:
            reasons.append(f"the {name} has shape {tuple(b.shape)}, not {tuple(a.shape)}")
            return Verification("different", float("nan"), tuple(reasons))
        scale = float(a.abs().max()) or 1.0
        alike = (a == b) | (a.isnan() & b.isnan())
        if not alike.all():
            differences.append(float((a - b).abs().masked_fill(alike, 0).max()) / scale)
    difference = float(torch.tensor(differences, dtype=torch.float64).max())  # which, unlike max, keeps a NaN
    if reasons or not difference <= tolerance:
        return Verification("different", difference, tuple(reasons))
    return Verification("same" if difference == 0 else "within tolerance", difference)


def read(file: str | Path) -> Any:
    """A saved result (a `Heatmap`, an `Importance`, ...), with its picture if that can still be opened.

    Raises:
        StorageError: no such file, or its files were changed after they were written.
    """
    stored = storage.read_artefact(file, REQUESTS)
    if stored.tampered:
        raise StorageError(f"{'; '.join(stored.tampered)}: make it again, or see `pellucid verify`.")
    return opened(stored)


def opened(stored: storage.Artefact) -> Any:
    """An artefact as the result that it holds, with its picture if that can still be opened."""
    result = REQUESTS[stored.format].opened(stored)
    if not hasattr(result, "geometry"):  # of no single picture
        return result
    if opens_again(result.record) and result.geometry.known and "pictures" not in result.record.input:
        try:
            picture = _original(result)
        except MediaError:
            return result
        result.picture = picture if picture.sha256 == result.record.input["sha256"] else None
        if (hidden := getattr(result, "hidden", None)) is not None:
            result.redact(hidden.tolist())
    return result


def _original(result: Any) -> Picture | Clip | Volume:
    """The picture, or of a clip the very frames that the model was shown."""
    about, source = result.record.input, source_of(result.record)
    if isinstance(source, Picture):
        return source
    if getattr(result, "medium", None) is VOLUME:
        return read_volume(source)
    return open_clip(source).pick(about["frames"]) if "frames" in about else read_image(source)
