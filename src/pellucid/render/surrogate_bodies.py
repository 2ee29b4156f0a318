"""The body of each kind of readable model on its sheet: a tree, bars, curves, rules, prototypes, a hierarchy.

Only imported when a figure is drawn, since it imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pellucid.interpretable.additive import Additive
from pellucid.interpretable.bcos import BcosHead
from pellucid.interpretable.distilled import Surrogate
from pellucid.interpretable.examples import Neighbours, Prototypes
from pellucid.interpretable.hierarchy import Hierarchy
from pellucid.interpretable.linear import SparseLinear
from pellucid.interpretable.rules import Rules
from pellucid.interpretable.tree import Node, Tree
from pellucid.render.paper.branches import BOX, branches
from pellucid.render.paper.colour import number
from pellucid.render.paper.sheet import AGAINST, FAINT, FOR, INK, PAPER, QUIET, TRACK, Column, Sheet, leading
from pellucid.render.paper.tiles import SMALL, TEXT, TITLE

Pixels = NDArray[np.uint8]
Words = Mapping[int, Sequence[Pixels]]
Picture = Callable[[int], Pixels]
_LEAF, _CROP = 0.86, 0.4  # inches: a leaf's column, a crop
_CLASSES, _BARS = 12, 6  # shown at most


def body_width(s: Surrogate) -> float:
    """Inches that the body wants."""
    if isinstance(s.head, Tree):
        return max(9.4, _LEAF * s.head.complexity_)
    return 9.4


def body(sheet: Sheet, s: Surrogate, words: Words, picture: Picture, path: Sequence[int], at: Column) -> float:
    """Draw the model; where it ends."""
    head = s.head
    if isinstance(head, Tree):
        return _tree(sheet, s, head, words, picture, path, at)
    if isinstance(head, SparseLinear | BcosHead):
        return _bars(sheet, s, _contributions(s), words, at)
    if isinstance(head, Rules):
        return _rules(sheet, head, words, at)
    if isinstance(head, Additive):
        return _curves(sheet, head, words, at)
    if isinstance(head, Prototypes | Neighbours):
        return _examples(sheet, s, head, picture, at)
    assert isinstance(head, Hierarchy)
    return _hierarchy(sheet, s, head, picture, at)


def _tree(
    sheet: Sheet, s: Surrogate, tree: Tree, words: Words, picture: Picture, path: Sequence[int], at: Column
) -> float:
    nodes = tree.nodes()
    places = branches(sheet, [(n.left, n.right) for n in nodes], at, path=path)
    column, reached = at.width / tree.complexity_, tree.leaves(s.X)
    for n in nodes:
        x, y = places[n.index]
        if n.feature < 0:
            inside = [int(i) for i in np.flatnonzero(reached == n.index)]
            _leaf(sheet, s, n, inside, picture, Column(x, y, column, (column, column)), n.index in path)
        else:
            _question(sheet, tree, n, words.get(n.feature, ()), x, y, n.index in path)
    return max(y for _, y in places.values()) + 1.5


def _question(sheet: Sheet, tree: Tree, n: Node, crops: Sequence[Pixels], x: float, y: float, bold: bool) -> None:
    shown = list(crops[:3])
    wide = max(len(shown) * (_CROP + 0.03), 1.15)
    sheet.box(
        x - wide / 2 - 0.04, y, wide + 0.08, BOX, colour=FOR if bold else TRACK, name=f"node-{n.index}", under=True
    )
    sheet.box(x - wide / 2 - 0.02, y + 0.02, wide + 0.04, BOX - 0.04, colour=PAPER, under=True)
    start = x - len(shown) * (_CROP + 0.03) / 2
    for k, crop in enumerate(shown):
        sheet.image(crop, start + k * (_CROP + 0.03), y + 0.05, _CROP, _CROP)
    top = y + (0.5 if shown else 0.2)
    sheet.heading(f"{tree.question(n.index)}?", x, top, wide, SMALL, align="center")


def _leaf(sheet: Sheet, s: Surrogate, n: Node, inside: Sequence[int], picture: Picture, at: Column, bold: bool) -> None:
    k = int(n.probabilities.argmax())
    wide = min(at.width - 0.06, 0.9)
    sheet.box(
        at.x - wide / 2, at.y, wide, 1.36, colour=FOR if bold else TRACK, alpha=0.5, name=f"node-{n.index}", under=True
    )
    y = at.y + 0.04
    sheet.line(s.labels[k], at.x, y, TEXT, bold=True, align="center", width=wide - 0.04)
    y += leading(TEXT)
    sheet.line(f"{n.probabilities[k]:.0%}", at.x, y, SMALL, align="center")
    y += leading(SMALL)
    sheet.line(f"{n.share:.0%} of all", at.x, y, SMALL, colour=QUIET, align="center")
    y += leading(SMALL) + 0.03
    size = (wide - 0.1) / 2
    order = sorted(inside, key=lambda i: (-s.answers[i, k], i))
    for j, i in enumerate(order[:4]):
        sheet.image(picture(i), at.x - size - 0.01 + (j % 2) * (size + 0.02), y + (j // 2) * (size + 0.02), size, size)


def _contributions(s: Surrogate) -> NDArray[np.float64]:
    """How strongly each word speaks for each class, `(d, K)`: weights, or mean contributions where these vary."""
    if isinstance(s.head, SparseLinear):
        return s.head.weights_
    assert isinstance(s.head, BcosHead)
    W, Z = s.head.matrix(s.X[: min(len(s.X), 512)])
    mean: NDArray[np.float64] = np.einsum("nkd,nd->ndk", W, Z).mean(0)
    return mean


def _bars(sheet: Sheet, s: Surrogate, weights: NDArray[np.float64], words: Words, at: Column) -> float:
    """For each class its strongest words as signed bars beside what they are about; where they end."""
    largest = float(np.abs(weights).max()) or 1.0
    columns, gap = 2, 0.35
    wide = (at.width - gap) / columns
    bottoms = [at.y] * columns
    for k in _classes(s)[:_CLASSES]:
        c = int(np.argmin(bottoms))
        x, y = at.x + c * (wide + gap), bottoms[c]
        y += sheet.line(s.labels[k], x, y, TITLE, bold=True, width=wide) + 0.03
        order = [int(j) for j in np.argsort(-np.abs(weights[:, k]), kind="stable")[:_BARS] if weights[j, k] != 0]
        for j in order:
            y = _bar(
                sheet, s.words.names[j], float(weights[j, k]), largest, words.get(j, ()), Column(x, y, wide, (0, 0))
            )
        used = int(np.count_nonzero(weights[:, k]))
        if used > len(order):
            y += sheet.line(f"and {used - len(order)} smaller", x, y, SMALL, colour=FAINT)
        bottoms[c] = y + 0.16
    y = max(bottoms)
    if len(s.labels) > _CLASSES:
        y += sheet.line(f"and {len(s.labels) - _CLASSES} more classes", at.x, y, SMALL, colour=FAINT)
    what = "weights of words in standard deviations" if isinstance(s.head, SparseLinear) else "mean contributions"
    return y + sheet.line(f"{what}; red speaks for the class, blue against it", at.x, y, SMALL, colour=FAINT)


def _bar(sheet: Sheet, name: str, value: float, largest: float, crops: Sequence[Pixels], at: Column) -> float:
    size, tall = 0.34, 0.36 if crops else 0.19
    shown = list(crops[:3])
    for n, crop in enumerate(shown):
        sheet.image(crop, at.x + n * (size + 0.02), at.y, size, size)
    label = at.x + len(shown) * (size + 0.02) + 0.05 * bool(shown)
    sheet.line(name, label, at.y + (tall - leading(TEXT)) / 2, TEXT, width=1.35)
    start, end = label + 1.4, at.x + at.width - 0.45
    zero = (start + end) / 2
    reach = (end - start) / 2 * abs(value) / largest
    y = at.y + (tall - 0.1) / 2
    sheet.box(zero - 0.004, at.y, 0.008, tall, colour=FAINT)
    sheet.box(zero - reach * (value < 0), y, reach, 0.1, colour=FOR if value > 0 else AGAINST)
    top = at.y + (tall - leading(TEXT)) / 2
    sheet.line(number(value), at.x + at.width, top, TEXT, colour=FOR if value > 0 else AGAINST, align="right")
    return at.y + tall + 0.03


def _classes(s: Surrogate) -> list[int]:
    """Classes, those most often answered first."""
    counts = np.bincount(s.answers.argmax(1), minlength=len(s.labels))
    return [int(k) for k in np.argsort(-counts, kind="stable")]


def _rules(sheet: Sheet, rules: Rules, words: Words, at: Column) -> float:
    y = at.y
    for r, value in enumerate(rules.value_):
        k = int(value.argmax())
        last = r == len(rules.rules_)
        word = "else" if last else ("if" if r == 0 else "else if")
        sheet.line(word, at.x, y + 0.1, TEXT, colour=QUIET)
        x = at.x + 0.5
        for c in [] if last else rules.rules_[r]:
            crops = list(words.get(c.feature, ()))[:2]
            for crop in crops:
                sheet.image(crop, x, y, 0.36, 0.36)
                x += 0.38
            sign = ">" if c.above else "≤"
            sheet.line(rules.names_[c.feature], x + 0.03, y + 0.03, TEXT, bold=True, width=1.2)
            sheet.line(f"{sign} {number(c.threshold)}", x + 0.03, y + 0.18, TEXT, width=1.2)
            x += 1.3
        end = at.x + at.width
        sheet.line(str(rules.classes_[k]), end - 1.05, y + 0.03, TITLE, bold=True, align="right", width=2.2)
        sheet.line(f"{value[k]:.0%}", end - 0.6, y + 0.05, TEXT, align="right")
        sheet.line(f"{rules.share_[r]:.0%} of all", end, y + 0.05, SMALL, colour=QUIET, align="right")
        y += 0.46
        sheet.box(at.x, y - 0.05, at.width, 0.006, colour=TRACK)
    return y


def _curves(sheet: Sheet, model: Additive, words: Words, at: Column) -> float:
    columns, gap, tall = 3, 0.3, 1.0
    wide = (at.width - gap * (columns - 1)) / columns
    y = at.y
    for t, j in enumerate(model.columns_):
        c = t % columns
        if t and c == 0:
            y += tall + 0.67
        x = at.x + c * (wide + gap)
        _curve(sheet, model, t, list(words.get(int(j), ())), Column(x, y, wide, (wide, tall)))
    return y + tall + 0.62


def _curve(sheet: Sheet, model: Additive, term: int, crops: Sequence[Pixels], at: Column) -> None:
    cuts, steps = model.curve(term)
    sheet.line(model.names_[model.columns_[term]], at.x, at.y, TEXT, bold=True, width=at.width - 0.8)
    for n, crop in enumerate(crops[:2]):
        sheet.image(crop, at.x + at.width - (n + 1) * 0.3, at.y - 0.05, 0.28, 0.28)
    moved = np.argsort(-(steps.max(0) - steps.min(0)), kind="stable")[:2]
    low, high = float(steps[:, moved].min()), float(steps[:, moved].max())
    span = (high - low) or 1.0
    top, tall, wide = at.y + 0.26, at.picture[1], at.width
    edges = np.concatenate([[2 * cuts[0] - cuts[-1] if len(cuts) > 1 else cuts[0] - 1], cuts]) if len(cuts) else [0.0]
    ends = np.concatenate([cuts, [2 * cuts[-1] - cuts[0] if len(cuts) > 1 else cuts[0] + 1]]) if len(cuts) else [1.0]
    reach = (float(ends[-1]) - float(edges[0])) or 1.0

    def place(value: float, height: float) -> tuple[float, float]:
        return at.x + wide * (value - float(edges[0])) / reach, top + tall * (1 - (height - low) / span)

    if low < 0 < high:
        sheet.box(at.x, place(0, 0)[1], wide, 0.006, colour=FAINT)
    for n, k in enumerate(moved):
        points = []
        for a, b, h in zip(edges, ends, steps[:, k], strict=True):
            points += [place(float(a), float(h)), place(float(b), float(h))]
        colour = FOR if n == 0 else AGAINST
        sheet.stroke(points, colour=colour, width=1.4)
        across = at.x if n == 0 else at.x + wide
        label = str(model.classes_[k])
        align = "left" if n == 0 else "right"
        sheet.line(label, across, top + tall + 0.03, SMALL, colour=colour, align=align, width=wide / 2)  # type: ignore[arg-type]
    sheet.line(f"{number(low)} to {number(high)}", at.x, top + tall + 0.03 + leading(SMALL), SMALL, colour=FAINT)


def _examples(sheet: Sheet, s: Surrogate, model: Prototypes | Neighbours, picture: Picture, at: Column) -> float:
    size, y = 0.72, at.y
    most = int((at.width - 1.6) // (size + 0.05))
    train = np.flatnonzero(s.learned_from)
    for k in _classes(s)[:_CLASSES]:
        mine = [int(train[model.index_[i]]) for i in np.flatnonzero(model.answers_.argmax(1) == k)]
        sheet.line(s.labels[k], at.x, y + size / 2 - 0.08, TITLE, bold=True, width=1.5)
        for n, i in enumerate(mine[:most]):
            sheet.image(picture(i), at.x + 1.6 + n * (size + 0.05), y, size, size)
        y += size + 0.08
    return y


def _hierarchy(sheet: Sheet, s: Surrogate, model: Hierarchy, picture: Picture, at: Column) -> float:
    K = len(model.weights_)
    order = model.members_[-1]
    row = min(0.45, max(0.16, 9.0 / K))
    deep = _depths(model)
    step = (at.width - 2.4) / max(deep.values(), default=1)
    places: dict[int, tuple[float, float]] = {}
    for n, k in enumerate(order):
        places[k] = (at.x + at.width - 2.3, at.y + (n + 0.5) * row)
    best = s.answers.argmax(1)
    for node in range(K, 2 * K - 1):
        pair = [int(c) for c in model.children_[node - K]]
        y = float(np.mean([places[c][1] for c in pair]))
        x = at.x + step * (max(deep.values()) - deep[node])
        places[node] = (x, y)
        for child in pair:
            cx, cy = places[child]
            sheet.stroke([(x, y), (x, cy), (cx, cy)], colour=FAINT, width=1.1)
    for k in range(K):
        x, y = places[k]
        mine = np.flatnonzero(best == k)
        if row >= 0.3 and len(mine):
            top = mine[np.argsort(-s.answers[mine, k], kind="stable")[:2]]
            for n, i in enumerate(top):
                sheet.image(picture(int(i)), x + 0.05 + n * (row - 0.02), y - row / 2 + 0.02, row - 0.04, row - 0.04)
            x += 2 * row
        sheet.line(s.labels[k], x + 0.1, y - 0.07, TEXT, colour=INK, width=at.x + at.width - x - 0.1)
    sheet.line("large groups at the left, single classes at the right", at.x, at.y + K * row + 0.1, SMALL, colour=FAINT)
    return at.y + K * row + 0.3


def _depths(model: Hierarchy) -> dict[int, int]:
    """How many joins lie under each group."""
    K = len(model.weights_)
    depth = dict.fromkeys(range(K), 0)
    for node in range(K, 2 * K - 1):
        a, b = (int(c) for c in model.children_[node - K])
        depth[node] = 1 + max(depth[a], depth[b])
    return depth
