from dataclasses import replace

import pytest
import torch

from pellucid.evaluation import Agreement, diagnose, judge
from pellucid.explanation import Curve

KNOWS, BLIND = Agreement(0.6, 0.001, 1, 0.001), Agreement(0.1, 0.021, 1, 0.021)


def curve(auc, random=0.4, std=0.05):
    return Curve(auc, random, std, [0.0, 1.0], [0.0, 1.0], [0.0, 1.0])


@pytest.mark.parametrize(
    ("values", "signed", "message"),
    [
        ([0.0, 0.0], True, "The map is zero"),
        ([0.0, 0.0], False, "The map is zero"),
        ([2.0, 2.0], True, "The map is flat"),
        ([1e6, 1e6 + 0.06], False, "The map is flat"),
        ([-3.0, -3.0], True, "The map is flat"),
        ([1.0, torch.nan], True, "NaN or infinity"),
        ([1.0, -torch.inf], False, "NaN or infinity"),
        ([-1.0, -2.0], True, "no positive value"),
        ([0.0, -2.0], True, "no positive value"),
        ([0.0, -2.0], False, None),
        ([0.0, 1e-12], True, None),
        ([1.0, -2.0], True, None),
    ],
)
def test_what_is_wrong_with_a_map_is_said(values, signed, message):
    found = diagnose(torch.tensor([values]), signed)
    assert (found is None) if message is None else (message in found)


@pytest.mark.parametrize(
    ("insertion", "deletion", "agreement", "sanity", "verdict"),
    [
        (0.7, 0.2, KNOWS, 0.1, "faithful"),
        (0.7, 0.2, KNOWS, -0.79, "faithful"),
        (0.7, 0.2, KNOWS, None, "faithful"),
        (0.7, 0.2, Agreement(0.3, 0.02, 1, 0.02), 0.1, "faithful"),
        (0.7, 0.2, BLIND, 0.1, "not faithful"),  # such areas come by chance, however good they look
        (0.7, 0.2, Agreement(float("nan"), float("nan"), 1, float("nan")), 0.1, "not faithful"),
        (0.7, 0.2, KNOWS, 0.8, "partly faithful"),  # the same map on other weights
        (0.7, 0.2, KNOWS, -0.9, "partly faithful"),
        (0.9, 0.45, KNOWS, 0.1, "partly faithful"),  # deletion above random
        (0.39, 0.1, KNOWS, 0.1, "partly faithful"),  # insertion below random
        (0.405, 0.39, KNOWS, 0.1, "not faithful"),  # 0.015 of a score of 1: it hardly moves
        (0.415, 0.39, KNOWS, 0.1, "faithful"),
        (0.1, 0.8, KNOWS, 0.1, "not faithful"),
        (0.4, 0.4, KNOWS, 0.1, "not faithful"),
        (float("nan"), 0.2, KNOWS, 0.1, "not faithful"),
    ],
)
def test_verdicts(insertion, deletion, agreement, sanity, verdict):
    quality = judge(insertion=curve(insertion), deletion=curve(deletion), agreement=agreement, sanity=sanity)
    assert quality.verdict == verdict
    assert quality.line.startswith(f"{verdict}: insertion ")
    assert ("above random" in quality.line) == (not (insertion - 0.4) + (0.4 - deletion) > 0.02)
    assert quality.p_value == agreement.p_value or quality.p_value != quality.p_value


def test_a_score_that_never_moves_proves_nothing():
    still = curve(0.5, 0.5, 0.0)
    assert judge(insertion=still, deletion=still, agreement=KNOWS, sanity=0.0).verdict == "not faithful"


def test_the_line_says_what_was_measured():
    known = {"insertion": curve(0.7), "deletion": curve(0.25), "sanity": 0.04, "completeness_gap": 0.0123}
    quality = judge(**known, agreement=Agreement(0.5, 0.0123, 1, 0.0123))
    assert quality.line == (
        "faithful: insertion 0.70 vs random 0.40 +- 0.05; deletion 0.25 vs random 0.40 +- 0.05; a blind map as smooth "
        "does as well with p = 0.012; changes with the weights (correlation 0.04 when they are shuffled); completeness "
        "gap 1.2%"
    )
    assert (quality.agreement, quality.p_value) == (0.5, 0.0123)
    for p, said in ((0.0006, "p < 0.001;"), (0.001, "p = 0.001;"), (0.4567, "p = 0.46;"), (1, "p = 1.00;")):
        assert said in judge(**known, agreement=Agreement(0.5, p, 1, p)).line
    assert (quality.completeness_gap, quality.sanity) == (0.0123, 0.04)
    jumped = judge(**known, agreement=Agreement(0.5, 0.0123, 1, 0.0123), jump=-1.123).line
    assert jumped == quality.line + " besides the score's jump of -1.12 at the baseline, which the map leaves out"
    assert "does NOT change with the weights (correlation 0.93" in judge(sanity=0.93).line


def test_small_probabilities_are_not_rounded_away():
    rare = Curve(0.004126, 0.003871, 0.0000967, [], [], [])
    assert "insertion 0.00413 vs random 0.00387 +- 0.00010;" in judge(insertion=rare, deletion=rare).line
    still = Curve(0.5, 0.5, 0.0, [], [], [])
    assert "insertion 0.50 vs random 0.50 +- 0.00;" in judge(insertion=still, deletion=still).line
    tiny = replace(still, auc=0.00041, random_mean=0.00037)
    assert "insertion 0.00041 vs random 0.00037 +- 0.00000;" in judge(insertion=tiny, deletion=tiny).line


def test_without_curves():
    assert judge().verdict == "unproven"
    assert judge(sanity=0.1).verdict == "unproven"
    assert judge(sanity=0.95).verdict == "not faithful"
    quality = judge(problem="The map is zero: try another.", completeness_gap=float("nan"))
    assert (quality.verdict, quality.line) == ("meaningless", "meaningless: The map is zero: try another")
