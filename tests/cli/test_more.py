"""`pellucid more`: what a longer run gives, from what a shorter one left on the disk."""

import numpy as np
import pytest
from PIL import Image

from helpers.cases import pixels, save, tree

SET = ("--method", "rise", "--set", "cells=3", "--seed", "1", "--target", "tabby")


@pytest.fixture
def saved(explain, tmp_path):
    path = save(tmp_path / "in" / "p.png", pixels(90, 120))
    assert explain(path, *SET, "--set", "samples=64", "--out", "out").code == 0
    return tmp_path / "out" / "p.rise.json"


def values(file):
    with np.load(file.with_suffix(".npz")) as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_equals_the_longer_run(run, explain, saved, tmp_path):
    before = tree(saved.parent)
    assert explain(tmp_path / "in" / "p.png", *SET, "--set", "samples=128", "--out", "longer").code == 0
    expected = values(tmp_path / "longer" / "p.rise.json")
    ran = run("more", saved, "--samples", "128", "--out", "kept", "--json")
    assert (ran.code, ran.err) == (0, "")
    (result,) = ran.json["results"]
    assert result["files"] == [f"kept/p.rise.{ending}" for ending in ("npz", "json", "png")]
    assert result["facts"]["samples"] == 128
    assert tree(saved.parent) == before
    for file in (tmp_path / "kept" / "p.rise.json", saved):
        if file is saved:
            ran = run("more", saved.with_suffix(".npz"), "--samples", "128")
            assert (ran.code, ran.err) == (0, "")
            assert "rise for tabby" in ran.out
            assert f"picture: {saved.with_suffix('.png')}" in ran.out
        found = values(file)
        assert found.keys() == expected.keys()
        for name in ("attribution", "extra.standard_error"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5 * expected[name].max())
        with Image.open(file.with_suffix(".png")) as sheet:
            assert sheet.width > 300
        # A longer run sums its samples in other portions: equal up to rounding is as good as the same.
        assert run("verify", file).out.startswith((f"{file}: same\n", f"{file}: within tolerance"))


def test_what_cannot_go_on_is_one_sentence(run, explain, saved, tmp_path):
    assert explain(tmp_path / "in" / "p.png", "--out", "cam").code == 0
    (tmp_path / "broken.json").write_text("{")
    before = tree(tmp_path)
    for arguments, named in (
        ((saved,), "rise needs a larger budget to go on: give samples or tolerance or max_samples"),
        ((saved, "--max-evaluations", "9"), "rise has no budget 'max_evaluations'"),
        ((saved, "--samples", "-3"), "number of at least 4"),
        ((saved, "--samples", "128", "--out", "in/p.png"), "in/p.png"),
        (("cam/p.grad-cam.json", "--samples", "9"), "grad-cam keeps no scores"),
        (("nowhere.json", "--samples", "9"), "nowhere.json"),
        (("broken.json", "--samples", "9"), "is not JSON"),
    ):
        for as_json in ([], ["--json"]):
            ran = run("more", *arguments, *as_json)
            assert ran.code == 1
            assert ran.err.startswith("pellucid: ")
            assert ran.err.count("\n") == 1
            assert named in ran.err
            assert (named in ran.json["error"]) if as_json else (ran.out == "")
    assert tree(tmp_path) == before
    assert run("more", saved, "--samples", "many").code == 2
    (tmp_path / "in" / "p.png").unlink()
    ran = run("more", saved, "--samples", "128")
    assert ran.code == 1
    assert "p.png" in ran.err
