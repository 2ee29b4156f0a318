import json

import numpy as np
import pytest

import pellucid as pl
from helpers.cases import bright_model, pixels, save, tree


@pytest.fixture
def saved(explain, tmp_path):
    path = save(tmp_path / "in" / "p.png", pixels(90, 120))
    assert explain(path, "--method", "hires-cam", "--target", "tabby>lynx", "--out", "out").code == 0
    return tmp_path / "out" / "p.hires-cam.json"


def test_same(run, saved):
    for file in (saved, saved.with_suffix(".npz")):
        ran = run("verify", file)
        assert (ran.code, ran.out, ran.err) == (0, f"{file}: same\n", "")
    assert run("verify", saved, "--json").json == {"status": "same", "difference": 0.0, "reasons": []}


def test_different_with_the_reason(run, saved, tmp_path):
    save(tmp_path / "in" / "p.png", pixels(90, 120, seed=4))
    ran = run("verify", saved)
    assert ran.code == 1
    assert ran.err == ""
    assert "different (largest difference" in ran.out
    assert "the picture is not the one of the record" in ran.out
    ran = run("verify", saved, "--json")
    assert (ran.code, ran.json["status"]) == (1, "different")
    assert ran.json["difference"] > 1e-3
    assert ran.json["reasons"] == ["the picture is not the one of the record"]


def test_tampered_values_and_tolerance(run, saved):
    with np.load(saved.with_suffix(".npz")) as arrays:
        values = arrays["attribution"] * 1.001
    np.savez(saved.with_suffix(".npz"), attribution=values)
    ran = run("verify", saved, "--tolerance", "0.1")
    assert ran.code == 1  # close, but the file is not as it was written
    assert "p.hires-cam.npz was changed after it was written" in ran.out


def test_another_shape_has_no_number_in_json(run, saved):
    with np.load(saved.with_suffix(".npz")) as arrays:
        values = arrays["attribution"][:, :2]
    np.savez(saved.with_suffix(".npz"), attribution=values)
    ran = run("verify", saved, "--json")
    assert (ran.code, ran.json["difference"]) == (1, None)


@pytest.mark.parametrize("as_json", [False, True])
def test_what_cannot_be_verified_is_one_sentence(run, saved, tmp_path, as_json):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text(json.dumps({"a": 1}))
    (tmp_path / "cut.json").write_bytes(saved.read_bytes())
    (tmp_path / "cut.npz").write_bytes(saved.with_suffix(".npz").read_bytes()[:100])
    pl.explain(bright_model(), tmp_path / "in" / "p.png").save(tmp_path / "wrapped")
    before = tree(tmp_path)
    for file, named in (
        ("nowhere.json", "nowhere.json"),
        ("broken.json", "is not JSON"),
        ("other.json", "holds no result"),
        ("cut.npz", "cut.npz was changed"),
        ("wrapped/p.grad-cam.json", "was wrapped"),
        ("in/p.png", "Cannot read"),
    ):
        ran = run("verify", file, *(["--json"] if as_json else []))
        assert ran.code == 1
        assert ran.err.startswith("pellucid: ")
        assert ran.err.count("\n") == 1
        assert named in ran.err
        assert "Traceback" not in ran.err
        assert (named in ran.json["error"]) if as_json else (ran.out == "")
    assert tree(tmp_path) == before


def test_a_picture_that_is_gone_is_named(run, saved, tmp_path):
    (tmp_path / "in" / "p.png").unlink()
    ran = run("verify", saved)
    assert ran.code == 1
    assert "p.png" in ran.err
