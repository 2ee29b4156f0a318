"""Recurrent layers inside tables of rules: torch's fused ones are met in their parts, as a loop written by hand is."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from helpers.nets import noise, seeded
from pellucid.heatmaps import get_method

SIZE = 5


class Net(nn.Module):
    """`(N, 6, T)`, a signal of six values a step, through a recurrent layer to three scores."""

    def __init__(self, kind, **options):
        super().__init__()
        self.rnn = getattr(nn, kind)(6, SIZE, **options)
        self.fc = nn.Linear(SIZE * (1 + options.get("bidirectional", False)), 3, bias=False)

    def forward(self, x):
        steps = x.transpose(1, 2)
        found = self.rnn(steps)[0] if self.rnn.batch_first else self.rnn(steps.transpose(0, 1))[0].transpose(0, 1)
        return self.fc(found.mean(1))


class ByHand(Net):
    """The same, each layer and direction a loop over the equations of torch's documentation."""

    def forward(self, x):
        found = x.transpose(1, 2)
        for layer in range(self.rnn.num_layers):
            ways = ["", "_reverse"][: 1 + self.rnn.bidirectional]
            found = torch.cat([self.way(found, f"l{layer}{way}", bool(way)) for way in ways], -1)
        return self.fc(found.mean(1))

    def way(self, x, name, backwards):
        w, u = getattr(self.rnn, f"weight_ih_{name}"), getattr(self.rnn, f"weight_hh_{name}")
        b, d = getattr(self.rnn, f"bias_ih_{name}"), getattr(self.rnn, f"bias_hh_{name}")
        h = c = torch.zeros(len(x), SIZE)
        answers = []
        for t in range(x.shape[1])[:: -1 if backwards else 1]:
            a, r = functional.linear(x[:, t], w, b), functional.linear(h, u, d)
            if self.rnn.mode == "LSTM":
                i, f, g, o = (a + r).chunk(4, 1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            elif self.rnn.mode == "GRU":
                (ar, az, an), (rr, rz, rn) = a.chunk(3, 1), r.chunk(3, 1)
                z = (az + rz).sigmoid()
                h = (1 - z) * (an + (ar + rr).sigmoid() * rn).tanh() + z * h
            else:
                h = torch.tanh(a + r) if self.rnn.mode == "RNN_TANH" else torch.relu(a + r)
            answers.append(h)
        return torch.stack(answers[:: -1 if backwards else 1], 1)


class Stepped(nn.Module):
    """A cell in a loop of the network's own."""

    def __init__(self, kind):
        super().__init__()
        self.cell, self.fc = getattr(nn, kind)(6, SIZE), nn.Linear(SIZE, 3, bias=False)

    def forward(self, x):
        state = None
        for t in range(x.shape[2]):
            state = self.cell(x[:, :, t], state)
        return self.fc(state[0] if isinstance(state, tuple) else state)


LAYERS = [
    ("LSTM", {"batch_first": True}),
    ("LSTM", {"num_layers": 2, "bidirectional": True}),
    ("GRU", {"batch_first": True, "num_layers": 2, "bidirectional": True}),
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu"}),
]


@pytest.mark.parametrize("name", ["lrp", "attn-lrp", "deep-lift", "full-grad", "libra-gradients"])
@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_a_layer_of_torchs_has_the_map_of_a_loop_by_hand(kind, options, name):
    fused, loop = (seeded(lambda cls=cls: cls(kind, **options)).eval() for cls in (Net, ByHand))
    x = noise(2, 6, 4)
    torch.testing.assert_close(fused(x), loop(x))
    settings = {"composite": "gamma"} if name == "lrp" else {}  # one without a rule for the first layer, here a step
    found, expected = (get_method(name, **settings).explain(net, x, [1])[0] for net in (fused, loop))
    assert found.notes == expected.notes
    assert not any("no rule" in note for note in found.notes)
    if "in_biases" in found.facts:  # a whole sequence's biases have places, those of single steps have none
        assert found.facts["in_biases"] == pytest.approx(expected.facts["in_biases"], rel=1e-3, abs=1e-6)
    else:
        torch.testing.assert_close(found.values, expected.values, rtol=1e-4, atol=1e-6)
    gaps = found.facts["conservation_gap" if name.endswith("lrp") else "completeness_gap"]
    assert max(gaps) < 1e-3


@pytest.mark.parametrize(("kind", "bias"), [("LSTM", True), ("GRU", False)])
def test_steps_are_worth_what_relevance_led_back_cell_by_cell_says(kind, bias):
    """`lstm-lrp` takes cells apart by formulas of its own (Arras et al. 2017), with no table of functions."""
    net, x = seeded(lambda: Net(kind, batch_first=True, bias=bias)).eval(), noise(1, 6, 4)
    by_table = get_method("lrp", composite="epsilon", epsilon=1e-9).attribute(net, x, 1)
    by_cells = get_method("lstm-lrp", epsilon=1e-9).attribute(net, x, 1)
    torch.testing.assert_close(by_table.sum(1).flatten(), by_cells.flatten(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_single_steps_conserve_too(kind):
    (found,) = get_method("cp-lrp", strict=True).explain(seeded(lambda: Stepped(kind)).eval(), noise(2, 6, 4), [1])
    assert max(found.facts["conservation_gap"]) < 1e-4


class Highway(nn.Module):
    """What goes on is twice the input, whatever the gate says."""

    def __init__(self):
        super().__init__()
        self.gate, self.fc = nn.Linear(4, 4), nn.Linear(4, 3, bias=False)

    def forward(self, x):
        z = self.gate(x).sigmoid()
        return self.fc(z * x + (1 - z) * x + 2 * z * x + x * (1 - z / 0.5)).mean(1)


def test_one_less_a_gate_is_a_gate_and_so_is_a_part_of_one():
    net, x = seeded(Highway).eval(), noise(2, 6, 4)
    found = get_method("cp-lrp").attribute(net, x, 1)
    torch.testing.assert_close(found, 2 * x * net.fc.weight[1] / 6, rtol=1e-4, atol=1e-6)
