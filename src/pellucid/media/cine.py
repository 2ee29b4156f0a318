"""DICOM clips: the frames of ultrasound and angiography with the moments at which they were taken. Extra `medical`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import MediaError
from pellucid.media.clip import NOMINAL_RATE, Caps, Footage, Frames, StillError
from pellucid.media.dicom import DicomFile, coloured, framed, in_colour, open_dicom
from pellucid.media.magic import is_dicom_file
from pellucid.media.tiles import in_tiles
from pellucid.media.window import Window, chosen_window

_LOOKED_AT = 8
"""Frames whose values set the window of a clip that names none: evenly spread over it."""


class Cine(Footage):
    """A DICOM file of many frames that follow each other in time, rescaled and shown in one window.

    Raises:
        MediaError: damaged, larger than `caps`, or slices of a volume; `StillError` of a single frame.
    """

    def __init__(self, source: str, window: str = "auto", caps: Caps | None = None) -> None:
        self.caps = caps = caps or Caps()
        self._file = file = open_dicom(source)
        file.check(caps.pixels, frames=1)
        if file.frames < 2:
            raise StillError(f"{file.label} is a single picture; give a clip of several frames.")
        if in_tiles(file):
            raise MediaError(
                f"The frames of {file.label} are tiles of one picture, no clip: give it to a model of pictures."
            )
        count, rows, columns = file.frames, int(file.number("Rows", 0)), int(file.number("Columns", 0))
        if count > caps.frames or count * rows * columns > caps.decoded:
            raise MediaError(f"{file.label} claims {count:,} frames of {columns} x {rows}, more than are allowed.")
        if _lies_in_space(file):
            raise MediaError(
                f"The frames of {file.label} are slices of a volume, no clip: give it to a model of volumes."
            )
        self.name, self.sha256, self.size = file.name, file.sha256, (rows, columns)
        self.source = file.source
        if window != "auto" and file.source:
            self.source = f"window:{window}:{Path(file.source).absolute()}"
        self.times, told = times_of(file)
        self.end = self.times[-1] + (self.times[-1] - self.times[0]) / (count - 1)
        if self.end > caps.seconds:
            raise MediaError(
                f"{file.label} lasts {self.end:,.0f} s, more than the {caps.seconds:,.0f} s allowed; cut it."
            )
        self._window = self._chosen(window)
        shown = [] if self._window is None else [f"{file.modality} shown in {self._window.words}."]
        self.notes = (*told, *shown)

    def _chosen(self, asked: str) -> Window | None:
        """The window of all frames; None of a clip in colour."""
        first = self._file.stored(0)
        if in_colour(self._file, first):
            if asked != "auto":
                raise MediaError(f"{self._file.label} is a clip in colour, which has no window: leave --window out.")
            return None
        spread = sorted({round(k) for k in np.linspace(0, len(self.times) - 1, _LOOKED_AT).tolist()})
        values = []
        for file, stored in ((self._file.at(k), self._file.stored(k)) for k in spread):
            padded = file.padded(stored)
            values.append(file.rescaled(stored if padded is None else stored[~padded]).ravel())
        return chosen_window(self._file.at(0), asked, np.concatenate(values))

    def read(self, indices: Sequence[int]) -> Iterator[Frames]:
        """Frames by number."""
        for k in indices:
            stored = self._file.stored(k)
            if self._window is None:
                colours = coloured(self._file, stored)
                yield colours if colours.dtype == np.uint8 else (colours * 255 + 0.5).astype(np.uint8)
            else:
                unit, _ = framed(self._file.at(k), stored, self._window)
                yield np.repeat((unit * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=-1)

    def origin(self, indices: Sequence[int]) -> dict[str, Any]:
        """The frames' numbers, and the modality."""
        return {"modality": self._file.modality, "frames": list(indices)}


def cine_in(path: Path) -> bool:
    """Whether a file is DICOM of several frames."""
    if not is_dicom_file(path):
        return False
    try:
        return open_dicom(path).frames > 1
    except MediaError:
        return False


def times_of(file: DicomFile) -> tuple[list[float], list[str]]:
    """The second at which each frame is shown, and what must be said of it.

    From the Frame Time Vector (milliseconds from frame to frame), the Frame Time, the Cine Rate or the recommended rate
    of display, in this order; where none of them makes sense 25 a second are assumed.
    """
    count = file.frames
    steps = file.tag("FrameTimeVector")
    if steps is not None:
        found = _numbers(steps)
        times = list(accumulate(t / 1000 for t in [0.0, *found[1:]]))  # the first is of no step
        if len(found) == count and all(b > a for a, b in pairwise(times)):
            return times, []
    rates = [file.number("CineRate", 0), file.number("RecommendedDisplayFrameRate", 0)]
    for step in (file.number("FrameTime", 0) / 1000, *(1 / rate for rate in rates if rate > 0)):
        if 0 < step < float("inf"):
            return [k * step for k in range(count)], []
    return [k / NOMINAL_RATE for k in range(count)], [
        f"The frames carry no times: {NOMINAL_RATE:g} a second are assumed."
    ]


def _lies_in_space(file: DicomFile) -> bool:
    """Whether the frames lie at several places: then they are slices, whatever else is told of them."""
    if file.tag("GridFrameOffsetVector") is not None:
        return True
    if not file.tag("PerFrameFunctionalGroupsSequence"):
        return False
    places = [file.at(k).tag("ImagePositionPatient") for k in (0, file.frames - 1)]
    return None not in places and _numbers(places[0]) != _numbers(places[1])


def _numbers(value: Any) -> list[float]:
    try:
        return [float(v) for v in (value if hasattr(value, "__iter__") and not isinstance(value, str) else [value])]
    except (TypeError, ValueError):
        return []
