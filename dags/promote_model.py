"""
### Put a model version in force

Trigger it with a version's number and a reason. Without a start the version judges from the
next interval that is not yet scored, and verdicts that are out stay. With a start it judges all
readings from there on, with an end as well only the readings between; these are scored again,
and the verdicts they had go to the history. What it replaces stays on record:
`anomaly models list --on DATE` tells which version was live.

**Refused by the judge?** This DAG overrules it: you decide. Read the model card first
(`anomaly models show N`). To go back a version, `anomaly models rollback` is shorter.

**When it fails**

| message | what to do |
|---|---|
| there is no model version n / it is retired | choose another: `anomaly models list` |
| was changed / is missing / does not hold the files | restore the version's folder from a backup, or choose another |
| not a date / is empty | correct the form and trigger it again |

Stopped half way, the version map says already what should be; clear the task, and the rest is
scored.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag, get_current_context, task

from anomaly.settings import load_settings
from anomaly_wiring import (
    FIRST_DAY,
    MODELS,
    announce_promotion,
    default_args,
    deployment,
    requested_by,
)

settings = load_settings()


@dag(
    dag_id=settings.dags.dag_prefix + "promote_model",
    schedule=None,
    start_date=FIRST_DAY,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=settings.dags.longest_run,
    default_args=default_args(settings, settings.dags.longest_run),
    params={
        "version": Param(type="integer", minimum=1, title="Version"),
        "reason": Param(type="string", minLength=1, title="Reason", description="For the record"),
        "start": Param(
            None,
            type=["null", "string"],
            title="Start",
            description="Empty: verdicts that are out stay. Else: scored again from here on",
        ),
        "end": Param(
            None, type=["null", "string"], title="End", description="Not included; empty: for good"
        ),
    },
    tags=["anomaly", "training"],
    doc_md=__doc__,
)
def promote_model() -> None:
    """Wire the one task."""

    @task(outlets=[MODELS])
    def promote() -> dict[str, Any]:
        """Rewrite the version map, and score again what was asked to be."""
        from anomaly.errors import WindowError
        from anomaly.lifecycle.promotion import Promoter
        from anomaly.windows import parse_moment

        context = get_current_context()
        run, params = context["dag_run"], context["params"]
        record = {
            "by": f"{run.dag_id} {run.run_id}, {run.triggering_user_name or 'unknown'}",
            "reason": params["reason"],
        }
        with deployment(settings) as database:
            promoter = Promoter(database, settings)
            if not params["start"]:
                if params["end"]:
                    raise WindowError("an end needs a start: give both, or neither")
                promoted = promoter.promote(params["version"], **record)
            else:
                promoted = promoter.promote_range(
                    params["version"],
                    parse_moment(params["start"]),
                    parse_moment(params["end"]) if params["end"] else None,
                    requested_by=requested_by(context),
                    **record,
                )
        return announce_promotion(context, promoted)

    promote()


promote_model()
