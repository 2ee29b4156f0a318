"""Intervals of means: rows in memory and rows that come one after the other, against theory and each other."""

import numpy as np
import torch

from pellucid.engine.statistics import Bootstrap, bootstrap_mean


def streamed(rows, **options):
    drawn = Bootstrap(len(rows), **options)
    for row in rows:
        drawn.add(row)
    return drawn.interval()


def test_bootstrap_streams_and_needs_no_row_twice():
    rows = torch.randn(50, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + torch.arange(4)
    mean, low, high = streamed(rows, draws=4000)
    assert torch.allclose(mean, rows.mean(0))
    expected = rows.std(0) / 50**0.5  # the normal approximation, with which a percentile bootstrap nearly agrees
    assert torch.allclose((high - low) / 2, 1.96 * expected, rtol=0.1)
    kept = bootstrap_mean(rows.numpy(), draws=4000)
    for one, other in zip((mean, low, high), kept, strict=True):  # other draws of the same law
        np.testing.assert_allclose(one.numpy(), other, atol=0.05)


def test_bootstrap_intervals_cover_the_mean_at_about_their_rate():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for trial in range(200):
        rows = torch.randn(30, 1, generator=generator, dtype=torch.float64) + 1
        _, low, high = streamed(rows, draws=400, seed=trial)
        covered += bool(low[0] <= 1 <= high[0])
    assert 0.88 <= covered / 200 <= 0.98


def test_a_single_row_has_no_interval():
    mean, low, high = streamed(torch.tensor([[2.0, 3.0]]))
    assert mean.tolist() == [2.0, 3.0]
    assert torch.isnan(low).all()
    assert torch.isnan(high).all()
    mean, low, high = bootstrap_mean([[2.0, 3.0]])
    assert mean.tolist() == [2.0, 3.0]
    assert np.isnan([low, high]).all()
