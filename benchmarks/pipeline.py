"""A million readings from the meter table to verdicts: ours, the floor, and the plain way.

The floor is what the database itself needs: a binary COPY out of those readings, and a
key-sorted binary COPY of those results into an empty table with the same key.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO

import numpy as np
import pandas as pd
from sklearn.ensemble import IsolationForest

from anomaly.database.connection import Database
from anomaly.database.results import COLUMNS as RESULT_COLUMNS
from anomaly.database.results import Origin
from anomaly.database.scoring_runs import RequestedBy
from anomaly.scoring.publishing import Job
from anomaly.scoring.scorer import Scorer
from anomaly.settings import DetectorName, Layout, Settings
from anomaly.windows import Window
from benchmarks.deployments import train_in_force
from benchmarks.figures import Figure, saying, seconds

MACHINES, TICKS = 1_000, 1_000
START = datetime(2026, 1, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
WINDOW = Window(START, START + TICKS * QUARTER)
TRAINED = Window(START, START + timedelta(days=7))
JOB = Job(Origin.BACKFILL, RequestedBy("bench"))
NAMES = [column.name for column in RESULT_COLUMNS]
COLUMNS = ", ".join(NAMES)


@dataclass(frozen=True)
class Floor:
    """Seconds of the two COPYs."""

    read: float
    write: float

    @property
    def total(self) -> float:
        """Both."""
        return self.read + self.write


def measure(database: Database, settings: Settings) -> list[Figure]:
    """Read, transform, score and write a million readings: an empty range, the same again."""
    settings = long_layout(settings)
    with saying("a long meter table of a million readings"):
        make_long_table(database)
        fill_long_table(database, MACHINES, TICKS)
    plain = plain_steps(database)
    figures = []
    for detector in DetectorName:
        chosen = settings.changed(detector=detector)
        figures += _measure(database, chosen, plain)
        forget_results(database)
        with database.engine.begin() as connection:
            connection.exec_driver_sql("TRUNCATE anomaly.model_in_force; DROP TABLE floor")
    return figures


def _measure(database: Database, settings: Settings, plain: dict[str, float]) -> list[Figure]:
    with saying(f"training {settings.training.detector}"):
        train_in_force(database, settings, TRAINED)
    scorer = Scorer(database, settings)
    with saying(f"{settings.training.detector}: a million readings, then again, then the floor"):
        first = seconds(lambda: scorer.score_range(WINDOW, JOB))
        before = wal(database)
        again = seconds(lambda: scorer.score_range(WINDOW, JOB))
        written = wal(database) - before
        floor = measure_floor(database)
    name = f"1e6 readings, long, {settings.training.detector}"
    base = f"floor {floor.total:.2f} s (COPY out {floor.read:.2f}, in {floor.write:.2f})"
    total = sum(plain.values())
    shares = ", ".join(f"{step} {taken:.1f}" for step, taken in plain.items())
    plainly = f"{total:.1f} s ({shares})"
    single = settings.training.detector is DetectorName.PROTOTYPE
    twice, fifteen = (2, 15) if single else (None, None)
    return [
        Figure.at_most(f"{name}: empty range", first, "s", base, floor.total, twice),
        Figure.at_least(f"{name}: against the plain way", first, "s", plainly, total, fifteen),
        Figure.at_most(f"{name}: again", again, "s", f"first time {first:.2f} s", first, 0.5),
        Figure(f"{name}: WAL of the same again", written / 1024, "KiB"),
    ]


def long_layout(settings: Settings) -> Settings:
    """The settings for the benchmark's own meter table."""
    return settings.changed(
        source_schema="plant",
        source_table="readings",
        source_layout=Layout.LONG,
        training_min_days=0.1,
    )


def make_long_table(database: Database) -> None:
    """An empty long table, as plants have them."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE SCHEMA plant; CREATE TABLE plant.readings (machine_id int, utc_timestamp"
            " timestamptz, reading float8, ingested_at timestamptz,"
            " PRIMARY KEY (utc_timestamp, machine_id));"
            " CREATE INDEX ON plant.readings (ingested_at);"
            " GRANT USAGE ON SCHEMA plant TO anomaly_source;"
            " GRANT SELECT ON plant.readings TO anomaly_source"
        )


def fill_long_table(
    database: Database, machines: int, ticks: int, start: datetime = START, seed: int = 7
) -> None:
    """Counters of machines of many sizes, with a day's rhythm."""
    random = np.random.default_rng(seed)
    size = np.exp(random.normal(1, 1, machines))
    rhythm = 1 + 0.5 * np.sin(np.arange(ticks) * 2 * np.pi / 96)[:, None]
    power = rhythm * size + random.normal(0, 0.1, (ticks, machines)) * size
    readings = (power.clip(0) / 4).cumsum(axis=0).round(3)
    stamps = pd.date_range(start, periods=ticks, freq="15min")
    with database.engine.begin() as connection:
        cursor = connection.connection.cursor()
        for begin in range(0, ticks, 96):
            part = readings[begin : begin + 96]
            frame = pd.DataFrame(
                {
                    "machine_id": np.tile(np.arange(1, machines + 1), len(part)),
                    "utc_timestamp": np.repeat(stamps[begin : begin + 96], machines),
                    "reading": part.ravel(),
                    "ingested_at": np.repeat(stamps[begin : begin + 96] + QUARTER, machines),
                }
            )
            cursor.copy_expert(
                "COPY plant.readings FROM STDIN (FORMAT csv)",
                BytesIO(frame.to_csv(index=False, header=False).encode()),
            )
        connection.exec_driver_sql("ANALYZE plant.readings")


def forget_results(database: Database) -> None:
    """Empty the results, so that the next to be measured starts alike."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "TRUNCATE anomaly.anomaly_results, anomaly.anomaly_results_history,"
            " anomaly.scoring_runs, anomaly.incidents, anomaly.acknowledgements"
        )


def measure_floor(database: Database) -> Floor:
    """The two COPYs, of the readings and of the results that are there."""
    readings, results = BytesIO(), BytesIO()
    with database.engine.begin() as connection:
        cursor = connection.connection.cursor()
        read = seconds(
            lambda: cursor.copy_expert(
                "COPY (SELECT utc_timestamp, ingested_at, machine_id, reading FROM plant.readings)"
                " TO STDOUT (FORMAT binary)",
                readings,
            )
        )
        cursor.execute(
            "CREATE TABLE floor (LIKE anomaly.anomaly_results);"
            " ALTER TABLE floor ADD PRIMARY KEY (machine_id, utc_timestamp)"
        )
        cursor.copy_expert(
            f"COPY (SELECT {COLUMNS} FROM anomaly.anomaly_results"
            " ORDER BY machine_id, utc_timestamp) TO STDOUT (FORMAT binary)",
            results,
        )
        results.seek(0)
        write = seconds(
            lambda: cursor.copy_expert(
                f"COPY floor ({COLUMNS}) FROM STDIN (FORMAT binary)", results
            )
        )
    return Floor(read, write)


def wal(database: Database) -> int:
    """Bytes of write-ahead log so far."""
    with database.engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return int(row.scalar_one())


# The plain way ----------------------------------------------------------------


def plain_steps(database: Database) -> dict[str, float]:
    """Seconds a step, as the libraries' own documentation shows it."""
    found: dict[str, pd.DataFrame] = {}

    def read() -> None:
        found["long"] = pd.read_sql(
            "SELECT machine_id, utc_timestamp, reading FROM plant.readings", database.engine
        )

    def transform() -> None:
        long = found["long"].dropna().sort_values(["machine_id", "utc_timestamp"])
        long["power_diff"] = (long.groupby("machine_id")["reading"].diff() / 0.25).fillna(0)
        found["long"] = long

    def score() -> None:
        long = found["long"]
        forest = IsolationForest(n_estimators=350, max_samples=256, contamination=0.05)
        forest.fit(long[["power_diff"]].head(50_000).to_numpy())
        features = long[["power_diff"]].to_numpy()
        long["score"] = forest.score_samples(features)
        long["threshold"] = -forest.offset_
        long["anomaly"] = (long["score"] < forest.offset_).astype(int)

    def write() -> None:
        plain_write(database, found["long"])

    taken = {}
    for step in (read, transform, score, write):
        with saying(f"the plain way: {step.__name__}"):
            taken[step.__name__] = seconds(step)
    return taken


def plain_write(database: Database, long: pd.DataFrame) -> None:
    """Pandas' ``to_sql`` in chunks, as its guide shows, of the columns that we write."""
    results = long.assign(
        power_kw=long["power_diff"],
        anomaly_score=-long["score"],
        reason=("unusual: " + long["power_diff"].round(1).astype(str)).where(
            long["anomaly"].astype(bool), None
        ),
        quality="ok",
        origin="backfill",
        model_version=1,
        expected_kw=np.nan,
        run_id=1,
        scored_at=pd.Timestamp.now("UTC"),
    )
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE plain_results (machine_id int, utc_timestamp timestamptz, reading float8,"
            " power_kw float8, power_diff float8, anomaly_score float8, threshold float8,"
            " anomaly int2, reason text, quality text, origin text, model_version int,"
            " expected_kw float8, run_id int8, scored_at timestamptz,"
            " PRIMARY KEY (machine_id, utc_timestamp))"
        )
        results[NAMES].to_sql(
            "plain_results", connection, if_exists="append", index=False, chunksize=1000
        )
