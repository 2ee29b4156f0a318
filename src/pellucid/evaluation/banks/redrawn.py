"""Maps drawn again: of noisy and moved inputs, of models with shuffled weights, of another class. Drawn once each."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pellucid.engine import unwrap
from pellucid.engine.hooks import Hooks
from pellucid.errors import LayerError, MethodError, PellucidError
from pellucid.evaluation.banks.base import AnswerBank
from pellucid.evaluation.check import at_layer
from pellucid.evaluation.competitors import Competitor, Drawer, Drawing, draw_all
from pellucid.evaluation.sample import Candidate, Inquiry, Sample
from pellucid.evaluation.sanity import has_weights, on_grid, randomised_copy
from pellucid.heatmaps.activations import choose_layer
from pellucid.models.layers import lend_layers
from pellucid.models.targets import Class, PerSample, Target
from pellucid.scoring.job import prepare

Question = tuple[Tensor, Target]
"""Inputs `(n, C, *space)` made of one sample's, and a target of n rows."""

ONE_INPUT = "{} draws no map of another input, so this metric is not asked of it."


@dataclass(frozen=True)
class SelectiveBank(AnswerBank):
    """Base of banks that not every competitor can be asked by."""

    def can(self, competitor: Competitor) -> bool:
        """Whether a competitor draws what is needed."""
        return competitor.redraws

    def refusal(self, competitor: Competitor) -> PellucidError:
        """What is said of one that does not."""
        return MethodError(ONE_INPUT.format(competitor.name))

    def of_able(
        self, candidates: Sequence[Candidate], answered: Callable[[Sequence[Candidate]], Sequence[Any]]
    ) -> list[Any]:
        """What is answered by those that can, all together, and a refusal for each other."""
        able = [c for c in candidates if self.can(c.competitor)]
        found = iter(answered(able) if able else ())
        return [next(found) if self.can(c.competitor) else self.refusal(c.competitor) for c in candidates]


class OfOtherModels:
    """What a bank must be able to ask: maps of other models."""

    def can(self, competitor: Competitor) -> bool:
        """It must be able to explain another model."""
        return competitor.remodels

    def refusal(self, competitor: Competitor) -> PellucidError:
        """It belongs to its model, knows the truth of one alone, or is a file."""
        return MethodError(f"{competitor.name} explains no other model, so this metric is not asked of it.")


@dataclass(frozen=True)
class RedrawingBank(SelectiveBank):
    """Base of banks whose answers are further maps."""

    def answers(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """All competitors draw together, so that those that share passes share them here too."""
        return self.of_able(candidates, lambda able: self.redraw(inquiry, able))

    @abstractmethod
    def redraw(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """The answer for each candidate, all of which can draw."""

    def question(self, sample: Sample) -> Question | None:
        """What all competitors are asked about the sample's own model; None where each is asked something else."""
        return None

    def drawn(self, inquiry: Inquiry, candidates: Sequence[Candidate], asked: Question) -> list[Drawing | Exception]:
        """What the candidates draw for the question; what was drawn in company is taken from there."""
        sample = inquiry.sample
        whose = [c.competitor for c in candidates]
        return draw_all(whose, sample.model, *asked, sample, inquiry.ahead.get(self))


@dataclass(frozen=True)
class RemodellingBank(OfOtherModels, RedrawingBank):
    """Base of banks whose answers are maps of other models."""


@dataclass(frozen=True, eq=False)
class NearbyMaps:
    """A map and those of inputs nearby that the model answers alike.

    Attributes:
        plain: `(P,)`.
        maps: `(n, P)`.
        inputs: `(P',)`, the input.
        nearby: `(n, P')`.
        outputs: `(K,)`, all that the model answers to the input.
        moved: `(n, K)`, to those nearby.
        inside: what the layer that class activation maps explain holds of the input and those nearby, `(1 + n, F)`;
            asked for when needed, in one pass of all.
    """

    plain: Tensor
    maps: Tensor
    inputs: Tensor
    nearby: Tensor
    outputs: Tensor
    moved: Tensor
    inside: Callable[[], Tensor] | None = None


@dataclass(frozen=True)
class NoisyInputs(RedrawingBank):
    """Inputs nearby, the same for all competitors.

    Attributes:
        draws: how many.
        radius: largest change of a value, over the input's standard deviation.
    """

    name: ClassVar[str] = "inputs nearby"

    draws: int = 8
    radius: float = 0.05

    def shared(self, space: Sequence[int]) -> int:
        """The input and those nearby."""
        return self.draws + 1

    def redrawn(self) -> int:
        """One map for each."""
        return self.draws

    def question(self, sample: Sample) -> Question:
        """The inputs nearby."""
        x, generator = sample.x, torch.Generator().manual_seed(sample.seed)
        noise = torch.rand(self.draws, *x.shape[1:], generator=generator).to(x) * 2 - 1
        return x + self.radius * x.std() * noise, sample.target.select(torch.zeros(self.draws, dtype=torch.long))

    def redraw(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """Those whose answer changes are left out (Agarwal et al. 2022): a map ought to change with it."""
        sample = inquiry.sample
        x, (nearby, target) = sample.x, self.question(sample)
        both = torch.cat([x, nearby])
        output = sample.model.outputs(both)
        scores = sample.model.reading.found(output, len(both), sample.model.labels)
        if scores is None:
            scores = sample.target.select(torch.zeros(len(both), dtype=torch.long)).score(output, {})[:, None]
        scores = scores.detach().cpu().double()
        alike = scores[1:].argmax(1) == scores[0].argmax()
        if not alike.any():
            return [MethodError(f"The model answers otherwise to all inputs near {sample.name}.")] * len(candidates)
        drawn = self.drawn(inquiry, candidates, (nearby, target))
        inside = cache(partial(_representations, inquiry, torch.cat([x, nearby[alike.to(x.device)]])))
        return [
            d
            if isinstance(d, Exception)
            else NearbyMaps(
                c.values.double().flatten(),
                d.maps().double().flatten(1)[alike],
                x.detach().cpu().double().flatten(),
                nearby.detach().cpu().double().flatten(1)[alike],
                scores[0],
                scores[1:][alike],
                inside,
            )
            for c, d in zip(candidates, drawn, strict=True)
        ]


def _representations(inquiry: Inquiry, inputs: Tensor) -> Tensor:
    """What the best layer answers to inputs `(N, C, *space)`, flat, in double precision."""
    sample = inquiry.sample
    layer = choose_layer(None, prepare(sample.model, sample.x, [sample.target]), gradient=False)
    kept: list[Tensor] = []
    module = unwrap(sample.model.module)
    with Hooks() as hooks:
        hooks.behind(module.get_submodule(layer.name), lambda _m, _given, answer: kept.append(_first(answer)))
        sample.model.outputs(inputs)
    return kept[0].detach().cpu().double().flatten(1)


def _first(answer: Any) -> Tensor:
    """The first tensor of what a layer answers."""
    while not isinstance(answer, Tensor):
        answer = next(iter(answer.values() if isinstance(answer, Mapping) else answer))
    return answer


@dataclass(frozen=True, eq=False)
class MovedMaps:
    """A map beside those of moved inputs, moved back: `(P,)` pairs over the places that both hold.

    Attributes:
        flipped: the map and that of the mirror image, mirrored back.
        shifted: the map and that of the shifted input, shifted back, without the rim.
        distance: between the input and the shifted one, their norm.
    """

    flipped: tuple[Tensor, Tensor]
    shifted: tuple[Tensor, Tensor]
    distance: float


@dataclass(frozen=True)
class MovedInputs(RedrawingBank):
    """The mirror image, and the input shifted by a share of its width."""

    name: ClassVar[str] = "moved inputs"

    share: float = 1 / 14

    def redrawn(self) -> int:
        """Two."""
        return 2

    def step(self, sample: Sample) -> int:
        """How far the input is shifted, in places."""
        return max(1, round(self.share * sample.space[-1]))

    def question(self, sample: Sample) -> Question:
        """Both along the last axis; what a shift uncovers repeats the edge."""
        x = sample.x
        at = (torch.arange(x.shape[-1], device=x.device) - self.step(sample)).clamp(min=0)
        moved = torch.cat([x.flip(-1), x.index_select(-1, at)])
        return moved, sample.target.select(torch.zeros(2, dtype=torch.long))

    def redraw(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """The maps are moved back."""
        sample = inquiry.sample
        width, step = sample.space[-1], self.step(sample)
        moved, target = self.question(sample)
        drawn = self.drawn(inquiry, candidates, (moved, target))
        distance = float((sample.x - moved[1:]).double().norm())
        found: list[Any] = []
        for c, d in zip(candidates, drawn, strict=True):
            if isinstance(d, Exception):
                found.append(d)
                continue
            mirrored, later = d.maps().double()
            own = c.values.double()
            inside = slice(step, width - step) if width > 3 * step else slice(0, width - step)
            back = later[..., step:]
            found.append(
                MovedMaps(
                    (own.flatten(), mirrored.flip(-1).flatten()),
                    (own[..., : width - step][..., inside].flatten(), back[..., inside].flatten()),
                    distance,
                )
            )
        return found


@dataclass(frozen=True, eq=False)
class CascadedMaps:
    """A map and those of the model with more and more of its weights shuffled, from the output down.

    Attributes:
        plain: `(*grid)`, of the model as it is.
        stages: of the shuffled ones, the last with all weights shuffled.
    """

    plain: Tensor
    stages: tuple[Tensor, ...]


@dataclass(frozen=True)
class ShuffledWeights(RemodellingBank):
    """The model with its weights shuffled, tensor by tensor from the output down, in `stages` steps of equal length.

    All weights count: those of attention, position embeddings and class tokens too.

    Attributes:
        stages: how many.
        draws: noisy inputs over which each map is averaged; 1: the input itself.
        radius: largest change of a value by the noise, over the input's standard deviation.
    """

    name: ClassVar[str] = "shuffled weights"

    stages: int = 4
    draws: int = 1
    radius: float = 0.2

    def redrawn(self) -> int:
        """One map a stage; with noise, also of the model as it is, and one each draw."""
        return self.stages if self.draws == 1 else (self.stages + 1) * self.draws

    def redraw(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """Methods explain the layer that they explained; the copy of a stage is gone before the next is made."""
        sample = inquiry.sample
        module = unwrap(sample.model.module)
        if not has_weights(module):
            return [MethodError("The model has no weights to shuffle, so this metric is not asked of it.")] * len(
                candidates
            )
        x, target = self._inputs(inquiry)
        first = draw_all([c.competitor for c in candidates], sample.model, x, target, sample)
        layers = [d.layer if isinstance(d, Drawing) else None for d in first]
        quick = [_quick(c.competitor, layer) for c, layer in zip(candidates, layers, strict=True)]
        stages: list[list[Drawing | Exception]] = []
        for names in cascade(module, self.stages):
            twin = randomised_copy(module, sample.x, sample.seed, names)
            with suppress(LayerError):
                lend_layers(module, twin, {layer for layer in layers if layer})
            stages.append(draw_all(quick, twin, x, target, sample))
            del twin
        found: list[Any] = []
        for k, c in enumerate(candidates):
            column = [row[k] for row in stages]
            failed = next((d for d in column if isinstance(d, Exception)), None)
            drawn = [
                on_grid(d.native, c.native[None].expand(len(x), *c.native.shape))
                for d in column
                if isinstance(d, Drawing)
            ]
            plain = first[k]
            if self.draws > 1 and isinstance(plain, Exception):
                failed = plain
            own = plain.native.mean(0) if self.draws > 1 and isinstance(plain, Drawing) else c.native
            maps = tuple(m.mean(0) for m in drawn)
            found.append(failed if failed is not None else CascadedMaps(own, maps))
        return found

    def _inputs(self, inquiry: Inquiry) -> tuple[Tensor, Target]:
        """The input, or noisy ones like it."""
        sample = inquiry.sample
        if self.draws == 1:
            return sample.x, sample.target
        generator = torch.Generator().manual_seed(sample.seed)
        noise = torch.rand(self.draws, *sample.x.shape[1:], generator=generator).to(sample.x) * 2 - 1
        noisy = sample.x + self.radius * sample.x.std() * noise
        return noisy, sample.target.select(torch.zeros(self.draws, dtype=torch.long))


def _quick(competitor: Competitor, layer: str | None) -> Competitor:
    if not isinstance(competitor, Drawer):
        return competitor
    return dataclasses.replace(competitor, method=at_layer(competitor.method, layer))


def cascade(module: nn.Module, stages: int) -> Iterator[frozenset[str]]:
    """Names of the weights that are shuffled at each stage: those nearest to the output first, at last all."""
    names = [name for name, p in module.named_parameters() if p.ndim > 1][::-1]
    for stage in range(1, stages + 1):
        yield frozenset(names[: max(1, round(stage * len(names) / stages))])


@dataclass(frozen=True, eq=False)
class TwoMaps:
    """Two maps `(P,)` of one input: the one that is measured, and one that it is laid beside."""

    plain: Tensor
    other: Tensor


def known_classes(sample: Sample) -> int:
    """How many classes the model tells apart; asked in a pass where nobody has said so."""
    if sample.classes is None:
        model = sample.model
        scores = model.reading.found(model.outputs(sample.x), 1, model.labels)
        sample.classes = 0 if scores is None else int(scores.shape[1])
    return sample.classes


class TwoClasses(TwoMaps):
    """Maps for the class asked about, and for another one."""


class OfAnotherClass(RedrawingBank):
    """Base of banks that ask for another class, the same one for all competitors.

    Attributes:
        lacking: what is said where there is none.
    """

    lacking: ClassVar[str]

    def redrawn(self) -> int:
        """One."""
        return 1

    def redraw(self, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """The same other class for all competitors."""
        other = other_class(inquiry.sample)
        if other is None:
            return [MethodError(self.lacking)] * len(candidates)
        return self.drawn_for(other, inquiry, candidates)

    @abstractmethod
    def drawn_for(self, other: Target, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """What is to be drawn for that class, for each competitor."""


@dataclass(frozen=True)
class OtherClass(OfAnotherClass):
    """The map for another class of the same input, drawn at random."""

    name: ClassVar[str] = "another class"
    lacking: ClassVar[str] = "The question is of no class, so there is no other one to ask about."

    def question(self, sample: Sample) -> Question | None:
        """The input itself."""
        other = other_class(sample)
        return None if other is None else (sample.x, other)

    def drawn_for(self, other: Target, inquiry: Inquiry, candidates: Sequence[Candidate]) -> list[Any]:
        """Of the plain input."""
        drawn = self.drawn(inquiry, candidates, (inquiry.sample.x, other))
        return [
            d if isinstance(d, Exception) else TwoClasses(c.native.double().flatten(), d.native[0].double().flatten())
            for c, d in zip(candidates, drawn, strict=True)
        ]


def other_class(sample: Sample) -> Target | None:
    """A target of another class than the sample's; None where that is of none, or there is no other."""
    target, classes = sample.target, known_classes(sample)
    if classes < 2:
        return None
    own = target.indices[0] if isinstance(target, PerSample) else target.index if isinstance(target, Class) else None
    if not isinstance(own, int):
        return None
    step = int(torch.randint(1, classes, (1,), generator=torch.Generator().manual_seed(sample.seed)))
    other = (own + step) % classes
    if isinstance(target, PerSample):
        return replace(target, indices=(other,))
    return replace(target, index=other) if isinstance(target, Class) else None
