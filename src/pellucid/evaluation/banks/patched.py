"""An input with a patch that decides the answer: whoever explains that answer must find the patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid.engine import leave_no_trace, unwrap
from pellucid.engine.run import run_model
from pellucid.errors import MethodError, ModelError
from pellucid.evaluation.banks.redrawn import OfAnotherClass
from pellucid.evaluation.sample import Candidate, Inquiry, Sample
from pellucid.models.targets import Target


@dataclass(frozen=True, eq=False)
class PatchedMap:
    """A map `(P,)` of the input with the patch, for the class that it brought about; and where the patch lies."""

    values: Tensor
    patch: Tensor


@dataclass(frozen=True)
class AdversarialPatch(OfAnotherClass):
    """A square that gradients of another class have filled, until the model answers that class.

    Attributes:
        share: the square's side over that of the input.
        steps: of gradient at most, each of a tenth of the input's range.
    """

    name: ClassVar[str] = "a patch that decides"
    lacking: ClassVar[str] = "The question is of no class, so no patch can bring another one about."
    swayed: ClassVar[bool] = True

    share: float = 0.3
    steps: int = 40

    def shared(self, space: Sequence[int]) -> int:
        """A pass a step; backwards likewise."""
        return self.steps

    def drawn_for(self, other: Target, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """The same patched input for all competitors."""
        sample = inquiry.sample
        place = self.place(sample.space, sample.seed)
        try:
            patched = self.patched(sample, other, place)
        except (ModelError, RuntimeError):  # of what cannot be differentiated
            patched = None
        if patched is None:
            said = f"No patch brings another answer about for {sample.name}, so there is nothing to find."
            return [MethodError(said)] * len(candidates)
        drawn = self.drawn(inquiry, candidates, (patched, other))
        where = place.flatten()
        return [
            d if isinstance(d, Exception) else PatchedMap(d.maps()[0].double().flatten().cpu(), where) for d in drawn
        ]

    def place(self, space: Sequence[int], seed: int) -> Tensor:
        """Where the patch lies, bool `(*space)`: a box at a place drawn at random; of clips in every frame."""
        generator = torch.Generator().manual_seed(seed)
        found = torch.ones(tuple(space), dtype=torch.bool)
        for axis in range(max(0, len(space) - 2), len(space)):
            side = max(1, round(self.share * space[axis]))
            start = int(torch.randint(space[axis] - side + 1, (1,), generator=generator))
            inside = torch.zeros(space[axis], dtype=torch.bool)
            inside[start : start + side] = True
            found &= inside.reshape([-1 if a == axis else 1 for a in range(len(space))])
        return found

    def patched(self, sample: Sample, other: Target, place: Tensor) -> Tensor | None:
        """The input with the patch `(1, C, *space)`; None where the answer stays."""
        module, x = unwrap(sample.model.module), sample.x.detach()
        low, high = x.amin(), x.amax()
        inside = place.to(x.device)
        patched = torch.where(inside, (low + high) / 2, x)
        with leave_no_trace(module), torch.enable_grad():
            for _ in range(self.steps):
                asked = patched.detach().clone().requires_grad_()
                output = run_model(module, asked.clone())
                lead = other.lead(output, {})
                if lead is None:
                    return None
                if float(lead.detach()) > 0:
                    return patched
                (slope,) = torch.autograd.grad(lead.sum(), asked)
                patched = torch.where(
                    inside, (patched + 0.1 * (high - low) * slope.sign()).clamp(low, high), x
                ).detach()
        return None
