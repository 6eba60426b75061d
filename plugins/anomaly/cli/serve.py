"""``anomaly serve``: the API, alone."""

import logging
from typing import Annotated

import typer

from anomaly.cli.console import JsonLine, connect, notes, say


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")] = 8000,
) -> None:
    """Serve the API until stopped: predictions, verdicts, incidents, machines, models, labels.

    Each request is a line of JSON on standard error. On this machine alone nobody needs a key
    before the first one is made; anywhere else, and from then on, everybody does.

    Example: anomaly serve --port 8000
    """
    from anomaly.api.app import open_database
    from anomaly.api.server import serve as serve_api

    checked, settings = connect()
    checked.dispose()
    database = open_database(settings.database.database_url, settings)
    _log_requests()
    serve_api(
        database,
        settings,
        host,
        port,
        lambda address: say(f"serving the API at {address}, described at {address}/docs", to=notes),
    )


def _log_requests() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLine())
    for name in ("anomaly.requests", "anomaly.api", "uvicorn.error"):
        log = logging.getLogger(name)
        log.setLevel(logging.INFO if name != "uvicorn.error" else logging.WARNING)
        log.propagate = False
        log.handlers[:] = [handler]
