"""The sheet of a picture's activations: the input at the left, beside it a row a layer.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pellucid.features.activations import ActivationMaps, InputActivations, summary
from pellucid.media import Geometry
from pellucid.render.paper.colour import colours, limits, number
from pellucid.render.paper.display import display_geometry
from pellucid.render.paper.overlay import overlay
from pellucid.render.paper.page import GAP, MARGIN, MIN_CELL, head, picture_box, side
from pellucid.render.paper.rgb import Pixels, frames_at, rgb
from pellucid.render.paper.sheet import FAINT, QUIET, Column, Sheet
from pellucid.render.paper.tiles import SMALL, TEXT

_BIG, _TILE, _BETWEEN, _APART = 1.6, 0.72, 0.07, 0.16  # inches: summary pictures, channels, between, apart
_ACROSS = 6  # channels beside the summary pictures, in two rows
_BELOW_HEAD = 0.62
_SIZE = 220  # pixels of a tile
_HUES = torch.tensor([[0.95, 0.45, 0.15], [0.20, 0.70, 0.95], [0.55, 0.90, 0.30]])  # of NMF's three parts
_FRAMES = 4
_FINE = 40  # cells along an axis from which on a map looks like the picture by itself


def activation_sheet(found: InputActivations) -> Figure:
    """The input and its prediction; for each layer what it tells apart, its parts, where it is active, its channels."""
    box = picture_box(display_geometry(found.geometry)[0].source_size)
    cell = Column(MARGIN, MARGIN, max(box[0], MIN_CELL), box)
    wide = 3 * (_BIG + _BETWEEN) + _APART + _ACROSS * (_TILE + _BETWEEN) - _BETWEEN
    sheet = Sheet(2 * MARGIN + cell.width + GAP + wide)
    bottom = side(sheet, found, {found.target}, [], cell)
    if found.seen is not None and found.seen.ndim == 4:  # over the grey that stands for a picture
        shown = rgb(found.seen)
        width, height = cell.fit(shown.shape[:2])
        sheet.image(shown, cell.x, cell.y + _BELOW_HEAD, width, height)
    x, y = MARGIN + cell.width + GAP, MARGIN
    draw = _alone if len(found.maps) == 1 else _layer
    for maps in found.maps:
        y = draw(sheet, found, maps, x, y, wide) + 0.22
    return sheet.finish(max(bottom, y - 0.22) + MARGIN)


def _layer(sheet: Sheet, found: InputActivations, maps: ActivationMaps, x: float, y: float, wide: float) -> float:
    """One of several layers in a row; where it ends."""
    y, left = _title(sheet, maps, x, y, wide), x
    bottom = y
    for title, pixels, said in _summaries(maps):
        bottom = max(bottom, _tile(sheet, pixels, left, y, _BIG, title, said))
        left += _BIG + _BETWEEN
    left += _APART
    for k, channel in enumerate(maps.order()[: 2 * _ACROSS]):
        row, column = divmod(k, _ACROSS)
        high = _channel_tile(
            sheet, found, maps, channel, left + column * (_TILE + _BETWEEN), y + row * (bottom - y) / 2
        )
        bottom = max(bottom, high) if row else bottom
    return bottom + _told(sheet, maps, found.target, x, bottom, wide)


def _alone(sheet: Sheet, found: InputActivations, maps: ActivationMaps, x: float, y: float, wide: float) -> float:
    """A single layer: its summary pictures large, and many channels below them; where it ends."""
    y = _title(sheet, maps, x, y, wide)
    size = (wide - 2 * _APART) / 3
    ends = [
        _tile(sheet, pixels, x + i * (size + _APART), y, size, title, said)
        for i, (title, pixels, said) in enumerate(_summaries(maps))
    ]
    columns = int((wide + _BETWEEN) // (_TILE + _BETWEEN))
    side_ = (wide - (columns - 1) * _BETWEEN) / columns
    y = max(ends) + 0.14
    order = maps.order()[: 4 * columns]
    for start in range(0, len(order), columns):
        row = [
            _channel_tile(sheet, found, maps, channel, x + i * (side_ + _BETWEEN), y, side_)
            for i, channel in enumerate(order[start : start + columns])
        ]
        y = max(row) + 0.05
    return y + _told(sheet, maps, found.target, x, y, wide)


def _title(sheet: Sheet, maps: ActivationMaps, x: float, y: float, wide: float) -> float:
    layout = maps.layer.layout
    grid, kind = " × ".join(map(str, layout.grid)), "tokens" if layout.kind == "tokens" else "cells"
    return head(sheet, maps.layer.name, f"{grid} {kind}, {layout.channels} channels", Column(x, y, wide, (0, 0)), wide)


def _told(sheet: Sheet, maps: ActivationMaps, target: str, x: float, y: float, wide: float) -> float:
    how = f"most relevant to {target}" if maps.ranked_by == "relevance" else "most active"
    return sheet.line(f"channels, the {how} first", x + wide, y, SMALL, colour=FAINT, align="right", width=wide)


def _tile(sheet: Sheet, pixels: Pixels, x: float, y: float, size: float, title: str, said: str) -> float:
    """A picture with two lines below it; where it ends."""
    high = size * pixels.shape[0] / pixels.shape[1]
    sheet.image(pixels, x, y, size, high)
    y += high + 0.03
    y += sheet.line(title, x, y, TEXT, width=size)
    return y + sheet.line(said, x, y, SMALL, colour=FAINT, width=size)


def _channel_tile(
    sheet: Sheet, found: InputActivations, maps: ActivationMaps, channel: int, x: float, y: float, size: float = _TILE
) -> float:
    """A channel's map with its number and its rank's value; where it ends."""
    pixels = _channel(found, maps, channel)
    high = size * pixels.shape[0] / pixels.shape[1]
    sheet.image(pixels, x, y, size, high)
    y += high + 0.02
    sheet.line(f"#{channel}", x, y, SMALL)
    return y + sheet.line(number(float(maps.ranking[channel])), x + size, y, SMALL, colour=QUIET, align="right")


def _summaries(maps: ActivationMaps) -> list[tuple[str, Pixels, str]]:
    """What a layer tells apart, its parts, where it is active: title, picture, and how much of the layer that is."""
    pca, variance = summary(maps.values, "pca")
    nmf, energy = summary(maps.values, "nmf")
    norm = maps.norm()
    return [
        ("what it tells apart (PCA)", _pixels(_by_range(pca)), f"{float(variance.sum()):.0%} of the variance"),
        ("its parts (NMF)", _pixels(_by_hue(nmf)), f"{float(energy.sum()):.0%} of the energy"),
        ("where it is active (length)", _mapped(norm), f"up to {number(float(norm.max()))}"),
    ]


def _by_range(three: Tensor) -> Tensor:
    """Three numbers a cell as red, green, blue: from the 2nd to the 98th percentile of each."""
    flat = three.flatten(1)
    low, high = torch.quantile(flat, torch.tensor([0.02, 0.98]), dim=1)
    scaled = ((flat - low[:, None]) / (high - low).clamp(min=1e-12)[:, None]).clamp(0, 1)
    colour: Tensor = 0.08 + 0.84 * scaled * (high > low).float()[:, None]
    return colour.reshape(three.shape)


def _by_hue(three: Tensor) -> Tensor:
    """Three amounts a cell as three hues on black, each from 0 to its 98th percentile."""
    flat = three.flatten(1)
    high = torch.quantile(flat, 0.98, dim=1).clamp(min=1e-12)
    return (_HUES.T @ (flat / high[:, None]).clamp(0, 1)).clamp(0, 1).reshape(three.shape)


def _pixels(colour: Tensor) -> Pixels:
    """Colours of cells `(3, *grid)` at a tile's size."""
    return rgb(_enlarged(colour))


def _mapped(values: Tensor) -> Pixels:
    """One number a cell, `(*grid)`, by the colour table."""
    shown = _enlarged(values[None].float())[0].numpy()
    signed = bool(shown.min() < 0)
    return np.rint(colours(shown, limits(shown, signed=signed), signed=signed) * 255).astype(np.uint8)


def _enlarged(values: Tensor) -> Tensor:
    """Maps `(C, h, w)` at a tile's size; of `(C, t, h, w)` some frames, one beside the other."""
    if values.ndim == 4:
        frames = [_enlarged(values[:, t]) for t in frames_at(values.shape[1], _FRAMES)]
        return torch.cat(frames, 2)
    scale = _SIZE / max(values.shape[-2:])
    size = tuple(max(1, round(n * scale)) for n in values.shape[-2:])
    shown: Tensor = Geometry.identity(size).to_source(values)
    return shown


def _channel(found: InputActivations, maps: ActivationMaps, channel: int) -> Pixels:
    """A channel's map over what the model saw; a clip's as a strip of frames."""
    values = maps.values[channel].float()
    if values.ndim != 2 or found.seen is None or min(values.shape) >= _FINE:
        return _mapped(values)
    ground = rgb(_enlarged(found.seen))
    shown = Geometry.identity(ground.shape[:2]).to_source(values).numpy()
    signed = bool(shown.min() < 0)
    return overlay(ground, shown, signed=signed, limits=limits(shown, signed=signed))
