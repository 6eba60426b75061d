"""Threads that do what requests wait for: few at once, and a queue that has an end."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from fastapi import HTTPException

Done = TypeVar("Done")

MOST_WAITING = 100
"""Requests in the queue; the next one is sent away. Chosen: it would wait longer than a retry."""


class Workers:
    """Does work in threads.

    A request whose time is over gives up its place in the queue; work that has begun holds its
    thread until it ends.
    """

    def __init__(self, at_once: int) -> None:
        self._threads = ThreadPoolExecutor(at_once, "anomaly-api")
        self._most = at_once + MOST_WAITING
        self._pending = 0
        self._lock = threading.Lock()

    async def do(self, work: Callable[[], Done]) -> Done:
        """Do `work` in a thread, and return what it returns.

        Raises
        ------
        HTTPException
            503, when too many are waiting.
        """
        with self._lock:
            if self._pending >= self._most:
                raise HTTPException(
                    503, "too many requests are waiting: ask again later", {"Retry-After": "1"}
                )
            self._pending += 1
        future = self._threads.submit(work)
        future.add_done_callback(self._ended)
        return await asyncio.wrap_future(future)

    def _ended(self, _: "Future[Done]") -> None:
        with self._lock:
            self._pending -= 1
