"""How far a synthetic picture may be believed, as far as the picture and the model alone can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.engine import Capture, adaptive_batches, default_batch, unwrap
from pellucid.errors import TargetError
from pellucid.features.canvas import Canvas
from pellucid.features.objectives import Channel, Neuron, Objective, Score, Token, cells, layout_of
from pellucid.features.passes import activation, bound
from pellucid.features.robustness import Robustness
from pellucid.models.model import VisionModel
from pellucid.models.targets import Class, TargetLike


@dataclass(frozen=True)
class Robust:
    """Activations over random views of one picture.

    Attributes:
        plain: of the picture as it is.
        mean, deviation: over the views.
        lowest: of the views.
    """

    plain: float
    mean: float
    deviation: float
    lowest: float


def robust_activation(
    model: VisionModel,
    objective: Objective | TargetLike,
    picture: Tensor,
    robustness: Robustness | None = None,
    *,
    count: int = 32,
    seed: int = 0,
) -> Robust:
    """The activation over random views: a picture that excites a unit only pixel for pixel shows an accident.

    Args:
        model: whose unit it is.
        objective: what the picture was made for.
        picture: display values `(C, *space)` of the model's input size.
        robustness: the views; default: zoom by a tenth, 10 degrees, jitter by a twentieth.
        count: of views.
        seed: of the views.
    """
    canvas = Canvas.of(model, tuple(picture.shape))
    generator = torch.Generator().manual_seed(seed)
    views = (robustness or Robustness()).views(picture[None].cpu(), count, [generator], picture.shape[-2:])
    inputs = canvas.to_input(torch.cat([picture[None].cpu(), views]).to(model.device))
    plain, *found = activation(model, inputs, [objective])[0].tolist()
    values = torch.tensor(found, dtype=torch.float64)
    return Robust(plain, float(values.mean()), float(values.std(unbiased=False)), float(values.min()))


@dataclass(frozen=True)
class Selectivity:
    """How much a unit stands out among its layer's on its picture.

    Attributes:
        rank: 1 if no other unit of the layer is more active.
        of: units in the layer.
        z: its activation in deviations above the layer's mean.
    """

    rank: int
    of: int
    z: float


def selectivity(model: VisionModel, objective: Objective | TargetLike, inputs: Tensor) -> Selectivity:
    """Where the unit stands among all units of its layer (or classes) on its picture.

    Activations of units differ in scale, so with `inputs` of several pictures each unit is first measured against its
    own mean and deviation on the others.

    Args:
        model: whose unit it is.
        objective: a `Channel`, `Neuron`, `Token` or class.
        inputs: the unit's picture first, `(N, C, *space)` in model units; the others, if any, natural pictures.
    """
    canvas = Canvas.of(model, tuple(inputs.shape[1:]))
    (found,) = bound(model, [objective], canvas)
    values, index = _peers(model, found, inputs)
    own = values[0]
    if len(inputs) > 2:
        others = values[1:]
        own = (own - others.mean(0)) / others.std(0).clamp(min=1e-12)
    deviation = float(own.std(unbiased=False))
    z = float(own[index] - own.mean()) / deviation if deviation > 0 else math.nan
    return Selectivity(int((own > own[index]).sum()) + 1, len(own), z)


def _peers(model: VisionModel, objective: Objective, inputs: Tensor) -> tuple[Tensor, int]:
    """All units beside a bound one on all inputs, `(N, units)`, and which of them it is."""
    if isinstance(objective, Score) and isinstance(objective.target, Class):
        return model.reading.class_scores(model.outputs(inputs)).double().cpu(), objective.target.bound()
    if not isinstance(objective, Channel):
        raise TargetError("Selectivity is of one unit among its peers: give a channel, a neuron or a class.")
    rows = []
    with torch.inference_mode(False), Capture(unwrap(model.module), [objective.layer], stop_early=True) as capture:

        def run(start: int, stop: int) -> None:
            with torch.no_grad():
                capture.forward(inputs[start:stop])
            A = capture.activations[objective.layer]
            rows.append(_read(objective, A).double().cpu())

        adaptive_batches(run, len(inputs), default_batch(inputs.device))
    return torch.cat(rows), objective.channel


def _read(objective: Channel, A: Tensor) -> Tensor:
    """Every channel as the objective reads its own: `(N, C)`."""
    if isinstance(objective, Token):
        return A[:, objective.token].float()
    found = cells(A, objective.layout)
    return found[..., objective.cell] if isinstance(objective, Neuron) else found.mean(2)


def static_equivalent(model: VisionModel, objective: Objective | TargetLike, clip: Tensor) -> float:
    """How much of a clip's activation its best single frame reaches when it stands still.

    Near 1: the unit needs no motion. Near 0: motion is what it looks for. Measured from the activation of a plain grey
    clip; NaN where the clip itself does no better than grey.

    Args:
        model: of clips.
        objective: what the clip was made for.
        clip: display values `(C, T, H, W)`.
    """
    if clip.ndim != 4:
        raise TargetError(f"The static equivalent is of a clip (C, T, H, W); got {tuple(clip.shape)}.")
    canvas = Canvas.of(model, tuple(clip.shape))
    frames = clip.unbind(1)
    stills = torch.stack([frame[:, None].expand_as(clip) for frame in frames])
    grey = torch.full_like(clip, 0.5)
    inputs = canvas.to_input(torch.cat([stills, torch.stack([clip, grey])]).to(model.device))
    *still, moving, base = activation(model, inputs, [objective])[0].tolist()
    return (max(still) - base) / (moving - base) if moving > base else math.nan


def path_similarity(
    model: VisionModel,
    synthetic: Tensor,
    alike: Tensor,
    different: Tensor,
    layers: Sequence[str],
) -> Tensor:
    """Whether a synthetic picture is processed as natural ones are, layer by layer (Geirhos et al. 2023, section 3).

    Rank correlation of a layer's activations for the synthetic picture with those for natural pictures that excite the
    same unit, scaled so that 1 is how much these natural pictures resemble each other, and 0 how much they resemble
    natural pictures of other things. Values below 1 in early and middle layers and near 1 at the end say that the
    picture reaches the unit by a way that natural pictures do not take.

    Args:
        model: whose layers are read.
        synthetic: `(S, C, *space)` inputs in model units.
        alike: `(A, C, *space)` natural inputs that excite the unit, at least 2.
        different: `(B, C, *space)` natural inputs of other things.
        layers: names, in the order of execution.

    Returns:
        `(layers,)` normalised similarities; NaN where the two kinds of natural pictures do not differ.

    Raises:
        TargetError: fewer than 2 alike or no different pictures.
    """
    if len(alike) < 2 or not len(different) or not len(synthetic):
        raise TargetError("Path similarity takes a synthetic picture, two natural ones alike and one different.")
    inputs = torch.cat([t.to(alike) for t in (synthetic, alike, different)])
    ranks = _ranks(model, inputs, layers)
    s, a = len(synthetic), len(alike)
    found = []
    for name in layers:
        made, near, far = ranks[name][:s], ranks[name][s : s + a], ranks[name][s + a :]
        one = (near @ near.T).sum().sub(a) / (a * (a - 1))
        zero = (near @ far.T).mean()
        span = float(one - zero)
        found.append(float((made @ near.T).mean() - zero) / span if span > 1e-6 else math.nan)
    return torch.tensor(found)


def _ranks(model: VisionModel, inputs: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Every layer's activations as centred ranks of unit length, `(N, D)`: their products are rank correlations."""
    rows: dict[str, list[Tensor]] = {name: [] for name in layers}
    with torch.inference_mode(False), Capture(unwrap(model.module), watch=layers) as capture:

        def run(start: int, stop: int) -> None:
            with torch.no_grad():
                capture.forward(inputs[start:stop])
            for name in layers:
                values = capture.watched[name].flatten(1).double().cpu()
                rows[name].append(torch.nn.functional.normalize(_ranked(values), dim=1))

        adaptive_batches(run, len(inputs), default_batch(inputs.device))
    return {name: torch.cat(found) for name, found in rows.items()}


def _ranked(values: Tensor) -> Tensor:
    """Centred ranks of each row, equal values sharing their mean rank (a rectified layer is full of zeros)."""
    ordered, _ = values.sort(dim=1)
    low = torch.searchsorted(ordered, values.contiguous(), side="left")
    high = torch.searchsorted(ordered, values.contiguous(), side="right")
    return (low + high).double() / 2 - values.shape[1] / 2


def seed_stability(model: VisionModel, inputs: Tensor, layer: str) -> float:
    """How alike the pictures of several seeds are to the model: mean cosine of their channel profiles in a layer.

    A unit that looks for several things gives pictures that differ from seed to seed.

    Args:
        model: whose layer is read.
        inputs: `(S, C, *space)` in model units, one a seed, at least 2.
        layer: for instance the unit's own.
    """
    if len(inputs) < 2:
        raise TargetError("Stability is between the pictures of at least 2 seeds.")
    layout = layout_of(model, inputs[:1], layer)
    with torch.inference_mode(False), Capture(unwrap(model.module), [layer], stop_early=True) as capture:
        with torch.no_grad():
            capture.forward(inputs)
        profile = torch.nn.functional.normalize(cells(capture.activations[layer], layout).mean(2), dim=1)
    alike = profile @ profile.T
    n = len(inputs)
    return float((alike.sum() - alike.diagonal().sum()) / (n * (n - 1)))


def high_share(picture: Tensor, cutoff: float = 0.25) -> float:
    """The share of a picture's contrast at spatial frequencies above `cutoff` cycles a pixel (0.5 is the finest).

    Natural pictures have a hundredth or less there, white noise four fifths.

    Args:
        picture: `(C, *space)`.
        cutoff: in cycles a pixel.
    """
    space = tuple(picture.shape[-2:])
    centred = picture.double() - picture.double().mean((-2, -1), keepdim=True)
    hann = [torch.hann_window(n, periodic=False, dtype=torch.float64) for n in space]  # no leakage from the borders
    power = torch.fft.fft2(centred * hann[0][:, None] * hann[1]).abs().square()
    y, x = torch.fft.fftfreq(space[0]), torch.fft.fftfreq(space[1])
    high = torch.hypot(y[:, None], x[None]) > cutoff
    total = float(power.sum())
    return float(power[..., high].sum()) / total if total > 0 else math.nan
