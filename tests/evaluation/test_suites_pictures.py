"""Suites of pictures: the truth is the network's own by algebra, and the metrics find it."""

import itertools

import pytest
import torch

import pellucid as pl
from pellucid.errors import MediaError, PellucidError
from pellucid.evaluation.suites.pictures import SIDE, SUITES, degraded, draw
from pellucid.evaluation.suites.textures import PATCH, stripes
from pellucid.heatmaps import IntegratedGradients
from pellucid.verbs.evaluate_suite import evaluate_suite


@pytest.mark.parametrize("name", SUITES)
def test_what_the_places_add_is_the_score_above_that_of_a_grey_picture(name):
    net, batch = draw(name, 6, seed=1)
    grey = torch.full((1, 3, SIDE, SIDE), 0.5)
    with torch.no_grad():
        rise = net(batch.pictures)[:, 1] - net(grey)[:, 1]
    torch.testing.assert_close(batch.oracle.sum((1, 2)), rise, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in SUITES if n not in ("and", "texture")])
def test_a_place_taken_away_takes_what_it_added(name):
    net, batch = draw(name, 2, seed=2)
    g = torch.Generator().manual_seed(0)
    for picture, oracle in zip(batch.pictures, batch.oracle, strict=True):
        where = torch.rand(SIDE, SIDE, generator=g) < 0.3
        without = torch.where(where, 0.5, picture)
        with torch.no_grad():
            change = float(net(picture[None])[0, 1] - net(without[None])[0, 1])
        assert change == pytest.approx(float(oracle[where].sum()), abs=1e-4)


def test_a_patch_taken_away_takes_what_it_added():
    net, batch = draw("texture", 2, seed=2)
    g = torch.Generator().manual_seed(0)
    for picture, oracle in zip(batch.pictures, batch.oracle, strict=True):
        where = (torch.rand(SIDE // PATCH, SIDE // PATCH, generator=g) < 0.3).repeat_interleave(PATCH, 0)
        where = where.repeat_interleave(PATCH, 1)
        without = torch.where(where, 0.5, picture)
        with torch.no_grad():
            change = float(net(picture[None])[0, 1] - net(without[None])[0, 1])
        assert change == pytest.approx(float(oracle[where].sum()), abs=1e-4)


def test_level_stripes_add_nothing():
    net, _ = draw("texture", 1)
    assert net(stripes(SIDE).T.expand(1, 3, -1, -1) * 0.3 + 0.5)[0, 1] == net(torch.full((1, 3, SIDE, SIDE), 0.5))[0, 1]


def test_where_both_must_be_there_each_has_half_of_it():
    net, batch = draw("and", 4, seed=3)
    colours = net.found(batch.pictures).detach()
    for k in range(len(colours[0])):
        inside = colours[:, k] > 0
        half = (batch.oracle * inside).sum((1, 2))
        torch.testing.assert_close(half, batch.oracle.sum((1, 2)) / 2, rtol=1e-4, atol=1e-5)


def test_the_oracle_speaks_for_and_against():
    _, batch = draw("conflict", 4)
    assert (batch.oracle.amin((1, 2)) < 0).all()
    assert (batch.oracle.amax((1, 2)) > 0).all()
    assert not (batch.masks & (batch.oracle <= 0)).any()


def test_sizes_go_from_a_fiftieth_to_more_than_half():
    _, batch = draw("scale", 8)
    sizes = batch.masks.float().mean((1, 2))
    assert sizes[0] < 0.03
    assert sizes[-1] > 0.5
    assert all(a < b for a, b in itertools.pairwise(sizes.tolist()))


def test_the_same_seed_draws_the_same_and_another_name_is_refused():
    torch.testing.assert_close(draw("single", 2, 5)[1].pictures, draw("single", 2, 5)[1].pictures)
    with pytest.raises(MediaError, match="did you mean single"):
        draw("singel", 1)


def test_integrated_gradients_from_grey_finds_the_truth():
    net, batch = draw("conflict", 2)
    method = IntegratedGradients(baseline=torch.full((3, SIDE, SIDE), 0.5), max_steps=200, tolerance=None)
    found = method.attribute(pl.wrap(net), batch.pictures, 1).sum(1)
    for one, truth in zip(found, batch.oracle, strict=True):
        assert float(torch.corrcoef(torch.stack([one.flatten(), truth.flatten()]))[0, 1]) > 0.95


# ---------------------------------------------------------------- methods and metrics, measured

TRUE = ("srg", "mask-auc", "relevance-mass", "faithfulness-correlation")


@pytest.mark.parametrize("name", ["single", "and", "watermark"])
def test_the_oracle_is_on_top_random_at_chance_and_edges_no_better(name):
    board = evaluate_suite(name, "input-x-gradient", TRUE, count=6)
    order = [[m.name for m in board.metrics].index(name) for name in TRUE]
    means = dict(zip(board.methods, board.means[:, order, 0], strict=True))
    assert board.order[0] == board.methods.index("oracle")
    assert all((means["oracle"] >= means[m] - 1e-3).all() for m in board.methods)
    share = draw(name, 6)[1].masks.float().mean()
    for blind in ("random order", "edges"):
        assert 0.2 < means[blind][1] < 0.8
        assert means[blind][2] < 4 * share
    assert means["edges"][0] < means["oracle"][0] / 2
    assert means["oracle"][1] == pytest.approx(1)
    assert means["oracle"][2] > 0.95


# Of the whole map kept or lost, whatever it is; of another answer, which the oracle does not know.
BLUNT = {"increase", "average-gain", "answer-kept", "answer-lost", "impact-coverage"}


def test_the_oracle_is_above_random_by_every_metric_of_its_kind():
    board = evaluate_suite("single", "saliency", "faithfulness,localisation", count=4)
    oracle, blind = (board.means[board.methods.index(m), :, 0] for m in ("oracle", "random order"))
    lead = {
        m.name: (o - b) * (1 if m.better == "higher" else -1)
        for m, o, b in zip(board.metrics, oracle, blind, strict=True)
    }
    assert len(lead) > 50
    assert {name for name, by in lead.items() if not by > 0} == BLUNT


@pytest.mark.parametrize(("metric", "falls"), [(m, True) for m in TRUE] + [("sparseness", False)])
def test_scores_fall_as_the_truth_is_degraded_where_a_metric_deserves_belief(metric, falls, degraded_board):
    shares, board = degraded_board
    names = [m.name for m in board.metrics]
    column = [board.means[board.methods.index(s), names.index(metric), 0] for s in shares]
    assert all(a > b + 0.003 for a, b in itertools.pairwise(column)) is falls, column


@pytest.fixture(scope="module")
def degraded_board():
    net, batch = draw("single", 5)
    shares = {f"{k} %": degraded(batch.oracle, k / 100) for k in (0, 25, 50, 75, 100)}

    def of(maps):
        return lambda _model, x, _target: maps[[_place(batch.pictures, row) for row in x]]

    given = {name: of(maps) for name, maps in shares.items()}
    metrics = (*TRUE, "sparseness")
    masks = list(batch.masks.numpy())
    return list(shares), pl.evaluate(pl.wrap(net), batch.pictures, given, metrics, target=1, masks=masks)


def _place(pictures, row):
    return next(k for k, p in enumerate(pictures) if torch.allclose(p, row.cpu()))


def test_the_oracle_needs_no_asking():
    with pytest.raises(PellucidError, match="in any case"):
        evaluate_suite("single", "grad-cam,oracle")
