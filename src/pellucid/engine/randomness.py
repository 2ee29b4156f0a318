"""Global random numbers, set apart: what is drawn meanwhile comes from streams of their own, not from the caller's.

To put a generator's old state back is not enough: numbers that another thread has drawn in between would come a second
time. So the caller's stream is laid aside untouched, and until it is put back everybody draws from another one, seeded
by it. A stream from which a second thread may have drawn is not used again.
"""

from __future__ import annotations

import hashlib
import random
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

_numpy: Any = np.random
_BLOCKS = 1000  # in which a stream of Python's is known again: 600,000 words
_spent: Counter[Hashable] = Counter()  # how many streams were seeded by a state and may have been drawn from by others


class Stream:
    """One global generator, set apart when this is made.

    Args:
        read: gives its state, as something that can be compared after `plain`.
        seed: seeds it with 32 bits.
        write: sets its state.
        ours: whether it still runs on the stream that was seeded with a number.
    """

    def __init__(
        self,
        read: Callable[[], Any],
        seed: Callable[[int], object],
        write: Callable[[Any], object],
        ours: Callable[[int], bool],
    ) -> None:
        self._read, self._write, self._ours = read, write, ours
        self._before = read()
        self._key = hashlib.blake2b(_plain(self._before), digest_size=8).digest()
        drawn = _spent[self._key].to_bytes(8, "little")
        self._number = int.from_bytes(hashlib.blake2b(self._key + drawn, digest_size=4).digest(), "little")
        self._seed = seed
        self._start = b""

    def divert(self) -> None:
        """Let everybody draw from another stream; not before it is known where to put this one back."""
        self._seed(self._number)
        self._start = _plain(self._read())

    def put_back(self, late: bool = False) -> None:
        """Give the caller's stream back; where that comes late, only if nobody has seeded the generator since."""
        now = b"" if not late and threading.active_count() == 1 else _plain(self._read())
        if late and not self._ours(self._number):
            return
        if now not in (b"", self._start, _plain(self._before)):
            _spent[self._key] += 1
        self._write(self._before)


def _plain(state: Any) -> bytes:
    if isinstance(state, torch.Tensor):
        return state.numpy().tobytes()
    if isinstance(state, dict):
        return b"".join(_plain(value) for value in state.values())
    if isinstance(state, tuple):  # Python's: version, numbers, the next of a Gaussian pair
        return array("I", state[1]).tobytes() + repr(state[2]).encode()
    return state.tobytes() if isinstance(state, np.ndarray) else repr(state).encode()


def _torch_stream(generator: torch.Generator) -> Stream:
    def ours(number: int) -> bool:
        return generator.initial_seed() == number

    return Stream(generator.get_state, generator.manual_seed, generator.set_state, ours)


def _cuda_stream(number: int) -> Stream:
    return _torch_stream(torch.cuda.default_generators[number])


def _numpy_stream() -> Stream:
    bits, made = _numpy.get_bit_generator(), []

    def seed(number: int) -> None:
        made.append(np.random.MT19937(number))
        _numpy.set_bit_generator(made[-1])

    def write(state: Any) -> None:
        _numpy.set_bit_generator(bits)
        np.random.set_state(state)

    def ours(_number: int) -> bool:
        return any(_numpy.get_bit_generator() is own for own in made)

    return Stream(lambda: np.random.get_state(legacy=False), seed, write, ours)


def _python_stream() -> Stream:
    def ours(number: int) -> bool:
        now, again = random.getstate()[1][:-1], random.Random(number)
        for _ in range(_BLOCKS):
            if again.getstate()[1][:-1] == now:
                return True
            again.getrandbits(32 * 624)  # the state holds one block of so many words, wherever in it the next is
        return False

    return Stream(random.getstate, random.seed, random.setstate, ours)


def set_apart(streams: MutableMapping[Hashable, Stream], devices: set[torch.device]) -> None:
    """Set apart what is not in the table yet: Python's, NumPy's and torch's numbers, and those of CUDA devices."""
    makers: dict[Hashable, Callable[[], Stream]] = {
        "python": _python_stream,
        "numpy": _numpy_stream,
        "torch": lambda: _torch_stream(torch.default_generator),
    }
    for device in devices:
        if device.type == "cuda":
            number = torch.cuda.current_device() if device.index is None else device.index
            makers["cuda", number] = partial(_cuda_stream, number)
    for name, make in makers.items():
        if name not in streams:
            stream = make()
            streams[name] = stream
            stream.divert()


@contextmanager
def own_random_numbers(*devices: torch.device) -> Iterator[None]:
    """Global random numbers are the caller's again when this ends, as if nobody had drawn any."""
    streams: dict[Hashable, Stream] = {}
    try:
        set_apart(streams, set(devices))
        yield
    finally:
        for stream in streams.values():
            stream.put_back()
