"""DICOM clips: the moments of their frames, one window for all, and what is no clip."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers import dicom as made
from pellucid.errors import MediaError, ModelError
from pellucid.media import CLIP, VOLUME, Caps, Plan, open_clip, read_image
from pellucid.media.clip import StillError
from pellucid.verbs.beside_truth import task_beside

pydicom = pytest.importorskip("pydicom")
FRAMES = np.stack([np.full((8, 10), 40 * k, np.int16) for k in range(5)])
WINDOW = {"WindowCenter": 80, "WindowWidth": 160, "VOILUTFunction": "LINEAR_EXACT", "Modality": "XA"}


def clip(path, frames=FRAMES, **tags):
    return made.write(path, frames, **(WINDOW | tags))


@pytest.mark.parametrize(("tags", "expected"), [
    ({"FrameTime": 50.0}, [0, 0.05, 0.1, 0.15, 0.2]),
    ({"FrameTimeVector": [0, 50, 100, 50, 25]}, [0, 0.05, 0.15, 0.2, 0.225]),
    ({"FrameTimeVector": [0, 50, 0, 0, 0], "FrameTime": 10}, [0, 0.01, 0.02, 0.03, 0.04]),  # no time passes: broken
    ({"CineRate": 4}, [0, 0.25, 0.5, 0.75, 1]),
    ({"RecommendedDisplayFrameRate": 10}, [0, 0.1, 0.2, 0.3, 0.4]),
    ({}, [0, 0.04, 0.08, 0.12, 0.16]),
])  # fmt: skip
def test_frames_have_their_moments(tmp_path, tags, expected):
    found = open_clip(clip(tmp_path / "a.dcm", **tags))
    np.testing.assert_allclose(found.times, expected)
    assert any("25 a second are assumed" in note for note in found.notes) is (not tags)


def test_all_frames_share_one_window(tmp_path):
    path = clip(tmp_path / "a.dcm", FrameTime=50)
    found = open_clip(path).clip(Plan.parse("uniform"))
    assert found.frames.shape == (5, 8, 10, 3)
    np.testing.assert_array_equal(found.frames[:, 0, 0, 0], [0, 64, 128, 191, 255])  # (40 k / 160) * 255
    other = open_clip(f"window:40,80:{path}").clip(Plan.parse("uniform"))
    np.testing.assert_array_equal(other.frames[:, 0, 0, 0], [0, 128, 255, 255, 255])
    np.testing.assert_array_equal(open_clip(other.source).clip(Plan.parse("uniform")).frames, other.frames)
    own = open_clip(made.write(tmp_path / "b.dcm", FRAMES, Modality="XA")).clip(Plan.parse("uniform"))
    assert list(own.frames[:, 0, 0, 0]) == sorted(set(own.frames[:, 0, 0, 0]))  # its range is that of all frames
    turned = open_clip(clip(tmp_path / "c.dcm", PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_allclose(turned.clip(Plan.parse("uniform")).frames, 255.0 - found.frames, atol=1)


def test_a_frame_of_the_clip_is_the_picture_of_its_first(tmp_path):
    path = clip(tmp_path / "a.dcm", FRAMES[::-1].copy())
    first = read_image(path)
    frame = open_clip(path).clip(Plan.parse("uniform:5")).frames[0]
    np.testing.assert_allclose(first.pixels, frame / 255, atol=0.5 / 255)


def test_ultrasound_in_colour_of_the_library_is_a_clip_of_a_second():
    path = Path(pydicom.data.__file__).parent / "test_files" / "examples_ybr_color.dcm"
    found = open_clip(path)
    assert (len(found), found.size) == (30, (240, 320))
    np.testing.assert_allclose(np.diff(found.times), 0.033333, atol=1e-9)
    shown = found.clip(Plan.parse("uniform"))
    np.testing.assert_array_equal(shown.frames[0], read_image(path).pixels)
    with pytest.raises(MediaError, match="a clip in colour, which has no window"):
        open_clip(f"window:40,400:{path}")


def test_what_is_no_clip_is_said(tmp_path):
    with pytest.raises(StillError, match="is a single picture"):
        open_clip(made.write(tmp_path / "one.dcm", FRAMES[0]))
    dose = Path(pydicom.data.__file__).parent / "test_files" / "rtdose.dcm"
    with pytest.raises(MediaError, match="slices of a volume, no clip"):
        open_clip(dose)
    assert VOLUME.opened(dose, "m").size == (15, 10, 10)
    path = clip(tmp_path / "s" / "a.dcm")
    with pytest.raises(MediaError, match="it is a clip, no volume"):
        VOLUME.opened(path, "m")
    with pytest.raises(MediaError, match="name them one by one"):
        open_clip(tmp_path / "s")
    with pytest.raises(MediaError, match="5 frames of 10 x 8, more than are allowed"):
        open_clip(path, caps=Caps(frames=4))
    short = tmp_path / "short.dcm"
    short.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MediaError, match="damaged, cut short"):
        open_clip(short).clip(Plan.parse("uniform"))
    assert CLIP.expand([str(path)]) == [str(path)]


class Motion(nn.Module):
    """Scores by the mean of a clip and of its last frame."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv3d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.relu(self.first(x)).mean((2, 3, 4)))


def test_a_clip_is_explained_and_names_nobody(tmp_path, capsys):
    model = pl.wrap(Motion().eval(), frames=4, transform=pl.Preprocess(input_size=(8, 8), mean=(0,) * 3, std=(1,) * 3))
    path = clip(tmp_path / "in" / made.PATIENT / "a.dcm", FrameTime=50)
    e = pl.explain(model, path, "saliency")
    assert isinstance(e, pl.VideoHeatmap)
    assert e.record.input["modality"] == "XA"
    assert e.record.input["source"] == ""  # the folder is called after the patient
    e.save(tmp_path / "out")
    assert made.leaks(tmp_path / "out") == []
    print(e)
    said = capsys.readouterr()
    assert not any(s in (said.out + said.err).lower() for s in made.SECRETS)


def test_a_map_of_a_clip_is_laid_beside_a_mask_of_each_frame(tmp_path):
    """In Python; on the command line the cure is said."""
    plain = pl.Preprocess(input_size=(8, 10), mean=(0,) * 3, std=(1,) * 3)
    model = pl.wrap(Motion().eval(), frames=5, transform=plain)
    path = clip(tmp_path / "a.dcm", FrameTime=50)
    e = pl.explain(model, path, "saliency")
    heat = e.heatmap()[0]
    peak = np.unravel_index(int(heat.argmax()), heat.shape)
    mask = np.zeros(heat.shape, bool)
    mask[peak] = True
    found = e.reliability(mask).localisation
    assert (found.hit, found.dice, found.distance) == (True, 1, 0)
    assert found.mass == pytest.approx(float(heat[peak] / heat.clamp(min=0).sum()))
    with pytest.raises(ModelError, match=r"in Python e\.reliability\(mask\) lays a map beside a mask \(T, H, W\)"):
        task_beside(model, [path])
