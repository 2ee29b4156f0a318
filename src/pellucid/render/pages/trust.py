"""How far a heat map may be believed, in words and curves."""

from __future__ import annotations

import math

from pellucid.evaluation.verdict import SHOWS_MODEL
from pellucid.explanation import Curve, Explanation, Quality
from pellucid.render.pages import texts
from pellucid.render.pages.page import prose, spoken
from pellucid.render.paper.colour import number

_WIDE, _HIGH = 220, 110


def trust(e: Explanation) -> str:
    """The trust card of an explanation: verdict, every measured figure in a sentence, the curves beside chance."""
    quality = e.quality
    if quality is None:
        return f'<div class="trust"><p class="verdict quiet">{prose(texts.UNCHECKED)}</p></div>'
    good = "good" if quality.verdict == "faithful" else "bad"
    said = texts.VERDICTS.get(quality.verdict, quality.line)
    items = "".join(f"<li>{prose(sentence)}</li>" for sentence in sentences(quality))
    return (
        f'<div class="trust"><p class="verdict {good}">{spoken(said)}</p><ul>{items}</ul>'
        f'<p class="facts">{spoken(quality.line)}</p>{_curves(quality)}</div>'
    )


def sentences(quality: Quality) -> list[str]:
    """Each measured figure as a sentence."""
    found = []
    for name, before in (("", ""), ("temporal_", texts.OF_FRAMES)):
        for kind, text, better in (("insertion", texts.INSERTION, 1), ("deletion", texts.DELETION, -1)):
            curve: Curve | None = getattr(quality, name + kind)
            if curve is not None:
                areas = {"own": curve.auc, "random": curve.random_mean, "spread": curve.random_std}
                numbers = {k: number(v) for k, v in areas.items()}
                found.append(before + text.format(standing=_standing(curve, better), **numbers))
    if quality.p_value is not None and math.isfinite(quality.p_value):
        p = "< 0.001" if quality.p_value < 0.001 else f"= {quality.p_value:.2g}"
        found.append(texts.BLIND.format(share=f"{100 * quality.p_value:.3g}", p=p))
    if quality.sanity is not None and math.isfinite(quality.sanity):
        text = texts.CHANGES if abs(quality.sanity) < SHOWS_MODEL else texts.STAYS
        found.append(text.format(value=f"{quality.sanity:.2f}"))
    if quality.completeness_gap is not None and math.isfinite(quality.completeness_gap):
        found.append(texts.GAP.format(value=f"{quality.completeness_gap:.1%}"))
    return found


def _standing(curve: Curve, better: int) -> str:
    away = better * (curve.auc - curve.random_mean)
    if not abs(away) > 2 * curve.random_std:  # NaN is no difference
        return texts.SAME
    return texts.BETTER if away > 0 else texts.WORSE


def _curves(quality: Quality) -> str:
    plots = []
    for before, names in (("", texts.CURVES), ("temporal_", texts.TEMPORAL)):
        for kind, title in names.items():
            curve = getattr(quality, before + kind)
            if curve is not None:
                plots.append(curve_plot(curve, title))
    if not plots:
        return ""
    return f'<div class="curves">{"".join(plots)}</div><p class="facts">{spoken(texts.BAND)}</p>'


def curve_plot(curve: Curve, title: str) -> str:
    """A curve and the band of random masks, as SVG that needs no style of its own."""
    spread = 2 * (curve.random_std if math.isfinite(curve.random_std) else 0.0)
    ends = [0.0, *(v for v in (*curve.scores, *(s + spread for s in curve.random_scores)) if math.isfinite(v))]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0

    def at(share: float, score: float) -> str:
        y = _HIGH * (1 - (min(max(score, low), high) - low) / span) if math.isfinite(score) else _HIGH
        return f"{share * _WIDE:.1f},{y:.1f}"

    def line(scores: list[float], shift: float = 0.0) -> list[str]:
        return [at(f, s + shift) for f, s in zip(curve.fractions, scores, strict=True)]

    band = line(curve.random_scores, spread) + line(curve.random_scores, -spread)[::-1]
    label = spoken(f"{title}: area {number(curve.auc)}, random {number(curve.random_mean)}")
    return (
        f'<figure class="curve"><svg viewBox="-1 -1 {_WIDE + 2} {_HIGH + 2}" role="img" aria-label="{label}">'
        f'<polygon class="band" points="{" ".join(band)}"/>'
        f'<polyline class="random" points="{" ".join(line(curve.random_scores))}"/>'
        f'<polyline class="own" points="{" ".join(line(curve.scores))}"/></svg>'
        f"<figcaption>{spoken(f'{title}, {number(low)} to {number(high)}')}</figcaption></figure>"
    )
