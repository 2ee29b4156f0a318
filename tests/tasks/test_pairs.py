"""Pairs: cosines of embeddings in closed form, targets that name another picture, labels and values by name."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import pellucid as pl
from helpers.sheets import illegible, texts
from pellucid.cli import app
from pellucid.errors import MediaError, MethodError, TargetError
from pellucid.explanation import Record
from pellucid.heatmaps import get_method
from pellucid.models.targets import PairTarget, as_target
from pellucid.render import panel


class Halves(nn.Module):
    """An embedding `(N, 2)`: how bright the left half of the picture is, and the right half."""

    def forward(self, x):
        return torch.stack([x[..., :8].mean((1, 2, 3)), x[..., 8:].mean((1, 2, 3))], 1)


PLAIN = pl.Preprocess(input_size=(16, 16), mean=(0, 0, 0), std=(1, 1, 1))


def written(folder, name, left, right):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8], pixels[:, 8:] = left, right
    Image.fromarray(pixels).save(folder / name)
    return folder / name


@pytest.fixture
def shown(tmp_path):
    return [written(tmp_path, *each) for each in (("a.png", 204, 102), ("b.png", 102, 204), ("c.png", 204, 0))]


def model():
    return pl.wrap(Halves(), task="embedding", transform=PLAIN)


def test_a_pair_is_the_cosine_and_its_gradient_is_exact(shown):
    a, b, c = shown
    e = pl.explain(model(), a, "input-x-gradient", f"pair:{b}")
    x, y = np.array([0.8, 0.4]), np.array([0.4, 0.8])
    cosine = x @ y / (x @ x)
    halves = e.attribution[0].sum(0)[:, :8].sum(), e.attribution[0].sum(0)[:, 8:].sum()
    unit = y / np.linalg.norm(y)
    gradient = (unit - cosine * x / np.linalg.norm(x)) / np.linalg.norm(x)
    assert [float(h) for h in halves] == pytest.approx((gradient * x).tolist(), abs=1e-5)
    assert e.target == "like b"
    found = pl.explain(model(), a, get_method("occlusion", window=(16, 8), stride=(16, 8)), f"rank:{b}>{c}")
    base = cosine - x[0] / math.hypot(*x)
    left = (y[1] / np.linalg.norm(y)) - 0.0
    assert float(found.attribution[0, 0, 0]) == pytest.approx(base - left, abs=1e-5)
    assert found.target == "liker to b than to c"


def test_a_black_box_is_asked_alike(shown):
    a, b, _ = shown
    box = pl.wrap(lambda x: Halves()(x), task="embedding", transform=PLAIN)
    occlusion = get_method("occlusion", window=(16, 8), stride=(16, 8))
    ours, theirs = (pl.explain(m, a, occlusion, f"pair:{b}").attribution for m in (model(), box))
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_sbsm_is_its_definition_by_brute_force(shown):
    """For each window the distance of the embeddings, of length 1, with it hidden; the mean over all that cover."""
    a, b, _ = shown
    settings = {"window": (8, 8), "stride": (4, 4)}
    found = pl.explain(model(), a, get_method("sbsm", **settings), f"pair:{b}").attribution[0]
    x, y = (torch.from_numpy(np.asarray(Image.open(each)).copy()).permute(2, 0, 1)[None] / 255 for each in (a, b))

    def far(picture):
        u, v = (nn.functional.normalize(Halves()(p).double(), dim=1) for p in (picture, y))
        return float((u - v).norm())

    total, covered = torch.zeros(16, 16), torch.zeros(16, 16)
    for row in range(0, 9, 4):
        for column in range(0, 9, 4):
            hidden = x.clone()
            hidden[..., row : row + 8, column : column + 8] = 0
            total[row : row + 8, column : column + 8] += max(0.0, far(hidden) - far(x))
            covered[row : row + 8, column : column + 8] += 1
    assert torch.allclose(found, total / covered, atol=1e-5)
    assert found.max() > 0
    with pytest.raises(MethodError, match="sbsm explains how near two pictures are"):
        pl.explain(model(), a, "sbsm", f"rank:{b}>{a}")


def test_a_pair_is_verified_from_its_record(shown, tmp_path):
    a, b, _ = shown
    e = pl.explain(model(), a, "saliency", f"pair:{b}")
    assert as_target(e.record.target) == PairTarget(other=str(b))
    e.save(tmp_path / "out")
    [file] = (tmp_path / "out").glob("*.json")
    assert pl.verify(file, model=model()).status == "same"


def test_what_cannot_be_compared(shown, tmp_path):
    a, b, _ = shown
    for text, error, message in (
        ("top", TargetError, "has no top class: ask why a picture is like another"),
        ("pair:", TargetError, "needs the other picture"),
        (f"rank:{b}", TargetError, "ranks nothing"),
        (f"pair:{tmp_path / 'none.png'}", MediaError, "none.png"),
        (f"pair:{written(tmp_path, 'black.png', 0, 0)}", TargetError, "black.png is zero"),
    ):
        with pytest.raises(error, match=message):
            pl.explain(model(), a, "saliency", text)
    with pytest.raises(TargetError, match="no embedding"):
        pl.explain(pl.wrap(nn.Conv2d(3, 2, 1), task="embedding", transform=PLAIN), a, "saliency", f"pair:{b}")
    with pytest.raises(TargetError, match=r"give pl.wrap\(module\)"):
        get_method("saliency").attribute(Halves(), torch.ones(1, 3, 16, 16), f"pair:{b}")


def test_labels_and_values_by_name():
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.tensor([1.0, 2.0, -1.0])[None, :, None, None].expand(1, 3, 4, 4).contiguous()
    model = pl.wrap(net, labels=["effusion", "nodule", "mass"], task="labels")
    e = pl.explain(model, x[0], "saliency", ["label:nodule", "label:2"])
    assert [each.target for each in e] == ["nodule", "mass"]
    assert as_target(e[0].record.target).spec() == e[0].record.target
    assert float(e[0].explained.probability(net(x), {})) == pytest.approx(1 / (1 + math.exp(-2)))
    measured = pl.wrap(net, labels=["steering", "speed", "brake"], task="values")
    e = pl.explain(measured, x[0], "input-x-gradient", "value:speed")
    assert float(e.attribution.sum()) == pytest.approx(2.0, abs=1e-5)
    assert float(e.explained.probability(net(x), {})) == 2.0
    with pytest.raises(TargetError, match="no class 'speeed'; did you mean 'speed'"):
        pl.explain(measured, x[0], "saliency", "value:speeed")


def test_a_sheet_says_the_whole_question_and_which_picture_has_which_part(shown):
    a, b, c = shown
    names = [x.with_stem(f"{x.stem} in the yard behind the house") for x in (b, c)]
    for old, new in zip((b, c), names, strict=True):
        old.rename(new)
    found = pl.explain(model(), a, "occlusion", f"rank:{names[0]}>{names[1]}")
    said = " ".join(texts(panel([found])))
    assert f"liker to {names[0].stem} than to {names[1].stem}" in said
    assert illegible(panel([found])) == []
    asked = "liker to a street at night than to one by day"
    assert asked in " ".join(texts(panel([replace(found, target=asked)])))
    assert f"and {names[0].stem}" in " ".join(texts(panel([pl.explain(model(), a, "occlusion", f"pair:{names[0]}")])))


def test_a_log_is_told_the_cost_of_what_takes_thousands_of_passes_alone(shown, tmp_path, monkeypatch):
    """On the command line a ranking is asked for by text, and what nobody looks at stays quiet."""
    monkeypatch.setattr("pellucid.cli.options.load_model", lambda *_, **__: model())
    a, b, c = shown
    asked = ["explain", str(a), "--target", f"rank:{b}>{c}", "--no-check", "--out", str(tmp_path)]
    dear = CliRunner().invoke(app, [*asked, "--method", "trace-order", "--set", "cells=2"])
    quiet = CliRunner().invoke(app, [*asked, "--method", "occlusion"])
    assert dear.exit_code == quiet.exit_code == 0, dear.output
    assert f"trace-order for liker to {b.stem} than to {c.stem}" in dear.output
    assert "no class scores" not in dear.output, "an embedding lacks nothing"
    assert "trace-order: some 900 forwards" in dear.output
    assert "occlusion: " not in quiet.output


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("onnx:/data/nets/yolox_nano.onnx", "onnx:yolox_nano.onnx"),
        ("hf:./nets/vit", "hf:vit"),
        ("hf:google/vit-base", "hf:google/vit-base"),
        ("timm:resnet18", "timm:resnet18"),
        ("", "model"),
    ],
)
def test_a_heading_names_the_file_of_a_model_and_no_folder(name, said):
    assert Record({"name": name}, {}, {}, None, {}, {}).model_name == said
