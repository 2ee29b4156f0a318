"""Write frames as a video to look at: VP9 in WebM, or H.264 in MP4. Lossy, so never used for computing.

Byte-deterministic on one build of the encoders: bit-exact container, one thread, no date.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import MediaError
from pellucid.media.video import pyav

_ENCODERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "webm": ("webm", "libvpx-vp9", {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "0"}),
    "mp4": ("mp4", "libx264", {"crf": "18", "preset": "medium", "mbtree": "0"}),
}
"""Ending -> (container, encoder, options).

x264's macroblock tree reads memory that nothing has written, so what it chooses hangs on what was freed before.
"""

_TIME_BASE = Fraction(1, 1000)
_LAST = 0.2  # seconds the last frame stays, where nothing tells


def encode(frames: Iterable[NDArray[np.uint8]], times: Sequence[float], kind: str = "webm") -> bytes:
    """A video of frames `(H, W, 3)` uint8, each shown at its time.

    Args:
        frames: of one size; an odd height or width loses its last row or column (the codecs halve their colours).
        times: seconds, one a frame, ascending; times closer than a millisecond are moved apart.
        kind: `webm` (VP9) or `mp4` (H.264).

    Raises:
        MediaError: another kind, PyAV is missing, or this build of it has no such encoder.
    """
    if kind not in _ENCODERS:
        raise MediaError(f"Videos are written as {' or '.join(_ENCODERS)}, not {kind!r}: name a file that ends so.")
    av: Any = pyav()
    container_name, name, options = _ENCODERS[kind]
    try:
        av.Codec(name, "w")
    except Exception as error:
        other = next(k for k in _ENCODERS if k != kind)
        raise MediaError(
            f"This build of PyAV has no encoder {name}: write a .{other} instead, or install PyAV's own wheel."
        ) from error
    buffer = io.BytesIO()
    stamps = _ascending([round(t / _TIME_BASE) for t in times])
    rate = Fraction(1000, max(1, min((b - a for a, b in pairwise(stamps)), default=round(_LAST * 1000))))
    with av.open(buffer, "w", format=container_name, container_options={"fflags": "+bitexact"}) as container:
        stream = None
        for frame, stamp in zip(frames, stamps, strict=True):
            even = np.ascontiguousarray(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2])
            if stream is None:
                stream = container.add_stream(name, rate=rate.limit_denominator(1000), options=options)
                stream.height, stream.width = even.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.time_base = stream.codec_context.time_base = _TIME_BASE
                stream.codec_context.thread_count = 1
                stream.codec_context.flags |= av.codec.context.Flags.bitexact
            picture = av.VideoFrame.from_ndarray(even, format="rgb24")
            picture.pts, picture.time_base = stamp, _TIME_BASE
            container.mux(stream.encode(picture))
        if stream is None:
            raise MediaError("There is no frame to write: a video needs at least one.")
        container.mux(stream.encode())
    return buffer.getvalue()


def _ascending(stamps: Sequence[int]) -> list[int]:
    """Stamps from zero, each at least one above the one before."""
    out: list[int] = []
    for stamp in stamps:
        at = stamp - stamps[0]
        out.append(max(at, out[-1] + 1) if out else 0)
    return out
