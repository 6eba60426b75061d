"""The ledger ``anomaly.scoring_runs``: one row per published window, and the publishing lock.

A row holds the window, who asked for it, the counts, and the range of the verdicts that were
written. Its key is the fencing token of the attempt.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping

from anomaly import __version__
from anomaly.database.connection import SCORER, Database, Transaction
from anomaly.database.results import Origin
from anomaly.windows import Window


@dataclass(frozen=True)
class RequestedBy:
    """Who asked for a window: an Airflow run, or a command."""

    command: str
    dag_id: str | None = None
    dag_run_id: str | None = None


@dataclass(frozen=True)
class LiveCoverage:
    """The time that live runs have covered.

    Attributes
    ----------
    watermark : datetime or None
        End of the range that live runs have covered without a gap.
    ingested_through : datetime or None
        Newest ``ingested_at`` that a live run has read.
    """

    watermark: datetime | None
    ingested_through: datetime | None


# The publishing lock and tokens ---------------------------------------------------


def lock_publishing(transaction: Transaction) -> datetime:
    """Wait until nobody else publishes or promotes, then lock; return the current time.

    The lock is held until the transaction ends. The time is taken after the lock is held, so
    that publications have times in their order.
    """
    published_at: datetime = transaction.value("scoring_runs/lock_publishing")
    return published_at


def draw_token(database: Database) -> int:
    """Draw the fencing token of an attempt.

    An attempt draws it before it reads anything. Of two attempts on overlapping windows the
    higher token wins.
    """
    with database.transaction(SCORER) as transaction:
        return int(transaction.value("scoring_runs/draw_token"))


# What was published -----------------------------------------------------------------


def count_overlapping(
    transaction: Transaction, window: Window, machines: Sequence[int] | None = None
) -> int:
    """How many published windows overlap `window`, of `machines` (default: all)."""
    span = {"start": window.start, "end": window.end, "machines": _listed(machines)}
    return int(transaction.value("scoring_runs/count_overlapping", **span))


def newer_overlapping(
    transaction: Transaction, run_id: int, window: Window, machines: Sequence[int] | None = None
) -> int | None:
    """The token of a newer run that published an overlapping window; None if there is none.

    Parameters
    ----------
    machines : sequence of int, optional
        Runs of other machines do not count; default: all do.
    """
    rows = transaction.rows(
        "scoring_runs/newer_overlapping",
        run_id=run_id,
        start=window.start,
        end=window.end,
        machines=_listed(machines),
    )
    return int(rows[0]["run_id"]) if rows else None


def scored_to(transaction: Transaction) -> datetime | None:
    """End of everything scored so far; None before anything is scored."""
    found: datetime | None = transaction.value("scoring_runs/scored_to")
    return found


def readings_to(transaction: Transaction) -> datetime | None:
    """End of the newest interval that has been judged, of any machine; None before the first."""
    found: datetime | None = transaction.value("scoring_runs/readings_to")
    return found


def live_coverage(transaction: Transaction) -> LiveCoverage:
    """The time that live runs have covered."""
    return LiveCoverage(**transaction.row("scoring_runs/live_coverage"))


def last_live_run(transaction: Transaction) -> datetime | None:
    """When a live run has published last; None: never."""
    found: datetime | None = transaction.value("scoring_runs/last_live")
    return found


def last_runs(transaction: Transaction) -> Sequence[RowMapping]:
    """The last published windows that held readings or changed something, newest first."""
    return transaction.rows("scoring_runs/last_runs")


def late_and_repaired(transaction: Transaction, since: datetime) -> RowMapping:
    """How many verdicts were written late, and how many were repaired, since a moment."""
    return transaction.row("scoring_runs/late_and_repaired", since=since)


def totals(transaction: Transaction) -> Sequence[RowMapping]:
    """What all windows have changed, and when the last one was published, per origin.

    Rows of the ledger that were deleted meanwhile still count.
    """
    return transaction.rows("scoring_runs/totals")


def live_since(transaction: Transaction, since: datetime) -> RowMapping:
    """How many verdicts live runs have judged since a moment, and how many were abnormal."""
    return transaction.row("scoring_runs/live_since", since=since)


# Record -------------------------------------------------------------------------------


def record_run(
    transaction: Transaction,
    run_id: int,
    window: Window,
    written: Window,
    requested_by: RequestedBy,
    origin: Origin,
    *,
    counts: Mapping[str, int],
    meter_interval: timedelta,
    stale_after: timedelta | None,
    published_at: datetime,
    readings_to: datetime | None,
    ingested_through: datetime | None,
    machines: Sequence[int] | None = None,
    backfill_id: int | None = None,
) -> None:
    """Record a published window.

    Parameters
    ----------
    written : Window
        From the first to the last verdict that was computed again.
    counts : mapping
        ``readings``, ``missing``, ``duplicates``, ``scored``, ``inserted``, ``late``,
        ``updated``, ``unchanged``, ``retracted``, ``retraction_withheld`` and ``anomalies``.
    machines : sequence of int, optional
        That were scored; default: all.
    """
    transaction.run(
        "scoring_runs/record",
        **counts,
        **asdict(requested_by),
        run_id=run_id,
        start=window.start,
        end=window.end,
        written_from=written.start,
        written_to=written.end,
        origin=origin.value,
        meter_interval=meter_interval,
        stale_after=stale_after,
        published_at=published_at,
        readings_to=readings_to,
        ingested_through=ingested_through,
        machines=_listed(machines),
        backfill_id=backfill_id,
        package_version=__version__,
    )


def record_changes(transaction: Transaction, run_id: int, changes: Mapping[str, Any]) -> None:
    """Add to the row of a published window what it changed, for the report of its backfill."""
    transaction.run("scoring_runs/record_changes", run_id=run_id, changes=json.dumps(changes))


def _listed(machines: Sequence[int] | None) -> list[int] | None:
    return None if machines is None else list(machines)


def open_coverage(
    transaction: Transaction, run_id: int, moment: datetime, requested_by: RequestedBy
) -> None:
    """Let live coverage begin at a moment before anything is scored."""
    span: dict[str, Any] = {"run_id": run_id, "moment": moment}
    transaction.run("scoring_runs/open_coverage", **span, **asdict(requested_by))


def record_removal(
    transaction: Transaction, machine_id: int, reach: timedelta, command: str
) -> None:
    """Record that a machine is about to be removed, so that attempts under way start again.

    `reach` is how far back from the end of what is scored they may have read it.
    """
    transaction.run(
        "scoring_runs/record_removal",
        machine_id=machine_id,
        reach=reach,
        command=command,
        package_version=__version__,
    )
