"""`concepts`: which concepts a layer of a model knows, and what each does to the answer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from pellucid.concepts.bank import Bank, find
from pellucid.concepts.dictionary import Dictionary, get_dictionary
from pellucid.concepts.naming import Name, by_examples, by_regions, clip_names, responses
from pellucid.engine import Capture
from pellucid.engine.trace import interruptible
from pellucid.errors import MediaError, StorageError
from pellucid.keep.artefact import Artefact
from pellucid.media import Pictures, PictureSet, Shown, as_pictures, read_folder
from pellucid.media.crops import Crops
from pellucid.media.regions import read_regions
from pellucid.models.features import Features, extract
from pellucid.models.layers import layers
from pellucid.models.model import VisionModel
from pellucid.results.concepts import FORMAT, Concepts
from pellucid.results.concepts import read_concepts as opened
from pellucid.verbs.inputs import ModelLike, as_model
from pellucid.verbs.records import opening, record, reloaded, reopened
from pellucid.verbs.request import CODECS, REQUESTS, Again, Codec, Maker, Request

__all__ = ["Concepts", "concepts", "opened", "recompute"]


CODECS["dictionary"] = Codec(
    Dictionary, lambda d: [d.name, d.get_params()], lambda values: get_dictionary(values[0], **values[1])
)


@dataclass(frozen=True, kw_only=True)
class ConceptsRequest(Request):
    """What `concepts` is asked; its settings are those of the verb, those of the dictionary are in `by`."""

    verb: ClassVar[str] = "concepts"

    layer: str | None = None
    by: str | Dictionary = "auto"
    count: int | None = None
    seed: int = 0
    crops: int = 0
    stable: bool = True
    limit: int = 200
    tokens: int = 50_000
    regions: str | None = None
    examples: str | None = None
    words: tuple[str, ...] = ()
    clip: str | None = None


def requested(model: VisionModel, pictures: Any, asked: ConceptsRequest) -> Concepts:
    """`concepts` as it was requested."""
    return concepts(model, pictures, **vars(asked))


@interruptible
def concepts(
    model: ModelLike,
    pictures: Shown,
    layer: str | None = None,
    by: str | Dictionary = "auto",
    *,
    count: int | None = None,
    seed: int = 0,
    crops: int = 0,
    stable: bool = True,
    limit: int = 200,
    tokens: int = 50_000,
    regions: str | Path | None = None,
    examples: str | Path | None = None,
    words: Sequence[str] = (),
    clip: str | None = None,
    cache: str | Path | None = "default",
    **settings: Any,
) -> Concepts:
    """Which concepts does it use?

    Args:
        model: a `VisionModel`, a model's name for `load`, or a bare module.
        pictures: a folder (sub-folders or a `labels.csv` are classes), a glob, `sample:*`, `digits:`, or a list.
        layer: module path; None takes the last that still knows places.
        by: the kind of dictionary: `nmf`, `semi-nmf`, `pca`, `ica`, `kmeans`, `sae`, `batch-sae`, `random`, or one of
            your own; `auto`: nmf where activations are >= 0, else semi-nmf.
        count: number of concepts; None: 25 (of a sparse autoencoder twice the layer's channels).
        seed: of whatever is random.
        crops: cut each picture into this many squares along each axis, and look for concepts in these, as CRAFT does.
        stable: whether to measure how well each concept is found again (two more fits).
        limit: pictures on which the effect on the answer is measured.
        tokens: places that the dictionary is fitted to, drawn at random where there are more.
        regions: folder of label images, to name the concepts by (see `media.regions.read_regions`).
        examples: folder with a sub-folder of example pictures for each attribute, to name the concepts by.
        words: what concepts may be called, by CLIP (extra `clip`); `clip` names its weights: a file, or open_clip's
            name.
        cache: folder for the layer's features; None keeps none.
        settings: further parameters of the dictionary, such as `active` of a sparse autoencoder.

    Returns:
        `Concepts`.

    Raises:
        PellucidError: one sentence with the cure.
    """
    loaded = as_model(model)
    given = as_pictures(pictures)
    looked: Pictures = Crops(given, along=crops) if crops else given
    home: Any = Path(cache) if cache not in (None, "default") else cache
    begun = time.perf_counter()
    features = extract(loaded, looked, layer, pool=None, cache=home)
    kind = get_dictionary(by) if isinstance(by, str) and by != "auto" else by
    picky = isinstance(kind, Dictionary) and kind.positive_input
    within = _at_least_zero(loaded, looked, features) if picky else None
    if within is not None:
        signed, features = features.layer, extract(loaded, looked, within, pool=None, cache=home)
    bank = find(loaded, features, by, count=count, seed=seed, tokens=tokens, limit=limit, stable=stable, **settings)
    if within is not None:
        bank.notes.append(
            f"{signed!r} has negative values, which {bank.dictionary.name} can't take: the concepts are those of "
            f"{within!r}, the last layer inside it without. semi-nmf or sae take {signed!r} itself."
        )
    _name(bank, loaded, features, home, regions, examples, words, clip)
    about = {
        **opening(pictures),
        "name": given.name,
        "sha256": hashlib.sha256(" ".join(features.digests).encode()).hexdigest(),
        "count": len(given),
    }
    asked = {
        "by": bank.dictionary.name,
        "dictionary": bank.dictionary.get_params(),
        "crops": crops,
        "stable": stable,
        "limit": limit,
        "tokens": tokens,
    }
    run = {
        "seed": seed,
        "layer": features.layer,
        "forwards": bank.forwards,
        "backwards": bank.backwards,
        "seconds": round(time.perf_counter() - begun, 3),
    }
    provenance = record(loaded, features.weights, about, "concepts", asked, None, run)
    return Concepts(**{f.name: getattr(bank, f.name) for f in fields(bank)}, record=provenance)


def _at_least_zero(model: VisionModel, pictures: Pictures, features: Features) -> str | None:
    """If a layer has negative values: the last layer inside it that has none on the first picture, if there is one."""
    if features.values.min() >= 0:
        return None
    x, _ = model.pictures(pictures.read(0))
    x = x[None].to(model.device, model.dtype)
    found = layers(model.module, x, key="output")
    inside = [layer.name for layer in found if layer.name.startswith(f"{features.layer}.")]
    with Capture(model.module, watch=inside) as capture, torch.no_grad():
        capture.forward(x)
        return next((name for name in reversed(inside) if capture.watched[name].min() >= 0), None)


def _name(
    bank: Bank,
    model: VisionModel,
    features: Features,
    cache: Any,
    regions: str | Path | None,
    examples: str | Path | None,
    words: Sequence[str],
    clip: str | None,
) -> None:
    """Names from each source asked for; where several know one, the first does."""
    found: list[list[Name]] = []
    if regions is not None:
        if not isinstance(features.pictures, PictureSet):
            raise MediaError("Regions name concepts of whole pictures: leave out crops.")
        found.append(by_regions(features, bank.dictionary, read_regions(regions, features.pictures)))
    if examples is not None:
        given = extract(model, read_folder(examples), features.layer, pool=None, cache=cache)
        found.append(by_examples(bank.dictionary, given))
    if words:
        strongest = responses(features, bank.dictionary)
        found.append(clip_names(strongest, features.pictures, list(words), weights=clip))
    for k in range(len(bank)):
        best = next((names[k] for names in found if names[k].name), None)
        if best is not None:
            bank.names[k], bank.named_by[k] = best.name, best.words


def recompute(artefact: Artefact, model: ModelLike | None, inputs: Any) -> Again:
    """Stored concepts found again from their record: arrays of the same names (see `verify`)."""
    stored = opened(artefact)
    about, reasons = stored.record, list[str]()
    given = reopened(about, inputs)
    loaded = reloaded(about, model, given, reasons)
    kept = {name: about.method["parameters"][name] for name in ("crops", "stable", "limit", "tokens")}
    by = type(stored.dictionary)(**stored.dictionary.get_params())
    try:
        again = requested(
            loaded, given, ConceptsRequest(layer=about.run["layer"], by=by, seed=about.run["seed"], **kept)
        )
    except MediaError as error:
        raise StorageError(f"{error} The pictures of the record are not at hand: give inputs=...") from error
    if again.record.input["sha256"] != about.input["sha256"]:
        reasons.append("the pictures are not those of the record")
    found: dict[str, Any] = {"dictionary.components_": again.dictionary.components_, "peaks": again.peaks}
    if again.whole is not None:
        found["whole.values"] = again.whole.values
    return Again({name: torch.from_numpy(np.asarray(value)) for name, value in found.items()}, reasons)


def standings(found: Concepts) -> dict[str, Any]:
    """The figures that stand for the whole, with those of random directions."""
    return {"concepts": asdict(found.standing), "random": asdict(found.random), "untouched accuracy": found.untouched}


REQUESTS[FORMAT] = Maker(ConceptsRequest, requested, opened, recompute)
