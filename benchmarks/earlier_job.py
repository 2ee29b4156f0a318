"""A process that runs calls of one build on demand: the build, and its benchmarks, are those on the path.

Reads a line of JSON for each call and answers with the processor's and the wall's seconds of that call; without a
call, with the names of the group's calls.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable

import timm
import torch
from torch import nn

import pellucid as pl
from benchmarks import black_box, channels, folder, overhead, rivals, score_cam
from benchmarks.paths import inputs_of
from benchmarks.rivals import MODELS, Setting
from benchmarks.timing import no_collection, timed
from pellucid.engine.masks import grid_labels
from pellucid.heatmaps import IntegratedGradients, get_method

Calls = dict[str, Callable[[], object]]


def _cams(model: str) -> Calls:
    s = Setting.make(model, 2, "cpu", probe=False)
    s.layer = s.find_layer()
    names = rivals.CAMS if model == "ResNet-50" else rivals.CAMS[1:]
    calls: Calls = {"grad-cam": rivals.pellucid_grad_cam(s), "all cams": rivals.pellucid_all_cams(s, names)}
    if model == "ResNet-50":
        calls["eigen-cam of layer1"] = rivals.pellucid_eigen_cam(s, "layer1")
    return calls | {"finding the layer": s.find_layer}


def _overhead(model: str) -> Calls:
    vision = pl.load(MODELS[model], random_weights=True)
    x = inputs_of("cat", vision)
    convolutional = model == "ResNet-50"
    module = score_cam.Subset(vision.module, 128).eval() if convolutional else vision.module
    return _methods(module, x, "chosen" if convolutional else None)


def _narrow() -> Calls:
    """ViT-B/16 a sixteenth as wide: what a method adds to its passes weighs much more."""
    torch.manual_seed(0)
    module = timm.create_model("vit_base_patch16_224", embed_dim=48, num_heads=12).eval()
    return _methods(module, torch.randn(1, 3, 224, 224), None)


def _methods(module: nn.Module, x: torch.Tensor, narrow: str | None) -> Calls:
    methods = overhead.contestants(24, tuple(x.shape[2:]), narrow)
    return {name: lambda m=method: m.explain(module, x, [0]) for name, method in methods.items()}


def _tokens() -> Calls:
    s = Setting.make("ViT-B/16", 1, "cpu", probe=False)
    labels = grid_labels(tuple(s.inputs.shape[2:]), (7, 7))
    dropped = get_method("kernel-shap", baseline="dropped", samples=104, segments=labels)
    return {"kernel-shap, tokens dropped": lambda: dropped.explain(s.module, s.inputs, [0])}


def _paths() -> Calls:
    model = pl.load()
    x = inputs_of("cat", model)
    fifty = IntegratedGradients(tolerance=None, max_steps=50)
    return {
        "integrated-gradients, 50 nodes": lambda: fifty.attribute(model, x, 281),
        "integrated-gradients": lambda: IntegratedGradients().explain(model, x, [281]),
    }


def _samples() -> Calls:
    case = black_box.Case.make(500, "cpu")
    wanted = {"shapley": case.orders, "kernel-shap": 500, "lime": 500}
    return {name: black_box._ours(case, name, samples=n) for name, n in wanted.items()}


def _tails() -> Calls:
    module, x, target, _ = channels.resnet("cpu")
    methods = {name: get_method(name, layer="layer4") for name in ("ablation-cam", "recipro-cam")}
    occlusion = get_method("occlusion", window=64, stride=16)
    job = channels.prepare(module, x, [target])
    calls: Calls = {name: lambda m=method: m.explain(module, x, [target]) for name, method in methods.items()}
    calls["occlusion, 121 windows"] = lambda: occlusion.explain(module, x, [target])
    players, estimator = channels.Channels(layer="layer3"), channels.get_estimator("ablation")
    return calls | {"importance of channels": lambda: channels.measure(players, estimator, job, pairs=False)}


def _windows() -> Calls:
    module = pl.load("torchvision:vgg16", random_weights=True).module
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    method = get_method("occlusion", window=32, stride=24)
    return {"occlusion, VGG-16": lambda: method.explain(module, x, [0])}


def _verbs() -> Calls:
    model, kept = pl.load(), tempfile.mkdtemp()
    folder.photographs(4, kept)
    return {
        "explain": lambda: pl.explain(model, "sample:cat"),
        "explain with check": lambda: pl.explain(model, "sample:cat").check(),
        "importance of a folder": lambda: folder._explained(model, kept),
    }


GROUPS: dict[str, Callable[[], Calls]] = {
    "cams ResNet-50": lambda: _cams("ResNet-50"),
    "cams ViT-B/16": lambda: _cams("ViT-B/16"),
    "paths": _paths,
    "verbs": _verbs,
    "samples": _samples,
    "tails": _tails,
    "overhead ResNet-50": lambda: _overhead("ResNet-50"),
    "overhead ViT-B/16": lambda: _overhead("ViT-B/16"),
    "overhead narrow ViT": _narrow,
    "tokens": _tokens,
    "windows": _windows,
}


def main() -> None:
    """Serve until the input ends."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    out, sys.stdout = sys.stdout, sys.stderr  # what a call prints is no answer
    calls: Calls = {}
    group = ""
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["group"] != group:
            calls.clear()
            group, calls = asked["group"], GROUPS[asked["group"]]()
        if asked["call"] is None:
            answer: object = list(calls)
        else:
            for _ in range(asked["warmup"]):
                calls[asked["call"]]()
            with no_collection():
                wall, cpu = timed(calls[asked["call"]])
            answer = {"wall": wall, "cpu": cpu}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
