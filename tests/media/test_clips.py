"""What phones, trimming tools and drawing programs write: hidden frames, mirrors, times of their own."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pellucid as pl
from helpers.clips import cut, gif, place, write
from pellucid.errors import MediaError
from pellucid.media import FramesInMemory, read_clip
from pellucid.media.pictures import collect, is_collection


def greys(count=40, height=48, width=64):
    """Frame number i is of one grey, 20 + 5 i: which frame is shown can be read off it."""
    return np.stack([np.full((height, width, 3), 20 + 5 * i, np.uint8) for i in range(count)])


def numbers(frames):
    return [round((float(np.median(frame)) - 20) / 5) for frame in frames]


def steps_of(path):
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return int(stream.duration // stream.frames)


def test_a_clip_cut_between_key_frames_is_whole(tmp_path):
    whole = write(tmp_path / "whole.mp4", greys(), options={"bf": "0", "sc_threshold": "0"}, keys=10)
    short = cut(whole, tmp_path / "cut.mp4", 10, 17, 33, steps_of(whole))
    clip = read_clip(short)
    assert numbers(clip.frames) == list(range(17, 33))
    assert clip.times[0] == 0
    assert clip.notes == ()
    assert numbers(read_clip(short, "dense:3@0.2").frames) == [22, 23, 24]  # 25 a second, from frame 17 on


def test_a_clip_whose_end_is_hidden_is_whole(tmp_path):
    """The edit list ends half-way; the samples behind it stay in the file."""
    path = tmp_path / "clip.mp4"
    write(path, greys(), options={"bf": "0"})
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12  # version and flags, number of entries; then the first entry's duration
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") // 2).to_bytes(4, "big")
    path.write_bytes(data)
    assert numbers(read_clip(path).frames) == list(range(20))


def test_a_cut_clip_that_lost_its_end_is_refused(tmp_path):
    av = pytest.importorskip("av")
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3)).astype(np.uint8)
    whole = write(tmp_path / "whole.mp4", noise, options={"bf": "0", "sc_threshold": "0"}, keys=10)
    short = cut(whole, tmp_path / "cut.mp4", 10, 17, 33, steps_of(whole))
    front = tmp_path / "front.mp4"  # its index first, as for the web
    with av.open(short) as source, av.open(str(front), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    promised = len(read_clip(front).frames)
    front.write_bytes(front.read_bytes()[: front.stat().st_size // 2])
    with pytest.raises(MediaError, match=f"its header promises {promised} frames"):
        read_clip(front)


TURNS = [
    m for m in itertools.product((-1, 0, 1), repeat=4) if abs(m[0] * m[3] - m[1] * m[2]) == 1 and sum(map(abs, m)) == 2
]


@pytest.mark.parametrize("matrix", TURNS)
def test_the_display_matrix_is_obeyed_mirrors_too(tmp_path, matrix):
    """Every pixel is carried to where the matrix sends it, by the formula of the standard."""
    pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    frames = np.full((3, 48, 64, 3), 60, np.uint8)
    frames[:, :16, :24] = 220  # as high as wide it is not, and in one corner
    write(path, frames)
    plain = read_clip(path).frames[0]
    place(path, matrix)
    a, b, c, d = matrix
    rows, columns = np.indices(plain.shape[:2])
    across, down = a * columns + c * rows, b * columns + d * rows
    expected = np.zeros(plain.shape if a else (64, 48, 3), np.uint8)
    expected[down - down.min(), across - across.min()] = plain
    found = read_clip(path)
    assert np.array_equal(found.frames[0], expected)
    assert found.origin["mirrored"] == (a * d - b * c < 0)


def test_large_frames_without_a_tag_of_colour_say_so(tmp_path):
    pytest.importorskip("av")
    large = write(tmp_path / "large.mp4", greys(2, 720, 64))
    assert any("BT.709" in note for note in read_clip(large).notes)
    assert read_clip(write(tmp_path / "small.mp4", greys(2))).notes == ()
    tagged = write(tmp_path / "tagged.mp4", greys(2, 720, 64), options={"x264-params": "colormatrix=bt709"})
    assert read_clip(tagged).notes == ()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_every_kind_of_animation_keeps_its_times(tmp_path, suffix):
    frames, durations = greys(6), [40, 80, 120, 30, 200, 500]
    path = tmp_path / f"a.{suffix}"
    first, *others = [Image.fromarray(frame) for frame in frames]
    options = {"lossless": True} if suffix == "webp" else {}
    first.save(path, save_all=True, append_images=others, duration=durations, **options)
    clip = read_clip(path)
    assert clip.times == (0.0, 0.04, 0.12, 0.24, 0.27, 0.47)
    assert np.array_equal(clip.frames, frames)
    assert numbers(read_clip(path, "uniform:3").frames) == [2, 5, 5]  # the moments are 0.16, 0.485 and 0.81 s
    assert clip.notes == ()


def test_frames_without_a_time_and_a_picture_beside_the_animation(tmp_path):
    clip = read_clip(gif(tmp_path / "a.gif", greys(3), [0, 50, 0]))
    assert clip.times == (0.0, 0.1, 0.15)
    assert clip.notes == ("Frames that claim no time are taken to be shown for 100 ms, as browsers do.",)
    path = tmp_path / "a.png"
    first, *others = [Image.fromarray(frame) for frame in greys(4)]
    first.save(path, save_all=True, append_images=others, duration=70, default_image=True)
    clip = read_clip(path)
    assert numbers(clip.frames) == [1, 2, 3]
    assert clip.times == (0.0, 0.07, 0.14)


def net():
    torch.manual_seed(0)
    parts = nn.Conv3d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)
    return pl.wrap(nn.Sequential(*parts).eval(), frames="dense:8")


def test_a_clip_tensor_is_one_clip_in_every_verb():
    model, clip = net(), torch.randn(3, 8, 24, 24, generator=torch.Generator().manual_seed(1))
    alone = pl.importance(model, clip, "frames", "ablation", target=0, baseline="zero")
    in_batch = pl.importance(model, clip[None], "frames", "ablation", target=0, baseline="zero")
    assert len(alone.names) == 8
    assert not alone.of_a_set
    assert not in_batch.of_a_set
    assert torch.equal(alone.values, in_batch.values)
    assert torch.equal(
        pl.explain(model, clip, "saliency", 0).tube(), pl.explain(model, clip[None], "saliency", 0).tube()
    )
    several = pl.importance(model, torch.stack([clip, clip.flip(1)]), "frames", "ablation", target=0, baseline="zero")
    assert several.shares[0].count == 2
    assert pl.activations(model, clip).maps


def test_a_volume_and_a_list_of_batches_lose_nothing():
    """A batch inside a list gives all its pictures, and axes are taken off once."""
    batch = torch.rand(2, 3, 8, 8)
    assert [tuple(m.source.shape) for m in collect([batch, batch[0]])] == [(1, 3, 8, 8), (1, 3, 8, 8), (3, 8, 8)]
    assert is_collection(batch)
    assert not is_collection(batch[:1])
    assert not is_collection(batch[0])


def test_a_folder_of_frames_is_one_clip_for_a_model_of_clips(tmp_path):
    for i, frame in enumerate(greys(8, 24, 24)):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    look = pl.Preprocess(input_size=(24, 24), resize=24, mean=(0.5,) * 3, std=(0.5,) * 3)
    model = pl.wrap(net().module, transform=look, frames="dense:8")
    found = pl.importance(model, tmp_path, "frames", "ablation", target=0, baseline="zero")
    assert not found.of_a_set
    whole = pl.importance(model, FramesInMemory(greys(8, 24, 24)), "frames", "ablation", target=0, baseline="zero")
    assert torch.equal(found.values, whole.values)
