"""What is answered when something is wrong: ``{"detail": ...}``, as the prototype did."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as PlainHTTPException
from starlette.requests import Request

from anomaly.database.explained_errors import EXPLAINED, explained
from anomaly.errors import (
    AlertError,
    AnomalyError,
    LabelError,
    MachineError,
    NoModelError,
    RecordError,
    WindowError,
)
from anomaly.wording import printable, safe_line

log = logging.getLogger("anomaly.api")

_OF_THE_CLIENT = (RecordError, WindowError, MachineError, LabelError, AlertError)
_UNUSABLE = "the server cannot answer now, its log says why"
"""Chosen: messages about the database or files name addresses, which are nobody's business."""
_RETRY_SECONDS = 5

EXPECTED = (AnomalyError, *EXPLAINED)


def answer_to_error(request: Request, error: Exception) -> JSONResponse:
    """Answer to an error of the product, of the database, or of a thread that took too long."""
    if isinstance(error, TimeoutError):
        return refusal(504, "the answer took too long: send fewer records, or ask for less")
    if isinstance(error, _OF_THE_CLIENT):
        return refusal(422, printable(str(error)))
    if isinstance(error, NoModelError):
        return refusal(503, printable(str(error)), {"Retry-After": str(_RETRY_SECONDS)})
    log.error("%s", safe_line(str(explained(error))))
    return refusal(503, _UNUSABLE, {"Retry-After": str(_RETRY_SECONDS)})


def answer_to_wrong_request(request: Request, error: Exception) -> JSONResponse:
    """Answer to a parameter or a body of the wrong form, naming each field."""
    assert isinstance(error, RequestValidationError)
    return refusal(422, "; ".join(_said(issue) for issue in error.errors()))


def answer_to_refusal(request: Request, error: Exception) -> JSONResponse:
    """Answer to a refusal that says its own status."""
    assert isinstance(error, PlainHTTPException)
    return refusal(error.status_code, error.detail, error.headers)


def refusal(status: int, detail: str, headers: Any = None) -> JSONResponse:
    """An answer that says what is wrong."""
    return JSONResponse({"detail": detail}, status, headers)


def _said(issue: dict[str, Any]) -> str:
    if issue["type"] == "json_invalid":
        return "the body is no JSON: send an object"
    if isinstance(issue.get("input"), bytes):
        return "the body was not read as JSON: send the header Content-Type: application/json"
    place: Sequence[Any] = issue["loc"]
    name = ".".join(str(part) for part in place[1:]) or str(place[0])
    message = str(issue["msg"]).removeprefix("Value error, ")
    shown = repr(issue.get("input"))
    value = "" if issue["type"] == "missing" or len(shown) > 60 else f" is {shown}"
    return printable(f"{name}{value}: {message}")
