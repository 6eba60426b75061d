"""The outbox ``anomaly.alert_events``, and the messages, silences and checks beside it.

An event is written once, by its key. The room `anomaly.alerts` decides what becomes of it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping

from anomaly.database.connection import Transaction

AT_ONCE = 10_000
"""Most events that are decided in one transaction. Chosen."""

# Events -------------------------------------------------------------------------------


def add_events(transaction: Transaction, events: Iterable[Mapping[str, Any]]) -> int:
    """Write events; return how many are new.

    Parameters
    ----------
    events : iterable of mapping
        ``key``, ``about``, ``event``, ``kind``, ``severity``, ``incident_id``, ``says``,
        ``created_at``.
    """
    rows = list(events)
    if not rows:
        return 0
    return len(transaction.rows("alerts/add", events=json.dumps(rows, default=str)))


def add_incident_events(transaction: Transaction, events: Iterable[Mapping[str, Any]]) -> int:
    """Write events of incidents where nothing written says the same yet; return how many are new.

    Parameters
    ----------
    events : iterable of mapping
        ``event`` (opened, lasts or ended), ``kind``, ``severity``, ``incident_id``,
        ``created_at``. What lasts has opened if nothing was written of it, and become more severe
        if nothing as severe was.
    """
    rows = list(events)
    if not rows:
        return 0
    return len(transaction.rows("alerts/add_of_incidents", events=json.dumps(rows, default=str)))


def lock_alerts(transaction: Transaction) -> None:
    """Wait until nobody else makes messages; held until the transaction ends."""
    transaction.run("alerts/lock")


def pending_events(transaction: Transaction, now: datetime) -> Sequence[RowMapping]:
    """Events to decide on now, in their order, at most `AT_ONCE`; those that wait are left out."""
    return transaction.rows("alerts/pending", most=AT_ONCE, now=now)


def false_alarms_since(transaction: Transaction, since: datetime) -> Sequence[RowMapping]:
    """Incidents that people have called false alarms since a moment."""
    return transaction.rows("alerts/false_alarms", since=since)


def hold_events(transaction: Transaction, held: Sequence[Mapping[str, Any]]) -> None:
    """Let events wait: ``event_id``, ``held_until`` and ``decision`` of each."""
    if held:
        transaction.run("alerts/hold", held=json.dumps(held, default=str))


def decide_events(
    transaction: Transaction, decided: Sequence[Mapping[str, Any]], at: datetime
) -> None:
    """Record what was decided: ``event_id`` and ``decision`` of each."""
    if decided:
        transaction.run("alerts/decide", decided=json.dumps(decided), at=at)


def message_events(transaction: Transaction, message_id: int) -> Sequence[RowMapping]:
    """What a message is to tell, as it is now, and what its channel has heard of the same."""
    return transaction.rows("alerts/of_message", message_id=message_id)


def told_incident(
    transaction: Transaction, incident_id: int, event: str, at: datetime
) -> dict[str, Any] | None:
    """An incident as `message_events` would give it for an event; None: there is none."""
    rows = transaction.rows("alerts/told_incident", incident_id=incident_id, event=event, at=at)
    return dict(rows[0]) if rows else None


def list_events(
    transaction: Transaction, most: int, *, only_failed: bool = False
) -> Sequence[RowMapping]:
    """Events and what became of their messages, newest first."""
    return transaction.rows("alerts/list", most=most, only_failed=only_failed)


def unanswered_incidents(transaction: Transaction, before: datetime) -> Sequence[RowMapping]:
    """Open critical incidents that messages were made of before a moment."""
    return transaction.rows("alerts/unanswered", before=before)


def unended(transaction: Transaction, event: str) -> str | None:
    """What the newest `event` of the pipeline without an end is about; None: there is none."""
    rows = transaction.rows("alerts/unended", event=event)
    return str(rows[0]["about"]) if rows else None


# Messages -----------------------------------------------------------------------------


def add_message(
    transaction: Transaction, route: str, channel: str, events: Sequence[int], at: datetime
) -> int:
    """Make a message to one channel; return its number."""
    rows = transaction.rows(
        "alerts/add_message", route=route, channel=channel, events=list(events), at=at
    )
    return int(rows[0]["message_id"])


def claim_message(
    transaction: Transaction, now: datetime, lease: timedelta, busy: Sequence[str]
) -> RowMapping | None:
    """Take the oldest message that is due, of channels that are not `busy`; None: there is none.

    If its sender dies, it is due again after `lease`.
    """
    rows = transaction.rows("alerts/claim", now=now, lease=lease, busy=list(busy))
    return rows[0] if rows else None


def used_channels(transaction: Transaction, since: datetime) -> list[tuple[str, str]]:
    """Route and channel of the messages made since a moment, each pair once."""
    rows = transaction.rows("alerts/used_channels", since=since)
    return [(row["route"], row["channel"]) for row in rows]


def replace_channel(transaction: Transaction, route: str, gone: str, channel: str) -> None:
    """Let a channel take the place of another one of its route, with all that it has heard."""
    transaction.run("alerts/move", route=route, gone=gone, channel=channel)


def message_sent(
    transaction: Transaction, message_id: int, said: Sequence[Mapping[str, Any]]
) -> None:
    """Record that a channel has taken a message.

    Parameters
    ----------
    said : sequence of mapping
        ``event_id``, ``severity`` and ``is_over`` of each event that it told.
    """
    transaction.run("alerts/sent", message_id=message_id, said=json.dumps(said))


def drop_message(transaction: Transaction, message_id: int, why: str) -> None:
    """Record that a message has nothing left to say."""
    transaction.run("alerts/drop", message_id=message_id, why=why)


def postpone_message(transaction: Transaction, message_id: int, until: datetime, why: str) -> None:
    """Let a message wait; that was no attempt."""
    transaction.run("alerts/postpone", message_id=message_id, until=until, why=why)


def split_message(
    transaction: Transaction, message_id: int, events: Sequence[int], until: datetime, why: str
) -> None:
    """Let some events of a message wait, in a message of their own."""
    transaction.run(
        "alerts/split", message_id=message_id, events=list(events), until=until, why=why
    )


def message_failed(
    transaction: Transaction,
    message_id: int,
    error: str,
    next_attempt: datetime,
    *,
    gives_up: bool,
) -> None:
    """Record why a channel has not taken a message, and when it is tried again, if it is."""
    transaction.run(
        "alerts/failed",
        message_id=message_id,
        error=error,
        next_attempt=next_attempt,
        gives_up=gives_up,
    )


def forget_empty_messages(transaction: Transaction) -> int:
    """Delete messages whose events are gone; return how many there were."""
    return transaction.run("alerts/forget_empty")


def count_waiting(transaction: Transaction) -> tuple[int, int]:
    """How many events wait for a decision, and how many messages for being sent."""
    row = transaction.row("alerts/waiting")
    return row["events"], row["messages"]


def undelivered(transaction: Transaction, since: datetime) -> Sequence[RowMapping]:
    """How many messages were given up since a moment, per route."""
    return transaction.rows("alerts/undelivered", since=since)


# Silences and checks --------------------------------------------------------------------


def list_silences(transaction: Transaction, now: datetime) -> Sequence[RowMapping]:
    """Silences that have not ended, the newest first."""
    return transaction.rows("alerts/silences", now=now)


def add_silence(
    transaction: Transaction,
    ends_at: datetime,
    *,
    machine_id: int | None = None,
    site: str | None = None,
    note: str = "",
    by: str,
) -> int:
    """Silence a machine, a site, or everything, until a moment; return its number."""
    return int(
        transaction.value(
            "alerts/add_silence",
            machine_id=machine_id,
            site=site,
            ends_at=ends_at,
            note=note,
            by=by,
        )
    )


def end_silence(transaction: Transaction, silence_id: int) -> datetime | None:
    """End a silence now; return its end, None if there is no such silence."""
    rows = transaction.rows("alerts/end_silence", silence_id=silence_id)
    return rows[0]["ends_at"] if rows else None


def note_check(transaction: Transaction, name: str, at: datetime) -> None:
    """Note that a check has run."""
    transaction.run("alerts/checked", name=name, at=at)


def last_check(transaction: Transaction, name: str) -> datetime | None:
    """When a check has run last; None: never."""
    found: datetime | None = transaction.value("alerts/last_checked", name=name)
    return found
