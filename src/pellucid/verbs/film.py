"""`explain` of a clip by a model of pictures that says where: frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pellucid.errors import AbsentError, DataError, ModelError, PellucidError
from pellucid.explanation import Prediction
from pellucid.heatmaps import Method
from pellucid.media import PICTURE, Clip, Picture, Plan, address, open_clip
from pellucid.models.model import VisionModel
from pellucid.models.targets import TargetLike
from pellucid.results.film import Film, FilmFrame
from pellucid.verbs.choices import as_methods, as_targets
from pellucid.verbs.explain import explain_each
from pellucid.verbs.inputs import ModelLike, as_model
from pellucid.verbs.redaction import typed_boxes

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
        (first,) = _pictures(open_clip(source).clip(Plan.parse(1)))
        x = model.pictures(first)[0][None].to(model.device, model.dtype)
        model = model.settled(x, model.outputs(x))
    return model if model.task is not None and model.task.by_frame else None


def explain_film(
    model: ModelLike,
    source: str | Path,
    method: str | Method | Sequence[str | Method] = "grad-cam",
    target: TargetLike | Sequence[TargetLike] = None,
    *,
    frames: Plan | str | int | None = None,
    seed: int = 0,
) -> Film:
    """Each frame of a clip explained like a picture, by a model that says where: boxes or regions.

    What is asked for is looked for in every frame anew: `box:0` is the surest box of that very frame. A frame without
    it keeps its answers and says why it has no map.

    Args:
        model: a detector or a segmentation network of pictures, as `explain` takes it.
        source: a video, an animation, a folder of numbered frames.
        method, target: as `explain` takes them.
        frames: which ones (see `Plan`); None: 12, evenly.
        seed: for whatever is random.

    Raises:
        ModelError: the model answers no places.
        PellucidError: the clip cannot be read, or the model fails on a frame.
    """
    given = as_model(model)
    loaded = says_where(given, str(source))
    if loaded is None:
        raise ModelError(
            f"{given.name or 'The model'} answers neither boxes nor regions: explain a clip with pl.per_frame(model)."
        )
    methods, targets = as_methods(method, seed=seed), as_targets(target)
    clip = open_clip(source).clip(Plan.parse(FRAMES if frames is None else frames))
    done = []
    for time, picture in zip(clip.times, _pictures(clip), strict=True):
        ((_, found),) = explain_each(loaded, [picture], methods, targets, seed=seed)
        if isinstance(found, AbsentError):
            done.append(FilmFrame(time, picture, _answers(loaded, picture), note=str(found)))
            continue
        if isinstance(found, PellucidError):
            raise found
        for e in found:
            e.record.input |= {"clip": clip.source and address(clip.source), "time": time}
        done.append(FilmFrame(time, picture, found[0].prediction, found))
    return Film(clip.name, clip.source, done)


def _pictures(clip: Clip) -> list[Picture]:
    """The frames; none is a file."""
    return [clip.picture(k) for k in range(len(clip.frames))]


def _answers(model: VisionModel, picture: Picture) -> list[Prediction]:
    x, geometry = model.pictures(picture)
    (row,) = model.predict(x[None].to(model.device, model.dtype))
    return [answer.placed(geometry) for answer in row]


def hidden_in(film: Film, text: str | None) -> Film:
    """A film with the boxes that are typed hidden, the same in all frames.

    Raises:
        DataError: it is a file of annotations, which are of pictures.
    """
    if text is None:
        return film
    boxes = typed_boxes(text)
    if boxes is None:
        raise DataError(
            f"{text!r} is of pictures, and {film.name} is a clip: hide boxes x0,y0,x1,y1;..., the same in all frames."
        )
    return film.redact(boxes)
