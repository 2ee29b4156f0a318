"""A map as NIfTI on its volume's own grid: single precision, with the affine, the forms and the codes of the source."""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import MediaError
from pellucid.media.volume import Volume

_LEVEL = 1
"""Of packing: numbers of single precision become hardly smaller with more, and that takes several times as long."""


def nifti_bytes(values: NDArray[Any], volume: Volume) -> bytes:
    """A packed NIfTI file (`.nii.gz`) of values `(I, J, K)` over a volume; NaN stays NaN.

    The header is new: that of the source may scale and round. Of a NIfTI source its sform, qform, codes and units are
    copied; otherwise the affine is the sform, and the qform where it has no shear, in scanner coordinates.

    Raises:
        MediaError: nibabel is missing, or the values are not on the volume's grid.
    """
    try:
        from nibabel.nifti1 import Nifti1Image
    except ImportError:
        raise MediaError('NIfTI needs nibabel: pip install "pellucid[medical]".') from None
    if tuple(values.shape) != volume.size:
        raise MediaError(f"A map of {tuple(values.shape)} is not on the volume's grid {volume.size}.")
    made: Any = Nifti1Image
    image = made(np.asarray(values, np.float32), None)
    source = volume.made_from if volume.origin.get("kind") == "nifti" else None
    if source is None:
        image.set_sform(volume.affine, code=1)
        if _rigid(volume.affine):
            image.set_qform(volume.affine, code=1)
        image.header.set_xyzt_units("mm")
    else:
        image.header["pixdim"][:4] = source["pixdim"][:4]
        image.set_sform(source.get_sform(), code=int(source["sform_code"]), update_affine=False)
        if int(source["qform_code"]):
            image.set_qform(source.get_qform(), code=int(source["qform_code"]), update_affine=False)
        image.header.set_xyzt_units(source.get_xyzt_units()[0])
    image.header["descrip"] = b"AI explanation, not for diagnosis"
    return gzip.compress(image.to_bytes(), _LEVEL, mtime=0)


def _rigid(affine: NDArray[Any]) -> bool:
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.allclose(columns.T @ columns, np.eye(3), atol=1e-6))
