"""`pellucid visualize`: sheets of units, of activations, of an atlas; JSON; bad input."""

import numpy as np
import pytest

from helpers.cases import save, tree

SMALL = ("--model", "timm:test_resnet", "--random-weights")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for i in range(4):
        save(tmp_path / "p" / f"{i}.png", generator.integers(0, 100 + 40 * i, (80, 80, 3)).astype(np.uint8))
    return tmp_path / "p"


@pytest.mark.slow
def test_units_on_a_sheet_and_a_page(run, folder):
    ran = run(
        "visualize", "p/1.png", *SMALL, "--layer", "layer2", "--channel", "2,7", "--exemplars", folder, "--out", "o"
    )
    assert ran.code == 0, ran.err
    assert "channel 7 of layer2" in ran.out
    assert "of 4 natural pictures" in ran.out
    assert "sheet: o/layer2.2-7.features.png" in ran.out
    assert {f for f in tree(folder.parent) if f.startswith("o/")} == {
        f"o/layer2.2-7.features.{e}" for e in ("html", "json", "npz", "png")
    }


def test_json_is_one_document(run, folder):
    ran = run(
        "visualize", *SMALL, "--target", "espresso", "--exemplars", folder, "--json", "--seed", "3", "--size", "64"
    )
    assert ran.code == 0, ran.err
    (entry,) = ran.json["results"]
    assert entry["objective"] == "espresso"
    assert entry["quality"]["standing"]["count"] == 4
    assert len(entry["exemplars"]) == 4
    assert entry["quality"]["line"]
    bare = run("visualize", *SMALL, "--objective", "neuron:layer2:3", "--exemplars", "none", "--json", "--size", "64")
    assert bare.json["results"][0]["exemplars"] == []


def test_activations(run, folder):
    for arguments in (("--activations", "p/1.png"), ("p/1.png",)):
        ran = run("visualize", *SMALL, *arguments)
        assert ran.code == 0, ran.err
        assert "sheet: pellucid-out/1.activations.png" in ran.out
    ran = run("visualize", *SMALL, "--activations", "p/1.png", "--layer", "layer2", "--by", "relevance", "--json")
    (entry,) = ran.json["results"]
    assert entry["ranked by"] == "relevance"
    values = [abs(c["value"]) for c in entry["channels"]]
    assert values == sorted(values, reverse=True)


def test_bad_input_is_one_sentence_and_leaves_nothing(run, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)
    for arguments, words in {
        ("--layer", "layer22", "--channel", "1"): "did you mean 'layer2'",
        ("--layer", "layer2", "--channel", "999"): "there is no channel 999",
        ("--layer", "layer2", "--channel", "x"): "names no channels",
        ("--channel", "1"): "but no layer",
        (): "Name what to visualise",
        ("--target", "espreso"): "espresso",
        ("--target", "espresso", "--preset", "quick"): "fast, standard, fine",
        ("--target", "espresso", "--exemplars", "empty"): "holds no picture",
        ("--activations", "nowhere.png"): "no file or folder",
        ("--activations", "p/1.png", "--atlas", "p"): "ask for one",
        ("--atlas", "p", "--projection", "mds"): "pca, tsne, umap",
    }.items():
        ran = run("visualize", *SMALL, *arguments, *(() if "--exemplars" in arguments else ("--exemplars", folder)))
        assert ran.code == 1, arguments
        assert words in ran.err
        assert ran.err.count("\n") == 1
        after = {k: v for k, v in tree(tmp_path).items() if not k.startswith("cache")}
        assert after == before, arguments
