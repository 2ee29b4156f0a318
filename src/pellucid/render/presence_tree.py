"""A tree of questions about which players are there, each beside its picture.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

from pellucid.importance.result import Answer
from pellucid.numerics.presence_tree import PresenceTree
from pellucid.render.paper.branches import BOX, DOWN, branches
from pellucid.render.paper.colour import number
from pellucid.render.paper.portraits import portrait
from pellucid.render.paper.sheet import PAPER, QUIET, TRACK, Column, Sheet, leading
from pellucid.render.paper.tiles import SMALL, TEXT, TITLE

_LEAF, _SIDE = 0.8, 0.5  # inches: a leaf's column at least, a player's picture


def tree_width(tree: PresenceTree) -> float:
    """Inches that it wants."""
    return _LEAF * tree.leaves


def draw_tree(sheet: Sheet, answer: Answer, tree: PresenceTree, at: Column) -> float:
    """The tree from the root down; where it ends."""
    y = (
        at.y
        + sheet.line(f"the score, by which {answer.features} are there", at.x, at.y, TITLE, bold=True, width=at.width)
        + 0.1
    )
    sides = list(zip(tree.away.tolist(), tree.there.tolist(), strict=True))
    places = branches(sheet, sides, at.down(y))
    for node, (x, top) in places.items():
        k = int(tree.player[node])
        if k < 0:
            _score(sheet, number(float(tree.value[node, 0])), f"{tree.share[node]:.0%}", x, top)
        else:
            _asked(sheet, answer, k, x, top)
    y = max(top for _, top in places.values()) + DOWN - BOX + 0.1
    told = "yes: it is there; no: it is out; the score, and the share of the samples that come there"
    return y + sheet.line(told, at.x, y, SMALL, colour=QUIET, width=at.width)


def _score(sheet: Sheet, value: str, share: str, x: float, y: float) -> None:
    height = leading(TEXT) + leading(SMALL) + 0.06
    sheet.box(x - _LEAF / 2 + 0.04, y, _LEAF - 0.08, height, colour=TRACK, alpha=0.5, under=True)
    sheet.line(value, x, y + 0.03, TEXT, bold=True, align="center")
    sheet.line(share, x, y + 0.03 + leading(TEXT), SMALL, colour=QUIET, align="center")


def _asked(sheet: Sheet, answer: Answer, k: int, x: float, y: float) -> None:
    wide = 1.15
    sheet.box(x - wide / 2 - 0.02, y, wide + 0.04, BOX, colour=TRACK, under=True)
    sheet.box(x - wide / 2, y + 0.02, wide, BOX - 0.04, colour=PAPER, under=True)
    image, top = portrait(answer.picture, answer.geometry, answer.pictures, k), y + 0.2
    if image is not None:
        sheet.fitted(image, x - _SIDE / 2, y + 0.05, _SIDE)
        top = y + _SIDE + 0.07
    sheet.heading(answer.names[k], x, top, wide - 0.06, SMALL, align="center")
