"""What viewers of medical pictures open: a map as NIfTI and as DICOM objects, over the study it belongs to or alone."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import MediaError
from pellucid.media import Volume, read_volume
from pellucid.media.picture import Picture

ENDINGS = {"parametric-map": "pm", "segmentation": "seg", "labelmap": "labelmap", "capture": "sc", "report": "sr"}
"""Kind of a DICOM object -> what its file's name ends in."""


def dicom_object(e: Any, kind: str, *, keep_identifiers: bool = False, like: Volume | None = None) -> bytes:
    """The map of a `pellucid.results.heatmap.Heatmap` as a DICOM object (see its `dicom`)."""
    from pellucid.media import dicom_writing as writing

    if kind not in ENDINGS:
        raise MediaError(f"There is no object {kind!r}: parametric-map, segmentation, labelmap, capture or report.")
    about, values, over = e.record, *_over(e, like)
    parts = [about.input["sha256"], about.model["weights"], about.method, about.target, str(about.run.get("seed"))]
    key = " ".join(map(str, parts if like is None else [*parts, like.sha256]))
    wording = writing.Wording(e.method, e.target, about.model["name"], key, keep_identifiers)
    if kind == "capture":
        return writing.secondary_capture(_drawn(e), over, wording)
    if kind == "report":
        return writing.structured_report(measured(e), over, wording)
    if kind == "parametric-map":
        return writing.parametric_map(values, over, wording)
    return writing.segmentation(values, over, wording, "labelmap" if kind == "labelmap" else "fractional")


def dicom_objects(e: Any, study: str = "auto", *, keep_identifiers: bool = False) -> dict[str, bytes]:
    """All objects of a map, by their files' endings; none where `study` asks for none.

    Args:
        e: the explanation.
        study: `auto`: of what came as DICOM; `own`: of any volume, of one that is no DICOM in a study of its own;
            `none`; or the DICOM series that a NIfTI volume was made of (or a folder of such, each called as its
            volume), which the objects then refer to and lie over.
        keep_identifiers: see `Heatmap.dicom`.

    Raises:
        MediaError: the series is not on the volume's grid, or its headers let nothing be written.
    """
    own = _from_dicom(e)
    if study == "none" or not (own or (study != "auto" and hasattr(e, "volume"))):
        return {}
    like = None if own or study == "own" else _series(Path(study).expanduser(), e.name)
    fits = {"report": bool(measured(e)), "parametric-map": not _projected(e)}
    kinds = [kind for kind in ENDINGS if fits.get(kind, True)]
    return {f".{ENDINGS[k]}.dcm": dicom_object(e, k, keep_identifiers=keep_identifiers, like=like) for k in kinds}


def measured(e: Any) -> dict[str, float]:
    """The figures of `check` and `reliability`, those that were measured, by name."""
    found = dict(e.card.numbers()) if e.card is not None else {}
    if (q := e.quality) is not None:
        areas = {"insertion": q.insertion, "deletion": q.deletion}
        found |= {name: curve.auc for name, curve in areas.items() if curve is not None}
        figures = {"sanity": q.sanity, "agreement": q.agreement, "completeness gap": q.completeness_gap}
        found |= {name: value for name, value in figures.items() if value is not None}
    return found


def _from_dicom(e: Any) -> bool:
    seen = e.picture
    if isinstance(seen, Volume):
        return seen.origin.get("kind") == "dicom"
    return isinstance(seen, Picture) and seen.made_from is not None


def _projected(e: Any) -> bool:
    """Whether it is of a picture that lies nowhere in the patient, such as a chest X-ray."""
    from pellucid.media.series import alone

    seen = e.picture
    return (
        isinstance(seen, Picture) and seen.made_from is not None and not alone(seen.made_from, "").made_from[0].placed
    )


def _over(e: Any, like: Volume | None) -> tuple[NDArray[np.float32], Volume]:
    """A map's values, slice by slice, and what they lie over."""
    from pellucid.media.series import alone

    values: NDArray[np.float32] = e.heatmap()[0].numpy()
    own: Volume | None = getattr(e, "volume", None)
    if own is None:
        seen = e.picture
        if not isinstance(seen, Picture) or seen.made_from is None:
            raise MediaError(f"{e.name} is no DICOM picture and no volume, so no DICOM object is made of its map.")
        return values[None], alone(seen.made_from, seen.sha256)
    if like is None:
        return values, own
    there = Volume(values, own.affine, own.name, "", own.sha256).along(like.affine, like.size)
    if there is None:
        raise MediaError(
            f"The series {like.name} is not on the grid of {e.name}, so nothing can be laid over it: give the one that "
            "it was made of."
        )
    return there.values, like


def _series(path: Path, name: str) -> Volume:
    """The series that a volume was made of: of a folder of several, the one called as the volume is."""
    inner = path / name
    found = read_volume(inner if inner.is_dir() else path)
    if found.origin.get("kind") != "dicom":
        raise MediaError(f"{path} is no DICOM series: give the folder that the volume was made of, own or none.")
    return found


def _drawn(e: Any) -> NDArray[Any]:
    from PIL import Image

    from pellucid.render.save import figure_png

    return np.asarray(Image.open(BytesIO(figure_png(e.figure()))).convert("RGB"))
