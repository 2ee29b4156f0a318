"""Every kind of figure under names that are too long, many rows, and pictures that are tiny, wide or tall: each text is
inside its canvas, none stands on another, and the numbers are those of the result.

The results are those of `tests/kept`, one of each kind, stretched.
"""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import pellucid as pl
from helpers.render_cases import explanation
from helpers.sheets import boxes, illegible, texts
from pellucid.audit.review import Calibration
from pellucid.explanation import Prediction, Quality
from pellucid.importance.result import Share
from pellucid.interpretable.additive import Additive
from pellucid.interpretable.base import Reason
from pellucid.interpretable.bcos import BcosHead
from pellucid.interpretable.examples import Neighbours, Prototypes
from pellucid.interpretable.fidelity import Interval
from pellucid.interpretable.frontier import Point
from pellucid.interpretable.hierarchy import Hierarchy
from pellucid.interpretable.linear import SparseLinear
from pellucid.interpretable.rules import Rules
from pellucid.interpretable.tree import Tree
from pellucid.media import Geometry, read_image
from pellucid.numerics.presence_tree import PresenceTree
from pellucid.render import panel
from pellucid.render.paper.colour import number
from pellucid.render.paper.sheet import Sheet, text_width

KEPT = Path(__file__).parents[1] / "results" / "kept"
LONG = "a long-legged wading bird with a name that goes on and on and leaves no room at all for anything else"
NOTES = [f"{LONG}. " * 4, "Donaudampfschifffahrtsgesellschaft" * 6]
DEEP = "backbone.features.stages.3.blocks.11.residual.attention.projection.output"
SIZES = {"tiny": (9, 9), "wide": (40, 700), "tall": (700, 40)}


@cache
def kept(stem):
    return pl.read(KEPT / f"{stem}.json")


def pixels(size):
    return read_image(np.full((*size, 3), 128, np.uint8))


def squares(_=0):
    return np.full((24, 24, 3), 90, np.uint8)


def answers(count=5):
    return [Prediction(k, f"{k} {LONG}", 0.9 / 2**k) for k in range(count)]


@pytest.mark.parametrize("dpi", [80, 100, 110, 150, 200])
def test_no_text_is_wider_than_it_was_measured(dpi):
    """Letters are hinted to whole pixels, so their width is not in proportion to the resolution."""
    sheet = Sheet(20)
    sheet.figure.set_dpi(dpi)
    wanted = []
    for size in (6.4, 6.9, 7.2, 8.6, 9.0, 11.0, 12.0):
        for bold in (False, True):
            sheet.line(f"{size} {LONG}", 0.1, 0.1, size, bold=bold)
            wanted.append(text_width(f"{size} {LONG}", size, bold=bold))
    drawn = [b.width / dpi for _, b in boxes(sheet.finish(1))]
    assert all(0.85 * most < found <= most for found, most in zip(drawn, wanted, strict=True))


# Heat maps


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["map", "channels"])
def test_heat_maps(size, kind):
    values = torch.linspace(-1e-7, 123456.789, 64)
    e = explanation(
        values if kind == "channels" else values.reshape(8, 8),
        kind=kind,
        geometry=Geometry.identity(SIZES[size]),
        picture=pixels(SIZES[size]),
        target=LONG,
        prediction=answers(),
        layer=DEEP,
        notes=NOTES,
        remarks=NOTES,
        quality=Quality("not faithful", f"not faithful: {LONG}"),
        extras={"standard_error": torch.rand(1, 8, 8)} if kind == "map" else {},
    )
    e.record.model["name"] = e.record.input["name"] = LONG
    assert illegible(panel([e, replace(e, method="integrated-gradients"), replace(e, method=DEEP)])) == []
    assert illegible(panel([replace(e, target=f"{k}") for k in range(4)])) == []


@pytest.mark.parametrize(("frames", "size"), [(1, "tiny"), (5, "wide"), (64, "tall"), (64, "wide"), (300, "tiny")])
def test_clips(frames, size):

    seen = Geometry.identity((frames, *SIZES[size]))
    seen = replace(seen, ticks=tuple(1234.5 + k / 25 for k in range(frames)), unit="s")
    e = explanation(
        torch.rand(min(frames, 8), 4, 4) - 0.3,
        geometry=seen,
        picture=None,
        target=LONG,
        prediction=answers(),
        layer=DEEP,
        notes=NOTES,
        extras={"standard_error": torch.rand(1, min(frames, 8), 4, 4)},
    )
    for width in (8.0, 13.5):
        assert illegible(panel([e, replace(e, method="saliency")], width=width)) == []


# Importance


def share(K, sign=0, count=1, group="all", intervals=True):
    generator = torch.Generator().manual_seed(K)
    values = torch.randn(K, generator=generator) * 1234.5
    values = sign * values.abs() if sign else values
    wide = 0.3 * values.abs() if intervals else torch.full((K,), math.nan)
    single = values + 50 * torch.randn(count, K, generator=generator) if count > 1 else None
    return Share(group, values, values - wide, values + wide, count, single)


def many_players(K=40, sign=0, **changes):
    """One picture's importance with K players of long names."""
    found = kept("coffee.patches.ablation")
    names = [f"{k} {LONG}" for k in range(K)]
    rows = torch.arange(K).reshape(1, -1).expand(K, -1).clone()
    fields = {
        "target": LONG,
        "names": names,
        "shares": [share(K, sign)],
        "layer": DEEP,
        "prediction": answers(),
        "notes": NOTES,
        "pictures": {"labels": rows},
        "interactions": [(0, 1, 1234.5), (1, 2, -0.0001), (2, 3, 0.0)],
        "full": 12345.678,
        "empty": -0.00012345,
        "geometry": Geometry.identity((K, K)),
        "picture": pixels((K, K)),
    }
    return replace(found, **(fields | changes))


@pytest.mark.parametrize("sign", [-1, 0, 1])
def test_importance_of_one_picture_with_many_players(sign):
    found = many_players(sign=sign)
    figure = found.figure()
    assert illegible(figure) == []
    said = texts(figure)
    for k in found.ranking()[:12]:
        assert number(float(found.values[k])) in said
    rest = float(found.values[found.ranking()[12:]].sum())
    assert any(t.startswith("the other 28") and t.endswith(number(rest)) for t in said)


@pytest.mark.parametrize("size", SIZES)
def test_importance_of_pictures_of_odd_shapes(size):
    shape = SIZES[size]
    labels = (torch.arange(math.prod(shape)) * 6 // math.prod(shape)).reshape(shape)
    found = many_players(6, pictures={"labels": labels}, geometry=Geometry.identity(shape), picture=pixels(shape))
    assert illegible(found.figure()) == []
    assert illegible(replace(found, picture=None, pictures={}, interactions=[]).figure()) == []


@pytest.mark.parametrize("leaves", [2, 5, 16])
def test_importance_by_rules(leaves):
    """A chain: each question's yes is an answer, its no the next question."""
    inner = leaves - 1
    tree = PresenceTree(
        player=np.r_[np.arange(inner), np.full(leaves, -1)],
        there=np.r_[inner + np.arange(inner), np.full(leaves, -1)],
        away=np.r_[np.arange(1, inner), 2 * inner, np.full(leaves, -1)],
        value=np.linspace(-1e-6, 12345.6, 2 * inner + 1)[:, None],
        share=np.full(2 * inner + 1, 0.123),
    )
    figure = many_players(20, tree=tree, notes=[]).figure()
    assert illegible(figure) == []
    assert set(map(number, tree.value[inner:, 0])) <= set(texts(figure))


@pytest.mark.parametrize("groups", [0, 1, 2, 20])
def test_importance_of_a_folder(groups):
    found = many_players(30)
    record = replace(found.record, input={"name": LONG, "pictures": ["."], "sha256": "0"})
    shares = [share(30, count=200, group=LONG), *(share(30, count=3 + g, group=f"{g} {LONG}") for g in range(groups))]
    shares[-1].examples[shares[-1].ranking()[0]] = squares()
    difference = share(30, group=f"{LONG} less {LONG}") if groups == 2 else None
    figure = replace(found, record=record, shares=shares, difference=difference, tree=None).figure()
    assert illegible(figure) == []
    assert {number(float(v)) for v in shares[0].values[shares[0].ranking()[:10]]} <= set(texts(figure))


# Features


@pytest.mark.parametrize("count", [1, 3, 9])
def test_feature_sheets(count):
    found = kept("2.0.features")
    unit = replace(
        found[0], objective=f"channel 3 of {LONG}", layer=DEEP, notes=NOTES, channel=None,
        quality=replace(found[0].quality, line=f"{LONG} " * 6),
    )  # fmt: skip
    unit.record.model["name"] = LONG
    assert illegible(type(found)([unit] * count).figure()) == []


def test_atlases():
    found = kept("2.atlas")
    record = replace(found.record, model=found.record.model | {"name": LONG})
    stretched = replace(
        found, layer=DEEP, record=record, cells=found.cells[:1], size=(1, 1), pictures=found.pictures[:1]
    )
    assert illegible(stretched.figure()) == []
    assert illegible(replace(stretched, size=(3, 20)).figure()) == []


@pytest.mark.parametrize("count", [1, 2])
def test_activations(count):
    found = kept("coffee.activations")
    maps = found.maps[0]
    layer = replace(maps.layer, name=DEEP)
    ranking = torch.full_like(maps.ranking, -1.2345e-5)
    wide = [replace(maps, layer=layer, ranking=ranking, ranked_by="relevance")] * count
    assert illegible(replace(found, maps=wide, target=LONG, prediction=answers()).figure()) == []


# Concepts


def test_tests_of_concepts():
    found = kept("digits.tcav")
    one = found.tests[0]
    rows = [
        replace(
            one, concept=f"{k} {LONG}", target=LONG, effect=(-1) ** k * 12345.6 / (k + 1), adjusted=1.2e-5,
            looked=123456, notes=(LONG,) if k < 2 else (),
        )
        for k in range(30)
    ]  # fmt: skip
    figure = replace(found, tests=rows, layer=DEEP).figure()
    assert illegible(figure) == []
    assert any(t.startswith(f"{number(12345.6)}, p 1.2e-05") for t in texts(figure))


def test_audits_and_comparisons():
    found = kept("sample-c.audit")
    found.record.model["name"] = LONG
    sure = Calibration(0.123, 0.05, 0.2, ((0.05, 0.1, 3), (0.55, 0.4, 900), (0.99, 1.0, 12)))
    figure = replace(found, notes=NOTES, review=replace(found.review, calibration=sure)).figure()
    assert illegible(figure) == []
    assert "Calibration error 12.3% [5.0%, 20.0%]." in texts(figure)
    assert illegible(replace(kept("sample-c.comparison"), names=(LONG, LONG), notes=NOTES).figure()) == []


def test_concepts():
    found = kept("sample-c.concepts.nmf")
    K = len(found)
    groups = [replace(g, name=f"{g.name} {LONG}", low=np.full(K, 1234.5)) for g in found.groups]
    shown = {i: replace(s, answer=LONG) for i, s in found.shown.items()}
    figure = replace(
        found, names=[f"{k} {LONG}" for k in range(K)], named_by=["attributes"] * K, layer=DEEP, notes=NOTES,
        groups=groups, shown=shown, stability=np.full(K, 0.123),
    ).figure()  # fmt: skip
    assert illegible(figure) == []
    if found.whole is not None:
        assert sum(t.startswith(f"+{number(float(v))}") for v in found.whole.values for t in texts(figure))


# Readable models

HEADS = [
    Tree(1), Tree(4), SparseLinear(), Rules(6), Prototypes(2), Neighbours(3), Hierarchy("mean"), BcosHead(8, epochs=3),
    Additive(4),
]  # fmt: skip


@pytest.mark.parametrize("head", HEADS, ids=lambda head: f"{head.kind}-{HEADS.index(head)}")
@pytest.mark.parametrize("named", [LONG, "3"])
def test_readable_models(head, named):
    from pellucid.render.surrogate import Gallery, surrogate_figure

    rng = np.random.default_rng(0)
    found, (N, d, K) = kept("digits.tree"), (len(kept("digits.tree").X), 6, 15 if named == LONG else 3)
    y = np.arange(N) % K
    X = 2.5 * rng.standard_normal((K, d))[y] * 1000 + rng.standard_normal((N, d))
    names = [f"{j} {named}" for j in range(d)]
    labels = [f"{k} {named}" for k in range(K)]
    fitted = type(head)(**head.get_params()).fit(X[9:], np.array(labels)[y[9:]], names=names)
    words = found.words
    words.names[:] = names + words.names[d:]
    front = [Point(1, 0.1234, 0.05), Point(12345, 0.6, 0.05, chosen=True), Point(99999, 0.7, 0.05)]
    card = replace(
        found.card, wrong=list(range(9)), count=90, notes=NOTES, complexity=12345, stability=0.5,
        baselines={"random concepts": Interval(0.5, 0.4, 0.6)},
    )  # fmt: skip
    record = replace(found.record, input=found.record.input | {"name": LONG})
    stretched = replace(
        found, head=fitted, X=X, answers=np.eye(K)[y], labels=labels, card=card, front=front, record=record,
        held=np.arange(9), sources=["x"] * N, into=head.kind,
    )  # fmt: skip
    figure = surrogate_figure(stretched, Gallery(squares, {j: [squares()] * 3 for j in range(d)}))
    assert illegible(figure) == []
    assert "12345" in " ".join(texts(figure))


@pytest.mark.parametrize("size", SIZES)
def test_evidence_for_one_picture(size):
    from pellucid.render.surrogate_evidence import EvidenceRow, Match, evidence_figure

    shape = (*SIZES[size], 3)
    match = Match(np.zeros(shape, np.uint8), (0.2, 0.2, 0.8, 0.8))
    rows = [
        EvidenceRow(Reason(LONG * 2, 0, contribution=-123456.7), match, [match, match, match]),
        EvidenceRow(Reason(LONG, 0, contribution=1e-7), None, []),
        EvidenceRow(Reason(LONG), match, []),
    ]
    figure = evidence_figure(LONG, match, LONG, 0.123, rows)
    assert illegible(figure) == []
    assert {number(-123456.7), number(1e-7)} <= set(texts(figure))
    assert illegible(evidence_figure("x", match, "y", 1.0, [])) == []
