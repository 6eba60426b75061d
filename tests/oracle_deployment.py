"""Deployments in miniature for property tests: a meter table, trained versions, a results table."""

import math
import random
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import psycopg2
import pytest
from psycopg2.extras import execute_values
from sqlalchemy import make_url

import oracle
from anomaly.database.connection import SCORER, TRAINER, Database
from anomaly.database.machines import register_machines
from anomaly.database.model_in_force import put_in_force
from anomaly.database.results import VERDICT_COLUMNS, Origin
from anomaly.database.scoring_runs import RequestedBy, lock_publishing
from anomaly.demo.embedded_postgres import EmbeddedPostgres
from anomaly.lifecycle.promotion import Promoter
from anomaly.models.artefacts import Artefact
from anomaly.models.model import Model
from anomaly.scoring.publishing import Job
from anomaly.scoring.reconciling import Reconciler
from anomaly.scoring.scorer import Scorer
from anomaly.scoring.ticks import score_tick
from anomaly.settings import load_settings
from anomaly.windows import Window
from deployment import register_trained
from lives import wrong_history

BASE = datetime(2024, 2, 28, tzinfo=UTC)
"""Where the readings of a property begin: two days before a month, a partition, ends."""
QUARTER = timedelta(minutes=15)
_TRAINING = BASE - timedelta(days=40)

TESTS = RequestedBy("tests")
BACKFILL = Job(Origin.BACKFILL, TESTS, retractable=1_000_000)

SMALL: dict[str, Any] = {
    "detector": "prototype",
    "forest_trees": 10,
    "forest_max_samples": 64,
    "forest_contamination": 0.1,
    "training_min_days": 0.4,
    "judging_days": 0,
    "lateness_hours": 1,
    "max_gap_days": 1.25,
    "chunk_days": 2,
    "stuck_margin_hours": 0.5,
    "stuck_flat_share": 0.1,
}
"""Everything small, so that two days of readings meet every rule."""

LIMITS = (oracle.Limits(60.0, 1000.0), oracle.Limits())
"""What is known of the first and the second machine; of the third nothing is."""


@dataclass
class Record:
    """A row of the meter table: one or more machines' cells at a time."""

    at: datetime
    cells: dict[str, float | None]
    ingested_at: datetime | None = None
    number: int = -1


@dataclass(frozen=True)
class Layout:
    """How a meter table looks, and the settings that say so.

    Attributes
    ----------
    keys : tuple of str
        Columns (wide) or ids (long) of three machines; training sees the first
        two, a later version all of them.
    number : str
        A column that the product does not look at, which tells rows apart.
    per_kwh : float
        What a kWh is in the unit of the readings. Properties think in kWh.
    """

    name: str
    table: str
    keys: tuple[str, str, str]
    number: str
    ddl: str = ""
    wide: bool = True
    unique: bool = False
    zone: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    per_kwh: float = 1.0

    @property
    def by_signals(self) -> bool:
        """Whether the detector is `signals`, of which the oracle knows no scores."""
        return bool(self.settings.get("detector") == "signals")

    def stored(self, at: datetime) -> datetime:
        """Interval start as this table writes it."""
        if self.settings.get("timestamp_label") == "end":
            at += QUARTER
        return at.astimezone(ZoneInfo(self.zone)).replace(tzinfo=None) if self.zone else at

    def is_shown_twice(self, at: datetime) -> bool:
        """Whether the table's clock shows the time of an interval's start twice."""
        stored = self.stored(at)
        return bool(self.zone) and (
            stored.replace(tzinfo=ZoneInfo(self.zone), fold=0).utcoffset()
            != stored.replace(tzinfo=ZoneInfo(self.zone), fold=1).utcoffset()
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that tests write, the row's number first."""
        meters = self.keys if self.wide else ("machine", "value")
        stamp = self.settings.get("source_timestamp_column", "utc_timestamp")
        return (self.number, stamp, "ingested_at", *meters)

    def values(self, record: Record) -> tuple[Any, ...]:
        """Values of `columns`."""
        head = (str(record.number), self.stored(record.at), record.ingested_at)
        if self.wide:
            return (*head, *(record.cells.get(key) for key in self.keys))
        ((key, value),) = record.cells.items()
        return (*head, key, value)


_WIDE_KEYS = ("machine_1", "machine_2", "machine_3")
_LONG_KEYS = ("press", "7", "saw")
_LONG = {
    "source_schema": "plant",
    "source_table": "readings",
    "source_layout": "long",
    "source_machine_column": "machine",
    "source_value_column": "value",
}
_LONG_DDL = """
    CREATE TABLE plant.readings (
        line text, utc_timestamp timestamptz, ingested_at timestamptz, machine text,
        value double precision)
"""

WIDE = Layout("wide", "anomaly.meter_readings", _WIDE_KEYS, "cet_cest_timestamp", unique=True)
SIGNALS = replace(WIDE, name="wide, by signals", settings={"detector": "signals"})
UNKEYED = Layout(
    "wide without a primary key",
    "plant.records",
    _WIDE_KEYS,
    "line",
    """
    CREATE TABLE plant.records (
        line text, utc_timestamp timestamptz, ingested_at timestamptz,
        machine_1 double precision, machine_2 double precision, machine_3 double precision)
    """,
    settings={"source_schema": "plant", "source_table": "records"},
)
LONG = Layout("long", "plant.readings", _LONG_KEYS, "line", _LONG_DDL, wide=False, settings=_LONG)
WATTS = Layout(
    "long, in watts",
    "plant.readings",
    _LONG_KEYS,
    "line",
    _LONG_DDL,
    wide=False,
    settings=_LONG | {"reading_kind": "power_w", "stuck_margin_hours": 20.0},
)
PER_INTERVAL = replace(
    WATTS,
    name="long, energy of each interval in Wh",
    settings=WATTS.settings | {"reading_kind": "energy_kwh_per_interval", "reading_unit": "Wh"},
)
MEGAWATT_HOURS = replace(
    LONG, name="long, in MWh", settings=_LONG | {"reading_unit": "MWh"}, per_kwh=0.001
)
TODAY = replace(
    WIDE,
    name="wide, counters of the day in MWh",
    settings={"reading_kind": "energy_kwh_today", "reading_unit": "MWh"},
    per_kwh=0.001,
)
TODAY_BY_SIGNALS = replace(
    SIGNALS,
    name="wide, counters of the day, by signals",
    settings=SIGNALS.settings | {"reading_kind": "energy_kwh_today"},
)
LOCAL_NIGHT = Layout(
    "long, through a night in which the clock is set back",
    "plant.night",
    _LONG_KEYS,
    "line",
    """
    CREATE TABLE plant.night (
        line text, utc_timestamp timestamp, ingested_at timestamptz, machine text,
        value double precision)
    """,
    wide=False,
    zone="Asia/Almaty",  # from UTC+6 to UTC+5 on 1 March 2024, 42 hours after `BASE`
    settings=_LONG | {"source_table": "night", "source_timezone": "Asia/Almaty"},
)
LOCAL_ENDS = Layout(
    "wide, ends of intervals in local time",
    "plant.log",
    _WIDE_KEYS,
    "line",
    """
    CREATE TABLE plant.log (
        line text, "Time" timestamp, ingested_at timestamptz,
        machine_1 numeric, machine_2 double precision, machine_3 double precision)
    """,
    zone="Europe/Berlin",
    settings={
        "source_schema": "plant",
        "source_table": "log",
        "source_timestamp_column": "Time",
        "source_timezone": "Europe/Berlin",
        "timestamp_label": "end",
    },
)


class Deployment:
    """A database with a meter table, three trained versions, and what scores and reconciles.

    Versions 1 and 3 know the first two machines, version 2 all three.
    """

    def __init__(self, postgres: EmbeddedPostgres, name: str, layout: Layout, models: Path) -> None:
        self.layout = layout
        self.settings = load_settings(models_url=str(models), **(SMALL | layout.settings))
        self.database = Database(postgres.url(name), self.settings.database)
        self.scorer = Scorer(self.database, self.settings)
        self.reconciler = Reconciler(self.database, self.settings)
        self._url = postgres.url(name)
        self.connect()
        self._versions: dict[str, oracle.Version] = {}
        self._numbers = 0
        self._make_meter_table()
        self._train()

    def move(self, url: str) -> None:
        """Go on in another database, which holds what this one held."""
        self._url = url
        self.database = Database(url, self.settings.database)
        self.scorer = Scorer(self.database, self.settings)
        self.reconciler = Reconciler(self.database, self.settings)
        self.connect()

    def connect(self) -> None:
        """Connect to the database; again, after the server was stopped."""
        self._connection = _connect(self._url)

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()
        self.database.dispose()

    def reset(self, version: int | None = 1) -> None:
        """Empty everything but the trained versions; put one in force for all time."""
        self.execute(
            f"""
            TRUNCATE {self.layout.table}, anomaly.anomaly_results, anomaly.scoring_runs,
                     anomaly.anomaly_results_history, anomaly.model_in_force, anomaly.incidents,
                     anomaly.acknowledgements, anomaly.labels, anomaly.machine_hours,
                     anomaly.machine_days, anomaly.alert_events, anomaly.alert_messages,
                     anomaly.alert_message_events;
            DELETE FROM anomaly.model_versions WHERE version > 3;
            DELETE FROM anomaly.machines WHERE source_key <> ALL (%s)
            """,
            list(self.layout.keys[:2]),
        )
        if version is not None:
            self.put_in_force(version, None, None)

    # The meter table ----------------------------------------------------

    def write(self, records: Iterable[Record]) -> None:
        """Add rows to the meter table."""
        rows = []
        for record in records:
            self._numbers += 1
            record.number = self._numbers
            if self.layout.is_shown_twice(record.at):
                # When it was written is what tells its hour from the other of that name.
                record.ingested_at = record.at
            rows.append(self.layout.values(record))
        columns = ", ".join(f'"{column}"' for column in self.layout.columns)
        with self._connection.cursor() as cursor:
            execute_values(cursor, f"INSERT INTO {self.layout.table} ({columns}) VALUES %s", rows)

    def rewrite(self, record: Record) -> None:
        """Bring a row of the meter table to what `record` says now."""
        self.remove([record])
        self.write([record])

    def remove(self, records: Iterable[Record]) -> None:
        """Delete rows of the meter table."""
        numbers = [str(record.number) for record in records]
        self.execute(
            f"DELETE FROM {self.layout.table} WHERE {self.layout.number} = ANY (%s)", numbers
        )

    def meter_table(self) -> list[tuple[str, ...]]:
        """Every row of the meter table, as text."""
        columns = ", ".join(f'"{column}"' for column in self.layout.columns)
        rows = self.execute(f"SELECT {columns} FROM {self.layout.table}")
        return sorted(tuple(map(_as_text, row)) for row in rows)

    def as_stored(self, records: Iterable[Record]) -> list[tuple[str, ...]]:
        """What `meter_table` gives when it holds `records`."""
        return sorted(tuple(map(_as_text, self.layout.values(record))) for record in records)

    # What the product says, and what it must say --------------------------

    def score(self, start: datetime, end: datetime, job: Job = BACKFILL) -> None:
        """Score a range, as a backfill unless told otherwise."""
        self.scorer.score_range(Window(start, end), job)

    def tick(self, now: datetime) -> None:
        """Score as the schedule does when the interval before `now` has ended."""
        score_tick(self.scorer, Window(now - QUARTER, now), TESTS)

    def promote(self, version: int) -> datetime | None:
        """Put a version in force, as everybody does; from which reading on it judges."""
        promoter = Promoter(self.database, self.settings)
        return promoter.promote(version, by="tests", reason="").effective_from

    def verified(self) -> dict[int, str]:
        """What is wrong with the files of each version."""
        return Promoter(self.database, self.settings).verify([])

    def put_in_force(self, version: int, start: datetime | None, end: datetime | None) -> None:
        """Rewrite the version map for a range."""
        with self.database.transaction(TRAINER) as transaction:
            lock_publishing(transaction)
            put_in_force(transaction, version, start, end, by="tests", reason="")

    def verdicts(self) -> dict[oracle.Key, tuple[Any, ...]]:
        """Every verdict: `VERDICT_COLUMNS` by machine and time."""
        columns = ", ".join(VERDICT_COLUMNS)
        rows = self.execute(
            f"SELECT machine_id, utc_timestamp, {columns} FROM anomaly.anomaly_results"
        )
        return {(row[0], row[1]): row[2:] for row in rows}

    def results(self) -> dict[oracle.Key, oracle.Verdict]:
        """Every verdict, in the oracle's words: without its reason.

        The oracle knows the prototype's forest only: of `signals` scores are left out.
        """
        results = self._results()
        if not self.layout.by_signals:
            return results
        return {
            key: verdict._replace(
                anomaly_score=verdict.anomaly_score and 0.0, threshold=0.0, anomaly=0
            )
            for key, verdict in results.items()
        }

    def _results(self) -> dict[oracle.Key, oracle.Verdict]:
        places = [VERDICT_COLUMNS.index(name) for name in oracle.Verdict._fields]
        return {
            key: oracle.Verdict(*(row[place] for place in places))
            for key, row in self.verdicts().items()
        }

    def wrong_sums(self) -> list[str]:
        """Hours and days whose sums are not those of the verdicts that are there."""
        clocks = {
            machine: ZoneInfo(clock)
            for machine, clock in self.execute("SELECT machine_id, clock FROM anomaly.machines")
        }
        return [
            f"{table} {key}: {found.get(key)}, expected {expected.get(key)}"
            for table, found, expected in (
                ("hours", self._sums("hour_start"), oracle.sums(self._results(), clocks, "hour")),
                ("days", self._sums("local_date"), oracle.sums(self._results(), clocks, "day")),
            )
            for key in found.keys() | expected.keys()
            if found.get(key) != pytest.approx(expected.get(key), rel=1e-9, abs=1e-9)
        ]

    def wrong_history(self) -> list[str]:
        """Where history and ledger do not tell how the verdicts came to be what they are."""
        return wrong_history(self.execute)

    def _sums(self, key: str) -> dict[tuple[int, object], list[float]]:
        table = "machine_hours" if key == "hour_start" else "machine_days"
        rows = self.execute(
            f"SELECT machine_id, {key}, readings, anomalies, meter_faults,"
            " coalesce(energy_kwh, 0), coalesce(energy_hours, 0), coalesce(mean_power_kw, 0),"
            f" coalesce(peak_power_kw, 0) FROM anomaly.{table}"
        )
        return {(row[0], row[1]): list(row[2:]) for row in rows}

    def incidents(self) -> list[oracle.Episode]:
        """Every live incident, in the oracle's words."""
        rows = self.execute(
            """
            SELECT machine_id, kind, started_at, told_at, last_at, readings, peak_score,
                   excess_kwh, ended_at IS NULL
              FROM anomaly.incidents WHERE state NOT IN ('withdrawn', 'merged')
            """
        )
        return sorted((oracle.Episode(*row) for row in rows), key=str)

    def expected_incidents(self) -> list[oracle.Episode]:
        """What the oracle makes of the verdicts that are there."""
        ((as_of,),) = self.execute("SELECT max(readings_to) FROM anomaly.scoring_runs")
        if as_of is None:
            return []
        place = VERDICT_COLUMNS.index("expected_kw")
        usual = {key: row[place] for key, row in self.verdicts().items()}
        return oracle.episodes(self._results(), usual, as_of, self.meter)

    def expected(
        self,
        records: Iterable[Record],
        version_map: Sequence[oracle.Entry] = (oracle.Entry(None, None, 1),),
        *,
        due: datetime | None = None,
        remembered: Mapping[oracle.Key, float] | None = None,
    ) -> dict[oracle.Key, oracle.Verdict]:
        """What the oracle says of `records`, as far as anything has been judged."""
        ((judged_to,),) = self.execute("SELECT max(written_to) FROM anomaly.scoring_runs")
        due = min((moment for moment in (due, judged_to) if moment), default=None)
        ids = dict(self.execute("SELECT source_key, machine_id FROM anomaly.machines"))
        rows = [
            oracle.Row(record.at, ids.get(key, -1), value, record.ingested_at)
            for record in records
            for key, value in record.cells.items()
        ]
        limits = {ids[key]: limit for key, limit in zip(self.layout.keys, LIMITS, strict=False)}
        versions = {entry.version: self.version(entry.version) for entry in version_map}
        purged = [
            oracle.Row(at, machine, value, None)
            for (machine, at), value in (remembered or {}).items()
        ]
        return oracle.expected(
            rows, version_map, versions, self.meter, limits, due=due, remembered=purged
        )

    def scored_afresh(self, start: datetime, end: datetime) -> dict[oracle.Key, tuple[Any, ...]]:
        """Every verdict after all are forgotten and the range is scored in one go."""
        self.execute("TRUNCATE anomaly.anomaly_results, anomaly.scoring_runs")
        self.score(start, end)
        return self.verdicts()

    @property
    def meter(self) -> oracle.Meter:
        """The settings as the oracle wants them."""
        return oracle.Meter(
            kind=self.settings.meter.reading_kind.value,
            unit=self.layout.settings.get("reading_unit")
            or ("W" if self.layout.settings.get("reading_kind") == "power_w" else "kWh"),
            interval=self.settings.meter.interval,
            max_gap=self.settings.meter.max_gap,
            stuck_margin_hours=self.settings.meter.stuck_margin_hours,
            stuck_flat_share=self.settings.meter.stuck_flat_share,
            resolution_kwh=self.settings.meter.meter_resolution_kwh,
            zone=self.settings.meter.source_timezone,
        )

    def version(self, number: int) -> oracle.Version:
        """Return a registered version as the oracle wants it."""
        ((sha256,),) = self.execute(
            "SELECT sha256::text FROM anomaly.model_versions WHERE version = %s", number
        )
        if sha256 not in self._versions:
            model, estimator = self._load(number)
            scores = no_score if self.layout.by_signals else PointScore(estimator)
            self._versions[sha256] = as_oracle_version(model, scores)
        return self._versions[sha256]

    def execute(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement as the database's owner, outside of any transaction."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    # Preparing ------------------------------------------------------------

    def _load(self, number: int) -> tuple[Model, Any]:
        """Open a version, and what scikit-learn trained for it."""
        ((artefact, sha256),) = self.execute(
            "SELECT artefact, sha256 FROM anomaly.model_versions WHERE version = %s", number
        )
        registered, registry = Artefact(artefact, sha256), self.scorer.judge.registry
        return registry.load(registered), registry.load_estimator(registered)

    def _make_meter_table(self) -> None:
        if self.layout.ddl:
            self.execute(
                f"""
                CREATE SCHEMA plant; {self.layout.ddl};
                GRANT USAGE ON SCHEMA plant TO anomaly_source;
                GRANT SELECT ON {self.layout.table} TO anomaly_source
                """
            )
        wanted = {key: int(key[-1]) if self.layout.wide else None for key in self.layout.keys[:2]}
        with self.database.transaction(SCORER) as transaction:
            register_machines(transaction, wanted)
        if not self.layout.by_signals:  # sums by a clock that is half an hour off
            self.execute(
                "UPDATE anomaly.machines SET time_zone = 'Asia/Kolkata' WHERE source_key = %s",
                self.layout.keys[0],
            )
        for key, limit in zip(self.layout.keys[:2], LIMITS, strict=False):
            self.execute(
                "UPDATE anomaly.machines SET max_power_kw = %s, rolls_over_at = %s"
                " WHERE source_key = %s",
                limit.max_power_kw,
                limit.rolls_over_at,
                key,
            )

    def _train(self) -> None:
        steady, restless, off = _walk(1), _walk(2, flat=0.04), _walk(3, flat=0.5)
        days = [_TRAINING, _TRAINING + timedelta(days=2)]
        for day, series in zip(
            days, ([steady, off], [restless, steady, _walk(4, size=9.0)]), strict=True
        ):
            self.write(
                record
                for step in range(96)
                for record in self.records(
                    day + step * QUARTER,
                    [values[step] * self.layout.per_kwh for values in series],
                    day,
                )
            )
        for day, seed in ((days[0], 42), (days[1], 42), (days[0], 7)):
            settings = self.settings.changed(random_seed=seed)
            register_trained(self.database, settings, Window(day, day + timedelta(days=1)))
        self.execute("DELETE FROM anomaly.machines WHERE source_key = %s", self.layout.keys[2])

    def records(
        self, at: datetime, values: Sequence[float | None], ingested_at: datetime | None = None
    ) -> list[Record]:
        """Make rows of one moment's readings of the machines in order: one wide, or one each."""
        cells = dict(zip(self.layout.keys, values, strict=False))
        if self.layout.wide:
            return [Record(at, cells, ingested_at)]
        return [Record(at, {key: value}, ingested_at) for key, value in cells.items()]


def as_oracle_version(model: Model, scores: oracle.Score) -> oracle.Version:
    """Read a version's profiles, as plain values."""
    profiles = {
        int(row.Index): oracle.Profile(
            float(row.longest_flat_hours), float(row.flat_share), float(row.highest_kw)
        )
        for row in model.profiles.itertuples()
    }
    return oracle.Version(profiles, scores)


def no_score(machine: int, power_diff: float) -> tuple[float, float, bool]:
    """Say what stands for a verdict of `signals`, see `Deployment.results`."""
    return 0.0, 0.0, False


class PointScore:
    """Scores one point at a time by scikit-learn, remembered a step.

    A tree compares ``float32(power_diff) <= threshold``: between two thresholds
    of the forest all points have one score.
    """

    def __init__(self, pipeline: Any) -> None:
        features, self._forest = pipeline
        (self._machines,) = features.named_transformers_["machine"].categories_
        place = len(self._machines)
        trees = [estimator.tree_ for estimator in self._forest.estimators_]
        self._steps = sorted(
            {float(step) for tree in trees for step in tree.threshold[tree.feature == place]}
        )
        self._known: dict[tuple[int, ...], float] = {}

    def __call__(self, machine: int, power_diff: float) -> tuple[float, float, bool]:
        one_hot = tuple(int(machine == other) for other in self._machines)
        step = bisect_left(self._steps, float(np.float32(power_diff)))
        key = (*one_hot, -1 if math.isnan(power_diff) else step)
        if key not in self._known:
            (sample,) = self._forest.score_samples(np.array([[*one_hot, power_diff]]))
            self._known[key] = -float(sample)
        score, threshold = self._known[key], -float(self._forest.offset_)
        return score, threshold, score > threshold


def differences(
    results: Mapping[oracle.Key, oracle.Verdict], expected: Mapping[oracle.Key, oracle.Verdict]
) -> list[str]:
    """Where two sets of verdicts differ in a bit, in words."""
    return [
        f"machine {key[0]} at {key[1]:%m-%d %H:%M}: {results.get(key)}, expected"
        f" {expected.get(key)}"
        for key in sorted(results.keys() | expected.keys())
        if repr(results.get(key)) != repr(expected.get(key))
    ]


def _walk(seed: int, *, flat: float = 0.0, size: float = 3.0) -> list[float]:
    """A day of a counter that stands still for a share of the time."""
    source, value, values = random.Random(seed), 100.0, []
    for _ in range(96):
        value += 0.0 if source.random() < flat else source.uniform(0.1, size)
        values.append(value)
    return values


def _as_text(value: object) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return str(value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo else value)


def _connect(url: str) -> psycopg2.extensions.connection:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(plain, options="-c TimeZone=UTC")
    connection.autocommit = True
    return connection
