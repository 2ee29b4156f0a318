"""Readable classifiers against oracles, planted truths and scikit-learn's contract."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import check_estimator

from pellucid.errors import DataError
from pellucid.interpretable import bcos
from pellucid.interpretable.additive import Additive
from pellucid.interpretable.bcos import BcosHead, BcosNet, contributions
from pellucid.interpretable.elastic_net import largest_penalty, path
from pellucid.interpretable.examples import Neighbours, Prototypes
from pellucid.interpretable.hierarchy import Hierarchy
from pellucid.interpretable.linear import SparseLinear
from pellucid.interpretable.rules import Rules
from pellucid.interpretable.tree import Tree

HEADS = [
    Tree(3),
    SparseLinear(),
    Rules(4),
    Prototypes(2),
    Neighbours(3),
    Hierarchy(),
    Hierarchy("mean"),
    BcosHead(8, epochs=5),
    Additive(3),
]
IDS = [f"{h.kind}-{i}" for i, h in enumerate(HEADS)]


def blobs(seed=0, rows=120, columns=6, classes=3):
    rng = np.random.default_rng(seed)
    centres = 2.5 * rng.standard_normal((classes, columns))
    y = np.arange(rows) % classes
    return centres[y] + rng.standard_normal((rows, columns)), y


@pytest.mark.parametrize("head", HEADS, ids=IDS)
def test_saved_and_restored_models_answer_the_same(head):
    X, y = blobs()
    model = type(head)(**head.get_params()).fit(X, y, names=[f"n{j}" for j in range(6)])
    back = type(head).from_dict(model.as_dict(), model.arrays())
    np.testing.assert_array_equal(back.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(back.predict(X), model.predict(X))
    assert str(back) == str(model)
    assert [r.text for r in back.reasons(X[5])] == [r.text for r in model.reasons(X[5])]
    assert back.complexity_ == model.complexity_ > 0
    assert model.score(X, y) > 0.8
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1)


@pytest.mark.parametrize("head", [Tree(3), SparseLinear(), Rules(4), Prototypes(2), Neighbours(3), Hierarchy()])
def test_scikit_learns_contract(head):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(head, on_fail=None)
    failed = [f"{f['check_name']}: {f['exception']!r}" for f in found if f["status"] == "failed"]
    assert not failed
    assert sum(f["status"] == "passed" for f in found) > 30


@pytest.mark.parametrize("head", HEADS, ids=IDS)
def test_one_class_is_one_sentence(head):
    with pytest.raises(DataError, match="only one class"):
        type(head)(**head.get_params()).fit(np.random.default_rng(0).random((9, 3)), np.zeros(9))


def test_a_tree_is_scikit_learns_on_hard_labels():
    X, y = blobs(1, 200)
    ours = Tree(4, smallest=2).fit(X, y)
    theirs = DecisionTreeClassifier(max_depth=4, min_samples_leaf=2, random_state=0).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)
    assert ours.complexity_ == theirs.get_n_leaves()
    assert ours.path(X[7])[-1] == theirs.apply(X[7:8])[0]


def test_a_teacher_that_is_a_tree_is_recovered():
    X = np.random.default_rng(3).random((400, 5))
    y = np.where(X[:, 2] > 0.5, np.where(X[:, 4] > 0.3, 2, 1), 0)
    tree = Tree(6).fit(X, y)
    assert tree.score(X, y) == 1
    assert tree.complexity_ == 3
    assert tree.feature_[0] == 2
    assert abs(tree.threshold_[0] - 0.5) < 0.02
    assert {int(j) for j in tree.feature_ if j >= 0} == {2, 4}
    reasons = tree.reasons(X[int(np.flatnonzero(y == 2)[0])])
    assert [r.feature for r in reasons] == [2, 4]
    assert all(r.text.startswith(("x2 > ", "x4 > ")) for r in reasons)
    assert "if x2 > 0.5" in str(tree)


def test_soft_labels_say_more_than_hard_ones():
    X = np.linspace(0, 1, 200)[:, None]
    soft = np.hstack([0.9 - 0.3 * (X > 0.5), 0.1 + 0.3 * (X > 0.5)])  # the top class never changes
    y = np.zeros(200)
    y[0] = 1  # both classes have to be there
    tree = Tree(1).fit(X, y, soft=soft)
    assert abs(tree.threshold_[0] - 0.5) < 0.01
    np.testing.assert_allclose(sorted(tree.value_[1:, 0]), [0.6, 0.9], atol=1e-9)


def test_pruned_trees_grow_from_simple_to_complex():
    X, y = blobs(2, 300, classes=4)
    tree = Tree(6).fit(X, y)
    sizes = [t.complexity_ for t in tree.simpler(X, np.eye(4)[y])]
    assert sizes == sorted(sizes)
    assert sizes[-1] == tree.complexity_


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_the_elastic_net_is_scikit_learns(l1_ratio):
    X, y = blobs(4, 150, 12)
    Z, P = (X - X.mean(0)) / X.std(0), np.eye(3)[y]
    penalty = 0.15 * largest_penalty(Z, P, 1.0)
    *_, ours = path(Z, P, [4 * penalty, 2 * penalty, penalty], l1_ratio=l1_ratio)
    theirs = LogisticRegression(l1_ratio=l1_ratio, solver="saga", C=1 / (penalty * 150), max_iter=20000, tol=1e-8)
    theirs.fit(Z, y)
    np.testing.assert_allclose(ours.weights, theirs.coef_.T, atol=5e-3)
    assert np.array_equal(ours.weights != 0, np.abs(theirs.coef_.T) > 1e-6)


def test_the_path_meets_the_optimality_conditions():
    X, y = blobs(5, 90, 200)  # more columns than rows: screening is at work
    Z, P = (X - X.mean(0)) / X.std(0), np.eye(3)[y]
    top = largest_penalty(Z, P, 1.0)
    assert not next(iter(path(Z, P, [top * 1.0001], l1_ratio=1.0))).weights.any()
    for fit in path(Z, P, list(np.geomspace(top, 0.05 * top, 6)), l1_ratio=1.0):
        scores = Z @ fit.weights + fit.intercept
        odds = np.exp(scores - scores.max(1, keepdims=True))
        slope = Z.T @ (odds / odds.sum(1, keepdims=True) - P) / 90
        assert np.abs(slope).max() <= fit.penalty * 1.02
        alive = fit.weights != 0
        np.testing.assert_allclose(slope[alive], -fit.penalty * np.sign(fit.weights[alive]), rtol=0.03)


def test_a_linear_teacher_is_recovered():
    rng = np.random.default_rng(6)
    X = rng.standard_normal((600, 20))
    truth = np.zeros((20, 2))
    truth[[3, 11], 1] = [2.0, -1.5]
    scores = X @ truth
    soft = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    model = SparseLinear(penalty=0.02).fit(X, scores.argmax(1), soft=soft)
    assert set(np.flatnonzero(model.weights_.any(1))) == {3, 11}
    assert (model.predict(X) == scores.argmax(1)).mean() > 0.995
    weights = model.weights_ / model.scale_[:, None]
    np.testing.assert_allclose((weights[:, 1] - weights[:, 0])[[3, 11]], [2.0, -1.5], rtol=0.1)


def test_linear_reasons_add_up_and_interventions_move_the_score_as_stated():
    X, y = blobs(7)
    model = SparseLinear(penalty=0.01).fit(X, y, names=list("abcdef"))
    scores = model.scores(X[:1])[0]
    for k in range(3):
        parts = model.reasons(X[0], k)
        assert sum(r.contribution for r in parts) + model.intercept_[k] == pytest.approx(scores[k])
    moved = model.intervene(X[0], {"b": X[0, 1] + 2.0})
    np.testing.assert_allclose(moved - scores, 2.0 * model.weights_[1] / model.scale_[1])
    with pytest.raises(DataError, match="no column 'z'"):
        model.intervene(X[0], {"z": 1.0})


def test_a_limit_on_words_holds():
    X, y = blobs(8, 200, 30)
    for most in (1, 3):
        model = SparseLinear(features=most).fit(X, y)
        assert 0 < model.complexity_ <= 3 * most
    assert (SparseLinear(positive=True).fit(X, y).weights_ >= 0).all()


def test_rules_find_a_planted_list():
    X = np.random.default_rng(9).random((500, 6))
    y = np.where((X[:, 1] > 0.6) & (X[:, 4] <= 0.5), 1, np.where(X[:, 0] > 0.7, 2, 0))
    model = Rules(5, conditions=2).fit(X, y)
    assert model.score(X, y) > 0.9
    assert {1, 4, 0} <= {c.feature for rule in model.rules_ for c in rule}
    fired = model.fired(X)
    for rule, conditions in enumerate(model.rules_):  # the first that fits, by hand
        fits = np.logical_and.reduce([c.holds(X) for c in conditions])
        assert (fired[fits] <= rule).all()
    assert model.share_.sum() == pytest.approx(1)


def test_prototypes_are_training_rows_and_neighbours_are_the_nearest():
    X, y = blobs(10)
    model = Prototypes(2).fit(X, y)
    np.testing.assert_allclose(model.rows_, model.standardised(X)[model.index_])
    assert set(y[model.index_]) == {0, 1, 2}
    near = Neighbours(4).fit(X, y)
    by_hand = ((near.standardised(X) - near.standardised(X[:1])) ** 2).mean(1).argsort(kind="stable")[:4]
    assert [r.row for r in near.reasons(X[0])] == by_hand.tolist()
    np.testing.assert_allclose(near.predict_proba(X[:1])[0], np.eye(3)[y[by_hand]].mean(0), atol=1e-5)


def test_additive_models_keep_what_the_boosting_learned():
    interpret = pytest.importorskip("interpret.glassbox", reason="interpret-core is not installed (extra gam)")
    for classes in (2, 3):
        X, y = blobs(11, 150, 4, classes)
        ours = Additive(4).fit(X, y)
        theirs = interpret.ExplainableBoostingClassifier(
            interactions=0, max_bins=32, outer_bags=4, n_jobs=1, random_state=0
        ).fit(X, y)
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-9)
        parts = ours.reasons(X[3], ours.classes_[1])
        assert sum(r.contribution for r in parts) + ours.intercept_[1] == pytest.approx(ours.scores(X[3:4])[0, 1])


def test_a_hierarchy_ends_at_the_flat_models_answer():
    rng = np.random.default_rng(12)
    W, b, X = rng.standard_normal((7, 5)), rng.standard_normal(7), rng.standard_normal((200, 5))
    model = Hierarchy.of(W, b, list("abcdefg"))
    flat = (X @ W.T + b).argmax(1)
    assert [model.way(x)[-1][0] for x in X] == flat.tolist()
    assert (model.predict(X) == np.array(list("abcdefg"))[flat]).all()
    assert model.complexity_ == 6


def test_classes_with_like_weights_share_a_group():
    W = np.array([[1, 0, 0.1], [1, 0.1, 0], [0, 1, 0], [-0.1, 1, 0.1]])
    model = Hierarchy.of(W, np.zeros(4), ["cat", "lynx", "car", "van"])
    assert {frozenset(m) for m in model.members_} >= {frozenset({0, 1}), frozenset({2, 3})}
    assert model.reasons(np.array([2.0, 0.1, 0.0]))[0].text.startswith("cat, lynx rather than car, van")


def test_in_a_mean_hierarchy_probabilities_multiply_down_the_way():
    X, y = blobs(13, classes=4)
    model = Hierarchy("mean").fit(X, y)
    np.testing.assert_allclose(np.exp(model.scores(X)).sum(1), 1)
    way, nodes, p = model.way(X[0]), model._nodes(model._flat(X[:1]))[0], 1.0
    for taken, left, _ in way:
        p *= np.exp(nodes[taken]) / (np.exp(nodes[taken]) + np.exp(nodes[left]))
    assert p == pytest.approx(np.exp(model.scores(X[:1])[0, way[-1][0]]))


def test_a_b_cos_head_is_an_exact_sum():
    X, y = blobs(14)
    model = BcosHead(16, epochs=10).fit(X, y)
    W, Z = model.matrix(X)
    exact = np.einsum("nkd,nd->nk", W, Z) + model.net_.offset.numpy()
    np.testing.assert_allclose(exact, model.scores(X), atol=1e-5)
    parts = model.reasons(X[0], 1)
    offset = float(model.net_.offset[1])
    assert sum(r.contribution for r in parts) + offset == pytest.approx(model.scores(X[:1])[0, 1], abs=1e-5)


def test_a_b_cos_net_is_an_exact_sum_over_places():
    torch.manual_seed(0)
    net, x = BcosNet(3, 4, width=8).double(), torch.rand(5, 3, 9, 7).double()
    classes = torch.tensor([0, 1, 2, 3, 1])
    scores = net(x).gather(1, classes[:, None])[:, 0]
    found = contributions(net, x, classes)
    torch.testing.assert_close(found.sum((1, 2)) + net.offset[classes], scores, atol=1e-9, rtol=0)
    assert found.shape == (5, 9, 7)


def test_a_b_cos_unit_by_hand():
    layer = bcos.BcosLinear(2, 1, b=2.0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0]]))
    assert float(layer(torch.tensor([[1.0, 0.0]])).detach()) == pytest.approx(
        0.6 * 0.6, abs=1e-4
    )  # |cos| times w x / |w|


def test_training_leaves_the_random_state_alone():
    X, y = blobs(15, 40)
    before = torch.random.get_rng_state()
    a = BcosHead(4, epochs=2).fit(X, y).scores(X)
    torch.testing.assert_close(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(a, BcosHead(4, epochs=2).fit(X, y).scores(X))
