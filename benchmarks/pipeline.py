"""A million readings from the meter table to verdicts: ours beside the plain way."""

from datetime import UTC, datetime, timedelta
from io import BytesIO

import numpy as np
import pandas as pd
from psycopg2.extras import execute_values
from sklearn.ensemble import IsolationForest

from anomaly.postgres.database import Database
from anomaly.postgres.results import RunContext
from anomaly.schema import Origin
from anomaly.scoring import Job, Scorer
from anomaly.settings import Settings
from anomaly.training import Trainer
from anomaly.windows import Window
from benchmarks.figures import Figure, saying, seconds

ROWS, MACHINES = 200_000, 5
START = datetime(2020, 1, 1, tzinfo=UTC)
WINDOW = Window(START, START + ROWS * timedelta(minutes=15))
COLUMNS = [f"machine_{n + 1}" for n in range(MACHINES)]


def measure(database: Database, settings: Settings) -> list[Figure]:
    """Read, transform, score and write a million readings, both ways."""
    with saying("filling the meter table"):
        fill(database)
    trainer = Trainer(database, settings)
    trainer.train(Window(START, START + timedelta(weeks=8)), by="bench", put_in_force=True)
    scorer = Scorer(database, settings)
    job = Job(Origin.BACKFILL, RunContext("bench"))
    forest = plain_forest(database)
    with saying("the plain way"):
        plain = plain_steps(database, forest)
    with saying("ours, first time"):
        first = seconds(lambda: scorer.score_range(WINDOW, job))
    with saying("ours, the same again"):
        again = seconds(lambda: scorer.score_range(WINDOW, job))
    total = sum(plain.values())
    shares = ", ".join(f"{name} {taken:.1f} s" for name, taken in plain.items())
    baseline = f"plain way, {total:.1f} s ({shares})"
    return [
        Figure("1e6 readings, wide: read to written", first, "s", baseline, total / first),
        Figure(
            "the same again, unchanged", again, "s", f"first time, {first:.1f} s", first / again
        ),
    ]


def fill(database: Database) -> None:
    """Five counters with a day's rhythm, six years of quarter-hours."""
    random = np.random.default_rng(7)
    rhythm = 1 + 0.5 * np.sin(np.arange(ROWS) * 2 * np.pi / 96)[:, None]
    power = rhythm * np.arange(1, MACHINES + 1) * 3 + random.normal(0, 0.3, (ROWS, MACHINES))
    frame = pd.DataFrame((power.clip(0) / 4).cumsum(axis=0).round(3), columns=COLUMNS)
    frame.insert(0, "utc_timestamp", pd.date_range(START, periods=ROWS, freq="15min"))
    buffer = BytesIO(frame.to_csv(index=False).encode())
    names = ", ".join(frame.columns)
    with database.engine.begin() as connection:
        connection.connection.cursor().copy_expert(
            f"COPY anomaly.meter_readings ({names}) FROM STDIN (FORMAT csv, HEADER)", buffer
        )
        connection.exec_driver_sql("ANALYZE anomaly.meter_readings")


def plain_forest(database: Database) -> IsolationForest:
    """The same forest, trained on the same weeks."""
    long = plain_transform(plain_read(database).head(96 * 56))
    forest = IsolationForest(n_estimators=350, max_samples=256, contamination=0.05, random_state=42)
    return forest.fit(plain_features(long))


def plain_steps(database: Database, forest: IsolationForest) -> dict[str, float]:
    """Seconds a step, as the libraries' own documentation shows it."""
    found: dict[str, pd.DataFrame] = {}

    def read() -> None:
        found["wide"] = plain_read(database)

    def transform() -> None:
        found["long"] = plain_transform(found["wide"])

    def score() -> None:
        long = found["long"]
        long["score"] = forest.score_samples(plain_features(long))
        long["anomaly"] = (long["score"] < forest.offset_).astype(int)

    def write() -> None:
        plain_write(database, found["long"])

    return {step.__name__: seconds(step) for step in (read, transform, score, write)}


def plain_read(database: Database) -> pd.DataFrame:
    """``pandas.read_sql``."""
    columns = ", ".join(["utc_timestamp", *COLUMNS])
    return pd.read_sql(f"SELECT {columns} FROM anomaly.meter_readings", database.engine)


def plain_transform(wide: pd.DataFrame) -> pd.DataFrame:
    """Melt, sort, ``groupby().diff()``, as the prototype does."""
    long = wide.melt("utc_timestamp", var_name="machine", value_name="power").dropna()
    long["machine_id"] = long["machine"].str.extract(r"machine_(\d+)", expand=False).astype(int)
    long = long.sort_values(["machine_id", "utc_timestamp"])
    long["power_diff"] = (long.groupby("machine_id")["power"].diff() / 0.25).fillna(0)
    return long


def plain_features(long: pd.DataFrame) -> np.ndarray:
    """One-hot machine ids and ``power_diff``."""
    return np.column_stack(
        [pd.get_dummies(long["machine_id"], dtype=float).to_numpy(), long["power_diff"]]
    )


def plain_write(database: Database, long: pd.DataFrame) -> None:
    """psycopg2's ``execute_values`` into a table with the same key."""
    columns = ["machine_id", "utc_timestamp", "power", "power_diff", "score", "anomaly"]
    with database.engine.begin() as connection:
        cursor = connection.connection.cursor()
        cursor.execute(
            "CREATE TABLE plain_results (machine_id int, utc_timestamp timestamptz, power float8,"
            " power_diff float8, score float8, anomaly int,"
            " PRIMARY KEY (machine_id, utc_timestamp))"
        )
        execute_values(
            cursor,
            f"INSERT INTO plain_results ({', '.join(columns)}) VALUES %s",
            long[columns].itertuples(index=False, name=None),
            page_size=1000,
        )
