"""Maps of classifiers and regions of segmenters beside the truth: planted nets, so that every figure is known."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import pellucid as pl
from helpers.segmenters import LABELS, Planted, scene
from pellucid.cli import app, options
from pellucid.errors import MediaError
from pellucid.heatmaps import get_method
from pellucid.models.tasks import Scores
from pellucid.render.paper.marks import TRUE_COLOUR, with_edge
from pellucid.truth import read_masks
from pellucid.verbs.choices import as_targets
from pellucid.verbs.explain import explain_each
from pellucid.verbs.located import Located

SQUARE = (slice(8, 16), slice(16, 24))
OCCLUSION = get_method("occlusion", window=8, stride=8)


def _transform(*size):
    return pl.Preprocess(input_size=size, resize=size, mean=(0, 0, 0), std=(1, 1, 1), interpolation="box")


def bright():
    """Class `lit` is the sum of the first channel, so that its map is the one bright square."""

    def net(x):
        return x[:, 0].sum((1, 2))[:, None] * x.new_tensor([[0.0, 0.1]])

    return pl.wrap(net, labels=["dark", "lit"], transform=_transform(32, 32), name="bright")


def segmenter():
    return pl.wrap(Planted(), labels=LABELS, transform=_transform(16, 24), task="regions", name="planted")


def picture(folder, name="a.png"):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[SQUARE] = 255
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / name)


def mask(folder, *places, name="a.png", size=(32, 32), number=255):
    drawn = np.zeros(size, np.uint8)
    for place in places:
        drawn[place] = number
    folder.mkdir(exist_ok=True)
    Image.fromarray(drawn).save(folder / name)


def beside(model, tmp_path, target="lit", methods=(OCCLUSION,), task=None):
    files = sorted(str(file) for file in (tmp_path / "pictures").iterdir())
    known = Located(tmp_path / "masks", task or Scores(), model.labels)
    targets = as_targets(target)
    found = dict(known.beside(explain_each(model, files, list(methods), targets), files, targets))
    return known, found


@pytest.mark.parametrize(
    ("place", "pointing", "energy", "iou", "peak"),
    [
        (SQUARE, 1.0, 1.0, 1.0, "inside, 100%"),
        ((slice(8, 16), slice(20, 28)), 0.5, 0.5, 1 / 3, "partly inside, 50%"),
        ((slice(24, 32), slice(0, 8)), 0.0, 0.0, 0.0, "outside, 0%"),
    ],
)
def test_a_map_of_one_square_beside_a_mask(tmp_path, place, pointing, energy, iou, peak):
    picture(tmp_path / "pictures")
    mask(tmp_path / "masks", place)
    _, found = beside(bright(), tmp_path)
    (e,) = found["a"]
    expected = {"share": 1 / 16, "pointing": pointing, "energy": energy, "mask_iou": iou}
    assert e.record.input["truth"] == pytest.approx(expected, abs=1e-6)
    assert e.remarks[-1] == (
        f"Beside the truth (6% of the picture, outlined in green): peak {peak} of the evidence inside, "
        f"overlap {iou:.2f} (IoU)."
    )
    assert np.argwhere(e.extras["truth"][0].numpy()).min(0).tolist() == [place[0].start, place[1].start]


def test_maps_of_one_picture_have_each_their_own_figures_on_disk_too(tmp_path):
    picture(tmp_path / "pictures")
    mask(tmp_path / "masks", (slice(8, 16), slice(20, 28)))
    _, found = beside(bright(), tmp_path, methods=[OCCLUSION, get_method("occlusion", window=16, stride=16)])
    files = [file for file in found["a"].save(tmp_path / "out") if file.suffix == ".json"]
    stored = [json.loads(file.read_text())["record"]["input"]["truth"] for file in files]
    assert [figures["energy"] for figures in stored] == pytest.approx([0.5, 64 / 256])
    assert str(pl.verify(files[0], model=bright())) == "same"


def test_the_true_region_is_outlined_in_the_figure_and_on_the_page(tmp_path):
    picture(tmp_path / "pictures")
    mask(tmp_path / "masks", SQUARE)
    colour = [int(TRUE_COLOUR[i : i + 2], 16) for i in (1, 3, 5)]
    _, found = beside(bright(), tmp_path)
    drawn = (with_edge(np.zeros((320, 320, 3), np.uint8), found["a"][0]) == colour).all(-1)
    assert np.argwhere(drawn).min(0).tolist() == [80, 160]
    assert np.argwhere(drawn).max(0).tolist() == [159, 239]
    assert not drawn[84:156, 164:236].any(), "an edge, no area"
    assert '"layer":"truth"' in found["a"].html().replace(" ", "")


def test_an_empty_mask_and_a_map_without_evidence_say_so(tmp_path):
    picture(tmp_path / "pictures")
    mask(tmp_path / "masks", SQUARE)
    mask(tmp_path / "masks", name="b.png")
    picture(tmp_path / "pictures", "b.png")
    _, found = beside(bright(), tmp_path)
    assert found["b"][0].remarks[-1].startswith("The truth holds nothing here")
    assert found["b"][0].record.input["truth"] == {"share": 0.0}
    _, found = beside(bright(), tmp_path, target="dark")
    assert found["a"][0].remarks[-1] == "Beside the truth: the map has no positive evidence, so it points nowhere."


def test_on_the_command_line_pictures_without_truth_go_on_and_a_mask_of_another_size_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(options, "load_model", lambda *_, **__: bright())
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "pictures", name)
    mask(tmp_path / "masks", SQUARE, name="a_mask.png")
    asked = ["explain", str(tmp_path / "pictures"), "--truth", str(tmp_path / "masks"), "--method", "occlusion"]
    asked += ["--target", "lit", "--set", "window=8", "--set", "stride=8", "--out", str(tmp_path / "out")]
    ran = CliRunner().invoke(app, asked)
    assert ran.exit_code == 0, ran.output
    assert "the truth says nothing of" in ran.stderr
    assert "b.png: its map is saved, and not judged." in ran.stderr
    assert "means of 1 map: peak inside 100%" in ran.stdout
    (row,) = csv.DictReader((tmp_path / "out" / "truth.csv").open())
    assert [row[k] for k in ("pointing", "energy", "mask_iou", "kind")] == ["1.0", "1.0", "1.0", ""]
    assert (tmp_path / "out" / row["explanation"]).is_file()

    mask(tmp_path / "masks", SQUARE, name="c_mask.png", size=(32, 40))
    ran = CliRunner().invoke(app, [*asked, "--json"])
    told = json.loads(ran.stdout)
    assert ran.exit_code == 1
    assert [entry["truth"] and entry["truth"]["pointing"] for entry in told["results"]] == [1.0, None]
    assert "are of 40 x 32 pixels, and the picture is 32 x 32" in told["failed"][0]["error"]


def test_regions_are_hit_missed_or_false(tmp_path, monkeypatch):
    monkeypatch.setattr(options, "load_model", lambda *_, **__: segmenter())
    pixels = (scene()[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    black = np.zeros_like(pixels)
    (tmp_path / "pictures").mkdir()
    for name, drawn in (("a", pixels), ("b", pixels), ("c", pixels), ("d", black)):
        Image.fromarray(drawn).save(tmp_path / "pictures" / f"{name}.png")
    large, blue = (slice(3, 7), slice(2, 8)), (slice(4, 9), slice(12, 17))
    mask(tmp_path / "masks", large, name="a.png", size=(16, 24), number=1)
    mask(tmp_path / "masks", (slice(3, 7), slice(0, 3)), name="b.png", size=(16, 24), number=1)
    mask(tmp_path / "masks", blue, name="c.png", size=(16, 24), number=2)
    mask(tmp_path / "masks", large, name="d.png", size=(16, 24), number=1)
    asked = ["explain", str(tmp_path / "pictures"), "--truth", str(tmp_path / "masks"), "--method", "saliency"]
    ran = CliRunner().invoke(app, [*asked, "--target", "region:red", "--out", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    rows = list(csv.DictReader((tmp_path / "out" / "truth.csv").open()))
    found = {row["picture"][-5]: (row["kind"], round(float(row["region_iou"]), 6)) for row in rows}
    # red is given 24 + 4 places; of b's 12 true ones 4 are among them
    assert found == {
        "a": ("hit", round(24 / 28, 6)),
        "b": ("false", round(4 / 36, 6)),
        "c": ("false", 0),
        "d": ("miss", 0),
    }
    assert "A hit: the region overlaps the true one by 86% (IoU)." in ran.stdout
    assert "A false region: there is truly no red here." in ran.stdout
    assert "d.png: missed: red truly is there, and the network gives it no place." in ran.stdout
    assert "regions: 1 found, 1 missed, 2 false" in ran.stdout


def test_a_mask_of_a_whole_class_does_not_judge_a_piece(tmp_path):
    pixels = (scene()[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    (tmp_path / "pictures").mkdir()
    Image.fromarray(pixels).save(tmp_path / "pictures" / "a.png")
    mask(tmp_path / "masks", (slice(3, 7), slice(2, 8)), size=(16, 24))
    model = segmenter()
    _, found = beside(model, tmp_path, "region:red#2", [get_method("saliency")], model.task)
    assert "kind" not in found["a"][0].record.input["truth"]


def test_masks_of_255_alone_are_objects_among_several_labels_too(tmp_path):
    mask(tmp_path / "lesion", SQUARE, name="a_segmentation.png")
    (only,) = read_masks(tmp_path / "lesion", ("skin", "mole")).pictures
    assert (only.name, [o.label for o in only.objects]) == ("a", ["lesion"])


def test_a_folder_without_annotations_is_refused(tmp_path):
    (tmp_path / "masks").mkdir()
    with pytest.raises(MediaError, match="none of annotations"):
        Located(tmp_path / "masks", Scores())
