"""Every detector of torchvision, with random weights: its answers are its own, its candidates explain them."""

import pytest
import torch
from torch import nn
from torchvision.models import detection

import pellucid as pl
from pellucid.errors import PellucidError
from pellucid.heatmaps import get_method
from pellucid.models.detections import overlaps
from pellucid.models.targets import BoxTarget

PLAIN = {"weights": None, "weights_backbone": None}
SMALL = {**PLAIN, "min_size": 96, "max_size": 160}
ONE_STAGE = {
    "ssdlite320_mobilenet_v3_large": {**PLAIN, "score_thresh": 0.0, "num_classes": 5},
    "ssd300_vgg16": {**PLAIN, "score_thresh": 0.0, "num_classes": 5},
    "retinanet_resnet50_fpn": {**SMALL, "score_thresh": 0.0, "num_classes": 5},
    "retinanet_resnet50_fpn_v2": {**SMALL, "score_thresh": 0.0, "num_classes": 5},
    "fcos_resnet50_fpn": {**SMALL, "score_thresh": 0.0, "num_classes": 5},
}
TWO_STAGES = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": {**SMALL, "box_score_thresh": 0.0, "num_classes": 5},
    "fasterrcnn_mobilenet_v3_large_fpn": {**SMALL, "box_score_thresh": 0.0, "num_classes": 5},
    "fasterrcnn_resnet50_fpn": {**SMALL, "box_score_thresh": 0.0, "num_classes": 5},
    "fasterrcnn_resnet50_fpn_v2": {**SMALL, "box_score_thresh": 0.0, "num_classes": 5},
    "maskrcnn_resnet50_fpn": {**SMALL, "box_score_thresh": 0.0, "num_classes": 5},
    "maskrcnn_resnet50_fpn_v2": {**SMALL, "box_score_thresh": 0.0, "num_classes": 5},
    "keypointrcnn_resnet50_fpn": {**SMALL, "box_score_thresh": 0.0},
}
FAST = {"ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"}
EVERY = [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in (*ONE_STAGE, *TWO_STAGES)]


def made(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = getattr(detection, name)(**(ONE_STAGE | TWO_STAGES)[name]).eval()
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:  # statistics of noise, without which signals vanish in an untrained network
            norm.train()
            norm.momentum = None
        with torch.no_grad():
            net(list(torch.rand(2, 3, 160, 160)))
            if name.startswith("fcos"):  # whose sides are rectified: half of an untrained net's boxes have no area
                net.head.regression_head.bbox_reg.bias += 1
        return net.eval()


def noise(*size):
    return torch.rand(size, generator=torch.Generator().manual_seed(1))


def test_all_are_tried():
    assert set(ONE_STAGE) | set(TWO_STAGES) == set(detection_names())


def detection_names():
    from torchvision.models import list_models

    return list_models(module=detection)


@pytest.mark.parametrize("name", EVERY)
def test_answers_are_the_networks_own_and_candidates_hold_them(name):
    net, x = made(name), noise(2, 3, 120, 150)
    model = pl.wrap(net)
    with torch.no_grad():
        own = net(list(x))
    found = model.outputs(x)
    for n, (ours, theirs) in enumerate(zip(found.answered(), own, strict=True)):
        best = theirs["scores"].argsort(descending=True, stable=True)
        assert len(ours.boxes) > 1
        assert torch.allclose(ours.boxes, theirs["boxes"][best], atol=1e-3)
        assert torch.equal(ours.labels, theirs["labels"][best])
        assert torch.allclose(ours.scores, theirs["scores"][best], atol=1e-6)
        labels = ours.labels[:1].expand(len(x))
        near = overlaps(found.placed(labels)[n], ours.boxes[0])
        k = int((near * found.confidence(labels)[n]).argmax())
        assert float(near[k]) == pytest.approx(1, abs=1e-3)
        assert float(found.confidence(labels)[n, k]) == pytest.approx(float(ours.scores[0]), abs=1e-5)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    pl.explain(model, x[0], get_method("occlusion", window=75, stride=75), "box:0")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("name", EVERY)
def test_gradients_of_two_boxes_are_finite_and_differ(name):
    net, x = made(name), noise(1, 3, 120, 150)
    model, saliency = pl.wrap(net), get_method("saliency")
    first, second = (saliency.attribute(model, x, f"box:{n}/class") for n in (0, 1))
    assert first.isfinite().all()
    assert second.isfinite().all()
    assert bool(first.any())
    assert not torch.allclose(first / first.abs().max(), second / second.abs().max(), atol=1e-2)
    if name in TWO_STAGES:  # whose proposals carry no gradient: that of a side would be wrong
        with pytest.raises(PellucidError, match="gradient"):
            saliency.attribute(model, x, "box:0/left")
    else:
        left = saliency.attribute(model, x, BoxTarget(0, part="left"))
        assert bool(left.any())


def test_a_side_moves_as_its_gradient_says():
    """One stage: the derivative of the left side along a direction equals finite differences."""
    net, x = made("ssdlite320_mobilenet_v3_large").double(), noise(1, 3, 320, 320).double()
    model = pl.wrap(net)
    bound = model.frozen(model.bound(BoxTarget(0, part="bottom"), x), x, model.outputs(x))
    gradient = get_method("input-x-gradient").attribute(model, x, BoxTarget(0, part="bottom")) / x
    direction = torch.sign(gradient)
    with torch.no_grad():
        ahead, behind = (float(bound(model.module(x + step * direction))) for step in (1e-6, -1e-6))
    assert (ahead - behind) / 2e-6 == pytest.approx(float((gradient * direction).sum()), rel=2e-2)


def test_by_name_without_weights():
    model = pl.load("torchvision:ssdlite320_mobilenet_v3_large", random_weights=True)
    assert model.preprocess.input_size == (320, 320)
    assert model.labels[1] == "person"
    assert model.task.name == "boxes"
