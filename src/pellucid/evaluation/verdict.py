"""One plain line: may this explanation be believed?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pellucid.explanation import Curve, Quality

SIGNIFICANT = 2.0  # standard deviations that insertion minus deletion must stand above random orders
NOTICEABLE = 0.02  # share of the score that it must be: a score that hardly moves proves nothing, however exactly
SHOWS_MODEL = 0.8  # rank correlation with shuffled weights from which on a map shows the picture, not the model


def diagnose(attribution: Tensor, signed: bool) -> str | None:
    """What makes a map meaningless or one-sided, with the cure; None if nothing does."""
    if not torch.isfinite(attribution).all():
        return "The map holds NaN or infinity: check the model's weights and the input, or run in single precision."
    if not attribution.any():
        return (
            "The map is zero: nothing at this layer speaks for the target. Try a signed method (hires-cam, "
            "integrated-gradients), another layer, or ask whether the model knows this class at all."
        )
    if float(attribution.max() - attribution.min()) <= 1e-6 * float(attribution.abs().max()):
        return "The map is flat: every place has the same value, so it says nothing about where. Try an earlier layer."
    if signed and float(attribution.max()) <= 0:
        return "The map has no positive value: everything in the picture speaks against the target."
    return None


def judge(
    *,
    insertion: Curve | None = None,
    deletion: Curve | None = None,
    in_time: tuple[Curve, Curve] | None = None,
    sanity: float | None = None,
    completeness_gap: float | None = None,
    problem: str | None = None,
) -> Quality:
    """The verdict and its line from what was measured.

    `faithful`: insertion above random, deletion below it, their difference significantly so, and the map changes with
    the weights. `partly faithful`: the difference is significant but one of the others fails. `not faithful`: no better
    than random orders. `unproven`: no curves are defined for it. `meaningless`: the line says why.
    """
    parts = []
    for name, curve in (("insertion", insertion), ("deletion", deletion)):
        if curve is not None:
            parts.append(f"{name} {_against_random(curve)}")
    for name, curve in zip(("insertion", "deletion"), in_time or (), strict=False):
        parts.append(f"{name} of frames {_against_random(curve)}")
    depends = sanity is None or abs(sanity) < SHOWS_MODEL
    if sanity is not None:
        says = "changes with the weights" if depends else "does NOT change with the weights"
        parts.append(f"{says} (correlation {sanity:.2f} when they are shuffled)")
    if completeness_gap is not None and math.isfinite(completeness_gap):
        parts.append(f"completeness gap {completeness_gap:.1%}")
    if insertion is None or deletion is None:
        verdict = "meaningless" if problem else "unproven" if depends else "not faithful"
    else:
        verdict = _faithfulness(insertion, deletion, depends)
    if problem is not None:
        parts.insert(0, problem.rstrip("."))
    line = f"{verdict}: {'; '.join(parts)}"
    return Quality(verdict, line, insertion, deletion, sanity, completeness_gap, *(in_time or ()))


def _against_random(curve: Curve) -> str:
    """The areas to two decimals, or to as many as the spread needs: rare classes have small probabilities."""
    small = 0 < curve.random_std < 0.01
    digits = math.ceil(-math.log10(curve.random_std)) if small else 2
    return f"{curve.auc:.{digits}f} vs random {curve.random_mean:.{digits}f} +- {curve.random_std:.{digits}f}"


def _faithfulness(insertion: Curve, deletion: Curve, depends: bool) -> str:
    spread = (insertion.random_std**2 + deletion.random_std**2) ** 0.5
    gain = (insertion.auc - insertion.random_mean) + (deletion.random_mean - deletion.auc)
    largest = max(map(abs, (*insertion.scores, *deletion.scores)), default=0.0)
    if not gain > max(SIGNIFICANT * spread, NOTICEABLE * largest):  # NaN is no proof
        return "not faithful"
    both = insertion.auc > insertion.random_mean and deletion.auc < deletion.random_mean
    return "faithful" if both and depends else "partly faithful"
