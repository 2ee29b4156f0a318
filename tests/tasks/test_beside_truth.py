"""A detector beside the truth: what is hit, missed and false is explained apart, and written back."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import pellucid as pl
from helpers.detectors import Squares, scene
from pellucid.cli import app, options
from pellucid.errors import DataError, ModelError
from pellucid.heatmaps import get_method
from pellucid.results.judged import write_judged
from pellucid.truth import Annotated, Annotation, Truth, coco_text, read_truth
from pellucid.verbs import beside_truth
from pellucid.verbs.beside_truth import explain_beside

METHOD = get_method("occlusion", window=8, stride=8)
RED, BLUE = (8.0, 16.0, 16.0, 24.0), (24.0, 0.0, 32.0, 8.0)
PLAIN = pl.Preprocess(input_size=(32, 32), resize=(32, 32), mean=(0, 0, 0), std=(1, 1, 1), interpolation="box")


def planted():
    return pl.wrap(Squares(), labels=["red", "blue"], transform=PLAIN, name="squares")


def write(folder, name="a.png"):
    pixels = (scene()[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return str(folder / name)


def truth(*objects, name="a.png", size=(32, 32)):
    labels = ("blue", "green", "red", "Red")
    return Truth("t.json", (Annotated(name, tuple(objects), size),), {label: k for k, label in enumerate(labels)})


def explained(tmp_path, *objects, **how):
    ((_, found),) = explain_beside(planted(), write(tmp_path), truth(*objects), [METHOD], **how)
    return found


def test_hits_misses_and_false_boxes_are_explained_as_what_they_are(tmp_path):
    found = explained(
        tmp_path, Annotation("Red", RED, key=5), Annotation("red", BLUE, key=6), Annotation("green", BLUE)
    )
    assert found.line == "1 found, 1 missed, 1 false"
    hit, miss, false = found.boxes
    assert [box.maps[0].record.target for box in found.boxes] == ["box:0", "box:0@24,0,32,8", "box:1"], (
        "red by its number"
    )
    assert (hit.judged.object.key, hit.judged.overlap) == (5, 1.0)
    assert miss.maps[0].remarks[0].startswith("No box of red here: the best candidate overlaps the place by 80%")
    assert false.judged.why == "the object there is of another class: red"
    assert false.maps[0].remarks[0] == "A false box: the object there is of another class: red."
    assert hit.figures[0] == pytest.approx({"pointing": 1.0, "energy": 1.0, "mask_iou": 1.0, "leaked": 0.0})
    assert found.remarks == ["The model knows no green: such objects are no misses."]


def test_the_maps_are_those_of_explain(tmp_path):
    found = explained(tmp_path, Annotation("red", RED))
    alone = pl.explain(planted(), str(tmp_path / "a.png"), METHOD, ["box:0", "box:1"])
    for box, e in zip(found.boxes, alone, strict=True):
        assert box.maps[0].attribution.equal(e.attribution)


def test_what_is_written_is_read_back(tmp_path):
    found = explained(tmp_path, Annotation("red", RED, key=5), Annotation("red", (0.0, 0.0, 6.0, 6.0), key=6))
    out = tmp_path / "out"
    found.save(out, set())
    coco, table = write_judged([found], truth(), out)
    (picture,) = read_truth(coco).pictures
    facts = [o.facts for o in picture.objects]
    assert [(f["kind"], f.get("truth")) for f in facts] == [("hit", 5), ("miss", 6), ("false", None)]
    assert [f.get("score") for f in facts] == pytest.approx([0.45, None, 0.3], abs=0.01)
    assert picture.objects[2].box == pytest.approx((24, 0, 32, 8), abs=0.1), "within the picture"
    for each in facts:
        (file,) = each["explanation"]
        assert str(pl.verify(out / file, model=planted())) == "same"
    rows = list(csv.DictReader(table.open()))
    assert [row["kind"] for row in rows] == ["hit", "miss", "false"]
    assert [row["explanation"] for row in rows] == [f["explanation"][0] for f in facts]
    assert rows[0]["pointing"] == "1.0"
    assert sorted(p.name for p in out.iterdir()) == ["boxes.coco.json", "boxes.csv", "false", "hits", "misses"]


def test_of_many_boxes_the_surest_are_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(beside_truth, "MOST", 1)
    found = explained(tmp_path)
    assert [bool(box.maps) for box in found.of_kind("false")] == [True, False]
    assert found.remarks == ["1 more of them have no map: of each kind the 1 surest are explained."]


def test_a_picture_that_does_not_fit_says_so_and_the_rest_goes_on(tmp_path):
    files = [write(tmp_path), write(tmp_path, "b.png"), str(tmp_path / "c.png")]
    (tmp_path / "c.png").write_bytes(b"no picture")
    known = truth(Annotation("red", RED))
    known = replace(known, pictures=(*known.pictures, Annotated("b.png", (), (32, 33))))
    found = dict(explain_beside(planted(), files, known, [METHOD]))
    assert found["a"].line == "1 found, 0 missed, 1 false"
    assert "of 33 x 32 pixels, and the picture is 32 x 32" in str(found["b"])
    assert "c.png" in str(found[files[2]])


def test_what_cannot_be_judged_is_refused(tmp_path):
    known = truth(Annotation("red", RED))
    with pytest.raises(DataError, match="knows none of the classes"):
        list(explain_beside(planted(), write(tmp_path), replace(known, numbers={"cow": 1}), [METHOD]))
    scores = pl.wrap(lambda x: x.mean((2, 3)), labels=["red", "green", "blue"], transform=PLAIN)
    with pytest.raises(ModelError, match="told of boxes, and the model answers"):
        list(explain_beside(scores, write(tmp_path), known, [METHOD]))


def test_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(options, "load_model", lambda *_, **__: planted())
    write(tmp_path)
    write(tmp_path, "b.png")
    file = tmp_path / "t.json"
    file.write_text(coco_text(truth(Annotation("red", RED))))
    asked = ["explain", str(tmp_path), "--truth", str(file), "--method", "occlusion", "--out", str(tmp_path / "out")]
    ran = CliRunner().invoke(app, asked)
    assert ran.exit_code == 1, "nothing is known of one picture"
    assert "1 picture: 1 found, 0 missed, 1 false" in ran.stdout
    assert "says nothing of b.png" in ran.stderr
    told = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert told["counts"] == "1 found, 0 missed, 1 false"
    assert [row["kind"] for row in told["results"]] == ["hit", "false"]
