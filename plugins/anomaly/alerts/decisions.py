"""Decide on events: who is told now, what waits, and what nobody is told, each with its reason."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

from anomaly.alerts.events import ENDED, ESCALATED, WORSENED, is_end
from anomaly.incidents.incident import State
from anomaly.readings.local_clocks import zone_or_utc
from anomaly.settings import AlertSettings, AlertSeverity

SAME_CAUSE = timedelta(weeks=1)
"""So long after a false alarm nobody is told of the same cause again."""
RECHECK = timedelta(minutes=15)
"""When it is not known how long an event has to wait, it is looked at again after this. Chosen."""
_PEOPLE_SAID = "people said what it is"
_SILENCED = "silenced by"

_WORDS = re.compile(r"[^\W\d_]{2,}")
_SAYS_HOW_MUCH = {
    "kW", "kWh", "min", "week", "weeks", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun",
}  # fmt: skip


@dataclass(frozen=True)
class Decision:
    """What becomes of an event.

    Attributes
    ----------
    tells : bool
        It is told now.
    until : datetime or None
        It waits until then.
    why : str
        Why it waits, or why nobody is told.
    """

    tells: bool = False
    until: datetime | None = None
    why: str = ""


def decide(
    event: Mapping[str, Any],
    now: datetime,
    silences: Sequence[Mapping[str, Any]],
    false_alarms: Sequence[Mapping[str, Any]],
    alerts: AlertSettings,
) -> Decision:
    """Decide on one event, when messages are made of it, and again before each is sent.

    Parameters
    ----------
    event : mapping
        A row of `anomaly.database.alerts.pending_events`, or of `message_events`.
    silences : sequence of mapping
        Those that have not ended.
    false_alarms : sequence of mapping
        Incidents that people called false alarms within `SAME_CAUSE`.
    """
    found = (
        _of_pipeline(event)
        if event["incident_id"] is None
        else _of_incident(event, now, false_alarms)
    )
    if found is not None:
        return found
    if silence := _silence(event, silences):
        who = silence["silenced_by"]
        return Decision(until=silence["ends_at"], why=f"{_SILENCED} {who}")
    if alerts.quiet_hours and not _disturbs(event):
        end = quiet_until(now, event["clock"] or "UTC", *alerts.quiet_hours)
        if end is not None:
            return Decision(until=end, why="quiet hours")
    since = max(
        moment
        for name in ("created_at", "held_until", "last_at", "ended_at")
        if (moment := event[name]) is not None
    )
    if event["decided_at"] is None and now - since > alerts.age:
        return Decision(why=f"older than {alerts.alert_age_hours:g} h when it could be sent")
    return Decision(tells=True)


def _of_incident(
    event: Mapping[str, Any], now: datetime, false_alarms: Sequence[Mapping[str, Any]]
) -> Decision | None:
    state, is_over = State(event["state"]), event["ended_at"] is not None
    if state is State.MERGED:
        return Decision(why="it is a part of another incident now")
    if event["event"] == ENDED:
        if state is State.CLOSED and not is_over and not event["settled"]:
            return Decision(why=_PEOPLE_SAID)
        if state not in (State.CLOSED, State.SILENCED, State.WITHDRAWN):
            return Decision(why="it came back")
        return None
    if state is State.WITHDRAWN:
        return Decision(why="its readings were corrected")
    if state is State.SILENCED and is_over:
        return Decision(why="it was over during maintenance")
    if state is State.SILENCED:
        return Decision(until=now + RECHECK, why="maintenance")
    # Worse than when somebody took it on is told all the same.
    if event["acknowledged_by"] and (event["event"] != WORSENED or is_over):
        return Decision(why=f"{event['acknowledged_by']} has taken it on")
    if event["label"] and (event["event"] != WORSENED or state is not State.ACKNOWLEDGED):
        return _unless_over(event, now, _PEOPLE_SAID)
    if state is State.CLOSED and event["settled"]:
        return Decision(why="it has become the machine's new normal")
    if event["event"] == ESCALATED and state is not State.OPEN:
        return Decision(why="it is over")
    if is_over and (event["waited"] or "").startswith(_SILENCED):
        return Decision(why="it was over before the silence ended")
    for other in false_alarms:
        if (
            other["machine_id"] == event["machine_id"]
            and other["kind"] == event["kind"]
            and AlertSeverity(event["severity_now"]).rank <= AlertSeverity(other["severity"]).rank
            and cause(other["reason"]) == cause(event["reason"])
        ):
            label = f"label {other['label_id']} by {other['labelled_by']}"
            return _unless_over(event, now, f"the same was a false alarm ({label})")
    return None


def _unless_over(event: Mapping[str, Any], now: datetime, why: str) -> Decision:
    """People may take back what they said; while the incident lasts, it is told then."""
    return Decision(until=None if event["ended_at"] else now + RECHECK, why=why)


def _of_pipeline(event: Mapping[str, Any]) -> Decision | None:
    """What is over when it can be told is not told: neither that it began, nor that it is over."""
    return Decision(why="it was over before") if event["is_over"] else None


def _disturbs(event: Mapping[str, Any]) -> bool:
    """Whether an event is told in quiet hours: what is critical, and not that it is over."""
    return event["severity_now"] == AlertSeverity.CRITICAL and not is_end(event["event"])


def unheard(event: Mapping[str, Any]) -> str:
    """Why a channel need not be told an event, by what it has heard; empty: it is to be told.

    Parameters
    ----------
    event : mapping
        A row of `anomaly.database.alerts.message_events`.
    """
    worst, over = event["worst"], event["heard_over"]
    if is_end(event["event"]):
        if over is None:
            return "it was not told that it began"
        return "it was told so before" if over else ""
    if event["event"] == ESCALATED or event["incident_id"] is None or worst is None or over:
        return ""
    is_worse = AlertSeverity(event["severity_now"]).rank > AlertSeverity(worst).rank
    return "" if is_worse else "it was told so before"


def cause(reason: str) -> str:
    """The words of a reason without its numbers and units: two of the same cause have the same.

    Examples
    --------
    >>> cause("36.2 kW, 122 % above the usual 16.3 kW, on average over 4.0 h from Mon 2026-03-02")
    'above the usual on average over from'
    """
    return " ".join(word for word in _WORDS.findall(reason) if word not in _SAYS_HOW_MUCH)


def _silence(
    event: Mapping[str, Any], silences: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The silence over an event that ends last."""
    of_it = [
        silence
        for silence in silences
        if (silence["machine_id"] is None and silence["site"] is None)
        or (silence["machine_id"] is not None and silence["machine_id"] == event["machine_id"])
        or (silence["site"] is not None and silence["site"] == event["site"])
    ]
    return max(of_it, key=lambda silence: silence["ends_at"], default=None)


def quiet_until(now: datetime, clock: str, start: time, end: time) -> datetime | None:
    """End of the quiet hours by a clock, if `now` lies in them."""
    local = now.astimezone(zone_or_utc(clock))
    at = local.time()
    overnight = end <= start
    if not (start <= at < end or (overnight and (at >= start or at < end))):
        return None
    day = local.date() + timedelta(days=int(overnight and at >= start))
    return datetime.combine(day, end, tzinfo=local.tzinfo)
