"""How much each player matters to the groups of many pictures: bars with intervals, a dot a picture, and examples.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from pellucid.importance.result import Answer, Share
from pellucid.render.paper.bars import Bars, Scale
from pellucid.render.paper.page import GAP, MARGIN, head
from pellucid.render.paper.sheet import FAINT, INK, QUIET, TRACK, WARNING, Column, Sheet
from pellucid.render.paper.tiles import SMALL, TEXT, TITLE

_SIDE, _COLUMN = 2.4, 6.6  # inches
_FIRST, _OTHERS, _GROUPS = 10, 6, 6  # players of the first section and of the others; groups


def draw_groups(answer: Answer) -> Figure:
    """The figure: at the left what was measured, then a section for all pictures, each group and the difference."""
    first, *groups = answer.shares
    several = [g for g in groups if g.count > 1] or groups[:2]  # of a single picture there is no interval
    sections = [(first, _FIRST), *((g, _OTHERS) for g in several[:_GROUPS])]
    if answer.difference is not None:
        sections.append((answer.difference, _OTHERS))
    columns = min(2, len(sections))
    start = MARGIN + _SIDE + GAP
    sheet = Sheet(start + columns * (_COLUMN + GAP) - GAP + MARGIN)
    bottoms = [MARGIN] * columns
    left = _about(sheet, answer, MARGIN)
    for share, most in sections:
        column = bottoms.index(min(bottoms))
        x = start + column * (_COLUMN + GAP)
        bottoms[column] = _section(sheet, answer, share, most, x, bottoms[column]) + 0.25
    return sheet.finish(max(left, *bottoms) - 0.25 + MARGIN)


def _section(sheet: Sheet, answer: Answer, share: Share, most: int, x: float, y: float) -> float:
    difference = share is answer.difference
    shown = share.ranking()[:most]
    examples = share.examples if not difference else answer.shares[0].examples
    aside = f"{share.count} picture{'s' * (share.count != 1)}"
    y = head(sheet, share.group, aside, Column(x, y, _COLUMN, (1.0, 1.0)), _COLUMN)
    swarm = Scale.over(share, shown, single=True) if share.single is not None and share.count > 1 else None
    images = [examples.get(k) for k in shown]
    return Bars(answer.names, share, shown, images).draw(sheet, Column(x, y, _COLUMN), Scale.over(share, shown), swarm)


def _about(sheet: Sheet, answer: Answer, y: float) -> float:
    """What was measured on what, and how the figure reads; where it ends."""
    y = head(sheet, answer.name, "", Column(MARGIN, y, _SIDE, (1.0, 1.0)), _SIDE)
    y += sheet.line(answer.record.model_name, MARGIN, y, TITLE, bold=True, width=_SIDE)
    what = f"{answer.features} by {answer.by}" + (f", layer {answer.layer}" if answer.layer else "")
    y += sheet.paragraph(f"{what}, for {answer.target}", MARGIN, y, _SIDE, TEXT, colour=QUIET)
    y += 0.12
    groups = answer.shares[1:] or answer.shares
    most = max(s.count for s in groups)
    for share in groups[: 2 * _GROUPS]:
        sheet.line(str(share.count), MARGIN + _SIDE, y, TEXT, colour=QUIET, align="right")
        y += 0.015 + sheet.line(share.group, MARGIN, y, TEXT, width=_SIDE - 0.5)
        sheet.box(MARGIN, y, _SIDE, 0.035, colour=TRACK)
        sheet.box(MARGIN, y, _SIDE * share.count / most, 0.035, colour=INK)
        y += 0.09
    if len(groups) > 2 * _GROUPS:
        y += sheet.line(f"and {len(groups) - 2 * _GROUPS} more groups, in the table", MARGIN, y, SMALL, colour=FAINT)
    y += 0.1
    for text in (
        "bars: the mean over the pictures; lines: its 95 % interval",
        "dots: single pictures; the tick among them: the mean",
        "small pictures: where in the group the player matters most",
    ):
        y += sheet.paragraph(text, MARGIN, y, _SIDE, SMALL, colour=FAINT) + 0.03
    for note in answer.notes:
        sheet.line("⚠", MARGIN, y + 0.05, TEXT, colour=WARNING)
        y += 0.05 + sheet.paragraph(note, MARGIN + 0.15, y + 0.05, _SIDE - 0.15, TEXT, colour=WARNING, rows=9)
    return y
