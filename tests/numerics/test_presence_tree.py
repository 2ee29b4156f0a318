"""Trees of presence: planted rules are found, Shapley's values are the definition's, fidelity is not flattered."""

import numpy as np
import pytest
import torch

from helpers.games import brute_shapley, close
from pellucid.errors import MethodError
from pellucid.numerics.games import all_coalitions
from pellucid.numerics.line import fit_line
from pellucid.numerics.presence_tree import LEAVES, PresenceTree, fit_tree

PLAYERS = 8


def coalitions(samples=1000, players=PLAYERS, seed=0):
    drawn = torch.randint(2, (samples, players), generator=torch.Generator().manual_seed(seed)).float()
    drawn[0] = 1
    return drawn


def rules(z):
    """5 where players 2 and 5 are both there; else 1, or 0 without player 0. A second target is its opposite."""
    z = z.bool()
    first = torch.where(z[:, 2] & z[:, 5], 5.0, torch.where(z[:, 0], 1.0, 0.0)).double()
    return torch.stack([first, -first], 1)


def random_tree(seed, depth=4):
    generator = np.random.default_rng(seed)
    nodes = []

    def grow(left, deep):
        node = len(nodes)
        nodes.append([-1, -1, -1, generator.standard_normal(2), 0.0])
        if deep and left and (deep == depth or generator.random() < 0.8):
            k = int(generator.choice(left))
            rest = [j for j in left if j != k]
            nodes[node][0] = k
            nodes[node][1], nodes[node][2] = grow(rest, deep - 1), grow(rest, deep - 1)
        return node

    grow(list(range(PLAYERS)), depth)
    player, there, away, value, share = zip(*nodes, strict=True)
    return PresenceTree(*map(np.array, (player, there, away)), np.stack(value), np.array(share))


@pytest.mark.parametrize("seed", range(4))
def test_shapley_of_a_tree_is_the_definition(seed):
    tree = random_tree(seed)
    assert tree.leaves > 2
    found = tree.shapley(PLAYERS)
    close(found, brute_shapley(tree.predict, PLAYERS))
    ends = tree.predict(torch.stack([torch.zeros(PLAYERS), torch.ones(PLAYERS)]))
    close(found.sum(0), ends[1] - ends[0])
    unasked = [k for k in range(PLAYERS) if k not in tree.player]
    assert not found[unasked].any()


def test_prediction_is_the_walk_from_the_root():
    tree = random_tree(1)
    every = all_coalitions(PLAYERS)
    for z, value in zip(every[::7], tree.predict(every)[::7], strict=True):
        node = 0
        while tree.player[node] >= 0:
            node = (tree.there if z[tree.player[node]] else tree.away)[node]
        assert np.array_equal(value.numpy(), tree.value[node])


def test_planted_rules_are_found_where_a_line_fails():
    z = coalitions()
    y = rules(z)
    found = fit_tree(z, y)
    assert set(found.tree.player[found.tree.player >= 0].tolist()) == {0, 2, 5}
    torch.testing.assert_close(found.tree.predict(all_coalitions(PLAYERS)), rules(all_coalitions(PLAYERS)))
    assert found.r2.tolist() == pytest.approx([1, 1])
    assert (fit_line(z, y).r2_held_out < 0.9).all()
    close(found.tree.shapley(PLAYERS), brute_shapley(rules, PLAYERS))
    assert found.standard_error.max() < 0.05
    named = found.tree.words([f"part {k}" for k in range(PLAYERS)])
    assert named[0] in ("if part 2 is there:", "if part 5 is there:")
    assert any(line.strip().startswith("5 (") for line in named)


@pytest.mark.parametrize("seed", range(3))
def test_no_leaf_is_spent_on_rounding_and_no_target_outweighs_another(seed):
    z = coalitions(seed=seed)
    three = (z[:, 1] * z[:, 3] * z[:, 4]).double()[:, None] / 3 + 0.1
    found = fit_tree(z, three, leaves=16)
    assert found.tree.leaves == 4  # what an AND of three takes
    close(found.tree.shapley(PLAYERS)[[1, 3, 4]], torch.full((3, 1), 1 / 9, dtype=torch.float64))
    loud = torch.cat([three, 1e6 * z[:, 6:7].double()], 1)
    assert set(fit_tree(z, loud).tree.player.tolist()) >= {1, 3, 4, 6}


def test_noise_is_not_explained_and_gets_few_leaves():
    z = coalitions(400)
    y = torch.randn(400, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = fit_tree(z, y)
    assert found.r2[0] < 0.05
    assert found.tree.leaves == LEAVES[0]


def test_fidelity_is_that_on_fresh_samples():
    def score(z):
        return (z @ torch.linspace(0.5, 1.5, PLAYERS) + 3 * z[:, 1] * z[:, 2]).double()[:, None]

    found = fit_tree(coalitions(600), score(coalitions(600)))
    fresh = coalitions(4000, seed=9)
    residual = score(fresh) - found.tree.predict(fresh)
    assert float(found.r2) == pytest.approx(float(1 - residual.var() / score(fresh).var()), abs=0.08)


def test_errors_are_the_scatter_over_fresh_samples():
    def score(z, seed):
        noise = 0.5 * torch.randn(len(z), generator=torch.Generator().manual_seed(seed))
        return (2 * z[:, 1] + z[:, 2] + noise).double()[:, None]

    fits = [fit_tree(z, score(z, s), leaves=4, seed=s) for s in range(20) for z in [coalitions(300, seed=s)]]
    scatter = torch.stack([f.tree.shapley(PLAYERS) for f in fits]).std(0)[1]
    stated = torch.stack([f.standard_error for f in fits]).mean(0)[1]
    assert 0.5 < float(stated / scatter) < 2


def test_seeds_and_refusals():
    z = coalitions(300)
    y = rules(z) + 0.1 * torch.randn(300, 2, generator=torch.Generator().manual_seed(3))
    one, same = fit_tree(z, y, seed=4), fit_tree(z, y, seed=4)
    assert np.array_equal(one.tree.value, same.tree.value)
    assert torch.equal(one.standard_error, same.standard_error)
    assert fit_tree(z, y, leaves=3).tree.leaves == 3
    still = fit_tree(z, torch.full((300, 1), 2.0))
    assert still.tree.leaves == 1
    assert not still.tree.shapley(PLAYERS).any()
    with pytest.raises(MethodError, match="needs more than 20 samples"):
        fit_tree(z[:20], y[:20])
    with pytest.raises(MethodError, match="1 leaf asks nothing"):
        fit_tree(z, y, leaves=1)
