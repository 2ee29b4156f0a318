"""The pass that answers a batch serves its explanation, where it is proven to answer alike."""

import gc

import pytest
import torch
from torch import nn

import pellucid as pl
from pellucid.engine import ahead
from pellucid.verbs.choices import as_methods, as_targets
from pellucid.verbs.explain import explain_each


class Counted(nn.Module):
    """A small network that counts its passes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Drifting(Counted):
    """One that answers otherwise while a graph is recorded."""

    def forward(self, x):
        y = super().forward(x)
        return y * 1.001 if y.requires_grad else y


class Told(Counted):
    """One that answers with a dictionary."""

    def forward(self, x):
        return {"logits": super().forward(x)}


def counted(net, passes):
    net.register_forward_pre_hook(lambda *_: passes.append(1))
    return net.eval()


def run(net, inputs, methods="grad-cam", targets=None, **settings):
    model = pl.wrap(net)
    found = list(explain_each(model, inputs, as_methods(methods, **settings), as_targets(targets), batch=2))
    return [result[0] for _, result in found]


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    return torch.rand(2, 3, 16, 16)


@pytest.mark.parametrize("targets", [None, 2, "1>3"])
@pytest.mark.parametrize("layer", [None, "body.1"])
def test_the_second_batch_takes_one_pass_and_gives_the_same(inputs, targets, layer):
    passes = []
    net = counted(Counted(), passes)
    first = run(net, inputs, targets=targets, layer=layer)
    del passes[:]
    second = run(net, inputs, targets=targets, layer=layer)
    assert len(passes) == 1
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.attribution, b.attribution)
        assert a.prediction == b.prediction
        assert a.notes == b.notes
        assert a.record.run == b.record.run


def test_its_map_is_the_formula_by_hand(inputs):
    net = Counted().eval()
    for _ in range(2):
        found = run(net, inputs, targets=1, layer="body.3")
    A = net.body(inputs).detach().requires_grad_()
    G = torch.autograd.grad(net.head(A.mean((2, 3)))[:, 1].sum(), A)[0]
    expected = (G.mean((2, 3), keepdim=True) * A).sum(1).relu()
    torch.testing.assert_close(torch.cat([e.attribution for e in found]), expected.detach())


def test_a_network_that_answers_otherwise_with_a_graph_is_run_twice(inputs):
    passes = []
    net = counted(Drifting(), passes)
    first = run(net, inputs)
    del passes[:]
    second = run(net, inputs)
    assert len(passes) == 2
    assert first[0].prediction == second[0].prediction


def test_an_answer_that_is_no_tensor_is_run_twice(inputs):
    passes = []
    net = counted(Told(), passes)
    run(net, inputs)
    del passes[:]
    run(net, inputs)
    assert len(passes) == 2


def test_other_weights_are_explained_with_those_weights(inputs):
    net = Counted().eval()
    for _ in range(2):
        run(net, inputs)
    with torch.no_grad():
        net.head.weight.neg_()
        net.head.bias.neg_()
    found = run(net, inputs)
    fresh = Counted().eval()
    fresh.load_state_dict(net.state_dict())
    for a, b in zip(found, run(fresh, inputs), strict=True):
        assert torch.equal(a.attribution, b.attribution)
        assert a.prediction == b.prediction


def test_a_layer_that_has_gone_is_forgotten(inputs):
    net = Counted().eval()
    for _ in range(2):
        run(net, inputs, layer="body.3")
    (place,) = ahead._proven[net]
    net.body = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2)).eval()
    with ahead.cut_ahead(net, inputs, place[-1]) as begun:
        assert begun is None
    assert not ahead._proven[net]
    with pytest.raises(pl.PellucidError, match=r"body\.3"):
        run(net, inputs, layer="body.3")


def test_methods_of_two_layers_are_not_begun_ahead(inputs):
    passes = []
    net = counted(Counted(), passes)
    for _ in range(2):
        del passes[:]
        run(net, inputs, ["grad-cam", "saliency"])
    assert len(passes) == 3


def test_nothing_is_left_behind_by_a_target_that_fails(inputs):
    net = Counted().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for _ in range(2):
        run(net, inputs)

    def broken(output):
        raise ValueError("not today")

    with pytest.raises(pl.PellucidError):
        run(net, inputs, targets=broken)
    gc.collect()
    assert all(m.training for m in net.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
