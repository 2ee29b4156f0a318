"""`pellucid importance`: what it prints and writes, and one sentence for whatever is wrong."""

import csv
import json

import numpy as np
import pytest

from helpers.cases import pixels, save, tree

SMALL = ("--model", "timm:test_resnet", "--random-weights")
QUICK = ("--features", "patches", "--count", "4", "--by", "ablation")


@pytest.fixture
def importance(run):
    return lambda *arguments: run("importance", *arguments, *SMALL)


@pytest.fixture
def good(tmp_path):
    return save(tmp_path / "good.png", pixels(100, 120))


def test_one_picture(importance, good, tmp_path):
    ran = importance(good, *QUICK, "--out", "out")
    assert ran.code == 0
    assert ran.err == ""
    assert "patches by ablation for " in ran.out
    assert "   1. row " in ran.out
    assert " from all 4 (gap " in ran.out
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [f"good.patches.ablation.{end}" for end in ("csv", "json", "npz", "png")]
    with open(tmp_path / "out" / names[0], newline="") as file:
        assert len(list(csv.DictReader(file))) == 4


def test_json_is_one_document(importance, good):
    said = importance(good, *QUICK, "--out", "out", "--json").json
    (entry,) = said["results"]
    assert len(entry["table"]) == 4
    assert entry["full"] - entry["empty"] - sum(r["importance"] for r in entry["table"]) == pytest.approx(
        entry["efficiency_gap"]
    )
    assert entry["files"][-1].endswith(".png")


def test_a_folder_and_a_broken_picture_in_it(importance, tmp_path):
    for n in range(3):
        save(tmp_path / "in" / f"{n}.png", pixels(100, 120, seed=n))
    ran = importance("in", *QUICK, "--out", "out", "--top", "2")
    assert ran.code == 0
    assert "all pictures: 3 pictures" in ran.out
    assert "   3. " not in ran.out
    before = {k: v for k, v in tree(tmp_path / "out").items() if "work" in str(k)}
    assert len(before) == 3
    (tmp_path / "in" / "broken.png").write_bytes(b"x")
    again = importance("in", *QUICK, "--out", "out")
    assert again.code == 1
    assert "broken.png" in again.err
    assert "1 picture could not be used" in again.out
    assert {k: v for k, v in tree(tmp_path / "out").items() if "work" in str(k)} == before  # nothing measured twice


def test_verify(run, importance, good):
    assert importance(good, *QUICK, "--out", "out").code == 0
    ran = run("verify", "out/good.patches.ablation.json")
    assert ran.code in (0, 1)  # random weights are drawn again: the record says so
    assert "out/good.patches.ablation.json: " in ran.out


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--features", "superpixel"), ("'superpixel'", "did you mean 'superpixels'")),
        (("--by", "shaply"), ("'shaply'", "did you mean 'shapley'")),
        (("--features", "colours", "--layer", "layer1"), ("colours have no layer", "leave it out")),
        (("--features", "patches", "--samples", "exact"), ("2^49 evaluations", "at most 12 players")),
        (("--samples", "many"), ("'many' is no number of samples",)),
        (("--samples", "0"), ("0 samples measure nothing",)),
        (("--features", "superpixels", "--count", "1"), ("with 1 superpixel", "at least 2")),
        (("--features", "regions"), ("--regions FILE",)),
        (("--features", "regions", "--regions", "none.json"), ("none.json", "check the path")),
        (("--features", "regions", "--regions", "far.json"), ("'far'", "not inside the picture of 120 x 100")),
        (("--features", "regions", "--regions", "list.json"), ("list.json names no box",)),
        (("--features", "regions", "--regions", "other.png"), ("30 x 20 pixels", "120 x 100 pixels")),
        (("--features", "layers", "--by", "gradient"), ("no gradient of their own", "use ablation or shapley")),
        (("--by", "permutation"), ("give a folder",)),
        (("--features", "channels", "--layer", "layer9"), ("'layer9'", "did you mean")),
        (("--features", "channels", "--removal", "bypass"), ("zero, mean or resample",)),
        (("--baseline", "grey"), ("'grey'", "zero, mean, blur, uniform")),
        (("--segments", "slick"), ("'slick'", "slic")),
        (("--group", "colour"), ("'colour'", "predicted")),
        (("--target", "tabbby"), ("'tabbby'", "'tabby'")),
    ],
)
def test_wrong_settings_are_one_sentence(importance, good, tmp_path, options, named):
    (tmp_path / "far.json").write_text(json.dumps({"far": [100, 0, 200, 50]}))
    (tmp_path / "list.json").write_text("[1, 2]")
    save(tmp_path / "other.png", (np.arange(600).reshape(20, 30) % 3).astype(np.uint8))
    given = "." if "--group" in options else good
    ran = importance(given, *options, "--out", "out")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.count("\n") == 1
    assert "this is a bug" not in ran.err
    for text in named:
        assert text in ran.err
    assert not (tmp_path / "out").exists() or tree(tmp_path / "out") == {}


def test_wrong_inputs(importance, tmp_path):
    (tmp_path / "hollow").mkdir()
    for given, said in (
        ("hollow", "nor do its subfolders"),
        ("nowhere.png", "check the path"),
        ("*.webp", "no picture"),
    ):
        ran = importance(given, *QUICK, "--out", "out")
        assert (ran.code, ran.out) == (1, "")
        assert said in ran.err
