"""COCO: one JSON file with `images`, `categories` and `annotations`; what else an annotation holds is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pellucid.errors import DataError
from pellucid.truth.annotations import Annotated, Annotation, Place, Truth
from pellucid.truth.outlines import Outline, outline_of, runs_as_text, runs_from_text

_OWN = ("id", "image_id", "category_id", "bbox", "segmentation", "iscrowd", "area")


def read_coco(path: Path, *, whole: bool = False) -> Truth:
    """The objects of a COCO file.

    Args:
        whole: an annotation without a box, and an image's own `category_id`, speak of the whole picture.

    Raises:
        DataError: it cannot be read, or an annotation speaks of what is not there.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"The annotations {path} can't be read ({error}): give a COCO file, which is JSON.") from error
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("images", "annotations")):
        raise DataError(f"{path} is no COCO file: that has the lists images, annotations and categories.")
    try:
        names = {entry["id"]: str(entry["name"]) for entry in data.get("categories", [])}
        objects: dict[Any, list[Annotation]] = {image["id"]: [] for image in data["images"]}
        empty = 0
        sizes = {image["id"]: _size(image) for image in data["images"]}
        own = [{"image_id": i["id"], "category_id": i["category_id"]} for i in data["images"] if "category_id" in i]
        for entry in [*own, *data["annotations"]] if whole else data["annotations"]:
            if entry["image_id"] not in objects:
                raise DataError(f"An annotation of {path} is of image {entry['image_id']}, which it does not list.")
            all_of_it = {"bbox": [0, 0, *(sizes[entry["image_id"]] or (1, 1))[::-1]]}
            found = _object(entry | all_of_it if whole and not entry.get("bbox") else entry, names, path)
            flat = found.box[0] >= found.box[2] or found.box[1] >= found.box[3]
            empty += flat
            if not flat:
                objects[entry["image_id"]].append(found)
        pictures = tuple(_picture(image, objects[image["id"]]) for image in data["images"])
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is no whole COCO file ({type(error).__name__}: {error}).") from error
    notes = (f"{empty} annotations of {path.name} without any area are left out.",) if empty else ()
    return Truth(str(path), pictures, {name: int(number) for number, name in names.items()}, notes)


def _picture(image: Mapping[str, Any], objects: list[Annotation]) -> Annotated:
    size = _size(image)
    shares = size is None and bool(objects) and all(o.box == (0, 0, 1, 1) for o in objects)
    return Annotated(str(image["file_name"]), tuple(objects), size, shares, key=image["id"])


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width, where they are written down."""
    return (int(image["height"]), int(image["width"])) if image.get("height") and image.get("width") else None


def _object(entry: Mapping[str, Any], names: Mapping[Any, str], path: Path) -> Annotation:
    number = entry["category_id"]
    if names and number not in names:
        raise DataError(f"An annotation of {path} is of category {number}, which it does not list.")
    outline = _outline(entry.get("segmentation"))
    return Annotation(
        names.get(number, str(number)),
        _box(entry.get("bbox"), path),
        outline,
        "crowd" if entry.get("iscrowd") else "",
        entry.get("id"),
        {key: value for key, value in entry.items() if key not in _OWN},
    )


def _box(values: Any, path: Path) -> Place:
    """COCO's left, top, width and height as a box."""
    if not isinstance(values, list) or len(values) != 4:
        raise DataError(f"An annotation of {path} has no bbox of left, top, width and height: {values!r}.")
    x, y, width, height = (float(v) for v in values)
    if not all(map(math.isfinite, (x, y, width, height))):
        raise DataError(f"An annotation of {path} has a bbox that is not finite: {values!r}.")
    return x, y, x + width, y + height


def _outline(given: Any) -> Outline | None:
    if not given:
        return None
    if isinstance(given, list):
        return Outline(tuple(tuple(float(v) for v in polygon) for polygon in given))
    runs, (height, width) = given["counts"], given["size"]
    counted = runs_from_text(runs) if isinstance(runs, str) else tuple(int(n) for n in runs)
    return Outline(runs=counted, size=(int(height), int(width)))


def coco_text(truth: Truth) -> str:
    """Objects as a COCO file; `facts` stand beside what COCO knows."""
    images, annotations = [], []
    for k, picture in enumerate(truth.pictures):
        key = k + 1 if picture.key is None else picture.key
        height, width = picture.size or (None, None)
        images.append({"id": key, "file_name": picture.name, "height": height, "width": width})
        annotations += [_entry(each, picture, key, truth.numbers) for each in picture.objects]
    for k, entry in enumerate(annotations):
        entry["id"] = k + 1 if entry["id"] is None else entry["id"]
    categories = [{"id": truth.numbers[label], "name": label} for label in truth.labels]
    return json.dumps({"images": images, "categories": categories, "annotations": annotations}, indent=1)


def _entry(each: Annotation, picture: Annotated, key: Any, numbers: Mapping[str, int]) -> dict[str, Any]:
    x0, y0, x1, y1 = each.box
    entry: dict[str, Any] = {"id": each.key, "image_id": key, "category_id": numbers[each.label]}
    entry |= {
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "iscrowd": int(each.ignored == "crowd"),
    }
    if each.outline is not None:
        outline = each.outline
        if outline.polygons and each.ignored != "crowd":
            entry["segmentation"] = [list(polygon) for polygon in outline.polygons]
        elif picture.size is not None:
            outline = outline_of(outline.mask(picture.size))
            entry["segmentation"] = {"size": list(outline.size), "counts": runs_as_text(outline.runs)}
        if picture.size is not None:
            entry["area"] = float(outline.mask(picture.size).sum())
    return entry | dict(each.facts)
