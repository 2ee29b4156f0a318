"""Boxes: a planted detector with exact answers, what its targets score, and methods that serve them."""

import json
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pellucid as pl
from helpers.detectors import DIM, RED, BusySquares, Squares, listed, scene
from helpers.traces import ERRORS, state
from pellucid.engine.masks import grid_labels
from pellucid.errors import AbsentError, MethodError, ModelError, PellucidError, TargetError
from pellucid.heatmaps import get_method
from pellucid.models.detections import Detections, overlaps, padded
from pellucid.models.targets import BoxTarget, as_target
from pellucid.models.targets.boxes import Asked, why_none
from pellucid.testing import check_target

RED_BOX, BLUE_BOX = (8.0, 16.0, 16.0, 24.0), (24.0, 0.0, 34.0, 8.0)
SURE = {"red": (RED + 0.1) / 2 * RED / (RED + 0.1), "blue": DIM / 2}


def planted():
    return pl.wrap(Squares(), labels=["red", "blue"], task="boxes")


def picture(scale=2):
    pixels = (scene()[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1))


def scored(target, x=None):
    model, given = planted(), scene()
    bound = model.frozen(model.bound(as_target(target), given), given, model.outputs(given))
    return float(bound(Squares()(given if x is None else x)))


# --- answers ---


def test_answers_are_the_planted_boxes_in_the_pictures_own_pixels():
    model = pl.wrap(Squares(), labels=["red", "blue"], transform=pl.Preprocess(
        input_size=(32, 32), resize=(32, 32), mean=(0, 0, 0), std=(1, 1, 1), interpolation="box"))  # fmt: skip
    e = pl.explain(model, picture(), "occlusion")
    first, second = e.prediction
    assert (first.label, second.label) == ("red", "blue")
    assert first.place == pytest.approx((16, 32, 32, 48), abs=0.1)
    assert second.place == pytest.approx((48, 0, 64, 16), abs=0.1), "the picture ends at 64"
    assert (first.probability, second.probability) == pytest.approx((SURE["red"], SURE["blue"]), abs=0.01)
    assert e.target == "box 0: red"
    assert e.extras["box"][0].tolist() == pytest.approx([16, 32, 32, 48], abs=0.1)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("box:0", SURE["red"]),
        ("box", SURE["red"]),
        ("top:1", SURE["blue"]),
        ("box:blue", SURE["blue"]),
        ("box:1@20,0,33,9", SURE["blue"]),
        ("box:@9,15,17,23", SURE["red"]),
        ("box:0/class", RED / (RED + 0.1)),
        ("box:0/objectness", (RED + 0.1) / 2),
        ("box:0/iou", 1.0),
        ("box:blue/left", 24.0),
        ("box:blue/top", 0.0),
        ("box:blue/right", 34.0),
        ("box:blue/bottom", 8.0),
        ("box:0/similarity", (RED + 0.1) / 2),
    ],
)
def test_every_part_is_exact(target, expected):
    assert scored(target) == pytest.approx(expected, abs=1e-5)


def test_parts_stay_with_their_candidate_when_the_object_goes():
    gone = scene()
    gone[0, :, 16:24, 8:16] = 0
    assert scored("box:0", gone) == 0
    assert scored("box:0/objectness", gone) == 0
    assert scored("box:0/left", gone) == 8
    assert scored("box:blue", gone) == pytest.approx(SURE["blue"])


def test_a_box_that_moves_keeps_its_overlap():
    moved = scene()
    moved[0, 2, 0:8, 24:32] = 1.0  # its right edge goes from 34 to 36
    assert scored("box:blue/iou", moved) == pytest.approx(10 / 12)
    assert scored("box:blue", moved) == pytest.approx(SURE["blue"] * 10 / 12)
    assert scored("box:blue/right", moved) == 36


def test_a_score_just_below_the_threshold_is_told_from_it():
    class Answer:
        boxes = torch.zeros(0, 4)

    found = Detections(torch.tensor([[[0.0, 0, 8, 8]]]), torch.tensor([[[0.2968]]]))
    asked = Asked((0.0, 0.0, 8.0, 8.0), 0, answered=False)
    assert why_none(found, Answer(), 0, asked, ["red"]).endswith("scores 0.297; boxes are answered from 0.3 on.")


def test_a_rival_class_that_scores_nearly_as_much_is_told_from_it():
    class Answer:
        boxes = torch.zeros(0, 4)

    found = Detections(torch.tensor([[[0.0, 0, 8, 8]]]), torch.tensor([[[0.4215, 0.4236]]]))
    asked = Asked((0.0, 0.0, 8.0, 8.0), 0, answered=False)
    assert "scores 0.421, but 0.424 for blue" in why_none(found, Answer(), 0, asked, ["red", "blue"])


def test_no_box_at_a_place_says_why():
    model = planted()
    e = pl.explain(model, scene()[0], "occlusion", "box:red@24,0,32,8")
    assert e.remarks == [
        "No box of red here: the best candidate overlaps the place by 80% and scores 0, but 0.3 for blue; boxes are "
        "answered from 0.25 on."
    ]
    assert e.target == "no red at 24,0,32,8"
    with pytest.raises(AbsentError, match="2 boxes to this picture, so there is no box 5"):
        pl.explain(model, scene()[0], "occlusion", "box:5")
    with pytest.raises(AbsentError, match="outside of what the model sees"):
        pl.explain(model, scene()[0], "occlusion", "box:red@100,100,120,120")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("box:0/lef", "no part 'lef'"),
        ("box:red@1,2,3", "is no box"),
        ("box:red@9,9,3,3", "left top corner first"),
        ("box:green", "no class 'green'"),
        ("red", "ask for box:0, the most certain"),
    ],
)
def test_what_cannot_be_asked_of_boxes(text, message):
    with pytest.raises(TargetError, match=message):
        scored(text)


@pytest.mark.parametrize(
    "text", ["box:0", "box:3/left", "box:red", "box:red@1,2.5,30,40", "box:2@1,2,3,4/iou", "box:@1,2,3,4"]
)
def test_texts_read_back(text):
    assert as_target(text).spec() == text
    assert as_target(as_target(text).spec()) == as_target(text)


def test_several_targets_part_at_commas_outside_of_places():
    from pellucid.models.targets import split_targets

    given = "box:0,box:red@1,2,3,4/left,281,tabby>lynx,box:@-1,0,5,6"
    assert split_targets(given) == ["box:0", "box:red@1,2,3,4/left", "281", "tabby>lynx", "box:@-1,0,5,6"]


def test_the_target_keeps_its_contract():
    x = torch.cat([scene(), scene().flip(3)])
    for text in ("box:0", "box:0@7,15,17,25/class", "box:1/right"):
        check_target(as_target(text), network=Squares, inputs=x)


# --- methods ---


def test_gradients_reach_what_each_part_is_made_of():
    saliency = get_method("input-x-gradient")
    maps = {p: saliency.attribute(planted(), scene(), f"box:blue/{p}")[0] for p in ("objectness", "right", "class")}
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[0:8, 24:32] = True
    for part, channel in (("objectness", 1), ("right", 2)):
        assert float(maps[part][channel][inside].abs().sum()) > 0
        assert float(maps[part].abs().sum()) == pytest.approx(float(maps[part][channel][inside].abs().sum()))
    assert float(maps["right"].sum()) == pytest.approx(2.0), "4 pixels at a brightness of 1, here half"


def test_d_rise_is_its_definition():
    """`sum_m s_m mask_m / (M p)`, s the greatest IoU x cosine x objectness, mask by mask and candidate by candidate."""
    x, net = scene(), Squares()
    method = get_method("d-rise", samples=24, cells=4, centred=False, seed=3, p=0.4)
    found = method.attribute(planted(), x, "box:0")[0]

    box, classes = torch.tensor(RED_BOX), torch.tensor([RED, 0.1]) / (RED + 0.1)
    generator, space = method.stream(), SimpleNamespace(space=(32, 32), soft=True, inputs=x)
    size, orthogonal = method._block_size(25)
    total, drawn = torch.zeros(32, 32), []
    for _ in range(-(-24 // size)):
        masks = method._block((5, 5), space, size, orthogonal, generator)
        for mask in masks.render(torch.arange(len(masks))).reshape(-1, 32, 32):
            answer = net(x * mask)
            best = 0.0
            for k in range(answer.boxes.shape[1]):
                p = answer.classes[0, k]
                cosine = float(p @ classes / (p.norm() * classes.norm()).clamp(min=1e-12))
                best = max(best, float(overlaps(answer.boxes[0, k], box)) * cosine * float(answer.objectness[0, k]))
            total += best * mask
            drawn.append(best)
    assert len(set(drawn)) > 5
    assert torch.allclose(found, total / (len(drawn) * 0.4), atol=1e-5)


class Convolved(torch.nn.Module):
    """A convolution, a rectifier and another in front of `Squares`."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.ReLU())
        self.head = torch.nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x):
        return Squares()((6 * self.head(self.body(x)) + 2).sigmoid())


@pytest.mark.parametrize("seed", range(8))
def test_the_most_alike_of_many_candidates_is_that_of_all(seed):
    """Few candidates' classes are read first; where one of the others could be liker, all are."""
    g = torch.Generator().manual_seed(seed)
    near, being, classes = torch.rand(2, 500, generator=g), torch.rand(2, 500, generator=g) ** 4, torch.rand(2, 500, 7)
    if seed % 2:  # those that overlap most are of other classes
        near, classes = near**0.1, classes * (torch.rand(2, 500, 7, generator=g) < 0.2)
    vectors, labels = torch.rand(2, 7, generator=g), torch.tensor([1, 4])
    found = Detections(torch.rand(2, 500, 4, generator=g), classes, being)
    cosines = torch.cosine_similarity(classes, vectors[:, None], dim=-1)
    assert torch.allclose(found.most_alike(near, vectors, labels), (near * cosines * being).amax(1), atol=1e-6)


def test_odam_and_ssgrad_cam_are_their_formulas():
    torch.manual_seed(0)
    net, x = Convolved().eval(), torch.rand(1, 3, 32, 32)
    model = pl.wrap(net, task="boxes")
    A = net.body(x).detach().requires_grad_()
    found = Squares()((6 * net.head(A) + 2).sigmoid())
    box = found.answered()[0]
    k = int((found.boxes[0] - box.boxes[0]).abs().sum(1).argmin())
    (G,) = torch.autograd.grad(found.classes[0, k, int(box.labels[0])], A)
    given = {"layer": "body.1"}
    odam = get_method("odam", **given).attribute(model, x, "box:0/class")
    assert torch.allclose(odam, (G * A).sum(1).relu(), atol=1e-8)
    assert odam.any()
    share = G.abs() / G.abs().amax((2, 3), keepdim=True)
    held = (G.mean((2, 3), keepdim=True) * share * A).sum(1).relu()
    assert torch.allclose(get_method("ssgrad-cam", **given).attribute(model, x, "box:0/class"), held, atol=1e-8)
    other = get_method("odam", **given).attribute(model, x, "box:1/class")
    assert not torch.allclose(other / other.max(), odam / odam.max(), atol=0.1)
    with pytest.raises(MethodError, match="explains one box"):
        get_method("odam", **given).attribute(model, x, lambda y: y.objectness.amax(1))


def test_d_rise_asks_for_a_box():
    with pytest.raises(MethodError, match="d-rise asks why a detector sees a box"):
        get_method("d-rise", samples=8).attribute(planted(), scene(), lambda y: y.objectness.amax(1))


def test_maps_of_two_boxes_point_at_them():
    cells = grid_labels((32, 32), (4, 4))
    given = {"occlusion": {"window": 8, "stride": 8}, "rise": {"samples": 300}, "d-rise": {"samples": 300}}
    given |= {name: {"samples": 200, "segments": cells, "baseline": "zero"} for name in ("lime", "kernel-shap")}
    for name, settings in given.items():
        e = pl.explain(planted(), scene()[0], get_method(name, **settings), ["box:0", "box:1"])
        for each, (x0, y0, x1, y1) in zip(e, (RED_BOX, BLUE_BOX), strict=True):
            y, x = divmod(int(each.heatmap()[0].argmax()), 32)
            assert x0 - 4 <= x < x1 + 4, (name, each.target, x, y)
            assert y0 - 4 <= y < y1 + 4, (name, each.target, x, y)


def test_a_black_box_answers_as_the_network():
    """The same detector as a function that lists its boxes: answers and occlusion agree, since no rival is near."""
    box, net = pl.wrap(listed, labels=["red", "blue"], numpy=False), planted()
    occlusion = get_method("occlusion", window=8, stride=8)
    ours, theirs = (pl.explain(m, scene()[0], occlusion, ["box:0", "box:blue"]) for m in (box, net))
    for a, b in zip(ours, theirs, strict=True):
        assert [p.place for p in a.prediction] == [p.place for p in b.prediction]
        assert [p.probability for p in a.prediction] == pytest.approx([p.probability for p in b.prediction])
        assert torch.allclose(a.attribution, b.attribution, atol=1e-6)


def test_players_and_checks_serve_boxes(tmp_path):
    model = planted()
    regions = {"square": [8, 16, 16, 24], "corner": [24, 0, 32, 8]}
    found = pl.importance(model, scene()[0], "regions", "ablation", "box:0", regions=regions, baseline="zero")
    assert found.values[:2].tolist() == pytest.approx([SURE["red"], 0], abs=1e-5)
    e = pl.explain(model, scene()[0], get_method("occlusion", window=8, stride=4), "box:0")
    e.check()
    assert e.quality.verdict
    e.save(tmp_path)
    [file] = tmp_path.glob("*.json")
    assert json.loads(file.read_text())["record"]["target"] == "box:0"
    verified = pl.verify(file, model=model, inputs=scene()[0])
    assert verified.status == "same", verified


@pytest.mark.parametrize("name", ["d-rise", "occlusion", "saliency", "rise"])
def test_no_trace_is_left_on_a_detector(name):
    """After success, and after an error or a cancel in the first, the middle and the last pass."""
    net, x = BusySquares().train(), scene()
    method = get_method(name, **({"samples": 40} if "rise" in name else {})).quick()
    before = state(net, x)
    BusySquares.calls = BusySquares.at = 0
    assert method.attribute(net, x, "box:0").any()
    assert state(net, x) == before
    passes = BusySquares.calls
    for error in ERRORS.values():
        for at in sorted({1, passes // 2, passes}):
            BusySquares.calls, BusySquares.at, BusySquares.error = 0, at, error
            with suppress(type(error), PellucidError):  # late failures leave the map of the masks before
                method.attribute(net, x, "box:0")
            assert state(net, x) == before
    BusySquares.at = 0


# --- bad answers ---


def test_broken_detectors_are_named():
    def nan(x):
        return [{"boxes": [[0, 0, 1, float("nan")]], "labels": [1], "scores": [0.5]} for _ in x]

    def uneven(x):
        return [{"boxes": [[0, 0, 1, 1]], "labels": [1, 2], "scores": [0.5]} for _ in x]

    def empty(x):
        return [{"boxes": np.zeros((0, 4)), "labels": [], "scores": []} for _ in x]

    for function, message in ((nan, "NaN or infinity to picture 0"), (uneven, "1 boxes, 2 labels and 1 scores")):
        with pytest.raises(ModelError, match=message):
            pl.explain(pl.wrap(function), scene()[0], "occlusion")
    with pytest.raises(AbsentError, match="answers no boxes to this picture"):
        pl.explain(pl.wrap(empty), scene()[0], "occlusion")


def test_labels_for_fewer_than_all_classes_are_refused():
    model = pl.wrap(Squares(), labels=["red"], task="boxes", transform=None)
    with pytest.raises(ModelError, match="has 2 classes, and labels for 1 of them: give a label for each"):
        model.predict(scene())


def test_a_region_is_no_question_for_a_detector():
    with pytest.raises(TargetError, match="answers boxes, and no regions: ask for box:0"):
        pl.explain(planted(), scene()[0], get_method("occlusion"), "region:grass")


def test_unsorted_answers_come_in_order():
    rows = padded([{"boxes": [[0, 0, 1, 1], [2, 2, 4, 4]], "labels": [3, 5], "scores": [0.2, 0.7]}])
    found = Detections.of(rows).answered()[0]
    assert found.labels.tolist() == [5, 3]
    assert found.scores.tolist() == pytest.approx([0.7, 0.2])


def test_in_a_folder_the_rest_goes_on(tmp_path):
    picture(1).save(tmp_path / "a.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "b.png")
    model = replace(planted(), preprocess=pl.Preprocess(input_size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1)))
    from pellucid.verbs.explain import explain_each

    outcomes = dict(
        explain_each(model, [tmp_path / "a.png", tmp_path / "b.png"], [get_method("occlusion")], [BoxTarget(0)])
    )
    assert isinstance(outcomes["b"], AbsentError)
    assert len(outcomes["a"]) == 1


AS_IT_IS = pl.Preprocess(input_size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1))


class Listing(nn.Module):
    """Lists two boxes a picture, in the order that it is told."""

    def __init__(self, boxes):
        super().__init__()
        self.boxes = boxes

    def forward(self, x):
        boxes, scores = torch.tensor(self.boxes), x.mean((1, 2, 3)).sigmoid()
        return [{"boxes": boxes, "labels": torch.tensor([0, 1]), "scores": torch.stack([s, s / 2])} for s in scores]


@pytest.mark.parametrize(
    "boxes", [[[20.0, 4, 8, 8], [2, 2, 4, 4]], [[5.0, 30, 9, 2], [0, 0, 1, 1]]], ids=["sizes", "random"]
)
def test_four_numbers_that_are_no_edges_make_no_detector(boxes):
    x, net = scene()[0][None], Listing(boxes)
    model = pl.wrap(net, transform=AS_IT_IS, labels=["red", "blue"])
    with pytest.raises(TargetError, match="some of its boxes end before they begin"):
        pl.explain(model, x, "saliency")
    e = pl.explain(model, x, "saliency", lambda found: torch.stack([each["scores"].amax() for each in found]))
    assert e.prediction == []
    assert e.attribution.abs().max() > 0
    declared = pl.wrap(net, transform=AS_IT_IS, labels=["red", "blue"], task="detection")
    assert [p.label for p in pl.explain(declared, x, "occlusion").prediction] == ["red", "blue"]
    edges = pl.wrap(Listing([[8.0, 16, 16, 24], [2, 2, 2, 4]]), transform=AS_IT_IS, labels=["red", "blue"])
    assert [p.place for p in edges.predict(x)[0]] == [(8, 16, 16, 24), (2, 2, 2, 4)]
