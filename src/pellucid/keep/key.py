"""What names a piece of work: a hash of all that it depends on; and large sets of such keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def key(*parts: Any) -> str:
    """32 hexadecimal digits of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


def number(text: str) -> int:
    """64 bits of a text's hash, as a table's signed integer."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


class Keys:
    """A growing map from 64-bit keys to 64-bit values, 16 bytes an entry: ten millions of them fit into 160 MB.

    A few sorted tables, each at least twice as long as the next, are merged as they grow.
    """

    def __init__(self) -> None:
        self._tables: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self._tables)

    def add(self, keys: Sequence[int] | NDArray[np.int64], values: Sequence[int] | NDArray[np.int64]) -> None:
        """Enter some; of a key that is known already, the later value counts."""
        table = _sorted(np.asarray(keys, np.int64), np.asarray(values, np.int64))
        while self._tables and len(self._tables[-1][0]) < 2 * len(table[0]):
            older = self._tables.pop()
            table = _sorted(np.concatenate([older[0], table[0]]), np.concatenate([older[1], table[1]]))
        self._tables.append(table)

    def find(self, keys: Sequence[int] | NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which keys are known, and their values (0 for the others)."""
        wanted = np.asarray(keys, np.int64)
        known, values = np.zeros(len(wanted), bool), np.zeros(len(wanted), np.int64)
        for table, entries in self._tables:  # later tables overwrite earlier ones
            at = np.minimum(np.searchsorted(table, wanted), max(len(table) - 1, 0))
            hit = table[at] == wanted if len(table) else np.zeros(len(wanted), bool)
            known |= hit
            values[hit] = entries[at[hit]]
        return known, values


def _sorted(keys: NDArray[np.int64], values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    last = np.append(keys[1:] != keys[:-1], True) if len(keys) else np.zeros(0, bool)
    return keys[last], values[last]
