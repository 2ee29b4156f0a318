"""The sheet of an activation atlas: made pictures at the left, the natural crops nearest to them at the right.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from pellucid.features.atlas import DrawnAtlas
from pellucid.render.features import crop
from pellucid.render.paper.rgb import rgb
from pellucid.render.paper.sheet import INK, QUIET, TRACK, Sheet

_MARGIN, _GAP, _SIDE, _THIN = 0.35, 0.4, 5.6, 0.025  # inches
_HEAD, _TITLE, _TEXT = 12.0, 8.6, 7.2  # points


def atlas_sheet(atlas: DrawnAtlas) -> Figure:
    """Two grids of the same cells; places that hold too few vectors are left blank."""
    sheet = Sheet(2 * _MARGIN + 2 * _SIDE + _GAP)
    wide = sheet.width - 2 * _MARGIN
    model = atlas.record.model_name
    y = _MARGIN + sheet.line(
        f"activation atlas of {atlas.layer}, {model}", _MARGIN, _MARGIN, _HEAD, bold=True, width=wide
    )
    said = f"{len(atlas.points)} activation vectors of {atlas.count} natural pictures, laid out by {atlas.projection}"
    y += sheet.line(said, _MARGIN, y, _TEXT, colour=QUIET, width=wide)
    y += sheet.paragraph(atlas.line, _MARGIN, y, wide, _TEXT, colour=QUIET)
    sheet.box(_MARGIN, y + 0.05, wide, 0.014, colour=INK)
    y += 0.16
    right = _MARGIN + _SIDE + _GAP
    sheet.line("made for the mean direction of each cell", _MARGIN, y, _TITLE, bold=True)
    below = y + 0.04 + sheet.line("the natural crop nearest to it", right, y, _TITLE, bold=True)
    rows, columns = atlas.size
    step = _SIDE / max(rows, columns)
    for x in (_MARGIN, right):
        sheet.box(x, below, columns * step, rows * step, colour=TRACK, alpha=0.5)
    for cell, picture in zip(atlas.cells, atlas.pictures, strict=True):
        row, column = cell.position
        top, left = below + row * step, column * step
        sheet.image(rgb(picture), _MARGIN + left, top, step - _THIN, step - _THIN)
        sheet.image(crop(cell.nearest, 128), right + left, top, step - _THIN, step - _THIN)
    return sheet.finish(below + rows * step + _MARGIN)
