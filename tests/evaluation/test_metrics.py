"""Metrics against values that can be worked out by hand, and against what other libraries get wrong."""

import math

import numpy as np
import pytest
import torch

import pellucid as pl
from helpers.evaluations import candidate, linear, read, sample, total
from helpers.nets import MultiLayer, noise
from pellucid.evaluation.banks import (
    CascadedMaps,
    GroupEffects,
    MapAndTruth,
    MapValues,
    NearbyMaps,
    RankedScores,
    ShownAlone,
    SubsetEffects,
)
from pellucid.evaluation.metrics import METRICS, as_metrics, located
from pellucid.evaluation.metrics.located import top_share
from pellucid.heatmaps import get_method
from pellucid.numerics.statistics import spearman


def value(name, answer):
    return METRICS[name].measure(answer)


def on_zero(name):
    return METRICS[name].on("zero")


X, WEIGHTS = noise(2, 14, 14), noise(2, 14, 14, seed=1)
GRADIENT_TIMES_INPUT = (X * WEIGHTS).sum(0)


# --- a linear model and its exact map: each virtue at its best


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("faithfulness-correlation", 1),
        ("mu-fidelity", 1),
        ("sensitivity-n", 1),
        ("single-deletion", 1),
        ("monotonicity-correlation", 1),
        ("infidelity", 0),
        ("infidelity-scaled", 0),
        ("non-sensitivity", 0),
        ("faithfulness-estimate", 1),
        ("saco", 1),
        ("completeness-gap", 0),
    ],
)
def test_the_exact_map_of_a_linear_model(name, best):
    of = sample(X, linear(WEIGHTS))
    exact, reverse, blind = read(on_zero(name), of, GRADIENT_TIMES_INPUT, -GRADIENT_TIMES_INPUT, noise(14, 14, seed=7))
    assert exact == pytest.approx(best, abs=1e-3)
    if best == 1 and name != "monotonicity-correlation":
        assert reverse == pytest.approx(-1, abs=1e-3)
    if name != "non-sensitivity":
        assert (blind < exact - 0.1) if METRICS[name].better == "higher" else (blind > exact + 0.1)


@pytest.mark.parametrize("n", [0.1, 0.25, 0.5, 0.75, 0.9])
def test_sensitivity_is_one_for_every_n(n):
    of = sample(X, linear(WEIGHTS))
    from pellucid.evaluation.banks import RandomSubsets
    from pellucid.evaluation.sample import Inquiry

    with Inquiry(of) as inquiry:
        bank = RandomSubsets("zero", shares=(n,), draws=8)
        (found,) = bank.answers(inquiry, [candidate(GRADIENT_TIMES_INPUT, of)])
    assert len(found.kinds) == 1
    assert value("sensitivity-n", found) == pytest.approx(1, abs=1e-3)


def test_a_map_that_is_the_input_of_a_sum():
    x = torch.rand(1, 14, 14, generator=torch.Generator().manual_seed(0))
    of = sample(x)
    assert read(on_zero("mu-fidelity"), of, x[0], -x[0]) == pytest.approx([1, -1], abs=1e-6)


# --- curves


def test_a_random_order_has_no_gap_and_the_best_has_the_opposite_of_the_worst():
    of = sample(X.abs(), total)
    truth = X.abs().sum(0)
    blind = [noise(14, 14, seed=k) for k in range(40)]
    best, worst, *rest = read(on_zero("srg"), of, truth, -truth, *blind)
    spread = torch.tensor(rest, dtype=torch.float64)
    assert best == pytest.approx(-worst, rel=1e-6)
    assert abs(float(spread.mean())) < 4 * float(spread.std()) / math.sqrt(len(rest))
    assert best > max(rest)


def test_any_missing_pixel_kills_the_score_or_any_pixel_makes_it():
    x = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1)) + 0.5
    spot = noise(8, 8)
    kills = sample(x, lambda x: (x.flatten(1) > 0).all(1, keepdim=True).float())
    makes = sample(x, lambda x: (x.flatten(1) > 0).any(1, keepdim=True).float())
    # the step from the whole to a sixteenth less is all of the area that is left
    assert read(on_zero("deletion"), kills, spot) == pytest.approx([1 / 32], abs=1e-6)
    assert read(on_zero("insertion"), makes, spot) == pytest.approx([1 - 1 / 32], abs=1e-6)


def ranked(most, least=None, lead=None):
    most = torch.tensor(most, dtype=torch.float64)
    least = most if least is None else torch.tensor(least, dtype=torch.float64)
    lead = torch.zeros_like(most) if lead is None else torch.tensor(lead, dtype=torch.float64)
    fractions = torch.linspace(0, 1, len(most), dtype=torch.float64)
    return RankedScores(fractions, torch.stack([most, most, lead], 1), torch.stack([least, least, lead], 1))


def test_values_read_from_one_curve():
    found = ranked([1.0, 0.5, 0.5, 0.25, 0.0], [1.0, 1.0, 0.75, 0.5, 0.0], [3, 2, -1, -1, -1])
    assert value("deletion", found) == pytest.approx(0.4375)
    assert value("insertion", found) == value("lerf", found) == pytest.approx(0.6875)
    assert value("srg", found) == pytest.approx(0.25)
    assert value("aopc", found) == pytest.approx((0 + 0.5 + 0.5 + 0.75 + 1) / 5)
    assert value("minimal-deletion", found) == 0.5
    assert value("minimal-insertion", found) == 0.75
    assert value("irof", found) == pytest.approx(1 - 0.4375)
    assert value("pgi", found) == pytest.approx(0.5)
    assert value("road-morf", found) == pytest.approx(0.375)


def test_answers_that_are_never_lost_or_that_are_none():
    assert value("minimal-deletion", ranked([1, 1, 1], lead=[1, 1, 1])) == 1
    assert math.isnan(value("minimal-deletion", ranked([1, 1, 1])))
    assert math.isnan(value("road", ranked([1, 1, 1])))


def test_a_rising_curve_is_monotone_and_another_is_not():
    """Features are inserted on the baseline, least relevant first: a random order of a signed sum is not monotone."""
    assert value("monotonicity", ranked([1.0, 0.7, 0.2, 0.0])) == 1
    assert value("monotonicity", ranked([1.0, 0.2, 0.7, 0.0])) == 0
    of = sample(X, linear(WEIGHTS))
    random = read(on_zero("monotonicity"), of, *[noise(14, 14, seed=k) for k in range(10)])
    assert sum(random) < 10
    assert read(on_zero("monotonicity"), sample(X.abs()), X.abs().sum(0)) == [1]


def test_showing_the_top_pixel_alone():
    x = torch.tensor([[[0.4, 0.3], [0.2, 0.1]]])
    spot = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    of = sample(x)
    assert read(METRICS["average-drop"], of, spot) == pytest.approx([0.6], abs=1e-6)
    assert read(METRICS["increase"], of, spot) == [0]
    clip = torch.stack([x, torch.zeros_like(x)], 1)  # a frame of zeros changes nothing
    later = torch.stack([spot, torch.zeros(2, 2)])
    assert read(METRICS["average-drop"], sample(clip), later) == pytest.approx([0.6], abs=1e-6)


def test_gain():
    plain, shown = torch.tensor([0, 0.5, 0.0]), torch.tensor([0, 0.75, 0.0])
    assert value("average-gain", ShownAlone(plain, shown)) == pytest.approx(0.5)
    assert value("average-drop", ShownAlone(plain, shown)) == 0
    assert value("increase", ShownAlone(plain, shown)) == 1


# --- groups and subsets, from their formulas


def test_salience_guided_coefficient_of_a_wrong_pair():
    """Pairs (0,1), (0,2), (1,2) of relevance 3, 2, 1 weigh 1, 2, 1; the effects of the last pair disagree."""
    found = GroupEffects(torch.tensor([3.0, 2, 1], dtype=torch.float64), torch.tensor([9.0, 1, 2], dtype=torch.float64))
    assert value("saco", found) == pytest.approx((1 + 2 - 1) / 4)


def test_infidelity_by_hand():
    subsets = torch.tensor([[1.0, 0], [0, 1]], dtype=torch.float64)
    effects, relevance = torch.tensor([2.0, 2], dtype=torch.float64), torch.tensor([1.0, 3], dtype=torch.float64)
    found = SubsetEffects(relevance, subsets, effects, torch.ones(2), effects, 4.0)
    assert value("infidelity", found) == pytest.approx(1)
    # best scale 8 / 10; the rest 1.2^2 and 0.4^2, over 4
    assert value("infidelity-scaled", found) == pytest.approx((1.44 + 0.16) / 2 / 4)


@pytest.mark.parametrize("name", ["integrated-gradients", "feature-ablation"])
def test_the_attributions_of_captums_net_are_wholly_faithful(name):
    """At (1, 2, 3) and its parts the first unit is off and the rest are on: each value counts three times."""
    x = torch.tensor([[[1.0, 2, 3]]])
    of = sample(x, MultiLayer().eval())
    settings = {"segments": torch.tensor([[0, 1, 2]])} if name == "feature-ablation" else {}
    exact = get_method(name, **settings, baseline="zero").attribute(MultiLayer().eval(), x[None], 0)[0].reshape(1, 3)
    assert exact.tolist() == [pytest.approx([3, 6, 9], abs=1e-4)]
    blind = torch.tensor([[9.0, 6, 3]])
    for metric, best in (("infidelity", 0), ("completeness-gap", 0), ("sensitivity-n", 1)):
        found, other = read(on_zero(metric), of, exact, blind)
        assert found == pytest.approx(best, abs=1e-4)
        assert metric == "completeness-gap" or abs(other - best) > 0.1  # the same sum at other places


# --- localisation


def truth(heat, mask):
    return MapAndTruth(np.asarray(heat, np.float64).ravel(), np.asarray(mask, bool).ravel(), np.shape(mask))


def squares():
    mask = np.zeros((224, 224), bool)
    mask[50:150, 50:150] = True
    rng = np.random.default_rng(0)
    return mask, np.where(mask, 1.0, rng.uniform(0, 0.1, mask.shape))


def test_a_map_that_fills_its_mask():
    mask, heat = squares()
    found = truth(heat, mask)
    assert value("pointing-game", found) == value("strict-pointing-game", found) == 1
    assert top_share(found, 10_000) == 1
    assert top_share(found, 40_000) == pytest.approx(0.25)
    assert value("relevance-rank", found) == 1
    assert value("mask-auc", found) == 1
    assert value("mask-ap", found) == pytest.approx(1)
    assert value("mask-iou", found) == 1
    exact = truth(mask.astype(float), mask)
    assert value("relevance-mass", exact) == 1
    assert value("mass-over-share", exact) == pytest.approx(5.0176)
    assert value("mass-over-share", truth([0.0] * 124 + [1.0] * 100, [False] * 124 + [True] * 100)) == pytest.approx(
        2.24
    )
    nowhere = truth((~mask).astype(float), mask)
    assert value("relevance-mass", nowhere) == value("relevance-rank", nowhere) == 0


def test_half_of_the_top_of_a_line_lies_in_its_mask():
    heat = np.r_[np.linspace(2, 1, 100), np.zeros(124)]
    found = truth(heat, [True] * 100 + [False] * 124)
    assert top_share(found, 100) == 1
    assert top_share(found, 200) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "name", ["pointing-game", "strict-pointing-game", "relevance-mass", "relevance-rank", "mask-iou"]
)
def test_a_frame_of_zeros_changes_nothing_in_space(name):
    heat, mask = noise(6, 6).abs().numpy(), noise(6, 6, seed=2).numpy() > 0.3
    clip, inside = np.stack([heat, np.zeros((6, 6))]), np.stack([mask, np.zeros((6, 6), bool)])
    assert value(name, truth(clip, inside)) == pytest.approx(value(name, truth(heat, mask)))


def test_an_empty_mask_is_never_hit():
    empty = truth(noise(8, 8).numpy(), np.zeros((8, 8), bool))
    for m in as_metrics("localisation"):
        assert m.measure(empty) == 0, m.name


def test_negative_relevance_is_no_mass():
    assert value("relevance-mass", truth([1.0, -5.0, 1.0], [True, False, False])) == pytest.approx(0.5)


def test_areas_and_precision_are_scikit_learns():
    from sklearn.metrics import average_precision_score, roc_auc_score

    heat = np.round(noise(9, 9).numpy(), 1)  # with ties
    mask = noise(9, 9, seed=2).numpy() > 0.5
    found = truth(heat, mask)
    assert value("mask-auc", found) == pytest.approx(roc_auc_score(mask.ravel(), heat.ravel()))
    assert value("mask-ap", found) == pytest.approx(average_precision_score(mask.ravel(), heat.ravel()))


def test_overlap_is_the_best_over_thresholds():
    heat, mask = noise(6, 6).numpy(), noise(6, 6, seed=2).numpy() > 0.3
    best = max((mask & (heat >= t)).sum() / (mask | (heat >= t)).sum() for t in heat.ravel())
    assert value("mask-iou", truth(heat, mask)) == pytest.approx(best)


def test_what_the_model_never_saw_does_not_count():
    heat = np.array([[np.nan, 2.0], [1.0, 0.0]])
    found = truth(heat, [[True, False], [True, False]])
    assert value("relevance-mass", found) == pytest.approx(1 / 3)
    assert value("strict-pointing-game", found) == 0


# --- complexity


def test_entropy_and_gini_of_the_extremes():
    flat, spot = torch.ones(7, dtype=torch.float64), torch.eye(7, dtype=torch.float64)[2]
    assert value("entropy", MapValues(flat)) == pytest.approx(math.log(7))
    assert value("entropy", MapValues(spot)) == pytest.approx(0)
    assert value("sparseness", MapValues(flat)) == pytest.approx(0)
    assert value("sparseness", MapValues(spot)) == pytest.approx(1 - 1 / 7)
    assert value("sparseness", MapValues(-3 * spot)) == pytest.approx(1 - 1 / 7)
    assert value("effective-complexity", MapValues(spot)) == pytest.approx(1 / 7)
    assert value("histogram-entropy", MapValues(flat)) == 0
    assert value("histogram-entropy", MapValues(torch.arange(10, dtype=torch.float64))) == pytest.approx(math.log(10))


# --- robustness and randomisation


def nearby(plain, maps, inputs=None, moved=None):
    plain, maps = torch.as_tensor(plain, dtype=torch.float64), torch.as_tensor(maps, dtype=torch.float64)
    inputs = torch.ones(2, dtype=torch.float64) if inputs is None else inputs
    moved = inputs * 1.5 if moved is None else moved
    return NearbyMaps(plain, maps, inputs, moved.expand(len(maps), -1), inputs, moved.expand(len(maps), -1))


def test_sensitivity_of_constant_and_of_changing_maps():
    constant = nearby([1.0, 2.0], [[1.0, 2.0], [1.0, 2.0]])
    for name in ("max-sensitivity", "avg-sensitivity", "lipschitz", "ris", "ros"):
        assert value(name, constant) == 0
    found = nearby([3.0, 4.0], [[3.0, 4.0], [6.0, 8.0]])
    assert value("max-sensitivity", found) == pytest.approx(1)  # over the size of the map, not of the input
    assert value("avg-sensitivity", found) == pytest.approx(0.5)
    assert value("lipschitz", found) == pytest.approx(5 / math.sqrt(0.5))
    ones, zeros = torch.ones(64), torch.zeros(64)
    assert value("lipschitz", nearby(ones, zeros[None], ones, ones + 1 / 8)) == pytest.approx(8)
    assert value("ris", found) == pytest.approx(math.sqrt(2) / math.sqrt(0.5))


def test_the_gradient_of_a_linear_model_never_changes():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2 * 6 * 6, 3)).eval()
    found = pl.evaluate(pl.wrap(net), noise(2, 2, 6, 6), "saliency", "max-sensitivity,avg-sensitivity,lipschitz,ris")
    assert found.scores[0] == pytest.approx(0, abs=1e-6)


def test_similarity_of_the_same_and_of_the_opposite():
    plain = noise(5, 5)
    assert spearman(plain, 3 * plain + 1) == pytest.approx(1)
    assert spearman(plain, -plain) == pytest.approx(-1)


def test_randomisation_leaves_the_model_itself_out():
    """The similarity of the map with itself is 1, and no stage of the cascade."""
    plain = noise(5, 5)
    assert value("mprt", CascadedMaps(plain, (plain, plain))) == pytest.approx(1)
    blind = tuple(noise(5, 5, seed=k) for k in range(1, 60))
    assert value("mprt", CascadedMaps(plain, blind)) < 0.35
    assert value("mprt-last", CascadedMaps(plain, (noise(5, 5, seed=3), -plain))) == pytest.approx(1)
    spot, flat = torch.eye(4)[0], torch.ones(4)
    assert value("emprt", CascadedMaps(torch.tensor([1.0, 1, 0, 0]), (spot, flat))) == pytest.approx(1)


def test_every_metric_says_what_it_is():
    for m in METRICS.values():
        assert m.about.endswith("."), m.name
        assert m.paper, m.name
        assert m.better in ("higher", "lower")


def test_the_nearest_place_of_few_pairs_and_of_many():
    rng = np.random.default_rng(0)
    for few, many in ((3, 40), (90, 200)):  # by pairs, by a tree
        points, places = rng.integers(0, 50, (few, 2)), rng.integers(0, 50, (many, 2))
        expected = [min(math.dist(p, q) for q in places) for p in points]
        assert located._nearest(points, places) == pytest.approx(expected)
