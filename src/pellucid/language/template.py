"""A sentence with gaps: recognised when it comes filled, and filled again in another language.

A gap is written `{0}`, `{1}` ... in the order in which an f-string names its values, or `{name}` where `str.format`
fills it by name; a translation may order them anew. A gap that is the ending of an English plural (`picture{1}`) says
nothing in a language without plurals: it is filled with nothing, and a translation may leave it out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

_GAP = re.compile(r"\{(\w+)\}")
_ENDING = re.compile(r"(?<=[A-Za-z])\{(\w+)\}")
_PLURAL = ("s", "es")


@dataclass(frozen=True)
class Template:
    """A sentence of the source and what it is in another language.

    Attributes:
        source: in English, with gaps.
        target: in the other language, with the same gaps.
    """

    source: str
    target: str

    @cached_property
    def gaps(self) -> tuple[str, ...]:
        """The numbers or names of the gaps, in the order of the source."""
        return tuple(_GAP.findall(self.source))

    @cached_property
    def endings(self) -> frozenset[str]:
        """The gaps that stand right behind a letter, where the ending of a plural may come."""
        return frozenset(_ENDING.findall(self.source))

    @cached_property
    def literal(self) -> int:
        """How many characters are not gaps: of two templates that fit, the one with more of them is meant."""
        return len(_GAP.sub("", self.source))

    @cached_property
    def longest(self) -> str:
        """The longest text between gaps: where it is missing, the sentence is another, and that is quickly seen."""
        return max(_GAP.sub("\0", self.source).split("\0"), key=len)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What a filled sentence looks like."""
        parts = _GAP.split(self.source)
        text = "".join("(.*?)" if k % 2 else re.escape(part) for k, part in enumerate(parts))
        return re.compile(text)

    def values(self, sentence: str) -> tuple[str, ...] | None:
        """What fills the gaps of a sentence, in the order of the source; None: another sentence."""
        found = self.pattern.fullmatch(sentence) if self.longest in sentence else None
        return found.groups() if found else None

    def filled(self, values: Sequence[str]) -> str:
        """The other language's sentence with these values, given in the order of the source."""
        by_name = dict(zip(self.gaps, values, strict=True))
        by_name |= {gap: "" for gap in self.endings if by_name[gap] in _PLURAL}
        return _GAP.sub(lambda gap: by_name[gap[1]], self.target)
