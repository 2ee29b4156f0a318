"""Explanations on disk, and the records in results of every kind; what any artefact is stands in `keep.artefact`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from pellucid.explanation import Explanation, Prediction, Quality, Record
from pellucid.keep.artefact import Artefact, read_artefact, reading, sealed, strict, with_seal, write_artefact
from pellucid.keep.files import check_writable, write_bytes
from pellucid.media.geometry import Geometry

__all__ = [
    "FORMAT",
    "Artefact",
    "check_writable",
    "explanation",
    "load",
    "parts",
    "read_artefact",
    "reading",
    "record_from",
    "save",
    "sealed",
    "strict",
    "with_seal",
    "write_artefact",
    "write_bytes",
]

FORMAT = "pellucid-explanation/1"


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
        "prediction": [dict(vars(p)) for p in explanation.prediction],
        "geometry": explanation.geometry.as_dict(),
        "quality": explanation.quality.as_dict() if explanation.quality else None,
        "record": dict(vars(explanation.record)),
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
