"""Targets of segmentation networks: why these places are of that class."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import AbsentError, TargetError
from pellucid.media.geometry import Geometry
from pellucid.models.dense import Mask, dense_scores, pieces, winners
from pellucid.models.targets.base import Labels, Target, target
from pellucid.models.targets.classes import index_or_label, label_of, resolve_class
from pellucid.models.targets.places import cell, on_input, point, read_mask, said, shares, whole

PARTS = ("all", "iou", "error")
_TEXT = re.compile(
    r"region(?::(?P<which>[^@/#]*))?(?:#(?P<piece>\d+))?(?:@(?P<at>[^/]*))?(?:/(?P<part>\w+)(?:=(?P<truth>.+))?)?"
)


@dataclass(frozen=True)
class _Middle(Target):
    """What is answered to the place in the middle, of which any other is a shifted copy."""

    output: str = ""

    def __call__(self, output: Any) -> Tensor:
        """The greatest score of a class there, `(N,)`."""
        scores = dense_scores(output, self.output or None)
        middle: tuple[Any, ...] = (..., *(size // 2 for size in scores.shape[2:]))
        return scores[middle].amax(1)


@target("region", form="region:LABEL[#PIECE][@X,Y][/all|iou|error=MASK]")
@dataclass(frozen=True)
class RegionTarget(Target):
    """A region of a segmentation network of pictures or volumes: the places that it gives to one class.

    Its score is the mean, over those places of the untouched picture, of the class's score: what Seg-Grad-CAM
    (Vinogradova et al. 2020) sums. `all` is the mean over all places of the picture, whatever class they have; `iou`
    how well the places of the class now overlap those of the untouched picture (it has no gradient); `error`, with a
    true mask, is the mean, over the places where the network errs, of the score of the class that it gives less that
    of the class that would be right.

    Args:
        label: the class, by name or number; None: of the region on `rank`, the largest being 0.
        piece: only one connected piece of it, by size, from 1.
        at: only one place, whatever class it has: `(x, y)` in the original picture's pixels, or `(i, j, k)` in a
            volume's own grid.
        mm: whether `at` is in millimetres to the patient's Right, Anterior and Superior.
        part: one of the parts, or empty.
        truth: of `error`: a picture (of a volume NIfTI) of the original's size, not zero where the class truly is.

    Raises:
        AbsentError: the picture has no such region.
        TargetError: there is no such part, or the model gives no classes to places.
    """

    label: int | str | None = None
    piece: int | None = None
    at: tuple[float, ...] | None = None
    part: str = ""
    truth: str = ""
    rank: int = 0
    mm: bool = False
    output: str = ""  # the part of the output that holds the scores
    index: int | None = None  # of the class, resolved
    points: tuple[tuple[float, ...], ...] = ()  # `at` as shares of the axes of the model's input, for each sample
    truths: tuple[Mask, ...] = ()  # on the model's input, for each sample
    classes: tuple[int, ...] = ()  # for each sample
    masks: tuple[Mask, ...] = ()  # the places that are meant, for each sample

    def __post_init__(self) -> None:
        if self.part and self.part not in PARTS:
            raise TargetError(f"A region has no part {self.part!r}: ask for {', '.join(PARTS)}.")
        if (self.part == "error") != bool(self.truth):
            raise TargetError("An error is one beside a true mask: write region:LABEL/error=MASK.png.")
        if self.part == "error" and self.label is None:
            raise TargetError("A true mask is one of a class: write region:LABEL/error=MASK.png.")

    @property
    def files(self) -> tuple[str, ...]:
        """The true mask."""
        return (self.truth,) if self.truth else ()

    def read_in(self, part: str) -> RegionTarget:
        """This region of a model whose scores stand in that part of its output."""
        return replace(self, output=part) if part and not self.output else self

    def bind(self, module: nn.Module, inputs: Tensor, labels: Labels) -> RegionTarget:
        """The label resolved; a place without a picture is one on the input itself."""
        index = None if self.label is None else resolve_class(self.label, labels)
        points = self.points
        if self.at is not None and not points:
            points = (shares(self.at, inputs.shape[2:], mm=self.mm),) * len(inputs)
        truths = self.truths
        if self.truth and not truths:
            truths = (Mask.of(whole(read_mask(self.truth))),) * len(inputs)
        return replace(self, index=index, points=points, truths=truths)

    def placed(self, geometries: Sequence[Geometry]) -> RegionTarget:
        """The place, or the true mask, on each picture's input.

        Raises:
            AbsentError: the place lies outside of what the model sees, or the mask has another size.
        """
        changed = self
        if self.at is not None:
            changed = replace(changed, points=tuple(point(self.at, g, mm=self.mm) for g in geometries))
        if self.truth:
            mask = read_mask(self.truth)
            changed = replace(changed, truths=tuple(Mask.of(on_input(mask, g, self.truth)) for g in geometries))
        return changed

    def freeze(self, output: Any) -> RegionTarget:
        """The places of the untouched pictures that are meant, fixed."""
        if self.masks:
            return self
        scores = dense_scores(output, self.output or None).detach()
        won = winners(scores)
        chosen = [self._meant(won[n], n) for n in range(len(scores))]
        return replace(self, classes=tuple(c for c, _ in chosen), masks=tuple(Mask.of(m) for _, m in chosen))

    def _meant(self, won: Tensor, n: int) -> tuple[int, Tensor]:
        """The class and the places of sample n, from the classes `(*grid)` that the network gives."""
        index = self.index
        if self.at is not None:
            places = torch.zeros_like(won, dtype=torch.bool)
            places[cell(self.points[n], won.shape)] = True
            return int(won[places]) if index is None else index, places
        if index is None:
            counts = torch.bincount(won.flatten())
            there = int((counts > 0).sum())
            if self.rank >= there:
                raise AbsentError(f"The picture has {there} regions, so there is none of rank {self.rank}.")
            index = int(counts.argsort(descending=True, stable=True)[self.rank])
        places = won == index
        if self.part == "error":
            truth = self.truths[n].places()[None, None].float()
            true = nn.functional.interpolate(truth, tuple(won.shape), mode="nearest")[0, 0].bool().to(won.device)
            places = places != true
            if not places.any():
                raise AbsentError("The network makes no error beside this mask, so there is none to explain.")
        elif not places.any() and self.part != "all":
            raise AbsentError(
                f"The network gives no place of this picture to {self.label!r}: ask of one, region:{self.label}@x,y."
            )
        if self.part == "all":
            places = torch.ones_like(places)
        if self.piece is not None:
            found = pieces(places)
            if not 1 <= self.piece <= len(found):
                raise AbsentError(f"The region has {len(found)} connected pieces, the largest being #1.")
            places = found[self.piece - 1].to(places.device)
        return index, places

    def select(self, rows: Tensor) -> RegionTarget:
        """The regions of these samples."""
        chosen = rows.tolist()
        kept: dict[str, Any] = {}
        for name in ("points", "truths", "classes", "masks"):
            values = getattr(self, name)
            kept[name] = tuple(values[r] for r in chosen) if values else ()
        return replace(self, **kept)

    def __call__(self, output: Any) -> Tensor:
        """The mean score of the class over the places, or the number that the part asks for."""
        if not self.masks:
            return self.freeze(output)(output)
        scores = dense_scores(output, self.output or None)
        count = len(scores)  # the layer probe runs one sample: any of the regions serves there
        places = torch.stack([mask.places() for mask in self.masks[:count]]).to(scores.device)
        classes = torch.tensor(self.classes[:count], device=scores.device)
        column = _column(scores, classes)
        if self.part == "iou":
            now = winners(scores) == _spread(classes, places)
            return (now & places).flatten(1).sum(1).float() / (now | places).flatten(1).sum(1).clamp(min=1)
        if self.part == "error":
            column = self._wrong(scores, column, places, classes)
        return (column * places).flatten(1).sum(1) / places.flatten(1).sum(1).clamp(min=1)

    def _wrong(self, scores: Tensor, column: Tensor, places: Tensor, classes: Tensor) -> Tensor:
        """At each place of an error, the score of what is given less that of what is right, `(N, h, w)`.

        A place that is falsely given to the class should be any other; one that is missed should be the class.
        """
        own = _spread(classes, scores).expand(-1, 1, *scores.shape[2:])
        others = scores.scatter(1, own, float("-inf")).amax(1)
        size = tuple(scores.shape[2:])
        truths = torch.stack([t.places() for t in self.truths[: len(scores)]])[:, None].float()
        true = nn.functional.interpolate(truths, size, mode="nearest")[:, 0].bool().to(scores.device)
        return torch.where(true, others - column, column - others)

    @property
    def kind(self) -> Hashable:
        """All regions share a layer."""
        return "region", self.output

    @property
    def typical(self) -> Target:
        """One place: the last layer that sees most of the picture's cells from there, whatever the region's size."""
        return _Middle(self.output)

    @property
    def way(self) -> Hashable:
        """Of places that a network with a narrow view answers, each has its own cells."""
        return self.kind, self.masks

    def marks(self) -> dict[str, Tensor]:
        """`region`: the places asked for, bool `(N, h, w)`, over the model's input."""
        return {"region": torch.stack([m.places() for m in self.masks])} if self.masks and self.part != "all" else {}

    def name(self, labels: Labels) -> str:
        """`road`, `car, piece 2`, `road at 120,40`, `error of road`."""
        index = self.classes[0] if len(self.classes) == 1 else self.index
        label = label_of(index, labels) if index is not None else f"region of rank {self.rank}"
        piece = "" if self.piece is None else f", piece {self.piece}"
        where = "" if self.at is None else f" at {said(self.at, mm=self.mm)}"
        part = {"all": "everywhere, score of ", "iou": "overlap of ", "error": "error of "}.get(self.part, "")
        return f"{part}{label}{piece}{where}"

    def spec(self) -> str:
        """`region:LABEL` with `#PIECE`, `@X,Y` and `/PART`."""
        if self.label is None and self.rank and self.at is None:
            return f"top:{self.rank}"
        piece = "" if self.piece is None else f"#{self.piece}"
        at = "" if self.at is None else f"@{said(self.at, mm=self.mm)}"
        part = f"/{self.part}" if self.part else ""
        truth = f"={self.truth}" if self.truth else ""
        return f"region:{'' if self.label is None else self.label}{piece}{at}{part}{truth}"

    @classmethod
    def read(cls, text: str) -> RegionTarget | None:
        """As `spec` writes it; `region` alone is the largest."""
        if re.split(r"[:/#@]", text, maxsplit=1)[0] != "region" or re.search(r">\s*region\b", text):
            return None
        match = _TEXT.fullmatch(text)
        try:
            typed = match["at"].strip() if match and match["at"] is not None else None
            at = None if typed is None else tuple(float(v) for v in typed.removesuffix("mm").split(","))
        except ValueError:
            at = ()
        mm = typed is not None and typed.endswith("mm")
        if match is None or (at is not None and len(at) not in ((3,) if mm else (2, 3))):
            raise TargetError(
                f"{text!r} is no region: write region:LABEL, region:LABEL#1 or region:LABEL@x,y, with /PART if any; of "
                "a volume region:LABEL@i,j,k or region:LABEL@x,y,zmm."
            )
        which = (match["which"] or "").strip()
        return cls(
            label=index_or_label(which) if which else None,
            piece=int(match["piece"]) if match["piece"] else None,
            at=at,
            mm=mm,
            part=match["part"] or "",
            truth=match["truth"] or "",
        )


def _column(scores: Tensor, classes: Tensor) -> Tensor:
    """Each sample's own class, `(N, h, w)`; of a single column the second class is it, the first its opposite."""
    if scores.shape[1] == 1:
        return torch.where(_spread(classes, scores[:, 0]) == 1, scores[:, 0], -scores[:, 0])
    if int(classes.max()) >= scores.shape[1]:
        raise TargetError(f"Class {int(classes.max())} is out of range: the model has {scores.shape[1]} classes.")
    column: Tensor = scores[torch.arange(len(scores), device=scores.device), classes]
    return column


def _spread(classes: Tensor, over: Tensor) -> Tensor:
    """Classes `(N,)` with as many axes as that has."""
    return classes.reshape(-1, *[1] * (over.ndim - 1))
