#!/bin/sh
# torchmetrics 1.9.0 (torch 2.14.1, CPU): the Hausdorff distance of two masks depends on what shape the picture around them
# has. In square pictures it is right; in one that is wider than high, as most photographs are, the same two masks of 80
# and 99 pixels are 14, 27, 24 or 234 apart in place of 4.24, without a word: the distance transform behind it counts its cells
# by the height. One pixel more of empty margin is enough. (A picture that is higher than wide is refused with an error.)
# The public issue knows of that error alone and calls wide pictures working.
# Prints the version and the distances beside those of scipy; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "torch==2.14.1" "torchmetrics==1.9.0" "scipy==1.17.1" "numpy==2.4.6"
HOME="$home" "$home/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import torch
import torchmetrics
from scipy.spatial.distance import directed_hausdorff
from torchmetrics.segmentation import HausdorffDistance

print("torch", torch.__version__, "torchmetrics", torchmetrics.__version__)
found = []
for height, width in ((32, 32), (32, 33), (32, 40), (32, 64), (64, 64), (240, 320)):
    target, answer = torch.zeros((2, 1, height, width), dtype=torch.long)
    target[0, 4:12, 6:16] = 1
    answer[0, 6:15, 3:14] = 1
    metric = HausdorffDistance(num_classes=2, input_format="index")
    metric.update(answer, target)
    a, b = np.argwhere(answer[0].numpy()), np.argwhere(target[0].numpy())
    right = max(directed_hausdorff(a, b)[0], directed_hausdorff(b, a)[0])
    assert abs(right - 18**0.5) < 1e-6
    found.append(float(metric.compute()))
    print(f"  {height} x {width}: torchmetrics {found[-1]:.3f}, scipy {right:.3f}")
assert np.allclose([found[0], found[4]], 18**0.5, atol=1e-4)
assert np.allclose([found[1], found[2], found[3], found[5]], [14, 27, 24, 234], atol=1e-3), "the behaviour has changed"
PY
