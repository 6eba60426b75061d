"""Connections on which no wait is without end, whatever becomes of server and network.

The server ends a statement that takes too long (``statement_timeout``), but only if it still
runs. A stopped backend, or a network that swallows packets, answers nothing; then the socket is
closed from here, a while after the server should have spoken.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

MARGIN_SECONDS = 10.0
"""How long after the server should have ended a statement its answer may still come."""

NETWORK = {
    "connect_timeout": 10,
    # A peer that is gone without a word is found out after 30 + 3 * 10 seconds.
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""What libpq and the kernel bound, as libpq names it."""


def connection_arguments(statement_timeout_seconds: float) -> dict[str, Any]:
    """Arguments of ``psycopg2.connect``, for a server that ends statements after that time.

    With 0 statements have no end, and neither has the wait for them.
    """
    limit = statement_timeout_seconds + MARGIN_SECONDS if statement_timeout_seconds else None

    class Bounded(BoundedConnection):
        seconds = limit

    return NETWORK | {"connection_factory": Bounded}


class BoundedConnection(Connection):  # type: ignore[misc]  # psycopg2 has no types here
    """A connection whose socket is closed when the server does not answer in time."""

    seconds: float | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cursor_factory = BoundedCursor

    def commit(self) -> None:
        """Commit, or give up."""
        with self.bounded():
            super().commit()

    def rollback(self) -> None:
        """Roll back, or give up."""
        with self.bounded():
            super().rollback()

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Wait no longer than the limit for what the server says.

        Raises
        ------
        psycopg2.OperationalError
            When it has not answered; the connection is closed then.
        """
        if self.seconds is None:
            yield
            return
        gave_up = threading.Event()
        timer = threading.Timer(self.seconds, _give_up, (self.fileno(), gave_up))
        timer.daemon = True
        timer.start()
        try:
            yield
        except psycopg2.Error:
            if gave_up.is_set():
                raise psycopg2.OperationalError(
                    f"no answer in {self.seconds:g} s: server or network stand still"
                ) from None
            raise
        finally:
            timer.cancel()


class BoundedCursor(Cursor):  # type: ignore[misc]  # psycopg2 has no types here
    """A cursor whose statements and copies are bounded as its connection is."""

    def execute(self, *arguments: Any, **options: Any) -> None:
        """Run a statement, or give up."""
        self._bounded(super().execute, *arguments, **options)

    def executemany(self, *arguments: Any, **options: Any) -> None:
        """Run a statement for each of several parameters, or give up."""
        self._bounded(super().executemany, *arguments, **options)

    def copy_expert(self, *arguments: Any, **options: Any) -> None:
        """Copy in or out, or give up."""
        self._bounded(super().copy_expert, *arguments, **options)

    def _bounded(self, act: Callable[..., None], *arguments: Any, **options: Any) -> None:
        connection = self.connection
        assert isinstance(connection, BoundedConnection)
        with connection.bounded():
            act(*arguments, **options)


def _give_up(descriptor: int, gave_up: threading.Event) -> None:
    gave_up.set()
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as waiting:
        waiting.shutdown(socket.SHUT_RDWR)
