"""`pellucid explain clip.mp4` with a model of pictures that says where: frame by frame, as a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.cli.console import say, with_progress
from pellucid.cli.options import first_given

if TYPE_CHECKING:
    from pellucid.models.model import VisionModel
    from pellucid.results.film import FilmWriter
    from pellucid.verbs.film import Reel


def films_first(
    films: Sequence[str],
    files: Sequence[str],
    reel: Callable[[str], Reel],
    beside: Mapping[str, object],
    redact: str | None,
    out: Path,
    report: dict[str, Any],
    *,
    quiet: bool,
) -> list[str]:
    """Explain the videos among the inputs, save their videos, values and tables, and tell of them.

    Args:
        films: see `films_among`.
        files: all inputs.
        reel: the frames of one clip, and how they are explained.
        beside: options that do not go with such videos, by name, and what was given.
        redact: what is to be hidden.
        out, report: where it is written, and what programs are told; a clip that fails is noted there.
        quiet: nothing is printed.

    Returns:
        The other inputs.

    Raises:
        MethodError: such an option was given.
    """
    from pellucid.errors import AbsentError, DataError, MediaError, MethodError

    wrong = first_given(beside)
    if films and wrong is not None:
        raise MethodError(f"A video that is explained frame by frame does not go with {wrong}: leave that out.")
    taken: set[str] = set()
    for name, _ in with_progress((name, None) for name in films):
        try:
            film, files_of_it = reel(name).save(out, taken, redact)
        except (AbsentError, DataError, MediaError) as error:
            report["failed"].append({"input": name, "error": str(error), "film": True})
            say(f"pellucid: {error}", aside=True)
            continue
        saved = list(map(str, files_of_it))
        report["results"].append(_entry(film, saved))
        if not quiet:
            _tell(film, saved)
    return [file for file in files if file not in films]


def films_among(vision: VisionModel, files: Sequence[str], *, sampled: bool) -> list[str]:
    """The videos that a model explains frame by frame; of one that does not say where, none.

    Args:
        vision: the model.
        files: all inputs.
        sampled: it was said which frames are taken, so animations are videos too; else they are their first picture.

    Raises:
        MethodError: frames were asked for of what has none.
    """
    from pellucid.errors import MediaError, MethodError
    from pellucid.media import PICTURE
    from pellucid.media.footage import is_animation, is_video
    from pellucid.verbs.film import says_where

    if vision.medium is not PICTURE:
        return []
    films: list[str] = []
    for file in files:
        try:
            if (is_video(file) or (sampled and is_animation(file))) and says_where(vision, file) is not None:
                films.append(file)
        except MediaError:  # what is wrong with it is said where it is opened
            continue
    if sampled and not films:
        raise MethodError("No input is a video or an animation, so there are no frames to choose: leave out --frames.")
    return films


def _entry(film: FilmWriter, saved: list[str]) -> dict[str, Any]:
    """A clip and its files, as `--json` tells of them."""
    frames = [
        {"time": f.time, "prediction": [asdict(p) for p in f.answers], "maps": len(f.maps), "note": f.note}
        for f in film.frames
    ]
    asked = [{"method": method, "target": target} for method, target in film.asked]
    return {"input": film.source or film.name, "asked": asked, "frames": frames, "files": saved}


def _tell(film: FilmWriter, saved: list[str]) -> None:
    say(f"{film.source or film.name}: {film.line}")
    for frame in film.frames:
        answers = ", ".join(f"{p.label} {p.said()}" for p in frame.answers[:3])
        say(f"  {frame.time:.2f} s: {answers or 'nothing answered'}" + (f" ({frame.note})" if frame.note else ""))
    for file in saved:
        if file.endswith((".csv", ".webm")):
            say(f"  {'video' if file.endswith('.webm') else 'table'}: {file}")
