"""Does `check()` notice that an explanation is broken? Twelve ways to break one, each as a method of its own.

What is broken must have been right. Where a pattern was planted, integrated gradients are; in a trained network, whose
evidence nobody knows, RISE with many masks is: it is what the model says of masked pictures, by masks that the check
does not draw.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

import pellucid as pl
from benchmarks.blind import AMONG, Subject, _hidden, planted
from benchmarks.pointing import cifar_network, data_folder
from benchmarks.report import Section, at_least, at_most, single
from pellucid.evaluation import randomised_copy
from pellucid.evaluation.faithfulness import cell_grid, cell_values
from pellucid.heatmaps import GradCAM, IntegratedGradients, Method, get_method
from pellucid.heatmaps.base import Attribution, explain_all
from pellucid.models.targets import Class
from pellucid.scoring.job import Job

SOUND, CHOSEN = "sound", "the map that auto chose"
_FEW, _MANY = 8, 2000  # masks of RISE
_SAME = 0.95  # correlation from which on a fault has left the map what it was, so that nothing is broken


@dataclass(frozen=True, eq=False)
class Case:
    """A picture, what is asked of it, a sound method, and what the broken ones take in place of the right thing."""

    model: Any
    x: Tensor
    target: int
    sound: Method
    other_x: Tensor
    other_model: nn.Module
    early: str | None = None
    chosen: Method | None = None
    kept: dict[nn.Module, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Broken(Method):
    """A method with a fault."""

    case: Case
    how: str
    hasty: bool = False
    name: ClassVar[str] = "broken"
    needs: ClassVar[str] = "gradients"

    def quick(self) -> Broken:
        """For copies with shuffled weights, as the check asks for them: fewer masks."""
        hasty = replace(self.case, sound=self.case.sound.quick(), kept={})
        return self if self.hasty else replace(self, case=hasty, hasty=True)

    @classmethod
    def run(cls, methods: Sequence[Broken], job: Job) -> list[list[Attribution]]:
        """The map of each, folded, for each target."""
        return [[Attribution(_FAULTS[m.how](m.case, job, t)) for t in job.targets] for m in methods]

    def parameters(self) -> dict[str, Any]:
        """Its fault."""
        return {"how": self.how}


def _map(method: Method, module: nn.Module, x: Tensor, target: Any) -> Tensor:
    found = explain_all([method], module, x, [target])[0][0].values.detach()
    return found if found.ndim < x.ndim else found.amax(1) if method.channels == "max" else found.sum(1)


def _right(case: Case, job: Job, target: Any) -> Tensor:
    """Once for all faults that bend it."""
    known = case.kept.get(job.module)
    if known is None:
        known = case.kept[job.module] = _map(case.sound, job.module, job.inputs, target)
    return known


def _unlikely(case: Case, job: Job, _target: Any) -> Tensor:
    with torch.no_grad():
        scores = job.module(job.inputs)
    return _map(case.sound, job.module, job.inputs, Class(int(scores.argmin())))


def _shuffled(case: Case, job: Job, target: Any) -> Tensor:
    return _map(case.sound, randomised_copy(job.module, job.inputs, 7), job.inputs, target)


def _rough(case: Case, job: Job, target: Any) -> Tensor:
    twin = copy.deepcopy(job.module)
    with torch.no_grad():
        for p in twin.parameters():
            step = p.abs().max() / 1.5  # three values are left
            p.copy_((p / step).round() * step if p.ndim > 1 and step > 0 else p)
    return _map(case.sound, twin, job.inputs, target)


def _edges(_case: Case, job: Job, _target: Any) -> Tensor:
    grey = job.inputs.mean(1)
    return grey.diff(dim=1)[:, :, 1:].square() + grey.diff(dim=2)[:, 1:].square()


def _moved(case: Case, job: Job, target: Any) -> Tensor:
    found = _right(case, job, target)
    return found.roll((round(found.shape[1] / 5), round(found.shape[2] / 5)), (1, 2))


_FAULTS: dict[str, Callable[[Case, Job, Any], Tensor]] = {
    SOUND: _right,
    CHOSEN: lambda c, j, t: _map(c.chosen, j.module, j.inputs, t),
    "shuffled weights": _shuffled,
    "wrong layer": lambda c, j, t: _map(GradCAM(layer=c.early), j.module, j.inputs, t),
    "wrong target": _unlikely,
    "sign flipped": lambda c, j, t: -_right(c, j, t),
    "moved by a fifth": _moved,
    "transposed": lambda c, j, t: _right(c, j, t).mT,
    "absolute values": lambda c, j, t: _map(get_method("input-x-gradient"), j.module, j.inputs, t).abs(),
    "another picture": lambda c, j, t: _map(c.sound, j.module, c.other_x, t),
    "edges": _edges,
    "constant": lambda c, j, t: torch.ones_like(_right(c, j, t)),
    "too few samples": lambda c, j, t: _map(get_method("rise", samples=_FEW), j.module, j.inputs, t),
    "low precision": _rough,
    "another model": lambda c, j, t: _map(c.sound, c.other_model, j.inputs, t),
}

# ---------------------------------------------------------------- networks


def _planted(count: int) -> Iterator[Case]:
    """A network that finds one pattern anywhere in a photograph, among others that it does not know."""
    made = [planted(AMONG, seed) for seed in range(count + 1)]
    for here, there in itertools.pairwise(made):
        yield _case(here, there, IntegratedGradients(baseline=_hidden(here.x)[0], max_steps=50, tolerance=None))


def _case(here: Subject, there: Subject, sound: Method) -> Case:
    return Case(pl.wrap(here.module), here.x, 1, sound, there.x, there.module)


def _cifar(count: int, network: str = "resnet20_cifar") -> Iterator[Case]:
    module, _, x = cifar_network(network)
    yield from _trained(pl.wrap(module, scores="softmax"), x[:: max(1, len(x) // (count + 1))][: count + 1])


def _embedded(count: int) -> Iterator[Case]:
    model = pl.load()
    names = ("coffee", "rocket", "motorcycle", "cat", "clock", "astronaut", "camera", "coins", "horse")
    pictures = [model.pictures(pl.read_image(f"sample:{n}"))[0] for n in names[: count + 1]]
    yield from _trained(model, torch.stack(pictures))


def _trained(model: Any, xs: Tensor) -> Iterator[Case]:
    """The top class of each picture, by many masks; the other model has the same layers, never trained."""
    other = randomised_copy(model.module, xs[:1], 11)
    early = next(name for name, m in model.module.named_modules() if isinstance(m, nn.Conv2d))
    for here, there in itertools.pairwise(xs):
        with torch.no_grad():
            top = int(model.module(here[None]).argmax())
        chosen = pl.explain(model, here, "auto", top).ran
        assert chosen is not None
        sound = get_method("rise", samples=_MANY)
        yield Case(model, here[None], top, sound, there[None], other, early, chosen)


NETWORKS: dict[str, Callable[[int], Iterator[Case]]] = {
    "planted patterns": _planted,
    "ResNet-20": _cifar,
    "CIFAR ViT": lambda count: _cifar(count, "vit_cifar"),
    "EfficientNet-Lite0": _embedded,
}

# ---------------------------------------------------------------- rates


@dataclass
class Flagged:
    """Of each fault, picture by picture.

    Attributes:
        found: whether `check()` withheld "faithful".
        alike: the correlation with the sound map on the cells that `check()` masks; from `_SAME` on it is the same map.
        against: the share of the sound map's mass that is negative.
    """

    found: dict[str, list[bool]] = field(default_factory=dict)
    alike: dict[str, list[float]] = field(default_factory=dict)
    against: list[float] = field(default_factory=list)

    def add(self, case: Case) -> None:
        """All faults of one picture, on the same masks."""
        lacking = {"wrong layer": case.early is None, CHOSEN: case.chosen is None}
        faults = [how for how in _FAULTS if not lacking.get(how)]
        methods = [Broken(case, how) for how in faults]
        explained = pl.explain(case.model, case.x, methods, case.target)
        grid = cell_grid(case.x.shape[2:])
        cells = torch.stack([cell_values(e.map()[0], grid).cpu().flatten() for e in explained])
        alike = torch.corrcoef(cells.double())[faults.index(SOUND)].nan_to_num()  # of a flat map nothing is known
        for how, quality, r in zip(faults, explained.check(), alike.tolist(), strict=True):
            self.found.setdefault(how, []).append(quality.verdict != "faithful")
            self.alike.setdefault(how, []).append(r)
        sound = explained[faults.index(SOUND)].map()
        self.against.append(float(sound.clamp(max=0).abs().sum() / sound.abs().sum()))

    def same(self, how: str) -> int:
        """Of how many pictures the fault leaves the sound map."""
        return sum(r > _SAME for r in self.alike[how])

    def share(self, how: str, *, passed: bool = False) -> float:
        """In percent, of the maps that are not the sound one; with `passed` where that was believed. NaN of none."""
        rows = [
            flag
            for flag, sound, r in zip(self.found[how], self.found[SOUND], self.alike[how], strict=True)
            if (how == SOUND or r <= _SAME) and not (passed and sound)
        ]
        return 100 * sum(rows) / len(rows) if rows else float("nan")

    def note(self, how: str) -> str:
        """How near the maps are to the sound ones, and the share where these are believed."""
        if how == SOUND:
            return f"{100 * float(np.mean(self.against)):.1f} % of its mass is negative"
        among = (
            ""
            if math.isnan(self.share(how, passed=True))
            else f"{self.share(how, passed=True):.0f} % where sound passes; "
        )
        near = [r for r, flag in zip(self.alike[how], self.found[how], strict=True) if not flag and r <= _SAME]
        alike = f"correlation with the sound map {float(np.median(self.alike[how])):.2f}"
        believed = f", of those believed {float(np.median(near)):.2f}" if near else ""
        same = self.same(how)
        return f"{among}{alike}{believed}" + (f"; the same map in {same} of {len(self.alike[how])}" if same else "")


def section(network: str, count: int) -> Section:
    """A table of one network."""
    title = f"Flagged: {network}"
    if network in ("ResNet-20", "CIFAR ViT") and not (data_folder() / "code" / "zoo.py").is_file():
        return Section(title, "", skipped="no folder of pictures and weights: set PELLUCID_DATA to one.")
    flagged = Flagged()
    for case in NETWORKS[network](count):
        flagged.add(case)
    known = network == "planted patterns"
    made = Section(
        title,
        f"{count} pictures. The sound map is "
        + ("known to be true" if known else f"that of RISE with {_MANY} masks")
        + ". A fault that leaves the same map (correlation above 0.95, median shown) does not count.",
    )
    for how in flagged.found:
        every = flagged.same(how) == len(flagged.found[how])
        limit = at_most(5) if how == SOUND else None if every or how == CHOSEN else at_least(95)
        made.rows.append(single(f"flagged: {how}", flagged.share(how), " %", limit, flagged.note(how)))
    return made


def sections(counts: dict[str, int]) -> Iterator[Section]:
    """A table for each network that has pictures."""
    yield from (section(name, count) for name, count in counts.items() if count)
