"""A map beside what each part of a scene truly adds to the score; of suites of scenes alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pellucid.errors import MediaError, MethodError
from pellucid.evaluation.banks.base import AnswerBank
from pellucid.evaluation.banks.oracle import ORACLE
from pellucid.evaluation.banks.redrawn import OfOtherModels, SelectiveBank, other_class
from pellucid.evaluation.competitors import Competitor, Drawing, draw_all
from pellucid.evaluation.sample import Candidate, Inquiry, Sample
from pellucid.evaluation.suites.scenes import CONTESTED, OF_CLASSES, PARTS, USELESS, Scene, SceneClasses
from pellucid.models.model import VisionModel
from pellucid.models.targets import Target


@dataclass(eq=False)
class SceneOracle(Competitor):
    """What each part adds, shared by the places where it is seen.

    Attributes:
        scenes: one an input.
        score: what is explained, `(M, 3, SIDE, SIDE) -> (M,)`.
        twin: a network that never looks at the contested part.
    """

    scenes: Sequence[Scene] = ()
    score: Callable[[Tensor], Tensor] | None = None
    twin: nn.Module | None = None
    _values: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    redraws: ClassVar[bool] = False
    remodels: ClassVar[bool] = False

    def of(self, x: Tensor) -> tuple[Scene, Tensor, Tensor]:
        """The scene of an input `(1, 3, SIDE, SIDE)`; what each of its parts adds, and its loss alone, `(K,)` each.

        Raises:
            MediaError: it is none of the scenes.
        """
        for k, scene in enumerate(self.scenes):
            if x.shape[1:] == scene.ground.shape and torch.equal(x[0].cpu(), scene.whole):
                if k not in self._values:
                    assert self.score is not None
                    self._values[k] = scene.values(self.score), scene.drops(self.score)
                return scene, *self._values[k]
        raise MediaError("This input is none of the suite's scenes, so nothing is known of its parts.")

    def draw(self, model: VisionModel | nn.Module, x: Tensor, target: Target, sample: Sample) -> Drawing:
        """The map of the sample's own scene."""
        scene, values, _ = self.of(x)
        return Drawing(scene.spread(values)[None], sample.over)


@dataclass(frozen=True, eq=False)
class PartSums:
    """A map summed over parts of the input `(K,)`, where they are seen, and what each of them truly adds `(K,)`."""

    sums: Tensor
    true: Tensor


@dataclass(frozen=True)
class BesideParts(AnswerBank):
    """The map beside the parts that the method called `oracle` knows of.

    Attributes:
        alone: what each part truly adds is what is lost without it alone, rather than its Shapley value.
    """

    alone: bool = False

    name: ClassVar[str] = "the parts of the scene"
    parts: ClassVar[bool] = True

    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """No forward.

        Raises:
            MethodError: the input is no scene.
        """
        scene, worth, drops = _oracle(candidates).of(inquiry.sample.x)
        true = drops if self.alone else worth
        seen = torch.stack([scene.labels == k for k in range(len(true))]).double()
        return [PartSums((seen * c.values.double().cpu()).sum((1, 2)), true) for c in candidates]


def _oracle(candidates: Sequence[Candidate]) -> SceneOracle:
    oracle = next((c.competitor for c in candidates if c.competitor.name == ORACLE), None)
    if not isinstance(oracle, SceneOracle):
        raise MethodError("Only of scenes is it known what each part adds: --suite scene.")
    return oracle


@dataclass(frozen=True, eq=False)
class SceneContrasts:
    """A map `(P,)`, and what becomes of it.

    Attributes:
        plain: of the scene.
        twin: of the scene, for the network that never looks at the contested part.
        without: of the scene without the useless part.
        contested: where the contested part is seen, bool `(P,)`.
        useless: where the useless part is seen.
    """

    plain: Tensor
    twin: Tensor
    without: Tensor
    contested: Tensor
    useless: Tensor


@dataclass(frozen=True)
class OfAnotherNetwork(OfOtherModels, SelectiveBank):
    """Base of banks that ask about a scene for a network of their own; of the oracle nothing: it knows one network."""

    parts: ClassVar[bool] = True

    def redrawn(self) -> int:
        """Two."""
        return 2

    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """Of those that can explain another network.

        Raises:
            MethodError: the input is no scene.
        """
        oracle = _oracle(candidates)
        return self.of_able(candidates, lambda able: self.contrasts(inquiry.sample, oracle, able))

    @abstractmethod
    def contrasts(self, sample: Sample, oracle: SceneOracle, candidates: Sequence[Candidate]) -> list[Any]:
        """What metrics read, one for each candidate."""


@dataclass(frozen=True)
class ContrastedScenes(OfAnotherNetwork):
    """The scene for a network that does not heed one of its parts, and the scene without a part that says nothing."""

    name: ClassVar[str] = "contrasts of scenes"

    def contrasts(self, sample: Sample, oracle: SceneOracle, candidates: Sequence[Candidate]) -> list[Any]:
        """Both."""
        scene, _, _ = oracle.of(sample.x)
        whose = [c.competitor for c in candidates]
        there = torch.ones(1, len(PARTS))
        there[0, USELESS] = 0
        assert oracle.twin is not None
        twins = draw_all(whose, oracle.twin, sample.x, sample.target, sample)
        later = draw_all(whose, sample.model, scene.drawn(there).to(sample.x), sample.target, sample)
        regions = [(scene.labels == k).flatten() for k in (CONTESTED, USELESS)]
        return [
            next((d for d in (a, b) if isinstance(d, Exception)), None)
            or SceneContrasts(c.values.double().cpu().flatten(), *_flat(a, b), *regions)
            for c, a, b in zip(candidates, twins, later, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class RivalMaps:
    """Maps `(2, P)` of one scene for two classes, and where the parts that each of them rests on are seen, `(2, P)`."""

    maps: Tensor
    places: Tensor


@dataclass(frozen=True)
class RivalClasses(OfAnotherNetwork):
    """The scene for a network whose two classes rest on different parts of it: a map for each class."""

    name: ClassVar[str] = "two classes of a scene"

    def contrasts(self, sample: Sample, oracle: SceneOracle, candidates: Sequence[Candidate]) -> list[Any]:
        """The second class is the one that is asked about everywhere."""
        scene, _, _ = oracle.of(sample.x)
        first, whose = other_class(sample), [c.competitor for c in candidates]
        assert first is not None
        net = SceneClasses().eval()
        drawn = [draw_all(whose, net, sample.x, target, sample) for target in (first, sample.target)]
        labels = scene.labels.flatten()
        places = torch.stack([torch.isin(labels, torch.tensor(parts)) for parts in OF_CLASSES])
        return [
            next((d for d in pair if isinstance(d, Exception)), None) or RivalMaps(torch.stack(_flat(*pair)), places)
            for pair in zip(*drawn, strict=True)
        ]


def _flat(*drawn: Any) -> list[Tensor]:
    return [d.maps()[0].double().cpu().flatten() for d in drawn]
