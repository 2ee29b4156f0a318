"""An input and its maps as `<pellucid-view>`: raw numbers as float32, the original, a picture where no script runs.

Whatever is scaled or coloured is so in the viewer; what is stored here are the numbers of the result.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pellucid.errors import MediaError
from pellucid.explanation import Explanation
from pellucid.language import translated
from pellucid.media import Clip, Picture
from pellucid.media.clip import NOMINAL_RATE
from pellucid.media.writing import encode
from pellucid.render.paper.display import display, display_geometry, ground_pixels, is_fine, problem_of
from pellucid.render.paper.overlay import overlay
from pellucid.render.viewer.anatomy import in_patient
from pellucid.render.viewer.outlines import outlines
from pellucid.render.viewer.plain import changes, data_uri, embedded, floats

SHOWN = 1000
"""The longer side of an original inside a page, in pixels; the pointer counts in the original's own."""

VIDEO = 480
"""The longer side of a clip inside a page, in pixels."""

THUMBNAIL = 320
"""The longer side of the picture for where no script runs."""


def view(explanations: Sequence[Explanation], media: str | None = None) -> str:
    """The viewer of explanations of one input, as markup.

    Args:
        explanations: with maps, of one input and one size.
        media: address of the original; None puts it into the markup.
    """
    first = explanations[0]
    static = data_uri(still(first, THUMBNAIL), "jpeg")
    text = escape(translated(f"{first.name}: {first.method} for {first.target}"), quote=True)
    return (
        f"<pellucid-view>{original(first, media)}"
        f'<script type="application/json">{embedded(described(explanations))}</script>'
        f'<noscript><img alt="{text}" src="{static}"></noscript></pellucid-view>'
    )


def still(e: Explanation, size: int) -> NDArray[np.uint8]:
    """A map over its picture, its middle frame, or its axial plane through the peak: pixels (H, W, 3)."""
    if not e.geometry.affine:
        return display(e, size).image()
    from pellucid.render.planes import planes_of  # which draws, and is needed for volumes alone

    shown = planes_of(e)
    plane = shown.planes[0]
    return overlay(plane.pixels, plane.values, signed=e.signed, limits=shown.limits, ground=shown.ground)


def described(explanations: Sequence[Explanation]) -> dict[str, Any]:
    """What the viewer shows, as plain values; arrays are float32, little-endian, in base64."""
    first = explanations[0]
    size = list(first.geometry.turned_size)
    about: dict[str, Any] = {
        "name": first.name,
        "size": size,
        "ticks": list(first.geometry.ticks),
        "unit": first.geometry.unit,
        "start": size[0] // 2 if len(size) == 3 else 0,
        "maps": [_map(e) for e in explanations],
        "shapes": outlines(explanations),
    }
    if first.geometry.affine:
        from pellucid.render.planes import peak_of  # which draws, and is needed for volumes alone

        about["volume"] = in_patient(first, peak_of(first)[0])
    return about | (_in_time(explanations) if first.is_clip else {})


def _in_time(explanations: Sequence[Explanation]) -> dict[str, Any]:
    """The evidence over time of each map, with its error, and when each frame is shown in the video."""
    from pellucid.render.strip import edges

    first = explanations[0]
    curves = []
    for e in explanations:
        curve = e.temporal()
        told = curve.half if curve.half is not None else curve.error
        curves.append({"values": _finite(curve.values), "error": told and _finite(told), "edges": edges(e, curve)})
    ticks = np.asarray(first.geometry.ticks, float)
    peak = int(np.abs(ticks - first.temporal().peak).argmin())
    return {"curves": curves, "edges": curves[0]["edges"], "moments": moments(first), "start": peak}


def moments(e: Explanation) -> list[float]:
    """When each frame that the model was shown is shown in the video, in seconds."""
    ticks = np.asarray(e.geometry.ticks, float)
    return [float(t) for t in (ticks - ticks[0]) / (1.0 if e.geometry.unit == "s" else NOMINAL_RATE)]


def _finite(values: Sequence[float]) -> list[float]:
    return [float(v) if np.isfinite(v) else 0.0 for v in values]


def _map(e: Explanation) -> dict[str, Any]:
    values = e.map()[0].detach().to("cpu", torch.float32)
    geometry = e.geometry
    about: dict[str, Any] = {
        "name": e.method,
        "target": e.target,
        "layer": e.layer or "",
        "signed": e.signed,
        "fine": is_fine(values, geometry),
        "problem": problem_of(values, e)[0],
        "grid": list(values.shape),
        "input": list(geometry.input_size),
        "box": [list(span) for span in geometry.box],
        "data": floats(values.numpy()),
    }
    seen = e.extras.get("seen")
    if seen is not None and tuple(seen.shape[1:]) == tuple(geometry.source_size) and not bool(seen.all()):
        about["unseen"] = changes(~seen[0].numpy())
    about |= {k: [list(s) for s in getattr(geometry, k)] for k in ("span", "reach") if getattr(geometry, k)}
    return about


def original(e: Explanation, media: str | None = None) -> str:
    """The original as an element; nothing where it is not at hand, or a clip cannot be encoded."""
    picture, name = e.picture, escape(e.name, quote=True)
    if isinstance(picture, Clip):
        source = media or video_uri(e)
        return (
            f'<video class="original" muted playsinline aria-label="{name}" src="{source}"></video>' if source else ""
        )
    if not isinstance(picture, Picture) or len(e.geometry.source_size) != 2:
        return ""
    source = media or data_uri(pixels(picture), "jpeg")
    return f'<img class="original" alt="{name}" src="{source}">'


def video_uri(e: Explanation) -> str:
    """The frames that the model was shown as a VP9 video inside an address; empty without PyAV."""
    try:
        return f"data:video/webm;base64,{b64encode(video(e)).decode()}"
    except MediaError:
        return ""


def video(e: Explanation) -> bytes:
    """The frames that the model was shown as a VP9 video (WebM), each at its time, without a map.

    Raises:
        MediaError: PyAV is missing, or has no such encoder.
    """
    size = display_geometry(e.geometry, VIDEO)[0].source_size[-2:]
    frames = (ground_pixels(e, size, i) for i in range(len(e.geometry.ticks)))
    return encode(frames, moments(e), "webm")


def pixels(picture: Picture, size: int = SHOWN) -> NDArray[np.uint8]:
    """A picture (H, W, 3) whose longer side has `size` pixels at most."""
    image = picture.pil()
    image.thumbnail((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(image)
