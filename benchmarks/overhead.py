"""What perturbation methods cost beyond the forward passes they need: each method beside its own passes, bare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import pellucid as pl
from benchmarks.paths import inputs_of
from benchmarks.report import Row, Section, at_most
from benchmarks.rivals import MODELS
from benchmarks.score_cam import Subset
from benchmarks.timing import calls_of, paired
from pellucid.engine.masks import grid_labels
from pellucid.heatmaps import Method, get_method

_LIMIT = 1.1
_CHANNELS = 16  # of a layer made for score-cam and its kin, so that they are affordable
_TAILS = "ablation-cam and recipro-cam run no whole passes per sample (see their section), tis drops tokens"


@dataclass(frozen=True)
class Pass:
    """One call of the model: how many inputs, and whether a gradient came back."""

    batch: int
    backward: bool


def passes_of(method: Method, module: nn.Module, x: Tensor) -> list[Pass]:
    """The passes that one explanation of class 0 makes."""
    with calls_of(module) as seen:
        cost = method.explain(module, x, [0])[0].cost
    without = sum(n for n, on in seen if on) - cost.backwards  # forwards in a graph that no gradient followed
    passes = []
    for batch, on in seen:
        lone = on and without > 0
        without -= batch if lone else 0
        passes.append(Pass(batch, on and not lone))
    return passes


def bare(module: nn.Module, x: Tensor, passes: Sequence[Pass]) -> Callable[[], None]:
    """The same passes on ready inputs, by a loop without anything else."""
    inputs = {p.batch: x[:1].repeat(p.batch, *[1] * (x.ndim - 1)) for p in passes}

    def run() -> None:
        for p in passes:
            if p.backward:
                ready = inputs[p.batch].detach().requires_grad_()
                torch.autograd.grad(module(ready)[:, 0].sum(), ready)
            else:
                with torch.no_grad():
                    module(inputs[p.batch])

    return run


def contestants(samples: int, space: tuple[int, ...], narrow: str | None) -> dict[str, Method]:
    """Every perturbation method, with about `samples` forwards or as few as it can do with.

    Args:
        samples: at least 24.
        space: of the input.
        narrow: a layer of few channels, or None where there is none.
    """
    side = max(2, int(samples**0.5))
    few = grid_labels(space, (3, 3))
    found = {
        "occlusion": get_method("occlusion", window=space[0] // 2, stride=-(-(space[0] // 2) // (side - 1))),
        "feature-ablation": get_method("feature-ablation", segments=grid_labels(space, (side, side))),
        "rise": get_method("rise", samples=samples),
        "lime": get_method("lime", samples=samples),
        "kernel-shap": get_method("kernel-shap", segments=few, samples=samples),
        "shapley": get_method("shapley", segments=few, samples=4),
        "owen": get_method("owen", count=16, max_evaluations=samples),
        "sobol": get_method("sobol", cells=2, samples=samples),
        "hsic": get_method("hsic", cells=4, samples=samples),
        "aise": get_method("aise", samples=samples),
        "trace-order": get_method("trace-order", cells=2, sweeps=0),
        "group-cam": get_method("group-cam", groups=samples),
        "meaningful-perturbation": get_method("meaningful-perturbation", iterations=samples // 3),
        "extremal-perturbation": get_method("extremal-perturbation", iterations=samples // 3),
        "igos++": get_method("igos++", iterations=max(1, samples // 24), nodes=2),
    }
    if narrow:
        found |= {name: get_method(name, layer=narrow) for name in ("score-cam",)}
        found |= {name: get_method(name, layer=narrow, samples=1) for name in ("ss-cam", "is-cam")}
    return found


def overhead(model: str, samples: int, repeats: int, device: str) -> Section:
    """Each method : its passes, in processor time where that is the clock."""
    vision = pl.load(MODELS[model], random_weights=True, device=device)
    x = inputs_of("cat", vision)
    convolutional = model == "ResNet-50"
    module = Subset(vision.module, 2048 // _CHANNELS).eval() if convolutional else vision.module
    methods = contestants(samples, tuple(x.shape[2:]), "chosen" if convolutional else None)
    if not convolutional:
        methods["vit-cx"] = get_method("vit-cx", threshold=0.9)
    rows = []
    for name, method in methods.items():
        method.explain(module, x, [0])  # finds the layer, and whatever else is kept for a model
        passes = passes_of(method, module, x)
        calls = {"method": lambda m=method: m.explain(module, x, [0]), "bare": bare(module, x, passes)}
        found = paired(calls, repeats, warmup=0)
        done = sum(p.batch for p in passes)
        back = sum(p.batch for p in passes if p.backward)
        rows.append(
            Row(
                f"{name} : its passes",
                found.ratio("method", "bare"),
                limit=at_most(_LIMIT),
                cpu=found.ratio("method", "bare", "cpu"),
                note=f"{done} forwards" + f" and {back} backwards" * bool(back),
            )
        )
    cams = (
        f"Score-cam and its kin run over {_CHANNELS} channels of `layer4`."
        if convolutional
        else "No layer has fewer than 768 channels, so score-cam is left out."
    )
    about = (
        f"{model} with random weights, one picture, few samples, so that fixed costs weigh more than they do in "
        "use. Each method runs beside a loop of the very passes it made: the same number, batch by batch of the same "
        f"size, with a backward pass where it had one, on ready inputs. {cams} {_TAILS}. From 64 masked inputs on, "
        "normalised convolutions run in a quicker twin, which is not used here."
    )
    return Section(f"Overhead beyond the passes, {model}", about, rows)
