"""Anomalies (a score and a map), and contrasts between two boxes or two regions: planted, with exact answers."""

import math

import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.detectors import DIM, RED, Squares, scene
from pellucid.errors import AbsentError, TargetError
from pellucid.heatmaps import get_method
from pellucid.models.targets import AnomalyTarget, Between, Class, as_target, split_targets

METHOD = get_method("occlusion", window=8, stride=8, baseline="zero")
SURE = {"red": (RED + 0.1) / 2 * RED / (RED + 0.1), "blue": DIM / 2}


class Odd(nn.Module):
    """How bright each cell of 8 x 8 is; the score is the brightest."""

    part = "anomaly_map"

    def forward(self, x):
        cells = nn.functional.avg_pool2d(x.mean(1, keepdim=True), 8)
        return {"pred_score": cells.flatten(1).amax(1), self.part: cells}


def spot():
    x = torch.zeros(1, 3, 32, 32)
    x[0, :, 8:16, 16:24] = 0.75
    x[0, :, 24:32, 0:8] = 0.25
    return x


def scored(model, text, x):
    target = model.settled(x, model.outputs(x)).bound(as_target(text), x)
    return float(target.freeze(model.outputs(x))(model.outputs(x)))


# --- anomalies ---


def test_an_anomaly_is_recognised_by_its_map_and_answers_its_score():
    model = pl.wrap(Odd())
    (answer,) = model.predict(spot())[0]
    assert (answer.label, answer.probability) == ("anomaly", 0.75)
    e = pl.explain(model, spot()[0], METHOD)
    assert (e.target, e.record.target) == ("anomaly", "anomaly")
    cells = nn.functional.avg_pool2d(e.attribution, 8)[0]
    assert cells[1, 2] == pytest.approx(0.5), "without the spot the dimmer one is the brightest"
    assert cells.count_nonzero() == 1


def test_a_place_asks_the_models_own_map():
    model = pl.wrap(Odd())
    assert scored(model, "anomaly@4,28", spot()) == 0.25
    e = pl.explain(model, spot()[0], METHOD, "anomaly@4,28")
    assert nn.functional.avg_pool2d(e.attribution, 8)[0, 3, 0] == pytest.approx(0.25)
    assert e.target == "anomaly at 4,28"
    with pytest.raises(AbsentError, match="outside of what the model sees"):
        pl.explain(model, spot()[0], METHOD, "anomaly@99,2")


def test_a_declared_anomaly_may_be_a_number_or_a_map_alone():
    number = pl.wrap(lambda x: 40 * x.amax((1, 2, 3)), task="anomaly")
    (answer,) = number.predict(spot())[0]
    assert math.isnan(answer.probability)
    assert answer.score == 30
    with pytest.raises(TargetError, match="and no map"):
        scored(number, "anomaly@4,28", spot())
    alone = pl.wrap(lambda x: {"map": x.mean(1)}, task="anomaly")
    assert scored(alone, "anomaly", spot()) == 0.75
    with pytest.raises(TargetError, match="how odd a picture is, and no class"):
        pl.explain(alone, spot()[0], METHOD, 3)


def test_white_and_black_boxes_give_the_same_anomaly():
    net = Odd()
    white, black = pl.wrap(net), pl.wrap(lambda x: net(x))
    for text in ("anomaly", "anomaly@20,10"):
        a, b = (pl.explain(model, spot()[0], METHOD, text).attribution for model in (white, black))
        assert torch.equal(a, b)


def test_a_class_called_anomaly_is_still_a_class():
    model = pl.wrap(lambda x: torch.stack([x[:, 0].mean((1, 2)), x[:, 1].mean((1, 2))], 1), labels=["fine", "anomaly"])
    assert model.answering.asked(AnomalyTarget()) == Class("anomaly")
    e = pl.explain(model, spot()[0], METHOD, "anomaly")
    assert (e.target, e.record.target) == ("anomaly", "1"), "its number"


# --- contrasts ---


def test_a_contrast_of_boxes_is_the_difference_of_their_scores():
    model = pl.wrap(Squares(), labels=["red", "blue"], task="boxes")
    assert scored(model, "box:0>box:1", scene()) == pytest.approx(SURE["red"] - SURE["blue"], abs=1e-5)
    assert scored(model, "box:red@9,15,17,23>box:blue/left", scene()) == pytest.approx(SURE["red"] - 24, abs=1e-4)
    e = pl.explain(model, scene()[0], METHOD, "box:red>box:blue")
    cells = nn.functional.avg_pool2d(e.attribution, 8)[0]
    assert cells[2, 1] == pytest.approx(SURE["red"], abs=1e-5)
    assert cells[0, 3] == pytest.approx(-SURE["blue"], abs=1e-5)
    assert cells.count_nonzero() == 2
    assert e.target == "red rather than blue"
    assert e.extras["box"][0].tolist() == pytest.approx([8, 16, 16, 24])


def test_a_contrast_of_regions_is_the_difference_of_their_scores():
    net = nn.Conv2d(3, 3, 1, bias=False)
    net.weight.data = torch.eye(3)[:, :, None, None]
    model = pl.wrap(net.eval(), labels=["r", "g", "b"], task="regions")
    x = torch.zeros(1, 3, 8, 8)
    x[0, 0, :4], x[0, 1, 4:] = 0.9, 0.6
    assert scored(model, "region:r>region:g", x) == pytest.approx(0.3, abs=1e-5)
    e = pl.explain(model, x[0], "input-x-gradient", "region:r>region:g")
    assert float(e.attribution.sum()) == pytest.approx(0.3, abs=1e-5)
    assert e.attribution[0, 1, 4:].sum() == pytest.approx(-0.6, abs=1e-5)


def test_methods_of_boxes_and_of_regions_serve_their_contrasts():
    """Both are linear in the gradient before they are cut off at zero, or in the score."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 3, 3, padding=1), nn.Sigmoid()).eval()
    net[2].bias.data += 2  # cells are bright enough to be found
    x = torch.rand(1, 3, 32, 32)
    regions, boxes = pl.wrap(net, task="regions"), pl.wrap(nn.Sequential(net, Squares()), task="boxes")
    for model, name, a, b in (
        (regions, "seg-xres-cam", "region:0/all", "region:1/all"),
        (boxes, "odam", "box:0", "box:1"),
    ):
        layer = "1" if model is regions else "0.1"
        e = pl.explain(model, x[0], get_method(name, layer=layer), [f"{a}>{b}", f"{b}>{a}"])
        assert e[0].attribution.any()
        assert not (e[0].attribution * e[1].attribution).any(), "a place speaks for one side or for the other"
    rise = get_method("d-rise", samples=64, cells=4)
    first, second, both = pl.explain(
        pl.wrap(Squares(), task="boxes"), scene()[0], rise, ["box:0", "box:1", "box:0>box:1"]
    )
    assert torch.allclose(both.attribution, first.attribution - second.attribution, atol=1e-6)


@pytest.mark.parametrize("text", ["box:0>box:1", "box:red@1,2,3,4>box:blue/left", "region:road>region:car#2"])
def test_texts_read_back(text):
    assert isinstance(as_target(text), Between)
    assert as_target(text).spec() == text


def test_several_targets_part_at_commas_outside_of_the_places_of_both():
    given = "box:red@1,2,3,4>box:blue@5,6,7,8/left,box:0>box:1,281,anomaly@3,4,region:a@1,2>region:b@3,4"
    assert split_targets(given) == [
        "box:red@1,2,3,4>box:blue@5,6,7,8/left",
        "box:0>box:1",
        "281",
        "anomaly@3,4",
        "region:a@1,2>region:b@3,4",
    ]


@pytest.mark.parametrize(
    ("text", "said"), [("box:0>box:0", "stands there twice"), ("box:0>region:a", "no box|no class")]
)
def test_what_is_no_contrast(text, said):
    model = pl.wrap(Squares(), labels=["red", "blue"], task="boxes")
    with pytest.raises(TargetError, match=said):
        scored(model, text, scene())
