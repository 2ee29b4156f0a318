"""What can be asked for by name: methods, estimators, players, dictionaries, baselines, ... One table a kind."""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from pellucid.errors import MethodError, PellucidError

T = TypeVar("T")
C = TypeVar("C")

_FEW = 5  # a list that is as quickly read as a guess


class Registry(MutableMapping[str, T]):
    """Names in the order in which they were entered, and the sentence for a name that is not there.

    Args:
        noun: what one entry is called, such as `method`.
        entries: those that are known from the start.
        plural: the sentence begins with `There are no segments ...`, not with `There is no method ...`.
        listing: where no name is near, all are told (`there are ...`) rather than offered (`choose ...`).
        otherwise: a last hint for the reader, such as which command lists them.
        error: what is raised.
    """

    def __init__(
        self,
        noun: str,
        entries: Mapping[str, T] | None = None,
        *,
        plural: bool = False,
        listing: bool = False,
        otherwise: str = "",
        error: type[PellucidError] = MethodError,
    ) -> None:
        self.noun = noun
        self._plural, self._listing, self._otherwise, self._error = plural, listing, otherwise, error
        self._entries: dict[str, T] = dict(entries or {})
        self._aliases: dict[str, str] = {}

    def register(self, name: str, **facts: Any) -> Callable[[C], C]:
        """A decorator that enters a class under `name`, with `name` and the facts as its attributes."""

        def enter(cls: C) -> C:
            for key, value in {"name": name, **facts}.items():
                setattr(cls, key, value)
            self[name] = cls  # type: ignore[assignment]
            return cls

        return enter

    def alias(self, name: str, of: str) -> None:
        """Let an entry be asked for by another name that the field has for it; lists show its own name alone."""
        self._aliases[name] = of

    def key(self, name: str) -> str:
        """`name` as it is entered, whatever its case and dashes; of an alias, the name of its entry.

        Raises:
            PellucidError: there is no such entry; near misses are listed. Its class is the registry's `error`.
        """
        key = name.strip().lower().replace("_", "-")
        key = self._aliases.get(key, key)
        if key in self._entries:
            return key
        near = difflib.get_close_matches(key, self._entries, n=3, cutoff=0.5)
        if near and len(self._entries) > _FEW:
            hint = f"did you mean {' or '.join(map(repr, near))}?"
        else:
            listed = ", ".join(self._entries)
            hint = f"there are {listed}." if self._listing and len(self._entries) > _FEW else f"choose {listed}."
        if self._otherwise:
            hint = f"{hint} {self._otherwise}"
        one, several = f"There is no {self.noun} {name!r}: {hint}", f"There are no {self.noun} {name!r}: {hint}"
        raise self._error(several if self._plural else one)

    def find(self, name: str) -> T:
        """The entry called `name`; raises as `key` does."""
        return self._entries[self.key(name)]

    def make(self, name: str, settings: Mapping[str, Any]) -> Any:
        """An object of the dataclass called `name`, with settings.

        Raises:
            PellucidError: as `key`; or the class has no such setting.
        """
        key = self.key(name)
        cls: Any = self._entries[key]
        known = settings_of(cls)
        if unknown := sorted(set(settings) - set(known)):
            has = ", ".join(sorted(known)) or "none"
            raise self._error(f"{self.noun.capitalize()} {key!r} has no parameter {unknown[0]!r}; it has {has}.")
        return cls(**settings)

    def extend(self, group: str) -> None:
        """Import what other packages offer under an entry point group, such as `pellucid.methods`; on import it enters
        itself. What cannot be imported is left out, with a warning that names it.
        """
        for point in entry_points(group=group):
            try:
                point.load()
            except Exception as error:  # whatever another package does must not take this one down
                home = f" of {point.dist.name}" if point.dist else ""
                warnings.warn(
                    f"The {self.noun} {point.name!r}{home} is left out: {type(error).__name__}: {error}", stacklevel=2
                )

    def order(self, rank: Callable[[T], Any]) -> None:
        """List the entries by `rank`, those of one rank as they were entered."""
        self._entries = dict(sorted(self._entries.items(), key=lambda item: rank(item[1])))

    def __getitem__(self, name: str) -> T:
        return self._entries[name]

    def __setitem__(self, name: str, entry: T) -> None:
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Registry({self.noun!r}, {list(self._entries)})"


def settings_of(item: Any) -> tuple[str, ...]:
    """The names of a dataclass's fields, of the class or of one of its objects."""
    return tuple(field.name for field in dataclasses.fields(item))
