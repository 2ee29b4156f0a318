"""Recurrent relevance against hand computation, torch's own layers, and brute loops."""

import copy
import math

import pytest
import torch
from torch import nn

from helpers.nets import noise, seeded
from pellucid.engine.recurrent import Unrolled, excitation, lrp_epsilon
from pellucid.errors import MethodError
from pellucid.heatmaps import LSTMLRP, ContrastiveExcitationBackprop, StateAblation, StateGradient
from video.nets import FrameLSTM

CLIP = (2, 3, 5, 8, 8)
KINDS = ["LSTM", "GRU", "RNN"]
METHODS = [LSTMLRP(), ContrastiveExcitationBackprop(), StateGradient(), StateAblation()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_unrolled_is_the_layer(kind, layers, bidirectional):
    rnn = seeded(lambda: getattr(nn, kind)(4, 3, num_layers=layers, bidirectional=bidirectional, batch_first=True))
    x = noise(2, 6, 4)
    torch.testing.assert_close(Unrolled(rnn, x).outputs, rnn(x)[0])


def sign(v):
    return -1.0 if v < 0 else 1.0


def lstm_by_hand(rnn, xs, start, share):
    """LRP or excitation of a one-layer LSTM with scalars only; `start[t][k]` are the outputs' worths."""
    W, U = rnn.weight_ih_l0.tolist(), rnn.weight_hh_l0.tolist()
    b, d = rnn.bias_ih_l0.tolist(), rnn.bias_hh_l0.tolist()
    H, sig = rnn.hidden_size, lambda v: 1 / (1 + math.exp(-v))
    h, c, log = [0.0] * H, [0.0] * H, []
    for x in xs:
        z = [
            sum(w * v for w, v in zip(W[r], x, strict=True))
            + sum(u * v for u, v in zip(U[r], h, strict=True))
            + b[r]
            + d[r]
            for r in range(4 * H)
        ]
        i, f, g, o = ([z[q * H + k] for k in range(H)] for q in range(4))
        new_c = [sig(f[k]) * c[k] + sig(i[k]) * math.tanh(g[k]) for k in range(H)]
        log.append((x, h, c, new_c, i, f, g))
        h, c = [sig(o[k]) * math.tanh(new_c[k]) for k in range(H)], new_c
    back_h, back_c, out = [0.0] * H, [0.0] * H, []
    for t in reversed(range(len(xs))):
        x, h, c, new_c, i, f, g = log[t]
        worth = [start[t][k] + back_h[k] + back_c[k] for k in range(H)]
        back_c, back_h, found = [0.0] * H, [0.0] * H, [0.0] * len(x)
        for k in range(H):
            kept, new = share([sig(f[k]) * c[k], sig(i[k]) * math.tanh(g[k])], new_c[k])
            back_c[k] = worth[k] * kept
            row = 2 * H + k
            parts = share([W[row][j] * x[j] for j in range(len(x))] + [U[row][j] * h[j] for j in range(H)], g[k])
            for j in range(len(x)):
                found[j] += worth[k] * new * parts[j]
            for j in range(H):
                back_h[j] += worth[k] * new * parts[len(x) + j]
        out.insert(0, found)
    return torch.tensor(out)


def gru_by_hand(rnn, xs, start, share):
    W, U = rnn.weight_ih_l0.tolist(), rnn.weight_hh_l0.tolist()
    b, d = rnn.bias_ih_l0.tolist(), rnn.bias_hh_l0.tolist()
    H, sig = rnn.hidden_size, lambda v: 1 / (1 + math.exp(-v))
    dot = lambda row, v: sum(p * q for p, q in zip(row, v, strict=True))
    h, log = [0.0] * H, []
    for x in xs:
        r = [sig(dot(W[k], x) + b[k] + dot(U[k], h) + d[k]) for k in range(H)]
        z = [sig(dot(W[H + k], x) + b[H + k] + dot(U[H + k], h) + d[H + k]) for k in range(H)]
        n = [dot(W[2 * H + k], x) + b[2 * H + k] + r[k] * (dot(U[2 * H + k], h) + d[2 * H + k]) for k in range(H)]
        new = [(1 - z[k]) * math.tanh(n[k]) + z[k] * h[k] for k in range(H)]
        log.append((x, h, r, z, n, new))
        h = new
    back, out = [0.0] * H, []
    for t in reversed(range(len(xs))):
        x, h, r, z, n, new = log[t]
        worth = [start[t][k] + back[k] for k in range(H)]
        back, found = [0.0] * H, [0.0] * len(x)
        for k in range(H):
            fresh, kept = share([(1 - z[k]) * math.tanh(n[k]), z[k] * h[k]], new[k])
            back[k] += worth[k] * kept
            row = 2 * H + k
            parts = share([W[row][j] * x[j] for j in range(len(x))] + [r[k] * U[row][j] * h[j] for j in range(H)], n[k])
            for j in range(len(x)):
                found[j] += worth[k] * fresh * parts[j]
            for j in range(H):
                back[j] += worth[k] * fresh * parts[len(x) + j]
        out.insert(0, found)
    return torch.tensor(out)


def epsilon_share(parts, total):
    return [p / (total + 1e-3 * sign(total)) for p in parts]


def excitation_share(parts, total):
    driving = [max(0.0, p * sign(total)) for p in parts]
    return [p / max(sum(driving), 1e-30) for p in driving]


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("rule", ["lrp", "excitation"])
@pytest.mark.parametrize("steps", [2, 4])
def test_relevance_is_that_of_scalars_by_hand(kind, rule, steps):
    rnn = seeded(lambda: getattr(nn, kind)(3, 2, batch_first=True))
    x, start = noise(1, steps, 3), noise(1, steps, 2, seed=1)
    hand = lstm_by_hand if kind == "LSTM" else gru_by_hand
    ours, theirs = (lrp_epsilon(1e-3), epsilon_share) if rule == "lrp" else (excitation, excitation_share)
    expected = hand(rnn, x[0].tolist(), start[0].tolist(), theirs)
    torch.testing.assert_close(Unrolled(rnn, x).relevance(start, ours)[0][0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_without_biases_all_relevance_arrives(kind, bidirectional):
    """LRP conserves up to epsilon; excitation exactly, since each unit has something that drives it."""
    net = (
        seeded(lambda: FrameLSTM(kind, bias=False, bidirectional=bidirectional, read="mean", layers=2)).double().eval()
    )
    x = noise(*CLIP).double()
    (lrp,) = LSTMLRP(epsilon=1e-9).explain(net, x, [1])
    assert max(lrp.facts["conservation_gap"]) < 1e-4
    features = net.cnn(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, -1))
    score = net.fc(net.rnn(features)[0].mean(1))[:, 1] - net.fc.bias[1]
    torch.testing.assert_close(lrp.extras["steps"].sum(1), score.detach().float(), rtol=1e-3, atol=1e-5)
    (own,) = ContrastiveExcitationBackprop(contrastive=False).explain(net, x, [1])
    torch.testing.assert_close(own.extras["steps"].sum(1), torch.ones(2), rtol=1e-4, atol=1e-5)
    (both,) = ContrastiveExcitationBackprop().explain(net, x, [1])
    assert both.extras["steps"].sum(1).abs().max() < 1e-4
    assert both.extras["steps"].abs().max() > 1e-3


def test_the_stated_gap_is_the_gap():
    net, x = seeded(FrameLSTM).eval(), noise(*CLIP)
    (found,) = LSTMLRP().explain(net, x, [1])
    features = net.cnn(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, -1))
    h = net.rnn(features)[0][:, -1]
    total = (h * net.fc.weight[1]).sum(1).detach()
    gap = (found.extras["steps"].sum(1) - total).abs() / total.abs()
    torch.testing.assert_close(
        torch.tensor(found.facts["conservation_gap"]), gap.float(), rtol=1e-3, atol=1e-5, check_dtype=False
    )
    assert min(found.facts["conservation_gap"]) > 1e-3  # the biases take their part


def test_cells_sum_to_their_step_where_no_bias_is_between():
    net, x = seeded(FrameLSTM).eval(), noise(*CLIP)
    (found,) = LSTMLRP().explain(net, x, [1])
    assert found.values.shape == (2, 5, 2, 2)
    torch.testing.assert_close(found.values.sum((2, 3)), found.extras["steps"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", ["last", "mean"])
def test_state_gradients_are_those_of_a_loop_of_cells(kind, read):
    net, x = seeded(lambda: FrameLSTM(kind, read=read)).eval(), noise(*CLIP)
    cell = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell}[kind](6, 5)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in net.rnn.state_dict().items()})
    features = net.cnn(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, -1)).detach()
    state, states = None, []
    for t in range(5):
        state = cell(features[:, t], state)
        states.append(state[0] if kind == "LSTM" else state)
    read_out = states[-1] if read == "last" else torch.stack(states).mean(0)
    gradients = torch.autograd.grad(net.fc(read_out)[:, 1].sum(), states)
    expected = torch.stack([(g * h).sum(1) for g, h in zip(gradients, states, strict=True)], 1).detach()
    torch.testing.assert_close(StateGradient().attribute(net, x, 1)[:, :, 0, 0], expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", ["last", "mean", "state"])
def test_state_ablation_is_the_loop(kind, read):
    net, x = seeded(lambda: FrameLSTM(kind, read=read, layers=2)).eval(), noise(*CLIP)
    features = net.cnn(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, -1))
    with torch.no_grad():
        plain, expected = net(x)[:, 1], torch.zeros(2, 5)
        for t in range(1, 5):
            (before, _), (after, state) = net.rnn(features[:, :t]), net.rnn(features[:, t:])
            out = torch.cat([before, after], 1)
            last = (state[0] if kind == "LSTM" else state)[-1]
            seen = {"last": out[:, -1], "mean": out.mean(1), "state": last}[read]
            expected[:, t] = plain - net.fc(seen)[:, 1]
    torch.testing.assert_close(StateAblation().attribute(net, x, 1)[:, :, 0, 0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("m", METHODS, ids=lambda m: m.name)
def test_batch_is_the_loop_whatever_is_read_and_however_axes_lie(m):
    nets = [seeded(lambda read=read: FrameLSTM(read=read)).eval() for read in ("last", "state")]
    x = noise(*CLIP)
    expected = torch.cat([m.attribute(nets[0], x[n : n + 1], 1) for n in range(2)])
    swapped = seeded(lambda: FrameLSTM(batch_first=False)).eval()
    for net in (*nets, swapped):
        torch.testing.assert_close(m.attribute(net, x, 1), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("m", METHODS, ids=lambda m: m.name)
def test_refusals(m):
    x = noise(1, 3, 4, 8, 8)
    with pytest.raises(MethodError, match="recurrent layer"):
        m.attribute(nn.Sequential(nn.Conv3d(3, 2, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten()), x, 0)

    class Twice(FrameLSTM):
        def forward(self, x):
            features = self.cnn(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1))
            return self.fc(self.rnn(features)[0][:, -1] + self.rnn(features.flip(1))[0][:, -1])

    with pytest.raises(MethodError, match=r"2 times|cannot be stopped"):
        m.attribute(seeded(Twice).eval(), x, 0)


def test_reading_the_cell_state_is_refused():
    class Cell(FrameLSTM):
        def forward(self, x):
            features = self.cnn(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1))
            return self.fc(self.rnn(features)[1][1][-1])

    net, x = seeded(Cell).eval(), noise(*CLIP)
    for m in METHODS[:3]:
        with pytest.raises(MethodError, match="cell state"):
            m.attribute(net, x, 0)
    assert copy.deepcopy(net)(x).isfinite().all()
