"""`atlas`: a layer's activations over a folder of pictures, laid out on a plane and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid import storage
from pellucid.engine import unwrap
from pellucid.engine.trace import interruptible
from pellucid.errors import LayerError, ModelError
from pellucid.features import Direction, Settings, synthesise
from pellucid.features.atlas import Projection, make_atlas
from pellucid.media import address
from pellucid.models.layers import best_layer, describe
from pellucid.models.model import VisionModel
from pellucid.models.opens import require_layers_open
from pellucid.results.atlas import FORMAT, AtlasSheet, arrays, read_atlas
from pellucid.verbs.inputs import Input, ModelLike, as_model
from pellucid.verbs.records import parameters, record, reloaded
from pellucid.verbs.request import REQUESTS, Again, Maker, Request

_SMALLER = 0.5  # of the input's sides: enough for a cell, where the model takes other sizes


@dataclass(frozen=True, kw_only=True)
class AtlasRequest(Request):
    """What `atlas` is asked; its settings are those of the verb."""

    verb: ClassVar[str] = "atlas"

    layer: str | None = None
    size: int = 8
    projection: Projection = "tsne"
    samples: int = 4000
    steps: int = 64
    seed: int = 0


@interruptible
def atlas(
    model: ModelLike,
    pictures: str | Path | Sequence[str | Path],
    *,
    layer: str | None = None,
    size: int = 8,
    projection: Projection = "tsne",
    samples: int = 4000,
    steps: int = 64,
    seed: int = 0,
) -> AtlasSheet:
    """What does a layer tell apart, over a whole folder of pictures?

    Args:
        model: a `VisionModel`, a model's name for `load`, or a bare module.
        pictures: folder, glob, files, `sample:*`, or a list of these.
        layer: module path; None: the last whose cells still carry gradient to the output.
        size: cells along each side.
        projection: `tsne`, `pca`, or `umap` (extra `umap`).
        samples: activation vectors at the most.
        steps: of gradient ascent for each cell's picture.
        seed: for whatever is random.

    Raises:
        PellucidError: one sentence with the cure.
    """
    loaded = as_model(model)
    module = unwrap(loaded.module)
    require_layers_open(module, "there is no atlas of one")
    sample = torch.zeros(1, loaded.preprocess.channels, *loaded.preprocess.input_size).to(loaded.device, loaded.dtype)
    loaded.outputs(sample)  # says in a sentence if the model does not take pictures
    chosen = best_layer(module, sample, key="output") if layer is None else describe(module, sample, layer)
    found = make_atlas(loaded, pictures, chosen, size=size, projection=projection, samples=samples, seed=seed)
    shape = _shape(loaded, chosen.name, sample)
    settings = Settings.preset("fast", steps=steps, shape=shape)
    made = synthesise(loaded, [Direction(chosen.name, vector=c.direction) for c in found.cells], settings, seed=seed)
    given = [pictures] if isinstance(pictures, str | Path) else list(pictures)
    asked: dict[str, Any] = {
        "pictures": [address(p) for p in given],
        "layer": chosen.name,
        "size": size,
        "projection": projection,
        "samples": samples,
        "steps": steps,
    }
    source = {"source": "", "name": "", "sha256": ""}
    run = {"seed": seed, "data": found.data}
    about = record(loaded, loaded.fingerprint(), source, "atlas", asked, None, run)
    return AtlasSheet(
        chosen.name,
        projection,
        found.size,
        found.points,
        found.cells,
        found.pictures,
        found.kept,
        found.chance,
        torch.stack([s.picture for s in made]),
        about,
    )


def _shape(model: VisionModel, layer: str, sample: Tensor) -> tuple[int, ...] | None:
    """Half the input's size, if the model takes it and the layer keeps its channels; None for the usual size."""
    small = [max(32, round(_SMALLER * n)) for n in sample.shape[2:]]
    try:
        tried = torch.zeros(1, sample.shape[1], *small).to(sample)
        model.outputs(tried)
        there, here = describe(model.module, tried, layer).layout, describe(model.module, sample, layer).layout
    except (ModelError, LayerError):
        return None
    return (sample.shape[1], *small) if there.channels == here.channels else None


def requested(model: VisionModel, pictures: Any, asked: AtlasRequest) -> AtlasSheet:
    """`atlas` as it was requested."""
    return atlas(model, pictures, **vars(asked))


def opened(artefact: storage.Artefact) -> AtlasSheet:
    """The stored result as it was."""
    return read_atlas(artefact)


def recompute(artefact: storage.Artefact, model: ModelLike | None, inputs: Input | None) -> Again:
    """A stored atlas made again from its record (see `verify`)."""
    reasons: list[str] = []
    about = storage.record_from(artefact.meta)
    settings = parameters(about)
    loaded = reloaded(about, model, "", reasons)
    pictures = settings.pop("pictures")
    again = requested(loaded, pictures, AtlasRequest(**settings, seed=about.run["seed"]))
    if again.record.run["data"] != about.run["data"]:
        reasons.append("the pictures are not those of the record")
    return Again({name: torch.from_numpy(a) for name, a in arrays(again).items()}, reasons)


REQUESTS[FORMAT] = Maker(AtlasRequest, requested, opened, recompute)
