"""A linear stand-in for a score, fitted to samples around one input, with a measure of how well it stands in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pellucid.errors import MethodError
from pellucid.numerics.games import UnfinishedError, Value, answered
from pellucid.numerics.statistics import half_width


@dataclass
class Line:
    """`score(z) ~ intercept + sum_k weights_k z_k` near the whole picture, `z = 1`.

    Attributes:
        weights: `(K, T)`, double precision.
        standard_error: `(K, T)`, of sampling, whatever the noise's shape (White's sandwich); of the lasso that of the
            line without penalty, since a weight that is set to zero is not known to be zero.
        low, high: `(K, T)`, 95 % interval of the weights of the line WITHOUT penalty through all coalitions, so that
            what the penalty takes away is inside; it holds the weight itself. NaN where samples are too few.
        intercept: `(T,)`.
        r2: `(T,)`, the weighted share of the scores' variance that the line explains.
        r2_held_out: `(T,)`, the same with each sample predicted by the fit to all the others, in closed form (for the
            lasso with the chosen players kept): not flattered by few samples.
        samples: coalitions that it is fitted to.
        broken: what ended the game early, if anything did.
        no_interval: why there is none, in a sentence.
    """

    weights: Tensor
    standard_error: Tensor
    low: Tensor
    high: Tensor
    intercept: Tensor
    r2: Tensor
    r2_held_out: Tensor
    samples: int
    broken: str = ""
    no_interval: str = ""


def closeness(coalitions: Tensor, width: float) -> Tensor:
    """LIME's kernel `exp(-d^2 / (2 width^2))`, `d = 1 - sqrt(share kept)`: the cosine distance to the whole picture.

    Args:
        coalitions: `(M, K)` of 0 and 1.
        width: of the kernel, 0.25 in the paper's implementation.
    """
    distance = 1 - coalitions.double().mean(1).sqrt()
    return torch.exp(-(distance**2) / (2 * width**2))


def fit_line(
    coalitions: Tensor,
    scores: Tensor,
    *,
    kernel_width: float = 0.25,
    alpha: float = 1.0,
    kind: Literal["ridge", "lasso"] = "ridge",
) -> Line:
    """LIME's weighted linear model of scores over coalitions (Ribeiro et al. 2016, eq. 1-2).

    With `w` from `closeness` and `e` the residuals: `ridge` minimises `sum w e^2 + alpha |weights|^2` in closed form;
    `lasso` minimises `sum w e^2 / (2 sum w) + alpha |weights|_1` by coordinate descent. The intercept is free.

    Args:
        coalitions: `(M, K)` of 0 and 1.
        scores: `(M, T)`.
        kernel_width: how far from the whole picture a sample may be; larger counts all more alike.
        alpha: strength of the penalty; for the lasso, in units of the score.
        kind: `ridge` or `lasso`.
    """
    if kind not in ("ridge", "lasso"):
        raise MethodError(f"There is no surrogate {kind!r}: choose ridge or lasso.")
    if not kernel_width > 0 or not alpha >= 0:
        raise MethodError("A surrogate needs a kernel_width above 0 and an alpha of at least 0.")
    Z, y = coalitions.double(), scores.double()
    w = closeness(Z, kernel_width)
    share = w / w.sum()
    X, rise = Z - share @ Z, y - y[0]  # from a value of its own: a score that never moves is zero to the bit
    rise = rise - share @ rise
    gram, moment = (X.T * w) @ X, (X.T * w) @ rise
    if kind == "ridge":
        inverse = _inverse(gram, alpha)
        weights = inverse @ moment
        error, leverage = _sandwich(X, w, rise - X @ weights, inverse)
    else:
        weights = _lasso(gram / w.sum(), moment / w.sum(), alpha)
        leverage = torch.zeros_like(y)
        for t in range(y.shape[1]):
            on = weights[:, t] != 0
            residual = rise[:, t : t + 1] - X @ weights[:, t : t + 1]
            _, leverage[:, t : t + 1] = _sandwich(X[:, on], w, residual, _inverse(gram[on][:, on], 0.0))
    free, free_error = _free_line(X, w, rise, share, gram, moment)
    error = free_error if kind == "lasso" else error
    low, high, why = _interval(weights, free, free_error, len(y))
    residual = rise - X @ weights
    held_out = residual / (1 - leverage - share[:, None]).clamp(min=1e-9)
    intercept = share @ y - share @ Z @ weights
    fits = _r2(residual, rise, w), _r2(held_out, rise, w)
    return Line(weights, error, low, high, intercept, *fits, len(y), no_interval=why)


def sample_line(
    value: Value,
    players: int,
    *,
    samples: int = 1000,
    generator: torch.Generator | None = None,
    kernel_width: float = 0.25,
    alpha: float = 1.0,
    kind: Literal["ridge", "lasso"] = "ridge",
) -> Line:
    """`surrogate` of a game, on the whole and `samples - 1` coalitions that hold each player with probability 1/2."""
    if samples < 2:
        raise MethodError(f"A line needs more than {samples} sample: give hundreds.")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    coalitions = torch.randint(2, (samples, players), generator=generator).float()
    coalitions[0] = 1
    coalitions, scores, broken = evaluated(value, coalitions)
    return replace(fit_line(coalitions, scores, kernel_width=kernel_width, alpha=alpha, kind=kind), broken=broken)


def evaluated(value: Value, coalitions: Tensor, least: int = 0) -> tuple[Tensor, Tensor, str]:
    """Coalitions `(M, K)`, their values `(M, T)`, and what broke the game off, if anything did.

    Only the coalitions before that come back then.

    Raises:
        ModelError: it broke off before there were more coalitions than players, too few for a line, or before there
            were `least`.
    """
    try:
        return coalitions, value(coalitions).cpu(), ""
    except UnfinishedError as failure:
        scores = failure.values.cpu()
        kept = answered(scores)
        if kept <= coalitions.shape[1] or kept < least:
            raise
        return coalitions[:kept], scores[:kept], str(failure)


def _inverse(gram: Tensor, alpha: float) -> Tensor:
    penalty = alpha * torch.eye(len(gram), dtype=gram.dtype)
    inverse: Tensor = torch.linalg.pinv(gram + penalty, hermitian=True)
    return inverse


def _free_line(
    X: Tensor, w: Tensor, rise: Tensor, share: Tensor, gram: Tensor, moment: Tensor
) -> tuple[Tensor, Tensor]:
    """Weights `(K, T)` of the line without penalty, with standard errors.

    Residuals are divided by the root of what the fit leaves of them, `1 - leverage` (HC2, MacKinnon & White 1985).
    """
    inverse = _inverse(gram, 0.0)
    free = inverse @ moment
    residual = rise - X @ free
    pulls = inverse @ (X.T * w)
    left = 1 - (X * pulls.T).sum(1, keepdim=True) - share[:, None]
    return free, (pulls**2 @ (residual**2 / left.clamp(min=1e-9))).sqrt()


def _interval(weights: Tensor, free: Tensor, error: Tensor, samples: int) -> tuple[Tensor, Tensor, str]:
    """`(low, high, why not)`: Student's around the line without penalty, stretched to the weight that is told."""
    players = len(weights)
    if samples < (least := 2 * (players + 1)):
        nothing = torch.full_like(weights, torch.nan)
        return nothing, nothing, (
            f"{samples} samples for {players} players are too few to tell the error of their weights, so there is no "
            f"interval: give {least} or more."
        )  # fmt: skip
    half = half_width(error, samples - players - 1)
    return torch.minimum(weights, free - half), torch.maximum(weights, free + half), ""


def _sandwich(X: Tensor, w: Tensor, residual: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Standard errors `(K, T)` and leverages `(M, 1)` of a weighted linear fit."""
    pulls = inverse @ (X.T * w)  # (K, M): how far each sample's residual moves each weight
    leverage = (X * pulls.T).sum(1, keepdim=True)
    return (pulls**2 @ residual**2).sqrt(), leverage


def _r2(residual: Tensor, rise: Tensor, w: Tensor) -> Tensor:
    """Explained share of the weighted variance; 1 for scores that never move."""
    total = w @ rise**2
    return torch.where(total > 0, 1 - w @ residual**2 / total.clamp(min=1e-300), 1.0)


def _lasso(gram: Tensor, moment: Tensor, alpha: float, rounds: int = 1000) -> Tensor:
    """Weights `(K, T)` by cyclic coordinate descent on the Gram matrix (Friedman et al. 2007)."""
    weights = torch.zeros_like(moment)
    scale = gram.diagonal().clamp(min=1e-300)
    for _ in range(rounds):
        before = weights.clone()
        for k in range(len(gram)):
            free = moment[k] - gram[k] @ weights + gram[k, k] * weights[k]
            weights[k] = torch.sign(free) * (free.abs() - alpha).clamp(min=0) / scale[k]
        if (weights - before).abs().max() <= 1e-10 * weights.abs().max():
            break
    return weights
