import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from pellucid.engine.baselines import blur
from pellucid.evaluation import Perturbed, cell_ranking, insertion_deletion
from pellucid.evaluation.chance import STEPS, mask_pairs
from pellucid.evaluation.faithfulness import cell_grid

SIDE = 28  # 14 x 14 cells of 2 x 2 pixels
CELLS = 14 * 14
BLOCK = mask_pairs((14, 14), 0, 0).shape[1] * 2


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cells_of(x, grid=(14, 14)):
    """Mean over channels and over each cell: `(M, cells)`, by plain loops."""
    n, _, height, width = x.shape
    h, w = height // grid[0], width // grid[1]
    out = torch.zeros(n, *grid)
    for i in range(grid[0]):
        for j in range(grid[1]):
            out[:, i, j] = x[:, :, i * h : (i + 1) * h, j * w : (j + 1) * w].mean((1, 2, 3))
    return out.flatten(1)


class Shown:
    """A score with a known truth: the share of the cells `known` that show the picture rather than its blur.

    The picture is 1 wherever its blur is not, so that the share can be read off any perturbed picture.
    """

    def __init__(self, x, known):
        self.x, self.blurred, self.known = x, blur(x, torch.Generator(), sigma=0.1), known
        self.batches = []

    def __call__(self, inputs):
        self.batches.append(len(inputs))
        share = ((inputs - self.blurred) / (self.x - self.blurred)).mean(1)
        return cells_of(share[:, None])[:, self.known].mean(1)


@pytest.fixture
def x():
    return noise(1, 2, SIDE, SIDE)


KNOWN = torch.arange(0, CELLS, 4)  # 49 of 196 cells


def closed_form(first, last):
    """Trapezoid area of a curve that is 0 until cell `first`, then rises evenly to 1 at cell `last`."""
    counts = [round(CELLS * i / STEPS) for i in range(STEPS + 1)]
    shares = [min(1, max(0, (c - first) / (last - first))) for c in counts]
    return sum((a + b) / 2 for a, b in pairwise(shares)) / STEPS


def order_with(first):
    """An order of the cells that begins with `first`."""
    rest = torch.tensor([c for c in range(CELLS) if c not in set(first.tolist())])
    return torch.cat([first, rest])


def test_the_best_and_the_worst_order_have_the_areas_of_the_closed_form(x):
    perturbed = Perturbed(Shown(x, KNOWN), x)
    n = len(KNOWN)
    best = order_with(KNOWN)
    insertion, deletion = perturbed.curves(best)
    assert insertion.auc == pytest.approx(closed_form(0, n), abs=1e-4)
    assert deletion.auc == pytest.approx(1 - closed_form(0, n), abs=1e-4)
    insertion, deletion = perturbed.curves(best.flip(0))
    assert insertion.auc == pytest.approx(closed_form(CELLS - n, CELLS), abs=1e-4)
    assert deletion.auc == pytest.approx(1 - closed_form(CELLS - n, CELLS), abs=1e-4)
    # Random masks show half the known cells when they show half the cells.
    assert insertion.random_mean == pytest.approx(0.5, abs=0.03)
    assert 0 < insertion.random_std < 0.05


def test_no_order_beats_the_oracle(x):
    perturbed = Perturbed(Shown(x, KNOWN), x)
    best, worst = perturbed.curves(order_with(KNOWN))[0].auc, perturbed.curves(order_with(KNOWN).flip(0))[0].auc
    for seed in range(5):
        order = torch.randperm(CELLS, generator=torch.Generator().manual_seed(seed))
        assert worst < perturbed.curves(order)[0].auc < best


def test_the_curves_equal_the_brute_loop_over_cells():
    x = noise(1, 3, SIDE, SIDE, seed=4)
    weights = noise(3, SIDE, SIDE, seed=5)

    def score(inputs):
        return (inputs * weights).sum((1, 2, 3)).sigmoid()

    order = torch.randperm(CELLS, generator=torch.Generator().manual_seed(6))
    insertion, deletion = Perturbed(score, x).curves(order)
    blurred = blur(x, torch.Generator(), sigma=0.1)
    for curve, start, end in ((insertion, blurred, x), (deletion, x, blurred)):
        current, done, expected = start.clone(), 0, []
        for step in range(STEPS + 1):
            for cell in order[done : round(CELLS * step / STEPS)].tolist():
                i, j = divmod(cell, 14)
                current[..., 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = end[..., 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            done = round(CELLS * step / STEPS)
            expected.append(float(score(current)))
        assert curve.scores == pytest.approx(expected, abs=1e-5)
        assert curve.fractions == pytest.approx([i / STEPS for i in range(STEPS + 1)])
        area = sum((a + b) / 2 for a, b in pairwise(expected)) / STEPS
        assert curve.auc == pytest.approx(area, abs=1e-5)


def test_the_ends_are_the_blur_and_the_picture(x):
    shown = Shown(x, KNOWN)
    insertion, deletion = Perturbed(shown, x).curves(torch.arange(CELLS))
    assert (insertion.scores[0], insertion.scores[-1]) == (deletion.scores[-1], deletion.scores[0])
    assert insertion.scores[0] == pytest.approx(0, abs=1e-5)
    assert insertion.scores[-1] == pytest.approx(1, abs=1e-5)


def test_deletion_is_insertion_in_the_reverse_order(x):
    perturbed = Perturbed(Shown(x, KNOWN), x)
    order = torch.randperm(CELLS, generator=torch.Generator().manual_seed(3))
    insertion, deletion = perturbed.curves(order)
    back_insertion, back_deletion = perturbed.curves(order.flip(0))
    assert deletion.scores == pytest.approx(back_insertion.scores[::-1], abs=1e-6)
    assert insertion.scores == pytest.approx(back_deletion.scores[::-1], abs=1e-6)
    assert deletion.random_mean == pytest.approx(insertion.random_mean, abs=1e-6)
    assert deletion.random_scores == pytest.approx(insertion.random_scores[::-1], abs=1e-6)


def test_random_masks_are_seeded_and_their_figures_are_those_of_numpy(x):
    a, again, other = (Perturbed(Shown(x, KNOWN), x, seed=s) for s in (1, 1, 2))
    order = torch.arange(CELLS)
    (curve, deletion), same, unlike = (p.curves(order) for p in (a, again, other))
    assert (curve, deletion) == same
    assert curve.random_scores != unlike[0].random_scores
    masks = mask_pairs((14, 14), 1, 0).flatten(0, 1).numpy()
    shares = masks[:, KNOWN.numpy()].mean(1)  # what `Shown` says of each
    expected, variance = [0.0], 0.0
    for step in range(1, STEPS):
        found = shares[masks.sum(1) == round(CELLS * step / STEPS)]
        assert len(found) in {2, 6}
        expected.append(found.mean())
        variance += found.var(ddof=1) / len(found)
    expected.append(1.0)
    assert curve.random_scores == pytest.approx(expected, abs=1e-5)
    assert curve.random_mean == pytest.approx(np.trapezoid(expected, dx=1 / STEPS), abs=1e-5)
    assert curve.random_std == pytest.approx(variance**0.5 / STEPS, abs=1e-5)
    assert deletion.random_std == pytest.approx(curve.random_std)


def test_random_masks_are_scored_once_and_the_global_state_is_left_alone(x):
    corner = torch.arange(40)
    shown = Shown(x, corner)
    perturbed = Perturbed(shown, x)
    state = torch.get_rng_state()
    perturbed.curves(torch.arange(CELLS))
    assert torch.equal(torch.get_rng_state(), state)
    inner = STEPS - 1
    assert sum(shown.batches) == 2 + BLOCK + 2 * inner
    perturbed.curves(torch.arange(CELLS).flip(0))
    assert sum(shown.batches) == 2 + BLOCK + 2 * inner  # the same pictures, the other way round
    perturbed.curves(torch.randperm(CELLS, generator=torch.Generator().manual_seed(1)))
    assert sum(shown.batches) == 2 + BLOCK + 4 * inner
    truth = torch.zeros(14, 14)
    truth.view(-1)[corner] = 1
    assert perturbed.agreement(truth).p_value < 0.005
    assert sum(shown.batches) == 2 + BLOCK + 4 * inner  # certain at once


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_the_batch_size_changes_nothing(x, monkeypatch, batch):
    order = torch.randperm(CELLS, generator=torch.Generator().manual_seed(3))
    expected = Perturbed(Shown(x, KNOWN), x).curves(order)
    monkeypatch.setattr("pellucid.evaluation.faithfulness.default_batch", lambda _device: batch)
    shown = Shown(x, KNOWN)
    found = Perturbed(shown, x).curves(order)
    assert max(shown.batches[1:]) == min(batch, BLOCK)
    for a, b in zip(expected, found, strict=True):
        assert a.scores == pytest.approx(b.scores, abs=1e-5)
        assert a.random_mean == pytest.approx(b.random_mean, abs=1e-5)


def test_a_map_is_ranked_and_measured(x):
    truth = torch.zeros(14, 14)
    truth.view(-1)[KNOWN] = 1
    good, _ = insertion_deletion(Shown(x, KNOWN), x, truth)
    bad, _ = insertion_deletion(Shown(x, KNOWN), x, -truth)
    assert good.auc == pytest.approx(closed_form(0, len(KNOWN)), abs=1e-4)
    assert bad.auc == pytest.approx(closed_form(CELLS - len(KNOWN), CELLS), abs=1e-4)


# ---------------------------------------------------------------- cells


@pytest.mark.parametrize(
    ("space", "grid"),
    [((224, 224), (14, 14)), ((112, 224), (7, 14)), ((224, 16), (14, 2)), ((8, 8), (8, 8)), ((1, 30), (1, 14))],
)
def test_cells_are_about_square(space, grid):
    assert cell_grid(space) == grid


@pytest.mark.parametrize(
    ("size", "grid"), [((28, 42), (14, 14)), ((14, 14), (14, 14)), ((56, 12), (14, 3)), ((6,), (3,))]
)
def test_cells_are_ranked_by_their_exact_mean(size, grid):
    values = noise(*size, seed=7)
    means = []
    for index in range(math.prod(grid)):
        place = torch.unravel_index(torch.tensor(index), grid)
        axes = zip(place, size, grid, strict=True)
        cell = values[tuple(slice(int(p) * n // g, (int(p) + 1) * n // g) for p, n, g in axes)]
        means.append(float(cell.mean()))
    expected = sorted(range(len(means)), key=lambda i: -means[i])
    assert cell_ranking(values, grid).tolist() == expected


def test_volumes_are_ranked_too():
    values = torch.zeros(4, 4, 4)
    values[2:, :2, 2:] = 1
    assert cell_ranking(values, (2, 2, 2))[0] == 0b101


def test_ties_favour_no_part_of_the_picture():
    order = cell_ranking(torch.zeros(14, 14), (14, 14))
    assert sorted(order.tolist()) == list(range(CELLS))
    assert torch.equal(order, cell_ranking(torch.ones(14, 14), (14, 14)))  # the same each time
    for part in (order[: CELLS // 2], order[CELLS // 2 :]):
        assert abs(float((part // 14).float().mean()) - 6.5) < 1.5  # rows and columns are as mixed as in any shuffle
        assert abs(float((part % 14).float().mean()) - 6.5) < 1.5
    values = torch.zeros(14, 14)
    values[5, 6] = 1
    assert cell_ranking(values, (14, 14)).tolist() == [76, *(c for c in order.tolist() if c != 76)]


def test_a_map_that_is_nearly_all_ties_is_judged_as_random(x):
    values = torch.zeros(14, 14)
    values[13, 13] = 1
    for rows in (range(7), range(7, 14)):  # the evidence in the upper half, in the lower half
        known = torch.tensor([14 * i + j for i in rows for j in range(14) if (i, j) != (13, 13)])
        insertion, _ = insertion_deletion(Shown(x, known), x, values)
        assert abs(insertion.auc - insertion.random_mean) < 0.06


def test_a_coarse_map_is_spread_evenly():
    coarse = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    order = cell_ranking(coarse, (14, 14)).tolist()
    assert order[0] in {14 * i + j for i in range(4) for j in range(4)}  # beyond the outermost centre it is level
    assert set(order[:20]) <= {14 * i + j for i in range(7) for j in range(7)}  # all in the quarter that holds the 3
    assert order.index(195) < order.index(13)


def test_scaling_and_shifting_a_map_changes_nothing():
    values = noise(28, 28, seed=9)
    assert torch.equal(cell_ranking(values, (14, 14)), cell_ranking(values * 1000 + 5, (14, 14)))
    assert torch.equal(cell_ranking(values.half(), (14, 14)), cell_ranking(values.half().float(), (14, 14)))
