"""Maps of volumes beside masks: planted nets, so that every figure is known."""

import csv
import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import pellucid as pl
from pellucid.cli import app, options
from pellucid.errors import MediaError
from pellucid.evaluation.reliability import READERS
from pellucid.media.nifti_writing import nifti_bytes
from pellucid.media.orientation import turn_to
from pellucid.verbs.volume_truths import VolumeTruth

SIZE, STEPS = (8, 10, 6), (1.0, 2.0, 1.5)
LESION = (slice(2, 4), slice(4, 6), slice(2, 4))


class Bright(nn.Module):
    """The sum of squares: its input x gradient is the lesion itself."""

    def forward(self, x):
        total = x.square().flatten(1).sum(1)
        return torch.stack([-total, total], 1)


class Dense(nn.Module):
    """Three regions: what is bright is `lesion`, what is dim `organ`."""

    def forward(self, x):
        return torch.cat([0.2 - x, 0.4 - 2 * (x - 0.5).abs(), 3 * (x - 0.8)], 1)


def volume(places=((LESION, 1.0),)):
    values = np.zeros(SIZE, np.float32)
    for place, value in places:
        values[place] = value
    return pl.Volume(values, np.diag([*STEPS, 1.0]), "head", "", "abc")


def written(path, values, turn="RAS"):
    """A NIfTI file of values on the volume's grid, its axes as told."""
    path.parent.mkdir(exist_ok=True)
    whole = pl.Volume(np.asarray(values, np.float32), np.diag([*STEPS, 1.0]), "head", "", "abc")
    there = whole.turned(turn_to(whole.affine, turn))
    path.write_bytes(nifti_bytes(there.values, there))
    return str(path)


def mask(*places, number=1):
    drawn = np.zeros(SIZE, np.float32)
    for place in places:
        drawn[place] = number
    return drawn


class Asked:
    """`explain` on the command line, of two volumes of which one has a mask."""

    COMMON: ClassVar = ["--method", "input-x-gradient", "--no-check", "--json"]

    def __init__(self, folder, monkeypatch, net, labels):
        model = pl.wrap(net.eval(), transform=pl.VolumePreprocess(), labels=labels, name="planted")
        monkeypatch.setattr(options, "load_model", lambda *_, **__: model)
        self.folder = folder

    def ran(self, volumes, truth, *more):
        out = self.folder / "out"
        asked = ["explain", *volumes, "--truth", str(truth), "--out", str(out), *self.COMMON, *more]
        found = CliRunner().invoke(app, asked)
        assert found.exit_code in (0, 1), found.output
        assert found.exception is None or isinstance(found.exception, SystemExit)
        table = list(csv.DictReader((out / "truth.csv").open())) if (out / "truth.csv").is_file() else []
        return json.loads(found.stdout), table, found.stderr


def test_planted_lesions_beside_masks_whose_axes_run_otherwise(tmp_path, monkeypatch):
    asked = Asked(tmp_path, monkeypatch, Bright(), ["dark", "lit"])
    lies = {"on": slice(4, 6), "half": slice(5, 7), "off": slice(8, 10)}
    for name, along in lies.items():
        written(tmp_path / "masks" / f"{name}_seg.nii.gz", mask((LESION[0], along, LESION[2])), "LIA")
    heads = [written(tmp_path / "in" / f"{name}.nii.gz", volume().values) for name in (*lies, "without")]
    told, rows, aside = asked.ran(heads, tmp_path / "masks", "--target", "lit")
    *judged, left = told["results"]
    assert left["truth"] is None
    assert "without.nii.gz: its map is saved, and not judged" in aside
    expected = {"on": (1, 1, 1, 0), "half": (0, 0.5, 0.5, 2), "off": (0, 0, 0, 8)}
    for entry, row, name in zip(judged, rows, lies, strict=True):
        figures = [entry["truth"][key] for key in ("pointing", "energy", "dice", "distance_mm")]
        assert figures == pytest.approx(expected[name], abs=1e-6)
        assert entry["truth"]["share"] == pytest.approx(8 / np.prod(SIZE))
        assert float(row["dice"]) == entry["truth"]["dice"]
        assert any(remark.startswith("Beside the mask: peak ") for remark in entry["remarks"])


def test_the_distance_is_in_millimetres_and_the_card_keeps_it():
    e = pl.explain(
        pl.wrap(Bright().eval(), transform=pl.VolumePreprocess(), labels=["dark", "lit"]),
        volume((((3, 5, 3), 1.0),)),
        "input-x-gradient",
        target="lit",
    )
    away = mask((3, 8, 3)) > 0  # three voxels of 2 mm
    e.extras["truth"] = torch.from_numpy(away)[None]
    pl.Heatmaps([e]).check()
    assert e.card.localisation.distance == pytest.approx(6)
    assert "Beside the mask: peak 6.0 mm from it, Dice 0.00, 0% of the map inside." in e.remarks
    assert READERS in e.remarks


def test_regions_of_volumes_are_hit_missed_or_false_by_their_numbers(tmp_path, monkeypatch):
    asked = Asked(tmp_path, monkeypatch, pl.SlidingWindow(Dense(), (4, 4, 4)), ["background", "organ", "lesion"])
    organ = (slice(5, 8), slice(0, 4), slice(0, 6))
    a = written(tmp_path / "in" / "a_0000.nii.gz", volume(((LESION, 1.0), (organ, 0.5))).values)
    b = written(tmp_path / "in" / "b.nii.gz", volume(((organ, 0.5),)).values)
    c = written(tmp_path / "in" / "c.nii.gz", volume().values)
    written(tmp_path / "masks" / "a.nii.gz", mask(LESION, number=2) + mask(organ))
    written(tmp_path / "masks" / "b.nii.gz", mask(LESION, number=2) + mask(organ))
    written(tmp_path / "masks" / "c.nii.gz", mask(organ))
    told, rows, _ = asked.ran([a, b, c], tmp_path / "masks", "--target", "region:lesion")
    assert sorted(row["kind"] for row in rows) == ["false", "hit", "miss"]
    by_name = {entry["input"]: entry["truth"] for entry in told["results"]}
    assert by_name[a]["region_iou"] == 1.0
    assert by_name[c]["share"] == 0
    assert told["truth"]["missed"] == [[b, "lesion"]]


def test_a_mask_elsewhere_and_a_folder_without_one_say_so(tmp_path, monkeypatch):
    asked = Asked(tmp_path, monkeypatch, Bright(), ["dark", "lit"])
    head = written(tmp_path / "in" / "head.nii.gz", volume().values)
    small = pl.Volume(np.ones((4, 4, 4), np.float32), np.eye(4), "small", "", "abc")
    (tmp_path / "small.nii.gz").write_bytes(nifti_bytes(small.values, small))
    told, rows, _ = asked.ran([head], tmp_path / "small.nii.gz", "--target", "lit")
    assert not rows
    assert "is not on the volume's grid: resample it to that." in told["failed"][0]["error"]
    with pytest.raises(MediaError, match="give a NIfTI file or a DICOM Segmentation"):
        VolumeTruth(tmp_path / "out")
