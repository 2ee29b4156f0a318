import io
import struct
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pellucid.errors import MediaError
from pellucid.media import read_image, sample_path

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3)).astype(np.uint8)
GREY = RGB[..., 0]

# Where the first row and the first column of the stored picture lie in the upright one (the EXIF standard).
STORED = {
    1: lambda u: u,
    2: lambda u: u[:, ::-1],
    3: lambda u: u[::-1, ::-1],
    4: lambda u: u[::-1],
    5: lambda u: u.swapaxes(0, 1),
    6: lambda u: u[:, ::-1].swapaxes(0, 1),
    7: lambda u: u[::-1, ::-1].swapaxes(0, 1),
    8: lambda u: u[::-1].swapaxes(0, 1),
}


def save(path, image, **options):
    image.save(path, **options)
    return path


def png(width, height, *, depth=8, colour=2):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_orientation_is_obeyed(tmp_path, orientation, suffix):
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](RGB)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"p.{suffix}", stored, exif=exif, **options)
    assert np.array_equal(read_image(path).pixels, RGB)
    with Image.open(path) as opened:
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(opened)), RGB)
    with Image.open(path) as opened:
        assert np.array_equal(read_image(opened).pixels, RGB)


def test_orientation_of_a_deep_grey_picture(tmp_path):
    deep = RNG.integers(0, 65536, (5, 8)).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(STORED[6](deep)))
    path = save(tmp_path / "p.png", stored, exif=exif)
    assert np.array_equal(np.round(read_image(path).pixels[..., 2] * 65535), deep)


def test_a_broken_tag_block_does_not_cost_the_picture(tmp_path):
    path = save(tmp_path / "p.png", Image.fromarray(RGB), exif=b"Exif\0\0rubbish")
    assert np.array_equal(read_image(path).pixels, RGB)


ALPHA = RNG.integers(0, 256, (6, 9)).astype(np.uint8)


def on_white(colour, alpha):
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    colour = RGB if mode == "RGBA" else GREY[..., None]
    path = save(tmp_path / "p.png", Image.fromarray(np.concatenate([colour, ALPHA[..., None]], -1), mode))
    assert np.abs(read_image(path).pixels - on_white(colour, ALPHA)).max() <= 1


def test_palettes_grey_keys_and_bilevel(tmp_path):
    indexed = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    indexed.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    expected = [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]
    for transparency in (1, b"\xff\x00\xff"):
        path = save(tmp_path / "p.png", indexed, transparency=transparency)
        assert read_image(path).pixels.tolist() == expected
    path = save(tmp_path / "p.gif", indexed, transparency=1)
    assert read_image(path).pixels.tolist() == expected
    path = save(tmp_path / "l.png", Image.fromarray(np.array([[10, 20]], np.uint8)), transparency=20)
    assert read_image(path).pixels[..., 0].tolist() == [[10, 255]]
    path = save(tmp_path / "b.png", Image.fromarray(np.array([[True, False]])))
    assert read_image(path).pixels.tolist() == [[[255] * 3, [0] * 3]]


def test_cmyk_is_read_as_ink(tmp_path):
    ink = Image.fromarray(np.tile(np.array([255, 0, 0, 0], np.uint8), (16, 16, 1)), "CMYK")
    pixels = read_image(save(tmp_path / "p.tif", ink)).pixels
    assert (pixels == [0, 255, 255]).all()
    jpeg = read_image(save(tmp_path / "p.jpg", ink)).pixels.astype(int)
    assert np.abs(jpeg - [0, 255, 255]).max() < 8


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_kept(tmp_path, suffix):
    deep = np.arange(60000, 60040, dtype=np.uint16).reshape(5, 8)
    pixels = read_image(save(tmp_path / f"p.{suffix}", Image.fromarray(deep))).pixels
    assert pixels.dtype == np.float32
    assert np.array_equal(np.round(pixels[..., 0] * 65535), deep)
    assert (pixels == pixels[..., :1]).all()


def test_whole_number_and_float_tiffs(tmp_path):
    path = save(tmp_path / "i.tif", Image.fromarray(np.array([[0, 65535, 300]], np.int32)))
    assert read_image(path).pixels[0, :, 0] == pytest.approx([0, 1, 300 / 65535])
    path = save(tmp_path / "f.tif", Image.fromarray(np.array([[0, 0.123456, 1]], np.float32)))
    assert read_image(path).pixels[0, :, 1] == pytest.approx([0, 0.123456, 1])
    for name, value, message in [
        ("n", np.nan, "NaN"),
        ("r", 3.0, "outside 0 to 1"),
        ("i", np.inf, "infinite"),
    ]:
        path = save(tmp_path / f"{name}.tif", Image.fromarray(np.array([[0, value]], np.float32)))
        with pytest.raises(MediaError, match=rf"{name}\.tif .*{message}"):
            read_image(path)
    path = save(tmp_path / "big.tif", Image.fromarray(np.array([[0, 70000]], np.int32)))
    with pytest.raises(MediaError, match="outside 0 to 65535"):
        read_image(path)


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 3), c) for c in ("red", "blue")]
    for suffix in ("gif", "webp", "png"):
        options = {"lossless": True} if suffix == "webp" else {}
        path = tmp_path / f"a.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, **options)
        assert (read_image(path).pixels == [255, 0, 0]).all()


def test_arrays():
    assert np.array_equal(read_image(RGB).pixels, RGB)
    assert np.array_equal(read_image(GREY[..., None]).pixels, np.stack([GREY] * 3, -1))
    assert np.array_equal(read_image(RGB[:, ::-1]).pixels, RGB[:, ::-1])
    unit = RGB.astype(np.float64) / 255
    assert read_image(unit).pixels == pytest.approx(unit, abs=1e-7)
    rgba = np.concatenate([unit, ALPHA[..., None] / 255], -1)
    assert read_image(rgba).pixels * 255 == pytest.approx(on_white(RGB, ALPHA), abs=1e-3)
    eight = np.concatenate([RGB, ALPHA[..., None]], -1)
    assert np.abs(read_image(eight).pixels - on_white(RGB, ALPHA)).max() <= 1
    assert read_image((unit * 65535).astype(np.uint16)).pixels == pytest.approx(unit, abs=1e-4)
    mine = RGB.copy()
    picture = read_image(mine)
    mine[:] = 0
    assert np.array_equal(picture.pixels, RGB)
    assert np.array_equal(np.asarray(picture.pil()), RGB)
    assert np.array_equal(np.asarray(read_image(unit).pil()), RGB)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((3, 8, 8)), r"transpose\(1, 2, 0\)"),
        (np.zeros((8, 8, 2)), r"\(8, 8, 2\)"),
        (np.zeros((0, 4)), r"\(0, 4\)"),
        (np.zeros((4, 4), int), "int64"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4), -0.1), "outside 0 to 1"),
        (None, "not NoneType"),
    ],
)
def test_arrays_that_are_no_picture(bad, message):
    with pytest.raises(MediaError, match=message):
        read_image(bad)


def test_names_sources_and_hashes(tmp_path):
    path = save(tmp_path / "two words.png", Image.fromarray(RGB))
    picture = read_image(str(path))
    assert (picture.name, picture.source, picture.size) == ("two words", str(path), (6, 9))
    assert picture.sha256 == sha256(path.read_bytes()).hexdigest()
    cat = read_image("sample:cat")
    assert (cat.name, cat.source) == ("cat", "sample:cat")
    assert cat.sha256 == sha256(sample_path("cat").read_bytes()).hexdigest()
    assert read_image(RGB).sha256 == read_image(Image.fromarray(RGB)).sha256
    assert read_image(RGB).sha256 != read_image(RGB.reshape(9, 6, 3)).sha256
    assert read_image(RGB).source == ""


def test_a_bomb_is_refused_from_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(60000, 60000))
    tracemalloc.start()
    with pytest.raises(MediaError, match=r"bomb\.png.* 3,600 megapixels are more than the 100 allowed"):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("side", [9700, 14000])  # PIL warns above 89 megapixels, and raises above 179
def test_the_limit_is_ours_and_not_that_of_pil(tmp_path, side):
    path = tmp_path / "large.png"
    path.write_bytes(png(side, side, depth=1, colour=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MediaError, match="more than the 1 allowed"):
            read_image(path, max_pixels=10**6)
    assert read_image(RGB, max_pixels=54).size == (6, 9)
    with pytest.raises(MediaError, match="raise max_pixels"):
        read_image(RGB, max_pixels=53)
    with pytest.raises(MediaError, match="raise max_pixels"):
        read_image(Image.fromarray(RGB), max_pixels=53)


def test_a_picture_above_the_limit_of_pil_is_read_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = save(tmp_path / "p.png", Image.fromarray(RGB))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_image(path).pixels, RGB)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_many_threads_at_once(tmp_path):
    paths = [save(tmp_path / f"{i}.png", Image.fromarray(RGB + np.uint8(i))) for i in range(32)]
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(read_image, paths))
    assert all(np.array_equal(p.pixels, RGB + np.uint8(i)) for i, p in enumerate(pictures))
    assert warnings.filters == before


def encoded(kind):
    buffer = io.BytesIO()
    Image.fromarray(np.tile(RGB, (20, 20, 1))).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_picture_is_refused(tmp_path, kind, share):
    data = encoded(kind)
    path = tmp_path / "cut.img"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MediaError, match=r"cut\.img"):
        read_image(path)


def test_hostile_bytes_never_escape_as_anything_else(tmp_path):
    path, read, refused = tmp_path / "x.img", 0, 0
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"):
        data = np.frombuffer(encoded(kind), np.uint8)
        for _ in range(30):
            hurt = data.copy()
            where = RNG.integers(0, min(len(data), 200), 4)
            hurt[where] = RNG.integers(0, 256, 4)
            path.write_bytes(hurt.tobytes())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    pixels = read_image(path, max_pixels=10**6).pixels
                except MediaError:
                    refused += 1
                else:
                    read += 1
                    assert pixels.shape[2] == 3
                    assert pixels.shape[0] * pixels.shape[1] <= 10**6
    assert read + refused == 180
    assert min(read, refused) > 10


def test_what_is_no_picture_is_said_with_a_cure(tmp_path, monkeypatch):
    (tmp_path / "text.jpg").write_text("hello, I am a letter")
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.pdf").write_bytes(b"%PDF-1.7\n")
    (tmp_path / "drawing.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for name, message in [
        ("text.jpg", "none of PNG, JPEG"),
        ("empty.png", "is empty"),
        ("page.pdf", "none of PNG"),
        ("drawing.eps", "none of PNG"),
        ("missing.png", "There is no file"),
        ("null\0.png", "can't be read"),
        (".", "is a folder"),
    ]:
        with pytest.raises(MediaError, match=message):
            read_image(tmp_path / name)
    for url in (
        "http://example.org/a.png",
        "https://x.y/z",
        "data:image/png;base64,AAAA",
        Path("ftp://x/y.png"),
    ):
        with pytest.raises(MediaError, match="is a URL"):
            read_image(url)
    with pytest.raises(MediaError, match="device or a pipe"):
        read_image("/dev/zero")
    path = save(tmp_path / "large.png", Image.fromarray(RGB))
    with pytest.raises(MediaError, match="larger than"):
        read_image(path, max_bytes=20)

    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(MediaError, match="check its permissions"):
        read_image(path)
