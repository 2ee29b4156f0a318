"""`pellucid advise`: which methods suit a network, why, and at what cost."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pellucid.cli import options
from pellucid.cli.console import say


@options.spelled_out
def advise(
    model: options.ModelArgument = options.DEFAULT_MODEL,
    target: Annotated[str, typer.Option("--target", help="What would be explained, as for `explain`.")] = "top",
    given: Annotated[
        str | None, typer.Option("--input", metavar="INPUT", help="A picture, clip or volume; else a blank picture.")
    ] = None,
    refused: Annotated[bool, typer.Option("--refused", help="List methods that do not suit too, and why.")] = False,
    of: options.ModelOptions = options.PLAIN,
    as_json: options.Json = False,
) -> None:
    """Say which methods suit a network and a target, why, and at what cost."""
    from pellucid.cli.listings import table
    from pellucid.verbs.advise import advise as ask
    from pellucid.verbs.choices import as_targets

    vision = of.load(options.fitting_model(model, [] if given is None else [given]))
    advice = ask(vision, as_targets(target)[0], inputs=given)
    if as_json:
        print(json.dumps(advice.as_dict(), indent=2))
        return
    shown = [e for e in advice.entries if refused or e.verdict != "refused"]
    took = [advice.seconds_of(e) for e in shown]
    rows = [
        (e.method, e.verdict, "" if s is None else f"{s:.2g} s" if s < 10 else f"{s:.0f} s", e.cost, "; ".join(e.why))
        for e, s in zip(shown, took, strict=True)
    ]
    table(("method", "verdict", "at most", "cost", "why"), rows)
    say(f"What would be explained: {advice.target}.")
    say(f"One forward pass of one input takes {advice.seconds:.3g} s here; times are those of the passes of one map.")
    if advice.black_box:
        say("The model shows its outputs alone; as a torch module it would open layers and gradients to the others.")
    left = len(advice.refused())
    if left and not refused:
        say(f"{left} methods do not suit this network and target: --refused says why.")
