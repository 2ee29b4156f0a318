"""Whatever is wrong: exit code 1 (usage: 2), one sentence that names it with a cure, nothing half-written."""

import os
import pickle
import subprocess
import sys
import warnings

import pytest
import timm
import torch
from safetensors.torch import save_file

from helpers.cases import nan_tiff, png_header, save, tree, truncated_jpeg
from pellucid.cli import main


def refused(ran, *named, out):
    """One sentence on stderr that names each of `named`; nothing on stdout, no traceback, no file written."""
    assert ran.code == 1
    assert ran.out == ""
    assert ran.err.startswith("pellucid: ")
    assert ran.err.count("\n") == 1
    assert ran.err.endswith((".\n", "?\n"))
    assert "Traceback" not in ran.err
    assert "this is a bug" not in ran.err
    for text in named:
        assert text in ran.err
    assert not out.exists() or tree(out) == {}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def good(tmp_path):
    return save(tmp_path / "good.png")


def text_as_jpeg(path):
    path.write_text("This is not a picture.")


def huge(path):
    png_header(path, 60_000, 60_000)


def empty_file(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "make", "problem", "cure"),
    [
        ("text.jpg", text_as_jpeg, "none of PNG, JPEG", "convert it to PNG or JPEG"),
        ("cut.jpg", truncated_jpeg, "truncated", "get or save it again"),
        ("bomb.png", huge, "3,600 megapixels", "make it smaller"),
        ("hole.tif", nan_tiff, "NaN", "replace them"),
        ("empty.png", empty_file, "is empty", "give a picture file"),
    ],
)
def test_broken_pictures(explain, tmp_path, out, name, make, problem, cure):
    make(tmp_path / name)
    refused(explain(name, "--out", out), name, problem, cure, out=out)


def test_a_missing_file_has_near_misses(explain, good, out):
    refused(explain("nowhere/x.png", "--out", out), "nowhere/x.png", "check the path", out=out)
    refused(explain("godo.png", "--out", out), "godo.png", "did you mean good.png?", out=out)
    refused(explain("sample:coffe", "--out", out), "did you mean coffee?", out=out)
    refused(explain("*.webp", "--out", out), "*.webp matches no picture", "check the pattern", out=out)
    refused(explain(good, "missing.png", "--out", out), "missing.png", out=out)  # before anything is done


def test_an_empty_folder(explain, tmp_path, out):
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow" / "notes.txt").write_text("x")
    refused(explain("hollow", "--out", out), "hollow holds no picture", "name a folder", out=out)


@pytest.mark.parametrize("url", ["https://example.org/cat.jpg", "http://x.y/z.png", "s3://b/k.png", "data:image/png,x"])
def test_a_url(explain, out, url):
    refused(explain(url, "--out", out), f"{url} is a URL", "download the picture", out=out)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--method", "grad-cm"), ("'grad-cm'", "did you mean 'grad-cam'", "pellucid methods")),
        (("--method", "qqqq"), ("'qqqq'", "there are cam, ")),
        (("--method", "grad-cam,"), ("There is no method ''", "pellucid methods")),
        (("--target", "tabbby"), ("'tabbby'", "did you mean 'tabby'")),
        (("--target", "tabby>linx"), ("'linx'", "'lynx'")),
        (("--target", "qqqqqq"), ("'qqqqqq'", "give a class number")),
        (("--target", "tabby>tabby"), ("needs two classes",)),
        (("--target", "1000"), ("1000", "the model has 1000 classes")),
        (("--target", "top:1000"), ("rank 1000", "1000 classes")),
        (("--target", "tabby,"), ("A target is empty", "give a class number")),
        (("--target", "unit:layer4:96"), ("channel 96", "has 96 channels")),
        (("--target", "unit:layer5:0"), ("'layer5'", "'layer4'")),
        (("--target", "unit:layer4"), ("write unit:LAYER:CHANNEL",)),
        (("--layer", "layer5"), ("'layer5'", "did you mean 'layer4'", "pellucid layers")),
        (("--layer", "fc"), ("'fc'", "pellucid layers")),
        (("--layer", "layer4", "--method", "saliency"), ("saliency works without one", "leave it out")),
        (("--device", "tpu"), ("'tpu'", "use cpu")),
        (("--labels", "nowhere.txt"), ("nowhere.txt", "one label a line")),
        (("--weights", "w.pt"), ("either a weights file or random weights",)),
    ],
)
def test_wrong_names(explain, good, out, options, named):
    refused(explain(good, *options, "--out", out), *named, out=out)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("timm:resnet19", ("'resnet19'", "timm:resnet18")),
        ("torchvision:resnet19", ("'resnet19'", "torchvision:resnet18")),
        ("torchvision:resnet18:NEWEST", ("'NEWEST'", "IMAGENET1K_V1")),
        ("efficientnet-lite1", ("'efficientnet-lite1'", "'efficientnet-lite0'")),
        ("hub:resnet18", ("'hub:resnet18'", "'timm:resnet18'")),
        ("", ("''", "pellucid models")),
    ],
)
def test_unknown_models_have_near_misses(run, good, out, model, named):
    refused(run("explain", good, "--model", model, "--out", out), *named, out=out)
    refused(run("layers", model), *named, out=out)


def test_the_embedded_models_labels_have_near_misses(run, good, out):
    refused(run("explain", good, "--target", "tabbby", "--out", out), "'tabbby'", "did you mean 'tabby'", out=out)


# ---------------------------------------------------------------- weights


def test_weights_of_a_one_channel_model(run, good, out, tmp_path):
    save_file(timm.create_model("resnet18", in_chans=1).state_dict(), tmp_path / "grey.safetensors")
    ran = run("explain", good, "--model", "timm:resnet18", "--weights", "grey.safetensors", "--out", out)
    refused(ran, "grey.safetensors", "'conv1.weight' has shape (64, 1, 7, 7), not (64, 3, 7, 7)", out=out)


def test_nan_weights(run, good, out, tmp_path):
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    state["blocks.3.1.conv_pw.weight"][0, 0] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    ran = run("explain", good, "--model", "timm:tf_efficientnet_lite0", "--weights", "nan.safetensors", "--out", out)
    refused(ran, "NaN or infinity", "'blocks.3.1.conv_pw.weight'", "load a sound checkpoint", out=out)


class Evil:
    def __init__(self, flag):
        self.flag = str(flag)

    def __reduce__(self):
        return (open, (self.flag, "w"))


@pytest.mark.parametrize("kind", ["pickle", "protocol 2", "torch", "state"])
def test_pickled_code_is_refused_and_not_run(run, good, out, tmp_path, kind):
    flag, evil = tmp_path / "executed", Evil(tmp_path / "executed")
    with open(tmp_path / "w.pt", "wb") as file:
        if kind == "torch":
            torch.save(evil, file)
        elif kind == "state":
            torch.save({"state_dict": {"conv1.weight": torch.zeros(3)}, "config": evil}, file)
        else:
            pickle.dump({"state_dict": evil}, file, protocol=2 if kind == "protocol 2" else 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch must not add a warning to the one sentence
        ran = run("explain", good, "--weights", "w.pt", "--out", out)
    refused(ran, "w.pt", "refused", "safetensors", out=out)
    assert not flag.exists()
    torch.load(tmp_path / "w.pt", weights_only=False) if kind in {"torch", "state"} else pickle.loads(
        (tmp_path / "w.pt").read_bytes()
    )
    assert flag.exists()  # the file was live


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("data", [b"", b"rubbish", b"\x80\x02rubbish", b"PK\x03\x04rubbish"])
def test_files_that_hold_no_weights(run, good, out, tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    refused(run("explain", good, "--weights", name, "--out", out), name, out=out)
    refused(run("explain", good, "--weights", "nowhere.pt", "--out", out), "nowhere.pt", "check the path", out=out)


def test_weights_of_another_architecture(run, good, out, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    ran = run("explain", good, "--weights", "w.safetensors", "--out", out)
    refused(ran, "w.safetensors", "not for this architecture", "name the model they were saved from", out=out)


# ---------------------------------------------------------------- the output folder, usage, bugs


def test_an_output_folder_below_a_file(explain, good, tmp_path):
    (tmp_path / "file").write_text("x")
    before = tree(tmp_path)
    for folder in ("file", "file/out", "file/deep/er"):
        ran = explain(good, "--out", folder)
        refused(ran, f"Cannot write {folder}/", "--out", out=tmp_path / "nowhere")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("explain",), "INPUT"),
        (("explain", "x.png", "--nope"), "--nope"),
        (("explain", "x.png", "--seed", "many"), "--seed"),
        (("explain", "x.png", "--method"), "--method"),
        (("verify",), "file"),
        (("verify", "x", "--tolerance", "much"), "tolerance"),
        (("models", "a", "b"), "b"),
        (("explode",), "explode"),
    ],
)
def test_wrong_usage_is_exit_code_2(run, tmp_path, arguments, named):
    ran = run(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert named in ran.err
    assert "Traceback" not in ran.err
    assert tree(tmp_path) == {}


def test_a_bug_is_called_one_without_a_traceback(explain, good, monkeypatch, out):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError("division by zero\nand more")

    monkeypatch.setattr("pellucid.verbs.explain.explain_all", broken)
    ran = explain(good, "--out", out)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.count("\n") == 1
    assert "unexpected ZeroDivisionError: division by zero; this is a bug" in ran.err
    monkeypatch.setenv("PELLUCID_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["explain", good, "--out", str(out), "--no-check"])
    assert tree(out) == {}


def test_as_a_process_there_is_no_traceback_and_nothing_on_stdout(tmp_path):
    for arguments, code in ((["nowhere.png"], 1), (["--nope"], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "pellucid", "explain", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (code, "")
        assert "Traceback" not in done.stderr
        assert arguments[0] in done.stderr
    assert tree(tmp_path) == {}
