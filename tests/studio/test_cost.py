"""How long something will take, said before: sentences read as numbers, and a model timed."""

import pytest

import pellucid as pl
from helpers.loops import run
from pellucid.heatmaps import METHODS, get_method
from pellucid.importance import ESTIMATORS
from pellucid.studio.cost import Pace, pace, players_costs
from pellucid.verbs.costs import PlannedPasses, planned
from report.cases import tiny

COSTS = {name: method.cost for name, method in METHODS.items()}
SIZES = {"channel": 100, "cell": 40, "window": 30, "segment": 20}


@pytest.mark.parametrize(("name", "forwards", "backwards"), [
    ("grad-cam", 1, 0.25),
    ("eigen-cam", 1, 0),
    ("score-cam", 100, 0),
    ("is-cam", 1000, 0),
    ("ablation-cam", 1 + 0.25 * 100, 0),
    ("recipro-cam", 1 + 0.25 * 40, 0),
    ("shapley-cam", 2, 0.5),
    ("smooth-grad-cam++", 8 + 2, 0.25 * 8),
    ("saliency", 1, 1),
    ("smooth-grad", 50, 50),
    ("guided-grad-cam", 2, 1.25),
    ("deep-lift-shap", 16, 8),  # counted: two forwards for each of 8 references
    ("lrp", 2, 2),
    ("idgi", 50, 50),
    ("integrated-decision-gradients", 100, 50),
    ("guided-ig", 150, 150),
    ("expected-gradients", 100, 50),
    ("occlusion", 30, 0),
    ("feature-ablation", 20, 0),
    ("rise", 1250, 0),
    ("vit-cx", 210, 0),
    ("lime", 1000, 0),
    ("sobol", 2112, 0),
    ("tis", 1024, 0),
    ("sufficient", 750, 0),
    ("necessary", 750, 0),
    ("shapley", 4096, 0),
    ("extremal-perturbation", 100, 100),
    ("igos++", 400, 400),
    ("transition-attention", 22, 21),
])  # fmt: skip
def test_a_sentence_is_read_as_passes(name, forwards, backwards):
    assert planned(get_method(name), COSTS, SIZES) == PlannedPasses(forwards, pytest.approx(backwards))


def test_settings_count_and_every_method_costs_something():
    assert planned(get_method("smooth-grad", samples=7), COSTS, SIZES) == PlannedPasses(7, 7)
    assert planned(get_method("lime", samples=70), COSTS, SIZES) == PlannedPasses(70, 0)
    assert planned(get_method("xrai"), COSTS, SIZES).forwards > planned(get_method("saliency"), COSTS, SIZES).forwards
    for name in METHODS:
        assert 1 <= planned(get_method(name), COSTS, SIZES).forwards <= 20_000, name


@pytest.mark.parametrize("name", ["grad-cam", "saliency", "smooth-grad", "blur-ig", "lime", "feature-ablation", "idgi"])
def test_what_is_planned_is_what_is_spent(name):
    model = tiny()
    spent = pl.explain(model, "sample:cat", name).record.run
    sizes = {**SIZES, "channel": 12, "cell": 144, "segment": 196}
    found = planned(get_method(name), COSTS, sizes)
    assert spent["forwards"] / 2 - 3 <= found.forwards <= 2 * spent["forwards"] + 3
    assert spent["backwards"] / 2 - 1 <= found.backwards <= 2 * spent["backwards"] + 1


def test_a_model_is_timed_and_left_as_it_was():
    model = tiny()
    before = model.fingerprint()
    found = pace(model, "sample:cat")
    assert found.forward > 0
    assert found.backward >= 0
    assert found.sizes["channel"] in (8, 12)
    assert model.fingerprint() == before
    assert Pace(0.5, 2.0, {}).seconds(PlannedPasses(3, 1)) == 3.5


def test_the_page_is_told_what_a_described_model_costs(app, visitor):
    app.studio.queue.described["net-a"]["costs"] = {"pass": 0.5, "methods": {"grad-cam": 2.0}}

    async def work():
        async with visitor() as made:
            return [(await made.get("/costs", params={"model": m})).json() for m in ("net-a", "net-b", "/etc/passwd")]

    assert run(work()) == [{"pass": 0.5, "methods": {"grad-cam": 2.0}}, {}, {}]


@pytest.mark.parametrize("by", ["ablation", "shapley", "kernel", "owen", "lime", "gradient"])
def test_importance_is_bounded_by_what_the_page_adds_up(by):
    model = tiny()
    costs = players_costs({"channel": 12, "cell": 144})
    assert costs["players"]["channels"] == 12
    players = {"count": 9} if by != "gradient" else {"count": 20}
    found = pl.importance(model, "sample:cat", "superpixels", by, **players)
    count = len(found.names)
    assert found.record.run["forwards"] + found.record.run["backwards"] <= costs["most"][by][count] + 3


def test_a_number_of_samples_costs_what_the_estimator_says():
    each = players_costs({"channel": 12, "cell": 144})["each"]
    for name, estimator in ESTIMATORS.items():
        if name in each and any(each[name]):
            alone, times = each[name]
            assert 300 * (alone + times * 40) == estimator(samples=300).cost(40, 4096), name
    assert {name for name, (alone, times) in each.items() if not alone and not times} == {"ablation", "gradient"}
