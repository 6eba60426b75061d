"""Serve the API alone, by HTTP."""

import socket
from collections.abc import Callable

import uvicorn

from anomaly.api.app import create_app
from anomaly.api.keys import Keys, is_this_machine
from anomaly.database.connection import Database
from anomaly.errors import SettingsError
from anomaly.settings import Settings

_SHUTDOWN_SECONDS = 10
_MOST_CONNECTIONS = 1000
"""Chosen: more would only wait for each other."""


def serve(
    database: Database, settings: Settings, host: str, port: int, ready: Callable[[str], None]
) -> None:
    """Serve until the process is told to stop.

    Parameters
    ----------
    host : str
        Where to listen. Anywhere but on this machine alone, a key is needed.
    port : int
        0: any that is free.
    ready : callable
        Is told the address.

    Raises
    ------
    SettingsError
        When it cannot listen there, or may not without a key.
    DatabaseError
        When the keys cannot be read.
    """
    listening = _listen(host, port)
    keys = Keys(database, is_only_here=is_this_machine(listening.getsockname()[0]))
    keys.refresh()
    if keys.is_needed and not keys.are_there:
        listening.close()
        why = (
            "every key is revoked"
            if is_this_machine(host)
            else f"others can reach {host}, and there is no valid key"
        )
        raise SettingsError(f"{why}: make one by `anomaly keys create NAME`, nobody could ask")
    app = create_app(
        database,
        settings,
        keys,
        refreshed=[keys.refresh],
        is_described_to_all=True,
        tells_process=True,
    )
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whoever asks could invent an address
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    name = f"[{host}]" if ":" in host else host
    ready(f"http://{name}:{listening.getsockname()[1]}")
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass  # uvicorn has shut down in order, and tells it again
    finally:
        listening.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise SettingsError(
            f"cannot listen on {host}:{port}: {error}; choose another --port or --host"
        ) from None
