"""TorchScript with layers that can be read."""

import copy
import io

import pytest
import torch
from torch import nn

import pellucid as pl
from pellucid.errors import ModelError
from pellucid.heatmaps import get_method

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning"
)


class Net(nn.Module):
    """A shared activation, a sum, a concatenation, an operation in place, a shape read at run time."""

    def __init__(self):
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.first = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), self.act)
        self.second = nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.BatchNorm3d(4), self.act)
        self.head = nn.Conv3d(8, 3, 1)

    def forward(self, x):
        a = self.first(x)
        b = self.second(a) + a
        y = self.head(torch.cat([a, b], 1))
        return y.view(y.shape[0], 3, *x.shape[2:]).softmax(1)


def loaded(net, x=None):
    """As it comes back from a file."""
    made = torch.jit.script(net) if x is None else torch.jit.trace(net, x)
    buffer = io.BytesIO()
    torch.jit.save(made, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


@pytest.fixture(scope="module")
def nets():
    torch.manual_seed(0)
    net, x = Net().eval(), torch.rand(2, 1, 6, 7, 8)
    return net, loaded(net, x), x


def test_it_answers_and_slopes_as_the_script_and_shares_its_weights(nets):
    _, script, x = nets
    opened = pl.Unscripted(script)
    assert torch.equal(opened(x), script(x))
    assert torch.equal(copy.deepcopy(opened)(x), script(x))
    assert opened.state_dict().keys() == script.state_dict().keys()
    assert opened.head.weight.data_ptr() == script.head.weight.data_ptr()
    slopes = []
    for net in (opened, script):
        leaf = x.clone().requires_grad_()
        net(leaf)[:, 1].square().sum().backward()
        slopes.append(leaf.grad)
    torch.testing.assert_close(*slopes)


def test_maps_at_its_layers_are_those_of_the_original(nets):
    net, script, x = nets
    for method in ("grad-cam", "hires-cam"):
        found = [get_method(method, layer="second").attribute(m, x, _share) for m in (net, pl.Unscripted(script))]
        assert found[0].abs().sum() > 0
        torch.testing.assert_close(*found)


def test_a_part_that_branches_stays_a_script():
    class Branch(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.branch, self.conv = Branch(), nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return self.conv(self.branch(x))

    made = pl.Unscripted(torch.jit.script(Whole().eval()))
    assert isinstance(made.branch, torch.jit.ScriptModule)
    x = torch.rand(1, 1, 5, 5)
    assert torch.equal(made.branch(x), 2 * x)
    with pytest.raises(ModelError, match="branches or loops"):
        pl.Unscripted(torch.jit.script(Branch()))
    with pytest.raises(ModelError, match="Only a TorchScript module"):
        pl.Unscripted(nn.ReLU())
    with pytest.raises(ModelError, match="takes 1 inputs, not 2"):
        made(x, x)


def _share(output):
    return output[:, 1].flatten(1).sum(1)
