"""The ascent itself: each picture as if alone, seeds, dead and broken networks, stopping, records."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional

from helpers.canvases import model_of
from helpers.nets import Output, Twice, noise, pooled, seeded
from pellucid.errors import LayerError, MethodError, ModelError, TargetError
from pellucid.features import (
    CPPN,
    MACO,
    PARAMETRISATIONS,
    Channel,
    Colours,
    Diversity,
    Fourier,
    Layer,
    Neuron,
    Pixel,
    Robustness,
    Settings,
    TotalVariation,
    activation,
    synthesise,
)
from pellucid.features.rectifiers import RedirectedRectifiers
from pellucid.models.blackbox import BlackBox
from pellucid.models.model import VisionModel

SIDE = 24
QUICK = {"steps": 12, "views": 2, "plateau": 0.0}


def small(channels=3, seed=0):
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(channels, 6, 5, 2), nn.BatchNorm2d(6), nn.GELU(), nn.Conv2d(6, 8, 3), nn.Tanh(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
        ).eval(),
        seed,
    )  # fmt: skip


@pytest.fixture
def model():
    return model_of(small(), (3, SIDE, SIDE), ("a", "b", "c", "d"))


def close(a, b, tolerance=2e-3):
    torch.testing.assert_close(a.picture, b.picture, atol=tolerance, rtol=0)
    torch.testing.assert_close(torch.tensor(a.history), torch.tensor(b.history), rtol=1e-3, atol=1e-4)
    assert a.reached == pytest.approx(b.reached, rel=1e-3, abs=1e-4)
    assert (a.objective, a.facts["steps"]) == (b.objective, b.facts["steps"])


@pytest.mark.parametrize(
    "parametrisation", [Pixel(), Fourier(), MACO(spectrum="synthetic"), CPPN()], ids=lambda p: p.name
)
def test_a_batch_of_three_is_three_runs_of_one(model, parametrisation):
    """Different layers, a class, noise on the views: nothing of a picture hangs on its neighbours."""
    settings = Settings(parametrisation=parametrisation, robustness=Robustness(noise=0.05), **QUICK)
    objectives = [Channel("3", 2), "c", Neuron("0", 1) - 0.3 * TotalVariation()]
    for together, objective in zip(synthesise(model, objectives, settings, seed=3), objectives, strict=True):
        close(together, synthesise(model, [objective], settings, seed=3)[0])


def test_many_go_in_chunks_and_micro_batches(model, monkeypatch):
    objectives = [Channel("3", c) for c in range(5)]
    settings = Settings(robustness=Robustness(noise=0.05), **QUICK)
    expected = synthesise(model, objectives, settings)
    monkeypatch.setattr("pellucid.features.optimise.default_batch", lambda _d: 3)
    monkeypatch.setattr("pellucid.features.passes.default_batch", lambda _d: 1)
    for a, b in zip(synthesise(model, objectives, settings), expected, strict=True):
        close(a, b)


@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_seeds_reproduce_bit_for_bit(model, name):
    settings = Settings(
        parametrisation=PARAMETRISATIONS[name](), robustness=Robustness(noise=0.1), alpha="gradient", **QUICK
    )
    first, again, other = (synthesise(model, ["a"], settings, seed=s)[0] for s in (5, 5, 6))
    assert torch.equal(first.picture, again.picture)
    assert torch.equal(first.alpha, again.alpha)
    assert first.history == again.history
    assert not torch.equal(first.picture, other.picture)
    torch.randn(3)
    assert first.seed == 5


@pytest.mark.parametrize("name", PARAMETRISATIONS)
@pytest.mark.parametrize("shape", [(1, 23, 31), (5, 17, 20), (3, 6, 19, 18)], ids=str)
def test_activations_rise_for_any_channels_sizes_and_clips(name, shape):
    net = pooled(len(shape) - 1, width=shape[0])
    m = model_of(net, shape, black=-1.0, white=1.0)
    settings = Settings(parametrisation=PARAMETRISATIONS[name](), steps=25, views=1, plateau=0.0)
    found, other = synthesise(m, [1, 2], settings)
    assert found.picture.shape == torch.Size(shape)
    assert float(found.picture.min()) >= 0
    assert float(found.picture.max()) <= 1
    torch.testing.assert_close(found.input, found.picture * 2 - 1)
    start = synthesise(m, [1], Settings(parametrisation=PARAMETRISATIONS[name](), steps=1, views=1))[0]
    assert found.reached > start.reached
    both = activation(m, torch.stack([found.input, other.input]), [1, 2])
    torch.testing.assert_close(both.diagonal(), torch.tensor([found.reached, other.reached]))
    assert both[0, 0] > both[0, 1]
    assert both[1, 1] > both[1, 0]
    with torch.no_grad():
        assert float(net(found.input[None])[0, 1]) == pytest.approx(found.reached, rel=1e-5)


def test_zoomed_canvases_are_larger_and_measured_at_the_models_size(model):
    settings = Settings(robustness=Robustness.crops(), zoom=1.5, alpha="gradient", **QUICK)
    (found,) = synthesise(model, ["a"], settings)
    assert found.picture.shape == (3, 36, 36)
    assert found.alpha.shape == (36, 36)
    assert found.input.shape == (3, SIDE, SIDE)
    assert float(activation(model, found.input[None], ["a"])) == pytest.approx(found.reached, rel=1e-5)


class Wrapped(nn.Module):
    """Scores in an object that no one but the target can cut into rows."""

    def __init__(self):
        super().__init__()
        self.net = small()

    def forward(self, x):
        return Output(None, self.net(x))


def test_outputs_in_objects():
    settings = Settings(**QUICK)
    for a, b in zip(
        synthesise(model_of(Wrapped(), (3, SIDE, SIDE)), [2, 1], settings),
        synthesise(model_of(small(), (3, SIDE, SIDE)), [2, 1], settings),
        strict=True,
    ):
        close(a, b)


# --- alpha ---


def test_alpha_shows_where_the_unit_looks():
    """The unit sees the left upper quarter only; both alphas must say so."""
    net = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1)).eval()
    m = model_of(seeded(lambda: net), (3, SIDE, SIDE))
    for alpha in ("gradient", "learnt"):
        settings = Settings(steps=60, robustness=Robustness.none(), alpha=alpha, plateau=0.0, views=1)
        (found,) = synthesise(m, [Neuron("0", 0, (6, 6))], settings)
        assert found.alpha.shape == (SIDE, SIDE)
        assert float(found.alpha.min()) >= 0
        assert float(found.alpha.max()) <= 1
        inside, outside = found.alpha[5:8, 5:8].mean(), found.alpha[14:, 14:].mean()
        assert inside > outside + 0.2


# --- rectifiers ---


class Calls(nn.Module):
    """A unit that is silent on grey and fires on bright pictures, rectified in one of the ways there are."""

    def __init__(self, rectify):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 5)
        self.rectify = rectify
        self.unit = nn.Identity()
        with torch.no_grad():
            self.conv.weight[0] = 1 / 75
            self.conv.weight[1] = 1 / 75
            self.conv.bias.copy_(torch.tensor([-0.8, 0.0]))

    def forward(self, x):
        return self.unit(self.rectify(self.conv(x)))


RECTIFIERS = {
    "functional": functional.relu,
    "module": nn.ReLU(),
    "in place module": nn.ReLU(inplace=True),
    "in place": lambda x: functional.relu(x, inplace=True),
    "in place positional": lambda x: functional.relu(x, True),
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "torch": torch.relu,
    "clamp": lambda x: x.clamp(min=0),
    "clamp_min": lambda x: torch.clamp_min(x, 0.0),
    "relu6": nn.ReLU6(inplace=True),
    "hardtanh": lambda x: functional.hardtanh(x, 0.0, 1.0),
    "hardswish": lambda x: functional.hardswish(x * 30),
}


@pytest.mark.parametrize("name", RECTIFIERS)
def test_a_unit_that_starts_dead_is_woken_without_touching_a_module(name):
    m = model_of(Calls(RECTIFIERS[name]).eval(), (3, 16, 16))
    settings = Settings(steps=60, views=1, robustness=Robustness.none(), plateau=0.0)
    dead, alive = synthesise(m, [Channel("unit", 0), Channel("unit", 1)], settings)
    assert dead.history[0] <= 0
    assert dead.facts["rescued_steps"] >= 1
    assert dead.reached > 0.03
    assert "rescued_steps" not in alive.facts
    assert not dead.notes
    alone = synthesise(m, [Channel("unit", 1)], settings)[0]
    close(alive, alone)


def test_redirected_rectifiers_change_no_value_and_no_living_gradient():
    for rectify in RECTIFIERS.values():
        x = noise(4, 3, 5).requires_grad_()
        with torch.no_grad():
            dead = x.detach().clone()
            dead[1] = -dead[1].abs() - 4
        found = []
        for mode in (False, True):
            leaf = dead.clone().requires_grad_()
            if mode:
                with RedirectedRectifiers():
                    value = rectify(leaf * 1)
            else:
                value = rectify(leaf * 1)
            up = noise(4, 3, 5, seed=9)
            found.append((value.detach(), torch.autograd.grad((value * up).sum(), leaf)[0]))
        (plain, slope), (value, redirected) = found
        assert torch.equal(plain, value)
        torch.testing.assert_close(redirected[[0, 2, 3]], slope[[0, 2, 3]])
        assert not slope[1].any()
        pushed = redirected[1]
        assert (pushed[up[1] > 0] > 0).all()
        assert not pushed[up[1] < 0].any()


def test_a_unit_that_can_never_fire_says_so():
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()).eval()
    with torch.no_grad():
        net[0].weight[0].zero_()
        net[0].bias[0] = -1
        net[0].weight[1].fill_(0.1)
        net[0].bias[1] = 0
    m = model_of(net, (3, 16, 16))
    dead, alive = synthesise(m, [Channel("1", 0), Channel("1", 1)], Settings(steps=8, views=1))
    assert dead.facts["never_fired"] == 1
    assert "dead" in dead.notes[0]
    assert dead.reached == 0
    assert not alive.notes
    assert len(alive.history) == 8


# --- NaN ---


class Breaking(nn.Module):
    """Answers NaN in the passes of a list, counting those that have a gradient."""

    def __init__(self, passes):
        super().__init__()
        self.net = small()
        self.passes, self.seen = passes, [0]

    def forward(self, x):
        y = self.net(x)
        if torch.is_grad_enabled():
            self.seen[0] += 1
            if self.passes(self.seen[0]):
                return y * float("nan")
        return y


def test_nan_restarts_once():
    m = model_of(Breaking(lambda n: n == 5), (3, SIDE, SIDE))
    (found,) = synthesise(m, [1], Settings(**QUICK))
    assert len(found.notes) == 1
    assert "started again" in found.notes[0]
    assert found.facts["steps"] == 12
    assert found.picture.isfinite().all()
    assert len(found.history) == 12


def test_nan_again_explains():
    m = model_of(Breaking(lambda n: n >= 5), (3, SIDE, SIDE))
    m.module.net.requires_grad_(False)
    (found,) = synthesise(m, [1], Settings(**QUICK))
    assert "twice" in found.notes[1]
    assert found.facts["not_finite"] == 1
    assert found.picture.isfinite().all()


class Bright(nn.Module):
    """Scores of brightness and darkness; NaN for bright pictures."""

    def forward(self, x):
        level = x.mean((1, 2, 3))
        return torch.stack([level, -level], 1) * torch.where(level > 0.52, torch.nan, 1.0)[:, None]


def test_nan_in_one_picture_leaves_the_others_alone():
    m = model_of(Bright(), (3, SIDE, SIDE))
    broken, sound = synthesise(m, [0, 1], Settings(**QUICK))
    assert broken.facts["not_finite"] == 1
    assert not sound.notes
    close(sound, synthesise(m, [1], Settings(**QUICK))[0])


# --- stopping ---


def test_stops_beyond_the_natural_maximum(model):
    settings = Settings(steps=200, views=1, factor=1.5, plateau=0.0)
    natural = activation(
        model, torch.rand(64, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)), [Channel("0", 2)]
    )[0]
    (found,) = synthesise(model, [Channel("0", 2)], settings, natural=[natural])
    limit = float(natural.max() + 0.5 * (natural.max() - natural.median()))
    assert found.facts["stopped_beyond_natural"] == 1
    assert len(found.history) < 200
    assert sum(found.history[-8:]) / 8 > limit
    assert sum(found.history[-9:-1]) / 8 <= limit or len(found.history) == 16
    (free,) = synthesise(model, [Channel("0", 2)], settings, natural=[None])
    assert len(free.history) == 200


def test_stops_on_a_plateau_only(model):
    settings = Settings(steps=400, views=1, robustness=Robustness.none(), patience=10, plateau=0.02)
    (found,) = synthesise(model, [Channel("3", 0)], settings)
    assert found.facts["stopped_on_plateau"] == 1
    steps = len(found.history)
    assert 20 <= steps < 400
    late, early = sum(found.history[-10:]) / 10, sum(found.history[-20:-10]) / 10
    assert late - early < 0.02 * (late - found.history[0])
    (longer,) = synthesise(
        model, [Channel("3", 0)], Settings(steps=400, views=1, robustness=Robustness.none(), plateau=0)
    )
    assert len(longer.history) == 400


# --- several pictures ---


def test_diverse_pictures_differ_more(model):
    settings = Settings(steps=30, views=1, plateau=0.0)
    plain = synthesise(model, [Channel("3", 1) + 0.0 * Diversity("0", 3), Channel("3", 0)], settings)
    diverse = synthesise(model, [Channel("3", 1) + 3.0 * Diversity("0", 3), Channel("3", 0)], settings)
    assert [s.variant for s in diverse] == [0, 1, 2, 0]

    def alike(found):
        with torch.no_grad():
            A = model.module[0](torch.stack([s.input for s in found[:3]])).flatten(2)
        grams = functional.normalize((A @ A.mT).flatten(1), dim=1)
        return float((grams @ grams.T).sum() - 3)

    assert alike(diverse) < alike(plain) - 0.1
    close(diverse[3], plain[3])


# --- the rest ---


def test_the_pass_ends_behind_the_last_layer(model):
    calls = []
    model.module[4].register_forward_hook(lambda *_: calls.append(1))
    synthesise(model, [Channel("0", 0), Channel("3", 0)], Settings(steps=3, views=1))
    first = len(calls)
    synthesise(model, [Channel("0", 0), Channel("3", 0)], Settings(steps=30, views=1))
    assert len(calls) - first <= first  # the passes that find layouts, none for a step


def test_a_shortened_pass_reads_what_the_whole_one_does():
    net = seeded(Twice).eval()
    m, x = model_of(net, (3, 32, 32)), noise(2, 3, 32, 32)
    with torch.no_grad():
        expected = net.shared(net.shared(net.front(x)).relu())[:, 1].mean((1, 2))
    torch.testing.assert_close(activation(m, x, [Channel("shared", 1)])[0], expected)


def test_layers_and_presets(model):
    for name in ("fast", "standard", "fine"):
        settings = Settings.preset(name, steps=2, views=1)
        (found,) = synthesise(model, [Layer("0")], settings)
        assert found.facts["steps"] == 2
    maco = Settings.preset("standard", parametrisation="maco")
    assert isinstance(maco.parametrisation, MACO)
    assert maco.alpha == "gradient"
    assert maco.robustness.inside


def test_settings_survive_json(model):
    for settings in (
        Settings.preset("fast", steps=4, views=1),
        Settings(
            parametrisation=MACO(spectrum=torch.rand(3, SIDE, SIDE // 2 + 1)),
            steps=4,
            views=1,
            robustness=Robustness.crops(),
        ),
        Settings(
            parametrisation=CPPN(width=6), colours=Colours.independent(3), steps=4, views=1, shape=(3, SIDE, SIDE)
        ),
    ):
        again = Settings.from_dict(json.loads(json.dumps(settings.as_dict())))
        a, b = (synthesise(model, ["a"], s)[0] for s in (settings, again))
        assert torch.equal(a.picture, b.picture)
        assert again.as_dict() == settings.as_dict()


def test_bad_input(model):
    for call, error, text in (
        (lambda: synthesise(model, []), TargetError, "at least one"),
        (lambda: synthesise(model, ["a"], "quick"), MethodError, "choose fast"),
        (lambda: synthesise(model, ["a"], natural=[None, None]), TargetError, "one for each"),
        (lambda: synthesise(model, ["a"], Settings(factor=2), natural=[torch.tensor([])]), TargetError, "finite"),
        (lambda: synthesise(model, [Channel("30", 0)]), LayerError, "no layer"),
        (lambda: synthesise(model, ["a"], Settings(shape=(4, 9, 9))), ModelError, "channels"),
        (lambda: Settings(steps=0), MethodError, "at least one step"),
        (lambda: Settings(factor=0.5), MethodError, "at least 1"),
        (lambda: Settings(alpha="yes"), MethodError, "alpha"),
        (lambda: Settings.preset("fast", stps=3), MethodError, "no setting 'stps'"),
    ):
        with pytest.raises(error, match=text):
            call()
    box = VisionModel(BlackBox(lambda x: x.mean((2, 3))), model.preprocess)
    with pytest.raises(MethodError, match="black box"):
        synthesise(box, [1])


def test_a_model_that_cuts_its_graph_is_named():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x.detach()).mean((2, 3))

    with pytest.raises(TargetError, match="cuts the graph"):
        synthesise(model_of(Cut().eval(), (3, 16, 16)), [1], Settings(steps=2, views=1))
