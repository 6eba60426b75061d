"""A mail server and a webhook on this computer that take alerts, or refuse them as told."""

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from aiosmtpd.controller import Controller

from anomaly.demo.processes import HOST, free_port

NUMBER = re.compile(r"message (\S+)\s*$", re.IGNORECASE)


def number_of(body: dict[str, Any]) -> str:
    """Number of a message, which stands in its last line."""
    found = NUMBER.search(body["message"])
    return found.group(1) if found else "none"


class Mailbox:
    """A real SMTP server: `messages` has what it took; `answer` is what it says to a message.

    People whom it `refuses` get nothing.
    """

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.answer = "250 taken"
        self.refuses: set[str] = set()
        self.delay = 0.0
        self.port = free_port()
        self._controller = Controller(self, hostname=HOST, port=self.port)

    @property
    def url(self) -> str:
        return f"mailto://{HOST}:{self.port}?from=plant@example.com&to=ops@example.com"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd calls it by this name
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if address in self.refuses:
            return "550 there is no such person"
        envelope.rcpt_tos.append(address)
        return "250 taken"

    async def handle_DATA(  # noqa: N802 - aiosmtpd calls it by this name
        self, server: Any, session: Any, envelope: Any
    ) -> str:
        if self.answer.startswith("2"):
            self.messages.append(message_from_bytes(envelope.content, policy=policy.default))
        await asyncio.sleep(self.delay)
        return self.answer

    def texts(self) -> list[str]:
        return [one.get_body(("plain",)).get_content() for one in self.messages]

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()


class Webhook:
    """A real HTTP server: `received` has what it got; `answer` decides on each what it says.

    `answer` gets the number of the request, and returns a status, or None to hang up without an
    answer. What it said 200 to, and what it hung up on, is in `received`; `answers` has the number
    of the message and what was said of every request.
    """

    def __init__(self, answer: Callable[[int], int | None] = lambda _: 200) -> None:
        self.received: list[dict[str, Any]] = []
        self.answers: list[tuple[str, int | None]] = []
        self.answer = answer
        self.requests = 0
        self.delay = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests += 1
                status = outer.answer(outer.requests)
                outer.answers.append((number_of(body), status))
                if status is None or status == 200:
                    outer.received.append(body)
                time.sleep(outer.delay)
                if status is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"json://{HOST}:{self._server.server_port}/hook"

    def numbers(self) -> list[str]:
        """Numbers of the messages, in the order in which they came."""
        return [number_of(one) for one in self.received]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
