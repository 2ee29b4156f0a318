"""Relevance through channels: all of them are LRP, and their maps add up; a channel by hand."""

import pytest
import torch
from torch import nn

from helpers.nets import noise, seeded
from pellucid.errors import MethodError
from pellucid.heatmaps import get_method


def net():
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3),
        )
    ).eval()  # fmt: skip


X = noise(2, 3, 8, 8, seed=4)


@pytest.mark.parametrize("composite", ["epsilon-plus-flat", "epsilon"])
def test_maps_of_all_channels_add_up_to_lrp(composite):
    whole = get_method("lrp", composite=composite).attribute(net(), X, 1)
    of = {"layer": "2", "composite": composite}
    one_by_one = [get_method("crp", units=str(c), **of).explain(net(), X, [1])[0] for c in range(4)]
    torch.testing.assert_close(sum(f.values for f in one_by_one), whole, rtol=1e-4, atol=1e-6)
    together = get_method("crp", units="0,1,2,3", **of).attribute(net(), X, 1)
    torch.testing.assert_close(together, whole)
    through = sum(torch.tensor(f.facts["through"]) for f in one_by_one)
    everything = one_by_one[0].extras["channel_relevance"].sum(1) / net()(X)[:, 1].detach()
    torch.testing.assert_close(through, everything)


def test_the_channel_with_the_most_relevance_is_chosen():
    (found,) = get_method("crp", layer="2").explain(net(), X, [0])
    best = found.extras["channel_relevance"].argmax(1).tolist()
    assert [remark[0] for remark in found.remarks] == [f"Relevance through channels {c} of 2." for c in best]
    for n, c in enumerate(best):
        (alone,) = get_method("crp", layer="2", units=str(c)).explain(net(), X, [0])
        torch.testing.assert_close(alone.values[n], found.values[n])


def test_a_bias_free_network_by_hand():
    """With the epsilon rule relevance is gradient times input, channel by channel."""
    model = seeded(lambda: nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)))
    x = noise(1, 1, 2, 2)
    with torch.no_grad():
        hidden = model[:2](x)
        weight = model[3].weight[1].reshape(1, 3, 2, 2)
        through = (hidden * weight)[:, 2:3]
    found = get_method("crp", layer="1", units="2", composite="epsilon").attribute(model.eval(), x, 1)
    torch.testing.assert_close(found, through, rtol=1e-3, atol=1e-5)


def test_what_is_not_there_is_said():
    with pytest.raises(MethodError, match="The layer has 4 channels"):
        get_method("crp", layer="2", units="4").attribute(net(), X, 0)
    with pytest.raises(MethodError, match="numbers of channels with commas"):
        get_method("crp", units="first")
