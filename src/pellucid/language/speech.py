"""A text in the language chosen, put together from the sentences that the catalogue knows.

Texts arrive as they were composed: sentences one after the other, a sentence quoting an error, a list of facts. So a
text is looked up whole, then as a sentence with gaps (whose values are looked up in turn), then piece by piece. What
is not known stays as it is: labels, names of files and methods, numbers, and a library's own errors.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TextIO

from pellucid.language.catalogue import catalogue
from pellucid.language.choice import chosen
from pellucid.language.template import Template

# Where a text is taken apart, coarse to fine, and what stands there in Chinese.
_SEAMS = (("\n", "\n"), (" · ", " · "), ("? ", ""), (". ", ""), ("; ", "；"), (": ", "："), (", ", "，"), (" (", "（"))
_PAPER = re.compile(r"arXiv:|doi:")  # a reference has one spelling
_STOPS = ("? ", ". ")  # the mark belongs to the sentence in front of it
_LEADS = ("pellucid: ", "note: ")  # who speaks, or what it is: the sentence behind is one by itself
_OUTSIDE = r"(?![^\[\]]*\])"  # an interval [0.1, 0.2] is one value
_LISTS = _SEAMS[0], _SEAMS[4]
_LINES = ("\n", " · ")  # no sentence goes on behind these
_LETTER = re.compile(r"[^\W\d_]")
_ENDS = {".": "。", ":": "：", ";": "；", ",": "，", "?": "？", ")": "）"}
_PROSE = re.compile(r"[A-Za-z]{2,} [a-z]{2,} [a-z]{2,} [a-z]{2,}")  # four words in a row: no name, no label
_told: set[str] = set()


def translated(text: str) -> str:
    """The text in the language chosen; in English, the text itself."""
    language = chosen()
    return text if language == "en" or not text else _translated(text, language)


def printable(text: str, stream: TextIO | None = None) -> str:
    """`translated`, or the text itself where the terminal cannot show Chinese, which is said once."""
    shown = translated(text)
    stream = stream or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        shown.encode(encoding)
    except UnicodeEncodeError:
        if encoding not in _told:
            _told.add(encoding)
            print(f"pellucid: this terminal ({encoding}) cannot show Chinese; English is printed.", file=sys.stderr)
        return text
    return shown


@lru_cache(maxsize=4096)
def _translated(text: str, language: str) -> str:
    core = text.strip()
    lead, _, tail = text.partition(core) if core else (text, "", "")
    return f"{lead}{_closed(_core(core, language) or core)}{tail}"


def _closed(text: str) -> str:
    """The text with every bracket closed as it was opened, by the Chinese sign or the other."""
    opened: list[str] = []
    out = []
    for sign in text:
        if sign in "(（":
            opened.append(sign)
        closing = sign in ")）" and opened
        out.append(("）" if opened.pop() == "（" else ")") if closing else sign)
    return "".join(out)


@lru_cache(maxsize=65536)
def _core(text: str, language: str) -> str | None:
    """The text's translation, or None if nothing of it is known; remembered, since pieces come again."""
    if not text:
        return None
    if _PAPER.search(text):
        return catalogue(language).plain.get(text)
    if any(seam in text for seam in _LINES):
        return _in_pieces(text, language)
    for lead in _LEADS:
        if text.startswith(lead):
            return _led(text, lead, language)
    return _whole(text, language) or _in_pieces(text, language) or _filled(text, catalogue(language).phrases, language)


def _whole(text: str, language: str) -> str | None:
    """A text that is one sentence or phrase of the catalogue."""
    known = catalogue(language)
    return (
        known.plain.get(text)
        or _filled(text, known.sentences, language, whole=_clause)
        or _list(text, language)
        or _filled(text, known.sentences, language)
        or _without_end(text, language)
        or _filled(text, known.phrases, language, whole=_one)
    )


def _led(text: str, lead: str, language: str) -> str | None:
    """A sentence and the word in front of it, together where the catalogue has them so, else one after the other."""
    known = catalogue(language)
    own = [template for template in known.sentences if template.source.startswith(lead)]
    if shown := known.plain.get(text) or _filled(text, own, language):
        return shown
    rest = text.removeprefix(lead)
    shown = _core(rest, language) or rest
    return next((t.filled([shown]) for t in known.phrases if t.source == f"{lead}{{0}}"), None)


def _filled(
    text: str, templates: Sequence[Template], language: str, *, whole: Callable[[str, str], bool] | None = None
) -> str | None:
    """A sentence that is known by its gaps; `whole`: only where this holds of all that fills them."""
    for template in templates:
        values = template.values(text)
        if values is None:
            continue
        if whole is not None and not all(whole(value, language) for value in values):
            continue
        shown = [_translated(value, language) for value in values]
        if not any(map(_PROSE.search, shown)):  # prose left in a gap: another sentence was meant
            return template.filled(shown)
    return None


def _list(text: str, language: str) -> str | None:
    """Clauses of one sentence, all of them known."""
    parts = [] if any(stop in text for stop in _STOPS) else text.split("; ")
    found = [_core(part, language) for part in parts] if len(parts) > 1 else [None]
    return "；".join(map(str, found)) if all(found) else None


def _clause(value: str, _: str) -> bool:
    """Whether a text does not go on behind its first clause."""
    return not any(seam in value for seam, _ in _LISTS)


def _one(value: str, language: str) -> bool:
    """Whether a text is known and not to be taken apart, or is a number or a sign."""
    if any(seam in value for seam, _ in _SEAMS):
        known = catalogue(language)
        return value in known.plain or _filled(value, known.sentences, language, whole=_clause) is not None
    return not _LETTER.search(value) or _core(value.strip(), language) is not None


def _without_end(text: str, language: str) -> str | None:
    """A clause that is known without the mark at its end."""
    end = _ENDS.get(text[-1])
    inner = _whole(text[:-1], language) if end else None
    return f"{inner}{end}" if inner else None


def _piece(text: str, language: str) -> str | None:
    """A part of a text, which may be a line with spaces in front, or None if nothing of it is known."""
    core = text.strip()
    shown = _core(core, language)
    return shown and text.replace(core, shown)


def _together(sentences: list[str], language: str) -> list[str]:
    """Sentences, those neighbours joined that the catalogue has as one."""
    out, k = [], 0
    while k < len(sentences):
        ends = range(len(sentences), k + 1, -1)
        end = next((e for e in ends if _whole(" ".join(sentences[k:e]), language)), k + 1)
        out.append(" ".join(sentences[k:end]))
        k = end
    return out


def _in_pieces(text: str, language: str) -> str | None:
    """The parts of a text, joined as Chinese joins them where both sides are Chinese."""
    for seam, joint in _SEAMS:
        if seam not in text:
            continue
        parts, between = re.split(f"{re.escape(seam)}{_OUTSIDE}", text), seam
        if len(parts) == 1:
            continue
        if seam == ": " and (rest := _whole(seam.join(parts[1:]), language)):  # something, and a sentence about it
            return f"{_core(parts[0], language) or parts[0]}{joint}{rest}"
        if seam in _STOPS:
            parts, between = _together([*(f"{part}{seam[0]}" for part in parts[:-1]), parts[-1]], language), " "
        found = [_piece(part, language) for part in parts]
        if not any(found):
            continue
        shown = [new or old for new, old in zip(found, parts, strict=True)]
        out = shown[0]
        for k in range(1, len(parts)):
            near = found[k - 1] or (found[k] and seam not in _STOPS)
            out += (joint if near else between) + shown[k]
        return out.replace("。。", "。")
    return None
