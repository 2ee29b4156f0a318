"""A function of the user's own that builds the model, named `module:function`, on the command line."""

import json
import shlex

import pytest
import torch

from helpers.cases import bright_model, pixels, save
from pellucid.cli.options import load_model
from pellucid.models.sources import is_entry

MODULE = """
import torch
from torch import nn
import pellucid as pl

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4, 2)
        with torch.no_grad():
            for k, p in enumerate(self.parameters()):
                p.copy_(torch.sin(torch.arange(p.numel()) * (k + 0.7) + k).view_as(p))

    def forward(self, x):
        return self.head(self.body(x).relu().mean((2, 3)))

def bare():
    return Net().eval()

def ready():
    how = pl.Preprocess(input_size=(24, 24), mean=(0.0,) * 3, std=(1.0,) * 3)
    return pl.wrap(Net().eval(), transform=how, labels=["no", "yes"])

def number():
    return 3

def failing():
    raise KeyError("no such file")
"""


@pytest.fixture
def nets(run, tmp_path, monkeypatch):
    """The folder that holds the module and a picture; commands run there."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "nets_of_mine", raising=False)
    (tmp_path / "nets_of_mine.py").write_text(MODULE)
    save(tmp_path / "p.png", pixels(40, 40))
    return tmp_path


def test_what_is_an_entry():
    assert is_entry("mine:make")
    assert is_entry("package.nets:make")
    assert not any(map(is_entry, ("timm:resnet18", "suite:motion", "onnx:a.onnx", "mine", "C:\\nets", "mine:a.b")))


def test_explain_continue_and_verify(run, nets):
    ran = run("explain", "p.png", "--model", "nets_of_mine:ready", "--method", "grad-cam,rise", "--target", "yes",
              "--set", "samples=32", "--no-check", "--out", "out")  # fmt: skip
    assert ran.code == 0, ran.err
    record = json.loads((nets / "out" / "p.grad-cam.json").read_text())["record"]
    assert (record["model"]["name"], record["model"]["source"]) == ("nets_of_mine:ready", {})
    ran = run("verify", "out/p.grad-cam.json")
    assert ran.code == 1
    assert "'nets_of_mine:ready' was wrapped: give it with pl.verify(file, model=...) or --model." in ran.err
    ran = run("verify", "out/p.grad-cam.json", "--model", "nets_of_mine:ready")
    assert (ran.code, ran.out) == (0, "out/p.grad-cam.json: same\n")
    ran = run("more", "out/p.rise.json", "--samples", "48", "--model", "nets_of_mine:ready", "--json")
    assert (ran.code, len(ran.json["results"])) == (0, 1)


def test_a_report_says_the_command_that_makes_it_again(run, nets):
    from pellucid.explanation import Record
    from pellucid.render.pages.provenance import command, python

    assert run("explain", "p.png", "--model", "nets_of_mine:ready", "--no-check", "--out", "out").code == 0
    record = Record(**json.loads((nets / "out" / "p.grad-cam.json").read_text())["record"])
    made, again = command(record, "out/p.grad-cam.json").splitlines()
    assert "--model nets_of_mine:ready" in made
    assert run(*shlex.split(again)[1:]).out == "out/p.grad-cam.json: same\n"
    assert "from nets_of_mine import ready\nmodel = ready()" in python(record)


def test_a_bare_module_gets_weights_and_labels(run, nets):
    state = {"body.weight": torch.zeros(4, 3, 3, 3), "body.bias": torch.ones(4), "head.weight": torch.ones(2, 4),
             "head.bias": torch.tensor([0.0, 9.0])}  # fmt: skip
    torch.save(state, "w.pt")
    ran = run("explain", "p.png", "--model", "nets_of_mine:bare", "--weights", "w.pt", "--labels", "no,yes",
              "--method", "saliency", "--no-check", "--json", "--out", "out")  # fmt: skip
    assert ran.code == 0, ran.err
    first = ran.json["results"][0]["prediction"][0]
    assert first["label"] == "yes"
    assert first["probability"] == pytest.approx(torch.tensor([0.0, 9.0]).softmax(0)[1].item(), abs=1e-6)


def test_a_preprocessing_that_nobody_gave_is_said(run, nets, capsys):
    """A network of 32 x 32 pixels would else be shown pictures of 224 in silence."""
    said = (
        "came without a preprocessing, so pictures are shown to it as most networks of ImageNet see them, at 224 x 224"
    )
    ran = run("explain", "p.png", "--model", "nets_of_mine:bare", "--method", "saliency", "--no-check", "--json")
    assert ran.err.count(f"nets_of_mine:bare {said}") == 1
    assert ran.json["results"][0]["prediction"]
    ran = run("explain", "p.png", "--model", "nets_of_mine:ready", "--method", "saliency", "--no-check")
    assert "preprocessing" not in ran.err
    load_model("nets_of_mine:bare", None, False, None, None, per_frame="mean", frames="uniform:4")
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("entry", "options", "sentence"),
    [
        ("nets_of_mine:nothing", (), "can't be imported"),
        ("no_such_nets:make", (), "can't be imported"),
        ("nets_of_mine:failing", (), "nets_of_mine:failing raised KeyError: 'no such file'"),
        ("nets_of_mine:number", (), "pl.wrap takes a torch.nn.Module or a function, not int."),
        ("nets_of_mine:ready", ("--labels", "a,b"), "says this for itself: leave out --labels."),
        ("nets_of_mine:bare", ("--random-weights",), "leave out --random-weights."),
        ("nets_of_mine:ready", ("--frames", "4"), "takes pictures, so no frames are sampled"),
    ],
)
def test_what_an_entry_cannot_be_is_one_sentence(run, nets, entry, options, sentence):
    ran = run("explain", "p.png", "--model", entry, *options, "--no-check", "--out", "out")
    assert ran.code == 1
    assert sentence in ran.err.replace("\n", " ")
    assert "Traceback" not in ran.err


def test_a_record_never_names_what_is_imported(run, nets):
    """A name in a file of someone else's is not run, whatever it names."""
    bright = bright_model()
    bright.name = "nets_of_mine:failing"
    import pellucid as pl

    pl.explain(bright, nets / "p.png").save(nets / "given")
    ran = run("verify", "given/p.grad-cam.json")
    assert ran.code == 1
    assert "was wrapped" in ran.err
