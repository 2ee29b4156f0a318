"""A result on disk: a `.npz` of arrays and a `.json` of all else, sealed. Never pickle, never half a file."""

from __future__ import annotations

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
from numpy.typing import NDArray

from pellucid.errors import StorageError
from pellucid.keep.files import Files, write_together


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
    made = with_seal({"format": format, **meta, "arrays": about})
    text = json.dumps(made, indent=2, ensure_ascii=False, allow_nan=False)
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


def with_seal(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says, as values that JSON holds, with the seal over them."""
    found: dict[str, Any] = strict(meta)
    return found | {"sha256": _seal(found)}


def _seal(meta: dict[str, Any]) -> str:
    unsealed = {k: v for k, v in meta.items() if k != "sha256"}
    return _digest(json.dumps(unsealed, sort_keys=True, ensure_ascii=False, allow_nan=False).encode())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
