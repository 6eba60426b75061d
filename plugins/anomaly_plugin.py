"""What the product adds to Airflow itself: notes of backfills, and the API below ``/anomaly``.

A task cannot write the note of its run, so this listener of the scheduler does. It imports nothing
heavy: Airflow loads it in every process.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from functools import cache
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

BACKFILL = "backfill_scores"  # a prefix may stand before it: ANOMALY_DAG_PREFIX
NOTE = "anomaly_note"
"""Key of the XCom that holds what a run's note is to say."""
MOST_CHARACTERS = 1000  # of a note
OURS = ("Preview: ", "Backfill ")

LIVE = "/health/live"
"""The one path that needs no log-in: whether the API server answers."""
SCORING = "score_readings"  # who may see this DAG may ask, and who may run it may label
CONNECTION = "anomaly_db"
CALLER = "anomaly.user"
"""Where a request's scope says which of Airflow's users asks."""
TRY_AGAIN_SECONDS = 10.0

log = logging.getLogger(__name__)


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    """Note what a backfill has changed."""
    keep_note(dag_run)


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:
    """Note what a backfill has changed before it failed."""
    keep_note(dag_run)


def keep_note(dag_run: Any) -> None:
    """Put the last report of a backfill into the note of its run, unless a person wrote one."""
    if not dag_run.dag_id.endswith(BACKFILL):
        return
    try:
        from airflow.models.xcom import XComModel
        from sqlalchemy import select
        from sqlalchemy.orm import object_session

        session = object_session(dag_run)
        if session is None or not (dag_run.note or OURS[0]).startswith(OURS):
            return
        answer = answer_of(dag_run, session)
        if is_half_cleared(dag_run, session, answer):
            dag_run.note = f"{OURS[1]}not finished: clear all tasks of this run to go on"
            return
        notes = session.scalars(
            select(XComModel.value)
            .where(
                XComModel.dag_id == dag_run.dag_id,
                XComModel.run_id == dag_run.run_id,
                XComModel.key == NOTE,
            )
            .order_by(XComModel.timestamp.desc())
        ).all()
        if notes:
            said = "Preview: rejected, nothing was written. " if answer == "Reject" else ""
            dag_run.note = f"{said}{notes[0]}"[:MOST_CHARACTERS]
    except Exception:  # a note is never worth a scheduler
        log.exception("the report of %s could not be put into its note", dag_run.run_id)


def answer_of(dag_run: Any, session: Any) -> str | None:
    """What a person answered to the question of a run; None: there was none, or no answer."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    found = session.scalars(
        select(XComModel.value).where(
            XComModel.dag_id == dag_run.dag_id,
            XComModel.run_id == dag_run.run_id,
            XComModel.task_id == "ask",
            XComModel.key == "return_value",
        )
    ).first()
    text = str(found)
    return next((answer for answer in ("Reject", "Approve") if f"{answer}" in text), None)


def is_half_cleared(dag_run: Any, session: Any, answer: str | None) -> bool:
    """Whether scoring was begun or approved, and the report was left out.

    That is so where a cancelled run had only its failed tasks cleared: Airflow had skipped the
    others.
    """
    states = {task.task_id: task.state for task in dag_run.get_task_instances(session=session)}
    wanted = states.get("start_scoring") == "success" or answer == "Approve"
    return wanted and states.get("report") == "skipped"


class Api:
    """The API in Airflow's API server: made when the first user who may ask does so.

    Airflow says who asks, by its token or cookie, before anything else is done.
    """

    def __init__(self) -> None:
        self._app: Any = None
        self._lock: asyncio.Lock | None = None
        self._trouble = ("", 0.0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return
        from fastapi import HTTPException
        from starlette.requests import Request
        from starlette.responses import JSONResponse

        try:
            if scope["path"].removeprefix(scope.get("root_path", "")) == LIVE:
                await JSONResponse({"status": "ok"})(scope, receive, send)
                return
            scope[CALLER] = await caller_of(Request(scope, receive))
            app = await self._made()
        except HTTPException as error:
            refused = JSONResponse({"detail": error.detail}, error.status_code, error.headers)
            await refused(scope, receive, send)
        except Exception as error:  # a wrong setting, say
            log_error("the API cannot say who asks", error)
            said = {"detail": "the API cannot say who asks, the log says why"}
            await JSONResponse(said, 503)(scope, receive, send)
        else:
            await app(scope, receive, send)

    async def _made(self) -> Any:
        """The application; making it is tried again only after some seconds."""
        from fastapi import HTTPException

        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            said, until = self._trouble
            if self._app is None and time.monotonic() > until:
                try:
                    self._app = await asyncio.to_thread(make_api)
                except Exception as error:
                    said = f"the API cannot start ({type(error).__name__}), the log says why"
                    log_error("the API cannot start", error)
                    self._trouble = said, time.monotonic() + TRY_AGAIN_SECONDS
            if self._app is None:
                raise HTTPException(503, said, {"Retry-After": f"{TRY_AGAIN_SECONDS:.0f}"})
            return self._app


def log_error(what: str, error: Exception) -> None:
    """Log an error in a line that holds no password."""
    from anomaly.wording import safe_line

    log.error("%s: %s: %s", what, type(error).__name__, safe_line(str(error)))


async def caller_of(request: Any) -> dict[str, Any]:
    """Who asks, and what he may do; refused where Airflow does not know him."""
    from airflow.api_fastapi.core_api.security import bearer_scheme, get_user
    from fastapi import HTTPException

    user = await get_user(request, None, await bearer_scheme(request))
    may_see, may_run = await asyncio.to_thread(rights_of, user)
    if not may_see:
        raise HTTPException(403, f"this user may not see the DAG {SCORING}")
    return {"name": user.get_name(), "identity": f"user {user.get_id()}", "can_label": may_run}


def rights_of(user: Any) -> tuple[bool, bool]:
    """Whether a user may see the scoring DAG, and whether he may run it."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import (
        DagAccessEntity,
        DagDetails,
    )
    from airflow.models.dag import DagModel

    dag = settings_of_the_api().dags.dag_prefix + SCORING
    details = DagDetails(id=dag, team_name=DagModel.get_team_name(dag))
    manager = get_auth_manager()
    may_see = manager.is_authorized_dag(method="GET", details=details, user=user)
    may_run = may_see and manager.is_authorized_dag(
        method="POST", access_entity=DagAccessEntity.RUN, details=details, user=user
    )
    return may_see, may_run


@cache
def settings_of_the_api() -> Any:
    """The settings, read once."""
    from anomaly.settings import load_settings

    return load_settings()


def make_api() -> Any:
    """The application on the database of the connection, as tasks use it."""
    from airflow.models.connection import Connection

    from anomaly.api.app import create_app, open_database
    from anomaly.api.door import Caller
    from anomaly.database.migrations import check_migrated

    settings = settings_of_the_api()
    uri = Connection.get_connection_from_secrets(CONNECTION).get_uri()
    database = open_database(uri, settings)
    check_migrated(database)
    return create_app(database, settings, lambda request: Caller(**request.scope[CALLER]))


class AnomalyPlugin(AirflowPlugin):
    """The product's plugin."""

    name = "anomaly"
    listeners = [sys.modules[__name__]]
    fastapi_apps = [{"app": Api(), "url_prefix": "/anomaly", "name": "anomaly"}]
