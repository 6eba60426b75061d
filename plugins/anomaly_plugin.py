"""What the product adds to Airflow itself: the report of a backfill in the note of its run.

A task cannot write the note of its run, so this listener of the scheduler does. It imports nothing
heavy: Airflow loads it in every process.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

BACKFILL = "backfill_scores"  # a prefix may stand before it: ANOMALY_DAG_PREFIX
NOTE = "anomaly_note"
"""Key of the XCom that holds what a run's note is to say."""
MOST_CHARACTERS = 1000  # of a note
OURS = ("Preview: ", "Backfill ")

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


class AnomalyPlugin(AirflowPlugin):
    """The product's plugin."""

    name = "anomaly"
    listeners = [sys.modules[__name__]]
