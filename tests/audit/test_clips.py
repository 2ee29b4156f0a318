"""Audits of models of clips whose reason is known in closed form: one frame, or the order of the frames."""

import numpy as np
import pytest
import torch
from benchmarks.clip_reliances import ClipWorld
from PIL import Image
from torch import nn

import pellucid as pl
from pellucid.audit.evidence import PicturePart, common_parts
from pellucid.audit.moments import BACKWARDS, moment_part, of_clips, telling_moment
from pellucid.audit.samples import MOVING, PROPERTIES, build

FRAMES, SIDE, LABELS = 8, 16, ("first", "second")


class Watcher(nn.Module):
    """The second class's logit, over the first's, is a weighted sum over time of the mean brightness."""

    def __init__(self, weights, bias=0.0):
        super().__init__()
        self.eye = nn.Conv3d(3, 1, 1, bias=False)
        nn.init.constant_(self.eye.weight, 1 / 3)
        self.weights, self.bias = torch.tensor(weights), bias

    def forward(self, x):
        told = self.eye(x)[:, 0].mean((2, 3)) @ self.weights + self.bias
        return torch.stack([-told / 2, told / 2], 1)


def wrapped(weights, bias=0.0):
    look = pl.Preprocess(input_size=(SIDE, SIDE), mean=(0,) * 3, std=(1,) * 3)
    return pl.wrap(Watcher(weights, bias).eval(), transform=look, frames=FRAMES, labels=LABELS, scores="softmax")


def clips(change, count=48, seed=0):
    """Noise; `change(frames, label)` plants what tells the class."""
    rng, labels = np.random.default_rng(seed), np.arange(count) % 2
    frames = rng.integers(90, 130, (count, FRAMES, SIDE, SIDE, 3)).astype(np.uint8)
    for one, label in zip(frames, labels, strict=True):
        change(one, label)
    return ClipWorld(frames, labels, LABELS)


def title(frames, label):
    frames[5] = 255 * label


def ramp(frames, label):
    frames += (np.arange(FRAMES) * 10)[:: 1 if label else -1, None, None, None].astype(np.uint8)


@pytest.mark.parametrize(
    ("weights", "bias", "change", "kind", "name"),
    [
        ([0, 0, 0, 0, 0, 8.0, 0, 0], -4, title, "frame", "frame 6 of 8"),
        ([-8.0, -6, -4, -2, 2, 4, 6, 8], 0, ramp, "order", "the order of the frames"),
    ],
)
def test_what_tells_in_time_is_named(weights, bias, change, kind, name):
    found = pl.audit(wrapped(weights, bias), clips(change))
    assert found.review.accuracy == 1
    assert {(r.label, r.kind, r.name) for r in found.wrong_reasons} == {(label, kind, name) for label in LABELS}
    assert any(name in line for line in found.lines())


def test_a_model_of_all_frames_alike_rests_on_no_moment():
    data = clips(lambda frames, label: np.add(frames, np.uint8(60 * label), frames))
    found = pl.audit(wrapped([2.0] * FRAMES, -8.8), data)
    assert found.review.accuracy == 1
    assert {r.kind for r in found.wrong_reasons} <= {"border", "background", "colour", "texture", "mark"}
    assert {"frame", "order"} <= {r.kind for r in found.reasons}


def test_exchanges_of_clips_are_those_by_hand():
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(3, 3, FRAMES, SIDE, SIDE, generator=g), torch.rand(3, 3, FRAMES, SIDE, SIDE, generator=g)
    for part in common_parts((SIDE, SIDE)):
        got = of_clips(part).exchange(a, b)
        if part.kind == "background":
            want = a + (part.exchange(a.mean(2), b.mean(2)) - a.mean(2)).unsqueeze(2)
        else:
            want = torch.stack([part.exchange(a[:, :, t], b[:, :, t]) for t in range(FRAMES)], 2)
        torch.testing.assert_close(got, want)
    moment = moment_part(2, 4, FRAMES).exchange(a, b)
    assert torch.equal(moment[:, :, 2:4], b[:, :, 2:4])
    assert torch.equal(moment[:, :, [0, 1, 4, 5, 6, 7]], a[:, :, [0, 1, 4, 5, 6, 7]])
    assert torch.equal(BACKWARDS.exchange(a, b)[:, :, 0], a[:, :, -1])


@pytest.mark.parametrize("frame", range(FRAMES))
def test_the_telling_moment_is_found_by_halves(frame):
    weights = torch.zeros(FRAMES)
    weights[frame] = 1
    x, others = torch.ones(1, 1, FRAMES, 1, 1), torch.zeros(1, 1, FRAMES, 1, 1)

    def fall(part: PicturePart) -> float:
        return float((weights * (x - part.exchange(x, others)).flatten()).sum())

    assert telling_moment(fall, FRAMES).name == f"frame {frame + 1} of {FRAMES}"


def test_a_row_of_a_clip_is_the_mean_of_its_frames_evidence():
    data, model = clips(title, 6), wrapped([1.0, 0, 0, 0, 0, 7, 0, 0])
    _, table = build(model, data)
    assert table.names == (*PROPERTIES, *MOVING)
    assert table.maps.shape == (6, 14, 14)
    frames = torch.from_numpy(data.pixels).float() / 255
    expected = (frames.mean(-1) * torch.tensor([1.0, 0, 0, 0, 0, 7, 0, 0])[:, None, None]).mean((1, 2, 3)) / SIDE**2 / 2
    top = table.answers == 1
    np.testing.assert_allclose(table.maps.mean((1, 2))[top], expected.numpy()[top], atol=1e-6)
    still = ClipWorld(np.repeat(data.pixels[:, :1], FRAMES, 1), data.labels, LABELS)
    _, quiet = build(model, still)
    assert quiet.properties[:, -2:].max() == 0 < table.properties[:, -2].min()


def test_a_folder_of_clips_is_audited_and_shown(tmp_path):
    data = clips(title, 24)
    for i, (frames, label) in enumerate(zip(data.pixels, data.labels, strict=True)):
        home = tmp_path / "clips" / LABELS[label]
        home.mkdir(parents=True, exist_ok=True)
        first, *rest = (Image.fromarray(frame) for frame in frames)
        first.save(home / f"{i}.webp", save_all=True, append_images=rest, duration=100, lossless=True)
    model = wrapped([0, 0, 0, 0, 0, 8.0, 0, 0], -4)
    found = pl.audit(model, tmp_path / "clips")
    assert found.review.accuracy == 1
    assert {r.name for r in found.wrong_reasons} == {"frame 6 of 8"}
    *_, page = found.save(tmp_path / "out")
    assert page.read_text().count("<figure>") > 5
    assert str(pl.verify(page.with_suffix(".npz"), model=model)) == "same"


def test_a_repair_of_clips_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(pl.PellucidError, match="A repair exchanges parts of pictures"):
        pl.repair(wrapped([1.0] * FRAMES), tmp_path, tmp_path)
