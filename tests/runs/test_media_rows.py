"""Clips, windows of clips and volumes as rows; and inputs of another medium than the model's."""

import re

import numpy as np
import pytest
import torch

import pellucid as pl
from helpers.clips import bars, gif
from helpers.video_nets import conv3d
from media.test_volumes import Small, nifti
from pellucid.results.rows import artefact_of
from pellucid.runs.manifest import Item
from pellucid.runs.work import Work, WorkOrder
from pellucid.verbs.kinds import REQUESTS
from runs.test_work import asked, stored

HERE = "runs.test_media_rows"


def clips():
    look = pl.Preprocess(input_size=(16, 16), resize=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    return pl.wrap(conv3d(), transform=look, frames="uniform:4")


def windows():
    look = pl.Preprocess(input_size=(16, 16), resize=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    return pl.wrap(conv3d(), transform=look, frames="windows:4")


def volumes():
    return pl.wrap(Small().eval(), transform=pl.VolumePreprocess(orientation="RAS", size=(8, 8, 8)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    home = tmp_path_factory.mktemp("media")
    values = np.random.default_rng(0).uniform(0, 1, (6, 7, 8)).astype(np.float32)
    nifti(home / "v.nii.gz", values, np.diag([2.0, 2.0, 2.0, 1.0]))
    gif(home / "moving.gif", bars(8, 24, 32), [40] * 8)
    return home


@pytest.mark.parametrize(
    ("entry", "file"), [("clips", "moving.gif"), ("windows", "moving.gif"), ("volumes", "v.nii.gz")]
)
def test_rows_of_clips_windows_and_volumes_are_what_explain_says(files, entry, file):
    work = Work(WorkOrder({"entry": f"{HERE}:{entry}"}, tuple(r.as_dict() for r in asked("grad-cam")), "float32"))
    (row,) = (stored(r) for r in work.rows([Item(str(files / file))]))
    assert row["status"] == "done", row["error"]
    alone = pl.explain(globals()[entry](), str(files / file), "grad-cam")
    result = REQUESTS[row["format"]].opened(artefact_of(row))
    assert type(result) is type(alone)
    assert row["label"] == alone.prediction[0].label
    scale = float(alone.attribution.abs().nan_to_num().max())
    torch.testing.assert_close(result.attribution, alone.attribution, atol=2e-6 * scale, rtol=2e-6, equal_nan=True)


@pytest.mark.parametrize(
    ("entry", "good", "others"),
    [
        ("helpers.batch_entry:small", "sample:coffee", ["v.nii.gz", "suite:order:0"]),
        (f"{HERE}:clips", "moving.gif", ["v.nii.gz", "sample:coffee"]),
        (f"{HERE}:volumes", "v.nii.gz", ["moving.gif", "sample:coffee"]),
    ],
)
def test_inputs_of_another_medium_are_rows_that_say_so(files, entry, good, others):
    work = Work(WorkOrder({"entry": entry}, tuple(r.as_dict() for r in asked("grad-cam"))))
    places = [name if ":" in name else str(files / name) for name in (others[0], good, others[1])]
    rows = work.rows([Item(place) for place in places])
    assert [row["input"] for row in rows if row["status"] == "done"] == [places[1]]
    for row in rows:
        if row["status"] == "failed":
            assert row["error"].endswith(".")
            assert re.search(
                "takes (pictures|clips|volumes)|can't be used as a (picture|video)|is neither NIfTI nor DICOM",
                row["error"],
            )
