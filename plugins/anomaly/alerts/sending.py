"""Make messages of the events in the outbox, and send them: each once to each channel.

A sender that dies between sending and writing that down repeats that one message, under its number.
"""

import logging
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from anomaly.alerts.channels import ChannelError, Message, deliver
from anomaly.alerts.decisions import SAME_CAUSE, Decision, decide, unheard
from anomaly.alerts.events import ESCALATED, OPENED, WORSENED, Event, is_end
from anomaly.alerts.messages import facts_of, write_anyway, write_message
from anomaly.alerts.picture import day_picture
from anomaly.alerts.routes import Channel, channels, routes_of
from anomaly.database import alerts as outbox
from anomaly.database.connection import SCORER, Database, Transaction
from anomaly.database.results import verdicts_between
from anomaly.errors import AlertError
from anomaly.incidents.usual_band import HISTORY
from anomaly.readings.local_clocks import zone_or_utc
from anomaly.settings import AlertSettings, Settings
from anomaly.windows import Window

log = logging.getLogger(__name__)

LEASE = timedelta(minutes=5)
"""A sender that has not finished a message for so long is dead. Chosen."""
REMEMBERED = timedelta(days=31)
"""A URL that had its last message longer ago is nobody's predecessor. Chosen."""
LEAST_ATTEMPTS = 5
"""So often a message is tried, however old it was when a sender came to it. Chosen."""
_LONGEST_PAUSE = timedelta(hours=1)


@dataclass(frozen=True)
class Sent:
    """What a run of the sender did.

    Attributes
    ----------
    told, held, untold : int
        Events that messages were made of, that wait, and that nobody is told.
    sent, failed, given_up : int
        Messages.
    dropped : int
        Messages that had nothing left to say: it was heard, answered or corrected before.
    """

    told: int = 0
    held: int = 0
    untold: int = 0
    sent: int = 0
    failed: int = 0
    given_up: int = 0
    dropped: int = 0

    def __add__(self, other: "Sent") -> "Sent":
        return Sent(*(getattr(self, name) + getattr(other, name) for name in vars(self)))


def send_alerts(database: Database, settings: Settings, now: datetime) -> Sent:
    """Decide on the events that wait, and send every message that is due."""
    _take_over(database, settings.alerts, now)
    _escalate(database, settings.alerts, now)
    return make_messages(database, settings.alerts, now) + send_messages(database, settings, now)


def _take_over(database: Database, alerts: AlertSettings, now: datetime) -> None:
    """Let a new URL take the place of one of the same service that is gone from its route.

    So a changed password neither loses a message nor lets one be told twice.
    """
    known = {one.digest: one for one in channels(alerts.alert_routes)}
    with database.transaction(SCORER) as transaction:
        used = outbox.used_channels(transaction, now - REMEMBERED)
        gone = [(route, digest) for route, digest in used if digest not in known]
        if not gone:
            return
        outbox.lock_alerts(transaction)
        used_digests = {digest for _, digest in used}
        new = [one for one in known.values() if one.digest not in used_digests]
        for route, digest in gone:
            service = digest.partition("-")[0]
            place = next((n for n in new if (n.route, n.scheme) == (route, service)), None)
            if place is not None:
                new.remove(place)
                outbox.replace_channel(transaction, route, digest, place.digest)


def _escalate(database: Database, alerts: AlertSettings, now: datetime) -> None:
    """Write an event for each critical incident that nobody has answered in time."""
    if alerts.escalate_after is None:
        return
    with database.transaction(SCORER) as transaction:
        late = outbox.unanswered_incidents(transaction, now - alerts.escalate_after)
        events = [
            Event(
                key=f"incident:{row['incident_id']}:{row['times']}:{ESCALATED}",
                about=f"incident:{row['incident_id']}",
                event=ESCALATED,
                kind=row["kind"],
                severity="critical",
                created_at=now,
                incident_id=row["incident_id"],
            )
            for row in late
        ]
        outbox.add_events(transaction, map(vars, events))


# Make messages ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kept:
    """What keeps messages back at a moment."""

    now: datetime
    silences: Sequence[Mapping[str, Any]]
    false_alarms: Sequence[Mapping[str, Any]]
    alerts: AlertSettings

    @classmethod
    def read(cls, transaction: Transaction, now: datetime, alerts: AlertSettings) -> "_Kept":
        return cls(
            now,
            [dict(row) for row in outbox.list_silences(transaction, now)],
            [dict(row) for row in outbox.false_alarms_since(transaction, now - SAME_CAUSE)],
            alerts,
        )

    def decide(self, event: Mapping[str, Any]) -> Decision:
        return decide(event, self.now, self.silences, self.false_alarms, self.alerts)


def make_messages(database: Database, alerts: AlertSettings, now: datetime) -> Sent:
    """Decide on the events that wait, and make the messages of those that are told now."""
    with database.transaction(SCORER) as transaction:
        outbox.lock_alerts(transaction)
        events = [dict(row) for row in outbox.pending_events(transaction, now)]
        if not events:
            return Sent()
        kept = _Kept.read(transaction, now, alerts)
        told, held, decided = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
        for event in events:
            found, number = kept.decide(event), event["event_id"]
            if found.tells:
                told.append(event)
            elif found.until is not None:
                held.append({"event_id": number, "held_until": found.until, "decision": found.why})
            else:
                decided.append({"event_id": number, "decision": f"nobody is told: {found.why}"})
        outbox.hold_events(transaction, held)
        decided += _messages_of(transaction, told, alerts, now)
        outbox.decide_events(transaction, decided, now)
    untold = sum(one["decision"].startswith("nobody") for one in decided)
    return Sent(told=len(decided) - untold, held=len(held), untold=untold)


def _messages_of(
    transaction: Transaction,
    events: Sequence[Mapping[str, Any]],
    alerts: AlertSettings,
    now: datetime,
) -> list[dict[str, Any]]:
    """Make the messages; return what was decided on each event.

    That something is over goes to the channels that were to be told that it began.
    """
    known = {one.digest: one for one in channels(alerts.alert_routes)}
    by_channel: dict[Channel, list[Mapping[str, Any]]] = defaultdict(list)
    told_to: dict[str, dict[Channel, None]] = defaultdict(dict)  # what each is about, in order
    decided = []
    for event in events:
        if is_end(event["event"]):
            before = map(known.get, event["to_channels"])
            its = dict.fromkeys(one for one in before if one is not None) | told_to[event["about"]]
            untold = "nobody was told that it began"
        else:
            its = dict.fromkeys(
                channels(
                    routes_of(
                        alerts.alert_routes,
                        event["event"],
                        event["kind"],
                        event["severity_now"],
                        event["site"],
                    )
                )
            )
            told_to[event["about"]] |= its
            untold = "no route takes it"
        for channel in its:
            by_channel[channel].append(event)
        names = ", ".join(dict.fromkeys(channel.route for channel in its))
        says = f"told to {names}" if names else f"nobody is told: {untold}"
        decided.append({"event_id": event["event_id"], "decision": says})
    for channel, its_events in by_channel.items():
        for together in _grouped(its_events, alerts.alert_group_from):
            outbox.add_message(transaction, channel.route, channel.digest, together, now)
    return decided


def _grouped(events: Sequence[Mapping[str, Any]], least: int) -> list[list[int]]:
    """Numbers of the events of each message: from `least` machines on one for all that begins.

    So it is for what ends; what is about no machine has a message of its own.
    """
    messages: list[list[int]] = []
    for ends in (False, True):
        some = [
            one for one in events if one["incident_id"] is not None and is_end(one["event"]) is ends
        ]
        numbers = [one["event_id"] for one in some]
        many = len({one["machine_id"] for one in some}) >= least
        messages += [numbers] if many else [[number] for number in numbers]
    return messages + [[one["event_id"]] for one in events if one["incident_id"] is None]


# Send -----------------------------------------------------------------------------------


def send_messages(database: Database, settings: Settings, now: datetime) -> Sent:
    """Send every message that is due; a channel that fails gets no other one in this run."""
    known = {one.digest: one for one in channels(settings.alerts.alert_routes)}
    done, busy = Sent(), list[str]()
    began, started = now, time.monotonic()
    while True:
        now = began + timedelta(seconds=time.monotonic() - started)
        with database.transaction(SCORER) as transaction:
            row = outbox.claim_message(transaction, now, LEASE, busy)
            if row is None:
                return done
            channel = known.get(row["channel"])
            events = _still_told(transaction, row["message_id"], settings.alerts, now)
        if isinstance(events, Sent):
            done += events
            continue
        try:
            if channel is None:
                raise AlertError(f"the route {row['route']!r} has this URL no longer")
            with database.transaction(SCORER, read_only=True) as transaction:
                message, said = compose(transaction, events, row["message_id"], settings, now)
            deliver(channel, message, again=row["attempts"] > 1)
        except Exception as error:  # whatever is wrong with one message, the others are sent
            is_old = now - row["created_at"] >= settings.alerts.retry
            gives_up = channel is None or (is_old and row["attempts"] >= LEAST_ATTEMPTS)
            with database.transaction(SCORER) as transaction:
                outbox.message_failed(
                    transaction,
                    row["message_id"],
                    _why(error, row["message_id"]),
                    now + _pause(row["attempts"]),
                    gives_up=gives_up,
                )
            busy.append(row["channel"])
            done += Sent(failed=int(not gives_up), given_up=int(gives_up))
        else:
            with database.transaction(SCORER) as transaction:
                outbox.message_sent(transaction, row["message_id"], said)
            done += Sent(sent=1)


def _still_told(
    transaction: Transaction, message_id: int, alerts: AlertSettings, now: datetime
) -> list[dict[str, Any]] | Sent:
    """The events of a message that its channel is to be told now, each incident once.

    What has been answered, corrected or heard since the message was made is left out; what has
    been silenced since waits. Gives what was done with the message if nothing is left.
    """
    kept = _Kept.read(transaction, now, alerts)
    told: dict[str, dict[str, Any]] = {}
    waiting, why = list[tuple[datetime, int]](), "there is nothing to tell"
    for row in outbox.message_events(transaction, message_id):
        event = dict(row)
        found = kept.decide(event)
        if found.until is not None:
            waiting.append((found.until, event["event_id"]))
            why = found.why
        elif not found.tells or (heard := unheard(event)):
            why = found.why or heard
        elif event["about"] not in told:
            told[event["about"]] = event
    if told:
        if waiting:
            until = min(moment for moment, _ in waiting)
            outbox.split_message(transaction, message_id, [n for _, n in waiting], until, why)
        return list(told.values())
    if waiting:
        until = min(moment for moment, _ in waiting)
        outbox.postpone_message(transaction, message_id, until, why)
        return Sent(held=1)
    outbox.drop_message(transaction, message_id, why)
    return Sent(dropped=1)


def _why(error: Exception, message_id: int) -> str:
    if isinstance(error, ChannelError | AlertError):
        return str(error)
    log.error("message %s could not be made", message_id, exc_info=error)
    return repr(error)[:500]


def _pause(attempts: int) -> timedelta:
    """How long to wait after so many attempts: longer each time, and never quite the same."""
    pause = min(timedelta(minutes=2 ** min(attempts - 1, 10)), _LONGEST_PAUSE)
    return pause * random.uniform(0.8, 1.2)  # noqa: S311 - spreads waits, hides nothing


def compose(
    transaction: Transaction,
    events: Sequence[Mapping[str, Any]],
    message_id: int | None,
    settings: Settings,
    now: datetime,
) -> tuple[Message, list[dict[str, Any]]]:
    """The message about events, and what it says of each: how severe, and whether it is over.

    It has a picture where it is about one incident.
    """
    facts = [
        facts_of({**event, "event": _told_as(event)}, now, settings.meter, settings.incidents)
        for event in events
    ]
    message = write_anyway(facts, message_id, settings.alerts)
    said = [
        {
            "event_id": event["event_id"],
            "severity": event["severity_now"],
            "is_over": is_end(event["event"]) or event["ended_at"] is not None,
        }
        for event in events
    ]
    if len(events) > 1 or events[0]["incident_id"] is None or events[0]["state"] == "withdrawn":
        return message, said
    picture = _picture(transaction, events[0], settings, message.title)
    return replace(message, picture=picture), said


def _told_as(event: Mapping[str, Any]) -> str:
    """For who has not heard of an incident it opens, whatever has happened to it since."""
    name = str(event["event"])
    if name not in (OPENED, WORSENED):
        return name
    return OPENED if event["worst"] is None or event["heard_over"] else WORSENED


def compose_preview(
    transaction: Transaction, incident_id: int, event: str, settings: Settings, now: datetime
) -> Message:
    """The message that an incident opened, or is over, as it would be sent now.

    Raises
    ------
    AlertError
        When there is no such incident.
    """
    row = outbox.told_incident(transaction, min(incident_id, 2**63 - 1), event, now)
    if row is None:
        raise AlertError(
            f"there is no incident {incident_id}: `anomaly incidents --all` lists them"
        )
    facts = facts_of(row, now, settings.meter, settings.incidents)
    message = write_message([facts], None, settings.alerts)
    return replace(message, picture=_picture(transaction, row, settings, message.title))


def _picture(
    transaction: Transaction, event: Mapping[str, Any], settings: Settings, title: str
) -> bytes | None:
    interval = settings.meter.interval
    end = event["last_at"] + interval
    since, until = event["started_at"] - HISTORY, end + timedelta(hours=2)
    between = verdicts_between(transaction, event["machine_id"], since, until)
    rows = [dict(row) for row in between]
    if not rows:
        return None
    newest = max(row["utc_timestamp"] for row in rows) + interval
    clock = zone_or_utc(event["clock"])
    try:
        return day_picture(title, rows, Window(event["started_at"], end), newest, clock)
    except Exception:  # no message waits for its picture
        log.exception("no picture of incident %s", event["incident_id"])
        return None
