"""Pixels, numbers and values as text that may stand inside a page."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def data_uri(shown: NDArray[np.uint8], kind: str) -> str:
    """Pixels (H, W, 3) as an address that holds them."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": 86} if kind == "jpeg" else {}
    Image.fromarray(np.ascontiguousarray(shown)).save(buffer, kind.upper(), **options)
    return f"data:image/{kind};base64,{b64encode(buffer.getvalue()).decode()}"


def floats(values: NDArray[Any]) -> str:
    """Numbers as base64 of little-endian float32."""
    return b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def changes(mask: NDArray[np.bool_]) -> str:
    """Where a mask, read row by row and begun with false, changes: base64 of little-endian uint32."""
    flat = np.concatenate(([False], np.asarray(mask, bool).ravel()))
    return b64encode(np.flatnonzero(flat[1:] != flat[:-1]).astype("<u4").tobytes()).decode()


def embedded(values: Any) -> str:
    """Plain values as JSON that may stand inside a script element: no markup ends it."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
