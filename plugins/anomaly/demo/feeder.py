"""Append generated readings to the demo's meter table as each quarter-hour ends.

Run it with ``python -m anomaly.demo.feeder --start 2024-01-01 --seed 7``, or with ``--weeks 10``:
it begins with so long a history, and a restart goes on with that. It runs until SIGTERM or SIGINT.
The database is ``ANOMALY_DATABASE_URL``.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from threading import Event

import numpy as np

from anomaly.database.connection import OWNER, Database
from anomaly.database.meter_table import MeterSource
from anomaly.database.meter_table_loading import Staged, open_meter_table
from anomaly.demo.first_version import train_first_version
from anomaly.demo.generator import INTERVAL, generate
from anomaly.errors import AnomalyError, SourceError
from anomaly.settings import Layout, Settings, load_settings
from anomaly.windows import Window, ceil_to_interval, floor_to_interval, parse_moment
from anomaly.wording import safe_line

RETRY = timedelta(seconds=10)  # chosen
# A wait does not go on while the computer sleeps, so it is done in short pieces. Chosen.
LONGEST_WAIT = timedelta(seconds=60)
MOST_WEEKS = 520  # chosen

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


def start_of_history(database: Database, history: timedelta, now: datetime, seed: int) -> datetime:
    """When the generated readings began, or begin now with so long a history.

    Raises
    ------
    SourceError
        When the table holds other readings: a demo must not write into them.
    """
    source = MeterSource(_settings().meter_table, _settings().meter)
    with database.transaction(OWNER, read_only=True) as transaction:
        shape = source.describe(transaction)
        extent = source.extent(transaction, shape)
        if extent is None:
            return floor_to_interval(now - history, INTERVAL)
        first = Window(extent[0], extent[0] + INTERVAL)
        stored = source.read(transaction, shape, first)
    generated = generate(first.start, first.end, seed=seed).frame
    machines = [f"machine_{machine}" for machine in (1, 2, 3, 4, 5)]
    found = stored.iloc[0, 2:].to_numpy(float)
    if not np.array_equal(found, generated[machines].iloc[0].to_numpy(float), equal_nan=True):
        raise SourceError(
            "anomaly.meter_readings holds readings that are not generated: leave the demo out, or"
            " empty the table first"
        )
    return first.start


def require_fed(database: Database, now: datetime) -> None:
    """Refuse a table whose newest reading is older than two intervals.

    Raises
    ------
    SourceError
        Naming the newest reading.
    """
    source = MeterSource(_settings().meter_table, _settings().meter)
    with database.transaction(OWNER, read_only=True) as transaction:
        newest = source.previous_reading(transaction, source.describe(transaction), now)
    if newest is None or newest < now - 3 * INTERVAL:
        raise SourceError(f"the newest generated reading is of {newest}")


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
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--start", help="ISO 8601: when the counters began")
    what.add_argument("--weeks", type=float, help="history to begin with, where there is none")
    what.add_argument("--check", action="store_true", help="only see whether the table is fed")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--train", action="store_true", help="train a first version")
    chosen = parser.parse_args(arguments)
    if chosen.seed < 0:
        parser.error(f"--seed is {chosen.seed}: it must not be negative")
    if chosen.weeks is not None and not 0 < chosen.weeks <= MOST_WEEKS:
        parser.error(f"--weeks is {chosen.weeks:g}: it must be from 0 to {MOST_WEEKS}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        _run(chosen, load_settings(), stop)
    except AnomalyError as error:
        sys.exit(safe_line(f"error: {error}"))


def _run(chosen: argparse.Namespace, settings: Settings, stop: Event) -> None:
    database, now = Database(settings.database.database_url, settings.database), datetime.now(UTC)
    if chosen.check:
        require_fed(database, now)
        return
    if chosen.start:
        start = parse_moment(chosen.start)
    else:
        start = start_of_history(database, timedelta(weeks=chosen.weeks), now, chosen.seed)
    if chosen.train:
        log.info("%d rows appended", append_missing(database, start, now, chosen.seed))
        version = train_first_version(database, settings, now, by="demo")
        log.info(f"version {version} was trained" if version else "a version is in force")
    feed(database, start, chosen.seed, stop)


if __name__ == "__main__":
    main()
