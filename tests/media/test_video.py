import ctypes
import sys
import time
from fractions import Fraction

import numpy as np
import pytest

from helpers.clips import bars, gif, mutated, rotate, sound, write
from pellucid.errors import MediaError, PellucidError
from pellucid.media import Caps, Clip, FramesInMemory, Plan, expand, is_video, open_clip, read_clip
from pellucid.media.writing import encode

av = pytest.importorskip("av")

UNEVEN = [0, 7, 30, 31, 95, 96, 200, 260, 261, 300, 420, 500]  # of 600 a second


def brute(path):
    """Every frame of a file, by decoding it from its beginning: pixels and exact times."""
    with av.open(path) as container:
        found = [(f.to_ndarray(format="rgb24"), f.pts * f.time_base) for f in container.decode(video=0)]
    first = found[0][1]
    return np.stack([f for f, _ in found]), [float(t - first) for _, t in found]


@pytest.mark.parametrize(("ending", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9")])
def test_time_stamps_of_a_variable_rate_are_exact(tmp_path, ending, codec):
    base = Fraction(1, 600) if ending == "mp4" else Fraction(1, 1000)  # all that Matroska keeps
    path = write(tmp_path / f"uneven.{ending}", bars(), UNEVEN, codec=codec, base=base)
    clip = read_clip(path)
    assert clip.times == tuple(float(stamp * base) for stamp in UNEVEN)
    pixels, times = brute(path)
    assert list(clip.times) == times
    assert np.array_equal(clip.frames, pixels)
    stamps = [Fraction(clip.origin["time_base"]) * (pts - clip.origin["pts"][0]) for pts in clip.origin["pts"]]
    assert stamps == [stamp * base for stamp in UNEVEN]


@pytest.mark.parametrize("plan", ["uniform:5", "dense:4", "stride:4x2", "rate:4x20", "dense:3@0.2", "uniform:3@0.25"])
@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "2"}])
@pytest.mark.parametrize("keys", [1, 4, 50])
def test_seeking_gives_what_decoding_from_the_start_gives(tmp_path, plan, options, keys):
    path = write(tmp_path / "clip.mp4", bars(30), options=options, keys=keys)
    pixels, times = brute(path)
    clip = read_clip(path, plan)
    assert len(clip.frames) == Plan.parse(plan).count
    at = [times.index(t) for t in clip.times]
    assert at == clip.origin["frames"]
    assert np.array_equal(clip.frames, pixels[at])


def test_plans_take_the_frames_on_the_screen():
    times, end = [0.0, 0.1, 0.2, 1.0, 1.1], 2.0

    def choose(plan):
        return Plan.parse(plan).choose(times, end)

    assert choose("uniform:4") == [2, 2, 4, 4]  # the moments are 0.25, 0.75, 1.25 and 1.75 s
    assert choose("uniform:1@1") == [4]  # the middle of 1 to 2 s
    assert choose("dense:3") == [1, 2, 3]
    assert choose("dense:2@1.0") == [3, 4]
    assert choose("stride:2x3") == [0, 3]
    assert choose("rate:4x2") == [0, 2, 3, 4]  # 0, 0.5, 1 and 1.5 s
    assert choose("uniform") == [0, 1, 2, 3, 4]
    assert choose("dense:9") == [0, 1, 2, 3, 4]
    with pytest.raises(MediaError, match=r"starts behind the clip, which ends at 2\.00 s"):
        choose("dense:2@3")


@pytest.mark.parametrize(
    "text", ["uniform:16", "dense:16@2.5", "stride:16x4", "rate:16x7.5", "uniform", "rate:8x15@0.5"]
)
def test_plans_are_read_back_from_their_text(text):
    assert str(Plan.parse(text)) == text
    assert Plan.parse(16) == Plan.parse("uniform:16")


@pytest.mark.parametrize(
    "text", ["", "every:3", "dense:0", "stride:16", "uniform:4x2", "stride:4x1.5", "rate:4x0", "dense:-1"]
)
def test_no_plans(text):
    with pytest.raises(MediaError, match=r"is no sampling plan|takes no frame"):
        Plan.parse(text)


def test_a_short_clip_repeats_its_last_frame_and_says_so(tmp_path):
    clip = read_clip(write(tmp_path / "short.mp4", bars(5)), "dense:16")
    assert len(clip.frames) == 5
    assert clip.padding == 11
    assert clip.notes == ("The clip has 5 frames and the model takes 16: the last one is repeated 11 times.",)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_obeyed(tmp_path, degrees):
    path = tmp_path / "turned.mp4"
    frames = bars(4)
    frames[:, :8, :8] = (250, 20, 20)  # a mark in the corner
    write(path, frames)
    plain = read_clip(path)
    rotate(path, degrees)
    turned = read_clip(path)
    assert np.array_equal(turned.frames, np.rot90(plain.frames, -degrees // 90, axes=(1, 2)))  # clockwise
    assert turned.size == ((4, 64, 48) if degrees != 180 else (4, 48, 64))
    assert open_clip(path).size == turned.size[1:]


def test_animations_have_the_times_of_their_frames(tmp_path):
    frames, durations = bars(6), [40, 70, 100, 30, 30, 500]
    clip = read_clip(gif(tmp_path / "a.gif", frames, durations))
    assert clip.times == (0.0, 0.04, 0.11, 0.21, 0.24, 0.27)
    assert np.abs(clip.frames.astype(int) - frames).max() == 0
    picked = read_clip(gif(tmp_path / "a.gif", frames, durations), "dense:2@0.2")
    assert np.array_equal(picked.frames, frames[2:4])
    webp = tmp_path / "a.webp"
    from PIL import Image

    Image.fromarray(frames[0]).save(
        webp, save_all=True, append_images=[Image.fromarray(f) for f in frames[1:]], duration=40, lossless=True
    )
    assert np.array_equal(read_clip(webp).frames, frames)


def test_a_folder_of_frames_is_a_clip_in_natural_order(tmp_path):
    from PIL import Image

    frames = bars(11)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"frame{i}.png")
    clip = read_clip(tmp_path)
    assert np.array_equal(clip.frames, frames)
    assert clip.times == tuple(i / 25 for i in range(11))
    assert "25 a second are assumed" in clip.notes[0]
    assert expand([tmp_path], clips=True) == [str(tmp_path)]
    Image.fromarray(frames[0, :20]).save(tmp_path / "frame3.png")
    with pytest.raises(MediaError, match="the frames of a clip have one size"):
        read_clip(tmp_path)


def test_arrays_and_clips_are_footage():
    frames = bars(6)
    clip = read_clip(frames)
    assert np.array_equal(clip.frames, frames)
    assert np.array_equal(read_clip(frames / 255.0).frames, frames)
    timed = FramesInMemory(frames, [0, 0.1, 0.2, 0.5, 0.6, 0.7])
    assert read_clip(timed, "dense:2@0.5").times == (0.5, 0.6)
    again = read_clip(clip, "dense:2")
    assert isinstance(again, Clip)
    assert again.sha256 == clip.sha256
    for wrong in (frames[0], frames.astype(int), frames / 2.0, frames[:0]):
        with pytest.raises(MediaError, match=r"The clip's array|A clip's array"):
            read_clip(wrong)
    with pytest.raises(MediaError, match="one for each, ascending"):
        FramesInMemory(frames, [0, 1, 2, 3, 3, 4])


@pytest.mark.parametrize("kind", ["webm", "mp4"])
def test_written_videos_are_the_same_bytes_and_keep_their_times(tmp_path, kind):
    times = [stamp / 600 for stamp in UNEVEN]
    data = encode(bars(), times, kind)
    assert data == encode(iter(bars()), times, kind)
    path = tmp_path / f"out.{kind}"
    path.write_bytes(data)
    clip = read_clip(path)
    assert clip.times == pytest.approx(times, abs=1.1e-3)
    assert np.abs(clip.frames.astype(int) - bars()).mean() < 4
    odd = encode(bars(3, 47, 63), [0, 0.1, 0.2], kind)
    path.write_bytes(odd)
    assert read_clip(path).size == (3, 46, 62)
    with pytest.raises(MediaError, match="webm or mp4, not 'avi'"):
        encode(bars(2), [0, 1], "avi")


@pytest.fixture
def freed_memory():
    """Fills whatever is allocated from now on with a byte of one's choice, where the C library can."""
    c = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(c, "mallopt"):
        pytest.skip("only glibc fills memory")
    yield lambda byte: c.mallopt(-6, 255 - byte)  # M_PERTURB, which takes the complement
    c.mallopt(-6, 0)


@pytest.mark.parametrize("kind", ["webm", "mp4"])
def test_what_memory_held_before_is_not_written(kind, freed_memory):
    rng = np.random.default_rng(0)
    blocks = np.stack([np.kron(rng.integers(0, 256, (12, 16, 3)), np.ones((10, 10, 1))) for _ in range(8)])
    frames, times = blocks.astype(np.uint8), [i / 10 for i in range(8)]
    files = set()
    for byte in range(0, 240, 6):
        freed_memory(byte)
        files.add(encode(frames, times, kind))
    assert len(files) == 1


def bad(tmp_path):
    good = tmp_path / "good.mp4"
    write(good, bars(20))
    data = good.read_bytes()

    def file(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    front = tmp_path / "front.mkv"
    write(front, bars(20))
    playlist = b"#EXTM3U\n#EXTINF:1,\nhttp://localhost/secret.ts\n#EXT-X-ENDLIST\n"
    return {
        "is empty": file("empty.mp4", b""),
        "is no video of a known kind": file("list.mp4", playlist),
        "no video of a known kind": file("concat.mp4", b"ffconcat version 1.0\nfile good.mp4\n"),
        "known kind|damaged": file("cut.mp4", data[: len(data) // 2]),
        "holds sound only": sound(tmp_path / "sound.mp4"),
        "There is no file": tmp_path / "none.mp4",
        "is a URL": "https://example.org/clip.mp4",
        "is a single picture": gif(tmp_path / "still.gif", bars(1), [40]),
        "holds a single picture|no picture|takes several": tmp_path / "nothing",
    }


def test_bad_files_end_in_one_sentence(tmp_path):
    (tmp_path / "nothing").mkdir()
    for match, path in bad(tmp_path).items():
        with pytest.raises(MediaError, match=match) as caught:
            read_clip(path)
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(".")


def test_caps_hold_before_and_while_decoding(tmp_path):
    path = write(tmp_path / "clip.mp4", bars(20))
    for caps, match in (
        (Caps(pixels=1000), "larger than the 0.001 megapixels"),
        (Caps(frames=10), "20 frames, more than the 10 allowed"),
        (Caps(seconds=0.5), "more than"),
        (Caps(kept=10_000), "take fewer frames"),
        (Caps(decoded=48 * 64 * 3), "pixels to decode"),
    ):
        with pytest.raises(MediaError, match=match):
            read_clip(path, caps=caps)


def test_a_file_cut_short_says_so(tmp_path):
    path = tmp_path / "clip.mp4"
    write(path, np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3)).astype(np.uint8))
    import av

    whole = tmp_path / "front.mp4"  # its index first, as for the web
    with av.open(str(path)) as source, av.open(str(whole), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert len(read_clip(whole).frames) == 20
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(MediaError, match="cut short: its header promises 20 frames"):
        read_clip(whole)


def test_what_counts_as_a_video(tmp_path):
    path = write(tmp_path / "clip.mp4", bars(3))
    (tmp_path / "renamed.dat").write_bytes((tmp_path / "clip.mp4").read_bytes())
    assert is_video(path)
    assert is_video(tmp_path / "renamed.dat")
    assert not is_video(gif(tmp_path / "a.gif", bars(2), [40, 40]))
    assert len(read_clip(tmp_path / "renamed.dat").frames) == 3
    assert expand([tmp_path], clips=True) == [path]


def test_two_hundred_mutated_files_end_in_frames_or_one_sentence(tmp_path):
    sources = []
    for name, codec in (("a.mp4", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "mpeg4")):
        write(tmp_path / name, bars(8, 32, 48), codec=codec, base=Fraction(1, 25), stamps=range(8))
        sources.append((name, (tmp_path / name).read_bytes()))
    gif(tmp_path / "a.gif", bars(8, 32, 48), 40)
    sources.append(("a.gif", (tmp_path / "a.gif").read_bytes()))
    read = 0
    for seed in range(200):
        name, data = sources[seed % len(sources)]
        path = tmp_path / f"fuzz-{name}"
        path.write_bytes(mutated(data, seed))
        began = time.process_time()
        said = ""
        try:
            clip = read_clip(path, "uniform:4")
            read += clip.frames.shape[3] == 3
        except PellucidError as error:
            said = str(error)
        assert "\n" not in said
        assert time.process_time() - began < 5
    assert 20 < read < 190  # neither all refused nor nothing tried


def test_sampling_costs_less_than_decoding_all(tmp_path):
    path = write(tmp_path / "long.mp4", bars(150, 240, 320), keys=10, options={"preset": "ultrafast"})

    def cost(run):
        began = time.process_time()
        run()
        return time.process_time() - began

    read_clip(path, "uniform:4")
    assert min(cost(lambda: read_clip(path, "uniform:4")) for _ in range(3)) < min(
        cost(lambda: brute(path)) for _ in range(3)
    )
