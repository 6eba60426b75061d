"""``anomaly metrics``: print the metrics for Prometheus, write them to a file, or serve them."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomaly.cli.console import AsJson, connect, fail, notes, print_json, say
from anomaly.errors import SettingsError

if TYPE_CHECKING:
    from anomaly.operations.metrics import Readout

_LONGEST_STATEMENT = 10
"""Seconds; Prometheus waits no longer for a scrape unless it is told to."""
_FRESH = 10.0
"""Seconds for which metrics are not read again, however often somebody asks. Chosen."""
_REST = 9
"""How many times as long as reading has taken nothing is read: at most a tenth of the time goes
into metrics, however large the deployment is. Chosen."""
_OLDEST = 300.0
"""But nothing older than so many seconds is told; AnomalyMetricsOld fires at 900."""


def metrics(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE.prom",
            help="Write them to this file, whole or not at all, for node_exporter's textfile"
            " collector.",
        ),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve them by HTTP until stopped.")
    ] = False,
    host: Annotated[str, typer.Option(help="With --serve: address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="With --serve: port; 0: any that is free.")
    ] = 9185,
    machines: Annotated[
        int,
        typer.Option(
            min=0,
            help="Machines get metrics of their own if there are no more than these.",
        ),
    ] = 100,
    as_json: AsJson = False,
) -> None:
    """Print metrics in Prometheus's text format, read from the database.

    They are printed, written or served when the database is down, too: `anomaly_up` is 0 then.
    Exits with 1 in that case, unless it serves.

    Example: anomaly metrics --serve --port 9185
    """
    from anomaly.operations.metrics import read_metrics

    if sum((output is not None, serve, as_json)) > 1:
        raise SettingsError("--output, --serve and --json exclude each other: write one of them")
    database, settings = connect(migrated=False, longest_statement=_LONGEST_STATEMENT)

    def read() -> "Readout":
        return read_metrics(database, settings, datetime.now(UTC), machines)

    if serve:
        return _serve(read, host, port)
    readout = read()
    if as_json:
        samples = [
            {"name": metric.name, "labels": labels, "value": value}
            for metric, labels, value in readout.samples()
        ]
        print_json(samples)
    else:
        _write(readout, output)
    for error in readout.errors:
        say(f"missing: {error}", style="yellow", to=notes)
    if not readout.is_up:
        raise typer.Exit(1)


def _write(readout: "Readout", output: Path | None) -> None:
    from prometheus_client import generate_latest, write_to_textfile

    from anomaly.operations.metrics import registry_of

    registry = registry_of(lambda: readout)
    if output is None:
        typer.echo(generate_latest(registry).decode(), nl=False)
        return
    try:
        write_to_textfile(str(output), registry)
    except OSError as error:
        raise SettingsError(
            f"{output} cannot be written: {error.strerror}; name a file in a folder that is there"
        ) from None


def _serve(read: Callable[[], "Readout"], host: str, port: int) -> None:
    from prometheus_client import start_http_server

    from anomaly.operations.metrics import registry_of

    registry = registry_of(_Cache(read).get)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except (OSError, OverflowError) as error:
        fail(f"cannot listen on {host}:{port}: {error}; choose another --port or --host")
    bound = server.server_address[1]
    say(f"serving metrics at http://{host}:{bound}/metrics", to=notes)
    try:
        thread.join()
    except KeyboardInterrupt:
        server.shutdown()


class _Cache:
    """Reads again when what was read is no longer fresh; who asks meanwhile waits for that."""

    def __init__(self, read: Callable[[], "Readout"]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._readout: Readout | None = None
        self._fresh_until = 0.0
        self._said: list[str] = []

    def get(self) -> "Readout":
        with self._lock:
            if self._readout is None or time.monotonic() >= self._fresh_until:
                begun = time.monotonic()
                self._readout = self._read()
                ended = time.monotonic()
                took = ended - begun
                self._fresh_until = ended + max(_FRESH - took, min(_REST * took, _OLDEST))
                self._say_what_is_new(self._readout.errors)
            return self._readout

    def _say_what_is_new(self, errors: list[str]) -> None:
        for error in errors:
            if error not in self._said:
                say(f"missing: {error}", style="yellow", to=notes)
        self._said = errors
