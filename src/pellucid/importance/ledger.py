"""Work that is kept: what each picture of a folder gave, on disk, so that a run can go on where it stopped."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.keep.files import write_bytes
from pellucid.keep.scratch import scratch


@dataclass
class Row:
    """What one picture gave.

    Attributes:
        values: `(K,)`.
        names: of the players.
        answer: the model's top class, as people call it; empty where it gives no classes.
        changed: `(K,)`, share of exchanges that changed the answer; None where it was not asked.
        passes: forwards and backwards spent.
        notes: what a reader must know of this picture, one sentence each.
    """

    values: Tensor
    names: list[str]
    answer: str = ""
    changed: Tensor | None = None
    passes: int = 0
    notes: list[str] = field(default_factory=list)


class Ledger:
    """Rows by key, one small file each; memory is that of one row.

    A key names all that the row depends on: the picture's content, the model's weights, every setting. So rows of
    other settings may lie in the same folder.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        text = json.dumps(about, sort_keys=True, ensure_ascii=False, default=str)
        self.folder = folder / hashlib.sha256(text.encode()).hexdigest()[:16]

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"

    def get(self, key: str) -> Row | None:
        """The row under a key; None if there is none, or it can't be read."""
        try:
            with np.load(io.BytesIO(self._file(key).read_bytes()), allow_pickle=False) as found:
                about = json.loads(str(found["about"]))
                changed = torch.from_numpy(found["changed"]) if "changed" in found.files else None
                values, notes = torch.from_numpy(found["values"]), about.get("notes", [])
                return Row(values, about["names"], about["answer"], changed, about["passes"], notes)
        except Exception:  # nothing there, or damaged: it is measured again
            return None

    def put(self, key: str, row: Row) -> None:
        """Keep a row."""
        told = {"names": row.names, "answer": row.answer, "passes": row.passes, "notes": row.notes}
        about = json.dumps(told, ensure_ascii=False)
        arrays = {"values": row.values.numpy(), "about": np.array(about)}
        if row.changed is not None:
            arrays["changed"] = row.changed.numpy()
        data = io.BytesIO()
        np.savez_compressed(data, allow_pickle=False, **arrays)
        write_bytes(self._file(key), data.getvalue())


@contextmanager
def ledger(folder: str | Path | None, about: dict[str, Any]) -> Iterator[Ledger]:
    """A ledger in `folder`, or for the time being in a folder that is gone afterwards."""
    if folder is not None:
        yield Ledger(Path(folder), about)
        return
    with scratch() as temporary:
        yield Ledger(temporary, about)
