"""The command line: one thin file a verb; nothing heavy is imported before a command runs.

Exit codes: 0 done, 1 something could not be done (one sentence on stderr), 2 wrong usage, 130 cancelled.
"""

import os
import sys
from collections.abc import Sequence

import typer

from pellucid.cli import (
    advise,
    audit,
    batch,
    compare,
    concepts,
    distill,
    doctor,
    evaluate,
    explain,
    importance,
    listings,
    more,
    repair,
    report,
    studio,
    tcav,
    verify,
    visualize,
)
from pellucid.cli.console import say
from pellucid.cli.help import command, without_language
from pellucid.errors import PellucidError
from pellucid.language import restored

app = typer.Typer(
    name="pellucid",
    help="Explain computer vision models, and measure whether the explanations can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("explain")(explain.explain)
app.command("evaluate")(evaluate.evaluate)
app.command("importance")(importance.importance)
app.command("visualize")(visualize.visualize)
app.command("audit")(audit.audit)
app.command("compare")(compare.compare)
app.command("repair")(repair.repair)
app.command("concepts")(concepts.concepts)
app.command("tcav")(tcav.tcav)
app.command("distill")(distill.distill)
app.add_typer(batch.app, name="batch")
app.command("methods")(listings.methods)
app.command("advise")(advise.advise)
app.command("models")(listings.models)
app.command("layers")(listings.layers)
app.command("more")(more.more)
app.command("report")(report.report)
app.command("verify")(verify.verify)
app.command("studio")(studio.studio)
app.command("doctor")(doctor.doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; never a traceback (PELLUCID_DEBUG=1 shows it)."""
    with restored():  # --lang is of this command, not of the process
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        # Usage errors end in SystemExit(2), as the framework prints them; the rest comes back here.
        given = without_language(sys.argv[1:] if arguments is None else arguments)
        command(app)(args=given, standalone_mode=True, prog_name="pellucid")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except PellucidError as error:
        if os.environ.get("PELLUCID_DEBUG"):
            raise
        say(f"pellucid: {error}", aside=True)
        return 1
    except KeyboardInterrupt:
        say("pellucid: cancelled.", aside=True)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone, as with `| head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - lives as long as the process
        return 1
    except Exception as error:
        if os.environ.get("PELLUCID_DEBUG"):
            raise
        reason = str(error).strip().splitlines()
        say(
            f"pellucid: unexpected {type(error).__name__}{': ' + reason[0] if reason else ''}; this is a bug, please "
            "report it with what PELLUCID_DEBUG=1 shows.",
            aside=True,
        )
        return 1
    return 0


def run() -> None:
    """Entry point of the `pellucid` script."""
    sys.exit(main())
