"""The tables ``anomaly.backfills`` and ``anomaly.backfill_pieces``: what is asked and done."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping

from anomaly.database.connection import Transaction
from anomaly.database.scoring_runs import RequestedBy
from anomaly.windows import Window

ALL_MACHINES = (0, 2**31 - 1)
"""First and last machine of a piece that is not of a group."""


def begin_backfill(
    transaction: Transaction,
    window: Window,
    machines: Sequence[int] | None,
    version: int | None,
    mode: str,
    chunk: timedelta,
    piece: timedelta,
    requested_by: RequestedBy,
) -> int:
    """Record a backfill that begins to write; return its number."""
    asked = asdict(requested_by)
    del asked["dag_id"]
    return int(
        transaction.value(
            "backfills/begin",
            start=window.start,
            end=window.end,
            machines=None if machines is None else list(machines),
            version=version,
            mode=mode,
            chunk=chunk,
            piece=piece,
            **asked,
        )
    )


def backfill_rows(transaction: Transaction, backfill_id: int) -> Sequence[RowMapping]:
    """A backfill as it was asked for: one row, or none."""
    return transaction.rows("backfills/one", backfill_id=backfill_id)


def unfinished_backfill(transaction: Transaction, dag_run_id: str) -> int | None:
    """The newest backfill of a run that is not finished; None: there is none."""
    rows = transaction.rows("backfills/unfinished", dag_run_id=dag_run_id)
    return int(rows[0]["backfill_id"]) if rows else None


def stopped_backfills(transaction: Transaction, since: datetime) -> list[int]:
    """Backfills with a version that are not finished and have done nothing since a moment."""
    rows = transaction.rows("backfills/stopped", since=since)
    return [int(row["backfill_id"]) for row in rows]


def backfill_progress(transaction: Transaction, since: datetime) -> Sequence[RowMapping]:
    """How much of each unfinished backfill is done, the newest first, at most 20.

    One that has done nothing since a moment is left out, unless it has put a version in force.
    """
    return transaction.rows("backfills/progress", since=since)


def finished_pieces(transaction: Transaction, backfill_id: int) -> Sequence[RowMapping]:
    """Pieces that are finished: their ends, first and last machine, and ``readings``."""
    return transaction.rows("backfills/finished_pieces", backfill_id=backfill_id)


def finish_piece(
    transaction: Transaction,
    backfill_id: int,
    window: Window,
    machines: tuple[int, int],
    readings: int,
) -> None:
    """Record that a piece is finished; safe to repeat.

    Pieces that overlap it, because readings have come that made the cut another one, are no longer
    counted.
    """
    piece: dict[str, Any] = {"backfill_id": backfill_id, "start": window.start, "end": window.end}
    piece |= dict(zip(("first_machine", "last_machine"), machines, strict=True))
    transaction.run("backfills/forget_overlapping", **piece)
    transaction.run("backfills/finish_piece", **piece, readings=readings)


def seconds_taken(transaction: Transaction, backfill_id: int) -> float:
    """How long a backfill has taken, or how long ago it began, seconds."""
    return float(transaction.value("backfills/seconds_taken", backfill_id=backfill_id))


def published_windows(transaction: Transaction, backfill_id: int) -> Sequence[RowMapping]:
    """What the windows of a backfill have changed: counts, and ``changes`` as JSON."""
    return transaction.rows("backfills/published", backfill_id=backfill_id)


def keep_report(
    transaction: Transaction, backfill_id: int, report: Mapping[str, Any], *, is_finished: bool
) -> None:
    """Keep the report of a backfill."""
    transaction.rows(
        "backfills/finish",
        backfill_id=backfill_id,
        report=json.dumps(report),
        is_finished=is_finished,
    )
