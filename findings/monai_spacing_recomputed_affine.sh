#!/bin/sh
# MONAI 1.6.1 (torch 2.14.1, CPU): `Spacing(..., recompute_affine=True)` should correct the affine matrix by the rounding of the
# new shape. It writes the ratio of the shapes alone in its place: the direction of the axes, their order and the origin
# are gone, and so is the spacing itself. A scan of 1.5 x 2 x 3 mm brought to 1 mm says 0.7 x 0.5152 x 0.3448 mm, turned from
# left to right, its corner at -0.15 in place of 100 mm. The values are right, so a place in the picture is named wrongly
# and a second `Spacing(1)` makes of 58 slices 21. With one more step, `Orientation`, left and right change sides.
# Prints the version, the matrices and where a bright spot is said to lie; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "monai==1.6.1" "torch==2.14.1" "nibabel==5.4.2" "numpy==2.4.6"
HOME="$home" "$home/venv/bin/python" -W ignore - <<'PY'
import monai
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation, Spacing

print("MONAI", monai.__version__, "torch", torch.__version__)
affine = np.array([[-1.5, 0, 0, 100], [0, 2, 0, -70], [0, 0, 3, 50], [0, 0, 0, 1]])  # voxel to mm
grid = np.stack(np.meshgrid(np.arange(14), np.arange(17), np.arange(20), indexing="ij"), -1)
spot = np.array([10, 5, 12])
distance = ((grid - spot) * [1.5, 2, 3]) ** 2
scan = MetaTensor(torch.tensor(np.exp(-distance.sum(-1) / 50))[None], affine=torch.tensor(affine))


def place(volume):  # the centre of gravity, in mm by the volume's own affine matrix
    mass = volume.numpy()[0]
    index = np.stack(np.meshgrid(*map(np.arange, mass.shape), indexing="ij"), -1)
    centre = (index * mass[..., None]).sum((0, 1, 2)) / mass.sum()
    return (volume.affine.numpy() @ [*centre, 1])[:3]


exact, recomputed = Spacing(1)(scan), Spacing(1, recompute_affine=True)(scan)
for name, volume in (("before", scan), ("Spacing", exact), ("recomputed", recomputed)):
    print(f"{name:10} shape {tuple(volume.shape[1:])} spot at {place(volume).round(1)} mm by the matrix")
    print("          ", str(volume.affine.numpy()[:3].round(4)).replace("\n", "\n           "))
assert np.allclose(exact.numpy(), recomputed.numpy())
assert np.abs(place(exact) - place(scan)).max() < 0.6
ratio = np.array(scan.shape[1:]) / np.array(exact.shape[1:])
assert np.allclose(recomputed.affine.numpy()[:3, :3], np.diag(ratio)), "the behaviour has changed"
assert np.abs(place(recomputed) - place(scan)).max() > 40, "the behaviour has changed"
again = Spacing(1)(recomputed)
print("a second Spacing(1):", tuple(again.shape[1:]))
assert Spacing(1)(exact).shape == exact.shape
assert again.shape[-1] < 25 and np.prod(again.shape) < np.prod(exact.shape) / 5, "the behaviour has changed"
turned = [Orientation("RAS")(volume).numpy()[0] for volume in (exact, recomputed)]
assert np.allclose(turned[0], turned[1][::-1]) and not np.allclose(*turned), "the behaviour has changed"
PY
