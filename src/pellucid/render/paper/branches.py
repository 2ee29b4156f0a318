"""Where the nodes of a binary tree lie on a sheet, and the lines between them.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pellucid.render.paper.sheet import FAINT, FOR, QUIET, Column, Sheet
from pellucid.render.paper.tiles import SMALL

DOWN, BOX = 1.32, 0.86  # inches: a level of the tree, the height of a question


def branches(
    sheet: Sheet, sides: Sequence[tuple[int, int]], at: Column, *, path: Collection[int] = ()
) -> dict[int, tuple[float, float]]:
    """Draw the lines of a tree of yes-or-no questions: where each node's middle and top are, in inches.

    Args:
        sheet: to draw on.
        sides: of each node its child for no, and its child for yes; -1 for a leaf. The root is node 0.
        at: where the tree begins, and how wide it is.
        path: nodes whose way is drawn strong.
    """
    places: dict[int, tuple[float, float]] = {}
    column = at.width / sum(no < 0 for no, _ in sides)
    leaves = 0

    def place(node: int, depth: int) -> float:
        nonlocal leaves
        no, yes = sides[node]
        if no < 0:
            x = at.x + (leaves + 0.5) * column
            leaves += 1
        else:
            x = (place(no, depth + 1) + place(yes, depth + 1)) / 2
        places[node] = x, at.y + DOWN * depth
        return x

    place(0, 0)
    for node, (x, y) in places.items():
        for child, word in zip(sides[node], ("no", "yes"), strict=True):
            if child < 0:
                continue
            below, top = places[child]
            bold = child in path
            points = [(x, y + BOX), (below, y + BOX + 0.26), (below, top)]
            sheet.stroke(points, colour=FOR if bold else FAINT, width=2.4 if bold else 1.0, name=f"edge-{child}")
            sheet.line(word, below + 0.03, top - 0.16, SMALL, colour=QUIET)
    return places
