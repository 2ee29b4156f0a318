"""`--scores` and `--output`: what the output of a model means, said on the command line."""

import math

import pytest

from helpers.cases import pixels, save
from pellucid.errors import ModelError

SMALL = ("--model", "timm:test_resnet", "--random-weights")


@pytest.fixture
def folder(tmp_path):
    for name in ("dark", "light"):
        for i in range(2):
            save(tmp_path / "pictures" / name / f"{i}.png", pixels(40, 40, seed=i) // 3 + 150 * (name == "light"))
    return tmp_path / "pictures"


@pytest.mark.parametrize("verb", ["explain", "importance", "concepts", "tcav", "visualize", "distill"])
def test_every_verb_hands_them_to_load(verb, run, folder, monkeypatch):
    """`load` is stopped where it begins, so that only the way to it is looked at."""
    heard = {}

    def load(name, **given):
        heard.update(given, name=name)
        raise ModelError("Enough has been heard.")

    monkeypatch.setattr("pellucid.models.sources.entry.load", load)
    inputs = {
        "tcav": [folder, folder / "dark", "--random", folder / "light"],
        "visualize": [],
        "explain": ["sample:cat"],
    }.get(verb, [folder])
    named = "--teacher" if verb == "distill" else "--model"
    ran = run(verb, *inputs, named, "timm:test_resnet", "--scores", "sigmoid", "--output", "heads.0")
    assert "Enough has been heard." in ran.err
    assert (heard["name"], heard["scores"], heard["output"]) == ("timm:test_resnet", "sigmoid", "heads.0")


def test_what_is_said_is_what_is_shown(run, explain):
    shown = explain("sample:cat", "--method", "saliency", "--json", "--scores", "sigmoid").json["results"][0]
    assert shown["prediction"]
    for p in shown["prediction"]:
        assert p["probability"] == pytest.approx(1 / (1 + math.exp(-p["score"])), abs=1e-6)
    assert all(p["probability"] is None for p in _plain(explain)["prediction"])


def _plain(explain):
    return explain("sample:cat", "--method", "saliency", "--json", "--scores", "none").json["results"][0]


def test_importance_reads_as_it_is_told(run):
    how = ("-f", "patches", "--by", "ablation", "--count", 4, "--json", *SMALL)
    found = {
        kind: run("importance", "sample:cat", *how, "--scores", kind).json["results"][0] for kind in ("sigmoid", "none")
    }
    (first, *_), (plain, *_) = (found[kind]["prediction"] for kind in ("sigmoid", "none"))
    assert first["probability"] == pytest.approx(1 / (1 + math.exp(-first["score"])), abs=1e-6)
    assert plain["probability"] is None


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (("--scores", "logit"), "softmax, sigmoid, probabilities or none, not 'logit'"),
        (("--output", "logits"), "returns a tensor, which has no part 'logits'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(explain, said, answer):
    ran = explain("sample:cat", "--method", "saliency", *said)
    assert ran.code == 1
    assert answer in ran.err
    assert "Traceback" not in ran.err


def test_distill_needs_a_model_to_say_it_of(run, folder):
    ran = run("distill", folder, "--scores", "sigmoid")
    assert ran.code == 1
    assert "name it with --teacher or --model" in ran.err
