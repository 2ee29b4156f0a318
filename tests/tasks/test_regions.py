"""Regions: a planted segmenter with exact answers, what its targets score, and methods that serve them."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import list_models, segmentation

import pellucid as pl
from helpers.nets import noise
from helpers.segmenters import BLUE, GROUND, LABELS, RED, Busy, Planted, scene
from helpers.traces import ERRORS, ON_REGIONS, state
from pellucid.errors import AbsentError, MethodError, ModelError, PellucidError, TargetError
from pellucid.heatmaps import get_method
from pellucid.models.targets import as_target
from pellucid.testing import check_target


def planted():
    return pl.wrap(Planted(), labels=LABELS, task="regions")


def scored(target, x=None):
    model, given = planted(), scene()
    bound = model.frozen(model.bound(as_target(target), given), given, model.outputs(given))
    return float(bound(Planted()(given if x is None else x)))


def written(tmp_path, places, size=(16, 24)):
    mask = np.zeros(size, np.uint8)
    mask[places] = 255
    file = tmp_path / "true.png"
    Image.fromarray(mask).save(file)
    return file


def test_answers_are_the_shares_of_the_picture():
    answers = planted().predict(scene())[0]
    assert [(a.label, a.probability) for a in answers] == [
        ("ground", (384 - 28 - 25) / 384),
        ("red", 28 / 384),
        ("blue", 25 / 384),
    ]
    assert answers[1].score == pytest.approx((24 * RED + 4 * RED / 2) / 28)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("region:blue", BLUE),
        ("region:2", BLUE),
        ("region:red", (24 * RED + 4 * RED / 2) / 28),
        ("region:red#1", RED),
        ("region:red#2", RED / 2),
        ("region:red/all", (24 * RED + 4 * RED / 2) / 384),
        ("region:red@4,5", RED),
        ("region:blue@4,5", 0.0),
        ("region:@4,5", RED),
        ("region:red/iou", 1.0),
        ("region", GROUND),
        ("top:1", (24 * RED + 4 * RED / 2) / 28),
    ],
)
def test_every_region_is_exact(target, expected):
    assert scored(target) == pytest.approx(expected, abs=1e-6)


def test_places_stay_when_the_object_goes():
    gone = scene()
    gone[0, 2] = 0
    gone[0, 2, 4:9, 15:20] = BLUE
    assert scored("region:blue", gone) == pytest.approx(BLUE * 10 / 25)
    assert scored("region:blue/iou", gone) == pytest.approx(10 / 40)


def test_an_error_beside_a_true_mask(tmp_path):
    """The true blue piece begins two columns to the right: ten places are falsely blue, ten are missed."""
    file = written(tmp_path, (slice(4, 9), slice(14, 19)))
    false, missed = BLUE - GROUND, GROUND - 0.0
    assert scored(f"region:blue/error={file}") == pytest.approx((10 * false + 10 * missed) / 20, abs=1e-6)
    with pytest.raises(AbsentError, match="makes no error"):
        scored(f"region:blue/error={written(tmp_path, (slice(4, 9), slice(12, 17)))}")
    with pytest.raises(AbsentError, match="is 9 x 9, and the picture 24 x 16"):
        pl.explain(planted(), scene()[0], "occlusion", f"region:blue/error={written(tmp_path, (0, 0), (9, 9))}")
    with pytest.raises(TargetError, match="cannot be read"):
        scored("region:blue/error=nothing.png")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("region:green", TargetError, "no class 'green'"),
        ("region:blue/left", TargetError, "no part 'left'"),
        ("region:blue@1", TargetError, "is no region"),
        ("region:blue#7", AbsentError, "1 connected pieces"),
        ("top:3", AbsentError, "3 regions"),
        ("blue", TargetError, "region:LABEL, all that it gives to that class"),
    ],
)
def test_what_cannot_be_asked_of_regions(text, error, message):
    with pytest.raises(error, match=message):
        scored(text)
    if text == "region:blue#7":
        with pytest.raises(AbsentError, match="outside of what the model sees"):
            pl.explain(planted(), scene()[0], "occlusion", "region:red@90,4")


def test_labels_and_questions_of_another_model_are_refused():
    with pytest.raises(ModelError, match="has 3 classes, and labels for 2 of them"):
        pl.wrap(Planted(), labels=["ground", "red"], task="regions").predict(scene())
    with pytest.raises(TargetError, match="no boxes: ask for region:LABEL"):
        pl.explain(planted(), scene()[0], get_method("occlusion"), "box:0")


@pytest.mark.parametrize(
    "text", ["region:", "region:road", "region:3", "region:car#2", "region:road@1,2.5", "region:road/all"]
)
def test_texts_read_back(text):
    assert as_target(text).spec() == text
    assert as_target(as_target(text).spec()) == as_target(text)


def test_two_numbers_make_a_place():
    from pellucid.models.targets import split_targets

    given = "region:road@1,2,region:car@3,4/all,box:dog@1,2,3,4,281"
    assert split_targets(given) == ["region:road@1,2", "region:car@3,4/all", "box:dog@1,2,3,4", "281"]


def test_the_target_keeps_its_contract():
    x = torch.cat([scene(), scene().flip(3)])
    for text in ("region:1", "region:2@12,5", "region:1/all"):
        check_target(as_target(text), network=Planted, inputs=x)


def test_gradients_stay_in_the_region():
    found = get_method("saliency").attribute(planted(), scene(), "region:blue")
    inside = torch.zeros(16, 24, dtype=torch.bool)
    inside[4:9, 12:17] = True
    assert torch.allclose(found[0, 2][inside], torch.full((25,), 1 / 25))
    assert float(found.sum()) == pytest.approx(1.0)


def test_occlusion_and_rise_with_the_overlap_of_masks():
    occlusion = get_method("occlusion", window=(5, 5), stride=(1, 1))
    e = pl.explain(planted(), scene()[0], occlusion, ["region:blue/iou", "region:blue"])
    for each, most in zip(e, (1.0, BLUE), strict=True):
        y, x = divmod(int(each.attribution[0].argmax()), 24)
        assert (y, x) == (6, 14), "the middle of the piece loses most"
        assert float(each.attribution.max()) <= most + 1e-6
    e = pl.explain(planted(), scene()[0], get_method("rise", samples=300), "region:blue/iou")
    y, x = divmod(int(e.heatmap()[0].argmax()), 24)
    assert 2 <= y < 11
    assert 10 <= x < 19


def test_seg_grad_cam_and_seg_xres_cam_are_their_formulas():
    torch.manual_seed(0)
    net, x = Busy().eval(), noise(1, 3, 16, 24)
    model = pl.wrap(net, task="regions")
    A = net.body(x * 1.0).detach().requires_grad_()
    scores = net.head(A)
    places = scores.argmax(1) == 1
    assert 0 < int(places.sum()) < places.numel()
    (G,) = torch.autograd.grad(scores[0, 1][places[0]].mean(), A)
    grad_cam = (G.mean((2, 3), keepdim=True) * A).sum(1).relu()
    given = {"layer": "body.3"}
    assert torch.allclose(get_method("seg-grad-cam", **given).attribute(model, x, "region:1"), grad_cam, atol=1e-7)
    one = get_method("seg-xres-cam", window=1, **given).attribute(model, x, "region:1")
    assert torch.allclose(one, (G * A).sum(1).relu(), atol=1e-7)
    whole = get_method("seg-xres-cam", window=12, **given).attribute(model, x, "region:1")
    assert whole.shape == grad_cam.shape
    pooled = get_method("seg-xres-cam", window=4, **given).attribute(model, x, "region:1")
    blocks = G.unflatten(3, (3, 4)).unflatten(2, (2, 4)).mean((3, 5))
    assert torch.allclose(pooled, (torch.kron(blocks, torch.ones(1, 1, 4, 4)) * A).sum(1).relu(), atol=1e-7)
    with pytest.raises(MethodError, match="explains a region"):
        get_method("seg-grad-cam", **given).attribute(net, x, lambda y: y["out"].mean((1, 2, 3)))


@pytest.mark.parametrize("name", [*ON_REGIONS, "occlusion", "saliency", "grad-cam"])
def test_no_trace_is_left_on_a_segmenter(name):
    torch.manual_seed(0)
    net, x = Busy().train(), noise(1, 3, 16, 24)
    method = get_method(name, **({"layer": "body.3"} if "cam" in name else {}))
    before = state(net, x)
    Busy.calls = Busy.at = 0
    method.attribute(net, x, "region:1/all" if name in ("occlusion", "saliency") else "region:1")
    assert state(net, x) == before
    passes = Busy.calls
    for error in ERRORS.values():
        for at in sorted({1, max(1, passes // 2), passes}):
            Busy.calls, Busy.at, Busy.error = 0, at, error
            with suppress(type(error), PellucidError):
                method.attribute(net, x, "region:1")
            assert state(net, x) == before
    Busy.at = 0


def test_a_region_is_verified_from_its_record(tmp_path):
    model = planted()
    e = pl.explain(model, scene()[0], get_method("occlusion", window=4, stride=2), "region:red#1")
    assert e.record.target == "region:red#1"
    assert e.extras["region"].sum() == 24
    e.save(tmp_path)
    [file] = tmp_path.glob("*.json")
    assert pl.verify(file, model=model, inputs=scene()[0]).status == "same"
    assert pl.Heatmaps([e]).png().startswith(b"\x89PNG")


# --- networks of libraries ---

SEGMENTERS = list_models(module=segmentation)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n.startswith("lraspp") else [pytest.mark.slow]) for n in SEGMENTERS]
)
def test_every_segmenter_of_torchvision(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=5).train()
        with torch.no_grad():
            net(torch.rand(2, 3, 64, 96))
    net.eval()
    model, x = pl.wrap(net), noise(1, 3, 64, 96)
    with torch.no_grad():
        won = net(x)["out"].argmax(1)
    answers = model.predict(x)[0]
    for answer in answers:
        assert answer.probability == pytest.approx(float((won == answer.index).float().mean()))
    assert sum(a.probability for a in answers) == pytest.approx(1)
    maps = [get_method("saliency").attribute(model, x, f"region:@{at}") for at in ("8,8", "80,50")]
    assert all(m.isfinite().all() and m.any() for m in maps)
    assert not torch.allclose(maps[0] / maps[0].max(), maps[1] / maps[1].max(), atol=1e-2)


def test_segformer_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_labels=4, depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=16,
        num_attention_heads=[1, 1, 2, 2], id2label={0: "road", 1: "car", 2: "sky", 3: "tree"},
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.SegformerForSemanticSegmentation(config).eval().save_pretrained(tmp_path)
    transformers.SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    model = pl.load(f"hf:{tmp_path}")
    assert model.labels == ("road", "car", "sky", "tree")
    x = noise(1, 3, 64, 64)
    with torch.no_grad():
        own = model.module(x).logits
    found = model.predict(x)[0]
    assert found[0].probability == pytest.approx(float((own.argmax(1) == found[0].index).float().mean()))
    e = pl.explain(model, Image.new("RGB", (80, 60), (90, 200, 30)), ["saliency", "occlusion"], "region:@40,30")
    assert all(each.attribution.isfinite().all() for each in e)
