"""What of changed incidents people are to be told: events, written where verdicts are published."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from anomaly.database.alerts import add_incident_events
from anomaly.database.connection import Transaction
from anomaly.database.results import Origin
from anomaly.incidents.changes import IncidentChange, IncidentChanges
from anomaly.incidents.incident import Incident, State
from anomaly.settings import AlertSettings, MeterSettings

OPENED, WORSENED, ENDED, ESCALATED = "opened", "worsened", "ended", "escalated"
"""What happens to an incident."""
LASTS = "lasts"
"""Written as `OPENED` or `WORSENED`, if nothing written says so yet."""
FOUND_OVER = "found over"
"""Written as `OPENED`, if nothing was written of it and no backfill found it."""
ENDS_FOR = timedelta(weeks=1)
"""That something is over is told so long afterwards, if scoring was down say. Chosen."""
OVER = "_over"
"""Ends the name of an event that something of the pipeline is over."""


@dataclass(frozen=True)
class Event:
    """Something that people are to be told.

    Attributes
    ----------
    key : str
        An event is written once.
    about : str
        What begins and what ends are about the same.
    says : str
        What is told where no incident says it.
    """

    key: str
    about: str
    event: str
    kind: str
    severity: str
    created_at: datetime
    incident_id: int | None = None
    says: str = ""


def is_end(event: str) -> bool:
    """Whether an event is that something is over."""
    return event == ENDED or event.endswith(OVER)


def write_incident_events(
    transaction: Transaction,
    changes: IncidentChanges,
    origin: Origin,
    at: datetime,
    meter: MeterSettings,
    alerts: AlertSettings,
) -> int:
    """Write the events of a publication in its transaction; return how many are new.

    What ended longer ago than `alerts.age` is told to nobody, and that it is over up to `ENDS_FOR`
    afterwards to those who heard of it. What a backfill finds is not told
    either: only that something is over which people were told of. If what it found lasts, the next
    live publication writes that it opened.
    """
    events = []
    for change in changes.changes:
        age = at - (change.now.episode.last_at + meter.interval)
        for event in events_of_change(change, at):
            ends = event["event"] == ENDED
            if age <= (max(alerts.age, ENDS_FOR) if ends else alerts.age) and (
                ends or origin is not Origin.BACKFILL
            ):
                events.append(event)
    return add_incident_events(transaction, events)


def events_of_change(change: IncidentChange, at: datetime) -> Iterator[dict[str, Any]]:
    """The event of one changed incident: it opened, lasts, or is over.

    An incident that is over and that nobody has heard of has opened, too: it was over when it was
    found, or it was taken for the machine's new normal at first.
    """
    now = change.now
    if change.is_opened:
        yield _event(now, OPENED, at)
    elif change.is_closed and now.state in (State.CLOSED, State.WITHDRAWN):
        yield _event(now, ENDED, at)
    elif now.state in (State.OPEN, State.ACKNOWLEDGED):
        yield _event(now, LASTS, at)
    elif now.state is State.CLOSED and now.ended_at is not None and not now.settled:
        yield _event(now, FOUND_OVER, at)


def _event(incident: Incident, event: str, at: datetime) -> dict[str, Any]:
    return {
        "event": event,
        "kind": incident.episode.kind.value,
        "severity": incident.episode.severity.value,
        "incident_id": incident.incident_id,
        "created_at": at,
    }
