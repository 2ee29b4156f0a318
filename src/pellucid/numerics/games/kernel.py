"""Shapley's values as a least-squares fit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb, sqrt

import torch
from torch import Tensor

from pellucid.errors import MethodError
from pellucid.numerics.games.game import Solution, Value, ValueMemory, answered, seeded
from pellucid.numerics.statistics import half_width

_ROWS = 2  # a player: draws (pairs) that an interval needs, since as many as players fit whatever they are


def kernel_shap(
    value: Value,
    players: int,
    *,
    samples: int,
    generator: torch.Generator | None = None,
    paired: bool = True,
    ridge: float = 0.0,
) -> Solution:
    """Shapley's values by weighted least squares (Lundberg & Lee 2017, theorem 2).

    The additive game nearest to `v`, with `(K - 1) / (C(K, s) s (K - s))` as the weight of a coalition of s players
    and efficiency as a constraint, is Shapley's. All coalitions of a size are taken where a sampler would be expected
    to draw each of them; the other sizes are sampled in proportion to the kernel, each draw with its complement. A game
    that breaks off is answered from the draws before, if there are two and as many coalitions as may be asked for.

    Args:
        value: the game.
        players: K.
        samples: coalitions to evaluate besides nobody and all; 2^K - 2 or more make it exact.
        generator: of the draws, on the CPU; None: seed 0.
        paired: draw coalitions with their complements (Covert & Lee 2021).
        ridge: pulls the values towards equal shares.

    Returns:
        The solution, with the delta method's standard errors (NaN after a single draw), and intervals by Student's
        factors once there are twice as many draws (pairs) as players; `extra` has `enumerated`, the
        coalitions taken in full sizes, and `drawn`.
    """
    K = players
    least = min(2 * K, 2**K - 2)
    if samples < least:
        raise MethodError(f"KernelSHAP on {K} players needs at least {least} samples; got {samples}: give more.")
    asked, generator = ValueMemory(value, K), seeded(generator)
    mass = torch.tensor([(K - 1) / (s * (K - s)) for s in range(1, K)], dtype=torch.float64)  # of each size, from 1
    whole, weights, left = _full_sizes(K, samples, mass)
    drawn = torch.zeros(0, 1, K)
    if mass.sum() > 0:
        units = max(1, left // (2 if paired else 1))
        sizes = 1 + torch.multinomial(mass, units, replacement=True, generator=generator)
        drawn = (torch.rand(units, K, generator=generator).argsort(1).argsort(1) < sizes[:, None]).float()[:, None]
        drawn = torch.cat([drawn, 1 - drawn], 1) if paired else drawn
    Z = torch.cat([whole, drawn.reshape(-1, K)])
    v = asked(Z, [len(whole), *[drawn.shape[1]] * len(drawn)])
    if asked.failure is not None:
        kept = answered(v)
        drawn = drawn[: max(0, kept - len(whole)) // drawn.shape[1]]
        asked.insist(kept >= max(least, len(whole)) and len(drawn) > 1)
        Z, v = Z[:kept], v[:kept]
    share = float(mass.sum()) / max(1, drawn.shape[0] * drawn.shape[1])
    w = torch.cat([weights, torch.full((len(Z) - len(whole),), share, dtype=torch.float64)])
    # Around equal shares, and with rows centred on zero, the least-squares solution of least length adds up to zero:
    # the constraint holds by itself, and players that the samples can't tell apart share evenly.
    delta = asked.full - asked.empty
    y = v - asked.empty - Z.double().mean(1, keepdim=True) * delta
    X = Z.double() - Z.double().mean(1, keepdim=True)
    gram = (X.T * w) @ X
    inverse = torch.linalg.pinv(gram + ridge * torch.eye(K, dtype=torch.float64), hermitian=True, rtol=1e-12)
    offsets = inverse @ ((X.T * w) @ y)
    offsets = offsets - offsets.mean(0)
    error = _draws_error(X, y - X @ offsets, inverse, share, drawn.shape)
    draws, fold = len(drawn), drawn.shape[1]
    rows = draws + len(whole) / fold
    return asked.solution(
        delta / K + offsets,
        error,
        half_width(error, draws - 1) if draws else error,
        f"{len(Z)} samples of {K} players leave nothing over to tell the error from, so there is no interval: give "
        f"{fold * _ROWS * K} or more."
        if draws == 1 or (draws and rows < _ROWS * K)
        else "",
        enumerated=len(whole),
        drawn=drawn[..., 0].numel(),
    )


def _full_sizes(players: int, samples: int, mass: Tensor) -> tuple[Tensor, Tensor, int]:
    """All coalitions of the sizes worth it, their weights, and the samples left; their `mass` is set to zero."""
    rows, weights, left = [torch.zeros(0, players)], [torch.zeros(0, dtype=torch.float64)], samples
    for size in range(1, players // 2 + 1):
        sizes = sorted({size, players - size})
        number = sum(comb(players, s) for s in sizes)
        taken = mass[[s - 1 for s in sizes]].sum()
        if left * taken / mass.sum() < number * (1 - 1e-9):
            break
        for s in sizes:
            members = torch.tensor(list(combinations(range(players), s)))
            rows.append(torch.zeros(len(members), players).scatter_(1, members, 1))
            weights.append((mass[s - 1] / len(members)).expand(len(members)))
            mass[s - 1] = 0
        left -= number
    return torch.cat(rows), torch.cat(weights), left


def _draws_error(X: Tensor, residual: Tensor, inverse: Tensor, share: float, shape: Sequence[int]) -> Tensor:
    """Standard errors `(K, T)`: the spread of what each draw (or pair) pulls, jack-knifed, carried to the solution."""
    units, per_unit, K = shape
    if not units:
        return torch.zeros(K, residual.shape[1], dtype=torch.float64)
    X, residual = X[-units * per_unit :], residual[-units * per_unit :]
    leverage = per_unit * share * ((X @ inverse) * X).sum(1)
    pull = share * residual / (1 - leverage).clamp(min=1e-6)[:, None]
    if units == 1:
        return torch.full((K, residual.shape[1]), torch.nan, dtype=torch.float64)
    moved = torch.einsum("kl,upl,upt->ukt", inverse, X.reshape(units, per_unit, K), pull.reshape(units, per_unit, -1))
    return moved.std(0) * sqrt(units)
