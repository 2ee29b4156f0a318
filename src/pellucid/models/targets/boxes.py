"""Targets of detectors: why this box, of that class, just there; or why none."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import AbsentError, TargetError
from pellucid.media.geometry import Geometry
from pellucid.models.detections import Answered, Detections, overlaps
from pellucid.models.targets.base import Labels, Target, target
from pellucid.models.targets.classes import index_or_label, label_of, resolve_class

SIDES = ("left", "top", "right", "bottom")
PARTS = ("class", "objectness", *SIDES, "iou", "similarity")
_NEAR = 0.5  # IoU from which an answered box is the one that is asked for
_LEAST = 1e-6  # score that tells nothing
_FAR = 0.1  # IoU up to which a candidate lies elsewhere
_CONTRAST = re.compile(r">\s*box\b")
_TEXT = re.compile(r"box(?::(?P<which>[^@/]*))?(?:@(?P<at>[^/]*))?(?:/(?P<part>.*))?")

Place = tuple[float, float, float, float]


@dataclass(frozen=True)
class Asked:
    """One box that is asked for, fixed on the untouched picture.

    Attributes:
        place: `(x0, y0, x1, y1)` on the model's input.
        label: its class.
        classes: how likely the candidate behind it is of each class; empty where only one class is known.
        candidate: the number of that candidate, of detectors whose candidates are the same in every picture; else -1.
        answered: whether the detector ends with this box.
    """

    place: Place
    label: int
    classes: tuple[float, ...] = ()
    candidate: int = -1
    answered: bool = True


@dataclass(frozen=True)
class _AnyObject(Target):
    """How sure a detector is of anything anywhere: what all its boxes hang on."""

    def __call__(self, output: Any) -> Tensor:
        """The sum over all candidates of how likely they are any object, and of their most likely class."""
        found = Detections.of(output)
        classes = found.classes if found.labels is not None else found.classes.amax(-1)
        return (found.being() + classes).sum(1)


@target("box", form="box:N or box:LABEL[@X0,Y0,X1,Y1][/PART]")
@dataclass(frozen=True)
class BoxTarget(Target):
    """One box of a detector.

    Its score is how sure the detector is of the box, wherever it went: the greatest product, over all candidates, of
    the score for the box's class and the overlap (IoU) with the box. Gradients take the overlap as given.

    Parts ask one number of the candidate behind the box instead: `class` how likely it is of the box's class,
    `objectness` how likely any object, `left`, `top`, `right`, `bottom` where that side lies, in pixels of the model's
    input, `iou` how well it still overlaps. `similarity` is the score of D-RISE (Petsiuk et al. 2021, eq. 1): the
    greatest product of overlap, cosine of the class probabilities, and objectness.

    Args:
        number: of the box, the most certain being 0.
        label: the class, by name or number: its most certain box is meant, or the one at a place.
        at: `(x0, y0, x1, y1)` in the original picture's pixels: the answered box (of that class) that overlaps it most,
            by half at least; else that very place, of which the best candidate tells why no box is there.
        part: one of the parts, or empty.

    Raises:
        AbsentError: the picture has no such box.
        TargetError: there is no such part, or the model is no detector.
    """

    number: int | None = None
    label: int | str | None = None
    at: Place | None = None
    part: str = ""
    index: int | None = None  # of the class, resolved
    places: tuple[Place, ...] = ()  # `at` on the model's input, for each sample
    boxes: tuple[Asked, ...] = ()  # what is asked for, for each sample

    def __post_init__(self) -> None:
        if self.part and self.part not in PARTS:
            raise TargetError(f"A box has no part {self.part!r}: ask for {', '.join(PARTS)}.")
        if self.at is not None and not (self.at[0] < self.at[2] and self.at[1] < self.at[3]):
            raise TargetError(f"A box is written x0,y0,x1,y1, its left top corner first; {_shown(self.at)} is empty.")

    def bind(self, module: nn.Module, inputs: Tensor, labels: Labels) -> BoxTarget:
        """The label resolved; a place without a picture is one on the input itself."""
        index = None if self.label is None else resolve_class(self.label, labels)
        places = self.places or (() if self.at is None else (self.at,) * len(inputs))
        return replace(self, index=index, places=places)

    def placed(self, geometries: Sequence[Geometry]) -> BoxTarget:
        """The place on each picture's input.

        Raises:
            AbsentError: the model never sees it.
        """
        if self.at is None:
            return self
        places = []
        for geometry in geometries:
            place = geometry.input_box(self.at)
            height, width = geometry.input_size[-2:]
            if place[2] <= 0 or place[3] <= 0 or place[0] >= width or place[1] >= height:
                raise AbsentError(
                    f"The box {_shown(self.at)} lies outside of what the model sees of this picture of "
                    f"{geometry.source_size[-1]} x {geometry.source_size[-2]}: give x0,y0,x1,y1 in its pixels."
                )
            places.append(place)
        return replace(self, places=tuple(places))

    def freeze(self, output: Any) -> BoxTarget:
        """The boxes of the untouched pictures that are meant, fixed."""
        if self.boxes:
            return self
        found = Detections.of(output)
        with torch.no_grad():
            asked = [self._asked(found, n, each) for n, each in enumerate(found.answered())]
        return replace(self, boxes=tuple(asked))

    def select(self, rows: Tensor) -> BoxTarget:
        """The boxes of these samples."""
        chosen = rows.tolist()
        return replace(
            self,
            boxes=tuple(self.boxes[r] for r in chosen) if self.boxes else (),
            places=tuple(self.places[r] for r in chosen) if self.places else (),
        )

    def __call__(self, output: Any) -> Tensor:
        """The score, or the number that the part asks for."""
        if not self.boxes:
            return self.freeze(output)(output)
        found = Detections.of(output)
        asked = self.boxes[: len(found)]  # the layer probe runs one sample: any of the boxes serves there
        places, labels, vectors = (each.to(found.boxes.device) for each in _tensors(asked))
        boxes = found.placed(labels)
        near = overlaps(boxes.detach(), places.to(boxes)[:, None])  # (N, K)
        if not self.part:
            return (near * found.confidence(labels)).amax(1)
        if self.part == "similarity":
            return found.most_alike(near, vectors, labels)
        return self._number(found, asked, boxes, near, labels)

    def _number(self, found: Detections, asked: Sequence[Asked], boxes: Tensor, near: Tensor, labels: Tensor) -> Tensor:
        """The one number of the candidate behind each box, `(N,)`."""
        rows = torch.arange(len(asked), device=boxes.device)
        at = torch.tensor([a.candidate for a in asked], device=boxes.device)
        best = (near * found.confidence(labels).detach()).argmax(1)
        at = torch.where(at < 0, best, at)
        there = (near[rows, at] > 0) | found.fixed  # where no candidate is left, nothing is answered
        if self.part == "class":
            return found.chance(labels)[rows, at] * there
        if self.part == "objectness":
            if found.objectness is None:
                raise TargetError("This detector has no objectness apart from its classes: ask for /class.")
            return found.objectness[rows, at] * there
        places = torch.tensor([a.place for a in asked]).to(boxes)
        if self.part == "iou":
            return overlaps(boxes[rows, at], places)
        side = SIDES.index(self.part)
        return torch.where(there, boxes[rows, at, side], places[:, side])

    def _asked(self, found: Detections, n: int, answered: Answered) -> Asked:
        """The box of sample n that is meant."""
        chosen = self._chosen(answered, n)
        if chosen is None and (self.at is None or self.index is None):
            raise AbsentError(self._absent(answered))
        place = answered.boxes[chosen] if chosen is not None else torch.tensor(self.places[n]).to(found.boxes)
        label = int(answered.labels[chosen]) if chosen is not None else int(self.index or 0)
        labels = torch.full((len(found),), label, device=found.boxes.device)
        near = overlaps(found.placed(labels)[n].detach(), place)
        fit = near * (found.confidence(labels)[n].detach() + _LEAST)
        best = int(fit.argmax())
        classes: tuple[float, ...] = ()
        if found.labels is None:
            vector = (
                found.classes[n, best].detach() if chosen is not None else torch.eye(found.classes.shape[-1])[label]
            )
            classes = tuple(vector.tolist())
        x0, y0, x1, y1 = place.tolist()
        return Asked((x0, y0, x1, y1), label, classes, best if found.fixed else -1, chosen is not None)

    def _chosen(self, answered: Answered, n: int) -> int | None:
        """Which of the answered boxes is meant; None for none."""
        if self.number is not None:
            return self.number if self.number < len(answered.boxes) else None
        fits = torch.ones(len(answered.boxes)) if self.index is None else (answered.labels == self.index).float().cpu()
        if self.at is not None:
            shares = overlaps(answered.boxes, torch.tensor(self.places[n]).to(answered.boxes)).cpu()
            fits = fits * torch.where(shares >= _NEAR, shares, 0.0)
        return int(fits.argmax()) if len(fits) and bool(fits.max() > 0) else None

    def _absent(self, answered: Answered) -> str:
        count = len(answered.boxes)
        has = f"The detector answers {count or 'no'} box{'es' * (count != 1)} to this picture"
        if self.number is not None:
            return f"{has}, so there is no box {self.number}: ask why none is at a place, box:LABEL@x0,y0,x1,y1."
        if self.at is None:
            return f"{has}, none of class {self.label!r}: ask why none is at a place, box:{self.label}@x0,y0,x1,y1."
        return f"{has}, none at {_shown(self.at)}: name the class that is missed there, box:LABEL@{_shown(self.at)}."

    @property
    def kind(self) -> Hashable:
        """All boxes share a layer, where it is on the way to them."""
        return "box"

    @property
    def typical(self) -> Target:
        """Any object: no box stands out."""
        return _AnyObject()

    @property
    def way(self) -> Hashable:
        """Candidates may hang on different levels of a pyramid, each of which is beside the way to the others."""
        return self.kind, tuple(a.candidate for a in self.boxes)

    def marks(self) -> dict[str, Tensor]:
        """`box`: the boxes asked for, `(N, 4)`, on the model's input."""
        return {"box": torch.tensor([a.place for a in self.boxes])} if self.boxes else {}

    def remarks(self, output: Any, labels: Labels) -> list[list[str]]:
        """Of a place without a box, why there is none."""
        found = Detections.of(output)
        answered = found.answered()
        return [[] if a.answered else [why_none(found, answered[n], n, a, labels)] for n, a in enumerate(self.boxes)]

    def name(self, labels: Labels) -> str:
        """`box 0: person`, `no person at 120,40,260,310`; of a part `left side of ...`."""
        one = self.boxes[0] if len(self.boxes) == 1 else None
        label = label_of(one.label, labels) if one is not None else "" if self.label is None else str(self.label)
        named = "" if self.number is None else f"box {self.number}"
        named = ": ".join(filter(None, (named, label))) or "box"
        where = "" if self.at is None else f" at {','.join(f'{v:.0f}' for v in self.at)}"
        none = "no " if one is not None and not one.answered else ""
        part = {"": "", "iou": "overlap of ", "class": "class of ", "similarity": "similarity of "}.get(self.part)
        part = (
            part if part is not None else f"{self.part} of " if self.part == "objectness" else f"{self.part} side of "
        )
        return f"{part}{none}{named}{where}"

    def spec(self) -> str:
        """`box:N`, `box:LABEL`, `box:LABEL@X0,Y0,X1,Y1`, with `/PART`."""
        which = self.number if self.number is not None else "" if self.label is None else self.label
        at = "" if self.at is None else f"@{_shown(self.at)}"
        return f"box:{which}{at}{f'/{self.part}' if self.part else ''}"

    @classmethod
    def read(cls, text: str) -> BoxTarget | None:
        """As `spec` writes it; `box` alone is `box:0`."""
        if text.partition(":")[0].partition("/")[0] != "box" or _CONTRAST.search(text):
            return None
        match = _TEXT.fullmatch(text)
        which = (match["which"] or "").strip() if match else ""
        try:
            corners = [float(v) for v in match["at"].split(",")] if match and match["at"] is not None else None
        except ValueError:
            corners = []
        if match is None or (corners is not None and len(corners) != 4):
            raise TargetError(
                f"{text!r} is no box: write box:N, box:LABEL or box:LABEL@x0,y0,x1,y1, with /PART if any."
            )
        part = (match["part"] or "").strip()
        if corners is not None:
            x0, y0, x1, y1 = corners
            return cls(label=index_or_label(which) if which else None, at=(x0, y0, x1, y1), part=part)
        if not which or which.isdecimal():
            return cls(int(which or 0), part=part)
        return cls(label=which, part=part)


@lru_cache(maxsize=64)  # a method asks the same thousands of times
@torch.inference_mode(False)  # what is kept must serve gradients too
def _tensors(asked: tuple[Asked, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Places `(N, 4)`, labels `(N,)` and class vectors `(N, C)` of boxes."""
    places, vectors = torch.tensor([a.place for a in asked]), torch.tensor([a.classes for a in asked])
    return places, torch.tensor([a.label for a in asked]), vectors


def _shown(at: Place) -> str:
    return ",".join(f"{v:g}" for v in at)


def _apart(score: float, other: float) -> str:
    """A score with two digits, or as many as it takes to tell it from another."""
    digits = ((f"{score:.{n}g}", f"{other:.{n}g}") for n in range(2, 8))
    return next((text for text, beside in digits if score == other or text != beside), f"{score:g}")


def why_none(found: Detections, answered: Answered, n: int, asked: Asked, labels: Labels) -> str:
    """Why the detector ends with no box at a place of sample n: no candidate, too little, another class, suppressed."""
    wanted, name = torch.full((len(found),), asked.label, device=found.boxes.device), label_of(asked.label, labels)
    boxes, sure = found.placed(wanted)[n].detach(), found.confidence(wanted)[n].detach()
    near = overlaps(boxes, torch.tensor(asked.place).to(boxes))
    k = int((near * (sure + _LEAST)).argmax())  # where none is of the class at all, the nearest
    if float(near[k]) < _FAR:
        return f"No box of {name} here: no candidate lies there at all."
    said = f"No box of {name} here: the best candidate overlaps the place by {float(near[k]):.0%}"
    score, nearest, beaten = float(sure[k]), found.threshold, ""
    if found.labels is None and (other := int(found.classes[n, k].argmax())) != asked.label:
        rival = float(found.confidence(torch.full_like(wanted, other))[n, k])
        nearest = min(nearest, rival, key=lambda each: abs(each - score))
        beaten = f", but {_apart(rival, score)} for {label_of(other, labels)}"
    said += f" and scores {_apart(score, nearest)}"
    said += beaten
    if score <= found.threshold:
        return f"{said}; boxes are answered from {found.threshold:g} on."
    if len(answered.boxes):
        covered = overlaps(answered.boxes, boxes[k]) * (answered.labels == asked.label)
        j = int(covered.argmax())
        if float(covered[j]) > found.overlap:
            return f"{said}; a surer box of {name} ({float(answered.scores[j]):.2g}) covers it and suppresses it."
    return f"{said}."
