"""Boxes in a table of comma-separated values, one row an object."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from pellucid.errors import DataError
from pellucid.truth.annotations import Annotated, Annotation, Truth, numbered

BOXES = "boxes.csv"
"""The name under which a table is found in a folder."""

_EDGES = (("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"))
_PICTURE, _LABEL = ("name", "file", "filename", "image", "path"), ("label", "class")


def read_boxes(path: Path, *, whole: bool = False) -> Truth:
    """The boxes of a table, edges in pixels of the upright picture.

    Columns are `name` (or `file`, `filename`, `image`, `path`), `x0,y0,x1,y1` (or `xmin,ymin,xmax,ymax`, or
    `x1,y1,x2,y2`), and `label` (or `class`) if there are several classes. A row without numbers says that the picture
    holds nothing.

    Args:
        whole: without columns of edges, a row speaks of the whole picture.

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}): give comma-separated values in UTF-8.") from error
    columns = set(rows[0]) if rows else set()
    named = next((c for c in _PICTURE if c in columns), None)
    edges = next((e for e in _EDGES if columns.issuperset(e)), None)
    label = next((c for c in _LABEL if c in columns), None)
    if whole and edges is None and named is not None and label is not None:
        return _of_pictures(path, [(row[named] or "", (row[label] or "").strip()) for row in rows])
    if named is None or edges is None:
        raise DataError(f"{path} cannot be read: its columns are {', '.join((_PICTURE[0], *_EDGES[0]))}.")
    found: dict[str, list[Annotation]] = {}
    for number, row in enumerate(rows, start=2):
        own = found.setdefault(row[named] or "", [])
        texts = [(row[e] or "").strip() for e in edges]
        if not any(texts):
            continue
        try:
            x0, y0, x1, y1 = (float(text) for text in texts)
        except ValueError as error:
            raise DataError(f"{path} cannot be read, row {number}: a box is four numbers, not {texts}.") from error
        if not (x0 < x1 and y0 < y1):
            raise DataError(f"{path}, row {number}: the box {x0:g}, {y0:g}, {x1:g}, {y1:g} encloses nothing.")
        own.append(Annotation(((row[label] if label else "") or "object").strip(), (x0, y0, x1, y1)))
    pictures = tuple(Annotated(name, tuple(objects)) for name, objects in found.items())
    return Truth(str(path), pictures, numbered(o.label for p in pictures for o in p.objects))


def _of_pictures(path: Path, rows: Sequence[tuple[str, str]]) -> Truth:
    """Whole pictures by name and class; one without a class is of none."""
    found: dict[str, list[Annotation]] = {}
    for name, label in rows:
        own = found.setdefault(name, [])
        own += [Annotation(label, (0, 0, 1, 1))] if label else []
    pictures = tuple(Annotated(name, tuple(objects), shares=True) for name, objects in found.items())
    return Truth(str(path), pictures, numbered(o.label for p in pictures for o in p.objects))
