"""`auto` in an evaluation: methods of each family that suits."""

import pytest
import torch

import pellucid as pl
from helpers.nets import chained, noise
from pellucid.heatmaps import get_method
from pellucid.models.targets import TopClass
from pellucid.verbs.auto import Auto
from pellucid.verbs.contenders import contenders, with_contenders

X = noise(1, 3, 8, 8)


@pytest.fixture(scope="module")
def model():
    return pl.wrap(chained(4, 6), scores="softmax")


def test_families_that_suit_a_network_of_convolutions_compete_once(model):
    named = {"saliency": get_method("saliency"), "auto": Auto(seed=3), "occlusion": get_method("occlusion")}
    found = with_contenders(named, model, X, TopClass())
    assert next(iter(found)) == "saliency"
    assert {"grad-cam", "input-x-gradient", "integrated-gradients", "occlusion"} <= set(found)
    assert "attention-relevance" not in found, "there is no attention"
    assert found["occlusion"] is named["occlusion"]
    assert found["smooth-grad"].seed == 3


def test_auto_stands_for_methods_in_the_table(model, monkeypatch):
    monkeypatch.setattr("pellucid.verbs.contenders._OPEN", ("saliency", "input-x-gradient"))
    board = pl.evaluate(model, X, "auto", "entropy")
    assert board.methods == ["saliency", "input-x-gradient", "random order", "edges"]
    assert [c[0] for c in board.record.method["parameters"]["competitors"]] == board.methods


def test_a_black_box_has_those_that_need_its_answers_alone():
    def answer(x):
        light = x.mean((1, 2, 3))
        return torch.stack([light, 1 - light], 1).detach()

    assert [m.name for m in contenders(pl.wrap(answer), X, TopClass())] == ["occlusion", "rise"]
