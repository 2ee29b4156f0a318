"""A result as a row of a table, and a row as the result that it was.

Figures that are NaN or infinite are null: then `WHERE`, `max` and `avg` say what people mean, in every engine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pellucid import storage
from pellucid.explanation import REDACTED, Explanation
from pellucid.keep.packing import Packed, pack, pack_all, unpack_all
from pellucid.results import importance
from pellucid.results.importance import Importance

COLUMNS: dict[str, str] = {
    "id": "string", "status": "string", "error": "string",
    "input": "string", "name": "string", "sha256": "string", "given_id": "string",
    "key": "int64", "stamp": "int64", "request": "string", "verb": "string",
    "method": "string", "target": "string", "layer": "string",
    "label": "string", "class": "int32", "probability": "float64", "score": "float64",
    "verdict": "string", "insertion": "float64", "deletion": "float64", "agreement": "float64", "p_value": "float64",
    "sanity": "float64", "completeness_gap": "float64",
    "map": "binary", "map_shape": "ints", "map_type": "string", "map_scale": "float64",
    "map_finite": "bool", "map_min": "float64", "map_max": "float64", "map_sum": "float64",
    "players": "strings", "values": "floats", "low": "floats", "high": "floats",
    "forwards": "float64", "backwards": "float64", "seconds": "float64",
    "format": "string", "meta": "string", "arrays": "binary",
}  # fmt: skip
"""Every column, and the kind of what it holds."""
_EXTRAS = 16  # times the size of a map: what belongs to it and is larger is left out


def row_of(result: Explanation | Importance, precision: str = "float16") -> dict[str, Any]:
    """The columns that a result fills."""
    of_map = isinstance(result, Explanation)
    arrays, meta = storage.parts(result) if isinstance(result, Explanation) else importance.parts(result)
    first = result.prediction[0] if result.prediction else None
    run = result.record.run
    row: dict[str, Any] = {
        "target": result.target,
        "layer": result.layer,
        "label": first.label if first else None,
        "class": first.index if first else None,
        "probability": number(first.probability) if first else None,
        "score": number(first.score) if first else None,
        "forwards": run.get("forwards"),
        "backwards": run.get("backwards"),
        "format": storage.FORMAT if of_map else importance.FORMAT,
    }
    if isinstance(result, Explanation):
        packed = pack(arrays.pop("attribution"), precision)
        row |= _of_map(packed) | _of_quality(result)
        room = _EXTRAS * max(len(packed.data), 1024)
        left = [name for name, a in arrays.items() if a.nbytes > room and name != f"extra.{REDACTED}"]
        for name in left:
            meta["notes"] = [*meta["notes"], f"{name.removeprefix('extra.')} is not kept in a batch: it is too large."]
            del arrays[name]
    else:
        share = result.shares[0]
        row |= {"players": list(result.names)}
        row |= {name: [number(v) for v in getattr(share, name).tolist()] for name in ("values", "low", "high")}
        arrays = {name: a for name, a in arrays.items() if not name.startswith("picture.") or name == "picture.labels"}
    row["arrays"] = pack_all(arrays)
    row["meta"] = json.dumps(storage.strict(meta), ensure_ascii=False, allow_nan=False)
    return row


def artefact_of(row: Mapping[str, Any]) -> storage.Artefact:
    """What a row holds, as if it had been read from a file."""
    meta = storage.with_seal({"format": row["format"], **json.loads(row["meta"])})
    arrays = unpack_all(row["arrays"])
    if row["map"] is not None:
        packed = Packed(row["map"], tuple(row["map_shape"]), row["map_type"], row["map_scale"])
        arrays["attribution"] = packed.values()
    return storage.Artefact(row["format"], meta, arrays)


def number(value: float | None) -> float | None:
    """A figure for a column: null where there is none, or it is not finite."""
    return value if value is not None and math.isfinite(value) else None


def _of_map(packed: Packed) -> dict[str, Any]:
    values = packed.values().astype(np.float64)
    finite = bool(np.isfinite(values).all())
    known = values[np.isfinite(values)]
    return {
        "map": packed.data,
        "map_shape": list(packed.shape),
        "map_type": packed.type,
        "map_scale": packed.scale,
        "map_finite": finite,
        "map_min": float(known.min()) if known.size else None,
        "map_max": float(known.max()) if known.size else None,
        "map_sum": float(known.sum()) if known.size else None,
    }


def _of_quality(e: Explanation) -> dict[str, Any]:
    row: dict[str, Any] = {"completeness_gap": number(e.facts.get("completeness_gap"))}
    if (q := e.quality) is None:
        return row
    return row | {
        "verdict": q.verdict,
        "insertion": number(q.insertion.auc) if q.insertion else None,
        "deletion": number(q.deletion.auc) if q.deletion else None,
        "agreement": number(q.agreement),
        "p_value": number(q.p_value),
        "sanity": number(q.sanity),
    }
