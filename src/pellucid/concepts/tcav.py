"""TCAV: does the score of a class rise in the direction of a concept, more than in directions of random pictures?

    S_i = <v, dy/da_i>                     how much the score of picture i changes on the way to the concept
    score = share of the class's pictures with S_i > 0
    effect = mean of S_i                   in units of the score; v is one step from other pictures to the concept's

Kim et al. 2018 (arXiv:1711.11279). Their test compares scores of repeated runs, which share the concept's pictures
and so are not independent: it calls random concepts significant far too often. Here the null hypothesis is that the
concept's pictures are drawn like the random ones, and the test is exact under it: concept and random pictures are
shuffled, and the effect must be larger than that of nearly all the random sets so made. The effect is tested and not
the score, because behind a linear tail the derivative is the same for all pictures and the score can only be 0 or 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.concepts.cav import Kind, concept_vector, separation
from pellucid.engine import Capture
from pellucid.errors import DataError
from pellucid.media import Pictures
from pellucid.models.model import VisionModel
from pellucid.models.places import Places
from pellucid.models.targets import Target, TargetLike, as_target
from pellucid.numerics.statistics import Correction, adjusted
from pellucid.progress import task

_POWER = 0.8416  # standard normal quantile of 80 %

Rows = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Tested:
    """One concept on one class.

    Attributes:
        concept, target: their names.
        score: share of the class's pictures whose score rises towards the concept, in [0, 1].
        effect: how much it rises on average by one step to the concept.
        p: chance that a random set of pictures has as large an effect; `adjusted` for all that were tested together.
        significant: `adjusted` is at most the level.
        separation: held-out area under the ROC curve of the concept against random pictures.
        detectable: the smallest effect that would be called significant four times in five.
        pictures: of the concept; `random`: of those it was compared with; `looked`: of the class.
        notes: what a reader must know.
    """

    concept: str
    target: str
    score: float
    effect: float
    p: float
    adjusted: float
    significant: bool
    separation: float
    detectable: float
    pictures: int
    random: int
    looked: int
    notes: tuple[str, ...] = ()


def permutation_test(
    concept: Rows, random: Rows, gradients: Rows, kind: Kind = "pattern", draws: int = 999, seed: int = 0
) -> tuple[float, float, NDArray[np.float64]]:
    """Is the effect of the concept's direction larger than that of random sets of pictures?

    Args:
        concept: `(n, C)` activations of the concept's pictures.
        random: `(m, C)` of random ones.
        gradients: `(N, C)` of the score, at the class's pictures.
        kind: see `concept_vector`.
        draws: random sets, drawn from all the pictures without putting back.
        seed: of the draws.

    Returns:
        The effect; its two-sided p-value, exact whatever the distributions: `(1 + those as large) / (1 + draws)`; and
        the effects of the random sets.
    """
    everything = np.concatenate([concept, random]).astype(np.float64)
    slope = np.asarray(gradients, np.float64).mean(0)
    generator = np.random.default_rng(seed)
    n = len(concept)
    own = float(concept_vector(concept, random, kind) @ slope)
    if kind == "pattern":  # linear in the pictures: all sets at once
        along = everything @ slope
        rest = len(along) - n
        sums = np.array([along[generator.permutation(len(along))[:n]].sum() for _ in range(draws)])
        effects = sums / n - (along.sum() - sums) / rest
    else:
        effects = np.empty(draws)
        with task("random concepts", draws) as advance:
            for k in range(draws):
                order = generator.permutation(len(everything))
                effects[k] = concept_vector(everything[order[:n]], everything[order[n:]], kind) @ slope
                advance(1)
    extreme = np.abs(effects) >= abs(own) * (1 - 1e-12)
    return own, float((1 + extreme.sum()) / (1 + draws)), effects


def derivatives(
    model: VisionModel, pictures: Pictures, layer: str, target: TargetLike = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Activations and the score's gradients to them, for each picture `(N, C)`.

    The activation is the mean over places, so the gradient is the sum over them: the change of the score when every
    place moves alike.
    """
    rows, slopes = [], []
    with task("derivatives", len(pictures)) as advance:
        size = model.batch
        for start in range(0, len(pictures), size):
            given = [model.pictures(pictures.read(i))[0] for i in range(start, min(start + size, len(pictures)))]
            x = torch.stack(given).to(model.device, model.dtype)
            bound = model.bound(as_target(target), x)
            places = Places(model.module, layer)
            places.layout(x)
            with Capture(model.module, [layer]) as capture:
                _, scores = capture.scored(x, partial(_scored, bound))
                A = places.rows(capture.activations[layer].detach().float(), x).flatten(1, -2)
                G = places.rows(capture.gradients(scores)[0][layer].float(), x).flatten(1, -2)
            rows.append(A.mean(1).cpu().numpy())
            slopes.append(G.sum(1).cpu().numpy())
            advance(len(x))
    return np.concatenate(rows), np.concatenate(slopes)


def _scored(target: Target, output: Any, watched: Mapping[str, Tensor]) -> list[Tensor]:
    return [target.score(output, watched)]


def tcav(
    concepts: Mapping[str, Rows],
    random: Rows,
    gradients: Mapping[str, Rows],
    *,
    kind: Kind = "pattern",
    level: float = 0.05,
    correction: Correction = "holm",
    draws: int | None = None,
    seed: int = 0,
) -> list[Tested]:
    """Test concepts on classes, all together.

    Args:
        concepts: name -> activations `(n, C)` of pictures that show it, pooled over places (see `models.features`).
        random: `(m, C)` of pictures like those of the concepts in all but the concept (see `like`).
        gradients: class -> `(N, C)`, from `derivatives`.
        kind: how the direction is found.
        level: at most this chance of any false discovery (`holm`), or share of false ones (`bh`).
        correction: for many tests.
        draws: random sets; None: enough for the number of tests, at least 999 (of logistic vectors at least 199).
        seed: of the draws.

    Raises:
        DataError: too few pictures for any result to be significant; the message says how many it takes.
    """
    tests = max(1, len(concepts) * len(gradients))
    fewest = 1 / level * (tests if correction == "holm" else 1)
    spend = draws if draws is not None else max(999 if kind == "pattern" else 199, int(np.ceil(4 * fewest)) - 1)
    if spend + 1 < fewest:
        raise DataError(
            f"With {spend} random sets no result of {tests} tests can be significant at {level:g}: draw at least "
            f"{int(np.ceil(fewest)) - 1}."
        )
    found = []
    for name, P in concepts.items():
        _check(name, P, random, fewest)
        v = concept_vector(P, random, kind)
        apart = separation(P, random, kind, seed=seed)
        for target, G in gradients.items():
            effect, p, effects = permutation_test(P, random, G, kind, spend, seed)
            found.append((name, target, P, G, v, apart, effect, p, effects))
    corrected = adjusted([row[7] for row in found], correction)
    results = []
    for (name, target, P, G, v, apart, effect, p, effects), q in zip(found, corrected, strict=True):
        needed = float(np.quantile(np.abs(effects), max(0.0, 1 - level / (tests if correction == "holm" else 1))))
        results.append(
            Tested(
                concept=name,
                target=target,
                score=float((np.asarray(G, np.float64) @ v > 0).mean()),
                effect=effect,
                p=p,
                adjusted=float(q),
                significant=bool(q <= level),
                separation=apart,
                detectable=needed + _POWER * float(effects.std()),
                pictures=len(P),
                random=len(random),
                looked=len(G),
                notes=_notes(len(P), apart, effect, needed + _POWER * float(effects.std())),
            )
        )
    return results


def _check(name: str, P: Rows, random: Rows, fewest: float) -> None:
    from math import comb

    if len(random) < 2 or len(P) < 2:
        raise DataError(
            f"The concept {name!r} has {len(P)} pictures and there are {len(random)} random ones: give at least 2 of "
            "each, better 30."
        )
    if comb(len(P) + len(random), len(P)) < fewest:
        raise DataError(
            f"{len(P)} pictures of {name!r} and {len(random)} random ones can be shuffled in fewer than {fewest:.0f} "
            "ways, so no result can be significant: give more of both."
        )


def _notes(pictures: int, apart: float, effect: float, detectable: float) -> tuple[str, ...]:
    notes = []
    if abs(effect) < detectable:
        notes.append(
            f"From {pictures} pictures only effects of {detectable:.3g} or more are found four times in five: a "
            "smaller one may still be there."
        )
    if np.isfinite(apart) and apart < 0.7:
        notes.append(f"The layer hardly tells the concept from random pictures (area {apart:.2f}): try another layer.")
    return tuple(notes)


def like(concept: Pictures, pool: Pictures, count: int) -> list[int]:
    """Random pictures that are like a concept's in domain: `count` numbers of `pool`.

    For each of the concept's pictures in turn the nearest still free one is taken, in mean, spread and colour of the
    pixels, their sharpness and the aspect. Pictures of another kind of camera or background would make any concept
    significant.

    Raises:
        DataError: the pool has fewer pictures than asked for.
    """
    if count > len(pool):
        raise DataError(f"{count} random pictures can't be drawn from {len(pool)}: give a larger folder.")
    own, other = (np.stack([_look(p.read(i).pil()) for i in range(len(p))]) for p in (concept, pool))
    centre, spread = other.mean(0), np.maximum(other.std(0), 1e-6)
    distance = np.linalg.norm((own[:, None] - centre) / spread - ((other - centre) / spread)[None], axis=2)
    chosen: list[int] = []
    for k in range(count):
        nearest = distance[k % len(own)]
        pick = int(np.argmin(nearest))
        chosen.append(pick)
        distance[:, pick] = np.inf
    return sorted(chosen)


def _look(image: Any) -> NDArray[np.float64]:
    """What a picture is like apart from what it shows: colour, contrast, sharpness, aspect."""
    small = np.asarray(image.resize((64, 64)), np.float64) / 255
    edges = np.abs(np.diff(small.mean(2), axis=0)).mean() + np.abs(np.diff(small.mean(2), axis=1)).mean()
    figures = [*small.mean((0, 1)), *small.std((0, 1)), edges, np.log(image.width / image.height)]
    return cast("NDArray[np.float64]", np.array(figures))


def lines_of(results: Sequence[Tested]) -> list[str]:
    """One plain line a test."""
    lines = []
    for t in results:
        verdict = "significant" if t.significant else "not significant"
        lines.append(
            f"{t.concept} for {t.target}: score {t.score:.2f}, effect {t.effect:+.3g}, {verdict} "
            f"(p {t.adjusted:.2g} after correction)"
        )
    return lines
