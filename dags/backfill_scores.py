"""
### Score a past range

Trigger it with a start and an end (UTC; the end is not included). The range is cut
into chunks, a mapped task each; every chunk is published on its own, so a failed or
stopped run is resumed by clearing its failed tasks, or simply by triggering it again.

**Safe beside the schedule.** A verdict is a function of the readings and of the
version in force at their time, so a backfill over ranges that are already scored
changes nothing unless readings were corrected, and it never pages anyone. Verdicts
whose reading was deleted are retracted up to the limit of the settings.

**When it fails**

| message | what to do |
|---|---|
| no model version is in force | run the DAG `retrain_model` first |
| not a date / is empty / not due / is n chunks | correct the form and trigger it again |
| no readings at all in the range | nothing fails: the counts in the task's log are 0 |
"""

from __future__ import annotations

from airflow.sdk import Param, dag, get_current_context, task

from anomaly.settings import load_settings
from anomaly_wiring import (
    FIRST_DAY,
    SCORES,
    announce_scores,
    default_args,
    deployment,
    requested_by,
)

MOST_CHUNKS = 500  # almost ten years of weeks; Airflow maps at most 1,024 tasks

settings = load_settings()


@dag(
    dag_id="backfill_scores",
    schedule=None,
    start_date=FIRST_DAY,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=settings.dags.longest_run,
    default_args=default_args(settings.dags, settings.dags.longest_run),
    params={
        "start": Param(
            type="string",
            title="Start",
            description="First moment, e.g. 2017-03-07 or 2017-03-07T04:45Z",
        ),
        "end": Param(type="string", title="End", description="End, not included"),
    },
    tags=["anomaly", "scoring"],
    doc_md=__doc__,
)
def backfill_scores() -> None:
    """Wire the plan and its chunks."""

    @task
    def plan_chunks() -> list[dict[str, str]]:
        """Cut the range into chunks."""
        from anomaly.errors import WindowError
        from anomaly.windows import Window

        context = get_current_context()
        with deployment(settings):
            asked = Window.parse(context["params"]["start"], context["params"]["end"])
            window = asked.due(context["dag_run"].run_after, settings.meter.interval)
            chunks = -((window.start - window.end) // settings.scoring.chunk)
            if chunks > MOST_CHUNKS:
                raise WindowError(
                    f"{window} is {chunks:,} chunks of {settings.scoring.chunk_days} days, at most"
                    f" {MOST_CHUNKS} are scored by one run: give a shorter range, or raise"
                    " ANOMALY_CHUNK_DAYS"
                )
            return [
                {"start": chunk.start.isoformat(), "end": chunk.end.isoformat()}
                for chunk in window.chunks(settings.scoring.chunk)
            ]

    @task(outlets=[SCORES], max_active_tis_per_dagrun=2)
    def score_chunk(start: str, end: str) -> dict[str, int]:
        """Score one chunk."""
        from anomaly.database.results import Origin
        from anomaly.scoring.publishing import Job
        from anomaly.scoring.scorer import Scorer
        from anomaly.windows import Window

        context = get_current_context()
        window = Window.parse(start, end)
        with deployment(settings) as database:
            job = Job(Origin.BACKFILL, requested_by(context))
            report = Scorer(database, settings).score_range(window, job)
        return announce_scores(context, window, report)

    score_chunk.expand_kwargs(plan_chunks())


backfill_scores()
