"""Classes and places out of COCO files and tables: what is told, what is not, how much evidence lies on the object."""

import json
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.reliances import CLASSES, SIDE, trained, world
from PIL import Image

import pellucid as pl
from helpers.audits import saved, table
from pellucid.audit.objects import on_object, placed
from pellucid.audit.review import review
from pellucid.audit.samples import GRID
from pellucid.cli import main
from pellucid.errors import DataError, MediaError
from pellucid.media import PICTURE
from pellucid.truth import Annotated, Annotation, Truth
from pellucid.verbs.labelled import labelled

COUNT = 30


@pytest.fixture(scope="module")
def marked():
    return trained("mark", count=600, epochs=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures in one folder, without classes."""
    return saved(world("mark", COUNT), tmp_path_factory.mktemp("pictures"), labelled=False)


def coco(folder, name="truth.json", *, boxes=True, count=COUNT, sizes=True, own=False):
    """A COCO file beside the pictures: a category for each."""
    data = world("mark", COUNT)
    images = [
        {"id": i, "file_name": f"{i}.png", **({"height": SIDE, "width": SIDE} if sizes else {})} for i in range(count)
    ]
    told = [{"id": i, "image_id": i, "category_id": int(data.labels[i]) + 1} for i in range(count)]
    if boxes:
        told = [{**entry, "bbox": [8, 8, 16, 16]} for entry in told]
    if own:
        images = [{**image, "category_id": entry["category_id"]} for image, entry in zip(images, told, strict=True)]
        told = []
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
    whole = {"images": images, "annotations": told, "categories": categories}
    (folder / name).write_text(json.dumps(whole))
    return whole


@pytest.mark.parametrize("how", [{}, {"boxes": False}, {"boxes": False, "sizes": False}, {"own": True}])
def test_a_coco_file_tells_the_class_of_each_picture(folder, how):
    coco(folder, **how)
    shown = labelled(str(folder / "truth.json"), PICTURE)
    assert shown.pictures.classes == CLASSES
    assert shown.pictures.labels.tolist() == world("mark", COUNT).labels.tolist()
    assert shown.notes == ()
    assert [s.rsplit("/", 1)[-1] for s in shown.pictures.sources] == [f"{i}.png" for i in range(COUNT)]


def test_it_is_audited_as_a_folder_of_classes_is(folder, marked, tmp_path):
    coco(folder, boxes=False)
    found = pl.audit(marked, folder / "truth.json")
    plain = pl.audit(marked, world("mark", COUNT))
    assert found.samples.truth.tolist() == plain.samples.truth.tolist()
    assert found.review.accuracy == plain.review.accuracy
    assert found.samples.objects is None, "a class without a box has no place"
    files = found.save(tmp_path)
    assert str(pl.verify(files[0], model=marked)) == "same"


def test_boxes_say_how_much_of_the_evidence_lies_on_the_object(folder, marked, tmp_path):
    coco(folder)
    found = pl.audit(marked, folder, truth=folder / "truth.json")
    share, size = on_object(found.samples)
    evidence = np.maximum(found.samples.maps, 0)
    cells = np.zeros((GRID, GRID))
    edges = np.linspace(0, SIDE, GRID + 1)
    inside = np.clip((np.minimum(edges[1:], 24) - np.maximum(edges[:-1], 8)) / np.diff(edges), 0, 1)
    cells = np.outer(inside, inside)
    np.testing.assert_allclose(share, (evidence * cells).sum((1, 2)) / evidence.sum((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(size, 256 / SIDE**2, rtol=1e-4)
    assert any(line.startswith("On the object, 25% of what the model sees, lies") for line in found.lines())
    assert found.table()[3]["evidence on the object"] == pytest.approx(share[3])
    files = found.save(tmp_path)
    again = pl.read(files[0])
    assert list(again.lines()) == list(found.lines())
    assert str(pl.verify(files[0], model=marked)) == "same"


def test_confident_errors_off_the_object_are_told_by_its_place():
    s = table()
    s.truth[[5, 20]] = 1 - s.truth[[5, 20]]
    objects = np.zeros((40, GRID, GRID), np.float32)
    objects[:, :4] = 1
    s.maps[5], s.maps[20] = 0, 0
    s.maps[5, :2], s.maps[20, 8:] = 1, 1
    assert review(replace(s, objects=objects), bounded=True).astray == (20,)
    objects[:] = np.nan
    assert review(replace(s, objects=objects), bounded=True).astray == review(s, bounded=True).astray


def test_pictures_of_several_classes_without_one_or_not_there_are_said(folder):
    whole = coco(folder, boxes=False)
    whole["annotations"][0]["image_id"] = 1
    whole["annotations"][2]["category_id"] = 1
    whole["annotations"] += [{"id": 99, "image_id": 2, "category_id": 2}]
    whole["images"] += [{"id": 99, "file_name": "gone.png"}]
    (folder / "odd.json").write_text(json.dumps(whole))
    shown = labelled(folder / "odd.json", PICTURE)
    labels = world("mark", COUNT).labels
    assert shown.pictures.labels[:3].tolist() == [-1, -1 if labels[0] != labels[1] else labels[1], -1]
    assert any("1 picture of odd.json are not there" in n or "1 picture of odd.json" in n for n in shown.notes)
    assert any("tells no class of 1 picture" in n for n in shown.notes)
    assert any("more than one class" in n for n in shown.notes)
    assert shown.pictures.labels[3:].tolist() == labels[3:].tolist()


def test_annotations_of_another_size_have_no_place_and_that_is_said(folder, marked):
    whole = coco(folder)
    whole["images"][4] |= {"height": 99, "width": 99}
    (folder / "wrong.json").write_text(json.dumps(whole))
    found = pl.audit(marked, folder, truth=folder / "wrong.json")
    assert np.isnan(found.samples.objects[4]).all()
    assert np.isfinite(found.samples.objects[[3, 5]]).all()
    assert any("99 x 99" in n for n in found.notes)


def test_masks_are_places_too():
    s = table(4)
    s.properties[:, 4], s.properties[:, 5] = np.log2(14 * 14), 0
    where = Annotated("0.png", (Annotation("a", (0, 0, 7, 14)),), (14, 14))
    found, reason = placed(s, Truth("", (where,), {"a": 1}), [f"{i}.png" for i in range(4)])
    assert reason == ""
    np.testing.assert_array_equal(found.objects[0], np.repeat([[1] * 7 + [0] * 7], 14, 0))
    assert np.isnan(found.objects[1:]).all()
    s.boxes[0] = (0, 0.5, 1, 1)
    away, _ = placed(s, Truth("", (where,), {"a": 1}), [f"{i}.png" for i in range(4)])
    assert away.objects is None, "the model does not see it"


def test_masks_of_pictures_that_have_classes_tell_places_only(marked, tmp_path):
    data = world("mark", 9)
    pictures = saved(data, tmp_path / "pictures")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[8:24, 8:24] = 255
    (tmp_path / "masks").mkdir()
    for i in range(9):
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
    found = pl.audit(marked, pictures, truth=tmp_path / "masks")
    assert sorted(found.samples.truth) == sorted(data.labels)
    assert on_object(found.samples)[1] == pytest.approx(np.full(9, 256 / SIDE**2), rel=1e-4)


def test_a_table_of_paths_and_classes_is_audited_and_what_is_not_there_is_said(folder, marked, tmp_path):
    data = world("mark", COUNT)
    rows = [f"{folder}/{i}.png,{CLASSES[k]}" for i, k in enumerate(data.labels)]
    file = tmp_path / "list.csv"
    file.write_text("\n".join(["path,label", *rows, f"{folder}/gone.png,{CLASSES[0]}"]))
    found = pl.audit(marked, file)
    assert found.samples.truth.tolist() == data.labels.tolist()
    assert "1 picture could not be used" in found.notes[-1]
    assert "gone.png" in found.notes[-1]
    assert str(pl.verify(found.save(tmp_path / "out")[0], model=marked)) == "same"
    beside = folder / "beside.csv"
    beside.write_text("\n".join(["path,label", *(row.rsplit("/", 1)[-1] for row in rows)]))
    assert pl.audit(marked, beside).samples.truth.tolist() == data.labels.tolist()
    file.write_text(f"path,label\ngone.png,{CLASSES[0]}\n")
    with pytest.raises(MediaError, match="which is not there"):
        pl.audit(marked, file)


def test_a_table_tells_the_classes_of_a_folder(folder, marked, tmp_path):
    data = world("mark", COUNT)
    rows = [f"{i}.png,{CLASSES[k]}" for i, k in enumerate(data.labels)]
    (tmp_path / "classes.csv").write_text("\n".join(["path,label", *rows[5:]]))
    found = pl.audit(marked, folder, truth=tmp_path / "classes.csv")
    place = {s.rsplit("/", 1)[-1]: k for s, k in zip(found.sources, found.samples.truth, strict=True)}
    assert [place[f"{i}.png"] for i in range(COUNT)] == [-1] * 5 + data.labels[5:].tolist()
    (tmp_path / "classes.csv").write_text("path,label\nother.png,disc\n")
    with pytest.raises(DataError, match="says nothing of any"):
        pl.audit(marked, folder, truth=tmp_path / "classes.csv")
    with pytest.raises(DataError, match="told of files"):
        pl.audit(marked, data, truth=tmp_path / "classes.csv")


def test_two_models_are_compared_on_a_coco_file(folder, marked):
    coco(folder, boxes=False)
    found = pl.compare(marked, marked, folder / "truth.json")
    assert found.paired.verdict == "no difference"
    assert found.first.truth.tolist() == world("mark", COUNT).labels.tolist()


def test_the_command_audits_a_classifier_on_coco_and_csv_with_what_it_learned_from(
    folder, marked, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("pellucid.cli.options.ModelOptions.load", lambda _self, _name: marked)
    coco(folder)
    learned = tmp_path / "learned"
    saved(world("mark", 9, seed=5), learned)
    Image.open(folder / "3.png").save(learned / CLASSES[0] / "leak.png")
    where = ["--model", "any", "--json", "--out", str(tmp_path / "out")]
    assert main(["audit", str(folder / "truth.json"), *where, "--training", str(learned)]) == 0
    told = json.loads(capsys.readouterr().out)["results"][0]
    assert told["pictures"] == COUNT
    assert any("lies" in line and "of the evidence" in line for line in told["lines"])
    assert "Pictures that are also among the training pictures: 1." in told["lines"]
    rows = (tmp_path / "out" / "truth.audit.csv").read_text().splitlines()
    column = rows[0].split(",").index("among training pictures")
    assert [i for i, row in enumerate(rows[1:]) if row.split(",")[column] == "1"] == [3]
    (folder / "list.csv").write_text("path,label\n" + "".join(f"{i}.png,disc\n" for i in range(6)))
    assert main(["audit", str(folder / "list.csv"), *where]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["pictures"] == 6
    assert main(["audit", str(folder), "--truth", str(folder / "list.csv"), *where]) == 0
    assert any("tells no class of 24 pictures" in n for n in json.loads(capsys.readouterr().out)["results"][0]["notes"])
