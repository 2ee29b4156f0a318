"""What viewers open: over a single DICOM picture, over the series that a NIfTI was made of, in a study of its own."""

import io

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import pellucid as pl
from helpers import dicom as made
from helpers.iod import missing
from helpers.volumes import AXIAL, nifti, rigid, series
from pellucid.cli import app, options
from pellucid.errors import MediaError
from pellucid.media import read_volume
from pellucid.media.nifti_writing import nifti_bytes
from pellucid.media.orientation import from_lps, turn_to

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("nibabel")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

DX = "1.2.840.10008.5.1.4.1.1.1.1"


class Bright(nn.Module):
    """The sum of squares: its input x gradient is the input itself, squared."""

    def forward(self, x):
        total = x.square().flatten(1).sum(1)
        return torch.stack([total, -total], 1)


def of_volumes():
    transform = pl.VolumePreprocess(orientation="RAS")
    return pl.wrap(Bright().eval(), transform=transform, labels=["bright", "dark"], name="a net")


@pytest.fixture(scope="module")
def of_pictures():
    return pl.wrap(
        Bright().eval(),
        transform=pl.Preprocess(input_size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1)),
        labels=["bright", "dark"],
    )


def opened(data):
    return pydicom.dcmread(io.BytesIO(data))


def picture(path, **tags):
    stored = np.arange(64, dtype=np.int16).reshape(8, 8)
    return made.write(path, stored, SOPInstanceUID="1.2.3.99", **tags)


def test_objects_over_a_projection_lie_nowhere_and_hold_all_that_is_required(tmp_path, of_pictures):
    path = picture(tmp_path / "in" / "a.dcm", Modality="DX", SOPClassUID=DX, FrameOfReferenceUID=None)
    e = pl.explain(of_pictures, path, "input-x-gradient")
    e.reliability()
    files = {f.name.rpartition("gradient")[2]: f for f in e.save(tmp_path / "out")}
    assert {".seg.dcm", ".labelmap.dcm", ".sc.dcm", ".sr.dcm"} <= set(files)
    assert ".pm.dcm" not in files
    assert made.leaks(tmp_path / "out") == []
    for ending in (".seg.dcm", ".labelmap.dcm", ".sc.dcm", ".sr.dcm"):
        dataset = pydicom.dcmread(files[ending])
        assert missing(dataset, lies=False) == [], ending
        assert "FrameOfReferenceUID" not in dataset
    shares = pydicom.dcmread(files[".seg.dcm"]).pixel_array / 255
    values = e.heatmap()[0].numpy()
    np.testing.assert_allclose(shares, (values / np.nanmax(values)).clip(0, 1), atol=0.5 / 255 + 1e-6)
    with pytest.raises(MediaError, match="does not say where it does"):
        e.dicom("parametric-map")
    told = e.dicom("segmentation", keep_identifiers=True)
    assert made.PATIENT in told.decode("latin1")
    (instance,) = opened(told).ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert instance.ReferencedSOPInstanceUID == "1.2.3.99"


def test_objects_over_a_slice_lie_where_it_lies(tmp_path, of_pictures):
    where = {"ImageOrientationPatient": AXIAL, "ImagePositionPatient": [-3, 4, 55.5], "PixelSpacing": [0.5, 0.75]}
    e = pl.explain(of_pictures, picture(tmp_path / "a.dcm", **where), "input-x-gradient")
    dataset = opened(e.dicom())
    assert missing(dataset) == []
    stored = np.frombuffer(dataset.FloatPixelData, np.float32).reshape(8, 8)
    assert stored.tobytes() == e.heatmap()[0].numpy().tobytes()
    (frame,) = dataset.PerFrameFunctionalGroupsSequence
    assert list(frame.PlanePositionSequence[0].ImagePositionPatient) == [-3, 4, 55.5]


def test_a_slice_that_lies_nowhere_is_explained_and_only_its_dicom_is_left_out(tmp_path, of_pictures):
    e = pl.explain(of_pictures, picture(tmp_path / "a.dcm", FrameOfReferenceUID=None), "input-x-gradient")
    endings = {f.suffix for f in e.save(tmp_path / "out")}
    assert endings == {".json", ".npz", ".png"}
    assert any("do not let a DICOM object be written" in note for note in e.notes)


def test_what_was_no_dicom_gets_none(tmp_path, of_pictures):
    e = pl.explain(of_pictures, np.zeros((8, 8, 3), np.uint8), "input-x-gradient")
    with pytest.raises(MediaError, match="no DICOM picture and no volume"):
        e.dicom("capture")
    assert not [f for f in e.save(tmp_path, dicom="own") if f.suffix == ".dcm"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A series, and the NIfTI made of it, whose axes run otherwise."""
    folder = tmp_path_factory.mktemp("pair")
    volume = read_volume(series(folder / "series", count=4))
    turned = volume.turned(turn_to(volume.affine, "RAS"))
    (folder / "head.nii.gz").write_bytes(nifti_bytes(turned.values, turned))
    return folder


def test_a_map_of_a_nifti_lies_over_the_series_it_was_made_of(pair):
    e = pl.explain(of_volumes(), pair / "head.nii.gz", "input-x-gradient")
    dataset = opened(e.dicom(like=pair / "series", keep_identifiers=True))
    assert missing(dataset) == []
    true = read_volume(pair / "series")
    known = {s.file.dataset.SOPInstanceUID: s.corner for s in true.made_from}
    stored = np.frombuffer(dataset.FloatPixelData, np.float32).reshape(dataset.NumberOfFrames, dataset.Rows, -1)
    values = e.heatmap()[0].numpy()
    for k, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        corner = list(map(float, frame.PlanePositionSequence[0].ImagePositionPatient))
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        np.testing.assert_allclose(known[source.ReferencedSOPInstanceUID], corner)
        for row, column in ((0, 0), (2, 7), (7, 3)):
            mm = from_lps(np.eye(4)) @ [corner[0] + 0.75 * column, corner[1] + 0.5 * row, corner[2], 1]
            at = tuple(np.rint(np.linalg.inv(e.affine) @ mm)[:3].astype(int))
            assert stored[k, row, column] == values[at]
    assert str(dataset.PatientName) == made.PATIENT
    assert str(opened(e.dicom(like=pair / "series")).PatientName) == ""
    assert opened(e.dicom()).SOPInstanceUID != opened(e.dicom(like=pair / "series")).SOPInstanceUID


def test_the_command_line_says_which_study(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(options, "load_model", lambda *_, **__: of_volumes())
    other = nifti(tmp_path / "other.nii", np.ones((5, 4, 3), np.float32), rigid((0, 0, 0)))

    def written(source, study):
        out = tmp_path / f"{source.name}-{study.replace('/', '')[-8:]}"
        asked = ["explain", str(source), "--method", "input-x-gradient", "--no-check", "--dicom", study]
        found = CliRunner().invoke(app, [*asked, "--out", str(out)])
        assert found.exit_code == 0, found.output
        return {f.name.rpartition("gradient")[2] for f in out.glob("*.dcm")}, found.output

    objects = {".pm.dcm", ".seg.dcm", ".labelmap.dcm", ".sc.dcm"}
    head = pair / "head.nii.gz"
    assert written(head, "auto")[0] == set()
    assert written(head, "own")[0] == objects
    assert written(head, str(pair / "series"))[0] == objects
    assert written(pair / "series", "none")[0] == set()
    found, told = written(other, str(pair / "series"))
    assert not found
    assert "is not on the grid of other" in told.replace("\n", " ")
    found, told = written(other, str(head))
    assert "is no DICOM series" in told
    assert not found
