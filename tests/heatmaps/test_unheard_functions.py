"""What runs where functions are not heard (a function of the network's own, a script, a write to a part): rules go on
behind it, and what has none is named; and scores without a graph."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from helpers.nets import noise, seeded
from pellucid.errors import MethodError, TargetError
from pellucid.heatmaps import get_method


class Swish(torch.autograd.Function):
    """A function of the network's own."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = x.sigmoid()
        return g * s * (1 + x * (1 - s))


class Net(nn.Module):
    """Two convolutions; a subclass says what is between them."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 3)

    def between(self, x):
        return x.relu()

    def forward(self, x):
        return self.fc(self.b(self.between(self.a(x))).relu().mean((2, 3)))


class Written(Net):
    """Its second layer reads what was written into a part of something."""

    def between(self, x):
        slots = torch.zeros_like(x)
        slots[:, :8] = x.relu()
        return slots


class Own(Net):
    def between(self, x):
        return Swish.apply(x)


class Scripted(Net):
    def __init__(self):
        super().__init__()
        self.script = torch.jit.script(nn.ReLU())

    def between(self, x):
        return self.script(x)


class Normed(Net):
    """Its weights are answers of functions, and have a graph."""

    def __init__(self):
        super().__init__()
        self.b = weight_norm(self.b)


class Rounded(Net):
    def forward(self, x):
        return nn.functional.one_hot(super().forward(x).argmax(1), 3).float()


def explained(cls, **settings):
    (found,) = get_method("lrp", composite="epsilon", **settings).explain(seeded(cls).eval(), noise(2, 3, 8, 8), [1])
    return found


@pytest.mark.parametrize("cls", [Written, Normed])
def test_rules_go_on_behind_what_is_written_to_and_beside_weights_with_a_graph(cls):
    found, plain = explained(cls, strict=True), explained(Net, strict=True)
    assert found.notes == []
    assert found.facts["conservation_gap"][0] < 1e-4
    torch.testing.assert_close(found.values, plain.values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("cls", "name"), [(Own, "Swish"), (Scripted, "script")])
def test_what_is_not_heard_is_named_and_refused_where_that_is_asked(cls, name):
    found = explained(cls)
    assert any(f"no rule for `{name}`" in note for note in found.notes)
    assert found.facts["absorbed"][0] != 0  # by the biases of the layers behind it: rules go on there
    with pytest.raises(MethodError, match=name):
        explained(cls, strict=True)


@pytest.mark.parametrize("name", ["lrp", "attn-lrp", "deep-lift", "excitation-backprop", "full-grad"])
def test_a_score_without_a_graph_is_refused_with_what_works_instead(name):
    with pytest.raises(TargetError, match="occlusion, rise or kernel-shap"):
        get_method(name).explain(seeded(Rounded).eval(), noise(1, 3, 8, 8), [1])


class Recurrent(Net):
    """Rows of the picture, one after the other."""

    def __init__(self):
        super().__init__()
        self.lstm, self.gru = nn.LSTM(8, 8, batch_first=True), nn.GRU(8, 8, batch_first=True)

    def forward(self, x):
        rows = self.a(x).relu().mean(3).transpose(1, 2)
        packed = nn.utils.rnn.pack_padded_sequence(rows, [rows.shape[1]] * len(x), batch_first=True)
        return self.fc(self.gru(self.lstm(packed)[0])[1][-1])


def test_recurrent_layers_that_are_not_taken_apart_are_named_with_what_works_instead():
    notes = explained(Recurrent).notes
    assert any("`lstm` (1x)" in note and "`gru` (1x)" in note for note in notes)
    assert any("projections or packed" in note and "occlusion" in note for note in notes)
    assert not any("packed" in note for note in explained(Own).notes)
