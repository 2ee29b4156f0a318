"""How often `check()` is fooled by maps that know nothing, and how often it believes true ones."""

import pytest

pytest.importorskip("torch")

import torch
from benchmarks.blind import PLANTED, Rates, blind_maps, planted
from benchmarks.broken import NETWORKS, SOUND, Flagged, measured

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", PLANTED)
def test_blind_maps_are_not_believed_and_true_ones_are_whatever_the_seed(kind):
    found = Rates()
    for seed in range(20):
        found.add(planted(kind, seed), draws=10, seeds=20, salt=seed)
    blind = {name: found.accepted[name] for name in blind_maps(torch.Generator())}
    assert all(len(hits) == 200 for hits in blind.values())
    # A rate of 5 % gives 18 or more of 200 in about one run of a hundred.
    assert all(sum(hits) < 18 for hits in blind.values())
    rate = sum(map(sum, blind.values())) / 1000
    assert rate <= 0.05
    assert sum(found.accepted["integrated-gradients"]) >= 19
    # Where every pixel counts, no map is much better than itself moved: 18 of 20 were steady, against 20 elsewhere.
    assert sum(found.steady["integrated-gradients"]) >= (17 if kind == "all pixels count" else 19)
    assert sum(found.forwards) / len(found.forwards) <= 210


SEEN = (
    "wrong target",
    "sign flipped",
    "moved by a fifth",
    "transposed",
    "another picture",
    "edges",
    "constant",
    "another model",
)


def test_broken_explanations_are_flagged_and_sound_ones_are_not():
    flagged = Flagged()
    for case in NETWORKS["planted patterns"](4):
        flagged.add(measured(case))
    assert not any(flagged.found[SOUND])
    for how in SEEN:
        assert sum(flagged.found[how]) == 4, how
