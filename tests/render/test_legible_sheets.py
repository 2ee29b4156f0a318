"""Stages, scoreboards and repairs under long names and odd numbers: what `test_legible` asks of the other figures."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pellucid as pl
from helpers.sheets import illegible, texts
from pellucid.render.paper.colour import number
from pellucid.results.repair import ProvenGroup, Repair

KEPT = Path(__file__).parents[1] / "results" / "kept"
LONG = "a long-legged wading bird with a name that goes on and on and leaves no room at all for anything else"
DEEP = "backbone.features.stages.3.blocks.11.residual.attention.projection.output"


@pytest.mark.parametrize("count", [1, 14])
@pytest.mark.parametrize("sign", [-1, 1])
def test_stages(count, sign):
    found = pl.read(KEPT / "coffee.lrp.stages.json")
    flows = [sign * 12345.678 / (k + 1) for k in range(count)]
    maps = [
        replace(found.maps[0], layer=f"{k}.{DEEP}", flow=flow, absorbed=-0.3 * flow * (k % 2))
        for k, flow in enumerate(flows)
    ]
    figure = replace(found, maps=maps, target=LONG, notes=[LONG], score=sign * 9876.5).figure()
    said = texts(figure)
    assert illegible(figure) == []
    assert {number(flow) for flow in flows} <= set(said)
    assert f"the line: the score, {number(sign * 9876.5)}" in said
    assert "how much of the score flows through each stage" in said


@pytest.mark.parametrize("methods", [1, 3, 12])
def test_scoreboards(methods):
    found = pl.read(KEPT / "inputs.scores.json")
    some = np.arange(methods) % len(found.methods)
    changed = {name: getattr(found, name)[some] for name in ("scores", "price", "curves", "shown")}
    found = replace(
        found,
        methods=[f"{k}-{DEEP}" for k in range(methods)],
        blind=[False] * methods,
        said=[],
        notes=[LONG],
        **changed,
    )
    figure = found.figure()
    assert illegible(figure) == []
    for c in range(methods):
        for k in range(len(found.metrics)):
            mean, half = found.interval(c, k)
            if math.isfinite(mean):
                shown = number(mean) + (f" ± {half:.2g}" if math.isfinite(half) else "")
                assert any(t == shown or (t.endswith("…") and shown.startswith(t[:-1])) for t in texts(figure))


def test_repairs():
    comparison = pl.read(KEPT / "sample-c.comparison.json")
    groups = [
        ProvenGroup(LONG, form, (True,) * k + (False,) * (9 - k), (True,) * 9)
        for k, form in ((3, "as they are"), (5, LONG))
    ]
    found = Repair(
        model=None, layer=DEEP, strength=0.01, reasons=[LONG], slices=[LONG], groups=groups,
        comparison=replace(comparison, names=(LONG, LONG)), files=[], notes=[LONG] * 3,
    )  # fmt: skip
    figure = found.figure()
    assert illegible(figure) == []
    whole = " ".join(texts(figure))
    for line in found.lines():
        assert line.split()[0] in whole
    assert "33.3%" in whole or "33%" in whole
