"""Integrated gradients on real pictures and real weights: how near the converged map, for how much work."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

import pellucid as pl
from benchmarks.report import Row, Section, at_least, at_most, single
from benchmarks.timing import Spread, paired
from pellucid.heatmaps import IntegratedGradients

PICTURES = ("cat", "coffee", "motorcycle")
_NODES = (50, 100)
_CHUNK = 16


def inputs_of(name: str, model: pl.VisionModel) -> Tensor:
    """A sample picture as the model takes it, `(1, 3, h, w)`."""
    return model.preprocess(pl.read_image(f"sample:{name}"))[0][None].to(model.device)


def captum_path(model: pl.VisionModel, x: Tensor, target: int, nodes: int, chunk: int | None = _CHUNK) -> Tensor:
    """captum's integrated gradients from zero, by Gauss-Legendre."""
    from captum.attr import IntegratedGradients as CaptumPath

    path = CaptumPath(model.module)
    return path.attribute(x, target=target, n_steps=nodes, method="gausslegendre", internal_batch_size=chunk)


def path_call(name: str, nodes: int, device: str) -> Callable[[], object]:
    """A contestant of the memory measurement."""
    model = pl.load(device=device)
    x = inputs_of(PICTURES[0], model)
    with torch.no_grad():
        target = int(model.module(x[..., :32, :32]).argmax())  # any class; a small input, so as not to warm up memory
    if name == "ig-pellucid":
        method = IntegratedGradients(tolerance=None, max_steps=nodes)
        return lambda: method.attribute(model, x, target)
    return lambda: captum_path(model, x, target, nodes, None if name == "ig-captum" else _CHUNK)


def _error(found: Tensor, reference: Tensor) -> float:
    return float((found - reference).norm() / reference.norm())


def accuracy(reference_nodes: int, repeats: int, device: str) -> Section:
    """Default settings, then equal numbers of gradients beside captum, against a converged reference."""
    model = pl.load(device=device)
    rows: list[Row] = []
    honest: list[bool] = []
    shares: dict[int, list[float]] = {nodes: [] for nodes in _NODES}
    cost: dict[int, list[float]] = {nodes: [] for nodes in _NODES}
    equal: list[float] = []
    for name in PICTURES:
        x = inputs_of(name, model)
        with torch.no_grad():
            target = int(model.module(x).argmax())
        reference = captum_path(model, x, target, reference_nodes)
        row, told = _default(name, model, x, target, reference)
        rows.append(row)
        honest.append(told)
        for nodes in _NODES:
            ours = IntegratedGradients(tolerance=None, max_steps=nodes).attribute(model, x, target)
            errors = _error(ours, reference), _error(captum_path(model, x, target, nodes), reference)
            shares[nodes].append(errors[0] / errors[1])
            note = f"relative L2 distance {errors[0]:.1%} beside {errors[1]:.1%}"
            rows.append(single(f"{name}: error with {nodes} gradients : captum's", shares[nodes][-1], note=note))
            cost[nodes].append(_time(model, x, target, nodes, repeats).median)
        more = round(50 * cost[50][-1])
        theirs = _error(captum_path(model, x, target, more), reference)
        ours = IntegratedGradients(tolerance=None, max_steps=50).attribute(model, x, target)
        equal.append(_error(ours, reference) / theirs)
    summary = [
        single(
            "default settings: pictures that reach 1 % or say that they do not",
            sum(honest),
            f" of {len(honest)}",
            at_least(len(honest)),
        )
    ]
    for nodes, values in shares.items():
        summary.append(
            single(f"mean error with {nodes} gradients : captum's", statistics.mean(values), limit=at_most(0.8))
        )
    summary += [
        Row(f"time with {nodes} gradients : captum", Spread.of(v), note="processor time; the scan makes the difference")
        for nodes, v in cost.items()
    ]
    note = "50 gradients and the scan, beside as many captum gradients as take the same time"
    summary.append(single("mean error in equal time : captum's", statistics.mean(equal), note=note))
    about = (
        "The embedded EfficientNet-Lite0 with its real weights, zero baseline, the top class. *Error* is the relative "
        f"L2 distance to captum's map of {reference_nodes} Gauss-Legendre nodes; captum runs with Gauss-Legendre, its "
        f"default rule, {_CHUNK} nodes at a time. Ours spends 33 forward passes more, to place its nodes; the rows on "
        "time count them."
    )
    return Section("Integrated gradients: accuracy", about, summary + rows)


def _default(name: str, model: pl.VisionModel, x: Tensor, target: int, reference: Tensor) -> tuple[Row, bool]:
    method = IntegratedGradients()
    found = method.explain(model, x, [target])[0]
    gap, steps = found.facts["completeness_gap"][0], found.facts["steps"][0]
    reached = method.tolerance is not None and gap <= method.tolerance
    note = (
        f"gap {gap:.2%}, estimated error {found.facts['estimated_error'][0]:.1%}, measured error "
        f"{_error(found.values, reference):.1%}, cost {found.cost.forwards} forwards and {found.cost.backwards} "
        f"backwards; {'the gap is within 1 %' if reached else 'above 1 %'}"
        + (f", note: {' '.join(found.notes)}" if found.notes else "")
    )
    return single(f"{name}: default settings", steps, " gradients", note=note), reached or bool(found.notes)


def _time(model: pl.VisionModel, x: Tensor, target: int, nodes: int, repeats: int) -> Spread:
    ours = IntegratedGradients(tolerance=None, max_steps=nodes)
    calls = {
        "ours": lambda: ours.attribute(model, x, target),
        "captum": lambda: captum_path(model, x, target, nodes),
    }
    return paired(calls, repeats, warmup=0).ratio("ours", "captum", "cpu" if model.device.type == "cpu" else "wall")
