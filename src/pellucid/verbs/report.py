"""`report`: saved results of every kind as one HTML file, which can be sent, and computed again from itself."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid import storage
from pellucid._version import __version__
from pellucid.errors import PellucidError, StorageError
from pellucid.keep.journal import Journal
from pellucid.language import translated
from pellucid.render.pages import texts
from pellucid.render.pages.card import Card
from pellucid.render.pages.heatmaps import heatmap_card
from pellucid.render.pages.page import paragraph
from pellucid.render.pages.report import report_page
from pellucid.render.viewer.stored import KeptResult, with_data
from pellucid.results import Heatmap
from pellucid.verbs.kinds import REQUESTS
from pellucid.verbs.results import Rows, results
from pellucid.verbs.verify import opened

LIMIT = 40.0
"""Megabytes that a page may have by default: what passes most mail servers in pieces, and opens at once."""
WORST = 12
"""Rows of a batch that a page shows by default."""

_PAGE, _CARD = 80_000, 14_000  # bytes: of an empty page; of a map's words and curves
_PICTURE, _VOLUME = 180_000, 900_000  # bytes: of an original


@dataclass
class Report:
    """A page of results.

    Attributes:
        text: the page.
        count: results in it.
        shrunk: files whose raw values are not in it, to keep it below its limit.
        refused: files that could not be shown, with the sentence that says why.
    """

    text: str
    count: int
    shrunk: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def save(self, file: str | Path) -> Path:
        """Write the page."""
        return storage.write_bytes(Path(file), self.text.encode())


@dataclass
class _Item:
    """A file, and what it holds."""

    file: str
    stored: storage.Artefact | None = None
    result: Any = None
    error: str = ""


@dataclass(frozen=True)
class KeptFile:
    """A result in files of its own."""

    path: Path

    def read(self) -> storage.Artefact:
        """What it holds."""
        return storage.read_artefact(self.path, REQUESTS)


@dataclass(frozen=True)
class KeptRow:
    """A result in a row of a batch; its `path` is where a file of its own would be."""

    path: Path
    rows: Rows
    id: str

    def read(self) -> storage.Artefact:
        """What it holds."""
        return self.rows.stored(self.id)


Kept = KeptFile | KeptRow


def result_files(given: Iterable[str | Path], worst: int = WORST) -> list[Kept]:
    """The saved results among files, folders and batches, each once, in order; all of a folder by name.

    Args:
        given: `.json` or `.npz` files, folders of them or of such folders, and batches.
        worst: rows of a batch.

    Raises:
        StorageError: a path is not there, or a folder holds no result.
    """
    found: dict[Path, Kept] = {}
    for path in map(Path, given):
        if Journal(path).exists:
            rows = results(path)
            kept = [
                KeptRow(path / f"{r['name']}.{r['method']}.{r['id'][:8]}", rows, r["id"]) for r in rows.worst(worst)
            ]
            if not kept:
                raise StorageError(f"The batch {path} has no finished row yet: see `pellucid batch status {path}`.")
            found |= {k.path: k for k in kept}
        elif path.is_dir():
            inside = _inside(path.glob("*.json")) or _inside(path.rglob("*.json"))
            if not inside:
                raise StorageError(
                    f"{path} holds no saved results, nor do its sub-folders: name a folder that --out wrote to."
                )
            found |= {p: KeptFile(p) for p in inside}
        else:
            file = path.with_name(f"{path.name[:-4]}.json") if path.suffix == ".npz" else path
            if not file.exists():
                raise StorageError(f"There is no saved result {path}: give .json or .npz files, or a folder of them.")
            found[file] = KeptFile(file)
    return list(found.values())


def _of_batches(kept: Sequence[Kept], home: str | Path | None) -> list[str]:
    """Of which rows those that are shown are the worst."""
    shown = Counter(k.rows for k in kept if isinstance(k, KeptRow))
    return [
        texts.BATCH.format(
            batch=_named(rows.folder, home),
            shown=count,
            count=len(rows),
            verdicts=", ".join(f"{n} {translated(name)}" for name, n in rows.verdicts().items()),
        )
        for rows, count in shown.items()
    ]


def _inside(files: Iterable[Path]) -> list[Path]:
    """Those that have their arrays beside them."""
    return [p for p in sorted(files) if p.with_name(f"{p.name[:-5]}.npz").exists()]


def report(
    files: Sequence[str | Path],
    *,
    title: str = "",
    limit: float = LIMIT,
    home: str | Path | None = None,
    worst: int = WORST,
) -> Report:
    """Saved results as one page that needs nothing else.

    Heat maps of one input share a viewer. A file that cannot be shown has a card that says why.

    Args:
        files: `.json` or `.npz` files, folders of them, and batches.
        title: heading; made of the results where none is given.
        limit: megabytes; above it inputs are shown as pictures, without their raw values.
        home: the folder in which the page will be, from which its files are named.
        worst: rows of a batch, those with the worst verdicts.

    Raises:
        StorageError: nothing to show.
    """
    paths = result_files(files, worst)
    if not paths:
        raise StorageError("There is nothing to report: give saved results, or a folder of them.")
    items = [_read(kept, _named(kept.path, home)) for kept in paths]
    groups = _grouped(items)
    raw = _within(groups, 1e6 * limit)
    cards: list[Card] = []
    kept: list[KeptResult] = []
    made = Report("", len(paths), refused=[f"{i.file}: {i.error}" for i in items if i.error])
    for number, (group, full) in enumerate(zip(groups, raw, strict=True)):
        cards.append(_card(group, full, limit))
        kept += _kept(group, number, full)
        made.shrunk += [] if full else [i.file for i in group]
    _slim(kept, 1e6 * limit - sum(c.size for c in cards) - _PAGE)
    lines = [texts.REPORT.format(count=len(paths), version=__version__), *_of_batches(paths, home)]
    heading = title or (cards[0].title if len(cards) == 1 else f"Report of {len(paths)} results")
    made.text = with_data(report_page(heading, cards, lines), kept)
    return made


def expected_size(files: Sequence[str | Path], worst: int = WORST) -> int:
    """About how many bytes the page of these results will have, without a limit: told before the work begins."""
    return _PAGE + sum(map(_expected, _grouped([_read(k, str(k.path)) for k in result_files(files, worst)])))


def _read(kept: Kept, name: str) -> _Item:
    try:
        stored = kept.read()
        if stored.tampered:
            return _Item(name, stored, error=f"{'; '.join(stored.tampered)}: make it again, or see `pellucid verify`.")
        result = opened(stored)
        drawn = hasattr(result, "on_page")
        return _Item(name, stored, result, "" if drawn else texts.UNDRAWN.format(format=stored.format))
    except PellucidError as error:
        return _Item(name, error=str(error))


def _named(path: Path, home: str | Path | None) -> str:
    return path.as_posix() if home is None else Path(os.path.relpath(path, home)).as_posix()


def _grouped(items: Iterable[_Item]) -> list[list[_Item]]:
    """Heat maps of one input by one model together, all others by themselves."""
    groups: dict[Any, list[_Item]] = {}
    for k, item in enumerate(items):
        key: Any = k
        if isinstance(item.result, Heatmap):
            about = item.result.record
            key = (about.input["sha256"], about.model["weights"], item.result.geometry.source_size)
        groups.setdefault(key, []).append(item)
    return list(groups.values())


def _within(groups: Sequence[Sequence[_Item]], limit: float) -> list[bool]:
    """Which groups are shown with their raw values: the smallest ones first, until the limit is reached."""
    sizes = [_expected(group) for group in groups]
    total, full = float(_PAGE), [True] * len(groups)
    for k in sorted(range(len(groups)), key=lambda k: sizes[k]):
        total += sizes[k]
        full[k] = total <= limit or not isinstance(groups[k][0].result, Heatmap)
    return full


def _expected(group: Sequence[_Item]) -> int:
    results = [i.result for i in group if isinstance(i.result, Heatmap)]
    if not results:
        return sum(4 * sum(a.nbytes for a in i.stored.arrays.values()) // 3 for i in group if i.stored) + _PICTURE
    cells = sum(int(np.prod(r.attribution.shape[-len(r.geometry.source_size) :])) for r in results)
    shown = _VOLUME if results[0].geometry.affine else _PICTURE
    return shown + _CARD * len(results) + 16 * cells // 3


def _card(group: Sequence[_Item], full: bool, limit: float) -> Card:
    first = group[0]
    if first.error or first.result is None:
        return Card(first.file, first.error, paragraph(first.error, warn=True), "not shown")
    if isinstance(first.result, Heatmap):
        made = heatmap_card([i.result for i in group], [i.file for i in group], raw=full)
        if full:
            return made
        said = texts.THUMBNAIL.format(limit=f"{limit:g}", file=", ".join(i.file for i in group))
        return replace(made, markup=f"<p>{escape(said)}</p>{made.markup}")
    found: Card = first.result.on_page(first.file)
    return found


def _kept(group: Sequence[_Item], number: int, full: bool) -> list[KeptResult]:
    found = []
    maps = 0
    for item in group:
        if item.stored is None or item.error:
            continue
        arrays: dict[str, NDArray[Any]] = {}
        position = -1
        if isinstance(item.result, Heatmap) and item.result.kind == "map":
            position, maps = (maps if full else -1), maps + 1
        elif isinstance(item.result, Heatmap):
            arrays = {"attribution": item.stored.arrays["attribution"]}
        else:
            arrays = item.stored.arrays
        found.append(KeptResult(item.file, item.stored.meta, arrays, number, position))
    return found


def _slim(kept: list[KeptResult], room: float) -> None:
    """Leave out arrays, the largest first, until the rest fits."""
    size = {k: 4 * sum(a.nbytes for a in r.arrays.values()) // 3 for k, r in enumerate(kept)}
    for k in sorted(size, key=lambda k: -size[k]):
        if sum(size.values()) <= max(room, 0.0):
            return
        kept[k] = replace(kept[k], arrays={})
        size[k] = 0
