"""The scorer equals a loop over single masked inputs, for every kind of mask, baseline and model."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from helpers.nets import noise, pooled, random_net
from pellucid.engine.baselines import FILLS, open_baseline
from pellucid.engine.masks import GridMasks, SegmentMasks, WindowMasks, grid_labels
from pellucid.engine.memory import Memory
from pellucid.engine.perturb import Scorer
from pellucid.errors import MethodError, ModelError, UnsteadyError
from pellucid.heatmaps.adaptive import GaussianMasks
from pellucid.heatmaps.masked_cam import NoisyMasks
from pellucid.models.blackbox import BlackBox


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def vit():
    return random_net("vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=24, num_heads=2, depth=1, classes=5)


def box():
    net = pooled()

    def predict(batch):
        with torch.no_grad():
            return net(torch.from_numpy(batch)).numpy()

    return BlackBox(predict, numpy=True)


MODELS = {
    "signals": (lambda: pooled(1), (40,)),
    "pictures": (pooled, (17, 20)),
    "volumes": (lambda: pooled(3), (8, 9, 10)),
    "transformer": (vit, (16, 16)),
    "black box": (box, (17, 20)),
}
BASELINES = ("zero", "mean", "blur", "uniform", "noisy-linear", "inpaint", "tensor")


# --- masks, each beside its definition, written out place by place


def segment_masks(space):
    labels = torch.randint(0, 5, space, generator=generator())
    values = torch.randint(0, 2, (6, 5), generator=generator(1)).float()
    drawn = torch.zeros(6, *space)
    for m, at in itertools.product(range(6), itertools.product(*map(range, space))):
        drawn[(m, *at)] = values[m, labels[at]]
    return SegmentMasks(values, labels), drawn


def block_masks(space):
    grid = tuple(3 for _ in space)
    values = torch.rand(6, *grid, generator=generator())
    drawn = torch.zeros(6, *space)
    for at in itertools.product(*map(range, space)):
        cell = tuple(int((a + 0.5) * g / s) for a, g, s in zip(at, grid, space, strict=True))
        drawn[(slice(None), *at)] = values[(slice(None), *cell)]
    return GridMasks(values, space), drawn


def smooth_masks(space):
    values = torch.rand(6, *(3 for _ in space), generator=generator())
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(space)]
    return GridMasks(values, space, "linear"), interpolate(values[:, None], size=space, mode=mode)[:, 0]


def shifted_masks(space):
    grid = tuple(4 for _ in space)
    cell = [-(-s // 3) for s in space]
    values = torch.rand(6, *grid, generator=generator()).round()
    shifts = torch.stack([torch.randint(0, c, (6,), generator=generator(2)) for c in cell], 1)
    drawn = torch.zeros(6, *space)
    for m, at in itertools.product(range(6), itertools.product(*map(range, space))):
        places = tuple((a + int(d)) // c for a, d, c in zip(at, shifts[m], cell, strict=True))
        drawn[(m, *at)] = values[(m, *places)]
    return GridMasks(values, space, "nearest", shifts), drawn


def smooth_shifted_masks(space):
    shifts = shifted_masks(space)[0].shifts
    values = torch.rand(6, *(4 for _ in space), generator=generator())
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(space)]
    large = interpolate(values[:, None], size=[4 * -(-s // 3) for s in space], mode=mode)[:, 0]
    cut = [
        mask[tuple(slice(int(d), int(d) + s) for d, s in zip(at, space, strict=True))]
        for mask, at in zip(large, shifts, strict=True)
    ]
    return GridMasks(values, space, "linear", shifts), torch.stack(cut)


def window_masks(space):
    size = tuple(max(1, s // 3) for s in space)
    starts = torch.stack([torch.randint(-1, s, (6,), generator=generator(3)) for s in space], 1)
    drawn = torch.ones(6, *space)
    for m in range(6):
        inside = tuple(slice(max(0, int(a)), max(0, int(a) + w)) for a, w in zip(starts[m], size, strict=True))
        drawn[(m, *inside)] = 0
    return WindowMasks(starts, size, space), drawn


def gaussian_masks(space):
    values = torch.cat([torch.rand(6, len(space), generator=generator()), torch.full((6, 1), 0.2)], 1)
    values = torch.cat([values, (torch.arange(6)[:, None] % 2).float()], 1)
    drawn = torch.zeros(6, *space)
    for m, at in itertools.product(range(6), itertools.product(*map(range, space))):
        far = sum(((a + 0.5) / s - float(c)) ** 2 for a, s, c in zip(at, space, values[m], strict=False))
        g = math.exp(-far / (2 * 0.2**2))
        drawn[(m, *at)] = 1 - g if m % 2 else g
    return GaussianMasks(values, space), drawn


def noisy_masks(space):
    masks, drawn = smooth_masks(space)
    added = noise(*space, seed=4)
    return NoisyMasks(masks.values, space, "linear", noise=added), drawn + added


KINDS = {
    "segments": segment_masks,
    "blocks": block_masks,
    "smooth": smooth_masks,
    "shifted": shifted_masks,
    "smooth and shifted": smooth_shifted_masks,
    "windows": window_masks,
    "gaussians": gaussian_masks,
    "noisy": noisy_masks,
}


@pytest.mark.parametrize("space", [(13,), (10, 14), (4, 6, 5)])
@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_their_definition(kind, space):
    masks, drawn = KINDS[kind](space)
    assert len(masks) == 6
    assert tuple(masks.space) == space
    torch.testing.assert_close(masks.render(slice(None))[:, 0], drawn, rtol=1e-5, atol=1e-5)
    rows = torch.tensor([4, 1])
    torch.testing.assert_close(masks.take(rows).render(slice(None))[:, 0], drawn[rows], rtol=1e-5, atol=1e-5)
    weights = noise(6, 3, seed=5)
    expected = torch.einsum("mt,m...->t...", weights, drawn)
    torch.testing.assert_close(masks.accumulate(weights), expected, rtol=1e-4, atol=1e-4)
    assert len(set(masks.keys())) == 6  # no two are drawn from the same values and shifts
    assert masks.take(rows).keys() == [masks.keys()[4], masks.keys()[1]]


def score(y, _watched, _rows):
    return [y[:, 1], y[:, 2].sigmoid()]


def loop(net, x, drawn, ground):
    """`(N, M, 2)`, one masked input at a time."""
    out = torch.zeros(len(x), len(drawn), 2, dtype=torch.float64)
    with torch.no_grad():
        for n, m in itertools.product(range(len(x)), range(len(drawn))):
            behind = ground.behind(n, drawn[m][None, None])[0]
            y = net((drawn[m] * x[n] + (1 - drawn[m]) * behind)[None])
            out[n, m] = torch.stack(score(y, {}, None), 1)[0].double()
    return out


def opened(baseline, x):
    return open_baseline(noise(*x.shape, seed=9) if baseline == "tensor" else baseline, x, generator(7))


def every_combination():
    """Mask kind x baseline x model kind; what solves equations on small CPUs only on pictures, or slowly."""
    for kind, baseline, model in itertools.product(KINDS, BASELINES, MODELS):
        long = baseline in FILLS and (model != "pictures" or kind not in ("segments", "smooth"))
        yield pytest.param(kind, baseline, model, marks=[pytest.mark.slow] if long else [])


@pytest.mark.parametrize(("kind", "baseline", "model"), list(every_combination()))
def test_the_scorer_is_a_loop(kind, baseline, model):
    build, space = MODELS[model]
    net, x = build(), noise(2, 3, *space, seed=1)
    masks, drawn = KINDS[kind](space)
    ground = opened(baseline, x)
    expected = loop(net, x, drawn, ground)
    for batch in (1, 5):
        with Scorer(net, x, ground, score, targets=2, batch=batch) as scorer:
            torch.testing.assert_close(scorer(masks), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("baseline", BASELINES)
def test_plain_and_blank(baseline):
    net, x = pooled(), noise(2, 3, 17, 20, seed=1)
    ground = opened(baseline, x)
    with Scorer(net, x, ground, score, targets=2) as scorer, torch.no_grad():
        torch.testing.assert_close(scorer.plain(), torch.stack(score(net(x), {}, None), 1).double())
        blank = loop(net, x, torch.zeros(1, 17, 20), ground)[:, 0]
        torch.testing.assert_close(scorer.blank(), blank, rtol=1e-4, atol=1e-6)


def test_masks_of_their_own_for_each_input():
    net, x = pooled(), noise(2, 3, 17, 20, seed=1)
    labels = grid_labels((17, 20), (2, 2))
    own = [torch.eye(4)[:3], torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]])]
    ground = opened("blur", x)
    expected = [loop(net, x, v[:, labels], ground)[n] for n, v in enumerate(own)]
    with Scorer(net, x, ground, score, targets=2, batch=2) as scorer:
        found = scorer([SegmentMasks(v, labels) for v in own])
        assert scorer.cost.forwards == 3 + 2  # the second's first two are one
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-6)


# --- memory that runs out, cancels


@pytest.mark.parametrize("at", range(1, 7))
def test_memory_may_run_out_in_any_batch(at):
    net, x = pooled(), noise(2, 3, 17, 20, seed=1)
    masks, drawn = segment_masks((17, 20))
    ground = opened("zero", x)
    expected = loop(net, x, drawn, ground)
    calls = []

    def fails(_module, args):
        calls.append(len(args[0]))
        if len(calls) == at:
            raise torch.OutOfMemoryError("out of memory")

    net[0].register_forward_pre_hook(fails)
    with Scorer(net, x, ground, score, targets=2, batch=2) as scorer:
        found = scorer(masks)
        assert scorer.batch == 1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert scorer.cost.forwards == sum(calls) - calls[at - 1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ModelError("broken"), ValueError("mine")])
@pytest.mark.parametrize("at", [1, 3, 6])
def test_a_scorer_that_breaks_off_leaves_the_model_and_keeps_what_it_knows(error, at):
    net, x = pooled().train(), noise(2, 3, 17, 20, seed=1)
    masks, _ = segment_masks((17, 20))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    calls = []

    def score_or_break(y, _w, _r):
        calls.append(len(y))
        if len(calls) == at:
            raise error
        return [y[:, 1], y[:, 2]]

    memory = Memory(2)
    kind = error if isinstance(error, type) else type(error)
    with Scorer(net, x, opened("zero", x), score_or_break, targets=2, batch=2) as scorer:
        scorer.memory = memory
        with pytest.raises(kind):
            scorer(masks)
    assert net.training
    assert not any(m._forward_hooks for m in net.modules())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert sum(map(len, memory.tables)) == sum(calls[: at - 1])
    with Scorer(net, x, opened("zero", x), lambda y, _w, _r: [y[:, 1], y[:, 2]], targets=2, batch=2) as scorer:
        whole = scorer(masks)
        asked = scorer.cost.forwards
    with Scorer(net, x, opened("zero", x), lambda y, _w, _r: [y[:, 1], y[:, 2]], targets=2, batch=2) as scorer:
        scorer.memory = memory
        torch.testing.assert_close(scorer(masks), whole, rtol=1e-5, atol=1e-7)
        assert scorer.cost.forwards == asked - sum(calls[: at - 1])
        again = scorer(masks)
        assert scorer.cost.forwards == asked - sum(calls[: at - 1])
    torch.testing.assert_close(again, whole, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("remembers", [True, False])
@pytest.mark.parametrize("at", [1, 3, 6])
def test_what_a_broken_model_has_answered_stays(at, remembers):
    net, x = pooled(), noise(2, 3, 17, 20, seed=1)
    masks, drawn = segment_masks((17, 20))
    ground = opened("zero", x)
    calls = []

    def score_or_break(y, w, r):
        calls.append(len(y))
        if len(calls) == at:
            raise ModelError("broken")
        return score(y, w, r)

    with Scorer(net, x, ground, score_or_break, targets=2, batch=2) as scorer:
        scorer.memory = Memory(2) if remembers else None
        found, failure = scorer.answered(masks)
        whole, nothing = scorer.answered(masks)
    assert str(failure) == "broken"
    assert nothing is None
    torch.testing.assert_close(whole, loop(net, x, drawn, ground), rtol=1e-4, atol=1e-6)
    known = ~found.isnan().any(2)
    torch.testing.assert_close(found[known], whole[known])
    rows = [{tuple(v.tolist()) for v, k in zip(masks.values, known[n], strict=True) if k} for n in (0, 1)]
    assert sum(map(len, rows)) == 2 * (at - 1)  # the batches before
    assert bool(known[0].all()) or not bool(known[1].any())  # the first input's masks come first


def test_nothing_an_unsteady_model_has_answered_stays():
    net, x = pooled(), noise(2, 3, 17, 20, seed=1)
    masks, _ = segment_masks((17, 20))

    def unsteady(_y, _w, _r):
        raise UnsteadyError("now this, now that")

    with Scorer(net, x, opened("zero", x), unsteady, targets=2) as scorer, pytest.raises(UnsteadyError):
        scorer.answered(masks)


def test_a_memory_survives_as_tensors():
    memory = Memory(2)
    memory.keep(0, [b"a" * 16, b"b" * 16], torch.tensor([[1.0, 2.0], [torch.nan, 3.0]], dtype=torch.float64))
    memory.keep(1, [b"c" * 16, b"d" * 16], torch.rand(2, 2, dtype=torch.float64))
    arrays = memory.arrays(1)
    assert arrays["asked"].shape == (2, 2, 16)
    assert arrays["answered"].isnan().tolist() == [[False, True], [False, False]]  # the first was asked one mask less
    again = Memory.of(arrays)
    assert [list(t) for t in again.tables] == [list(t) for t in memory.tables]
    assert all(float(again.tables[n][k]) == float(memory.tables[n][k][1]) for n in (0, 1) for k in again.tables[n])


# --- what a model may not answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [(lambda x: torch.zeros(1, 3), "1 scores for"), (lambda x: torch.full((len(x), 3), torch.nan), "NaN or infinity")],
)
def test_wrong_answers_are_named(answer, said):
    class Wrong(nn.Module):
        def forward(self, x):
            return answer(x)

    x = noise(2, 3, 17, 20)
    masks, _ = segment_masks((17, 20))
    with pytest.raises(ModelError, match=said), Scorer(Wrong(), x, opened("zero", x), score, targets=2) as scorer:
        scorer(masks)


def test_unknown_baselines_are_named():
    x = noise(1, 3, 8, 8)
    with pytest.raises(MethodError, match=r"no baseline 'grey'.*noisy-linear, inpaint, dropped"):
        open_baseline("grey", x, generator())
    with pytest.raises(MethodError, match="does not fit"):
        open_baseline(torch.zeros(5), x, generator())


@pytest.mark.parametrize("baseline", BASELINES[:-1])
def test_a_baseline_hangs_neither_on_the_place_in_the_batch_nor_on_the_company(baseline):
    x = noise(3, 2, 16, 12, seed=2)
    mask = torch.tensor(np.random.default_rng(0).integers(0, 2, (4, 1, 16, 12))).float()
    mask[0] = 0
    together = open_baseline(baseline, x, generator(3))
    for n in range(3):
        alone = open_baseline(baseline, x[n : n + 1], generator(3))
        torch.testing.assert_close(alone.blank()[0], together.blank()[n])
        for m in range(4):
            one = alone.behind(0, mask[m : m + 1])
            torch.testing.assert_close(one[0], together.behind(n, mask).expand(4, -1, -1, -1)[m], rtol=1e-5, atol=1e-5)
