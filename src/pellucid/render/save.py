"""Figures as bytes and as text: PNG without dates or versions inside, thumbnails, HTML for notebooks."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pellucid.errors import PellucidError
from pellucid.explanation import Explanation
from pellucid.media.clip import NOMINAL_RATE, Clip
from pellucid.render.figure import caption, panel
from pellucid.render.paper.colour import limits
from pellucid.render.paper.display import display, display_geometry, ground_pixels, spread
from pellucid.render.paper.overlay import overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_png(figure: Figure, dpi: float = 150) -> bytes:
    """A figure as PNG: the same bytes for the same figure, with no date and no version inside."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    before, canvas = figure.dpi, figure.canvas
    try:
        figure.set_dpi(dpi)
        agg: Any = FigureCanvasAgg(figure)  # untyped
        agg.draw()
        rgba: NDArray[np.uint8] = np.asarray(agg.buffer_rgba())
        return _png(rgba[..., :3], dpi=(dpi, dpi))
    finally:
        figure.set_dpi(before)
        figure.set_canvas(canvas)


def thumbnail(explanation: Explanation, size: int = 256) -> bytes:
    """The overlay alone as PNG, its longer side ``size`` pixels; for channels, the leading one's activation."""
    if explanation.kind == "map":
        return _png(display(explanation, size).image())
    geometry, _ = display_geometry(explanation.geometry, size)
    pixels = ground_pixels(explanation, geometry.source_size[-2:])
    activations = explanation.extras.get("activations")
    if activations is None:
        return _png(pixels)
    values = spread(activations[0, 0], geometry)
    signed = bool(np.nanmin(values) < 0)
    return _png(overlay(pixels, values, signed=signed, limits=limits(values, signed=signed)))


def overlay_video(explanation: Explanation, kind: str = "webm", size: int = 480) -> bytes:
    """The frames that the model was shown, each under its map, at their own times; `webm` (VP9) or `mp4` (H.264).

    All frames share one colour scale. Lossy, so to look at only.

    Raises:
        MediaError: PyAV is missing, or has no such encoder.
        PellucidError: the explanation is not of a clip.
    """
    if not explanation.is_clip:
        raise PellucidError("Only clips make overlay videos; this explanation is of a picture: use its figure.")
    from pellucid.media.writing import encode

    rate = 1.0 if explanation.geometry.unit == "s" else NOMINAL_RATE
    ticks = np.asarray(explanation.geometry.ticks)
    clip = explanation.picture
    at = range(len(ticks))
    if isinstance(clip, Clip) and len(clip.frames) < len(ticks):  # a long clip: those of its frames that are at hand
        at = sorted({int(np.abs(ticks - t).argmin()) for t in clip.times})  # type: ignore[assignment]
    frames = (display(explanation, size, i).image() for i in at)
    return encode(frames, [float(ticks[i]) / rate for i in at], kind)


def html(explanations: Sequence[Explanation], *, dpi: float = 100) -> str:
    """The panel as one ``<div>`` that needs nothing else: the picture inside it, every text escaped.

    Raises:
        PellucidError: as `panel`.
    """
    return figure_html(panel(explanations), caption(explanations), dpi)


def figure_html(figure: Figure, text: str, dpi: float = 100) -> str:
    """A figure as one ``<div>`` with the picture inside it, and ``text`` for those who can't see it."""
    data, text = b64encode(figure_png(figure, dpi)).decode(), escape(text, quote=True)
    return (
        f'<div class="pellucid" style="max-width:100%"><img alt="{text}" title="{text}" '
        f'style="max-width:100%;height:auto" src="data:image/png;base64,{data}"></div>'
    )


def _png(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=6, **options)
    return buffer.getvalue()
