"""Columns of numbers that a readable model learns from: words of a layer, and what they are of each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pellucid.concepts import Dictionary, get_dictionary
from pellucid.errors import DataError
from pellucid.interpretable.hierarchy import Hierarchy
from pellucid.interpretable.lesson import Lesson
from pellucid.interpretable.numerics import Array
from pellucid.interpretable.words import Attributes, ChannelWords, ConceptWords, Parts, Pool, PropertyWords, Words
from pellucid.media.attributes import read_attributes
from pellucid.models.features import Features
from pellucid.models.model import VisionModel
from pellucid.progress import task

_TOKENS, _PICTURES = 20_000, 200  # places that concepts are found in; pictures of a class that parts are
_COUNT, _PARTS, _CHANCE = 40, 3, 40  # concepts, patches a class, and random concepts of the baseline


@dataclass(frozen=True)
class WordColumns:
    """Words, and `X` `(N, d)`, their values in all pictures."""

    words: Words
    X: Array

    @classmethod
    def of(
        cls,
        concepts: str,
        features: Features,
        lesson: Lesson,
        base: VisionModel,
        *,
        count: int | None = None,
        pool: Pool = "mean",
        seed: int = 0,
    ) -> WordColumns:
        """Words found on training pictures alone.

        Args:
            concepts: `none` (channels), `parts`, `attributes`, `properties`, `concepts`, or the name of a dictionary.
            features: of the pictures.
            lesson: which of them are learned from.
            base: the network that the features are of.
            count: how many concepts, or parts a class.
            pool: how a concept's places become one number.
            seed: of what is random.
        """
        values, train = features.values, lesson.kept[lesson.at.train]
        words: Words
        if concepts == "properties":
            words = PropertyWords(base.preprocess.channels)
            return cls(words, _of_pictures(words, base, features, lesson.kept))
        if concepts == "parts":
            codes = lesson.answers[lesson.at.train].argmax(1)
            words = find_parts(values, train, codes, lesson.labels, count or _PARTS, seed)
            words.where[:, 0] = np.searchsorted(lesson.kept, words.where[:, 0])
        elif concepts == "none":
            words = ChannelWords([f"{features.layer}[{c}]" for c in range(features.channels)])
        elif concepts == "attributes":
            names, table = read_attributes(features.pictures)
            pooled = ChannelWords([]).rows(values, train)
            words = Attributes.fit(pooled, table[train], names)
        else:
            by = ("nmf" if float(values.min()) >= 0 else "semi-nmf") if concepts == "concepts" else concepts
            words = ConceptWords(find_concepts(values, train, by, count or _COUNT, seed), pool=pool)
        return cls(words, words.rows(values, lesson.kept))

    def chance(self, features: Features, lesson: Lesson, seed: int) -> WordColumns:
        """As many random directions of the layer as there are words: what any words must beat."""
        train = lesson.kept[lesson.at.train]
        count = min(len(self.words.names), features.channels, _CHANCE)
        pool = self.words.pool if isinstance(self.words, ConceptWords) else "mean"
        words = ConceptWords(find_concepts(features.values, train, "random", count, seed + 1), pool=pool)
        return WordColumns(words, words.rows(features.values, lesson.kept))

    def own_hierarchy(self, teacher: VisionModel, features: Features, lesson: Lesson) -> Hierarchy | None:
        """That of the teacher's own last layer, if that is what it makes of the pooled channels; else None."""
        if not isinstance(self.words, ChannelWords):
            return None
        linear = [m for m in teacher.module.modules() if isinstance(m, nn.Linear)]
        classes = features.outputs.shape[1]
        last = linear[-1] if linear else None
        if last is None or last.weight.shape != (classes, self.X.shape[1]):
            return None
        weights = last.weight.detach().double().numpy()
        intercept = np.zeros(classes) if last.bias is None else last.bias.detach().double().numpy()
        outputs = np.asarray(features.outputs[lesson.kept], np.float64)
        near = 1e-3 * float(np.abs(outputs).max())
        if not np.allclose(self.X @ weights.T + intercept, outputs, rtol=1e-3, atol=near):
            return None
        columns = [i for name in lesson.labels for i in range(classes) if teacher.label(i) == name]
        model = Hierarchy.of(weights[columns], intercept[columns], lesson.labels)
        model.names_ = list(self.words.names)
        return model


def find_concepts(values: NDArray[Any], rows: NDArray[np.int64], by: str, count: int, seed: int) -> Dictionary:
    """A dictionary of the places of some of the pictures `(N, *grid, C)`; of 20,000 places if there are more."""
    cells = int(np.prod(values.shape[1:-1], dtype=int))
    generator = np.random.default_rng(seed)
    total = len(rows) * cells
    chosen = np.sort(generator.choice(total, min(total, _TOKENS), replace=False))
    tokens = values.reshape(len(values), cells, -1)[rows[chosen // cells], chosen % cells]
    return get_dictionary(by, count=min(count, max(1, len(tokens) // 2)), seed=seed).fit(np.array(tokens))


def find_parts(
    values: NDArray[Any],
    rows: NDArray[np.int64],
    codes: NDArray[np.int64],
    labels: Sequence[str],
    per_class: int,
    seed: int,
) -> Parts:
    """Real patches, a few a class: those nearest to the centres of k-means over the directions of its places.

    Args:
        values: `(N, *grid, C)`.
        rows: which pictures may be looked at; at most 200 of a class are.
        codes: the class of each of these.
        labels: names of the classes.
        per_class: patches of a class.
        seed: of the start.
    """
    from sklearn.cluster import KMeans

    cells = int(np.prod(values.shape[1:-1], dtype=int))
    patches: list[Array] = []
    where: list[tuple[int, int]] = []
    names: list[str] = []
    with task("parts", len(labels)) as advance:
        for k, label in enumerate(labels):
            mine = rows[codes == k][:_PICTURES]
            places = np.array(values[mine], np.float32).reshape(-1, values.shape[-1])
            length = np.linalg.norm(places, axis=1)
            keep = np.flatnonzero(length > 0)
            if len(keep):
                unit = places[keep] / length[keep, None]
                count = min(per_class, len(np.unique(unit, axis=0)))
                fitted = KMeans(count, n_init=1, random_state=seed).fit(unit)
                for i in dict.fromkeys(fitted.transform(unit).argmin(0).tolist()):
                    picture, cell = divmod(int(keep[i]), cells)
                    patches.append(places[keep[i]])
                    where.append((int(mine[picture]), cell))
                    names.append(f"{label} part {sum(n.startswith(f'{label} part ') for n in names) + 1}")
            advance(1)
    if not patches:
        raise DataError("The layer is zero at every place, so there are no parts: choose another layer.")
    return Parts(np.stack(patches), np.array(where), names)


def _of_pictures(words: Words, base: VisionModel, features: Features, which: NDArray[np.int64]) -> Array:
    """Words about the pictures themselves, one after the other."""
    rows = []
    with task("properties", len(which)) as advance, torch.no_grad():
        for i in which:
            x, _ = base.pictures(features.pictures.read(int(i)))
            rows.append(words(base.preprocess.display(x)[None]))
            advance(1)
    return torch.cat(rows).double().numpy()
