"""Black boxes: any function of a batch, and ONNX files; explained as the network inside them would be."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from pellucid.engine.names import named, names_of, renamed
from pellucid.errors import MethodError, ModelError
from pellucid.heatmaps import RISE, GradCAM, Occlusion
from pellucid.models import blackbox
from pellucid.models.blackbox import BlackBox


@pytest.fixture
def net():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))
    return nn.Sequential(*layers).eval()


@pytest.fixture
def x():
    return torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("numpy", [False, True])
def test_a_function_is_explained_as_the_network_inside_it(net, x, numpy):
    def predictor(batch):
        assert isinstance(batch, np.ndarray) == numpy
        with torch.no_grad():
            scores = net(torch.as_tensor(batch))
        return scores.numpy() if numpy else scores

    box = pl.wrap(predictor, numpy=numpy)
    assert box.name == "predictor"
    method = Occlusion(window=6, stride=3)
    assert torch.allclose(method.attribute(box, x, 2), method.attribute(net, x, 2), atol=1e-6)


def test_methods_that_need_more_than_outputs_say_so(net, x):
    with pytest.raises(MethodError, match=r"black box.*occlusion"):
        GradCAM().attribute(pl.wrap(lambda batch: net(batch)), x, 1)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda b: torch.zeros(3), "one row of scores"),
        (lambda b: torch.zeros(len(b) + 1, 4), "one row of scores"),
        (lambda b: torch.rand(len(b), 4), "changes its answer"),
        (lambda b: 1 / 0, r"failed on a batch of shape \(2, 3, 24, 20\) \(ZeroDivisionError"),
    ],
)
def test_misbehaving_boxes_are_named(x, function, said):
    with pytest.raises(ModelError, match=said):
        Occlusion(window=8).attribute(pl.wrap(function), x, 0)


def test_nan_from_a_box_is_named(x):
    calls = []

    def breaks(batch):
        calls.append(len(batch))
        return torch.full((len(batch), 2), float("nan") if len(calls) > 3 else 1.0)

    with pytest.raises(ModelError, match="NaN"):
        Occlusion(window=8).attribute(pl.wrap(breaks), x, 0)


def test_the_same_answer_is_asked_for_twice_only_once_and_no_input_again(x):
    seen = []

    def count(batch):
        seen.append(len(batch))
        return batch.flatten(1)[:, :3]

    box = BlackBox(count)
    for _ in range(3):
        assert torch.equal(box(x), x.flatten(1)[:, :3])
    assert seen == [2, 1]
    assert torch.equal(box(torch.cat([x[1:], x[:1] + 1])), torch.cat([x[1:], x[:1] + 1]).flatten(1)[:, :3])
    assert seen == [2, 1, 1]


def test_masked_inputs_are_known_by_their_names_and_nobody_else_is_taken_for_one(net, x, monkeypatch):
    """A masked input is not read to be recognised; and it is recognised in a second run, through adapters."""
    asked, hashed = [], []
    monkeypatch.setattr(blackbox, "_key", lambda row: hashed.append(1) or hash(row.numpy().tobytes()))

    def predictor(batch):
        asked.append(len(batch))
        with torch.no_grad():
            return net(batch)

    box, method = pl.wrap(predictor), RISE(samples=40, baseline="blur")
    first = method.attribute(box, x, 1)
    few, count = len(hashed), sum(asked)
    assert few < 8
    assert count >= 80
    assert torch.equal(method.attribute(box, x, 1), first)
    assert sum(asked) == count
    other = method.attribute(box, x.flip(2), 1)  # another input, the same masks
    assert sum(asked) > count
    assert torch.allclose(other, method.attribute(net, x.flip(2), 1), atol=1e-6)
    ground = replace(method, baseline="zero").attribute(box, x, 1)  # the same input on another baseline
    assert torch.allclose(ground, replace(method, baseline="zero").attribute(net, x, 1), atol=1e-6)


def test_a_name_dies_with_what_is_written_to_its_tensor():
    rows = named(torch.zeros(2, 3), ["a", "b"])
    assert names_of(rows) == ("a", "b")
    assert names_of(renamed(rows.flip(1), rows, "flipped")) == (("a", "flipped"), ("b", "flipped"))
    assert names_of(rows * 2) is names_of(rows[:1]) is None
    part = rows.detach()
    named(part, ["c", "d"])
    rows[0] = 1  # a view's memory, and the tensor's own
    assert names_of(rows) is names_of(part) is None
    assert names_of(renamed(part.clone(), part)) is None


def test_a_box_that_drifts_later_is_found_out():
    calls = []

    def drifts(batch):
        calls.append(len(batch))
        return batch.flatten(1)[:, :3] + (len(calls) > 20)

    box = BlackBox(drifts)

    def ask_forty():
        for n in range(40):
            box(torch.full((1, 3, 4, 4), float(n)))

    with pytest.raises(ModelError, match="changes its answer"):
        ask_forty()
    assert 20 < len(calls) < 40


def test_another_number_of_classes_is_named(x):
    box = BlackBox(lambda batch: batch.flatten(1)[:, : 3 if float(batch.sum()) == float(x[:1].sum()) else 4])
    box(x[:1])
    with pytest.raises(ModelError, match=r"\(4,\) scores an input, and \(3,\) before"):
        box(x[1:])


def test_memory_is_bounded(monkeypatch, x):
    monkeypatch.setattr("pellucid.models.blackbox._REMEMBERED", 40)
    box = BlackBox(lambda batch: batch.flatten(1)[:, :3])
    for n in range(6):
        assert torch.equal(box(x + n), (x + n).flatten(1)[:, :3])
    assert len(box._answers.rows) == 3


@pytest.mark.slow
def test_an_exported_model_explains_as_the_original(tmp_path, net):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    transform = pl.Preprocess(input_size=(24, 20), mean=(0.5,) * 3, std=(0.25,) * 3)
    model = pl.wrap(net, transform=transform, labels=list("abcde"))
    file = pl.to_onnx(model, tmp_path / "net.onnx")
    box = pl.load(f"onnx:{file}")
    assert box.labels == tuple("abcde")
    ours = pl.explain(model, "sample:cat", "occlusion", 3)
    theirs = pl.explain(box, "sample:cat", "occlusion", 3)
    assert torch.allclose(ours.attribution, theirs.attribution, atol=1e-5)
    assert theirs.check().sanity is None  # no weights to shuffle
    theirs.save(tmp_path / "out")
    assert pl.verify(tmp_path / "out" / "cat.occlusion.json").status == "same"
    with pytest.raises(ModelError, match="its own weights"):
        pl.load(f"onnx:{file}", random_weights=True)


def test_files_that_are_no_onnx_models_are_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    rubbish = tmp_path / "rubbish.onnx"
    rubbish.write_bytes(b"not a model")
    with pytest.raises(ModelError, match="no ONNX model"):
        pl.load(f"onnx:{rubbish}")
    with pytest.raises(ModelError, match="Cannot read"):
        pl.load(f"onnx:{tmp_path / 'absent.onnx'}")
