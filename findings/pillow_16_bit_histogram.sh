#!/bin/sh
# Pillow 13.0.0: `histogram()` of a 16-bit grey picture (mode I;16) counts bytes, not pixels, and those of the left half
# of each row alone, so `ImageStat` and `entropy()` are wrong: a flat picture of 300 has the mean 22.5, extrema 1 and 44,
# and an entropy of 1 bit; what lies in the right half changes nothing. The documentation says that values are grouped
# into 256 bins; these are no bins. `getextrema()` is right.
# Prints the version and what is said of two pictures; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "pillow==13.0.0" "numpy==2.4.6"
"$home/venv/bin/python" - <<'PY'
import numpy as np
import PIL
from PIL import Image, ImageStat

print("Pillow", PIL.__version__)
flat = np.full((8, 10), 300, np.uint16)
half = flat.copy()
half[:, 5:] = 60000  # the right half bright
for name, pixels in (("flat", flat), ("right half bright", half)):
    image = Image.fromarray(pixels)
    told = ImageStat.Stat(image)
    print(f"{name}: {image.mode}, mean {told.mean[0]} (truth {pixels.mean()}), extrema {told.extrema[0]} "
          f"(getextrema {image.getextrema()}), entropy {image.entropy()}")
    assert image.getextrema() == (pixels.min(), pixels.max())
    left = pixels.view(np.uint8).reshape(8, 20)[:, :10]
    assert image.histogram() == np.bincount(left.ravel(), minlength=256).tolist(), "the behaviour has changed"
PY
