"""Annotations of any of the known kinds, told by what is there."""

from __future__ import annotations

from pathlib import Path

from pellucid.errors import DataError
from pellucid.truth.annotations import Truth
from pellucid.truth.coco import read_coco
from pellucid.truth.masks import read_masks
from pellucid.truth.tables import BOXES, read_boxes
from pellucid.truth.voc import read_voc
from pellucid.truth.yolo import NAMES, read_yolo

_KINDS = "a COCO file (.json), VOC files (.xml), boxes (.csv), a folder of YOLO files (.txt) or one of masks (.png)"


def read_truth(source: str | Path, labels: tuple[str, ...] = (), *, whole: bool = False) -> Truth:
    """What is truly in pictures: COCO JSON, VOC XML, YOLO text, masks, or a table of boxes.

    Args:
        source: a file, or a folder of files of one kind.
        labels: of classes that are numbers only.
        whole: what has a class and no place speaks of the whole picture: an annotation or image of COCO, a row.

    Raises:
        DataError: nothing of the kind is there, or it cannot be read.
    """
    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() == ".csv":
        return read_boxes(path, whole=whole)
    if path.is_file() and path.suffix.lower() in (".json", ".xml"):
        return read_coco(path, whole=whole) if path.suffix.lower() == ".json" else read_voc(path)
    if not path.is_dir():
        raise DataError(f"There are no annotations at {source}: give {_KINDS}.")
    if (path / BOXES).is_file():
        return read_boxes(path / BOXES, whole=whole)
    found = [kind for kind in ("xml", "txt", "png") if any(f.name != NAMES for f in path.glob(f"*.{kind}"))]
    if len(found) != 1:
        seen = f" and there are .{' and .'.join(found)} files" if found else ""
        raise DataError(f"The folder {source} is none of annotations of one kind{seen}: give {_KINDS}.")
    if found == ["xml"]:
        return read_voc(path)
    return read_yolo(path, labels) if found == ["txt"] else read_masks(path, labels)


def listed(truth: Truth) -> list[str]:
    """The pictures that annotations speak of, as files: beside them, or in a folder `images` or one above.

    Raises:
        DataError: none of them is there.
    """
    home = Path(truth.source).expanduser().resolve()
    home = home if home.is_dir() else home.parent
    homes = [home, home / "images", home.parent, home.parent / "images"]
    found = [next((str(at / p.name) for at in homes if (at / p.name).is_file()), "") for p in truth.pictures]
    if not any(found):
        first = f" ({truth.pictures[0].name}, ...)" if truth.pictures else ""
        raise DataError(
            f"None of the pictures{first} lies beside {truth.source}: give their folder, and the annotations with "
            "--truth."
        )
    return [path for path in found if path]
