import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import timm
import torch
import torchvision

import pellucid as pl
from pellucid.cli.commands import COMMANDS, command
from pellucid.heatmaps import METHODS
from pellucid.language.sentences import first_paragraph

HEAVY = ("torch", "torchvision", "timm", "numpy", "matplotlib", "PIL", "scipy", "skimage", "rich")


def python(code):
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_nothing_heavy():
    code = f"import sys, pellucid; print([m for m in {HEAVY} if m in sys.modules])"
    assert python(code).strip() == "[]"


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from pellucid.cli import main; code = main(sys.argv[1:] or ['--help']); "
        f"loaded = [m for m in {HEAVY[:-1]} if m in sys.modules]; print('LOADED', loaded, code); "
        f"print('COMMANDS', [m for m in {[f'pellucid.cli.{name}' for name in COMMANDS]} if m in sys.modules])"
    )
    out = python(code)
    assert "LOADED [] 0" in out
    assert "COMMANDS []" in out
    for name in ("explain", "methods", "models", "layers", "verify", "doctor"):
        assert name in out


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_listed_by_what_its_own_help_begins_with(name):
    assert first_paragraph(command(name).help) == COMMANDS[name]


def test_every_public_name_is_there_and_the_rest_is_not():
    for name in pl.__all__:
        assert getattr(pl, name) is not None
        assert name in dir(pl)
    assert pl.render.__name__ == "pellucid.render"
    with pytest.raises(AttributeError, match="nonsense"):
        _ = pl.nonsense


def test_methods(run):
    found = run("methods", "--json").json
    assert [m["method"] for m in found] == list(METHODS)
    grad_cam = next(m for m in found if m["method"] == "grad-cam")
    assert grad_cam["family"] == "cam"
    assert "1610.02391" in grad_cam["paper"]
    ran = run("methods")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert len(lines) == len(METHODS) + 1  # one row a line, nothing cut off, so that programs can read it
    for line, method in zip(lines[1:], METHODS.values(), strict=True):
        assert line.split()[0] == method.name
        assert method.paper in line


def test_models(run):
    found = run("models", "--json").json
    assert found["embedded"] == ["efficientnet-lite0"]
    assert found["timm"] == [f"timm:{n}" for n in timm.list_models()]
    listed = torchvision.models.list_models
    models = torchvision.models
    kinds = (models, models.video, models.detection, models.segmentation)
    names = [name for kind in kinds for name in listed(module=kind)]
    assert found["torchvision"] == [f"torchvision:{n}" for n in names]
    ran = run("models")
    assert "efficientnet-lite0" in ran.out
    assert str(len(timm.list_models())) in ran.out


def test_models_that_hold_a_text(run):
    lines = run("models", "resnet18").out.splitlines()
    expected = [f"timm:{n}" for n in timm.list_models() if "resnet18" in n] + ["torchvision:resnet18"]
    assert lines == expected
    found = run("models", "resnet18", "--json").json
    assert [n for names in found.values() for n in names] == expected
    ran = run("models", "qqqq")
    assert (ran.code, ran.out) == (0, "No model's name holds 'qqqq'.\n")
    assert not any(run("models", "qqqq", "--json").json.values())


def test_layers_are_those_of_the_model_and_one_is_the_default(run):
    found = run("layers", "timm:test_resnet", "--random-weights", "--json").json
    module = pl.load("timm:test_resnet", random_weights=True).module
    shapes = {}
    hooks = [
        m.register_forward_hook(lambda _m, _i, y, n=n: shapes.update({n: tuple(y.shape)}))
        for n, m in module.named_modules()
    ]
    with torch.no_grad():
        module(torch.zeros(1, 3, 160, 160))
    for hook in hooks:
        hook.remove()
    kinds = {n: type(m).__name__ for n, m in module.named_modules()}
    for layer in found:
        assert shapes[layer["layer"]] == (1, layer["channels"], *layer["grid"])
        assert layer["class"] == kinds[layer["layer"]]
        assert layer["layout"] == "channels-first"
    assert [x["layer"] for x in found if x["default"]] == ["layer4"]
    ran = run("layers", "timm:test_resnet", "--random-weights")
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [x["layer"] for x in found]
    assert [line.split()[0] for line in lines if line.rstrip().endswith("default")] == ["layer4"]


def test_layers_default_of_a_segmenter_is_what_explain_uses(run):
    name = "torchvision:lraspp_mobilenet_v3_large"
    (default,) = (x for x in run("layers", name, "--random-weights", "--json").json if x["default"])
    e = pl.explain(pl.load(name, random_weights=True), "sample:coffee", "grad-cam")
    assert e.layer.startswith(f"{default['layer']} ")


def test_layers_default_is_what_explain_uses(run, embedded_model):
    found = run("layers", "--json").json
    (default,) = [x["layer"] for x in found if x["default"]]
    assert pl.explain(embedded_model, "sample:cat").layer.split(" ")[0] == default


def test_doctor(run):
    found = run("doctor", "--json").json
    assert found["pellucid"] == pl.__version__
    assert found["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["packages"]["timm"] == timm.__version__
    assert found["embedded weights"] is True
    assert found["devices"][0] == "cpu"
    assert found["processors"] == os.cpu_count()
    assert found["extras"]["dev"] is True
    ran = run("doctor")
    assert (ran.code, ran.err) == (0, "")
    assert f"pellucid: {pl.__version__}" in ran.out.splitlines()
    assert "embedded weights: installed" in ran.out.splitlines()


def test_doctor_knows_every_extra(run):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(run("doctor", "--json").json["extras"]) == set(project["optional-dependencies"])


def test_the_listings_are_strict_json(run):
    for words in (("methods",), ("models", "test_"), ("layers", "timm:test_resnet", "--random-weights"), ("doctor",)):
        ran = run(*words, "--json")
        assert (ran.code, ran.err) == (0, "")
        assert json.dumps(ran.json)


def test_help_of_every_command(run):
    for name in ("explain", "methods", "models", "layers", "verify", "doctor"):
        ran = run(name, "--help")
        assert (ran.code, ran.err) == (0, "")
        assert "Usage" in ran.out


def test_without_a_command_the_help_is_shown(run):
    ran = run()
    assert "Usage" in ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err
