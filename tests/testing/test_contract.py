"""The public checks: what keeps the contract passes, and each broken promise is named."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from pellucid.heatmaps import GradCAM, InputXGradient, Occlusion, Saliency, ScoreCAM
from pellucid.heatmaps.base import Attribution, Method
from pellucid.importance import Channels, Patches, get_estimator
from pellucid.importance.estimators import ESTIMATORS
from pellucid.models.targets import Class, Contrast, TopClass, Unit
from pellucid.testing import check_estimator, check_method, check_players, check_target, differences, snapshot
from pellucid.testing.networks import Sound


@pytest.mark.parametrize(
    "method", [GradCAM(), Saliency(), InputXGradient(), ScoreCAM(), Occlusion(window=8, stride=8)], ids=lambda m: m.name
)
def test_methods_of_the_house_keep_it(method):
    check_method(method)


@pytest.mark.parametrize("players", [Patches(count=4), Channels(layer="body.2")], ids=lambda p: p.kind)
def test_players_of_the_house_keep_it(players):
    check_players(players, network=Sound)


@pytest.mark.parametrize("name", [n for n in ESTIMATORS if n not in ("gradient", "conductance", "permutation", "tree")])
def test_estimators_of_the_house_keep_it(name):
    check_estimator(get_estimator(name))


@pytest.mark.parametrize("target", [Class(2), Contrast(1, 3), TopClass(1), Unit("body.2", 4)], ids=str)
def test_targets_of_the_house_keep_it(target):
    check_target(target)


@dataclass(frozen=True)
class Mean(Method):
    """A method that keeps every promise: each place's mean over the channels, of any input."""

    name: ClassVar[str] = "mean"
    needs: ClassVar[str] = "outputs"

    @classmethod
    def run(cls, methods, job):
        return [[cls.found(job) for _ in job.targets] for _ in methods]

    @classmethod
    def found(cls, job):
        return Attribution(job.inputs.detach().mean(1))


class Random(Mean):
    """Draws from the global random numbers."""

    @classmethod
    def found(cls, job):
        return Attribution(torch.rand(len(job.inputs), *job.space))


class OfTheBatch(Mean):
    """Scales each map by the batch's largest value."""

    @classmethod
    def found(cls, job):
        return Attribution(job.inputs.mean(1) / job.inputs.abs().max())


class Forgetful(Mean):
    """Leaves a hook behind."""

    @classmethod
    def found(cls, job):
        next(job.module.children()).register_forward_hook(lambda *_: None)
        return Mean.found(job)


class Trainer(Mean):
    """Switches the model to evaluation and leaves it so."""

    @classmethod
    def found(cls, job):
        job.module.eval()
        return Mean.found(job)


class Endless(Mean):
    """Divides by nothing."""

    @classmethod
    def found(cls, job):
        return Attribution(job.inputs.mean(1) / 0)


class Writer(Mean):
    """Writes to the caller's input."""

    @classmethod
    def found(cls, job):
        with torch.no_grad():
            job.inputs.mul_(2)
        return Mean.found(job)


class Unspeakable(Mean):
    """Has a setting that cannot be written down."""

    def parameters(self):
        return {"how": object()}


def test_a_method_that_keeps_every_promise_passes():
    check_method(Mean(), clips=True)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (Random(), "answered differently"),
        (OfTheBatch(), "picture 0 alone|picture 1 alone"),
        (Forgetful(), "a trace is left on the model: hooks"),
        (Trainer(), "a trace is left on the model: training"),
        (Endless(), "NaN or infinity"),
        (Writer(), "caller's input was written to"),
        (Unspeakable(), "cannot be written down"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Method) else "",
)
def test_each_broken_promise_is_named(method, said):
    with pytest.raises(AssertionError, match=said):
        check_method(method)


def test_whether_clips_are_explained_is_held_to():
    with pytest.raises(AssertionError, match="Clips are explained"):
        check_method(Mean(), clips=False)


def test_broken_players_and_targets_are_named():
    class Halved(Patches):
        def game(self, job):
            return super().game(type(job)(job.module, job.inputs / 2, job.targets))

    with pytest.raises(AssertionError, match="not the model's own"):
        check_players(Halved(count=4))

    @dataclass(frozen=True)
    class Leading(Class):
        index: int = 1

        def bind(self, module, inputs, labels):
            return self

        def __call__(self, output):
            return output[:, 1] - output[0, 1]

        def spec(self):
            return None

    with pytest.raises(AssertionError, match="scores differently alone"):
        check_target(Leading())


def test_a_broken_estimator_is_named():
    class Halving(ESTIMATORS["ablation"]):
        def solve(self, game, players, job):
            found = super().solve(game, players, job)
            found.values /= 2
            return found

    with pytest.raises(AssertionError, match="something else"):
        check_estimator(Halving())


def test_a_snapshot_sees_what_a_run_can_change():
    net, x = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU()).train(), torch.ones(1, 2, 3, 3)
    changes = {
        "buffers": lambda: net(x),
        "parameters": lambda: net[0].weight.data.mul_(2),
        "gradients": lambda: setattr(net[0].weight, "grad", torch.ones(2)),
        "hooks": lambda: net[1].register_forward_hook(lambda *_: None),
        "training": lambda: net.eval(),
        "attributes": lambda: setattr(net[1], "inplace", True),
        "parts": lambda: net.add_module("2", nn.ReLU()),
        "random numbers": lambda: torch.rand(1),
        "input": lambda: x.add_(1),
    }
    for part, change in changes.items():
        before = snapshot(net, x)
        assert not differences(before, snapshot(net, x))
        change()
        assert any(d.startswith(part) for d in differences(before, snapshot(net, x))), part
