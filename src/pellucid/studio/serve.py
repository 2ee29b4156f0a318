"""The studio as a running server."""

from __future__ import annotations

import socket

from pellucid.errors import PellucidError
from pellucid.studio.settings import StudioSettings


def serve(settings: StudioSettings) -> None:
    """Answer on 127.0.0.1 until the process is ended.

    Raises:
        PellucidError: the extra is not installed, or the port is taken.
    """
    try:
        import uvicorn

        from pellucid.studio.app import create
    except ImportError as error:
        raise PellucidError(f'The studio needs {error.name}: run `pip install "pellucid[studio]"`.') from error
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind(("127.0.0.1", settings.port))
        except OSError as error:
            raise PellucidError(f"Port {settings.port} is taken: choose another with --port.") from error
        app = create(settings)
        print(f"Pellucid studio: {settings.address}", flush=True)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, server_header=False)
        uvicorn.Server(config).run(sockets=[door])
