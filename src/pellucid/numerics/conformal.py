"""Split conformal prediction: a bound that holds for new cases, from the quantile of cases that were not chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pellucid.errors import PellucidError


def cases_needed(miss: float) -> int:
    """How many cases a bound needs that is missed by a share `miss` of new ones at most."""
    return math.ceil((1 - miss) / miss - 1e-9)


def conformal_bound(values: Sequence[float], miss: float) -> float:
    """The least bound that a new value exceeds with probability `miss` at most (Vovk et al. 2005).

    It is the `ceil((n + 1) (1 - miss))`-th smallest of n values that are exchangeable with the new one.

    Raises:
        PellucidError: no such share, or too few values, and how many are needed.
    """
    if not 0 < miss < 1:
        raise PellucidError(f"The guarantee is the share that may fail, between 0 and 1, such as 0.1; got {miss}.")
    rank = math.ceil((len(values) + 1) * (1 - miss) - 1e-9)
    if rank > len(values):
        raise PellucidError(
            f"{len(values)} calibration pictures are too few for a guarantee of {miss:g}: {cases_needed(miss)} are "
            "needed at least (each must be one that the model can read)."
        )
    return sorted(values)[rank - 1]
