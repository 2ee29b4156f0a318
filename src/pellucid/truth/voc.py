"""Pascal VOC: an XML file a picture. Its pixels are counted from 1, and both ends of a box belong to it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from pellucid.errors import DataError
from pellucid.media.inputs import natural
from pellucid.truth.annotations import Annotated, Annotation, Truth, numbered


def read_voc(path: Path) -> Truth:
    """The objects of a VOC file, or of all those in a folder.

    Raises:
        DataError: one cannot be read.
    """
    files = [path] if path.is_file() else sorted(path.glob("*.xml"), key=lambda file: natural(file.name))
    pictures = tuple(_picture(file) for file in files)
    return Truth(str(path), pictures, numbered(o.label for p in pictures for o in p.objects))


def _picture(file: Path) -> Annotated:
    try:
        text = file.read_text(encoding="utf-8-sig")
        if "<!ENTITY" in text or "<!DOCTYPE" in text:  # which may grow without bound, or read other files
            raise DataError(f"{file} declares entities, which annotations have no need of: take them out.")
        root = ElementTree.fromstring(text)
    except (OSError, ValueError, ElementTree.ParseError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"The annotations {file} can't be read ({error}): give a VOC file, which is XML.") from error
    if root.tag != "annotation":
        raise DataError(f"{file} is no VOC file: that begins with <annotation>, not with <{root.tag}>.")
    width, height = (_number(root, f"size/{side}", file, 0) for side in ("width", "height"))
    size = (int(height), int(width)) if width > 0 and height > 0 else None
    objects = tuple(_object(each, file) for each in root.iterfind("object"))
    named = root.findtext("filename") or ""  # often that of another file, so what the XML is called decides
    return Annotated(named if Path(named).stem == file.stem else file.stem, objects, size)


def _object(each: ElementTree.Element, file: Path) -> Annotation:
    label = (each.findtext("name") or "").strip()
    if not label:
        raise DataError(f"An object of {file} has no <name>: write its class there.")
    x0, y0, x1, y1 = (_number(each, f"bndbox/{edge}", file) for edge in ("xmin", "ymin", "xmax", "ymax"))
    if x1 < x0 or y1 < y0:
        raise DataError(f"The box of {label} in {file} ends before it begins: {x0:g},{y0:g},{x1:g},{y1:g}.")
    difficult = each.findtext("difficult", "0").strip() == "1"
    return Annotation(label, (x0 - 1, y0 - 1, x1, y1), ignored="difficult" if difficult else "")


def _number(parent: ElementTree.Element, way: str, file: Path, otherwise: float | None = None) -> float:
    text = parent.findtext(way)
    if text is None and otherwise is not None:
        return otherwise
    try:
        return float(text or "")
    except ValueError as error:
        raise DataError(f"{file} has {text!r} for <{way.replace('/', '> <')}>, which is no number.") from error


def voc_text(picture: Annotated) -> str:
    """One picture's objects as a VOC file."""
    lines = ["<annotation>", f"  <filename>{escape(picture.name)}</filename>"]
    if picture.size is not None:
        height, width = picture.size
        lines.append(f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>")
    for each in picture.objects:
        x0, y0, x1, y1 = each.box
        edges = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
        box = "".join(f"<{name}>{value:.10g}</{name}>" for name, value in edges.items())
        difficult = int(each.ignored == "difficult")
        lines += ["  <object>", f"    <name>{escape(each.label)}</name>", f"    <difficult>{difficult}</difficult>"]
        lines += [f"    <bndbox>{box}</bndbox>", "  </object>"]
    return "\n".join([*lines, "</annotation>", ""])
