"""What jobs ask, done by the same verbs as on the command line, from the same texts, with the same files as the result.

No text of a visitor opens a file: inputs are samples and files that the studio keeps, and a target, a window or a
setting that would name another one is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

from pellucid.errors import PellucidError

Options = Mapping[str, str]
"""By the name of the option on the command line; what was left empty is missing."""

_WINDOW = re.compile(r"[A-Za-z0-9 .,+-]{1,40}")


def running(options: Options) -> AbstractContextManager[None]:
    """Inside, plain passes are run as `runtime` and `precision` say."""
    if not options.get("runtime") and not options.get("precision"):
        return nullcontext()
    from pellucid.engine.runtimes.asked import runtime

    return runtime(options.get("runtime") or "auto", options.get("precision") or "f32")


def _explain(vision: Any, given: str, options: Options, folder: Path) -> None:
    from pellucid.verbs.choices import as_methods, with_settings
    from pellucid.verbs.explain import explain_each, sampled

    seed, layer = number(options, "seed") or 0, options.get("layer") or None
    stages = bool(options.get("stages"))  # of which the layer says which are shown
    methods = as_methods(options.get("method") or "grad-cam", layer=None if stages else layer, seed=seed)
    many = [f"many={number(options, 'many')}"] if options.get("many") else []
    methods = with_settings(methods, [*(s for s in (options.get("set") or "").splitlines() if s.strip()), *many])
    targets = _targets(options)
    vision, given = sampled(vision, options.get("frames") or None), _windowed(given, options)
    if stages:
        from pellucid.verbs.stages import each_stages

        for sheet in each_stages(vision, given, methods, targets, layer):
            sheet.save(folder)
        return
    for _, found in explain_each(vision, [given], methods, targets, seed=seed):
        if isinstance(found, PellucidError):
            raise found
        if options.get("check"):
            found.check()
        found.save(folder)


def _importance(vision: Any, given: str, options: Options, folder: Path) -> None:
    from pellucid.verbs.importance import importance

    named: dict[str, Any] = {name: options.get(name) or None for name in ("layer", "removal", "baseline", "segments")}
    found = importance(
        vision,
        given,
        options.get("features") or "superpixels",
        options.get("by") or "shapley",
        _target(options),
        samples=options.get("samples") or "auto",
        count=number(options, "count"),
        regions=_boxes(options.get("regions") or ""),
        order=bool(options.get("order")),
        seed=number(options, "seed") or 0,
        **named,
    )
    found.save(folder)


def _visualize(vision: Any, given: str, options: Options, folder: Path) -> None:
    from pellucid.features.nature import By
    from pellucid.verbs.visualize import visualize

    texts = ("layer", "channel", "objective", "parametrization")
    named: dict[str, Any] = {name: options.get(name) or None for name in texts}
    named |= {name: number(options, name) for name in ("size", "seeds")}
    if options.get("exemplars") == "none":
        named["exemplars"] = None
    found = visualize(
        vision,
        given or None,
        target=_target(options),
        preset=options.get("preset") or "fast",
        by=cast(By, options.get("by") or "activation"),
        seed=number(options, "seed") or 0,
        **named,
    )
    found.save(folder)


def _activations(vision: Any, given: str, options: Options, folder: Path) -> None:
    from pellucid.verbs.activations import activations

    layers = [part for part in (options.get("layer") or "").split(",") if part]
    by: Any = options.get("by") or "activation"
    activations(vision, given, layer=layers or None, by=by, target=_target(options)).save(folder)


def _distill(vision: Any, given: str, options: Options, folder: Path) -> None:
    from pellucid.errors import MethodError
    from pellucid.interpretable.learn import KINDS
    from pellucid.verbs.distill import distill

    into = options.get("into") or "tree"
    limits = {name: number(options, name) for name in ("depth", "features") if options.get(name)}
    usual = KINDS[into].limit if into in KINDS else ""
    if set(limits) - {usual}:
        raise MethodError(f"{into} has no --{next(iter(set(limits) - {usual}))}: leave it out.")
    own = given == "digits:"  # which come with their classes; of all others the model's answers are learned
    found = distill(
        given,
        into,
        None if own else vision,
        model=vision if own else None,
        concepts=options.get("concepts") or "auto",
        count=number(options, "count"),
        limit=limits.get(usual),
        layer=options.get("layer") or None,
        seed=number(options, "seed") or 0,
        cache=None,
    )
    found.save(folder)


def _more(vision: Any, given: str, options: Options, folder: Path) -> None:
    from pellucid.results import Heatmaps
    from pellucid.storage import save, write_bytes
    from pellucid.verbs.more import more

    budget: dict[str, Any] = {
        name.replace("-", "_"): number(options, name)
        for name in ("samples", "max-samples", "max-evaluations")
        if options.get(name)
    }
    if options.get("tolerance"):
        budget["tolerance"] = _fraction(options["tolerance"])
    found = Heatmaps([more(given, model=vision, **budget)])
    stem = Path(given).with_suffix("").name
    save(found[0], folder / stem)
    write_bytes(folder / f"{stem}.png", found.png())


TASKS: dict[str, Callable[[Any, str, Options, Path], None]] = {
    "explain": _explain,
    "importance": _importance,
    "visualize": _visualize,
    "activations": _activations,
    "distill": _distill,
    "more": _more,
}


def verified(vision: Any, given: str) -> str:
    """A saved result computed again and compared, in words."""
    from pellucid.verbs.verify import verify

    found = verify(given, model=vision)
    reasons = f": {'; '.join(found.reasons)}" if found.reasons else ""
    return f"{found.status}, largest relative difference {found.difference:.2g}{reasons}"


def number(options: Options, name: str) -> int | None:
    """A whole number that was typed, if any."""
    text = (options.get(name) or "").strip()
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise PellucidError(f"{text!r} is no number for {name}: give a whole number.") from None


def _fraction(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise PellucidError(f"{text!r} is no tolerance: give a number such as 0.1.") from None


def _targets(options: Options) -> list[Any]:
    """What is asked of the model."""
    from pellucid.verbs.choices import as_targets

    return [_without_files(t) for t in as_targets(options.get("target") or "top")]


def _target(options: Options) -> Any:
    """The one thing that is asked; None: the top class."""
    from pellucid.models.targets import as_target

    return _without_files(as_target(options["target"])) if options.get("target") else None


def _without_files(target: Any) -> Any:
    """A target; a picture that it compares with is a sample."""
    if not all(map(_is_sample, target.files)):
        raise PellucidError("In the studio a target names no file: compare with a sample, such as sample:cat.")
    return target


def _is_sample(name: str) -> bool:
    from pellucid.media.samples import SAMPLES

    return name.removeprefix("sample:") in SAMPLES and name.startswith("sample:")


def _windowed(given: str, options: Options) -> str:
    window = (options.get("window") or "auto").strip()
    if not _WINDOW.fullmatch(window):
        raise PellucidError(f"{window[:40]!r} is no window: write CENTRE,WIDTH, a number, or a name such as bone.")
    return given if window == "auto" else f"window:{window}:{given}"


def _boxes(text: str) -> dict[str, tuple[float, ...]] | None:
    """Regions drawn by hand, `name: left, top, right, bottom`, one a line."""
    found: dict[str, tuple[float, ...]] = {}
    for line in filter(str.strip, text.splitlines()):
        name, _, box = line.rpartition(":")
        try:
            edges = tuple(float(v) for v in box.split(","))
        except ValueError:
            edges = ()
        if len(edges) != 4 or not name.strip():
            raise PellucidError(f"{line.strip()[:60]!r} is no region: write name: left, top, right, bottom.")
        found[name.strip()] = edges
    return found or None
