"""What every metric promises."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import MethodError
from pellucid.evaluation.competitors import Foreign
from pellucid.evaluation.metrics import CATEGORIES, METRICS, Metric
from pellucid.evaluation.sample import Candidate, Inquiry, Sample
from pellucid.models.sources import wrap
from pellucid.models.targets import as_target
from pellucid.testing.networks import noise
from pellucid.testing.snapshot import differences, snapshot

_SIZE = 14


class _Scale(nn.Module):
    """Each value of the input, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(noise(2, _SIZE, _SIZE, seed=1).abs())

    def forward(self, x: Tensor) -> Tensor:
        """`(N, 2, 14, 14)` -> the same."""
        return x * self.weight


class _Weighted(nn.Module):
    """A weighted sum of the input's values, whose exact map is known: weight times value, none of them negative."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = _Scale()

    def forward(self, x: Tensor) -> Tensor:
        """`(N, 2, 14, 14)` -> `(N, 2)`: the sum, and its negative."""
        found = self.scale(x).flatten(1).sum(1)
        return torch.stack([found, -found], 1)


def check_metric(metric: str | Metric) -> None:
    """Hold a metric to the contract of all metrics, on a model that is a weighted sum.

    It says what it measures and where that is defined; it reads one number from each map, the same when asked again and
    whatever maps stand beside; it writes to no map, and no trace is left on the model; and a metric of faithfulness
    puts the model's exact map in front of a blind one.

    Args:
        metric: as it was entered, or its name.

    Raises:
        AssertionError: which promise is broken.
        MethodError: there is no such metric, or it reads what the contract's model has not: clips, all samples
            together, an oracle's map, parts of a scene, a patch that decides.
    """
    asked = METRICS.find(metric) if isinstance(metric, str) else metric
    if asked.clips or asked.bank.across or asked.bank.oracle or asked.bank.parts or asked.bank.swayed:
        read = "clips, all samples together, an oracle's map, parts of a scene or a patch that decides"
        raise MethodError(f"{asked.name} reads {read}: check it on your own.")
    assert asked.category in CATEGORIES, f"There is no category {asked.category!r}: {', '.join(CATEGORIES)}."
    assert asked.better in ("higher", "lower"), f"Better is 'higher' or 'lower', not {asked.better!r}."
    assert asked.about, "It has no definition: give its function a docstring, whose first line is one."
    assert asked.paper, "It does not say where it is defined."
    _read(asked, *_question(_Weighted().eval()))  # what it imports may draw random numbers once
    net = _Weighted().eval()
    sample, maps = _question(net)
    before, kept = snapshot(net, sample.x), [m.clone() for m in maps]
    together = _read(asked, sample, maps)
    left = differences(before, snapshot(net, sample.x))
    assert not left, f"A trace is left on the model: {'; '.join(left)}."
    assert all(map(torch.equal, maps, kept)), "It writes to a map."
    assert _same(together, _read(asked, sample, maps)), "Asked again it says something else: draw by the sample's seed."
    alone = [value for m in maps for value in _read(asked, sample, [m])]
    assert _same(together, alone), "A map's value hangs on the maps beside it."
    if asked.category == "faithfulness":
        exact, _, blind = together if asked.better == "higher" else [-v for v in together]
        assert not exact < blind, f"The exact map has {together[0]:.3g}, a blind one the better {together[2]:.3g}."


def _question(net: _Weighted) -> tuple[Sample, list[Tensor]]:
    """One input of the model with a truth, its exact map, the reverse, and a blind one."""
    x = noise(1, 2, _SIZE, _SIZE).abs()
    mask = torch.zeros(_SIZE, _SIZE, dtype=torch.bool)
    mask[:5, :5] = True
    sample = Sample(wrap(net, scores="none"), x, as_target(0), mask=mask)
    exact = (x[0] * net.scale.weight.detach()).sum(0)
    return sample, [exact, -exact, noise(_SIZE, _SIZE, seed=7)]


def _read(metric: Metric, sample: Sample, maps: list[Tensor]) -> list[float]:
    """The value of each map."""
    drawn = []
    for k, values in enumerate(maps):

        def draw(_model: Any, x: Tensor, _target: Any, values: Tensor = values) -> Tensor:
            return values.expand(len(x), *values.shape)

        drawn.append(Candidate(Foreign(f"map {k}", draw), values, values, True, sample.over))
    with Inquiry(sample) as inquiry:
        bank = metric.on("zero").bank
        inquiry.answered = {read: read.answers(inquiry, drawn) for read in bank.reads}
        answers = bank.answers(inquiry, drawn)
    assert len(answers) == len(maps), f"{len(answers)} answers to {len(maps)} maps."
    found = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise AssertionError(f"Its bank ended in an error: {answer}") from answer
        value = metric.measure(answer)
        number = isinstance(value, int | float) and not math.isinf(value)
        assert number, f"It reads {value!r}, which is no number."
        found.append(float(value))
    return found


def _same(a: list[float], b: list[float]) -> bool:
    return all(
        (math.isnan(p) and math.isnan(q)) or math.isclose(p, q, rel_tol=1e-4, abs_tol=1e-5)
        for p, q in zip(a, b, strict=True)
    )
