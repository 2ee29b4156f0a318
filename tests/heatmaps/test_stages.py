"""Stages: maps at every stage out of one pass, what flows through each, and what methods have none."""

import json

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional
from typer.testing import CliRunner

import pellucid as pl
from helpers.cases import STRETCH, bright_model
from helpers.nets import noise, seeded, settled
from pellucid.cli import app
from pellucid.errors import LayerError, MethodError
from pellucid.heatmaps import LRP, get_method
from pellucid.heatmaps.stages import stage_pass
from pellucid.models.layers import describe
from pellucid.models.targets import Class
from pellucid.scoring.job import prepare


class Blocks(nn.Module):
    """Three blocks, the second written to in place by the third; a skip that goes round none of them."""

    def __init__(self, bias=False):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, o, 3, padding=1, bias=bias) for i, o in ((3, 4), (4, 5), (5, 5)))
        self.one, self.two = nn.Sequential(self.a, nn.ReLU()), nn.Sequential(self.b, nn.MaxPool2d(2))
        self.fc = nn.Linear(5, 3, bias=bias)

    def forward(self, x):
        x = self.two(self.one(x))
        y = self.c(functional.relu(x, inplace=True))
        y += x
        return self.fc(y.clamp(min=0).mean((2, 3)))


def read(method, net, x, names, target=1):
    which = [describe(net, x, name) for name in names]
    return stage_pass(method, prepare(net, x, [Class(target)]), which)


def by_hand(net, x, target=1):
    """Values and gradients at the blocks, by a graph that keeps them."""
    leaf = x.clone().requires_grad_()
    one = net.one(leaf)
    two = net.two(one)
    y = net.c(two.relu()) + two.relu()
    score = net.fc(y.relu().mean((2, 3)))[:, target].sum()
    parts = [leaf, one, two]
    return parts, torch.autograd.grad(score, parts), score


def test_maps_and_flows_are_value_times_gradient_at_each_layer():
    net, x = seeded(lambda: Blocks(bias=True)).eval(), noise(1, 3, 8, 8)
    values, gradients, score = by_hand(net, x)
    for name in ("input-x-gradient", "hires-cam"):
        found = read(get_method(name), net, x, ["one", "two"])
        layers = [None if s.layer is None else s.layer.name for s in found.stages]
        assert layers == ([None, "one", "two"] if name == "input-x-gradient" else ["one", "two"])
        for stage, v, g in zip(found.stages[::-1], values[::-1], gradients[::-1], strict=False):
            torch.testing.assert_close(stage.values, (v * g).sum(1).detach(), rtol=1e-4, atol=1e-6)
            assert stage.flow == pytest.approx(float((v * g).sum().detach()), rel=1e-4, abs=1e-6)
        assert found.score == pytest.approx(float(score.detach()), rel=1e-5)


def test_without_biases_the_whole_score_flows_through_every_stage():
    net, x = seeded(Blocks).eval(), noise(1, 3, 8, 8)
    found = read(LRP(composite="epsilon", epsilon=1e-9), net, x, ["one", "two"])
    for stage in found.stages:
        assert stage.flow == pytest.approx(found.score, rel=1e-3)
        assert stage.absorbed == pytest.approx(0, abs=1e-3 * abs(found.score))


RULES = ["lrp", "attn-lrp", "cp-lrp"]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("build", "side", "layers"),
    [
        (lambda: timm.create_model("resnet18", num_classes=7), 64, ["layer1", "layer2", "layer4"]),
        (lambda: timm.create_model("test_vit", num_classes=7), 160, ["blocks.0", "blocks.3"]),
    ],
    ids=["resnet18", "ViT"],
)
def test_flow_and_what_is_absorbed_are_the_score_at_every_stage(name, build, side, layers):
    net, x = settled(seeded(build)), noise(1, 3, side, side)
    method = get_method(name)
    found = read(method, net, x, layers, 3)
    for stage in found.stages:
        assert stage.flow + stage.absorbed == pytest.approx(found.score, rel=1e-3)
    taken = [s.absorbed for s in found.stages]
    assert len(set(taken)) == len(taken)  # each stage has its own share
    whole = method.attribute(net, x, 3)
    torch.testing.assert_close(found.stages[0].values, whole.sum(1))


@pytest.mark.parametrize("name", ["lrp", "input-x-gradient", "layer-cam"])
def test_all_stages_cost_one_forward_and_one_backward(name):
    net, x = seeded(Blocks).eval(), noise(1, 3, 8, 8)
    which, counts = [describe(net, x, n) for n in ("one", "two")], {"forward": 0, "backward": 0}

    def counted(_module, _args, output):
        counts["forward"] += 1
        output.register_hook(lambda _g: counts.__setitem__("backward", counts["backward"] + 1))

    handle = net.register_forward_hook(counted)
    found = stage_pass(get_method(name), prepare(net, x, [Class(0)]), which)
    handle.remove()
    assert counts == {"forward": 1, "backward": 1}
    assert (found.cost.forwards, found.cost.backwards) == (1, 1)


def test_a_map_is_empty_where_all_that_flows_is_in_the_class_token():
    net = timm.create_model("test_vit", img_size=32, num_classes=3, global_pool="token").eval()
    found = read(LRP(composite="epsilon"), net, noise(1, 3, 32, 32), ["blocks.0", "blocks.5"])
    (note,) = [note for note in found.notes if "without a place" in note]
    assert "blocks.5" in note
    assert "blocks.0" not in note
    last = found.stages[-1]
    assert not last.values.any()
    assert last.flow != 0


def test_no_trace_is_left_and_what_cannot_be_read_is_said():
    net, x = seeded(Blocks).eval(), noise(1, 3, 8, 8)
    before = x.clone()
    for name in ("rise", "cam", "deep-lift", "integrated-gradients"):
        with pytest.raises(MethodError, match="has no maps at the stages"):
            read(get_method(name), net, x, ["one"])
    with pytest.raises(MethodError, match="one input and one target"):
        read(LRP(), net, noise(2, 3, 8, 8), ["one"])
    normed = settled(seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())))
    with pytest.raises(LayerError, match="Nothing comes back to layer '0'"):
        read(LRP(), normed, x, ["0"])
    read(LRP(), net, x, ["two"])
    assert torch.equal(x, before)
    assert not any(m._forward_hooks for m in net.modules())


def test_the_verb_saves_what_can_be_opened_and_computed_again(tmp_path):
    model = pl.wrap(seeded(Blocks).eval(), transform=STRETCH, labels=("a", "b", "c"))
    found = pl.stages(model, "sample:coffee", LRP(composite="epsilon"), "b", layer=["one", "two"])
    assert [m.layer for m in found.maps] == ["input", "one", "two"]
    assert (found.method, found.target, found.conserving) == ("lrp", "b", True)
    assert all(row["gap"] < 1e-3 for row in found.table())
    assert found["two"].values.shape == (32, 32)
    with pytest.raises(LayerError, match="only at input, one, two"):
        found["three"]
    files = found.save(tmp_path)
    assert [f.suffix for f in files] == [".npz", ".json", ".png"]
    opened = pl.read(files[0])
    assert opened.table() == found.table()
    assert torch.equal(opened["one"].values, found["one"].values)
    assert str(pl.verify(files[0], model=model)) == "same"
    with pytest.raises(MethodError, match="one method at a time"):
        pl.stages(model, "sample:coffee", "lrp,saliency")


def test_the_command_line_shows_every_stage(tmp_path, monkeypatch):
    from pellucid.models import sources

    monkeypatch.setattr(sources, "load", lambda *_a, **_k: bright_model())
    command = ["explain", "sample:coffee", "--method", "lrp,layer-cam", "--stages", "--out", str(tmp_path)]
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert [r["method"] for r in told["results"]] == ["lrp", "layer-cam"]
    assert told["results"][0]["stages"][0]["layer"] == "input"
    assert (tmp_path / "coffee.lrp.stages.png").exists()
    said = CliRunner().invoke(app, command)
    assert "lrp for" in said.output
    assert "flows through" in said.output
    refused = CliRunner().invoke(app, [*command, "--redact", "0,0,9,9"])
    assert refused.exit_code != 0
