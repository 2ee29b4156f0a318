"""Odd models under each family of methods: a map, or one sentence; never a raw exception."""

import warnings

import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.nets import noise, pooled
from pellucid.heatmaps import GradCAM

X = noise(1, 3, 32, 32)
FAMILIES = ("grad-cam", "ablation-cam", "saliency", "integrated-gradients", "occlusion", "rise", "importance")


class Wrapped(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.body, self.run = pooled(), forward

    def forward(self, *given):
        return self.run(self.body, *given)


def without_gradients(body, x):
    with torch.no_grad():
        return body(x)


def compiled(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


MODELS = {
    "under no_grad": lambda: Wrapped(without_gradients),
    "numpy inside": lambda: Wrapped(lambda body, x: torch.from_numpy(body(x).numpy() * 2)),
    "scripted": lambda: compiled(lambda: torch.jit.script(pooled())),
    "traced": lambda: compiled(lambda: torch.jit.trace(pooled(), X)),
    "exported": lambda: torch.export.export(pooled(), (X,)).module(),
    "half": lambda: pooled().half(),
    "a batch of one": lambda: Wrapped(lambda body, x: body(x) + torch.zeros(1, 5).expand(1, 5)[: 1 // len(x)]),
    "a dictionary": lambda: Wrapped(lambda body, x: body(x["image"])),
    "two inputs": lambda: TwoInputs(),
    "nothing": lambda: Wrapped(lambda body, x: None),
    "a text": lambda: Wrapped(lambda body, x: "cat"),
    "meta": lambda: pooled().to("meta"),
}
REFUSED = {
    "under no_grad": {"saliency", "integrated-gradients"},  # a cut at a layer starts a graph of its own
    "numpy inside": {"grad-cam", "ablation-cam", "saliency", "integrated-gradients"},
    "scripted": {"grad-cam", "ablation-cam"},
    "traced": {"grad-cam", "ablation-cam"},
    "exported": {"grad-cam", "ablation-cam"},
    **{name: set(FAMILIES) for name in ("a dictionary", "two inputs", "nothing", "a text", "meta")},
}


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = pooled()

    def forward(self, image, clinical):
        return self.body(image) + clinical


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", MODELS)
def test_a_map_or_one_sentence(name, family):
    look = pl.Preprocess(input_size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1))
    model = pl.wrap(MODELS[name]().eval() if name != "exported" else MODELS[name](), transform=look)

    def found():
        if family == "importance":
            return torch.as_tensor(pl.importance(model, X[0], features="patches", count=4, target=1).full)
        return pl.explain(model, X, method=family, target=1).attribution

    if family in REFUSED.get(name, ()):
        with pytest.raises(pl.PellucidError, match=r"^[^\n]+$"):
            found()
    else:
        assert found().isfinite().all()


def test_a_graph_started_at_the_cut_is_that_of_the_plain_model():
    odd, plain = MODELS["under no_grad"]().eval(), pooled()
    found, expected = (GradCAM(layer=n).attribute(m, X, 1) for m, n in ((odd, "body.3"), (plain, "3")))
    assert expected.any()
    torch.testing.assert_close(found, expected)
