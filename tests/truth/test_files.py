"""Annotations: what is read is what was written, in every kind of file; and what is wrong with a file is said."""

import json

import numpy as np
import pytest
from PIL import Image

from pellucid.errors import DataError
from pellucid.truth import (
    Annotated,
    Annotation,
    Outline,
    Truth,
    box_around,
    class_numbers,
    coco_text,
    outline_of,
    read_truth,
    voc_text,
    write_mask,
    yolo_text,
)
from pellucid.truth.outlines import runs_as_text, runs_from_text

SIZE = (60, 70)
SHAPE = "\\c0h0T1000000000000000000]OQO9o0GQO9o0GQO9o0GQO9o0GQO9o0:" + "0" * 70 + "X`0"
"""What COCO's own tools make of rows 20 to 44 and columns 10 to 61 with a hole at rows 25 to 30, columns 20 to 25."""


def shape():
    mask = np.zeros(SIZE, bool)
    mask[20:44, 10:61] = True
    mask[25:30, 20:25] = False
    return mask


def truth(outlines=True):
    triangle = Outline(((10.0, 10.0, 40.0, 10.0, 10.0, 50.0),)) if outlines else None
    objects = (
        Annotation("dog", (10.0, 10.0, 40.0, 50.0), triangle, key=7, facts={"score": 0.5, "explanation": "a.json"}),
        Annotation("cat & mouse", (0.0, 5.5, 20.25, 60.0), key=8),
    )
    crowd = Annotation("dog", box_around(shape()), outline_of(shape()), "crowd", 9)
    pictures = (Annotated("a.jpg", objects, SIZE, key=3), Annotated("b.jpg", (crowd,), SIZE, key=4))
    return Truth("", pictures, {"dog": 18, "cat & mouse": 17})


# --- outlines ---


def test_runs_are_cocos_own():
    outline = outline_of(shape())
    assert (outline.mask(SIZE) == shape()).all()
    assert runs_as_text(outline.runs) == SHAPE
    assert runs_from_text(SHAPE) == outline.runs


@pytest.mark.parametrize("seed", range(4))
def test_any_mask_comes_back_from_its_runs(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((17, 1 + seed * 9)) < 0.2 + 0.2 * seed
    runs = runs_from_text(runs_as_text(outline_of(mask).runs))
    assert (Outline(runs=runs, size=mask.shape).mask(mask.shape) == mask).all()


def test_a_polygon_holds_the_pixels_whose_centres_lie_in_it():
    corners = np.array([[3.2, 1.1], [17.9, 4.0], [9.0, 8.0], [14.0, 17.5], [1.0, 12.3]])
    mask = Outline((tuple(corners.ravel()),)).mask((20, 20))

    def inside(x, y):  # how often the way to the right crosses an edge
        crossings = 0
        for (xa, ya), (xb, yb) in zip(corners, np.roll(corners, -1, 0), strict=True):
            if (ya > y) != (yb > y) and x < xa + (y - ya) * (xb - xa) / (yb - ya):
                crossings += 1
        return crossings % 2 == 1

    expected = [[inside(c + 0.5, r + 0.5) for c in range(20)] for r in range(20)]
    assert (mask == np.array(expected)).all()
    assert 0 < mask.sum() < 400


def test_a_polygon_may_reach_beyond_the_picture():
    mask = Outline(((-5.0, -5.0, 8.0, -5.0, 8.0, 3.0, -5.0, 3.0),)).mask((10, 10))
    assert box_around(mask) == (0, 0, 8, 3)
    assert mask.sum() == 24


# --- round trips ---


def test_coco_comes_back_whole(tmp_path):
    file = tmp_path / "truth.json"
    file.write_text(coco_text(truth()))
    found = read_truth(file)
    assert found.numbers == truth().numbers
    assert found.pictures == truth().pictures
    entry = json.loads(file.read_text())["annotations"][0]
    assert entry["bbox"] == [10, 10, 30, 40]
    assert entry["area"] == pytest.approx(600, abs=25), "of the triangle, not of its box"


def test_voc_comes_back_whole_and_counts_pixels_from_one(tmp_path):
    (picture, _) = truth(outlines=False).pictures
    objects = tuple(
        Annotation(o.label, tuple(map(float, map(round, o.box))), ignored="difficult" * (k == 1))
        for k, o in enumerate(picture.objects)
    )
    written = voc_text(Annotated("a.jpg", objects, SIZE))
    assert "<xmin>11</xmin>" in written
    (tmp_path / "a.xml").write_text(written)
    for source in (tmp_path, tmp_path / "a.xml"):
        assert read_truth(source).pictures == (Annotated("a.jpg", objects, SIZE),)


def test_yolo_comes_back_whole(tmp_path):
    (picture, _) = truth().pictures
    (tmp_path / "classes.txt").write_text("cat & mouse\ndog\n")
    (tmp_path / "a.txt").write_text(yolo_text(picture, {"cat & mouse": 0, "dog": 1}))
    found = read_truth(tmp_path)
    assert found.numbers == {"cat & mouse": 0, "dog": 1}
    there = found.of("/photos/a.jpg").on(SIZE)
    for mine, theirs in zip(there.objects, picture.objects, strict=True):
        assert mine.label == theirs.label
        assert mine.box == pytest.approx(theirs.box, abs=1e-4)
    assert (there.objects[0].mask(SIZE) == picture.objects[0].mask(SIZE)).mean() > 0.999


def test_masks_come_back_whole(tmp_path):
    folder = tmp_path / "lesion"
    folder.mkdir()
    objects = (Annotation("road", box_around(shape()), outline_of(shape())),)
    write_mask(Annotated("a.jpg", objects, SIZE), {"road": 2}, folder / "a.png")
    (found,) = read_truth(folder, ("nothing", "sky", "road")).pictures
    assert (found.size, found.objects) == (SIZE, objects)
    assert read_truth(folder).pictures[0].objects[0].label == "lesion", "a single class is named after its folder"
    Image.fromarray(np.where(shape(), 255, 7).astype(np.uint8)).save(folder / "a.png")
    assert [o.label for o in read_truth(folder).pictures[0].objects] == ["7"], "255 beside others was judged by nobody"


# --- which picture, which class ---


def test_a_picture_is_found_by_the_end_of_its_path():
    pictures = tuple(Annotated(name) for name in ("x/a.jpg", "y/a.jpg", "b.png"))
    known = Truth("t.json", pictures, {})
    assert known.of("/photos/y/a.jpg").name == "y/a.jpg"
    assert known.of("b.png").name == "b.png"
    with pytest.raises(DataError, match="2 pictures named a"):
        known.of("/z/a.jpg")
    with pytest.raises(DataError, match="says nothing of c"):
        known.of("c.jpg")


def test_labels_are_the_models_however_they_are_written():
    names = ["person", "traffic light", "TV", "motorcycle"]
    numbers = {"Traffic_Light": 5, "tvmonitor": 6, "motorbike": 7, "giraffe": 8}
    assert class_numbers(names, numbers) == {"Traffic_Light": 1, "tvmonitor": 2, "motorbike": 3}
    assert class_numbers(None, numbers) == numbers


# --- what is wrong ---


def coco(**changed):
    data = json.loads(coco_text(truth()))
    return data | changed


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.json", "{", "can't be read"),
        ("t.json", "[]", "no COCO file"),
        ("t.json", json.dumps(coco(images=[])), "of image 3, which it does not list"),
        ("t.json", json.dumps(coco(categories=[{"id": 1, "name": "x"}])), "of category 18"),
        ("t.json", json.dumps(coco(annotations=[{"image_id": 3, "category_id": 18}])), "no bbox"),
        ("t.json", json.dumps(coco(annotations=[{"image_id": 3}])), "no whole COCO file"),
        ("t.xml", "<annotation>", "can't be read"),
        ("t.xml", "<!DOCTYPE x [<!ENTITY y 'z'>]><annotation/>", "declares entities"),
        ("t.xml", "<html/>", "no VOC file"),
        ("t.xml", "<annotation><object/></annotation>", "has no <name>"),
        ("t.xml", "<annotation><object><name>a</name></object></annotation>", "which is no number"),
        ("f/a.txt", "0 0.5 0.5 0.1\n", "Line 1 of .*a.txt is no object"),
        ("f/a.txt", "0 0.5 0.5 0.1 0.2\n\n0 50 50 10 10\n", "Line 3 of .*outside of 0 to 1"),
        ("f/a.txt", "dog 0.5 0.5 0.1 0.1\n", "is no object"),
        ("f/a.txt", "-1 0.5 0.5 0.1 0.1\n", "of class -1"),
        ("f/a.png", "no picture", "can't be read"),
        ("f/a.csv", "", "no annotations|none of annotations"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, name, text, said):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    with pytest.raises(DataError, match=said):
        read_truth(file if file.suffix in (".json", ".xml") else file.parent)


def test_annotations_of_another_size_are_refused():
    with pytest.raises(DataError, match=r"of 70 x 60 pixels, and the picture is 60 x 70: it was turned by"):
        truth().pictures[0].on((70, 60))
    with pytest.raises(DataError, match="resized since"):
        truth().pictures[0].on((30, 35))
    with pytest.raises(DataError, match="no annotations at"):
        read_truth("nowhere.json")


def test_colours_are_no_numbers(tmp_path):
    Image.fromarray(np.dstack([shape() * 200, shape() * 10, shape() * 0]).astype(np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="holds colours"):
        read_truth(tmp_path)


def test_flat_boxes_are_left_out_with_a_note(tmp_path):
    file = tmp_path / "t.json"
    entry = {"id": 1, "image_id": 3, "category_id": 18, "bbox": [1, 1, 0, 5]}
    file.write_text(json.dumps(coco(annotations=[entry])))
    found = read_truth(file)
    assert found.pictures[0].objects == ()
    assert found.notes == ("1 annotations of t.json without any area are left out.",)
