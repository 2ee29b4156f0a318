"""From folders, patterns and lists to many pictures, which are opened when they are needed and not kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from pellucid.errors import MediaError, PellucidError
from pellucid.media import PICTURE, SCHEMES, Medium, address, expand
from pellucid.media.inputs import natural
from pellucid.models.feed import Prepared
from pellucid.models.model import VisionModel
from pellucid.verbs.inputs import Input, prepared


@dataclass(frozen=True, eq=False)
class Member:
    """One of many pictures: how to get it, and the folder it lies in."""

    source: Any
    folder: str = ""

    @property
    def name(self) -> str:
        """What people call it."""
        return self.source if isinstance(self.source, str) else "input"


class Collection:
    """Pictures by position; the last few that were opened stay open, for those that look at them again."""

    def __init__(self, model: VisionModel, members: Sequence[Member], open_at_once: int = 2) -> None:
        self.model, self.members = model, list(members)
        self._opened = lru_cache(maxsize=open_at_once)(self._open)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, position: int) -> Prepared | PellucidError:
        return self._opened(position)

    def _open(self, position: int) -> Prepared | PellucidError:
        _, item = next(iter(prepared(self.model, self.members[position].source)))
        return item


def is_collection(inputs: Input | Sequence[Input], medium: Medium | None = PICTURE) -> bool:
    """Whether an answer over many pictures is wanted: of a folder, a pattern, a list or a batch of several.

    Args:
        inputs: what was given.
        medium: what they are for the model: of clips, a folder of numbered frames is one. None: not yet known.
    """
    if isinstance(inputs, Tensor):
        return (medium or PICTURE).is_batch(inputs) and len(inputs) != 1
    if isinstance(inputs, str | Path):
        if _is_folder(inputs) and not (medium and medium.wanted.whole):
            return True
        return len(medium.expand([inputs]) if medium else expand([inputs], clips=None, schemes=SCHEMES)) > 1
    return isinstance(inputs, Sequence)


def collect(inputs: Input | Sequence[Input], medium: Medium = PICTURE) -> list[Member]:
    """All pictures (or clips), each once; those in a folder, or in its subfolders, know in which.

    Raises:
        MediaError: a file is missing, or neither a folder nor its subfolders hold a picture.
    """
    several = isinstance(inputs, Sequence) and not isinstance(inputs, str)
    found: list[Member] = []
    seen: set[str] = set()
    for item in inputs if several else [inputs]:  # type: ignore[union-attr]
        for member in _members(item, medium):
            if isinstance(member.source, str):
                real = address(member.source)
                if real in seen:
                    continue
                seen.add(real)
            found.append(member)
    if not found:
        raise MediaError("There is no picture: give some, or a folder that holds some.")
    return found


def _is_folder(item: str | Path) -> bool:
    return Path(item).expanduser().is_dir()


def _members(item: Any, medium: Medium) -> Iterator[Member]:
    if isinstance(item, Tensor) and medium.is_batch(item):
        yield from (Member(item[i : i + 1]) for i in range(len(item)))  # each a batch of one, which nobody takes apart
        return
    if not isinstance(item, str | Path):
        yield Member(item)
        return
    if not _is_folder(item):
        yield from (Member(source) for source in medium.expand([item]))
        return
    folder = Path(item).expanduser()
    try:
        inner = sorted((p for p in folder.iterdir() if p.is_dir()), key=lambda p: natural(p.name))
    except OSError as error:
        raise MediaError(f"The folder {item} can't be listed; check its permissions.") from error
    empty = True
    for place in [folder, *(p for p in inner if not p.name.startswith("."))]:
        try:
            sources = medium.expand([place])
        except MediaError:
            continue
        empty = False
        yield from (Member(source, place.resolve().name) for source in sources)
    if empty:
        raise MediaError(f"The folder {item} holds no picture, nor do its subfolders; name a folder that does.")
