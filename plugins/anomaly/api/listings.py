"""Calls that tell programs what the deployment has: verdicts, incidents, machines and models."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.requests import Request

from anomaly.api.answers import (
    Incident,
    Incidents,
    Machine,
    Machines,
    ModelVersion,
    ModelVersions,
    Verdict,
    Verdicts,
    refusals,
)
from anomaly.api.pages import After, Limit, page, whole_number
from anomaly.api.workers import Workers
from anomaly.database.connection import API, Database, Transaction
from anomaly.database.incidents import incidents_page
from anomaly.database.machines import find_machine, known_machines, machines_page
from anomaly.database.model_versions import versions_page
from anomaly.database.results import LARGEST_INTEGER, verdicts_page
from anomaly.errors import WindowError
from anomaly.incidents.incident import State
from anomaly.settings import AlertSeverity
from anomaly.windows import Window, parse_moment

_MOST_ID, _MOST_ROW = LARGEST_INTEGER, 2**63 - 1  # of Postgres's integer and bigint

_Machine = Annotated[str | None, Query(description="id or name of a machine", max_length=1000)]
_Start = Annotated[
    str | None, Query(description="first moment: a day, or a time with a zone", max_length=100)
]
_End = Annotated[str | None, Query(description="end, not included", max_length=100)]

_CSV: dict[str, Any] = {"content": {"text/csv": {"schema": {"type": "string"}}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {200: _CSV, **refusals(401, 403, 422, 429, 503, 504)}


def listings(database: Database, workers: Workers) -> APIRouter:
    """The four calls; JSON, or CSV where the header Accept asks for it."""
    router = APIRouter(tags=["listings"], responses=_ANSWERS)

    async def answer(
        request: Request,
        name: str,
        form: type[BaseModel],
        limit: int,
        place: Sequence[str],
        read: Callable[[Transaction], Sequence[Any]],
    ) -> Response:
        def work() -> Response:
            with database.transaction(API, read_only=True) as transaction:
                rows = read(transaction)
            return page(request, name, rows, [*form.model_fields], limit, place)

        return await workers.do(work)

    @router.get("/verdicts", response_model=Verdicts)
    async def verdicts(
        request: Request,
        machine: _Machine = None,
        start: _Start = None,
        end: _End = None,
        anomaly: Annotated[
            Literal["0", "1"] | None, Query(description="only normal, or only abnormal ones")
        ] = None,
        limit: Limit = 1000,
        after: After = None,
    ) -> Response:
        """Verdicts that are in force, by machine, then time."""
        first, last = _range(start, end)
        place = _place_of_verdict(after)
        abnormal = None if anomaly is None else int(anomaly)
        return await answer(
            request,
            "verdicts",
            Verdict,
            limit,
            ("machine_id", "utc_timestamp"),
            lambda transaction: verdicts_page(
                transaction,
                machine_id=_number(transaction, machine),
                start=first,
                end=last,
                anomaly=abnormal,
                after=place,
                rows=limit + 1,
            ),
        )

    @router.get("/incidents", response_model=Incidents)
    async def incidents(
        request: Request,
        machine: _Machine = None,
        start: _Start = None,
        end: _End = None,
        state: Annotated[State | None, Query()] = None,
        kind: Annotated[Literal["machine", "meter"] | None, Query()] = None,
        severity: Annotated[AlertSeverity | None, Query()] = None,
        limit: Limit = 1000,
        after: After = None,
    ) -> Response:
        """Incidents that lasted in a range, newest first."""
        first, last = _range(start, end)
        before = None if after is None else whole_number(after, _MOST_ROW)
        return await answer(
            request,
            "incidents",
            Incident,
            limit,
            ("incident_id",),
            lambda transaction: incidents_page(
                transaction,
                machine_id=_number(transaction, machine),
                start=first,
                end=last,
                state=state and state.value,
                kind=kind,
                severity=severity and severity.value,
                before=before,
                rows=limit + 1,
            ),
        )

    @router.get("/machines", response_model=Machines)
    async def machines(request: Request, limit: Limit = 1000, after: After = None) -> Response:
        """Machines, by number."""
        last = None if after is None else whole_number(after, _MOST_ID)
        return await answer(
            request,
            "machines",
            Machine,
            limit,
            ("machine_id",),
            lambda transaction: machines_page(transaction, after=last, rows=limit + 1),
        )

    @router.get("/models", response_model=ModelVersions)
    async def models(request: Request, limit: Limit = 1000, after: After = None) -> Response:
        """Versions of the model, newest first."""
        before = None if after is None else whole_number(after, _MOST_ID)
        return await answer(
            request,
            "models",
            ModelVersion,
            limit,
            ("model_version",),
            lambda transaction: versions_page(transaction, before=before, rows=limit + 1),
        )

    return router


def _number(transaction: Transaction, machine: str | None) -> int | None:
    return None if machine is None else find_machine(known_machines(transaction), machine)


def _range(start: str | None, end: str | None) -> tuple[datetime | None, datetime | None]:
    first, last = (parse_moment(text) if text else None for text in (start, end))
    if first and last:
        Window(first, last)  # refuses one that ends before it starts
    return first, last


def _place_of_verdict(after: str | None) -> tuple[int, datetime] | None:
    """Machine and time of the last verdict of the page before."""
    if after is None:
        return None
    machine, _, moment = after.partition(",")
    try:
        return whole_number(machine, _MOST_ID), parse_moment(moment)
    except WindowError:
        raise HTTPException(
            422, f"after is {after!r}: send the `next` of the page before"
        ) from None
