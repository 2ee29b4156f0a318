"""Banks against their definitions by brute force, and what sharing them costs."""

import pytest
import torch

import pellucid as pl
from helpers.evaluations import Formula, candidate, linear, sample, total
from helpers.nets import noise
from pellucid.engine.filling import fill
from pellucid.engine.masks import GridMasks
from pellucid.evaluation.banks import MoRFCurves, RandomSubsets, RankCurves, RankedScores, RankGroups
from pellucid.evaluation.banks.altered import ShiftedScale
from pellucid.evaluation.banks.curves import RankMasks, curves, unit_ranks
from pellucid.evaluation.banks.parts import ContrastedScenes
from pellucid.evaluation.banks.redrawn import ShuffledWeights
from pellucid.evaluation.competitors import Foreign
from pellucid.evaluation.measure import measure
from pellucid.evaluation.metrics import METRICS
from pellucid.evaluation.sample import Inquiry
from pellucid.evaluation.schedule import Schedule
from pellucid.numerics.ranks import mid_ranks

FOUR = torch.tensor([[[0.4, 0.3], [0.2, 0.1]]])


def both_curves(x, values, fractions, function=total, baseline="zero"):
    of = sample(x, function)
    with Inquiry(of) as inquiry:
        ranks, units = unit_ranks(values[None].float(), None)
        shares = torch.tensor(fractions, dtype=torch.float64)
        return RankedScores(shares, *curves(inquiry, ranks, units, shares, baseline)[0])


def test_deletion_and_insertion_of_four_pixels():
    found = both_curves(FOUR, FOUR[0], [0, 0.5, 1])
    assert found.morf.tolist() == pytest.approx([1, 0.3, 0], abs=1e-6)
    assert found.insertion.tolist() == pytest.approx([0, 0.7, 1], abs=1e-6)
    assert found.area(found.morf) == pytest.approx(0.4, abs=1e-6)
    assert found.area(found.insertion) == pytest.approx(0.6, abs=1e-6)


def test_deletion_and_insertion_in_uneven_steps_of_a_line():
    x = torch.tensor([[0.3, 0.25, 0.2, 0.15, 0.1]])
    found = both_curves(x, x[0], [0, 0.4, 0.8, 1])
    assert found.area(found.morf) == pytest.approx(0.41, abs=1e-6)
    shown = both_curves(x, x[0], [0, 0.2, 0.6, 1])  # read backwards: 0, 0.4, 0.8, 1 are shown
    assert shown.area(shown.lerf) == pytest.approx(0.59, abs=1e-6)


@pytest.mark.parametrize("shape", [(7,), (5, 6), (3, 4, 4)])
def test_curves_are_their_definition(shape):
    x, values = noise(2, *shape), noise(*shape, seed=1)
    weights = noise(2, *shape, seed=2)
    of = sample(x, linear(weights))
    found = RankCurves("zero", steps=8)
    with Inquiry(of) as inquiry:
        (got,) = found.answers(inquiry, [candidate(values, of)])
    order = values.flatten().argsort(descending=True)
    for step in range(9):
        count = step / 8 * order.numel()
        for side, ranked in ((got.most, order), (got.least, order.flip(0))):
            share = torch.zeros(order.numel())  # of each place, how much of it is hidden
            places = torch.arange(order.numel()) + 0.5
            share[ranked] = (places < count).float() + 0.5 * (places == count).float()
            wanted = ((1 - share.reshape(shape)) * x * weights).sum()
            assert float(side[step, 0]) == pytest.approx(float(wanted), abs=1e-4)


def test_insertion_is_lerf_read_backwards_exactly():
    x, values = noise(3, 6, 6), noise(6, 6, seed=3)
    of = sample(x, lambda x: x.flatten(1).sin().sum(1, keepdim=True))
    ranks, units = unit_ranks(values[None], None)
    with Inquiry(of) as inquiry:
        found = RankCurves("blur", steps=12).answers(inquiry, [candidate(values, of)])[0]
        shown = []
        for step in range(13):  # shown on the baseline, most relevant first, asked by another kind of mask
            keep = (ranks[0] < units * step / 12).float()
            shown.append(inquiry.ask(GridMasks(keep[None], (6, 6)), "blur")[0, 1])
    assert torch.equal(found.insertion, torch.stack(shown))


@pytest.mark.parametrize("unit", ["pixels", "cells", "superpixels"])
def test_one_order_alone_is_that_of_both_for_half_the_passes(unit):
    x = noise(3, 14, 14)
    of = sample(x, lambda x: x.flatten(1).sin().sum(1, keepdim=True))
    maps = [candidate(noise(14, 14, seed=k), of) for k in range(3)]
    with Inquiry(of) as inquiry:
        both = RankCurves("blur", unit=unit).answers(inquiry, maps)
        asked = inquiry.forwards
    with Inquiry(of) as inquiry:
        one = MoRFCurves("blur", unit=unit).answers(inquiry, maps)
        assert asked - inquiry.forwards == len(maps) * MoRFCurves().own(of.space) == 45
    for a, b in zip(one, both, strict=True):
        assert torch.allclose(a.most, b.most, rtol=0, atol=1e-5)
        assert torch.equal(a.fractions, b.fractions)


def test_equal_values_leave_together_in_the_middle():
    values = torch.tensor([3.0, 1.0, 1.0, 1.0, 0.0])
    assert mid_ranks(values).tolist() == [4.5, 2.5, 2.5, 2.5, 0.5]
    flat = both_curves(noise(1, 4, 4), torch.zeros(4, 4), [0, 0.25, 0.5, 0.75, 1])
    assert flat.area(flat.lerf - flat.morf) == pytest.approx(0, abs=1e-6)


def test_masks_accumulate_as_they_are_drawn():
    ranks = unit_ranks(noise(2, 4, 5), None)[0]
    masks = RankMasks(torch.tensor([[0, 3.0, 1], [1, 9.0, -1], [1, 4.0, 1]], dtype=torch.float64), ranks, 20)
    weights = noise(3, 2, seed=4)
    direct = torch.einsum("mt,mchw->tchw", weights, masks.render(slice(None)))[:, 0]
    assert torch.allclose(masks.accumulate(weights), direct, atol=1e-6)


def test_subsets_are_their_definition():
    x, values, weights = noise(1, 6, 6), noise(6, 6, seed=1), noise(1, 6, 6, seed=2)
    of = sample(x, linear(weights))
    bank = RandomSubsets("zero", count=3, draws=5)
    with Inquiry(of) as inquiry:
        (found,) = bank.answers(inquiry, [candidate(values, of)])
    cells = (x * weights)[0].reshape(3, 2, 3, 2).sum((1, 3)).flatten().double()
    assert torch.allclose(found.alone, cells, atol=1e-4)
    assert torch.allclose(found.effects, found.subsets @ cells, atol=1e-4)
    assert torch.allclose(found.relevance, values.reshape(3, 2, 3, 2).sum((1, 3)).flatten().double(), atol=1e-5)
    assert found.subsets.sum(1).tolist() == found.sizes.tolist()


def test_groups_are_their_definition():
    x, weights = noise(1, 4, 5), noise(1, 4, 5, seed=2)
    values = (x * weights)[0]
    of = sample(x, linear(weights))
    with Inquiry(of) as inquiry:
        (found,) = RankGroups("zero", groups=4).answers(inquiry, [candidate(values, of)])
    wanted = values.flatten().sort(descending=True).values.reshape(4, 5).sum(1).double()
    assert torch.allclose(found.effects, wanted, atol=1e-4)
    assert torch.allclose(found.relevance, wanted, atol=1e-4)


def test_imputation_solves_the_sparse_system():
    """ROAD's linear system, solved by a direct solver of scipy."""
    import numpy as np
    from scipy.sparse import lil_matrix
    from scipy.sparse.linalg import spsolve

    x = noise(1, 1, 12, 12)
    known = (noise(1, 1, 12, 12, seed=5) > 0).float()
    filled = fill(x, known, diagonal=True)[0, 0].numpy()
    hidden = [tuple(p) for p in np.argwhere(known[0, 0].numpy() == 0)]
    number = {p: k for k, p in enumerate(hidden)}
    a, b = lil_matrix((len(hidden), len(hidden))), np.zeros(len(hidden))
    for p, k in number.items():
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                q = (p[0] + dy, p[1] + dx)
                if (dy, dx) == (0, 0) or not (0 <= q[0] < 12 and 0 <= q[1] < 12):
                    continue
                w = 1 / 6 if 0 in (dy, dx) else 1 / 12
                a[k, k] += w
                if q in number:
                    a[k, number[q]] -= w
                else:
                    b[k] += w * float(x[0, 0, q[0], q[1]])
    solved = spsolve(a.tocsr(), b)
    assert np.allclose([filled[p] for p in hidden], solved, atol=5e-3)


# --- what it costs


def counted(names, count, space=(12, 12)):
    """Forwards asked of a model, and those of the plan, for so many competitors that never ask it."""
    asked = []

    def score(x):
        asked.append(len(x))
        return x.flatten(1).sin().sum(1, keepdim=True)

    of = sample(noise(1, *space), score)
    maps = [noise(*space, seed=k) for k in range(count)]
    rivals = [Foreign(f"r{k}", lambda model, x, target, m=m: m[None]) for k, m in enumerate(maps)]
    schedule = Schedule.of([METRICS[n] for n in names], rivals)
    (_,) = measure([of], schedule)
    return sum(asked), schedule.forwards(of.space)


def test_the_plan_holds():
    of_pictures = [m for m in METRICS.values() if m.category == "faithfulness" and not m.clips]
    names = [m.name for m in of_pictures if "superpixels" not in repr(m.bank)]
    asked, planned = counted(names, 4)
    assert asked <= 1.1 * planned
    assert asked >= 0.9 * planned


def test_another_method_costs_the_subsets_nothing():
    names = ["faithfulness-correlation", "mu-fidelity", "sensitivity-n", "infidelity", "single-deletion"]
    assert counted(names, 1)[0] == counted(names, 9)[0]


def test_metrics_of_one_bank_share_its_passes():
    one, many = counted(["srg"], 2)[0], counted(["srg", "deletion", "insertion", "aopc", "lerf", "pgi", "pgu"], 2)[0]
    assert one == many


def test_samples_do_not_depend_on_each_other():
    net = Formula(lambda x: x.flatten(1)[:, :4].sin() + x.mean((1, 2, 3))[:, None]).eval()
    x = noise(3, 2, 8, 8)
    names = ["srg", "sensitivity-n", "saco", "entropy", "average-drop"]
    rival = {"a": lambda model, x, target: x.abs().sum(1)}
    model = pl.wrap(net, scores="softmax")
    together = pl.evaluate(model, x, rival, names)
    for n in range(3):
        alone = pl.evaluate(model, x[n], rival, names)
        assert torch.allclose(
            torch.from_numpy(together.scores[:1, :, n]), torch.from_numpy(alone.scores[:1, :, 0]), atol=1e-5
        )


@pytest.mark.parametrize("bank", [ShiftedScale(), ShuffledWeights(), ContrastedScenes()])
def test_a_rival_of_one_model_is_not_asked_of_another_and_is_told_so(bank):
    rival = Foreign("mine", lambda model, x, target: x[:, 0], bound=True)
    assert not bank.can(rival)
    assert str(bank.refusal(rival)) == "mine explains no other model, so this metric is not asked of it."
