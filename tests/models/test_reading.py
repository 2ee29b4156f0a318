"""What an output means: which tensor holds the scores, what makes probabilities of them, and who is told otherwise."""

import re
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.nets import Output
from pellucid.errors import ModelError, PellucidError, TargetError
from pellucid.heatmaps import get_method
from pellucid.models.reading import Reading
from pellucid.models.recognition import settle

Y = torch.tensor([[0.1, 2.0, -1.0, 0.5, 0.0], [3.0, -2.0, 0.7, 0.2, 1.5], [-0.5, -0.1, -0.2, -0.3, -4.0]])
LOOK = pl.Preprocess(input_size=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)


def body(classes=4, scale=20.0):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    )
    net[-1].weight.data *= scale
    return net.eval()


class Answering(nn.Module):
    """The scores of a small network, put into an output by a function."""

    def __init__(self, answer, classes=4, scale=20.0):
        super().__init__()
        self.body, self.answer = body(classes, scale), answer
        self.calls = 0
        self.eval()

    def forward(self, x):
        self.calls += 1
        return self.answer(self.body(x))


@pytest.fixture
def x():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def wrap(module, **declared):
    return pl.wrap(module, transform=LOOK, **declared)


def probabilities(answers):
    return [p.probability for p in sorted(answers, key=lambda p: p.index)]


# --- which tensor ---


@dataclass
class Scored:
    scores: torch.Tensor
    extra: object = None


@pytest.mark.parametrize(
    "output",
    [
        Y,
        [Y],
        (torch.ones(()), Y),
        {"loss": torch.ones(()), "logits": Y, "aux": Y * 2},
        {"features": torch.zeros(3, 7, 4, 4), "out": Y},
        Output(torch.ones(3, 2), Y),
        Scored(Y),
        SimpleNamespace(found=(Y, torch.zeros(3, dtype=torch.long))),
        (Y.softmax(1), Y),
        (Y, Y.softmax(1)),
        {"p": Y.sigmoid(), "z": Y},
    ],
    ids=lambda o: type(o).__name__,
)
def test_the_scores_are_found_by_proof(output):
    assert Reading().tensor(output) is Y
    assert Reading().class_scores(output).equal(Y)


def test_labels_and_rows_tell_scores_from_other_tables():
    output = {"embedding": torch.ones(3, 7), "scores": Y, "anchors": torch.ones(9, 5)}
    labels = list("abcde")
    module = nn.Identity()
    assert settle(Reading(), module, torch.zeros(3, 3, 8, 8), output, labels).output == "scores"
    with pytest.raises(
        TargetError, match=r"y\['embedding'\] \(3, 7\).*say which, pl.wrap\(module, output='embedding'\)"
    ):
        Reading().tensor(output)


def test_a_declared_part_is_taken_whatever_lies_beside_it():
    output = {"heads": [torch.ones(3, 5), Y], "aux": Y * 2}
    assert Reading.declared(None, "heads.1").tensor(output) is Y
    assert Reading.declared(None, 1).tensor((Y * 2, Y)) is Y
    with pytest.raises(TargetError, match=r"no tensor 'head'.*aux"):
        Reading.declared(None, "head").tensor(output)


@pytest.mark.parametrize(
    "output",
    [
        (Y, torch.ones(3, 2)),
        {"out": Y, "aux": Y * 2},
        OrderedDict(out=torch.zeros(3, 4, 8, 8), aux=torch.zeros(3, 4, 8, 8)),
        torch.zeros(3, 5, 8, 8),
        [{"boxes": torch.zeros(9, 4), "scores": torch.zeros(9)}] * 3,
        [torch.zeros(9, 4), torch.zeros(7, 4), torch.zeros(8, 4)],
    ],
)
def test_nothing_else_is_taken_for_class_scores(output):
    with pytest.raises(TargetError, match=r"target=lambda y: ") as told:
        Reading().class_scores(output)
    # what is advised works on this very output, when it is followed to the letter
    advised = eval(re.search(r"target=(lambda y: .*?)\.?$", str(told.value))[1], {"torch": torch})
    assert advised(output).ndim == 1


@pytest.mark.parametrize("output", [None, "cat", 3.0, {"a": None}, [], {"ids": torch.ones(3, dtype=torch.long)}])
def test_outputs_without_a_score_are_said(output, x):
    with pytest.raises(TargetError, match="no score to explain"):
        Reading().tensor(output)
    for target in (None, lambda y: y[:, 0]):
        with pytest.raises(ModelError, match="no score to explain"):
            pl.explain(wrap(Answering(lambda y: output)), x, target=target, method="saliency")


# --- what the scores are ---


def test_probabilities_of_each_reading_by_hand():
    odds = Y.double().exp()
    close = torch.testing.assert_close
    close(Reading(scores="softmax").probabilities(Y), (odds / odds.sum(1, keepdim=True)).float())
    close(Reading(scores="sigmoid").probabilities(Y), (odds / (1 + odds)).float())
    for plain in ("probabilities", "none"):
        assert Reading(scores=plain).probabilities(Y) is Y
    share = Y.softmax(1)
    a, b = share[:, 1], share[:, 3]
    close(Reading(scores="probabilities").between(share, a, b), a / (a + b))
    close(Reading(scores="softmax").between(Y, Y[:, 1], Y[:, 3]), a / (a + b))
    close(Reading(scores="none").between(Y, Y[:, 1], Y[:, 3]), Y[:, 1] - Y[:, 3])
    with pytest.raises(ModelError, match="softmax, sigmoid, probabilities or none"):
        wrap(body(), scores="logit")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lambda z: z, "softmax"),
        (lambda z: z.log_softmax(1), "softmax"),
        (lambda z: z.softmax(1), "probabilities"),
        (lambda z: z.sigmoid(), "probabilities"),
        (lambda z: z.sigmoid()[:, None].squeeze(1), "probabilities"),
        (lambda z: (z.softmax(1), z), "softmax"),
        (lambda z: {"logits": z, "p": z.sigmoid()}, "sigmoid"),
        (lambda z: z.tanh().abs() / 2, "softmax"),  # between 0 and 1, and by nothing that makes probabilities
    ],
)
def test_what_scores_are_is_recognised(answer, kind, x):
    model = wrap(Answering(answer))
    output = model.outputs(x)
    assert model.settled(x, output).reading.scores == kind
    z = model.module.body(x)
    truth = {
        "softmax": Reading().class_scores(output).softmax(1),
        "sigmoid": z.sigmoid(),
        "probabilities": Reading().class_scores(output),
    }
    for row, expected in zip(model.predict(x), truth[kind], strict=True):
        assert probabilities(row) == pytest.approx(expected.tolist(), abs=1e-6)


def test_usual_scores_cost_no_further_pass(x):
    net = Answering(lambda z: z)
    model = wrap(net)
    before = net.calls
    model.predict(x)
    assert net.calls == before  # what a forward pass counts is undone, see the guard
    ran = []
    net.answer = lambda z: ran.append(len(z)) or z
    model.predict(x)
    assert ran == [2]
    net.answer = lambda z: ran.append(len(z)) or z.softmax(1)
    model.predict(x)
    assert ran == [2, 2, 1]  # and one on noise where all scores lie between 0 and 1


def test_a_black_box_that_answers_probabilities_is_believed(x):
    net = body()

    def answer(batch):
        return np.round(net(torch.from_numpy(batch)).softmax(1).detach().numpy(), 3)

    found = pl.wrap(answer, numpy=True, transform=LOOK).predict(x)
    for row, expected in zip(found, net(x).softmax(1), strict=True):
        assert probabilities(row) == pytest.approx(expected.tolist(), abs=1e-3)


def test_several_labels_at_once_are_declared(x):
    model = wrap(body(), labels=list("abcd"), scores="sigmoid")
    e = pl.explain(model, x[:1], target="b", method="hires-cam")
    own = model.module(x[:1]).sigmoid()[0]
    assert probabilities(e.prediction) == pytest.approx(own.tolist(), abs=1e-6)
    assert e.session._score((e.explained,), x[:1]).item() == pytest.approx(own[1].item(), abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "doubt"),
    [
        ([1.75, 1.75, -6], True),
        ([2.0, 1.8, -6], True),
        ([1.75, 0.2, -6], False),
        ([0.9, 0.9, -6], False),
        ([9, 2, 2], False),
    ],
)
def test_labels_that_may_or_may_not_exclude_each_other_are_in_doubt(scores, doubt, x):
    net = Answering(lambda z: z * 0 + torch.tensor(scores), classes=3)
    e = pl.explain(wrap(net), x[:1], method="saliency")
    assert any("scores='sigmoid'" in note for note in e.notes) == doubt
    assert np.isnan(e.prediction[0].probability) == doubt
    for declared, own in (("softmax", torch.softmax), ("sigmoid", lambda y, _: y.sigmoid())):
        e = pl.explain(wrap(net, scores=declared), x[:1], method="saliency")
        assert not any("scores=" in note for note in e.notes)
        assert probabilities(e.prediction) == pytest.approx(own(torch.tensor(scores).float(), 0).tolist(), abs=1e-6)


def test_plain_values_have_no_percentage(x):
    model = wrap(body(), scores="none")
    e = pl.explain(model, x[:1], method="saliency")
    values = model.module(x[:1])[0].detach()
    assert all(np.isnan(p.probability) for p in e.prediction)
    assert [p.score for p in e.prediction] == pytest.approx(values.sort(descending=True).values.tolist(), abs=1e-5)
    assert e.prediction[0].said() == f"{values.max():.3g}"
    e.figure()
    assert e.session._score((e.explained,), x[:1]).item() == pytest.approx(values.max().item(), abs=1e-5)


# --- one logit ---


@pytest.mark.parametrize("ending", ["logit", "probability", "squeezed"])
@pytest.mark.parametrize("declared", [None, "known"])
def test_one_number_decides_between_two_labels(ending, declared, x):
    declared = declared and ("probabilities" if ending == "probability" else "sigmoid")
    ends = {"logit": lambda z: z, "probability": torch.sigmoid, "squeezed": lambda z: z.squeeze()}
    net = Answering(ends[ending], classes=1)
    model = wrap(net, labels=["healthy", "ill"], scores=declared)
    ill = net.body(x).sigmoid()[:, 0].tolist()
    for row, p in zip(model.predict(x), ill, strict=True):
        assert {a.label: a.probability for a in row} == pytest.approx({"healthy": 1 - p, "ill": p}, abs=1e-6)
    for i in range(2):
        top = pl.explain(model, x[i : i + 1], method="hires-cam")
        assert top.target == ("ill" if ill[i] > 0.5 else "healthy")
    maps = {t: pl.explain(model, x[:1], target=t, method="hires-cam") for t in ("healthy", "ill", "ill>healthy")}
    torch.testing.assert_close(maps["ill"].attribution, -maps["healthy"].attribution)
    score = {t: e.session._score((e.explained,), x[:1]).item() for t, e in maps.items()}
    assert score == pytest.approx({"healthy": 1 - ill[0], "ill": ill[0], "ill>healthy": ill[0]}, abs=1e-6)


def test_one_column_has_no_softmax(x):
    with pytest.raises(ModelError, match="scores='sigmoid'"):
        pl.explain(wrap(body(1), scores="softmax"), x)


def test_squeezed_batches_are_said(x):
    with pytest.raises(TargetError, match=r"answers shape \(4,\) to 1 input: .*without squeezing"):
        pl.explain(wrap(Answering(lambda z: z.squeeze())), x[:1], method="saliency")


# --- one reading everywhere ---


def test_masked_scores_read_alike(x):
    logits, ended = wrap(body()), wrap(Answering(lambda z: z.softmax(1)))
    first, second = (
        pl.explain(m, x[:1], get_method("score-cam", layer=layer, weights="probability"), target=2).attribution
        for m, layer in ((logits, "1"), (ended, "body.1"))
    )
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_a_function_reads_what_no_class_does(x):
    def answer(z):
        return [{"scores": row.sigmoid(), "boxes": torch.ones(7, 4)} for row in z]

    net = Answering(answer)
    model = wrap(net)
    e = pl.explain(model, x[:1], target=lambda y: torch.stack([d["scores"][2] for d in y]), method="saliency")
    expected = pl.explain(wrap(net.body), x[:1], target=lambda y: y[:, 2].sigmoid(), method="saliency")
    assert e.prediction == []
    torch.testing.assert_close(e.attribution, expected.attribution)


@pytest.mark.parametrize("target", [lambda y: y[:, 9], lambda y: y + "text", lambda y: y.logits])
def test_functions_that_do_not_fit_are_told_what_they_get(target, x):
    with pytest.raises(TargetError, match=r"failed on the model's output.*shape \(1, 4\).*such as lambda y: y\[:, 3\]"):
        pl.explain(wrap(body()), x[:1], target=target, method="saliency")


def test_records_hold_the_reading_and_verify_reproduces_it(x, tmp_path):
    net = body()
    e = pl.explain(wrap(net, labels=list("abcd"), scores="sigmoid"), x[:1], target="b", method="grad-cam", check=True)
    assert e.record.model["reading"] == {"output": None, "scores": "sigmoid", "pair": False, "doubt": False}
    file = next(f for f in e.save(tmp_path) if f.suffix == ".json")
    assert pl.read(file).prediction == e.prediction
    undeclared = pl.wrap(net, transform=LOOK, labels=list("abcd"))
    assert pl.verify(file, model=undeclared, inputs=x[0]).status == "same"
    other = pl.wrap(net, transform=LOOK, labels=list("abcd"), scores="none")
    assert "read as 'none', not as 'sigmoid'" in str(pl.verify(file, model=other, inputs=x[0]))


def test_importance_reads_alike(x):
    model = wrap(Answering(lambda z: (torch.ones(()), z.softmax(1))))
    found = pl.importance(model, x[0], "patches", "ablation", target=1, count=4)
    assert found.full == pytest.approx(model.module(x[:1])[1][0, 1].item(), abs=1e-6)
    assert sum(p.probability for p in found.prediction) == pytest.approx(1, abs=1e-5)


def test_what_is_declared_must_be_there(x):
    with pytest.raises(ModelError, match="returns a tensor, which has no part 'logits'"):
        pl.explain(wrap(body(), output="logits"), x)
    with pytest.raises(PellucidError, match=r"no tensor 'z'.*y\[0\]"):
        pl.explain(wrap(Answering(lambda z: (z, z * 2)), output="z"), x)
