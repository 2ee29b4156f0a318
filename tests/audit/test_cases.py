"""Similar pictures and influence beside values by hand, and planted leaks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.reliances import CLASSES, trained, world
from torch import nn

import pellucid as pl
from helpers.audits import saved, table
from pellucid.audit.cases import cases, influences, leaked, likeness


def head_table(count, layer, seed):
    """Samples whose answers a linear layer makes of their embedding."""
    rng = np.random.default_rng(seed)
    s = table()
    h = rng.normal(size=(count, layer.in_features)).astype(np.float32)
    scores = layer(torch.from_numpy(h)).detach()
    rows = {"embedding": h, "scores": scores.numpy(), "probabilities": scores.softmax(1).numpy()}
    few = {name: getattr(s, name)[:count] for name in ("positions", "maps", "properties", "boxes", "thumbs")}
    return replace(s, **few, **rows, truth=rng.integers(0, layer.out_features, count))


def gradient(layer, s, i):
    """Of one sample's cross-entropy to weights and bias, by autograd."""
    loss = nn.functional.cross_entropy(layer(torch.from_numpy(s.embedding[i])), torch.tensor(s.truth[i]))
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, layer.parameters())])


def test_influence_is_the_dot_product_of_gradients():
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)
    one, pool = head_table(6, layer, 0), head_table(9, layer, 1)
    pool.truth[4] = -1
    found = influences(one, [0, 3], pool)
    for q, i in enumerate((0, 3)):
        for j in range(9):
            by_hand = 0.0 if j == 4 else float(gradient(layer, one, i) @ gradient(layer, pool, j))
            assert found[q, j] == pytest.approx(by_hand, abs=1e-5)


def test_likeness_is_the_cosine_about_the_mean():
    pool = np.array([[1.0, 0], [0, 1], [-1, -1]])
    rows = np.array([[2.0, 0]])
    np.testing.assert_allclose(likeness(rows, pool), [[1, 0, -np.sqrt(0.5)]], atol=1e-12)


def test_beside_a_wrong_answer_stand_its_neighbours_and_what_pulls_towards_it():
    torch.manual_seed(1)
    layer = nn.Linear(5, 3)
    s = head_table(40, layer, 2)
    found = cases(s, s, [f"{i}.png" for i in range(40)], ["a", "b", "c"])
    assert len(found) == 6
    assert [c.row for c in found] == sorted(np.flatnonzero(s.wrong), key=lambda i: -s.confidence[i])[:6]
    for c in found:
        near = likeness(s.embedding[[c.row]], s.embedding)[0]
        near[c.row] = -9
        assert [b.source for b in c.alike] == [f"{i}.png" for i in np.argsort(-near)[:3]]
        pull = -influences(s, [c.row], s)[0]
        pull[c.row] = -9
        assert c.pulls[0].source == f"{pull.argmax()}.png"
        assert c.pulls[0].value == pytest.approx(pull.max())
        assert f"{c.row}.png" not in {b.source for b in (*c.alike, *c.pulls)}


def test_planted_leaks_are_found():
    one, other = table(), table(seed=5)
    assert leaked(one, other) == ()
    other.thumbs[7], other.embedding[7] = one.thumbs[3], one.embedding[3]
    assert leaked(one, other) == (3,)


def test_an_audit_beside_training_pictures_shows_them_and_tells_leaks(tmp_path):
    model = trained("mark", count=300, epochs=4)
    learned, own = world("mark", 60, seed=1), world("mark", 60, seed=2, told=0.3)
    own.pixels[4] = learned.pixels[7]
    home = saved(learned, tmp_path / "learned")
    found = pl.audit(model, saved(own, tmp_path / "own"), training=home)
    assert len(found.leaked) == 1
    assert any("also among the training pictures: 1." in line for line in found.lines())
    assert found.cases
    assert all(str(home) in b.source for c in found.cases for b in (*c.alike, *c.pulls))
    assert {b.label for c in found.cases for b in c.alike} <= set(CLASSES)
    again = pl.read(found.save(tmp_path / "out")[0])
    assert again.cases == found.cases
    assert again.leaked == found.leaked
    assert again.table() == found.table()
    page = found.html()
    assert "similar pictures" in page
    assert "Whose lesson speaks most against its label" in page


def test_training_pictures_that_lack_a_class_or_are_broken_are_no_error(tmp_path):
    model = trained("mark", count=300, epochs=4)
    learned = world("mark", 30, seed=1)
    learned.pixels, learned.labels = learned.pixels[learned.labels > 0], learned.labels[learned.labels > 0]
    home = saved(learned, tmp_path / "learned")
    (home / CLASSES[1] / "broken.png").write_bytes(b"no picture")
    found = pl.audit(model, world("mark", 60, seed=2, told=0.3), training=home)
    assert found.leaked == ()
    assert found.cases
    assert {b.label for c in found.cases for b in c.alike} <= set(CLASSES[1:])
