"""The concept sheet: a card for each concept, with what it looks like, where it is, and what it does to the answer.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

from math import isfinite

import numpy as np
from matplotlib.figure import Figure

from pellucid.concepts.bank import Bank
from pellucid.language import counted
from pellucid.render.concept_tiles import ConceptTile, exemplars
from pellucid.render.paper.colour import number
from pellucid.render.paper.page import GAP, MARGIN, head
from pellucid.render.paper.sheet import (
    AGAINST,
    FAINT,
    FOR,
    INK,
    QUIET,
    TRACK,
    WARNING,
    Column,
    Sheet,
    leading,
    text_width,
)
from pellucid.render.paper.tiles import SMALL, TEXT, TITLE

_CARD = 6.3  # inches wide
_TILE = 0.95  # side of a crop
_STEP = 1.01
_BAR = 0.085  # height of the importance bar
_BETWEEN = 0.3  # cards


def draw(bank: Bank, title: str, *, top: int = 12, pictures: int = 6) -> Figure:
    """The leading concepts of a bank on one sheet, two cards a row.

    Args:
        bank: the concepts.
        title: what they were found in.
        top: concepts shown, the most important first.
        pictures: exemplars of each, at most.
    """
    chosen = bank.ranking()[:top]
    columns = 2 if len(chosen) > 1 else 1
    width = 2 * MARGIN + columns * _CARD + (columns - 1) * GAP
    sheet = Sheet(width)
    y = _top(sheet, bank, title, Column(MARGIN, MARGIN, width - 2 * MARGIN, (0, 0)), len(chosen))
    reach = _reach(bank, chosen)
    for start in range(0, len(chosen), columns):
        row = chosen[start : start + columns]
        ends = [
            _card(sheet, bank, k, start + i + 1, Column(MARGIN + i * (_CARD + GAP), y, _CARD, (0, 0)), reach, pictures)
            for i, k in enumerate(row)
        ]
        y = max(ends) + _BETWEEN
    return sheet.finish(y - _BETWEEN + MARGIN)


def _top(sheet: Sheet, bank: Bank, title: str, at: Column, shown: int) -> float:
    """The title, the figures that stand for the whole beside their random counterparts, the notes; where they end."""
    y = head(sheet, title, "", at, at.width)
    about = what(bank)
    if shown < len(bank):
        about += f"; the {shown} most important are shown"
    y += sheet.line(about, at.x, y, TEXT, colour=QUIET, width=at.width)
    for text in summary(bank):
        y += sheet.line(text, at.x, y, TEXT, colour=INK, width=at.width)
    for note in bank.notes:
        sheet.line("⚠", at.x, y + 0.03, TEXT, colour=WARNING)
        y += 0.03 + sheet.paragraph(note, at.x + 0.15, y + 0.03, at.width - 0.15, TEXT, colour=WARNING)
    return y + 0.16


def what(bank: Bank) -> str:
    """How many concepts, how they were found, and where."""
    where = f"layer {bank.layer} ({bank.layout})"
    return f"{counted(len(bank), 'concept')} by {bank.dictionary.name} in {bank.count} pictures, {where}"


def summary(bank: Bank) -> list[str]:
    """How the concepts do beside as many random directions, in two lines at most."""
    ours, chance = bank.standing, bank.random

    def beside(field: str) -> tuple[str, str]:
        return _percent(getattr(ours, field)), _percent(getattr(chance, field))

    (layer, no_layer), (answers, no_answers), (scores, no_scores) = map(beside, ("r2", "agreement", "score_r2"))
    kept = [
        f"explained of the layer: {layer} (random directions {no_layer})" if isfinite(ours.r2) else "",
        f"answers kept by the concepts alone: {answers} (random directions {no_answers})"
        if isfinite(ours.agreement)
        else "",
        f"of the scores: {scores} (random directions {no_scores})" if isfinite(ours.score_r2) else "",
    ]
    right = ""
    if isfinite(ours.accuracy):
        right = (
            f"right answers: {_percent(bank.untouched)} untouched, {_percent(ours.accuracy)} from the concepts alone, "
            f"{_percent(chance.accuracy)} from random directions"
        )
    return [line for line in (" · ".join(filter(None, kept)), right) if line]


def _percent(share: float) -> str:
    return f"{max(share, 0):.0%}" if isfinite(share) else "unknown"


def _reach(bank: Bank, chosen: list[int]) -> float:
    """The largest end of an interval among the concepts shown: one scale for all bars."""
    if bank.whole is None:
        return 0.0
    ends = np.abs(np.stack([bank.whole.values, bank.whole.low, bank.whole.high])[:, chosen])
    return float(np.nanmax(ends)) or 1.0


def _card(sheet: Sheet, bank: Bank, k: int, rank: int, at: Column, reach: float, pictures: int) -> float:
    """One concept; where it ends."""
    sheet.line(f"{rank}", at.x, at.y, TITLE, bold=True, colour=FAINT)
    name = bank.names[k] or f"concept {k}"
    told = facts(bank, k)
    sheet.line(name, at.x + 0.24, at.y, TITLE, bold=True, width=at.width - 0.34 - text_width(told, SMALL))
    sheet.line(told, at.x + at.width, at.y + 0.015, SMALL, colour=QUIET, align="right")
    y = at.y + leading(TITLE) + 0.03
    if bank.names[k]:
        y += sheet.line(f"concept {k}, {bank.named_by[k]}", at.x + 0.24, y - 0.03, SMALL, colour=FAINT)
    if bank.whole is not None:
        y = _bar(sheet, bank, k, at.down(y), reach)
    found = list(exemplars(bank, k, pictures))
    if not found:
        text = "No picture at hand shows it." if bank.shown else "It is in no picture."
        return y + sheet.line(text, at.x + 0.24, y, TEXT, colour=WARNING)
    return _pictures(sheet, found, at.down(y))


def facts(bank: Bank, k: int) -> str:
    """Prevalence, stability and monosemanticity of a concept, in one line."""
    parts = [f"in {bank.prevalence[k]:.0%} of the pictures"]
    if len(bank.stability):
        parts.append(f"found again {bank.stability[k]:.2f}")
    if isfinite(bank.monosemanticity[k]):
        alike, chance = (round(float(v), 2) + 0.0 for v in (bank.monosemanticity[k], bank.random.monosemanticity))
        parts.append(f"alike {alike:.2f} (random {chance:.2f})")
    return " · ".join(parts)


def _bar(sheet: Sheet, bank: Bank, k: int, at: Column, reach: float) -> float:
    """What it adds to the score of each picture's own answer, with its interval; and for which class most."""
    whole = bank.whole
    assert whole is not None
    value, low, high = (float(a[k]) for a in (whole.values, whole.low, whole.high))
    ends = _extent(bank)
    left, span = at.x + 0.24, 2.1
    inch = span / ((ends[1] - ends[0]) * reach)
    zero = left - ends[0] * reach * inch
    y = at.y + 0.02
    sheet.box(left, y, span, _BAR, colour=TRACK)
    sheet.box(zero + min(0.0, value) * inch, y, abs(value) * inch, _BAR, colour=FOR if value > 0 else AGAINST)
    if isfinite(low):
        sheet.box(zero + low * inch, y + _BAR / 2 - 0.007, max((high - low) * inch, 0.01), 0.014, colour=INK)
    sheet.box(zero - 0.005, y - 0.02, 0.01, _BAR + 0.04, colour=INK)
    text = f"{'+' if value > 0 else ''}{number(value)}"
    text += f" [{number(low)}, {number(high)}]" if isfinite(low) else ""
    most = leading_groups(bank, k)
    text += f" · most for {most}" if most else ""
    sheet.line(text, left + span + 0.1, y - 0.03, SMALL, colour=INK, width=at.width - span - 0.36)
    return y + _BAR + 0.09


def _extent(bank: Bank) -> tuple[float, float]:
    """Whether the scale has a negative half."""
    assert bank.whole is not None
    return (-1.0, 1.0) if np.nanmin(bank.whole.low) < 0 and np.min(bank.whole.values) < 0 else (0.0, 1.0)


def leading_groups(bank: Bank, k: int, count: int = 2) -> str:
    """The classes whose score a concept raises most, with the mean: only those whose interval is above zero."""
    known = [g for g in bank.groups if g.low[k] > 0]
    known.sort(key=lambda g: -g.values[k])
    return ", ".join(f"{g.name} +{number(float(g.values[k]))}" for g in known[:count])


def _pictures(sheet: Sheet, found: list[ConceptTile], at: Column) -> float:
    """Crops in a row, each over its whole picture with the concept's map; where they end."""
    left = at.x + 0.24
    tall = max(e.whole.shape[0] / e.whole.shape[1] for e in found)
    room = min(tall, 1.0) * _TILE
    for i, e in enumerate(found):
        x = left + i * _STEP
        sheet.image(e.crop, x, at.y, _TILE, _TILE)
        height, width = e.whole.shape[:2]
        scale = min(_TILE / width, room / height)
        below = at.y + _TILE + 0.05
        sheet.image(e.whole, x + (_TILE - width * scale) / 2, below, width * scale, height * scale)
        sheet.line(e.answer, x, below + room + 0.02, SMALL, colour=FAINT, width=_TILE)
    end: float = at.y + _TILE + 0.07 + room + leading(SMALL)
    return end
