"""The permutation test of a map: against brute force, on truths that are known, and how often it is fooled."""

import itertools
import math

import numpy as np
import pytest
import torch

from helpers.trials import agreement, moved
from pellucid.evaluation.chance import STEPS, Trial, mask_pairs, steps_shown


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turned(image):
    """The eight turns and mirror images of a square, four of an oblong, by numpy."""
    square = image.shape[0] == image.shape[1]
    for quarter in range(4) if square else (0, 2):
        for mirrored in (image, image[::-1]):
            yield np.rot90(mirrored, quarter)


@pytest.mark.parametrize("size", [(3, 3), (2, 4), (5, 1)])
def test_moves_are_all_shifts_of_all_turns(size):
    values = noise(*size)
    found = moved(values)
    expected = [
        np.roll(image, shift, (0, 1)).ravel()
        for image in turned(values.numpy())
        for shift in itertools.product(range(size[0]), range(size[1]))
    ]
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, np.stack(expected).tolist()))
    assert torch.equal(found[0], values.flatten())  # the map as it lies


def test_many_moves_are_drawn_and_keep_the_map_itself():
    values = noise(16, 14, 14)
    found = moved(values)
    assert found.shape == (2000, 16 * 14 * 14)
    assert torch.equal(found[0], values.flatten())
    assert len({tuple(row.tolist()) for row in found}) == 2000
    assert torch.equal(found.sort(1).values, values.flatten().sort().values.expand_as(found))


@pytest.mark.parametrize("grid", [(14, 14), (7, 14), (5, 5), (4,), (1, 3, 3), (2, 2)])
def test_masks_show_what_the_curves_show_and_their_complements_the_rest(grid):
    cells = math.prod(grid)
    counts = steps_shown(cells)
    assert (int(counts[0]), int(counts[-1]), len(counts)) == (0, cells, min(STEPS, cells) + 1)
    a, b = mask_pairs(grid, 3, 0)
    assert torch.equal(a, ~b)
    assert set(a.sum(1).tolist()) == set(counts[1:-1].tolist())
    again, other = mask_pairs(grid, 3, 0)[0], mask_pairs(grid, 3, 1)[0]
    assert torch.equal(a, again)
    assert cells < 6 or not torch.equal(a, other)


def test_masks_are_smooth():
    square = mask_pairs((14, 14), 0, 0)[0].reshape(-1, 14, 14)
    half = square[(square.sum((1, 2)) - 98).abs() < 20].float()
    changes = (half.diff(dim=1).abs().mean() + half.diff(dim=2).abs().mean()) / 2
    assert changes < 0.25  # of white noise 0.5


def test_a_single_cell_has_no_masks_and_proves_nothing():
    masks = mask_pairs((1, 1), 0, 0)
    assert masks.shape == (2, 0, 1)
    assert agreement(torch.ones(1, 1), masks, torch.zeros(2, 0)).p_value == 1


def by_hand(values, masks, scores):
    """The correlation by numpy: least squares on the number shown, then Pearson."""
    a, b = masks.numpy().astype(float)
    effect, share = (scores[0] - scores[1]).numpy(), a @ values - b @ values
    share = (a - b) @ (values - values.mean())
    line = np.stack([np.ones(len(a)), a.mean(1)], 1)
    effect, share = (t - line @ np.linalg.lstsq(line, t, rcond=None)[0] for t in (effect, share))
    return np.corrcoef(effect, share)[0, 1]


def test_correlation_and_p_value_are_those_of_the_brute_loop():
    values, masks = noise(5, 5), mask_pairs((5, 5), 0, 0)
    truth = values + 0.8 * noise(5, 5, seed=1)
    scores = masks.double() @ truth.flatten() + 0.1 * noise(2, masks.shape[1], seed=2)
    found = agreement(values, masks, scores)
    assert found.correlation == pytest.approx(by_hand(values.flatten().numpy(), masks, scores), abs=1e-9)
    as_good = [by_hand(m.numpy(), masks, scores) >= found.correlation - 1e-9 for m in moved(values)]
    assert found.p_value == pytest.approx(np.mean(as_good), abs=1e-12)
    assert 0 < found.p_value < 0.1


def test_blocks_that_come_one_by_one_are_as_good_as_all_at_once():
    maps = [noise(5, 6, seed=s) for s in range(3)]
    blocks = [(masks := mask_pairs((5, 6), 0, k), noise(2, masks.shape[1], seed=9 + k)) for k in range(3)]
    piecemeal, whole = Trial(maps), Trial(maps)
    for block in blocks:
        piecemeal.add(*block)
    masks, scores = (torch.cat(parts, 1) for parts in zip(*blocks, strict=True))
    whole.add(masks, scores)
    for values, row in zip(maps, piecemeal.correlations(), strict=True):
        expected = [by_hand(m.numpy(), masks, scores) for m in moved(values)]
        assert row.tolist() == pytest.approx(expected, abs=1e-9)
    for one, other in zip(piecemeal.agreements(), whole.agreements(), strict=True):
        assert (one.p_value, one.alone) == (other.p_value, other.alone)
        assert one.correlation == pytest.approx(other.correlation, abs=1e-12)


def test_masks_that_all_show_as_much_have_no_line_to_take_out():
    values, masks = noise(3), torch.eye(3, dtype=torch.bool)
    scores = torch.stack([values, -values])
    found = agreement(values, torch.stack([masks, ~masks]), scores)
    assert found.correlation == pytest.approx(1)


def test_the_truth_agrees_wholly_and_its_opposite_not_at_all():
    values, masks = noise(14, 14), mask_pairs((14, 14), 0, 0)
    scores = (masks.double() @ values.flatten()) * 3 + 1
    assert agreement(values, masks, scores).correlation == pytest.approx(1)
    assert agreement(values, masks, scores).p_value == pytest.approx(1 / (8 * 14 * 14))
    assert agreement(-values, masks, scores).p_value == 1
    assert agreement(5 * values - 7, masks, scores).correlation == pytest.approx(1)
    assert agreement(1e-30 * values, masks, 1e-30 * scores).correlation == pytest.approx(1)  # of a rare class


@pytest.mark.parametrize("scores", [torch.zeros(2, 37), torch.full((2, 37), torch.nan)])
def test_scores_that_never_move_or_are_no_numbers_prove_nothing(scores):
    assert agreement(noise(14, 14), mask_pairs((14, 14), 0, 0), scores).p_value == 1


@pytest.mark.parametrize("width", [0.0, 1.0, 3.0])
def test_maps_that_know_nothing_have_evenly_spread_p_values(width):
    """Fields of any smoothness against a score that hangs on one corner: the p-value must be as rare as it says."""
    masks = mask_pairs((14, 14), 0, 0)
    corner = torch.zeros(14, 14, dtype=torch.float64)
    corner[2:6, 3:7] = 1
    scores = torch.sigmoid(6 * (masks.double() @ corner.flatten()) / 16 - 3)
    apart = (torch.arange(14)[:, None] - torch.arange(14)).abs()
    round_the_edge = torch.minimum(apart, 14 - apart).double()
    kernel = torch.exp(-0.5 * (round_the_edge / max(width, 1e-3)) ** 2)
    fields = (kernel @ noise(14, 14, seed=s) @ kernel for s in range(300))
    found = torch.tensor([agreement(f, masks, scores).p_value for f in fields])
    for level in (0.03, 0.1, 0.5):
        sigma = (level * (1 - level) / len(found)) ** 0.5
        assert abs(float((found <= level).double().mean()) - level) < 3.5 * sigma
