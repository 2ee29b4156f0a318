"""`pl.importance` of one picture: planted parts are found first, everything can be verified."""

import csv
import json

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.cases import SIDE, bright_model, save
from helpers.planted import planted
from pellucid.errors import MediaError, MethodError, PellucidError, StorageError
from pellucid.importance import FEATURES
from pellucid.importance.drawn import read_regions


@pytest.fixture
def model():
    return bright_model()


def test_the_room_is_called_as_the_verb(model):
    import pellucid.importance as room

    found = pl.importance(model, planted(), "patches", "ablation", count=4)
    assert isinstance(found, pl.Importance)
    assert room is pl.importance
    assert set(room.FEATURES) == set(FEATURES)


# ---------------------------------------------------------------- one picture


def test_a_planted_superpixel_is_found_first_with_its_interval_above_zero(model):
    found = pl.importance(model, planted(), count=20, target="bright", baseline="zero", samples=16)
    first = found.ranking()[0]
    labels = found.pictures["labels"]
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[11:32, 32:53] = True  # the square, on the model's 64 pixels
    assert (inside & (labels == first)).sum() > 0.6 * (labels == first).sum()
    assert float(found.low[first]) > 0
    far = int(labels[-1, 0])  # a corner that the score does not know
    assert float(found.low[far]) <= 1e-6
    assert float(found.high[far]) >= -1e-6
    assert abs(found.efficiency_gap) < 1e-6
    assert found.full - found.empty == pytest.approx(float(found.values.sum()), abs=1e-6)


@pytest.mark.parametrize("by", ["ablation", "shapley", "gradient", "conductance"])
def test_a_planted_channel_and_layer_are_found_first(model, by):
    found = pl.importance(model, 255 - planted(), "channels", by, "dark", layer="0")
    assert found.ranking()[0] in (0, 1)
    through = pl.importance(model, planted(), "channels", by, "bright", layer="1")
    assert through.ranking()[0] == 0
    assert float(through.values[0]) > 0
    assert float(through.low[0]) > 0
    assert float(through.values[1]) == pytest.approx(0, abs=1e-5)
    assert through.layer == "1"


def test_a_planted_block_is_found_first():
    class Adds(nn.Module):
        def __init__(self, amount):
            super().__init__()
            self.bias = nn.Parameter(torch.full((1, 3, 1, 1), amount))

        def forward(self, x):
            return x + self.bias

    net = nn.Sequential(Adds(0.1), Adds(2.0), Adds(-0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    model = pl.wrap(net, transform=bright_model().preprocess)
    found = pl.importance(model, planted(), "layers", target=0)
    assert found.names[found.ranking()[0]] == "1"
    assert found.values.tolist() == pytest.approx([0.1, 2.0, -0.5], abs=1e-5)


def test_boxes_in_the_pictures_own_pixels_reach_the_model(model):
    """A picture twice as wide as high: the model sees its middle."""
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[20:60, 100:140] = 255
    boxes = {"lamp": [100, 20, 140, 60], "wall": [60, 20, 100, 60]}
    found = pl.importance(model, picture, "regions", "ablation", "bright", regions=boxes, baseline="zero")
    assert found.names == ["lamp", "wall", "everything else"]
    assert found.names[found.ranking()[0]] == "lamp"
    assert found.values[1:].abs().max() < 0.1 * float(found.values[0])  # the edge is smoothed by the resize
    labels = np.zeros((100, 200), np.uint8)
    labels[20:60, 100:140] = 7
    again = pl.importance(model, picture, "regions", "ablation", "bright", regions=labels, baseline="zero")
    assert again.names == ["label 0", "label 7"]
    assert float(again.values[1]) == pytest.approx(float(found.values[0]), abs=1e-6)


def test_regions_from_files(model, tmp_path):
    picture = planted()
    labels = np.zeros((96, 96), np.uint8)
    labels[16:48, 48:80] = 200
    image = save(tmp_path / "labels.png", labels)
    (tmp_path / "boxes.json").write_text(json.dumps({"square": [48, 16, 80, 48]}))
    by_image = pl.importance(model, picture, "superpixels", "ablation", "bright", regions=image, baseline="zero")
    by_boxes = pl.importance(
        model, picture, "regions", "ablation", "bright", regions=tmp_path / "boxes.json", baseline="zero"
    )
    assert float(by_image.values[1]) == pytest.approx(float(by_boxes.values[0]), abs=1e-6)
    coloured = np.zeros((96, 96, 3), np.uint8)
    coloured[16:48, 48:80] = (200, 10, 0)
    rgb = read_regions(save(tmp_path / "rgb.png", coloured))
    assert rgb.labels is not None
    assert torch.equal(rgb.labels, torch.from_numpy((labels > 0).astype(np.int64)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"features": "regions"}, "There are no regions: draw them"),
        ({"features": "patches", "regions": {"a": [0, 0, 9, 9]}}, "choose regions, or leave them out"),
        ({"features": "regions", "regions": {"a": [90, 0, 120, 9]}}, "'a' .* is not inside the picture of 96 x 96"),
        ({"features": "regions", "regions": {"a": [5, 0, 5, 9]}}, "is not inside the picture"),
        ({"features": "regions", "regions": {"a": [5, 0]}}, "give \\[left, top, right, bottom\\]"),
        ({"features": "regions", "regions": {}}, "names no box"),
        (
            {"features": "regions", "regions": np.ones((9, 9), int) * np.arange(9)},
            "The label image is 9 x 9 pixels but",
        ),
        ({"features": "regions", "regions": np.ones((96, 96), int)}, "holds 1 region"),
        ({"features": "regions", "regions": np.ones((96, 96))}, "one whole number a pixel"),
        ({"features": "regions", "regions": "nowhere.png"}, "Cannot read the regions nowhere.png"),
        ({"by": "permutation"}, "give a folder"),
        ({"samples": "exact", "by": "shapley"}, "at most 12 players"),
        ({"group": "colour", "inputs": [planted()]}, "choose auto, predicted, folder"),
        ({"features": "layers", "layer": "9,10"}, "no layer '9'"),
        ({"features": "channels", "layer": "0", "removal": "burn"}, "zero, mean or resample"),
        ({"baseline": "grey"}, "There is no baseline 'grey'"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_sentence(model, settings, said):
    inputs = settings.pop("inputs", planted())
    with pytest.raises(PellucidError, match=said) as raised:
        pl.importance(model, inputs, **settings)
    assert "\n" not in str(raised.value)


def test_a_region_outside_what_the_model_sees_is_named(model):
    wide = np.zeros((100, 300, 3), np.uint8)  # the model sees the middle third
    with pytest.raises(MediaError, match="does not see the region 'edge': it sees the pixels 100 to 200 x 0 to 100"):
        pl.importance(model, wide, "regions", regions={"edge": [0, 0, 50, 50]})


def test_a_black_box_is_told_what_it_can_do():
    box = pl.wrap(lambda x: np.stack([x.mean((1, 2, 3)), -x.mean((1, 2, 3))], 1), transform=bright_model().preprocess)
    assert pl.importance(box, planted(), "patches", "ablation", 0, count=4).values.shape == (4,)
    with pytest.raises(MethodError, match="shows no channels"):
        pl.importance(box, planted(), "channels", "ablation", 0)
    with pytest.raises(MethodError, match="no gradients for gradient"):
        pl.importance(box, planted(), "patches", "gradient", 0)


# ---------------------------------------------------------------- tables and files


def test_the_table_comes_back_from_csv_and_parquet(model, tmp_path):
    found = pl.importance(model, planted(), "patches", "ablation", count=9)
    table = found.table()
    with open(table.to_csv(tmp_path / "t.csv"), newline="") as file:
        back = list(csv.DictReader(file))
    assert [row["player"] for row in back] == [row["player"] for row in table]
    assert [float(row["importance"]) for row in back] == [row["importance"] for row in table]
    assert [abs(row["importance"]) for row in table] == sorted((abs(r["importance"]) for r in table), reverse=True)
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(table.to_parquet(tmp_path / "t.parquet")).to_pylist() == list(table)


def test_parquet_without_pyarrow_says_what_to_install(model, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    table = pl.importance(model, planted(), "patches", "ablation", count=4).table()
    with pytest.raises(PellucidError, match=r"pip install \"pellucid\[tables\]\""):
        table.to_parquet(tmp_path / "t.parquet")
    assert not (tmp_path / "t.parquet").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"features": "superpixels", "count": 9, "samples": 4},
        {"features": "channels", "by": "conductance", "layer": "1"},
        {"features": "regions", "by": "ablation", "regions": {"a": [0, 0, 40, 40], "b": [50, 50, 90, 90]}},
        {"features": "regions", "by": "ablation", "regions": np.arange(96 * 96).reshape(96, 96) // 3072},
        {"features": "frequencies", "count": 3},
        {"features": "layers", "layer": "0,1", "removal": "zero"},
    ],
)
def test_verify_computes_it_again(tmp_path, settings):
    model = bright_model()
    picture = save(tmp_path / "p.png", planted())
    files = pl.importance(model, picture, **settings).save(tmp_path / "out")
    assert [f.suffix for f in files] == [".npz", ".json", ".csv", ".png"]
    file = next(f for f in files if f.suffix == ".json")
    assert str(pl.verify(file, model=model)) == "same"
    meta = json.loads(file.read_text())
    meta["names"][0] = "another"
    file.write_text(json.dumps(meta))
    assert "was changed after it was written" in str(pl.verify(file, model=model))


def test_what_a_record_cannot_hold_is_said(model, tmp_path):
    picture = save(tmp_path / "p.png", planted())
    found = pl.importance(model, picture, "patches", "ablation", lambda y: y[:, 0], count=4)
    file = found.save(tmp_path / "a")[1]
    with pytest.raises(StorageError, match=r"target was a function.*give it with pl\.verify\(file, target=\.\.\.\)"):
        pl.verify(file, model=model)
    assert pl.verify(file, model=model, target=lambda y: y[:, 0]).status == "same"
    assert pl.verify(file, model=model, target=lambda y: y[:, 1]).status == "different"
    found = pl.importance(model, picture, "patches", "ablation", count=4, baseline=torch.zeros(1, 3, SIDE, SIDE))
    with pytest.raises(StorageError, match="Its baseline was a tensor"):
        pl.verify(found.save(tmp_path / "b")[1], model=model)


# ---------------------------------------------------------------- a local tree


def test_a_tree_names_the_planted_part_and_is_kept(model, tmp_path):
    found = pl.importance(model, planted(), "patches", "tree", count=9)
    assert found.tree.leaves >= 2
    first = found.ranking()[0]
    assert first == pl.importance(model, planted(), "patches", "shapley", count=9).ranking()[0]
    assert int(found.tree.player[0]) == first
    assert found.low[first] > 0
    torch.testing.assert_close(found.values, found.tree.shapley(9)[:, 0])
    assert any("The tree explains" in note for note in found.notes)
    files = found.save(tmp_path)
    again = pl.read(files[0])
    for name in ("player", "there", "away", "value", "share"):
        np.testing.assert_array_equal(getattr(again.tree, name), getattr(found.tree, name))
    assert str(pl.verify(files[0], model=model, inputs=planted())) == "same"
    taller = found.figure().get_size_inches()[1]
    assert taller > pl.importance(model, planted(), "patches", "lime", count=9).figure().get_size_inches()[1] + 1
    with pytest.raises(MethodError, match="needs more than 30 samples"):
        pl.importance(model, planted(), "patches", "tree", count=9, samples=30)
