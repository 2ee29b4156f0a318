"""One plain line: may this explanation be believed?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pellucid.evaluation.chance import Agreement
from pellucid.explanation import Curve, Quality

SIGNIFICANT = 0.02  # p-value up to which a map is believed; several looks and pictures with edges let in a little more
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
    agreement: Agreement | None = None,
    in_time: tuple[Curve, Curve] | None = None,
    sanity: float | None = None,
    completeness_gap: float | None = None,
    jump: float = 0.0,
    problem: str | None = None,
) -> Quality:
    """The verdict and its line from what was measured.

    `faithful`: the map agrees with the model better than a blind one as smooth would (p-value at most `SIGNIFICANT`),
    insertion is above random, deletion below it, and the map changes with the weights. `partly faithful`: it agrees,
    but one of the others fails. `not faithful`: a blind map would do as well, or the score hardly moves. `unproven`: no
    curves are defined for it. `meaningless`: the line says why. `jump` is that of the score right at the baseline.
    """
    parts = []
    for name, curve in (("insertion", insertion), ("deletion", deletion)):
        if curve is not None:
            parts.append(f"{name} {_against_random(curve)}")
    if agreement is not None:
        said = _chance(agreement.p_value)
        parts.append(
            f"a blind map as smooth does as well with {said}"
            if agreement.among == 1
            else f"the best of {agreement.among} blind maps as smooth does as well with {said}"
        )
    if insertion is not None and deletion is not None and not _noticeable(insertion, deletion):
        parts.append(f"together less than {NOTICEABLE:.0%} of the score above random")
    for name, curve in zip(("insertion", "deletion"), in_time or (), strict=False):
        parts.append(f"{name} of frames {_against_random(curve)}")
    depends = sanity is None or abs(sanity) < SHOWS_MODEL
    if sanity is not None:
        says = "changes with the weights" if depends else "does NOT change with the weights"
        parts.append(f"{says} (correlation {sanity:.2f} when they are shuffled)")
    if completeness_gap is not None and math.isfinite(completeness_gap):
        besides = f" besides the score's jump of {jump:.3g} at the baseline, which the map leaves out" if jump else ""
        parts.append(f"completeness gap {completeness_gap:.1%}{besides}")
    if insertion is None or deletion is None or agreement is None:
        verdict = "meaningless" if problem else "unproven" if depends else "not faithful"
    else:
        verdict = _faithfulness(insertion, deletion, agreement, depends)
    if problem is not None:
        parts.insert(0, problem.rstrip("."))
    line = f"{verdict}: {'; '.join(parts)}"
    quality = Quality(verdict, line, insertion, deletion, sanity, completeness_gap, *(in_time or ()))
    if agreement is not None:
        quality.agreement, quality.p_value = agreement.correlation, agreement.p_value
    return quality


def _chance(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _against_random(curve: Curve) -> str:
    """The areas to two decimals, or to as many as the spread needs: rare classes have small probabilities.

    Where random masks do not differ at all, two digits of the areas themselves are told.
    """
    scale = curve.random_std or max(abs(curve.auc), abs(curve.random_mean)) / 10
    digits = math.ceil(-math.log10(scale)) if 0 < scale < 0.01 else 2
    return f"{curve.auc:.{digits}f} vs random {curve.random_mean:.{digits}f} +- {curve.random_std:.{digits}f}"


def _noticeable(insertion: Curve, deletion: Curve) -> bool:
    gain = (insertion.auc - insertion.random_mean) + (deletion.random_mean - deletion.auc)
    largest = max(map(abs, (*insertion.scores, *deletion.scores)), default=0.0)
    return gain > NOTICEABLE * largest


def _faithfulness(insertion: Curve, deletion: Curve, agreement: Agreement, depends: bool) -> str:
    if not (agreement.p_value <= SIGNIFICANT and _noticeable(insertion, deletion)):  # NaN is no proof
        return "not faithful"
    both = insertion.auc > insertion.random_mean and deletion.auc < deletion.random_mean
    return "faithful" if both and depends else "partly faithful"
