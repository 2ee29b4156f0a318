"""What a layer makes of one input: its channels' maps, ranked, and the whole layer as one picture.

Works on whatever has a proven layout: CNNs (channels first or last), the token grids of ViTs, and clips and volumes,
whose maps keep their further axis.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from pellucid.engine import Capture, unwrap
from pellucid.errors import LayerError, MethodError
from pellucid.explanation import Prediction, Record
from pellucid.features.learn import learn
from pellucid.heatmaps import ChannelRelevance
from pellucid.media import Geometry, Picture
from pellucid.models.layers import Layer, layers
from pellucid.models.model import VisionModel
from pellucid.models.targets import TargetLike

Ranking = Literal["activation", "relevance"]
Summary = Literal["pca", "nmf"]


@dataclass(frozen=True)
class ActivationMaps:
    """A layer's answer to one input.

    Attributes:
        layer: the layer and how its axes read.
        values: raw activations `(C, *grid)`; prefix tokens, which have no place, are left out.
        ranked_by: what `ranking` holds: `activation` (a channel's largest value) or `relevance` (to a target).
        ranking: one number a channel, `(C,)`.
    """

    layer: Layer
    values: Tensor
    ranked_by: Ranking
    ranking: Tensor

    def order(self) -> list[int]:
        """Channels, the first of the ranking first; relevance counts by its absolute value."""
        values = self.ranking.abs() if self.ranked_by == "relevance" else self.ranking
        return [int(c) for c in values.argsort(descending=True, stable=True)]

    def norm(self) -> Tensor:
        """The length of each cell's activation vector, `(*grid)`."""
        return self.values.float().square().sum(0).sqrt()


@dataclass
class InputActivations:
    """What some layers answer to one input.

    Attributes:
        maps: one entry a layer, in the order in which they run.
        target: what relevance is to, as people call it; empty where channels are ranked by activation.
        prediction: the model's top classes.
        geometry: where the model looked on the original picture.
        record: provenance.
        picture: the original, while in memory; not stored.
        seen: the input `(C, *space)` in display values, while in memory; not stored.
    """

    maps: list[ActivationMaps]
    target: str
    prediction: list[Prediction]
    geometry: Geometry
    record: Record
    picture: Picture | None = field(default=None, repr=False)
    seen: Tensor | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name of the input."""
        return str(self.record.input.get("name") or "input")

    def __getitem__(self, layer: str) -> ActivationMaps:
        """The maps of a layer, by its name."""
        found = next((m for m in self.maps if m.layer.name == layer), None)
        if found is None:
            raise LayerError(
                f"There are no maps of layer {layer!r}, only of {', '.join(m.layer.name for m in self.maps)}."
            )
        return found


def activation_maps(
    model: VisionModel | nn.Module,
    inputs: Tensor,
    which: Sequence[Layer],
    *,
    by: Ranking = "activation",
    target: TargetLike = None,
) -> list[ActivationMaps]:
    """The activations of one input `(1, C, *space)` at several layers.

    By activation it costs one forward pass up to the last layer; by relevance (see the method `channel-relevance`) a
    forward and the backward of the tail for each layer.

    Args:
        model: left as it was.
        inputs: one input.
        which: layers with their layouts.
        by: what channels are ranked by.
        target: what relevance is to; None: the top class.
    """
    if by not in ("activation", "relevance"):
        raise MethodError(f"Channels are ranked by 'activation' or 'relevance', not {by!r}.")
    module = unwrap(model.module if isinstance(model, VisionModel) else model)
    with Capture(module, [layer.name for layer in which], stop_early=True) as capture:
        capture.forward(inputs[:1])
        maps = [layer.layout.to_map(capture.activations[layer.name])[0].detach().cpu() for layer in which]
    found = []
    for layer, values in zip(which, maps, strict=True):
        if by == "relevance":
            ranking = ChannelRelevance(layer=layer.name).attribute(model, inputs[:1], target)[0].detach().cpu()
        else:
            ranking = values.float().flatten(1).amax(1)
        found.append(ActivationMaps(layer, values, by, ranking))
    return found


def summary(values: Tensor, kind: Summary = "pca", *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A whole layer as three numbers a cell, to be drawn in three colours.

    `pca`: the cells' coordinates along the three directions in which they differ most. `nmf`: how much of three parts
    each cell holds, where the parts are additive (Lee & Seung 1999); negative activations count as zero.

    Args:
        values: `(C, *grid)`.
        kind: `pca` or `nmf`.
        seed: of the factorisation's start.

    Returns:
        Components `(3, *grid)` and the share `(3,)` of the layer's variance (`pca`) or, each alone, of its energy
        (`nmf`) that they hold. Components beyond what the layer has are zero.
    """
    cells = values.detach().cpu().double().flatten(1).T  # (cells, C)
    if kind == "pca":
        parts, share = _pca(cells)
    elif kind == "nmf":
        parts, share = _nmf(cells.clamp(min=0), seed)
    else:
        raise MethodError(f"A layer is summed up by 'pca' or 'nmf', not {kind!r}.")
    return parts.T.reshape(3, *values.shape[1:]).float(), share.float()


def _pca(cells: Tensor) -> tuple[Tensor, Tensor]:
    centred = cells - cells.mean(0)
    parts, share = torch.zeros(len(cells), 3, dtype=cells.dtype), torch.zeros(3, dtype=cells.dtype)
    if not centred.any():
        return parts, share
    count = min(3, *cells.shape)
    fitted = learn("decomposition").PCA(count, svd_solver="full").fit(centred.numpy())
    scores = torch.from_numpy(fitted.transform(centred.numpy()))
    peaks = scores.gather(0, scores.abs().argmax(0, keepdim=True)).sign()  # the sign of a component is arbitrary
    parts[:, :count] = scores * torch.where(peaks == 0, 1.0, peaks)
    share[:count] = torch.from_numpy(fitted.explained_variance_ratio_)
    return parts, share


def _nmf(cells: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    parts, share = torch.zeros(len(cells), 3, dtype=cells.dtype), torch.zeros(3, dtype=cells.dtype)
    if not cells.any():
        return parts, share
    count = min(3, *cells.shape)
    fitted = learn("decomposition").NMF(count, init="nndsvd", random_state=seed, max_iter=500, tol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", learn("exceptions").ConvergenceWarning)  # near enough for a picture
        weights = torch.from_numpy(fitted.fit_transform(cells.numpy()))
    basis = torch.from_numpy(fitted.components_)
    scale = basis.norm(dim=1)  # parts of unit length, so that weights compare
    weights = weights * scale
    energy = weights.square().sum(0) / cells.square().sum()
    order = energy.argsort(descending=True, stable=True)
    parts[:, :count], share[:count] = weights[:, order], energy[order]
    return parts, share


def stages(module: nn.Module, inputs: Tensor, most: int = 5) -> list[Layer]:
    """Layers that stand for the depth of a network: the last block on each size of grid, in execution order.

    Where the grid never changes (ViTs), blocks at even distances.
    """
    module = unwrap(module)
    found = layers(module, inputs, key="output")
    parts = dict(module.named_modules())
    blocks = [layer for layer in found if _is_block(parts[layer.name])] or list(found)
    ends = {layer.layout.grid: layer for layer in blocks}  # the last of each grid stays
    chosen = list(ends.values())
    if len(chosen) < min(most, 4):
        chosen = _repeated(blocks) or chosen
    chosen = [layer for layer in found if layer in chosen]
    steps = [round(i * (len(chosen) - 1) / max(1, most - 1)) for i in range(most)] if len(chosen) > most else None
    return [chosen[i] for i in steps] if steps else chosen


def _is_block(module: nn.Module) -> bool:
    """Whether it holds at least two layers with weights."""
    weighted = [m for m in module.modules() if m is not module and next(m.parameters(recurse=False), None) is not None]
    return len(weighted) > 1


def _repeated(blocks: Sequence[Layer]) -> list[Layer]:
    """The outermost kind of block that occurs at least three times, and what ends the network."""
    counts = Counter(layer.kind for layer in blocks)
    kinds = [layer for layer in blocks if counts[layer.kind] >= 3]
    if not kinds:
        return []
    kind = min(kinds, key=lambda layer: layer.name.count(".")).kind
    same = [layer for layer in blocks if layer.kind == kind]
    width = Counter((x.layout.channels, x.layout.grid) for x in same).most_common(1)[0][0]
    return [x for x in same if (x.layout.channels, x.layout.grid) == width]
