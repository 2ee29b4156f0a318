"""Agreement with what each place truly adds to the score, as OpenXAI measures it; of suites, where that is known."""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.evaluation.banks.oracle import BesideOracle, MapAndOracle
from pellucid.evaluation.metrics.registry import metric
from pellucid.numerics.ranks import rank_correlation

BESIDE = BesideOracle()
_SHARE = 0.1  # of the places, that are called important
_PAIRS = 20_000  # of places that are compared

_PAPER = "Agarwal et al. 2022, OpenXAI, arXiv:2206.11104"
_TOP = "Of the tenth of places with the greatest absolute relevance; of equal ones the first."


def _important(values: Tensor) -> Tensor:
    """The places of greatest absolute relevance, in their order."""
    count = max(1, round(_SHARE * len(values)))
    return values.abs().argsort(descending=True, stable=True)[:count]


def _shared(found: MapAndOracle) -> Tensor:
    """The important places of both."""
    own, true = _important(found.values), _important(found.oracle)
    return own[torch.isin(own, true)]


def _same_sign(found: MapAndOracle, places: Tensor) -> Tensor:
    return found.values[places].sign() == found.oracle[places].sign()


@metric("feature-agreement", "localisation", "higher", BESIDE, paper=_PAPER, traps=_TOP)
def feature_agreement(found: MapAndOracle) -> float:
    """Share of the important places that the oracle calls important too."""
    return len(_shared(found)) / len(_important(found.oracle))


@metric("sign-agreement", "localisation", "higher", BESIDE, paper=_PAPER, traps=_TOP)
def sign_agreement(found: MapAndOracle) -> float:
    """Share of the important places that are important for the oracle too, and with the same sign."""
    return float(_same_sign(found, _shared(found)).sum()) / len(_important(found.oracle))


@metric("rank-agreement", "localisation", "higher", BESIDE, paper=_PAPER, traps=_TOP)
def rank_agreement(found: MapAndOracle) -> float:
    """Share of the important places that stand at the same rank of importance for the oracle."""
    return float((_important(found.values) == _important(found.oracle)).double().mean())


@metric("signed-rank-agreement", "localisation", "higher", BESIDE, paper=_PAPER, traps=_TOP)
def signed_rank_agreement(found: MapAndOracle) -> float:
    """Share of the important places that stand at the same rank for the oracle, and with the same sign."""
    own, true = _important(found.values), _important(found.oracle)
    return float(((own == true) & _same_sign(found, own)).double().mean())


@metric("oracle-correlation", "localisation", "higher", BESIDE, paper=_PAPER)
def oracle_correlation(found: MapAndOracle) -> float:
    """Rank correlation of the map with the oracle's, over all places."""
    return float(rank_correlation(found.values, found.oracle))


@metric("pairwise-agreement", "localisation", "higher", BESIDE, paper=_PAPER,
        traps="Of pairs drawn at random.")  # fmt: skip
def pairwise_agreement(found: MapAndOracle) -> float:
    """Of pairs of places whose order the oracle knows, the share that the map orders so too; ties count half."""
    one, other = torch.randint(len(found.oracle), (2, _PAIRS), generator=torch.Generator().manual_seed(0))
    true = (found.oracle[one] - found.oracle[other]).sign()
    own = (found.values[one] - found.values[other]).sign()
    known = true != 0
    return float(((own * true)[known] + 1).mean() / 2) if bool(known.any()) else float("nan")
