"""Advice is what the methods themselves say when they are asked: they run where they suit, and refuse where not."""

import json

import pytest
import timm
import torch
from torch import nn
from typer.testing import CliRunner

import pellucid as pl
from helpers.cases import PLAIN, STRETCH, bright_model, bright_net
from helpers.nets import noise, seeded
from pellucid.cli import app
from pellucid.errors import PellucidError
from pellucid.heatmaps import METHODS, get_method
from pellucid.verbs.advise import advise, explain_all_that_suit
from pellucid.verbs.choices import as_methods, as_targets
from pellucid.verbs.costs import passes


def by_name(advice):
    return {e.method: e for e in advice.entries}


def vit():
    small = {"img_size": 64, "patch_size": 16, "depth": 2, "embed_dim": 24, "num_heads": 2, "num_classes": 2}
    net = seeded(lambda: timm.create_model("vit_tiny_patch16_224", **small)).eval()
    return pl.wrap(net, transform=STRETCH, labels=("a", "b"))


def test_every_method_is_told_and_every_need_is_known():
    told = by_name(advise(bright_model()))
    assert list(told) == list(METHODS)
    assert not any("is not known" in why for e in told.values() for why in e.why)
    assert all(e.why for e in told.values() if e.verdict == "refused")


QUICK = [
    "cam",
    "saliency-tubes",
    "grad-cam",
    "raw-attention",
    "attention-relevance",
    "lrp",
    "legrad",
    "lstm-lrp",
    "odam",
]


@pytest.mark.parametrize("model", [bright_model, vit], ids=["convolutions", "transformer"])
def test_methods_run_where_they_are_said_to_suit_and_only_there(model):
    vision = model()
    told = by_name(advise(vision))
    x = noise(1, 3, 64, 64)
    for name in QUICK:
        try:
            get_method(name).attribute(vision, x, 0)
            ran = True
        except PellucidError:
            ran = False
        assert ran == (told[name].verdict != "refused"), (name, told[name])
    assert told["grad-cam"].verdict == "suits"
    assert "cells" in told["grad-cam"].why[0]


def test_a_black_box_is_advised_black_box_methods():
    told = by_name(advise(pl.wrap(bright_net().forward, transform=PLAIN, labels=("bright", "dark"))))
    assert told["rise"].verdict == "suits"
    assert told["grad-cam"].verdict == "refused"
    assert "black box" in told["grad-cam"].why[0]
    advice = advise(pl.wrap(bright_net().forward, transform=PLAIN, labels=("bright", "dark")))
    assert advice.methods() == []
    assert advice.black_box
    assert not advise(bright_model()).black_box


class Sorted(nn.Module):
    """Calls a function for which there is no rule."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 8, 8), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.erfinv(self.body(x).tanh() * 0.5).mean((2, 3)))


def test_a_function_without_a_rule_is_a_caveat_for_methods_of_rules_alone():
    told = by_name(advise(pl.wrap(seeded(Sorted).eval(), transform=PLAIN, labels=("a", "b"))))
    assert told["lrp"].verdict == "with a caveat"
    assert "erfinv" in " ".join(told["lrp"].why)
    assert told["saliency"].verdict == "suits"


def test_one_method_that_fails_does_not_stop_the_others():
    vision = bright_model()
    methods = as_methods("grad-cam,raw-attention,saliency")
    found, failed = explain_all_that_suit(vision, "sample:coffee", methods, as_targets("0"))
    ((_, maps),) = found.items()
    assert [m.method for m in maps] == ["grad-cam", "saliency"]
    assert list(failed) == ["raw-attention"]
    assert len(maps.by_picture()) == 1  # one sheet, and what a check shows to the model is shown once
    assert maps[0].session is maps[1].session


COSTS = {
    "grad-cam": (1, 1), "eigen-cam": (1, 0), "smooth-grad": (50, 50), "smooth-grad-cam++": (10, 8), "agi": (160, 320),
    "lrp": (2, 2),
    "refine-cam": (4, 3), "deep-lift-shap": (16, 8), "guided-ig": (150, 150), "integrated-gradients": (434, 400),
    "expected-gradients": (100, 50), "transformer-attribution": (2, 2), "xrai": (116, 48), "legrad": (2, 1),
    "relevance-cam": (2, 1), "group-cam": (32, 1), "excitation-backprop": (3, 2), "rise": (4097, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", COSTS)
def test_a_cost_in_words_is_a_number_of_passes(name):
    assert passes(METHODS[name]) == COSTS[name]


@pytest.mark.parametrize("name", ["grad-cam", "smooth-grad", "deep-lift", "xrai", "idgi", "integrated-grad-cam"])
def test_hardly_more_passes_are_taken_than_are_said(name):
    """A method of many may ask for the score itself a few times more."""
    (found,) = get_method(name).explain(bright_model(), noise(1, 3, 32, 32), [0])
    forwards, backwards = passes(METHODS[name])
    assert 0 < found.cost.forwards <= 1.1 * forwards
    assert 0 < found.cost.backwards <= 1.1 * backwards


def test_the_price_of_a_sheet_is_that_of_its_methods():
    advice = advise(bright_model())
    each = [passes(METHODS[name]) for name in advice.methods()]
    forwards, backwards, seconds = advice.price()
    assert (forwards, backwards) == (sum(f for f, _ in each), sum(b for _, b in each))
    assert seconds == pytest.approx(advice.seconds * (forwards + 2 * backwards))
    assert not {"vit-cx", "tis", "rise"} & set(advice.methods())


@pytest.fixture
def on_bright(monkeypatch):
    from pellucid.models import sources

    monkeypatch.setattr(sources, "load", lambda *_a, **_k: bright_model())


def test_the_command_says_it_in_a_table_and_as_json(on_bright):
    shown = CliRunner().invoke(app, ["advise", "--refused"])
    assert shown.exit_code == 0
    assert "grad-cam" in shown.output
    assert "no recurrent layer" in shown.output
    told = json.loads(CliRunner().invoke(app, ["advise", "--json"]).output)
    assert [row["method"] for row in told["methods"]] == list(METHODS)
    assert told["target"] == "top class" or told["target"]
    assert f"What would be explained: {told['target']}." in shown.output
    by_method = {row["method"]: row["seconds"] for row in told["methods"]}
    assert by_method["saliency"] == pytest.approx(3 * told["seconds a forward"])  # one forward, one backward
    assert by_method["smooth-grad"] == pytest.approx(150 * told["seconds a forward"])
    assert by_method["score-cam"] is by_method["rise"] is None  # as many as there are channels, or masks
    assert "outputs alone" not in shown.output


def test_explain_by_all_methods_makes_one_sheet_and_says_who_is_left_out(on_bright, tmp_path, monkeypatch):
    from pellucid.verbs import advise as room

    monkeypatch.setattr(room.Advice, "methods", lambda self: ["grad-cam", "raw-attention", "saliency"])
    command = ["explain", "sample:coffee", "--method", "all", "--no-check", "--out", str(tmp_path), "--json"]
    told = json.loads(CliRunner().invoke(app, command).stdout)
    assert [r["method"] for r in told["results"]] == ["grad-cam", "saliency"]
    assert "runs no attention" in told["refused"]["raw-attention"]
    assert "no recurrent layer" in told["refused"]["lstm-lrp"]
    assert (tmp_path / "coffee.png").exists()
