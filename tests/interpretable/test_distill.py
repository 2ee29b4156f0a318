"""From pictures to readable models: words, cards, files, the command; on a planted world and on real digits."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pellucid as pl
from pellucid import storage
from pellucid.cli import main
from pellucid.concepts import get_dictionary
from pellucid.interpretable import fidelity, frontier
from pellucid.interpretable.learn import KINDS, Lesson, WordColumns, find_concepts, find_parts, learn, split
from pellucid.interpretable.linear import SparseLinear
from pellucid.interpretable.tree import Tree
from pellucid.interpretable.words import Attributes, ChannelWords, ConceptWords, Parts, PropertyWords, words_from
from pellucid.results.distilled import Distilled
from pellucid.verbs.distill import distill, recompute

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Three classes of 16 x 16 pictures: a red square, a green bar, a blue cross, at random places."""
    folder, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    rows = ["file,red,wide"]
    for k, name in enumerate(("bar", "cross", "square")):
        (folder / name).mkdir()
        for i in range(24):
            picture = rng.integers(0, 60, (16, 16, 3)).astype(np.uint8)
            y, x = rng.integers(2, 10, 2)
            if name == "square":
                picture[y : y + 4, x : x + 4, 0] = 230
            elif name == "bar":
                picture[y : y + 2, x - 2 : x + 6, 1] = 230
            else:
                picture[y - 2 : y + 3, x, 2] = picture[y, x - 2 : x + 3, 2] = 230
            Image.fromarray(picture).save(folder / name / f"{i}.png")
            rows.append(f"{name}/{i}.png,{int(k == 2)},{int(k == 0)}")
    (folder / "attributes.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def tree(world):
    return distill(world, "tree", "cnn", cache=None)


# Words


@pytest.mark.parametrize("by", ["nmf", "semi-nmf", "pca", "ica", "sae", "kmeans"])
def test_the_gradient_of_codes_is_that_of_finite_differences(by):
    rng = np.random.default_rng(1)
    A = np.abs(rng.standard_normal((80, 6)) @ rng.random((6, 6))).astype(np.float32)
    words = ConceptWords(get_dictionary(by, count=4, seed=0).fit(A))
    x = torch.from_numpy(A[:5])[:, None].clone().requires_grad_()
    weights = torch.tensor([1.0, -2.0, 0.5, 1.5])
    (slope,) = torch.autograd.grad((words(x) * weights).sum(), x)
    step = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) * 1e-2
    with torch.no_grad():
        change = ((words(x + step) - words(x - step)) * weights).sum((1,)) / 2
    predicted = (slope * step).sum((1, 2))
    close = (change - predicted).abs() <= 0.05 * change.abs() + 2e-4
    assert close.float().mean() >= 0.8, (change, predicted)  # a code may switch on or off within the step


def test_words_come_back():
    rng = np.random.default_rng(2)
    values = rng.random((10, 2, 3, 5)).astype(np.float32)
    A = torch.from_numpy(values.reshape(10, 6, 5))
    patches = values.reshape(-1, 5)[:3]
    for words in (
        ChannelWords(list("abcde"), "max"),
        ConceptWords(get_dictionary("nmf", count=3, seed=0).fit(values.reshape(-1, 5))),
        Parts(patches, np.array([[0, 0], [0, 1], [0, 2]])),
        Attributes(rng.random((5, 2)), rng.random(2), ["p", "q"]),
    ):
        again = words_from(json.loads(json.dumps(words.about())), words.arrays())
        torch.testing.assert_close(again(A), words(A))
        assert again.names == words.names
        np.testing.assert_allclose(words.rows(values, np.array([3, 1])), words(A[[3, 1]]).numpy(), rtol=1e-6)
    pixels = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(words_from(PropertyWords(3).about(), {})(pixels), PropertyWords(3)(pixels))


def test_properties_are_what_they_are_called():
    half = torch.zeros(1, 3, 8, 8)
    half[..., :4] = 1
    row = dict(zip(PropertyWords().names, PropertyWords()(half)[0].tolist(), strict=True))
    assert row["brightness"] == pytest.approx(0.5)
    assert row["vertical edges"] == pytest.approx(1, abs=1e-4)
    assert row["red"] == pytest.approx(1 / 3, abs=1e-4)
    red = torch.zeros(1, 3, 8, 8)
    red[:, 0] = 0.7
    row = dict(zip(PropertyWords().names, PropertyWords()(red)[0].tolist(), strict=True))
    assert row["red"] == pytest.approx(1, abs=1e-4)
    assert row["contrast"] == pytest.approx(0, abs=1e-4)


def test_parts_are_real_patches_and_score_one_where_they_are_from():
    rng = np.random.default_rng(3)
    values = rng.standard_normal((12, 2, 2, 7)).astype(np.float32)
    codes = np.arange(12) % 3
    parts = find_parts(values, np.arange(12), codes, ["a", "b", "c"], 2, 0)
    assert len(parts.names) == 6
    for patch, (picture, cell) in zip(parts.patches.numpy(), parts.where, strict=True):
        np.testing.assert_array_equal(patch, values[picture].reshape(4, 7)[cell])
    X = parts.rows(values, np.arange(12))
    for p, (picture, _) in enumerate(parts.where):
        assert X[picture, p] == pytest.approx(1, abs=1e-6)
        assert codes[picture] == "abc".index(parts.names[p][0])


def test_attributes_are_read_off_a_layer():
    rng = np.random.default_rng(4)
    pooled = rng.standard_normal((300, 8))
    truth = np.stack([pooled[:, 2] * 2 + 1, pooled[:, 5] - pooled[:, 0]], 1)
    words = Attributes.fit(pooled, truth, ["p", "q"])
    found = words(torch.from_numpy(pooled).float()[:, None]).numpy()
    np.testing.assert_allclose(found, truth, atol=0.05)


# Cards and fronts


def test_the_card_by_hand():
    teacher = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.3, 0.7]])
    student = np.array([[0.9, 0.1], [0.3, 0.7], [0.1, 0.9], [0.3, 0.7]])
    card = fidelity.measure(student, teacher, complexity=3, unit="leaves", truth=np.array([0, 1, 1, 0]))
    assert card.agreement.value == 0.75
    assert card.wrong == [1]
    assert card.accuracy.value == 0.75
    assert card.teacher_accuracy.value == 0.5
    expected = (0.8 * np.log(0.8 / 0.9) + 0.2 * np.log(0.2 / 0.1) + 0.6 * np.log(2) + 0.4 * np.log(0.4 / 0.7)) / 4
    assert card.divergence.value == pytest.approx(expected)
    a, b = np.log(student), np.log(teacher)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    assert card.r2.value == pytest.approx(1 - ((a - b) ** 2).sum() / ((b - b.mean(0)) ** 2).sum())
    assert card.agreement.low <= 0.75 <= card.agreement.high
    assert fidelity.Fidelity.from_dict(card.as_dict()) == card


def test_the_simplest_model_within_a_standard_error_is_taken():
    rng = np.random.default_rng(5)
    X = rng.random((400, 4))
    y = np.where(X[:, 0] > 0.5, 1, 0)
    model, _ = frontier.choose(Tree(6, smallest=1).fit(X, y), X, np.eye(2)[y])
    assert model.complexity_ == 2
    noisy = np.where(rng.random(400) < 0.1, 1 - y, y)
    model, points = frontier.choose(Tree(6, smallest=1).fit(X, noisy), X, np.eye(2)[noisy])
    assert model.complexity_ <= 4
    assert [p.complexity for p in points if p.chosen] == [model.complexity_]
    assert max(p.complexity for p in points) > 10


@pytest.mark.parametrize("kind", ["tree", "bottleneck", "rules"])
def test_a_teacher_on_known_words_is_imitated_exactly_and_random_words_score_lower(kind):
    rng = np.random.default_rng(6)
    X, noise = rng.random((300, 8)), rng.random((300, 8))
    y = (X[:, 1] > 0.5) + 2 * (X[:, 4] > 0.6)
    if kind == "bottleneck":
        y = (4 * (X - 0.5) @ rng.standard_normal((8, 4)) * [1, 1, 0, 1]).argmax(1)
    answers = np.eye(4)[y]
    words, chance = ChannelWords([f"w{j}" for j in range(8)]), ChannelWords([f"r{j}" for j in range(8)])
    at = split(y, np.array(list("abcd")), 0)
    lesson, known, unknown = Lesson(answers, list("abcd"), at, y), WordColumns(words, X), WordColumns(chance, noise)
    found = learn(kind, known, lesson, chance=unknown)
    assert found.card.agreement.value >= {"tree": 0.97, "rules": 0.93, "bottleneck": 0.9}[kind]
    assert found.card.baselines["random concepts"].high < found.card.agreement.low
    assert found.card.baselines["majority class"].high < found.card.agreement.low
    if kind == "tree":
        assert {int(j) for j in found.head.feature_ if j >= 0} == {1, 4}
    lost = learn(kind, unknown, lesson, chance=known)
    assert any("Random concepts do as well" in n for n in lost.card.notes)


def test_concepts_are_found_in_training_pictures_alone():
    values = np.abs(np.random.default_rng(7).standard_normal((30, 2, 2, 6))).astype(np.float32)
    rows = np.arange(0, 30, 2)
    a = find_concepts(values, rows, "nmf", 3, 0)
    other = values.copy()
    other[1::2] = 99
    np.testing.assert_array_equal(find_concepts(other, rows, "nmf", 3, 0).components_, a.components_)


# Whole

_QUICK = ("tree", "prototypes", "additive")  # the last needs an extra and more pictures


@pytest.mark.parametrize(
    "into", ["tree", "prototypes", *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS if k not in _QUICK)]
)
def test_every_kind_learns_the_planted_world(world, into, tmp_path):
    made = distill(world, into, "cnn", cache=None)
    assert made.card.agreement.value >= 0.7
    assert made.card.agreement.value > made.card.baselines["majority class"].value
    files = made.save(tmp_path)
    assert {f.suffix for f in files} == {".npz", ".json", ".png", ".svg", ".html"}
    back = Distilled.load(files[0])
    np.testing.assert_array_equal(back.probabilities(), made.probabilities())
    picture = str(world / "square" / "3.png")
    assert str(back.explain(picture)) == str(made.explain(picture))
    model = pl.load(str(files[0].with_suffix("")))
    assert model.labels == ("bar", "cross", "square")
    x, _ = model.preprocess(pl.read_image(picture))
    answer = model.predict(x[None])[0][0]
    assert (answer.label, pytest.approx(answer.probability, abs=1e-4)) == made.predict(picture)


@pytest.mark.slow
def test_a_readable_model_is_explained_like_any_other(world, tmp_path):
    made = distill(world, "bottleneck", "cnn", cache=None)
    made.save(tmp_path, "model")
    model = pl.load(str(tmp_path / "model"))
    e = pl.explain(model, str(world / "square" / "5.png"), method="grad-cam")
    assert e.attribution.abs().max() > 0
    stepped = distill(world, "tree", "cnn", cache=None).model()
    e = pl.explain(stepped, str(world / "square" / "5.png"), method="occlusion")
    assert e.attribution.shape[0] == 1


def test_setting_a_word_by_hand_moves_the_answer(world):
    made = distill(world, "bottleneck", "cnn", concepts="attributes", cache=None)
    assert made.words.names == ["red", "wide"]
    square = str(world / "square" / "2.png")
    before = made.explain(square, "square")
    after = made.set(square, {"red": 0.0, "wide": 1.0})
    assert before.label == "square"
    assert after.label == "bar"
    row = np.array([0.0, 1.0])
    assert after.probability == pytest.approx(made.head.predict_proba(row[None])[0, 0])
    with pytest.raises(pl.PellucidError, match="no word 'blue'"):
        made.set(square, {"blue": 1.0})


def test_labels_alone_can_be_learned_without_a_teacher(world):
    made = distill(world, "tree", model=_small(), concepts="properties", cache=None)
    assert not made.taught
    assert made.card.agreement == made.card.accuracy
    assert made.card.accuracy.value > 0.9
    assert {made.head.names_[j] for j in made.head.feature_ if j >= 0} <= set(PropertyWords().names)


def _small():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    )
    look = pl.Preprocess(input_size=(16, 16), resize=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    return pl.wrap(net.eval(), transform=look, labels=["one", "two", "three"])


def test_the_own_hierarchy_of_a_teacher_is_exact(world):
    made = distill(world, "hierarchy", "cnn", cache=None)
    assert made.card.agreement.value == 1
    assert made.card.r2.value == pytest.approx(1, abs=1e-3)


def test_verify_learns_it_again(tree, tmp_path):
    files = tree.save(tmp_path)
    assert pl.verify(files[0]).status in ("same", "within tolerance")


def test_the_page_shows_ways_through_the_tree_and_escapes_what_it_says(tree):
    tree.labels[0] = "<b>bar</b>"
    try:
        page = tree.html()
    finally:
        tree.labels[0] = "bar"
    assert "<b>bar" not in page
    assert 'id="edge-' in page
    assert 'data-path="0 ' in page


def test_names_that_differ_from_the_teachers_are_said(world):
    made = distill(world, "nearest", _small(), cache=None) if _answers_vary(world) else None
    if made is not None:
        assert any("none of the teacher's labels" in n for n in made.notes)
        assert made.card.accuracy is None


def _answers_vary(world):
    model = _small()
    x = torch.stack([model.preprocess(pl.read_image(str(p)))[0] for p in sorted(world.rglob("*.png"))])
    return len(np.flatnonzero(np.bincount(model.outputs(x).argmax(1)) >= 4)) > 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["WORLD", "--into", "forest"], "There is no readable model 'forest'"),
        (["WORLD", "--concepts", "dreams"], "There are no concepts 'dreams'"),
        (["WORLD", "--into", "tree", "--features", "3"], "tree has no --features"),
        (["FLAT"], "no classes and there is no teacher"),
        (["FEW"], "has 2 pictures, and 4 are needed"),
        (["ONE"], "All pictures are of one class"),
        (["nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_sentence(world, tmp_path, capsys, arguments, sentence):
    for name, counts in {"FLAT": {"": 5}, "FEW": {"a": 5, "b": 2}, "ONE": {"a": 6}}.items():
        for sub, count in counts.items():
            (tmp_path / name / sub).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                Image.new("RGB", (16, 16), (i * 20, 0, 0)).save(tmp_path / name / sub / f"{i}.png")
    places = {"WORLD": str(world), **{n: str(tmp_path / n) for n in ("FLAT", "FEW", "ONE")}}
    out = tmp_path / "out"
    code = main(["distill", *[places.get(a, a) for a in arguments], "--out", str(out)])
    error = capsys.readouterr().err
    assert code == 1
    assert sentence in error
    assert error.count("\n") == 1
    assert not list(out.glob("*"))


def test_the_command(world, tmp_path, capsys):
    square = str(world / "square" / "1.png")
    out = str(tmp_path / "out")
    code = main(
        ["distill", str(world), "--teacher", "cnn", "--depth", "3", "--explain", square, "--out", out, "--json"]
    )
    report = json.loads(capsys.readouterr().out)
    assert code == 0
    found = report["results"][0]
    assert found["card"]["agreement"]["value"] > 0.7
    assert found["explained"]["text"].startswith("square")
    assert all(Path(f).is_file() for f in found["files"])


# Real data


@pytest.mark.slow
def test_digits():
    """A tree on concepts agrees on 80 % or more; a sparse linear model is within 2 points of the dense one.

    How good the concepts are that a seed finds, hangs on the seed and on how the processor rounds (0.59 to 0.86 was
    seen), so the best of five is asked for; and the card must say where random concepts do as well.
    """
    trees = [distill("digits:", "tree", "cnn", seed=seed) for seed in range(5)]
    assert max(tree.card.agreement.value for tree in trees) >= 0.8
    for tree in trees:
        assert max(n.depth for n in tree.head.nodes()) <= 6
        assert tree.card.agreement.low > tree.card.baselines["majority class"].high
        beaten = tree.card.baselines["random concepts"].value < tree.card.agreement.value
        assert beaten or any(note.startswith("Random concepts do as well") for note in tree.card.notes)
    sparse = distill("digits:", "linear", "cnn")
    train = np.setdiff1d(np.arange(len(sparse.X)), sparse.held)
    dense = SparseLinear(penalty=1e-4, l1_ratio=0.0).fit(sparse.X[train], sparse.answers[train].argmax(1))
    best = (dense.predict(sparse.X[sparse.held]) == sparse.answers[sparse.held].argmax(1)).mean()
    assert sparse.card.agreement.value >= best - 0.02
    assert sparse.head.complexity_ < 0.5 * sparse.X.shape[1] * 10


real = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real pictures of ../shared/data, which are not here")


@pytest.mark.slow
@real
@pytest.mark.parametrize(("into", "least"), [("tree", 0.4), ("bottleneck", 0.6), ("linear", 0.7)])
def test_cifars_network_as_a_teacher(into, least, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SHARED / "code"))
    import zoo

    stored = np.load(SHARED / "images/cifar10_test_500.npz")
    for i, (pixels, k) in enumerate(zip(stored["x"], stored["y"].ravel(), strict=True)):
        (tmp_path / zoo.CIFAR[int(k)]).mkdir(exist_ok=True)
        picture = pixels if pixels.shape[-1] == 3 else pixels.transpose(1, 2, 0)
        Image.fromarray(np.ascontiguousarray(picture)).save(tmp_path / zoo.CIFAR[int(k)] / f"{i}.png")
    module, about = zoo.resnet20_cifar()
    look = pl.Preprocess(input_size=(32, 32), resize=(32, 32), mean=about["mean"], std=about["std"])
    made = distill(tmp_path, into, pl.wrap(module, transform=look, labels=about["labels"]), cache=None)
    assert made.card.teacher_accuracy.value > 0.85
    assert made.card.agreement.value >= least
    assert made.card.agreement.low > made.card.baselines["majority class"].value
    print(made.card.line)


@pytest.mark.slow
@real
@pytest.mark.parametrize(
    ("table", "column", "least"),
    [("medical/skin_ham10000/labels.csv", "dx", 0.3), ("images/gtsrb_test/labels.csv", "class_id", 0.3)],
)
def test_real_pictures_on_the_embedded_models_features(table, column, least, tmp_path):
    with (SHARED / table).open() as file:
        rows = list(csv.DictReader(file))
    lines = ["file,class"]
    for row in rows:
        (tmp_path / row["file"]).write_bytes((SHARED / table).with_name(row["file"]).read_bytes())
        lines.append(f"{row['file']},{row[column]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    made = distill(tmp_path, "bottleneck", cache=None)
    assert made.card.accuracy.value >= least
    assert made.card.accuracy.low > made.card.baselines["majority class"].value
    print(made.card.line)


def patterned(folder, classes=2, each=12):
    """Pictures `16 x 16` of stripes, upright or lying, with noise."""
    draw = np.random.default_rng(3)
    for c in range(classes):
        (folder / f"kind {c}").mkdir(parents=True)
        for k in range(each):
            stripes = np.broadcast_to((np.arange(16) // 2 % 2 * 160)[None, :], (16, 16))
            pixels = (stripes if c else stripes.T) + draw.integers(0, 60, (16, 16))
            shown = np.repeat(pixels[..., None], 3, 2).astype(np.uint8)
            Image.fromarray(shown).save(folder / f"kind {c}" / f"{k}.png")
    return folder


def formula_network():
    net = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    with torch.no_grad():
        for k, p in enumerate(net.parameters()):
            n = torch.arange(p.numel(), dtype=torch.float64)
            p.copy_((torch.sin(n * (k + 1.7) * 0.9 + k) / 3).view_as(p))
    look = pl.Preprocess(input_size=(16, 16), resize=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    return pl.wrap(net.eval(), transform=look, labels=["kind 0", "kind 1"])


@pytest.mark.parametrize("into", ["tree", "linear"])
def test_what_was_learned_beside_kept_weights_is_learned_again_exactly(into, tmp_path):
    made = pl.distill(patterned(tmp_path / "in"), into, model=formula_network(), concepts="none", cache=None)
    files = made.save(tmp_path / "out")
    assert pl.verify(files[0], model=formula_network()).status == "same"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_teacher_trained_anew_is_compared_with_that_of_the_record(elsewhere, tmp_path, monkeypatch):
    from pellucid.interpretable import small_cnn
    from pellucid.verbs.distill import RETRAINED

    look = patterned(tmp_path / "in")
    model = formula_network() if elsewhere else None  # the words are another network's than the teacher's
    made = pl.distill(look, "tree", "cnn", model=model, concepts="none", cache=None)
    stored = storage.read_artefact(made.save(tmp_path / "out")[0], ["pellucid-surrogate/1"])
    assert recompute(stored, model, None).reasons == []
    monkeypatch.setattr(small_cnn, "_EPOCHS", small_cnn._EPOCHS - 1)  # stands in for another machine
    again = recompute(stored, model, None)
    assert again.reasons == [RETRAINED]


def test_a_tree_that_asks_other_questions_is_said_to_be_another(tmp_path, monkeypatch):
    made = pl.distill(patterned(tmp_path / "in"), "tree", model=formula_network(), concepts="none", cache=None)
    files = made.save(tmp_path / "out")
    real = WordColumns.of

    def shuffled(*asked, **how):
        columns = real(*asked, **how)
        return WordColumns(columns.words, columns.X[:, ::-1].copy())  # the questions are about other columns

    monkeypatch.setattr(WordColumns, "of", shuffled)
    found = pl.verify(files[0], model=formula_network())
    assert found.status == "different"
    assert len(found.reasons) == 1
    assert "the tree that could be rebuilt is another one" in found.reasons[0]
