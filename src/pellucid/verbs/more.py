"""`more`: an explanation from a larger budget, without asking the model again for what it has answered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pellucid.engine.memory import ANSWERED, ASKED, Memory
from pellucid.engine.trace import interruptible
from pellucid.errors import MediaError, MethodError, PellucidError, StorageError
from pellucid.heatmaps import Method, get_method
from pellucid.models.targets import Target, TargetLike
from pellucid.registry import settings_of
from pellucid.results import Heatmap
from pellucid.verbs.explain import explain_each, sampled
from pellucid.verbs.inputs import Input, ModelLike
from pellucid.verbs.records import parameters, recorded_target, reloaded, source_of
from pellucid.verbs.verify import read

_PROOF = 4  # masks that are asked again, to tell whether a function is the one that was explained
_SAME = 1e-3  # of the largest score: batches of other sizes round otherwise
BUDGET = ("samples", "max_samples", "max_evaluations", "tolerance")


@interruptible
def more(
    explanation: Heatmap | str | Path,
    *,
    model: ModelLike | None = None,
    inputs: Input | None = None,
    target: TargetLike = None,
    **budget: Any,
) -> Heatmap:
    """Continue an explanation where it stopped: what a longer run from the start would give, at the price of the rest.

    The scores of a sampling method's masks are kept with its result (`extras["asked"]`, `extras["answered"]`), in
    memory and on disk. A longer run draws the same masks first, and asks the model for the new ones only.

    Args:
        explanation: one in memory, or the .json or .npz of a saved one.
        model: needed for a saved one whose record can't load it: a wrapped module.
        inputs: needed for a saved one whose record can't open it: a picture that was only in memory, or has moved.
        target: needed for a saved one whose record can't hold it: the function of the output that was explained.
        budget: `samples`, `max_samples`, `max_evaluations` or `tolerance`, as far as the method has them.

    Returns:
        The result of these settings, its passes those of both runs.

    Raises:
        MethodError: a method that keeps no scores, or a setting that is no budget of its.
        StorageError: a saved one whose model, picture or function is not the one of its record.
    """
    e = explanation if isinstance(explanation, Heatmap) else read(explanation)
    if not isinstance(e, Heatmap):
        raise StorageError("Only explanations can be continued: give the .json or .npz of one.")
    method = _with_budget(e, e.ran or get_method(e.record.method["name"], **parameters(e.record)), budget)
    reasons: list[str] = []
    source = _picture(e) if inputs is None else inputs
    if e.session is None or model is not None:
        loaded = reloaded(e.record, model, source, reasons)
    else:
        loaded = e.session.model
        if loaded.fingerprint() != e.record.model["weights"]:
            reasons.append("the model's weights are not those of the record")
    if reasons:
        raise StorageError(f"It cannot be continued, since {reasons[0]}: explain the picture anew.")
    if e.is_clip:
        loaded = sampled(loaded, e.record.input.get("plan"))
    known = {name: e.extras[name] for name in (ASKED, ANSWERED)}
    memory = Memory.of(known if target is None else {name: kept[:, _PROOF:] for name, kept in known.items()})
    found = list(explain_each(loaded, source, [method], [_target(e, target)], seed=e.record.run["seed"], memory=memory))
    result = found[0][1] if len(found) == 1 else MediaError("Only one picture can be continued: give just that one.")
    if isinstance(result, PellucidError):
        raise result
    (again,) = result
    if again.record.input["sha256"] != e.record.input["sha256"]:
        raise StorageError("It cannot be continued, since the picture is not the one of the record: explain it anew.")
    if target is not None and not _same_answers(e, again):
        raise StorageError("It cannot be continued, since the function is not the one that was explained.")
    if e.hidden is not None:
        again.redact(e.hidden.tolist())
    for passes in ("forwards", "backwards"):
        again.record.run[passes] += e.record.run[passes]
    return again


def _with_budget(e: Heatmap, method: Method, budget: dict[str, Any]) -> Method:
    if not {ASKED, ANSWERED} <= e.extras.keys():
        raise MethodError(f"{e.method} keeps no scores to go on from: explain the picture again.")
    known = [name for name in settings_of(method) if name in BUDGET]
    wrong = next((name for name in budget if name not in known), None)
    if wrong is not None or not budget:
        what = f"has no budget {wrong!r}" if wrong else "needs a larger budget to go on"
        raise MethodError(f"{e.method} {what}: give {' or '.join(known)}.")
    return replace(method, **budget)  # type: ignore[type-var]


def _picture(e: Heatmap) -> Any:
    """What was explained, as `explain` takes it; None if it was only in memory."""
    if found := source_of(e.record):
        return found
    if e.session is not None and e.record.input["name"] == "tensor":
        return e.session.x
    return e.picture


def _target(e: Heatmap, given: TargetLike) -> Target:
    if given is None and e.record.target is None and e.explained is not None:
        return e.explained
    return recorded_target(e.record, given, "more")


def _same_answers(e: Heatmap, again: Heatmap) -> bool:
    """Whether the masks that were asked anew have the scores that are kept of them."""
    before, after = (Memory.of({n: found.extras[n] for n in (ASKED, ANSWERED)}).tables[0] for found in (e, again))
    proof = list(before)[:_PROOF]
    scale = torch.stack(list(before.values())).abs().max()
    return all(key in after and bool((after[key] - before[key]).abs() <= _SAME * scale) for key in proof)
