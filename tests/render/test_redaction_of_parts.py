"""Redaction beyond maps: what the parts of a picture look like, and the pictures drawn from the rows of a batch."""

import base64
import io
import re

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import pellucid as pl
from helpers.redaction import model
from pellucid.cli import app, options
from pellucid.errors import MediaError
from pellucid.explanation import REDACTED
from pellucid.keep.packing import unpack_all
from pellucid.media import Geometry
from pellucid.results.importance import hidden_looks
from pellucid.results.rows import row_of
from pellucid.runs.export import export
from pellucid.truth import Annotated, Annotation, Truth, coco_text

FACE = (16.0, 8.0, 48.0, 40.0)
TYPED = "16,8,48,40"
SECRET = b"SECRETCAM"
RED = np.array([255, 0, 0])


def taken(folder, name="a.png"):
    """A grey photo with red dots on green in the box of the face, and where and by what it was taken."""
    pixels = np.full((64, 96, 3), 128, np.uint8)
    pixels[8:40, 16:48] = (0, 255, 0)
    pixels[8:40:2, 16:48:2] = RED
    exif = Image.Exif()
    exif[0x010F] = SECRET.decode()
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / name, exif=exif)
    assert SECRET in (folder / name).read_bytes()
    return str(folder / name)


def dots(pixels):
    """How many pixels are as purely red as those of the face, and nothing else of the photo or of a figure."""
    red = pixels[..., :3].astype(int)
    return int(((red[..., 0] > 200) & (red[..., 1] < 60) & (red[..., 2] < 60)).sum())


def annotated(file, *names):
    pictures = tuple(Annotated(name, (Annotation("face", FACE),), (64, 96)) for name in names)
    file.write_text(coco_text(Truth("", pictures, {"face": 1})))
    return str(file)


def images(page):
    found = re.findall(r"data:image/\w+;base64,([A-Za-z0-9+/=]+)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")) for data in found]


def run(monkeypatch, *arguments):
    monkeypatch.setattr(options, "load_model", lambda *_, **__: model())
    ran = CliRunner().invoke(app, [str(a) for a in arguments])
    assert ran.exit_code == 0, ran.output
    return ran


PARTS = (["--features", "patches", "--count", 6], ["--features", "channels", "--layer", 0])


@pytest.mark.parametrize("features", [*PARTS, ["--features", "colours"]])
def test_parts_show_nothing_of_the_box_and_their_values_stay(tmp_path, monkeypatch, features):
    asked = ["importance", taken(tmp_path), "--by", "ablation", "--target", 0, *features, "--out"]
    run(monkeypatch, *asked, tmp_path / "plain")
    run(monkeypatch, *asked, tmp_path / "out", "--redact", TYPED)
    (plain,), (kept,) = ([*(tmp_path / n).glob("*.npz")] for n in ("plain", "out"))
    before, after = np.load(plain), np.load(kept)
    for name in ("values", "low", "high"):
        np.testing.assert_array_equal(before[name], after[name])
    assert "picture.inputs" not in after
    assert dots(np.asarray(Image.open(next((tmp_path / "plain").glob("*.png"))).convert("RGB"))) > 50
    assert dots(np.asarray(Image.open(next((tmp_path / "out").glob("*.png"))).convert("RGB"))) == 0
    opened, shown = pl.read(plain), pl.read(kept)
    assert sum(map(dots, images(opened.html()))) > 50
    assert not any(map(dots, images(shown.html()))), "what is drawn later from the file is hidden too"
    assert dots(opened.picture.pixels) == 256
    assert dots(shown.picture.pixels) == 0
    assert str(pl.verify(kept, model=model())) == "same"
    for file in (tmp_path / "out").iterdir():
        assert SECRET not in file.read_bytes()
        if file.suffix == ".png":
            assert not Image.open(file).getexif()


def test_activations_and_frames_are_coarse_in_the_box_and_as_they_were_elsewhere():
    draw = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 64, 96, generator=draw)
    frames = torch.randint(0, 256, (2, 3, 64, 96), generator=draw, dtype=torch.uint8)
    still = Geometry.identity((64, 96))
    found = hidden_looks({"maps": maps, "frames": frames, "inputs": frames, "labels": maps[0]}, still, [FACE])
    assert set(found) == {"maps", "frames", "labels"}
    for name, before in (("maps", maps), ("frames", frames[:, 0])):
        after = found[name] if name == "maps" else found[name][:, 0]
        assert len(after[0, 8:40, 16:48].unique()) <= 16
        outside = torch.ones(64, 96, dtype=torch.bool)
        outside[5:43, 13:51] = False
        assert after[:, outside].equal(before[:, outside])
    clip = Geometry((2, 64, 96), (2, 64, 96), ((0.0, 2.0), (0.0, 64.0), (0.0, 96.0)), unit="frame")
    assert hidden_looks({"maps": maps[None]}, clip, [FACE])["maps"][0].equal(found["maps"])
    assert hidden_looks({"inputs": frames}, still, []).keys() == {"inputs"}


def test_examples_of_a_folder_are_hidden_and_what_nobody_looked_through_is_none(tmp_path):
    folder = tmp_path / "in"
    for name in ("a.png", "b.png"):
        taken(folder, name)
    how = {"features": "patches", "by": "ablation", "target": 0, "count": 6}
    plain = pl.importance(model(), folder, **how)
    assert sum(map(dots, plain.shares[0].examples.values())) > 50
    hidden = pl.importance(model(), folder, **how, redact=TYPED)
    assert hidden.shares[0].examples.keys() == plain.shares[0].examples.keys()
    assert not any(map(dots, hidden.shares[0].examples.values()))
    assert hidden.values.equal(plain.values)
    partly = pl.importance(model(), folder, **how, redact=annotated(tmp_path / "faces.json", "c.png"))
    assert not partly.shares[0].examples
    assert any("pictures are measured but not shown" in note for note in partly.notes)
    with pytest.raises(MediaError, match="is many pictures: say what is to be hidden"):
        plain.redact([FACE])


@pytest.fixture
def batch(tmp_path, monkeypatch):
    """What runs a batch of two pictures, one of which nobody looked through."""
    for name in ("a.png", "b.png"):
        taken(tmp_path / "in", name)
    from pellucid.runs.batch import BatchJob
    from pellucid.runs.work import WorkOrder

    monkeypatch.setattr(WorkOrder, "load", lambda self: model())
    ran: list[BatchJob] = []
    monkeypatch.setattr(BatchJob, "run", lambda self, *_: ran.append(self) or _Complete())

    def rows(out, *arguments):
        run(monkeypatch, "batch", tmp_path / "in", "--method", "saliency", "--out", out, *arguments)
        return done(ran[-1])

    return rows


class _Complete:
    line, notes, complete, failed, error = "", (), True, 0, ""


def done(job):
    """A batch done in this process, and read back."""
    from pellucid.keep.journal import Journal
    from pellucid.runs.batch import FIXED
    from pellucid.runs.local import written
    from pellucid.runs.work import Work

    work, journal = Work(job.plan), Journal(job.folder)
    job.folder.mkdir(parents=True)
    journal.begin(job.about(work.weights), fixed=FIXED)
    assert type(job).opened(job.folder).plan == job.plan, "whoever goes on hides the same"
    journal.append(written(journal.shards, work.rows([item.stamped() for item in job.manifest])))
    return pl.results(job.folder)


@pytest.mark.parametrize("verb", ["explain", "importance"])
def test_a_batch_keeps_no_pixels_and_what_is_drawn_from_it_is_hidden(tmp_path, batch, verb):
    how = ["--verb", verb, "--features", "colours", "--by", "ablation"]
    plain = batch(tmp_path / "plain", *how)
    export(tmp_path / "plain", tmp_path / "all.parquet", maps=True)
    exported = pyarrow.parquet.read_table(tmp_path / "all.parquet")
    assert exported.num_rows == 2
    for kept in exported.column("arrays").to_pylist():
        assert not [a for a in unpack_all(kept).values() if a.dtype == np.uint8], "no pixels, redacted or not"
    assert SECRET not in str(exported.to_pylist()).encode()
    faces = annotated(tmp_path / "faces.json", "a.png")
    for out, redact in (("typed", TYPED), ("listed", faces)):
        rows = batch(tmp_path / out, *how, "--redact", redact)
        told = {row["name"]: row for row in rows}
        shown, before = rows.sample(told["a.png"]["id"]), plain.sample({r["name"]: r for r in plain}["a.png"]["id"])
        assert dots(before.picture.pixels) == 256
        assert dots(shown.picture.pixels) == 0
        same = ("attribution", shown, before) if verb == "explain" else ("values", shown, before)
        assert getattr(same[1], same[0]).equal(getattr(same[2], same[0]))
        assert not any(map(dots, images(shown.html())))
        assert (told["b.png"]["status"] == "failed") == (out == "listed")
    assert "says nothing of b.png" in told["b.png"]["error"]
    for file in (tmp_path / "listed").rglob("*"):
        assert file.is_dir() or SECRET not in file.read_bytes()


def test_the_boxes_stay_in_a_row_however_many_they_are(tmp_path):
    e = pl.explain(model(), taken(tmp_path), "saliency").redact([FACE])
    e.extras[REDACTED] = e.extras[REDACTED].repeat(1, 20_000, 1)
    assert len(unpack_all(row_of(e)["arrays"])["extra.redacted"][0]) == 20_000
