"""What a synthesis gives back: one picture, and how it came about, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Synthesis:
    """A picture made to excite one objective.

    Attributes:
        objective: what was sought, in words.
        spec: the text that `parse_objective` reads back; None where the objective holds tensors or functions.
        picture: `(C, *space)` on the CPU, display values in [0, 1].
        input: the same as the model takes it, `(C, *space)`.
        alpha: `(*space)` in [0, 1], how much each place matters, or None.
        history: the objective's mean over the views, one value a step (regularisers included).
        reached: the activation on `input` itself, without views, noise and regularisers.
        facts: measured figures, such as `steps` and the share of clipped values.
        notes: what the reader must know, one sentence each.
        seed: of the start and of all views.
        variant: 0, 1, ... among the pictures of one objective that asks for several (see `Diversity`).
    """

    objective: str
    spec: str | None
    picture: Tensor
    input: Tensor
    alpha: Tensor | None
    history: list[float]
    reached: float
    facts: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seed: int = 0
    variant: int = 0
