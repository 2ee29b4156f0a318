"""Mosaics: a head sees its own tile alone, and a map is right only there."""

import pytest
import torch

import pellucid as pl
from helpers.nets import chained, noise
from pellucid.errors import MediaError
from pellucid.evaluation.suites.mosaics import MosaicHeads, mosaic_of, tile_mask, tiles_of
from pellucid.models.reading import Reading
from pellucid.verbs.evaluate_mosaics import evaluate_mosaics


@pytest.fixture(scope="module")
def net():
    return chained(4, 6)


def test_a_head_sees_one_tile_and_gives_its_probability(net):
    tiles = list(noise(4, 3, 8, 8))
    mosaic = mosaic_of(tiles)
    for tile, back in zip(tiles, tiles_of(mosaic[None]), strict=True):
        assert back[0].equal(tile)
    heads = MosaicHeads(net, Reading(scores="softmax"))
    with torch.no_grad():
        found = heads(mosaic[None])
        wanted = net(torch.stack(tiles)).softmax(1)
    torch.testing.assert_close(found.sigmoid().reshape(4, -1), wanted, rtol=1e-4, atol=1e-6)
    changed = mosaic.clone()
    changed[:, ~tile_mask(2, (16, 16))] = 0.3
    with torch.no_grad():
        other = heads(changed[None])
    classes = found.shape[1] // 4
    mine = slice(2 * classes, 3 * classes)
    assert other[:, mine].equal(found[:, mine]) or torch.allclose(other[:, mine], found[:, mine], atol=1e-6)
    assert not torch.allclose(other[:, :classes], found[:, :classes])


def test_what_follows_the_model_keeps_to_its_tile_and_what_does_not_is_at_chance(net):
    model = pl.wrap(net, scores="softmax")
    found = evaluate_mosaics(model, noise(4, 3, 8, 8), "saliency", "relevance-mass,strict-pointing-game")
    assert found["saliency", "relevance-mass"] == pytest.approx([1] * 4)
    assert found["saliency", "strict-pointing-game"] == pytest.approx([1] * 4)
    assert 0.1 < found["edges", "relevance-mass"].mean() < 0.4
    assert len({int(found.masks[k].flatten().nonzero()[0]) for k in range(4)}) == 4, "each stands once in each corner"


def test_three_pictures_make_no_mosaic(net):
    with pytest.raises(MediaError, match="takes 4 pictures of one size, and there are 3"):
        evaluate_mosaics(pl.wrap(net, scores="softmax"), noise(3, 3, 8, 8), "saliency")
