import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from helpers.nets import noise, pooled
from pellucid.errors import TargetError
from pellucid.heatmaps import GradCAM, HiResCAM, Saliency
from pellucid.models.targets import (
    Class,
    Contrast,
    Function,
    PerSample,
    ScoresTarget,
    TopClass,
    Unit,
    as_target,
    parse_target,
    resolve_class,
)

LABELS = ("tabby", "tiger cat", "Egyptian_cat", "lynx", "Cardigan", "cardigan", "great white shark")
Y = torch.tensor([[0.1, 2.0, -1.0, 0.5, 0.0], [3.0, -2.0, 0.7, 0.2, 1.5], [-0.5, -0.1, -0.2, -0.3, -4.0]])


def bound(target, n=3, labels=LABELS):
    return as_target(target).bind(nn.Identity(), torch.zeros(n, 3, 8, 8), labels)


# --- what names a target ---


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, TopClass()),
        (3, Class(3)),
        (-1, Class(-1)),
        (np.int64(3), Class(3)),
        (torch.tensor(3), Class(3)),
        (torch.tensor([1, 2]), PerSample((1, 2))),
        (np.array([1, 2]), PerSample((1, 2))),
        ([1, np.int64(2)], PerSample((1, 2))),
        ((4,), PerSample((4,))),
        ("3", Class(3)),
        (" tabby ", Class("tabby")),
        ("tabby>lynx", Contrast("tabby", "lynx")),
        (" 3 > tiger cat", Contrast(3, "tiger cat")),
        ("top", TopClass()),
        ("top:2", TopClass(2)),
        ("unit:layer4.1:7", Unit("layer4.1", 7)),
        ("unit:layer4.1:7:2;3", Unit("layer4.1", 7, (2, 3))),
        (Class(1), Class(1)),
    ],
)
def test_what_names_a_target(given, expected):
    assert as_target(given) == expected


@pytest.mark.parametrize(
    "bad",
    [
        True,
        1.5,
        "",
        "  ",
        "unit:",
        "unit:layer4",
        "unit:layer4:x",
        "unit:layer4:1:a;b",
        {"a": 1},
        [0.5, 1],
        [True, False],
        torch.tensor([0.5]),
        torch.tensor([True, False]),
        torch.zeros(2, 2, dtype=torch.long),
        np.array([0.5]),
        ["tabby", "lynx"],
    ],
    ids=repr,
)
def test_what_does_not(bad):
    with pytest.raises(TargetError):
        as_target(bad)


@pytest.mark.parametrize(
    "target",
    [
        Class(3),
        Class("tiger cat"),
        Contrast("tabby", 3),
        TopClass(),
        TopClass(4),
        Unit("a.b", 2),
        Unit("a", 0, (1, 2, 3)),
    ],
)
def test_the_text_of_a_target_reads_back(target):
    assert parse_target(target.spec()) == target


def test_a_function_has_no_text():
    assert Function(lambda y: y[:, 0]).spec() is None
    assert PerSample((1, 2)).spec() is None


# --- labels ---


@pytest.mark.parametrize(
    ("label", "index"),
    [
        ("tabby", 0),
        ("Tiger Cat", 1),
        ("tiger-cat", 1),
        ("egyptian cat", 2),
        (" LYNX ", 3),
        ("Cardigan", 4),
        ("cardigan", 5),
        (17, 17),
    ],
)
def test_labels_are_found_by_their_words(label, index):
    assert resolve_class(label, LABELS) == index


@pytest.mark.parametrize(
    ("label", "hint"),
    [
        ("tabbi", "did you mean 'tabby'"),
        ("shark", "did you mean 'great white shark'"),
        ("cat", "'tiger cat', 'Egyptian_cat'"),
        ("zzzzzz", "give a class number"),
        ("contrst", "did you mean 'A>B'"),
        ("anomly:3", "did you mean 'anomaly"),
        ("lable:7", "did you mean 'label:LABEL'"),
        ("CARDIGAN", "2 classes are called 'CARDIGAN': give the number, 4 or 5"),
    ],
)
def test_wrong_labels_get_near_misses(label, hint):
    with pytest.raises(TargetError, match=hint):
        resolve_class(label, LABELS)


def test_labels_need_labels():
    with pytest.raises(TargetError, match="no labels"):
        resolve_class("tabby", None)
    with pytest.raises(TargetError, match="'tabby' is a label"):
        Class("tabby")(Y)


def test_every_label_of_the_embedded_model_finds_its_own_class(embedded_model):
    labels = embedded_model.labels
    assert [resolve_class(label, labels) for label in labels] == list(range(1000))


# --- scores, by hand ---


def test_scores_by_hand():
    assert bound(1)(Y).tolist() == Y[:, 1].tolist()
    assert bound(-1)(Y).tolist() == Y[:, 4].tolist()
    assert bound("lynx")(Y).tolist() == Y[:, 3].tolist()
    assert bound([4, -5, 2])(Y).tolist() == [Y[0, 4], Y[1, 0], Y[2, 2]]
    assert bound(Contrast(1, 0))(Y).tolist() == [Y[i, 1] - Y[i, 0] for i in range(3)]
    assert bound(None)(Y).tolist() == [Y[0, 1], Y[1, 0], Y[2, 1]]
    assert bound("top:1")(Y).tolist() == [Y[0, 3], Y[1, 4], Y[2, 2]]
    assert bound(lambda y: y[:, 0] * 2)(Y).tolist() == (2 * Y[:, 0]).tolist()


def test_probabilities_by_hand():
    odds = Y.exp()
    share = odds / odds.sum(1, keepdim=True)

    def probability(target):
        return bound(target).probability(Y, {})

    torch.testing.assert_close(probability(2), share[:, 2])
    torch.testing.assert_close(probability([0, 1, 2]), torch.stack([share[i, i] for i in range(3)]))
    torch.testing.assert_close(probability(None), share.amax(1))
    torch.testing.assert_close(probability("top:4"), share.amin(1))
    # of a contrast: the softmax over the two alone, which is the sigmoid of the difference
    torch.testing.assert_close(probability(Contrast(1, 3)), odds[:, 1] / (odds[:, 1] + odds[:, 3]))
    torch.testing.assert_close(probability(Contrast(1, 3)), torch.sigmoid(Y[:, 1] - Y[:, 3]))
    torch.testing.assert_close(probability(Contrast(1, 3)) + probability(Contrast(3, 1)), torch.ones(3))
    torch.testing.assert_close(bound(0).probability(Y[:, :1], {}), torch.sigmoid(Y[:, 0]))
    assert torch.equal(probability(lambda y: y[:, 0]), Y[:, 0])


def test_half_precision_scores_are_read_in_single_precision():
    assert Class(1)(Y.half()).dtype == torch.float32
    assert Class(1).probability(Y.bfloat16(), {}).dtype == torch.float32


def test_a_frozen_top_class_stays_with_what_it_was():
    frozen = TopClass().freeze(Y)
    assert frozen == PerSample((1, 0, 1))
    assert frozen(-Y).tolist() == [-Y[0, 1], -Y[1, 0], -Y[2, 1]]
    assert TopClass()(-Y).tolist() == (-Y).amax(1).tolist()
    assert bound([4, 3, 2]).select(torch.tensor([2, 0, 0])) == PerSample((2, 4, 4))
    assert Class(1).select(torch.tensor([2, 0])) == Class(1)


@pytest.mark.parametrize("classes", [[5], [9], [-6], 5, -6, "top:5", Contrast(0, 5), [0, 5, 0]])
def test_classes_out_of_range(classes):
    n = len(classes) if isinstance(classes, list) else 3
    with pytest.raises(TargetError, match=r"out of range: the model has 5|has 5 classes"):
        bound(classes, n)(Y[:n])


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_number_of_targets_other_than_that_of_inputs(n):
    with pytest.raises(TargetError, match=f"3 targets for {n} inputs"):
        bound([0, 1, 2], n)
    for method in (GradCAM(), Saliency()):
        with pytest.raises(TargetError, match=f"3 targets for {n} inputs"):
            method.attribute(pooled(), noise(n, 3, 32, 32), torch.tensor([0, 1, 2]))


def test_a_contrast_of_a_class_with_itself():
    with pytest.raises(TargetError, match="needs two classes"):
        bound(Contrast("tabby", 0))


# --- outputs ---


# --- functions ---


@pytest.mark.parametrize(
    "function",
    [
        lambda y: y,
        lambda y: y.sum(),
        lambda y: y[0],
        lambda y: y[:1, 0],
        lambda y: 3.0,
        lambda y: None,
        lambda y: y[:, :2].flatten(),
    ],
    ids=["matrix", "number", "one sample's scores", "too few", "float", "None", "too many"],
)
@pytest.mark.parametrize("method", [GradCAM(), Saliency()])
def test_functions_of_a_wrong_shape(function, method):
    with pytest.raises(TargetError, match="must return one"):
        method.attribute(pooled(), noise(2, 3, 32, 32), function)


def test_functions_of_a_wrong_shape_on_outputs_in_structures():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = pooled()

        def forward(self, x):
            return {"out": self.net(x)}

    for method in (GradCAM(), Saliency()):
        with pytest.raises(TargetError, match=r"scores of shape \(5,\) for 2 inputs"):
            method.attribute(Net(), noise(2, 3, 32, 32), lambda y: y["out"][0])


def test_functions_of_the_whole_batch():
    net, x, classes = pooled(), noise(3, 3, 32, 32), torch.tensor([4, 0, 2])
    expected = HiResCAM().attribute(net, x, classes)
    assert torch.equal(HiResCAM().attribute(net, x, lambda y: y[torch.arange(3), classes]), expected)
    assert torch.equal(HiResCAM().attribute(net, x, lambda y: y.gather(1, classes[:, None])[:, 0]), expected)


def test_functions_that_detach_are_told():
    with pytest.raises(TargetError, match="without detaching"):
        GradCAM(layer="3").attribute(pooled(), noise(1, 3, 32, 32), lambda y: y.detach()[:, 0])


def test_callables_of_any_kind():
    @dataclasses.dataclass
    class Column:  # without a hash
        index: int

        def __call__(self, y):
            return y[:, self.index]

    class Slotted:  # without weak references
        __slots__ = ()

        def __call__(self, y):
            return y[:, 2]

    net, x = pooled(), noise(1, 3, 32, 32)
    expected = HiResCAM().attribute(net, x, 2)
    assert torch.equal(HiResCAM().attribute(net, x, Column(2)), expected)
    assert torch.equal(HiResCAM().attribute(net, x, Slotted()), expected)
    linear = nn.Linear(5, 1)
    assert HiResCAM().attribute(net, x, nn.Sequential(linear, nn.Flatten(0))).any()


def test_names_for_people():
    assert bound("lynx").name(LABELS) == "lynx"
    assert bound(99).name(LABELS) == "class 99"
    assert bound(Contrast(0, 3)).name(LABELS) == "tabby rather than lynx"
    assert bound([0, 3, 1]).name(LABELS) == "tabby, lynx, tiger cat"
    assert str(TopClass()) == "top class"


@pytest.mark.parametrize("function", [lambda y: y[:, 0], lambda y: y[:, 1].square()])
def test_a_search_for_one_function_is_not_taken_for_anothers(function):
    a, b = Function(function), Function(lambda y: y[:, 0])
    assert a.kind == Function(function).kind
    assert hash(a.kind) == hash(Function(function).kind)
    assert a.kind != b.kind
    dead = Function(lambda y: y[:, 0]).kind
    assert dead != Function(lambda y: y[:, 0]).kind


@dataclasses.dataclass(frozen=True)
class Spread(ScoresTarget):
    """The spread of all scores."""

    def __call__(self, output):
        return self.reading.class_scores(output).std(dim=1)

    def spec(self):
        return "spread"


def test_a_target_on_scores_finds_them_in_any_output_and_is_no_answer():
    scores, hidden = noise(2, 5), noise(2, 8, 4, 4)
    target = Spread()
    assert torch.equal(target({"logits": scores, "hidden": hidden}), scores.std(dim=1))
    assert target.lead(scores, {}) is None
    assert target.name(LABELS) == "spread"
