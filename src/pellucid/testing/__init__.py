"""The contract that every method, kind of players, estimator, metric and target keeps, as checks that anyone can run.

    from pellucid.testing import check_method
    check_method(MyMethod())

A check raises an `AssertionError` that says which promise was broken. It needs no test framework; in a test of
pytest, one call is one test.
"""

from pellucid.testing.estimators import check_estimator
from pellucid.testing.methods import check_method
from pellucid.testing.metrics import check_metric
from pellucid.testing.networks import Busy, BusyClip
from pellucid.testing.players import check_players
from pellucid.testing.rules import check_rule
from pellucid.testing.snapshot import differences, snapshot
from pellucid.testing.targets import check_target

__all__ = [
    "Busy",
    "BusyClip",
    "check_estimator",
    "check_method",
    "check_metric",
    "check_players",
    "check_rule",
    "check_target",
    "differences",
    "snapshot",
]
