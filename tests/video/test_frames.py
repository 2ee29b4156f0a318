"""Frames as players: what is shown, the fast path against whole clips, exact values, planted moving bars."""

import itertools
import math

import pytest
import torch
from torch import nn

from helpers.nets import noise, seeded
from pellucid.engine.baselines import make_baseline
from pellucid.engine.frames import FrameScorer
from pellucid.errors import MethodError, ModelError
from pellucid.importance import get_estimator, measure
from pellucid.importance.frames import Frames, Segments, Tubes, shown_instead, stand_ins
from pellucid.importance.temporal import order_sensitivity, sufficient
from pellucid.models.suite_nets import VideoViT
from pellucid.scoring.job import prepare
from video.nets import FrameLSTM

CLIP = (1, 3, 6, 8, 8)


def scores(net, clip, bank, index):
    """Brute loop: one whole clip after the other."""
    frames = torch.cat([clip[0].transpose(0, 1), bank])
    with torch.no_grad():
        return torch.cat([net(frames[row].transpose(0, 1)[None]) for row in index]).double()


def every_class(y, _watched, _rows):
    return list(y.T)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    "options",
    [{}, {"layers": 2}, {"read": "mean"}, {"read": "state"}, {"batch_first": False}, {"bidirectional": True}],
    ids=str,
)
def test_fast_path_is_the_slow_path(kind, options):
    net, clip, bank = seeded(lambda: FrameLSTM(kind, **options)).eval(), noise(*CLIP), noise(6, 3, 8, 8, seed=1)
    index = torch.randint(12, (40, 6), generator=torch.Generator().manual_seed(0))
    index[:10, :4] = torch.arange(4)  # so that many begin late
    index[10] = torch.arange(6)
    expected = scores(net, clip, bank, index)
    for fast in (True, False):
        with FrameScorer(net, clip, bank, every_class, targets=3, fast=fast) as scorer:
            assert scorer.recurrent == fast
            torch.testing.assert_close(scorer(index), expected, rtol=1e-5, atol=1e-6)
            passes = scorer.cost.forwards
        assert passes <= 40 // 6 if fast else passes >= 40


def test_only_the_recurrent_suffix_is_run():
    net, clip = seeded(FrameLSTM).eval(), noise(*CLIP)
    with FrameScorer(net, clip, clip[0, :, :0].transpose(0, 1), every_class, targets=3) as scorer:
        steps, kept = [], net.rnn.register_forward_pre_hook(lambda _m, a: steps.append(a[0].shape[1]))
        index = torch.arange(6).repeat(3, 1)
        index[:, 4] = torch.tensor([0, 1, 2])
        scorer(index)
        kept.remove()
    assert steps == [2]


class Mixing(FrameLSTM):
    """Frames that see each other before the recurrent layer."""

    def forward(self, x):
        return super().forward(x + 0.1 * x.roll(1, 2))


class Positions(FrameLSTM):
    """Frames that know their number."""

    def forward(self, x):
        return super().forward(x + torch.arange(x.shape[2])[:, None, None])


class Counting(FrameLSTM):
    """Reads the number of frames from the clip itself, behind the recurrent layer."""

    def forward(self, x):
        n, frames = len(x), x.shape[2]
        features = self.cnn(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (n, -1))
        return self.fc(self.rnn(features)[0][:, frames - 1])


@pytest.mark.parametrize(("build", "fast"), [(Mixing, False), (Positions, False), (Counting, True)])
def test_networks_that_only_look_like_it(build, fast):
    net, clip, bank = seeded(build).eval(), noise(*CLIP), noise(6, 3, 8, 8, seed=1)
    index = torch.randint(12, (9, 6), generator=torch.Generator().manual_seed(0))
    with FrameScorer(net, clip, bank, every_class, targets=3) as scorer:
        assert scorer.recurrent == fast
        torch.testing.assert_close(scorer(index), scores(net, clip, bank, index), rtol=1e-5, atol=1e-6)


def test_nan_and_no_clip_are_refused():
    net = seeded(FrameLSTM).eval()
    with torch.no_grad():
        net.fc.bias.fill_(torch.nan)
    clip = noise(*CLIP)
    with (
        pytest.raises(ModelError, match="NaN"),
        FrameScorer(net, clip, clip[0, :, :0].transpose(0, 1), every_class, targets=3) as s,
    ):
        s(torch.arange(6)[None])
    for bad in (noise(2, 3, 6, 8, 8), noise(1, 3, 8, 8), noise(1, 3, 1, 8, 8)):
        with pytest.raises(MethodError, match=r"one clip|one input"):
            measure(
                Frames(), get_estimator("ablation"), prepare(nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), bad, [0])
            )


def test_what_is_shown_instead():
    kept = torch.tensor([[1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    assert shown_instead(kept, "freeze").tolist() == [[0, 0, 0, 3], [2, 2, 2, 2], [4, 4, 4, 4], [0, 1, 2, 3]]
    assert shown_instead(kept, "drop").tolist() == [[0, 0, 3, 3], [2, 2, 2, 2], [4, 4, 4, 4], [0, 1, 2, 3]]
    assert shown_instead(kept, "blur").tolist() == [[0, 5, 6, 3], [4, 5, 2, 7], [4, 5, 6, 7], [0, 1, 2, 3]]
    clip = noise(1, 3, 4, 8, 8)
    torch.testing.assert_close(stand_ins(clip, "freeze")[0], clip[0].mean(1))
    assert stand_ins(clip, "blur").shape == (4, 3, 8, 8)
    assert not stand_ins(clip, "zero").any()


@pytest.mark.parametrize(
    "players",
    [Segments(count=4), Segments(count=3, baseline="drop"), Frames(baseline="mean")],
    ids=lambda p: f"{p.kind} {p.baseline}",
)
def test_shapley_values_are_exact(players):
    """Over all orders in which the players can come in, against whole clips."""
    net, clip = seeded(FrameLSTM).eval(), noise(1, 3, 5, 8, 8)
    job = prepare(net, clip, [1])
    owners = players.owners(5)
    count = int(owners.max()) + 1

    def value(members):
        kept = torch.tensor([[float(owners[t]) in members for t in range(5)]])
        return float(scores(net, clip, stand_ins(clip, players.baseline), shown_instead(kept, players.baseline))[0, 1])

    memo = {m: value(set(m)) for r in range(count + 1) for m in itertools.combinations(range(count), r)}
    expected = torch.zeros(count, dtype=torch.float64)
    for order in itertools.permutations(range(count)):
        for i, k in enumerate(order):
            expected[k] += memo[tuple(sorted(order[: i + 1]))] - memo[tuple(sorted(order[:i]))]
    found = measure(players, get_estimator("shapley"), job)
    torch.testing.assert_close(found.values[:, 0], expected / math.factorial(count), rtol=1e-4, atol=1e-6)
    assert float(found.full[0] - found.empty[0]) == pytest.approx(float(found.values.sum()), abs=1e-6)


class Lit(nn.Module):
    """Class 1 by the bright places in frames 3 and 4 (of 8) of the left half; any other change says nothing."""

    def forward(self, x):
        seen = x[:, 0, 2:4, :, : x.shape[-1] // 2].clamp(min=0.5).mean((1, 2, 3)) - 0.5
        return torch.stack([0.02 - seen, seen], 1) * 20


def bar():
    """A bright bar that moves from left to right."""
    clip = torch.zeros(1, 1, 8, 16, 16)
    for t in range(8):
        clip[0, 0, t, 4:12, 2 * t : 2 * t + 2] = 1
    return clip


def test_a_planted_moving_bar_is_found():
    job = prepare(Lit(), bar(), [1])
    for baseline in ("blur", "mean", "zero"):
        for by in ("ablation", "shapley"):
            values = measure(Frames(baseline=baseline), get_estimator(by), job).values[:, 0]
            assert set(values.topk(2).indices.tolist()) == {2, 3}
            assert values[[0, 1, 4, 5, 6, 7]].abs().max() < 1e-9
    tubes = measure(Tubes(cells=(4, 2, 4), baseline="zero"), get_estimator("shapley"), job, pairs=False)
    best = {tubes.names[k] for k in tubes.values[:, 0].topk(2).indices.tolist()}
    assert best == {"frames 3-4, row 1, column 2", "frames 3-4, row 2, column 2"}


def test_fewest_frames():
    job = prepare(Lit(), bar(), [1])
    found = sufficient(job, Segments(count=8, baseline="zero"))
    assert found.exact
    assert found.players == (2, 3)
    assert found.names == ("frame 3", "frame 4")
    alone = sufficient(job, Segments(count=8, baseline="zero"), share=0.0)
    assert alone.exact
    assert len(alone.players) == 1
    assert alone.players[0] in (2, 3)
    longer = torch.cat([bar(), torch.zeros(1, 1, 8, 16, 16)], 2)
    greedy = sufficient(prepare(Lit(), longer, [1]), Frames(baseline="zero"))
    assert not greedy.exact
    assert greedy.players == (2, 3)
    with pytest.raises(MethodError, match="between 0 and 1"):
        sufficient(job, Frames(), share=1.0)


class Ordered(nn.Module):
    """Probability near 1 when the light moves to the right; `sees` says what it uses of that."""

    def __init__(self, sees):
        super().__init__()
        self.sees = sees

    def forward(self, x):
        where = (x[:, 0] * torch.linspace(-1, 1, x.shape[-1])).sum((2, 3)) / 8
        score = {
            "order": where.diff(dim=1).clamp(-0.5, 0.5).sum(1) * 4,
            "change": where.std(1) * 20 - 6,
            "static": x.mean((1, 2, 3, 4)) * 60,
        }[self.sees]
        return torch.stack([-score, score], 1)


@pytest.mark.parametrize("sees", ["order", "change", "static"])
def test_order_sensitivity(sees):
    (found,) = order_sensitivity(prepare(Ordered(sees), bar(), [1]))
    assert found.verdict == sees
    assert found.plain > 0.95
    assert (found.reversed < 0.05) == (sees == "order")
    with torch.no_grad():
        net, clip = Ordered(sees), bar()
        still = [float(net(clip[:, :, t : t + 1].expand_as(clip)).softmax(1)[0, 1]) for t in range(8)]
        backwards = float(net(clip.flip(2)).softmax(1)[0, 1])
    assert found.still == pytest.approx(still, abs=1e-6)
    assert found.reversed == pytest.approx(backwards, abs=1e-6)
    assert order_sensitivity(prepare(Ordered(sees), bar(), [1])) == [found]


def test_dropped_tubes_are_tokens_left_out():
    net = seeded(lambda: VideoViT(classes=2, frames=4, side=16, width=16, depth=2, heads=2)).eval()
    clip = noise(1, 3, 4, 16, 16)
    job = prepare(net, clip, [1])
    players = Tubes(cells=(2, 2, 2), baseline="dropped")
    with players.game(job) as game:
        coalition = torch.tensor([[1, 0, 1, 1, 0, 1, 1, 0.0]])
        value = float(game.value(coalition)[0, 0])
    with torch.no_grad():
        tokens = torch.cat([net.first, net.embed(net.scaled(clip)).flatten(2).mT], 1) + net.position
        tokens = tokens[:, [0, *(1 + coalition[0].nonzero()[:, 0]).tolist()]]
        for block in net.blocks:
            tokens = block(tokens)
        assert value == pytest.approx(float(net.head(net.norm(tokens[:, 0]))[0, 1]), abs=1e-5)
    with (
        pytest.raises(MethodError, match=r"dropped only from a plain transformer|takes tokens away"),
        players.game(prepare(seeded(FrameLSTM).eval(), clip, [1])),
    ):
        pass


TEMPORAL = {
    "freeze": lambda x: x[:, :, :1].expand_as(x),
    "time-mean": lambda x: x.mean(2, keepdim=True).expand_as(x),
    "time-reverse": lambda x: x[:, :, torch.arange(x.shape[2] - 1, -1, -1)],
}


@pytest.mark.parametrize("name", TEMPORAL)
def test_temporal_baselines(name):
    x = noise(2, 3, 6, 5, 4)
    torch.testing.assert_close(make_baseline(name, x, torch.Generator()), TEMPORAL[name](x))


def test_random_and_smooth_temporal_baselines():
    x = noise(2, 3, 6, 5, 4)
    shuffled = make_baseline("time-shuffle", x, torch.Generator().manual_seed(3))
    assert not torch.equal(shuffled, x)
    torch.testing.assert_close(shuffled.sort(2).values, x.sort(2).values)
    again = make_baseline("time-shuffle", x, torch.Generator().manual_seed(3))
    assert torch.equal(again, shuffled)
    blurred = make_baseline("time-blur", x, torch.Generator())
    at = torch.arange(6.0)
    weights = torch.exp(-0.5 * ((at[:, None] - at) / (0.125 * 6)) ** 2)
    expected = torch.einsum("ts,ncshw->ncthw", weights / weights.sum(1, keepdim=True), x)
    torch.testing.assert_close(blurred, expected, rtol=1e-4, atol=1e-5)
    for name in ("freeze", "time-mean", "time-blur", "time-shuffle", "time-reverse"):
        with pytest.raises(MethodError, match="one of clips"):
            make_baseline(name, noise(1, 3, 8, 8), torch.Generator())
