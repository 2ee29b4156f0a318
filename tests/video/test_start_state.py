"""Recurrent layers that start from a state of the model's own: it is part of what is explained."""

import pytest
import torch
from torch import nn

from helpers.nets import noise, seeded
from pellucid.engine.frames import FrameScorer
from pellucid.engine.recurrent import Unrolled
from pellucid.errors import MethodError
from pellucid.heatmaps import LSTMLRP, ContrastiveExcitationBackprop, StateAblation, StateGradient
from video.nets import FrameLSTM

CLIP = (2, 3, 5, 8, 8)
KINDS = ["LSTM", "GRU", "RNN"]


class Started(FrameLSTM):
    """Starts from learned states, or from one made of the first frame; `named` gives it by name."""

    def __init__(self, kind="LSTM", read="last", layers=1, made=False, named=False, **options):
        super().__init__(kind, read=read, layers=layers, **options)
        ways = layers * (2 if self.rnn.bidirectional else 1)
        self.start = nn.ParameterList(torch.randn(ways, 1, 5) for _ in range(2 if kind == "LSTM" else 1))
        self.made, self.named = made, named

    def state(self, features):
        found = [s.expand(-1, len(features), -1).contiguous() for s in self.start]
        if self.made:
            found[0] = found[0] + features[:, 0].sum(1)[None, :, None]
        return tuple(found) if len(found) == 2 else found[0]

    def features(self, x):
        return self.cnn(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1))

    def forward(self, x):
        features = self.features(x)
        state = self.state(features)
        out, state = self.rnn(features, hx=state) if self.named else self.rnn(features, state)
        seen = {"last": out[:, -1], "mean": out.mean(1), "state": (state[0] if len(self.start) == 2 else state)[-1]}
        return self.fc(seen[self.read])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_unrolled_is_the_layer_from_any_state(kind, layers, bidirectional):
    rnn = seeded(lambda: getattr(nn, kind)(4, 3, num_layers=layers, bidirectional=bidirectional, batch_first=True))
    x, h, c = noise(2, 6, 4), *(noise(layers * (1 + bidirectional), 2, 3, seed=k) for k in (1, 2))
    state = (h, c) if kind == "LSTM" else h
    torch.testing.assert_close(Unrolled(rnn, x, state).outputs, rnn(x, state)[0])


@pytest.mark.parametrize("named", [False, True])
def test_on_a_linear_network_each_part_is_gradient_times_input(named):
    """Rectifiers that are all on, no biases: what the state and each step are worth has a closed form."""

    def build():
        net = Started("RNN", bias=False, named=named)
        net.rnn = nn.RNN(6, 5, nonlinearity="relu", bias=False, batch_first=True)
        with torch.no_grad():
            for p in (*net.rnn.parameters(), *net.start):
                p.abs_()
        return net.double().eval()

    net, x = seeded(build), noise(*CLIP).double()
    features, start = net.features(x).detach(), net.start[0].detach().expand(-1, 2, -1).contiguous()
    given = [features.requires_grad_(), start.requires_grad_()]
    score = (net.rnn(*given)[0][:, -1] @ net.fc.weight[1]).sum()
    slopes = torch.autograd.grad(score, given)
    worth = [(g * v).detach() for g, v in zip(slopes, given, strict=True)]
    total = worth[0].sum((1, 2)) + worth[1].sum((0, 2))
    (lrp,) = LSTMLRP(epsilon=1e-12).explain(net, x, [1])
    torch.testing.assert_close(lrp.extras["steps"], worth[0].sum(2).float(), rtol=1e-4, atol=1e-6)
    share = worth[1].sum((0, 2)) / total.abs()
    torch.testing.assert_close(
        torch.tensor(lrp.facts["start_state"]), share.float(), check_dtype=False, rtol=1e-4, atol=1e-6
    )
    assert max(lrp.facts["conservation_gap"]) < 1e-6
    low, high = (f"{100 * float(bound):.1f}%" for bound in (share.min(), share.max()))
    assert low in lrp.notes[0]
    assert high in lrp.notes[0]
    (gradient,) = StateGradient().explain(net, x, [1])
    torch.testing.assert_close(torch.tensor(gradient.facts["start_state"]), share.float(), check_dtype=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_without_biases_steps_and_start_sum_to_the_score(kind, bidirectional):
    net = seeded(lambda: Started(kind, "mean", 2, bias=False, bidirectional=bidirectional)).double().eval()
    x = noise(*CLIP).double()
    score = (net(x) - net.fc.bias)[:, 1].detach()
    (lrp,) = LSTMLRP(epsilon=1e-9).explain(net, x, [1])
    start = torch.tensor(lrp.facts["start_state"]).double() * score.abs()
    torch.testing.assert_close(lrp.extras["steps"].sum(1) + start, score, rtol=1e-3, atol=1e-5)
    assert start.abs().min() > 1e-4
    (own,) = ContrastiveExcitationBackprop(contrastive=False).explain(net, x, [1])
    start = torch.tensor(own.facts["start_state"])
    torch.testing.assert_close(
        own.extras["steps"].sum(1) + start, torch.ones(2), rtol=1e-4, atol=1e-5, check_dtype=False
    )
    (both,) = ContrastiveExcitationBackprop().explain(net, x, [1])
    assert max(both.facts["conservation_gap"]) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", ["last", "mean"])
def test_state_gradients_are_those_of_a_loop_of_cells(kind, read):
    net, x = seeded(lambda: Started(kind, read)).eval(), noise(*CLIP)
    cell = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell}[kind](6, 5)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in net.rnn.state_dict().items()})
    features = net.features(x).detach()
    first = [s.detach().expand(-1, 2, -1)[0].clone().requires_grad_() for s in net.start]
    state, states = (tuple(first) if kind == "LSTM" else first[0]), []
    for t in range(5):
        state = cell(features[:, t], state)
        states.append(state[0] if kind == "LSTM" else state)
    read_out = states[-1] if read == "last" else torch.stack(states).mean(0)
    gradients = torch.autograd.grad(net.fc(read_out)[:, 1].sum(), [*states, *first])
    worth = [(g * h).sum(1).detach() for g, h in zip(gradients, (*states, *first), strict=True)]
    (found,) = StateGradient().explain(net, x, [1])
    torch.testing.assert_close(found.values[:, :, 0, 0], torch.stack(worth[:5], 1))
    whole = ((net(x) - net.fc.bias)[:, 1]).abs().detach()
    torch.testing.assert_close(torch.tensor(found.facts["start_state"]), sum(worth[5:]) / whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", ["last", "mean", "state"])
def test_forgetting_is_the_loop_and_begins_with_the_first_state(kind, read):
    net, x = seeded(lambda: Started(kind, read, layers=2)).eval(), noise(*CLIP)
    features = net.features(x)
    with torch.no_grad():
        plain, expected = net(x)[:, 1], torch.zeros(2, 5)
        for t in range(5):
            after, state = net.rnn(features[:, t:])
            out = after if t == 0 else torch.cat([net.rnn(features[:, :t], net.state(features))[0], after], 1)
            last = (state[0] if kind == "LSTM" else state)[-1]
            expected[:, t] = plain - net.fc({"last": out[:, -1], "mean": out.mean(1), "state": last}[read])[:, 1]
    found = StateAblation().attribute(net, x, 1)[:, :, 0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert found[:, 0].abs().min() > 1e-4


@pytest.mark.parametrize(("made", "quick"), [(False, True), (True, False)])
def test_clips_put_together_start_from_the_same_state_or_are_run_whole(made, quick):
    """A state that is learned fits every clip; one made of the first frame does not."""
    net, clip = seeded(lambda: Started(made=made)).eval(), noise(1, *CLIP[1:])
    others = noise(2, 3, 8, 8, seed=3)
    index = torch.tensor([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [0, 1, 5, 6, 4], [6, 6, 6, 6, 6]])
    with FrameScorer(net, clip, others, lambda y, _watched, _rows: [y[:, 1]]) as scorer:
        assert scorer.recurrent is quick
        found = scorer(index)
    bank = torch.cat([clip[0].transpose(0, 1), others])
    with torch.no_grad():
        truth = net(bank[index].transpose(1, 2))[:, 1]
    torch.testing.assert_close(found[:, 0].float(), truth, rtol=1e-4, atol=1e-5)
    if made:
        with pytest.raises(MethodError, match="from a state made of the clip"):
            StateAblation().attribute(net, clip, 1)


def test_a_state_of_zeros_is_none_at_all():
    net = seeded(Started).eval()
    with torch.no_grad():
        for s in net.start:
            s.zero_()
    (found,) = LSTMLRP().explain(net, noise(*CLIP), [1])
    assert not found.notes
    assert "start_state" not in found.facts


def packed(net, x):
    features = net.features(x)
    steps = nn.utils.rnn.pack_padded_sequence(features, torch.tensor([5] * len(x)), batch_first=True)
    return net.fc(net.rnn(steps)[1][0][-1])


def looped(net, x):
    state = None
    for step in net.features(x).unbind(1):
        state = net.cell(step, state)
    return net.fc(state[0])


class Odd(Started):
    def __init__(self, run, **options):
        super().__init__(**options)
        self.run = run

    def forward(self, x):
        return self.run(self, x)


class Leaky(nn.LSTM):
    """A cell of its own under torch's name."""

    def forward(self, x, state=None):
        out, state = super().forward(x, state)
        return out * 0.5, state


def test_what_cannot_be_stepped_is_said():
    x, methods = noise(*CLIP), (LSTMLRP(), ContrastiveExcitationBackprop(), StateGradient())
    for run, words in ((packed, "PackedSequence"), (looped, "only cells in a loop of its own")):
        net = seeded(lambda run=run: Odd(run))
        if run is looped:
            net.cell, net.rnn = nn.LSTMCell(6, 5), None
        for m in methods:
            with pytest.raises(MethodError, match=words):
                m.attribute(net.eval(), x, 1)
    net = seeded(Started).eval()
    net.rnn = Leaky(6, 5, batch_first=True).eval()
    for m in methods:
        with pytest.raises(MethodError, match="answers otherwise than its cells"):
            m.attribute(net, x, 1)
    net.rnn, net.fc = nn.LSTM(6, 5, proj_size=4, batch_first=True), nn.Linear(4, 3)
    net.start = nn.ParameterList([torch.randn(1, 1, 4), torch.randn(1, 1, 5)])
    for m in methods:
        with pytest.raises(MethodError, match="projections"):
            m.attribute(net.eval(), x, 1)
