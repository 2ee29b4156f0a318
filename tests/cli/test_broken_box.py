"""A black box that breaks down under the command line: what was found is shown and saved, or one sentence says why."""

import pytest

from helpers.cases import Breaking, bright_model, pixels, save, tree
from pellucid.models.sources import wrap


@pytest.fixture
def broken_from(monkeypatch):
    """Every command gets a black box that is broken for good from a certain row on."""

    def set_at(at):
        predictor = Breaking(at)

        def dies(batch):
            predictor.broken = False
            return predictor(batch)

        box = wrap(dies, transform=bright_model().preprocess, labels=("bright", "dark"))
        monkeypatch.setattr("pellucid.cli.options.load_model", lambda *_, **__: box)

    return set_at


@pytest.mark.parametrize("check", [["--no-check"], []])
def test_a_partial_map_is_shown_and_saved(run, broken_from, tmp_path, check):
    picture = save(tmp_path / "p.png", pixels(64, 64))
    for method, given in (
        ("lime", ("segments=grid", "count=16", "samples=300")),
        ("shapley", ("samples=40", "count=16")),
        ("kernel-shap", ("samples=300", "count=16")),
        ("owen", ("max_evaluations=300", "count=64")),
        ("sobol", ("cells=4", "samples=288")),
    ):
        settings = [part for setting in given for part in ("--set", setting)]
        broken_from(150)
        ran = run("explain", picture, "--method", method, *settings, "--target", "bright", *check, "--out", method)
        assert (ran.code, ran.err) == (0, "")
        assert "note: The model failed, so the map rests on the" in ran.out
        assert "the line is dead" in ran.out
        assert ("Its quality could not be measured" in ran.out) == (not check)
        assert f"{method}/p.{method}.npz" in tree(tmp_path)


def test_bars_are_shown_and_saved(run, broken_from, tmp_path):
    picture = save(tmp_path / "p.png", pixels(64, 64))
    broken_from(150)
    ran = run("importance", picture, "--features", "patches", "--count", "25", "--samples", "40", "--by", "shapley")
    assert (ran.code, ran.err.count("Traceback")) == (0, 0)
    assert "The model failed, so the ranking rests on the" in ran.out
    assert any(name.endswith(".npz") for name in tree(tmp_path))


def test_too_little_is_one_sentence(run, broken_from, tmp_path):
    picture = save(tmp_path / "p.png", pixels(64, 64))
    for command in (
        ("explain", picture, "--method", "shapley", "--set", "samples=40", "--set", "count=16"),
        ("importance", picture, "--features", "patches", "--count", "25", "--samples", "40", "--by", "shapley"),
    ):
        for as_json in ([], ["--json"]):
            broken_from(30)
            ran = run(*command, *as_json)
            assert ran.code == 1
            assert ran.err.splitlines()[-1].startswith("pellucid: The black box failed")
            assert "Traceback" not in ran.err
            assert not as_json or "the line is dead" in ran.json["error"]
