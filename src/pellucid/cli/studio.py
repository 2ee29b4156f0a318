"""`pellucid studio`: pages for those who do not type commands, on this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli import options


def studio(
    folder: Annotated[Path, typer.Argument(metavar="[RESULTS_DIR]", help="Where results are and will be.")] = Path(
        "pellucid-out"
    ),
    model: Annotated[
        str, typer.Option("--model", "-m", help="Models that may be asked, with commas; no other is ever loaded.")
    ] = options.DEFAULT_MODEL,
    device: Annotated[
        str, typer.Option("--device", help="One worker each, with commas; default: cuda if there is one, else cpu.")
    ] = "",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Of 127.0.0.1.")] = 8760,
    share: Annotated[
        bool, typer.Option("--share-results", help="Each result has a link that shows it alone, without the token.")
    ] = False,
) -> None:
    """Open the studio: upload, explain, compare and look up results in a browser on this machine."""
    from pellucid.keep.files import check_writable

    check_writable(folder)
    from pellucid.studio.serve import serve
    from pellucid.studio.settings import StudioSettings

    names = tuple(name.strip() for name in model.split(",") if name.strip())
    devices = tuple(name.strip() for name in device.split(","))
    serve(StudioSettings(folder.resolve(), names or (options.DEFAULT_MODEL,), devices, port, share=share))
