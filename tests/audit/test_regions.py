"""Audits of regions: planted segmentation networks, verdicts by hand, overlaps beside a count of pixels."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import label
from torch import nn

import pellucid as pl
from helpers.audits import resumed
from pellucid.audit.boxes import SHAPE, VERDICTS, BoxTable, rows_of
from pellucid.audit.regions import Segmentation, answered, judged_regions
from pellucid.cli import main
from pellucid.errors import DataError, ModelError
from pellucid.media import Geometry, read_image
from pellucid.truth import read_truth
from pellucid.truth.matching import FAULTS

SIDE = 64
CLASSES = ["background", "disc"]


class Discs(nn.Module):
    """A place is a disc if it is more red than blue; planted: in dark pictures it sees none."""

    def __init__(self, blind):
        super().__init__()
        self.blind = blind
        self.eye = nn.Conv2d(3, 1, 1, bias=False)
        self.eye.weight.data = torch.tensor([1.0, 0, -1])[None, :, None, None]

    def forward(self, x):
        score = 20 * (self.eye(x) - 0.1)
        if self.blind:
            score = torch.where(x.mean((1, 2, 3), keepdim=True) < 0.25, -score.abs() - 1, score)
        return torch.cat([torch.zeros_like(score), score], 1)


def planted(home, count=80, seed=0):
    """Pictures with two red discs each, every fifth one dark; and their masks."""
    rng = np.random.default_rng(seed)
    for name in ("pictures", "masks"):
        (home / name).mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:SIDE, :SIDE]
    for i in range(count):
        ground = int(rng.integers(25, 45)) if i % 5 == 0 else int(rng.integers(90, 190))
        pixels = np.full((SIDE, SIDE, 3), ground) + rng.integers(-8, 9, (SIDE, SIDE, 1))
        mask = np.zeros((SIDE, SIDE), np.uint8)
        for k in range(2):
            radius = rng.integers(5, 11)
            mask[np.hypot(y - rng.integers(14, 50), x - 17 - 31 * k) <= radius] = 1
        pixels[mask > 0] += np.array([40, 0, -20])
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(home / "pictures" / f"{i}.png")
        Image.fromarray(mask).save(home / "masks" / f"{i}.png")
    (home / "masks" / "classes.txt").write_text("\n".join(CLASSES))
    return home


def segmenter(blind):
    look = pl.Preprocess(input_size=(SIDE, SIDE), mean=(0,) * 3, std=(1,) * 3)
    return pl.wrap(Discs(blind).eval(), transform=look, labels=CLASSES, task="regions")


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    return planted(tmp_path_factory.mktemp("regions"))


@pytest.fixture(scope="module")
def found(discs):
    return pl.audit_regions(segmenter(True), str(discs / "pictures"), discs / "masks")


def test_what_a_planted_network_misses_is_the_first_slice(found):
    t = found.table
    assert t.count("missed") == 32
    assert t.count("found") == t.count("right") == 128
    assert t.count("false", "misplaced") == 0
    assert (t.are("missed") == (t.are("found", "missed") & (t.pictures % 5 == 0))).all()
    first = found.sure_slices[0]
    assert first.fault == "missed"
    assert re.match("little (edge )?brightness", first.name), "they are dark"
    assert first.error > 0.9
    assert first.low > 0.4
    assert f"{first.line}." in list(found.lines())
    assert next(found.lines()) == "160 true regions in 80 pictures: 128 found, 32 missed, 0 misplaced."


def test_a_perfect_network_has_no_slice(discs):
    found = pl.audit_regions(segmenter(False), str(discs / "pictures"), discs / "masks")
    assert found.table.count("found") == found.table.count("right") == 160
    assert found.slices == []
    assert "No slice of regions is missed" in "\n".join(found.lines())


def judged(true, said, unjudged=None, least=0.5, smallest=0.0):
    """The parts of masks of one or more classes, and the specks."""
    unjudged = np.zeros(next(iter(said.values())).shape, bool) if unjudged is None else unjudged
    lead = np.ones(unjudged.shape, np.float32)
    return judged_regions(Segmentation(true, unjudged), said, lead, least, smallest)


def square(*corners, shape=(40, 40)):
    drawn = np.zeros(shape, bool)
    for top, left, bottom, right in corners:
        drawn[top:bottom, left:right] = True
    return drawn


def test_verdicts_as_by_hand():
    """Found by two thirds; misplaced by a quarter; missed; right, badly placed, of another class, on nothing."""
    true = {"cat": square((0, 0, 10, 10), (20, 0, 30, 10), (0, 30, 10, 40)), "dog": square((20, 20, 30, 30))}
    said = {"cat": square((0, 2, 10, 12), (20, 6, 30, 16), (21, 21, 29, 29), (35, 35, 39, 39)), "dog": square()}
    parts, specks = judged(true, said)
    assert specks == 0
    assert [(p.label, p.verdict, p.fault) for p in parts] == [
        ("cat", "found", ""), ("cat", "missed", ""), ("cat", "misplaced", ""), ("dog", "missed", ""),
        ("cat", "right", ""), ("cat", "false", "place"), ("cat", "false", "class"), ("cat", "false", "nothing"),
    ]  # fmt: skip
    shares = [p.share for p in parts]
    assert shares == pytest.approx([80 / 120, 0, 40 / 160, 0, 0.8, 0.4, 1, 0])
    assert parts[0].box == (0, 0, 10, 10)
    assert parts[0].score == 1
    assert parts[1].score == -1


def test_one_answer_over_two_objects_finds_both_and_one_object_in_two_pieces_is_found():
    two, one = square((10, 2, 20, 12), (10, 14, 20, 24)), square((10, 2, 20, 24))
    merged, _ = judged({"a": two}, {"a": one})
    assert [p.verdict for p in merged] == ["found", "found", "right"]
    assert merged[0].share == pytest.approx(100 / 120)  # the two columns between them lie in neither
    split, _ = judged({"a": one}, {"a": two})
    assert [p.verdict for p in split] == ["found", "right", "right"]
    assert split[0].share == pytest.approx(200 / 220)


def test_the_overlap_is_that_of_a_count_of_pixels():
    """sIoU of its definition, piece by piece, on masks drawn at random."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        true, said, blind = (rng.random((24, 24)) < share for share in (0.3, 0.3, 0.05))
        parts, _ = judged({"a": true}, {"a": said}, blind)
        k, n = label(true, np.ones((3, 3)))
        a, m = label(said, np.ones((3, 3)))
        wanted = []
        for i in range(1, n + 1):
            own = (k == i) & ~blind
            if not own.any():
                continue
            meets = [j for j in range(1, m + 1) if ((a == j) & own).any()]
            answer = np.isin(a, meets) & ~blind
            others = answer & (k > 0) & (k != i)
            wanted.append((answer & own).sum() / ((own | answer) & ~others).sum())
        objects = [p for p in parts if not p.answered]
        assert [p.share for p in objects] == pytest.approx(wanted)
        least_judged = [j for j in range(1, m + 1) if ((a == j) & ~blind).sum() >= max(0.5 * (a == j).sum(), 1)]
        precise = [((a == j) & true & ~blind).sum() / ((a == j) & ~blind).sum() for j in least_judged]
        answers = [p for p in parts if p.answered]
        assert [p.verdict == "right" for p in answers] == [p >= 0.5 for p in precise]


def test_specks_and_what_nobody_judged_count_for_nothing():
    true, said = {"a": square((0, 0, 10, 10), (30, 30, 31, 31))}, {"a": square((0, 0, 10, 10), (20, 20, 21, 21))}
    parts, specks = judged(true, said, smallest=0.005)
    assert [p.verdict for p in parts] == ["found", "right"]
    assert specks == 1
    parts, _ = judged(true, {"a": square((0, 0, 10, 10), (20, 0, 30, 10))}, square((20, 0, 30, 8)), smallest=0.005)
    assert [p.verdict for p in parts] == ["found", "right"]


def test_scores_are_spread_over_the_picture_and_what_is_not_seen_has_no_class():
    scores = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    geometry = Geometry((16, 20), (8, 8), ((0.0, 16.0), (4.0, 20.0)))
    classes, lead = answered(scores, geometry)
    spread = torch.stack([geometry.to_source(column) for column in scores])
    first, second = spread[:, :, 4:].topk(2, 0).values
    assert (classes[:, :4] == -1).all()
    np.testing.assert_array_equal(classes[:, 4:], spread[:, :, 4:].argmax(0))
    np.testing.assert_allclose(lead[:, 4:], first - second, rtol=1e-5, atol=1e-6)
    single, ahead = answered(scores[:1], Geometry.identity((8, 8)))
    np.testing.assert_array_equal(single, scores[0] > 0)
    np.testing.assert_allclose(ahead, scores[0].abs())


def test_a_region_is_as_bright_and_large_as_its_pixels():
    pixels = np.full((40, 40, 3), 50, np.uint8)
    mask = square((10, 10, 20, 20)) & ~square((10, 10, 15, 15))
    pixels[mask] = 200
    parts, _ = judged({"a": mask}, {"a": mask})
    t = BoxTable.of(rows_of(3, read_image(pixels), parts, ["a"]))
    assert t.properties[0, 0] == pytest.approx(200 / 255)
    assert np.exp2(t.properties[0, 4]) == pytest.approx(75 / 1600)
    assert t.properties[0, 7] == pytest.approx(150 / 255, abs=1e-6)
    assert t.shapes.shape == (2, SHAPE, SHAPE)
    assert t.shapes[0].mean() == pytest.approx(0.75)
    assert [VERDICTS[v] for v in t.verdicts] == ["found", "right"]
    assert (t.faults == -1).all()
    assert len(FAULTS) == 5


def test_it_is_read_back_verified_shown_and_exported(found, discs, tmp_path):
    files = found.save(tmp_path)
    again = pl.read(files[0])
    assert type(again) is pl.RegionAudit
    assert list(again.lines()) == list(found.lines())
    assert again.csv() == found.csv()
    assert str(pl.verify(files[0], model=segmenter(True))) == "same"
    assert str(pl.verify(files[0], model=segmenter(False))).startswith("different")
    page = files[-1].read_text()
    assert page.count("<figure>") > 6
    assert "missed: disc" in page
    assert "true region" in found.csv()
    (coco,) = found.export("coco", tmp_path)
    assert [o.facts["verdict"] for p in read_truth(coco).pictures for o in p.objects].count("missed") == 32


def test_a_run_that_was_cut_goes_on_and_finds_the_same(found, discs, tmp_path):
    given = (str(discs / "pictures"), discs / "masks")
    resumed(pl.audit_regions, lambda: segmenter(True), given, found, tmp_path)


def test_what_cannot_be_judged_is_said_and_the_rest_goes_on(tmp_path):
    few = planted(tmp_path, 6, seed=3)
    (few / "pictures" / "5.png").write_bytes(b"broken")
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(few / "pictures" / "strange.png")
    found = pl.audit_regions(segmenter(True), str(few / "pictures"), few / "masks")
    assert any("2 pictures could not be used" in n for n in found.notes)
    assert any("fewer than 100 objects" in n for n in found.notes)
    assert any("do not tell of is not judged: background" in n for n in found.notes)
    plain = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    look = pl.Preprocess(input_size=(SIDE, SIDE), mean=(0,) * 3, std=(1,) * 3)
    with pytest.raises(ModelError, match="give a segmentation"):
        pl.audit_regions(pl.wrap(plain, transform=look, labels=["disc", "a", "b"]), few / "pictures", few / "masks")
    (few / "boxes.csv").write_text("name,x0,y0,x1,y1,label\n0.png,1,1,9,9,disc\n")
    with pytest.raises(DataError, match="has a box only"):
        pl.audit_regions(segmenter(True), str(few / "pictures" / "0.png"), few / "boxes.csv")
    with pytest.raises(DataError, match="give truth="):
        pl.audit_regions(segmenter(True), [str(few / "pictures" / "0.png")])


def test_what_nobody_judged_is_read_from_masks(tmp_path):
    few = planted(tmp_path, 2)
    mask = np.array(Image.open(few / "masks" / "1.png"))
    mask[:, :32] = 255
    Image.fromarray(mask).save(few / "masks" / "1.png")
    found = pl.audit_regions(segmenter(False), str(few / "pictures"), few / "masks")
    assert found.table.count("found") == 3
    assert found.table.count("right") == 3
    assert found.table.count("false", "missed", "misplaced") == 0


def test_the_command_takes_a_folder_of_masks(discs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pellucid.cli.options.ModelOptions.load", lambda _self, _name: segmenter(True))
    where = ["--model", "any", "--out", str(tmp_path), "--json"]
    assert main(["audit", str(discs / "pictures"), "--truth", str(discs / "masks"), *where, "--fail-if", "slice"]) == 1
    told = json.loads(capsys.readouterr().out)["results"][0]
    assert told["slices"][0]["fault"] == "missed"
    assert re.match("little (edge )?brightness", told["slices"][0]["name"])
    assert any(f.endswith("pictures.regions.csv") for f in told["files"])
