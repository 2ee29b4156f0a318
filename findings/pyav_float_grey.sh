#!/bin/sh
# PyAV 18.1.0 (its FFmpeg): the white of an 8-bit picture is 255 as `gray` and 65535 as `gray16le`, but 0.918 as
# `grayf32le`, and black is 0.0625: the float format alone has the range of television (16 and 235, over 256). As
# `gbrpf32le` white is 0.996 (255 / 256), as `rgb48le` 65283. So a frame read in float is no frame of bytes over 255.
# Prints the version and black and white in each format; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "av==18.1.0" "numpy==2.4.6"
"$home/venv/bin/python" - <<'PY'
import av
import numpy as np

print("PyAV", av.__version__)
picture = np.zeros((16, 16, 3), np.uint8)
picture[:, 8:] = 255
frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
ends = {}
for name in ("gray", "gray10le", "gray16le", "grayf32le", "gbrp", "gbrpf32le", "rgb48le"):
    values = frame.to_ndarray(format=name)
    ends[name] = float(values.min()), float(values.max())
    print(name, *ends[name])
assert ends["gray"] == (0, 255) and ends["gray10le"] == (0, 1023) and ends["gray16le"] == (0, 65535)
assert np.allclose(ends["grayf32le"], (0.0625, 0.918), atol=1e-3), "the behaviour has changed"
assert np.allclose(ends["gbrpf32le"], (0, 255 / 256), atol=1e-4), "the behaviour has changed"
PY
