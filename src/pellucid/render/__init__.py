"""Explanations as pictures: value to colour (colour), a map over its picture (display, overlay), figures of
several methods and targets (figure; sheet and tiles draw them), and PNG, thumbnails and HTML (save). The only
place where values are scaled; matplotlib is imported when something is drawn, and pyplot never."""

from pellucid.render.figure import panel
from pellucid.render.paper.colour import Limits, limits
from pellucid.render.paper.overlay import overlay
from pellucid.render.save import figure_html, figure_png, html, overlay_video, thumbnail

__all__ = [
    "Limits",
    "figure_html",
    "figure_png",
    "html",
    "limits",
    "overlay",
    "overlay_video",
    "panel",
    "thumbnail",
]
