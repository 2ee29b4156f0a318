"""Results on disk: a `.npz` of arrays and a `.json` of all else. Never pickle, never half a file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.errors import StorageError
from pellucid.explanation import Explanation, Prediction, Quality, Record
from pellucid.files import Files, write_together
from pellucid.files import check_writable as check_writable  # noqa: PLC0414 - known by this name elsewhere
from pellucid.files import write_bytes as write_bytes  # noqa: PLC0414
from pellucid.media.geometry import Geometry

FORMAT = "pellucid-explanation/1"


def strict(value: Any) -> Any:
    """Plain values as JSON can hold them: NaN and infinity, which it cannot, are None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: strict(v) for k, v in value.items()}
    return [strict(v) for v in value] if isinstance(value, list | tuple) else value


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Artefact:
    """A result on disk: its arrays, and all else as plain values.

    Attributes:
        format: what kind of result, with a version.
        meta: all but the arrays.
        arrays: by name.
        stem: its files' name without their endings.
        tampered: what shows that the files are not as they were written, one sentence each (empty: nothing).
    """

    format: str
    meta: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    stem: Path = Path()
    tampered: list[str] = field(default_factory=list)


def write_artefact(
    path: Path, format: str, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], files: Files | None = None
) -> list[Path]:
    """Write `path` with the endings .npz and .json, sealed, both or neither; returns the paths.

    Args:
        path: with or without an ending.
        format: what kind of result this is, such as `pellucid-explanation/1`.
        arrays: numbers by name; no objects.
        meta: plain values; NaN and infinity become null.
        files: further files that belong to it, written together with it (a picture, a table).
    """
    stem = _stem(path)
    buffer = BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
    data = buffer.getvalue()
    about = {"file": _with(stem, ".npz").name, "sha256": _digest(data)}
    sealed = strict({"format": format, **meta, "arrays": about})
    sealed["sha256"] = _seal(sealed)
    text = json.dumps(sealed, indent=2, ensure_ascii=False, allow_nan=False)
    return write_together({_with(stem, ".npz"): data, _with(stem, ".json"): text.encode(), **(files or {})})


def read_artefact(path: Path | str, formats: Collection[str]) -> Artefact:
    """Read what `write_artefact` wrote, by the name of either of its files.

    Args:
        path: either file, or their common stem.
        formats: those that are welcome.

    Raises:
        StorageError: missing, of another format, or damaged.
    """
    stem = _stem(Path(path))
    meta_file, array_file = _with(stem, ".json"), _with(stem, ".npz")
    try:
        meta = json.loads(meta_file.read_bytes(), parse_constant=_refuse)
        if not isinstance(meta, dict) or meta.get("format") not in formats:
            raise StorageError(
                f"{meta_file} holds no {_noun(formats)} of this format ({', '.join(formats)}): name one that does."
            )
        data = array_file.read_bytes()
    except OSError as error:
        raise StorageError(
            f"Cannot read {error.filename}: {error.strerror}; give the .json or .npz of a saved {_noun(formats)}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{meta_file} is not JSON: give the .json or .npz of a saved {_noun(formats)}.") from error
    artefact = Artefact(meta["format"], meta, {}, stem)
    if not sealed(meta):
        artefact.tampered.append(f"{meta_file.name} was changed after it was written")
    with reading(artefact):
        if meta["arrays"]["sha256"] != _digest(data):
            artefact.tampered.append(f"{array_file.name} was changed after it was written")
        with np.load(BytesIO(data), allow_pickle=False) as stored:
            artefact.arrays = {name: stored[name] for name in stored.files}
    return artefact


@contextmanager
def reading(artefact: Artefact) -> Iterator[None]:
    """Turn whatever goes wrong while an artefact is being understood into one sentence."""
    try:
        yield
    except Exception as error:  # on damaged bytes the readers of zip and npy raise nearly anything
        reason = "; ".join(artefact.tampered) or str(error)
        noun = _noun([artefact.format])
        raise StorageError(f"The {noun} in {artefact.stem} cannot be read ({reason}): make it again.") from error


def _noun(formats: Collection[str]) -> str:
    """What people call it: `explanation` for pellucid-explanation/1, `result` where several are welcome."""
    return next(iter(formats)).partition("-")[2].partition("/")[0] if len(formats) == 1 else "result"


def _stem(path: Path) -> Path:
    return path.with_suffix("") if path.suffix in {".npz", ".json"} else path


def _with(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)  # names hold dots: cat.grad-cam


def sealed(meta: dict[str, Any]) -> bool:
    """Whether what a file says is as it was written."""
    return bool(meta.get("sha256") == _seal(meta))


def _seal(meta: dict[str, Any]) -> str:
    unsealed = {k: v for k, v in meta.items() if k != "sha256"}
    return _digest(json.dumps(unsealed, sort_keys=True, ensure_ascii=False, allow_nan=False).encode())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def parts(explanation: Explanation) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays of an explanation by name, and all else as plain values."""
    arrays = {"attribution": explanation.attribution.numpy()}
    arrays |= {f"extra.{name}": value.numpy() for name, value in explanation.extras.items()}
    meta: dict[str, Any] = {
        "method": explanation.method,
        "target": explanation.target,
        "kind": explanation.kind,
        "signed": explanation.signed,
        "fold": explanation.fold,
        "layer": explanation.layer,
        "notes": explanation.notes,
        "remarks": explanation.remarks,
        "facts": explanation.facts,
        "prediction": [dataclasses.asdict(p) for p in explanation.prediction],
        "geometry": explanation.geometry.as_dict(),
        "quality": explanation.quality.as_dict() if explanation.quality else None,
        "record": dataclasses.asdict(explanation.record),
    }
    return arrays, meta


def save(explanation: Explanation, path: Path) -> list[Path]:
    """Write an explanation to `path` with the endings .npz and .json; returns both paths."""
    return write_artefact(path, FORMAT, *parts(explanation))


def load(path: Path | str) -> tuple[Explanation, list[str]]:
    """Read an explanation, by the name of either of its files.

    Returns:
        The explanation, and what shows that its files are not as they were written (empty: nothing).

    Raises:
        StorageError: missing, or not such a file.
    """
    artefact = read_artefact(path, [FORMAT])
    return explanation(artefact), artefact.tampered


def explanation(artefact: Artefact) -> Explanation:
    """An artefact as the explanation that it holds."""
    with reading(artefact):
        return _from(artefact.meta, {name: torch.from_numpy(a) for name, a in artefact.arrays.items()})


_RECORDED = {
    "model": ("source", "name", "weights"),
    "input": ("source", "name", "sha256"),
    "method": ("name", "parameters"),
    "run": ("seed",),
}  # what recomputing needs


def record_from(meta: dict[str, Any]) -> Record:
    """The record among an artefact's values.

    Raises:
        ValueError: it lacks what recomputing needs.
    """
    if missing := [
        f"{part} {key}" for part, keys in _RECORDED.items() for key in keys if key not in meta["record"][part]
    ]:
        raise ValueError(f"its record lacks {missing[0]}")
    return Record(**meta["record"])


def _from(meta: dict[str, Any], arrays: dict[str, torch.Tensor]) -> Explanation:
    return Explanation(
        attribution=arrays["attribution"],
        method=meta["method"],
        target=meta["target"],
        prediction=[Prediction.from_dict(p) for p in meta["prediction"]],
        geometry=Geometry.from_dict(meta["geometry"]),
        record=record_from(meta),
        layer=meta["layer"],
        kind=meta["kind"],
        signed=meta["signed"],
        fold=meta["fold"],
        notes=meta["notes"],
        facts={name: math.nan if value is None else value for name, value in meta["facts"].items()},
        quality=Quality.from_dict(meta["quality"]) if meta["quality"] else None,
        extras={k.removeprefix("extra."): v for k, v in arrays.items() if k.startswith("extra.")},
        remarks=meta.get("remarks", []),  # files of old have none
    )
