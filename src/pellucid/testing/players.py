"""What every kind of players promises."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pellucid.importance.estimators import Ablation, ShapleyValue
from pellucid.importance.game import Players
from pellucid.importance.measure import measure
from pellucid.scoring.job import Job, prepare
from pellucid.testing.networks import Busy, Sound, mixed, noise
from pellucid.testing.snapshot import differences, snapshot


def check_players(players: Players, *, network: Callable[[], nn.Module] = Sound, inputs: Tensor | None = None) -> None:
    """Hold a kind of players to the contract of all kinds.

    With all players in, the score is the model's own; a coalition scores the same alone and among others; ablation is
    the score without each player; fair shares add up to what all win over nobody; the settings can be written down; and
    no trace is left.

    Args:
        players: with settings that cut about four to ten of them.
        network: makes a network `(N, C, *space) -> (N, classes)`.
        inputs: one input for it; default: noise.

    Raises:
        AssertionError: which promise is broken.
    """
    x = noise(1, 3, 16, 16) if inputs is None else inputs
    try:
        json.dumps(players.settings(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"The settings of {players.kind} cannot be written down: {error}") from error
    net = network()
    job = prepare(net, x, [1, 0])
    _scores(players, job, net)
    _estimates(players, job)
    busy = mixed(Busy()) if inputs is None else net
    before = snapshot(busy, x)
    measure(players, Ablation(), prepare(busy, x, [1]))
    left = differences(before, snapshot(busy, x))
    assert not left, f"A trace is left on the model: {'; '.join(left)}."


def _scores(players: Players, job: Job, net: nn.Module) -> None:
    with players.game(job) as game:
        count = len(game.names)
        assert count >= 2, f"There are {count} {players.kind}: give settings that cut several."
        assert len(set(game.names)) == count, f"Two {players.kind} have one name."
        coins = (noise(4, count) > 0).float()
        asked = torch.cat([torch.ones(1, count), torch.zeros(1, count), coins])
        together = game.value(asked)
        alone = torch.cat([game.value(row[None]) for row in asked])
    with torch.no_grad():
        plain = net(job.inputs)[0, [1, 0]].double()
    assert together.shape == (6, 2), f"Six coalitions and two targets are answered {tuple(together.shape)}."
    _near(together[0], plain, "With all players in, the score is not the model's own")
    _near(together, alone, "A coalition scores differently among others")


def _estimates(players: Players, job: Job) -> None:
    with players.game(job) as game:
        count = len(game.names)
        left_out = game.value(torch.cat([torch.ones(1, count), 1 - torch.eye(count)]))
    ablated = measure(players, Ablation(), job, pairs=False)
    _near(ablated.values, left_out[:1] - left_out[1:], "Ablation is not the score without each player")
    fair = measure(players, ShapleyValue(), job, pairs=False)
    _near(fair.values.sum(0), fair.full - fair.empty, "Fair shares do not add up to what all win over nobody")


def _near(a: Tensor, b: Tensor, what: str) -> None:
    apart = float((a.cpu() - b.cpu()).abs().max())
    assert apart <= 1e-4 * max(float(b.abs().max()), 1e-6), f"{what}: {apart:.1e} apart."
