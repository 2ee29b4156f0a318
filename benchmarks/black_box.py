"""Methods of coalitions and windows beside captum, shap and lime: what each sample costs beyond its forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

import pellucid as pl
from benchmarks.channels import resnet
from benchmarks.overhead import Pass, bare
from benchmarks.report import Row, Section, at_least
from benchmarks.timing import Spread, calls_of, paired
from pellucid.engine.masks import grid_labels
from pellucid.heatmaps import get_method

_CELLS, _SIZE = 7, 224
_LIMIT = 3
_EVALS = (1, 4, 16)  # captum's perturbations_per_eval


@dataclass
class Case:
    """A model whose passes cost next to nothing, a picture, and its segments."""

    module: nn.Module
    x: Tensor
    labels: Tensor
    samples: int

    @classmethod
    def make(cls, samples: int, device: str) -> Case:
        """Average pooling and a linear layer, on a picture of 224 x 224 in 49 squares."""
        generator = torch.Generator().manual_seed(0)
        net = nn.Sequential(nn.AdaptiveAvgPool2d(_CELLS), nn.Flatten(), nn.Linear(3 * _CELLS**2, 10)).eval()
        with torch.no_grad():
            for p in net.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))
        x = torch.rand(1, 3, _SIZE, _SIZE, generator=generator)
        return cls(net.to(device), x.to(device), grid_labels((_SIZE, _SIZE), (_CELLS, _CELLS)), samples)

    @property
    def orders(self) -> int:
        """Orders of the players that take about `samples` evaluations."""
        return max(4, round(self.samples / _CELLS**2))


def _ours(case: Case, name: str, **settings: Any) -> Callable[[], object]:
    method = get_method(name, segments=case.labels, **settings)
    return lambda: method.explain(case.module, case.x, [0])


def _captum(case: Case, name: str, evals: int, samples: int) -> Callable[[], object]:
    from captum import attr

    method = getattr(attr, name)(case.module)
    mask = case.labels[None, None].to(case.x.device)
    return lambda: method.attribute(
        case.x, target=0, feature_mask=mask, n_samples=samples, perturbations_per_eval=evals
    )


def _shap(case: Case, name: str) -> Callable[[], object]:
    """shap on superpixels as its documentation does it: rows of 0 and 1 are turned into pictures by `mask_image`."""
    import shap

    picture = case.x[0].permute(1, 2, 0).cpu().numpy()
    segments = case.labels.numpy()
    players = _CELLS**2

    def mask_image(zs: Any) -> Any:
        out = np.zeros((zs.shape[0], *picture.shape), dtype=np.float32)
        for i in range(zs.shape[0]):
            out[i] = picture
            for j in range(zs.shape[1]):
                if zs[i, j] == 0:
                    out[i][segments == j, :] = 0
        return out

    def predict(zs: Any) -> Any:
        with torch.no_grad():
            return case.module(torch.from_numpy(mask_image(zs)).permute(0, 3, 1, 2).to(case.x.device))[:, 0].numpy()

    blank, whole = np.zeros((1, players)), np.ones((1, players))
    if name == "kernel":
        return lambda: shap.KernelExplainer(predict, blank, silent=True).shap_values(
            whole, nsamples=case.samples, l1_reg=False, silent=True
        )
    rounds = max(1, case.orders // 2)
    return lambda: shap.PermutationExplainer(predict, blank)(
        whole, max_evals=rounds * (2 * players + 1), silent=True, batch_size=16
    )


def _lime(case: Case) -> Callable[[], object]:
    from lime.lime_image import LimeImageExplainer

    picture = case.x[0].permute(1, 2, 0).cpu().double().numpy()
    segments = case.labels.numpy()

    def predict(pictures: Any) -> Any:
        with torch.no_grad():
            ready = torch.from_numpy(np.stack(pictures)).float().permute(0, 3, 1, 2).to(case.x.device)
            return case.module(ready).cpu().numpy()

    return lambda: LimeImageExplainer(random_state=0).explain_instance(
        picture,
        predict,
        labels=(0,),
        top_labels=None,
        hide_color=0,
        num_samples=case.samples,
        segmentation_fn=lambda _: segments,
    )


def coalitions(samples: int, repeats: int, device: str) -> Section:
    """Overhead for each sample of Shapley values, KernelSHAP and LIME."""
    case = Case.make(samples, device)
    groups: dict[str, tuple[Callable[[], object], dict[str, Callable[[], object]]]] = {
        "shapley": (
            _ours(case, "shapley", samples=case.orders),
            {f"captum, {n} at a time": _captum(case, "ShapleyValueSampling", n, case.orders) for n in _EVALS}
            | {"shap": _shap(case, "permutation")},
        ),
        "kernel-shap": (
            _ours(case, "kernel-shap", samples=samples),
            {f"captum, {n} at a time": _captum(case, "KernelShap", n, samples) for n in _EVALS}
            | {"shap": _shap(case, "kernel")},
        ),
        "lime": (
            _ours(case, "lime", samples=samples),
            {f"captum, {n} at a time": _captum(case, "Lime", n, samples) for n in _EVALS} | {"lime": _lime(case)},
        ),
    }
    rows = []
    for name, (ours, theirs) in groups.items():
        cost = _beyond(case, {"ours": ours} | theirs, max(3, repeats))
        for library in dict.fromkeys(n.partition(",")[0] for n in theirs):
            best = min((n for n in theirs if n.partition(",")[0] == library), key=lambda n: _median(cost[n]))
            ratio = Spread.of([a / b for a, b in zip(cost[best], cost["ours"], strict=True)])
            note = f"{1e3 * _median(cost[best]):.2f} ms beside {1e3 * _median(cost['ours']):.2f} ms a sample"
            at = best.partition(", ")[2]
            rows.append(
                Row(
                    f"{library} : {name}",
                    ratio,
                    limit=at_least(_LIMIT),
                    note=note + (f"; {at}, its best" if at else ""),
                )
            )
    about = (
        "Processor time beyond the model's passes, for each masked input that was run. The model is average pooling "
        f"and one linear layer, so that its passes cost next to nothing; a picture of {_SIZE} x {_SIZE} in "
        f"{_CELLS**2} squares, zero baseline, some {samples} samples. The passes are repeated bare, batch by batch, "
        "and their time is taken off. captum at the best of 1, 4 and 16 perturbations at a time; shap with the "
        "`mask_image` of its documentation on superpixels; lime with its own defaults and the same segments."
    )
    return Section("Overhead of each sample beside captum, shap and lime", about, rows)


def _median(values: list[float]) -> float:
    return Spread.of(values).median


def _beyond(case: Case, calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of processor time beyond the passes, for each input that was run, round by round."""
    passes: dict[str, list[Pass]] = {}
    for name, call in calls.items():
        with calls_of(case.module) as seen:
            call()
        passes[name] = [Pass(batch, backward=False) for batch, _ in seen]
    both = calls | {f"{name}: bare": bare(case.module, case.x, p) for name, p in passes.items()}
    found = paired(both, repeats, warmup=0).cpu
    return {
        name: [
            max(a - b, 1e-9) / sum(q.batch for q in p) for a, b in zip(found[name], found[f"{name}: bare"], strict=True)
        ]
        for name, p in passes.items()
    }


def _captum_occlusion(
    module: nn.Module, x: Tensor, target: int, window: int, stride: int
) -> Callable[[int], Callable[[], object]]:
    """captum's Occlusion, at so many windows at a time."""
    from captum.attr import Occlusion

    theirs = Occlusion(module)

    def captum(evals: int) -> Callable[[], object]:
        return lambda: theirs.attribute(
            x,
            sliding_window_shapes=(3, window, window),
            strides=(3, stride, stride),
            target=target,
            perturbations_per_eval=evals,
        )

    return captum


def occlusion(repeats: int, device: str) -> Section:
    """Occlusion on ResNet-50 beside captum at each `perturbations_per_eval`."""
    module, x, target, origin = resnet(device)
    window, stride = 64, 16
    method = get_method("occlusion", window=window, stride=stride)
    captum = _captum_occlusion(module, x, target, window, stride)
    calls: dict[str, Callable[[], object]] = {f"captum {n}": captum(n) for n in _EVALS}
    found = paired(calls | {"ours": lambda: method.explain(module, x, [target])}, repeats, warmup=1)
    best = min(calls, key=lambda n: found.seconds(n, "cpu").median)
    rows = [
        Row(
            "captum at its best : occlusion",
            found.ratio(best, "ours"),
            limit=at_least(1),
            cpu=found.ratio(best, "ours", "cpu"),
            note=f"best of {', '.join(map(str, _EVALS))} perturbations at a time: {best.split()[1]}",
        )
    ]
    rows += [
        Row(f"{name} at a time : occlusion", found.ratio(name, "ours"), cpu=found.ratio(name, "ours", "cpu"))
        for name in calls
        if name != best
    ]
    about = f"ResNet-50 with {origin}, 121 windows of {window} x {window} pixels."
    return Section("Occlusion beside captum", about, rows)


def windows(repeats: int, device: str) -> Section:
    """Occlusion on VGG-16, whose first layers compute what a window changes, beside whole passes and captum."""
    module = pl.load("torchvision:vgg16", random_weights=True, device=device).module
    x = torch.randn(1, 3, _SIZE, _SIZE, generator=torch.Generator().manual_seed(0)).to(device)
    window, stride, evals = 32, 24, 4
    method = get_method("occlusion", window=window, stride=stride)
    maps: dict[str, Tensor] = {}

    def ours(name: str) -> Tensor:
        maps[name] = method.explain(module, x, [0])[0].values
        return maps[name]

    def whole_passes() -> Tensor:
        with patch("pellucid.engine.perturb.find_patches", return_value=None):
            return ours("whole")

    calls: dict[str, Callable[[], object]] = {
        "whole passes": whole_passes,
        f"captum, {evals} at a time": _captum_occlusion(module, x, 0, window, stride)(evals),
    }
    found = paired({"ours": lambda: ours("patches"), **calls}, repeats, warmup=0)
    far = float((maps["whole"] - maps["patches"]).abs().max() / maps["whole"].abs().max())
    notes = {"whole passes": f"the same engine without patches; the maps differ by {far:.0e} of the largest value"}
    rows = [
        Row(
            f"{name} : occlusion",
            found.ratio(name, "ours"),
            limit=at_least(1.3),
            cpu=found.ratio(name, "ours", "cpu"),
            note=notes.get(name, ""),
        )
        for name in calls
    ]
    about = (
        f"VGG-16 with random weights, a picture of noise, 81 windows of {window} x {window} pixels: the first layers "
        "compute the patch that a window changes."
    )
    return Section("Occlusion where the first layers compute patches", about, rows)
