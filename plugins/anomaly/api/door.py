"""The door that every request passes: its number, who asks, limits, log and metrics."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request

from anomaly.api.refusals import refusal
from anomaly.settings import ApiSettings
from anomaly.wording import printable

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LIVE = "/health/live"
"""The path that needs nobody's name: whether the process answers."""
CALLER = "anomaly.caller"
"""Where a request's scope says who asks."""
_SMALL_BODY = 64 * 1024
"""Bytes of a body that holds no records. Chosen."""
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

log = logging.getLogger("anomaly.requests")
errors = logging.getLogger("anomaly.api")


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes
    ----------
    name : str
        Stands beside the labels that he gives.
    identity : str
        What his requests are counted by.
    can_label : bool
    """

    name: str
    identity: str
    can_label: bool


Access = Callable[[Request], Caller]
"""Says who asks, or raises an `HTTPException`; it must not wait for anything."""


class Measures:
    """Prometheus metrics of one API."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "anomaly_api_requests_total",
            "Requests, by path and status",
            ("method", "path", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "anomaly_api_request_seconds",
            "How long requests took",
            ("path",),
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self.under_way = Gauge(
            "anomaly_api_requests_under_way", "Requests being answered", registry=self.registry
        )
        self.verdicts = Counter(
            "anomaly_api_verdicts_total",
            "Verdicts given, by kind",
            ("kind",),
            registry=self.registry,
        )
        for kind in ("normal", "abnormal"):
            self.verdicts.labels(kind)


class Door:
    """Middleware around all calls.

    Parameters
    ----------
    access : callable
        Says who asks; it is asked before a body is read.
    paths : collection of str
        Paths of the calls; in metrics all others are one.
    is_described_to_all : bool
        Whether the pages that describe the calls need no name either.
    """

    def __init__(
        self,
        app: App,
        access: Access,
        limits: ApiSettings,
        measures: Measures,
        *,
        paths: Collection[str],
        is_described_to_all: bool,
    ) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._access = access
        self._limits = limits
        self._measures = measures
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._rate = RateLimitItemPerMinute(limits.api_requests_per_minute)
        described = ("/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect")
        self._open = {LIVE, *(described if is_described_to_all else ())}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in and see its answer out."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request = Request(scope)
        visit = _Visit(uuid.uuid4().hex, send)
        begun = time.perf_counter()
        with self._measures.under_way.track_inprogress():
            try:
                async with asyncio.timeout(self._limits.api_seconds):
                    self._let_in(request)
                    await self._app(scope, self._bounded(request, receive), visit.send)
            except HTTPException as error:
                await visit.refuse(error.status_code, str(error.detail), error.headers)
            except ClientDisconnect:
                pass  # who asked hung up while he sent; nobody reads an answer
            except TimeoutError:
                await visit.refuse(504, "the answer took too long: send fewer records")
            except Exception:
                errors.exception("request %s failed", visit.number)
                await visit.refuse(500, f"this is a fault of the server: report {visit.number}")
            finally:
                self._note(request, visit, time.perf_counter() - begun)

    def _let_in(self, request: Request) -> None:
        if _path(request) in self._open:
            return
        address = request.client.host if request.client else "unknown"
        try:
            caller = self._access(request)
        except HTTPException:
            self._count(f"address {address}")
            raise
        request.scope[CALLER] = caller
        self._count(caller.identity)

    def _count(self, identity: str) -> None:
        """Count a request, and refuse it if there were too many in this minute."""
        if self._limiter.hit(self._rate, identity):
            return
        free_at = self._limiter.get_window_stats(self._rate, identity).reset_time
        wait = max(1, round(free_at - time.time()))
        raise HTTPException(
            429,
            f"more than {self._rate.amount} requests in this minute: ask again in {wait} s",
            {"Retry-After": str(wait)},
        )

    def _bounded(self, request: Request, receive: Receive) -> Receive:
        """Receive a body up to the limit, and refuse a longer one."""
        holds_records = _path(request).startswith("/predict")
        most = int(self._limits.api_most_megabytes * 1e6) if holds_records else _SMALL_BODY
        refused = HTTPException(
            413, f"the body is larger than {most} bytes, more than is taken at once: send less"
        )
        stated = request.headers.get("content-length", "0")
        if stated.isascii() and stated.isdigit() and int(stated) > most:
            raise refused
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise refused
            return message

        return bounded

    def _note(self, request: Request, visit: "_Visit", seconds: float) -> None:
        path = _path(request) if _path(request) in self._paths else "other"
        method = request.method if request.method in _METHODS else "other"
        caller = request.scope.get(CALLER)
        self._measures.requests.labels(method, path, str(visit.status)).inc()
        self._measures.seconds.labels(path).observe(seconds)
        facts = {
            "request_id": visit.number,
            "method": printable(request.method),
            "path": printable(_path(request)),
            "status": visit.status,
            "seconds": round(seconds, 4),
            "caller": caller.name if caller else None,
            "address": request.client.host if request.client else None,
        }
        log.info(
            "%(method)s %(path)s %(status)s in %(seconds)s s, request %(request_id)s",
            facts,
            extra={"facts": facts},
        )


class _Visit:
    """One request's answer: its number stands in the header ``X-Request-ID``."""

    def __init__(self, number: str, send: Send) -> None:
        self.number = number
        self.status = 499  # who asked hung up before there was an answer
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.number
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)

    async def refuse(self, status: int, detail: str, headers: Any = None) -> None:
        """Answer, unless an answer has begun."""
        if self.status == 499:
            await refusal(status, detail, headers)({"type": "http"}, _nothing, self.send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def _path(request: Request) -> str:
    """The path below where the API is mounted."""
    path: str = request.scope["path"]
    return path.removeprefix(request.scope.get("root_path", "").rstrip("/"))
