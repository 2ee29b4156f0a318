"""Clips of known truth, the networks that learn them, and maps held to both."""

import os

import pytest
import torch
from torch import nn

import pellucid as pl
from pellucid.errors import MediaError, ModelError
from pellucid.evaluation.suites.video import certify, frame_difference, random_pointing, temporal_pointing, tube_auc
from pellucid.heatmaps import get_method
from pellucid.importance import get_estimator, measure
from pellucid.importance.frames import Frames
from pellucid.importance.temporal import order_sensitivity
from pellucid.media import Plan, open_clip
from pellucid.media.generated import FRAMES, SIDE, SUITES, clip, draw
from pellucid.models import suites
from pellucid.models.suites import Recipe
from pellucid.progress import reporting
from pellucid.scoring.job import prepare


@pytest.mark.parametrize("name", SUITES)
def test_clips_are_drawn_from_their_seed(name):
    a, b, c = draw(name, 6, 5), draw(name, 6, 5), draw(name, 6, 6)
    assert torch.equal(a.clips, b.clips)
    assert torch.equal(a.tubes, b.tubes)
    assert not torch.equal(a.clips, c.clips)
    assert a.clips.shape == (6, 3, FRAMES, SIDE, SIDE)
    assert 0 <= float(a.clips.min()) <= float(a.clips.max()) <= 1
    assert sorted(set(a.labels.tolist())) == list(range(len(SUITES[name].labels)))
    assert a.tubes.flatten(1).any(1).all()
    assert not a.tubes[:, 0].any() or name in ("static", "motion")


EVIDENCE = {
    "motion": [(0.1, 0.8, 0.2)],
    "order": [(0.95, 0.85, 0.1), (0.1, 0.85, 0.9)],
    "match": [(0.1, 0.8, 0.2), (0.15, 0.3, 0.95)],
    "flash": [(0.9, 0.2, 0.1), (0.15, 0.3, 0.95)],
}


@pytest.mark.parametrize("name", EVIDENCE)
def test_tubes_hold_the_evidence_and_nothing_else(name):
    """By colour: every place of the tube shows it; outside, only what stands still shows it (motion)."""
    drawn = draw(name, 12, 0)
    shows = torch.zeros_like(drawn.tubes)
    for colour in EVIDENCE[name]:
        shows |= (drawn.clips - torch.tensor(colour)[:, None, None, None]).abs().amax(1) < 1e-6
    assert bool((shows | ~drawn.tubes).all())
    if name != "motion":
        assert torch.equal(shows, drawn.tubes)
        return
    moves = frame_difference(shows[:, None].float()) > 0
    assert not (moves & ~(drawn.tubes | drawn.tubes.roll(1, 1))).any()


@pytest.mark.parametrize("name", ["motion", "order", "match"])
def test_a_single_frame_tells_nothing(name):
    """The colours seen in a frame drawn at random are as frequent in every class."""
    drawn = draw(name, 600, 1)
    at = torch.randint(FRAMES, (600,), generator=torch.Generator().manual_seed(0))
    frames = drawn.clips[torch.arange(600), :, at]
    for colour in EVIDENCE[name]:
        seen = ((frames - torch.tensor(colour)[:, None, None]).abs().amax(1) < 1e-6).flatten(1).any(1).float()
        shares = torch.stack([seen[drawn.labels == k].mean() for k in range(len(SUITES[name].labels))])
        assert float(shares.max() - shares.min()) < 4 * float((seen.mean() * (1 - seen.mean()) / 200).sqrt()) + 1e-6


def test_the_classes_follow_their_rule():
    drawn = draw("order", 30, 3)
    yellow, cyan = (
        ((drawn.clips - torch.tensor(c)[:, None, None, None]).abs().amax(1) < 1e-6).flatten(2).any(2)
        for c in EVIDENCE["order"]
    )
    for n, label in enumerate(drawn.labels.tolist()):
        if label == 2:
            assert yellow[n].any() != cyan[n].any()
            continue
        first, then = (yellow[n], cyan[n]) if label == 0 else (cyan[n], yellow[n])
        assert int(first.nonzero().max()) < int(then.nonzero().min())
    moved = draw("motion", 30, 3)
    for n, label in enumerate(moved.labels.tolist()):
        at = moved.tubes[n].any(1).float()  # (T, W)
        steps = [
            at[t].roll(s, 0).equal(at[t + 1])
            for t in range(FRAMES - 1)
            for s in ((2,) if label else (-2,))
            if at[t].any() and at[t + 1].any()
        ]
        assert steps
        assert all(steps)


def test_clips_by_name():
    one = clip("suite:order:4")
    assert one.label == 1
    assert one.frames.shape == (FRAMES, SIDE, SIDE, 3)
    assert one.source == "suite:order:4"
    assert clip("suite:order").sha256 == clip("suite:order:0").sha256 != one.sha256
    read = open_clip("suite:order:4").clip(Plan("uniform", FRAMES))
    assert (read.frames == one.frames).all()
    assert read.sha256 == one.sha256
    for bad, says in (
        ("suite:orders", "did you mean order"),
        ("suite:order:x", "names no clip"),
        ("suite:zzz", "The suites are"),
    ):
        with pytest.raises(MediaError, match=says):
            clip(bad)


def test_models_by_name():
    assert suites.recipe("suite:order").net == suites.recipe("order:cnn-lstm").net == "cnn-lstm"
    with pytest.raises(ModelError, match="suite:flash:vit"):
        suites.recipe("flash:cnn-lstm")
    with pytest.raises(MediaError, match="did you mean motion"):
        suites.recipe("motoin")
    with pytest.raises(ModelError, match="leave out"):
        pl.load("suite:flash", random_weights=True)


QUICK = Recipe("flash", "per-frame", steps=75, sure=0.9)


def test_a_network_is_trained_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path))
    monkeypatch.setitem(suites.RECIPES, "flash", (QUICK,))
    heard = []

    class Reporter:
        def start(self, label, total):
            heard.append(label)
            return 0

        def advance(self, task, steps):
            pass

        def stop(self, task):
            pass

    before = torch.get_rng_state()
    with reporting(Reporter()):
        net = suites.trained("flash")
    assert torch.equal(torch.get_rng_state(), before)
    assert heard == ["training flash:per-frame, once, under a minute"]
    (file,) = (tmp_path / "suites").iterdir()
    again = suites.trained("flash")
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))
    file.write_bytes(b"damaged")
    third = suites.trained("flash")
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), third.state_dict().values(), strict=True))
    assert os.listdir(tmp_path / "suites") == [file.name]
    found = certify(net, "flash", clips=64)
    assert found.right > 0.95
    assert found.hidden < 0.75
    assert found.shuffled == found.right  # it takes the maximum over the frames
    (order,) = order_sensitivity(prepare(net, draw("flash", 2, 9).clips[:1], [0]))
    assert order.verdict == "change"


def test_a_network_that_has_not_learned_is_refused():
    with pytest.raises(ModelError, match="learned only"):
        suites.train(Recipe("order", "per-frame", steps=25))


def test_certificates_see_through_shortcuts():
    class Light(nn.Module):
        """Knows the flash by its colour wherever it is; knows nothing of order."""

        def forward(self, x):
            red = (x[:, 0] - x[:, 2]).flatten(1).amax(1)
            blue = (x[:, 2] - x[:, 0] - 0.2 * (x[:, 0] > 0.6)).flatten(1).amax(1)
            return torch.stack([red, blue], 1)

    good = certify(Light(), "flash", clips=96)
    assert good.right > 0.95
    assert good.holds
    assert good.frozen < 0.7

    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([[1.0, 0.0]]).expand(len(x), -1)

    poor = certify(Constant(), "motion", clips=96)
    assert not poor.holds
    assert poor.right == 0.5


def test_scores_of_maps():
    tubes = torch.zeros(2, 8, 4, 4, dtype=torch.bool)
    tubes[0, 2:4, 1, 1] = tubes[1, 6, 3, 0] = True
    assert tube_auc(tubes.float(), tubes).tolist() == [1.0, 1.0]
    assert tube_auc(-tubes.float(), tubes).tolist() == [0.0, 0.0]
    assert tube_auc(torch.ones(2, 8, 4, 4), tubes).tolist() == [0.5, 0.5]
    values = torch.rand(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    pairs = [(values[n][tubes[n]][:, None] > values[n][~tubes[n]][None]).double().mean() for n in range(2)]
    torch.testing.assert_close(tube_auc(values, tubes), torch.stack(pairs))
    assert temporal_pointing(tubes.float(), tubes, 0).tolist() == [1.0, 1.0]
    assert temporal_pointing(torch.eye(8)[[2, 2]], tubes, 0).tolist() == [1.0, 0.0]
    assert temporal_pointing(torch.eye(4)[[1, 3]], tubes, 0).tolist() == [1.0, 1.0]
    assert random_pointing(tubes, 8, 0).tolist() == [2 / 8, 1 / 8]


# --- what is trained in full: pre-decided budgets, one network a suite ---

CLIPS = 12
SIGNED = ("ceb-r", "integrated-gradients", "lstm-lrp")  # both signs tell of a tube
MUST = {  # suite -> methods, with their settings, whose maps must find the tube
    "motion": (
        ("grad-cam", {}),
        ("hires-cam", {}),
        ("saliency-tubes", {}),
        ("occlusion", {"window": (4, 8, 8), "stride": (2, 4, 4), "baseline": "time-mean"}),
        ("step", {"iterations": 60, "baseline": "time-mean"}),
        ("rise", {"cells": (8, 4, 4), "samples": 512, "baseline": "time-mean"}),
        ("integrated-gradients", {"baseline": "time-mean", "max_steps": 50}),
        ("kernel-shap", {"segments": "supervoxels", "count": 60, "samples": 400, "baseline": "time-mean"}),
    ),
    "order": (
        ("lstm-lrp", {}),
        ("ceb-r", {}),
        ("integrated-gradients", {"baseline": "time-mean", "max_steps": 50}),
    ),
    "flash": (
        ("grad-cam", {}),
        ("occlusion", {"window": (2, 8, 8), "stride": (1, 4, 4), "baseline": "time-mean"}),
        ("integrated-gradients", {"baseline": "time-mean", "max_steps": 50}),
    ),
    "static": (("grad-cam", {}), ("hires-cam", {})),
}


@pytest.mark.slow
@pytest.mark.parametrize("suite", MUST)
def test_maps_find_the_evidence(suite):
    net = suites.trained("flash:cnn3d" if suite == "flash" else "static:cnn3d" if suite == "static" else suite)
    drawn = draw(suite, CLIPS, 11)
    target = tuple(drawn.labels.tolist())
    rival = tube_auc(frame_difference(drawn.clips), drawn.tubes)
    for name, settings in MUST[suite]:
        values = get_method(name, **settings).attribute(net, drawn.clips, target)
        maps = (values.sum(1) if values.ndim == 5 else values).float()
        maps = maps.abs() if name in SIGNED else maps
        area = tube_auc(maps, drawn.tubes)
        assert float(area.mean()) > 0.7, (name, area)
        assert float(area.mean()) > float(rival.mean()) + 0.05 or suite == "flash", (name, area, rival)
        signed = (values.sum(1) if values.ndim == 5 else values).float()
        curve = signed.sum((2, 3)).abs() if name in SIGNED else maps  # what a frame is worth in all
        hits = temporal_pointing(curve, drawn.tubes)
        chance = random_pointing(drawn.tubes, maps.shape[1])
        if suite != "static":
            assert float(hits.mean()) > float(chance.mean()) + 0.2, (name, hits, chance)


@pytest.mark.slow
@pytest.mark.parametrize("suite", list(suites.RECIPES))
def test_networks_rest_on_what_decides(suite):
    net = suites.trained(suite)
    found = certify(net, suite)
    assert found.holds, found.line
    drawn = draw(suite, 6, 21)
    expected = {  # one colour twice stays that in any order; one light after another of its kind is the default
        "motion": ("order", "order"),
        "order": ("order", "order", "change"),
        "match": ("change", None),
        "flash": ("change", "change"),
        "static": ("static", "static"),
    }[suite]
    for n, label in enumerate(drawn.labels.tolist()):
        (order,) = order_sensitivity(prepare(net, drawn.clips[n : n + 1], [label]))
        assert expected[label] in (order.verdict, None), (label, order.sentence)


@pytest.mark.slow
def test_frames_of_both_events_lead():
    net, drawn = suites.trained("order"), draw("order", 12, 31)
    hits = []
    for n in range(12):
        if int(drawn.labels[n]) == 2:
            continue
        job = prepare(net, drawn.clips[n : n + 1], [int(drawn.labels[n])])
        values = measure(Frames(), get_estimator("shapley", samples=60), job, pairs=False).values[:, 0]
        evidence = drawn.tubes[n].flatten(1).any(1)
        near = evidence | evidence.roll(1)  # frozen, a light burns until a frame without it comes in
        leading = values.abs().topk(2).indices
        hits.append(float(near[leading].float().mean()))
    assert sum(hits) / len(hits) > 0.8, hits  # 6 of 16 frames are near, so chance is 0.38
