"""Contrasts between two boxes, or between two regions: why this one rather than that."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from pellucid.errors import TargetError
from pellucid.media.geometry import Geometry
from pellucid.models.reading import Reading
from pellucid.models.targets.base import Labels, Target, parse_target, target

WORDS = ("box", "region")
"""What may be contrasted so; classes, pairs and the like have contrasts of their own."""
_TEXT = re.compile(rf"(?P<first>(?P<word>{'|'.join(WORDS)})\b.*?)>\s*(?P<second>(?P=word)\b.*)")


@target("between", form="box:A>box:B or region:A>region:B")
@dataclass(frozen=True)
class Between(Target):
    """The score of one box (or region) less that of another, of one picture.

    Args:
        first, second: two targets of one kind.

    Raises:
        TargetError: they are of two kinds, or the same.
    """

    first: Target
    second: Target

    def __post_init__(self) -> None:
        if type(self.first) is not type(self.second):
            raise TargetError("A contrast is between two boxes or between two regions, not between one of each.")
        if self.first == self.second:
            raise TargetError(f"A contrast needs two; {self.first.spec()} stands there twice.")

    def each(self, change: Callable[[Target], Target]) -> Between:
        """With both sides changed."""
        return replace(self, first=change(self.first), second=change(self.second))

    def __call__(self, output: Any) -> Tensor:
        """The difference, `(N,)`."""
        return self.first(output) - self.second(output)

    def score(self, output: Any, watched: Mapping[str, Tensor]) -> Tensor:
        """The same: neither reads a layer."""
        return self(output)

    def bind(self, module: nn.Module, inputs: Tensor, labels: Labels) -> Between:
        """Both bound."""
        return self.each(lambda t: t.bind(module, inputs, labels))

    def read_by(self, reading: Reading) -> Between:
        """Both read so."""
        return self.each(lambda t: t.read_by(reading))

    def placed(self, geometries: Sequence[Geometry]) -> Between:
        """Both on the model's input."""
        return self.each(lambda t: t.placed(geometries))

    def freeze(self, output: Any) -> Between:
        """Both fixed."""
        return self.each(lambda t: t.freeze(output))

    def select(self, rows: Tensor) -> Between:
        """Both of these samples."""
        return self.each(lambda t: t.select(rows))

    @property
    def kind(self) -> Hashable:
        """That of the two, which are of one kind."""
        return self.first.kind

    @property
    def typical(self) -> Target:
        """The same."""
        return self.first.typical

    @property
    def way(self) -> Hashable:
        """Both ways."""
        return self.first.way, self.second.way

    def marks(self) -> dict[str, Tensor]:
        """The first, which is asked for."""
        return self.first.marks()

    def remarks(self, output: Any, labels: Labels) -> list[list[str]]:
        """What is to be said of either."""
        both = (t.remarks(output, labels) for t in (self.first, self.second))
        return [[*a, *b] for a, b in zip(*both, strict=True)]

    def name(self, labels: Labels) -> str:
        """`A rather than B`."""
        return f"{self.first.name(labels)} rather than {self.second.name(labels)}"

    def spec(self) -> str | None:
        """`A>B`."""
        texts = self.first.spec(), self.second.spec()
        return None if None in texts else ">".join(map(str, texts))

    @classmethod
    def read(cls, text: str) -> Between | None:
        """`A>B`, both of one kind."""
        match = _TEXT.fullmatch(text)
        return None if match is None else cls(parse_target(match["first"]), parse_target(match["second"]))
