"""
### Score new readings, every 15 minutes

Reads the readings whose interval has ended, judges each by the model version in
force at its own time, and writes one verdict per reading to `anomaly.anomaly_results`.

**What a run covers.** First, older readings that were written since the last run.
Then its window: from the end of what earlier runs covered (the *watermark*, kept in
`anomaly.scoring_runs`) less two hours for late readings, to the end of its interval.
After an outage of any length the next run catches up; nothing has to be triggered by
hand.

**Why older readings come first.** The next run looks only at rows written since the
newest `ingested_at` that a published live window has read (less an hour's overlap).
If the window were published first and the worker were killed before the late part,
the run would already count as covered, and the next one would no longer see the late
rows. `reconcile_scores` would find them the next morning.

**Safe to repeat.** Clearing a task, two attempts at once or a kill at any moment
neither lose nor double a verdict: a window is published whole, in one transaction.

**When it fails**

| message | what to do |
|---|---|
| no model version is in force | run the DAG `retrain_model`; the next run here scores what came in since |
| cannot connect | repair the database, or correct the connection `anomaly_db`; retries follow by themselves |
| ... lacks 000n_....sql | run `anomaly migrate` |
| artefact changed / missing | restore the folder below `ANOMALY_MODELS_URL`, or promote another version |
| `check_freshness` failed | the meters deliver nothing: look at what fills the meter table |

**Past ranges** are not for this DAG (it refuses backfill runs): use `backfill_scores`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Context, CronDataIntervalTimetable, dag, get_current_context, task

from anomaly.settings import load_settings
from anomaly_wiring import (
    FIRST_DAY,
    SCORES,
    ToldAnywayError,
    announce_scores,
    deadline,
    default_args,
    deployment,
    interval_of,
    keep_machine_names,
    measure_ages,
    requested_by,
    tell_lineage,
)

settings = load_settings()
EVERY = timedelta(minutes=15)


@dag(
    dag_id=settings.dags.dag_prefix + "score_readings",
    schedule=CronDataIntervalTimetable("*/15 * * * *", timezone="UTC"),
    start_date=FIRST_DAY,
    catchup=False,
    max_active_runs=1,
    allowed_run_types=["scheduled", "manual"],
    dagrun_timeout=settings.dags.scoring_run(settings.meter.interval),
    deadline=deadline(settings.dags, EVERY),
    default_args=default_args(
        settings, settings.dags.scoring_run(settings.meter.interval), tells=True
    )
    | {"priority_weight": 1000, "weight_rule": "absolute"},  # before any backfill
    tags=["anomaly", "scoring"],
    doc_md=__doc__,
)
def score_readings() -> None:
    """Wire the two tasks."""

    @task(outlets=[SCORES])
    def score() -> dict[str, int]:
        """Score what is due and not yet covered."""
        from anomaly.scoring.scorer import Scorer
        from anomaly.scoring.ticks import score_tick

        context = get_current_context()
        with deployment(settings) as database:
            tell_lineage(context, database, settings)
            interval = interval_of(context, settings.meter.interval)
            report = score_tick(Scorer(database, settings), interval, requested_by(context))
            keep_machine_names(database)
        return announce_scores(context, interval, report)

    @task
    def check_freshness(**context: Any) -> str:
        """Fail when the meters have delivered nothing for too long."""
        return fail_when_stale(context)

    score() >> check_freshness()


def fail_when_stale(context: Context) -> str:
    """Fail the task when the newest reading ended longer ago than the settings allow."""
    from anomaly.operations.alert_checks import note_freshness_check
    from anomaly.operations.status import is_stale, newest_reading

    with deployment(settings) as database:
        measure_ages(database, settings)
        note_freshness_check(database, datetime.now(UTC))
        as_of = interval_of(context, settings.meter.interval).end
        newest = newest_reading(database, settings.meter_table, settings.meter, as_of)
        if is_stale(newest, settings.meter, settings.scoring, as_of):
            stale_after = settings.scoring.stale_after(settings.meter.interval)
            raise ToldAnywayError(
                f"the newest reading in {settings.meter_table.source_name} is of {newest}, and"
                f" ended more than {stale_after / timedelta(hours=1):g} h before {as_of}: look at"
                " what fills the table"
            )
        return f"newest reading: {newest}"


score_readings()
