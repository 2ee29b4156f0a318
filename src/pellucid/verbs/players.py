"""From names and settings to players, and what they look like afterwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pellucid.errors import MethodError
from pellucid.importance import Channels, Drawn, Estimator, Players, Tokens, get_players, read_regions
from pellucid.importance.drawn import Given
from pellucid.importance.internals import chosen_layer
from pellucid.models.model import VisionModel
from pellucid.models.opens import opens
from pellucid.models.targets import Target
from pellucid.scoring.job import prepare


def as_players(features: str | Players, *, regions: Given | None, **settings: Any) -> Players:
    """Players by name and settings, or drawn by hand, or an object as it is."""
    if isinstance(features, Players):
        return features
    if regions is None:
        if features == Drawn.kind:
            raise MethodError(
                "There are no regions: draw them, and give a label image or named boxes (--regions FILE)."
            )
        return get_players(features, **settings)
    if features not in (Drawn.kind, "superpixels"):
        raise MethodError(f"Regions were given, but the features are {features}: choose regions, or leave them out.")
    drawn = read_regions(regions)
    return get_players(Drawn.kind, labels=drawn.labels, boxes=drawn.boxes, **settings)


def check_model(model: VisionModel, players: Players, estimator: Estimator) -> None:
    """Refuse a black box where more than outputs is needed."""
    shown = opens(model.module)
    if not players.needs <= shown:
        raise MethodError(f"A black box shows no {players.kind}: choose superpixels, patches, colours or frequencies.")
    if not estimator.needs <= shown:
        raise MethodError(f"A black box has no gradients for {estimator.name}: use shapley or ablation.")


def measured_layer(model: VisionModel, x: Tensor, players: Players, target: Target) -> str | None:
    """The layer whose parts the players are, if they are; found at no further cost."""
    if not isinstance(players, Channels | Tokens):
        return None
    return chosen_layer(prepare(model, x, [target]), players.layer).name


def looks(model: VisionModel, pictures: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pictures of players; whole inputs as the model's preprocessing shows them, `(K, 3, h, w)` uint8.

    Inputs that are no picture (a volume, twelve bands) have none.
    """
    pictures = dict(pictures)
    channels, axes = model.preprocess.channels, 2 + model.medium.axes
    for name in {"inputs", "frames"} & pictures.keys():
        if pictures[name].ndim != axes or pictures[name].shape[1] != channels or channels not in (1, 3):
            del pictures[name]
            continue
        shown = torch.stack([model.preprocess.display(x) for x in pictures[name]]).float().clamp(0, 1)
        shown = shown[:, :, 0] if shown.ndim == 5 else shown  # a frame, shown as a clip of one
        pictures[name] = (255 * shown).round().to(torch.uint8)
    return pictures
