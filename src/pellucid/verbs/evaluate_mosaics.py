"""`evaluate` on mosaics of the user's own inputs: each head sees one tile, so the truth is where it looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import MediaError, ModelError, PellucidError
from pellucid.evaluation.suites.mosaics import TILES, MosaicHeads, mosaic_of, tile_mask
from pellucid.media.medium import PICTURE
from pellucid.models.sources import wrap
from pellucid.results.scoreboard import Scoreboard
from pellucid.verbs.evaluate import Methods, evaluate
from pellucid.verbs.inputs import Input, ModelLike, as_model, prepared

METHODS = "input-x-gradient,integrated-gradients,occlusion"
METRICS = "relevance-mass,strict-pointing-game,mass-nearness"


def evaluate_mosaics(
    model: ModelLike,
    inputs: Input | Sequence[Input],
    methods: Methods = METHODS,
    metrics: str | Sequence[str] = METRICS,
    **how: Any,
) -> Scoreboard:
    """Does a method keep to the tile that the score is of? Each input stands once in each corner.

    What is explained is the surest class of the surest tile. Methods that explain a layer take none here, since four
    tiles go through each.

    Args:
        model: of pictures and classes.
        inputs: four pictures or more.
        methods: as `evaluate` takes them.
        metrics: likewise; those of the truth are what mosaics are for.
        how: further settings of `evaluate`.

    Raises:
        ModelError: it takes no pictures, or answers no classes.
        MediaError: there are fewer than four that can be used.
    """
    loaded = as_model(model)
    if loaded.medium is not PICTURE:
        raise ModelError(f"A mosaic is made of pictures, and {loaded.name or 'the model'} takes {loaded.medium.name}s.")
    given = [(name, item) for name, item in prepared(loaded, inputs)]
    usable = [(name, item.x) for name, item in given if not isinstance(item, PellucidError)]
    tiles = [(name, x) for name, x in usable if x.shape == usable[0][1].shape]
    count = TILES * TILES
    if len(tiles) < count:
        raise MediaError(f"A mosaic takes {count} pictures of one size, and there are {len(tiles)}: name more.")
    first = tiles[0][1][None].to(loaded.device, loaded.dtype)
    settled = loaded.settled(first, loaded.outputs(first))
    heads = MosaicHeads(settled.module, settled.reading).train(settled.module.training)
    mosaics, masks = [], []
    for k in range(len(tiles)):
        mosaic = mosaic_of([tiles[(k + i) % len(tiles)][1] for i in range(count)])
        mosaics.append(mosaic)
        masks.append(tile_mask(_surest(heads, mosaic.to(first)), (mosaic.shape[1], mosaic.shape[2])))
    over = wrap(heads, scores="sigmoid", name=f"mosaics of {loaded.name or 'the model'}")
    return evaluate(over, torch.stack(mosaics), methods, metrics, masks=masks, **how)


def _surest(heads: MosaicHeads, mosaic: Tensor) -> int:
    """The tile that holds the greatest score."""
    with torch.no_grad():
        scores: Tensor = wrap(heads, scores="sigmoid").outputs(mosaic[None])
    return int(scores.argmax()) // (scores.shape[1] // TILES**2)
