"""
### Compare readings with verdicts, daily, and repair what differs

Finds what the ticks could not see: readings that arrived after the lateness, were
corrected without a trace, or were deleted. Only what differs is scored again, with
all that a changed reading reaches; replaced verdicts go to the history.

**What a run covers.** On schedule and by hand the last 30 days
(`ANOMALY_RECONCILE_DAYS`), or the range in the form; as Airflow's native backfill
exactly the run's own day, so a year is 365 runs.

**Deleted readings.** Verdicts without a reading are retracted only between the meter
table's first and last reading, and never more than 1 % of the range: a purged or
emptied table deletes nothing. The counts say `retraction_withheld`; if the deletion
was meant, run `anomaly reconcile --allow-retract`.

**What is kept.** Everything, unless `ANOMALY_KEEP_RESULTS_MONTHS` and its like say otherwise: then
the task `purge` deletes whole months of verdicts, and old rows of their history and of the ledger.

**When it fails**: as `score_readings`. `purge` gives up after 5 s if somebody reads the results all
the time, and tries again the next day.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk import Context, CronDataIntervalTimetable, Param, dag, get_current_context, task

from anomaly.settings import MeterSettings, ScoringSettings, load_settings
from anomaly_wiring import (
    FIRST_DAY,
    SCORES,
    announce,
    default_args,
    deployment,
    due_at,
    interval_of,
    measure,
    requested_by,
    tell_lineage,
)

if TYPE_CHECKING:
    from anomaly.windows import Window

settings = load_settings()


@dag(
    dag_id=settings.dags.dag_prefix + "reconcile_scores",
    schedule=CronDataIntervalTimetable("0 3 * * *", timezone="UTC"),
    start_date=FIRST_DAY,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=settings.dags.longest_run,
    default_args=default_args(settings, settings.dags.longest_run, tells=True),
    params={
        "start": Param(None, type=["null", "string"], title="Start", description="Empty: 30 days"),
        "end": Param(None, type=["null", "string"], title="End", description="Empty: now"),
    },
    tags=["anomaly", "scoring"],
    doc_md=__doc__,
)
def reconcile_scores() -> None:
    """Wire the comparison, and the purge where something is deleted."""

    @task(outlets=[SCORES])
    def reconcile() -> dict[str, int]:
        """Compare, and re-score what differs."""
        from anomaly.database.results import Origin
        from anomaly.scoring.reconciling import Reconciler

        context = get_current_context()
        backfill = context["dag_run"].run_type == "backfill"
        with deployment(settings) as database:
            tell_lineage(context, database, settings)
            window = range_of(context, settings.meter, settings.scoring)
            report = Reconciler(database, settings).reconcile(
                window, requested_by(context), origin=Origin.BACKFILL if backfill else Origin.LATE
            )
        found = ("compared", "missing", "changed", "deleted")
        counts = {name: getattr(report, name) for name in found} | report.scores.counts()
        announce(context, SCORES, window, **counts)
        measure(context, report.scores)
        return counts

    @task
    def purge() -> dict[str, int]:
        """Delete what is older than is kept."""
        from dataclasses import asdict

        from anomaly.operations.purging import purge

        context = get_current_context()
        with deployment(settings) as database:
            due = due_at(context, settings.meter.interval)
            return asdict(purge(database, settings.retention, due))

    reconciled = reconcile()
    if settings.retention.deletes:
        reconciled >> purge()


def range_of(context: Context, meter: MeterSettings, scoring: ScoringSettings) -> Window:
    """The range of the form, the run's own day (native backfill), or the last days."""
    from anomaly.windows import Window, parse_moment

    run = context["dag_run"]
    if run.run_type == "backfill":
        return interval_of(context, timedelta(days=1)).due(run.run_after, meter.interval)
    start, end = context["params"]["start"], context["params"]["end"]
    until = parse_moment(end) if end else due_at(context, meter.interval)
    since = parse_moment(start) if start else until - scoring.reconcile_horizon
    return Window(since, until).due(run.run_after, meter.interval)


reconcile_scores()
