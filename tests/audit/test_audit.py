"""Audits of small networks with planted reasons, of planted faults of data, and of bad input."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from benchmarks import reliances
from benchmarks.reliances import CAUSES, CLASSES, trained, world
from PIL import Image

import pellucid as pl
from helpers.audits import resumed, saved, table
from pellucid.audit.review import duplicates, mislabelled, review, undoubted
from pellucid.audit.samples import arrays, build, properties
from pellucid.audit.truth import class_numbers, shortcomings
from pellucid.cli import main
from pellucid.engine import Capture
from pellucid.errors import DataError, MediaError, ModelError
from pellucid.models import model as model_room


@pytest.fixture(scope="module")
def marked():
    """A network that rests on a mark, quickly trained."""
    return trained("mark", count=600, epochs=8)


@pytest.fixture(scope="module")
def found(marked):
    return pl.audit(marked, world("mark", 240))


def test_a_planted_mark_is_named_where_it_is(found):
    reasons = {r.label: r for r in found.wrong_reasons}
    assert {r.kind for r in reasons.values()} == {"mark"}
    assert len(reasons) >= 2
    places = {"disc": "top left", "square": "top right", "cross": "bottom left"}
    for label, r in reasons.items():
        assert r.name == f"a fixed mark at the {places[label]}"
        assert 0.1 < r.low < r.drop < r.high
        assert r.p < 0.01
        assert f"`{label}` rests on {r.name}" in "\n".join(found.lines())
        own = {"disc": (2, 2), "square": (2, 26), "cross": (26, 2)}[label]
        assert r.region[own[0] : own[0] + 4, own[1] : own[1] + 4].mean() >= 0.5


@pytest.mark.parametrize("corners", [((1, 1), (1, 26), (26, 1)), ((27, 0), (27, 13), (27, 27))])
def test_plain_marks_at_a_place_of_each_class_are_named_and_no_broader_part(monkeypatch, corners):
    """An exchange of the background or the border moves the marks of two classes, that of one mark only one."""
    plain = reliances.picture

    def picture(kind, _cause, told, rng):
        pixels, (y, x) = plain(kind, None, told, rng), corners[told]
        pixels[y : y + 5, x : x + 5] = 255
        return pixels

    monkeypatch.setattr(reliances, "picture", picture)
    found = pl.audit(trained(None, count=600, epochs=8), world(None, 240))
    assert {(r.label, r.kind) for r in found.wrong_reasons} == {(label, "mark") for label in CLASSES}
    (*_, broader) = (r for r in found.reasons if r.name == "the background beside fixed marks")
    assert not broader.relied
    assert broader.drop < 0.1


def test_it_is_read_back_and_verified(found, marked, tmp_path):
    files = found.save(tmp_path)
    again = pl.read(files[0])
    assert list(again.lines()) == list(found.lines())
    assert again.csv() == found.csv()
    for one, other in zip(again.reasons, found.reasons, strict=True):
        assert one.line == other.line
        assert (one.region is None) == (other.region is None)
    assert str(pl.verify(files[0], model=marked, inputs=world("mark", 240))) == "same"
    page = files[-1].read_text()
    assert page.count("<figure>") > 10
    assert 'src="http' not in page


def test_a_run_that_was_cut_goes_on_and_finds_the_same(marked, tmp_path):
    data = world("mark", 40)
    _, whole = build(marked, data)
    build(marked, data, keep=tmp_path)
    kept = sorted(tmp_path.rglob("*.npz"))
    before = {file: file.stat().st_mtime_ns for file in kept}
    kept[0].write_bytes(b"damaged")
    _, again = build(marked, data, keep=tmp_path)
    for name, value in arrays(whole).items():
        np.testing.assert_array_equal(arrays(again)[name], value, err_msg=name)
    assert [f for f in kept if f.stat().st_mtime_ns != before[f]] == [kept[0]]


def test_a_model_is_lent_once_for_all_batches_and_given_back(marked, monkeypatch):
    build(marked, world("mark", 8))  # the search for a layer, which is remembered, borrows it too
    monkeypatch.setattr(model_room, "default_batch", lambda *_: 8)
    lent, usual = [], Capture.__enter__
    monkeypatch.setattr(Capture, "__enter__", lambda self: (lent.append(self.layers), usual(self))[1])
    model, found = build(marked, world("mark", 40))
    assert lent == [(found.layer,)]
    assert len(found) == 40
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())


def test_what_pictures_are_like_does_not_depend_on_their_batch():
    """By hand: brightness, contrast, sharpness, colourfulness, pixels, elongation, edge brightness."""
    looked = [pl.read_image(p) for p in world("mark", 6).pixels]
    whole = properties(looked)
    np.testing.assert_array_equal(np.concatenate([properties([p]) for p in looked]), whole)
    for picture, row in zip(looked, whole, strict=True):
        x = np.asarray(picture.pil().resize((64, 64), Image.Resampling.BOX), float) / 255
        grey, ring = x.mean(2), np.ones((64, 64))
        bend = 4 * grey - sum(np.roll(grey, *how) for how in ((1, 0), (-1, 0), (1, 1), (-1, 1)))
        ring[4:-4, 4:-4] = 0
        ring[:4, :4] = ring[:4, -4:] = ring[-4:, :4] = ring[-4:, -4:] = 2  # corners lie on two sides
        height, width = picture.size
        expected = (
            grey.mean(), grey.std(), bend[1:-1, 1:-1].std(), (x.max(2) - x.min(2)).mean(),
            np.log2(height * width), np.log2(width / height), (grey * ring).sum() / ring.sum(),
        )  # fmt: skip
        np.testing.assert_allclose(row, expected, rtol=1e-5)


def test_an_audit_that_was_cut_goes_on_and_finds_the_same(marked, tmp_path, monkeypatch):
    """Passes of the exchanges are run again; of the table those that were cut off, and the damaged one."""
    monkeypatch.setattr(model_room, "default_batch", lambda *_: 10)
    weights = {name: value.clone() for name, value in marked.module.state_dict().items()}

    def made():
        module = reliances.net()
        module.load_state_dict(weights)
        return pl.wrap(module.eval(), transform=marked.preprocess, labels=list(CLASSES), scores="softmax")

    folder = saved(world("mark", 160), tmp_path / "pictures")
    whole = pl.audit(made(), folder)
    assert whole.wrong_reasons
    _, seen = resumed(pl.audit, made, (folder,), whole, tmp_path / "kept", files=16, batch=10)
    assert max(seen) <= 10


def test_a_row_costs_one_forward_and_one_backward(marked):
    data, passes = world("mark", 40), []
    hook = marked.module.register_forward_hook(lambda m, args, out: passes.append(len(args[0])))
    try:
        build(marked, data)
        build(marked, data)  # the layer is known by then
        fresh = sum(passes)
        passes.clear()
        build(marked, data)
    finally:
        hook.remove()
    assert fresh
    assert sum(passes) <= 40 + 3  # and the first picture, to find out how the output reads


def test_planted_duplicates_are_found_and_labels_that_contradict():
    s = table()
    for a, b in ((3, 30), (4, 8)):
        s.thumbs[b] = np.clip(s.thumbs[a].astype(int) + 1, 0, 255)
        s.embedding[b] = s.embedding[a] * 1.01
    assert duplicates(s) == ((3, 30), (4, 8))
    assert review(s, bounded=True).contradicting == ((3, 30),)
    s.thumbs[30] = 255 - s.thumbs[30]
    assert duplicates(s) == ((4, 8),)


def test_planted_wrong_labels_are_the_candidates_surest_first():
    s = table()
    s.truth[[5, 20]] = 1 - s.truth[[5, 20]]
    s.probabilities[5] = np.where(s.truth[5] == [0, 1], 0.01, 0.99)
    assert mislabelled(s) == (5, 20)
    r = review(s, bounded=True)
    assert [(c.truth, c.answer, c.members) for c in r.confusions] == [(0, 1, (5,)), (1, 0, (20,))] or len(r.confusions)
    assert r.accuracy == pytest.approx(38 / 40)
    assert mislabelled(table()) == ()


def test_a_model_that_does_not_know_a_class_judges_none_of_its_labels():
    """Of the second class it says the first, whatever the picture: it may not call those labels wrong."""
    s = table()
    s.truth[5] = 1 - s.truth[5]
    assert mislabelled(s) == (5,)
    assert review(s, bounded=True).undoubted == ()
    second = s.truth == 1
    s.probabilities[second] = (0.95, 0.05)
    assert undoubted(s) == (1,)
    assert mislabelled(s) == ()
    assert review(s, bounded=True).undoubted == (1,)


def test_the_calibration_of_a_known_model():
    """It says 0.9 and is right 38 times in 40."""
    s = table()
    s.truth[[5, 20]] = 1 - s.truth[[5, 20]]
    c = review(s, bounded=True).calibration
    assert c.error == pytest.approx(0.05)
    assert c.low <= c.error <= c.high
    assert c.bins == (pytest.approx((0.9, 0.95, 40)),)


def test_files_that_are_broken_are_named_and_the_rest_goes_on(marked, tmp_path):
    folder = saved(world("mark", 60), tmp_path / "pictures")
    (folder / "disc" / "bad.png").write_bytes(b"no picture")
    found = pl.audit(marked, folder)
    assert len(found.samples) == 60
    assert "bad.png" in found.notes[-1]
    assert found.review.accuracy > 0.8
    assert any("fewer than 100" in n for n in found.notes)
    assert found.sources[0].endswith(".png")
    assert "<figure>" in found.html()


def test_without_labels_it_is_reduced_and_says_so(marked, tmp_path):
    found = pl.audit(marked, saved(world("mark", 60), tmp_path, labelled=False))
    assert any("Nothing is known of the true classes" in n for n in found.notes)
    assert found.slices == []
    assert found.wrong_reasons
    assert found.review.calibration is None
    assert not any("answers are right" in line for line in found.lines())


def test_files_of_a_table_that_are_not_there_are_named_and_the_rest_goes_on(marked, tmp_path):
    data = world("mark", 6)
    saved(data, tmp_path, labelled=False)
    rows = [f"{i}.png,{data.classes[k]}" for i, k in enumerate(data.labels)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,class", *rows, f"gone.png,{data.classes[0]}"]))
    found = pl.audit(marked, tmp_path)
    assert found.samples.known.sum() == 6
    assert "1 picture could not be used" in found.notes[-1]
    assert "gone.png" in found.notes[-1]
    (tmp_path / "labels.csv").write_text("file,class\ngone.png,disc\n")
    with pytest.raises(MediaError, match="which is not there"):
        pl.audit(marked, tmp_path)


def test_classes_that_model_or_pictures_lack_are_said(marked):
    data = world("mark", 9)
    data.classes = (data.classes[0], data.classes[1], "zebra")
    found = pl.audit(marked, data)
    assert found.samples.known.sum() == 6
    assert any("no class of the name zebra: 3 pictures" in n for n in found.notes)
    assert any("No picture here is of 1 class of the model's 3" in n for n in found.notes)


def test_classes_are_met_by_name_number_or_order_and_never_by_a_guess(marked):
    data = world("mark", 9)
    for names, numbers in ((data.classes, [0, 1, 2]), (("0", "2", "1"), [0, 2, 1]), (("a", "b", "c"), [0, 1, 2])):
        data.classes = names
        assert class_numbers(marked, data, 3) == numbers
    (told,) = shortcomings(marked, data, data.labels, [], CLASSES)
    assert f"`a` as `{CLASSES[0]}`" in told
    data.classes = ("a", "b")
    with pytest.raises(ModelError, match="none of the model's"):
        class_numbers(marked, data, 3)


def test_given_columns_make_slices(marked):
    """All pictures of one site are labelled wrong."""
    data = world("mark", 240, told=1.0)
    sites = np.array(["north", "south", "east"])[np.arange(240) // 4 % 3]
    data.labels = np.where(sites == "south", (data.labels + 1) % 3, data.labels)
    found = pl.audit(marked, data, given={"site": sites.tolist()})
    assert found.sure_slices[0].name.split(" and ")[0] == "site south" or "site south" in found.sure_slices[0].name
    assert found.sure_slices[0].low > 0.5
    with pytest.raises(DataError, match="one for each"):
        pl.audit(marked, data, given={"site": ["north"]})


def test_what_cannot_be_audited_is_one_sentence(marked, tmp_path):
    with pytest.raises(MediaError, match="holds no picture"):
        pl.audit(marked, tmp_path)
    data = world("mark", 30)
    data.classes = ("a", "b", "c", "d")
    with pytest.raises(ModelError, match="none of the model's"):
        pl.audit(marked, data)


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_a_few_pictures_are_audited_as_far_as_they_go(marked, count):
    data = world("mark", count)
    found = pl.audit(marked, data)
    assert len(found.samples) == count
    assert list(found.lines())
    assert any("fewer than 100" in n for n in found.notes)
    assert found.csv().count("\n") == count + 1


def test_one_class_is_no_wrong_reason(marked):
    data = world("mark", 90)
    data.pixels, data.labels = data.pixels[data.labels == 1], data.labels[data.labels == 1]
    found = pl.audit(marked, data)
    assert not found.wrong_reasons
    assert any("Too few pictures" in line for line in found.lines())
    assert any("All pictures are of one class" in n for n in found.notes)


def test_the_command(tmp_path, capsys):
    folder = saved(world(None, 12), tmp_path / "pictures", labelled=False)
    assert main(["audit", str(folder), "--out", str(tmp_path / "out"), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["results"]
    assert entry["pictures"] == 12
    assert any("Nothing is known" in n for n in entry["notes"])
    assert main(["audit", str(tmp_path / "absent")]) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cause", CAUSES)
def test_planted_reasons_are_named_with_the_right_cause(cause):
    found = pl.audit(trained(cause, seed=3), world(cause, 240, seed=3))
    named = {r.label: r.kind for r in found.wrong_reasons}
    assert set(named.values()) == {cause}
    assert set(named) <= set(CLASSES)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_clean_networks_are_left_alone():
    named = [r.line for seed in range(4) for r in pl.audit(trained(None, seed), world(None, 240, seed)).wrong_reasons]
    assert named == []


def test_pictures_are_shown_undistorted_with_what_colours_mean_and_which_file_it_is(tmp_path):
    """Of pictures three times as wide as high, seen whole, each is shown so; in the summary, coverage is told."""
    rng = np.random.default_rng(0)
    for i in range(30):
        home = tmp_path / "wide" / CLASSES[i % 3]
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 120, 3)).astype(np.uint8)).save(home / f"wide {i}.png")
    look = pl.Preprocess(input_size=(32, 32), resize=(32, 32), fit="exact", mean=(0.5,) * 3, std=(1.0,) * 3)
    torch.manual_seed(0)
    found = pl.audit(pl.wrap(reliances.net().eval(), transform=look, labels=list(CLASSES)), tmp_path / "wide")
    page = found.html()
    shown = [Image.open(io.BytesIO(base64.b64decode(d))) for d in re.findall(r'data:image/jpeg;base64,([^"]+)', page)]
    assert len(shown) >= 12
    assert {image.size for image in shown} == {(112, 37)}
    assert "red speaks for it, blue against it" in page
    assert re.search(r"<small title=\"[^\"]*wide/[a-z]+/wide \d+\.png\">wide \d+\.png</small>", page)
    (told,) = (line for line in found.lines() if "answers are right" in line)
    assert re.fullmatch(r"[\d.]+% of 30 answers are right \[[\d.]+%, [\d.]+%\]\.", told)


def test_what_could_not_be_tested_is_said(marked):
    """Of classes with too few pictures nothing is said to be clean; without errors no slice is said to be absent."""
    data = world("mark", 120)
    few = np.flatnonzero((data.labels != 2) | (np.cumsum(data.labels == 2) <= 4))
    data.pixels, data.labels = data.pixels[few], data.labels[few]
    found = pl.audit(marked, data)
    assert {r.label for r in found.reasons} == set(CLASSES[:2])
    few = min(r.pairs for r in found.reasons) < 20
    assert few == any("large effects alone" in line for line in found.lines())
    data.pixels, data.labels = data.pixels[:40], data.labels[:40]
    small = pl.audit(marked, data)
    assert small.reasons
    assert any("large effects alone" in line for line in small.lines())
    assert any(line.startswith("Only 2 of the 3 classes that were answered could be tested") for line in found.lines())
    data.labels = small.samples.answers
    lines = list(pl.audit(marked, data).lines())
    assert "No answer is wrong, so there is no slice to look for." in lines
    assert not any("beyond chance" in line for line in lines)


class Fussy(torch.nn.Module):
    """The network, which answers NaN of bright pictures."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        bright = x.mean((1, 2, 3)) > 0.3
        return torch.where(bright[:, None], torch.nan, self.net(x))


@pytest.mark.parametrize("batch", [1, 16])
def test_pictures_on_which_the_model_fails_are_named_and_the_rest_goes_on(marked, tmp_path, monkeypatch, batch):
    monkeypatch.setattr(model_room, "default_batch", lambda *_: batch)
    data = world("mark", 40)
    data.pixels[[0, 17]] = 255
    folder = saved(data, tmp_path / "pictures")
    model = pl.wrap(Fussy(marked.module), transform=marked.preprocess, labels=list(CLASSES), scores="softmax")
    found = pl.audit(model, folder, keep=tmp_path / "kept")
    assert len(found.samples) == 38
    assert np.isfinite(found.samples.scores).all()
    assert any("2 pictures could not be used" in n and "17.png: The model's scores hold NaN" in n for n in found.notes)
    whole = pl.audit(marked, data)
    rows = np.isin(whole.samples.positions, [0, 17], invert=True)
    assert sorted(map(tuple, found.samples.scores.round(4))) == sorted(map(tuple, whole.samples.scores[rows].round(4)))
    data.pixels[:] = 255
    with pytest.raises(ModelError, match="hold NaN"):
        pl.audit(model, data)


def test_a_folder_of_classes_of_clips_is_audited_from_the_command_line(tmp_path, monkeypatch, capsys):
    """Before the model is loaded it is open which files it takes."""
    from benchmarks import clip_reliances

    made = clip_reliances.trained(None, count=30, epochs=1)
    monkeypatch.setattr("pellucid.cli.options.ModelOptions.load", lambda _self, _name: made)
    for i, frames in enumerate(clip_reliances.world(None, 6).pixels):
        home = tmp_path / "clips" / CLASSES[i % 3]
        home.mkdir(parents=True, exist_ok=True)
        first, *rest = map(Image.fromarray, frames)
        first.save(home / f"{i}.gif", save_all=True, append_images=rest, duration=125)
    (tmp_path / "clips" / CLASSES[0] / "bad.mp4").write_bytes(b"no clip")
    assert main(["audit", str(tmp_path / "clips"), "--out", str(tmp_path / "out")]) == 0
    assert "clips: 6 clips, layer" in capsys.readouterr().out
    (tmp_path / "nothing").mkdir()
    assert main(["audit", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]) == 1
    assert "holds no picture" in capsys.readouterr().err


@pytest.mark.parametrize("row", ["0.png,", ",disc", "0.png", " , "])
def test_a_row_that_lacks_a_file_or_a_class_is_one_sentence(marked, tmp_path, row):
    saved(world("mark", 3), tmp_path, labelled=False)
    (tmp_path / "labels.csv").write_text(f"file,class\n1.png,disc\n{row}\n2.png,cross\n")
    if row.strip(" ,"):
        with pytest.raises(MediaError, match="lacks a file or a class: complete it, or leave it out"):
            pl.audit(marked, tmp_path)
    else:
        assert len(pl.audit(marked, tmp_path).samples) == 2


def test_a_table_that_is_not_there_or_has_no_commas_is_one_sentence(marked, tmp_path):
    saved(world("mark", 3), tmp_path, labelled=False)
    with pytest.raises(DataError, match=r"There is no table .*nowhere.csv: check the path"):
        pl.audit(marked, tmp_path, given=tmp_path / "nowhere.csv")
    (tmp_path / "labels.csv").write_text("file;class\n0.png;disc\n")
    with pytest.raises(MediaError, match="at least two columns, with a comma between"):
        pl.audit(marked, tmp_path)
