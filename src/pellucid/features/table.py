"""A table of scores on disk, pictures x units, filled batch by batch: what makes a search resumable and cached.

Two files beside each other: `KEY.npy` holds the scores (float32, NaN where a picture could not be read), `KEY.json`
what they are of and how many rows are done. The key is a hash of all that the scores depend on, so a stale table is
never read. Memory does not grow with the number of pictures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.errors import StorageError
from pellucid.keep.files import write_bytes

FORMAT = "pellucid-scores/1"
_AT_ONCE = 4_000_000  # numbers held at a time
_ROWS_AT_ONCE = 65_536


@dataclass
class ScoreTable:
    """Scores `(rows, columns)` on disk.

    Attributes:
        folder: where its two files are.
        about: what the scores depend on; plain values.
        rows, columns: its size.
        done: rows filled so far.
    """

    folder: Path
    about: dict[str, Any]
    rows: int
    columns: int
    done: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        identity = json.dumps([FORMAT, self.about, self.rows, self.columns], sort_keys=True)
        self._stem = self.folder / hashlib.sha256(identity.encode()).hexdigest()[:32]
        try:
            self._open()
        except OSError as error:
            raise StorageError(
                f"The cache folder {self.folder} can't be used ({error.strerror or error}): set PELLUCID_CACHE to one "
                "you may write to, or pass cache=False."
            ) from error

    @property
    def files(self) -> tuple[Path, Path]:
        """Scores and state."""
        return self._stem.with_suffix(".npy"), self._stem.with_suffix(".json")

    def _open(self) -> None:
        values, state = self.files
        self._values: NDArray[np.float32]
        try:
            self.done = int(json.loads(state.read_bytes())["done"])
            self._values = np.load(values, mmap_mode="r+", allow_pickle=False)
            if self._values.shape != (self.rows, self.columns) or not 0 <= self.done <= self.rows:
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged: begin again
            self.done = 0
            self.folder.mkdir(parents=True, exist_ok=True)
            state.unlink(missing_ok=True)
            self._values = np.lib.format.open_memmap(
                values, mode="w+", dtype=np.float32, shape=(self.rows, self.columns)
            )

    @property
    def complete(self) -> bool:
        """Whether every row is filled."""
        return self.done == self.rows

    def fill(self, scores: Tensor) -> None:
        """Append rows `(n, columns)`, and note on disk that they are there."""
        n = len(scores)
        self._values[self.done : self.done + n] = scores.detach().cpu().float().numpy()
        self._values.flush()  # type: ignore[attr-defined]
        self.done += n
        note = {"format": FORMAT, "about": self.about, "rows": self.rows, "columns": self.columns, "done": self.done}
        write_bytes(self.files[1], json.dumps(note).encode())

    def columns_at(self, columns: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """`(column, its scores (rows done,))`, read so many at a time as memory allows."""
        step = max(1, _AT_ONCE // max(1, self.rows))
        wanted = sorted(set(columns))
        for start in range(0, len(wanted), step):
            group = wanted[start : start + step]
            block = np.empty((self.done, len(group)), np.float32)
            for row in range(0, self.done, _ROWS_AT_ONCE):
                block[row : row + _ROWS_AT_ONCE] = self._values[row : min(row + _ROWS_AT_ONCE, self.done), group]
            for i, column in enumerate(group):
                yield column, torch.from_numpy(block[:, i].copy())

    def close(self) -> None:
        """Let go of the file."""
        self._values = np.empty((0, self.columns), np.float32)
