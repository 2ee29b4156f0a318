"""Segmentations: labels without gaps, the same every time, along the edges of the picture."""

import numpy as np
import pytest
import torch

from pellucid.errors import MediaError
from pellucid.media.picture import Picture
from pellucid.media.segments import SEGMENTATIONS, felzenszwalb, grid, superpixels


def disc(side=48, channels=3, sign=1.0):
    """A disc on another ground, in the units of a normalised input."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    inside = ((y - side / 2) ** 2 + (x - side / 2) ** 2 < (side / 4) ** 2).float()
    return (inside * 3 * sign - 1).expand(channels, -1, -1), inside.bool()


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_labels_without_gaps_and_without_chance(name):
    x = disc()[0] + 0.01 * torch.randn(3, 48, 48, generator=torch.Generator().manual_seed(0))
    if name in ("supervoxels", "frames"):  # of clips
        x = torch.stack([x.roll(2 * t, -1) for t in range(8)], 1)
    labels = SEGMENTATIONS[name](x, 20)
    assert labels.shape == x.shape[1:]
    assert labels.dtype == torch.long
    assert labels.unique().tolist() == list(range(int(labels.max()) + 1))
    assert torch.equal(labels, SEGMENTATIONS[name](x, 20))
    assert 2 <= int(labels.max()) + 1 <= 40
    assert not x.requires_grad


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_superpixels_keep_to_edges_in_any_units(channels):
    x, inside = disc(channels=channels)
    labels = superpixels(x, 30)
    both = set(labels[inside].tolist()) & set(labels[~inside].tolist())
    share = sum(int((labels == k).sum()) for k in both) / labels.numel()
    assert share < 0.1
    assert torch.equal(labels, superpixels(x * 100 - 7, 30))


def test_of_volumes_and_pictures():
    volume = torch.zeros(1, 12, 16, 16)
    volume[:, :6] = 1
    labels = superpixels(volume, 32)
    assert labels.shape == (12, 16, 16)
    assert not set(labels[:6].flatten().tolist()) & set(labels[6:].flatten().tolist())
    pixels = (disc()[0].movedim(0, -1).numpy() * 50 + 60).clip(0, 255).astype(np.uint8)
    assert superpixels(Picture(pixels, "disc", "", ""), 20).shape == (48, 48)
    assert int(felzenszwalb(disc()[0], min_size=200).max()) == 1


def test_grids_are_nearly_square_and_of_any_number_of_axes():
    assert grid((224, 224), 49).unique(return_counts=True)[1].tolist() == [1024] * 49
    assert int(grid((100, 200), 50).max()) + 1 == 50
    assert grid((3,), 49).tolist() == [0, 1, 2]
    assert grid((4, 8, 8), 32).shape == (4, 8, 8)
    assert grid((5, 5), 1).unique().tolist() == [0]


def test_noise_is_cut_too():
    for channels in (1, 3):
        x = torch.randn(channels, 32, 32, generator=torch.Generator().manual_seed(0))
        assert 10 <= int(superpixels(x, 40).max()) + 1 <= 60
    assert int(superpixels(torch.ones(3, 32, 32), 16).max()) + 1 == 16


def test_refusals():
    with pytest.raises(MediaError, match="use a grid"):
        superpixels(torch.zeros(3, 9))
    with pytest.raises(MediaError, match="use a grid"):
        felzenszwalb(torch.zeros(1, 4, 9, 9))
    with pytest.raises(MediaError, match="at least 1"):
        superpixels(torch.zeros(3, 9, 9), 0)
