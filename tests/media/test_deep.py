"""Pictures of more than 8 bits, and bands of a TIFF: every value that was put into a file comes out of it."""

import io
import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
import tifffile
from PIL import Image

import pellucid as pl
from pellucid.errors import MediaError
from pellucid.media import read_image

RNG = np.random.default_rng(7)
DEEP = RNG.integers(0, 65536, (6, 9, 4)).astype(np.uint16)
RGB, GREY = DEEP[..., :3], DEEP[..., 0]


def png(values, colour, key=(), interlaced=False):
    """A PNG of 16 bits a channel, written by hand: no filter, and where asked in the seven passes of Adam7."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [values[r::dr, c::dc] for r, c, dr, dc in passes] if interlaced else [values]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for part in parts for row in part if row.size)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, int(interlaced))
    keyed = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + keyed
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def tiff(values, **options):
    buffer = io.BytesIO()
    if options.get("planarconfig") == "separate":
        values = np.ascontiguousarray(np.moveaxis(values, -1, 0))
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def read(tmp_path, data):
    path = tmp_path / "p.img"
    path.write_bytes(data)
    return read_image(path)


def on_white(values, alpha):
    share = alpha[..., None] / 65535
    return values / 65535 * share + 1 - share


@pytest.mark.parametrize("interlaced", [False, True])
def test_png_keeps_sixteen_bits_of_every_kind(tmp_path, interlaced):
    colour = read(tmp_path, png(RGB, 2, interlaced=interlaced))
    assert colour.pixels.dtype == np.float32
    assert np.array_equal(np.round(colour.pixels * 65535), RGB)
    assert colour.notes == ()
    clear = read(tmp_path, png(DEEP, 6, interlaced=interlaced)).pixels
    assert clear == pytest.approx(on_white(RGB, DEEP[..., 3]), abs=1e-6)
    pair = read(tmp_path, png(DEEP[..., 2:], 4, interlaced=interlaced)).pixels
    assert pair == pytest.approx(np.repeat(on_white(DEEP[..., 2:3], DEEP[..., 3]), 3, -1), abs=1e-6)


def test_png_names_one_deep_value_as_see_through(tmp_path):
    """Two values that are equal in their high byte: only one is see-through."""
    values = np.array([[[300, 300, 300], [301, 300, 300]]], np.uint16)
    found = read(tmp_path, png(values, 2, key=(300, 300, 300))).pixels
    assert (found[0, 0] == 1).all()
    assert found[0, 1] == pytest.approx(values[0, 1] / 65535)
    grey = read(tmp_path, png(values[..., 0], 0, key=(301,))).pixels
    assert grey[0, :, 0] == pytest.approx([300 / 65535, 1])


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize(
    "layout", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"compression": "zlib", "predictor": True}]
)
def test_tiff_keeps_sixteen_bits_however_it_lies(tmp_path, byteorder, planarconfig, layout):
    data = tiff(RGB, photometric="rgb", planarconfig=planarconfig, byteorder=byteorder, **layout)
    assert np.array_equal(np.round(read(tmp_path, data).pixels * 65535), RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_tiff_is_turned_upright(tmp_path, orientation):
    data = tiff(RGB, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    shallow = tiff((RGB >> 8).astype(np.uint8), photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    found = np.round(read(tmp_path, data).pixels * 65535).astype(int)
    assert np.array_equal(found >> 8, read(tmp_path, shallow).pixels)


def test_what_tifffile_cannot_unpack_is_read_whole_all_the_same(tmp_path):
    """LZW, as most programs write it; here FFmpeg, at 16 bits a colour."""
    av = pytest.importorskip("av")
    values = RNG.integers(0, 65536, (16, 32, 3)).astype(np.uint16)
    for kind, tags in (("tiff", {"compression_algo": "lzw"}), ("png", {})):
        order = "be" if kind == "png" else "le"
        encoder = av.CodecContext.create(kind, "w")
        encoder.width, encoder.height, encoder.pix_fmt = 32, 16, f"rgb48{order}"
        encoder.time_base, encoder.options = Fraction(1, 25), tags
        frame = av.VideoFrame.from_ndarray(values, format=f"rgb48{order}")
        frame.pts = 0
        data = b"".join(bytes(p) for p in [*encoder.encode(frame), *encoder.encode(None)])
        assert np.array_equal(np.round(read(tmp_path, data).pixels * 65535), values)


def test_twelve_bits_are_white_where_twelve_bits_end(tmp_path):
    """Packed 12-bit samples, two in three bytes (TIFF 6.0, section 8)."""
    data = bytearray(tiff(np.zeros((1, 3), np.uint8), photometric="minisblack"))
    file = tifffile.TiffFile(io.BytesIO(bytes(data)))
    tags = file.pages.first.tags
    struct.pack_into("<I", data, tags[256].offset + 8, 2)
    struct.pack_into("<H", data, tags[258].offset + 8, 12)
    at = file.pages.first.dataoffsets[0]
    data[at : at + 3] = bytes([0x7F, 0xFF, 0xFF])  # 0x7FF, 0xFFF
    assert read(tmp_path, bytes(data)).pixels[0, :, 0] == pytest.approx([2047 / 4095, 1])


def test_zero_is_white_at_any_depth(tmp_path):
    film = np.array([[0, 64], [128, 255]])
    for values in (film.astype(np.uint8), (film * 257).astype(np.uint16), (film / 255).astype(np.float32)):
        for order in "<>":
            found = read(tmp_path, tiff(values, photometric="miniswhite", byteorder=order)).pixels
            scale = 255 if found.dtype == np.uint8 else 1
            assert found[..., 0] / scale == pytest.approx(1 - film / 255, abs=1e-6), (values.dtype, order)
    (tmp_path / "film.tif").write_bytes(tiff((film * 257).astype(np.uint16), photometric="miniswhite"))
    with Image.open(tmp_path / "film.tif") as opened:
        assert read_image(opened).pixels[..., 0] == pytest.approx(1 - film / 255, abs=1e-6)


def test_colours_of_floats(tmp_path):
    values = RNG.random((5, 6, 3)).astype(np.float32)
    assert np.array_equal(read(tmp_path, tiff(values, photometric="rgb")).pixels, values)
    with pytest.raises(MediaError, match="outside 0 to 1"):
        read(tmp_path, tiff(values * 3, photometric="rgb"))


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_fourth_band_is_what_its_tag_says(tmp_path, depth):
    most = np.iinfo(depth).max
    bands = np.broadcast_to(np.array([100, 150, 200, 51]) / 255, (8, 8, 4))
    values = np.rint(bands * most).astype(depth)

    def seen(**options):
        picture = read(tmp_path, tiff(values, photometric="rgb", **options))
        return picture.pixels[4, 4] / (1 if picture.pixels.dtype == np.float32 else 255), picture.notes

    infrared, notes = seen(extrasamples=[0])
    assert infrared == pytest.approx(bands[0, 0, :3], abs=0.01)
    assert notes == ("Band 4 is neither colour nor opacity by the file's own tags, and left out.",)
    clear, notes = seen(extrasamples=["unassalpha"])
    assert clear == pytest.approx(bands[0, 0, :3] * 0.2 + 0.8, abs=0.01)
    assert notes == (
        "The file calls band 4 opacity, so the colours are laid on white by it: 100% of the picture is see-through.",
    )


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_no_tag_at_all_is_no_opacity(tmp_path, depth):
    values = np.full((4, 4, 4), 51, depth)
    data = bytearray(tiff(values, photometric="rgb", extrasamples=[2]))
    tag = tifffile.TiffFile(io.BytesIO(bytes(data))).pages.first.tags[338]
    struct.pack_into("<H", data, tag.offset, 65000)  # a private tag that nobody reads
    picture = read(tmp_path, bytes(data))
    assert picture.pixels[0, 0, 0] == pytest.approx(51 if depth == np.uint8 else 51 / 65535)
    assert "Band 4 is neither" in picture.notes[0]


def test_colours_that_were_multiplied_by_their_opacity(tmp_path):
    alpha = np.array([[65535, 32768, 0]], np.uint16)[..., None]
    colour = np.array([[[60000, 30000, 100]] * 3], np.uint16)
    stored = np.concatenate([np.rint(colour * (alpha / 65535)).astype(np.uint16), alpha], -1)
    found = read(tmp_path, tiff(stored, photometric="rgb", extrasamples=["assocalpha"])).pixels
    assert found == pytest.approx(on_white(colour, alpha[..., 0]), abs=1e-4)


def test_many_bands_are_not_damage(tmp_path):
    for depth in (np.uint8, np.uint16):
        values = RNG.integers(0, 255, (8, 8, 12)).astype(depth)
        with pytest.raises(MediaError, match=r"has 12 bands and does not say which are red, green and blue") as caught:
            read(tmp_path, tiff(values, photometric="minisblack", planarconfig="contig"))
        assert "damaged" not in str(caught.value)
    eight = RNG.integers(0, 65536, (8, 8, 8)).astype(np.uint16)
    picture = read(tmp_path, tiff(eight, photometric="rgb", extrasamples=[0] * 5))
    assert np.array_equal(np.round(picture.pixels * 65535), eight[..., :3])
    assert picture.notes[0].startswith("Bands 4 to 8 are neither")


def test_palettes_of_sixteen_and_of_eight_bits(tmp_path):
    index = np.array([[0, 1, 2]])
    table = np.zeros((3, 65536), np.uint16)
    table[:, :3] = [[65535, 0, 300], [0, 65535, 301], [1, 2, 302]]
    deep = read(tmp_path, tiff(index.astype(np.uint16), photometric="palette", colormap=table)).pixels
    assert np.array_equal(np.round(deep[0] * 65535), table[:, :3].T)
    small = np.zeros((3, 256), np.uint16)
    small[:, :3] = [[255, 0, 3], [0, 255, 4], [1, 2, 5]]  # as some programs write it: 8 bits in 16
    for given in (small, small * 257):
        data = tiff(index.astype(np.uint8), photometric="palette", colormap=given)
        assert read(tmp_path, data).pixels[0].tolist() == small[:, :3].T.tolist()


def test_a_portable_pixmap_keeps_its_depth(tmp_path):
    for white in (65535, 4095):
        values = RNG.integers(0, white + 1, (4, 5, 3)).astype(np.uint16)
        found = read(tmp_path, b"P6\n5 4\n%d\n" % white + values.astype(">u2").tobytes()).pixels
        assert found == pytest.approx(values / white, abs=1e-6)


def test_a_picture_of_fewer_bits_than_its_file_is_dark_and_says_so(tmp_path):
    twelve = RNG.integers(0, 4096, (16, 16, 3)).astype(np.uint16)
    twelve[0, 0] = 4095
    note = (
        "Its largest value is 4,095 of 65,535, as a camera of 12 bits leaves it, so the model sees a dark picture: "
        "multiply such pictures by 16 if they should look as they were taken.",
    )
    for found in (
        read(tmp_path, tiff(twelve, photometric="rgb")),
        read(tmp_path, tiff(twelve[..., 0], photometric="minisblack")),
        read(tmp_path, png(twelve, 2)),
        read(tmp_path, png(twelve[..., 0], 0)),
        read_image(twelve),
    ):
        assert len(np.unique(found.pixels[..., 0])) == len(np.unique(twelve[..., 0]))
        assert found.notes == note
    assert read_image(twelve * 16).notes == ()
    assert read_image(np.zeros((4, 4), np.uint16)).notes == ()  # black is black


def test_of_several_pages_the_first_is_read_and_that_is_said(tmp_path):
    stack = np.stack([GREY, GREY // 2])
    picture = read(tmp_path, tiff(stack, photometric="minisblack"))
    assert np.array_equal(np.round(picture.pixels[..., 0] * 65535), GREY)
    assert picture.notes == ("The file holds several pages, of which the first is read.",)


def test_the_notes_reach_who_asked(tmp_path):
    tifffile.imwrite(tmp_path / "p.tif", RGB // 16, photometric="rgb")
    model = pl.load("efficientnet-lite0")
    assert any("12 bits" in note for note in pl.explain(model, tmp_path / "p.tif", "saliency").notes)
    found = pl.importance(model, tmp_path / "p.tif", "patches", "ablation", count=4)
    assert any("12 bits" in note for note in found.notes)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_what_is_cut_short_is_refused(tmp_path, share):
    big = np.tile(RGB, (8, 8, 1))
    for data in (
        png(big, 2),
        tiff(big, photometric="rgb"),
        tiff(big, photometric="rgb", compression="zlib", rowsperstrip=8),
        tiff(big, photometric="rgb", rowsperstrip=8),
    ):
        with pytest.raises(MediaError):
            read(tmp_path, data[: int(len(data) * share)])


def test_a_packing_that_nobody_here_knows_names_the_cure(tmp_path):
    data = bytearray(tiff(RNG.random((8, 8, 3)).astype(np.float32), photometric="rgb"))
    tag = tifffile.TiffFile(io.BytesIO(bytes(data))).pages.first.tags[259]
    struct.pack_into("<H", data, tag.offset + 8, 34887)  # LERC
    with pytest.raises(MediaError, match=r"3 bands of 32 bits are packed .* pip install imagecodecs"):
        read(tmp_path, bytes(data))
