"""Statistics against scipy, definitions and values that are known."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from pellucid.evaluation.metrics.registry import MetricFacts
from pellucid.evaluation.ranking import leads, ranking, recommend
from pellucid.numerics.agreement import krippendorff, mean_interval, paired_test, sample_ranks
from pellucid.numerics.ranks import mid_ranks, pearson, rank_correlation

RNG = np.random.default_rng(0)


def test_ranks_and_correlations_are_scipys():
    rows = np.round(RNG.normal(size=(4, 30)), 1)  # with ties
    ranks = mid_ranks(torch.from_numpy(rows)).numpy() + 0.5
    assert np.array_equal(ranks, stats.rankdata(rows, axis=1))
    other = np.round(RNG.normal(size=(4, 30)), 1)
    a, b = torch.from_numpy(rows), torch.from_numpy(other)
    for k in range(4):
        assert float(pearson(a, b)[k]) == pytest.approx(stats.pearsonr(rows[k], other[k])[0])
        assert float(rank_correlation(a, b)[k]) == pytest.approx(stats.spearmanr(rows[k], other[k])[0])
    assert float(pearson(torch.full((5,), 0.1), torch.arange(5.0))) == 0


def test_paired_tests_are_scipys():
    a, b = RNG.normal(0.3, 1, 25), RNG.normal(0, 1, 25)
    found = paired_test(np.append(a, np.nan), np.append(b, 1.0))
    assert found.p == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert found.wins == pytest.approx((a > b).mean())
    assert found.count == 25
    assert found.difference == pytest.approx((a - b).mean())
    assert found.low < found.difference < found.high
    assert paired_test(a, a).p == 1
    assert paired_test([np.nan], [1.0]).count == 0


def test_intervals_of_few_values_hold_students():
    values = RNG.normal(size=12)
    mean, low, high = mean_interval(values)
    t_low, t_high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((t_low, t_high), rel=1e-5)
    assert np.isnan(mean_interval([1.0])[1])


def test_intervals_of_many_values_are_the_bootstraps():
    values = RNG.exponential(size=200)
    _, low, high = mean_interval(values)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def definition(ratings):
    """Alpha as the share of disagreement within units over that between all values, pair by pair."""
    units = [[v for v in column if np.isfinite(v)] for column in np.asarray(ratings, float).T]
    units = [u for u in units if len(u) >= 2]
    every = [v for u in units for v in u]
    pairs = [sum((a - b) ** 2 for a, b in itertools.permutations(u, 2)) / (len(u) - 1) for u in units]
    observed = sum(pairs) / len(every)
    expected = sum((a - b) ** 2 for a, b in itertools.permutations(every, 2)) / (len(every) * (len(every) - 1))
    return 1 - observed / expected


def test_krippendorffs_alpha():
    n = np.nan
    known = [  # the example of Krippendorff 2011, interval data: 0.849
        [1, 2, 3, 3, 2, 1, 4, 1, 2, n, n, n],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, n, 3],
        [n, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, n],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, n],
    ]
    assert krippendorff(known) == pytest.approx(0.849, abs=5e-4)
    assert krippendorff(known) == pytest.approx(definition(known))
    ratings = RNG.normal(size=(3, 40))
    assert krippendorff(ratings) == pytest.approx(definition(ratings))
    assert krippendorff([ratings[0]] * 3) == pytest.approx(1)
    assert np.isnan(krippendorff([[1, 1], [1, 1]]))


def test_ranks_of_contestants():
    values = [[3.0, np.nan], [1.0, 2.0], [3.0, 5.0]]
    assert sample_ranks(values, higher=True).T.tolist()[0] == [1.5, 3, 1.5]
    assert np.isnan(sample_ranks(values, higher=True)[0, 1])
    assert sample_ranks(values, higher=False)[1].tolist() == [1, 1]


def test_values_that_rounding_tells_apart_are_ties():
    nan = np.nan
    values = np.array([[1.0, 5, nan, 2], [1 - 1e-9, 5, 3, 2.0004], [0.9995, 5, nan, 2.0008], [0.9, 5, nan, 1.0]])
    ranks = sample_ranks(values, higher=True, resolution=1e-3).T
    assert ranks[0].tolist() == [1.5, 1.5, 3, 4]
    assert ranks[1].tolist() == [2.5] * 4
    assert np.array_equal(ranks[2], [nan, 1, nan, nan], equal_nan=True)
    assert ranks[3].tolist() == [2, 2, 2, 4]
    assert sample_ranks(values, higher=False, resolution=1e-3).T[0].tolist() == [3.5, 3.5, 2, 1]
    plain = np.random.default_rng(1).normal(size=(7, 3, 4))
    assert np.array_equal(sample_ranks(plain, higher=True, resolution=1e-12), sample_ranks(plain, higher=True))


METRICS = [
    MetricFacts("srg", "faithfulness", "higher", ""),
    MetricFacts("deletion", "faithfulness", "lower", ""),
    MetricFacts("relevance-mass", "localisation", "higher", ""),
    MetricFacts("entropy", "complexity", "lower", ""),
]


def test_categories_count_alike_and_complexity_not_at_all():
    """`a` is best on both metrics of faithfulness, `b` on the one of localisation, `c` the simplest."""
    values = np.array([[[3.0], [1.0], [2.0], [9.0]], [[2.0], [2.0], [3.0], [8.0]], [[1.0], [3.0], [1.0], [1.0]]])
    found = {s.name: s.rank for s in ranking(values, METRICS, ["a", "b", "c"], [False] * 3).standings}
    assert found == {"a": 1.5, "b": 1.5, "c": 3.0}


def test_none_is_recommended_that_does_not_beat_the_anchors():
    better = RNG.normal(1, 0.1, (1, 1, 12))
    blind = RNG.normal(0, 0.1, (1, 1, 12))
    price = np.ones((2, 3, 12))
    facts = METRICS[:1]
    found = recommend(np.concatenate([better, blind]), facts, ["m", "anchor"], [False, True], price)
    assert found.name == "m"
    assert found.anchors["anchor"].p < 0.01
    assert found.failures == ()
    worse = recommend(np.concatenate([blind, better]), facts, ["m", "anchor"], [False, True], price)
    assert worse.name == ""
    assert len(worse.failures) == 12


def test_leads_are_signed_rank_tests_against_the_nearer_anchor():
    rng = np.random.default_rng(3)
    levels = np.array([2.0, 0.4, 0.3, 0.0])  # the third is an anchor, and so near to the second that it may be luck
    good = levels[:, None, None] + rng.normal(0, [[[0.1]], [[1.0]], [[1.0]], [[1.0]]], (4, 2, 14))
    values = np.round(good, 1) * [[[1], [-1]]]  # of deletion less is better
    facts, names, blind = METRICS[:2], ["m", "n", "edges", "random order"], [False, False, True, True]
    found = leads(values, facts, names, blind)
    sign = [1 if m.better == "higher" else -1 for m in facts]
    assert [m.category for m in facts] == ["faithfulness", "faithfulness"]
    ranks = np.mean([stats.rankdata(-sign[k] * values[:, k], axis=0) for k in range(2)], 0)
    ps = {}
    for name, row in zip(names, ranks, strict=True):
        if name in found:
            nearest = min(ranks[2:], key=lambda anchor, row=row: (anchor - row).mean())
            assert found[name].difference == pytest.approx((nearest - row).mean())
            ps[name] = max(stats.wilcoxon(anchor, row).pvalue for anchor in ranks[2:])
    low, high = sorted(ps.values())
    assert sorted(t.p for t in found.values()) == pytest.approx([2 * low, max(2 * low, high)])  # Holm
    assert list(found) == ["m", "n"]
    assert found["m"].p < 0.01 < 0.05 < found["n"].p
    assert leads(values, facts, names, [False] * 4) == {}
