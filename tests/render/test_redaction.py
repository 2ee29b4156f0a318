"""Redaction: what is hidden is in no artefact, what was measured stays, and a photo's own data go nowhere."""

import io
import re
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import pellucid as pl
from helpers.redaction import model
from pellucid.cli import app, options
from pellucid.errors import DataError, MediaError
from pellucid.media import Clip
from pellucid.media.redaction import CELLS, coarse, redacted
from pellucid.render.paper.display import display, ground_pixels
from pellucid.truth import Annotated, Annotation, Truth, coco_text
from pellucid.verbs.redaction import redaction, without

FACE = (16.0, 8.0, 48.0, 40.0)
SECRET = "SECRETCAM"


def photo():
    """A grey picture with a fine checkerboard in the box of the face, and one as fine beside it."""
    pixels = np.full((64, 96, 3), 128, np.uint8)
    board = np.indices((32, 32)).sum(0) % 2 * 255
    pixels[8:40, 16:48] = pixels[8:40, 56:88] = board[..., None]
    return pixels


def fine(pixels, box=FACE):
    """How much changes from pixel to pixel in a box of the photo, at any size of it."""
    scale = pixels.shape[1] / 96
    x0, y0, x1, y1 = (round(v * scale) for v in box)
    return float(np.abs(np.diff(pixels[y0:y1, x0:x1].astype(float), axis=1)).mean())


BESIDE = (56.0, 8.0, 88.0, 40.0)


def taken(folder, name="a.jpg"):
    """The photo as a camera writes it: with its maker, its place, a comment and a description."""
    exif = Image.Exif()
    exif[0x010F] = SECRET
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.0), 29: SECRET})
    xmp = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{SECRET}</x:xmpmeta>".encode()
    Image.fromarray(photo()).save(folder / name, quality=100, exif=exif, comment=SECRET.encode(), xmp=xmp)
    assert (folder / name).read_bytes().count(SECRET.encode()) == 4
    return str(folder / name)


def test_only_the_means_of_few_parts_are_left():
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    hidden = coarse(pixels, [FACE])
    inside = hidden[8:40, 16:48]
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) == CELLS**2
    assert np.abs(inside[:8, :8] - pixels[8:16, 16:24].reshape(-1, 3).mean(0)).max() <= 1
    outside = np.ones((64, 96), bool)
    outside[8:40, 16:48] = False
    assert (hidden[outside] == pixels[outside]).all()
    assert (pixels[8:40, 16:48] != inside).any(), "a copy"


def test_boxes_may_be_small_or_reach_beyond_and_must_be_boxes():
    pixels = np.random.default_rng(0).random((10, 12, 3))
    assert (coarse(pixels, [(11, 9, 11.5, 9.2)]) == pixels).all(), "a single pixel is its own mean"
    assert len(np.unique(coarse(pixels, [(-5, -5, 50, 50)])[..., 0])) == CELLS**2
    assert (coarse(pixels, [(20, 20, 30, 30)]) == pixels).all()
    with pytest.raises(MediaError, match="left top corner first"):
        coarse(pixels, [(5, 5, 2, 9)])


def test_all_frames_of_a_clip_are_hidden():
    frames = np.stack([photo(), photo()])
    hidden = redacted(Clip(frames, (0.0, 1.0), "c", "", ""), [FACE])
    assert fine(hidden.frames[0]) < 10 < fine(hidden.frames[1], BESIDE)
    assert fine(frames[1]) > 200


def test_nothing_fine_is_left_in_any_artefact_and_the_values_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(options, "load_model", lambda *_, **__: model())
    source = taken(tmp_path)
    asked = ["explain", source, "--method", "saliency", "--no-check", "--redact", "16,8,48,40"]
    ran = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    files = sorted((tmp_path / "out").iterdir())
    assert {f.suffix for f in files} == {".npz", ".json", ".png"}
    shown = pl.read(next(f for f in files if f.suffix == ".json"))
    shown.explained = None
    page = shown.html()
    (tmp_path / "out" / "page.html").write_text(page)
    plain = pl.explain(model(), source, "saliency")
    assert shown.attribution.equal(plain.attribution)
    assert fine(plain.picture.pixels) > 100
    assert fine(shown.picture.pixels) < 10 < fine(shown.picture.pixels, BESIDE)
    assert fine(ground_pixels(shown, (320, 480))) < 5
    images = [b64decode(data) for data in re.findall(r"data:image/\w+;base64,([A-Za-z0-9+/=]+)", page)]
    originals = [np.asarray(Image.open(io.BytesIO(i)).convert("RGB")) for i in images]
    originals = [pixels for pixels in originals if pixels.shape == (64, 96, 3)]
    assert originals, "the page shows the picture"
    assert all(fine(pixels) < 10 < fine(pixels, BESIDE) for pixels in originals)
    for data in [*images, *(f.read_bytes() for f in files)]:
        assert SECRET.encode() not in data
        if data[:4] == b"\x89PNG" or data[:2] == b"\xff\xd8":
            with Image.open(io.BytesIO(data)) as image:
                assert not image.getexif()
                assert not {"exif", "comment", "xmp", "XML:com.adobe.xmp"} & set(image.info)


def test_a_pixel_level_map_is_drawn_coarse_where_it_would_show_what_is_hidden(tmp_path):
    e = pl.explain(model(), taken(tmp_path), "saliency")
    before = display(e).values
    after = display(pl.Heatmaps([e]).redact([FACE])[0]).values
    inside = after[40:200, 80:240]
    assert len(np.unique(inside)) <= CELLS**2 < len(np.unique(before[40:200, 80:240]))
    assert np.array_equal(after[:, 260:], before[:, 260:], equal_nan=True)


def test_annotations_say_what_is_hidden_in_which_picture(tmp_path):
    faces = tmp_path / "faces.json"
    pictures = (Annotated("a.jpg", (Annotation("face", FACE),), (64, 96)), Annotated("b.jpg", (), (64, 96)))
    faces.write_text(coco_text(Truth("", pictures, {"face": 1})))
    net = model()
    outcomes = [
        (n, pl.Heatmaps([pl.explain(net, taken(tmp_path, n), "saliency")])) for n in ("a.jpg", "b.jpg", "c.jpg")
    ]
    found = dict(without(str(faces), outcomes))
    assert fine(found["a.jpg"][0].picture.pixels) < 10
    assert fine(found["b.jpg"][0].picture.pixels) > 100
    assert "says nothing of c.jpg" in str(found["c.jpg"]), "what nobody looked through is not written"


@pytest.mark.parametrize("text", ["faces", "1,2,3", "nowhere.json", ";"])
def test_what_hides_nothing_is_said(text):
    with pytest.raises(DataError, match="nothing to hide"):
        redaction(text)


def test_what_has_no_way_back_is_refused(tmp_path):
    e = pl.explain(model(), taken(tmp_path), "saliency")
    e.geometry = replace(e.geometry, known=False)
    with pytest.raises(MediaError, match="can't be redacted"):
        pl.Heatmaps([e]).redact([FACE])
