"""Slices planted in pictures of shapes, and other people's ways to find slices, on the same table.

Each way gives scores of all samples, for at most five slices. Precision at ten of a planted slice is that of the slice
which holds it best: the protocol of Domino's evaluation (Eyuboglu et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from benchmarks.reliances import CLASSES, SIDE, World, shape, trained
from pellucid.audit import slices
from pellucid.audit.clusters import clusters, shares
from pellucid.audit.columns import describe
from pellucid.audit.groups import Likeness
from pellucid.audit.mixture import ErrorMixture, principal
from pellucid.audit.samples import SampleTable, build
from pellucid.audit.spotlight import spotlights

KINDS, SHARES, FIRST, AT = ("rare", "mislabelled", "blurred"), (0.01, 0.02, 0.05), 5, 10
_COUNT, _NOISE = 1500, 0.055
_DEGRADED = 0.3  # share of a planted slice that must be wrong, or there is nothing to find

Scores = list[NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Planted:
    """A table, and who is in the slice."""

    kind: str
    share: float
    samples: SampleTable
    inside: NDArray[np.bool_]


def tables(rounds: int) -> Iterator[Planted]:
    """Tables of clean networks on 1,500 pictures, those left out whose network does not err on what was planted.

    rare: shapes of one class, dark on light, as no picture that was learned from; mislabelled: pictures of one class in
    one tint, labelled as the next class; blurred: pictures of all classes, out of focus.
    """
    models = {seed: trained(None, seed) for seed in range(4)}
    for k, kind in enumerate(KINDS):
        for j, share in enumerate(SHARES):
            for r in range(rounds):
                seed = 100 * k + 10 * j + r
                data, inside = _world(kind, share, seed)
                _, samples = build(models[seed % 4], data)
                if samples.wrong[inside].mean() >= _DEGRADED:
                    yield Planted(kind, share, samples, inside)


def _world(kind: str, share: float, seed: int) -> tuple[World, NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    labels = np.arange(_COUNT) % len(CLASSES)
    chosen, sign = int(rng.integers(len(CLASSES))), 1 - 2 * int(rng.integers(2))
    pool = np.arange(_COUNT) if kind == "blurred" else np.flatnonzero(labels == chosen)
    inside = np.zeros(_COUNT, bool)
    inside[rng.choice(pool, round(share * _COUNT), replace=False)] = True
    pixels = np.stack([_picture(k, kind if i else "", sign, rng) for k, i in zip(labels, inside, strict=True)])
    if kind == "mislabelled":
        labels = np.where(inside, (chosen + 1) % len(CLASSES), labels)
    return World(pixels, labels), inside


def _picture(label: int, kind: str, sign: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    ground, light = rng.uniform(0.25, 0.5), rng.uniform(0.7, 0.9)
    if kind == "rare":
        ground, light = light, ground
    tint = sign * np.array([0.12, 0, -0.12]) if kind == "mislabelled" else rng.uniform(-0.05, 0.05, 3)
    pixels = np.full((SIDE, SIDE, 3), ground) + tint
    pixels[shape(label, rng)] = light + rng.uniform(-0.06, 0.06, 3)
    if kind == "blurred":
        pixels = gaussian_filter(pixels, (3.5, 3.5, 0))
    pixels += rng.normal(0, _NOISE, pixels.shape)
    if kind == "blurred":
        pixels = gaussian_filter(pixels, (1, 1, 0))
    return (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)


def ours(s: SampleTable) -> Scores:
    """The audit's first slices that err more often beyond chance."""
    found = slices.find(describe(s, CLASSES), s.wrong, s.known, 0, Likeness.of(s))
    sure = slices.distinct([f for f in found if f.p <= slices.SURE])
    return [_ranked(f.members, len(s)) for f in sure[:FIRST]]


def domino(s: SampleTable) -> Scores:
    """Domino: the error-aware mixture of all embeddings; the groups in which truth and answer differ most."""
    rows = principal(s.embedding)
    said = s.probabilities.astype(np.float64)
    mixed = ErrorMixture.fitted(rows, s.truth, said)
    belongs = mixed.belongs(rows, s.truth, said)
    return [belongs[:, g] for g in np.argsort(-mixed.faults)[:FIRST]]


def spotlight(s: SampleTable) -> Scores:
    """The spotlight over the embedding of all samples."""
    rows = principal(s.embedding)
    losses = -np.log(np.clip(s.probabilities[np.arange(len(s)), s.truth], 1e-9, 1))
    return [light.lights(rows) for light in spotlights(rows, losses, FIRST)]


def sliceline(s: SampleTable) -> Scores:
    """SliceLine's best conjunctions on all samples; its members stand in no order, so it is drawn."""
    columns = describe(s, CLASSES)
    drawn = 0.1 * np.random.default_rng(0).random(len(s))
    found = list(slices.conjunctions(columns, s.wrong, np.arange(len(s))))
    return [c.score + drawn for c in found[:FIRST]]


def spray(s: SampleTable) -> Scores:
    """SpRAy: spectral clusters of each class's heat maps, what errs most first, what is nearest to its mean first."""
    found = []
    rows = shares(s.maps)
    for c in np.unique(s.answers):
        mine = np.flatnonzero(s.answers == c)
        for group in clusters(s.maps[mine])[1:]:
            members = mine[group]
            away = ((rows[members] - rows[members].mean(0)) ** 2).sum(1)
            found.append((s.wrong[members].mean(), _ranked(members[np.argsort(away)], len(s))))
    return [score for _, score in sorted(found, key=lambda f: -f[0])[:FIRST]]


WAYS: dict[str, Callable[[SampleTable], Scores]] = {
    "audit": ours,
    "Domino": domino,
    "spotlight": spotlight,
    "SliceLine": sliceline,
    "SpRAy": spray,
}


def _ranked(members: tuple[int, ...] | NDArray[np.int64], count: int) -> NDArray[np.float64]:
    score = np.zeros(count)
    score[list(members)] = 1 + np.arange(len(members), 0, -1)
    return score


def precision(found: Scores, inside: NDArray[np.bool_]) -> float:
    """At ten, of the slice that holds the planted one best."""
    tops = [np.argsort(-score, kind="stable")[:AT] for score in found]
    return max((float(inside[top][found[k][top] > 0].sum() / AT) for k, top in enumerate(tops)), default=0.0)
