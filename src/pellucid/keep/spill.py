"""A list whose items lie on disk: one is in memory while somebody holds it, and the last that was asked for."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Generic, TypeVar, overload
from weakref import WeakValueDictionary, finalize

from pellucid.keep.scratch import scratch

T = TypeVar("T")


class Spilled(Sequence[T], Generic[T]):
    """Items in files of a folder of its own, which goes with it.

    An item is the same object as long as somebody holds it. What is done to one is kept if it is done before the next
    is asked for.

    Args:
        items: are taken one by one, as they come.
        stays: what an item refers to and is not written, such as a network: it is held in memory, once.
    """

    def __init__(self, items: Iterable[T], stays: Callable[[Any], bool]) -> None:
        stack = ExitStack()
        self._folder = stack.enter_context(scratch())
        finalize(self, stack.close)
        self._stays, self._staying, self._places = stays, list[Any](), dict[int, int]()
        self._alive: WeakValueDictionary[int, Any] = WeakValueDictionary()
        self._last: tuple[int, T] | None = None
        self._count = 0
        for item in items:
            self._hold(self._count, item)
            self._count += 1
        self._settle()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(self._count))]
        number = range(self._count)[index]
        item: T | None = self._alive.get(number)
        if item is None:
            self._settle()
            with self._file(number).open("rb") as file:
                item = _Reader(file, self._staying).load()
        assert item is not None
        if self._last is None or self._last[0] != number:
            self._hold(number, item)
        return item

    def _hold(self, number: int, item: T) -> None:
        self._settle()
        self._last = number, item
        self._alive[number] = item

    def _settle(self) -> None:
        """Write the item that was asked for last, and let it go."""
        if self._last is not None:
            number, item = self._last
            self._last = None
            with self._file(number).open("wb") as file:
                _Writer(file, self._place).dump(item)

    def _place(self, thing: Any) -> int | None:
        """Where a thing that stays is held; None: it is written."""
        if not self._stays(thing):
            return None
        if id(thing) not in self._places:
            self._places[id(thing)] = len(self._staying)
            self._staying.append(thing)
        return self._places[id(thing)]

    def _file(self, number: int) -> Path:
        return self._folder / str(number)


class _Writer(pickle.Pickler):
    def __init__(self, file: IO[bytes], place: Callable[[Any], int | None]) -> None:
        super().__init__(file, protocol=5)
        self._place = place

    def persistent_id(self, obj: Any) -> int | None:
        """The number of what stays."""
        return self._place(obj)


class _Reader(pickle.Unpickler):
    def __init__(self, file: IO[bytes], staying: Sequence[Any]) -> None:
        super().__init__(file)
        self._staying = staying

    def persistent_load(self, pid: int) -> Any:
        """What stays, by its number."""
        return self._staying[pid]
