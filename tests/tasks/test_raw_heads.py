"""What files of known detectors answer: raw numbers, read number by number as their papers say."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pellucid as pl
from pellucid.errors import ModelError, TargetError
from pellucid.models.detection.heads import HEADS

SIZE = 64  # a side of the input


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def yolox_box(raw, k):
    """Candidate k by loops: levels of stride 8, 16, 32, row by row."""
    for stride in (8, 16, 32):
        cells = SIZE // stride
        if k < cells * cells:
            row, column = divmod(k, cells)
            break
        k -= cells * cells
    x, y, w, h = raw[:4]
    centre, size = ((x + column) * stride, (y + row) * stride), (math.exp(w) * stride, math.exp(h) * stride)
    return [
        *(c - s / 2 for c, s in zip(centre, size, strict=True)),
        *(c + s / 2 for c, s in zip(centre, size, strict=True)),
    ]


def fastestdet_box(cell, row, column, cells):
    """The cell's box: an offset within it by tanh, a size as a share of the input by a sigmoid."""
    x, y = (column + math.tanh(cell[1])) * SIZE / cells, (row + math.tanh(cell[2])) * SIZE / cells
    w, h = sigmoid(cell[3]) * SIZE, sigmoid(cell[4]) * SIZE
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def test_yolox_is_read_as_its_paper_says():
    torch.manual_seed(0)
    raw = torch.randn(2, 64 + 16 + 4, 5 + 3) / 2
    raw[..., 4:] = raw[..., 4:].sigmoid()
    found = HEADS["yolox"].read(raw, (SIZE, SIZE))
    for n, k in ((0, 0), (0, 63), (1, 64), (1, 79), (0, 80), (1, 83)):
        assert found.boxes[n, k].tolist() == pytest.approx(yolox_box(raw[n, k].tolist(), k), rel=1e-5, abs=1e-4)
    assert torch.equal(found.objectness, raw[..., 4])
    assert torch.equal(found.classes, raw[..., 5:])
    sure = found.confidence(torch.tensor([2, 0]))
    assert torch.allclose(sure[0], raw[0, :, 4] * raw[0, :, 7])


def test_fastestdet_is_read_as_its_code_says():
    torch.manual_seed(1)
    raw = torch.randn(1, 5 + 2, 4, 4)
    raw[:, 0], raw[:, 5:] = raw[:, 0].sigmoid(), raw[:, 5:].softmax(1)
    found = HEADS["fastestdet"].read(raw, (SIZE, SIZE))
    for row, column in ((0, 0), (1, 3), (3, 2)):
        cell = raw[0, :, row, column].tolist()
        k = 4 * row + column
        assert found.boxes[0, k].tolist() == pytest.approx(fastestdet_box(cell, row, column, 4), rel=1e-5, abs=1e-4)
        sure = float(found.confidence(torch.tensor([1]))[0, k])
        assert sure == pytest.approx(cell[0] ** 0.6 * cell[6] ** 0.4, rel=1e-5)


def test_yolo_of_one_head_and_behind_its_suppression():
    raw = torch.zeros(1, 4 + 2, 7)
    raw[0, :, 3] = torch.tensor([20.0, 30.0, 8.0, 12.0, 0.9, 0.1])
    found = HEADS["yolo"].read(raw, (SIZE, SIZE))
    (answer,) = found.answered()
    assert answer.boxes.tolist() == [[16.0, 24.0, 24.0, 36.0]]
    assert (answer.labels.tolist(), answer.scores.tolist()) == ([0], pytest.approx([0.9]))
    ended = torch.tensor([[[16.0, 24.0, 24.0, 36.0, 0.4, 1.0], [0.0, 0.0, 9.0, 9.0, 0.7, 0.0], [0.0] * 6]])
    (answer,) = HEADS["yolo"].read(ended, (SIZE, SIZE)).answered()
    assert answer.labels.tolist() == [0, 1], "the surest first, rows of nothing left out"
    assert answer.boxes[1].tolist() == [16.0, 24.0, 24.0, 36.0]


@pytest.mark.parametrize("probabilities", [False, True])
def test_ssd_has_corners_in_shares_and_a_background(probabilities):
    logits = torch.tensor([[[0.0, 2.0, 1.0], [5.0, 0.0, 0.0]]])
    shares = logits.softmax(-1)
    boxes = torch.tensor([[[0.25, 0.5, 0.5, 0.75], [0.0, 0.0, 1.0, 1.0]]])
    found = HEADS["ssd"].read({"scores": shares if probabilities else logits, "boxes": boxes}, (32, SIZE))
    assert found.boxes[0, 0].tolist() == [16.0, 16.0, 32.0, 24.0]
    assert torch.allclose(found.classes[..., 1:], shares[..., 1:])
    assert not found.classes[..., 0].any(), "the background is no object"
    (answer,) = found.answered()
    assert answer.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("head", "shape"), [("yolox", (1, 83, 8)), ("fastestdet", (1, 84, 8)), ("yolo", (1, 84, 8)), ("ssd", (1, 84, 8))]
)
def test_another_head_is_told_by_the_shape(head, shape):
    with pytest.raises(TargetError, match=f"The head '{head}' reads"):
        HEADS[head].read(torch.zeros(shape), (SIZE, SIZE))
    with pytest.raises(ModelError, match="choose yolox, fastestdet, yolo, ssd"):
        pl.wrap(lambda x: x, task="boxes:yolov9")


class Raw(nn.Module):
    """YOLO of one candidate, a box in the middle; it keeps what it was shown."""

    def forward(self, x):
        self.shown = x
        answer = x.new_zeros(len(x), 6, 8)
        answer[:, :, 0] = torch.tensor([32.0, 32.0, 16.0, 8.0, 0.9, 0.05])
        return answer


@pytest.mark.parametrize(
    ("head", "scale", "order"), [("yolox", 255, [2, 1, 0]), ("fastestdet", 1, [2, 1, 0]), ("yolo", 1, [0, 1, 2])]
)
def test_each_is_shown_its_own_colours(head, scale, order):
    net = Raw()
    model, x = pl.wrap(net, task=f"boxes:{head}"), torch.rand(1, 3, SIZE, SIZE)
    try:
        model.module(x)
    except TargetError:  # the answer is of another head; what was shown is asked here
        assert head != "yolo"
    assert torch.allclose(net.shown, x[:, order] * scale)


def test_a_picture_is_brought_to_the_files_size_and_its_boxes_back():
    """Twice as wide as high: half of the input is the grey border, above and below."""
    shown = pl.Preprocess(
        input_size=(SIZE, SIZE), resize=(SIZE, SIZE), fit="contain", fill=(114,) * 3, mean=(0,) * 3, std=(1,) * 3
    )
    net = Raw()
    model = pl.wrap(net, task="boxes:yolo", labels=["a", "b"], transform=shown)
    e = pl.explain(model, Image.fromarray(np.full((64, 128, 3), 255, np.uint8)), "occlusion", "box:0")
    assert e.prediction[0].place == pytest.approx((48, 24, 80, 40)), "twice the input's 16 x 8 around the middle"
    x, _ = model.pictures(pl.media.read_image("sample:coffee"))
    assert x[:, 0, 0].tolist() == pytest.approx([114 / 255] * 3, abs=1e-6)


def test_the_border_of_a_head_that_contains_is_grey():
    own = pl.wrap(Raw(), task="boxes:yolox").preprocess
    assert (own.fit, own.fill, own.input_size) == ("contain", (114,) * 3, (416, 416))
    assert pl.wrap(Raw(), task="boxes:ssd").preprocess.fit == "exact"
