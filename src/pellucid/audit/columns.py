"""What may describe a slice of samples: yes-or-no columns, made of the picture, its heat map and what is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from pellucid.audit.clusters import shares
from pellucid.audit.objects import on_object
from pellucid.audit.samples import GRID, SampleTable

EVIDENCE = ("evidence at the border", "evidence spread", "evidence off centre", "evidence against")
_KINDS, _MOST_VALUES = 12, 12  # groups of like pictures, values of a given column


@dataclass(frozen=True)
class Columns:
    """Literals that a slice is a conjunction of.

    Attributes:
        names: of each.
        values: `(N, len(names))`.
        sources: what each is about: literals of one source exclude each other.
    """

    names: tuple[str, ...]
    values: NDArray[np.bool_]
    sources: tuple[str, ...]


def evidence_figures(samples: SampleTable) -> NDArray[np.float64]:
    """`(N, len(EVIDENCE))`: share of the evidence for the answer in the outer ring, its entropy, its distance from the
    middle, and what speaks against, as a share of all.
    """
    rows = shares(samples.maps)
    grid = rows.reshape(-1, GRID, GRID)
    ring = 1 - grid[:, 2:-2, 2:-2].sum((1, 2))
    entropy = -(rows * np.log(np.clip(rows, 1e-12, None))).sum(1) / np.log(rows.shape[1])
    place = (np.arange(GRID) + 0.5) / GRID - 0.5
    y, x = grid.sum(2) @ place, grid.sum(1) @ place
    size = np.abs(samples.maps).sum((1, 2))
    against = np.where(size > 0, -np.minimum(samples.maps, 0).sum((1, 2)) / np.where(size > 0, size, 1), 0)
    return np.stack([ring, entropy, np.hypot(y, x), against], 1)


def described(columns: Columns, inside: NDArray[np.bool_]) -> str:
    """A group of samples in words: the one or two literals that tell it best (largest F1); answers and other groups of
    like pictures aside.
    """
    usable = [j for j, source in enumerate(columns.sources) if source not in ("answer", "like pictures")]
    if not usable or not inside.any():
        return ""

    def fit(mask: NDArray[np.bool_]) -> float:
        return float(2 * (mask & inside).sum() / (mask.sum() + inside.sum()))

    first = max(usable, key=lambda j: (fit(columns.values[:, j]), -j))
    best, chosen = fit(columns.values[:, first]), [first]
    for j in usable:
        if columns.sources[j] != columns.sources[first]:
            value = fit(columns.values[:, first] & columns.values[:, j])
            if value > best:
                best, chosen = value, [first, j]
    mask = columns.values[:, chosen].all(1)
    share = (mask & inside).sum() / inside.sum()
    return f"{' and '.join(columns.names[j] for j in chosen)} ({share:.0%} of them)"


def describe(
    samples: SampleTable, labels: Sequence[str], given: Mapping[str, Sequence[str]] | None = None, seed: int = 0
) -> Columns:
    """All literals of a table.

    Args:
        samples: the table.
        labels: names of the model's classes.
        given: further columns by name, a text for each sample; one of many numbers is cut at its outer fifths.
        seed: of the groups of like pictures.
    """
    found = Literals(np.ones(len(samples), bool))
    numbers = np.concatenate([samples.properties, evidence_figures(samples)], 1)
    for name, column in zip((*samples.names, *EVIDENCE), numbers.T, strict=True):
        found.fifths(name, column)
    for name, column in zip(("evidence on the object", "size of the object"), on_object(samples), strict=True):
        found.fifths(name, column)
    for k in np.unique(samples.truth[samples.known]):
        found.add(f"true class {labels[int(k)]}", samples.truth == k, "true class")
    for k in np.unique(samples.answers):
        found.add(f"answered {labels[int(k)]}", samples.answers == k, "answer")
    kinds = _kinds(samples, seed)
    for k in range(kinds.max() + 1):
        what = _what(kinds == k, numbers, samples, labels)
        found.add(f"like pictures, group {k + 1} ({what})", kinds == k, "like pictures")
    for name, texts in (given or {}).items():
        found.texts(name, texts)
    return found.columns


class Literals:
    """Columns as they come together; one that is true of all samples that count, or of none, describes nothing.

    Args:
        rows: `(N,)`, which samples count; literals are true of none of the others.
    """

    def __init__(self, rows: NDArray[np.bool_]) -> None:
        self.rows = rows
        self._found: list[tuple[str, NDArray[np.bool_], str]] = []

    def add(self, name: str, value: NDArray[np.bool_], source: str) -> None:
        """One literal `(N,)`."""
        inside = value & self.rows
        if inside.any() and (inside != self.rows).any():
            self._found.append((name, inside, source))

    def fifths(self, name: str, column: NDArray[np.floating]) -> None:
        """The outer fifths of a number."""
        told = self.rows & np.isfinite(column)
        low, high = np.quantile(column[told], [0.2, 0.8]) if told.any() else (0, 0)
        if low < high:
            self.add(f"little {name}", column <= low, name)
            self.add(f"much {name}", column >= high, name)

    def texts(self, name: str, texts: Sequence[str]) -> None:
        """What is given as texts: the most frequent ones, or the outer fifths of many numbers."""
        for literal, value in _literals(name, np.array(list(texts), str)):
            self.add(literal, value, name)

    @property
    def columns(self) -> Columns:
        """All of them."""
        names, values, sources = zip(*self._found, strict=True) if self._found else ((), (), ())
        return Columns(names, np.stack(values, 1) if values else np.zeros((len(self.rows), 0), bool), sources)


def _literals(name: str, texts: NDArray[np.str_]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Those of a given column: its most frequent values, or the outer fifths of many numbers."""
    found, counts = np.unique(texts, return_counts=True)
    numbers = np.array([_number(text) for text in texts])
    known = np.isfinite(numbers)
    if len(found) > _MOST_VALUES and known.mean() > 0.5:
        low, high = np.quantile(numbers[known], [0.2, 0.8])
        yield f"little {name} (up to {low:g})", numbers <= low
        yield f"much {name} (from {high:g})", numbers >= high
        return
    for value in found[np.argsort(-counts, kind="stable")][:_MOST_VALUES]:
        yield f"{name} {value}", texts == value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _kinds(samples: SampleTable, seed: int) -> NDArray[np.int64]:
    """Which group of like pictures each sample is in, `(N,)`; one group where there are few."""
    count = min(_KINDS, len(samples) // 20)
    if count < 2:
        return np.zeros(len(samples), np.int64)
    found: NDArray[np.int64] = KMeans(count, n_init=3, random_state=seed).fit_predict(scaled(samples.embedding))
    return found


def _what(inside: NDArray[np.bool_], numbers: NDArray[np.float64], samples: SampleTable, labels: Sequence[str]) -> str:
    """What a group of pictures is, in a few words: its most frequent answer, and the property that sets it apart."""
    answer = int(np.bincount(samples.answers[inside]).argmax())
    away = (numbers[inside].mean(0) - numbers.mean(0)) / np.maximum(numbers.std(0), 1e-12)
    j = int(np.abs(away).argmax())
    return f"mostly {labels[answer]}, {'much' if away[j] > 0 else 'little'} {(*samples.names, *EVIDENCE)[j]}"


def scaled(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Columns with mean 0 and standard deviation 1; those that never change stay 0."""
    spread = rows.std(0).astype(np.float64)
    found: NDArray[np.float64] = (rows - rows.mean(0)) / np.where(spread > 0, spread, 1)
    return found
