"""The call that says what an incident or a machine's time was."""

from fastapi import APIRouter, HTTPException
from starlette.requests import Request

from anomaly.api.answers import LabelGiven, NewLabel, refusals
from anomaly.api.door import CALLER, Caller
from anomaly.api.workers import Workers
from anomaly.database.connection import Database
from anomaly.incidents.operator_feedback import LabelReport, label, label_incident
from anomaly.settings import Settings
from anomaly.windows import Window


def labelling(database: Database, settings: Settings, workers: Workers) -> APIRouter:
    """The call. It is the only one that writes, as `anomaly label` does."""
    router = APIRouter(tags=["labels"])

    @router.post(
        "/labels",
        status_code=201,
        response_model=LabelGiven,
        responses=refusals(401, 403, 413, 422, 429, 503, 504),
        summary="Label an incident, or a time of a machine",
    )
    async def post_label(request: Request, new: NewLabel) -> LabelGiven:
        """Say what an incident was, or what a machine was or will be from a start to an end."""
        caller: Caller = request.scope[CALLER]
        if not caller.can_label:
            raise HTTPException(
                403, "this caller may not label: it takes a key made with --can-label, or in"
                " Airflow the right to run DAGs"
            )  # fmt: skip
        given = await workers.do(lambda: _give(database, settings, new, caller.name))
        return LabelGiven(
            label_id=given.label_id,
            machine_id=given.machine_id,
            machine=given.machine,
            label=given.label,
            start=given.window.start,
            end=given.window.end,
            labelled_by=caller.name,
            incidents_changed=given.incidents_changed,
        )

    return router


def _give(database: Database, settings: Settings, new: NewLabel, by: str) -> LabelReport:
    about = (database, settings.meter, settings.incidents)
    if new.incident_id is not None:
        return label_incident(*about, new.incident_id, new.label, note=new.note, by=by)
    window = Window.parse(str(new.start), str(new.end))
    return label(*about, str(new.machine), window, new.label, note=new.note, by=by)
