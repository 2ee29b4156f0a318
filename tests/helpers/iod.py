"""What the standard requires of a DICOM object, by the tables of it that highdicom brings."""

import json
from functools import lru_cache
from pathlib import Path

MACROS = {  # of functional groups, which the tables do not part from those that only some objects need
    "parametric-map": (
        *("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence", "FrameContentSequence"),
        *("ParametricMapFrameTypeSequence", "RealWorldValueMappingSequence", "DerivationImageSequence"),
    ),
    "segmentation": (
        *("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence", "FrameContentSequence"),
        "DerivationImageSequence",
    ),
}
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


@lru_cache
def _table(name):
    import highdicom

    return json.loads((Path(highdicom.__file__).parent / "_standard" / f"{name}.json").read_text())


def missing(dataset, refers=True, lies=True):
    """Attributes of type 1 and 2 of the object's mandatory modules that it lacks, by their paths.

    Sequences that are there are looked into, item by item. Of a report's content (whose attributes depend on each
    item's type of value) only its document is judged. `refers`: whether it must say which pictures it was made from;
    `lies`: whether these lie in the patient, so that it must say where.
    """
    modules, attributes = _table("iod_module_map"), _table("module_attribute_map")
    iod = _table("sop_class_iod_map")[str(dataset.SOPClassUID)]
    found = []
    for module in (m["key"] for m in modules[iod] if m["usage"] == "M" and m["key"] != "sr-document-content"):
        for attribute in attributes[module]:
            path, keyword = attribute["path"], attribute["keyword"]
            if path and path[-1] in GROUPS:
                continue  # a macro, of which not all are wanted
            for item in _items(dataset, path):
                if attribute["type"] in ("1", "2") and not _holds(item, keyword, attribute["type"]):
                    found.append("/".join([module, *path, keyword]))
    return found + _macros(dataset, iod, refers, lies)


def _macros(dataset, iod, refers, lies):
    """Functional groups that are missing: each is in the shared groups, or in those of every frame, and not in both."""
    wanted = next((names for kind, names in MACROS.items() if iod.startswith(kind)), ())
    shared = dataset.get(GROUPS[0], [])
    frames = dataset.get(GROUPS[1], [])
    if wanted and len(frames) != dataset.NumberOfFrames:
        return ["as many functional groups as frames"]
    return [
        name
        for name in wanted
        if (refers or name != "DerivationImageSequence")
        and (lies or not name.startswith("Plane"))
        and any(name in group for group in shared) == all(name in group for group in frames)
    ]


def _holds(item, keyword, kind):
    return keyword in item and (kind == "2" or item[keyword].value not in (None, "", [], b""))


def _items(dataset, path):
    items = [dataset]
    for keyword in path:
        items = [inner for item in items for inner in (item.get(keyword) or [])]
    return items
