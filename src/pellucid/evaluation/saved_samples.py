"""Finished rows on disk, one file a sample: a run goes on where it stopped, and one more method costs only its own."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.engine.masks import KEY
from pellucid.engine.memory import Memory
from pellucid.evaluation.competitors import Competitor
from pellucid.evaluation.sample import Sample
from pellucid.evaluation.schedule import Schedule
from pellucid.keep.files import write_bytes
from pellucid.keep.key import key

_VERSION = 1


class SavedSamples:
    """A folder of samples.

    Args:
        folder: which need not exist yet.
        weights: the model's fingerprint.
    """

    def __init__(self, folder: Path, weights: str) -> None:
        self.folder, self.weights = folder, weights

    def of(self, sample: Sample, schedule: Schedule) -> SavedSample:
        """What is kept of a sample: under a hash of the weights, the input, its target, its mask and the seed."""
        digest = hashlib.sha256(sample.x.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()
        mask = None if sample.mask is None else hashlib.sha256(sample.mask.numpy().tobytes()).hexdigest()
        name = key(_VERSION, self.weights, digest, repr(sample.target), mask, sample.seed)
        return SavedSample(self.folder / f"{name}.npz", schedule)


class SavedSample:
    """One sample's file: rows by competitor, and scores of coalitions that serve whoever comes later.

    Attributes:
        memories: those scores, by baseline.
    """

    def __init__(self, path: Path, schedule: Schedule) -> None:
        self.path, self._metrics = path, {m.name: repr(m.bank) for m in schedule.metrics}
        self._rows: dict[str, Any] = {}
        self.memories: dict[str, Memory] = {}
        arrays = _read(path)
        if arrays:
            self._rows = json.loads(arrays.pop("rows").tobytes())
            for name in {n.partition("/")[2] for n in arrays}:
                memory = Memory(1)
                memory.tables[0] = dict(
                    zip(
                        (row.tobytes() for row in arrays[f"asked/{name}"]),
                        torch.from_numpy(arrays[f"answered/{name}"]),
                        strict=True,
                    )
                )
                self.memories[name] = memory

    def row(self, competitor: Competitor) -> dict[str, Any] | None:
        """The settings of a finished `MethodRow`, where all metrics that are asked for were read on the same banks."""
        found = self._rows.get(_name(competitor) or "")
        if found is None or any(found["banks"].get(m) != bank for m, bank in self._metrics.items()):
            return None
        values = {m: np.nan if v is None else v for m, v in found["row"]["values"].items() if m in self._metrics}
        return {**found["row"], "values": values}

    def save(self, rows: Mapping[Competitor, Any]) -> None:
        """Write further rows; those of functions and objects, which have no name of their own, are not kept."""
        for competitor, row in rows.items():
            if (name := _name(competitor)) is not None:
                values = {m: None if np.isnan(v) else v for m, v in row.values.items()}
                self._rows[name] = {"banks": self._metrics, "row": {**asdict(row), "values": values}}
        arrays: dict[str, NDArray[Any]] = {"rows": np.frombuffer(json.dumps(self._rows).encode(), np.uint8)}
        for baseline, memory in self.memories.items():
            table = memory.tables[0]
            if table:
                arrays[f"asked/{baseline}"] = np.frombuffer(b"".join(table), np.uint8).reshape(-1, KEY)
                arrays[f"answered/{baseline}"] = torch.stack(list(table.values())).numpy()
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        write_bytes(self.path, buffer.getvalue())


def _name(competitor: Competitor) -> str | None:
    written = competitor.written()
    return None if written is None else key(*written)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """Its arrays; nothing where there is no such file, or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except Exception:  # no such file, or a damaged one, on which readers of zip raise nearly anything
        return {}
