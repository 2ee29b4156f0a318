"""Read and sample videos through PyAV, trusting none of their bytes.

A file is opened as a file object, for known containers only and with every protocol shut, so a playlist under another
name opens nothing. The index of frames comes from the packets, without decoding: exact time stamps at any frame rate.
Sampling then seeks to the key frame before each wanted frame and decodes from there.
"""

from __future__ import annotations

import math
import os
import stat
import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from hashlib import file_digest
from itertools import groupby, pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from pellucid.errors import MediaError
from pellucid.media.clip import Caps, Footage, Frames
from pellucid.media.picture import refuse_url

_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,ogg,flv,asf,yuv4mpegpipe"
_STAMPED = ("mov", "matroska", "webm", "mp4")  # containers whose packets carry the very times of the frames
_DAMAGED = 0.95  # of the frames that the header promises must be there
_HD, _UNTAGGED = 720, 2  # rows; FFmpeg's AVCOL_SPC_UNSPECIFIED
_COLOURS = (
    "The file does not say which colours its numbers stand for; FFmpeg takes BT.601, and pictures of this size are "
    "mostly BT.709, so greens and reds may be a little off."
)


class VideoFile(Footage):
    """A video file, indexed but not decoded; see `open_video`.

    Attributes:
        stamps: time stamps of the frames, in units of `time_base` seconds.
        rotation: degrees, counter-clockwise, by which the stored frames are turned to be upright: 0, 90, 180 or 270.
        mirrored: whether their left and right are exchanged before that, as front cameras ask for.
    """

    def __init__(self, path: Path, label: str, caps: Caps) -> None:
        self.caps, self.source, self.name, self._path = caps, label, path.stem, path
        with _opened(path, label, caps) as (container, stream), _explained(label):
            context = stream.codec_context
            self.size = (context.height, context.width)
            self.time_base = Fraction(stream.time_base or Fraction(1, 1000))
            self.decoder = f"PyAV {pyav().__version__}, FFmpeg {_ffmpeg()}, {context.name}"
            self.rotation, self.mirrored = 0, False
            promised = _promised(container, stream)
            stamped = any(name in _STAMPED for name in container.format.name.split(","))
            self.stamps, keys = self._index(container, stream, label) if stamped else ([], [])
        if not self.stamps:  # the packets' times are missing or those of decoding only: ask the decoder
            self.stamps, keys = self._decoded_index(label)
        if promised and len(self.stamps) < _DAMAGED * promised:
            raise MediaError(
                f"{label} is cut short: its header promises {promised} frames and {len(self.stamps)} are there; get "
                "the whole file."
            )
        self._keys = keys
        first = self.stamps[0]
        self.times = [float((stamp - first) * self.time_base) for stamp in self.stamps]
        step = (self.times[-1] - self.times[0]) / (len(self.times) - 1) if len(self.times) > 1 else 0.04
        self.end = self.times[-1] + (self.times[-1] - self.times[-2] if len(self.times) > 1 else step)
        if self.end > caps.seconds:
            raise MediaError(f"{label} lasts {self.end:,.0f} s, more than the {caps.seconds:,.0f} s allowed; cut it.")
        with path.open("rb") as file:
            self.sha256 = file_digest(file, "sha256").hexdigest()
        self._look_at_first(label)

    def _index(self, container: Any, stream: Any, label: str) -> tuple[list[int], list[int]]:
        """Time stamps of all frames and of the key frames, from the packets alone; empty if they cannot be trusted."""
        stamps, keys = [], []
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:
                continue
            if packet.pts is None:
                return [], []
            stamps.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
            self._count(len(stamps), label)
        unique = sorted(set(stamps))
        return (unique, sorted(keys)) if len(unique) == len(stamps) else ([], [])

    def _decoded_index(self, label: str) -> tuple[list[int], list[int]]:
        """The same from decoding all; no key frames, so reading starts at the beginning and counts.

        Where the decoder has no rising times either (AVI), the frames are spaced by the average rate.
        """
        stamps: list[int | None] = []
        with _opened(self._path, label, self.caps) as (container, stream), _explained(label):
            rate = Fraction(stream.average_rate or stream.base_rate or 25)
            for frame in _decoded(container, stream):
                self._count(len(stamps) + 1, label)
                stamps.append(frame.pts)
        if not stamps:
            raise MediaError(f"{label} holds no frame that can be decoded; get or save it again.")
        known = [stamp for stamp in stamps if stamp is not None]
        if len(known) == len(stamps) and all(a < b for a, b in pairwise(known)):
            return known, []
        self.time_base = 1 / rate if rate > 0 else Fraction(1, 25)
        return list(range(len(stamps))), []

    def _count(self, frames: int, label: str) -> None:
        if frames > self.caps.frames:
            raise MediaError(f"{label} holds more than the {self.caps.frames:,} frames allowed; cut it.")

    def _look_at_first(self, label: str) -> None:
        """What only a decoded frame tells: that there is one, how it is turned, and which colours its numbers mean."""
        with _opened(self._path, label, self.caps) as (container, stream), _explained(label):
            frame = next(_decoded(container, stream), None)
            if frame is None:
                raise MediaError(f"{label} holds no frame that can be decoded; get or save it again.")
            self.rotation, self.mirrored = _turned(frame)
            height, width = frame.height, frame.width
            if (
                height >= _HD
                and frame.format.name.startswith(("yuv", "nv", "p0"))
                and int(frame.colorspace) == _UNTAGGED
            ):
                self.notes = (*self.notes, _COLOURS)
        self.size = (width, height) if self.rotation in (90, 270) else (height, width)

    def origin(self, indices: Sequence[int]) -> dict[str, Any]:
        """The decoder, the frames' numbers and their time stamps as the file has them."""
        return {
            "decoder": self.decoder,
            "frames": list(indices),
            "pts": [self.stamps[i] for i in indices],
            "time_base": str(self.time_base),
            "rotation": self.rotation,
            "mirrored": self.mirrored,
        }

    def read(self, indices: Sequence[int]) -> Iterator[Frames]:
        """Frames by number, each decoded from the key frame before it, or on from the last where that is nearer."""
        with _opened(self._path, self.source, self.caps) as (container, stream), _explained(self.source):
            for run in self._runs(sorted(set(indices))):
                if self._keys and run[0] > 0:
                    container.seek(self.stamps[run[0]], stream=stream, backward=True, any_frame=False)
                for number, frame in zip(run, self._run(container, stream, run), strict=True):
                    pixels = self._upright(frame)
                    for _ in range(list(indices).count(number)):
                        yield pixels

    def _runs(self, wanted: Sequence[int]) -> Iterator[list[int]]:
        """Frames that are decoded in one go: no key frame lies between them."""
        for _, run in groupby(wanted, key=lambda i: bisect_right(self._keys, self.stamps[i])):
            yield list(run)

    def _run(self, container: Any, stream: Any, run: Sequence[int]) -> Iterator[Any]:
        """The frames of a run, decoding on from where the container stands."""
        budget = self.caps.decoded // max(1, self.size[0] * self.size[1])
        left = deque(run)
        for count, frame in enumerate(_decoded(container, stream)):
            if count > budget:
                raise MediaError(
                    f"{self.source} takes more than {self.caps.decoded:,} pixels to decode; make it smaller."
                )
            at, wanted = (frame.pts, self.stamps[left[0]]) if self._keys else (count, left[0])
            if at is None or at < wanted:
                continue
            if at > wanted or frame.is_corrupt:
                break
            yield frame
            left.popleft()
            if not left:
                return
        where = self.times[left[0]]
        raise MediaError(
            f"{self.source} is damaged: the frame at {where:.2f} s cannot be decoded; get or save it again."
        )

    def _upright(self, frame: Any) -> Frames:
        pixels = frame.to_ndarray(format="rgb24")
        if self.mirrored:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(np.rot90(pixels, self.rotation // 90))


def open_video(source: str | os.PathLike[str], *, caps: Caps | None = None) -> VideoFile:
    """Open and index a video file.

    Raises:
        MediaError: missing, no video of a known kind, damaged, empty or larger than `caps`; or PyAV is not installed.
    """
    label = os.fspath(source)
    refuse_url(label)
    path = Path(label).expanduser()
    try:
        info = path.stat()
    except (OSError, ValueError):
        raise MediaError(f"There is no file {label}; check the path.") from None
    if not stat.S_ISREG(info.st_mode):
        raise MediaError(f"{label} is no regular file; give a video file.")
    if not info.st_size:
        raise MediaError(f"{label} is empty; give a video file.")
    return VideoFile(path, label, caps or Caps())


@lru_cache(maxsize=1)
def pyav() -> Any:
    """PyAV, which is an extra; its own messages are silenced."""
    try:
        import av
    except ImportError as error:
        raise MediaError("Videos are read with PyAV, which is not installed: pip install 'pellucid[video]'.") from error
    av.logging.set_level(None)
    return av


def _ffmpeg() -> str:
    av = pyav()
    return str(getattr(av, "ffmpeg_version_info", "") or ".".join(map(str, av.library_versions["libavcodec"])))


@contextmanager
def _opened(path: Path, label: str, caps: Caps) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream, limits checked on what the header says."""
    av = pyav()
    try:
        file: IO[bytes] = path.open("rb")
    except OSError as error:
        raise MediaError(f"{label} can't be read ({error.strerror or error}); check its permissions.") from error
    with file, _explained(label):
        options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none", "probesize": "5000000"}
        try:
            container = av.open(file, container_options=options)
        except Exception as error:
            raise MediaError(
                f"{label} is no video of a known kind (MP4, MOV, MKV, WebM, AVI, MPEG, OGG, FLV, WMV), or its header "
                "is damaged; get or save it again."
            ) from error
        with container:
            if not container.streams.video:
                kind = "sound only" if container.streams.audio else "no moving picture"
                raise MediaError(f"{label} holds {kind}; give a file with a video stream.")
            stream = container.streams.video[0]
            _check_claims(stream, label, caps)
            stream.codec_context.options = {"max_pixels": str(caps.pixels)}
            stream.thread_type = "AUTO"
            yield container, stream


def _promised(container: Any, stream: Any) -> int:
    """How many frames are to be shown, by the file's own index, before any is read; 0 where nothing tells.

    Not the header's count where there is an edit list (MP4, MOV): that counts the frames that a cut hides, too.
    """
    if "mov" not in container.format.name.split(","):
        return int(stream.frames)
    return sum(not entry.is_discard for entry in getattr(stream, "index_entries", ()))  # from PyAV 17 on


def _turned(frame: Any) -> tuple[int, bool]:
    """By how many degrees, counter-clockwise, a frame is turned, and whether it is mirrored before that.

    From the display matrix itself, rows (a, b, u), (c, d, v), (x, y, w), which sends the column p and the row q to the
    column a p + c q + x and the row b p + d q + y (ISO/IEC 14496-12, 8.3.2); an angle alone cannot tell a mirror from
    half a turn.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return round(frame.rotation / 90) * 90 % 360, False
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data)[:36])
    mirrored = a * d - b * c < 0
    sign = -1 if mirrored else 1
    return round(-math.degrees(math.atan2(sign * b, sign * a)) / 90) * 90 % 360, mirrored


def _check_claims(stream: Any, label: str, caps: Caps) -> None:
    context = stream.codec_context
    if context is None or not context.width or not context.height:
        raise MediaError(f"{label} holds a video stream that cannot be decoded; convert it to H.264 or VP9.")
    if context.width * context.height > caps.pixels:
        raise MediaError(
            f"{label}: frames of {context.width} x {context.height} are larger than the {caps.pixels / 1e6:g} "
            "megapixels allowed; make them smaller."
        )
    if stream.frames > caps.frames:
        raise MediaError(f"{label} claims {stream.frames:,} frames, more than the {caps.frames:,} allowed; cut it.")
    if stream.duration and stream.time_base and float(stream.duration * stream.time_base) > caps.seconds:
        seconds = float(stream.duration * stream.time_base)
        raise MediaError(f"{label} claims to last {seconds:,.0f} s, more than {caps.seconds:,.0f} s allowed; cut it.")


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Decoded frames; packets that the decoder refuses are passed over, and a frame that is missed is found missing."""
    av = pyav()
    size = None
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.EOFError:
            return
        except (av.error.InvalidDataError, av.error.PatchWelcomeError):
            continue
        for frame in frames:
            if size is not None and size != (frame.width, frame.height):
                raise _UnfitError("the size of its frames changes on the way")
            size = frame.width, frame.height
            yield frame


class _UnfitError(Exception):
    """Why a stream can't be read; `_explained` makes a sentence of it."""


@contextmanager
def _explained(label: str) -> Iterator[None]:
    """One sentence for whatever a decoder raises on hostile bytes."""
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        reason = str(error).strip().rstrip(".").splitlines()[0] if str(error).strip() else type(error).__name__
        raise MediaError(f"{label} is damaged or incomplete ({reason}); get or save it again.") from error
