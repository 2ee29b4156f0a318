"""Moving pictures that are no videos: animated GIF, WebP and PNG, and folders of numbered frames."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import MediaError
from pellucid.media.clip import NOMINAL_RATE, Caps, Footage, Frames, StillError
from pellucid.media.image import open_picture, read_image
from pellucid.media.inputs import natural
from pellucid.media.picture import explained, read_bytes

_AT_ONCE = 100  # milliseconds: how long browsers show a frame that claims to be shown for none


class Animation(Footage):
    """An animated GIF, WebP or PNG; transparency is laid on white.

    Raises:
        MediaError: unreadable, of a single frame, or larger than `caps`.
    """

    def __init__(self, path: Path, label: str, caps: Caps) -> None:
        self.caps, self.source, self.name = caps, label, path.stem
        self._data = read_bytes(path, label)
        self.sha256 = sha256(self._data).hexdigest()
        durations: list[float] = []
        with explained(label, "a clip"), open_picture(self._data) as image:
            count = int(getattr(image, "n_frames", 1))
            self.size = (image.height, image.width)
            if image.width * image.height > caps.pixels or count > caps.frames:
                raise MediaError(
                    f"{label} holds {count:,} frames of {image.width} x {image.height}, more than are allowed; make it "
                    "smaller."
                )
            if count * image.width * image.height > caps.decoded:
                raise MediaError(f"{label} takes more than {caps.decoded:,} pixels to decode; make it smaller.")
            self._first = int(bool(image.info.get("default_image")))  # APNG's, which is no part of the animation
            if count - self._first < 2:
                raise StillError(f"{label} is a single picture; give a clip of several frames.")
            for i in range(self._first, count):
                image.seek(i)
                if image.format == "WEBP":
                    image.load()  # only then its times are known
                if image.size != self.size[::-1]:
                    raise MediaError(f"{label} is damaged (its frames differ in size); get or save it again.")
                durations.append(float(image.info.get("duration", 0)))
        if not all(durations):
            self.notes = (f"Frames that claim no time are taken to be shown for {_AT_ONCE} ms, as browsers do.",)
            durations = [duration or _AT_ONCE for duration in durations]
        starts = [
            at / 1000 for at in accumulate(durations, initial=0.0)
        ]  # whole milliseconds are added without rounding
        self.times, self.end = starts[:-1], starts[-1]
        if self.end > caps.seconds:
            raise MediaError(f"{label} lasts {self.end:,.0f} s, more than the {caps.seconds:,.0f} s allowed; cut it.")

    def read(self, indices: Sequence[int]) -> Iterator[Frames]:
        """Frames by number; the library composes each from those before it."""
        from PIL import Image

        with explained(self.source, "a clip"), open_picture(self._data) as image:
            for i in indices:
                image.seek(self._first + i)
                frame = image.convert("RGBA")
                white = Image.new("RGBA", frame.size, "white")
                white.alpha_composite(frame)
                yield np.array(white.convert("RGB"))

    def origin(self, indices: Sequence[int]) -> dict[str, Any]:
        """The frames' numbers, and what decoded them."""
        import PIL

        return {"decoder": f"Pillow {PIL.__version__}", "frames": list(indices)}


class FrameFolder(Footage):
    """A folder of numbered pictures of one size, in natural order, at 25 frames a second (said in a note).

    Raises:
        MediaError: fewer than two pictures, or of several sizes.
    """

    def __init__(self, folder: Path, files: Sequence[str], label: str, caps: Caps) -> None:
        self.caps, self.source, self.name = caps, label, folder.name or "frames"
        self._files = sorted(files, key=natural)
        if len(self._files) < 2:
            raise MediaError(f"The folder {label} holds a single picture; a clip takes several, numbered.")
        if len(self._files) > caps.frames:
            raise MediaError(f"The folder {label} holds more than the {caps.frames:,} frames allowed; take some out.")
        digest = sha256()
        for file in self._files:
            digest.update(os.path.basename(file).encode() + sha256(read_bytes(Path(file), file)).digest())
        self.sha256 = digest.hexdigest()
        self.size = read_image(self._files[0], max_pixels=caps.pixels).size
        self.times = [i / NOMINAL_RATE for i in range(len(self._files))]
        self.end = len(self._files) / NOMINAL_RATE
        self.notes = (f"A folder of frames tells no times: {NOMINAL_RATE:g} a second are assumed.",)

    def read(self, indices: Sequence[int]) -> Iterator[Frames]:
        """Frames by number."""
        for i in indices:
            picture = read_image(self._files[i], max_pixels=self.caps.pixels)
            if picture.size != self.size:
                raise MediaError(
                    f"{self._files[i]} is {picture.size[1]} x {picture.size[0]}, the first frame of its folder "
                    f"{self.size[1]} x {self.size[0]}: the frames of a clip have one size."
                )
            yield np.asarray(picture.pil())

    def origin(self, indices: Sequence[int]) -> dict[str, Any]:
        """The frames' numbers and file names."""
        return {"frames": list(indices), "files": [os.path.basename(self._files[i]) for i in indices]}
