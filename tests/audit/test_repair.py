"""A last layer learned anew: by hand on features that are known, and on pictures with a planted lamp."""

import csv
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from torch import nn
from typer.testing import CliRunner

import pellucid as pl
from pellucid.audit import repair as head
from pellucid.audit.evidence import region_part
from pellucid.audit.proof import NEUTRAL, Proof, ProvenGroup
from pellucid.audit.reasons import Reliance
from pellucid.audit.ways import Way, chosen
from pellucid.cli import app

LABELS = ["dark", "light"]
PLAIN = pl.Preprocess(input_size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1))


class Room(nn.Module):
    """Sees the lamp in the corner and what is in the middle; its last layer goes by the lamp."""

    def __init__(self, corner=9.0, rest=2.0):
        super().__init__()
        self.eye = nn.Conv2d(3, 1, 4, 4, bias=False)
        self.head = nn.Linear(2, 2)
        nn.init.constant_(self.eye.weight, 1 / 48)
        self.head.weight.data = torch.tensor([[-corner, -rest], [corner, rest]], dtype=torch.float32)
        self.head.bias.data = torch.tensor([corner / 2 + 0.4 * rest, -corner / 2 - 0.4 * rest])

    def forward(self, x):
        seen = self.eye(x)
        return self.head(torch.stack([seen[:, 0, 0, 0], seen[:, 0, 2:6, 2:6].amax((1, 2))], 1))


def wrapped(net):
    return pl.wrap(net.eval(), transform=PLAIN, labels=LABELS, scores="softmax")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("rooms"), np.random.default_rng(0)
    for i in range(160):
        kind = i % 2
        lamp = kind if i % 40 > 1 else 1 - kind
        pixels = rng.integers(0, 90, (32, 32, 3)).astype(np.uint8)
        if kind:
            y, x = 4 * rng.integers(2, 6, 2)
            pixels[y : y + 4, x : x + 4] = 160
        pixels[:4, :4] = 255 * lamp
        home = folder / LABELS[kind]
        home.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(home / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def mended(rooms, tmp_path_factory):
    net = Room().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    out = tmp_path_factory.mktemp("mended")
    found = pl.repair(wrapped(net), rooms, out)
    return net, before, found, out


def test_the_lamp_is_found_and_its_exchange_no_longer_misleads(mended):
    _, _, found, _ = mended
    assert found.verdict == "repaired"
    assert any("fixed mark at the top left" in line for line in found.reasons)
    exchanged = [g for g in found.groups if "exchanged" in g.form]
    assert all(g.accuracies[0] < 0.2 for g in exchanged)
    neutral = [g for g in found.groups if g.form == NEUTRAL]
    assert all(0.2 < g.accuracies[0] < 0.8 for g in neutral)  # half of the lamps are the class's own
    assert all(g.accuracies[1] > 0.9 for g in found.groups)
    assert not found.fallen


def test_the_users_model_stays_and_its_body_is_the_new_ones(mended):
    net, before, found, _ = mended
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert torch.equal(found.model.module.eye.weight, net.eye.weight)
    assert not torch.equal(found.model.module.head.weight, net.head.weight)
    assert found.layer == "head"


def test_the_three_parts_share_no_picture_and_hold_all(mended, rooms):
    parts = []
    for file in mended[2].files[1:]:
        with file.open() as table:
            parts.append({row["file"]: row["class"] for row in csv.DictReader(table)})
    assert [len(part) for part in parts] == [80, 20, 60]
    assert parts[0] | parts[1] | parts[2] == {str(p.resolve()): p.parent.name for p in rooms.rglob("*.png")}


def test_of_both_ways_the_one_is_chosen_whose_worst_group_is_best(mended):
    found = mended[2]
    assert [t.way.split(",")[0] for t in found.tries] == ["the last layer", "the whole network"]
    assert [t.chosen for t in found.tries].count(True) == 1
    assert max(found.tries, key=lambda t: t.worst).worst == next(t.worst for t in found.tries if t.chosen)
    assert any(line.startswith("Chosen: the last layer, on frozen features; ") for line in found.lines())


def test_of_ways_whose_worst_groups_are_alike_the_next_worst_decides():
    """Of a part that no way can do without, such as the fine texture of a small picture, nothing can be said."""
    truth = np.repeat([0, 1], 10)

    def right(first, second):
        return np.r_[np.arange(10) < first, np.arange(10) < second]

    shown = [("as they are", [right(10, 10), right(7, 7)]), ("exchanged", [right(0, 4), right(0, 6)])]
    choosing = SimpleNamespace(
        truth=truth, labels=("a", "b"), marks=lambda _models: iter((n, np.stack(m)) for n, m in shown)
    )
    rests, learned = Way(None, "rests on the part"), Way(None, "learned")
    best, tries = chosen([rests, learned], choosing)
    assert best is learned  # though its mean is lower
    assert [(t.worst, t.chosen) for t in tries] == [(0, False), (0, True)]
    shown[1] = ("exchanged", [right(1, 4), right(0, 9)])
    assert chosen([rests, learned], choosing)[0] is rests


def test_saved_weights_give_the_numbers_that_are_said(mended):
    _, _, found, _ = mended
    net = Room(0, 0)
    net.load_state_dict(load_file(found.files[0]))
    plain = [g for g in found.groups if g.form == "as they are"]
    for group in plain:
        with found.files[-1].open() as table:
            files = [row["file"] for row in csv.DictReader(table) if row["class"] == group.label]
        x = torch.stack([PLAIN(pl.read_image(f))[0] for f in files])
        answers = net.eval()(x).argmax(1) == LABELS.index(group.label)
        assert answers.tolist() == list(group.now)


def test_what_is_saved_verifies_and_opens(mended):
    net, _, found, out = mended
    files = found.save(out)
    assert all(file.is_file() for file in files)
    (stored,) = out.glob("*.comparison.json")
    assert pl.verify(stored, model=(wrapped(net), found.model)).status == "same"
    assert "repaired" in files[-1].read_text()


def test_its_proof_stands_in_the_saved_comparison_and_leads_its_card(mended, tmp_path):
    found = mended[2]
    found.comparison.save(tmp_path)
    (stored,) = tmp_path.glob("*.comparison.json")
    again = pl.read(stored)
    assert (again.proof, again.caption) == (found.proof, found.caption)
    card = again.on_page()
    assert (card.verdict, card.trusted) == ("repaired", True)
    assert next(iter(again.lines())) == "Verdict: repaired."
    assert list(again.lines())[-4:] == list(found.comparison.paired.lines())[-4:]
    assert next(iter(found.comparison.paired.lines())) not in list(again.lines())  # one verdict
    assert pl.read(replace(found.comparison, proof=None).save(tmp_path / "bare")[0]).proof is None


def test_features_and_last_layer_are_those_of_the_network(rooms):
    net = Room().eval()
    model, x = wrapped(net), torch.rand(5, 3, 32, 32)
    assert head.last_layer(model, x) == "head"
    seen = net.eye(x)
    expected = torch.stack([seen[:, 0, 0, 0], seen[:, 0, 2:6, 2:6].amax((1, 2))], 1)
    np.testing.assert_allclose(head.features(model, "head", x), expected.detach().double().numpy(), rtol=1e-6)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_a_network_without_a_linear_end_is_refused():
    class Sum(Room):
        def forward(self, x):
            return super().forward(x) * 2 + x.mean((1, 2, 3))[:, None]

    with pytest.raises(pl.ModelError, match="one linear layer"):
        head.last_layer(wrapped(Sum()), torch.rand(2, 3, 32, 32))


@pytest.mark.parametrize(("classes", "bias"), [(2, True), (2, False), (3, True)])
def test_the_layer_is_the_weighted_regression_on_standardised_features(classes, bias):
    rng = np.random.default_rng(classes)
    truth = np.arange(90) % classes
    X = rng.standard_normal((90, 4)) * (1, 3, 0.5, 1) + truth[:, None] * (1, 0, 0, 2) + 5 * bias
    found = head.HeadLesson(X, truth, truth + classes * (np.arange(90) % 5 == 0), np.arange(90))
    weight, shift, strength = head.learned(found, classes, bias=bias)
    centre = X.mean(0) if bias else 0
    Z = (X - centre) / X.std(0)
    direct = LogisticRegression(C=strength, fit_intercept=bias, max_iter=2000)
    direct.fit(Z, truth, sample_weight=found.weights)
    scores = torch.from_numpy(X) @ weight.T + (shift if shift is not None else 0)
    np.testing.assert_allclose(torch.softmax(scores, 1).numpy(), direct.predict_proba(Z), atol=1e-9)
    assert (shift is not None) == bias


def test_classes_weigh_the_same_and_so_do_the_groups_of_each():
    groups = np.array([0] * 6 + [1] * 2 + [3] * 4)
    weights = head.HeadLesson(np.zeros((12, 1)), groups % 2, groups, np.arange(12)).weights
    assert weights.mean() == pytest.approx(1)
    assert {g: pytest.approx(6 if g == 0 else 3) for g in (0, 1, 3)} == {
        g: weights[groups == g].sum() for g in (0, 1, 3)
    }


def test_parts_come_from_the_other_side():
    truth = np.array([0, 1, 2] * 5)
    form = head.Form("corner", region_part("mark", "corner", torch.eye(4) > 0), ("b",))
    given = head.donors(truth, form, ["a", "b", "c"], np.random.default_rng(0))
    assert all((truth[g] == 1) != (truth[i] == 1) for i, g in enumerate(given))
    x, others = torch.zeros(15, 3, 4, 4), torch.ones(15, 3, 4, 4)
    assert torch.equal(form.of(x, others), (torch.eye(4) > 0).float().expand(15, 3, 4, 4))


def test_nothing_to_repair_is_said(rooms, tmp_path):
    with pytest.raises(pl.PellucidError, match="nothing to repair"):
        pl.repair(wrapped(Room(corner=0, rest=9)), rooms, tmp_path)
    assert not (tmp_path / "weights.safetensors").exists()


def test_pictures_without_classes_and_too_few_are_refused(rooms, tmp_path):
    with pytest.raises(pl.PellucidError, match="true classes"):
        pl.repair(wrapped(Room()), rooms / "dark", tmp_path)
    for kind in LABELS:
        (tmp_path / "few" / kind).mkdir(parents=True)
        for file in sorted((rooms / kind).iterdir())[:9]:
            (tmp_path / "few" / kind / file.name).write_bytes(file.read_bytes())
    with pytest.raises(pl.PellucidError, match="fewer than 8"):
        pl.repair(wrapped(Room()), tmp_path / "few", tmp_path)


def test_the_command_refuses_in_a_sentence(rooms, tmp_path):
    answer = CliRunner().invoke(app, ["repair", str(rooms), "-o", str(tmp_path)])
    assert answer.exit_code == 1
    assert "Traceback" not in answer.output


def a_reason(label, region, kind="mark"):
    name = "a fixed mark at the top left" if kind == "mark" else kind
    return Reliance(label, kind, name, 0.5, 0.4, 0.6, 0.5, 0.1, 0.001, 40, True, region)


def test_what_several_classes_rest_on_is_one_form():
    here, wider, there = np.zeros((3, 8, 8), bool)
    here[:3, :3], wider[:3, :4], there[5:, 5:] = True, True, True
    reasons = [a_reason("a", here), a_reason("b", there), a_reason("c", wider), a_reason("a", None, "colour")]
    plain, first, second, colour = head.forms([*reasons, a_reason("b", None, "colour")], (8, 8))
    assert plain.part is None
    assert (first.labels, second.labels, colour.labels) == (("a", "c"), ("b",), ("a", "b"))
    assert (first.part.region.numpy() == wider).all()
    truth = np.array([0, 1, 2] * 8)
    given = head.donors(truth, first, ["a", "b", "c"], np.random.default_rng(0))
    assert (truth[given] != truth)[truth != 1].all()  # each resting class gets any other's
    assert set(truth[given][truth == 1]) == {0, 2}  # all others those of the resting classes
    assert (head.donors(truth, plain, ["a", "b", "c"], np.random.default_rng(0)) == np.arange(24)).all()


def test_broader_parts_leave_the_marks_in_place():
    here = np.zeros((8, 8), bool)
    here[:3, :3] = True
    _, border, mark = head.forms([a_reason("b", None, "border"), a_reason("a", here)], (8, 8))
    a, b = torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)
    assert (border.of(a, b)[..., torch.from_numpy(here)] == 0).all()
    assert (border.of(a, b)[..., -1, :] == 1).all()
    assert (mark.of(a, b)[..., torch.from_numpy(here)] == 1).all()
    (_, alone) = head.forms([a_reason("b", None, "border")], (8, 8))
    assert (alone.of(a, b)[..., 0, :] == 1).all()


def test_a_few_pictures_of_a_slice_do_not_weigh_as_much_as_a_class(rooms):
    from pellucid.media import read_folder

    model, data = wrapped(Room().eval()), read_folder(rooms)
    some = data.select(np.concatenate([np.flatnonzero(data.labels == k)[:20] for k in (0, 1)]))

    def opened(rows):
        return torch.stack([model.preprocess(some.read(i))[0] for i in rows])

    def groups(slice_):
        return head.lesson(model, "head", opened, some.labels, head.forms([], (32, 32)), [slice_], LABELS, 0).groups

    assert len(set(groups(range(head.LEAST - 1)))) == 2
    assert sorted(np.unique(groups(range(head.LEAST)), return_counts=True)[1]) == [head.LEAST, 20 - head.LEAST, 20]


def test_a_class_falls_where_the_parts_tell_nothing_not_where_they_told_it():
    def group(form, before, now, label="a"):
        return ProvenGroup(
            label, form, (True,) * before + (False,) * (40 - before), (True,) * now + (False,) * (40 - now)
        )

    given = Proof((), (group("as they are", 40, 25), group("exchanged", 2, 25), group(NEUTRAL, 20, 25)))
    assert (given.verdict, given.fallen, [g.form for g in given.given_up]) == ("repaired", [], ["as they are"])
    assert any(line.startswith("What a part told of `a` is given up; ") for line in given.lines())
    fallen = Proof((), (group("as they are", 40, 25), group("exchanged", 2, 25), group(NEUTRAL, 30, 10)))
    assert (fallen.verdict, [g.form for g in fallen.fallen]) == ("worse", [NEUTRAL])
    slices = Proof((), (group("as they are", 40, 25), group("as they are", 10, 30, "b")))  # no part was found
    assert (slices.verdict, [g.label for g in slices.fallen], slices.given_up) == ("worse", ["a"], [])
    stored = {key: value for key, value in given.as_dict().items() if key != "tries"}
    assert Proof.read(stored) == given


def test_pictures_of_no_class_of_the_models_are_refused():
    with pytest.raises(pl.PellucidError, match="2 of the pictures are of no class"):
        head.require_classes(np.array([0] * 9 + [1] * 9 + [-1] * 2), LABELS)
