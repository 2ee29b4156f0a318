"""Rows at length 1."""

import numpy as np

from pellucid.numerics.directions import directions


def test_rows_have_length_one_keep_their_direction_and_their_precision():
    rows = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    rows[2] = 0
    found = directions(rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose([np.sqrt(sum(v * v for v in row)) for row in found], [1, 1, 0, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(found[0] / found[0, 0], rows[0] / rows[0, 0], rtol=1e-5)
