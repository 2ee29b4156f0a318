"""From texts to methods, their settings and targets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pellucid.errors import MethodError, PellucidError
from pellucid.heatmaps import Method, get_method
from pellucid.models.targets import Target, TargetLike, as_target, split_targets
from pellucid.registry import settings_of
from pellucid.verbs.auto import Auto


def as_methods(
    method: str | Method | Sequence[str | Method], *, layer: str | None = None, seed: int | None = None
) -> list[Method]:
    """Methods by name (`"grad-cam,rise"`), as objects, or a mixture; `layer` and `seed` go to those that take them.

    None leaves each its own: an object may have been made with a seed.
    """
    given = method if isinstance(method, Sequence) and not isinstance(method, str) else [method]
    names = [part for m in given for part in (m.split(",") if isinstance(m, str) else [m])]
    methods = [named_method(m) if isinstance(m, str) else m for m in names]
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


def named_method(name: str, **parameters: Any) -> Method:
    """A method by name, `auto` among them."""
    return Auto(**parameters) if name.strip() == Auto.name else get_method(name, **parameters)


def with_settings(methods: Sequence[Method], settings: Sequence[str]) -> list[Method]:
    """Methods with hyper-parameters set from texts such as `max_steps=100`; each goes to the methods that have it."""
    changed = list(methods)
    for text in settings:
        parameter, value = parsed(text)
        if not any(_has(m, parameter) for m in changed):
            known = sorted({name for m in changed for name in settings_of(m)})
            names = ", ".join(m.name for m in changed)
            raise MethodError(f"{names} has no parameter {parameter!r}; there are {', '.join(known) or 'none'}.")
        try:
            given = {parameter: value}
            changed = [replace(m, **given) if _has(m, parameter) else m for m in changed]  # type: ignore[type-var]
        except TypeError as error:
            given_text = text.partition("=")[2].strip()
            raise MethodError(
                f"{given_text!r} is no value for {parameter!r}: give a number, a list or a name."
            ) from error
    return changed


def parsed(text: str) -> tuple[str, Any]:
    """A setting such as `max_steps=100` as its name and its value: numbers and lists as such, other texts as they are.

    Raises:
        MethodError: it is no setting.
    """
    parameter, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not parameter.isidentifier():
        raise MethodError(f"{text!r} sets nothing: write parameter=value, such as max_steps=100.")
    try:
        read = json.loads(value)
    except ValueError:
        read = None if value == "None" else value
    return parameter, tuple(read) if isinstance(read, list) else read


def _has(method: Method, parameter: str) -> bool:
    return parameter in settings_of(method)


def _with(method: Method, parameter: str, value: Any) -> Method:
    if value is None or not _has(method, parameter):
        return method
    return replace(method, **{parameter: value})  # type: ignore[type-var]


def as_targets(target: TargetLike | Sequence[TargetLike]) -> list[Target]:
    """Targets by text (`"tabby,tabby>lynx"`), number, object, or a list of these: each is explained by itself."""
    given: list[Any] = list(target) if isinstance(target, Sequence) and not isinstance(target, str) else [target]
    parts = [part for t in given for part in (split_targets(t) if isinstance(t, str) else [t])]
    if not parts:
        raise PellucidError("There is no target: name one, or leave it out for the top class.")
    return [as_target(p) for p in parts]
