#!/bin/sh
# opencv-python-headless 5.0.0.93: a float64 picture that is turned, shifted or bent with `INTER_CUBIC` (warpAffine,
# warpPerspective, remap) has wrong pixels along its rim, two to the left and above, one or two to the right and below:
# there the values are cut to whole numbers before they are blended. A map from 0 to 1 gets a frame of 0, whatever the
# border mode. float32 and float64 with whole values are right, so are linear and Lanczos, and all of OpenCV 4.14.0.
# Prints the versions and a flat map of 0.9 shifted by a part of a pixel; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cat > "$home/shift.py" <<'PY'
import sys

import cv2
import numpy as np

shift = np.float64([[1, 0, 0.25], [0, 1, 0.5]])
across, down = np.meshgrid(np.arange(8, dtype=np.float32) - 0.25, np.arange(7, dtype=np.float32) - 0.5)
flat = np.full((7, 8), 0.9)
print("OpenCV", cv2.__version__)
for name, way in (("cubic", cv2.INTER_CUBIC), ("lanczos", cv2.INTER_LANCZOS4)):
    for kind in ("float32", "float64"):
        for border in (cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101):
            values = flat.astype(kind)
            found = {
                "warpAffine": cv2.warpAffine(values, shift, (8, 7), flags=way, borderMode=border),
                "warpPerspective": cv2.warpPerspective(values, np.vstack([shift, [0, 0, 1]]), (8, 7), flags=way, borderMode=border),
                "remap": cv2.remap(values, across, down, way, borderMode=border),
            }
            wrong = sys.argv[1] == "5" and name == "cubic" and kind == "float64"
            for function, made in found.items():
                assert np.allclose(made[2:-2, 2:-2], 0.9, atol=1e-6), "the behaviour has changed"
                rim = np.concatenate([made[:2].ravel(), made[:, :2].ravel(), made[-1], made[:, -1]])
                assert np.all(rim == 0) if wrong else np.allclose(made, 0.9, atol=1e-6), "the behaviour has changed"
    print(f"  {name}, float64, a row:", cv2.warpAffine(flat, shift, (8, 7), flags=way, borderMode=cv2.BORDER_REPLICATE)[3].round(4).tolist())
PY
for version in 5.0.0.93 4.14.0.94; do
    python3 -m venv "$home/$version"
    "$home/$version/bin/pip" install --quiet "opencv-python-headless==$version" "numpy==2.4.6"
    "$home/$version/bin/python" "$home/shift.py" "${version%%.*}"
done
