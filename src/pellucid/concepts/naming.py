"""What a concept is called: by regions that people have labelled, by folders of example pictures, or by words.

A name is a guess with a figure that says how good it is. A concept that fits nothing well stays without a name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.concepts.dictionary import Dictionary
from pellucid.errors import DataError, PellucidError
from pellucid.media import Geometry, Picture, Pictures
from pellucid.models.features import Features
from pellucid.numerics.statistics import adjusted
from pellucid.progress import task

IOU = 0.04
"""Least intersection over union for a name (Bau et al. 2017, sec. 3.1)."""

_TOP = 0.005  # share of the places of the data set at which a concept counts as there (the same)
_SIDE = 112  # pixels at which maps and regions are compared, along the longer side
_LEVEL = 0.05
_AREA = 0.8  # least area under the ROC curve for a name by examples


@dataclass(frozen=True)
class Name:
    """What a concept is called, how good the name is, and that in words."""

    name: str
    score: float
    words: str


NAMELESS = Name("", 0.0, "")


@dataclass
class Overlap:
    """Intersections and unions of K concepts with L labels, added up picture by picture."""

    thresholds: NDArray[np.floating[Any]]  # (K,)
    both: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    labelled: dict[str, float] = field(default_factory=dict)
    there: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def add(self, maps: NDArray[np.floating[Any]], regions: Mapping[str, NDArray[np.bool_]]) -> None:
        """One picture: concept maps `(K, H, W)` and where each label is `(H, W)`; NaN was not seen."""
        seen = np.isfinite(maps[0])
        above = (np.nan_to_num(maps, nan=-np.inf) > self.thresholds[:, None, None]) & seen
        if not len(self.there):
            self.there = np.zeros(len(maps))
        self.there += above.sum((1, 2))
        for name, region in regions.items():
            self.both[name] = self.both.get(name, 0.0) + (above & region).sum((1, 2))
            self.labelled[name] = self.labelled.get(name, 0.0) + float((region & seen).sum())

    def iou(self) -> tuple[list[str], NDArray[np.float64]]:
        """Labels, and `(K, L)` intersection over union over the whole data set."""
        names = sorted(self.both)
        both = np.stack([self.both[n] for n in names], 1)
        either = self.there[:, None] + np.array([self.labelled[n] for n in names]) - both
        return names, both / np.maximum(either, 1)


def by_regions(
    features: Features,
    dictionary: Dictionary,
    regions: Callable[[int], Mapping[str, NDArray[np.bool_]]],
    least: float = IOU,
) -> list[Name]:
    """Names by labelled regions, as in network dissection (Bau et al. 2017, arXiv:1704.05796).

    A concept is there where it is above its 99.5 % quantile over the data set; its name is the label whose regions
    overlap with that best (intersection over union, over the whole data set), if by at least `least`.

    Args:
        features: places of the pictures.
        dictionary: of the concepts.
        regions: number of a picture -> label -> where it is, `(H, W)` in the ORIGINAL picture's pixels.
        least: overlap below which a concept has no name.
    """
    if not features.grid:
        raise DataError("Regions name concepts at places: extract the features with pool=None.")
    codes = _sampled_codes(features, dictionary)
    overlap = Overlap(np.quantile(codes, 1 - _TOP, axis=0))
    with task("regions", len(features)) as advance:
        for i in range(len(features)):
            values = dictionary.encode(np.array(features.values[i]).reshape(-1, features.channels))
            maps = torch.from_numpy(values.T.reshape(-1, *features.grid))
            small = _small(features.geometries[i])
            where = {name: _shrunk(mask, small.source_size) for name, mask in regions(i).items()}
            overlap.add(small.to_source(maps).numpy(), where)
            advance(1)
    if not overlap.both:
        raise DataError("None of the pictures has a labelled region: check the folder of regions and their names.")
    names, iou = overlap.iou()
    best = iou.argmax(1)
    return [
        Name(names[n], float(iou[k, n]), f"overlap {iou[k, n]:.2f}") if iou[k, n] >= least else NAMELESS
        for k, n in enumerate(best)
    ]


def _sampled_codes(features: Features, dictionary: Dictionary, limit: int = 50_000) -> NDArray[np.float32]:
    tokens = features.tokens()
    step = max(1, len(tokens) // limit)
    return dictionary.encode(np.array(tokens[::step]))


def _small(geometry: Geometry) -> Geometry:
    """The same view of a smaller original: enough for overlaps, and quick."""
    from dataclasses import replace

    scale = min(1.0, _SIDE / max(geometry.source_size))
    size = tuple(max(1, round(n * scale)) for n in geometry.source_size)
    ratios = [s / n for s, n in zip(size, geometry.source_size, strict=True)]
    box = tuple((start * r, stop * r) for (start, stop), r in zip(geometry.box, ratios, strict=True))
    return replace(geometry, source_size=size, box=box)


def _shrunk(mask: NDArray[np.bool_], size: Sequence[int]) -> NDArray[np.bool_]:
    rows, columns = ((np.arange(n) + 0.5) * m / n for n, m in zip(size, mask.shape, strict=True))
    small: NDArray[np.bool_] = mask[rows.astype(int)][:, columns.astype(int)]
    return small


def responses(features: Features, dictionary: Dictionary) -> NDArray[np.float32]:
    """How much each concept responds to each picture at its strongest place, `(N, K)`."""
    rows = [
        dictionary.encode(np.array(features.values[i]).reshape(-1, features.channels)).max(0)
        for i in range(len(features))
    ]
    return np.stack(rows)


def by_examples(dictionary: Dictionary, examples: Features, least: float = _AREA, level: float = _LEVEL) -> list[Name]:
    """Names by folders of example pictures, one for each attribute (stripes, fur, wheels ...).

    A concept's response to a picture is its strongest place; its name is the attribute whose pictures it tells best
    from all the others (area under the ROC curve), if the area is at least `least` and significant after Holm's
    correction for all pairs (Mann-Whitney test).

    Args:
        dictionary: of the concepts.
        examples: labelled features of the same layer, unpooled.
        least: area below which a concept has no name.
        level: of the test.
    """
    from scipy.stats import mannwhitneyu

    if not len(examples.labels) or len(examples.pictures.classes) < 2:
        raise DataError("Example pictures lie in at least two sub-folders, each named for what its pictures show.")
    strongest = responses(examples, dictionary)
    count = len(examples.pictures.classes)
    areas, p = np.zeros((strongest.shape[1], count)), np.ones((strongest.shape[1], count))
    for c in range(count):
        own = examples.labels == c
        if not own.any() or own.all():
            continue
        test = mannwhitneyu(strongest[own], strongest[~own], alternative="greater", axis=0)
        areas[:, c] = test.statistic / (own.sum() * (~own).sum())
        p[:, c] = np.nan_to_num(test.pvalue, nan=1.0)
    sure = adjusted(p.ravel()).reshape(p.shape) <= level
    best = np.where(sure & (areas >= least), areas, 0).argmax(1)
    return [
        Name(examples.pictures.classes[c], float(areas[k, c]), f"area {areas[k, c]:.2f}")
        if sure[k, c] and areas[k, c] >= least
        else NAMELESS
        for k, c in enumerate(best)
    ]


Encoder = Callable[[Sequence[Picture]], NDArray[np.floating[Any]]]
"""Pictures -> embeddings `(n, d)` in the space of the words."""


def by_words(
    responses: NDArray[np.floating[Any]],
    pictures: NDArray[np.floating[Any]],
    words: NDArray[np.floating[Any]],
    names: Sequence[str],
    *,
    top: int = 100,
    sharpness: float = 10.0,
) -> list[Name]:
    """Names by words, from embeddings of pictures and words in one space: CLIP-Dissect's soft-WPMI.

        score(k, w) = mean over pictures i, weighted by how much k responds, of log P(w | i)  -  log P(w)

    Oikarinen & Weng 2023 (arXiv:2204.10965, eq. 5-7), with the responses of the `top` pictures stretched to [0, 1].

    Args:
        responses: `(N, K)`, how much each concept responds to each picture.
        pictures: `(N, d)` embeddings.
        words: `(W, d)` embeddings.
        names: the words.
        top: pictures that count, the strongest of each concept.
        sharpness: of `P(w | i) = softmax(sharpness * 10 cos)`.
    """
    E = pictures / np.linalg.norm(pictures, axis=1, keepdims=True)
    T = words / np.linalg.norm(words, axis=1, keepdims=True)
    logits = 10 * sharpness * (E @ T.T).astype(np.float64)
    logits -= logits.max(1, keepdims=True)
    P = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    prior = np.log(P.mean(0) + 1e-12)
    found = []
    for k in range(responses.shape[1]):
        order = np.argsort(-responses[:, k], kind="stable")[:top]
        strength = np.maximum(responses[order, k], 0)
        weight = strength / max(float(strength.max()), 1e-12)
        if not weight.any():
            found.append(NAMELESS)
            continue
        score = (weight @ np.log(P[order] + 1e-12)) / weight.sum() - prior
        best = int(score.argmax())
        found.append(Name(names[best], float(score[best]), f"words, {score[best]:.1f} nats"))
    return found


def clip_names(
    responses: NDArray[np.floating[Any]],
    pictures: Pictures,
    words: Sequence[str],
    model: str = "ViT-B-32",
    weights: str | None = None,
) -> list[Name]:
    """`by_words` with a CLIP model of open_clip (extra `clip`).

    Args:
        responses: `(N, K)`.
        pictures: the N pictures.
        words: what concepts may be called.
        model: open_clip's name of an architecture.
        weights: file of its weights, or a name that open_clip knows.

    Raises:
        PellucidError: open_clip is not installed, or the weights are not given or can't be loaded.
    """
    if weights is None:  # open_clip would take random ones
        raise PellucidError(
            "Words need a trained CLIP: give its weights, a file or a name that open_clip knows, such as "
            "laion2b_s34b_b79k (--clip, or clip=)."
        )
    try:
        import open_clip
    except ImportError as error:
        raise PellucidError('Words need open_clip: run `pip install "pellucid[clip]"`.') from error
    try:
        with torch.random.fork_rng(devices=()):  # it is filled with random numbers first
            net, _, prepare = open_clip.create_model_and_transforms(model, pretrained=weights)
        tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PellucidError(
            f"open_clip can't load {model!r} with weights {weights!r} ({reason}); name others."
        ) from error
    net.eval()
    seen = []
    with torch.no_grad(), task("CLIP", len(pictures)) as advance:
        texts = net.encode_text(tokenizer([f"a photo of {w}" for w in words])).float().numpy()
        for i in range(len(pictures)):
            seen.append(net.encode_image(prepare(pictures.read(i).pil())[None]).float().numpy()[0])
            advance(1)
    return by_words(responses, np.stack(seen), texts, words)
