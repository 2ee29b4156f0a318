"""What feature visualisation, importance and concepts leave behind: nothing, as the heat maps."""

import random
import subprocess
import sys

import pytest
import torch

import pellucid as pl
from helpers.cases import pixels, save
from helpers.nets import noise
from helpers.traces import ERRORS, Failing, busy, failing_target, raised_by_a_model, state
from pellucid.errors import PellucidError
from pellucid.features import PARAMETRISATIONS, Channel, Settings, TotalVariation, synthesise
from pellucid.features.activations import activation_maps
from pellucid.features.atlas import make_atlas
from pellucid.features.exemplars import Selection, find_exemplars
from pellucid.features.measures import ByActivation, ByRelevance, ByScore
from pellucid.importance import (
    Blocks,
    Channels,
    FrequencyBands,
    Patches,
    Superpixels,
    Tokens,
    get_estimator,
    measure,
)
from pellucid.importance.exchange import exchange
from pellucid.models.layers import Layer
from pellucid.models.layouts import Layout
from pellucid.models.model import VisionModel
from pellucid.models.preprocess import Preprocess
from pellucid.models.targets import Class, as_target
from pellucid.scoring.job import prepare

GRID = Layout("channels-first", (6, 6), 6)  # of the layer `tail`, whose zeros prove nothing


def synthesis(net, target=1, **settings):
    """A class and a unit, through views, with alpha and a regulariser; the picture model is made anew each time."""
    model = VisionModel(net, Preprocess(input_size=(24, 24), mean=(0, 0, 0), std=(1, 1, 1)))
    quick = Settings(**({"steps": 3, "views": 2, "alpha": "gradient"} | settings))
    return synthesise(model, [target, Channel("tail", 2, layout=GRID) - 0.1 * TotalVariation()], quick)


@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_syntheses_leave_none_either(name):
    """After success, an error or a cancel in the forward pass or the objective, and a refusal."""
    net, x = busy()
    before = state(net, x)
    found = synthesis(net, parametrisation=PARAMETRISATIONS[name]())
    assert not any(t.requires_grad for s in found for t in (s.picture, s.input, s.alpha))
    assert state(net, x) == before
    for error in ERRORS.values():
        for at in (1, 3, 5):  # bound, on the way, measured at the end
            with pytest.raises(type(error)):
                synthesis(net, failing_target(error, at), parametrisation=PARAMETRISATIONS[name]())
            assert state(net, x) == before
    with pytest.raises(PellucidError):
        synthesis(net, 99)
    assert state(net, x) == before
    Failing.passes, Failing.at, Failing.error = 0, 0, ERRORS["cancel"]
    net, x = busy(Failing)
    synthesis(net, parametrisation=PARAMETRISATIONS[name]())
    last, Failing.passes = Failing.passes, 0
    before = state(net, x)
    for at in (1, last - 2, last):
        Failing.passes, Failing.at = 0, at
        with pytest.raises(KeyboardInterrupt):
            synthesis(net, parametrisation=PARAMETRISATIONS[name]())
        assert state(net, x) == before


def test_syntheses_wake_dead_units_without_a_trace():
    net, x = busy()
    with torch.no_grad():
        net.body[1].bias.fill_(-100)  # everything behind the first rectifier is silent
    before = state(net, x)
    found = synthesis(net)
    assert found[1].facts["rescued_steps"] == 3
    assert state(net, x) == before


def looks(net, folder, error=None, at=0):
    """Everything that looks at units of natural pictures: search, relevance, receptive field, maps, atlas."""
    model = net_model(net)
    layer = Layer("tail", "", GRID, 1.0)
    target = as_target(failing_target(error, at)) if error else Class(1)
    x = noise(1, 3, 24, 24)
    return [
        find_exemplars(model, folder, ByActivation(layer), Selection(top=2, bottom=1), cache=False, batch=2),
        find_exemplars(model, folder, ByRelevance(layer, (1,), target=target), Selection(top=2), cache=False, batch=2),
        find_exemplars(model, folder, ByScore(layer, target), Selection(top=2), cache=False, batch=2),
        activation_maps(model, x, [layer], by="relevance", target=1),
        make_atlas(model, folder, layer, size=2, projection="pca", samples=12, least=1),
    ]


@pytest.fixture
def few_pictures(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png", pixels(24, 24, seed=i))
    return tmp_path


def test_looking_at_natural_pictures_leaves_none_either(few_pictures):
    """After success, after an error or a cancel in a pass or in the target, and after a refusal."""
    net, x = busy()
    before = state(net, x)
    looks(net, few_pictures)
    assert state(net, x) == before
    for error in ERRORS.values():
        for at in (1, 2, 4):
            with pytest.raises(type(error)):
                looks(net, few_pictures, error, at)
            assert state(net, x) == before
    with pytest.raises(PellucidError):
        find_exemplars(net_model(net), few_pictures / "none", ByActivation(Layer("tail", "", GRID, 1.0)), cache=False)
    assert state(net, x) == before
    Failing.passes, Failing.at, Failing.error = 0, 0, ERRORS["cancel"]
    net, x = busy(Failing)
    looks(net, few_pictures)  # finds what is kept for later
    Failing.passes = 0
    looks(net, few_pictures)
    last = Failing.passes
    before = state(net, x)
    for at in range(1, last + 1, 3):
        Failing.passes, Failing.at = 0, at
        with pytest.raises(KeyboardInterrupt):
            looks(net, few_pictures)
        assert state(net, x) == before


def net_model(net):
    return VisionModel(net, Preprocess(input_size=(24, 24), resize=24, mean=(0, 0, 0), std=(1, 1, 1)))


IMPORTANCE = {
    "superpixels by shapley": (Superpixels(segments="grid", count=9), "shapley", None),
    "patches by gradient": (Patches(count=4), "gradient", None),
    "frequencies by conductance": (FrequencyBands(count=3), "conductance", None),
    "channels by ablation": (Channels(layer="tail.0", removal="mean"), "ablation", None),
    "channels by conductance": (Channels(layer="body"), "conductance", None),
    "tokens by gradient": (Tokens(layer="tail.1"), "gradient", None),
    "layers by ablation": (Blocks(layers=("body", "tail.0", "fc")), "ablation", None),
    "layers exchanged": (Blocks(layers=("body", "tail.0")), "permutation", noise(1, 3, 24, 24, seed=5)),
    "channels exchanged": (Channels(layer="body"), "permutation", noise(1, 3, 24, 24, seed=5)),
}


@pytest.mark.parametrize("name", IMPORTANCE)
def test_importance_leaves_none(name):
    """After success, and after an error or a cancel in the first and in the last score."""
    players, by, donor = IMPORTANCE[name]

    def run(net, x, target):
        job = prepare(net, x[:1], [target])
        return measure(players, get_estimator(by), job) if donor is None else exchange(players, [donor], job)

    harmless = failing_target(None, 0)
    net, x = busy()
    before = state(net, x)
    assert run(net, x, harmless).values.isfinite().all()
    assert state(net, x) == before
    for error in ERRORS.values():
        for at in (1, harmless.calls[0]):
            with pytest.raises(type(error)):
                run(net, x, failing_target(error, at))
            assert state(net, x) == before


@pytest.fixture
def classes(tmp_path):
    """Three folders of eight pictures, bright, dark and striped."""
    for i in range(8):
        noisy = pixels(24, 24, seed=i)
        striped = noisy.copy()
        striped[::4] = 255
        for name, shown in (("bright", 128 + noisy // 2), ("dark", noisy // 3), ("striped", striped)):
            save(tmp_path / name / f"{i}.png", shown)
    return tmp_path


CONCEPTS = {
    "concepts": lambda model, folder: pl.concepts(model, folder, "body.0", "semi-nmf", count=3, cache=None),
    "an autoencoder's": lambda model, folder: pl.concepts(
        model, folder, "body.0", "sae", count=4, active=2, epochs=1, stable=False, cache=None
    ),
    "tcav": lambda model, folder: pl.tcav(
        model, folder, folder / "bright", random=folder / "dark", layer="body.0", target=1, cache=None
    ),
    "a tree of concepts": lambda model, folder: pl.distill(
        folder, "tree", model=model, concepts="semi-nmf", count=3, layer="body.0", cache=None
    ),
    "a bottleneck": lambda model, folder: pl.distill(
        folder, "bottleneck", model=model, count=3, layer="body.0", cache=None
    ),
    "prototypes": lambda model, folder: pl.distill(folder, "prototypes", model=model, layer="body.0", cache=None),
    "a B-cos head": lambda model, folder: pl.distill(folder, "bcos", model=model, layer="body.0", cache=None),
}


@pytest.mark.parametrize("name", CONCEPTS)
def test_concepts_and_readable_models_leave_none(name, classes):
    """After success, and after an error or a cancel in the first, the middle and the last pass."""

    def run(net):
        return CONCEPTS[name](VisionModel(net, Preprocess(input_size=(24, 24), mean=(0, 0, 0), std=(1, 1, 1))), classes)

    Failing.passes, Failing.at = 0, 0
    net, x = busy(Failing)
    before = state(net, x)
    run(net)
    passes = Failing.passes
    assert passes
    assert state(net, x) == before
    for error in ERRORS.values():
        for at in sorted({1, passes // 2, passes}):
            net, x = busy(Failing)  # what is found out about a net is remembered
            Failing.passes, Failing.at, Failing.error = 0, at, error
            before = state(net, x)
            with raised_by_a_model(error):
                run(net)
            assert state(net, x) == before


def test_the_first_import_draws_no_random_number_of_the_callers():
    """Rich, which scikit-learn imports, draws one."""
    code = "import random; random.seed(1); import pellucid as pl; pl.distill, pl.concepts; print(random.random())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(said) == random.Random(1).random()
