"""The tables ``anomaly.incidents`` and ``anomaly.acknowledgements``.

Rows are read and written as plain values. The room `anomaly.incidents` decides what an incident is
and which known incident an episode belongs to.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping

from anomaly.database.connection import Transaction
from anomaly.database.results import Origin, Ranges, as_arrays
from anomaly.windows import Window

# Read -----------------------------------------------------------------------------


def incident_row(transaction: Transaction, incident_id: int) -> RowMapping | None:
    """One incident; None if no incident has that number."""
    rows = transaction.rows("incidents/one", incident_id=incident_id)
    return rows[0] if rows else None


def known_incidents(transaction: Transaction, ranges: Ranges) -> Sequence[RowMapping]:
    """Incidents in any state that overlap the range of their machine."""
    return transaction.rows("incidents/known", **as_arrays(ranges))


def candidate_machines(
    transaction: Transaction,
    window: Window,
    machines: Sequence[int],
    quiet: Sequence[int],
    silent_since: datetime,
) -> list[int]:
    """Machines whose incidents a publication may have changed.

    These are the machines with an abnormal verdict or an incident in `window`, and the machines
    of `quiet` without a verdict since `silent_since`.
    """
    rows = transaction.rows(
        "incidents/candidates",
        start=window.start,
        end=window.end,
        machines=list(machines),
        quiet=list(quiet),
        silent_since=silent_since,
    )
    return [row["machine_id"] for row in rows]


def lasting_since(transaction: Transaction, machines: Sequence[int]) -> dict[int, datetime]:
    """Start of the earliest incident that still lasts, for each machine that has one."""
    rows = transaction.rows("incidents/lasting", machines=list(machines))
    return {row["machine_id"]: row["since"] for row in rows}


def list_incidents(
    transaction: Transaction,
    *,
    states: Sequence[str],
    incident_id: int | None,
    machine_id: int | None,
    start: datetime | None,
    end: datetime | None,
) -> Sequence[RowMapping]:
    """Incidents to show to people, newest first."""
    return transaction.rows(
        "incidents/list",
        states=list(states),
        incident_id=incident_id,
        machine_id=machine_id,
        start=start,
        end=end,
    )


def incidents_page(
    transaction: Transaction,
    *,
    machine_id: int | None,
    start: datetime | None,
    end: datetime | None,
    state: str | None,
    kind: str | None,
    severity: str | None,
    before: int | None,
    rows: int,
) -> Sequence[RowMapping]:
    """Incidents before a number, newest first, as ``bi.incidents`` has them."""
    return transaction.rows(
        "incidents/page",
        machine_id=machine_id,
        start=start,
        end=end,
        state=state,
        kind=kind,
        severity=severity,
        before=before,
        rows=rows,
    )


def open_incidents(transaction: Transaction) -> Sequence[RowMapping]:
    """Incidents that nobody has acknowledged yet, the worst first, then the newest."""
    return transaction.rows("incidents/open")


def count_unresolved(transaction: Transaction) -> Sequence[RowMapping]:
    """Number of incidents that are open or acknowledged, by ``severity`` and ``state``."""
    return transaction.rows("incidents/count_unresolved")


def latest_incidents(transaction: Transaction) -> Sequence[RowMapping]:
    """The newest few incidents."""
    return transaction.rows("incidents/latest")


def acknowledgements(transaction: Transaction, incident_id: int) -> Sequence[RowMapping]:
    """Who acknowledged an incident and when, earliest first."""
    return transaction.rows("incidents/acknowledgements", incident_id=incident_id)


def alert_rates(transaction: Transaction, start: datetime, end: datetime) -> dict[int, RowMapping]:
    """Alerts of each machine in a range, the time judged, and what people said about them."""
    rows = transaction.rows("incidents/alert_rates", start=start, end=end)
    return {row["machine_id"]: row for row in rows}


# Write ----------------------------------------------------------------------------


def insert_incidents(
    transaction: Transaction,
    incidents: Iterable[Mapping[str, Any]],
    *,
    origin: Origin,
    at: datetime,
) -> dict[tuple[int, str, datetime], int]:
    """Insert new incidents, each given as its columns.

    Returns
    -------
    dict
        The number of each new incident, by its machine, kind and start.
    """
    rows = transaction.rows(
        "incidents/insert", incidents=_as_json(incidents), origin=origin.value, at=at
    )
    return {(row["machine_id"], row["kind"], row["started_at"]): row["incident_id"] for row in rows}


def update_incidents(
    transaction: Transaction, incidents: Iterable[Mapping[str, Any]], *, at: datetime
) -> None:
    """Update known incidents, each given as its columns with ``incident_id``."""
    transaction.run("incidents/update", incidents=_as_json(incidents), at=at)


def acknowledge(
    transaction: Transaction, incident_id: int, *, by: str, at: datetime
) -> RowMapping | None:
    """Acknowledge an incident; return its machine and times, or None if it is not open."""
    rows = transaction.rows("incidents/acknowledge", incident_id=incident_id, by=by, at=at)
    if rows:
        transaction.run("incidents/insert_acknowledgement", incident_id=incident_id, by=by, at=at)
    return rows[0] if rows else None


def _as_json(incidents: Iterable[Mapping[str, Any]]) -> str:
    return json.dumps([dict(incident) for incident in incidents], default=datetime.isoformat)
