"""A TCP proxy in front of Postgres that stops a client's conversation at a known point.

It reads the client's messages (the protocol's frames: a letter, a length, a body), so that a point
is reached for certain, and from outside of the product.
"""

import select
import socket
import struct
import threading
from enum import Enum


class Point(Enum):
    """Where a conversation is stopped."""

    READS = "it asks for readings"
    READ = "it has read and judged, and asks for the publishing lock"
    BEFORE_COPY = "it holds the lock, and its COPY has not begun"
    IN_COPY = "a part of its COPY has arrived"
    BEFORE_COMMIT = "everything is written, and its COMMIT has not arrived"
    AFTER_COMMIT = "its COMMIT is done, and it has not heard of that"


_LOCK, _COPY, _COMMIT = b"anomaly.locks WHERE name = 'publishing'", b"FROM STDIN", b"COMMIT"
_READINGS = (b"meter_readings", b"TO STDOUT")


class PostgresProxy:
    """Listens on a free port of 127.0.0.1, and forwards to a server.

    `arm` says where the next conversation is stopped; `reached` is set once it is. Then `release`
    lets it go on, and `reset` breaks its connection, as a network does.
    """

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.reached = threading.Event()
        self._point: Point | None = None
        self._go_on = threading.Event()
        self._held: socket.socket | None = None
        self._is_broken = False
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, point: Point) -> None:
        """Stop the next conversation that comes to this point."""
        self.reached.clear()
        self._go_on.clear()
        self._point = point

    def release(self) -> None:
        """Let the conversation go on."""
        self._point = None
        self._go_on.set()

    def reset(self) -> None:
        """Break the connection that is held, on the client's side with a reset."""
        if self._held is not None:
            self._held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._held.close()
        self._is_broken = True
        self.release()

    def close(self) -> None:
        """Stop listening; what is still held never arrives."""
        self._is_broken = True
        self.release()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with socket.create_connection(self._server) as server:
            try:
                _Conversation(self, client, server).run()
            except OSError:
                pass
            finally:
                client.close()

    def stop_at(self, point: Point, client: socket.socket) -> None:
        """Wait here if the proxy is armed for this point.

        Raises
        ------
        ConnectionResetError
            When the connection was broken meanwhile.
        """
        if self._point is not point or self.reached.is_set():
            return
        self._held = client
        self.reached.set()
        self._go_on.wait()
        if self._is_broken:
            raise ConnectionResetError


class _Conversation:
    def __init__(self, proxy: PostgresProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._pending = b""
        self._has_begun = self._holds_lock = self._copies = False
        self._waits_for_commit = False

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self._client, self._server], [], [])
            if self._server in ready:
                answer = self._server.recv(65536)
                if not answer:
                    return
                if self._waits_for_commit and b"COMMIT" in answer:
                    self._waits_for_commit = False
                    self._proxy.stop_at(Point.AFTER_COMMIT, self._client)
                self._client.sendall(answer)
            if self._client in ready:
                said = self._client.recv(65536)
                if not said:
                    return
                self._pending += said
                self._forward()

    def _forward(self) -> None:
        """Send on every message that is whole."""
        while message := self._next():
            if not self._has_begun:
                self._has_begun = True  # the first one has no letter
            elif message[:1] == b"Q":
                self._look_at(message)
            elif message[:1] == b"d" and self._proxy._point is Point.IN_COPY:
                half = len(message) // 2
                self._server.sendall(message[:half])
                self._proxy.stop_at(Point.IN_COPY, self._client)
                message = message[half:]
            self._server.sendall(message)

    def _look_at(self, query: bytes) -> None:
        if all(part in query for part in _READINGS):
            self._proxy.stop_at(Point.READS, self._client)
        elif _LOCK in query:
            self._proxy.stop_at(Point.READ, self._client)
            self._holds_lock = True
        elif _COPY in query and self._holds_lock:
            self._proxy.stop_at(Point.BEFORE_COPY, self._client)
            self._copies = True
        elif _COMMIT in query and self._copies:
            self._proxy.stop_at(Point.BEFORE_COMMIT, self._client)
            self._waits_for_commit = True
            self._holds_lock = self._copies = False

    def _next(self) -> bytes:
        head = 0 if not self._has_begun else 1
        if len(self._pending) < head + 4:
            return b""
        (length,) = struct.unpack("!i", self._pending[head : head + 4])
        if len(self._pending) < head + length:
            return b""
        message, self._pending = (
            self._pending[: head + length],
            self._pending[head + length :],
        )
        return message
