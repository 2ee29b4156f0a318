"""Masked pictures that share one loan of the model, and its quicker twin, are answered as those that have one each."""

import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.nets import noise, settled
from pellucid.engine import Capture
from pellucid.evaluation import cell_ranking
from pellucid.results import Session
from pellucid.scoring.job import prepare
from pellucid.scoring.masked import freeze
from pellucid.testing.snapshot import differences, snapshot

TARGETS = [pl.Class(1), pl.Unit("1", 2)]


@pytest.fixture
def session():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
        nn.Linear(54, 4),
    )  # fmt: skip
    return Session(pl.wrap(settled(net)), noise(1, 3, 28, 28))


def frozen(session, target):
    return freeze(prepare(session.model.module, session.x, [target]))[0]


def curves(session, target):
    perturbed = session.perturbed(target)
    return perturbed.curves(cell_ranking(noise(28, 28, seed=3), perturbed.grid))


@pytest.mark.parametrize("target", TARGETS, ids=["class", "unit"])
def test_scores_are_the_same_and_nothing_is_left(session, target, monkeypatch):
    opened, folded, target = [], [], frozen(session, target)
    enter, fold = Capture.__enter__, Capture.fold
    monkeypatch.setattr(Capture, "__enter__", lambda self: opened.append(self) or enter(self))
    monkeypatch.setattr(Capture, "fold", lambda self, x, n, **how: folded.append(fold(self, x, n, **how)) or folded[-1])
    plain = curves(Session(session.model, session.x), target)
    assert len(opened) > 1
    assert not folded
    opened.clear()
    before = snapshot(session.model.module, session.x)
    with session.borrowed():
        shared = curves(session, target)
    assert len(opened) == 1
    assert any(folded) == (not target.layers), "a twin was made, unless the layer to fold is the one that is read"
    assert differences(before, snapshot(session.model.module, session.x)) == []
    for ours, theirs in zip(shared, plain, strict=True):
        assert ours.scores == pytest.approx(theirs.scores, rel=1e-4, abs=1e-6)
        assert ours.random_scores == pytest.approx(theirs.random_scores, rel=1e-4, abs=1e-6)
    curves(session, target)  # and the session is usable outside again


def test_an_error_inside_gives_the_model_back(session):
    before = snapshot(session.model.module, session.x)

    def broken_off():
        with session.borrowed():
            curves(session, frozen(session, TARGETS[0]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert differences(before, snapshot(session.model.module, session.x)) == []
    with session.borrowed():
        curves(session, TARGETS[0])
