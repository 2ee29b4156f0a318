"""What a sliding network has answered to windows, so that one which a masked volume does not change is not run again.

Of two coalitions that differ by one supervoxel only the windows that it reaches differ. A window is known by the hash
of its numbers, so an answer that is taken from memory is that of the very same window.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import blake2b

import torch
from torch import Tensor

LIMIT = 2**30
"""The most bytes of answers that are kept at once; the oldest go first."""


class WindowMemory:
    """Answers by the hash of their windows.

    Attributes:
        asked: windows so far. run: those that the network was given.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.asked, self.run = limit, 0, 0
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self._size = 0

    def answer(self, windows: Tensor, network: Callable[[Tensor], Tensor], batch: int) -> Tensor:
        """The network's answers to windows `(n, C, *window)`; only those never seen are run, `batch` at a time."""
        names = [blake2b(w.contiguous().cpu().numpy().tobytes(), digest_size=16).digest() for w in windows]
        fresh = [k for k, name in enumerate(names) if name not in self._kept and names.index(name) == k]
        found: dict[bytes, Tensor] = {name: self._kept[name] for name in names if name in self._kept}
        for start in range(0, len(fresh), batch):
            rows = fresh[start : start + batch]
            answers = network(windows[rows])
            found |= {names[k]: one for k, one in zip(rows, answers, strict=True)}
        self.asked, self.run = self.asked + len(names), self.run + len(fresh)
        for k in fresh:
            self._keep(names[k], found[names[k]])
        return torch.stack([found[name] for name in names])

    def _keep(self, name: bytes, answer: Tensor) -> None:
        kept = answer.clone()
        self._kept[name] = kept
        self._size += kept.numel() * kept.element_size()
        while self._size > self.limit and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._size -= old.numel() * old.element_size()


_CURRENT: ContextVar[WindowMemory | None] = ContextVar("windows answered", default=None)


def current() -> WindowMemory | None:
    """The memory that is open here, if any."""
    return _CURRENT.get()


@contextmanager
def remembering(memory: WindowMemory | None = None) -> Iterator[WindowMemory]:
    """Windows that were answered before are not run again in this context; one that is open already goes on."""
    opened = memory or current() or WindowMemory()
    token = _CURRENT.set(opened)
    try:
        yield opened
    finally:
        _CURRENT.reset(token)
