"""Intervals of means: rows in memory and rows that come one after the other, against theory and each other."""

import numpy as np
import pytest
import torch
from scipy import stats

from pellucid.numerics.statistics import RowMean, half_width, row_mean


def streamed(rows):
    mean = RowMean()
    for row in rows:
        mean.add(row)
    return mean.interval()


def test_moments_stream_and_need_no_row_twice():
    rows = torch.rand(50, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64) ** 3 + 1e3
    mean = RowMean()
    for row in rows:
        mean.add(row)
    values = rows.numpy()
    np.testing.assert_allclose(mean.mean, values.mean(0))
    np.testing.assert_allclose(mean.variance, values.var(0, ddof=1) / 50)
    third = ((values - values.mean(0)) ** 3).sum(0) * 50 / (49 * 48) / 50**2  # k3 / n^2
    np.testing.assert_allclose(mean.third, third, rtol=1e-6)


def test_of_two_rows_the_interval_is_students():
    rows = torch.tensor([[1.0, 4.0], [2.0, 4.0]])
    mean, low, high = streamed(rows)
    expected = stats.t.interval(0.95, 1, loc=1.5, scale=0.5)
    np.testing.assert_allclose([low[0], high[0]], expected)
    assert (mean[1], low[1], high[1]) == (4, 4, 4)


def test_welchs_interval_of_a_difference():
    generator = torch.Generator().manual_seed(0)
    one, two = RowMean(), RowMean()
    half = torch.randn(3, 1, generator=generator, dtype=torch.float64)
    a = torch.cat([half, -half]) + 2  # symmetric, so that there is no skewness to correct
    b = torch.cat([3 * half[:2], -3 * half[:2]])
    for mean, rows in ((one, a), (two, b)):
        for row in rows:
            mean.add(row)
    found = one.less(two)
    expected = stats.ttest_ind(a[:, 0], b[:, 0], equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose([found[1][0], found[2][0]], [expected.low, expected.high])


@pytest.mark.parametrize("count", [2, 3, 5, 10, 30])
@pytest.mark.parametrize("law", ["normal", "exponential", "two-sided"])
def test_intervals_over_rows_hold_their_rate(law, count):
    """4000 means each, so a rate of 95 % is seen within 0.7 % in 19 of 20 cases."""
    draws = np.random.default_rng(count)
    rows = {
        "normal": lambda size: draws.normal(size=size),
        "exponential": lambda size: draws.exponential(size=size) - 1,
        "two-sided": lambda size: draws.laplace(size=size),
    }[law]((count, 4000))
    _, low, high = streamed(torch.from_numpy(rows))
    covered = ((low <= 0) & (high >= 0)).double().mean()
    # Two or three rows show no skewness, and Student's factors are wide for them.
    least, most = (0.89, 0.985) if count < 5 else (0.93, 0.98)
    assert least <= covered <= most


def test_half_width_is_students_and_pools():
    error = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    np.testing.assert_allclose(half_width(error, 3)[:, 0], stats.t.ppf(0.975, 3) * np.array([1, 3]))
    pooled = np.sqrt((3 * np.array([1, 9]) + 5) / 4)
    np.testing.assert_allclose(half_width(error, 3, pooled=True)[:, 0], stats.t.ppf(0.975, 4) * pooled)
    assert half_width(error, 0).isnan().all()
    np.testing.assert_allclose(half_width(error, torch.inf), 1.959964 * error)


def test_a_single_row_has_no_interval():
    mean, low, high = streamed(torch.tensor([[2.0, 3.0]]))
    assert mean.tolist() == [2.0, 3.0]
    assert torch.isnan(low).all()
    assert torch.isnan(high).all()
    mean, low, high = row_mean([[2.0, 3.0]])
    assert mean.tolist() == [2.0, 3.0]
    assert np.isnan([low, high]).all()
