"""Objects that are written hold what the standard requires of them; those made from one enhanced file refer to it."""

import io

import numpy as np
import pytest

from helpers import dicom as made
from helpers.iod import missing
from pellucid.media import Volume, read_image, read_volume
from pellucid.media.dicom_writing import Wording, parametric_map, secondary_capture, segmentation, structured_report

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

ORDER = (3, 0, 4, 1, 2)  # which slice from below each frame is
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"


def group(**tags):
    """A sequence of one item."""
    item = pydicom.Dataset()
    for name, value in tags.items():
        setattr(item, name, value)
    return [item]


def enhanced(path, **tags):
    """An enhanced CT whose frames lie in no order, with an intercept and a window each."""
    frames = []
    for k in ORDER:
        frame = pydicom.Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=[0, 0, 2.0 * k])
        frame.PixelValueTransformationSequence = group(RescaleSlope=1, RescaleIntercept=-10.5 * k, RescaleType="HU")
        frame.FrameVOILUTSequence = group(WindowCenter=50 + k, WindowWidth=300, VOILUTFunction="LINEAR_EXACT")
        frames.append(frame)
    shared = pydicom.Dataset()
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelMeasuresSequence = group(PixelSpacing=[1, 1], SliceThickness=2)
    stored = np.stack([np.full((4, 6), 100 + k, np.int16) for k in ORDER])
    return made.write(
        path, stored, PerFrameFunctionalGroupsSequence=frames, SharedFunctionalGroupsSequence=[shared],
        SOPClassUID=ENHANCED_CT, SOPInstanceUID="1.2.3.77", SeriesInstanceUID="1.2.3.7", **tags,
    )  # fmt: skip


def written(volume, wording):
    """One object of each kind."""
    values = np.random.default_rng(0).normal(size=volume.size).astype(np.float32)
    files = {
        "pm": parametric_map(values, volume, wording),
        "seg": segmentation(values, volume, wording),
        "labelmap": segmentation(values, volume, wording, "labelmap"),
        "sc": secondary_capture(np.zeros((60, 80, 3), np.uint8), volume, wording),
        "sr": structured_report({"sanity": 0.5, "distance": 3.0}, volume, wording),
    }
    return {kind: pydicom.dcmread(io.BytesIO(data)) for kind, data in files.items()}


@pytest.mark.parametrize("keep", [False, True])
def test_all_that_the_standard_requires_is_there(tmp_path, keep):
    for k in range(3):
        made.write(
            tmp_path / "s" / f"{k}.dcm", np.full((4, 6), k, np.int16), SeriesInstanceUID="1.2.3.4",
            StudyInstanceUID="1.2.3", FrameOfReferenceUID="1.2.5", ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[0, 0, 5.0 * k], PixelSpacing=[1, 1],
        )  # fmt: skip
    wording = Wording("grad-cam", "effusion", "a net", "key", keep)
    for volume in (read_volume(tmp_path / "s"), read_volume(enhanced(tmp_path / "e.dcm"))):
        for kind, dataset in written(volume, wording).items():
            assert missing(dataset) == [], kind
    alone = Volume(np.zeros((3, 4, 5), np.float32), np.diag([2.0, 3.0, 4.0, 1.0]), "v", "", "abc")
    for kind, dataset in written(alone, wording).items():
        assert missing(dataset, refers=False) == [], kind


def test_the_tables_notice_what_is_missing(tmp_path):
    volume = Volume(np.zeros((3, 4, 5), np.float32), np.eye(4), "v", "", "abc")
    dataset = written(volume, Wording("m", "t", "n", "k"))["pm"]
    del dataset.ContentLabel
    del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    del dataset.PerFrameFunctionalGroupsSequence[1].FrameContentSequence
    dataset.Manufacturer = ""
    found = " ".join(missing(dataset, refers=False))
    for name in ("ContentLabel", "PixelMeasuresSequence", "FrameContentSequence", "Manufacturer"):
        assert name in found


def test_a_frame_is_read_as_its_own_group_says(tmp_path):
    path = enhanced(tmp_path / "e.dcm")
    volume = read_volume(path)
    np.testing.assert_allclose(volume.values[:, 0, 0], [100 + k - 10.5 * k for k in range(5)])
    assert volume.window == (50, 300)
    first = read_image(path)  # slice 3: 103 - 31.5 HU in a window about 53
    assert first.pixels[0, 0, 0] == pytest.approx((71.5 - 53) / 300 + 0.5, abs=1e-5)


@pytest.mark.parametrize("keep", [False, True])
def test_maps_of_an_enhanced_file_refer_to_its_frames(tmp_path, keep):
    volume = read_volume(enhanced(tmp_path / "e.dcm"))
    objects = written(volume, Wording("grad-cam", "effusion", "a net", "key", keep))
    for kind in ("pm", "seg", "labelmap"):
        dataset = objects[kind]
        (series,) = dataset.ReferencedSeriesSequence
        (instance,) = series.ReferencedInstanceSequence
        assert instance.ReferencedSOPClassUID == ENHANCED_CT
        assert (instance.ReferencedSOPInstanceUID == "1.2.3.77") is keep
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            height = float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
            (source,) = frame.DerivationImageSequence[0].SourceImageSequence
            assert source.ReferencedSOPInstanceUID == instance.ReferencedSOPInstanceUID
            assert ORDER[source.ReferencedFrameNumber - 1] == height / 2
    (study,) = objects["sr"].CurrentRequestedProcedureEvidenceSequence
    (evidence,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert evidence.ReferencedSOPClassUID == ENHANCED_CT
    assert (evidence.ReferencedSOPInstanceUID == "1.2.3.77") is keep


def test_a_map_of_an_enhanced_file_lies_where_its_frame_lay(tmp_path):
    volume = read_volume(enhanced(tmp_path / "e.dcm"))
    values = np.zeros(volume.size, np.float32)
    values[3, 2, 5] = 1
    data = parametric_map(values, volume, Wording("m", "t", "n", "k"))
    dataset = pydicom.dcmread(io.BytesIO(data))
    stored = np.frombuffer(dataset.FloatPixelData, np.float32).reshape(5, 4, 6)
    k, row, column = np.argwhere(stored == 1)[0]
    place = dataset.PerFrameFunctionalGroupsSequence[int(k)].PlanePositionSequence[0].ImagePositionPatient
    assert (float(place[2]), row, column) == (6.0, 2, 5)
