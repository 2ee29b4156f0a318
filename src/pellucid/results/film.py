"""A clip explained frame by frame, by a model of pictures that says where: each frame's answers under its map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pellucid import storage
from pellucid.errors import AbsentError
from pellucid.explanation import Brief, Prediction
from pellucid.keep.files import comma_separated, write_together
from pellucid.media import Picture
from pellucid.media.redaction import redacted
from pellucid.results.heatmap import Heatmaps
from pellucid.results.shown import slug, unused


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


@dataclass(repr=False)
class Film(Brief):
    """A clip's frames.

    Attributes:
        name: of the clip.
        source: what opens it again.
        frames: in their order.
    """

    name: str
    source: str
    frames: list[FilmFrame]

    @property
    def asked(self) -> list[tuple[str, str | None]]:
        """Each method with the text of each target."""
        return list(dict.fromkeys((e.method, e.record.target) for frame in self.frames for e in frame.maps))

    @property
    def line(self) -> str:
        """In how many of its frames what was asked for is found."""
        return f"{sum(bool(frame.maps) for frame in self.frames)} of {len(self.frames)} frames have what is asked for"

    def video(self, method: str, target: str | None, kind: str = "webm") -> bytes:
        """The frames, each under its map and with its boxes, as a WebM (VP9) or MP4 (H.264) video: to be looked at.

        Raises:
            MediaError: PyAV is missing, or has no such encoder.
        """
        from pellucid.render.film import film_video

        return film_video(self, method, target, kind)

    def redact(self, boxes: Sequence[Sequence[float]]) -> Film:
        """Hide boxes `(x0, y0, x1, y1)`, the same in all frames, in whatever is shown or written.

        Raises:
            MediaError: a box is none.
        """
        for frame in self.frames:
            frame.maps.redact(boxes)
            hidden = redacted(frame.picture, boxes)
            assert isinstance(hidden, Picture)
            frame.picture = hidden
        return self

    def rows(self) -> list[dict[str, object]]:
        """A row for each box that is answered, and for each frame without one."""
        found: list[dict[str, object]] = []
        for number, frame in enumerate(self.frames):
            about: dict[str, object] = {"frame": number, "time": frame.time}
            told: Sequence[Prediction | None] = frame.answers or (None,)
            for answer in told:
                label, score = ("", None) if answer is None else (answer.label, answer.probability)
                place = (None,) * 4 if answer is None or answer.place is None else answer.place
                sides = dict(zip(("x0", "y0", "x1", "y1"), place, strict=True))
                found.append(about | {"label": label, "score": score} | sides)
        return found

    def save(self, folder: str | Path, taken: set[str]) -> list[Path]:
        """Write a video for each method and target, each frame's values and records, and a table of all answers.

        Raises:
            AbsentError: not one frame has what was asked for; the sentence is that of the first.
        """
        if not self.asked:
            raise AbsentError(self.frames[0].note)
        stem, home = unused(slug(self.name), taken), Path(folder)
        files: list[Path] = []
        for number, frame in enumerate(self.frames):
            for e in frame.maps:
                which = self.asked.index((e.method, e.record.target))
                files += storage.save(e, home / stem / f"{number:04d}.{self._named(which)}")
        table = comma_separated(self.rows(), nan="").encode()
        files += write_together({home / f"{stem}.csv": table})
        for which, (method, target) in enumerate(self.asked):
            video = self.video(method, target)
            files.append(storage.write_bytes(home / f"{stem}.{self._named(which)}.webm", video))
        return files

    def _named(self, which: int) -> str:
        method, target = self.asked[which]
        several = len({t for _, t in self.asked}) > 1
        return slug(method) + (f".{slug(target or str(which))}" if several else "")


__all__ = ["Film", "FilmFrame"]
