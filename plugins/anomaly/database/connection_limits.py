"""Connections that never wait without a limit, even if server or network stop answering.

The server ends a statement that takes too long (``statement_timeout``), but only while the server
itself runs. If its process is stopped, or the network drops packets, no answer comes. Then the
socket is closed from here, `MARGIN_SECONDS` after the server should have answered.
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
"""How long to wait for an answer after the server should have ended a statement. Chosen."""

NETWORK = {
    "connect_timeout": 10,
    # Chosen: a server that is gone without closing the connection is detected after
    # 30 + 3 * 10 = 60 seconds, which ``tcp_user_timeout`` (milliseconds) repeats.
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Time limits of libpq and the kernel, in seconds where not said otherwise."""


def connection_arguments(statement_timeout_seconds: float) -> dict[str, Any]:
    """Arguments of ``psycopg2.connect``, for a server that ends statements after that time.

    With 0 the server never ends a statement, and the wait for it has no limit either.
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
        """Commit within the limit."""
        with self.bounded():
            super().commit()

    def rollback(self) -> None:
        """Roll back within the limit."""
        with self.bounded():
            super().rollback()

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Wait no longer than the limit for the server's answer.

        Raises
        ------
        psycopg2.OperationalError
            When the server has not answered. The connection is closed then.
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
                    f"no answer in {self.seconds:g} s: server or network do not respond"
                ) from None
            raise
        finally:
            timer.cancel()


class BoundedCursor(Cursor):  # type: ignore[misc]  # psycopg2 has no types here
    """A cursor whose statements and copies have the time limit of its connection."""

    def execute(self, *arguments: Any, **options: Any) -> None:
        """Run a statement within the limit."""
        self._bounded(super().execute, *arguments, **options)

    def executemany(self, *arguments: Any, **options: Any) -> None:
        """Run a statement once per set of parameters, within the limit."""
        self._bounded(super().executemany, *arguments, **options)

    def copy_expert(self, *arguments: Any, **options: Any) -> None:
        """Copy in or out within the limit."""
        self._bounded(super().copy_expert, *arguments, **options)

    def _bounded(self, act: Callable[..., None], *arguments: Any, **options: Any) -> None:
        connection = self.connection
        assert isinstance(connection, BoundedConnection)
        with connection.bounded():
            act(*arguments, **options)


def _give_up(descriptor: int, gave_up: threading.Event) -> None:
    gave_up.set()
    # A copy of the descriptor: closing it here must not close psycopg2's own. `shutdown` wakes
    # the thread that waits on the socket.
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as waiting:
        waiting.shutdown(socket.SHUT_RDWR)
