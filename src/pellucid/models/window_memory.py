"""What a sliding network has answered, so that nothing which is known already is run again.

Of two coalitions that differ by one supervoxel only the windows that it reaches differ (`remembering`); the methods of
one explanation all begin with the answer to the same volume (`recalling`). Windows and volumes are known by the hash of
their numbers, so an answer that is taken from memory is that to the very same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import blake2b

import torch
from torch import Tensor, nn

from pellucid.engine.hooks import has_hooks

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
        names = [name_of(w) for w in windows]
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


def name_of(numbers: Tensor) -> bytes:
    """What a tensor is known by."""
    return blake2b(numbers.detach().contiguous().cpu().numpy().data, digest_size=16).digest()


_CURRENT: ContextVar[WindowMemory | None] = ContextVar("answered_windows", default=None)


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


class LastAnswer:
    """The answer of one network to one volume, the latest asked for, and gradients that came by the way.

    Attributes:
        slopes: whether gradients to the volume will be asked for, and are worth keeping.
    """

    def __init__(self, slopes: bool = False) -> None:
        self.slopes = slopes
        self._key: tuple[object, ...] = ()
        self._kept: Tensor | None = None
        self._gradients: dict[tuple[object, ...], Tensor] = {}

    def answer(self, network: nn.Module, x: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """What `compute` gives for `x`; not computed again while network, weights and volume are the same.

        A network with hooks is always run: they may change it, and whoever set them waits for its layers.
        """
        if has_hooks(network):
            return compute(x)
        key = _key_of(network, x)
        if self._kept is None or self._key != key:
            self._key, self._kept = key, compute(x)
        return self._kept

    def keep_gradient(self, network: nn.Module, x: Tensor, of_answer: Tensor, gradient: Tensor) -> None:
        """Keep the gradient to `x` of a score whose gradient to the answer is `of_answer`."""
        if not has_hooks(network):
            self._gradients[(*_key_of(network, x), name_of(of_answer))] = gradient

    def gradient(self, network: nn.Module, x: Tensor, of_answer: Tensor) -> Tensor | None:
        """The gradient that was kept for the same network, weights, volume and score, if any; it is handed out once."""
        if not self._gradients or has_hooks(network):
            return None
        return self._gradients.pop((*_key_of(network, x), name_of(of_answer)), None)


def _key_of(network: nn.Module, x: Tensor) -> tuple[object, ...]:
    """What says that a network, its weights and its input are the same."""
    held = network.state_dict(keep_vars=True).values()
    weights = tuple((id(p), 0 if p.is_inference() else p._version) for p in held)
    return (id(network), weights, tuple(x.shape), x.dtype, x.device, name_of(x))


_LAST: ContextVar[LastAnswer | None] = ContextVar("last_volume_answer", default=None)


def last() -> LastAnswer | None:
    """The memory of `recalling` that is open here, if any."""
    return _LAST.get()


@contextmanager
def recalling(slopes: bool = False) -> Iterator[None]:
    """A volume that was answered is not run again in this context, as long as no other comes in between.

    With `slopes` a method that runs each window backward keeps the gradient to the volume for those that want that.
    """
    token = _LAST.set(_LAST.get() or LastAnswer(slopes))
    try:
        yield
    finally:
        _LAST.reset(token)
