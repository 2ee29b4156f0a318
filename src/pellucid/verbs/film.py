"""`explain` of a clip by a model of pictures that says where: frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from torch import nn

from pellucid.errors import AbsentError, DataError, ModelError, PellucidError
from pellucid.explanation import Prediction
from pellucid.heatmaps import Method
from pellucid.keep.spill import Spilled
from pellucid.media import PICTURE, Footage, Picture, Plan, address, open_clip
from pellucid.media.redaction import redacted
from pellucid.models.model import VisionModel
from pellucid.models.targets import Target, TargetLike
from pellucid.results.film import Film, FilmFrame, FilmWriter
from pellucid.verbs.choices import as_methods, as_targets
from pellucid.verbs.explain import explain_each
from pellucid.verbs.inputs import ModelLike, as_model
from pellucid.verbs.redaction import Box, typed_boxes

FRAMES = 12
"""How many frames of a clip are explained, where nobody says."""


def says_where(model: VisionModel, source: str) -> VisionModel | None:
    """A model of pictures whose answers to a clip's first frame say where, with its task settled; None of any other.

    Raises:
        PellucidError: the task is not declared, and the clip or the model's answer to it cannot be read.
    """
    if model.medium is not PICTURE:
        return None
    if model.task is None:
        clip = open_clip(source).clip(Plan.parse(1))
        first = clip.picture(0)
        x = model.pictures(first)[0][None].to(model.device, model.dtype)
        model = model.settled(x, model.outputs(x))
    return model if model.task is not None and model.task.by_frame else None


@dataclass(frozen=True)
class Reel:
    """The frames of a clip that are explained; each is read and explained when it is its turn.

    Attributes:
        model: what answers, and says where.
        methods, targets, seed: how each is explained.
        footage: the clip.
        numbers: of the frames.
    """

    model: VisionModel
    methods: Sequence[Method]
    targets: Sequence[Target]
    footage: Footage
    numbers: Sequence[int]
    seed: int = 0

    def pictures(self) -> Iterator[Picture]:
        """The frames; none is a file."""
        for k, pixels in enumerate(self.footage.read(self.numbers)):
            yield Picture(pixels, f"{self.footage.name}-{k}", "", self.footage.sha256)

    def explained(self) -> Iterator[FilmFrame]:
        """Each frame explained like a picture, one at a time.

        Raises:
            PellucidError: the clip cannot be read, or the model fails on a frame.
        """
        for number, picture in zip(self.numbers, self.pictures(), strict=True):
            time = self.footage.times[number]
            ((_, found),) = explain_each(self.model, [picture], self.methods, self.targets, seed=self.seed)
            if isinstance(found, AbsentError):
                yield FilmFrame(time, picture, _answers(self.model, picture), note=str(found))
                continue
            if isinstance(found, PellucidError):
                raise found
            for e in found:
                e.record.input |= {"clip": self.footage.source and address(self.footage.source), "time": time}
            yield FilmFrame(time, picture, found[0].prediction, found)

    def save(self, folder: Path, taken: set[str], redact: str | None = None) -> tuple[FilmWriter, list[Path]]:
        """Explain and write the clip, with no more than a frame in memory; and the files (see `Film.save`).

        Args:
            folder: where it is written.
            taken: names that are not to be used again.
            redact: boxes that are hidden in all frames, as they are typed.

        Raises:
            AbsentError: not one frame has what was asked for.
            PellucidError: as `explained`, or the boxes are none.
        """
        boxes = boxes_in_all(redact, self.footage.name)
        writer = FilmWriter(self.footage.name, self.footage.source, folder, taken)
        for frame in self.explained():
            writer.add(frame if boxes is None else frame.redact(boxes))
        return writer, writer.finish(lambda: (_hidden(picture, boxes) for picture in self.pictures()))


def reel(
    model: ModelLike,
    source: str | Path,
    method: str | Method | Sequence[str | Method] = "grad-cam",
    target: TargetLike | Sequence[TargetLike] = None,
    *,
    frames: Plan | str | int | None = None,
    seed: int = 0,
) -> Reel:
    """The frames of a clip that are to be explained; nothing is explained yet. Arguments as of `explain_film`.

    The seed is of whatever is random beside the methods.

    Raises:
        ModelError: the model answers no places.
        PellucidError: the clip cannot be read.
    """
    given = as_model(model)
    loaded = says_where(given, str(source))
    if loaded is None:
        raise ModelError(
            f"{given.name or 'The model'} answers neither boxes nor regions: explain a clip with pl.per_frame(model)."
        )
    footage = open_clip(source)
    numbers = Plan.parse(FRAMES if frames is None else frames).choose(footage.times, footage.end)
    return Reel(loaded, as_methods(method), as_targets(target), footage, numbers, seed)


def explain_film(
    model: ModelLike,
    source: str | Path,
    method: str | Method | Sequence[str | Method] = "grad-cam",
    target: TargetLike | Sequence[TargetLike] = None,
    *,
    frames: Plan | str | int | None = None,
    seed: int | None = None,
) -> Film:
    """Each frame of a clip explained like a picture, by a model that says where: boxes or regions.

    What is asked for is looked for in every frame anew: `box:0` is the surest box of that very frame. A frame without
    it keeps its answers and says why it has no map.

    Args:
        model: a detector or a segmentation network of pictures, as `explain` takes it.
        source: a video, an animation, a folder of numbered frames.
        method, target: as `explain` takes them.
        frames: which ones (see `Plan`); None: 12, evenly.
        seed: for whatever is random; None: 0, and a method that is given as an object keeps its own.

    Returns:
        The frames, of which one at a time is in memory: the others wait in a folder that goes with the film.

    Raises:
        ModelError: the model answers no places.
        PellucidError: the clip cannot be read, or the model fails on a frame.
    """
    found = reel(model, source, as_methods(method, seed=seed), target, frames=frames, seed=seed or 0)
    return Film(found.footage.name, found.footage.source, Spilled(found.explained(), _is_held))


def _is_held(thing: Any) -> bool:
    """What frames have in common, and functions, which cannot be written."""
    return isinstance(thing, nn.Module | VisionModel | FunctionType)


def _answers(model: VisionModel, picture: Picture) -> list[Prediction]:
    x, geometry = model.pictures(picture)
    (row,) = model.predict(x[None].to(model.device, model.dtype))
    return [answer.placed(geometry) for answer in row]


def _hidden(picture: Picture, boxes: Sequence[Box] | None) -> Picture:
    seen = picture if boxes is None else redacted(picture, boxes)
    assert isinstance(seen, Picture)
    return seen


def boxes_in_all(text: str | None, name: str) -> Sequence[Box] | None:
    """The boxes that are typed, which are hidden in all frames of the clip `name`; None for none.

    Raises:
        DataError: it is a file of annotations, which are of pictures.
    """
    boxes = None if text is None else typed_boxes(text)
    if text is not None and boxes is None:
        raise DataError(
            f"{text!r} is of pictures, and {name} is a clip: hide boxes x0,y0,x1,y1;..., the same in all frames."
        )
    return boxes
