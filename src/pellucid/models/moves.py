"""Which cells of a layer move when a part of the input is changed: the proof of how its axes read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.engine.leaves import first_tensor
from pellucid.engine.run import batch_size, joined, run_model
from pellucid.errors import ModelError, OutOfMemoryError
from pellucid.models.layouts import Layout
from pellucid.models.probe import Sighting, hooked, of_one_run
from pellucid.numerics.grids import coordinates

_AT_ONCE = 400_000  # numbers of input that are changed at once to prove layouts, so that a batch stays small


def moves(
    module: nn.Module, sample: Tensor, corners: Sequence[tuple[int, ...]], seen: Sequence[Sighting], share: int = 8
) -> dict[str, list[Tensor]]:
    """How far each cell moves when each corner is changed, `(corners, *grid)` for each reading; large inputs in turn.

    Layers that do not keep the inputs of a batch apart are left out. A corner is one `share`-th of each axis.
    """
    wanted = {s.name: s for s in seen}
    found: dict[str, list[list[Tensor]]] = {s.name: [] for s in seen}
    step = max(1, _AT_ONCE // sample.numel())
    for start in range(0, len(corners), step):
        some = corners[start : start + step]

        def move(name: str, activation: Tensor, count: int = len(some)) -> list[Tensor] | None:
            return _moved(activation, wanted[name], count)

        runs = _reduced(module, torch.cat([sample, *(changed(sample, c, share) for c in some)]), list(wanted), move)
        for name, turns in runs.items():
            joined = _joined(wanted[name], turns)
            if joined is not None:
                found[name].append(joined)
    count = len(range(0, len(corners), step))
    return {n: [torch.cat(parts) for parts in zip(*f, strict=True)] for n, f in found.items() if len(f) == count}


def _reduced(
    module: nn.Module, inputs: Tensor, names: Sequence[str], reduce: Callable[[str, Tensor], Any]
) -> dict[str, list[Any]]:
    """What `reduce` makes of each run of each named layer on a batch, as soon as the layer has run.

    Where the model takes its inputs one by one, only when all have run.
    """
    if not batch_size(module):
        found: dict[str, list[Any]] = {name: [] for name in names}

        def hook(name: str, output: Any) -> None:
            if (activation := first_tensor(output)) is not None:
                found[name].append(reduce(name, activation.detach()))

        try:
            with hooked(module, hook, names):
                run_model(module, inputs.clone(), whole=True)
            return found
        except OutOfMemoryError:
            raise
        except ModelError:
            run_model(module, inputs.clone())  # learns which size of batch the model takes, or fails as before
            if not batch_size(module):
                raise
    parts: list[dict[str, list[Tensor]]] = []
    runs: dict[str, list[Tensor]] = {name: [] for name in names}

    def keep(name: str, output: Any) -> None:
        if (activation := first_tensor(output)) is not None:
            runs[name].append(activation.detach().clone())

    def after() -> None:
        parts.append(dict(runs))
        runs.update({name: [] for name in names})

    with hooked(module, keep, names):
        run_model(module, inputs.clone(), after=after)
    turns = {name: zip(*(part[name] for part in parts), strict=False) for name in names}
    size = batch_size(module)
    return {name: [reduce(name, joined(turn, len(inputs), size)) for turn in turns[name]] for name in names}


def _moved(activation: Tensor, seen: Sighting, count: int) -> list[Tensor] | None:
    """One run's squared moves in each cell of `count` changed samples behind the unchanged one, for each reading."""
    rows = seen.shape[0]
    if activation.shape[1:] != seen.shape[1:] or len(activation) != rows * (count + 1):
        return None
    samples = activation.reshape(-1, rows, *activation.shape[1:])
    difference = (samples[1:] - samples[:1]).flatten(0, 1).float()
    return [of_one_run(r, seen.joining(r)).to_map(difference).square().sum(1) for r in seen.readings]


def _joined(seen: Sighting, turns: Sequence[list[Tensor] | None]) -> list[Tensor] | None:
    if seen.runs is None:
        return turns[-1] if turns else None
    if len(turns) != seen.runs.count:
        return None
    kept = [found for k in seen.runs.kept if (found := turns[k]) is not None]
    if len(kept) != len(seen.runs.kept):
        return None
    joinings = [seen.joining(r) for r in seen.readings]
    return [
        torch.stack(parts, 1) if joining is not None and joining.axis == 0 else torch.stack(parts).sum(0)
        for joining, parts in zip(joinings, zip(*kept, strict=True), strict=True)
    ]


def owners(module: nn.Module, sample: Tensor, guess: Layout, names: Sequence[str]) -> dict[str, list[int]]:
    """For each token layer, which token moves most when each cell of the grid is changed in turn."""
    owner: dict[str, list[int]] = {n: [] for n in names}

    def move(_name: str, tokens: Tensor) -> list[int]:
        moved = (tokens[1:] - tokens[:1]).float()[:, guess.prefix :].square().sum(-1)
        found: list[int] = moved.argmax(-1).tolist()
        return found

    for start in range(0, guess.cells, 16):
        cells = range(start, min(start + 16, guess.cells))
        batch = torch.cat([sample, *(_cell_changed(sample, guess.grid, c) for c in cells)])
        for name, turns in _reduced(module, batch, names, move).items():
            owner[name] += [token for turn in turns for token in turn]
    return owner


def changed(sample: Tensor, corner: tuple[int, ...], share: int) -> Tensor:
    """The sample with the patch at one corner (0: start, 1: end of each axis) replaced by its negative."""
    changed = sample.clone()
    region = tuple(
        slice(0, max(1, size // share)) if side == 0 else slice(size - max(1, size // share), size)
        for side, size in zip(corner, sample.shape[2:], strict=True)
    )
    changed[:, :, *region] *= -1
    return changed


def _cell_changed(sample: Tensor, grid: tuple[int, ...], index: int) -> Tensor:
    changed = sample.clone()
    at = coordinates(torch.tensor(index), grid)
    region = tuple(
        slice(int(a) * s // g, (int(a) + 1) * s // g) for a, s, g in zip(at, sample.shape[2:], grid, strict=True)
    )
    changed[:, :, *region] *= -1
    return changed
