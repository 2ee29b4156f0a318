"""How a result was made, and what makes it again: its record, a command, and lines of Python."""

from __future__ import annotations

import dataclasses
import json
import shlex
from html import escape
from typing import Any

from pellucid.errors import PellucidError
from pellucid.explanation import Record
from pellucid.heatmaps import get_method
from pellucid.models.sources import is_entry
from pellucid.render.pages import texts
from pellucid.render.pages.page import folded, spoken

_LOAD = ("weights", "labels", "scores", "output", "per_frame", "frames")  # options of the same name on both surfaces


def drawer(record: Record, file: str = "") -> str:
    """The folded provenance of a result.

    Args:
        record: its own.
        file: where it is saved, if it is.
    """
    parts = []
    for title, text in ((texts.COMMAND, command(record, file)), (texts.PYTHON, python(record, file))):
        if text:
            parts.append(f"<h3>{spoken(title)}</h3><pre>{escape(text)}</pre>")
    said = json.dumps(dataclasses.asdict(record), indent=2, ensure_ascii=False, default=str)
    return folded(texts.PROVENANCE, "".join(parts) + f"<h3>{spoken(texts.RECORD)}</h3><pre>{escape(said)}</pre>")


def command(record: Record, file: str = "") -> str:
    """The command that makes a result again, or computes a saved one again; empty where none can be written down."""
    made = _command(record)
    of = "" if record.model.get("source") else f" --model {shlex.quote(str(record.model['name']))}"
    again = f"pellucid verify {shlex.quote(file)}{of}" if file and _loads(record.model) else ""
    return "\n".join(filter(None, (made, again)))


def python(record: Record, file: str = "") -> str:
    """The same in Python."""
    source = record.model.get("source") or {}
    load = f"pl.load({_arguments(source)})" if source else "...  # it was in memory: wrap it again with pl.wrap"
    lines = ["import pellucid as pl"]
    if not source and _loads(record.model):
        module, _, function = str(record.model["name"]).partition(":")
        lines, load = [*lines, f"from {module} import {function}"], f"{function}()"
    lines.append(f"model = {load}")
    made = _python(record)
    if made:
        lines.append(made)
    if file:
        given = "" if source else ", model=model"
        lines.append(f"print(pl.verify({file!r}{given}))")
    return "\n".join(lines) if made or file else ""


def _loads(model: dict[str, Any]) -> dict[str, Any]:
    """What loads a model again on the command line; empty where nothing does."""
    name = str(model.get("name") or "")
    return dict(model.get("source") or ({"name": name} if is_entry(name) else {}))


def _command(record: Record) -> str:
    source, model = record.input.get("source"), _loads(record.model)
    if not source or not model or not set(model) <= {"name", "random_weights", "seed", *_LOAD}:
        return ""
    loaded = ["--model", str(model["name"])]
    for name in _LOAD:
        if model.get(name) is not None:
            loaded += [f"--{name.replace('_', '-')}", str(model[name])]
    if model.get("random_weights"):
        loaded.append("--random-weights")
    if record.input.get("plan"):
        loaded += ["--frames", str(record.input["plan"])]
    name, settings = record.method["name"], record.method.get("parameters") or {}
    seed = ["--seed", str(record.run["seed"])] if record.run.get("seed") else []
    target = ["--target", record.target] if record.target is not None else []
    if name == "importance":
        asked = ["--features", settings["features"], "--by", settings["by"], "--samples", str(settings["samples"])]
        players = {k: v for k, v in settings["players"].items() if v is not None and k in _PLAYERS}
        for key, value in players.items():
            asked += [
                f"--{key.replace('_', '-')}",
                ",".join(map(str, value)) if isinstance(value, list) else str(value),
            ]
        return shlex.join(["pellucid", "importance", str(source), *loaded, *asked, *target, *seed])
    changed = _changed(record)
    if changed is None:
        return ""
    asked = ["--method", name]
    for key, value in changed.items():
        asked += ["--layer", str(value)] if key == "layer" else ["--set", f"{key}={value}"]
    return shlex.join(["pellucid", "explain", str(source), *loaded, *asked, *target, *seed])


_PLAYERS = ("count", "baseline", "layer", "segments", "removal")


def _python(record: Record) -> str:
    source = record.input.get("source")
    where = repr(source) if source else "...  # the input, which was in memory"
    target = f", target={record.target!r}" if record.target is not None else ""
    seed = f", seed={record.run['seed']}" if record.run.get("seed") else ""
    name, settings = record.method["name"], record.method.get("parameters") or {}
    if not source:
        return ""
    if name == "importance":
        return (
            f"result = pl.importance(model, {where}, {settings['features']!r}, {settings['by']!r}{target}, "
            f"samples={settings['samples']!r}{seed})"
        )
    changed = _changed(record)
    if changed is None:
        return ""
    method = repr(name)
    imports = ""
    if changed:
        imports = "from pellucid.heatmaps import get_method\n"
        method = f"get_method({name!r}, {_arguments(changed)})"
    if settings.get("seed", record.run.get("seed")) != record.run.get("seed"):
        seed = ""  # it would take the place of the method's own
    return f"{imports}result = pl.explain(model, {where}, {method}{target}{seed})"


def _changed(record: Record) -> dict[str, Any] | None:
    """Parameters of a heat map's method that are not as they are by default; None for other results."""
    try:
        usual = get_method(record.method["name"]).parameters()
    except PellucidError:
        return None
    plain = json.loads(json.dumps(usual, default=str))
    given = record.method.get("parameters") or {}
    return {k: v for k, v in given.items() if k != "seed" and v != plain.get(k)}


def _arguments(values: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v!r}" for k, v in values.items())
