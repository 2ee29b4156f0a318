"""The smallest set that passes: against all sets, one by one."""

import itertools

import pytest
import torch

from pellucid.numerics.subsets import smallest


def least(test, size):
    """The size of the smallest set that passes, of all there are."""
    for count in range(size + 1):
        sets = torch.zeros(len(list(itertools.combinations(range(size), count))), size, dtype=torch.bool)
        for row, members in enumerate(itertools.combinations(range(size), count)):
            sets[row, list(members)] = True
        if (test(sets) > 0).any():
            return count
    return None


def additive(weights, threshold):
    return lambda sets: sets.double() @ weights.double() - threshold


def pairs(seed, size=12):
    """Weights of elements and of pairs, some of them negative: passing is not monotone."""
    generator = torch.Generator().manual_seed(seed)
    one, two = torch.randn(size, generator=generator), torch.randn(size, size, generator=generator)

    def test(sets):
        chosen = sets.double()
        return chosen @ one.double() + ((chosen @ two.double()) * chosen).sum(1) - 4

    return test


@pytest.mark.parametrize("seed", range(4))
def test_with_sets_to_spare_the_least_size_is_found_and_proven(seed):
    test, order = pairs(seed), torch.arange(12)
    found = smallest(test, [order], budget=5000)
    assert int(found.members.sum()) == least(test, 12)
    assert found.proven
    assert float(test(found.members[None])[0]) == pytest.approx(found.margin)


def test_what_is_reported_is_what_was_tried():
    asked = []
    inner = pairs(7)

    def test(sets):
        asked.extend(row.tolist() for row in sets)
        return inner(sets)

    found = smallest(test, [torch.arange(12).flip(0)], budget=60)
    sets = torch.tensor(asked)
    assert len(asked) == found.tried <= 60
    assert len({tuple(row) for row in asked}) == len(asked), "no set is asked for twice"
    sizes = sets.sum(1)
    count = int(found.members.sum())
    assert found.smaller == int((sizes < count).sum())
    assert not (inner(sets)[sizes < count] > 0).any(), "no smaller one that was tried passes"


def test_a_sum_is_cut_to_its_largest_terms_whatever_the_order():
    weights = torch.rand(60, generator=torch.Generator().manual_seed(0))
    best = weights.sort(descending=True).values.cumsum(0)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    found = smallest(additive(weights, 5.0), [order], budget=600)
    assert int(found.members.sum()) == int((best <= 5).sum()) + 1
    assert found.minimal
    assert not found.proven


def test_ends():
    everything = torch.arange(6)
    assert smallest(lambda s: torch.ones(len(s)), [everything], budget=50).members.sum() == 0
    none = smallest(lambda s: -torch.ones(len(s)), [everything], budget=100)
    assert none.members is None
    assert none.proven
    assert none.tried == 64
    assert not smallest(lambda s: -torch.ones(len(s)), [everything], budget=20).proven
    whole = smallest(additive(torch.ones(6), 5.5), [everything], budget=100)
    assert whole.members.all()
    assert whole.proven
    assert whole.minimal


def test_only_what_is_allowed_is_taken():
    allowed = torch.tensor([True, False, True, True, False, True])
    weights = torch.tensor([1.0, 9, 2, 3, 9, 4])
    found = smallest(additive(weights, 6.5), [torch.arange(6)], budget=64, among=allowed)
    assert found.members.tolist() == [False, False, False, True, False, True]
    assert found.proven


def test_whole_groups_first_then_their_elements():
    """The best group holds what is needed; the rest of it is cut away, and every set is counted once."""
    weights = torch.zeros(64)
    weights[[40, 42]] = 1.0
    asked = []

    def test(sets):
        asked.extend(row.numpy().tobytes() for row in sets)
        return additive(weights, 1.5)(sets)

    found = smallest(test, [torch.arange(64)], budget=200, groups=torch.arange(64) // 8)
    assert found.members.nonzero()[:, 0].tolist() == [40, 42]
    assert len(asked) == len(set(asked)) == found.tried
    plain = smallest(additive(weights, 1.5), [torch.arange(64)], budget=200)
    assert torch.equal(found.members, plain.members)
