"""How much is read and published at once."""

from datetime import timedelta

from anomaly.database.connection import SCORER, Database
from anomaly.database.machines import count_machines
from anomaly.settings import ScoringSettings


def longest_chunk(database: Database, scoring: ScoringSettings, interval: timedelta) -> timedelta:
    """The longest range that is read at once, so that memory stays flat.

    ``chunk_days``, and no more readings than ``chunk_readings`` where every machine has one per
    interval; at least one interval.
    """
    with database.transaction(SCORER, read_only=True) as transaction:
        machines = count_machines(transaction)
    intervals = max(1, scoring.chunk_readings // max(1, machines))
    return min(scoring.chunk, intervals * interval)
