"""Every question about boxes, regions, anomalies and pairs is asked again from its record, and gives the same map."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pellucid as pl
from helpers.detectors import Squares
from helpers.detectors import scene as squares
from helpers.segmenters import LABELS, Planted
from helpers.segmenters import scene as regions
from pellucid.heatmaps import get_method

METHOD = get_method("occlusion", window=8, stride=8, baseline="zero")


class Oddness(nn.Module):
    def forward(self, x):
        cells = nn.functional.avg_pool2d(x.mean(1, keepdim=True), 8)
        return {"score": cells.flatten(1).amax(1), "anomaly_map": cells}


class Halves(nn.Module):
    """The mean colours of the left and of the right half."""

    def forward(self, x):
        return torch.cat([half.mean((2, 3)) for half in x.chunk(2, 3)], 1)


def detector():
    return pl.wrap(Squares(), labels=["red", "blue"], task="boxes")


def listing():
    """The same as a function, with no candidates to be the same in every picture."""
    return pl.wrap(lambda x: list(Squares()(x)), labels=["red", "blue"], task="boxes")


def segmenter():
    return pl.wrap(Planted(), labels=LABELS, task="regions")


def oddness():
    return pl.wrap(Oddness())


def alike():
    plain = pl.Preprocess(input_size=(16, 16), resize=(16, 16), mean=(0,) * 3, std=(1,) * 3)
    return pl.wrap(Halves(), task="embedding", transform=plain)


PARTS = ("class", "objectness", "left", "top", "right", "bottom", "iou", "similarity")
BOXES = ["box", "box:1", "box:blue", "box:red@7,17,16,24", "box:blue@0,0,8,8", "box:0>box:1"]
REGIONS = ["region:red", "region:red#2", "region:@4,4", "region:red/all", "region:red/iou", "region:red>region:blue"]


@pytest.mark.parametrize(
    ("make", "target"),
    [
        *((detector, text) for text in (*BOXES, *(f"box:0/{part}" for part in PARTS))),
        *((listing, text) for text in BOXES),
        *((segmenter, text) for text in REGIONS),
        *((oddness, text) for text in ("anomaly", "anomaly@4,12")),
    ],
)
def test_a_question_is_verified_from_its_record(make, target, tmp_path):
    x = (regions() if make is segmenter else squares())[0]
    e = pl.explain(make(), x, METHOD, target)
    (record,) = (file for file in e.save(tmp_path) if file.suffix == ".json")
    assert pl.verify(record, model=make(), inputs=x).status == "same"


def test_an_error_and_its_mask_are_in_the_record(tmp_path):
    true = np.zeros((16, 24), np.uint8)
    true[3:7, 2:12] = 255
    Image.fromarray(true).save(tmp_path / "true.png")
    x = regions()[0]
    e = pl.explain(segmenter(), x, METHOD, f"region:red/error={tmp_path / 'true.png'}")
    (record,) = (file for file in e.save(tmp_path / "out") if file.suffix == ".json")
    assert pl.verify(record, model=segmenter(), inputs=x).status == "same"


@pytest.mark.parametrize("text", ["pair:{0}", "rank:{0}>{1}"])
def test_the_other_pictures_are_opened_again(text, tmp_path):
    files = []
    for k, colour in enumerate([(250, 20, 20), (200, 90, 10), (10, 30, 240)]):
        pixels = np.full((16, 16, 3), colour, np.uint8)
        pixels[:, 8:] //= k + 2
        files.append(tmp_path / f"{k}.png")
        Image.fromarray(pixels).save(files[-1])
    e = pl.explain(alike(), files[0], METHOD, text.format(*files[1:]))
    (record,) = (file for file in e.save(tmp_path / "out") if file.suffix == ".json")
    assert pl.verify(record, model=alike()).status == "same"


@pytest.mark.parametrize("target", REGIONS)
def test_a_segmenter_as_a_black_box_gives_the_same_map(target):
    net = Planted()
    black = pl.wrap(lambda x: net(x), labels=LABELS, task="regions")
    a, b = (pl.explain(model, regions()[0], METHOD, target) for model in (segmenter(), black))
    assert a.prediction == b.prediction
    assert torch.allclose(a.attribution, b.attribution, atol=1e-6)
    assert a.attribution.any()
