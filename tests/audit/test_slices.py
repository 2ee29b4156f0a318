"""Slices against brute force, and the statistics of shares against statsmodels and closed forms."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binomtest, false_discovery_control

from pellucid.audit.columns import Columns
from pellucid.audit.slices import WeakSlice, best_slices, distinct, find, score
from pellucid.numerics.proportions import calibration_error, difference, interval, mcnemar
from pellucid.numerics.statistics import adjusted


@pytest.mark.parametrize("seed", range(20))
def test_the_best_slices_are_those_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    N, d, depth = 80, 9, 3
    values, sources = rng.random((N, d)) < 0.4, [f"s{j % 6}" for j in range(d)]
    errors = (rng.random(N) < 0.15) | (values[:, 0] & values[:, 4] & (rng.random(N) < 0.7))
    wanted = []
    for length in range(1, depth + 1):
        for literals in combinations(range(d), length):
            inside = values[:, list(literals)].all(1)
            if len({sources[j] for j in literals}) < length or inside.sum() < 5 or not (inside & errors).any():
                continue
            value = score(inside.sum(), (inside & errors).sum(), N, errors.sum())
            wanted += [(literals, value)] if value > 0 else []
    wanted.sort(key=lambda f: (-f[1], f[0]))
    found = best_slices(values, errors, sources, top=6, least=5, depth=depth)
    assert [v for _, v in found] == pytest.approx([v for _, v in wanted[:6]])
    assert {f for f, v in found if v > wanted[5][1] + 1e-9} == {f for f, v in wanted[:6] if v > wanted[5][1] + 1e-9}


def planted(seed, rate):
    """400 samples of ten literals; where the first two meet, `rate` are wrong, elsewhere a tenth."""
    rng = np.random.default_rng(seed)
    values = rng.random((400, 10)) < 0.35
    wrong = rng.random(400) < np.where(values[:, 0] & values[:, 1], rate, 0.1)
    names = tuple(f"c{j}" for j in range(10))
    return Columns(names, values, names), wrong


def test_a_planted_slice_is_found_and_where_none_is_few_are_claimed():
    known = np.ones(400, bool)
    for seed in range(10):
        columns, wrong = planted(seed, 0.75)
        first = find(columns, wrong, known, seed)[0]
        assert set(first.name.split(" and ")) & {"c0", "c1"}
        assert first.p < 0.01
        assert first.low > 0
    claimed = sum(any(s.p < 0.05 for s in find(*planted(100 + seed, 0.1), known, seed)) for seed in range(60))
    assert claimed <= 7  # 3 are expected, more than 7 in less than one time in 60


def test_a_slice_is_tested_on_the_half_that_it_was_not_found_on():
    """Where one half holds no error of it, the test has seen none."""
    columns, wrong = planted(3, 0.75)
    known = np.ones(400, bool)
    order = np.random.default_rng(0).permutation(400)
    wrong[order[200:]] = False
    assert all(s.p == 1 for s in find(columns, wrong, known, 0))


def test_no_slice_is_told_by_fewer_than_three_samples():
    """All five of a planted slice's samples that a half holds are wrong; the halves are drawn."""
    counts = []
    for seed in range(40):
        inside = np.arange(400) < 14
        columns = Columns(("few",), inside[:, None], ("few",))
        found = find(columns, inside | (np.arange(400) % 10 == 0), np.ones(400, bool), seed)
        counts += [s.count for s in found]
    assert min(counts) >= 3
    assert 3 in counts or 4 in counts


def test_of_slices_that_are_nearly_one_the_first_is_kept():
    def group(*members):
        return WeakSlice("", (), members, 1, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0)

    first, nearly, half, other = group(*range(10)), group(*range(1, 10)), group(*range(5, 20)), group(*range(20, 30))
    assert distinct([first, nearly, half, other]) == [first, half, other]
    assert distinct([]) == []


def test_benjamini_hochberg_is_that_of_statsmodels():
    statsmodels = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(0).random(40) ** 3
    np.testing.assert_allclose(adjusted(p, "bh"), statsmodels.multipletests(p, method="fdr_bh")[1])


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 9), (20, 20), (1, 30), (7, 0)])
def test_mcnemar_is_that_of_statsmodels(first, second):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    assert mcnemar(first, second) == pytest.approx(
        tables.mcnemar([[50, first], [second, 8]], exact=True).pvalue if first + second else 1.0
    )


def test_mcnemar_and_benjamini_hochberg_are_those_of_scipy():
    for first, second in ((0, 0), (3, 0), (7, 2), (5, 5), (40, 21)):
        wanted = binomtest(first, first + second).pvalue if first + second else 1.0
        assert mcnemar(first, second) == pytest.approx(wanted)
    p = np.random.default_rng(1).random(40) ** 3
    np.testing.assert_allclose(adjusted(p, "bh"), false_discovery_control(p))


def test_intervals_of_shares_are_those_of_statsmodels():
    stats = pytest.importorskip("statsmodels.stats.proportion")
    for hits, count in ((0, 10), (3, 17), (99, 100)):
        assert interval(hits, count) == pytest.approx(stats.proportion_confint(hits, count, method="wilson"))
    found = difference(56, 70, 48, 80)
    wanted = stats.confint_proportions_2indep(56, 70, 48, 80, method="newcomb")
    assert found == pytest.approx((0.2, *wanted))


def test_the_calibration_error_of_a_known_model():
    """Nine tenths sure and right six times in ten; four tenths sure and right as often."""
    confidence = np.r_[np.full(100, 0.9), np.full(50, 0.4)]
    right = np.r_[np.arange(100) < 60, np.arange(50) < 20]
    error, rows = calibration_error(confidence, right, bins=10)
    assert error == pytest.approx(100 / 150 * 0.3)
    assert rows == [pytest.approx((0.4, 0.4, 50)), pytest.approx((0.9, 0.6, 100))]
