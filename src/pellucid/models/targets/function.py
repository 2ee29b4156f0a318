"""Any function of the output as a target."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pellucid.errors import TargetError
from pellucid.models.parts import advised, described
from pellucid.models.targets.base import Target, target


class _Same:
    """Stands for an object in a key, by identity, without keeping the object (and all it refers to) alive."""

    def __init__(self, thing: object) -> None:
        self._id = id(thing)
        try:
            self._ref: Callable[[], object] = weakref.ref(thing)
        except TypeError:
            self._ref = lambda: None  # never the same again

    def __hash__(self) -> int:
        return self._id

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Same) and self._ref() is not None and self._ref() is other._ref())


_MISTAKES = (TypeError, IndexError, KeyError, AttributeError, ValueError, RuntimeError)


@target("function")
@dataclass(frozen=True)
class Function(Target):
    """Any callable, model output -> scores `(N,)`."""

    function: Callable[[Any], Tensor]

    def __call__(self, output: Any) -> Tensor:
        """The function's scores, checked."""
        try:
            scores = self.function(output)
        except Exception as error:
            if type(error) not in _MISTAKES:  # what the function raises on purpose, or torch for want of memory
                raise
            reason = (str(error).strip().splitlines() or [""])[0]
            raise TargetError(
                f"The target failed on the model's output ({type(error).__name__}: {reason}): it gets the output as it "
                f"is, {described(output)}, and returns one score per sample, such as {advised(output)}."
            ) from error
        if not isinstance(scores, Tensor) or scores.ndim != 1:
            shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise TargetError(f"The target returned {shape}; it must return one score per sample, a tensor (N,).")
        count = len(scores) if not isinstance(output, Tensor) else len(output) if output.ndim else 1
        if len(scores) != count:
            raise TargetError(
                f"The target returned {len(scores)} scores for {count} inputs; it must return one for each."
            )
        return scores.float()

    @property
    def kind(self) -> Hashable:
        """Functions may read any part of the output."""
        return _Same(self.function)

    def __str__(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    @classmethod
    def of(cls, value: Any) -> Function | None:
        """Anything that can be called."""
        return cls(value) if callable(value) else None
