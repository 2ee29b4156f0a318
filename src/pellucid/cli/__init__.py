"""The command line: one thin file a verb; nothing heavy is imported before a command runs.

Exit codes: 0 done, 1 something could not be done (one sentence on stderr), 2 wrong usage, 130 cancelled.
"""

import os
import sys
from collections.abc import Sequence

from pellucid.cli import interrupts
from pellucid.cli.commands import app
from pellucid.cli.console import say
from pellucid.cli.help import speaking, without_language
from pellucid.errors import PellucidError
from pellucid.language import restored


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; never a traceback (PELLUCID_DEBUG=1 shows it)."""
    with restored():  # --lang is of this command, not of the process
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        # Usage errors end in SystemExit(2), as the framework prints them; the rest comes back here.
        given = without_language(sys.argv[1:] if arguments is None else arguments)
        with interrupts.noted():
            speaking(app)(args=given, standalone_mode=True, prog_name="pellucid")
    except SystemExit as stop:
        if stop.code == 130:  # what the framework makes of KeyboardInterrupt
            return _cancelled()
        return stop.code if isinstance(stop.code, int) else 1
    except PellucidError as error:
        if os.environ.get("PELLUCID_DEBUG"):
            raise
        say(f"pellucid: {error}", aside=True)
        return 1
    except KeyboardInterrupt:
        return _cancelled()
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


def _cancelled() -> int:
    say("pellucid: cancelled.", aside=True)
    return 130


def run() -> None:
    """Entry point of the `pellucid` script."""
    sys.exit(main())
