import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

import pellucid as pl
from helpers.cases import nan_tiff, pixels, png_header, save, tree, truncated_jpeg
from pellucid.cli import main
from pellucid.heatmaps import IntegratedGradients
from pellucid.results.heatmap import Heatmaps

SMALL = ("--model", "timm:test_resnet", "--random-weights")


def small_model():
    return pl.load("timm:test_resnet", random_weights=True)


def whole(files):
    """Every file can be read from end to end, and none is a temporary one."""
    for name, data in files.items():
        assert not name.startswith(".")
        assert not name.endswith(".tmp")
        if name.endswith(".png"):
            Image.open(BytesIO(data)).load()
        elif name.endswith(".npz"):
            assert zipfile.ZipFile(BytesIO(data)).testzip() is None
        else:
            assert name.endswith(".json")
            json.loads(data)


# ---------------------------------------------------------------- what is said and written


def test_it_says_and_writes_what_python_finds(explain, tmp_path):
    path = save(tmp_path / "in" / "my cat.png", pixels(90, 130))
    ran = explain(path, "--out", "out", "--method", "hires-cam", "--target", "tabby")
    e = pl.explain(small_model(), path, "hires-cam", "tabby")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == f"{path}: " + ", ".join(f"{p.label} {p.probability:.0%}" for p in e.prediction[:3])
    assert lines[1] == f"  hires-cam for tabby, layer {e.layer}"
    assert lines[-1] == "  picture: out/my-cat.png"
    files = tree(tmp_path / "out")
    assert sorted(files) == ["my-cat.hires-cam.json", "my-cat.hires-cam.npz", "my-cat.png"]
    whole(files)
    assert torch.equal(pl.read("out/my-cat.hires-cam.json").attribution, e.attribution)
    panel = Image.open(BytesIO(files["my-cat.png"]))
    assert min(panel.size) > 200
    assert len(np.unique(np.asarray(panel).reshape(-1, 3), axis=0)) > 1000  # a drawing, not a blank


def test_the_default_model_knows_the_cat(run):
    ran = run("explain", "sample:cat", "--no-check", "--json", "--target", "tabby>lynx")
    (result,) = ran.json["results"]
    assert result["input"] == "sample:cat"
    assert result["target"] == "tabby rather than lynx"
    assert {p["label"] for p in result["prediction"][:3]} == {"tabby", "tiger cat", "Egyptian cat"}
    assert result["files"][-1] == "pellucid-out/cat.png"
    assert pl.read("pellucid-out/cat.grad-cam.json").record.target == "281>287"


def test_json_is_one_document_with_all_inputs_methods_and_targets(explain, tmp_path):
    paths = [save(tmp_path / "in" / f"p{i}.png") for i in range(2)]
    ran = explain(*paths, "--json", "--out", "out", "--method", "grad-cam,saliency", "--target", "top,tabby>lynx,287")
    assert (ran.code, ran.err) == (0, "")
    report = ran.json
    assert report["failed"] == []
    assert "error" not in report
    top = [e.prediction[0].label for e in pl.explain(small_model(), paths)]
    expected = [
        (path, target, method)
        for path, first in zip(paths, top, strict=True)
        for target in (first, "tabby rather than lynx", "lynx")
        for method in ("grad-cam", "saliency")
    ]
    assert [(r["input"], r["target"], r["method"]) for r in report["results"]] == expected
    written = {f for r in report["results"] for f in r["files"]}
    assert written == {f"out/{name}" for name in tree(tmp_path / "out")}
    assert len(written) == 2 * (6 * 2 + 1)
    whole(tree(tmp_path / "out"))
    named = [r["files"] for r in report["results"]]
    assert all(f"{r['method']}" in " ".join(f) for r, f in zip(report["results"], named, strict=True))


def test_a_single_picture_is_measured_and_several_are_not(run, tmp_path):
    small = ("--model", "timm:test_resnet", "--random-weights", "--json", "--method", "saliency")
    paths = [save(tmp_path / "in" / f"p{i}.png") for i in range(2)]
    (measured,) = run("explain", paths[0], *small).json["results"]
    quality = pl.explain(small_model(), paths[0], "saliency").check()
    assert measured["quality"]["line"] == quality.line
    assert measured["quality"]["insertion"]["scores"] == pytest.approx(quality.insertion.scores, abs=1e-6)
    assert [r["quality"] for r in run("explain", *paths, *small).json["results"]] == [None, None]


def test_nan_facts_are_null_in_json(explain, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "pellucid.verbs.choices.as_methods", lambda *_a, **_k: [IntegratedGradients(tolerance=None, max_steps=4)]
    )
    (result,) = explain(save(tmp_path / "a.png"), "--json", "--out", "out").json["results"]
    assert result["facts"]["estimated_error"] is None
    assert result["facts"]["steps"] == 4


def test_same_stems_from_two_folders_do_not_overwrite_each_other(explain, tmp_path):
    paths = [save(tmp_path / folder / "cat.png", pixels(seed=i)) for i, folder in enumerate("abc")]
    report = explain(*paths, "--json", "--out", "out").json
    files = [r["files"] for r in report["results"]]
    assert [f[-1] for f in files] == ["out/cat.png", "out/cat-2.png", "out/cat-3.png"]
    assert len({name for group in files for name in group}) == 9
    for path, group in zip(paths, files, strict=True):
        assert pl.read(group[0]).record.input["source"] == path


def test_pictures_in_the_output_folder_are_not_overwritten(explain, tmp_path, monkeypatch):
    names = [save(tmp_path / "in" / name) for name in ("a.png", "b.PNG", "c.jpg")]
    before = tree(tmp_path / "in")
    monkeypatch.chdir(tmp_path / "in")
    report = explain(*names, "--json", "--out", ".").json
    after = tree(tmp_path / "in")
    assert {k: after[k] for k in before} == before
    assert [r["files"][-1] for r in report["results"]] == ["a-2.png", "b-2.png", "c.png"]


def test_a_folder_and_a_glob_in_natural_order(explain, tmp_path):
    for name in ("p10.png", "p2.png", "notes.txt"):
        save(tmp_path / "in" / name) if name.endswith("png") else (tmp_path / "in" / name).write_text("x")
    for given in ("in", "in/*"):
        report = explain(given, "--json", "--out", "out").json
        assert [os.path.basename(r["input"]) for r in report["results"]] == ["p2.png", "p10.png"]


def test_labels_layer_and_seed_are_used(explain, tmp_path):
    path = save(tmp_path / "a.png")
    (tmp_path / "labels.json").write_text(json.dumps([f"kind {i}" for i in range(1000)]))
    ran = explain(path, "--labels", "labels.json", "--target", "kind 7", "--layer", "layer2", "--seed", "5", "--json")
    (result,) = ran.json["results"]
    assert result["target"] == "kind 7"
    assert result["layer"].startswith("layer2 (")
    record = pl.read(result["files"][0]).record
    assert (record.run["seed"], record.target) == (5, "7")


# ---------------------------------------------------------------- some pictures fail


def check_partial(explain, tmp_path, good, bad):
    folder = tmp_path / "in"
    for i in range(good):
        save(folder / f"g{i}.png", pixels(32, 40, seed=i))
    makers = [truncated_jpeg, nan_tiff, lambda p: png_header(p, 60_000, 60_000)]
    broken = [make(folder / name) for make, name in zip(makers, ("cut.jpg", "hole.tif", "bomb.png"), strict=True)][:bad]
    ran = explain("in", "--out", "out")
    assert ran.code == 1
    *named, last = ran.err.splitlines()
    assert sorted(line.split()[1] for line in named) == sorted(os.path.relpath(b, tmp_path) for b in broken)
    assert all(line.startswith("pellucid: ") for line in named)
    assert last == f"{good} of {good + bad} pictures explained; the others are named above."
    assert sum(line.startswith(f"{folder}/") for line in ran.out.splitlines()) == good
    files = tree(tmp_path / "out")
    assert len(files) == 3 * good
    whole(files)
    return [os.path.relpath(b, tmp_path) for b in broken]


def test_broken_pictures_do_not_stop_the_others(explain, tmp_path):
    broken = check_partial(explain, tmp_path, 4, 3)
    report = explain("in", "--out", "out", "--json").json
    assert len(report["results"]) == 4
    assert sorted(f["input"] for f in report["failed"]) == sorted(broken)
    assert all(f["input"] in f["error"] for f in report["failed"])


@pytest.mark.slow
def test_a_hundred_pictures_with_three_broken(explain, tmp_path):
    check_partial(explain, tmp_path, 97, 3)


def test_json_is_one_document_whatever_fails(explain, run, tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    truncated_jpeg(tmp_path / "cut.jpg")
    for arguments, error in (
        (("nowhere.png",), "nowhere.png"),
        (("a.png", "--method", "grad-cm"), "grad-cm"),
        (("a.png", "--target", "tabbby"), "tabbby"),
    ):
        ran = explain(*arguments, "--json", "--out", "out")
        assert ran.code == 1
        assert error in ran.json["error"]
        assert ran.json["results"] == []
        assert ran.err == f"pellucid: {ran.json['error']}\n"
    ran = explain("cut.jpg", "--json", "--out", "out")
    assert ran.code == 1
    assert "error" not in ran.json
    assert [f["input"] for f in ran.json["failed"]] == ["cut.jpg"]
    assert ran.err == f"pellucid: {ran.json['failed'][0]['error']}\n"
    assert tree(tmp_path / "out") == {}


def test_a_full_disk_in_the_middle_leaves_whole_files_and_says_what_was_done(explain, tmp_path, monkeypatch):
    paths = [save(tmp_path / "in" / f"p{i}.png") for i in range(3)]
    real, made = os.replace, []

    def replace(source, target):
        made.append(target)
        if len(made) > 6:  # the probe of the folder, one picture's three files, two of the next
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    ran = explain(*paths, "--json", "--out", "out")
    assert ran.code == 1
    assert "No space left on device" in ran.json["error"]
    assert [r["input"] for r in ran.json["results"]] == paths[:1]
    assert sorted(tree(tmp_path / "out")) == [
        "p0.grad-cam.json", "p0.grad-cam.npz", "p0.png", "p1.grad-cam.json", "p1.grad-cam.npz",
    ]  # fmt: skip
    whole(tree(tmp_path / "out"))


# ---------------------------------------------------------------- cancelled


def test_ctrl_c_is_130_with_only_whole_files(explain, tmp_path, monkeypatch):
    paths = [save(tmp_path / "in" / f"p{i}.png") for i in range(4)]
    real = os.replace

    def replace(source, target):
        if os.path.basename(target) == "p2.png":
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    ran = explain(*paths, "--out", "out")
    assert ran.code == 130
    assert "Traceback" not in ran.err
    files = tree(tmp_path / "out")
    assert {f for f in files if f.endswith(".png")} == {"p0.png", "p1.png"}
    whole(files)
    ran = explain(*paths, "--out", "out", "--json")
    assert ran.code == 130
    assert ran.json["error"] == "cancelled"
    assert len(ran.json["results"]) == 2


@pytest.fixture
def keyboard():
    """SIGINT as a terminal's process has it: one that is started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("keyboard")
def test_ctrl_c_as_a_signal(tmp_path):
    folder = tmp_path / "in"
    for i in range(200):
        save(folder / f"p{i}.png", pixels(32, 40, seed=i))
    process = subprocess.Popen(
        [sys.executable, "-m", "pellucid", "explain", "in", "--out", "out", "--no-check", "--model", "timm:test_resnet",
         "--random-weights"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list((tmp_path / "out").glob("*.png")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    files = tree(tmp_path / "out")
    assert 1 <= sum(f.endswith(".png") for f in files) < 200
    whole(files)


@pytest.mark.usefixtures("keyboard")
@pytest.mark.parametrize("turned", [None, ValueError("no transform")], ids=["cleared", "another error"])
def test_an_interrupt_that_an_extension_swallows_cancels_too(tmp_path, monkeypatch, capsys, turned):
    for i in range(4):
        save(tmp_path / "in" / f"p{i}.png", pixels(32, 40, seed=i))
    real = Heatmaps.save_panel

    def interrupted(self, *given, **settings):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            if turned is not None:
                raise turned from None
        return real(self, *given, **settings)

    monkeypatch.setattr(Heatmaps, "save_panel", interrupted)
    before = signal.getsignal(signal.SIGINT)
    out = tmp_path / "out"
    assert main(["explain", str(tmp_path / "in"), *SMALL, "--no-check", "--out", str(out)]) == 130
    assert len(list(out.glob("*.png"))) == (turned is None)
    assert capsys.readouterr().err.strip() == "pellucid: cancelled."
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.setattr(Heatmaps, "save_panel", real)
    assert main(["explain", str(tmp_path / "in"), *SMALL, "--no-check", "--out", str(out)]) == 0  # it is forgotten


def test_a_picture_alone_is_explained_by_the_best_of_a_pass(run, tmp_path):
    path = save(tmp_path / "in" / "p.png", pixels(90, 120))
    found = run("explain", path, *SMALL, "--json").json["results"]
    auto = run("explain", path, *SMALL, "--method", "auto", "--json", "--out", "same").json["results"]
    assert [(e["method"], e["layer"], e["quality"]) for e in found] == [
        (e["method"], e["layer"], e["quality"]) for e in auto
    ]


@pytest.mark.parametrize("said", [("--no-check",), ("--layer", "layer3"), ("again",)])
def test_otherwise_it_is_grad_cam(run, tmp_path, said):
    path = save(tmp_path / "p.png", pixels(90, 120))
    more = [save(tmp_path / "q.png", pixels(90, 120, seed=2))] if said == ("again",) else list(said)
    found = run("explain", path, *more, *SMALL, "--json").json["results"]
    assert {e["method"] for e in found} == {"grad-cam"}
