import numpy as np
import pytest
import torch

from concepts.test_bank import COLOURS, GREY, NAMES, model
from helpers.cases import save
from pellucid.concepts.cav import concept_vector, separation
from pellucid.concepts.tcav import derivatives, like, lines_of, permutation_test, tcav
from pellucid.errors import DataError, MethodError
from pellucid.media import read_folder
from pellucid.models.features import extract


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize(("kind", "repeats", "draws"), [("pattern", 400, 199), ("logistic", 25, 19)])
def test_random_concepts_are_significant_no_more_often_than_the_level(kind, repeats, draws):
    """Behind a linear tail (one gradient) and behind another, concepts drawn like the random pictures."""
    mix = normal(0, 12, 12)
    false = 0
    for trial in range(repeats):
        generator = np.random.default_rng(trial)
        rows = generator.standard_normal((50, 12)) @ mix
        G = np.tile(generator.standard_normal(12), (20, 1)) if trial % 2 else generator.standard_normal((20, 12))
        _, p, _ = permutation_test(rows[:15], rows[15:], G, kind, draws, seed=trial)
        false += p <= 0.1
    spread = 3 * np.sqrt(0.1 * 0.9 / repeats)
    assert false / repeats <= 0.1 + spread
    assert kind == "logistic" or false / repeats >= 0.1 - spread  # the test is exact, not merely careful


def test_a_planted_concept_is_significant_and_others_are_not():
    generator = np.random.default_rng(0)
    v = generator.standard_normal(12)
    rows = {"planted": normal(1, 20, 12) + v, "random": normal(2, 20, 12)}
    G = {"class": np.tile(v, (30, 1)) + 0.3 * normal(3, 30, 12), "other": normal(4, 30, 12) - normal(4, 30, 12).mean(0)}
    found = {(t.concept, t.target): t for t in tcav(rows, normal(5, 60, 12), G)}
    planted = found["planted", "class"]
    assert planted.significant
    assert planted.score == 1
    assert planted.effect > planted.detectable
    assert planted.separation > 0.9
    assert not found["random", "class"].significant
    assert not found["random", "other"].significant
    assert any("area" in note for note in found["random", "class"].notes)
    assert any("may still be there" in note for note in found["random", "class"].notes)
    assert "significant" in lines_of([planted])[0]
    assert all(t.adjusted >= t.p for t in found.values())
    down = tcav({"planted": rows["planted"]}, normal(5, 60, 12), {"class": -G["class"]})[0]
    assert down.significant
    assert down.score == 0


def test_the_effect_is_the_mean_directional_derivative():
    P, R, G = normal(0, 8, 5), normal(1, 9, 5), normal(2, 7, 5)
    effect, _, effects = permutation_test(P, R, G, draws=50)
    assert effect == pytest.approx(np.mean([g @ (P.mean(0) - R.mean(0)) for g in G]))
    # the random sets, by a plain loop with the same draws
    everything, generator = np.concatenate([P, R]), np.random.default_rng(0)
    for k in range(50):
        order = generator.permutation(17)
        step = everything[order[:8]].mean(0) - everything[order[8:]].mean(0)
        assert effects[k] == pytest.approx(np.mean(G @ step))


def test_the_stated_power_holds():
    """Concepts just as strong as `detectable` says are found about four times in five."""
    G = np.tile(np.eye(6)[0], (5, 1))
    base = tcav({"c": normal(0, 20, 6)}, normal(1, 40, 6), {"t": G}, draws=199)[0]
    hits = 0
    for trial in range(120):
        generator = np.random.default_rng(100 + trial)
        P = generator.standard_normal((20, 6)) + base.detectable * np.eye(6)[0]
        hits += permutation_test(P, generator.standard_normal((40, 6)), G, draws=199, seed=trial)[1] <= 0.05
    assert 0.65 <= hits / 120 <= 0.95


def test_the_pattern_is_the_signal_and_the_logistic_vector_is_not():
    """A disturbing channel shared by both sides: the filter uses it, the pattern does not (Haufe et al., example 1)."""
    generator = np.random.default_rng(0)
    signal, disturbance = np.repeat([1.0, 0.0], 400), generator.standard_normal(800) * 2
    X = np.stack([signal + disturbance, disturbance], 1) + 0.05 * generator.standard_normal((800, 2))
    pattern = concept_vector(X[:400], X[400:])
    weights = concept_vector(X[:400], X[400:], "logistic")
    assert abs(pattern[1] / pattern[0]) < 0.4
    assert weights[1] / weights[0] < -0.8
    assert np.linalg.norm(weights) == pytest.approx(np.linalg.norm(pattern))
    assert separation(X[:400], X[400:], "logistic") > 0.95
    assert separation(X[:400], X[400:]) > 0.5


def test_colours_are_concepts_of_the_colour_net(tmp_path):
    """From pictures to the verdict: the class of a colour rises towards that colour, and towards no random pictures."""
    generator = np.random.default_rng(0)

    def pictures(name, colour, count=8):
        for i in range(count):
            picture = np.full((64, 64, 3), GREY, np.uint8)
            shade = generator.integers(-15, 15, 3)
            picture += np.abs(shade // 3).astype(np.uint8)
            y, x = generator.integers(0, 5, 2) * 8
            if colour is not None:
                picture[y : y + 24, x : x + 24] = np.clip(COLOURS[colour] + shade, 0, 255)
            save(tmp_path / name / f"{i}.png", picture)
        return read_folder(tmp_path / name)

    net = model()
    rows = {n: extract(net, pictures(n, k), "3", cache=None).values for k, n in enumerate(NAMES[:3])}
    mixed = np.concatenate([extract(net, pictures(f"x{k}", k, 6), "3", cache=None).values for k in (None, 0, 1, 2, 3)])
    A, G = derivatives(net, read_folder(tmp_path / "green"), "3", "green")
    np.testing.assert_allclose(A, rows["green"], atol=1e-6)
    np.testing.assert_allclose(G, np.tile(net.module[6].weight.detach()[1], (8, 1)), atol=1e-5)
    found = {t.concept: t for t in tcav(rows, mixed, {"green": G})}
    assert found["green"].significant
    assert found["green"].score == 1
    assert found["green"].effect > 0
    assert found["green"].effect > 3 * abs(found["red"].effect)


def test_random_pictures_are_matched_in_domain(tmp_path):
    generator = np.random.default_rng(0)
    for i in range(6):
        save(tmp_path / "concept" / f"{i}.png", generator.integers(0, 60, (40, 40, 3)).astype(np.uint8))
        save(tmp_path / "pool" / f"dark{i}.png", generator.integers(0, 60, (40, 40, 3)).astype(np.uint8))
        save(tmp_path / "pool" / f"light{i}.png", generator.integers(190, 255, (40, 40, 3)).astype(np.uint8))
    pool = read_folder(tmp_path / "pool")
    chosen = like(read_folder(tmp_path / "concept"), pool, 6)
    assert len(set(chosen)) == 6
    assert all("dark" in pool.sources[i] for i in chosen)
    with pytest.raises(DataError, match="give a larger folder"):
        like(read_folder(tmp_path / "concept"), pool, 13)


def test_too_little_data_says_how_much_it_takes():
    G = {"t": normal(0, 4, 3)}
    with pytest.raises(DataError, match="at least 2"):
        tcav({"c": normal(1, 1, 3)}, normal(2, 9, 3), G)
    with pytest.raises(DataError, match="give more of both"):
        tcav({"c": normal(1, 2, 3)}, normal(2, 3, 3), G)
    with pytest.raises(DataError, match="draw at least 19"):
        tcav({"c": normal(1, 5, 3)}, normal(2, 9, 3), G, draws=10)
    with pytest.raises(MethodError, match="pattern or logistic"):
        concept_vector(normal(1, 5, 3), normal(2, 9, 3), "svm")
    assert torch.is_grad_enabled()
