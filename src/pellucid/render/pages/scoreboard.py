"""A scoreboard as a card: who to take, the table, the curves with their bands, maps side by side, what was asked."""

from __future__ import annotations

import math
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pellucid.evaluation.scores import ScoreData
from pellucid.render.pages.card import Card
from pellucid.render.pages.page import folded, paragraph, picture, spoken
from pellucid.render.pages.provenance import drawer
from pellucid.render.paper.colour import limits, number
from pellucid.render.paper.overlay import overlay

_SHOWN = 16  # inputs whose maps are shown
_WIDE, _HIGH = 220, 110
_CURVES = (
    "Probability as pixels are hidden: the most relevant first (red), the least relevant first (blue), with 95 % "
    "intervals."
)
_TABLE = "Means over the inputs with half of their 95 % intervals; the darker a cell, the better the mean rank."


def scoreboard_card(found: ScoreData, *, file: str = "") -> Card:
    """A scoreboard as a part of a page.

    Args:
        found: by the evaluation.
        file: where it is saved, if it is.
    """
    lines = list(found.lines())
    parts = [paragraph(line) for line in lines] + [paragraph(note, warn=True) for note in found.notes]
    parts += [_table(found), f'<p class="facts">{spoken(_TABLE)}</p>']
    if found.curves.shape[-1]:
        plots = "".join(_plot(found, c) for c in found.order)
        parts.append(f'<div class="curves">{plots}</div><p class="facts">{spoken(_CURVES)}</p>')
    parts += [_maps(found, n) for n in range(min(len(found.samples), _SHOWN))]
    if found.said:
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in found.said)
        parts.append(folded("What could not be measured", f"<table>{rows}</table>"))
    parts.append(folded("The metrics", _metrics(found)))
    parts.append(drawer(found.record, file))
    best = found.recommended
    verdict = "" if best is None else best.name or "none"
    return Card(found.title, lines[0] if lines else "", "".join(parts), verdict, bool(best and best.name))


def _table(found: ScoreData) -> str:
    """Metrics down, methods across, best first."""
    order = found.order
    standings = {s.name: s for s in found.rank().standings}
    head = "".join(f'<th scope="col"><strong>{spoken(found.methods[c])}</strong></th>' for c in order)
    rows = []
    ranks = "".join(f"<td>{_number(standings[found.methods[c]].rank)}</td>" for c in order)
    rows.append(f'<tr><th scope="row"><strong>{spoken("mean rank")}</strong></th>{ranks}</tr>')
    category = ""
    for k, m in enumerate(found.metrics):
        if m.category != category:
            category = m.category
            rows.append(f'<tr><th class="quiet" colspan="{len(order) + 1}">{spoken(category)}</th></tr>')
        arrow = "↑" if m.better == "higher" else "↓"
        cells = "".join(_cell(found, c, k) for c in order)
        rows.append(f'<tr><th scope="row" title="{spoken(m.about)}">{escape(m.name)} {arrow}</th>{cells}</tr>')
    for k, name in enumerate(("forwards", "backwards", "seconds")):
        cells = "".join(f"<td>{_number(found.price_of(found.methods[c])[k])}</td>" for c in order)
        rows.append(f'<tr><th scope="row">{spoken(name)}</th>{cells}</tr>')
    body = "".join(rows)
    return f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(found: ScoreData, c: int, k: int) -> str:
    mean, half = found.interval(c, k)
    if not math.isfinite(mean):
        return "<td></td>"
    share = max(0.0, 1 - (found.places[c, k] - 1) / max(1, len(found.methods) - 1))
    told = number(mean) + (f" ± {_half(half)}" if math.isfinite(half) else "")
    return f'<td style="background:rgba(42,108,171,{0.35 * share:.2f})">{told}</td>'


def _half(value: float) -> str:
    """Half of an interval: two digits, without an exponent where it is large."""
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


def _number(value: float) -> str:
    return number(value) if math.isfinite(value) else ""


def _plot(found: ScoreData, c: int) -> str:
    """One method's two curves, as SVG."""
    from pellucid.render.scoreboard import band

    known = found.curves[np.isfinite(found.curves)]
    low, high = (min(0.0, float(known.min())), float(known.max())) if known.size else (0.0, 1.0)
    span = (high - low) or 1.0

    def points(values: NDArray[np.float64]) -> list[str]:
        return [
            f"{t * _WIDE:.1f},{_HIGH * (1 - (min(max(float(v), low), high) - low) / span):.1f}"
            for t, v in zip(np.linspace(0, 1, len(values)), values, strict=True)
        ]

    drawn = []
    for side, colour in ((0, "var(--for)"), (1, "var(--against)")):
        mean, below, above = band(found.curves[c, :, side])
        if np.isfinite(mean).all():
            area = " ".join(points(above) + points(below)[::-1])
            drawn.append(f'<polygon points="{area}" style="fill:{colour};opacity:.2"/>')
            drawn.append(f'<polyline points="{" ".join(points(mean))}" style="stroke:{colour}"/>')
    name, reach = spoken(found.methods[c]), spoken(f"{number(low)} to {number(high)}")
    return (
        f'<figure class="curve"><svg viewBox="-1 -1 {_WIDE + 2} {_HIGH + 2}" role="img" aria-label="{name}">'
        f"{''.join(drawn)}</svg><figcaption>{name}, {reach}</figcaption></figure>"
    )


def _maps(found: ScoreData, n: int) -> str:
    """One input under each method's map, best method first."""
    pixels = found.thumbs[n]
    inside = _inside(found, pixels)
    shown = [f"<figure>{picture(inside, found.samples[n])}<figcaption>{escape(found.samples[n])}</figcaption></figure>"]
    for c in found.order:
        cells = found.shown[c, n]
        while cells.ndim > 2:  # of clips and volumes the middle, as their picture is
            cells = cells[len(cells) // 2]
        if not np.isfinite(cells).all():
            continue
        size = (inside.shape[1], inside.shape[0])
        values = np.asarray(Image.fromarray(cells.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
        signed = bool((cells < 0).any())
        drawn = overlay(inside, values, signed=signed, limits=limits(values, signed=signed))
        told = f"<figcaption>{'<br>'.join(map(spoken, _named(found, c, n)))}</figcaption>"
        shown.append(f"<figure>{picture(drawn, f'{found.methods[c]} on {found.samples[n]}')}{told}</figure>")
    return f'<section class="concept maps"><div class="row">{"".join(shown)}</div></section>'


def _named(found: ScoreData, c: int, n: int) -> list[str]:
    """The method, and its value on the metric that margins are stated in."""
    best = found.recommended
    if best is None:
        return [found.methods[c]]
    k = [m.name for m in found.metrics].index(best.metric)
    value = float(found.scores[c, k, n])
    return [found.methods[c], *([f"{best.metric} {number(value)}"] if math.isfinite(value) else [])]


def _inside(found: ScoreData, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The thumbnail without the white that squares it: as wide and high as the maps are."""
    rows, columns = found.shown.shape[-2:] if found.shown.ndim > 3 else (1, found.shown.shape[-1])
    side = pixels.shape[0]
    longest = max(rows, columns)
    return pixels[: max(1, round(side * rows / longest)), : max(1, round(side * columns / longest))]


def _metrics(found: ScoreData) -> str:
    rows = []
    for m in found.metrics:
        better = "(higher is better)" if m.better == "higher" else "(lower is better)"
        text = " ".join(map(spoken, filter(None, (m.about, better, m.traps))))
        rows.append(f"<tr><th>{escape(m.name)}</th><td>{text}</td><td>{escape(m.paper)}</td></tr>")
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'
