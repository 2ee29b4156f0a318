"""Segmentations as masks: frames by where they lie, empty ones left out, several segments, shares, other ways round."""

import numpy as np
import pytest

import pellucid as pl
from helpers import dicom as made
from helpers.volumes import AXIAL, series
from pellucid.errors import AbsentError, MediaError
from pellucid.media import read_volume
from pellucid.media.dicom_writing import Wording, segmentation
from pellucid.media.seg_masks import segment_numbers, segments_over
from pellucid.verbs.volume_truths import VolumeTruth

highdicom = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return read_volume(series(tmp_path_factory.mktemp("scan") / "s", count=5, SliceThickness=5))


def written(path, scan, marked, kind="BINARY", **more):
    """highdicom's Segmentation of what is marked, empty frames left out as it does."""
    sources = [pydicom.dcmread(s.file.label) for s in scan.made_from]
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=n + 1, segment_label=f"part {n + 1}",
            segmented_property_category=highdicom.sr.CodedConcept("123037004", "SCT", "Anatomical Structure"),
            segmented_property_type=highdicom.sr.CodedConcept("10200004", "SCT", "Liver"),
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for n in range(more.pop("segments", 1))
    ]  # fmt: skip
    highdicom.seg.Segmentation(
        source_images=sources, pixel_array=marked, segmentation_type=kind, segment_descriptions=descriptions,
        series_instance_uid="1.2.3.5", series_number=1, sop_instance_uid="1.2.3.6", instance_number=1,
        manufacturer="m", manufacturer_model_name="m", software_versions="1", device_serial_number="1", **more,
    ).save_as(path)  # fmt: skip
    return path


def test_frames_that_were_left_out_are_empty_and_the_others_lie_where_they_lay(tmp_path, scan):
    marked = np.zeros(scan.size, np.uint8)
    marked[1, 2:4, 5:8], marked[3, 6, 1] = 1, 2
    path = written(tmp_path / "a.dcm", scan, marked, segments=2)
    assert len(pydicom.dcmread(path).PerFrameFunctionalGroupsSequence) < 10
    np.testing.assert_array_equal(segments_over(path, scan.affine, scan.size), marked)
    assert segment_numbers(path) == {1, 2}
    turned = scan.turned((3, -1, 2))
    as_turned = np.flip(marked.transpose(2, 0, 1), 1)
    np.testing.assert_array_equal(segments_over(path, turned.affine, turned.size), as_turned)


@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP"])
def test_every_kind_is_read(tmp_path, scan, kind):
    marked = np.zeros(scan.size, np.uint8)
    marked[2, 3, 4:6] = 1
    given = np.where(marked, 0.6, 0.3) if kind == "FRACTIONAL" else marked
    path = written(tmp_path / "a.dcm", scan, given, kind)
    np.testing.assert_array_equal(segments_over(path, scan.affine, scan.size), marked)


def test_what_was_written_here_is_read_back(tmp_path, scan):
    values = np.zeros(scan.size, np.float32)
    values[4, 2, 2], values[4, 2, 3] = 2, 0.4
    for kind in ("fractional", "labelmap"):
        (tmp_path / f"{kind}.dcm").write_bytes(segmentation(values, scan, Wording("m", "t", "n", "k"), kind))
        found = segments_over(tmp_path / f"{kind}.dcm", scan.affine, scan.size)
        assert np.argwhere(found).tolist() == [[4, 2, 2]]


def test_what_lies_beside_the_grid_or_is_no_mask_is_said(tmp_path, scan):
    marked = np.ones(scan.size, np.uint8)
    path = written(tmp_path / "a.dcm", scan, marked)
    between = scan.affine.copy()
    between[0, 3] += 0.4
    for affine, size in ((between, scan.size), (scan.affine, (5, 8, 9))):
        with pytest.raises(AbsentError, match="not on the volume's grid"):
            segments_over(path, affine, size)
    ct = made.write(tmp_path / "ct.dcm", np.zeros((4, 4), np.int16))
    contours = made.write(tmp_path / "rt.dcm", np.zeros((4, 4), np.int16), Modality="RTSTRUCT", PixelData=None)
    for file, what in ((ct, "holds CT, no mask"), (contours, "holds contours, no mask")):
        with pytest.raises(MediaError, match=what):
            segments_over(file, scan.affine, scan.size)
    nowhere = made.write(tmp_path / "n.dcm", np.ones((4, 4), np.uint8), Modality="SEG", ImageOrientationPatient=AXIAL)
    with pytest.raises(MediaError, match="does not say where it lies"):
        segments_over(nowhere, scan.affine, scan.size)


def test_they_are_the_truth_of_the_command_line(tmp_path, scan):
    marked = np.zeros(scan.size, np.uint8)
    marked[1, 2:4, 5:8], marked[3, 6, 1] = 1, 2
    (tmp_path / "masks").mkdir()
    path = written(tmp_path / "masks" / "case7_seg.dcm", scan, marked, segments=2)
    _, geometry = pl.VolumePreprocess(orientation="RAS")(scan)
    for given, classes in ((tmp_path / "masks", 3), (path, 3), (path, 2)):
        truth = VolumeTruth(given, classes)
        file = truth.file("study/case7", "ct-1234")
        np.testing.assert_array_equal(truth.of(file, geometry, 2).numpy(), marked == 2 if classes > 2 else marked > 0)
        assert truth.holds(file, 2)
        assert truth.holds(file, 3) is (classes == 2)
    _, elsewhere = pl.VolumePreprocess()(pl.Volume(np.zeros((5, 8, 4), np.float32), scan.affine, "v", "", ""))
    with pytest.raises(MediaError, match="not on the volume's grid"):
        truth.of(path, elsewhere, 1)
