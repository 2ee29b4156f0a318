"""DICOM series: slices by where they lie, each by its own numbers, and what makes no volume."""

from pathlib import Path

import numpy as np
import pytest

from helpers import dicom as made
from helpers.volumes import AXIAL, place, series
from pellucid.errors import MediaError
from pellucid.media import read_volume
from pellucid.media.orientation import to_mm
from pellucid.media.volumes import volumes_in

pydicom = pytest.importorskip("pydicom")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_slices_are_sorted_by_where_they_lie(tmp_path):
    found = read_volume(series(tmp_path / "s"))
    assert found.size == (6, 8, 10)
    np.testing.assert_array_equal(found.values[:, 0, 0], np.arange(6) - 24)
    assert found.unit == "HU"
    np.testing.assert_allclose(to_mm(found.affine, (0, 0, 0)), (20, 30, 40))  # L, P in DICOM are R, A below zero
    np.testing.assert_allclose(to_mm(found.affine, (3, 2, 7)), (20 - 7 * 0.75, 30 - 2 * 0.5, 55))
    assert found.codes == "SPL"
    assert found.name.startswith("ct-")


def test_a_slices_own_intercept_is_kept_as_a_fraction(tmp_path):
    found = read_volume(series(tmp_path / "s", own=True))
    np.testing.assert_allclose(found.values[:, 0, 0], np.arange(6) * 0.5)


def test_a_missing_slice_is_named_by_where_it_would_lie(tmp_path):
    folder = series(tmp_path / "s", order=[0, 1, 2, 4, 5])
    with pytest.raises(MediaError, match=r"1 slice is missing, the first at .*S 55\.0 mm"):
        read_volume(folder)


def test_stacks_that_are_not_even_are_refused(tmp_path):
    uneven = series(tmp_path / "a", order=[0, 1, 2, 3, 4.3, 5])
    with pytest.raises(MediaError, match="not evenly"):
        read_volume(uneven)
    tilted = tmp_path / "b"
    for k in range(4):
        place(tilted / f"{k}.dcm", [0, 2.0 * k, 5.0 * k])
    with pytest.raises(MediaError, match="gantry was tilted"):
        read_volume(tilted)
    single = series(tmp_path / "c", count=1)
    with pytest.raises(MediaError, match="single slice"):
        read_volume(single)
    for k in range(3):
        place(tmp_path / "d" / f"{k}.dcm", [0, 0, 5.0])
    with pytest.raises(MediaError, match="all its slices lie at one place"):
        read_volume(tmp_path / "d")


def test_copies_scouts_and_strays_are_left_out_and_said(tmp_path):
    folder = series(tmp_path / "s")
    place(folder / "copy.dcm", [-20, -30, 50])
    place(folder / "stray.dcm", [0, 0, 0], [0, 1, 0, 0, 0, -1])
    place(folder / "scout.dcm", [0, 0, 0], SeriesInstanceUID="1.2.9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    place(folder / "mask.dcm", [0, 0, 0], SeriesInstanceUID="1.2.10", Modality="SEG")
    (folder / "notes.txt").write_text("not DICOM")
    found = read_volume(folder)
    assert found.size[0] == 6
    assert any("at the place of another" in n for n in found.notes)
    assert any("another size or orientation" in n for n in found.notes)


def test_of_moments_at_each_place_the_first_makes_the_volume_whatever_the_files_are_called(tmp_path):
    where = {
        "ImageOrientationPatient": AXIAL,
        "PixelSpacing": [0.5, 0.75],
        "SeriesInstanceUID": "1.2.3",
        "RescaleIntercept": 0,
    }
    for moment, k in ((m, k) for m in range(3) for k in range(4)):
        values = np.full((8, 10), 100 * moment, np.int16)
        name = f"{(5 * moment + 7 * k) % 12:02}-{moment}{k}.dcm"
        made.write(
            tmp_path / "s" / name, values, ImagePositionPatient=[0, 0, 2.0 * k], InstanceNumber=4 * moment + k, **where
        )
    found = read_volume(tmp_path / "s")
    np.testing.assert_array_equal(found.values, np.zeros((4, 8, 10)))
    assert "8 of 12 slices lie at the place of another, and are left out." in found.notes


def test_two_patients_in_one_folder_are_two_volumes(tmp_path):
    folder = series(tmp_path / "s")
    for path in sorted(series(tmp_path / "t", count=4, uid="1.2.4", PatientID="OTHER").iterdir()):
        path.rename(folder / f"other-{path.name}")
    with pytest.raises(MediaError, match=r"2 series \(of 6, 4 files\): choose one"):
        read_volume(folder)
    both = volumes_in(str(folder))
    found = [read_volume(v) for v in both]
    assert [volume.size[0] for volume in found] == [6, 4]
    told = "Its folder holds 2 series of 2 patients, each a volume of its own."
    assert all(told in volume.notes for volume in found)
    assert not any(s in " ".join(both).lower() for s in made.SECRETS)


def test_frames_of_one_file_are_rescaled_each_by_its_own_intercept_and_sorted(tmp_path):
    """An enhanced CT whose frames lie in a random order, with an intercept each."""
    order = [3, 0, 4, 1, 2]
    stored = np.stack([np.full((4, 6), 100 + k, np.int16) for k in order])
    frames = []
    for k in order:
        frame, place, value = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = [0, 0, 2.0 * k]
        value.RescaleSlope, value.RescaleIntercept, value.RescaleType = 1, -10.5 * k, "HU"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [place], [value]
        frames.append(frame)
    shared, orientation, measures = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    orientation.ImageOrientationPatient, measures.PixelSpacing = AXIAL, [1, 1]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    path = made.write(
        tmp_path / "e.dcm", stored, PerFrameFunctionalGroupsSequence=frames, SharedFunctionalGroupsSequence=[shared]
    )
    found = read_volume(path)
    np.testing.assert_allclose(found.values[:, 0, 0], [100 + k - 10.5 * k for k in range(5)])
    np.testing.assert_allclose(found.spacing, (2, 1, 1))


def test_padding_of_a_series_was_not_seen(tmp_path):
    found = read_volume(series(tmp_path / "s", PixelPaddingValue=2003))
    assert not found.seen[3, 2, 7]
    assert found.seen.sum() == found.seen.size - 1


def test_doses_of_radiotherapy_lie_where_their_offsets_say():
    path = Path(pydicom.data.__file__).parent / "test_files" / "rtdose.dcm"
    found, header = read_volume(path), pydicom.dcmread(path)
    offsets = list(map(float, header.GridFrameOffsetVector))
    np.testing.assert_allclose(found.spacing[0], abs(offsets[1] - offsets[0]))
    scaled = header.pixel_array * float(header.DoseGridScaling)
    up = found.values if offsets[1] > offsets[0] else found.values[::-1]
    np.testing.assert_allclose(up, scaled, rtol=1e-6)


def test_a_mosaic_of_slices_is_named(tmp_path):
    for k in range(2):
        place(tmp_path / f"{k}.dcm", [0, 0, 5.0 * k], ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    with pytest.raises(MediaError, match="mosaic, all slices in one picture"):
        read_volume(tmp_path)


def test_numbers_that_are_none_were_not_seen(tmp_path):
    """Floats of a Parametric Map, which marks nothing where there is NaN."""
    for k in range(2):
        values = np.full((8, 10), k + 1, np.float32)
        values[k, 3] = np.nan
        tags = {"FloatPixelData": values.tobytes(), "PixelData": None, "BitsAllocated": 32}
        place(tmp_path / f"{k}.dcm", [0, 0, 5.0 * k], SeriesInstanceUID="1.2.3", RescaleIntercept=0, **tags)
    found = read_volume(tmp_path)
    assert not found.seen[0, 0, 3]
    assert not found.seen[1, 1, 3]
    assert found.seen.sum() == found.seen.size - 2
    assert np.isfinite(found.values).all()
