import json
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.cases import tree
from helpers.clips import bars, mutated, write
from helpers.nets import seeded
from helpers.video_nets import cnn_rnn, conv3d
from pellucid.cli import main
from pellucid.errors import MethodError, StorageError
from pellucid.heatmaps import get_method
from pellucid.media import FramesInMemory, Plan, open_clip
from pellucid.models.preprocess import Preprocess
from pellucid.render.paper.display import ground_pixels
from pellucid.render.paper.portraits import portrait
from pellucid.verbs.windows import OverlapAdd, windows

pytest.importorskip("av")

FRAME = Preprocess(input_size=(32, 32), resize=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
UNEVEN = [0, 7, 30, 31, 95, 96, 200, 260, 261, 300, 420, 500]


class Flash(nn.Module):
    """Class 0 is how much light there is in all; pooled patches of one frame each."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv3d(3, 2, (1, 8, 8), (1, 8, 8)), nn.ReLU())
        self.fc = nn.Linear(2, 2)
        with torch.no_grad():
            self.features[0].weight[0], self.features[0].weight[1] = 1 / 192, -1 / 192
            self.features[0].bias.zero_()
            self.fc.weight.copy_(torch.eye(2) * 4)
            self.fc.bias.copy_(torch.tensor([0.0, 0.5]))

    def forward(self, x):
        return self.fc(self.features(x).sum((2, 3, 4)) / 16)


def flash(count=12, at=5):
    frames = np.full((count, 32, 48, 3), 60, np.uint8)
    frames[at, 8:24, 12:28] = 255
    return frames


def model(**options):
    return pl.wrap(Flash().eval(), transform=FRAME, labels=["light", "dark"], frames=12, name="flash", **options)


@pytest.fixture
def uneven(tmp_path):
    return write(tmp_path / "flash.mp4", flash(), UNEVEN)


def test_an_explanation_of_a_clip_points_at_place_and_time(uneven):
    e = pl.explain(model(), uneven, "grad-cam", "light")
    assert isinstance(e, pl.VideoHeatmap)
    assert e.times == tuple(stamp / 600 for stamp in UNEVEN)
    assert e.tube().shape == (12, 4, 4)
    assert torch.equal(e.tube().nonzero()[:, 0].unique(), torch.tensor([5]))
    assert torch.equal(e.spatial(), e.tube().sum(0))
    curve = e.temporal()
    assert curve.values == pytest.approx(e.tube().sum((1, 2)).tolist())
    assert curve.peak == 96 / 600
    assert curve.points_at(95 / 600, 97 / 600)
    assert not curve.points_at(0.3, 0.9)
    assert curve.share(0.1, 0.2) == 1
    heat = e.heatmap()
    assert heat.shape == (1, 12, 32, 48)
    peak = np.unravel_index(int(heat[0].argmax()), (12, 32, 48))
    assert peak[0] == 5
    assert 8 <= peak[1] < 24
    assert 12 <= peak[2] < 28


def test_times_of_coarse_cells_lie_between_their_frames():
    net = conv3d()
    e = pl.explain(
        pl.wrap(net, transform=FRAME, frames=8), FramesInMemory(bars(8), [0, 1, 2, 3, 4, 5, 6, 10]), layer="3"
    )
    assert len(e.tube()) == 2
    assert e.temporal().times == (1.5, 5.5)  # the middle of four frames each: between the 2nd and 3rd, 6th and 7th


def test_check_measures_space_time_and_frames(uneven):
    e = pl.explain(model(), uneven, "grad-cam", "light")
    quality = e.check()
    assert quality.verdict == "faithful"
    assert quality.temporal_insertion.auc > quality.temporal_insertion.random_mean
    assert quality.temporal_deletion.auc < quality.temporal_deletion.random_mean
    assert len(quality.temporal_insertion.scores) == 13  # none to all of twelve frames
    assert "insertion of frames" in quality.line
    # by hand: the frame with the flash shown first on the blur of the clip
    session = e.session
    blurred = session.perturbed(e.explained, frames=True).blurred
    shown = blurred.clone()
    shown[:, :, 5] = session.x[:, :, 5]
    net = session.model.module
    with torch.no_grad():
        scores = [float(net(x).softmax(1)[0, 0]) for x in (blurred, shown)]
    assert quality.temporal_insertion.scores[:2] == pytest.approx(scores, abs=1e-6)
    again = type(quality).from_dict(json.loads(json.dumps(quality.as_dict())))
    assert again == quality


def test_the_error_band_is_that_of_the_method():
    m = model()
    e = pl.explain(m, flash(), get_method("rise", samples=64))
    error = e.extras["standard_error"]
    assert error.shape[1:] == e.tube().shape
    expected = error[0].double().square().sum((1, 2)).sqrt()
    assert e.temporal().error == pytest.approx(expected.tolist())
    assert pl.explain(m, flash(), "saliency").temporal().error is None


def test_the_error_band_of_segments_is_theirs_in_every_frame_they_reach():
    """Each segment is one number with one error: a frame that holds n of its places has n times its error."""
    clip = flash()
    whole = pl.explain(model(), clip, get_method("kernel-shap", samples=24, count=8)).extras["labels"][0]
    own = torch.arange(len(whole))[:, None, None] // 5 * 2 + (whole > 3)  # of uneven length, in two halves
    e = pl.explain(model(), clip, get_method("kernel-shap", samples=24, segments=own))
    labels, error = e.extras["labels"][0], e.extras["standard_error"][0].double()
    expected = [
        sum(float(error[s]) ** 2 * int((frame == s).sum()) ** 2 for s in frame.unique()) ** 0.5 for frame in labels
    ]
    assert max(expected) > 0
    assert len(set(expected)) > 1
    assert e.temporal().error == pytest.approx(expected)


def test_stored_read_and_verified(uneven, tmp_path):
    m = model()
    e = pl.explain(m, uneven, "grad-cam", "light", frames="dense:8@0.05")
    files = e.save(tmp_path / "out")
    assert sorted(f.name for f in files) == [
        "flash.grad-cam.json",
        "flash.grad-cam.npz",
        "flash.grad-cam.webm",
        "flash.png",
    ]
    again = pl.read(files[0])
    assert isinstance(again, pl.VideoHeatmap)
    assert again.times == e.times
    assert again.temporal() == e.temporal()
    assert np.array_equal(again.picture.frames, e.picture.frames)
    about = e.record.input
    assert about["plan"] == "dense:8@0.05"
    assert about["frames"] == list(range(2, 10))
    assert [p * 600 for p in again.times] == pytest.approx([UNEVEN[i] for i in about["frames"]])
    assert str(pl.verify(files[0], model=m)) == "same"
    other = write(tmp_path / "other.mp4", flash(at=7), UNEVEN)
    assert "not the one of the record" in str(pl.verify(files[0], model=m, inputs=other))
    assert (
        pl.explain(m, open_clip(uneven), "grad-cam", "light").video()
        == pl.explain(m, uneven, "grad-cam", "light").video()
    )
    with pytest.raises(StorageError, match="read from disk"):
        again.check()


def test_tensors_are_clips_too():
    net = conv3d()
    m = pl.wrap(net, transform=FRAME, frames=8)
    x = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    both = pl.explain(m, x, "saliency", 1)
    assert len(both) == 2
    one = pl.explain(m, x[1], "saliency", 1)
    assert torch.allclose(one.attribution, both[1].attribution, atol=1e-6)
    assert one.times == tuple(range(8))
    assert one.temporal().unit == "frame"
    assert one.figure().get_size_inches()[0] > 5


def test_batches_and_loops_agree(tmp_path):
    m = pl.wrap(cnn_rnn(), transform=FRAME, frames=6)
    clips = [bars(6), bars(6, step=7), bars(9)]
    together = pl.explain(m, clips, "grad-cam,saliency", [1, 2])
    assert len(together) == 12
    loop = [e for clip in clips for e in pl.explain(m, clip, "grad-cam,saliency", [1, 2])]
    for a, b in zip(together, loop, strict=True):
        assert (a.method, a.target, a.times) == (b.method, b.target, b.times)
        assert (a.attribution - b.attribution).abs().max() <= 1e-5 * b.attribution.abs().max()


class Local(nn.Module):
    """Frames do not meet, and their scores are added: the gradient of a window is that of the whole."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (1, 5, 5), (1, 4, 4))
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.conv(x).tanh().sum((2, 3, 4)))


@pytest.mark.parametrize("count", [4, 6, 8])
@pytest.mark.parametrize("total", [5, 16, 21])
def test_windows_put_together_are_the_whole(count, total):
    net = seeded(lambda: Local().eval())
    frames = np.random.default_rng(0).integers(0, 256, (total, 32, 32, 3)).astype(np.uint8)
    whole = pl.explain(pl.wrap(net, transform=FRAME, frames=total), frames, "saliency", 1)
    parts = pl.explain(pl.wrap(net, transform=FRAME, frames=f"windows:{count}"), frames, "saliency", 1)
    assert isinstance(parts, pl.VideoHeatmap)
    assert parts.tube()[:total].shape == whole.tube().shape
    assert torch.allclose(parts.tube()[:total], whole.tube(), rtol=1e-4, atol=1e-7)
    assert parts.times == whole.times
    scores = parts.extras["window_scores"][0]
    x = whole.session.x
    with torch.no_grad():
        assert float(scores[0]) == pytest.approx(float(net(_window(x, 0, count))[0, 1]), rel=1e-4)
    assert "overlap by half" in parts.notes[-1]
    with pytest.raises(StorageError, match="check one stretch"):
        parts.check()


def _window(x, start, count):
    part = x[:, :, start : start + count]
    return torch.cat([part, part[:, :, -1:].expand(-1, -1, count - part.shape[2], -1, -1)], 2)


def test_overlap_add_keeps_the_time_grid_that_windows_share():
    add = OverlapAdd(count=16, hop=8, total=40, cells=4)  # cells of 4 frames
    for start in (0, 8, 16, 24):
        add.add(start, torch.full((4, 2, 2), 3.0))
    assert add.unit == 4
    assert torch.allclose(add.result(), torch.full((10, 2, 2), 3.0))
    assert OverlapAdd(count=16, hop=8, total=40, cells=1).unit == 8
    with pytest.raises(MethodError, match="do not divide windows of 16 frames"):
        OverlapAdd(count=16, hop=8, total=40, cells=3)


def test_windows_hold_no_more_than_one_window_of_frames():
    made = []

    class Endless(FramesInMemory):
        def read(self, indices):
            for _ in indices:
                frame = np.zeros((8, 8, 3), np.uint8)
                made.append(weakref.ref(frame))
                yield frame

    most = 0
    for _start, _clip in windows(Endless(np.zeros((200, 8, 8, 3), np.uint8)), Plan("windows", 8)):
        most = max(most, sum(frame() is not None for frame in made))
    assert len(made) == 200
    assert 8 <= most <= 10


GROWN = """
import sys
import torch
from torch import nn
import pellucid as pl

torch.set_num_threads(1)
torch.manual_seed(0)
parts = nn.Conv3d(3, 4, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)
look = pl.Preprocess(input_size=(112, 112), resize=(112, 112), mean=(0.5,) * 3, std=(0.5,) * 3)
model = pl.wrap(nn.Sequential(*parts).eval(), transform=look, frames="windows:16")
pl.explain(model, sys.argv[1], "grad-cam", 1)
print(int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of a process from /proc")
def test_memory_does_not_grow_with_a_long_clip(tmp_path):
    """In megabytes. Small blocks kept of each window once held the heap open: 6 more for every second of clip."""
    frames = np.random.default_rng(0).integers(0, 256, (16, 240, 320, 3)).astype(np.uint8)
    used = {}
    for seconds in (6, 60):
        path = write(tmp_path / f"{seconds}.mp4", [frames[i % 16] for i in range(25 * seconds)], codec="mpeg4")
        done = subprocess.run([sys.executable, "-c", GROWN, path], capture_output=True, text=True, check=True)
        used[seconds] = int(done.stdout)
    assert used[60] - used[6] < 100


def test_windows_of_a_file_are_verified_and_drawn(tmp_path):
    path = write(tmp_path / "long.mp4", np.concatenate([flash(), flash(at=2)]))
    m = model()
    e = pl.explain(m, path, "grad-cam", "light", frames="windows:8")
    assert e.tube().shape == (24, 4, 4)
    assert set(e.tube().flatten(1).sum(1).nonzero()[:, 0].tolist()) == {5, 14}
    files = e.save(tmp_path / "out")
    assert str(pl.verify(files[0], model=m)) == "same"
    again = pl.read(files[0])
    assert np.array_equal(again.picture.times, e.picture.times)


def run(capsys, *arguments):
    code = main([str(a) for a in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command_line_explains_a_clip_frame_by_frame(uneven, tmp_path, capsys):
    out = tmp_path / "out"
    options = (
        "--model",
        "timm:resnet18",
        "--random-weights",
        "--per-frame",
        "mean",
        "--frames",
        "uniform:2",
        "--out",
        out,
    )
    code, said, _ = run(capsys, "explain", uneven, *options, "--method", "grad-cam")
    assert code == 0
    assert "not measured: --check does" in said
    assert sorted(tree(out)) == ["flash.grad-cam.json", "flash.grad-cam.npz", "flash.grad-cam.webm", "flash.png"]
    record = json.loads((out / "flash.grad-cam.json").read_text())
    assert record["geometry"]["unit"] == "s"
    assert record["geometry"]["input_size"] == [2, 224, 224]
    assert record["record"]["model"]["source"]["per_frame"] == "mean"
    code, said, _ = run(capsys, "verify", out / "flash.grad-cam.json")
    assert code == 0
    assert "same" in said or "within tolerance" in said


def test_bad_clips_end_in_one_sentence_and_write_nothing(uneven, tmp_path, capsys):
    out = tmp_path / "out"
    hostile = tmp_path / "list.mp4"
    hostile.write_bytes(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(mutated(Path(uneven).read_bytes()[:200], 3))
    cases = [
        ((uneven,), "is a clip, and efficientnet-lite0 takes pictures"),
        ((hostile, "--per-frame", "mean"), "is no video of a known kind"),
        ((broken, "--per-frame", "mean"), "known kind"),
        (("sample:cat", "--per-frame", "mean"), "is a picture, and efficientnet-lite0 takes clips"),
        ((uneven, "--per-frame", "median"), "mean, max, none"),
        ((uneven, "--per-frame", "mean", "--frames", "every:3"), "is no sampling plan"),
        ((uneven, "--frames", "uniform:3"), "takes pictures, so no frames are sampled"),
        ((tmp_path / "none.mp4", "--per-frame", "mean"), "There is no file or folder"),
    ]
    for arguments, message in cases:
        code, _, said = run(capsys, "explain", *arguments, "--out", out)
        assert code == 1
        assert message in said
        assert len(said.strip().splitlines()) == 1
        assert "Traceback" not in said
        assert not tree(out) if out.exists() else True


@pytest.mark.slow
def test_r3d_18_from_the_command_line(tmp_path, capsys):
    path = write(tmp_path / "clip.mp4", bars(40, 120, 160))
    out = tmp_path / "out"
    options = ("--model", "torchvision:r3d_18", "--random-weights", "--method", "grad-cam", "--out", out)
    code, _, _ = run(capsys, "explain", path, *options)
    assert code == 0
    assert len(tree(out)) == 4
    assert run(capsys, "verify", out / "clip.grad-cam.json")[0] == 0


def test_a_clip_is_continued_on_the_frames_it_was_explained_on(uneven):
    m = model()
    short = pl.explain(m, uneven, get_method("rise", samples=32), frames="stride:4x2")
    longer = pl.more(short, samples=64)
    whole = pl.explain(m, uneven, get_method("rise", samples=64), frames="stride:4x2")
    assert longer.times == whole.times == tuple(UNEVEN[i] / 600 for i in (2, 4, 6, 8))
    assert torch.allclose(longer.attribution, whole.attribution, atol=1e-6)


def test_importance_of_frames_shows_the_clip_and_its_frames_as_they_are():
    found = pl.importance(model(), flash(), "frames", "ablation")
    dark, light = (portrait(found.picture, found.geometry, found.pictures, k) for k in (0, 5))
    assert np.abs(dark.astype(int) - 60).max() <= 1  # evenly dark, as the frame is
    assert light.max() == 255
    middle = ground_pixels(found, (32, 48))  # frame 6 of 12
    assert np.abs(middle.astype(int) - 60).max() <= 1
    faint = flash(at=6)
    faint[0, ::2] = 70
    looks = pl.importance(model(), faint, "frames", "ablation")
    stripes = portrait(looks.picture, looks.geometry, looks.pictures, 0)
    assert np.ptp(stripes.astype(int)) <= 16  # but for Lanczos: the contrast of a faint frame is not raised eightfold
    assert ground_pixels(looks, (32, 48)).max() == 255
