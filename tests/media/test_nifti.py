"""NIfTI as it is: which affine counts, units, scaling, moments, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from helpers.volumes import nifti, rigid
from pellucid.errors import MediaError
from pellucid.media import read_volume

nibabel = pytest.importorskip("nibabel")


def test_the_sform_is_taken_whenever_its_code_is_above_zero(tmp_path):
    values = np.zeros((3, 4, 5), np.int16)
    s, q = rigid((1, 2, 3)), rigid((7, 8, 9))
    for code in (1, 2, 4, 5):
        found = read_volume(nifti(tmp_path / f"{code}.nii", values, s, q, scode=code))
        np.testing.assert_allclose(found.affine, s)
        assert found.origin["affine"] == f"sform, code {code}"
    only = read_volume(nifti(tmp_path / "q.nii.gz", values, None, q))
    np.testing.assert_allclose(only.affine, q, atol=1e-6)
    assert only.name == "q"


def test_micrometres_and_metres_are_made_millimetres(tmp_path):
    values = np.zeros((3, 4, 5), np.int16)
    for units, scale in (("micron", 1e-3), ("meter", 1e3), ("mm", 1)):
        found = read_volume(nifti(tmp_path / f"{units}.nii", values, rigid((1, 2, 3)), units=units))
        np.testing.assert_allclose(found.spacing, 2 * scale)


def test_a_slope_of_zero_scales_nothing(tmp_path):
    path = nifti(tmp_path / "a.nii", np.full((3, 4, 5), 7, np.int16), rigid((0, 0, 0)))
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([0, 100], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(data)
    assert (read_volume(path).values == 7).all()


def test_a_moment_is_chosen_and_a_trailing_axis_of_one_is_no_time(tmp_path):
    values = np.arange(3 * 4 * 5 * 2, dtype=np.float32).reshape(3, 4, 5, 2)
    path = nifti(tmp_path / "a.nii", values, rigid((0, 0, 0)))
    with pytest.raises(MediaError, match="2 moments: choose one"):
        read_volume(path)
    second = read_volume(f"time:1:{path}")
    np.testing.assert_array_equal(second.values, values[..., 1])
    np.testing.assert_array_equal(read_volume(second.source).values, values[..., 1])
    one = read_volume(nifti(tmp_path / "b.nii", values[..., :1], rigid((0, 0, 0))))
    np.testing.assert_array_equal(one.values, values[..., 0])


def test_bad_niftis_get_one_sentence(tmp_path):
    good = np.zeros((3, 4, 5), np.int16)
    rgb = np.zeros((3, 4, 5), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    zero = nifti(tmp_path / "zero.nii", good, rigid((0, 0, 0)))
    data = bytearray(zero.read_bytes())
    data[280:328] = bytes(48)  # srow_x, srow_y, srow_z
    zero.write_bytes(data)
    short = tmp_path / "short.nii"
    short.write_bytes(nifti(tmp_path / "c.nii", np.zeros((9, 9, 9), np.float32), rigid((0, 0, 0))).read_bytes()[:700])
    huge = nifti(tmp_path / "huge.nii", good, rigid((0, 0, 0)))
    data = bytearray(huge.read_bytes())
    data[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    huge.write_bytes(data)
    cases = {
        "does not say where its voxels lie": zero,
        "damaged or cut short": short,
        "claims 30000 x 30000 x 30000 voxels": huge,
        "3 x 4 x 5 x 2 x 2, not a volume of three axes": nifti(
            tmp_path / "five.nii", np.zeros((3, 4, 5, 2, 2), np.int16), rigid((0, 0, 0))
        ),
        "complex numbers": nifti(tmp_path / "complex.nii", np.zeros((3, 4, 5), np.complex64), rigid((0, 0, 0))),
        "colours": nifti(tmp_path / "rgb.nii", rgb, rigid((0, 0, 0))),
        "There is no file": tmp_path / "none.nii",
    }
    for sentence, path in cases.items():
        with pytest.raises(MediaError, match=sentence):
            read_volume(path)
    (tmp_path / "p.nii").write_bytes(b"\x80\x04\x95 a pickle in disguise")
    with pytest.raises(MediaError, match="neither NIfTI nor DICOM"):
        read_volume(tmp_path / "p.nii")


def test_values_that_are_no_numbers_were_not_seen(tmp_path):
    values = np.ones((3, 4, 5), np.float32)
    values[0] = np.nan
    found = read_volume(nifti(tmp_path / "a.nii", values, rigid((0, 0, 0))))
    assert not found.seen[0].any()
    assert found.seen[1:].all()
    assert np.isfinite(found.values).all()


def test_every_volume_of_nibabels_own_is_read_or_refused_in_a_sentence():
    folder = Path(nibabel.__file__).parent / "tests" / "data"
    read, refused = 0, []
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        try:
            found = read_volume(path)
        except MediaError as error:
            refused.append(str(error))
        else:
            read += 1
            assert found.values.ndim == 3
    assert read >= 4
    assert not any("\n" in sentence for sentence in refused)


def test_a_pair_of_files_is_one_volume_and_its_hash_is_of_both(tmp_path):
    values = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    pair = nibabel.Nifti1Pair(values, rigid((1, 2, 3)))
    nibabel.save(pair, tmp_path / "a.img")
    by_header, by_values = read_volume(tmp_path / "a.hdr"), read_volume(tmp_path / "a.img")
    np.testing.assert_array_equal(by_header.values, values)
    np.testing.assert_array_equal(by_values.values, values)
    (tmp_path / "a.img").write_bytes((tmp_path / "a.img").read_bytes()[:-2] + b"\1\1")
    assert read_volume(tmp_path / "a.hdr").sha256 != by_header.sha256 == by_values.sha256
    (tmp_path / "a.img").unlink()
    with pytest.raises(MediaError, match="one of a pair of files"):
        read_volume(tmp_path / "a.hdr")


def test_what_holds_no_voxels_is_named():
    path = Path(nibabel.__file__).parent / "tests" / "data" / "row_major.dconn.nii"
    with pytest.raises(MediaError, match="holds Cifti2Image, no volume of voxels"):
        read_volume(path)
