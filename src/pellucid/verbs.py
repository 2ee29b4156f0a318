"""The verbs: load -> prepare -> method -> result. No numerics here."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pellucid import storage
from pellucid._version import __version__
from pellucid.engine import default_batch
from pellucid.errors import MediaError, MethodError, PellucidError, StorageError, TargetError
from pellucid.explanation import Prediction, Record
from pellucid.heatmaps import Attribution, Method, explain_all, get_method
from pellucid.media import Geometry, Picture, expand, read_image
from pellucid.models.model import VisionModel
from pellucid.models.sources import load, wrap
from pellucid.models.targets import PerSample, Target, TargetLike, as_target, parse_target
from pellucid.results import Heatmap, Heatmaps, Session

Input = str | Path | Image.Image | np.ndarray[Any, Any] | Tensor
ModelLike = str | VisionModel | nn.Module


@dataclass
class _Prepared:
    """One input, ready for the model."""

    x: Tensor
    geometry: Geometry
    picture: Picture | None
    source: dict[str, Any]
    position: int = 0  # among all inputs, readable or not


def as_model(model: ModelLike) -> VisionModel:
    """A model by name, a bare module wrapped, or a `VisionModel` as it is."""
    if isinstance(model, VisionModel):
        return model
    return load(model) if isinstance(model, str) else wrap(model)


def as_methods(
    method: str | Method | Sequence[str | Method], *, layer: str | None = None, seed: int | None = None
) -> list[Method]:
    """Methods by name (`"grad-cam,rise"`), as objects, or a mixture; `layer` and `seed` go to those that take them."""
    given = method if isinstance(method, Sequence) and not isinstance(method, str) else [method]
    names = [part for m in given for part in (m.split(",") if isinstance(m, str) else [m])]
    methods = [get_method(m) if isinstance(m, str) else m for m in names]
    wrong = next((m for m in methods if not isinstance(m, Method)), None)
    if wrong is not None:
        raise MethodError(f"{wrong!r} is no method: give a name such as 'grad-cam', or an object such as GradCAM().")
    if not methods:
        raise MethodError("There is no method: name one, such as 'grad-cam'.")
    if layer is not None and not any(_has(m, "layer") for m in methods):
        raise MethodError(
            f"A layer was named, but {', '.join(m.name for m in methods)} works without one: leave it out."
        )
    return [_with(_with(m, "layer", layer), "seed", seed) for m in methods]


def with_settings(methods: Sequence[Method], settings: Sequence[str]) -> list[Method]:
    """Methods with hyper-parameters set from texts such as `max_steps=100`; each goes to the methods that have it."""
    changed = list(methods)
    for text in settings:
        parameter, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not parameter.isidentifier():
            raise MethodError(f"{text!r} sets nothing: write parameter=value, such as max_steps=100.")
        if not any(_has(m, parameter) for m in changed):
            known = sorted({f.name for m in changed for f in fields(m)})  # type: ignore[arg-type]
            names = ", ".join(m.name for m in changed)
            raise MethodError(f"{names} has no parameter {parameter!r}; there are {', '.join(known) or 'none'}.")
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = None if value == "None" else value
        parsed = tuple(parsed) if isinstance(parsed, list) else parsed
        try:
            changed = [replace(m, **{parameter: parsed}) if _has(m, parameter) else m for m in changed]  # type: ignore[type-var]
        except TypeError as error:
            raise MethodError(f"{value!r} is no value for {parameter!r}: give a number, a list or a name.") from error
    return changed


def _has(method: Method, parameter: str) -> bool:
    return any(f.name == parameter for f in fields(method))  # type: ignore[arg-type]


def _with(method: Method, parameter: str, value: Any) -> Method:
    if value is None or not _has(method, parameter):
        return method
    return replace(method, **{parameter: value})  # type: ignore[type-var]


def as_targets(target: TargetLike | Sequence[TargetLike]) -> list[Target]:
    """Targets by text (`"tabby,tabby>lynx"`), number, object, or a list of these: each is explained by itself."""
    given: list[Any] = list(target) if isinstance(target, Sequence) and not isinstance(target, str) else [target]
    parts = [part for t in given for part in (t.split(",") if isinstance(t, str) else [t])]
    if not parts:
        raise PellucidError("There is no target: name one, or leave it out for the top class.")
    return [as_target(p) for p in parts]


def explain(
    model: ModelLike,
    inputs: Input | Sequence[Input],
    method: str | Method | Sequence[str | Method] = "grad-cam",
    target: TargetLike | Sequence[TargetLike] = None,
    *,
    layer: str | None = None,
    seed: int = 0,
    check: bool = False,
) -> Any:
    """Why did this model say that about this picture?

    Args:
        model: a `VisionModel`, a model's name for `load`, or a bare module.
        inputs: a picture (path, `sample:NAME`, PIL, array), a folder or glob of pictures, a tensor `(C, H, W)` or
            `(N, C, H, W)` as the model takes it, or a list of these.
        method: one or several, by name or as objects.
        target: one or several: class numbers, labels, `a>b`, `Target` objects, functions of the output; None explains
            each picture's top class.
        layer: module path for the methods that explain a layer; None finds one.
        seed: for whatever is random.
        check: measure the quality at once (see `Heatmap.check`).

    Returns:
        A `Heatmap` for one picture, one method and one target, else `Heatmaps`.

    Raises:
        PellucidError: one sentence with the cure; the first picture that can't be read ends the work.
    """
    loaded = as_model(model)
    methods, targets = as_methods(method, layer=layer, seed=seed), as_targets(target)
    found = Heatmaps()
    for _, result in explain_each(loaded, inputs, methods, targets, seed=seed):
        if isinstance(result, PellucidError):
            raise result
        found += result
    if check:
        found.check()
    single = len(found) == 1 and not (isinstance(inputs, Sequence) and not isinstance(inputs, str))
    return found[0] if single else found


def explain_each(
    model: VisionModel,
    inputs: Input | Sequence[Input],
    methods: Sequence[Method],
    targets: Sequence[Target],
    *,
    seed: int = 0,
    batch: int | None = None,
) -> Iterator[tuple[str, Heatmaps | PellucidError]]:
    """Explain inputs one after the other, in batches, as they come: `(name, explanations or what went wrong)`.

    A picture that can't be read does not stop the others; a model, method or target that does not work is raised.
    """
    waiting: list[_Prepared] = []
    size = batch or max(1, default_batch(model.device) // 2)
    given = 0
    for name, item in _prepared(model, inputs):
        given += 1
        if isinstance(item, PellucidError):
            yield name, item
            continue
        if waiting and (len(waiting) == size or waiting[0].x.shape != item.x.shape):
            yield from _explain_batch(model, waiting, methods, targets, seed)
            waiting = []
        waiting.append(replace(item, position=given - 1))
    if waiting:
        yield from _explain_batch(model, waiting, methods, targets, seed)
    for t in targets:
        if isinstance(t, PerSample) and len(t.indices) > given > 0:
            raise TargetError(_ILL_PAIRED.format(len(t.indices), given))


_ILL_PAIRED = "{} targets for {} inputs: give one target for all, or one for each."


def _for_batch(target: Target, items: list[_Prepared]) -> Target:
    """Of a class for each input, those of one batch; other targets as they are."""
    if not isinstance(target, PerSample):
        return target
    last = items[-1].position
    if last >= len(target.indices):
        raise TargetError(_ILL_PAIRED.format(len(target.indices), f"at least {last + 1}"))
    return target.select(torch.tensor([item.position for item in items]))


def _explain_batch(
    model: VisionModel, items: list[_Prepared], methods: Sequence[Method], targets: Sequence[Target], seed: int
) -> Iterator[tuple[str, Heatmaps]]:
    weights = model.fingerprint()
    x = torch.stack([item.x for item in items]).to(model.device, model.dtype)
    output = model.outputs(x)
    predictions = model.ranked(output)
    named = [_for_batch(t, items).bind(model.module, x, model.labels) for t in targets]
    bound = [t.freeze(output) for t in named]
    found = explain_all(methods, model, x, bound)
    for i, item in enumerate(items):
        session = Session(model, x[i : i + 1], seed, weights)
        row = torch.tensor([i])
        yield (
            item.source["name"],
            Heatmaps(
                _heatmap(item, session, m, asked.select(row), target.select(row), found[a][b], i, predictions[i])
                for b, (asked, target) in enumerate(zip(named, bound, strict=True))
                for a, m in enumerate(methods)
            ),
        )


_NO_WAY_BACK = (
    "The transform's way back to the original could not be measured (it flips, warps, or is random), so the map lies "
    "on the model's own input."
)


def _heatmap(
    item: _Prepared,
    session: Session,
    method: Method,
    asked: Target,
    target: Target,
    found: Attribution,
    row: int,
    prediction: list[Prediction],
) -> Heatmap:
    model = session.model
    record = Record(
        model={
            "source": model.source,
            "name": model.name,
            "weights": session.weights,
            "preprocess": storage.strict(model.preprocess.as_dict()),
        },
        input=item.source,
        method={"name": method.name, "parameters": storage.strict(method.parameters())},
        target=str(asked.indices[0]) if isinstance(asked, PerSample) else asked.spec(),
        run={
            "seed": session.seed,
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "layer": found.layer.name if found.layer else None,
            "forwards": found.cost.forwards,
            "backwards": found.cost.backwards,
        },
        software=software(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return Heatmap(
        attribution=found.values[row : row + 1].detach().cpu(),
        method=method.name,
        target=target.name(model.labels) if method.uses_target else "any target",
        prediction=prediction,
        geometry=item.geometry,
        record=record,
        layer=f"{found.layer.name} ({found.layer.layout})" if found.layer else None,
        kind=method.kind,
        signed=method.signed,
        fold=method.channels,
        notes=[*found.notes, *([] if item.geometry.known else [_NO_WAY_BACK])],
        extras={name: value[row : row + 1].detach().cpu() for name, value in found.extras.items()},
        picture=item.picture,
        session=session,
        ran=method,
        explained=target,
        facts={name: values[row] for name, values in found.facts.items()},
    )


def software() -> dict[str, str]:
    """Versions of what computes."""
    import timm

    return {
        "pellucid": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _prepared(model: VisionModel, inputs: Input | Sequence[Input]) -> Iterator[tuple[str, _Prepared | PellucidError]]:
    for item in _items(inputs):
        try:
            if isinstance(item, Tensor):
                for x in item if item.ndim > 3 else [item]:
                    yield "tensor", _from_tensor(model, x)
            else:
                picture = item if isinstance(item, Picture) else read_image(item)
                yield picture.name, _from_picture(model, picture)
        except MediaError as error:
            yield str(item) if isinstance(item, str | Path) else "input", error


def _items(inputs: Input | Sequence[Input]) -> Iterable[Input | Picture]:
    several = isinstance(inputs, Sequence) and not isinstance(inputs, str)
    for item in inputs if several else [inputs]:  # type: ignore[union-attr]
        if isinstance(item, str | Path):
            yield from expand([item])
        else:
            yield item  # type: ignore[misc]


def _from_picture(model: VisionModel, picture: Picture) -> _Prepared:
    x, geometry = model.preprocess(picture)
    source = picture.source
    if source and not source.startswith("sample:"):
        source = str(Path(source).resolve())
    about = {"source": source, "name": picture.name, "sha256": picture.sha256}
    return _Prepared(x, geometry, picture if geometry.known else _as_seen(model, x, picture), about)


def _as_seen(model: VisionModel, x: Tensor, picture: Picture) -> Picture | None:
    """The model's own input as a picture, for inputs whose way back to a picture is not known."""
    shown = model.preprocess.display(x)
    if shown.ndim != 3 or shown.shape[0] not in (1, 3):
        return None
    pixels = shown.float().clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    return replace(picture, pixels=pixels)


def _from_tensor(model: VisionModel, x: Tensor) -> _Prepared:
    if x.ndim < 2 or not x.is_floating_point():
        raise MediaError(
            f"An input tensor holds floats (C, H, W) or (N, C, H, W) as the model takes them, not {x.dtype} "
            f"{tuple(x.shape)}: give that, or the picture as a path or an array."
        )
    if not torch.isfinite(x).all():
        raise MediaError("The input tensor holds NaN or infinity: clean it before explaining it.")
    x = x.detach().cpu().float()
    digest = hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()
    geometry = Geometry.identity(tuple(x.shape[1:]))
    blank = Picture(np.zeros((1, 1, 3), np.uint8), "tensor", "", digest)
    picture = _as_seen(model, x, blank) if x.ndim == 3 and x.shape[0] == model.preprocess.channels else None
    return _Prepared(x, geometry, picture, {"source": "", "name": "tensor", "sha256": digest})


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        status: `same` (bit for bit), `within tolerance`, or `different`.
        difference: largest absolute difference, relative to the largest absolute value; NaN if not comparable.
        reasons: what differs, one sentence each.
    """

    status: str
    difference: float
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        known = self.status != "same" and self.difference == self.difference
        numbers = f" (largest difference {self.difference:.2g} of the largest value)" if known else ""
        return f"{self.status}{numbers}" + "".join(f"; {r}" for r in self.reasons)


def verify(
    file: str | Path, *, model: ModelLike | None = None, inputs: Input | None = None, tolerance: float = 5e-3
) -> Verification:
    """Recompute a saved explanation from its record, and compare.

    Args:
        file: its .json or .npz.
        model: needed where the record can't load it: a wrapped module.
        inputs: needed where the record can't open it: a picture that was only in memory, or has moved.
        tolerance: largest relative difference still called the same result.

    Raises:
        StorageError: the file can't be read, or cannot be recomputed from its record.
    """
    stored, reasons = storage.load(file)
    record = stored.record
    if record.target is None:
        raise StorageError("Its target was a function, which a record cannot hold: it cannot be recomputed.")
    for name, setting in record.method["parameters"].items():
        if isinstance(setting, str) and setting.startswith("sha256:"):
            raise StorageError(f"Its {name} was a tensor, which a record cannot hold: it cannot be recomputed.")
    if model is None and not record.model["source"]:
        raise StorageError(f"The model {record.model['name']!r} was wrapped: give it with pl.verify(file, model=...).")
    if inputs is None and not record.input["source"]:
        raise StorageError("The picture was only in memory: give it with pl.verify(file, inputs=...).")
    loaded = as_model(model) if model is not None else load(**record.model["source"])
    if loaded.fingerprint() != record.model["weights"]:
        reasons.append("the model's weights are not those of the record")
    method = get_method(record.method["name"], **_plain(record.method["parameters"]))
    again = explain(
        loaded,
        record.input["source"] if inputs is None else inputs,
        method,
        parse_target(record.target),
        seed=record.run["seed"],
    )
    if not isinstance(again, Heatmap):
        raise StorageError("An explanation is of one picture: give pl.verify(file, inputs=...) just that one.")
    if again.record.input["sha256"] != record.input["sha256"]:
        reasons.append("the picture is not the one of the record")
    return _compared(stored.attribution, again.attribution, tolerance, reasons)


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()}


def _compared(a: Tensor, b: Tensor, tolerance: float, reasons: list[str]) -> Verification:
    if a.shape != b.shape:
        reasons.append(f"the map has shape {tuple(b.shape)}, not {tuple(a.shape)}")
        return Verification("different", float("nan"), tuple(reasons))
    scale = float(a.abs().max()) or 1.0
    alike = (a == b) | (a.isnan() & b.isnan())
    difference = float((a - b).abs().masked_fill(alike, 0).max()) / scale if not alike.all() else 0.0
    if reasons or not difference <= tolerance:
        return Verification("different", difference, tuple(reasons))
    return Verification("same" if difference == 0 else "within tolerance", difference)


def read(file: str | Path) -> Heatmap:
    """A saved explanation, with its picture if that can still be opened.

    Raises:
        StorageError: no such file, or its files were changed after they were written.
    """
    stored, tampered = storage.load(file)
    if tampered:
        raise StorageError(f"{'; '.join(tampered)}: make the explanation again, or see `pellucid verify`.")
    result = Heatmap(**{f.name: getattr(stored, f.name) for f in fields(stored)})
    source = result.record.input["source"]
    if source and result.geometry.known:
        try:
            picture = read_image(source)
        except MediaError:
            return result
        result.picture = picture if picture.sha256 == result.record.input["sha256"] else None
    return result


__all__ = [
    "Verification",
    "as_methods",
    "as_model",
    "as_targets",
    "explain",
    "explain_each",
    "read",
    "software",
    "verify",
    "with_settings",
]
