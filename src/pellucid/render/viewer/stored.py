"""What a page keeps of its results, so that it can be computed again from the page alone; and how it is read back."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import StorageError
from pellucid.render.viewer.plain import embedded

FORMAT = "pellucid-html/1"

_DATA = re.compile(r'<script type="application/json" id="pellucid-report">(.*?)</script>', re.S)
_HEAD = re.compile(r'<body>(.*?)<article id="result-0">', re.S)
_ARTICLE = re.compile(r'<article id="result-\d+">(.*?)</article>', re.S)
_SCRIPT = re.compile(r"<script.*?</script>", re.S)
_VIEW = re.compile(r'<script type="application/json">(.*?)</script>', re.S)
_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class KeptResult:
    """A result as a page keeps it.

    Attributes:
        file: where it was saved.
        meta: all but the arrays, sealed as on disk.
        arrays: by name; empty where they are in the viewer, or were too large.
        article: the number of its card.
        map: of a heat map, its number in the card's viewer; -1 for others, and where no raw values are in the page.
    """

    file: str
    meta: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    article: int
    map: int = -1


def with_data(page: str, results: Sequence[KeptResult]) -> str:
    """A page with an element that holds all its results, and what its head and its cards say, under a seal."""
    said = [{"text": words(part), "sha256": _digest(part)} for part in _parts(page)]
    plain = [
        {"file": r.file, "meta": r.meta, "article": r.article, "map": r.map, "arrays": _packed(r.arrays)}
        for r in results
    ]
    values: dict[str, Any] = {"format": FORMAT, "parts": said, "results": plain}
    values["sha256"] = _seal(values)
    block = f'<script type="application/json" id="pellucid-report">{embedded(values)}</script>'
    before, end, after = page.rpartition("</main>")
    return f"{before}{block}{end}{after}"


def _parts(page: str) -> list[str]:
    """The head of a page, and its cards."""
    found = _HEAD.search(page)
    return [found[1] if found else "", *_ARTICLE.findall(page)]


def words(markup: str) -> list[str]:
    """The words that a card shows, in order."""
    return unescape(_TAG.sub(" ", _SCRIPT.sub(" ", markup))).split()


@dataclass(frozen=True)
class OpenedPage:
    """A page read back.

    Attributes:
        results: as kept.
        reasons: for the head and each card, what shows that it is not as it was written.
        sealed: whether the kept results are as they were written.
    """

    results: list[KeptResult]
    reasons: list[list[str]]
    sealed: bool


def opened(text: str) -> OpenedPage:
    """Read a page back.

    Raises:
        StorageError: it is not such a page, or one of a newer format.
    """
    block = _DATA.search(text)
    if block is None:
        raise StorageError("This page holds no results of Pellucid: give one that `pellucid report` wrote.")
    try:
        values = json.loads(block[1])
        if values.get("format") != FORMAT:
            raise StorageError(
                f"This page has the format {values.get('format')!r}, which is not {FORMAT}: update Pellucid."
            )
        parts = _parts(text)
        reasons = [_changes(said, part) for said, part in zip_longest(values["parts"], parts)]
        results = [_kept(r, parts[1:][r["article"]]) for r in values["results"]]
        return OpenedPage(results, reasons, values.get("sha256") == _seal(values))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StorageError(f"The results in this page cannot be read ({error}): write the report again.") from error


def _changes(said: Mapping[str, Any] | None, body: str | None) -> list[str]:
    if body is None or said is None:
        return ["it was taken out" if body is None else "it was added"]
    if _digest(body) == said["sha256"]:
        return []
    found, now = [], words(body)
    if len(now) != len(said["text"]):
        found.append(f"the page shows {len(now)} words where {len(said['text'])} were written")
    for k, (before, after) in enumerate(zip(said["text"], now, strict=False)):
        if before != after:
            around = " ".join(said["text"][max(0, k - 4) : k])
            found.append(f"after “{around}” the page says {after!r} where {before!r} was written")
            if len(found) >= 8:
                break
    return found or ["a map, a curve or a picture in it was changed"]


def _kept(values: Mapping[str, Any], markup: str) -> KeptResult:
    arrays = {name: _unpacked(a) for name, a in values["arrays"].items()}
    if values["map"] >= 0:
        views = _VIEW.findall(markup)
        shown = json.loads(views[0])["maps"][values["map"]]
        data = np.frombuffer(b64decode(shown["data"]), "<f4").reshape(shown["grid"])
        arrays = {"attribution": data[None].copy()}
    return KeptResult(values["file"], values["meta"], arrays, values["article"], values["map"])


def _packed(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    return {
        name: {"dtype": a.dtype.newbyteorder("<").str, "shape": list(a.shape), "data": _bytes(a)}
        for name, a in arrays.items()
    }


def _bytes(a: NDArray[Any]) -> str:
    return b64encode(np.ascontiguousarray(a, a.dtype.newbyteorder("<")).tobytes()).decode()


def _unpacked(about: Mapping[str, Any]) -> NDArray[Any]:
    return np.frombuffer(b64decode(about["data"]), np.dtype(about["dtype"])).reshape(about["shape"]).copy()


def _seal(values: Mapping[str, Any]) -> str:
    plain = {k: v for k, v in values.items() if k != "sha256"}
    return _digest(json.dumps(plain, sort_keys=True, ensure_ascii=False))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
