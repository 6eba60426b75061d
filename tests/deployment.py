"""What tests do to a deployment: put readings in, train, score, and read verdicts back."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from psycopg2.errors import UndefinedObject
from sqlalchemy import text

from anomaly.database.connection import API, OWNER, SCORER, TRAINER, Database
from anomaly.database.results import VERDICT_COLUMNS, Origin
from anomaly.database.scoring_runs import RequestedBy
from anomaly.demo.embedded_postgres import EmbeddedPostgres
from anomaly.lifecycle.promotion import Promoter
from anomaly.lifecycle.training import Trainer, TrainingReport
from anomaly.scoring.publishing import Job, ScoreReport
from anomaly.scoring.scorer import Scorer
from anomaly.scoring.ticks import score_tick
from anomaly.settings import Settings
from anomaly.windows import Window

START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
QUARTER = timedelta(minutes=15)
TESTS = RequestedBy("test")


def own_log_in(postgres: EmbeddedPostgres, name: str, password: str) -> None:
    """Make the product's log-in: a member of its roles where another database has made them.

    Roles belong to the server, and only who made them may grant them.
    """
    postgres.create_user(name, password, may_create_roles=True)
    for role in (OWNER, SCORER, TRAINER, API):
        with suppress(UndefinedObject):
            postgres.grant_role(role, name)


def at(quarter: int) -> datetime:
    """Start of the n-th quarter-hour of the tests' time."""
    return START + quarter * QUARTER


def counters(quarters: int, machines: int = 2, seed: int = 1) -> pd.DataFrame:
    """Counters of machines that draw about 5, 10, ... kW, from `START` on."""
    random = np.random.default_rng(seed)
    power = random.normal(5, 0.5, (quarters, machines)) * np.arange(1, machines + 1)
    readings = (power / 4).cumsum(axis=0).round(3)
    frame = pd.DataFrame(readings, columns=[f"machine_{n + 1}" for n in range(machines)])
    frame.insert(0, "utc_timestamp", [at(quarter) for quarter in range(quarters)])
    return frame


def counters_until(end: datetime, quarters: int) -> pd.DataFrame:
    """Counters of two machines; the last reading is of the quarter-hour before `end`."""
    frame = counters(quarters)
    return frame.assign(
        utc_timestamp=[end - (quarters - number) * QUARTER for number in range(quarters)]
    )


def insert(database: Database, frame: pd.DataFrame) -> None:
    """Put wide rows into the meter table as its owner does."""
    columns = list(frame.columns)
    values = ", ".join(f":{name}" for name in columns)
    statement = text(f"INSERT INTO anomaly.meter_readings ({', '.join(columns)}) VALUES ({values})")
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    with database.engine.begin() as connection:
        connection.execute(statement, rows)


def execute(database: Database, statement: str, **parameters: object) -> None:
    """Run a statement as the database's administrator."""
    with database.engine.begin() as connection:
        connection.execute(text(statement), parameters)


def change(
    database: Database, quarter: int, value: str, machine: int = 1, *, onward: bool = False
) -> None:
    """Give a reading (or all from it on) another value, an SQL expression, without a trace."""
    compare = ">=" if onward else "="
    execute(
        database,
        f"UPDATE anomaly.meter_readings SET machine_{machine} = {value}"
        f" WHERE utc_timestamp {compare} :t",
        t=at(quarter),
    )


def delete(database: Database, first: int, end: int | None = None) -> None:
    """Delete the rows of quarter-hours `first` to `end`; default: one."""
    execute(
        database,
        "DELETE FROM anomaly.meter_readings WHERE utc_timestamp >= :a AND utc_timestamp < :b",
        a=at(first),
        b=at(first + 1 if end is None else end),
    )


def rows(database: Database, query: str, **parameters: object) -> list[tuple]:
    """Rows of a query as plain tuples."""
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), parameters)]


def register_trained(database: Database, settings: Settings, window: Window) -> TrainingReport:
    """Train on a window and register the version, unjudged."""
    trainer = Trainer(database, settings)
    return trainer.register(trainer.train(window), by="test")


def train_in_force(database: Database, settings: Settings, window: Window) -> TrainingReport:
    """Train on a window, and let the version judge from the next reading on."""
    report = register_trained(database, settings, window)
    promoted = Promoter(database, settings).promote(report.version, by="test", reason="trained")
    return replace(report, promoted=True, effective_from=promoted.effective_from)


def train(database: Database, settings: Settings, end: int = 96 * 8) -> int:
    """Train on the readings up to a quarter-hour, and put the version in force."""
    window = Window(START, at(end))
    return train_in_force(database, settings, window).version


def score(database: Database, settings: Settings, start: int, end: int, **job) -> ScoreReport:
    """Score quarter-hours `start` to `end` as a backfill."""
    options = {"origin": Origin.BACKFILL, "requested_by": TESTS} | job
    return Scorer(database, settings).score_range(Window(at(start), at(end)), Job(**options))


def tick(database: Database, settings: Settings, end: int) -> ScoreReport:
    """Run the scheduled scoring whose interval ends at a quarter-hour."""
    return score_tick(Scorer(database, settings), Window(at(end - 1), at(end)), TESTS)


def verdicts(database: Database) -> dict[tuple[int, datetime], Mapping[str, object]]:
    """Verdict columns of every current row, by machine and time."""
    columns = ", ".join(VERDICT_COLUMNS)
    found = rows(
        database, f"SELECT machine_id, utc_timestamp, {columns} FROM anomaly.anomaly_results"
    )
    return {
        (machine, moment): dict(zip(VERDICT_COLUMNS, values, strict=True))
        for machine, moment, *values in found
    }
