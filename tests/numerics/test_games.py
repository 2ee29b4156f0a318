"""Games against their definitions; sampling against its own standard errors."""

from itertools import combinations
from math import comb, factorial

import numpy as np
import pytest
import torch

from helpers.games import brute_owen, brute_shapley, close, halved, of, seed, smooth_game, table_game
from pellucid.errors import MethodError
from pellucid.numerics.games import (
    all_coalitions,
    exact_shapley,
    interactions,
    kernel_shap,
    members,
    owen,
    permutation_shapley,
    strongest_pairs,
)
from pellucid.numerics.line import closeness, fit_line, sample_line


@pytest.mark.parametrize("players", [1, 2, 3, 8])
def test_exact_shapley_is_its_definition(players):
    game = table_game(players, targets=2)
    truth = brute_shapley(game, players)
    game.asked = 0
    found = exact_shapley(game, players)
    close(found.values, truth)
    assert game.asked == found.evaluations == 2**players
    assert not found.standard_error.any()
    assert found.efficiency_gap.abs().max() < 1e-12


@pytest.mark.parametrize(("players", "number"), [(8, 1), (9, 2), (10, 3)])
def test_one_truth_four_ways(players, number):
    game = table_game(players, targets=3, number=number)
    exact = exact_shapley(game, players)
    whole = kernel_shap(game, players, samples=2**players - 2)
    close(whole.values, exact.values, 1e-8)
    assert not whole.standard_error.any()
    assert whole.extra == {"enumerated": 2**players - 2, "drawn": 0}
    flat = owen(game, tuple(range(players)), budget=2**players)
    close(flat.values, exact.values)
    assert flat.evaluations == 2**players
    assert not flat.extra["unsplit"].any()


@pytest.mark.parametrize("players", [1, 2, 3, 5])
def test_small_games_four_ways(players):
    game = table_game(players, targets=2, number=players)
    exact = exact_shapley(game, players).values
    close(kernel_shap(game, players, samples=100).values, exact, 1e-8)
    close(owen(game, tuple(range(players))).values, exact)
    if players < 3:  # a pair of opposite orders is then all there is
        close(permutation_shapley(game, players).values, exact)


def test_a_linear_game_has_its_weights():
    pull = torch.randn(40, 2, generator=seed(0), dtype=torch.float64)
    game = lambda z: z.double() @ pull + 3
    for found in (
        permutation_shapley(game, 40, samples=4),
        kernel_shap(game, 40, samples=300),
        owen(game, halved(list(range(40))), budget=10**4),
    ):
        close(found.values, pull, 1e-7)
        assert found.standard_error.abs().max() < 1e-7
    close(exact_shapley(lambda z: z.double() @ pull[:11], 11).values, pull[:11])
    line = sample_line(game, 40, samples=300, alpha=0)
    close(line.weights, pull, 1e-7)
    close(line.r2, torch.ones(2).double())
    close(line.intercept, torch.full((2,), 3.0).double(), 1e-6)


def test_symmetry_and_dummies():
    def game(z):  # 0 and 1 alike, 2 does nothing, 3 acts only with 0
        z = z.double()
        return ((z[:, 0] + z[:, 1]) ** 2 + 0 * z[:, 2] + z[:, 3] * (z[:, 0] + z[:, 1]))[:, None]

    for found in (
        exact_shapley(game, 4),
        kernel_shap(game, 4, samples=14),
        owen(game, (0, 1, 2, 3)),
    ):
        v = found.values[:, 0].tolist()
        assert v[0] == pytest.approx(v[1], abs=1e-9)
        assert v[2] == pytest.approx(0, abs=1e-9)
    sampled = permutation_shapley(game, 4, samples=100).values[:, 0]
    assert sampled[2] == 0
    assert sampled.sum() == pytest.approx(6, abs=1e-12)


@pytest.mark.parametrize("antithetic", [True, False])
def test_permutations_are_unbiased_and_their_errors_honest(antithetic):
    players, game = 9, table_game(9, number=5)
    truth = exact_shapley(game, players).values
    runs = [
        permutation_shapley(game, players, samples=60, generator=seed(r), antithetic=antithetic) for r in range(150)
    ]
    values = torch.stack([r.values for r in runs])
    errors = torch.stack([r.standard_error for r in runs])
    spread = values.std(0)
    assert ((values.mean(0) - truth).abs() < 4 * spread / 150**0.5).all()
    assert (errors.square().mean(0).sqrt() / spread).sub(1).abs().max() < 0.25
    covered = ((values - truth).abs() < 2 * errors).double().mean()
    assert 0.91 < covered < 0.975
    for r in runs:
        assert r.efficiency_gap.abs().max() < 1e-12


def test_opposite_orders_are_worth_their_price():
    players, game = 20, smooth_game(20)
    paired, single = (
        permutation_shapley(game, players, samples=200, antithetic=a).standard_error.norm() for a in (True, False)
    )
    assert paired < 0.6 * single


def test_kernel_shap_near_the_truth_with_honest_errors():
    players, game = 10, smooth_game(10)
    truth = exact_shapley(game, players).values
    for paired in (True, False):
        runs = [kernel_shap(game, players, samples=200, generator=seed(r), paired=paired) for r in range(120)]
        values = torch.stack([r.values for r in runs])
        errors = torch.stack([r.standard_error for r in runs])
        assert runs[0].extra["enumerated"] == 20 if paired else runs[0].extra["enumerated"] > 0
        assert all(r.evaluations <= 202 for r in runs)
        bias = (values.mean(0) - truth).norm() / truth.norm()
        assert bias < 0.02
        assert 0.75 < errors.square().mean().sqrt() / values.std(0).square().mean().sqrt() < 1.35
        assert max(r.efficiency_gap.abs().max() for r in runs) < 1e-12
    ridged = kernel_shap(game, players, samples=200, ridge=1e9)
    close(ridged.values, ((ridged.full - ridged.empty) / players).expand(players, -1), 1e-6)


def test_each_coalition_is_asked_once_and_in_large_batches():
    game = table_game(6)
    found = permutation_shapley(game, 6, samples=400)
    assert game.asked == found.evaluations == 64
    assert game.calls <= 3
    before = game.asked
    found = kernel_shap(game, 6, samples=40)
    assert game.asked - before == found.evaluations <= 42


def test_auto_stops_when_it_is_good_enough():
    game = smooth_game(30, bend=20.0)
    found = permutation_shapley(game, 30, tolerance=0.05, max_evaluations=10**5)
    assert found.extra["converged"]
    assert found.relative_error.max() <= 0.05
    finer = permutation_shapley(game, 30, tolerance=0.02, max_evaluations=10**5)
    assert finer.evaluations > found.evaluations
    truth = permutation_shapley(game, 30, samples=4000).values
    assert ((found.values - truth).norm(dim=0) / truth.norm(dim=0)).max() < 0.1
    poor = permutation_shapley(game, 30, tolerance=1e-6, max_evaluations=1000)
    assert not poor.extra["converged"]
    assert poor.evaluations <= 1000


def test_seeds_bit_for_bit():
    game = smooth_game(20)
    for run in (
        lambda s: permutation_shapley(game, 20, generator=seed(s)).values,
        lambda s: kernel_shap(game, 20, samples=300, generator=seed(s)).values,
        lambda s: sample_line(game, 20, generator=seed(s)).weights,
        lambda s: interactions(game, 20, [(0, 1)], generator=seed(s)).values,
    ):
        assert torch.equal(run(3), run(3))
        assert not torch.equal(run(3), run(4))


def test_owen_is_its_definition_on_two_and_three_levels():
    game = table_game(7, targets=2, number=4)
    for hierarchy in (((0, 4), (1, 2, 3), (5, 6)), (((0, 1), 2), ((3, (4, 5)), 6)), ((((0, 1, 2, 3, 4, 5), 6)),)):
        found = owen(game, hierarchy, budget=10**4, together=3)
        close(found.values, brute_owen(game, hierarchy, 7))
        assert found.efficiency_gap.abs().max() < 1e-12


def test_owen_goes_where_the_gain_is_and_shares_the_rest():
    game = lambda z: (10.0 * z[:, 5] * z[:, 6] + z[:, 40])[:, None]
    hierarchy = halved(list(range(64)))
    found = owen(game, hierarchy, budget=200)
    assert found.evaluations <= 200
    assert found.efficiency_gap.abs().max() < 1e-12
    v = found.values[:, 0]
    assert set(v.topk(2).indices.tolist()) == {5, 6}
    assert v[5] == pytest.approx(5.0)
    coarse = owen(game, hierarchy, budget=4)
    close(coarse.values[:32, 0], torch.full((32,), 10 / 32).double())
    close(coarse.extra["unsplit"].sum(0), torch.tensor([11.0]).double())
    untouched = owen(game, hierarchy, budget=2)
    close(untouched.values[:, 0], torch.full((64,), 11 / 64).double())
    assert members(hierarchy) == list(range(64))


def test_interactions_of_products():
    def game(z):
        return torch.stack([5 * z[:, 0] * z[:, 1], z.sum(1), z[:, 2] * z[:, 3] * z[:, 4]], 1).double()

    for players in (6, 20):
        second = interactions(game, players, [(0, 1), (1, 2), (2, 4)], kind="second-difference")
        assert second.values.tolist() == [[5, 0, 0], [0, 0, 0], [0, 0, 1]]
        assert second.evaluations <= 2 + 3 * 3
        shapley = interactions(game, players, [(0, 1), (1, 2), (2, 4)], samples=200)
        assert shapley.values[0].tolist() == [5, 0, 0]
        assert shapley.values[2, 2] == pytest.approx(0.5)  # of three that act only together
        assert not shapley.standard_error[:2].any()
    pairs = strongest_pairs(torch.tensor([[1.0], [-3], [2], [0]]), 3)
    assert pairs == [(1, 2), (1, 0), (2, 0)]


def test_shapley_interactions_are_their_definition_and_sampling_finds_them():
    players, game = 7, table_game(7)
    truth = 0
    for size in range(6):
        for S in combinations([0, 1, 3, 4, 6], size):
            weight = factorial(size) * factorial(players - size - 2) / factorial(players - 1)
            second = of(game, 7, (*S, 2, 5)) - of(game, 7, (*S, 2)) - of(game, 7, (*S, 5)) + of(game, 7, S)
            truth = truth + weight * second
    found = interactions(game, players, [(2, 5)])
    close(found.values[0], truth)
    wide = smooth_game(14)
    few = interactions(wide, 14, [(0, 1), (3, 2)], samples=60)
    many = interactions(wide, 14, [(0, 1), (3, 2)], samples=3000, generator=seed(9))
    assert ((few.values - many.values).abs() < 4 * few.standard_error).all()
    assert (many.standard_error < few.standard_error).all()


def test_refusals_name_the_cure():
    game = smooth_game(13)
    with pytest.raises(MethodError, match="permutation sampling"):
        exact_shapley(game, 13)
    with pytest.raises(MethodError, match="at least 26"):
        kernel_shap(game, 13, samples=20)
    with pytest.raises(MethodError, match="at least 4"):
        permutation_shapley(game, 13, samples=2)
    with pytest.raises(MethodError, match="nest"):
        owen(game, tuple(range(13)))
    with pytest.raises(MethodError, match="each once"):
        owen(game, (0, (1, 1)))
    with pytest.raises(MethodError, match="two different"):
        interactions(game, 13, [(1, 1)])
    with pytest.raises(MethodError, match="coalitions, targets"):
        exact_shapley(lambda z: z.sum(1), 3)
    with pytest.raises(MethodError, match="at least one"):
        exact_shapley(game, 0)


def ridge_by_rows(Z, y, w, alpha):
    """Ridge with a free intercept as ordinary least squares on rows scaled by sqrt(w) and sqrt(alpha) more rows."""
    K = Z.shape[1]
    left = np.concatenate([np.c_[Z, np.ones(len(Z))] * np.sqrt(w)[:, None], np.c_[np.eye(K) * alpha**0.5, np.zeros(K)]])
    right = np.concatenate([y * np.sqrt(w)[:, None], np.zeros((K, y.shape[1]))])
    return np.linalg.lstsq(left, right, rcond=None)[0]


def test_the_surrogate_is_weighted_ridge():
    Z = (torch.rand(80, 6, generator=seed(0)) < 0.5).float()
    Z[0], Z[1] = 1, 0
    y = smooth_game(6)(Z)
    found = fit_line(Z, y, alpha=0.7, kernel_width=0.3)
    z = Z.double().numpy()
    cosine = 1 - z.sum(1) / (np.sqrt((z**2).sum(1)).clip(1e-300) * 6**0.5)
    w = np.sqrt(np.exp(-(cosine**2) / 0.3**2))
    assert np.allclose(closeness(Z, 0.3).numpy(), w)
    truth = ridge_by_rows(z, y.numpy(), w, 0.7)
    assert np.allclose(found.weights.numpy(), truth[:-1])
    assert np.allclose(found.intercept.numpy(), truth[-1])
    residual = y.numpy() - np.c_[z, np.ones(80)] @ truth
    rise = y.numpy() - np.average(y.numpy(), axis=0, weights=w)
    assert np.allclose(found.r2.numpy(), 1 - (w @ residual**2) / (w @ rise**2))
    left_out = np.stack(
        [
            y[m].numpy()
            - np.append(z[m], 1) @ ridge_by_rows(np.delete(z, m, 0), np.delete(y.numpy(), m, 0), np.delete(w, m), 0.7)
            for m in range(80)
        ]
    )
    assert np.allclose(found.r2_held_out.numpy(), 1 - (w @ left_out**2) / (w @ rise**2))


def test_held_out_fidelity_is_not_flattered_and_errors_are_honest():
    noise = table_game(12, number=8)
    found = sample_line(noise, 12, samples=30)
    assert found.r2 > 0.3
    assert found.r2_held_out < 0.1
    game = smooth_game(12)
    runs = [sample_line(game, 12, samples=300, generator=seed(r)) for r in range(80)]
    spread = torch.stack([r.weights for r in runs]).std(0)
    told = torch.stack([r.standard_error for r in runs]).square().mean(0).sqrt()
    assert (told / spread).sub(1).abs().mean() < 0.2
    still = fit_line(torch.eye(4), torch.ones(4, 1))
    assert still.r2 == 1
    assert not still.weights.abs().max() > 1e-12


def test_the_lasso_is_scikit_learns():
    linear_model = pytest.importorskip("sklearn.linear_model")
    Z = (torch.rand(200, 8, generator=seed(0)) < 0.5).float()
    y = smooth_game(8)(Z)
    found = fit_line(Z, y, alpha=0.1, kind="lasso")
    w = closeness(Z, 0.25).numpy()
    for t in range(2):
        theirs = linear_model.Lasso(alpha=0.1, tol=1e-12, max_iter=10**5).fit(
            Z.double().numpy(), y[:, t].numpy(), sample_weight=w
        )
        assert np.allclose(found.weights[:, t].numpy(), theirs.coef_, atol=1e-6)
        assert np.allclose(float(found.intercept[t]), theirs.intercept_, atol=1e-6)
    assert (found.weights == 0).any()
    with pytest.raises(MethodError, match="ridge or lasso"):
        fit_line(Z, y, kind="tree")


def test_all_coalitions_are_all():
    z = all_coalitions(5)
    assert len({tuple(r) for r in z.tolist()}) == len(z) == 32
    assert z.sum(1).long().bincount().tolist() == [comb(5, s) for s in range(6)]
