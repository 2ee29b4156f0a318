"""Regions of a segmentation network beside true masks: which pieces are missed or false, and which are misplaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label
from torch import Tensor

from pellucid.audit.boxes import JudgedPart
from pellucid.errors import DataError
from pellucid.media import Geometry
from pellucid.truth import Annotated
from pellucid.truth.annotations import Place
from pellucid.truth.matching import TOUCHES
from pellucid.truth.outlines import Mask

SMALLEST = 0.0005  # of the picture: smaller pieces are specks
_TOUCHING = np.ones((3, 3))  # pixels that meet at a corner are of one piece

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A picture's classes, pixel by pixel.

    Attributes:
        masks: by label, `(H, W)`.
        unjudged: `(H, W)`, pixels that count for nothing.
    """

    masks: Mapping[str, Mask]
    unjudged: Mask

    @classmethod
    def true(cls, there: Annotated, size: tuple[int, int]) -> Segmentation:
        """Of annotations; what is ignored, or marked so, is not judged.

        Raises:
            DataError: an object has no outline.
        """
        unjudged = np.zeros(size, bool) if there.unjudged is None else there.unjudged.mask(size).copy()
        masks: dict[str, Mask] = {}
        for each in there.objects:
            mask = each.mask(size)
            if mask is None:
                raise DataError(
                    f"{each.label} in {there.name} has a box only, and regions are judged by masks: give mask PNGs, or "
                    "a COCO file with segmentations."
                )
            if each.ignored:
                unjudged |= mask
            else:
                masks[each.label] = masks[each.label] | mask if each.label in masks else mask
        return cls(masks, unjudged)


def answered(scores: Tensor, geometry: Geometry) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The class of each pixel of the picture, and by how much its score is ahead of the second's.

    Scores, not classes, are spread over the picture: an edge lies where two of them are equal. A single column is the
    logit of class 1.

    Args:
        scores: `(C, h, w)`.
        geometry: of the picture.

    Returns:
        `(H, W)`, -1 where the model saw nothing; and `(H, W)`.
    """
    columns = scores.float() if len(scores) > 1 else torch.cat([torch.zeros_like(scores), scores]).float()
    first = geometry.to_source(columns[0])
    second, classes = torch.full_like(first, -torch.inf), torch.where(first.isnan(), -1, 0)
    for k in range(1, len(columns)):  # one at a time: a street has 20 classes and 2 million pixels
        values = geometry.to_source(columns[k])
        ahead = values > first
        second = torch.where(ahead, first, torch.maximum(second, values))
        classes, first = torch.where(ahead, k, classes), torch.where(ahead, values, first)
    return classes.numpy(), (first - second).nan_to_num(0, 0, 0).numpy()


def judged_regions(
    truth: Segmentation, answers: Mapping[str, Mask], lead: Floats, least: float, smallest: float = SMALLEST
) -> tuple[list[JudgedPart], int]:
    """True pieces, then those that are answered; and how many specks were left out.

    A piece is a connected part of one class. A true one is measured by the adjusted overlap of pieces (Chan et al.
    2021, sIoU): it beside all answered pieces of its class that meet it, less what of these lies in other true pieces;
    so one answer over two objects finds both. It is found from `least` on, misplaced from a tenth on, else missed. An
    answered piece is right if at least the share `least` of it is truly of its class.

    Args:
        truth: of the picture.
        answers: by label, `(H, W)`; labels that are missing here are not judged.
        lead: `(H, W)`, see `answered`.
        least: overlap, and share, from which a piece is found or right.
        smallest: share of the picture below which a piece is a speck.
    """
    pixels = smallest * lead.size
    true = {name: _Pieces.of(truth.masks.get(name, np.zeros(lead.shape, bool))) for name in answers}
    unjudged = truth.unjudged.copy()
    for pieces in true.values():
        unjudged |= np.isin(pieces.numbers, 1 + np.flatnonzero(pieces.areas < pixels))
    objects, said, specks = list[JudgedPart](), list[JudgedPart](), 0
    for name, mask in answers.items():
        own = _Pieces.of(mask)
        common = _common(true[name], own, ~unjudged)
        objects += _true_parts(name, true[name], common, own.mean(lead), least)
        specks += int((own.areas < pixels).sum())
        large = (own.areas >= pixels) & (common[:, 1:].sum(0) >= np.maximum(least * own.areas, 1))
        others = [m & ~unjudged for other, m in truth.masks.items() if other != name]
        said += _answered_parts(name, own, common, (others, lead, large), least)
    return [*objects, *said], specks


def _true_parts(name: str, true: _Pieces, common: Floats, sure: Floats, least: float) -> Iterator[JudgedPart]:
    """The true pieces of a class, beside what is answered; `sure`: of each answered piece."""
    overlaps = _adjusted(common)
    for k in map(int, np.flatnonzero(common[1:].sum(1))):
        share = float(overlaps[k])
        verdict = "found" if share >= least else "misplaced" if share >= TOUCHES else "missed"
        score = float(sure[common[k + 1, 1:] > 0].max()) if verdict == "found" else -1.0
        yield JudgedPart(name, true.box(k), verdict, "", score, share, true.region(k))


def _answered_parts(
    name: str, own: _Pieces, common: Floats, beside: tuple[Sequence[Mask], Floats, Mask], least: float
) -> Iterator[JudgedPart]:
    """The answered pieces of a class; `beside`: the other classes' true masks, the lead, and which pieces count."""
    others, lead, counts = beside
    sure = own.mean(lead)
    for j in map(int, np.flatnonzero(counts)):
        judged, region = common[:, j + 1].sum(), own.region(j)
        same = float(common[1:, j + 1].sum() / judged)
        other = max((float((m[own.slices[j]] & region).sum() / judged) for m in others), default=0.0)
        fault = "" if same >= least else _fault(same, other, least)
        share = max(same, other) if fault else same
        yield JudgedPart(name, own.box(j), "false" if fault else "right", fault, float(sure[j]), share, region)


@dataclass(frozen=True, eq=False)
class _Pieces:
    """P connected pieces: their numbers from 1 on `(H, W)`, where each lies, and their pixels `(P,)`."""

    numbers: NDArray[np.int64]
    slices: Sequence[tuple[slice, slice]]
    areas: NDArray[np.int64]

    @classmethod
    def of(cls, mask: Mask) -> _Pieces:
        numbers, count = label(mask, structure=_TOUCHING)
        found = np.asarray(numbers, np.int64)
        return cls(found, find_objects(found), np.bincount(found.ravel(), minlength=count + 1)[1:])

    def region(self, k: int) -> Mask:
        """Its pixels in the box around it."""
        found: Mask = self.numbers[self.slices[k]] == k + 1
        return found

    def box(self, k: int) -> Place:
        rows, columns = self.slices[k]
        return float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)

    def mean(self, values: Floats) -> NDArray[np.float64]:
        """Of values `(H, W)` over each piece."""
        sums = np.bincount(self.numbers.ravel(), values.ravel().astype(np.float64), len(self.areas) + 1)
        return sums[1:] / np.maximum(self.areas, 1)


def _common(true: _Pieces, own: _Pieces, judged: Mask) -> NDArray[np.float64]:
    """Pixels that piece k and piece j have in common, `(1 + true, 1 + own)`; number 0 is what lies in none."""
    shape = len(true.areas) + 1, len(own.areas) + 1
    both = true.numbers[judged] * shape[1] + own.numbers[judged]
    return np.bincount(both, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)


def _adjusted(common: Floats) -> NDArray[np.float64]:
    """The adjusted overlap of each true piece, `(true,)`."""
    inner = common[1:, 1:]
    met = inner > 0
    areas, elsewhere = common[:, 1:].sum(0), inner.sum(0)
    shared = inner.sum(1)
    beside = (met * (areas - elsewhere)).sum(1)  # of what meets it, the part that lies in no true piece
    found: NDArray[np.float64] = shared / np.maximum(common[1:].sum(1) + beside, 1)
    return found


def _fault(same: float, other: float, least: float) -> str:
    """What is wrong with a false piece: as of boxes, in the order of TIDE (Bolya et al. 2020)."""
    if other >= least:
        return "class"
    if same >= TOUCHES:
        return "place"
    return "place and class" if other >= TOUCHES else "nothing"
