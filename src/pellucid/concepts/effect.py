"""What concepts do to the model's answer: how much each one moves it, and what is left of it when only they are kept.

    I_k = sum_p u_pk <d_k, dy/da_p>        the sum over concepts is the first-order effect of all of them on y

Where everything behind the layer is linear this is exact, and equals removing the concept, integrated gradients and
the concept's Shapley value (Fel et al. 2023, arXiv:2306.07304, theorem 3.2); deeper in the network it is a first order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.concepts.dictionary import Dictionary
from pellucid.engine import Capture, Cost
from pellucid.engine.swap import Edit, Swap
from pellucid.media import Pictures
from pellucid.models.model import VisionModel
from pellucid.models.places import Places
from pellucid.models.targets import Target, TopClass
from pellucid.progress import task


@dataclass
class Effect:
    """What concepts do, picture by picture.

    Attributes:
        pictures: which of the pictures were looked at `(n,)`.
        answers: the model's top class of each `(n,)`.
        importance: `(n, K)`: what each concept adds to the score of the picture's own top class.
        kept: for each dictionary, the scores `(n, classes)` when the layer says only what the concepts can.
        scores: the untouched ones.
        cost: passes spent.
    """

    pictures: NDArray[np.int64]
    answers: NDArray[np.int64]
    importance: NDArray[np.float64]
    scores: NDArray[np.float64]
    kept: dict[str, NDArray[np.float64]]
    cost: Cost = field(default_factory=Cost)

    def agreement(self, name: str) -> float:
        """Share of the pictures whose top class stays."""
        return float((self.kept[name].argmax(1) == self.answers).mean())

    def r2(self, name: str) -> float:
        """Share of the scores' variance over pictures, all classes together, that is kept."""
        spread = ((self.scores - self.scores.mean(0)) ** 2).sum()
        lost = ((self.scores - self.kept[name]) ** 2).sum()
        return float(1 - lost / spread) if spread > 0 else float("nan")

    def accuracy(self, truth: NDArray[np.int64], name: str | None = None) -> float:
        """Share of the pictures answered rightly, untouched or from the concepts of `name` alone."""
        scores = self.scores if name is None else self.kept[name]
        return float((scores.argmax(1) == truth).mean())


def effect(
    model: VisionModel,
    pictures: Pictures,
    layer: str,
    dictionary: Dictionary,
    others: dict[str, Dictionary] | None = None,
    *,
    limit: int = 200,
    seed: int = 0,
) -> Effect:
    """What the concepts of a layer do on at most `limit` pictures, chosen at random.

    Costs a forward and the backward of the tail a picture, and a forward more for each dictionary.

    Args:
        model: the model.
        pictures: where the concepts are looked at.
        layer: module path.
        dictionary: of the layer's activations; called `concepts` in the result.
        others: further dictionaries whose concepts alone are kept, by name (the random ones).
        limit: pictures looked at.
        seed: of the choice.

    Raises:
        TargetError: the model's output is not class scores.
    """
    every = {"concepts": dictionary, **(others or {})}
    chosen = np.sort(np.random.default_rng(seed).permutation(len(pictures))[:limit])
    places = Places(model.module, layer)
    found: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    kept: dict[str, list[NDArray[np.float64]]] = {name: [] for name in every}
    cost = Cost()
    with task("what the concepts do", len(chosen)) as advance:
        for x in _batches(model, pictures, chosen):
            found.append(importance(model, x, places, dictionary))
            with Swap(model.module, layer) as swap:
                for name, words in every.items():
                    kept[name].append(
                        model.reading.class_scores(swap(x, only(words, places, x))).double().cpu().numpy()
                    )
            cost.forwards += len(x) + swap.cost.forwards
            cost.backwards += len(x)
            advance(len(x))
    scores = np.concatenate([s for s, _ in found])
    return Effect(
        pictures=chosen,
        answers=scores.argmax(1),
        importance=np.concatenate([i for _, i in found]),
        scores=scores,
        kept={name: np.concatenate(rows) for name, rows in kept.items()},
        cost=cost,
    )


def _batches(model: VisionModel, pictures: Pictures, chosen: NDArray[np.int64]) -> Iterator[Tensor]:
    size = model.batch
    waiting: list[Tensor] = []
    for index in chosen:
        x, _ = model.pictures(pictures.read(int(index)))
        if waiting and (len(waiting) == size or waiting[0].shape != x.shape):
            yield torch.stack(waiting).to(model.device, model.dtype)
            waiting = []
        waiting.append(x)
    if waiting:
        yield torch.stack(waiting).to(model.device, model.dtype)


def only(dictionary: Dictionary, places: Places, x: Tensor) -> Edit:
    """The edit that leaves of a layer's activation on inputs `x` only what the concepts can say."""

    places.layout(x)

    def edit(A: Tensor) -> Tensor:
        rows = places.rows(A.float(), x)
        said = dictionary.decode(dictionary.encode(rows.reshape(-1, rows.shape[-1]).cpu().numpy()))
        return places.back(torch.from_numpy(said).to(A.device).reshape(rows.shape), A, x)

    return edit


def importance(
    model: VisionModel, x: Tensor, places: Places, dictionary: Dictionary, target: Target | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each concept adds to a score, to the first order, on a batch `(n, C, *space)`.

    Returns:
        The class scores `(n, classes)`, and the concepts' shares `(n, K)` of the target's score (default: of each
        input's own top class).
    """
    score = (target or TopClass()).read_by(model.reading)
    places.layout(x)  # is found by running the model, which must not happen within a capture
    with Capture(model.module, [places.layer]) as capture:
        output, scores = capture.scored(x, lambda y, _: [score(y)])
        A = places.rows(capture.activations[places.layer].detach().float(), x).flatten(1, -2)  # (n, cells, C)
        G = places.rows(capture.gradients(scores)[0][places.layer].float(), x).flatten(1, -2)
        answers = model.reading.class_scores(output).detach().double().cpu().numpy()
    codes = torch.from_numpy(dictionary.encode(A.reshape(-1, A.shape[-1]).cpu().numpy()))
    slope = G.cpu().double() @ torch.from_numpy(dictionary.components_).double().T  # (n, cells, K)
    moved = (codes.double().reshape(slope.shape) * slope).sum(1)
    return answers, moved.numpy()
