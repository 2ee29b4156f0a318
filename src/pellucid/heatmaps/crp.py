"""Concept relevance propagation: LRP of which only what flows through chosen channels of a layer goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pellucid.engine import Capture, Cost
from pellucid.engine.backward import Propagation, carrier
from pellucid.engine.capture import find_layer
from pellucid.engine.hooks import Hooks
from pellucid.engine.leaves import first_tensor
from pellucid.errors import MethodError, TargetError
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.composites import COMPOSITES, Strengths
from pellucid.heatmaps.newer_cams import LayerPasses
from pellucid.models.layers import Layer
from pellucid.models.targets import Target
from pellucid.scoring.job import Job


class _Gate:
    """What flows back through a layer's answer: read, and cut down to some channels."""

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.relevance: Tensor | None = None  # (N, channels)
        self.open: Tensor | None = None  # (N, channels) of 0 and 1

    def __call__(self, _module: nn.Module, _args: Any, output: Any) -> None:
        value = first_tensor(output)
        if value is not None and value.requires_grad:
            kept = value.detach().clone()
            value.register_hook(lambda g: self._through(kept, g))  # type: ignore[no-untyped-call]

    def _through(self, value: Tensor, g: Tensor) -> Tensor:
        if self.open is None:
            flowing = (carrier(value) * g).movedim(self.axis, 1)
            self.relevance = flowing.flatten(2).sum(2) if flowing.ndim > 2 else flowing
            return g
        shape = [1] * g.ndim
        shape[0], shape[self.axis] = self.open.shape
        return g * self.open.to(g).reshape(shape)


@method(
    "crp",
    family="propagation",
    needs="gradients, functions, a layer",
    cost="2 forwards + 2 backwards, and the forwards of the rules",
    paper="Achtibat et al. 2023, arXiv:2206.03208, eq. 4",
)
@dataclass(frozen=True, kw_only=True)
class CRP(LayerPasses):
    """LRP's map of what flows through some channels of a layer; maps of all channels sum to LRP's. `(N, C, *space)`.

    The fact `through` is the share of the score that flows through the chosen channels, and the extra
    `channel_relevance` `(N, channels)` what flows through each.

    Args:
        layer: module path; None finds the last layer whose cells still carry gradient to the target.
        units: the channels, numbers with commas; empty: those with the most relevance.
        top: how many of these.
        composite: which rule for which layers, see lrp.
        strict: refuse a network with a function that has no rule, instead of following its gradient with a note.
    """

    units: str = ""
    top: int = 1
    composite: str = "epsilon-plus-flat"
    strict: bool = False
    signed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        COMPOSITES.find(self.composite)
        if self.top < 1 or not all(part.strip().isdigit() for part in self.units.split(",") if part.strip()):
            raise MethodError(
                "The units of crp are numbers of channels with commas, such as 3,17, and top is at least 1."
            )

    def explain_target(self, job: Job, target: Target, layer: Layer) -> Attribution:
        """Two ways back through one graph: the first reads what each channel is worth, the second keeps some."""
        if layer.runs is not None:
            raise MethodError(
                "crp needs a layer that runs once in a pass, and this one runs several times: name another."
            )
        gate = _Gate(1 if layer.layout.kind == "channels-first" else -1)
        with Capture(job.module, watch=job.watch, input_gradient=True) as capture, Hooks() as hooks:
            hooks.behind(find_layer(capture.module, layer.name), gate)
            run = Propagation(COMPOSITES.find(self.composite)(Strengths()), capture.module, self.strict, True)

            def score(output: Any, watched: Any) -> list[Tensor]:
                with run.paused():
                    return [target.score(output, watched)]

            with run:
                _, scores = capture.scored(job.inputs, score)
            capture.gradients(scores, last=False)
            if gate.relevance is None:
                raise TargetError("The score does not depend on the explained layer: choose a layer in front of it.")
            relevance = gate.relevance
            gate.open = self._chosen(relevance)
            (found,) = capture.gradients(scores)
        x = job.inputs.detach()
        values = carrier(x).float() * found["input"].float()
        total = scores[0].detach().double().cpu()
        through = (relevance * gate.open).double().sum(1).cpu() / total.where(total != 0, torch.ones_like(total))
        taken = [", ".join(str(c) for c in row.nonzero()[:, 0].tolist()[:8]) for row in gate.open.cpu()]
        return Attribution(
            values,
            facts={"through": through.tolist()},
            extras={"channel_relevance": relevance.float()},
            notes=[*layer.notes, *run.said()],
            remarks=[[f"Relevance through channels {said} of {layer.name}."] for said in taken],
            cost=Cost(2 * len(x), 2 * len(x)),
        )

    def _chosen(self, relevance: Tensor) -> Tensor:
        """`(N, channels)` of 0 and 1."""
        count = relevance.shape[1]
        mask = torch.zeros_like(relevance)
        named = [int(part) for part in self.units.split(",") if part.strip()]
        if any(c >= count for c in named):
            raise MethodError(f"The layer has {count} channels, numbered from 0; {max(named)} is none.")
        if named:
            mask[:, named] = 1
        else:
            mask.scatter_(1, relevance.topk(min(self.top, count), dim=1).indices, 1.0)
        return mask
