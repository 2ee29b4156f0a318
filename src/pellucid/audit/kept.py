"""Finished rows of a table in a folder, so that a run that was cut goes on where it stopped."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.keep.files import write_bytes

Rows = dict[str, NDArray[Any]]


class KeptRows:
    """A file for each batch of rows, in a folder for everything that shapes them.

    Args:
        home: None keeps nothing.
        about: whatever the rows hang on, as plain values: version, weights, preprocessing, settings.
    """

    def __init__(self, home: Path | None, about: Any) -> None:
        key = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self._folder = home / key if home is not None else None

    def rows(self, of: str, names: Collection[str], computed: Callable[[], Rows]) -> Rows:
        """A batch as it was kept, else computed and kept.

        Args:
            of: what the batch is made of, such as the digests of its pictures.
            names: of the arrays that it must hold.
            computed: makes them.
        """
        if self._folder is None:
            return computed()
        file = self._folder / f"{hashlib.sha256(of.encode()).hexdigest()}.npz"
        rows = _read(file, names)
        if rows is None:
            rows, data = computed(), io.BytesIO()
            np.savez(data, allow_pickle=False, **rows)
            write_bytes(file, data.getvalue())
        return rows


def _read(file: Path, names: Collection[str]) -> Rows | None:
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as found:
            return dict(found) if set(names) <= set(found.files) else None
    except Exception:  # damaged: it is run again
        return None
