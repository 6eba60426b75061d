"""
### Say what an incident was

The form has the number that stands in every alert, and what it was:

- **real**: a fault. Training leaves its time out.
- **false_alarm**: nothing was wrong. Nobody is told of the same again for a week, and training learns
  it as usual.
- **maintenance**: somebody worked on the machine. It counts as no alert.
- **meter_fault**: the meter, and not the machine.
- **take on**: you look into it. It is not escalated, and counts as acknowledged.

What you say can be taken back: `anomaly labels list`, `anomaly labels remove N`.

**When it fails**

| message | what to do |
|---|---|
| there is no incident n | look at the number in the alert, or at `anomaly incidents --all` |
| is a part of incident n now | label that one |
| is closed / silenced: only an open one can be acknowledged | say what it was instead |
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag, get_current_context, task

from anomaly.settings import load_settings
from anomaly_wiring import FIRST_DAY, default_args, deployment

settings = load_settings()
TAKE_ON = "take on"


@dag(
    dag_id=settings.dags.dag_prefix + "label_incident",
    schedule=None,
    start_date=FIRST_DAY,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=settings.dags.longest_run,
    default_args=default_args(settings, settings.dags.longest_run),
    params={
        "incident": Param(type="integer", minimum=1, title="Incident"),
        "what": Param(
            type="string",
            enum=["real", "false_alarm", "maintenance", "meter_fault", TAKE_ON],
            title="What was it?",
        ),
        "note": Param("", type="string", maxLength=1000, title="Note"),
    },
    tags=["anomaly", "alerts"],
    doc_md=__doc__,
)
def label_incident() -> None:
    """Wire the one task."""

    @task
    def label() -> dict[str, Any]:
        """Write the label, or take the incident on."""
        from anomaly.incidents import operator_feedback
        from anomaly.incidents.labels import LabelName

        context = get_current_context()
        params = context["params"]
        number = params["incident"]
        by = context["dag_run"].triggering_user_name or "unknown"
        with deployment(settings) as database:
            if params["what"] == TAKE_ON:
                state = operator_feedback.acknowledge(
                    database, settings.meter, settings.incidents, number, by=by
                )
                return {"incident": number, "state": state.value}
            done = operator_feedback.label_incident(
                database,
                settings.meter,
                settings.incidents,
                number,
                LabelName(params["what"]),
                note=params["note"],
                by=by,
            )
        return {
            "incident": number,
            "label_id": done.label_id,
            "label": done.label.value,
            "machine": done.machine,
        }

    label()


label_incident()
