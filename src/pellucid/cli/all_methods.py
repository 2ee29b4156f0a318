"""Which methods `pellucid explain` runs: those named, the best of a pass, or `all` that suit the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pellucid.cli.console import say

if TYPE_CHECKING:
    from pellucid.errors import PellucidError
    from pellucid.heatmaps import Method
    from pellucid.models.model import VisionModel
    from pellucid.models.targets import Target
    from pellucid.results import Heatmaps


def named_methods(method: str | None, settled: Sequence[object]) -> tuple[str, bool, bool]:
    """The methods as an option names them, whether they are all, and whether it is open which: none is named, and
    nothing else is said that settles it.
    """
    named = "grad-cam" if method is None else method
    return named, named.strip().lower() == "all", method is None and not any(settled)


def best_of_a_pass(methods: list[Method], vision: VisionModel, seed: int, *, unnamed: bool) -> list[Method]:
    """For a picture without a method named, `auto`: it is measured anyway. A clip or a volume keeps the usual one."""
    from pellucid.media import PICTURE
    from pellucid.verbs.choices import named_method

    return [named_method("auto", seed=seed)] if unnamed and vision.medium is PICTURE else methods


def methods_that_suit(
    vision: VisionModel, given: Any, target: Target, report: dict[str, Any], *, quiet: bool
) -> list[str]:
    """The white-box methods that suit, by name; those that do not are noted in the report, with a reason each.

    Args:
        vision: the model.
        given: an input of the size that is explained.
        target: what is asked.
        report: what programs are told; gets `refused`.
        quiet: nothing is printed.
    """
    from pellucid.verbs.advise import advise

    advice = advise(vision, target, inputs=given)
    report["refused"] = {e.method: "; ".join(e.why) for e in advice.refused()}
    found = advice.methods()
    if not quiet:
        say(
            f"{len(found)} white-box methods suit this network and target. Left out: those that see outputs alone or "
            f"take a pass for each channel or cell (name them), and {len(report['refused'])} that do not suit:"
        )
        for e in advice.refused():
            say(f"  {e.method} does not suit: {'; '.join(e.why)}")
        forwards, backwards, seconds = advice.price()
        say(
            f"They take up to {forwards} forward and {backwards} backward passes an input and target: some "
            f"{max(1, round(seconds / 60))} min here; to measure them takes 190 forward passes for all, and two quick "
            "maps of each (--no-check leaves that out)."
        )
    return found


def explained_one_by_one(
    vision: VisionModel,
    inputs: Sequence[Any],
    methods: Sequence[Method],
    targets: Sequence[Target],
    *,
    seed: int,
    report: dict[str, Any],
) -> Iterator[tuple[str, Heatmaps | PellucidError]]:
    """The explanations of each input; a method that fails is told and noted, and the others go on."""
    from pellucid.verbs.advise import explain_all_that_suit

    found, failed = explain_all_that_suit(vision, inputs, methods, targets, seed=seed)
    report["refused"] |= failed
    for name, why in failed.items():
        say(f"  {name} is left out: {why}", aside=True)
    yield from found.items()
