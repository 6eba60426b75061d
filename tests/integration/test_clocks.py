"""Ticks through the nights in which local clocks are set: each succeeds, and none loses a reading.

A clock is an input: zones of both hemispheres, changes of an hour and of half an hour, labels of
starts and ends, late rows, and tables that say when a row was written or do not.
"""

import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import PROPERTY
from hypothesis_profiles import settings as hypothesis_settings

from anomaly.database.connection import Database
from anomaly.database.results import Origin
from anomaly.lifecycle.training import Trainer
from anomaly.operations.status import newest_reading, status
from anomaly.readings import local_clocks
from anomaly.scoring.publishing import Job
from anomaly.scoring.reconciling import Reconciler
from anomaly.scoring.scorer import Scorer
from anomaly.scoring.ticks import score_tick
from anomaly.settings import load_settings
from anomaly.windows import Window, floor_to_interval
from deployment import TESTS, execute, rows, train_in_force
from integration_settings import SMALL

QUARTER = timedelta(minutes=15)
ZONES = (
    "Europe/Berlin", "America/New_York", "Europe/Dublin", "Australia/Sydney", "Australia/Lord_Howe",
    "Pacific/Chatham", "America/St_Johns", "America/Santiago", "Africa/Casablanca", "Asia/Tehran",
)  # fmt: skip
MACHINES = (1, 2)
INTERVALS = 24
LATE_FROM = 20  # rows that are late come at this tick


@dataclass(frozen=True)
class Night:
    """A change of a clock, and how the rows of that night come."""

    zone: str
    at: datetime
    label: str
    ends_as_start: bool
    lateness: int
    late: frozenset[int]
    written: str | None

    @property
    def start(self) -> datetime:
        return floor_to_interval(self.at, QUARTER) - timedelta(hours=3)


@st.composite
def nights(draw):
    zone = draw(st.sampled_from(ZONES))
    year = draw(st.integers(2000, 2037))
    begins, ends = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    found = local_clocks.changes(ZoneInfo(zone), begins, ends)
    at = draw(st.sampled_from([change.at for change in found] or [begins + timedelta(days=200)]))
    label = draw(st.sampled_from(["start", "end"]))
    return Night(
        zone,
        at,
        label,
        ends_as_start=label == "end" and draw(st.booleans()),
        lateness=draw(st.sampled_from([0, 1, 2, 5, 24])),
        late=draw(st.frozensets(st.integers(0, INTERVALS - 1), max_size=4)),
        written=draw(st.sampled_from([None, "timestamptz", "timestamp"])),
    )


def as_stored(night, start):
    """Label of an interval as the table holds it."""
    zone = ZoneInfo(night.zone)
    if night.label == "start":
        return local_clocks.local_time(start, zone)
    if night.ends_as_start:
        return local_clocks.local_time(start, zone) + QUARTER
    return local_clocks.local_time(start + QUARTER, zone)


def write(database, night, start, now, written_column):
    """Add both machines' rows of an interval, written 20 s before `now`."""
    step = (start - night.start) / QUARTER
    moment = now - timedelta(seconds=20)
    if night.written == "timestamp":
        moment = local_clocks.local_time(moment, ZoneInfo(night.zone))
    for machine in MACHINES:
        reading = 1000 + step * machine + 0.1 * (step * 7 % 5)
        values = {"taken": as_stored(night, start), "machine": machine, "kwh": reading}
        if written_column:
            values["written"] = moment
        names = ", ".join(values)
        marks = ", ".join(f":{name}" for name in values)
        execute(database, f"INSERT INTO plant.log ({names}) VALUES ({marks})", **values)


@pytest.fixture(scope="module")
def trained(postgres, migrated, tmp_path_factory):
    """A context that has a deployment with a model, its meter table empty."""
    models = tmp_path_factory.mktemp("models")

    @contextmanager
    def made(night):
        name = f"night_{uuid.uuid4().hex[:12]}"
        postgres.create_database(name, template=migrated)
        settings = load_settings(
            {},
            models_url=str(models / name),
            source_schema="plant",
            source_table="log",
            source_layout="long",
            source_timestamp_column="taken",
            source_machine_column="machine",
            source_value_column="kwh",
            source_ingested_at_column="written",
            source_timezone=night.zone,
            timestamp_label=night.label,
            lateness_hours=night.lateness,
            **SMALL,
        )
        database = Database(postgres.url(name), settings.database)
        written = f", written {night.written}" if night.written else ""
        execute(
            database,
            f"CREATE SCHEMA plant; CREATE TABLE plant.log (taken timestamp, machine int, kwh float8"
            f"{written}); GRANT USAGE ON SCHEMA plant TO anomaly_source; GRANT SELECT ON plant.log"
            " TO anomaly_source; INSERT INTO plant.log (taken, machine, kwh) SELECT"
            " t, m, extract(epoch FROM t - '1999-06-01') / 3600 * m + random() FROM unnest(ARRAY[1,"
            " 2]) AS m, generate_series(timestamp '1999-06-01', '1999-06-04', '15 min') AS t",
        )
        train_in_force(database, settings, Window.parse("1999-06-01", "1999-06-03"))
        execute(database, "TRUNCATE plant.log")
        yield database, settings
        database.dispose()
        postgres.drop_database(name)

    return made


def tick_through(database, settings, night):
    """Tick through six hours, late rows at the end of them, then reconcile."""
    intervals = [night.start + n * QUARTER for n in range(INTERVALS)]
    scorer = Scorer(database, settings)
    for number, start in enumerate(intervals):
        now = start + QUARTER
        if number not in night.late:
            write(database, night, start, now, night.written)
        if number == LATE_FROM:
            for late in sorted(n for n in night.late if n < LATE_FROM):
                write(database, night, intervals[late], now, night.written)
        score_tick(scorer, Window(start, now), TESTS)
        newest = newest_reading(database, settings.meter_table, settings.meter, now)
        assert newest is None or newest < now

    for late in sorted(n for n in night.late if n >= LATE_FROM):
        write(database, night, intervals[late], intervals[-1] + QUARTER, night.written)
    end = intervals[-1] + QUARTER
    Reconciler(database, settings).reconcile(
        Window(night.start - timedelta(days=1), end), TESTS, allow_retract=True
    )

    return intervals


def check_all_there(database, settings, night):
    """Each reading has its verdict, and nothing is left to do."""
    intervals = tick_through(database, settings, night)
    found = rows(database, "SELECT machine_id, utc_timestamp FROM anomaly.anomaly_results")
    assert sorted(found) == sorted((machine, at) for machine in MACHINES for at in intervals)
    values = rows(
        database, "SELECT reading FROM anomaly.anomaly_results WHERE machine_id = 1 ORDER BY 1"
    )
    by_time = rows(
        database,
        "SELECT reading FROM anomaly.anomaly_results WHERE machine_id = 1 ORDER BY utc_timestamp",
    )
    assert values == by_time  # no counter went back: each hour has its own readings
    now = status(database, settings, intervals[-1] + QUARTER)
    assert (now.unscored, now.outdated, now.without_reading, now.stale) == (0, 0, 0, False)
    again = Scorer(database, settings).score_range(
        Window(night.start, intervals[-1] + QUARTER), Job(Origin.BACKFILL, TESTS)
    )
    assert (again.inserted, again.updated, again.retracted) == (0, 0, 0)


@given(night=nights())
@hypothesis_settings(PROPERTY, max_examples=max(2, PROPERTY.max_examples // 2))
def test_no_night_of_any_clock_leaves_a_tick_that_fails_or_a_reading_without_its_verdict(
    trained, night
):
    with trained(night) as (database, settings):
        check_all_there(database, settings, night)


MINUTE_PAST_MIDNIGHT = Night(
    "America/St_Johns",
    datetime(2005, 10, 30, 2, 31, tzinfo=UTC),
    "end",
    ends_as_start=True,
    lateness=1,
    late=frozenset(),
    written=None,
)


def test_a_clock_that_is_set_a_minute_past_midnight_loses_no_reading(trained):
    with trained(MINUTE_PAST_MIDNIGHT) as (database, settings):
        check_all_there(database, settings, MINUTE_PAST_MIDNIGHT)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@given(night=nights())
@hypothesis_settings(PROPERTY, max_examples=40, derandomize=False)
def test_nor_does_any_of_many_more_nights(trained, night):
    with trained(night) as (database, settings):
        check_all_there(database, settings, night)


BERLIN = Night(
    "Europe/Berlin", datetime(2025, 10, 26, 1, tzinfo=UTC), "start", False, 2, frozenset(), None
)


@pytest.fixture
def berlin(trained):
    """A table in the local time of Berlin that does not say when its rows were written."""
    with trained(BERLIN) as made:
        yield made


def test_the_missing_hour_of_a_table_that_holds_it_once_is_no_incident(berlin):
    database, settings = berlin
    execute(database, "ALTER TABLE plant.log ADD UNIQUE (taken, machine)")
    for number in range(INTERVALS):
        start = BERLIN.start + number * QUARTER
        if not timedelta(hours=2) <= start - BERLIN.start < timedelta(hours=3):
            write(database, BERLIN, start, start + QUARTER, None)

    Scorer(database, settings).score_range(
        Window(BERLIN.start, BERLIN.start + INTERVALS * QUARTER), Job(Origin.BACKFILL, TESTS)
    )

    assert rows(database, "SELECT reason FROM anomaly.incidents WHERE kind = 'meter'") == []
    assert len(rows(database, "SELECT 1 FROM anomaly.anomaly_results")) == 2 * (INTERVALS - 4)


def test_readings_at_times_that_the_clock_skips_are_read_and_reported(berlin):
    spring = datetime(2025, 3, 30, 1, tzinfo=UTC)
    database, settings = berlin
    execute(
        database,
        "INSERT INTO plant.log SELECT t, 1, extract(epoch FROM t - '2025-03-30') / 3600"
        " FROM generate_series(timestamp '2025-03-30 00:00', '2025-03-30 05:45', '15 min') AS t",
    )

    found = status(database, settings, spring + timedelta(hours=5))

    assert found.skipped_times == 4
    (problem,) = [problem for problem in found.problems if "skip" in problem]
    assert problem.endswith("set ANOMALY_SOURCE_TIMEZONE=Etc/GMT-1")


def test_a_row_that_no_clock_can_show_costs_nothing_but_itself(berlin):
    database, settings = berlin
    for number in range(INTERVALS):
        write(database, BERLIN, BERLIN.start + number * QUARTER, BERLIN.start, None)
    execute(
        database,
        "INSERT INTO plant.log VALUES ('12026-05-10', 1, 5), ('infinity', 1, 5), ('-infinity', 1,"
        " 5), ('4000-01-01 BC', 1, 5), ('9999-12-31 23:59:59', 1, 5), ('2099-01-01', 1, 5)",
    )
    end = BERLIN.start + INTERVALS * QUARTER

    score_tick(Scorer(database, settings), Window(end - QUARTER, end), TESTS)
    Reconciler(database, settings).reconcile(Window(BERLIN.start, end), TESTS)
    found = status(database, settings, end)
    window = Trainer(
        database, settings.changed(judging_days=0.0, training_min_days=0.2)
    ).default_window(end)

    assert (found.newest_reading, found.future_readings) == (end - QUARTER, 4)
    assert found.unscored == 0
    assert window == Window(BERLIN.start, end)
