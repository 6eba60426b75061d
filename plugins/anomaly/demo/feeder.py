"""Append generated readings to the demo's meter table as each quarter-hour ends.

Run it with ``python -m anomaly.demo.feeder --start 2024-01-01 --seed 7``. It runs until SIGTERM or
SIGINT. The database is ``ANOMALY_DATABASE_URL``.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from threading import Event

from anomaly.database.connection import Database
from anomaly.database.meter_table_loading import Staged, open_meter_table
from anomaly.demo.generator import INTERVAL, generate
from anomaly.errors import AnomalyError
from anomaly.settings import Layout, Settings, load_settings
from anomaly.windows import ceil_to_interval, floor_to_interval, parse_moment

RETRY = timedelta(seconds=10)  # chosen
# A wait does not go on while the computer sleeps, so it is done in short pieces. Chosen.
LONGEST_WAIT = timedelta(seconds=60)

log = logging.getLogger("anomaly.demo.feeder")


def append_missing(database: Database, start: datetime, now: datetime, seed: int) -> int:
    """Insert the generated rows of ``[start, now)`` that are missing in the meter table.

    Only quarter-hours that have ended by `now` count. Rows that are in the table already stay
    as they are.

    Returns
    -------
    int
        How many rows were inserted; 0 when it is repeated.

    Raises
    ------
    DatabaseError, SourceError
        When the database cannot be reached or is not migrated. Nothing is inserted then.
    """
    end = floor_to_interval(now, INTERVAL)
    if end <= ceil_to_interval(start, INTERVAL):
        return 0
    readings = generate(start, end, seed=seed).frame
    with open_meter_table(
        database, _settings().meter_table, _settings().meter, loading="generated readings"
    ) as table:
        table.expect(Staged([readings.columns[0]], [*readings.columns]))
        table.stage(readings)
        return table.insert_new()


def _settings() -> Settings:
    """Settings with our own table, whatever the environment says."""
    return load_settings(
        {},
        source_schema="anomaly",
        source_table="meter_readings",
        source_layout=Layout.WIDE,
        source_timestamp_column="utc_timestamp",
        source_ingested_at_column="ingested_at",
        source_machines={},
    )


def feed(database: Database, start: datetime, seed: int, stop: Event) -> None:
    """Append readings as soon as each quarter-hour ends, until `stop` is set.

    There is no delay, because the tick that scores them starts at the same moment.
    """
    due = datetime.now(UTC)
    while not stop.is_set():
        now = datetime.now(UTC)
        if now >= due:
            due = _append(database, start, now, seed)
        stop.wait(min(max(due - now, timedelta(0)), LONGEST_WAIT).total_seconds())


def _append(database: Database, start: datetime, now: datetime, seed: int) -> datetime:
    """Append the missing readings; return when to do so again. A failure is only logged."""
    try:
        rows = append_missing(database, start, now, seed)
    except AnomalyError as error:
        log.warning("%s; trying again in %d s", error, RETRY.total_seconds())
        return now + RETRY
    log.info("%d rows appended", rows)
    return floor_to_interval(now, INTERVAL) + INTERVAL


def main(arguments: Sequence[str] | None = None) -> None:
    """Feed the database in ``ANOMALY_DATABASE_URL`` until a signal stops it."""
    parser = argparse.ArgumentParser(prog="python -m anomaly.demo.feeder", description=__doc__)
    parser.add_argument("--start", required=True, help="ISO 8601: when the counters began")
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args(arguments)
    if chosen.seed < 0:
        parser.error(f"--seed is {chosen.seed}: it must not be negative")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = load_settings()
        feed(
            Database(settings.database.database_url, settings.database),
            parse_moment(chosen.start),
            chosen.seed,
            stop,
        )
    except AnomalyError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
