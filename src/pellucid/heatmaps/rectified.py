"""Gradients that a rectifier lets through by another rule: DeconvNet, guided back-propagation, Guided Grad-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from pellucid.engine import Cost
from pellucid.engine.backward import RuleTable
from pellucid.engine.rules.pointwise import ACTIVATIONS
from pellucid.engine.rules.rectifiers import DISGUISES, RECTIFIERS, Deconvolved, Guided
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.cam import GradCAM
from pellucid.heatmaps.propagation import RuleMethod
from pellucid.scoring.job import Job

_COST = "1 forward + 1 backward"


@method(
    "deconvnet",
    family="gradient",
    needs="gradients, functions",
    cost=_COST,
    paper="Zeiler & Fergus 2013, arXiv:1311.2901, sec. 2.1",
)
@dataclass(frozen=True, kw_only=True)
class DeconvNet(RuleMethod):
    """The gradient, with `relu(g)` at each rectifier in place of its own mask.

    Args:
        strict: refuse a network with another activation than a rectifier, instead of a note.
    """

    def rules(self) -> RuleTable:
        """One rule for every spelling of a rectifier."""
        return RuleTable(dict.fromkeys((*RECTIFIERS, *DISGUISES), Deconvolved()), unruled=ACTIVATIONS)


@method(
    "guided-backprop",
    family="gradient",
    needs="gradients, functions",
    cost=_COST,
    paper="Springenberg et al. 2014, arXiv:1412.6806, sec. 3.4",
)
@dataclass(frozen=True, kw_only=True)
class GuidedBackprop(RuleMethod):
    """The gradient, with `relu(g)` at each rectifier that lets it through.

    Args:
        strict: refuse a network with another activation than a rectifier, instead of a note.
    """

    def rules(self) -> RuleTable:
        """One rule for every spelling of a rectifier."""
        return RuleTable(dict.fromkeys((*RECTIFIERS, *DISGUISES), Guided()), unruled=ACTIVATIONS)


@method(
    "guided-grad-cam",
    family="gradient",
    needs="gradients, functions, a layer",
    cost="2 forwards + 1 backward + tail backward",
    paper="Selvaraju et al. 2017, arXiv:1610.02391, sec. 3.2",
)
@dataclass(frozen=True, kw_only=True)
class GuidedGradCAM(GuidedBackprop):
    """Guided back-propagation times Grad-CAM, spread bilinearly over the input.

    Args:
        strict: refuse a network with another activation than a rectifier, instead of a note.
        layer: of Grad-CAM; None finds the last layer whose cells still carry gradient to the target.
    """

    layer: str | None = None
    _axes: ClassVar[dict[int, str]] = {1: "linear", 2: "bilinear", 3: "trilinear"}

    def explain_job(self, job: Job) -> list[Attribution]:
        """Both maps, and their product."""
        if len(job.space) not in self._axes:
            raise MethodError(f"{self.name} needs inputs of one to three space axes, not {len(job.space)}.")
        (coarse,) = GradCAM.run([GradCAM(layer=self.layer)], job)
        fine = super().explain_job(job)
        for cam, guided in zip(coarse, fine, strict=True):
            guided.values = guided.values * _spread(cam.values, job.space, self._axes[len(job.space)])
            guided.layer = None  # the map lies on the input
            guided.notes = [*cam.notes, *guided.notes]
            guided.cost = Cost(2 * len(job.inputs), 2 * len(job.inputs) * len(job.targets))
        return fine


def _spread(cells: Tensor, space: tuple[int, ...], mode: str) -> Tensor:
    return functional.interpolate(cells[:, None], space, mode=mode)
