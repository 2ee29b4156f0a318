#!/bin/sh
# SimpleITK 2.5.7: a TIFF of half floats (16 bits, sample format "floating point") is read as 16-bit unsigned integers, the
# bits of each float taken for a number, without a warning: 0.5 becomes 14336, 1.0 15360 and -1.0 48128. Positive values keep
# their order, so the picture looks plausible, but negative values become the largest of all and sums mean nothing.
# Asking for floats (sitkFloat32) turns the same integers into floats. float32 is read rightly, float64 is refused;
# tifffile reads all three.
# Prints the versions and what is read; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "simpleitk==2.5.7" "tifffile==2026.3.3" "numpy==2.4.6"
"$home/venv/bin/python" - "$home/heat.tif" <<'PY'
import sys

import numpy as np
import SimpleITK as sitk
import tifffile

path = sys.argv[1]
print("SimpleITK", sitk.Version_VersionString(), "tifffile", tifffile.__version__)
values = np.linspace(-1, 1, 24 * 32).reshape(24, 32)
values[0, :5] = 0, 0.25, 0.5, 1, -1
for kind in ("float16", "float32"):
    for order in "<>":
        written = values.astype(kind)
        tifffile.imwrite(path, written, byteorder=order, photometric="minisblack")
        assert np.array_equal(tifffile.imread(path), written)
        for name, picture in (("as is", sitk.ReadImage(path)), ("sitkFloat32", sitk.ReadImage(path, sitk.sitkFloat32))):
            seen = sitk.GetArrayFromImage(picture)
            print(f"  {kind} {order} {name:11}", picture.GetPixelIDTypeAsString(), seen[0, :5].tolist())
            expected = written.view(np.uint16) if kind == "float16" else written
            assert np.array_equal(seen, expected), "the behaviour has changed"
tifffile.imwrite(path, values, photometric="minisblack")
try:
    sitk.ReadImage(path)
except RuntimeError:
    print("  float64 is refused")
else:
    raise AssertionError("the behaviour has changed")
PY
