"""Scores whose meaning nothing proves: each picture says its own doubt, and a number is no percentage unasked."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pellucid as pl
from pellucid.errors import DataError

LOOK = pl.Preprocess(input_size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
LABELS = ["a", "b", "c"]
CLEAR, SHARED = (4.0, 0.0, -3.0), (3.0, 2.9, -3.0)  # by hand: sigmoids .98, .50; and .95, .95 with softmax .52, .48


class ByBrightness(nn.Module):
    """The scores of the picture's brightness: of black and of white ones, and in a line between them."""

    def __init__(self, black, white):
        super().__init__()
        self.black, self.white = nn.Parameter(torch.tensor(black)), nn.Parameter(torch.tensor(white))
        self.eval()

    def forward(self, x):
        share = x.mean((1, 2, 3))[:, None]
        return self.black + share * (self.white - self.black)


def picture(white, side=8):
    return np.full((side, side, 3), 255 * int(white), np.uint8)


def several(*white):
    return [picture(w) for w in white]


def wrapped(black=CLEAR, white=SHARED, labels=LABELS, **declared):
    return pl.wrap(ByBrightness(black, white), transform=LOOK, labels=labels, **declared)


def said(e):
    return (
        [p.probability for p in e.prediction],
        [n for n in e.notes if "scores='sigmoid'" in n],
        e.record.model["reading"],
    )


def test_each_picture_says_its_own_doubt_whatever_lies_beside_it():
    model = wrapped()
    together = pl.explain(model, several(0, 1, 0, 0, 1), method="saliency")
    alone = [pl.explain(model, picture(w), method="saliency") for w in (0, 1, 0, 0, 1)]
    for e, one, white in zip(together, alone, (0, 1, 0, 0, 1), strict=True):
        assert str(said(e)) == str(said(one))  # NaN is itself here
        torch.testing.assert_close(e.attribution, one.attribution)
        assert bool(said(e)[1]) == bool(white)
        assert e.record.model["reading"]["scores"] == ("none" if white else "softmax")
    shares = torch.tensor(CLEAR).softmax(0).tolist()
    assert said(together[0])[0] == pytest.approx(shares, abs=1e-5)
    assert np.isnan(said(together[1])[0]).all()


def test_predictions_are_read_one_by_one_too():
    x = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    clear, open_ = wrapped().predict(x)
    assert [p.probability for p in clear] == pytest.approx(torch.tensor(CLEAR).softmax(0).tolist(), abs=1e-5)
    assert [p.score for p in open_] == pytest.approx(SHARED, abs=1e-5)
    assert np.isnan([p.probability for p in open_]).all()
    _, declared = wrapped(scores="sigmoid").predict(x)
    assert [p.probability for p in declared] == pytest.approx(torch.tensor(SHARED).sigmoid().tolist(), abs=1e-5)


def test_targets_for_each_input_stay_with_their_pictures():
    model = wrapped()
    together = pl.explain(model, several(1, 0, 1), "saliency", pl.PerSample((0, 1, 2)))
    assert [e.target for e in together] == ["a", "b", "c"]
    for e, white, wanted in zip(together, (1, 0, 1), "abc", strict=True):
        torch.testing.assert_close(e.attribution, pl.explain(model, picture(white), "saliency", wanted).attribution)


def test_the_check_of_a_picture_does_not_hang_on_its_neighbours():
    model = wrapped()
    together = pl.explain(model, several(0, 1), method="occlusion")
    for e, white in zip(together, (0, 1), strict=True):
        one = pl.explain(model, picture(white), method="occlusion")
        assert e.session._score((e.explained,), e.session.x).item() == pytest.approx(
            one.session._score((one.explained,), one.session.x).item(), abs=1e-6
        )


# --- one number


@pytest.mark.parametrize(
    ("value", "labels", "kind", "doubt"),
    [
        (2.5, None, "none", "number"),
        (75.0, None, "none", "number"),
        (2.5, ["age"], "sigmoid", False),
        (42.0, ["age"], "none", "size"),
        (-250_000.0, ["price"], "none", "size"),
        (2.5, ["healthy", "ill"], "sigmoid", False),
        (29.0, ["healthy", "ill"], "sigmoid", False),
        (31.0, ["healthy", "ill"], "none", "size"),
        (-31.0, ["healthy", "ill"], "none", "size"),
    ],
)
def test_a_number_is_a_percentage_only_where_it_may_be_a_logit(value, labels, kind, doubt):
    e = pl.explain(wrapped((value,), (value,), labels=labels), picture(1), method="saliency")
    reading = e.record.model["reading"]
    assert (reading["scores"], reading["doubt"]) == (kind, doubt)
    assert any("scores='none'" in note for note in e.notes) == bool(doubt)
    first = e.prediction[0]
    if doubt:
        assert np.isnan(first.probability)
        assert "%" not in first.said()
    else:
        assert first.probability == pytest.approx(1 / (1 + np.exp(-abs(value))), abs=1e-6)
    if labels and len(labels) == 2:  # the second of two labels is the positive one, however large the number
        assert first.label == ("ill" if value > 0 else "healthy")
    assert first.score == pytest.approx(value if not labels or len(labels) == 1 else abs(value), rel=1e-5)


@pytest.mark.parametrize(("declared", "percent"), [("sigmoid", True), ("none", False)])
@pytest.mark.parametrize("labels", [None, ["age"]])
def test_what_is_declared_of_a_number_needs_no_note(declared, percent, labels):
    e = pl.explain(wrapped((42.0,), (42.0,), labels=labels, scores=declared), picture(1), method="saliency")
    assert np.isnan(e.prediction[0].probability) != percent
    assert not any("scores=" in note for note in e.notes)


class Noisy(ByBrightness):
    """A number that is small on a plain picture and large on noise; counts its inputs."""

    rows: ClassVar[list] = []

    def forward(self, x):
        self.rows.append(len(x))
        return super().forward(x) + 100 * x.flatten(1).std(1, keepdim=True)


@pytest.mark.parametrize(
    ("labels", "passes", "doubt"), [(["age"], 2, "size"), (["no", "yes"], 1, False), (None, 1, "number")]
)
def test_one_label_costs_a_pass_on_noise_and_two_cost_none(labels, passes, doubt):
    model = pl.wrap(Noisy((2.0,), (2.0,)), transform=LOOK, labels=labels)
    x = torch.zeros(1, 3, 8, 8)
    output = model.outputs(x)
    Noisy.rows.clear()
    reading = model.settled(x, output).reading
    assert len(Noisy.rows) == passes - 1
    assert reading.doubt == doubt


def test_a_probability_that_is_proven_needs_no_labels():
    model = pl.wrap(nn.Sequential(ByBrightness((2.0,), (2.0,)), nn.Sigmoid()), transform=LOOK)
    e = pl.explain(model, picture(1), method="saliency")
    assert e.prediction[0].probability == pytest.approx(1 / (1 + np.exp(-2.0)), abs=1e-6)
    assert e.record.model["reading"]["doubt"] is False


def test_a_record_keeps_its_doubt_and_is_verified(tmp_path):
    model = wrapped()
    e = pl.explain(model, picture(1), method="saliency")
    file = e.save(tmp_path)[0]
    assert pl.verify(file, model=model, inputs=picture(1)).status == "same"
    assert pl.read(file).record.model["reading"]["doubt"] == "labels"


# --- teachers


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 160)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(rng.integers(low, low + 90, (8, 8, 3), np.uint8)).save(tmp_path / "set" / name / f"{i}.png")
    return tmp_path / "set"


class Teacher(nn.Module):
    """One convolution, and scores of the mean brightness; `answer` makes the output of them."""

    def __init__(self, answer=lambda z: z, columns=2):
        super().__init__()
        self.conv, self.answer, self.columns = nn.Conv2d(3, 4, 1), answer, columns
        self.eval()

    def forward(self, x):
        z = (self.conv(x).mean((1, 2, 3)) * 0 + 8 * (x.mean((1, 2, 3)) - 0.5))[:, None]
        return self.answer(torch.cat([-z, z], 1) if self.columns == 2 else z)


def taught(folder, teacher, labels=("dark", "light"), **declared):
    model = pl.wrap(teacher, transform=LOOK, labels=labels and list(labels), **declared)
    return pl.distill(str(folder), "tree", model, layer="conv", concepts="none", cache=None)


@pytest.mark.parametrize(
    ("teacher", "declared"),
    [
        (Teacher(), {}),
        (Teacher(lambda z: z / 1), {"scores": "softmax"}),
        (Teacher(lambda z: z.softmax(1)), {}),
        (Teacher(lambda z: 2 * z, 1), {}),
        (Teacher(lambda z: 2 * z, 1), {"scores": "sigmoid"}),
        (Teacher(lambda z: (2 * z).sigmoid(), 1), {}),
        (Teacher(lambda z: {"logits": z, "p": z.softmax(1)}), {}),
        (Teacher(lambda z: {"embedding": z.new_ones(len(z), 5), "head": z}), {}),
    ],
    ids=["logits", "declared", "softmax", "one", "one declared", "one sigmoid", "beside", "by labels"],
)
def test_teachers_of_the_same_choice_teach_the_same(folder, teacher, declared):
    found = taught(folder, teacher, **declared)
    assert list(found.labels) == ["dark", "light"]
    rows = np.stack([np.asarray(Image.open(s)) for s in found.sources]).reshape(len(found.sources), -1)
    z = 8 * (rows.mean(1) / 255 - 0.5)
    np.testing.assert_allclose(found.answers[:, 1], 1 / (1 + np.exp(-2 * z)), atol=1e-4)


@pytest.mark.parametrize(
    ("teacher", "labels"),
    [
        (Teacher(lambda z: {"logits": z, "p": z.sigmoid()}), ("dark", "light")),
        (Teacher(lambda z: z, 1), None),
        (Teacher(lambda z: 1000 * z, 1), ("age",)),
    ],
    ids=["labels at once", "a number", "a large number"],
)
def test_teachers_that_do_not_choose_are_refused(folder, teacher, labels):
    with pytest.raises(DataError, match="does not choose among classes"):
        taught(folder, teacher, labels)


def test_pictures_on_which_a_teacher_may_mean_several_labels_are_counted(folder):
    found = taught(folder, Teacher(lambda z: torch.cat([z[:, 1:] + 3, z[:, 1:] + 3.1, -z[:, 1:]], 1)), ("x", "y", "z"))
    assert any("two labels likely" in note and "of 24 pictures" in note for note in found.notes)


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "regression"])
def test_the_problem_of_a_transformers_teacher_is_obeyed_undeclared(folder, problem):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    names = {0: "dark", 1: "light"}
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4,
        problem_type=problem, id2label=names, label2id={v: k for k, v in names.items()},
    )  # fmt: skip
    net = transformers.ViTForImageClassification(config).eval()
    with torch.no_grad():  # so that both classes are answered, by the brightness
        net.classifier.weight.zero_()
        net.classifier.bias.zero_()
        flat = [net.vit(torch.full((1, 3, 8, 8), v)).last_hidden_state[0, 0] for v in (0.2, 0.8)]
        way = 4 * (flat[1] - flat[0]) / (flat[1] - flat[0]).norm() ** 2
        for k, sign in ((0, -1), (1, 1)):
            net.classifier.weight[k] = sign * way
            net.classifier.bias[k] = -sign * way @ (flat[0] + flat[1]) / 2
    model = pl.wrap(net, transform=LOOK)
    assert model.reading.scores is None
    if problem != "single_label_classification":
        kind = "sigmoid" if problem.startswith("multi") else "none"
        with pytest.raises(DataError, match=f"scores are read as '{kind}'"):
            pl.distill(str(folder), "tree", model, concepts="none", cache=None)
        return
    found = pl.distill(str(folder), "tree", model, concepts="none", cache=None)
    x = torch.stack([model.pictures(pl.read_image(s))[0] for s in found.sources])
    with torch.no_grad():
        np.testing.assert_allclose(found.answers, net(x).logits.softmax(1), atol=1e-4)


def test_a_teacher_of_a_list_of_pictures_is_learned_again_from_its_record(folder, tmp_path):
    files = sorted(folder.rglob("*.png"))
    model = pl.wrap(Teacher(), transform=LOOK, labels=["dark", "light"])
    found = pl.distill(files, "tree", model, layer="conv", concepts="none", cache=None)
    saved = found.save(tmp_path / "out")[0]
    assert pl.verify(saved, model=model).status in ("same", "within tolerance")
    assert "the pictures are not those of the record" in pl.verify(saved, model=model, inputs=files[1:]).reasons
