"""Generated clips with a known truth, and the files that hold them, good and hostile."""

from fractions import Fraction

import numpy as np
from PIL import Image


def bars(count=12, height=48, width=64, step=4):
    """A bright bar that moves right by `step` pixels a frame over a dark ground: `(T, H, W, 3)` uint8."""
    frames = np.full((count, height, width, 3), 40, np.uint8)
    for i in range(count):
        at = (i * step) % (width - 8)
        frames[i, 8:-8, at : at + 8] = 220
    return frames


def write(path, frames, stamps=None, *, codec="libx264", base=Fraction(1, 600), options=None, keys=None):
    """A video of `frames` shown at `stamps` (in units of `base`; default: 24 a unit, 25 a second)."""
    import av

    stamps = [24 * i for i in range(len(frames))] if stamps is None else stamps
    options = {"crf": "0", **(options or {})} if codec == "libx264" else (options or {})
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = base
        if keys is not None:
            stream.codec_context.gop_size = keys
        for frame, stamp in zip(frames, stamps, strict=True):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = stamp, base
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return str(path)


def rotate(path, degrees):
    """Write a rotation (clockwise, as cameras do) into the track header of an MP4."""
    place(path, {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees])


def place(path, matrix):
    """Write (a, b, c, d) into the track header of an MP4: column p, row q are shown at (a p + c q, b p + d q)."""
    a, b, c, d = (v << 16 for v in matrix)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version and flags, times, id, durations, layer, group, volume
    values = [a, b, 0, c, d, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join((v & 0xFFFFFFFF).to_bytes(4, "big") for v in values)
    path.write_bytes(data)


def cut(whole, path, key, first, last, step):
    """Frames `first` to `last` of an MP4, stored from frame `key` on; an edit list hides those before `first`."""
    import av

    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.pts is not None and key * step <= packet.pts < last * step:
                packet.pts, packet.dts, packet.stream = packet.pts - first * step, packet.dts - first * step, stream
                target.mux(packet)
    return str(path)


def sound(path):
    """A file with sound only."""
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        for i in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 1024 * i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


def gif(path, frames, durations):
    """An animation with `durations` in milliseconds."""
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=durations, disposal=1)
    return str(path)


def mutated(data, seed):
    """A file with some bytes overwritten, cut out, doubled or cut off."""
    random = np.random.default_rng(seed)
    out = bytearray(data)
    for _ in range(int(random.integers(1, 9))):
        kind, at = int(random.integers(0, 5)), int(random.integers(0, max(1, len(out))))
        length = int(random.integers(1, 40))
        if kind <= 1:
            out[at : at + length] = random.integers(0, 256, length).astype(np.uint8).tobytes()
        elif kind == 2:
            del out[at : at + length]
        elif kind == 3:
            out[at:at] = out[at : at + length]
        elif random.random() < 0.3:
            del out[at:]
    return bytes(out)
