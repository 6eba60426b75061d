"""The whole API as one application, whoever serves it."""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from starlette.exceptions import HTTPException as PlainHTTPException

from anomaly import __version__
from anomaly.api.door import LIVE, Access, Door, Measures
from anomaly.api.health import health
from anomaly.api.labelling import labelling
from anomaly.api.listings import listings
from anomaly.api.predictions import predictions
from anomaly.api.refresher import Refresher
from anomaly.api.refusals import (
    EXPECTED,
    answer_to_error,
    answer_to_refusal,
    answer_to_wrong_request,
)
from anomaly.api.workers import Workers
from anomaly.database.connection import Database
from anomaly.scoring.record_judging import RecordJudge
from anomaly.settings import Settings


def open_database(url: str, settings: Settings) -> Database:
    """The database, with no statement longer than a request may take.

    Raises
    ------
    DatabaseError
        As `Database`.
    """
    longest = max(1, int(settings.api.api_seconds))
    limits = settings.database

    def shorter(seconds: int) -> int:
        return min(seconds or longest, longest)

    shortened = {
        "statement_timeout_seconds": shorter(limits.statement_timeout_seconds),
        "lock_timeout_seconds": shorter(limits.lock_timeout_seconds),
    }
    return Database(url, limits.model_copy(update=shortened))


def create_app(
    database: Database,
    settings: Settings,
    access: Access,
    *,
    refreshed: Sequence[Callable[[], None]] = (),
    is_described_to_all: bool = False,
    tells_process: bool = False,
) -> FastAPI:
    """Put the calls together.

    Parameters
    ----------
    database : Database
        As `open_database` opens it.
    access : callable
        Says who asks.
    refreshed : sequence of callables
        What else is called every few seconds, see `Refresher`.
    is_described_to_all : bool
        Whether the pages that describe the calls need no name.
    tells_process : bool
        Whether the metrics tell of the process, too: its memory and processor time.
    """
    judge, measures = RecordJudge(database, settings), Measures()
    watch = Refresher(judge.refresh)
    workers = Workers(settings.api.api_at_once)
    app = FastAPI(
        title="Anomaly",
        version=__version__,
        description="Judges records of machine meters, and tells verdicts, incidents, machines and"
        " models. Times are UTC.",
        license_info={"name": "MIT", "identifier": "MIT"},
    )
    for router in (
        predictions(judge, settings, workers, measures),
        listings(database, workers),
        labelling(database, settings, workers),
        health(judge, watch, measures),
    ):
        app.include_router(router)
    _describe_access(app)
    for error in (*EXPECTED, TimeoutError):
        app.add_exception_handler(error, answer_to_error)
    app.add_exception_handler(RequestValidationError, answer_to_wrong_request)
    for refused in (HTTPException, PlainHTTPException):
        app.add_exception_handler(refused, answer_to_refusal)
    app.add_middleware(
        Door,
        access=access,
        limits=settings.api,
        measures=measures,
        paths={path for route in app.routes if (path := getattr(route, "path", None))},
        is_described_to_all=is_described_to_all,
    )
    if tells_process:
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=measures.registry)
    watch.start()
    for function in refreshed:
        Refresher(function).start()
    return app


def _describe_access(app: FastAPI) -> None:
    """Say in the description that a key or a token is needed, and how it is sent."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        whole = plain()
        whole.setdefault("components", {})["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        whole["security"] = [{"bearer": []}, {"key": []}]
        whole["paths"][LIVE]["get"]["security"] = []
        return whole

    app.openapi = described  # type: ignore[method-assign]
