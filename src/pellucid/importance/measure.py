"""Players x estimators: the importance of every player for one input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb
from typing import Literal

import torch
from torch import Tensor

from pellucid.engine import Cost
from pellucid.engine.trace import interruptible
from pellucid.errors import MethodError, ModelError, UnsteadyError
from pellucid.importance.estimators import Ablation, Estimator
from pellucid.importance.game import Players, Value
from pellucid.numerics.games import interactions, strongest_pairs
from pellucid.numerics.presence_tree import PresenceTree
from pellucid.scoring.job import Job
from pellucid.scoring.masked import broken_off

_EXACT_INTERACTIONS = 12
_LEADING = 4  # players whose pairs are looked at


@dataclass
class Measured:
    """What an estimator found for all players of one input, for T targets.

    Attributes:
        names: of the K players.
        values, low, high: `(K, T)`, with 95 % intervals of sampling (as the value where nothing was
            sampled, NaN where there is none).
        full, empty: `(T,)`, scores with all players in and with none.
        pictures: see `Game`.
        interactions: for each target the pairs `(i, j, value)` of the leading players.
        notes: for each target.
        cost: passes.
        broken: what ended the game early, if anything did.
        tree: the rules that stand in for the score, where the estimator is a tree.
    """

    names: list[str]
    values: Tensor
    low: Tensor
    high: Tensor
    full: Tensor
    empty: Tensor
    pictures: dict[str, Tensor]
    interactions: list[list[tuple[int, int, float]]]
    notes: list[list[str]]
    cost: Cost
    broken: str = ""
    tree: PresenceTree | None = None


@interruptible
def measure(
    players: Players, estimator: Estimator, job: Job, *, pairs: bool = True, say: Callable[[str], None] | None = None
) -> Measured:
    """Solve the game of `players` on a job of one input.

    Args:
        players: cut for this input.
        estimator: how they are measured.
        job: one input, and the targets.
        pairs: look at the strongest pairs too.
        say: is told what it will cost, before it begins.

    Raises:
        MethodError: more than one input, or a pairing that makes no sense.
    """
    if len(job.inputs) != 1:
        raise MethodError("Importance is measured one input at a time.")
    with torch.inference_mode(False), players.game(job) as game:
        if say is not None:
            count = len(game.names)
            say(f"{count} {players.kind}: at most {estimator.cost(count, players.budget)} passes of the model")
        solution = estimator.solve(game, players, job)
        values = solution.values.cpu().double()
        count, targets = values.shape
        found: list[list[tuple[int, int, float]]] = [[] for _ in range(targets)]
        told = [solution.no_interval] if solution.no_interval else []
        if solution.broken:
            told += [broken_off(solution.evaluations, solution.broken, what="ranking", cure="run it again")]
        elif pairs and count > 2 and estimator.interacts:
            try:
                found = _leading_pairs(game.value, values, exact=not isinstance(estimator, Ablation))
            except UnsteadyError:
                raise
            except ModelError as failure:
                told += [
                    f"The model failed before pairs of players were looked at ({failure}): mend it, and run it again."
                ]
        notes = [[*game.notes, *_notes(solution.extra, values[:, t], t), *told] for t in range(targets)]
        return Measured(
            game.names,
            values,
            solution.low.cpu().double(),
            solution.high.cpu().double(),
            solution.full.cpu(),
            solution.empty.cpu(),
            game.pictures,
            found,
            notes,
            game.cost,
            solution.broken,
            solution.extra.get("tree"),
        )


def most_passes(estimator: Estimator, players: int, budget: int) -> int:
    """The most passes of an estimator for K players with a budget, the look at pairs of them included."""
    most = estimator.cost(players, budget)
    if players <= 2 or not estimator.interacts:
        return most
    all_of_few = players <= _EXACT_INTERACTIONS and not isinstance(estimator, Ablation)
    return most + (1 << players if all_of_few else 1 + _LEADING + comb(_LEADING, 2))


def _leading_pairs(value: Value, values: Tensor, *, exact: bool) -> list[list[tuple[int, int, float]]]:
    """For each target the pairs `(i, j, value)` of leading players that act together most, given values `(K, T)`."""
    count = len(values)
    kind: Literal["shapley", "second-difference"] = (
        "shapley" if exact and count <= _EXACT_INTERACTIONS else "second-difference"
    )
    chosen = strongest_pairs(values, _LEADING)
    pairwise = interactions(value, count, chosen, kind=kind).values
    ranked = pairwise.abs().argsort(dim=0, descending=True, stable=True)[:3].T.tolist()
    return [[(*chosen[p], float(pairwise[p, t])) for p in best] for t, best in enumerate(ranked)]


def _notes(extra: dict[str, object], values: Tensor, target: int) -> list[str]:
    notes = []
    if not torch.isfinite(values).all():
        notes.append("Some values are not finite: check the model's weights and preprocessing.")
    elif not values.any():
        notes.append("Taking players away never moves the score: cut other players, or choose another baseline.")
    if extra.get("converged") is False:
        notes.append("The sampling error is still large where the evaluations ended: give more samples.")
    gaps = extra.get("path_gap")
    if isinstance(gaps, list) and abs(gaps[target]) > 0.05 * float(values.abs().sum()):
        notes.append(
            f"{abs(gaps[target]):.2g} of the score's change does not flow through these players (or the path bends "
            "sharply: give more samples)."
        )
    r2 = extra.get("r2")
    if isinstance(r2, list) and r2[target] < 0.5:
        notes.append(f"A linear model explains only {max(r2[target], 0):.0%} of the score: use shapley instead.")
    trees, lines = extra.get("tree_r2"), extra.get("line_r2")
    if isinstance(trees, list) and isinstance(lines, list):
        tree, line = max(trees[target], 0), max(lines[target], 0)
        better = "use shapley" if max(tree, line) < 0.5 else "lime is the better stand-in" if line > tree else ""
        told = f"The tree explains {tree:.0%} of the score on samples it has not seen, LIME's line {line:.0%}"
        notes.append(f"{told}: {better}." if better else f"{told}.")
    return notes
