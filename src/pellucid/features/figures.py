"""All figures of a made picture that `quality` defines, taken for one unit, so that they can always be told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pellucid.errors import TargetError
from pellucid.features.exemplars import UnitExemplars
from pellucid.features.objectives import Objective
from pellucid.features.quality import (
    high_share,
    path_similarity,
    robust_activation,
    seed_stability,
    selectivity,
    static_equivalent,
)
from pellucid.features.result import Synthesis
from pellucid.media import read_image
from pellucid.models.layers import Layer
from pellucid.models.model import VisionModel

VIEWS = 16  # random views for the robust activation
SENSIBLE = 1.5  # of the scale, about its middle, within which a path similarity is told
OTHERS = 8  # natural pictures against which units of one layer are brought to one scale


def figures(
    model: VisionModel,
    objective: Objective,
    made: Sequence[Synthesis],
    natural: UnitExemplars | None,
    depth: Sequence[Layer],
    *,
    seed: int = 0,
) -> dict[str, float]:
    """What can be measured of a unit's picture; what does not apply is left out.

    Args:
        model: left as it was.
        objective: what the pictures were made for.
        made: its first picture for each seed.
        natural: its exemplars, with top and bottom ones.
        depth: layers along which the way through the network is compared, those behind the unit left out.
        seed: of the views.

    Returns:
        `robust`: share of the activation that random views keep. `rank`, `of`, `deviations`: the unit among those of
        its layer. `path`, and `path.LAYER` each: 1 where the picture is processed as natural ones. `fine`: share of
        its contrast in the finest detail. `seeds`: likeness of other seeds' pictures. `still`: what a frame reaches.
    """
    first = made[0]
    found = {"fine": high_share(first.picture if first.picture.ndim == 3 else first.picture.flatten(0, 1))}
    fitted = model_sized(first)
    views = robust_activation(model, objective, fitted, count=VIEWS, seed=seed)
    found["robust"] = views.mean / views.plain if views.plain > 0 else math.nan
    inputs = torch.stack([s.input for s in made]).to(model.device, model.dtype)
    tops, bottoms = natural_inputs(model, natural, inputs)
    try:
        among = selectivity(model, objective, torch.cat([inputs[:1], *tops[:OTHERS], *bottoms[:OTHERS]]))
        found |= {"rank": float(among.rank), "of": float(among.of), "deviations": among.z}
    except TargetError:  # an objective that is no unit among others
        pass
    if len(tops) > 1 and bottoms and depth:
        names = [layer.name for layer in depth]
        along = path_similarity(model, inputs[:1], torch.cat(tops), torch.cat(bottoms), names)
        # Where natural pictures of both kinds are nearly alike, the scale has no length and the value no meaning.
        along = torch.where((along - 0.5).abs() <= SENSIBLE, along, torch.nan)
        found |= {f"path.{name}": float(value) for name, value in zip(names, along, strict=True)}
        sound = along[along.isfinite()]
        found["path"] = float(sound.mean()) if len(sound) else math.nan
    if len(made) > 1 and depth:
        found["seeds"] = seed_stability(model, inputs, objective.layers[0] if objective.layers else depth[-1].name)
    if first.picture.ndim == 4:
        found["still"] = static_equivalent(model, objective, fitted)
    return found


def model_sized(made: Synthesis) -> Tensor:
    """The picture at the size that the model sees, in display values."""
    if made.picture.shape == made.input.shape:
        return made.picture
    size = made.input.shape[-2:]
    folded = made.picture.flatten(0, -3)[None]
    resized = torch.nn.functional.interpolate(folded, size, mode="bilinear", antialias=True)
    return resized[0].reshape(made.input.shape).clamp(0, 1)


def natural_inputs(
    model: VisionModel, natural: UnitExemplars | None, like: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """A unit's strongest and weakest pictures as the model takes them, `(1, C, *space)` each; those of another size are
    left out.
    """
    sides = []
    for side in (natural.top, natural.bottom) if natural else ((), ()):
        read = [model.pictures(read_image(e.origin.source))[0][None] for e in side]
        sides.append([x.to(like) for x in read if x.shape[1:] == like.shape[1:]])
    return sides[0], sides[1]


def before(depth: Sequence[Layer], objective: Objective, order: Mapping[str, int]) -> list[Layer]:
    """Of the layers that stand for the network's depth, those that run no later than the objective's."""
    last = max((order.get(name, -1) for name in objective.layers), default=-1)
    return [layer for layer in depth if last < 0 or order.get(layer.name, -1) <= last]
