"""Games against their definitions, written out as loops; sampling against its own standard errors."""

from itertools import combinations, permutations
from math import comb, factorial

import numpy as np
import pytest
import torch

from pellucid.engine.games import (
    UnfinishedError,
    all_coalitions,
    exact_shapley,
    interactions,
    kernel_shap,
    members,
    owen,
    permutation_shapley,
    strongest_pairs,
)
from pellucid.engine.surrogate import closeness, fit_surrogate, surrogate
from pellucid.errors import MethodError, ModelError, UnsteadyError


def seed(number):
    return torch.Generator().manual_seed(number)


def table_game(players, targets=1, number=0):
    """A game with an independent random value for every coalition; counts its calls."""
    table = torch.randn(2**players, targets, generator=seed(number), dtype=torch.float64)
    bits = 2 ** torch.arange(players)

    def value(coalitions):
        assert set(coalitions.unique().tolist()) <= {0.0, 1.0}
        value.asked += len(coalitions)
        value.calls += 1
        return table[(coalitions.long() * bits).sum(1)]

    value.asked = value.calls = 0
    return value


def smooth_game(players, number=0, bend=1.0):
    """A random quadratic game with a bend, of any number of players, for two targets."""
    pull = torch.randn(players, 2, generator=seed(number), dtype=torch.float64)
    pairs = torch.randn(players, players, generator=seed(number + 1), dtype=torch.float64) / players

    def value(coalitions):
        z = coalitions.double()
        return (z @ pull) + bend * torch.tanh(torch.einsum("mi,ij,mj->m", z, pairs, z))[:, None]

    return value


def of(value, players, inside):
    z = torch.zeros(1, players)
    z[0, list(inside)] = 1
    return value(z)[0]


def brute_shapley(value, players):
    """Every set without i, with its weight."""
    found = []
    for i in range(players):
        others = [k for k in range(players) if k != i]
        total = 0
        for size in range(players):
            for S in combinations(others, size):
                weight = factorial(size) * factorial(players - size - 1) / factorial(players)
                total = total + weight * (of(value, players, (*S, i)) - of(value, players, S))
        found.append(total)
    return torch.stack(found)


def brute_owen(value, hierarchy, players):
    """The mean gain over all orders in which every group comes in as a whole."""

    def orders(node):
        if isinstance(node, int):
            return [[node]]
        found = []
        for turn in permutations(node):
            lines = [[]]
            for child in turn:
                lines = [line + more for line in lines for more in orders(child)]
            found += lines
        return found

    every = orders(hierarchy)
    total = torch.zeros(players, len(of(value, players, [])), dtype=torch.float64)
    for order in every:
        for at, i in enumerate(order):
            total[i] += of(value, players, order[: at + 1]) - of(value, players, order[:at])
    return total / len(every)


def halved(players):
    if len(players) == 1:
        return players[0]
    half = len(players) // 2
    return (halved(players[:half]), halved(players[half:]))


def close(a, b, tolerance=1e-9):
    assert a.shape == b.shape
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


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
    line = fit_surrogate(game, 40, samples=300, alpha=0)
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
        lambda s: fit_surrogate(game, 20, generator=seed(s)).weights,
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
    found = surrogate(Z, y, alpha=0.7, kernel_width=0.3)
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
    found = fit_surrogate(noise, 12, samples=30)
    assert found.r2 > 0.3
    assert found.r2_held_out < 0.1
    game = smooth_game(12)
    runs = [fit_surrogate(game, 12, samples=300, generator=seed(r)) for r in range(80)]
    spread = torch.stack([r.weights for r in runs]).std(0)
    told = torch.stack([r.standard_error for r in runs]).square().mean(0).sqrt()
    assert (told / spread).sub(1).abs().mean() < 0.2
    still = surrogate(torch.eye(4), torch.ones(4, 1))
    assert still.r2 == 1
    assert not still.weights.abs().max() > 1e-12


def test_the_lasso_is_scikit_learns():
    linear_model = pytest.importorskip("sklearn.linear_model")
    Z = (torch.rand(200, 8, generator=seed(0)) < 0.5).float()
    y = smooth_game(8)(Z)
    found = surrogate(Z, y, alpha=0.1, kind="lasso")
    w = closeness(Z, 0.25).numpy()
    for t in range(2):
        theirs = linear_model.Lasso(alpha=0.1, tol=1e-12, max_iter=10**5).fit(
            Z.double().numpy(), y[:, t].numpy(), sample_weight=w
        )
        assert np.allclose(found.weights[:, t].numpy(), theirs.coef_, atol=1e-6)
        assert np.allclose(float(found.intercept[t]), theirs.intercept_, atol=1e-6)
    assert (found.weights == 0).any()
    with pytest.raises(MethodError, match="ridge or lasso"):
        surrogate(Z, y, kind="tree")


def test_all_coalitions_are_all():
    z = all_coalitions(5)
    assert len({tuple(r) for r in z.tolist()}) == len(z) == 32
    assert z.sum(1).long().bincount().tolist() == [comb(5, s) for s in range(6)]


# --- games that break off


def breaking(value, after, batch=4, whole=False):
    """A game that dies after so many coalitions, batch by batch; `whole`: it takes the last call's with it."""

    def play(coalitions):
        found = torch.full((len(coalitions), len(of(value, coalitions.shape[1], []))), torch.nan, dtype=torch.float64)
        for start in range(0, len(coalitions), batch):
            part = coalitions[start : start + batch]
            if play.dead or len(play.asked) + len(part) > after:
                play.dead = True
                failure = ModelError("the line is dead")
                raise failure if whole else UnfinishedError(failure, found)
            found[start : start + batch] = value(part)
            play.asked += part.tolist()
        return found

    play.asked, play.dead = [], False
    return play


@pytest.mark.parametrize("after", [45, 60, 61, 75, 99])
@pytest.mark.parametrize("samples", [20, "auto"])
@pytest.mark.parametrize("antithetic", [True, False])
def test_the_orders_before_the_break_are_the_answer(antithetic, samples, after):
    players, fold = 9, 1 + antithetic
    game = breaking(table_game(players, targets=2), after)
    settings = {"antithetic": antithetic, "tolerance": 1e-9}
    found = permutation_shapley(game, players, samples=samples, **settings)
    walked = found.extra["permutations"]
    fewer = permutation_shapley(table_game(players, targets=2), players, samples=walked, **settings)
    assert torch.equal(found.values, fewer.values)
    assert torch.equal(found.standard_error, fewer.standard_error)
    assert found.evaluations == fewer.evaluations <= len(game.asked)
    more = permutation_shapley(table_game(players, targets=2), players, samples=walked + fold, **settings)
    assert more.evaluations > len(game.asked)  # no order was left out
    assert found.broken == "the line is dead"
    assert fewer.broken == ""
    assert found.efficiency_gap.abs().max() < 1e-12
    assert found.extra["converged"] is (samples != "auto")


def kernel_weight(players, size):
    return (players - 1) / (comb(players, size) * size * (players - size))


@pytest.mark.parametrize(("samples", "after"), [(200, 110), (200, 151), (60, 49), (24, 22)])
@pytest.mark.parametrize("paired", [True, False])
def test_kernel_shap_before_the_break_is_the_regression_on_what_was_answered(paired, samples, after):
    players, value = 10, smooth_game(10)
    whole = breaking(value, 10**9)
    unbroken = kernel_shap(whole, players, samples=samples, paired=paired)
    game = breaking(value, after)
    found = kernel_shap(game, players, samples=samples, paired=paired)
    assert found.broken
    full, drawn = unbroken.extra["enumerated"], found.extra["drawn"]
    assert found.extra["enumerated"] == full
    assert 0 < drawn < unbroken.extra["drawn"]
    # the draws as they came, repeats too; weights written out: what is not enumerated shares the rest of the kernel
    spent = [players * (players - 1) // 2] if full > 2 * players else []
    left = samples - full
    sizes = torch.tensor(
        [0.0 if full and s in (1, players - 1) else 1 / (s * (players - s)) for s in range(1, players)]
    )
    assert not spent or full == 2 * players + 2 * spent[0]
    if spent:
        sizes[[1, players - 3]] = 0
    generator = seed(0)
    units = max(1, left // (1 + paired))
    picked = 1 + torch.multinomial(sizes.double() * (players - 1), units, replacement=True, generator=generator)
    ranks = torch.rand(units, players, generator=generator).argsort(1).argsort(1)
    draws = (ranks < picked[:, None]).float()[:, None]
    draws = torch.cat([draws, 1 - draws], 1) if paired else draws
    draws = draws[: drawn // (1 + paired)].reshape(-1, players)
    Z = torch.cat([torch.tensor(whole.asked[2 : 2 + full]).reshape(-1, players), draws]).double()
    assert found.evaluations == 2 + len({tuple(z) for z in Z.tolist()}) <= len(game.asked)
    rest = float(sizes.double().sum()) * (players - 1)
    w = torch.tensor([kernel_weight(players, int(z.sum())) for z in Z[:full]] + [rest / drawn] * drawn).double()
    change = found.full - found.empty
    gram = torch.ones(players + 1, players + 1, dtype=torch.float64)  # Lagrange's conditions for a sum of `change`
    gram[:players, :players], gram[-1, -1] = 2 * (Z.T * w) @ Z, 0
    right = torch.cat([2 * (Z.T * w) @ (value(Z) - found.empty), change[None]])
    close(found.values, torch.linalg.solve(gram, right)[:players], 1e-6)
    assert found.efficiency_gap.abs().max() < 1e-12


@pytest.mark.parametrize("paired", [True, False])
def test_kernel_shap_before_the_break_stays_honest(paired):
    players, value = 10, smooth_game(10)
    truth = exact_shapley(value, players).values
    runs = [
        kernel_shap(breaking(value, 120), players, samples=200, generator=seed(r), paired=paired) for r in range(120)
    ]
    values = torch.stack([r.values for r in runs])
    errors = torch.stack([r.standard_error for r in runs])
    assert (values.mean(0) - truth).norm() / truth.norm() < 0.03
    assert 0.8 < float(errors.square().mean().sqrt() / values.std(0).square().mean().sqrt()) < 1.3


def test_an_additive_game_has_its_weights_however_early_it_breaks():
    pull = torch.randn(20, 2, generator=seed(0), dtype=torch.float64)
    value = lambda z: z.double() @ pull + 3
    for found in (
        permutation_shapley(breaking(value, 120), 20, samples=40),
        kernel_shap(breaking(value, 120), 20, samples=300),
    ):
        assert found.broken
        close(found.values, pull, 1e-7)
        assert found.standard_error.abs().max() < 1e-7
    line = fit_surrogate(breaking(value, 60), 20, samples=300, alpha=0)
    assert line.broken
    assert line.samples == 60
    close(line.weights, pull, 1e-7)


@pytest.mark.parametrize("after", [4, 5, 20, 31])
def test_owen_leaves_whole_what_was_not_split_before_the_break(after):
    players, value = 16, smooth_game(16)
    game = breaking(value, after, batch=1)
    found = owen(game, halved(range(players)), together=1)
    same = owen(value, halved(range(players)), together=1, budget=found.evaluations)
    close(found.values, same.values)
    close(found.extra["unsplit"], same.extra["unsplit"])
    assert found.broken
    assert after - 1 <= found.evaluations <= after
    assert found.extra["unsplit"].any()
    assert found.efficiency_gap.abs().max() < 1e-12
    close(
        owen(breaking(value, 3000), halved(range(players)), budget=2000).values,
        owen(value, halved(range(players)), budget=2000).values,
    )


@pytest.mark.parametrize("kind", ["ridge", "lasso"])
def test_a_line_is_fitted_to_what_was_answered(kind):
    value = smooth_game(12)
    game = breaking(value, 50)
    settings = {"alpha": 0.01, "kind": kind, "kernel_width": 0.4}
    line = fit_surrogate(game, 12, samples=300, **settings)
    by_hand = surrogate(torch.tensor(game.asked), value(torch.tensor(game.asked)), **settings)
    assert game.asked[0] == [1] * 12
    assert line.samples == len(game.asked) == 48
    for name in ("weights", "standard_error", "intercept", "r2", "r2_held_out"):
        assert torch.equal(getattr(line, name), getattr(by_hand, name))


def test_what_was_answered_in_earlier_calls_counts_though_the_last_says_nothing():
    value = smooth_game(20)
    found = permutation_shapley(breaking(value, 200, whole=True), 20, tolerance=1e-9)  # the first 4 pairs are one call
    assert found.extra["permutations"] == 8
    close(found.values, permutation_shapley(value, 20, samples=8).values)
    assert owen(breaking(value, 40, whole=True), halved(range(20))).extra["unsplit"].any()
    with pytest.raises(ModelError, match="the line is dead"):
        kernel_shap(breaking(value, 200, whole=True), 20, samples=300)
    with pytest.raises(ModelError, match="the line is dead"):
        fit_surrogate(breaking(value, 200, whole=True), 20, samples=300)


@pytest.mark.parametrize(
    "solve",
    [
        lambda game: permutation_shapley(game(25), 9, samples=40),
        lambda game: permutation_shapley(game(25), 9, tolerance=1e-9),
        lambda game: exact_shapley(game(500), 9),
        lambda game: kernel_shap(game(100), 9, samples=2**9 - 2),
        lambda game: kernel_shap(game(19), 9, samples=100),
        lambda game: kernel_shap(game(22), 9, samples=100),
        lambda game: kernel_shap(game(17), 9, samples=18),
        lambda game: owen(game(3), halved(range(9))),
        lambda game: owen(game(500), tuple(range(9))),
        lambda game: interactions(game(500), 9, [(0, 1)]),
        lambda game: fit_surrogate(game(9), 9, samples=100),
        lambda game: fit_surrogate(game(0), 9, samples=100),
        lambda game: permutation_shapley(game(1), 9, samples=40),
    ],
)
def test_too_little_before_the_break_is_the_failure_itself(solve):
    for whole in (True, False):
        with pytest.raises(ModelError, match=r"^the line is dead$"):
            solve(lambda after, whole=whole: breaking(table_game(9), after, batch=1, whole=whole))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, UnsteadyError])
def test_only_a_model_that_fails_is_dealt_with(error):
    calls = []

    def game(z):
        calls.append(len(z))
        if len(calls) > 2:
            raise error
        return smooth_game(20)(z)

    with pytest.raises(error):
        permutation_shapley(game, 20, tolerance=1e-9)
