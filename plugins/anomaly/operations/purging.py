"""Delete verdicts, replaced verdicts and ledger rows that are older than is kept."""

from dataclasses import dataclass
from datetime import datetime

from anomaly.database.connection import SCORER, Database
from anomaly.database.retention import (
    delete_history_before,
    delete_ledger_before,
    drop_results_before,
)
from anomaly.database.scoring_runs import lock_publishing
from anomaly.settings import RetentionSettings


@dataclass(frozen=True)
class Purged:
    """What was deleted."""

    months_of_results: int = 0
    replaced_verdicts: int = 0
    ledger_rows: int = 0


def purge(database: Database, retention: RetentionSettings, as_of: datetime) -> Purged:
    """Delete what is older at `as_of` than the settings keep; safe to repeat.

    Each kind is deleted in a transaction of its own. Readings, models, incidents and labels stay.
    A range that is scored again after its verdicts were deleted has verdicts until the next purge.
    """
    months = history = ledger = 0
    if moment := retention.oldest(retention.keep_results_months, as_of):
        with database.transaction(SCORER) as transaction:
            lock_publishing(transaction)
            months = drop_results_before(transaction, moment)
    if moment := retention.oldest(retention.keep_history_months, as_of):
        with database.transaction(SCORER) as transaction:
            history = delete_history_before(transaction, moment)
    if moment := retention.oldest(retention.keep_ledger_months, as_of):
        with database.transaction(SCORER) as transaction:
            ledger = delete_ledger_before(transaction, moment)
    return Purged(months, history, ledger)
