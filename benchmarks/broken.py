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
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

import pellucid as pl
from benchmarks.blind import AMONG, Subject, _hidden, planted
from benchmarks.pointing import cifar_network, data_folder
from benchmarks.report import Section, at_least, at_most, single
from benchmarks.rows import Row, kept, older
from pellucid.evaluation import randomised_copy
from pellucid.evaluation.check import check
from pellucid.evaluation.faithfulness import cell_grid, cell_values
from pellucid.evaluation.sanity import shuffled_once
from pellucid.evaluation.verdict import SIGNIFICANT
from pellucid.heatmaps import GradCAM, IntegratedGradients, Method, get_method
from pellucid.heatmaps.base import Attribution, explain_all
from pellucid.models.targets import Class
from pellucid.scoring.job import Job

SOUND, CHOSEN = "sound", "the map that auto chose"
_FEW, _MANY = 8, 2000  # masks of RISE
_STRIDE = 37  # from one picture of CIFAR-10 to the next; prime to their number
_SAME = 0.95  # correlation from which on a fault has left the map what it was, so that nothing is broken


@dataclass(frozen=True, eq=False)
class Case:
    """A picture, what is asked of it, a sound method, and what the broken ones take in place of the right thing.

    Where there is no `early` layer, the network was made by hand.
    """

    model: Any
    x: Tensor
    target: int
    sound: Method
    other_x: Tensor
    other_model: nn.Module
    early: str | None = None
    kept: dict[nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @cached_property
    def chosen(self) -> Method:
        """The method whose map `auto` shows."""
        chosen = pl.explain(self.model, self.x[0], "auto", self.target).ran
        assert chosen is not None
        return chosen


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


def _maps(method: Method, module: nn.Module, x: Tensor, targets: Sequence[Any]) -> list[Tensor]:
    """One for each target, of the same passes."""
    found = [a.values.detach() for a in explain_all([method], module, x, targets)[0]]
    return [v if v.ndim < x.ndim else v.amax(1) if method.channels == "max" else v.sum(1) for v in found]


def _map(method: Method, module: nn.Module, x: Tensor, target: Any) -> Tensor:
    return _maps(method, module, x, [target])[0]


def _right_and_wrong(case: Case, job: Job, target: Any) -> tuple[Tensor, Tensor]:
    """The maps of the target and of the class that is believed in least; once for all faults that bend them."""
    if job.module not in case.kept:
        with torch.no_grad():
            least = Class(int(job.module(job.inputs).argmin()))
        right, wrong = _maps(case.sound, job.module, job.inputs, [target, least])
        case.kept[job.module] = right, wrong
    return case.kept[job.module]


def _right(case: Case, job: Job, target: Any) -> Tensor:
    return _right_and_wrong(case, job, target)[0]


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
    "wrong target": lambda c, j, t: _right_and_wrong(c, j, t)[1],
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
    order = torch.arange(count + 1) * _STRIDE % len(x)  # the same pictures first, however many there are
    yield from _trained(pl.wrap(module, scores="softmax"), x[order])


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
        yield Case(model, here[None], top, get_method("rise", samples=_MANY), there[None], other, early)


NETWORKS: dict[str, Callable[[int], Iterator[Case]]] = {
    "planted patterns": _planted,
    "ResNet-20": _cifar,
    "CIFAR ViT": lambda count: _cifar(count, "vit_cifar"),
    "EfficientNet-Lite0": _embedded,
}

# ---------------------------------------------------------------- rates


def measured(case: Case) -> Row:
    """What `check()` says of all faults of one picture, on the same masks: a row of `Flagged`.

    A map that agrees no better than a blind one is not believed, whatever else is measured of it; so shuffled weights
    are asked only about the others.
    """
    faults = [how for how in _FAULTS if case.early is not None or how not in ("wrong layer", CHOSEN)]
    explained = list(pl.explain(case.model, case.x, [Broken(case, how) for how in faults], case.target))
    first = explained[faults.index(SOUND)]
    session, target = first.session, first.explained
    assert session is not None
    assert target is not None
    perturbed, maps = session.perturbed(target), [e.map()[0] for e in explained]
    with session.borrowed():
        p = [perturbed.agreement(values).p_value for values in maps]
    check(e for e, chance in zip(explained, p, strict=True) if chance <= SIGNIFICANT)
    flagged = [e.quality is None or e.quality.verdict != "faithful" for e in explained]
    cells = torch.stack([cell_values(values, cell_grid(case.x.shape[2:])).cpu().flatten() for values in maps])
    alike = torch.corrcoef(cells.double())[faults.index(SOUND)].nan_to_num().tolist()  # a flat map is like none
    sound = first.map()
    return {
        "faults": {how: list(row) for how, *row in zip(faults, flagged, alike, p, strict=True)},
        "against": float(sound.clamp(max=0).abs().sum() / sound.abs().sum()),
    }


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

    def add(self, row: Row) -> None:
        """One picture (see `measured`)."""
        for how, (flag, r, _p) in row["faults"].items():
            self.found.setdefault(how, []).append(flag)
            self.alike.setdefault(how, []).append(r)
        self.against.append(row["against"])

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


def section(network: str, count: int, path: str = "") -> Section:
    """A table of one network; rows of pictures are kept in the file `path`."""
    title = f"Flagged: {network}"
    if network in ("ResNet-20", "CIFAR ViT") and not (data_folder() / "code" / "zoo.py").is_file():
        return Section(title, "", skipped="no folder of pictures and weights: set PELLUCID_DATA to one.")
    flagged, rows = Flagged(), []
    with shuffled_once():
        for k, case in enumerate(NETWORKS[network](count)):
            rows.append(kept(path, {"broken": network, "picture": k}, partial(measured, case)))
            flagged.add(rows[-1])
    known = network == "planted patterns"
    made = Section(
        title,
        f"{count} pictures. The sound map is "
        + ("known to be true" if known else f"that of RISE with {_MANY} masks")
        + ". A fault that leaves the same map (correlation above 0.95, median shown) does not count."
        + older(rows),
    )
    for how in flagged.found:
        every = flagged.same(how) == len(flagged.found[how])
        limit = at_most(5) if how == SOUND else None if every or how == CHOSEN else at_least(95)
        made.rows.append(single(f"flagged: {how}", flagged.share(how), " %", limit, flagged.note(how)))
    return made


def sections(counts: dict[str, int], path: str = "") -> Iterator[Section]:
    """A table for each network that has pictures."""
    yield from (section(name, count, path) for name, count in counts.items() if count)
