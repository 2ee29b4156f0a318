"""`importance` of many pictures: each is measured and kept on disk, then gathered into an answer for each group."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid import storage
from pellucid.engine.runtimes.asked import Ran, to_come
from pellucid.errors import DataError, MediaError, MethodError, ModelError, PellucidError
from pellucid.importance import Share, measure
from pellucid.importance.estimators import Permutation
from pellucid.importance.exchange import Kept, exchange
from pellucid.importance.gather import Gathered, by_place, difference, gather, gather_notes
from pellucid.importance.ledger import Ledger, Row, ledger
from pellucid.importance.result import INTERVAL
from pellucid.language import counted
from pellucid.media import Geometry, Picture, address, scheme
from pellucid.media.pictures import collect
from pellucid.media.redaction import coarse
from pellucid.models.feed import Prepared
from pellucid.models.fused import fused_remarks
from pellucid.models.model import VisionModel
from pellucid.models.reading import IN_DOUBT
from pellucid.progress import task
from pellucid.render.paper.portraits import portrait
from pellucid.results.importance import Importance, hidden_looks
from pellucid.scoring.job import prepare
from pellucid.verbs.importance_request import ImportanceRequest
from pellucid.verbs.inputs import Collection, Input
from pellucid.verbs.players import looks, measured_layer
from pellucid.verbs.records import record
from pellucid.verbs.redaction import Redaction
from pellucid.verbs.request import Say

GROUPINGS = ("auto", "predicted", "folder")
ALL = "all pictures"
_GROUPS, _PLAYERS = 6, 10  # groups, and players of each, that are shown with pictures
_PLACED = (
    "{} of different pictures are not the same players: their importance is summed where it lies, on a grid of the "
    "model's input. To compare the same players in all pictures take patches, channels or frequencies."
)
_UNSHOWN = "{} pictures are measured but not shown, since it is not known what is to be hidden in them: annotate them."
_FEW = "Intervals over fewer than 10 pictures are rough: give more pictures."


@dataclass
class _Run:
    """What all pictures share, and what has been spent."""

    model: VisionModel
    given: VisionModel  # as it was before anything was recognised
    pictures: Collection
    asked: ImportanceRequest
    kept: Ledger
    lend: int
    say: Say | None
    hide: Redaction | None = None
    passes: int = 0
    ran: Ran = field(default_factory=Ran)
    placed: bool = False
    unshown: set[int] = field(default_factory=set)  # pictures of which nobody knows what is to be hidden
    failed: dict[int, PellucidError] = field(default_factory=dict)
    keys: dict[int, str] = field(default_factory=dict)
    shas: dict[int, str] = field(default_factory=dict)

    def open(self, position: int) -> Prepared | None:
        """A picture; None, once and for all, if it can't be used."""
        if position in self.failed:
            return None
        item = self.pictures[position]
        if isinstance(item, PellucidError):
            self.failed[position] = item
            return None
        return item

    def row(self, position: int) -> Row:
        """What was kept of a picture."""
        found = self.kept.get(self.keys[position])
        if found is None:
            raise MethodError("The work that was kept has vanished from its folder: run again.")
        return found


def importance_of_set(
    model: VisionModel,
    inputs: Input | Sequence[Input],
    asked: ImportanceRequest,
    *,
    keep: str | Path | None = None,
    say: Say | None = None,
    failed: list[PellucidError] | None = None,
    hide: Redaction | None = None,
) -> Importance:
    """Mean importance over many pictures, and over each group of them, with intervals over the pictures.

    Args:
        model, inputs, keep, say: see `importance`.
        asked: `group` is `predicted`, `folder`, or `auto`: by folder if there are several. `compare` is `a>b`: two
            groups, of which the first less the second is told too; None: the two that there are.
        failed: gets what is wrong with pictures that can't be used, and they are left out; None: the first such
            picture ends the work.
        hide: what is hidden in the pictures that are shown as examples; one of which that is not known is none.
    """
    estimator = asked.estimator
    if asked.group not in GROUPINGS:
        raise MethodError(f"There is no grouping {asked.group!r}: choose {', '.join(GROUPINGS)}.")
    members = collect(inputs, model.medium)
    lend = min(estimator.donors, len(members) - 1) if isinstance(estimator, Permutation) else 0
    if isinstance(estimator, Permutation) and not lend:
        raise MethodError("permutation exchanges contents between pictures, and there is only one: give more.")
    weights, how = model.fingerprint(), asked.settings()
    about = {
        "model": weights, "preprocess": storage.strict(model.preprocess.as_dict()), "target": str(asked.target),
        "how": how,
        "device": str(model.device), "dtype": str(model.dtype), **model.declared,
    }  # fmt: skip
    batch = model.batch
    with ledger(keep, about) as kept:
        looked = Collection(model, members, batch + lend + 1)
        run = _Run(model, model, looked, asked, kept, lend, say, hide)
        _measure_all(run, batch, patient=failed is not None)
        if failed is not None:
            failed += [run.failed[position] for position in sorted(run.failed)]
        if not run.keys:
            raise next(iter(run.failed.values()), MediaError("There is no picture: give some."))
        return _answer(run, inputs, weights, how)


def _measure_all(run: _Run, batch: int, *, patient: bool) -> None:
    """Measure every picture that is not in the ledger yet."""
    count = len(run.pictures)
    order = list(range(count))
    if run.lend:  # who borrows from whom is drawn: each from those behind it in a random round
        order = torch.randperm(count, generator=torch.Generator().manual_seed(run.asked.seed)).tolist()
    with task("pictures", count) as advance:
        for start in range(0, count, batch):
            todo: list[tuple[int, Prepared, list[Tensor]]] = []
            for at in range(start, min(start + batch, count)):
                item = run.open(order[at])
                if not patient and run.failed:
                    raise next(iter(run.failed.values()))
                if item is None:
                    continue
                donors = _donors(run, order, at)
                text = " ".join([item.source["sha256"], *(d.source["sha256"] for d in donors)])
                run.keys[order[at]] = hashlib.sha256(text.encode()).hexdigest()
                run.shas[order[at]] = item.source["sha256"]
                if run.kept.get(run.keys[order[at]]) is None:
                    todo.append((order[at], item, [d.x for d in donors]))
            for size in dict.fromkeys(item.x.shape for _, item, _ in todo):
                _measure_batch(run, [t for t in todo if t[1].x.shape == size])
            advance(min(batch, count - start))


def _donors(run: _Run, order: list[int], at: int) -> list[Prepared]:
    found: list[Prepared] = []
    for step in range(1, len(order)):
        if len(found) == run.lend:
            break
        item = run.open(order[(at + step) % len(order)])
        found += [item] if item is not None else []
    return found


def _measure_batch(run: _Run, items: list[tuple[int, Prepared, list[Tensor]]]) -> None:
    """Answers for all at once, then each picture's own game."""
    model = run.model
    x = torch.stack([item.x for _, item, _ in items]).to(model.device, model.dtype)
    output = model.outputs(x)
    run.model = model = _recognised(model.settled(x, output))
    doubts = run.given.doubts(output, len(items))
    fused = fused_remarks(model.module, x, output, model.reading)
    bound = model.frozen(model.bound(run.asked.target.placed([item.geometry for _, item, _ in items]), x), x, output)
    ranked = model.ranked(output, 1, count=len(x))
    run.passes += len(items)
    for i, (position, item, donors) in enumerate(items):
        target = bound.select(torch.tensor([i]))
        targets = [target, *([Kept(ranked[i][0].index)] if donors and ranked[i] else [])]
        fitted = run.asked.players.fitted(item.x, item.geometry)
        job = prepare(model, x[i : i + 1], targets)
        if donors:
            found = exchange(fitted, [d[None].to(x) for d in donors], job)
        else:
            with to_come(len(run.pictures) - len(run.keys) + len(items) - i):
                found = measure(fitted, run.asked.estimator, job, pairs=False, say=_once(run))
            if found.broken:  # the pictures before are kept, and this one is measured whole in the next run
                raise ModelError(found.broken)
        values, names = found.values, found.names
        if not fitted.comparable and "labels" in found.pictures:
            values, names, _ = by_place(values, found.pictures["labels"])
        spent = found.cost.forwards + found.cost.backwards
        run.passes, run.ran = run.passes + spent, found.cost.ran
        changed = values[:, 1] if len(targets) > 1 else None
        answer = ranked[i][0].label if ranked[i] else ""
        read = IN_DOUBT.notes if doubts[i] else model.reading.notes
        notes = [*item.notes, *found.notes[0], *found.cost.ran.notes, *read, *fused[i]]
        run.kept.put(run.keys[position], Row(values[:, 0].contiguous(), names, answer, changed, spent, notes))


def _recognised(model: VisionModel) -> VisionModel:
    """The model, its scores read as they are of most pictures: those that are in doubt say so in their own notes."""
    if model.reading.doubt != IN_DOUBT.doubt:
        return model
    return replace(model, reading=replace(model.reading, scores="softmax", doubt=False))


def _once(run: _Run) -> Say | None:
    """What is said of the first picture goes for all."""
    say, run.say = run.say, None
    return None if say is None else lambda text: say(f"{len(run.pictures)} pictures, in each {text}")


def _answer(run: _Run, inputs: Any, weights: str, how: dict[str, Any]) -> Importance:
    positions, seed = sorted(run.keys), run.asked.seed
    first = run.open(positions[0])
    assert first is not None
    model = run.model
    names = run.row(positions[0]).names
    groups = _grouped(run, positions, run.asked.group)
    found = [gather(ALL, positions, run.row, names, seed)]
    pair = _pair(run.asked.compare, list(groups))
    for n, (name, members) in enumerate(groups.items(), start=1):
        found.append(gather(name, members, run.row, names, seed + n))
    shares = [g.share for g in found] if len(groups) > 1 else [found[0].share]
    pictures = _examples(run, found[: len(shares)])
    x = first.x[None].to(model.device, model.dtype)
    asked = model.bound(run.asked.target.placed([first.geometry]), x)
    layer = measured_layer(model, x, run.asked.players, asked)
    notes = [_PLACED.format(run.asked.players.kind.capitalize())] if run.placed else []
    notes += [_FEW] if min(s.count for s in shares) < 10 else []
    notes += [f"{counted(len(run.failed), 'picture')} could not be used."] if run.failed else []
    notes += [_UNSHOWN.format(len(run.unshown))] if run.unshown else []
    notes += gather_notes(run.row(p).notes for p in positions)
    given = _given(inputs)
    source = {
        "source": ", ".join(given),
        "name": _name(given, len(positions)),
        "sha256": hashlib.sha256(" ".join(run.shas[p] for p in positions).encode()).hexdigest(),
        "pictures": given,
        "group": run.asked.group,
        "compare": run.asked.compare,
        "count": len(positions),
    }
    ran: dict[str, Any] = {"seed": seed, "layer": layer, "interval": INTERVAL, "forwards": run.passes, "backwards": 0}
    ran["runtime"] = run.ran.as_dict()
    return Importance(
        features=run.asked.players.kind,
        by=run.asked.estimator.name,
        target=asked.name(model.labels),
        names=names,
        shares=shares,
        prediction=[],
        record=record(model, weights, source, "importance", how, asked, ran),
        geometry=Geometry.identity(tuple(first.x.shape[1:])),
        layer=layer,
        pictures=pictures,
        difference=difference(*(found[1 + list(groups).index(name)] for name in pair)) if pair else None,
        notes=notes,
    )


def _grouped(run: _Run, positions: list[int], group: str) -> dict[str, list[int]]:
    """Positions by group, the largest group first."""
    folders = {p: run.pictures.members[p].folder for p in positions}
    if group == "folder" or (group == "auto" and len({f for f in folders.values() if f}) > 1):
        of = {p: folder or "no folder" for p, folder in folders.items()}
    else:
        of = {p: run.row(p).answer or "no class" for p in positions}
    return {name: [p for p in positions if of[p] == name] for name, _ in Counter(of.values()).most_common()}


def _pair(compare: str | None, groups: list[str]) -> list[str]:
    """The two groups to compare; none where there are not just two, and none was asked for."""
    if compare is None:
        return groups if len(groups) == 2 else []
    first, _, second = (part.strip() for part in compare.partition(">"))
    for name in (first, second):
        if name not in groups:
            raise MethodError(f"There is no group {name!r} to compare: write a>b with two of {', '.join(groups[:12])}.")
    return [first, second]


def _examples(run: _Run, found: list[Gathered]) -> dict[str, Tensor]:
    """Give each share that will be drawn its pictures; returns the labels that all pictures have in common."""
    wanted: dict[int, list[tuple[Share, int]]] = {}
    for gathered in found[: _GROUPS + 1]:
        for k in gathered.share.ranking()[:_PLAYERS]:
            wanted.setdefault(int(gathered.strongest[k]), []).append((gathered.share, k))
    common: dict[str, Tensor] = {}
    with task("example pictures", len(wanted)) as advance:
        for position, cells in wanted.items():
            item = run.open(position)
            advance(1)
            if item is None:
                continue
            shown = _looks_of(run, item)
            if "labels" in shown:
                common = {"labels": shown["labels"]}
            picture = item.picture if isinstance(item.picture, Picture) else None
            if run.hide is not None:
                try:
                    boxes = run.hide.of_input(item)
                except (DataError, MediaError):
                    run.unshown.add(position)
                    continue
                shown = hidden_looks(shown, item.geometry, boxes)
                picture = picture and replace(picture, pixels=coarse(picture.pixels, boxes))
            for share, k in cells:
                drawn = portrait(picture, item.geometry, shown, k)
                if drawn is not None:
                    share.examples[k] = drawn
    return common


def _looks_of(run: _Run, item: Prepared) -> dict[str, Tensor]:
    model = run.model
    x = item.x[None].to(model.device, model.dtype)
    fitted = run.asked.players.fitted(item.x, item.geometry)
    with fitted.game(prepare(model, x, [run.asked.target])) as game:
        run.passes += game.cost.forwards
        shown = looks(model, game.pictures)
    if not fitted.comparable and "labels" in shown:
        run.placed = True
        _, _, cells = by_place(torch.zeros(int(shown["labels"].max()) + 1, 1), shown["labels"])
        return {"labels": cells}
    return shown


def _given(inputs: Any) -> list[str]:
    """What opens the pictures again; empty where some are in memory only."""
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if not all(isinstance(item, str | Path) for item in given):
        return []
    return [address(item) for item in given]


def _name(given: list[str], count: int) -> str:
    return Path(given[0]).name if len(given) == 1 and not scheme(given[0]) else f"{count} pictures"
