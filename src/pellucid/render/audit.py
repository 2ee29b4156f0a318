"""An audit on one sheet: what it says in words, and how sure the model is beside how often it is right.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from pellucid.audit.findings import Findings
from pellucid.audit.review import Calibration
from pellucid.render.paper.page import GAP, MARGIN, head
from pellucid.render.paper.sheet import FAINT, FOR, INK, QUIET, WARNING, Column, Sheet, leading
from pellucid.render.paper.tiles import SMALL, TEXT

_WIDE, _SIDE = 7.0, 2.4  # inches: the words, the curve


def draw(found: Findings, title: str) -> Figure:
    """The sheet of an audit."""
    return draw_lines(title, list(found.lines()), found.notes, found.review.calibration)


def draw_lines(title: str, lines: Sequence[str], notes: Sequence[str], calibrated: Calibration | None) -> Figure:
    """A sheet of sentences, with the curve beside them where there is one."""
    sheet = Sheet(2 * MARGIN + _WIDE + (GAP + 0.5 + _SIDE if calibrated else 0))
    y = head(sheet, title, "", Column(MARGIN, MARGIN, _WIDE, (0, 0)), _WIDE)
    for line in lines:
        y += 0.04 + sheet.paragraph(line, MARGIN, y, _WIDE, TEXT, colour=INK)
    for note in notes:
        y += 0.04 + sheet.paragraph(note, MARGIN, y, _WIDE, TEXT, colour=WARNING)
    low = reliability(sheet, calibrated, MARGIN + _WIDE + GAP, MARGIN) if calibrated else y
    return sheet.finish(max(y, low) + MARGIN)


def reliability(sheet: Sheet, c: Calibration, x: float, y: float) -> float:
    """Accuracy against confidence, a dot as large as its bin has pictures; where it ends."""
    left, top = x + 0.5, y + 0.1
    sheet.stroke([(left, top + _SIDE), (left + _SIDE, top)], colour=FAINT)
    for value in (0.0, 0.5, 1.0):
        height = top + _SIDE * (1 - value) - leading(SMALL) / 2
        sheet.line(f"{value:.0%}", left - 0.06, height, SMALL, colour=QUIET, align="right")
        across = left + _SIDE * value
        sheet.line(f"{value:.0%}", across, top + _SIDE + 0.05, SMALL, colour=QUIET, align="right" if value else "left")
    most = max(n for *_, n in c.bins)
    for sure, right, n in c.bins:
        size = 0.05 + 0.12 * (n / most) ** 0.5
        sheet.dots([left + _SIDE * sure], [top + _SIDE * (1 - right)], size, colour=FOR, alpha=0.8)
    y = top + _SIDE + 0.05 + leading(SMALL)
    return y + sheet.line("how sure (across), how often right (up)", left, y, SMALL, colour=INK, width=_SIDE)
