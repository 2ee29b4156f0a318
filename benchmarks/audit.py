"""The suite for `audit`: planted reasons named, clean networks left alone, slices found, wrong answers ranked."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import pellucid as pl
from benchmarks import clip_reliances
from benchmarks.digit_marks import MARKINGS, PLAIN, tally
from benchmarks.failures import failures
from benchmarks.planted_slices import KINDS, WAYS, precision, tables
from benchmarks.reliances import CAUSES, TAG, World, trained, world
from benchmarks.repairs import collection, repaired
from benchmarks.report import Section, at_least, at_most, single
from pellucid.audit.columns import Columns, describe
from pellucid.audit.groups import Likeness
from pellucid.audit.review import review
from pellucid.audit.samples import build
from pellucid.audit.slices import best_slices, find
from pellucid.models.model import VisionModel


@dataclass(frozen=True)
class Size:
    """How much work to spend."""

    planted: int  # networks of each cause
    clean: int
    tables: int
    rounds: int  # of planted slices, of each kind and share
    repairs: int  # networks that are repaired
    pictures: int  # of one large table
    marks: int  # networks of each marking of digits


FULL = Size(planted=3, clean=8, tables=40, rounds=2, repairs=2, pictures=10000, marks=2)
QUICK = Size(planted=1, clean=2, tables=10, rounds=1, repairs=1, pictures=1000, marks=1)


def _reasons(size: Size, _device: str) -> Iterator[Section]:
    """Small networks of three shapes, each with its own seed."""
    section = Section(
        "What a network rests on",
        "Networks of three convolutions learn three shapes whose class is also told by a cue, right with a chance of "
        "0.95. A network counts as named if a class is said to rest on something, and nothing that is said is anything "
        "but the planted cue; a scanner tag (a letter and a number, burned in at one place) is a mark. Of clips it "
        "is one plain frame (frame), or how the light changes from frame to frame (order); every fourth clean network "
        "is one of clips. Audits of 300 new pictures or clips each.",
    )
    named, total, seconds = 0, 0, []
    for cause in (*CAUSES, TAG, *clip_reliances.CAUSES):
        kinds, right = set(), 0
        kind = "mark" if cause == TAG else cause
        for seed in range(size.planted):
            found, spent = _audited(cause, seed, moving=cause in clip_reliances.CAUSES)
            seconds.append(spent)
            kinds |= set(found)
            right += set(found) == {kind}
        named, total = named + right, total + size.planted
        wrong = ", ".join(sorted(kinds - {kind}))
        note = f"of {size.planted}" + (f"; also named: {wrong}" if wrong else "")
        section.rows.append(single(f"{cause}: rightly named", 100 * right / size.planted, " %", None, note))
    section.rows.append(single("rightly named in all", 100 * named / total, " %", at_least(90), f"of {total}"))
    alarms = sum(bool(_audited(None, seed, moving=seed % 4 == 3)[0]) for seed in range(size.clean))
    section.rows.append(
        single("clean networks accused", 100 * alarms / size.clean, " %", at_most(5), f"of {size.clean}")
    )
    section.rows.append(single("processor time of an audit", float(np.median(seconds)), " s"))
    yield section


def _audited(cause: str | None, seed: int, *, moving: bool) -> tuple[list[str], float]:
    """The kinds of parts that classes are said to rest on, and the processor time."""
    made = (clip_reliances.trained, clip_reliances.world) if moving else (trained, world)
    model, data = made[0](cause, seed), made[1](cause, 300, seed)
    begun = time.process_time()
    found = pl.audit(model, data)
    return [r.kind for r in found.wrong_reasons], time.process_time() - begun


def _marks(size: Size, _device: str) -> Iterator[Section]:
    """Digits whose ten classes have a mark each."""
    section = Section(
        "Ten marks",
        "Digits under noise, each class with a mark of its own, right with a chance of 0.95; networks of two "
        "convolutions that learned from 1,200, audits of the other 597. A class follows its mark if exchanging the "
        "planted marks themselves lowers and raises it by 0.1 or more. Named: of those the ones that are said to rest "
        "on a mark and on nothing else. Accused: classes that it neither lowers nor raises by so much, and that are "
        "said to rest on something.",
    )
    following, named, accused, clear = 0, 0, 0, 0
    for marking in (*MARKINGS, PLAIN):
        here, right, false = 0, 0, 0
        for seed in range(size.marks):
            follow, free, kinds = tally(marking, seed)
            here, right = here + len(follow), right + sum(kinds.get(label) == {"mark"} for label in follow)
            false, clear = false + len(set(kinds) & set(free)), clear + len(free)
        following, named, accused = following + here, named + right, accused + false
        note = f"of {here} that follow it" if here else f"{false} of {10 * size.marks} accused"
        section.rows.append(single(f"{marking.name}: named", right, " classes", None, note))
    section.rows.append(single("named in all", 100 * named / following, " %", at_least(90), f"of {following}"))
    section.rows.append(single("accused in all", 100 * accused / clear, " %", at_most(5), f"of {clear}"))
    yield section


def _slices(size: Size, _device: str) -> Iterator[Section]:
    """Tables of literals with a planted conjunction, 5 % of the samples, and tables without."""
    hits, plain, alarms = [], [], 0
    for seed in range(size.tables):
        columns, wrong, inside = _table(seed, 0.8)
        order = sorted(find(columns, wrong, np.ones(len(wrong), bool), seed), key=lambda s: s.p)
        hits.append(_precision(order[0].members if order else (), inside))
        first = best_slices(columns.values, wrong, columns.sources, top=1)
        plain.append(_precision(_members(columns, first[0][0]) if first else (), inside))
        columns, wrong, _ = _table(1000 + seed, 0.1)
        alarms += any(s.p < 0.05 for s in find(columns, wrong, np.ones(len(wrong), bool), seed))
    section = Section(
        "Slices",
        "1,000 samples of 20 literals; where the first two meet, a twentieth, 80 % are wrong, elsewhere 10 %. "
        "Precision at 10: of ten random samples of the first slice, how many are of the planted one.",
    )
    section.rows = [
        single("precision at 10", float(np.mean(hits)), "", at_least(0.73), f"of {size.tables} tables"),
        single("precision at 10 of SliceLine, searched on all and not tested", float(np.mean(plain)), ""),
        single("tables without a slice in which one is claimed", 100 * alarms / size.tables, " %", at_most(10)),
    ]
    yield section


def _table(seed: int, rate: float) -> tuple[Columns, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.random((1000, 20)) < 0.22
    inside = values[:, 0] & values[:, 1]
    wrong = rng.random(1000) < np.where(inside, rate, 0.1)
    names = tuple(f"c{j}" for j in range(20))
    return Columns(names, values, names), wrong, inside


def _members(columns: Columns, literals: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(columns.values[:, list(literals)].all(axis=1)).tolist())


def _precision(members: tuple[int, ...], inside: np.ndarray) -> float:
    """The expected share among ten random members."""
    return float(inside[list(members)].mean()) if members else 0.0


def _planted(size: Size, _device: str) -> Iterator[Section]:
    """The audit beside other ways, table by table."""
    section = Section(
        "Planted slices beside other ways",
        "Clean networks on 1,500 pictures of shapes with one slice planted: 1, 2 or 5 % that are rare (dark on light), "
        "mislabelled (in one tint), or blurred; they are wrong on 5 to 20 % of the rest. Precision at ten: of the ten "
        "first samples of a slice, how many were planted; of each way's first five slices the one that holds most "
        "(Domino's protocol). All ways are given the same table; the audit's slices were tested, on samples without a "
        "part in the search. Domino, spotlight, SliceLine and SpRAy are their papers' definitions, in our own code.",
    )
    results: dict[str, list[float]] = {name: [] for name in WAYS}
    kinds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    seconds = []
    for table in tables(size.rounds):
        for name, way in WAYS.items():
            begun = time.process_time()
            results[name].append(precision(way(table.samples), table.inside))
            seconds += [time.process_time() - begun] if name == "audit" else []
        kinds[table.kind].append(results["audit"][-1])
    best = max(float(np.mean(results[name])) for name in WAYS if name != "audit")
    count = f"of {len(results['audit'])} tables"
    section.rows.append(single("audit", float(np.mean(results["audit"])), "", at_least(max(0.73, best)), count))
    section.rows += [single(f"audit, {kind}", float(np.mean(v)), "", None, f"of {len(v)}") for kind, v in kinds.items()]
    section.rows += [single(name, float(np.mean(results[name])), "") for name in WAYS if name != "audit"]
    section.rows.append(single("processor time of the audit's search and tests", float(np.median(seconds)), " s"))
    yield section


def _repair(size: Size, _device: str) -> Iterator[Section]:
    """Networks that were taught to go by a mark; nothing without the pictures and their network."""
    found = collection()
    if found is None:
        return
    won = []
    for seed in range(size.repairs):
        with TemporaryDirectory() as home:
            won.append(repaired(found, seed, Path(home)))
    section = Section(
        "Repair",
        f"{found.name}: trained weights, taught further on 4,000 pictures with a mark, that of their class with a "
        "chance of 0.95; and the same lesson without marks. The repair is given 200 other pictures of each class, with "
        "marks likewise. Groups are classes with their own mark and with another's, on the 8,000 that are left; of "
        "the network taught without marks, classes. Means over networks.",
    )
    means = {name: float(np.mean([getattr(w, name) for w in won])) for name in ("unmarked", "before", "now", "seconds")}
    count = f"of {len(won)} networks"
    section.rows = [
        single("worst group, taught without marks", 100 * means["unmarked"], " %", None, count),
        single("worst group, taught with marks", 100 * means["before"], " %", None, count),
        single(
            "worst group, repaired", 100 * means["now"], " %", at_least(round(100 * means["unmarked"] - 3, 1)), count
        ),
        single(
            "classes that fell with the parts of any picture (Holm)", sum(w.fallen for w in won), "", at_most(0), count
        ),
        single("processor time of a repair", means["seconds"], " s", at_most(60), count),
    ]
    yield section


def _table_of_many(size: Size, _device: str) -> Iterator[Section]:
    """One table of many pictures; nothing without them and their network."""
    found = collection()
    if found is None:
        return
    pixels, truth = (part[: size.pictures] for part in found.tested)
    data, model = World(pixels, truth, found.classes, found.name), found.wrapped(found.start())
    build(model, World(pixels[:200], truth[:200], found.classes))
    before = _peak()
    _, samples = build(model, World(pixels[: len(pixels) // 5], truth, found.classes))
    small = _peak()
    begun = time.process_time()
    model, samples = build(model, data)
    built, grown = time.process_time() - begun, _peak() - small
    begun = time.process_time()
    _bare(model, data, samples.layer)
    bare = time.process_time() - begun
    begun = time.process_time()
    find(describe(samples, found.classes), samples.wrong, samples.known, 0, Likeness.of(samples))
    review(samples, bounded=True)
    analysed = time.process_time() - begun
    section = Section(
        "A table of many pictures",
        f"{len(samples)} pictures of {found.name}, in memory. Bare: the same opened, preprocessed and run in the "
        "same batches, with one backward of the top score to the layer that is read. Processor time. Memory: by how "
        "much the peak of the process grows from a fifth of the pictures to all.",
    )
    section.rows = [
        single("the table : bare", built / bare, " x", at_most(1.15)),
        single("memory beyond a fifth of the pictures", grown, " MB", None, f"{before:.0f} MB before"),
        single("slices and review", analysed, " s", at_most(60)),
    ]
    yield section


def _peak() -> float:
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _bare(model: VisionModel, data: World, layer: str) -> None:
    """What any loop over the pictures must do for a row."""
    kept: list[torch.Tensor] = []
    hook = model.module.get_submodule(layer).register_forward_hook(
        lambda _module, _given, output: kept.append(output.requires_grad_()) or output
    )
    learns = [p for p in model.module.parameters() if p.requires_grad]
    for p in learns:
        p.requires_grad_(False)
    for start in range(0, len(data), model.batch):
        some = [data.read(i) for i in range(start, min(start + model.batch, len(data)))]
        scores = model.module(torch.stack([model.pictures(p)[0] for p in some]))
        torch.autograd.grad(scores.amax(1).sum(), kept.pop())
    for p in learns:
        p.requires_grad_(True)
    hook.remove()


def _wrong(size: Size, _device: str) -> Iterator[Section]:
    """The score beside the confidence; left out without pictures and networks."""
    yield failures(size.pictures)


TITLE = "Where a model goes wrong, and why"
SECTIONS: dict[str, Callable[[Size, str], Iterator[Section]]] = {
    "reasons": _reasons,
    "marks": _marks,
    "slices": _slices,
    "planted": _planted,
    "repair": _repair,
    "table": _table_of_many,
    "wrong": _wrong,
}
