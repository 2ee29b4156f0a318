"""A map beside the oracle, which is measured among the methods of a suite: what each place truly adds to the score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from pellucid.errors import MethodError
from pellucid.evaluation.banks.base import AnswerBank
from pellucid.evaluation.sample import Candidate, Inquiry

ORACLE = "oracle"
"""Its name among the methods."""


@dataclass(frozen=True, eq=False)
class MapAndOracle:
    """A map and the oracle's, `(P,)` each, over the model's input."""

    values: Tensor
    oracle: Tensor


@dataclass(frozen=True)
class BesideOracle(AnswerBank):
    """The map beside that of the method called `oracle`."""

    name: ClassVar[str] = "the oracle"
    oracle: ClassVar[bool] = True

    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """No forward.

        Raises:
            MethodError: there is no oracle.
        """
        oracle = next((c for c in candidates if c.competitor.name == ORACLE), None)
        if oracle is None:
            raise MethodError("Only of a suite is it known what each place adds: name one, such as --suite single.")
        true = oracle.values.double().flatten()
        return [MapAndOracle(c.values.double().flatten(), true) for c in candidates]
