"""Binary COPY reads from the meter table what a plain SELECT by SQLAlchemy reads."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from anomaly.database.connection import SCORER
from anomaly.database.machines import register_machines
from anomaly.database.meter_table import MeterSource
from anomaly.settings import load_settings
from anomaly.windows import Window
from deployment import execute, rows

START = datetime(2024, 3, 30, 12, tzinfo=UTC)  # the clocks of Berlin change in the night
WINDOW = Window(START, START + timedelta(days=1))
ROWS = 40 * 3
VALUE = """CASE n % 8 WHEN 0 THEN NULL WHEN 1 THEN 'NaN'::float8 WHEN 2 THEN 'Infinity'
                WHEN 3 THEN -1e-300 WHEN 4 THEN 1.0 / 3 ELSE n * 0.1 END"""
INGESTED = """CASE n % 5 WHEN 0 THEN NULL WHEN 1 THEN '-infinity'
                   ELSE timestamptz '1999-12-31 23:59:59.123456Z' + n * interval '1 h' END"""

UTC_OF = {
    "timestamptz": "utc_timestamp",
    "timestamp": "utc_timestamp AT TIME ZONE 'Europe/Berlin'",
}


@pytest.fixture(params=[*UTC_OF])
def stamp(request, database):
    """Make the type of the timestamps; naive ones are of Berlin."""
    execute(
        database,
        "CREATE SCHEMA plant; GRANT USAGE ON SCHEMA plant TO anomaly_source;"
        " ALTER DEFAULT PRIVILEGES IN SCHEMA plant GRANT SELECT ON TABLES TO anomaly_source",
    )
    return request.param


def source(layout, **names):
    return MeterSource(
        load_settings(
            {},
            source_schema="plant",
            source_table="readings",
            source_layout=layout,
            source_timezone="Europe/Berlin",
            **names,
        ).meter_table,
        load_settings(
            {},
            source_schema="plant",
            source_table="readings",
            source_layout=layout,
            source_timezone="Europe/Berlin",
            **names,
        ).meter,
    )


def read(database, meters):
    with database.transaction(SCORER, read_only=True) as transaction:
        found = meters.read(transaction, meters.describe(transaction), WINDOW)
    within = (found["utc_timestamp"] >= START) & (found["utc_timestamp"] < WINDOW.end)
    return found[within]


def plainly(database, query, columns):
    """The same rows by SELECT, each cell as Python has it."""
    found = rows(
        database,
        f"SELECT * FROM ({query}) AS r WHERE at >= :first AND at < :last",
        first=START,
        last=WINDOW.end,
    )
    table = [(pd.Timestamp(at), _microseconds(ingested), *cells) for at, ingested, *cells in found]
    return pd.DataFrame(table, columns=columns)


def _microseconds(ingested):
    if ingested is None:
        return np.iinfo(np.int64).min
    return (ingested - datetime(2000, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def assert_same_bits(ours, plain):
    assert len(ours) == len(plain) > 0
    keys = [name for name in ("utc_timestamp", "machine_id", "ingested_at") if name in ours]
    ours = ours.sort_values(keys, ignore_index=True)
    plain = plain.astype(ours.dtypes.to_dict()).sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(ours, plain, check_exact=True)


def test_a_wide_table(database, stamp):
    execute(
        database,
        f"CREATE TABLE plant.readings AS SELECT (timestamptz '2024-03-30 06:00Z'"
        f" + n * interval '20 min') AT TIME ZONE 'Europe/Berlin' AS utc_timestamp, {INGESTED}"
        f" AS ingested_at, {VALUE} AS machine_1, n::int AS machine_2, (n / 7.0)::numeric(9, 3)"
        f" AS machine_3, (n / 3.0)::real AS machine_4 FROM generate_series(1, {ROWS}) AS n",
    )
    _retype(database, stamp)

    found = read(database, source("wide"))

    query = """
        SELECT {} AS at, nullif(ingested_at, '-infinity'), machine_1, machine_2, machine_3,
               machine_4::float8
          FROM plant.readings"""
    columns = ["utc_timestamp", "ingested_at", *(f"machine_{n}" for n in (1, 2, 3, 4))]
    assert_same_bits(found, plainly(database, query.format(UTC_OF[stamp]), columns))


@pytest.mark.parametrize("kind", ["text", "smallint", "integer", "bigint"])
def test_a_long_table(database, stamp, kind):
    execute(
        database,
        f"CREATE TABLE plant.readings AS SELECT (timestamptz '2024-03-30 06:00Z'"
        f" + n / 3 * interval '1 h') AT TIME ZONE 'Europe/Berlin' AS utc_timestamp, {INGESTED}"
        f" AS ingested_at, (n % 3 + 7)::{kind} AS machine_id, {VALUE} AS reading"
        f" FROM generate_series(1, {ROWS}) AS n",
    )
    _retype(database, stamp)
    others = {"07": 71, "-0": 72, "Press 9": 73, "9" * 19: 74, str(2**63): 75}
    numbers = {"7": 70, "8": 8} | others  # machine 9 is not registered
    with database.transaction(SCORER) as transaction:
        register_machines(transaction, numbers)

    found = read(database, source("long"))

    query = """
        SELECT {} AS at, nullif(ingested_at, '-infinity'),
               CASE machine_id::text WHEN '7' THEN 70 WHEN '8' THEN 8 ELSE -2147483648 END, reading
          FROM plant.readings"""
    columns = ["utc_timestamp", "ingested_at", "machine_id", "reading"]
    assert_same_bits(found, plainly(database, query.format(UTC_OF[stamp]), columns))


def _retype(database, stamp):
    if stamp == "timestamptz":
        execute(
            database,
            "ALTER TABLE plant.readings ALTER utc_timestamp TYPE timestamptz"
            " USING utc_timestamp AT TIME ZONE 'Europe/Berlin'",
        )
