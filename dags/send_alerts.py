"""
### Tell people what they must know

Looks whether the pipeline itself is well, decides on every event that waits in
`anomaly.alert_events`, and sends the messages that are due. Where they go: the setting
`ANOMALY_ALERT_ROUTES`; without it nobody is told.

**When it runs.** After every run that has published scores, and every five minutes: so it
also tells that nothing was scored. It is a DAG of its own, so no slow channel delays scoring.

**Safe to repeat.** An event is told once to each channel. A run that was killed between
sending a message and writing that down sends this one message again, under its number.

**When a run hangs**, or its worker was killed, it ends after a quarter of an hour, and the next one
sends what waits.

**When it fails**

| message | what to do |
|---|---|
| cannot connect | repair the database, or correct the connection `anomaly_db` |
| of the meter table | what waited has been sent; `anomaly doctor` says what is wrong |

When it fails, its routes for the pipeline are told at once, once a day. A channel that does not answer
fails nothing here: its messages are tried again for a day, then given up, and a template that cannot be
used is replaced by the shipped one. `anomaly alerts list` shows all messages, `anomaly status` what was
given up.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, task

from anomaly.settings import load_settings
from anomaly_wiring import FIRST_DAY, SCORES, SENDER, default_args, deployment

settings = load_settings()
# Three ticks, whatever the interval of the meters: a worker that was killed silences alerts for no
# longer. A task has half of it, more than the five minutes after which a retry takes a message
# that was under way. What is not sent by then waits for the next run.
LONGEST = timedelta(minutes=15)


@dag(
    dag_id=settings.dags.dag_prefix + SENDER,
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("*/5 * * * *", timezone="UTC"), assets=[SCORES]
    ),
    start_date=FIRST_DAY,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=LONGEST,
    default_args=default_args(settings, LONGEST, tells=True),
    tags=["anomaly", "alerts"],
    doc_md=__doc__,
)
def send_alerts() -> None:
    """Wire the one task."""

    @task
    def send() -> dict[str, int]:
        """Send what is due, look at the pipeline, and send what was found."""
        from dataclasses import asdict
        from datetime import UTC, datetime

        from anomaly.operations.alert_checks import tell_people

        with deployment(settings) as database:
            done, found = tell_people(database, settings, datetime.now(UTC))
        return asdict(done) | {"found": found}

    send()


send_alerts()
