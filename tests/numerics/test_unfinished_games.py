"""Games that break off are answered from the coalitions evaluated before, as long as these will do."""

from math import comb

import pytest
import torch

from helpers.games import close, halved, of, seed, smooth_game, table_game
from pellucid.errors import ModelError, UnsteadyError
from pellucid.numerics.games import (
    UnfinishedError,
    exact_shapley,
    interactions,
    kernel_shap,
    owen,
    permutation_shapley,
)
from pellucid.numerics.line import fit_line, sample_line


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
    line = sample_line(breaking(value, 60), 20, samples=300, alpha=0)
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
    line = sample_line(game, 12, samples=300, **settings)
    by_hand = fit_line(torch.tensor(game.asked), value(torch.tensor(game.asked)), **settings)
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
        sample_line(breaking(value, 200, whole=True), 20, samples=300)


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
        lambda game: sample_line(game(9), 9, samples=100),
        lambda game: sample_line(game(0), 9, samples=100),
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
