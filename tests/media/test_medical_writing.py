"""What is written for viewers, read back by the libraries that viewers are made of."""

import gzip
import io

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers import dicom as made
from pellucid.errors import MediaError
from pellucid.media import Volume, read_volume
from pellucid.media.dicom_writing import Wording, parametric_map, secondary_capture, segmentation, structured_report
from pellucid.media.nifti_writing import nifti_bytes

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

WORDING = Wording("grad-cam", "effusion", "a net", "key")
TYPE_1 = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "FrameOfReferenceUID")


@pytest.fixture
def folder(tmp_path):
    """Five slices of CT, 5 mm apart, in the order of their heights 3, 0, 4, 1, 2."""
    for file, k in enumerate((3, 0, 4, 1, 2)):
        made.write(
            tmp_path / "study" / f"{file}.dcm", np.full((8, 10), 1000 + k, np.int16), SeriesInstanceUID="1.2.3.4",
            StudyInstanceUID="1.2.3", FrameOfReferenceUID="1.2.5", ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[-20, -30, 40 + 5.0 * k], PixelSpacing=[0.5, 0.75], SOPInstanceUID=f"1.2.3.4.{k}",
        )  # fmt: skip
    return tmp_path / "study"


@pytest.fixture
def values():
    """A map with NaN, negative numbers, and numbers that need all of single precision."""
    found = np.random.default_rng(0).normal(size=(5, 8, 10)).astype(np.float32)
    found[0, :2] = np.nan
    found[3, 4, 5] = 7.1234567
    return found


def opened(data):
    return pydicom.dcmread(io.BytesIO(data))


def by_height(dataset):
    """Frame number of each height, from the positions and not from the order."""
    frames = dataset.PerFrameFunctionalGroupsSequence
    return {round(float(f.PlanePositionSequence[0].ImagePositionPatient[2]), 3): k for k, f in enumerate(frames)}


def test_a_parametric_map_holds_every_number_as_it_is_where_it_is(folder, values):
    volume = read_volume(folder)
    data = parametric_map(values, volume, WORDING)
    dataset = opened(data)
    assert all(dataset.get(name) for name in TYPE_1)
    stored = np.frombuffer(dataset.FloatPixelData, np.float32).reshape(5, 8, 10)
    heights = by_height(dataset)
    assert sorted(heights) == [40, 45, 50, 55, 60]
    for k in range(5):
        assert stored[heights[40 + 5 * k]].tobytes() == values[k].tobytes()
    (shared,) = dataset.SharedFunctionalGroupsSequence
    assert list(map(float, shared.PixelMeasuresSequence[0].PixelSpacing)) == [0.5, 0.75]
    (mapping,) = shared.RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == pytest.approx(float(np.nanmax(values)))
    assert dataset.ContentDescription == "AI explanation, not for diagnosis"
    assert parametric_map(values, volume, WORDING) == data
    assert parametric_map(values, volume, Wording("grad-cam", "effusion", "a net", "another")) != data


def test_highdicom_opens_what_is_written(folder, values, tmp_path):
    volume = read_volume(folder)
    (tmp_path / "pm.dcm").write_bytes(parametric_map(values, volume, WORDING))
    back = highdicom.imread(tmp_path / "pm.dcm").get_volume(apply_real_world_transform=False)
    assert np.sort(np.unique(back.array[np.isfinite(back.array)])).size == np.unique(values[np.isfinite(values)]).size
    point = back.map_reference_to_indices(np.array([[-20 + 5 * 0.75, -30 + 4 * 0.5, 55.0]]))[0]
    assert back.array[tuple(np.rint(point).astype(int))] == values[3, 4, 5]


def test_a_segmentation_holds_shares_and_places_no_frame_left_out(folder, values):
    volume = read_volume(folder)
    dataset = opened(segmentation(values, volume, WORDING))
    assert dataset.SegmentationType == "FRACTIONAL"
    heights, shares = by_height(dataset), dataset.pixel_array
    expected = np.nan_to_num(values / values[3, 4, 5]).clip(0, 1)
    for k in range(5):
        np.testing.assert_allclose(shares[heights[40 + 5 * k]] / 255, expected[k], atol=0.5 / 255 + 1e-6)
    (about,) = dataset.SegmentSequence
    (algorithm,) = about.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmName == "Pellucid grad-cam"
    labels = opened(segmentation(values, volume, WORDING, "labelmap"))
    heights, marked = by_height(labels), labels.pixel_array
    for k in range(5):
        np.testing.assert_array_equal(marked[heights[40 + 5 * k]] > 0, expected[k] >= 0.5)


def test_a_capture_has_its_sentence_burned_in(folder):
    volume = read_volume(folder)
    pixels = np.full((240, 360, 3), 40, np.uint8)
    dataset = opened(secondary_capture(pixels, volume, WORDING))
    shown = dataset.pixel_array
    np.testing.assert_array_equal(shown[:240], pixels)
    assert (shown[240:] > 150).any()
    assert dataset.BurnedInAnnotation == "NO"
    assert "not for diagnosis" in dataset.DerivationDescription


def test_a_report_holds_what_was_measured(folder):
    volume, numbers = read_volume(folder), {"sanity": 0.125, "rotation": 0.75, "distance": 3.5}
    data = structured_report(numbers, volume, WORDING)
    assert structured_report(numbers, volume, WORDING) == data
    report = highdicom.sr.srread(io.BytesIO(data))
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    (group,) = report.content.get_image_measurement_groups()
    found = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
    assert found["sanity of the map"] == (0.125, "1")
    assert found["distance of the map"] == (3.5, "mm")
    assert not any(s.encode() in data.lower() for s in made.SECRETS)
    with pytest.raises(MediaError, match="Nothing was measured"):
        structured_report({}, volume, WORDING)


def test_identifiers_are_replaced_unless_they_are_kept(folder, values):
    volume = read_volume(folder)
    kept = Wording("grad-cam", "effusion", "a net", "key", keep=True)
    for write in (parametric_map, segmentation):
        plain, true = opened(write(values, volume, WORDING)), opened(write(values, volume, kept))
        assert str(plain.PatientName) == plain.PatientID == ""
        assert str(true.PatientName) == made.PATIENT
        assert (true.StudyInstanceUID, true.FrameOfReferenceUID) == ("1.2.3", "1.2.5")
        assert plain.StudyInstanceUID.startswith("2.25.")
        assert "1.2.3.4" in write(values, volume, kept).decode("latin1")
        assert "1.2.3.4" not in write(values, volume, WORDING).decode("latin1")
        assert not any(s.encode() in write(values, volume, WORDING).lower() for s in made.SECRETS)
        assert true.SeriesInstanceUID != "1.2.3.4"


@pytest.mark.parametrize("turned", [(1, 2, 3), (-3, 1, -2)])
def test_a_volume_that_was_no_dicom_is_written_where_it_lies_and_refers_to_nothing(values, turned):
    volume = Volume(values, np.diag([2.0, 3.0, 4.0, 1.0]), "v", "", "abc").turned(turned)
    where = np.unravel_index(int(np.nanargmax(volume.values)), volume.size)
    mm = volume.affine @ [*where, 1]
    dataset = opened(parametric_map(volume.values, volume, WORDING))
    rows, columns = dataset.Rows, dataset.Columns
    stored = np.frombuffer(dataset.FloatPixelData, np.float32).reshape(-1, rows, columns)
    k, r, c = np.unravel_index(int(np.nanargmax(stored)), stored.shape)
    (shared,) = dataset.SharedFunctionalGroupsSequence
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    down, along = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    corner = np.array(dataset.PerFrameFunctionalGroupsSequence[k].PlanePositionSequence[0].ImagePositionPatient, float)
    np.testing.assert_allclose(
        corner + cosines[:3] * along * c + cosines[3:] * down * r, mm[:3] * [-1, -1, 1], atol=1e-6
    )
    assert "ReferencedSeriesSequence" not in dataset
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    with pytest.raises(MediaError, match="sheared"):
        parametric_map(values, Volume(values, sheared, "v", "", "abc"), WORDING)


def test_a_nifti_map_keeps_forms_codes_and_every_number(values, tmp_path):
    sform, qform = np.diag([2.0, 2, 2, 1]), np.diag([2.0, 2, 2, 1])
    sform[:3, 3], qform[:3, 3] = (1, 2, 3), (7, 8, 9)
    image = nibabel.Nifti1Image((1000 * np.nan_to_num(values)).astype(np.int16), None)
    image.header["pixdim"][1:4] = 2
    image.set_sform(sform, code=4)
    image.set_qform(qform, code=2)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    data = nifti_bytes(values, volume)
    assert data == nifti_bytes(values, volume)
    (tmp_path / "b.nii.gz").write_bytes(data)
    back = nibabel.load(tmp_path / "b.nii.gz")
    assert back.get_data_dtype() == np.float32
    assert np.asarray(back.dataobj).tobytes() == values.tobytes()
    np.testing.assert_allclose(back.header.get_sform(coded=True)[0], sform)
    assert back.header.get_sform(coded=True)[1] == 4
    np.testing.assert_allclose(back.header.get_qform(coded=True)[0], qform, atol=1e-6)
    assert back.header.get_qform(coded=True)[1] == 2
    np.testing.assert_array_equal(read_volume(tmp_path / "b.nii.gz").seen, np.isfinite(values))


def test_a_series_as_nifti_lies_where_it_lay(folder, values, tmp_path):
    volume = read_volume(folder)
    (tmp_path / "b.nii.gz").write_bytes(nifti_bytes(values, volume))
    back = nibabel.load(tmp_path / "b.nii.gz")
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-5)
    assert np.asarray(back.dataobj).tobytes() == values.tobytes()
    assert gzip.decompress(nifti_bytes(values, volume))[:4] == b"\x5c\x01\0\0"
    with pytest.raises(MediaError, match="not on the volume's grid"):
        nifti_bytes(values[1:], volume)


def test_a_run_writes_all_of_it_and_nothing_of_the_patient(folder, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    model = pl.wrap(net.eval(), transform=pl.VolumePreprocess(orientation="RAS", size=(8, 8, 8)), name="a net")
    e = pl.explain(model, folder, "grad-cam")
    files = e.save(tmp_path / "out")
    endings = {"".join(f.name.partition("grad-cam")[2:]) for f in files}
    assert {".nii.gz", ".pm.dcm", ".seg.dcm", ".labelmap.dcm", ".sc.dcm", ".slices.png", ".json", ".npz"} <= endings
    assert made.leaks(tmp_path / "out") == []
    again = pl.explain(model, folder, "grad-cam").save(tmp_path / "again")
    for one, other in zip(files, again, strict=True):
        if one.suffix in (".dcm", ".gz"):
            assert one.read_bytes() == other.read_bytes(), one.name
    stored = opened(next(f for f in files if f.name.endswith(".pm.dcm")).read_bytes())
    back = np.frombuffer(stored.FloatPixelData, np.float32).reshape(5, 8, 10)
    np.testing.assert_array_equal(back[::-1], e.heatmap()[0].numpy())
    with pytest.raises(MediaError, match="no object"):
        e.dicom("print")
    e.reliability()
    report = opened(e.dicom("report"))
    assert report.Modality == "SR"
    assert {f.name.rpartition("grad-cam")[2] for f in e.save(tmp_path / "told")} >= {".sr.dcm"}
    (tmp_path / "told" / "page.html").write_text(e.html())
    assert made.leaks(tmp_path / "told") == []


@pytest.mark.slow
def test_the_command_line_writes_identifiers_only_where_it_is_told(folder, tmp_path):
    from pellucid.cli import main

    asked = [
        "explain",
        str(folder),
        "--model",
        "timm:test_resnet",
        "--random-weights",
        "--per-slice",
        "max",
        "--no-check",
    ]
    assert main([*asked, "--out", str(tmp_path / "a")]) == 0
    assert made.leaks(tmp_path / "a") == []
    assert main([*asked, "--out", str(tmp_path / "b"), "--keep-identifiers"]) == 0
    told = {name for name, _ in made.leaks(tmp_path / "b")}
    assert told
    assert all(name.endswith(".dcm") for name in told)
    assert pl.verify(next((tmp_path / "a").glob("*.json"))).status == "same"
