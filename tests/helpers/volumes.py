"""Volumes made for tests: affines of every orientation, NIfTI files and DICOM series with known values."""

from itertools import permutations, product

import numpy as np

from helpers import dicom as made

PAIRS = ("RL", "AP", "SI")
ALL = [
    "".join(p[k][s] for k, s in enumerate(sides)) for p in permutations(PAIRS) for sides in product((0, 1), repeat=3)
]
AXIAL = [1, 0, 0, 0, 1, 0]


def oblique(orientation, steps=(0.7, 1.3, 4.0), angle=0.2):
    """An affine near an orientation, turned a little about a skew axis, with uneven steps and an odd origin."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    cross = np.cross(np.eye(3), axis)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    columns = np.zeros((3, 3))
    for k, letter in enumerate(orientation):
        row = next(i for i, pair in enumerate(PAIRS) if letter in pair)
        columns[row, k] = 1 if letter in "RAS" else -1
    affine = np.eye(4)
    affine[:3, :3] = turn @ columns * steps
    affine[:3, 3] = (-31.5, 12.25, 7.125)
    return affine


def nifti(path, values, sform=None, qform=None, units="mm", **header):
    import nibabel

    image = nibabel.Nifti1Image(values, None)
    image.header["pixdim"][1:4] = 2.0
    image.set_sform(sform, code=header.pop("scode", 1) if sform is not None else 0)
    image.set_qform(qform, code=header.pop("qcode", 1) if qform is not None else 0)
    image.header.set_xyzt_units(units)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def rigid(shift):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = shift
    return affine


def series(folder, count=6, spacing=5.0, order=None, uid="1.2.3", **tags):
    """Slices whose value is their number from below; the files' names and numbers say nothing of where they lie."""
    rng = np.random.default_rng(1)
    order = rng.permutation(count) if order is None else order
    for file, k in enumerate(order):
        stored = np.full((8, 10), 1000 + k, np.int16)
        stored[2, 7] = 2000 + k
        made.write(
            folder / f"{file:03d}.dcm", stored, SeriesInstanceUID=uid, ImageOrientationPatient=tags.get("iop", AXIAL),
            ImagePositionPatient=[-20, -30, 40 + spacing * float(k)], PixelSpacing=[0.5, 0.75], RescaleSlope=1,
            RescaleIntercept=-1000.0 - 0.5 * k if tags.get("own") else -1024,
            StudyInstanceUID="1.2.7", FrameOfReferenceUID="1.2.8", InstanceNumber=int(rng.integers(1, 99)),
            **{n: v for n, v in tags.items() if n[0].isupper()},
        )  # fmt: skip
    return folder


def place(path, corner, iop=AXIAL, **tags):
    """One more slice of the series of `series`, or of another."""
    where = {"ImageOrientationPatient": iop, "ImagePositionPatient": corner, "PixelSpacing": [0.5, 0.75]}
    return made.write(path, np.zeros((8, 10), np.int16), **({"SeriesInstanceUID": "1.2.3"} | where | tags))
