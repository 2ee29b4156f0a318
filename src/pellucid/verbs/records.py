"""Provenance of results, and the way back from it to a model."""

from __future__ import annotations

import platform
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pellucid import storage
from pellucid._version import __version__
from pellucid.errors import StorageError
from pellucid.explanation import Record
from pellucid.media import Picture, address, open_clip
from pellucid.models import sources
from pellucid.models.model import VisionModel
from pellucid.models.reading import Reading
from pellucid.models.targets import PerSample, Target, TargetLike, as_target, parse_target
from pellucid.verbs.inputs import ModelLike, as_model
from pellucid.verbs.request import unheld


def software() -> dict[str, str]:
    """Versions of what computes."""
    return {
        "pellucid": __version__,
        "torch": torch.__version__,
        "timm": _timm(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


@cache
def _timm() -> str:
    """Its version, read from its files since it is not imported for it: that takes 6 ms."""
    return version("timm")


def record(
    model: VisionModel,
    weights: str,
    source: dict[str, Any],
    method: str,
    parameters: dict[str, Any],
    target: Target | None,
    run: dict[str, Any],
) -> Record:
    """The record of a result.

    Args:
        model: what was explained.
        weights: its fingerprint when it was.
        source: of the input: `source` (path or sample; empty for something in memory), `name`, `sha256`.
        method: name of what was computed.
        parameters: everything that shaped it.
        target: as it was asked for; None where there is none.
        run: `seed` and what was measured of the run; device and dtype are added.
    """
    return Record(
        model={
            "source": model.source,
            "name": model.name,
            "weights": weights,
            "preprocess": storage.strict(model.preprocess.as_dict()),
            "reading": model.reading.as_dict(),
        },
        input=source,
        method={"name": method, "parameters": storage.strict(parameters)},
        target=_spec(target),
        run={"device": str(model.device), "dtype": str(model.dtype).removeprefix("torch."), **run},
        software=software(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _spec(target: Target | None) -> str | None:
    if target is None:
        return None
    return str(target.indices[0]) if isinstance(target, PerSample) else target.spec()


def reloaded(record: Record, model: ModelLike | None, inputs: Any, reasons: list[str]) -> VisionModel:
    """The model of a record, or the one given; `reasons` gets a sentence if its weights differ.

    Raises:
        StorageError: the record can load neither the model nor the input, and neither was given.
    """
    if model is None and not record.model["source"]:
        raise StorageError(
            f"The model {record.model['name']!r} was wrapped: give it with pl.verify(file, model=...) or --model."
        )
    if inputs is None and not opens_again(record):
        raise StorageError("The picture was only in memory: give it with pl.verify(file, inputs=...).")
    loaded = as_model(model) if model is not None else sources.load(**record.model["source"])
    if loaded.fingerprint() != record.model["weights"]:
        reasons.append("the model's weights are not those of the record")
    return _as_read(loaded, record, reasons)


def opens_again(record: Record) -> bool:
    """Whether a record says where its input comes from (see `source_of`)."""
    return bool(record.input["source"] or record.input.get("clip"))


def source_of(record: Record) -> str | Picture:
    """What opens a record's input: its file; of a frame of a film that very frame; empty for what was in memory.

    Raises:
        MediaError: the film's clip cannot be opened.
    """
    about = record.input
    if about["source"] or not about.get("clip"):
        return str(about["source"])
    footage = open_clip(about["clip"])
    nearest = min(range(len(footage.times)), key=lambda k: abs(footage.times[k] - about["time"]))
    return footage.pick([nearest]).picture(0)


def _as_read(model: VisionModel, record: Record, reasons: list[str]) -> VisionModel:
    """The model, its output read as in the record where nothing else is declared."""
    recorded = record.model.get("reading")
    if recorded is None:  # written before readings were
        return model
    if model.reading == Reading():
        return replace(model, reading=Reading.from_dict(recorded))
    for what, before in recorded.items():
        now = getattr(model.reading, what, None)
        if what != "pair" and None not in (now, before) and now != before:
            reasons.append(f"the model's {what} are read as {now!r}, not as {before!r}")
    return model


def opening(pictures: Any) -> dict[str, Any]:
    """What opens many pictures again, for a record: `source`, of a folder or glob; `pictures`, of a list of them."""
    if isinstance(pictures, str | Path):
        return {"source": address(pictures)}
    if isinstance(pictures, list | tuple) and pictures and all(isinstance(item, str | Path) for item in pictures):
        return {"source": "", "pictures": [address(item) for item in pictures]}
    return {"source": ""}


def reopened(record: Record, given: Any) -> Any:
    """The pictures of a record as `opening` noted them, or those given.

    Raises:
        StorageError: they were in memory only, and none are given.
    """
    found = given if given is not None else record.input["source"] or record.input.get("pictures")
    if given is None and not found:
        raise StorageError("The pictures were only in memory: give them with pl.verify(file, inputs=...).")
    return found


def recorded_target(record: Record, given: TargetLike, verb: str = "verify") -> Target:
    """The target of a record, or the one given, where it was a function, which a record cannot hold.

    Raises:
        StorageError: it is in neither, or in both.
    """
    if record.target is None:
        if given is None:
            raise unheld("target", "a function", f"give it with pl.{verb}(file, target=...).")
        return as_target(given)
    if given is not None:
        raise StorageError(f"The record holds its target, {record.target!r}: leave out target=.")
    return parse_target(record.target)


def parameters(record: Record) -> dict[str, Any]:
    """The parameters of a record, as they were given.

    Raises:
        StorageError: one of them was a tensor.
    """
    for name, setting in record.method["parameters"].items():
        if isinstance(setting, str) and setting.startswith("sha256:"):
            raise unheld(name, "a tensor", "it cannot be recomputed.")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in record.method["parameters"].items()}
