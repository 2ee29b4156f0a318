"""Tests of concepts, drawn: each effect as a bar from zero, over the band in which it would not have been found.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from pellucid.concepts.tcav import Tested
from pellucid.render.paper.bars import Scale, row_height
from pellucid.render.paper.colour import number
from pellucid.render.paper.page import MARGIN
from pellucid.render.paper.sheet import AGAINST, FAINT, FOR, INK, QUIET, TRACK, WARNING, Sheet, leading, text_width
from pellucid.render.paper.tiles import SMALL, TEXT, TITLE

_WIDTH, _NAME, _BAR, _SAID = 9.0, 2.6, 0.15, 2.5  # inches


def draw(tests: Sequence[Tested], layer: str, level: float, model: str) -> Figure:
    """A row a test, the classes one after the other."""
    sheet = Sheet(_WIDTH + 2 * MARGIN)
    y = MARGIN + sheet.line(f"Does {model} use these concepts?", MARGIN, MARGIN, TITLE, bold=True, width=_WIDTH)
    told = f"how much the score rises by one step towards the concept in {layer}; significant at {level:g} of all tests"
    y += sheet.line(told, MARGIN, y, SMALL, colour=QUIET, width=_WIDTH) + 0.1
    names = [f"{t.concept} for {t.target}" for t in tests]
    name = min(_NAME, max(text_width(n, TEXT, bold=True) for n in names) + 0.1)
    start, width = MARGIN + name, _WIDTH - name - _SAID
    reach = max(max(abs(t.effect), t.detectable) for t in tests) or 1.0
    scale = Scale(-reach, reach)
    for called, t in zip(names, tests, strict=True):
        middle = y + row_height() / 2
        line = middle - leading(TEXT) / 2
        ink = INK if t.significant else QUIET
        sheet.line(called, MARGIN, line, TEXT, bold=t.significant, colour=ink, width=name - 0.05)
        low, high = (scale.place(v, start, width) for v in (-t.detectable, t.detectable))
        sheet.box(low, middle - 0.13, high - low, 0.26, colour=TRACK, alpha=0.7)
        zero, tip = scale.place(0.0, start, width), scale.place(t.effect, start, width)
        colour = FOR if t.effect > 0 else AGAINST
        sheet.box(
            min(zero, tip),
            middle - _BAR / 2,
            abs(tip - zero),
            _BAR,
            colour=colour,
            alpha=1.0 if t.significant else 0.35,
        )
        said = f"{number(t.effect)}, p {t.adjusted:.2g}, rises in {t.score:.0%} of {t.looked}"
        sheet.line(said, start + width + 0.1, line, TEXT, colour=ink, width=_SAID - 0.1)
        y += row_height()
    sheet.box(
        scale.place(0.0, start, width) - 0.005,
        y - row_height() * len(tests),
        0.01,
        row_height() * len(tests),
        colour=FAINT,
    )
    legend = "grey: effects that would be missed more often than one time in five; pale: not significant"
    y += 0.04 + sheet.line(legend, MARGIN, y + 0.04, SMALL, colour=FAINT, width=_WIDTH)
    for note in dict.fromkeys(f"{t.concept}: {note}" for t in tests for note in t.notes):
        sheet.line("⚠", MARGIN, y + 0.05, TEXT, colour=WARNING)
        y += 0.05 + sheet.paragraph(note, MARGIN + 0.15, y + 0.05, _WIDTH - 0.15, TEXT, colour=WARNING, rows=3)
    return sheet.finish(y + MARGIN)
