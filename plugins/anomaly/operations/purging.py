"""Delete verdicts, replaced verdicts, ledger rows and alerts that are older than is kept."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from anomaly.database.connection import SCORER, Database, Transaction
from anomaly.database.retention import (
    delete_alerts_before,
    delete_history_before,
    delete_ledger_before,
    drop_results_before,
)
from anomaly.database.scoring_runs import lock_publishing
from anomaly.settings import RetentionSettings

AT_ONCE = 50_000
"""Rows that are deleted in one transaction. Chosen: that takes a second or so."""


_EVERY = 2**31 - 1


@dataclass(frozen=True)
class Purged:
    """What was deleted."""

    months_of_results: int = 0
    replaced_verdicts: int = 0
    ledger_rows: int = 0
    alert_events: int = 0


def purge(
    database: Database, retention: RetentionSettings, as_of: datetime, *, dry_run: bool = False
) -> Purged:
    """Delete what is older at `as_of` than the settings keep; safe to repeat.

    Months are dropped in one transaction, rows are deleted in many. If it is stopped, what is
    deleted stays deleted, and the next purge goes on. Readings, models, incidents and labels stay.
    A range that is scored again after its verdicts were deleted has verdicts until the next purge.
    A dry run deletes all at once and rolls back.
    """
    months = history = ledger = alerts = 0
    if moment := retention.oldest(retention.keep_results_months, as_of):
        with database.transaction(SCORER) as transaction:
            lock_publishing(transaction)
            months = drop_results_before(transaction, moment)
            if dry_run:
                transaction.rollback()
    if moment := retention.oldest(retention.keep_history_months, as_of):
        history = _all(database, delete_history_before, moment, dry_run)
    if moment := retention.oldest(retention.keep_ledger_months, as_of):
        ledger = _all(database, delete_ledger_before, moment, dry_run)
        alerts = _all(database, delete_alerts_before, moment, dry_run)
    return Purged(months, history, ledger, alerts)


def _all(
    database: Database,
    delete: Callable[[Transaction, datetime, int], int],
    moment: datetime,
    dry_run: bool,
) -> int:
    """Delete in transactions of `AT_ONCE` rows; return how many rows it were."""
    if dry_run:
        with database.transaction(SCORER) as transaction:
            would = delete(transaction, moment, _EVERY)
            transaction.rollback()
        return would
    total, deleted = 0, AT_ONCE
    while deleted == AT_ONCE:
        with database.transaction(SCORER) as transaction:
            deleted = delete(transaction, moment, AT_ONCE)
        total += deleted
    return total
