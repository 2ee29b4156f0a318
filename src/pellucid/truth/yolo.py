"""YOLO: a text file a picture, a line an object: its class, with centre and size or corners as shares of the sides."""

from __future__ import annotations

from pathlib import Path

from pellucid.errors import DataError
from pellucid.media.inputs import natural
from pellucid.truth.annotations import Annotated, Annotation, Truth
from pellucid.truth.outlines import Outline

NAMES = "classes.txt"
_BEYOND = 1e-3  # of a side, by which rounding may lead out of the picture


def read_yolo(path: Path, labels: tuple[str, ...] = ()) -> Truth:
    """The objects of a folder of YOLO files.

    Args:
        labels: of the classes by number; where the folder (or the one above) has a `classes.txt`, those in it.

    Raises:
        DataError: a line cannot be read.
    """
    names = next((f for f in (path / NAMES, path.parent / NAMES) if f.is_file()), None)
    if names is not None:
        labels = tuple(line.strip() for line in _lines(names) if line.strip())
    files = sorted((f for f in path.glob("*.txt") if f.name != NAMES), key=lambda file: natural(file.name))
    pictures = tuple(Annotated(file.stem, _objects(file, labels), shares=True) for file in files)
    used = {o.label for p in pictures for o in p.objects}
    numbers = {label: k for k, label in enumerate(labels)} or {label: int(label) for label in used}
    return Truth(str(path), pictures, numbers)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The annotations {file} can't be read ({error}): give text, a line an object.") from error


def _objects(file: Path, labels: tuple[str, ...]) -> tuple[Annotation, ...]:
    return tuple(
        _object(line, f"Line {k + 1} of {file}", labels) for k, line in enumerate(_lines(file)) if line.strip()
    )


def _object(line: str, where: str, labels: tuple[str, ...]) -> Annotation:
    try:
        number, *values = (float(v) for v in line.split())
    except ValueError:
        values = []
    corners = len(values) >= 6 and len(values) % 2 == 0
    if len(values) != 4 and not corners:
        raise DataError(f"{where} is no object: write CLASS X Y WIDTH HEIGHT, or CLASS and the corners X Y X Y ...")
    if not all(-_BEYOND <= v <= 1 + _BEYOND for v in values):
        raise DataError(f"{where} has places outside of 0 to 1; they are shares of the picture's sides: {line.strip()}")
    if number != int(number) or not 0 <= number < (len(labels) or float("inf")):
        raise DataError(f"{where} is of class {number:g}, and there are {len(labels)}: complete {NAMES}.")
    label = labels[int(number)] if labels else str(int(number))
    if corners:
        xs, ys = values[::2], values[1::2]
        return Annotation(label, (min(xs), min(ys), max(xs), max(ys)), Outline((tuple(values),)))
    x, y, width, height = values
    return Annotation(label, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))


def yolo_text(picture: Annotated, numbers: dict[str, int]) -> str:
    """One picture's objects as a YOLO file; crowds have no place in it.

    Raises:
        DataError: the picture's size is not known.
    """
    if picture.size is None and not picture.shares:
        raise DataError(f"The size of {picture.name} is not known, of whose sides YOLO writes shares: say it.")
    height, width = picture.size if picture.size is not None and not picture.shares else (1, 1)
    lines = []
    for each in (o.scaled(1 / width, 1 / height) for o in picture.objects if o.ignored != "crowd"):
        x0, y0, x1, y1 = each.box
        values: tuple[float, ...] = ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
        if each.outline is not None and len(each.outline.polygons) == 1:
            values = each.outline.polygons[0]
        lines.append(" ".join([str(numbers[each.label]), *(f"{v:.8g}" for v in values)]))
    return "\n".join([*lines, ""])
