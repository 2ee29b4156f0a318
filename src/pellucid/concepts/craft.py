"""CRAFT: concepts of crops, how much each matters by Sobol indices, and what a concept is made of in an earlier layer.

Fel et al. 2023 (arXiv:2211.10154). The pictures of a class are cut into crops (`media.crops.Crops`), whose activations
are factorised (`NMF`). The importance of a concept is its total Sobol index: the share of the score's variance, when
all concepts are shown in random strength, in which it has a part. Unlike a first-order importance it sees concepts that
matter only together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.quasirandom import SobolEngine

from pellucid.concepts.bank import Bank, find
from pellucid.concepts.dictionary import Dictionary
from pellucid.engine import Cost
from pellucid.engine.tail import Tail
from pellucid.errors import DataError, MethodError
from pellucid.heatmaps.sensitivity import total_indices
from pellucid.media import Box, Origin, Picture, Pictures
from pellucid.media.crops import around, cut
from pellucid.models.features import extract
from pellucid.models.model import VisionModel
from pellucid.models.places import Places
from pellucid.models.targets import Target, TargetLike, as_target
from pellucid.progress import task

Score = Callable[[Tensor], Tensor]
"""Strengths of the concepts `(M, K)` in [0, 1] -> scores `(M,)`."""


def sobol_importance(score: Score, count: int, rows: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Total Sobol index of each of `count` concepts `(count,)`, and its standard error.

    `S_k = E[Var(f | all strengths but k's)] / Var(f)` for strengths uniform in [0, 1]: Jansen's estimate on a scrambled
    Sobol sequence, as for the heat maps of `heatmaps.sensitivity`. Costs `rows (count + 2)` scores.
    """
    engine = SobolEngine(2 * count, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    points = engine.draw(rows).double()
    a, b = points[:, :count], points[:, count:]
    ab = a[:, None].expand(-1, count, -1).clone()
    every = torch.arange(count)
    ab[:, every, every] = b
    values = score(torch.cat([a, b, ab.flatten(0, 1)])).double().cpu()
    fa, fb, fab = values[:rows], values[rows : 2 * rows], values[2 * rows :].reshape(rows, count)
    indices, error = total_indices(fa[None], fb[None], fab[None])
    return indices[0], error[0]


@dataclass
class SobolImportance:
    """Total Sobol indices of concepts: over pictures `(n, K)`, their mean `(K,)`, and the passes spent."""

    each: NDArray[np.float64]
    error: NDArray[np.float64]
    cost: Cost

    @property
    def values(self) -> NDArray[np.float64]:
        """Mean over the pictures."""
        mean: NDArray[np.float64] = self.each.mean(0)
        return mean


def craft_importance(
    model: VisionModel,
    inputs: Tensor,
    layer: str,
    dictionary: Dictionary,
    target: TargetLike = None,
    *,
    rows: int = 32,
    seed: int = 0,
) -> SobolImportance:
    """How much each concept matters to a score, by Sobol indices, on inputs `(N, C, *space)`.

    The layer says `(m * U) D + b` in place of what it said, for strengths `m`; only the tail behind it runs for each.
    Costs `rows (K + 2)` tails an input.
    """
    places = Places(model.module, layer)
    bound = model.bound(as_target(target), inputs)
    D = torch.from_numpy(dictionary.components_).to(inputs)
    offset = torch.from_numpy(dictionary.offset_).to(inputs)
    each, errors, cost = [], [], Cost()
    with task("Sobol indices", len(inputs)) as advance:
        for i in range(len(inputs)):
            x = inputs[i : i + 1]
            places.layout(x)
            chosen = bound.select(torch.tensor([i])).freeze(model.outputs(x))
            with Tail(model.module, x, layer, _scores(chosen)) as tail:
                cells = places.rows(tail.activation.float(), x)
                codes = dictionary.encode(cells.reshape(-1, cells.shape[-1]).cpu().numpy())
                U = torch.from_numpy(codes).to(inputs)

                def said(strengths: Tensor, A: Tensor, cells: Tensor = cells, U: Tensor = U, x: Tensor = x) -> Tensor:
                    weakened = (strengths.to(U)[:, None] * U) @ D + offset
                    return places.back(weakened.reshape(len(strengths), *cells.shape[1:]), A, x)

                def score(strengths: Tensor, tail: Tail = tail, said: Any = said) -> Tensor:
                    return tail(lambda A, a, b: said(strengths[a:b], A), len(strengths), label="strengths")[:, 0]

                index, error = sobol_importance(score, len(dictionary.components_), rows, seed)
                cost.forwards += tail.cost.forwards
            each.append(index.numpy())
            errors.append(error.numpy())
            advance(1)
    return SobolImportance(np.stack(each), np.sqrt((np.stack(errors) ** 2).mean(0) / len(each)), cost)


def _scores(target: Target) -> Callable[[Any, Mapping[str, Tensor], Tensor], list[Tensor]]:
    def score(output: Any, watched: Mapping[str, Tensor], rows: Tensor) -> list[Tensor]:
        return [target.select(rows).score(output, watched)]

    return score


@dataclass(frozen=True, eq=False)
class Peaks:
    """The crops in which a concept of a bank is strongest, as pictures of their own."""

    bank: Bank
    concept: int
    pictures: Pictures
    share: float = 0.4

    @property
    def name(self) -> str:
        """What people call them."""
        return f"crops of {self.bank.called(self.concept)}"

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of the picture each is from."""
        return self.pictures.labels[self._numbers] if len(self.pictures.labels) else self.pictures.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.pictures.classes

    @property
    def _numbers(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.bank.exemplars[self.concept]
        return found[found >= 0]

    def __len__(self) -> int:
        """How many crops."""
        return len(self._numbers)

    def read(self, index: int) -> Picture:
        """One crop."""
        whole = self.pictures.read(int(self._numbers[index]))
        return replace(cut(whole, self._box(index)), sha256=self.digest(index))

    def _box(self, index: int) -> Box:
        geometry = self.bank.shown[int(self._numbers[index])].geometry
        return around(geometry, self.bank.grid, int(self.bank.cells[self.concept, index]), self.share)

    def digest(self, index: int) -> str:
        """SHA-256 over the picture's and where it is cut."""
        number = int(self._numbers[index])
        cell = int(self.bank.cells[self.concept, index])
        return sha256(f"{self.pictures.digest(number)} {self.bank.grid} {cell} {self.share}".encode()).hexdigest()

    def origin(self, index: int) -> Origin:
        """The whole picture, and which part of it."""
        return self.pictures.origin(int(self._numbers[index])).part(self._box(index))


def refine(
    model: VisionModel, bank: Bank, concept: int, pictures: Pictures, layer: str, *, count: int = 3, seed: int = 0
) -> Bank:
    """What a concept is made of: the concepts of an earlier layer in the crops where it is strongest.

    A concept that mixes several things falls apart into them (section 3.2 of the paper, "recursive").

    Args:
        model: the model.
        bank: concepts of a later layer, found in `pictures`.
        concept: which one.
        pictures: those the bank was found in.
        layer: the earlier layer.
        count: sub-concepts.
        seed: of whatever is random.

    Raises:
        MethodError: no such concept.
        DataError: it is strong in fewer than two pictures.
    """
    if not 0 <= concept < len(bank):
        raise MethodError(f"There is no concept {concept}: they run from 0 to {len(bank) - 1}.")
    crops = Peaks(bank, concept, pictures)
    if len(crops) < 2:
        raise DataError(f"Concept {concept} is strong in {len(crops)} pictures only: give more pictures.")
    features = extract(model, crops, layer, pool=None, cache=None)
    return find(model, features, "auto", count=count, seed=seed, stable=False)
