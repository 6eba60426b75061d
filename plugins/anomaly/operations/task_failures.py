"""Tell people that a scheduled task has failed: through the outbox, or without the database."""

import logging
from dataclasses import dataclass
from datetime import datetime

from anomaly.alerts.channels import ChannelError, deliver
from anomaly.alerts.events import Event
from anomaly.alerts.messages import facts_of, write_anyway
from anomaly.alerts.routes import channels, routes_of
from anomaly.database import alerts as outbox
from anomaly.database.connection import SCORER, Database
from anomaly.errors import AlertError
from anomaly.settings import AlertKind, AlertSeverity, Settings
from anomaly.wording import safe_line

log = logging.getLogger(__name__)

FAILED = "failed"


@dataclass(frozen=True)
class FailedRun:
    """A task of a run that has failed for good, and why."""

    dag_id: str
    task_id: str
    run_id: str
    why: str

    def says(self) -> str:
        """What is told; without passwords."""
        why = safe_line(self.why)[:500].rstrip(".")
        return (
            f"the task {self.task_id} of {self.dag_id} has failed; {why}; its log is in Airflow,"
            f" run {self.run_id}. Nobody is told of this task again today"
        )

    def key(self, at: datetime) -> str:
        """People are told once of the same key: once per task and day."""
        return f"{FAILED}:{self.dag_id}:{self.task_id}:{at.date()}"

    def event(self, severity: AlertSeverity, at: datetime) -> Event:
        """The event, one per task and day."""
        return Event(
            key=self.key(at),
            about=self.key(at),
            event=FAILED,
            kind=AlertKind.PIPELINE.value,
            severity=severity.value,
            created_at=at,
            says=self.says(),
        )


def tell_failure(database: Database, failed: FailedRun, at: datetime) -> int:
    """Write the failure into the outbox; return 1, or 0 if the task's was written today."""
    with database.transaction(SCORER) as transaction:
        return outbox.add_events(transaction, [vars(failed.event(AlertSeverity.WARNING, at))])


def tell_at_once(settings: Settings, failed: FailedRun, trouble: str, at: datetime) -> int:
    """Send the failure to the routes of the pipeline past the outbox; return how many took it.

    Parameters
    ----------
    trouble : str
        Why the outbox is of no use.
    """
    event = failed.event(AlertSeverity.CRITICAL, at)
    said = f"{event.says}. The outbox is of no use: {safe_line(trouble)}"
    facts = facts_of(
        vars(event) | {"says": said, "severity_now": None, "clock": None},
        at,
        settings.meter,
        settings.incidents,
    )
    message = write_anyway([facts], failed.key(at), settings.alerts)
    taken = 0
    for channel in channels(
        list(routes_of(settings.alerts.alert_routes, FAILED, event.kind, event.severity, ""))
    ):
        try:
            deliver(channel, message)
            taken += 1
        except (ChannelError, AlertError) as error:
            log.warning("the route %s did not take it: %s", channel.route, error)
    return taken
