"""Activation maps of every layout, their ranking, and summary pictures of planted layers."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers.nets import Shuffled, noise, pooled, random_net, seeded
from pellucid.errors import MethodError
from pellucid.features.activations import activation_maps, stages, summary
from pellucid.heatmaps import ChannelRelevance
from pellucid.models.layers import describe


def hooked(net, x, name):
    kept = {}
    handle = net.get_submodule(name).register_forward_hook(lambda _m, _i, out: kept.update(out=out.detach().clone()))
    with torch.no_grad():
        net(x)
    handle.remove()
    return kept["out"]


@pytest.mark.parametrize("dims", [2, 3])
def test_maps_are_the_layers_output_and_ranked_by_their_peak(dims):
    net, x = pooled(dims), noise(1, 3, *[16] * dims)
    (found,) = activation_maps(net, x, [describe(net, x, "3")])
    truth = hooked(net, x, "3")[0]
    assert torch.equal(found.values, truth)
    peaks = truth.flatten(1).amax(1)
    assert torch.equal(found.ranking, peaks)
    assert found.order() == sorted(range(6), key=lambda c: (-float(peaks[c]), c))
    torch.testing.assert_close(found.norm(), truth.pow(2).sum(0).sqrt())


def test_several_layers_come_out_of_one_pass():
    net, x = pooled(), noise(1, 3, 16, 16)
    passes = []
    net[0].register_forward_hook(lambda *_: passes.append(1))
    found = activation_maps(net, x, [describe(net, x, n) for n in ("1", "3")])
    before = len(passes)
    again = activation_maps(net, x, [m.layer for m in found])
    assert len(passes) == before + 1
    for m in again:
        assert torch.equal(m.values, hooked(net, x, m.layer.name)[0])


def test_channels_last_and_tokens_read_as_maps():
    net, x = (
        random_net("swin_tiny_patch4_window7_224", img_size=64, window_size=2, depths=(1, 1, 1, 1)),
        noise(1, 3, 64, 64),
    )
    name = "layers.1"
    (found,) = activation_maps(net, x, [describe(net, x, name)])
    assert torch.equal(found.values, hooked(net, x, name)[0].movedim(-1, 0))
    grid, prefix = (4, 4), 2
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3)).tolist()
    net = seeded(lambda: Shuffled(grid, 8, order, prefix).eval())
    x = noise(1, 3, 32, 32)
    (found,) = activation_maps(net, x, [describe(net, x, "tokens")])
    raw = hooked(net, x, "tokens")[0][prefix:]
    for i, (r, c) in enumerate(np.ndindex(*grid)):
        assert torch.equal(found.values[:, r, c], raw[order[i]])


def test_ranking_by_relevance_is_that_of_channel_relevance():
    net, x = pooled(), noise(1, 3, 16, 16)
    (found,) = activation_maps(net, x, [describe(net, x, "3")], by="relevance", target=2)
    truth = ChannelRelevance(layer="3").attribute(net, x, 2)[0]
    torch.testing.assert_close(found.ranking, truth)
    assert found.order() == truth.abs().argsort(descending=True, stable=True).tolist()
    with pytest.raises(MethodError, match="'activation' or 'relevance'"):
        activation_maps(net, x, [describe(net, x, "3")], by="size")


def test_pca_finds_planted_directions_and_their_shares():
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(12, 12, generator=generator))[0][:3]
    amounts = torch.randn(3, 64, generator=generator) * torch.tensor([[9.0], [3.0], [1.0]])
    amounts = torch.linalg.qr((amounts - amounts.mean(1, keepdim=True)).T)[0].T * torch.tensor([[9.0], [3.0], [1.0]])
    values = (directions.T @ amounts).reshape(12, 8, 8) + 5
    found, share = summary(values, "pca")
    for got, want in zip(found.flatten(1), amounts, strict=True):
        assert abs(np.corrcoef(got, want)[0, 1]) > 0.999
        assert got[got.abs().argmax()] > 0  # the sign is fixed
    np.testing.assert_allclose(share, np.array([81, 9, 1]) / 91, atol=1e-3)


def test_nmf_finds_planted_parts():
    """Three parts with channels and places of their own."""
    values = torch.zeros(9, 6, 6)
    for k, strength in enumerate((3.0, 2.0, 1.0)):
        values[3 * k : 3 * k + 3, 2 * k : 2 * k + 2] = strength * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    found, share = summary(values, "nmf")
    for k in range(3):
        inside = found[k, 2 * k : 2 * k + 2]
        outside = torch.cat([found[k, : 2 * k], found[k, 2 * k + 2 :]])
        assert inside.min() > 20 * outside.max()
    np.testing.assert_allclose(share, np.array([9, 4, 1]) / 14, atol=0.02)
    assert torch.equal(summary(values, "nmf")[0], found)


@pytest.mark.parametrize("kind", ["pca", "nmf"])
def test_summaries_of_next_to_nothing(kind):
    found, share = summary(torch.zeros(4, 3, 3), kind)
    assert not found.any()
    assert not share.any()
    found, share = summary(torch.rand(2, 1, 2, generator=torch.Generator().manual_seed(0)), kind)
    assert found.shape == (3, 1, 2)
    assert found.isfinite().all()
    assert not found[2].any()
    with pytest.raises(MethodError, match="'pca' or 'nmf'"):
        summary(torch.zeros(4, 3, 3), "ica")


def test_clips_keep_their_time_axis_in_summaries():
    assert summary(torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)))[0].shape == (3, 3, 4, 4)


def test_stages_stand_for_the_depth(embedded_model):
    x = noise(1, 3, 224, 224)
    found = stages(embedded_model.module, x)
    assert [layer.layout.grid[0] for layer in found] == [112, 56, 28, 14, 7]
    net = random_net("vit_tiny_patch16_224", img_size=64, depth=6)
    found = stages(net, noise(1, 3, 64, 64), most=3)
    assert len(found) == 3
    assert [layer.name.startswith("blocks") for layer in found] == [True] * 3
    assert {layer.layout.channels for layer in found} == {192}
    flat = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    assert stages(flat, noise(1, 3, 8, 8))
