"""A clip explained frame by frame, by a model of pictures that says where: each frame's answers under its map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pellucid import storage
from pellucid.errors import AbsentError
from pellucid.explanation import Brief, Explanation, Prediction
from pellucid.keep.files import comma_separated, write_together
from pellucid.media import Picture
from pellucid.media.redaction import redacted
from pellucid.results.heatmap import Heatmaps
from pellucid.results.shown import slug, unused

Question = tuple[str, str | None]
"""A method, and the text of a target."""


@dataclass(repr=False)
class FilmFrame(Brief):
    """One frame.

    Attributes:
        time: when it is shown, in seconds from the first of the clip.
        picture: the frame.
        answers: what the model answers, with places.
        maps: one a method and target; none where what was asked for is not in this frame.
        note: why there is none.
    """

    time: float
    picture: Picture
    answers: list[Prediction]
    maps: Heatmaps = field(default_factory=Heatmaps)
    note: str = ""

    def redact(self, boxes: Sequence[Sequence[float]]) -> FilmFrame:
        """Hide boxes `(x0, y0, x1, y1)` in whatever is shown or written.

        Raises:
            MediaError: a box is none.
        """
        self.maps.redact(boxes)
        hidden = redacted(self.picture, boxes)
        assert isinstance(hidden, Picture)
        self.picture = hidden
        return self


@dataclass(frozen=True)
class WrittenFrame:
    """What stays of a frame in memory once it is written: `FilmFrame` with a file in the place of each map."""

    time: float
    answers: list[Prediction]
    maps: dict[Question, Path]
    note: str


@dataclass
class _Shown:
    """A frame that was written, opened again to be drawn."""

    time: float
    picture: Picture
    answers: Sequence[Prediction]
    maps: Sequence[Explanation]


@dataclass(repr=False)
class Film(Brief):
    """A clip's frames.

    Attributes:
        name: of the clip.
        source: what opens it again.
        frames: in their order; those of `explain_film` are read from disk when they are asked for (see `Spilled`).
    """

    name: str
    source: str
    frames: Sequence[FilmFrame]

    @property
    def asked(self) -> list[Question]:
        """Each method with the text of each target."""
        return list(dict.fromkeys((e.method, e.record.target) for frame in self.frames for e in frame.maps))

    @property
    def line(self) -> str:
        """In how many of its frames what was asked for is found."""
        return _line(self.frames)

    def drawn(self, method: str, target: str | None) -> Iterator[NDArray[np.uint8]]:
        """The frames with their boxes, each beside its map, all maps on one scale: uint8 `(H, W, 3)`."""
        from pellucid.render.film import film_frames, film_scale

        return film_frames(self.frames, method, target, film_scale(self.frames, method, target))

    def video(self, method: str, target: str | None, kind: str = "webm") -> bytes:
        """The same as a WebM (VP9) or MP4 (H.264) video: to be looked at.

        Raises:
            MediaError: PyAV is missing, or has no such encoder.
        """
        from pellucid.media.writing import encode

        return encode(self.drawn(method, target), [frame.time for frame in self.frames], kind)

    def redact(self, boxes: Sequence[Sequence[float]]) -> Film:
        """Hide boxes `(x0, y0, x1, y1)`, the same in all frames, in whatever is shown or written.

        Raises:
            MediaError: a box is none.
        """
        for frame in self.frames:
            frame.redact(boxes)
        return self

    def rows(self) -> list[dict[str, object]]:
        """A row for each box that is answered, and for each frame without one."""
        return _rows(self.frames)

    def save(self, folder: str | Path, taken: set[str]) -> list[Path]:
        """Write a video for each method and target, each frame's values and records, and a table of all answers.

        Raises:
            AbsentError: not one frame has what was asked for; the sentence is that of the first.
        """
        writer = FilmWriter(self.name, self.source, Path(folder), taken)
        for frame in self.frames:
            writer.add(frame)
        return writer.finish(lambda: (frame.picture for frame in self.frames))


class FilmWriter:
    """Writes the frames of a clip as they come, and at the end its table and videos.

    Of a frame that is written no pixels and no values stay in memory: for the videos, whose maps share a scale, they
    are read again, one frame at a time.

    Args:
        name, source: of the clip, see `Film`.
        folder: where it is written.
        taken: names that are not to be used again.

    Attributes:
        frames: what was written.
        asked: each method with the text of each target.
    """

    def __init__(self, name: str, source: str, folder: Path, taken: set[str]) -> None:
        from pellucid.render.film import FilmScale

        self.name, self.source = name, source
        self.frames: list[WrittenFrame] = []
        self.asked: list[Question] = []
        self._home, self._stem, self._files = folder, unused(slug(name), taken), list[Path]()
        self._scales: dict[Question, FilmScale] = {}

    @property
    def line(self) -> str:
        """In how many of its frames what was asked for is found."""
        return _line(self.frames)

    def add(self, frame: FilmFrame) -> None:
        """Write one more frame's values and records."""
        from pellucid.render.film import FilmScale

        found = [((e.method, e.record.target), e) for e in frame.maps]
        self.asked = list(dict.fromkeys([*self.asked, *(question for question, _ in found)]))
        maps = {}
        for question, e in found:
            path = self._home / self._stem / f"{len(self.frames):04d}.{self._named(question)}"
            values, maps[question] = storage.save(e, path)
            self._files += [values, maps[question]]
            self._scales.setdefault(question, FilmScale()).add(e)
        self.frames.append(WrittenFrame(frame.time, frame.answers, maps, frame.note))

    def finish(self, pictures: Callable[[], Iterable[Picture]]) -> list[Path]:
        """Write the table and a video for each method and target; all files.

        Args:
            pictures: reads the frames once more, as they are to be shown.

        Raises:
            AbsentError: not one frame has what was asked for; the sentence is that of the first.
        """
        from pellucid.media.writing import encode
        from pellucid.render.film import film_frames

        if not self.asked:
            raise AbsentError(self.frames[0].note)
        table = comma_separated(_rows(self.frames), nan="").encode()
        self._files += write_together({self._home / f"{self._stem}.csv": table})
        times = [frame.time for frame in self.frames]
        for question in self.asked:
            drawn = film_frames(self._shown(question, pictures()), *question, self._scales[question].limits())
            file = self._home / f"{self._stem}.{self._named(question)}.webm"
            self._files.append(storage.write_bytes(file, encode(drawn, times)))
        return self._files

    def _shown(self, question: Question, pictures: Iterable[Picture]) -> Iterator[_Shown]:
        for frame, picture in zip(self.frames, pictures, strict=True):
            file = frame.maps.get(question)
            maps = [] if file is None else [storage.load(file)[0]]
            for e in maps:
                e.picture = picture
            yield _Shown(frame.time, picture, frame.answers, maps)

    def _named(self, question: Question) -> str:
        method, target = question
        several = len({t for _, t in self.asked}) > 1
        return slug(method) + (f".{slug(target or str(self.asked.index(question)))}" if several else "")


def _line(frames: Sequence[FilmFrame | WrittenFrame]) -> str:
    return f"{sum(bool(frame.maps) for frame in frames)} of {len(frames)} frames have what is asked for"


def _rows(frames: Sequence[FilmFrame | WrittenFrame]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for number, frame in enumerate(frames):
        about: dict[str, object] = {"frame": number, "time": frame.time}
        told: Sequence[Prediction | None] = frame.answers or (None,)
        for answer in told:
            label, score = ("", None) if answer is None else (answer.label, answer.probability)
            place = (None,) * 4 if answer is None or answer.place is None else answer.place
            sides = dict(zip(("x0", "y0", "x1", "y1"), place, strict=True))
            found.append(about | {"label": label, "score": score} | sides)
    return found


__all__ = ["Film", "FilmFrame", "FilmWriter"]
