#!/bin/sh
# Pillow 13.0.0: a grey float32 TIFF in big-endian order ("MM") is read with its bytes exchanged twice when it is compressed
# (LZW, Deflate, PackBits): 1.0 becomes 4.6e-41, a map of 0 to 1 reaches 3e38 and NaN. No word, right shape and mode.
# The same file without compression is right, so is little-endian order, and so are 16-bit integers in both orders;
# SimpleITK and tifffile read all of them rightly.
# Prints the versions and the first values each library reads; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "pillow==13.0.0" "simpleitk==2.5.7" "tifffile==2026.3.3" "imagecodecs==2026.3.6" "numpy==2.4.6"
"$home/venv/bin/python" - "$home/heat.tif" <<'PY'
import sys

import numpy as np
import PIL
import SimpleITK
import tifffile
from PIL import Image

path = sys.argv[1]
print("Pillow", PIL.__version__, "SimpleITK", SimpleITK.Version_VersionString(), "tifffile", tifffile.__version__)
values = np.random.default_rng(0).random((24, 32))
values[0, :2] = 1, 0.25
for kind, scale in (("float32", 1), ("uint16", 60000)):
    written = (values * scale).astype(kind)
    for order in "<>":
        for packing in (None, "lzw", "deflate", "packbits"):
            tifffile.imwrite(path, written, byteorder=order, compression=packing, photometric="minisblack")
            seen = np.asarray(Image.open(path))
            other = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path))
            assert np.array_equal(other, written) and np.array_equal(tifffile.imread(path), written)
            assert seen.shape == written.shape
            lost = kind == "float32" and order == ">" and packing is not None
            print(f"  {kind:8} {order} {packing or 'plain':8} Pillow {seen[0, :2].tolist()}, SimpleITK {other[0, :2].tolist()}")
            right = np.array_equal(seen, written)
            exchanged = np.array_equal(seen.view(np.uint32), written.view(np.uint32).byteswap()) if lost else False
            assert (exchanged and not right) if lost else right, "the behaviour has changed"
PY
