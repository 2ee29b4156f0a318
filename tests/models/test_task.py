"""The task as a value: declared or found, it decides how answers are put into words."""

import math

import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.nets import noise
from pellucid.errors import MethodError, ModelError
from pellucid.heatmaps import METHODS, get_method
from pellucid.models.blackbox import BlackBox
from pellucid.models.opens import EVERYTHING, OUTPUTS, needed, opens
from pellucid.models.targets import TARGETS, Target, parse_target, target
from pellucid.models.task import Scores


class Fixed(nn.Module):
    """Answers the same logits to every picture, plus the picture's mean."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits + x.mean((1, 2, 3))[:, None]


X = torch.zeros(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("labels", [1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-2))]),
        ("classes", [math.exp(3) / (math.exp(3) + math.exp(2) + 1), math.exp(2) / (math.exp(3) + math.exp(2) + 1)]),
        ("values", [math.nan, math.nan]),
    ],
)
def test_a_declared_task_makes_the_probabilities(task, expected):
    model = pl.wrap(Fixed(2.0, 3.0, 0.0), labels=["a", "b", "c"], task=task)
    first, second, _ = model.predict(X)[1]
    assert (first.label, second.label) == ("b", "a")
    assert [first.probability, second.probability] == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert model.settled(X, model.outputs(X)).answering.name == task


@pytest.mark.parametrize("task", ["classes", "labels"])
def test_a_declared_task_ends_the_doubt(task):
    """Two labels that share the softmax, each sure of itself: nobody knows, unless it is said."""
    net = Fixed(6.0, 6.1, -6.0)
    in_doubt = pl.wrap(net).predict(X)[0][0]
    said = pl.wrap(net, task=task).predict(X)[0][0]
    assert math.isnan(in_doubt.probability)
    assert said.probability == pytest.approx(0.525 if task == "classes" else 0.998, abs=1e-3)


def test_what_was_recognised_names_the_task():
    model = pl.wrap(Fixed(1.0, 3.0, 0.0))
    assert model.settled(X, model.outputs(X)).answering.name == "classes"
    several = pl.wrap(Fixed(1.0, 3.0, 0.0), scores="sigmoid")
    assert several.settled(X, several.outputs(X)).answering.name == "labels"
    assert Scores(declared="values").name == "values"


def test_wrong_tasks_are_named():
    with pytest.raises(ModelError, match="no task 'label': did you mean 'labels'"):
        pl.wrap(Fixed(1.0), task="label")
    with pytest.raises(ModelError, match="'labels' are 'sigmoid' or 'probabilities', not 'softmax'"):
        pl.wrap(Fixed(1.0), task="labels", scores="softmax")


def test_what_opens_and_what_needs():
    box = BlackBox(lambda x: x.mean((2, 3)))
    assert opens(nn.Identity()) == EVERYTHING
    assert opens(box) == opens(pl.per_frame(pl.wrap(box)).module) == OUTPUTS
    assert needed("outputs, tokens") == {"outputs", "layers"}
    assert needed("gradients, a clip") == {"gradients"}
    for name, method in METHODS.items():
        assert method.required, name
    with pytest.raises(MethodError, match="this model is a black box"):
        get_method("saliency").attribute(pl.per_frame(pl.wrap(box)), noise(1, 3, 4, 8, 8), 0)


def test_a_target_is_one_class_and_one_registration():
    @target("brightness", form="brightness")
    class Brightness(Target):
        def __call__(self, output):
            return output.sum(1)

        @classmethod
        def read(cls, text):
            return cls() if text == "brightness" else None

    try:
        assert isinstance(parse_target("brightness"), Brightness)
        x = noise(1, 3, 8, 8)
        found = get_method("saliency").attribute(Fixed(0.0, 1.0), x, "brightness")
        assert torch.allclose(found, torch.full_like(found, 2 / x[0].numel()), rtol=1e-5)
    finally:
        del TARGETS["brightness"]
