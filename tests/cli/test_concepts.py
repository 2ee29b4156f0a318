import csv
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import pellucid as pl
from helpers.cases import pixels, save
from pellucid.concepts.tcav import lines_of

SMALL = ("--model", "timm:test_resnet", "--random-weights", "--count", 3, "--no-stability", "--limit", 4)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    for name in ("dark", "light"):
        for i in range(4):
            save(tmp_path / "pictures" / name / f"{i}.png", pixels(40, 40, seed=i) // 3 + 150 * (name == "light"))
    return tmp_path / "pictures"


def test_concepts_from_a_folder(run, folder, tmp_path):
    ran = run("concepts", folder, *SMALL, "--out", "out", "--json")
    assert ran.code == 0, ran.err
    entry = ran.json["results"][0]
    assert entry["pictures"] == 8
    assert {row["group"] for row in entry["table"]} == {"all", "dark", "light"} or len(entry["table"]) >= 3
    assert entry["random"]["r2"] <= entry["concepts"]["r2"]
    files = sorted(p.name for p in (tmp_path / "out").iterdir())
    stem = f"pictures.concepts.{entry['by']}"
    assert files == [f"{stem}.{end}" for end in ("csv", "html", "json", "npz", "png")]
    with (tmp_path / "out" / f"{stem}.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(entry["table"])
    again = run("verify", tmp_path / "out" / f"{stem}.json")
    assert again.code == 0, again.out
    assert again.out.rstrip().endswith(("same", "value)"))


def test_what_is_printed_is_for_people(run, folder):
    ran = run("concepts", folder, *SMALL, "--by", "kmeans", "--examples", folder, "--top", 2)
    assert ran.code == 0, ran.err
    assert "random directions" in ran.out
    assert ran.out.count("concept ") >= 2
    assert "sheet: " in ran.out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--layer", "nope"), "no layer 'nope'"),
        (("--by", "nmfx"), "did you mean"),
        (("--count", "100000"), "ask for fewer"),
        (("--by", "sae", "--set", "active"), "parameter=value"),
        (("--by", "sae", "--set", "k=3"), "no parameter 'k'"),
        (("--regions", "nowhere"), "no folder nowhere"),
        (("--words", "nowhere.txt"), "one entry a line"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(run, folder, tmp_path, more, said):
    ran = run("concepts", folder, *SMALL, "--out", "out", *more)
    assert ran.code == 1
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_an_empty_folder_is_one_sentence(run, tmp_path):
    (tmp_path / "empty").mkdir()
    ran = run("concepts", "empty", *SMALL)
    assert ran.code == 1
    assert "holds no picture" in ran.err


def test_tcav_from_folders(run, folder, tmp_path):
    generator = np.random.default_rng(0)
    for i in range(6):
        save(tmp_path / "concepts" / "noise" / f"{i}.png", generator.integers(0, 255, (40, 40, 3)).astype(np.uint8))
        save(tmp_path / "random" / f"{i}.png", generator.integers(0, 255, (40, 40, 3)).astype(np.uint8))
    model = SMALL[:3]
    ran = run("tcav", "concepts", folder, "--random", "random", *model, "--target", 3, "--json")
    assert ran.code == 0, ran.err
    results = ran.json["results"]
    assert len(results) == 2  # one concept on two sub-folders
    assert all(r["concept"] == "noise" and r["pictures"] == 6 and 0 < r["p"] <= 1 for r in results)
    assert [Path(f).suffix for f in ran.json["files"]] == [".npz", ".json", ".csv", ".png"]
    checked = run("verify", ran.json["files"][0])
    assert checked.code == 0, checked.err
    assert "same" in checked.out
    stored = pl.read(ran.json["files"][0])
    assert isinstance(stored, pl.ConceptTests)
    assert [asdict(t) for t in stored] == [r | {"notes": tuple(r["notes"])} for r in results]
    assert str(stored) == "\n".join(lines_of(stored))
    assert [float(row["effect"]) for row in stored.table()] == [r["effect"] for r in results]
    save(tmp_path / "random" / "0.png", np.zeros((40, 40, 3), np.uint8))
    assert "not those of the record" in run("verify", ran.json["files"][0]).out
    assert run("tcav", "random", folder, "--random", "random", *model).err.count("sub-folders") == 1
    assert "pattern or logistic" in run("tcav", "concepts", folder, "--random", "random", *model, "--by", "svm").err
    few = run("tcav", "concepts", folder, "--random", "random", *model, "--match", 99)
    assert "larger folder" in few.err
