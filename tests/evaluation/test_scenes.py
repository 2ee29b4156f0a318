"""Scenes: what a part adds is found by drawing every coalition of parts, and the metrics of parts read it right."""

import itertools
import math

import pytest
import torch

from pellucid.errors import MethodError
from pellucid.evaluation.banks import PartSums
from pellucid.evaluation.banks.parts import RivalMaps, SceneContrasts
from pellucid.evaluation.metrics import METRICS, as_metrics
from pellucid.evaluation.suites.scenes import (
    OF_CLASSES,
    PARTS,
    SceneClasses,
    SceneDetectors,
    keeps_score,
    names,
    scenes,
)
from pellucid.verbs.evaluate_suite import evaluate_suite

COUNT = len(PARTS)


@pytest.fixture(scope="module")
def scored():
    net = SceneDetectors().eval()

    def score(x):
        with torch.no_grad():
            return net(x)[:, 1].double()

    return score


def test_shapley_values_of_parts_are_the_mean_over_all_orders_in_which_they_are_drawn(scored):
    (scene,) = scenes(1, seed=3)
    rows = torch.tensor(list(itertools.product((0, 1), repeat=COUNT)))
    worth = dict(zip(map(tuple, rows.tolist()), scored(scene.drawn(rows)).tolist(), strict=True))
    total = [0.0] * COUNT
    for order in itertools.permutations(range(COUNT)):
        there = [0] * COUNT
        for part in order:
            before = worth[tuple(there)]
            there[part] = 1
            total[part] += worth[tuple(there)] - before
    expected = torch.tensor(total, dtype=torch.float64) / math.factorial(COUNT)
    torch.testing.assert_close(scene.values(scored), expected, rtol=1e-5, atol=1e-5)


def test_parts_add_up_to_the_score_and_what_says_nothing_adds_nothing(scored):
    for scene in scenes(3):
        values = scene.values(scored)
        rise = scored(scene.whole[None]) - scored(scene.ground[None])
        assert float(values.sum()) == pytest.approx(float(rise), abs=1e-5)
        named = names(values)
        assert abs(named["ring"]) < 1e-6
        assert abs(named["body"]) < 1e-6
        assert named["head"] > 0 > named["foot"]
        assert float(scene.spread(values).sum()) == pytest.approx(float(rise), abs=1e-4)


def test_no_part_has_a_value_of_its_own(scored):
    (scene,) = scenes(1)
    one = scored(scene.drawn(torch.eye(COUNT))) - scored(scene.ground[None])
    wing = [p.name for p in PARTS].index("wing")
    assert abs(float(one[wing])) < 1e-6
    assert names(scene.values(scored))["wing"] > 0.3


def test_without_a_part_what_lies_behind_it_is_seen():
    (scene,) = scenes(1, seed=1)
    for k in range(COUNT):
        there = torch.ones(1, COUNT)
        there[0, k] = 0
        without = scene.drawn(there)[0]
        torch.testing.assert_close(without[:, scene.labels != k], scene.whole[:, scene.labels != k])
        assert not torch.equal(without, scene.whole)
    torch.testing.assert_close(scene.drawn(torch.zeros(1, COUNT))[0], scene.ground)


def test_the_same_seed_draws_the_same_scenes_and_every_part_is_seen():
    for one, other in zip(scenes(2, 5), scenes(2, 5), strict=True):
        assert torch.equal(one.whole, other.whole)
        assert set(one.labels.unique().tolist()) == set(range(-1, COUNT))


def test_metrics_of_parts_by_hand():
    true = torch.tensor([0.0, 2.0, 1.0, -1.0])
    assert METRICS["part-correlation"].measure(PartSums(3 * true, true)) == pytest.approx(1)
    assert METRICS["part-rank-correlation"].measure(PartSums(-(true**3), true)) == pytest.approx(-1)
    assert METRICS["part-distraction"].measure(PartSums(torch.tensor([1.0, 1.0, -1.0, 1.0]), true)) == pytest.approx(
        1 / 4
    )
    assert METRICS["part-distraction"].measure(PartSums(true, true)) == 0
    assert math.isnan(METRICS["part-distraction"].measure(PartSums(torch.zeros(4), true)))


def test_the_oracle_of_parts_is_on_top_and_blind_maps_know_nothing():
    asked = "part-correlation,part-rank-correlation,part-distraction,mask-auc,relevance-mass"
    board = evaluate_suite("scene", "input-x-gradient", asked, count=6)
    means = {m: {k.name: v for k, v in zip(board.metrics, row, strict=True)} for m, row in
             zip(board.methods, board.means[:, :, 0].tolist(), strict=True)}  # fmt: skip
    assert means["oracle"]["part-correlation"] == pytest.approx(1)
    assert means["oracle"]["part-distraction"] < 1e-4
    assert board.order[0] == board.methods.index("oracle")
    assert board.recommended.name == "input-x-gradient", "the truth itself is no method to take"
    for blind in ("random order", "edges"):
        assert means[blind]["part-correlation"] < 0.5
        assert means[blind]["part-distraction"] > 0.25
    assert 0.3 < means["random order"]["mask-auc"] < 0.7
    assert means["edges"]["relevance-mass"] < means["input-x-gradient"]["relevance-mass"]


def test_metrics_of_parts_are_of_scenes_alone():
    assert not any(m.bank.parts for m in as_metrics("all", masks=True, oracle=True))
    assert sum(m.bank.parts for m in as_metrics("all", masks=True, oracle=True, parts=True)) == 8
    board = evaluate_suite("single", "saliency", "part-correlation,mask-auc", count=1)
    assert any("--suite scene" in sentence for _, _, sentence in board.said)
    with pytest.raises(MethodError, match="oracle"):
        evaluate_suite("scene", "oracle", count=1)


def test_a_method_that_follows_the_model_tells_the_twin_apart_and_edges_do_not():
    asked = "model-contrast,input-dependence,input-independence"
    board = evaluate_suite("scene", "input-x-gradient", asked, count=3)
    means = {m: dict(zip([k.name for k in board.metrics], row, strict=True)) for m, row in
             zip(board.methods, board.means[:, :, 0].tolist(), strict=True)}  # fmt: skip
    assert means["input-x-gradient"]["model-contrast"] > 0.1
    assert means["edges"]["model-contrast"] == pytest.approx(0)
    assert means["input-x-gradient"]["input-dependence"] > means["edges"]["input-dependence"] == 0
    assert means["input-x-gradient"]["input-independence"] == 1
    assert means["edges"]["input-independence"] == 0
    assert any("no other model" in text for method, _, text in board.said if method == "oracle")


def test_what_is_lost_without_a_part_is_drawn_without_it(scored):
    (scene,) = scenes(1)
    whole = scored(scene.whole[None])
    for k in range(COUNT):
        there = torch.ones(1, COUNT)
        there[0, k] = 0
        assert float(scene.drops(scored)[k]) == pytest.approx(float(whole - scored(scene.drawn(there))), abs=1e-6)
    true = torch.tensor([0.0, 2.0, 1.0, -1.0])
    assert METRICS["part-single-deletion"].measure(PartSums(true**3, true)) == pytest.approx(1)
    assert METRICS["part-single-deletion"].measure(PartSums(torch.tensor([1.0, 0.0, 2.0, 3.0]), true)) == pytest.approx(
        -0.8
    )


def test_a_network_that_does_not_heed_the_background_is_independent_of_it(scored):
    drawn = scenes(3)
    assert all(keeps_score(scene, scored) for scene in drawn)

    def of_red(x):
        return (x[:, 0] - x[:, 1]).relu().sum((1, 2))  # the ring is red

    assert not any(keeps_score(scene, of_red) for scene in drawn)
    board = evaluate_suite("scene", "saliency", "mask-auc", count=3)
    assert "Without the part in the background the network keeps its score in 3 of 3 scenes." in board.notes


def test_a_map_for_each_of_two_classes_is_told_from_one_map_for_both():
    for scene in scenes(3):
        for k, parts in enumerate(OF_CLASSES):  # each class loses by its own parts; by others it may come to light
            lost = scene.drops(lambda x, k=k: SceneClasses()(x)[:, k])
            assert [p for p in range(COUNT) if float(lost[p]) > 1e-3] == list(parts)
    places = torch.tensor([[1, 1, 0], [0, 0, 1]]).bool()
    for maps, expected in (
        ([[1.0, 1, 0], [0, 0, 1]], 1.0),
        ([[1.0, 1, 3], [1, 1, 3]], 0.5),
        ([[0.0, 0, 1], [1, 1, 0]], 0.0),
        ([[0.0, 0, 0], [0, 0, 0]], 0.0),
    ):
        assert METRICS["target-sensitivity"].measure(RivalMaps(torch.tensor(maps).double(), places)) == expected
    board = evaluate_suite("scene", "input-x-gradient", "target-sensitivity", count=3)
    assert board["input-x-gradient", "target-sensitivity"].tolist() == [1.0, 1.0, 1.0]
    assert set(board["edges", "target-sensitivity"].tolist()) <= {0.0, 0.5}


def test_contrasts_by_hand():
    here, there = torch.tensor([True, False, False]), torch.tensor([False, True, False])
    found = SceneContrasts(
        torch.tensor([2.0, 1.0, 1.0]), torch.tensor([1.0, -3.0, 0.0]), torch.tensor([2.0, 0.9, 1.0]), here, there
    )
    assert METRICS["model-contrast"].measure(found) == pytest.approx(1 / 2 - 1 / 4)
    assert METRICS["input-dependence"].measure(found) == 0
    assert METRICS["input-independence"].measure(found) == 1
