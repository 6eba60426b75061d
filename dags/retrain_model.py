"""
### Train a new model version, weekly

Trains on the last weeks before the newest days (`ANOMALY_TRAINING_WEEKS`,
`ANOMALY_JUDGING_DAYS`), registers the version with its files and hashes, and puts it
in force from the next interval that is not yet scored: verdicts that are out stay
as they are.

**When it fails**

| message | what to do |
|---|---|
| n days of readings to train on, at least m are needed | wait, or load older readings with `anomaly ingest` |
| the meter table is empty | load readings |
| cannot write below the models' folder | give the workers the folder `ANOMALY_MODELS_URL`; nothing was registered |

A failed or killed run registers nothing or a whole version; run it again.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import CronDataIntervalTimetable, dag, get_current_context, task

from anomaly.settings import load_settings
from anomaly_wiring import (
    FIRST_DAY,
    MODELS,
    announce,
    default_args,
    deployment,
    due_at,
)

settings = load_settings()


@dag(
    dag_id="retrain_model",
    schedule=CronDataIntervalTimetable("30 2 * * 1", timezone="UTC"),
    start_date=FIRST_DAY,
    catchup=False,
    max_active_runs=1,
    default_args=default_args(settings),
    tags=["anomaly", "training"],
    doc_md=__doc__,
)
def retrain_model() -> None:
    """Wire the one task."""

    @task(outlets=[MODELS])
    def train() -> dict[str, Any]:
        """Train, register, put in force."""
        from anomaly.training import Trainer

        context = get_current_context()
        run = context["dag_run"]
        with deployment() as (database, settings):
            trainer = Trainer(database, settings)
            due = due_at(context, settings.interval)
            report = trainer.train(
                trainer.default_window(due),
                by=f"{run.dag_id} {run.run_id}",
                put_in_force=True,
                reason="weekly training",
            )
        details = {
            "version": report.version,
            "readings": report.readings,
            "machines": report.machines,
            "effective_from": report.effective_from and report.effective_from.isoformat(),
        }
        announce(context, MODELS, report.window, **details)
        return details

    train()


retrain_model()
