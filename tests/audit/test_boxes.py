"""Audits of boxes: planted detectors, verdicts by hand, the statistics beside matrices."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import find_objects, label
from scipy.stats import t as student
from torch import nn

import pellucid as pl
from helpers.audits import resumed
from pellucid.audit.boxes import BOX_PROPERTIES, VERDICTS, BoxTable, find, judged_parts, rows_of
from pellucid.cli import main
from pellucid.errors import DataError, ModelError, PellucidError
from pellucid.media import read_image
from pellucid.numerics.proportions import grouped_difference
from pellucid.truth import Annotation, BoxAnswer, read_truth
from pellucid.truth.matching import FAULTS

SIDE = 64


class Finder(nn.Module):
    """It finds what is brighter than the ground; planted: it does not see what is small and dark."""

    def __init__(self, blind):
        super().__init__()
        self.blind = blind
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        found = []
        for picture in x.mean(1).numpy():
            pieces, _ = label(picture > 0.25)
            boxes, scores = [], []
            for rows, columns in find_objects(pieces):
                inside = picture[rows, columns]
                if self.blind and inside.size < 100 and inside.mean() < 0.55:
                    continue
                boxes.append([columns.start, rows.start, columns.stop, rows.stop])
                scores.append(0.9)
            found.append(
                {
                    "boxes": torch.tensor(boxes).float().reshape(-1, 4),
                    "labels": torch.zeros(len(boxes), dtype=torch.long),
                    "scores": torch.tensor(scores),
                }
            )
        return found


def planted(folder, count=80, seed=0):
    """Pictures with three squares each, some small, some dark, some both; their COCO file."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = np.full((SIDE, SIDE, 3), 30, np.uint8)
        for k in range(3):
            side = int(rng.choice([7, 16]))
            x, y = int(rng.integers(1, 20 - side)) + 21 * k, int(rng.integers(1, SIDE - side - 1))
            pixels[y : y + side, x : x + side] = rng.choice([110, 210])
            annotations.append(
                {"id": 3 * i + k, "image_id": i, "category_id": 1, "bbox": [x, y, side, side], "area": side**2}
            )
        Image.fromarray(pixels).save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": SIDE, "width": SIDE})
    whole = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (folder / "truth.json").write_text(json.dumps(whole))
    return folder


def finder(blind):
    look = pl.Preprocess(input_size=(SIDE, SIDE), mean=(0,) * 3, std=(1,) * 3)
    return pl.wrap(Finder(blind).eval(), transform=look, labels=["square"])


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return planted(tmp_path_factory.mktemp("boxes") / "squares")


@pytest.fixture(scope="module")
def found(squares):
    return pl.audit_boxes(finder(True), str(squares), squares / "truth.json")


def test_what_a_planted_detector_misses_is_the_first_slice(found):
    t = found.table
    small_and_dark = (np.exp2(t.properties[:, 4]) * SIDE**2 < 100) & (t.properties[:, 0] < 0.55)
    objects = t.are("found", "missed")
    assert (t.are("missed") == (small_and_dark & objects)).all()
    assert t.count("missed") > 40
    assert t.count("right") == t.count("found") == len(t) - 240
    assert t.count("false", "misplaced") == 0
    first = found.sure_slices[0]
    assert first.fault == "missed"
    assert first.name == "little brightness and little size"
    assert first.error == 1
    assert set(first.members) == set(np.flatnonzero(t.are("missed")))
    assert first.low > 0.5
    assert f"{first.line}." in list(found.lines())
    assert "missed, +" in first.line


def test_a_perfect_detector_has_no_slice(squares):
    found = pl.audit_boxes(finder(False), squares / "truth.json")
    assert found.table.count("found") == found.table.count("right") == 240
    assert found.slices == []
    assert "No slice of objects is missed or misplaced" in "\n".join(found.lines())


def test_chance_is_no_slice():
    """Misses dealt by chance, all objects of some pictures together: seldom a slice."""
    claimed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pictures = np.repeat(np.arange(60), 4)
        t = BoxTable.of(
            [
                {
                    "pictures": p, "boxes": (0, 0, 1, 1), "classes": 0, "verdicts": 0, "faults": -1,
                    "scores": 0, "overlaps": 0, "properties": rng.random(len(BOX_PROPERTIES)), "cut": False,
                    "shapes": np.zeros((0, 0), bool),
                }
                for p in pictures
            ]
        )  # fmt: skip
        bad = rng.random(60) < 0.3
        t = BoxTable.stored({**t.arrays(), "verdicts": bad[pictures].astype(int)})
        bright = rng.random(60)  # of the picture, so its objects share it
        t.properties[:, 0] = bright[pictures]
        claimed += any(s.p <= 0.05 for s in find(t, ["thing"], seed=seed))
    assert claimed <= 2


def test_verdicts_as_by_hand():
    """Hit; misplaced by a third; missed; and false boxes: a second one, one of another class, one on nothing."""
    picture = read_image(np.full((100, 200, 3), 128, np.uint8))
    objects = [
        Annotation("cat", (10, 10, 30, 30)), Annotation("cat", (60, 10, 80, 30)), Annotation("dog", (110, 10, 130, 30)),
        Annotation("dog", (150, 60, 200, 100), ignored="difficult"),
    ]  # fmt: skip
    boxes = [
        ("cat", 0.9, (10, 10, 30, 30)), ("cat", 0.8, (11, 10, 31, 30)), ("cat", 0.7, (70, 10, 90, 30)),
        ("cat", 0.6, (110, 10, 130, 30)), ("dog", 0.5, (10, 60, 30, 90)), ("dog", 0.4, (150, 60, 200, 100)),
    ]  # fmt: skip
    answers = [BoxAnswer(k, *box) for k, box in enumerate(boxes)]
    t = BoxTable.of(rows_of(7, picture, judged_parts(objects, answers, 0.5), ["cat", "dog"]))
    names = [VERDICTS[v] for v in t.verdicts]
    assert names == ["found", "misplaced", "missed", "right", *["false"] * 4]
    assert [FAULTS[f] for f in t.faults[-4:]] == ["second", "place", "class", "nothing"]
    assert t.overlaps[:3] == pytest.approx([1, 1 / 3, 0])
    assert (t.pictures == 7).all()
    size, middle, others = (
        BOX_PROPERTIES.index(n) for n in ("size", "distance from the middle", "others in the picture")
    )
    assert np.exp2(t.properties[0, size]) == pytest.approx(400 / 20000, rel=1e-5)
    shared = t.properties[:, BOX_PROPERTIES.index("overlap with another")]
    assert shared[:3].tolist() == [0, 0, 0]
    assert shared[3] == shared[4] == pytest.approx(19 / 21)
    assert t.properties[0, middle] == pytest.approx(np.hypot(0.4, 0.3), rel=1e-5)
    assert t.properties[:, others].tolist() == [2] * 3 + [4] * 5
    assert not t.cut.any()


def test_boxes_at_the_edge_are_cut_and_stand_out_from_their_surroundings():
    pixels = np.zeros((50, 50, 3), np.uint8)
    pixels[:10, :10] = 255
    t = BoxTable.of(rows_of(0, read_image(pixels), judged_parts([Annotation("a", (0, 0, 10, 10))], [], 0.5), ["a"]))
    assert t.cut.tolist() == [True]
    assert t.properties[0, BOX_PROPERTIES.index("contrast to its surroundings")] == pytest.approx(1)
    assert t.properties[0, BOX_PROPERTIES.index("brightness")] == pytest.approx(1)


def test_a_difference_between_groups_is_that_of_the_sandwich():
    """Least squares on the indicator, its variance by groups, as matrices."""
    rng = np.random.default_rng(0)
    groups, inside, errors = rng.integers(0, 12, 90), rng.random(90) < 0.4, rng.random(90) < 0.3
    x = np.stack([np.ones(90), inside], 1)
    bread = np.linalg.inv(x.T @ x)
    beta = bread @ x.T @ errors
    rest = errors - x @ beta
    scores = np.stack([(x[groups == g] * rest[groups == g, None]).sum(0) for g in np.unique(groups)])
    error = np.sqrt((bread @ (scores.T @ scores) @ bread)[1, 1] * 12 / 11)
    gap, low, high, p = grouped_difference(errors, inside, groups)
    half = student.ppf(0.975, 11) * error
    assert (gap, low, high) == pytest.approx((beta[1], beta[1] - half, beta[1] + half))
    assert p == pytest.approx(student.sf(beta[1] / error, 11))
    assert grouped_difference(errors, inside, np.zeros(90, int))[3] == 1


def test_it_is_read_back_verified_shown_and_exported(found, squares, tmp_path):
    files = found.save(tmp_path)
    again = pl.read(files[0])
    assert list(again.lines()) == list(found.lines())
    assert again.csv() == found.csv()
    assert str(pl.verify(files[0], model=finder(True))) == "same"
    assert str(pl.verify(files[0], model=finder(False))).startswith("different")
    page = files[-1].read_text()
    assert page.count("<figure>") > 6
    assert "missed: square" in page
    (coco,) = found.export("coco", tmp_path)
    back = read_truth(coco)
    verdicts = [o.facts["verdict"] for p in back.pictures for o in p.objects]
    assert verdicts.count("missed") == found.table.count("missed")
    with pytest.raises(PellucidError, match="exported as coco"):
        found.export("junit", tmp_path)


def test_what_cannot_be_judged_is_said_and_the_rest_goes_on(squares, tmp_path):
    few = planted(tmp_path / "few", 6, seed=3)
    (few / "5.png").write_bytes(b"broken")
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(few / "strange.png")
    found = pl.audit_boxes(finder(True), str(few), few / "truth.json")
    assert any("2 pictures could not be used" in n for n in found.notes)
    assert any("fewer than 100 objects" in n for n in found.notes)
    with pytest.raises(DataError, match="give truth="):
        pl.audit_boxes(finder(True), [str(few / "0.png")])
    with pytest.raises(DataError, match="None of the pictures"):
        pl.audit_boxes(finder(True), str(few / "strange.png"), few / "truth.json")
    plain = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    look = pl.Preprocess(input_size=(SIDE, SIDE), mean=(0,) * 3, std=(1,) * 3)
    with pytest.raises(ModelError, match="give a detector"):
        pl.audit_boxes(pl.wrap(plain, transform=look, labels=["square", "a", "b"]), few / "truth.json")
    (tmp_path / "alone.json").write_text((few / "truth.json").read_text())
    with pytest.raises(DataError, match="lies beside"):
        pl.audit_boxes(finder(True), tmp_path / "alone.json")


def test_a_run_that_was_cut_goes_on_and_finds_the_same(found, squares, tmp_path):
    given = (str(squares), squares / "truth.json")
    model, seen = resumed(pl.audit_boxes, lambda: finder(True), given, found, tmp_path)
    seen.clear()
    assert pl.audit_boxes(model, *given, keep=tmp_path, score=0.95).table.count("missed") == 240
    assert sum(seen) == 80, "other settings have rows of their own"


def test_boxes_below_a_score_do_not_count(squares):
    found = pl.audit_boxes(finder(False), squares / "truth.json", score=0.95)
    assert found.table.count("missed") == 240
    assert found.table.count("right", "false") == 0
    assert found.slices == []


def test_what_is_known_of_pictures_describes_their_objects(squares):
    sites = ["a" if i % 2 else "b" for i in range(80)]
    found = pl.audit_boxes(finder(True), str(squares), squares / "truth.json", given={"site": sites})
    assert found.sure_slices[0].name == "little brightness and little size"
    with pytest.raises(DataError, match="2 entries for 80"):
        pl.audit_boxes(finder(True), str(squares), squares / "truth.json", given={"site": ["a", "b"]})


def test_the_command_takes_truth_or_the_coco_file_itself(squares, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pellucid.cli.options.ModelOptions.load", lambda _self, _name: finder(True))
    where = ["--model", "any", "--out", str(tmp_path), "--json"]
    assert main(["audit", str(squares), "--truth", str(squares / "truth.json"), *where, "--export", "coco"]) == 0
    told = json.loads(capsys.readouterr().out)["results"][0]
    assert told["slices"][0]["name"] == "little brightness and little size"
    assert any(f.endswith(".coco.json") for f in told["files"])
    assert main(["audit", str(squares / "truth.json"), *where, "--fail-if", "slice"]) == 1
    assert json.loads(capsys.readouterr().out)["results"][0]["pictures"] == 80
