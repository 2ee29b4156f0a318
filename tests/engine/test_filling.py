"""Holes are filled as the sparse linear systems say, which SciPy solves exactly."""

import itertools

import numpy as np
import pytest
import scipy.sparse
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scipy.sparse.linalg import spsolve

from helpers.nets import noise
from pellucid.engine.baselines import open_baseline
from pellucid.engine.filling import fill


def solved(values, known, diagonal):
    """`(C, *space)`: each unknown place the mean of its neighbours inside, weighted by 1 / distance^2."""
    space, count = known.shape, known.size
    number = np.arange(count).reshape(space)
    entries = []
    for step in itertools.product((-1, 0, 1), repeat=len(space)):
        far = sum(s * s for s in step)
        if far == 0 or (far > 1 and not diagonal):
            continue
        here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, space, strict=True))
        there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(step, space, strict=True))
        entries.append((number[here].ravel(), number[there].ravel(), np.full(number[here].size, 1 / far)))
    rows, columns, weights = (np.concatenate(part) for part in zip(*entries, strict=True))
    W = scipy.sparse.csr_matrix((weights, (rows, columns)), (count, count))
    L = (scipy.sparse.diags(np.asarray(W.sum(1)).ravel()) - W).tocsr()
    hole, rim = np.flatnonzero(known.ravel() == 0), np.flatnonzero(known.ravel())
    out = values.reshape(len(values), -1).copy()
    for channel in out:
        channel[hole] = spsolve(L[hole][:, hole].tocsc(), -(L[hole][:, rim] @ channel[rim]))
    return out.reshape(values.shape)


def smooth(*space):
    """Something like a picture: `(1, 2, *space)`, standard deviation 1."""
    x = noise(1, 2, *space)
    for axis in range(2, x.ndim):
        for _ in range(4):
            x = (x.roll(1, axis) + 2 * x + x.roll(-1, axis)) / 4
    return x / x.std()


def blocks(space, share, seed=0, edge=4):
    coarse = [-(-s // edge) for s in space]
    known = (torch.rand(3, 1, *coarse, generator=torch.Generator().manual_seed(seed)) < share).float()
    for axis, s in enumerate(space):
        known = known.repeat_interleave(edge, axis + 2).narrow(axis + 2, 0, s)
    known[(slice(None), 0, *[slice(0, 2)] * len(space))] = 1
    return known.contiguous()


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("share", [0.8, 0.5, 0.2, 0.0])
@pytest.mark.parametrize("space", [(60,), (32, 32), (31, 45), (56, 20), (5, 16, 18)])
def test_equals_the_exact_solution(space, share, diagonal):
    x, known = smooth(*space), blocks(space, share)
    found = fill(x, known, diagonal=diagonal)
    exact = torch.from_numpy(np.stack([solved(x[0].double().numpy(), k[0].numpy(), diagonal) for k in known]))
    error = (found - exact).abs()
    assert error.mean() < (0.02 if share else 0.06)  # one corner pulls the whole of it
    assert error.max() < 0.2
    assert torch.equal(torch.where(known > 0, found, 0.0), torch.where(known > 0, x, 0.0))


def test_single_pixels():
    x, known = smooth(32, 32), (torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    exact = np.stack([solved(x[0].double().numpy(), k[0].numpy(), True) for k in known])
    assert (fill(x, known, diagonal=True) - torch.from_numpy(exact)).abs().max() < 0.05


def test_a_plane_is_filled_exactly_and_a_constant_too():
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    plane = (2 * y - x + 3)[None, None]
    known = torch.ones(1, 1, 24, 24)
    known[..., 6:15, 5:17] = 0
    for diagonal in (True, False):
        torch.testing.assert_close(fill(plane, known, diagonal=diagonal), plane, rtol=0, atol=0.05)
        assert torch.equal(fill(plane * 0 + 2, known, diagonal=diagonal), plane * 0 + 2)


def test_nothing_known_is_the_mean_and_all_known_is_the_input():
    x = smooth(20, 20)
    assert torch.allclose(
        fill(x, torch.zeros(2, 1, 20, 20), diagonal=True), x.mean((2, 3), keepdim=True).expand(2, -1, 20, 20)
    )
    assert torch.equal(fill(x, torch.ones(1, 1, 20, 20), diagonal=True), x)


def test_noisy_linear_is_the_imputation_of_road():
    x = smooth(28, 28)
    known = blocks((28, 28), 0.5)[:1]
    peer = NoisyLinearImputer(noise=0.0)(x[0], known[0, 0])
    generator = torch.Generator().manual_seed(0)
    ours = open_baseline("noisy-linear", x, generator).behind(0, known)[0]
    difference = (ours - peer)[:, known[0, 0] == 0]
    assert difference.abs().max() < 0.1
    assert 0.008 < difference.std() < 0.03  # the noise of 0.01, and the solver's error
    again = open_baseline("noisy-linear", x, torch.Generator().manual_seed(0)).behind(0, known)[0]
    assert torch.equal(ours, again)
    other = open_baseline("noisy-linear", x, torch.Generator().manual_seed(1)).behind(0, known)[0]
    assert not torch.equal(ours, other)


def test_fillings_are_the_same_in_any_company():
    x, known = smooth(40, 33), torch.cat([blocks((40, 33), share, seed) for share, seed in ((0.5, 1), (0.1, 2))])
    together = fill(x, known, diagonal=True)
    for m in range(len(known)):
        torch.testing.assert_close(fill(x, known[m : m + 1], diagonal=True)[0], together[m], rtol=1e-5, atol=1e-5)
