"""What names a piece of work: a hash of all that it depends on; and large sets of such keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Column = NDArray[np.int64]
_Places = NDArray[np.intp]
LARGEST = 2**21
"""Entries of a table that is made by merging two."""


def key(*parts: Any) -> str:
    """32 hexadecimal digits of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


def number(text: str) -> int:
    """64 bits of a text's hash, as a table's signed integer."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


class Keys:
    """A growing map from 64-bit keys to 64-bit values, 16 bytes an entry: ten millions of them fit into 160 MB.

    A few sorted tables, each at least twice as long as the next, are merged as they grow. That takes room for the
    result beside them, so tables of some millions are left as they are.
    """

    def __init__(self) -> None:
        self._tables: list[tuple[_Column, _Column]] = []

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self._tables)

    def add(self, keys: Sequence[int] | _Column, values: Sequence[int] | _Column) -> None:
        """Enter some; of a key that is known already, the later value counts."""
        table = _sorted(np.asarray(keys, np.int64), np.asarray(values, np.int64))
        while self._tables and _to_merge(self._tables[-1][0], table[0]):
            table = _merged(*self._tables.pop(), *table)
        self._tables.append(table)

    def find(self, keys: Sequence[int] | _Column) -> tuple[NDArray[np.bool_], _Column]:
        """Which keys are known, and their values (0 for the others)."""
        wanted = np.asarray(keys, np.int64)
        known, values = np.zeros(len(wanted), bool), np.zeros(len(wanted), np.int64)
        for table, entries in self._tables:  # later tables overwrite earlier ones
            at, hit = _found(table, wanted)
            known |= hit
            values[hit] = entries[at[hit]]
        return known, values


class KeySet:
    """A growing set of 64-bit keys, 8 bytes an entry; kept as those of `Keys`."""

    def __init__(self) -> None:
        self._tables: list[_Column] = []

    def add(self, keys: Sequence[int] | _Column) -> None:
        """Enter some."""
        table = np.unique(np.asarray(keys, np.int64))
        while self._tables and _to_merge(self._tables[-1], table):
            table = _joined(self._tables.pop(), table)
        self._tables.append(table)

    def holds(self, keys: Sequence[int] | _Column) -> NDArray[np.bool_]:
        """Which keys are in it."""
        wanted = np.asarray(keys, np.int64)
        known = np.zeros(len(wanted), bool)
        for table in self._tables:
            known |= _found(table, wanted)[1]
        return known


def _to_merge(old: _Column, new: _Column) -> bool:
    return len(old) < 2 * len(new) and len(old) + len(new) <= LARGEST


def _found(table: _Column, wanted: _Column) -> tuple[_Places, NDArray[np.bool_]]:
    """Where keys stand in a sorted table, and which are there."""
    if not len(table):
        return np.zeros(len(wanted), np.intp), np.zeros(len(wanted), bool)
    at = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
    return at, table[at] == wanted


def _sorted(keys: _Column, values: _Column) -> tuple[_Column, _Column]:
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    last = np.append(keys[1:] != keys[:-1], True) if len(keys) else np.zeros(0, bool)
    return keys[last], values[last]


def _merged(old: _Column, old_values: _Column, new: _Column, new_values: _Column) -> tuple[_Column, _Column]:
    """One sorted table of two; of a key in both, the new value."""
    old, old_values = _without(old, new, old_values)
    at, rest = _places(old, new)
    return _spread(old, new, at, rest), _spread(old_values, new_values, at, rest)


def _joined(old: _Column, new: _Column) -> _Column:
    """One sorted table of two."""
    (old,) = _without(old, new)
    return _spread(old, new, *_places(old, new))


def _without(old: _Column, new: _Column, *others: _Column) -> tuple[_Column, ...]:
    """A sorted table, and columns beside it, without the keys of another."""
    at, twice = _found(old, new)
    if not twice.any():
        return (old, *others)
    kept = np.ones(len(old), bool)
    kept[at[twice]] = False
    return tuple(column[kept] for column in (old, *others))


def _places(old: _Column, new: _Column) -> tuple[_Places, NDArray[np.bool_]]:
    """Where the new keys come to stand among the old ones, and where the old ones do."""
    at = np.searchsorted(old, new) + np.arange(len(new))
    rest = np.ones(len(old) + len(new), bool)
    rest[at] = False
    return at, rest


def _spread(old: _Column, new: _Column, at: _Places, rest: NDArray[np.bool_]) -> _Column:
    found = np.empty(len(rest), np.int64)
    found[at], found[rest] = new, old
    return found
