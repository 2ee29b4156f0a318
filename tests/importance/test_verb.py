"""`pl.importance`: planted parts are found first, folders are answered for in groups, everything can be verified."""

import csv
import json

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.cases import BREAKS, SIDE, breaking_box, bright_model, pixels, save
from pellucid.errors import MediaError, MethodError, ModelError, PellucidError, StorageError
from pellucid.importance import FEATURES, get_estimator
from pellucid.importance.drawn import read_regions
from pellucid.verbs.importance import importance


def planted(size=96, left=48, top=16, side=32):
    """A dark picture with a little noise and one bright square."""
    picture = pixels(size, size, seed=1) // 8
    picture[top : top + side, left : left + side] = 250
    return picture


@pytest.fixture
def model():
    return bright_model()


def folder(tmp_path, bright=4, dark=4):
    for n in range(bright):
        save(tmp_path / "pics" / f"bright{n}.png", 255 - pixels(64, 64, seed=n) // 4)
    for n in range(dark):
        save(tmp_path / "pics" / f"dark{n}.png", pixels(64, 64, seed=n) // 4)
    return tmp_path / "pics"


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


# ---------------------------------------------------------------- a black box that breaks down


def of_patches(model, by, samples, count=25, **more):
    return pl.importance(
        model, pixels(64, 64), "patches", by, "bright", count=count, baseline="zero", samples=samples, **more
    )


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize(
    ("by", "samples", "features"),
    [
        ("shapley", 20, "patches"),
        ("shapley", "auto", "patches"),
        ("kernel", 300, "patches"),
        ("owen", 200, "patches"),
        ("lime", 300, "patches"),
        ("shapley", 30, "frequencies"),
    ],
)
def test_bars_rest_on_what_a_broken_box_has_answered(by, samples, features, how):
    box, predictor = breaking_box(150, how)
    settings = {"target": "bright", "count": 25 if features == "patches" else 20, "samples": samples, "seed": 1}
    settings |= {"baseline": "zero"} if features == "patches" else {}
    part = pl.importance(box, pixels(64, 64), features, by, **settings)
    assert BREAKS[how] in part.notes[-1]
    assert "the ranking rests on the" in part.notes[-1]
    assert part.notes[-1].endswith("mend it, and run it again.")
    assert part.interactions == []
    assert predictor.rows <= 150 + 3
    if by != "lime":
        assert abs(part.efficiency_gap) < 1e-6
    if by in ("shapley", "lime"):
        assert (part.high - part.low).max() > 0
    assert by != "shapley" or ((part.low <= part.values) & (part.values <= part.high)).all()
    whole = pl.importance(box, pixels(64, 64), features, by, **settings)  # it works again
    expected = pl.importance(breaking_box()[0], pixels(64, 64), features, by, **settings)
    torch.testing.assert_close(whole.values, expected.values, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(whole.low, expected.low, rtol=1e-4, atol=1e-6)
    assert not any("failed" in note for note in whole.notes)


@pytest.mark.parametrize("by", ["shapley", "lime"])
def test_bars_of_a_broken_box_are_those_of_fewer_samples(by):
    part = of_patches(breaking_box(130)[0], by, 300)
    found = (of_patches(breaking_box()[0], by, n) for n in (range(4, 12) if by == "shapley" else range(100, 131)))
    assert any(
        all(torch.allclose(getattr(part, n), getattr(f, n), rtol=1e-4, atol=1e-6) for n in ("values", "low", "high"))
        for f in found
    )


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize(("by", "at"), [("ablation", 20), ("shapley", 90), ("kernel", 49), ("owen", 4), ("lime", 26)])
def test_too_little_for_bars_is_one_sentence(by, at, how):
    with pytest.raises(ModelError, match=BREAKS[how]) as caught:
        of_patches(breaking_box(at, how)[0], by, 300)
    assert "\n" not in str(caught.value)


def test_bars_stay_when_the_box_breaks_at_the_pairs_of_players():
    box, predictor = breaking_box()
    whole = of_patches(box, "owen", 40)
    again, breaks = breaking_box(predictor.rows - 1)
    part = of_patches(again, "owen", 40)
    assert breaks.broken
    torch.testing.assert_close(part.values, whole.values)
    assert whole.interactions
    assert not part.interactions
    assert "failed before pairs of players were looked at" in part.notes[-1]


def test_a_folder_keeps_no_picture_that_broke_off(tmp_path):
    place, kept = folder(tmp_path, bright=3, dark=0), tmp_path / "kept"
    settings = {"features": "patches", "by": "shapley", "count": 25, "baseline": "zero", "samples": 20, "keep": kept}
    box, predictor = breaking_box(900)
    with pytest.raises(ModelError, match="the line is dead"):
        pl.importance(box, place, **settings)
    asked = predictor.rows
    assert len(list(kept.rglob("*.npz"))) == 1
    found = pl.importance(box, place, **settings)
    expected = pl.importance(breaking_box()[0], place, **{**settings, "keep": None})
    torch.testing.assert_close(found.values, expected.values, rtol=1e-4, atol=1e-6)
    assert predictor.rows - asked < 900


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
    with pytest.raises(StorageError, match="target was a function"):
        pl.verify(found.save(tmp_path / "a")[1], model=model)
    found = pl.importance(model, picture, "patches", "ablation", count=4, baseline=torch.zeros(1, 3, SIDE, SIDE))
    with pytest.raises(StorageError, match="Its baseline was a tensor"):
        pl.verify(found.save(tmp_path / "b")[1], model=model)


# ---------------------------------------------------------------- many pictures


def test_a_folder_is_answered_for_by_class_with_intervals_over_pictures(model, tmp_path):
    place = folder(tmp_path)
    found = pl.importance(model, place, "channels", "ablation", layer="1")
    assert [(s.group, s.count) for s in found.shares] == [("all pictures", 8), ("bright", 4), ("dark", 4)]
    assert found.share("bright").ranking()[0] == 0
    assert found.share("dark").ranking()[0] == 1
    assert float(found.share("bright").low[0]) > 0
    assert float(found.share("bright").values[1]) == pytest.approx(0, abs=1e-5)  # what does nothing covers zero
    alone = [pl.importance(model, p, "channels", "ablation", layer="1").values for p in sorted(place.iterdir())]
    assert torch.allclose(found.values, torch.stack(alone).mean(0), atol=1e-9)
    assert torch.allclose(found.share("dark").values, torch.stack(alone[4:]).mean(0), atol=1e-9)
    assert found.difference is not None
    gap = found.share("bright").values - found.share("dark").values
    assert torch.allclose(found.difference.values, gap)
    assert float(found.difference.low[0]) > 0 > float(found.difference.high[1])
    back = pl.importance(model, place, "channels", "ablation", layer="1", compare="dark>bright")
    assert back.difference is not None
    assert torch.allclose(back.difference.values, -gap)
    with pytest.raises(MethodError, match="no group 'grey' to compare: write a>b with two of bright, dark"):
        pl.importance(model, place, "channels", "ablation", layer="1", compare="dark>grey")
    assert len(found.table()) == 3 * 2
    with pytest.raises(PellucidError, match="no group 'grey': there are all pictures, bright, dark"):
        found.share("grey")


def test_subfolders_are_groups(model, tmp_path):
    for n in range(2):
        save(tmp_path / "in" / "left" / f"{n}.png", 255 - pixels(64, 64, seed=n) // 4)
        save(tmp_path / "in" / "right" / f"{n}.png", 255 - pixels(64, 64, seed=5 + n) // 4)
    found = pl.importance(model, tmp_path / "in", "patches", "ablation", count=4)
    assert [(s.group, s.count) for s in found.shares] == [("all pictures", 4), ("left", 2), ("right", 2)]
    two = pl.importance(model, [tmp_path / "in" / "left", tmp_path / "in" / "right"], "patches", "ablation", count=4)
    assert torch.equal(two.values, found.values)
    predicted = pl.importance(model, tmp_path / "in", "patches", "ablation", count=4, group="predicted")
    assert [s.group for s in predicted.shares] == ["all pictures"]  # all of them are bright: one group


def test_superpixels_of_a_folder_are_summed_where_they_lie(model, tmp_path):
    for n in range(3):
        save(tmp_path / "in" / f"{n}.png", planted(left=48 + n))
    found = pl.importance(model, tmp_path / "in", "superpixels", "ablation", "bright", count=16, baseline="zero")
    assert len(found.names) == 49
    assert "not the same players" in found.notes[0]
    row, column = divmod(found.ranking()[0], 7)
    assert 1 <= row <= 3
    assert 3 <= column <= 5
    singles = [pl.importance(model, p, "superpixels", "ablation", "bright", count=16, baseline="zero")
               for p in sorted((tmp_path / "in").iterdir())]  # fmt: skip
    assert float(found.values.sum()) == pytest.approx(np.mean([float(s.values.sum()) for s in singles]), abs=1e-6)


@pytest.mark.parametrize("by", ["ablation", "permutation"])
def test_a_run_that_was_cut_off_goes_on_to_the_same_answer(model, tmp_path, by, monkeypatch):
    from pellucid.verbs import sets

    place = folder(tmp_path)
    whole = pl.importance(model, place, "channels", by, layer="1", seed=3)
    real, calls = sets.measure, []

    def cut_off(*args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    name = "measure" if by == "ablation" else "exchange"
    real = getattr(sets, name)
    monkeypatch.setattr(sets, name, cut_off)
    with pytest.raises(KeyboardInterrupt):
        pl.importance(model, place, "channels", by, layer="1", seed=3, keep=tmp_path / "work")
    assert len(list((tmp_path / "work").rglob("*.npz"))) == 4
    monkeypatch.setattr(sets, name, lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    calls.clear()
    rest = pl.importance(model, place, "channels", by, layer="1", seed=3, keep=tmp_path / "work")
    assert len(calls) == 4  # the other half only
    for a, b in zip(whole.shares, rest.shares, strict=True):
        assert torch.equal(a.values, b.values)
        assert torch.equal(a.low, b.low)
        assert torch.equal(a.high, b.high)
    calls.clear()
    pl.importance(model, place, "channels", "ablation", layer="1", removal="mean", keep=tmp_path / "work")
    assert by == "permutation" or len(calls) == 8  # other settings, other work


def test_permutation_finds_the_channel_that_tells_the_pictures_apart(model, tmp_path):
    found = pl.importance(model, folder(tmp_path), "channels", "permutation", layer="1", samples=4)
    assert found.share("bright").ranking()[0] == 0
    assert float(found.share("bright").low[0]) > 0
    changed = found.share("bright").changed
    assert changed is not None
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert "answers_changed" in found.table()[0]


def test_a_folder_is_verified(model, tmp_path):
    file = pl.importance(model, folder(tmp_path), "channels", "ablation", layer="1").save(tmp_path / "out")[1]
    assert str(pl.verify(file, model=model)) == "same"
    save(tmp_path / "pics" / "dark0.png", pixels(64, 64, seed=77) // 4)
    assert "the pictures are not those of the record" in str(pl.verify(file, model=model))


def test_pictures_that_cannot_be_used(model, tmp_path):
    place = folder(tmp_path, bright=2, dark=0)
    (place / "broken.png").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"broken\.png"):
        pl.importance(model, place, "patches", "ablation", count=4)
    from pellucid.importance import Patches
    from pellucid.models.targets import as_target
    from pellucid.verbs.sets import importance_of_set

    failed = []
    found = importance_of_set(model, place, Patches(count=4), get_estimator("ablation"), as_target(None), failed=failed)
    assert found.shares[0].count == 2
    assert len(failed) == 1
    (tmp_path / "hollow" / "inner").mkdir(parents=True)
    with pytest.raises(MediaError, match="holds no picture, nor do its subfolders"):
        pl.importance(model, tmp_path / "hollow")
    with pytest.raises(MediaError, match="There is no picture"):
        pl.importance(model, [])
    with pytest.raises(MethodError, match="there is only one: give more"):
        pl.importance(model, [planted()], "patches", "permutation")


def test_pictures_in_memory_and_batches(model):
    x = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    batch = pl.importance(model, x, "patches", "ablation", count=4)
    singles = [pl.importance(model, one, "patches", "ablation", count=4).values for one in x]
    assert torch.allclose(batch.values, torch.stack(singles).mean(0), atol=1e-9)
    assert importance(model, [planted(), planted(left=8)], "patches", "ablation", count=4).shares[0].count == 2


def test_what_it_will_cost_is_said_before(model, tmp_path):
    said = []
    pl.importance(model, planted(), "patches", "ablation", count=9, say=said.append)
    assert said == ["9 patches: at most 11 passes of the model"]
    said.clear()
    pl.importance(model, folder(tmp_path), "patches", "ablation", count=9, say=said.append)
    assert said == ["8 pictures, in each 9 patches: at most 11 passes of the model"]


def test_figures_are_drawn_of_every_kind(model, tmp_path):
    """As tall as what they hold, and not blank."""
    from pellucid.render import figure_png

    place = folder(tmp_path, bright=2, dark=2)
    for inputs, settings in (
        (planted(), {"features": "superpixels", "count": 9, "samples": 4}),
        (planted(), {"features": "channels", "by": "ablation", "layer": "1"}),
        (planted(), {"features": "colours"}),
        (place, {"features": "channels", "by": "ablation", "layer": "1"}),
        (place, {"features": "superpixels", "by": "ablation", "count": 9}),
    ):
        found = pl.importance(model, inputs, **settings)
        data = figure_png(found.figure(), dpi=50)
        assert data[:4] == b"\x89PNG"
        assert len(data) > 4000
        texts = {t.get_text() for t in found.figure().findobj(match=lambda a: hasattr(a, "get_text"))}
        assert any(found.names[found.ranking()[0]] in t for t in texts)
    html = found._repr_html_()
    assert html.startswith('<div class="pellucid"')


def test_what_was_saved_is_read_back(model, tmp_path):
    picture = save(tmp_path / "p.png", planted())
    found = pl.importance(model, picture, "superpixels", count=9, samples=4)
    back = pl.read(found.save(tmp_path / "out")[1])
    assert isinstance(back, pl.Importance)
    assert back.table() == found.table()
    assert torch.equal(back.pictures["labels"], found.pictures["labels"])
    assert (back.interactions, back.notes, back.target) == (found.interactions, found.notes, found.target)
    assert back.png() == found.png()  # the picture is opened again
    several = pl.importance(model, folder(tmp_path), "channels", "permutation", layer="1")
    again = pl.read(several.save(tmp_path / "out")[1])
    assert again.table() == several.table()
    assert again.png() == several.png()


def test_drawn_regions_are_the_same_players_in_every_picture(model, tmp_path):
    for n in range(3):
        save(tmp_path / "in" / f"{n}.png", planted())
    boxes = {"square": [48, 16, 80, 48]}
    found = pl.importance(model, tmp_path / "in", "regions", "ablation", "bright", regions=boxes, baseline="zero")
    assert found.names == ["square", "everything else"]
    assert found.ranking() == [0, 1]
    assert float(found.low[0]) > 0
    assert found.notes == ["Intervals over fewer than 10 pictures are rough: give more pictures."]


def test_pictures_are_not_kept_open(model):
    import gc
    import weakref

    from pellucid.verbs.collection import Collection, collect

    pictures = Collection(model, collect([planted(left=n) for n in range(6)]), 2)
    opened = [weakref.ref(pictures[n]) for n in range(6)]
    gc.collect()
    assert [r() is not None for r in opened] == [False] * 4 + [True] * 2
