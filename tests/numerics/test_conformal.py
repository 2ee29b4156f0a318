"""The bound holds for as many new cases as it promises, and says how many cases it needs."""

import math

import numpy as np
import pytest

from pellucid.errors import PellucidError
from pellucid.numerics.conformal import cases_needed, conformal_bound


@pytest.mark.parametrize(("miss", "needed"), [(0.1, 9), (0.2, 4), (0.05, 19), (0.5, 1), (0.3, 3)])
def test_how_many_are_needed(miss, needed):
    assert cases_needed(miss) == needed
    assert conformal_bound(list(range(needed)), miss) == needed - 1
    with pytest.raises(PellucidError, match=f"{needed} are needed"):
        conformal_bound(list(range(needed - 1)), miss)


def test_the_share_holds_in_simulation():
    """3,000 folders of 30 cases, a new case each: exactly 28 of 31 places are within the bound."""
    generator = np.random.default_rng(0)
    cases = generator.beta(2, 5, (3000, 31))
    held = np.mean([case[-1] <= conformal_bound(case[:-1], 0.1) for case in cases])
    expected = math.ceil(31 * 0.9) / 31
    assert held >= 0.9
    assert abs(held - expected) < 4 * math.sqrt(expected * (1 - expected) / 3000)
