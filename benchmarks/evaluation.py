"""`evaluate` beside Quantus 0.6, metric by metric and altogether, where that is installed; and whether the plan holds.

Both are given the same maps of the same pictures, and draw the same number of maps anew where a metric asks for it.
Quantus is no dependency: `pip install --no-deps --target FOLDER quantus==0.6.0`, and FOLDER on PYTHONPATH.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

import pellucid as pl
from benchmarks import defects
from benchmarks.report import Section, at_least, at_most, single
from benchmarks.timing import timed
from pellucid.evaluation.measure import measure
from pellucid.evaluation.metrics import as_metrics
from pellucid.evaluation.sample import Sample
from pellucid.evaluation.schedule import Schedule
from pellucid.models.targets import Class


@dataclass(frozen=True)
class Size:
    """How much work to spend."""

    pictures: int
    methods: tuple[str, ...]
    side: int = 32


FULL = Size(
    pictures=16,
    methods=(
        "saliency", "input-x-gradient", "grad-cam", "grad-cam++", "xgrad-cam", "hires-cam", "layer-cam", "eigen-cam",
        "eigen-grad-cam", "grad-cam-elementwise", "guided-backprop", "deconvnet",
    ),
)  # fmt: skip
QUICK = Size(pictures=4, methods=("saliency", "grad-cam", "layer-cam"))

_DRAWS = 8  # maps drawn anew for robustness, by both

PAIRS = {
    "sparseness": "Sparseness",
    "entropy": "Complexity",
    "effective-complexity": "EffectiveComplexity",
    "pixel-flipping": "PixelFlipping",
    "region-perturbation": "RegionPerturbation",
    "faithfulness-correlation": "FaithfulnessCorrelation",
    "faithfulness-estimate": "FaithfulnessEstimate",
    "max-sensitivity": "MaxSensitivity",
    "avg-sensitivity": "AvgSensitivity",
    "lipschitz": "LocalLipschitzEstimate",
    "ris": "RelativeInputStability",
    "ros": "RelativeOutputStability",
    "random-logit": "RandomLogit",
    "pointing-game": "PointingGame",
    "relevance-mass": "RelevanceMassAccuracy",
    "relevance-rank": "RelevanceRankAccuracy",
    "top-k": "TopKIntersection",
}
"""Ours beside theirs, of those that theirs can measure on colour pictures with today's NumPy."""


def _network() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for a, b in ((3, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 16, 10)).eval()


def _theirs(quantus: Any, name: str, side: int) -> Any:
    quiet = {"disable_warnings": True, "display_progressbar": False, "abs": True}
    cells = side * side * 3 // 16
    settings: dict[str, dict[str, Any]] = {
        "PixelFlipping": {"features_in_step": cells},
        "RegionPerturbation": {"patch_size": 4, "regions_evaluation": 16},
        "FaithfulnessCorrelation": {"nr_runs": 160, "subset_size": cells * 4},
        "FaithfulnessEstimate": {"features_in_step": cells},
        "MaxSensitivity": {"nr_samples": _DRAWS},
        "AvgSensitivity": {"nr_samples": _DRAWS},
        "LocalLipschitzEstimate": {"nr_samples": _DRAWS},
        "RelativeInputStability": {"nr_samples": _DRAWS},
        "RelativeOutputStability": {"nr_samples": _DRAWS},
        "RandomLogit": {"num_classes": 10},
        "TopKIntersection": {"k": side * side // 100},
    }
    return getattr(quantus, name)(**quiet, **settings.get(name, {}))


def _beside(size: Size, _device: str) -> Iterator[Section]:
    about = f"{len(size.methods)} methods, {size.pictures} pictures of {size.side} pixels, a small CNN; processor time."
    section = Section("Beside Quantus 0.6", about)
    try:
        import quantus
    except ImportError:
        section.skipped = "quantus is not installed"
        yield section
        return
    net = _network()
    model = pl.wrap(net, scores="softmax")
    x = torch.rand(size.pictures, 3, size.side, size.side, generator=torch.Generator().manual_seed(0))
    y = net(x).argmax(1)
    masks = np.zeros((size.pictures, 1, size.side, size.side), bool)
    masks[:, :, 8:20, 8:20] = True
    boxes = [(8, 8, 20, 20)] * size.pictures

    def ours(metrics: str) -> Callable[[], object]:
        return lambda: pl.evaluate(model, x, ",".join(size.methods), metrics, masks=boxes)

    def explain(method: str) -> Callable[..., Any]:
        def draw(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> Any:
            given = torch.as_tensor(np.asarray(inputs), dtype=torch.float32)
            classes = torch.as_tensor(np.asarray(targets)).long().flatten()[: len(given)].tolist()
            found = pl.heatmaps.get_method(method).attribute(model, given, classes)
            found = found.sum(1) if found.ndim == 4 else found
            wide = nn.functional.interpolate(found[:, None], size=given.shape[2:], mode="bilinear")
            return wide.abs().detach().numpy()

        return draw

    def rival(name: str) -> Callable[[], object]:
        def run() -> None:
            for method in size.methods:
                _theirs(quantus, name, size.side)(
                    model=net, x_batch=x.numpy(), y_batch=y.numpy(), s_batch=masks, explain_func=explain(method)
                )

        return run

    ours("entropy")()
    spent = 0.0
    for name, theirs in PAIRS.items():
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            try:
                _, their_cpu = timed(rival(theirs))
            except Exception as error:
                section.rows.append(single(name, float("nan"), note=f"{theirs} fails: {type(error).__name__}"))
                continue
        _, our_cpu = timed(ours(name))
        spent += their_cpu
        section.rows.append(single(f"{name}, {theirs}", their_cpu / our_cpu, limit=at_least(1)))
    known = ",".join(n for n, r in zip(PAIRS, section.rows, strict=True) if r.spread.median == r.spread.median)
    _, together = timed(ours(known))
    section.rows.append(single("all of them together", spent / together, limit=at_least(10)))
    yield section


def _plan(size: Size, _device: str) -> Iterator[Section]:
    """Forwards asked of the model over those that were planned, every metric that draws no maps anew."""
    section = Section("The plan", "Passes of the model over those that were said beforehand; of one more method.")
    net = _network()
    x = torch.rand(1, 3, size.side, size.side, generator=torch.Generator().manual_seed(1))
    asked: list[int] = []
    handle = net.register_forward_pre_hook(lambda _m, given: asked.append(len(given[0])))
    sample = Sample(pl.wrap(net, scores="softmax"), x, Class(0))

    def rivals(count: int) -> list[Any]:
        from pellucid.evaluation.competitors import Foreign

        maps = [torch.rand(1, size.side, size.side, generator=torch.Generator().manual_seed(k)) for k in range(count)]
        return [Foreign(f"map {k}", lambda _m, _x, _t, m=m: m) for k, m in enumerate(maps)]

    def spent(metrics: str, count: int) -> tuple[int, int]:
        asked.clear()
        schedule = Schedule.of(as_metrics(metrics), rivals(count))
        list(measure([sample], schedule))
        return sum(asked), schedule.forwards(sample.space)

    passes, planned = spent("faithfulness", 12)
    section.rows.append(single("faithfulness, 12 methods", passes / planned, limit=at_most(1.1)))
    subsets = "faithfulness-correlation,mu-fidelity,sensitivity-n,infidelity,single-deletion"
    more = spent(subsets, 13)[0] - spent(subsets, 12)[0]
    section.rows.append(single("random subsets, one method more", float(more), " passes", at_most(0)))
    handle.remove()
    yield section


TITLE = "Evaluation"
SECTIONS: dict[str, Callable[[Size, str], Iterator[Section]]] = {
    "beside": _beside,
    "plan": _plan,
    "defects": lambda _size, _device: defects.shown(),
}
