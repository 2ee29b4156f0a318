"""Scores asked for once are not asked for again: not in a longer run, nor after one that broke off."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.engine.masks import KEY

ASKED, ANSWERED = "asked", "answered"


class Memory:
    """A table for each input: a mask's name (`Masks.keys`) -> its scores `(targets,)`, double precision.

    It holds for one model, baseline, seed and set of targets.

    Args:
        inputs: how many.
    """

    def __init__(self, inputs: int) -> None:
        self.tables: list[dict[bytes, Tensor]] = [{} for _ in range(inputs)]

    def only(self, row: int) -> Memory:
        """The memory of one input; what it learns, this one knows."""
        part = Memory(0)
        part.tables = [self.tables[row]]
        return part

    def recall(self, row: int, keys: Sequence[bytes], out: Tensor) -> Tensor:
        """Write what is known to `out` `(M, targets)`; returns the numbers of the rest."""
        table = self.tables[row]
        known = [k for k, key in enumerate(keys) if key in table]
        if known:
            out[known] = torch.stack([table[keys[k]] for k in known]).to(out)
        return torch.tensor([k for k, key in enumerate(keys) if key not in table], dtype=torch.long)

    def keep(self, row: int, keys: Sequence[bytes], scores: Tensor) -> None:
        """Learn scores `(M, targets)`; those that are NaN were not answered."""
        done = ~scores.isnan().any(1)
        for key, known, answer in zip(keys, done.tolist(), scores.cpu(), strict=True):
            if known:
                self.tables[row][key] = answer.clone()

    def arrays(self, target: int) -> dict[str, Tensor]:
        """As tensors: `asked` `(N, K, 16)` bytes and `answered` `(N, K)`, NaN where an input was asked less."""
        most = max(map(len, self.tables), default=0)
        asked = torch.zeros(len(self.tables), most, KEY, dtype=torch.uint8)
        answered = torch.full((len(self.tables), most), torch.nan, dtype=torch.float64)
        for n, table in enumerate(self.tables):
            if table:
                flat = torch.frombuffer(bytearray(b"".join(table)), dtype=torch.uint8)
                asked[n, : len(table)] = flat.reshape(-1, KEY)
                answered[n, : len(table)] = torch.stack(list(table.values()))[:, target]
        return {ASKED: asked, ANSWERED: answered}

    @classmethod
    def of(cls, arrays: dict[str, Tensor]) -> Memory:
        """The inverse of `arrays`, with that one target."""
        memory = cls(len(arrays[ASKED]))
        for table, keys, scores in zip(memory.tables, arrays[ASKED], arrays[ANSWERED], strict=True):
            for key, score in zip(keys.numpy(), scores, strict=True):
                if not score.isnan():
                    table[key.tobytes()] = score[None].clone()
        return memory
