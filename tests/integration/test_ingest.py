"""A file is loaded whole or not at all, once, and never over what it does not speak of.

The demo's feeder appends to the same table by the same path.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from psycopg2.sql import SQL

from anomaly.database.connection import Database
from anomaly.demo import feeder
from anomaly.demo.embedded_postgres import EmbeddedPostgres
from anomaly.demo.feeder import append_missing, require_fed, start_of_history
from anomaly.errors import DatabaseError, IngestError, SourceError
from anomaly.loading import text_files
from anomaly.loading.file_readings import FileReadings
from anomaly.loading.files import IngestReport, ingest
from anomaly.loading.options import FileOptions
from anomaly.settings import Settings, load_settings

START = datetime(2017, 3, 7, tzinfo=UTC)
HEADER = "utc_timestamp,machine_1,machine_2\n"
FIRST = "2017-03-07T00:00:00Z,1.5,2.5\n"
SECOND = "2017-03-07T00:15:00Z,1.75,2.75\n"

Load = Callable[[str], IngestReport]


def query(database: Database, statement: str) -> list[tuple[object, ...]]:
    """Run a statement as the login itself."""
    with database.transaction() as transaction:
        return transaction.execute(SQL(statement))


def stored(database: Database) -> list[tuple[object, ...]]:
    return query(
        database,
        "SELECT utc_timestamp, machine_1, machine_2 FROM anomaly.meter_readings ORDER BY 1",
    )


def at(quarter: int) -> datetime:
    return START + quarter * timedelta(minutes=15)


def rows(count: int, *, first: int = 0) -> str:
    """Lines of a wide file, a quarter-hour apart."""
    moments = [START + n * timedelta(minutes=15) for n in range(first, first + count)]
    return "".join(f"{moment.isoformat()},{n},{n}\n" for n, moment in enumerate(moments, first))


@pytest.fixture
def load(database: Database, settings: Settings, tmp_path: Path) -> Load:
    """Load a text as a file."""

    def load(content: str) -> IngestReport:
        file = tmp_path / "readings.csv"
        file.write_text(content)
        return ingest(database, settings.meter_table, settings.meter, file)

    return load


# Our own table ------------------------------------------------------------


def test_a_file_is_loaded_and_reported(load: Load, database: Database) -> None:
    report = load(HEADER + FIRST + "2017-03-07T00:15:00Z,,2.75\n")

    assert stored(database) == [
        (START, 1.5, 2.5),
        (START + timedelta(minutes=15), None, 2.75),
    ]
    assert report.counts() == {
        "rows": 2,
        "inserted": 2,
        "updated": 0,
        "skipped_rows": 0,
        "unchanged": 0,
        "readings": 3,
        "first": START,
        "last": START + timedelta(minutes=15),
        "machines": ["machine_1", "machine_2"],
        "ignored_columns": [],
    }


def test_loading_a_file_twice_changes_nothing(load: Load, database: Database) -> None:
    everything = "SELECT *, xmin::text FROM anomaly.meter_readings ORDER BY 1"
    load(HEADER + FIRST + "2017-03-07T00:15:00Z,,0.1\n")
    before = query(database, everything)

    again = load(HEADER + FIRST + "2017-03-07T00:15:00Z,,0.1\n")

    assert (again.inserted, again.updated, again.unchanged) == (0, 0, 2)
    assert query(database, everything) == before


def test_only_a_row_that_differs_is_updated_and_ingested_anew(
    load: Load, database: Database
) -> None:
    ingested = "SELECT ingested_at FROM anomaly.meter_readings ORDER BY utc_timestamp"
    load(HEADER + FIRST + SECOND)
    before = query(database, ingested)

    report = load(HEADER + FIRST + SECOND.replace("1.75", "1.76") + rows(1, first=2))

    assert (report.inserted, report.updated, report.unchanged) == (1, 1, 1)
    after = query(database, ingested)
    assert after[0] == before[0]
    assert after[2] == after[1] > before[1]


def test_a_column_that_the_file_lacks_keeps_its_values(load: Load, database: Database) -> None:
    load(HEADER + FIRST)

    load("utc_timestamp,machine_1\n2017-03-07T00:00:00Z,9\n")

    assert stored(database) == [(START, 9.0, 2.5)]


def test_an_empty_cell_overwrites(load: Load, database: Database) -> None:
    load(HEADER + FIRST)

    report = load(HEADER + "2017-03-07T00:00:00Z,,2.5\n")

    assert report.updated == 1
    assert stored(database) == [(START, None, 2.5)]


@pytest.mark.parametrize(
    "bad_line",
    [rows(1), "2017-03-07T09:00:00Z,off,1\n", "2017-03-07T09:00:00Z,1\n"],
    ids=["repeated", "text", "cut off"],
)
def test_a_bad_last_line_leaves_everything_as_it_was(
    bad_line: str, load: Load, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 300)
    load(HEADER + FIRST)

    with pytest.raises(IngestError, match=r"readings\.csv, lines? .*32"):
        load(HEADER + rows(30) + bad_line)

    assert stored(database) == [(START, 1.5, 2.5)]


def test_lines_that_repeat_a_moment_are_named_across_chunks(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 300)

    with pytest.raises(
        IngestError, match=r"lines 7 and 32 have the same utc_timestamp \(2017-03-07"
    ):
        load(HEADER + rows(30) + rows(1, first=5))


def test_all_lines_that_repeat_a_moment_are_told_at_once(load: Load, database: Database) -> None:
    with pytest.raises(IngestError) as error:
        load(HEADER + rows(30) + rows(12, first=5))

    said = str(error.value).split("\n")
    assert said[0].endswith("readings.csv has 12 readings twice:")
    assert said[1].startswith("  lines 7 and 32 have the same utc_timestamp (2017-03-07 01:15")
    assert (len(said), said[-2:]) == (13, ["  and 2 more", "keep the right ones"])
    assert stored(database) == []


def test_power_is_refused_where_a_counter_is_expected(load: Load, database: Database) -> None:
    moments = [START + n * timedelta(minutes=15) for n in range(100)]
    lines = [f"{moment.isoformat()},{9000 + n * 37 % 100},0\n" for n, moment in enumerate(moments)]

    with pytest.raises(IngestError, match="set ANOMALY_READING_KIND=power_w"):
        load(HEADER + "".join(lines))

    assert stored(database) == []


def test_the_real_readings_are_loaded_to_the_last_digit(
    database: Database, settings: Settings, shared_data: Path
) -> None:
    report = ingest(
        database, settings.meter_table, settings.meter, shared_data / "industrial3_15min.csv"
    )

    assert (report.rows, report.inserted, report.readings) == (6605, 6605, 33_025)
    last = query(database, "SELECT max(machine_1) FROM anomaly.meter_readings")
    assert last == [(42301.268,)]


def test_a_table_that_is_missing_is_refused_with_the_next_step(
    load: Load, database: Database
) -> None:
    query(database, "DROP TABLE anomaly.meter_readings CASCADE")

    with pytest.raises(SourceError, match=r"anomaly\.meter_readings.*run `anomaly migrate`"):
        load(HEADER + FIRST)


# Somebody else's wide table ------------------------------------------------


@pytest.fixture
def load_foreign(database: Database, tmp_path: Path) -> Callable[..., IngestReport]:
    """Load a text into a wide table of the log-in's own, with 40 machines."""
    columns = ", ".join(f"machine_{n} real" for n in range(1, 41))
    query(database, f"CREATE TABLE public.meters (at timestamptz, {columns})")

    def load(content: str, options: FileOptions | None = None, **more: object) -> IngestReport:
        file = tmp_path / "readings.csv"
        file.write_text(content)
        settings = load_settings(
            {},
            source_schema="public",
            source_table="meters",
            source_timestamp_column="at",
            source_ingested_at_column="",
            **more,
        )
        return ingest(database, settings.meter_table, settings.meter, file, options)

    return load


FOREIGN = "SELECT at, machine_3, machine_40 FROM public.meters ORDER BY at"


def test_somebody_elses_wide_table_is_written_with_as_many_machines_as_it_has(
    load_foreign: Callable[..., IngestReport], database: Database
) -> None:
    content = "at,machine_40,Machine 3\n2017-03-07T00:00Z,1.5,2\n2017-03-07T00:15Z,,3\n"

    first, again = load_foreign(content), load_foreign(content)

    assert query(database, FOREIGN) == [(START, 2.0, 1.5), (at(1), 3.0, None)]
    assert (first.inserted, again.inserted, again.unchanged) == (2, 0, 2)


def test_somebody_elses_columns_are_named_by_a_setting_or_in_the_command(
    load_foreign: Callable[..., IngestReport], database: Database
) -> None:
    query(database, 'ALTER TABLE public.meters RENAME machine_3 TO "Pump A"')
    content = "when,pump a,kWh\n2017-03-07T00:00Z,2,1.5\n"

    load_foreign(
        content,
        FileOptions(columns={"kWh": "machine_40"}),
        source_machines={"Pump A": 3, "machine_40": 40},
    )

    assert query(database, FOREIGN.replace("machine_3", '"Pump A"')) == [(START, 2.0, 1.5)]


def test_a_column_that_somebody_elses_table_lacks_is_named(
    load_foreign: Callable[..., IngestReport], database: Database
) -> None:
    with pytest.raises(SourceError, match=r"public\.meters has no column 'machine_41': add it"):
        load_foreign("at,machine_41\n2017-03-07T00:00Z,2\n")

    assert query(database, FOREIGN) == []


# Another layout than the table's --------------------------------------------

LONG_FILE = (
    "time,meter,kwh\n"
    "2017-03-07T00:00Z,machine_1,1.5\n2017-03-07T00:00Z,2,2.5\n"
    "2017-03-07T00:15Z,machine_1,1.75\n"
)


def test_a_long_file_fills_a_wide_table(load: Load, database: Database) -> None:
    report = load(LONG_FILE)

    assert stored(database) == [(START, 1.5, 2.5), (at(1), 1.75, None)]
    assert (report.rows, report.inserted, report.readings) == (2, 2, 3)
    assert report.machines == ["machine_1", "machine_2"]


def test_machines_that_a_long_file_does_not_name_keep_their_readings(
    load: Load, database: Database
) -> None:
    load(HEADER + FIRST + SECOND)
    content = "utc_timestamp,machine_id,reading\n2017-03-07T00:15Z,1,9\n2017-03-07T00:00Z,1,\n"

    report = load(content)

    assert stored(database) == [(START, None, 2.5), (at(1), 9.0, 2.75)]
    assert (report.inserted, report.updated) == (0, 2)
    assert load(content).unchanged == 2


def test_a_long_file_that_contradicts_itself_is_refused_for_a_wide_table(
    load: Load, database: Database
) -> None:
    with pytest.raises(IngestError, match="lines 4 and 5 have the same utc_timestamp and machine"):
        load(LONG_FILE + "2017-03-07T00:15Z,1,1.8\n")

    assert stored(database) == []


def test_machines_that_a_wide_table_lacks_are_all_named(load: Load) -> None:
    with pytest.raises(IngestError) as error:
        load(
            LONG_FILE
            + "".join(f"2017-03-07T0{n}:15Z,press,1\n2017-03-07T0{n}:30Z,saw,1\n" for n in (1, 2))
        )

    assert "line 5, column meter: 'press' is no machine of anomaly.meter_readings" in str(
        error.value
    )
    assert "line 6, column meter: 'saw' is no machine" in str(error.value)
    assert "2 rows that cannot be read" in str(error.value)


def test_machines_of_a_long_file_are_named_in_the_command(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "readings.csv"
    file.write_text("time,meter,kwh\n2017-03-07T00:00Z,saw,1.5\n2017-03-07T00:15Z,saw,2.5\n")
    options = FileOptions(columns={"saw": "machine_2"})

    ingest(database, settings.meter_table, settings.meter, file, options)

    assert stored(database) == [(START, None, 1.5), (at(1), None, 2.5)]
    file.write_text(HEADER + FIRST)
    with pytest.raises(IngestError, match="has no column 'saw', it has 'utc_timestamp', 'mach"):
        ingest(database, settings.meter_table, settings.meter, file, options)


# All or nothing -----------------------------------------------------------

LOADING = """
import sys
import time
from pathlib import Path
from anomaly.database.connection import Database
from anomaly.loading import text_files
from anomaly.loading.file_readings import FileReadings
from anomaly.loading.files import ingest
from anomaly.settings import load_settings

parts = FileReadings.parts


def slow_parts(self):
    for number, part in enumerate(parts(self)):
        yield part
        time.sleep(60 if number else 0)


text_files.BLOCK_BYTES = 3000
FileReadings.parts = slow_parts
settings = load_settings()
database = Database(sys.argv[1], settings.database)
ingest(database, settings.meter_table, settings.meter, Path(sys.argv[2]))
"""


@pytest.mark.parametrize("there", ["", FIRST], ids=["straight into the table", "staged"])
def test_a_load_killed_half_way_leaves_nothing(
    there: str, load: Load, database: Database, settings: Settings, tmp_path: Path
) -> None:
    if there:
        load(HEADER + there)
    file = tmp_path / "large.csv"
    file.write_text(HEADER + FIRST + rows(5000, first=1))
    url = database.engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen([sys.executable, "-c", LOADING, url, str(file)])
    try:
        wait_until(lambda: copied_by_now(database))
    finally:
        process.kill()
        process.wait()

    assert len(stored(database)) == bool(there)
    report = ingest(database, settings.meter_table, settings.meter, file)
    assert report.inserted == 5001 - bool(there)


def test_a_pipe_is_read_whole(load: Load, database: Database, tmp_path: Path) -> None:
    command = ["anomaly", "ingest", "/dev/stdin"]
    url = database.engine.url.render_as_string(hide_password=False)
    done = subprocess.run(
        [str(Path(sys.executable).with_name(command[0])), *command[1:]],
        input=(HEADER + FIRST).encode(),
        env=os.environ | {"ANOMALY_DATABASE_URL": url},
        check=True,
        capture_output=True,
    )

    assert b"format: text in UTF-8" in done.stdout
    assert stored(database) == [(START, 1.5, 2.5)]


def copied_by_now(database: Database) -> bool:
    """Whether the loading process has copied a block and goes on with the file."""
    active = query(
        database,
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND state = 'idle in transaction' AND query LIKE 'COPY %'",
    )
    return bool(active)


def wait_until(happened: Callable[[], bool], seconds: float = 30) -> None:
    waiting = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if happened():
            return
        waiting.wait(0.05)
    raise AssertionError(f"did not happen within {seconds} s")


def test_a_connection_lost_half_way_is_one_clear_error_and_leaves_nothing(
    load: Load, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 300)
    parts = FileReadings.parts

    def cut_off(self: FileReadings) -> object:
        for part in parts(self):
            yield part
            query(
                database,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )

    monkeypatch.setattr(FileReadings, "parts", cut_off)

    with pytest.raises(DatabaseError, match=r"broke off while .*nothing was loaded, try again"):
        load(HEADER + rows(30))

    assert stored(database) == []


def test_two_loads_at_once_follow_each_other(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "readings.csv"
    file.write_text(HEADER + rows(2000))
    reports: list[IngestReport] = []
    loads = [
        threading.Thread(
            target=lambda: reports.append(
                ingest(database, settings.meter_table, settings.meter, file)
            )
        )
        for _ in range(2)
    ]

    for one in loads:
        one.start()
    for one in loads:
        one.join()

    assert sorted((report.inserted, report.unchanged) for report in reports) == [
        (0, 2000),
        (2000, 0),
    ]


# A long table -------------------------------------------------------------

LONG = "time,machine,kwh\n"


def long_settings(**overrides: object) -> Settings:
    names = {
        "source_layout": "long",
        "source_schema": "plant",
        "source_table": "readings",
        "source_timestamp_column": "time",
        "source_machine_column": "machine",
        "source_value_column": "kwh",
    }
    return load_settings({}, **(names | overrides))


def make_long_table(database: Database, columns: str) -> None:
    query(database, f"CREATE SCHEMA plant; CREATE TABLE plant.readings ({columns})")


@pytest.fixture
def load_long(database: Database, tmp_path: Path) -> Callable[..., IngestReport]:
    """Load a text into the long table."""

    def load(content: str, **overrides: object) -> IngestReport:
        file = tmp_path / "readings.csv"
        file.write_text(content)
        return ingest(
            database, long_settings(**overrides).meter_table, long_settings(**overrides).meter, file
        )

    return load


def test_a_long_table_is_loaded_and_loading_again_changes_nothing(
    load_long: Load, database: Database
) -> None:
    make_long_table(database, "machine text, time timestamptz, kwh double precision")
    content = LONG + "2017-03-07T00:00Z,press,1.5\n2017-03-07T00:00Z,saw,\n"

    first, second = load_long(content), load_long(content)

    assert (first.inserted, first.readings, first.machines) == (2, 1, ["press", "saw"])
    assert (second.inserted, second.updated, second.unchanged) == (0, 0, 2)
    assert query(database, "SELECT machine, kwh FROM plant.readings ORDER BY 1") == [
        ("press", 1.5),
        ("saw", None),
    ]


def test_a_changed_row_of_a_long_table_is_updated_with_its_time_of_ingestion(
    load_long: Load, database: Database
) -> None:
    make_long_table(database, "machine int, time timestamptz, kwh numeric, ingested_at timestamptz")
    load_long(LONG + "2017-03-07T00:00Z,1,1.5\n2017-03-07T00:00Z,2,2.5\n")

    report = load_long(LONG + "2017-03-07T00:00Z,1,1.6\n2017-03-07T00:00Z,2,2.50\n")

    assert (report.updated, report.unchanged, report.machines) == (1, 1, [1, 2])
    latest = "SELECT machine FROM plant.readings ORDER BY ingested_at DESC LIMIT 1"
    assert query(database, latest) == [(1,)]


def test_machine_ids_are_reported_as_numbers_in_order(load_long: Load, database: Database) -> None:
    make_long_table(database, "machine int, time timestamptz, kwh numeric")

    report = load_long(LONG + "2017-03-07T00:00Z,10,1\n2017-03-07T00:00Z,9,1\n")

    assert report.machines == [9, 10]


def test_equal_lines_of_a_long_file_are_loaded_once(load_long: Load, database: Database) -> None:
    make_long_table(database, "machine int, time timestamptz, kwh numeric")
    line = "2017-03-07T00:00Z,1,1.5\n"

    report = load_long(LONG + line + line.replace("1.5", "1.50") + line.replace("Z", "+00:00"))

    assert (report.rows, report.inserted) == (1, 1)


def test_contradicting_lines_of_a_long_file_are_refused(
    load_long: Load, database: Database
) -> None:
    make_long_table(database, "machine int, time timestamptz, kwh numeric")
    line = "2017-03-07T00:00Z,1,1.5\n"

    with pytest.raises(IngestError, match="lines 3 and 4 have the same time and machine"):
        load_long(LONG + line.replace(",1,", ",2,") + line + line.replace("1.5", ""))


def test_a_reading_that_a_long_table_holds_twice_counts_once(
    load_long: Load, database: Database
) -> None:
    make_long_table(database, "machine int, time timestamptz, kwh numeric")
    query(
        database,
        "INSERT INTO plant.readings SELECT 1, '2017-03-07Z', n FROM generate_series(1, 2) n",
    )

    report = load_long(LONG + "2017-03-07T00:00Z,1,3\n")

    assert (report.inserted, report.updated, report.unchanged) == (0, 1, 0)


@pytest.mark.parametrize(
    ("columns", "line", "said"),
    [
        (
            "machine int, time timestamptz, kwh float",
            "a,1",
            "line 2, column machine: 'a' is not a wh",
        ),
        (
            "machine int, time timestamptz, kwh int",
            "1,1.5",
            "line 2, column kwh: '1.5' is not a who",
        ),
        (
            "machine int, time timestamptz, kwh int",
            "1,1e12",
            "refuses a reading: value .* out of rang",
        ),
        (
            "machine uuid, time timestamptz, kwh int",
            "a,1",
            "refuses a reading: invalid input syntax",
        ),
        (
            "machine int, time timestamptz, kwh float NOT NULL",
            "1,",
            "refuses a reading: null value",
        ),
        (
            "machine varchar(1), time timestamptz, kwh float",
            "ab,1",
            "refuses a reading: value too lon",
        ),
    ],
)
def test_what_a_long_table_cannot_hold_is_refused(
    columns: str, line: str, said: str, load_long: Load, database: Database
) -> None:
    make_long_table(database, columns)

    with pytest.raises(IngestError, match=rf"readings\.csv.*{said}"):
        load_long(LONG + f"2017-03-07T00:00Z,{line}\n")


def test_whole_numbers_fill_an_integer_column(load_long: Load, database: Database) -> None:
    make_long_table(database, "machine int, time timestamptz, kwh bigint")

    load_long(LONG + "2017-03-07T00:00Z,1,5.0\n2017-03-07T00:15Z,1,\n")

    assert query(database, "SELECT kwh FROM plant.readings ORDER BY time") == [(5,), (None,)]


def test_a_naive_column_is_filled_in_the_zone_of_the_setting(
    load_long: Callable[..., IngestReport], database: Database
) -> None:
    make_long_table(database, "machine int, time timestamp, kwh float")

    report = load_long(LONG + "2017-03-07T00:00Z,1,5\n", source_timezone="Europe/Berlin")

    assert query(database, "SELECT time FROM plant.readings") == [(datetime(2017, 3, 7, 1),)]
    assert report.first == START


@pytest.mark.parametrize("columns", ["", ", ingested_at timestamptz", ", ingested_at timestamp"])
@pytest.mark.parametrize("values", [(5, 6), (5, 5), (6, 5)])
def test_a_naive_table_keeps_both_hours_of_autumn_however_often_they_are_loaded(
    load_long: Callable[..., IngestReport],
    database: Database,
    columns: str,
    values: tuple[int, int],
) -> None:
    make_long_table(database, "machine int, time timestamp, kwh float" + columns)
    content = LONG + "".join(
        f"2017-10-29T0{hour}:15Z,1,{value}\n" for hour, value in enumerate(values)
    )

    first = load_long(content, source_timezone="Europe/Berlin")
    again = load_long(content, source_timezone="Europe/Berlin")

    with database.transaction() as transaction:
        found = transaction.execute(SQL("SELECT time::text, kwh FROM plant.readings ORDER BY 2"))
    assert found == [("2017-10-29 02:15:00", value) for value in sorted(values)]
    assert (first.rows, first.inserted, again.inserted, again.updated) == (2, 2, 0, 0)


def test_a_correction_of_the_first_hour_leaves_the_second_alone(
    load_long: Callable[..., IngestReport], database: Database
) -> None:
    make_long_table(database, "machine int, time timestamp, kwh float")
    load_long(
        LONG + "2017-10-29T00:15Z,1,5\n2017-10-29T01:15Z,1,8\n", source_timezone="Europe/Berlin"
    )

    report = load_long(
        LONG + "2017-10-29T00:15Z,1,6\n2017-10-29T01:15Z,1,8\n", source_timezone="Europe/Berlin"
    )

    with database.transaction() as transaction:
        found = transaction.execute(SQL("SELECT kwh FROM plant.readings ORDER BY 1"))
    assert (found, report.updated, report.inserted) == ([(6.0,), (8.0,)], 1, 0)


@pytest.mark.parametrize(
    ("content", "key", "says"),
    [
        (
            "2017-10-29T00:15Z,1,5\n2017-10-29T01:15Z,1,6\n",
            ", UNIQUE (machine, time)",
            "a unique key",
        ),
        ("2017-10-29T00:15Z,1,5\n", "", "without the second reading"),
    ],
)
def test_an_hour_of_autumn_that_a_naive_table_cannot_hold_is_refused_by_its_line(
    load_long: Callable[..., IngestReport], database: Database, content: str, key: str, says: str
) -> None:
    make_long_table(database, "machine int, time timestamp, kwh float" + key)

    with pytest.raises(IngestError, match=rf"line [23]: 2017-10-29 0\d:15 UTC is 02:15 .*{says}"):
        load_long(LONG + content, source_timezone="Europe/Berlin")


def test_a_long_table_that_is_missing_is_refused_with_the_next_step(load_long: Load) -> None:
    with pytest.raises(SourceError, match=r"plant\.readings to load into: create it, or set"):
        load_long(LONG + "2017-03-07T00:00Z,1,5\n")


def test_a_long_table_with_other_columns_is_refused(load_long: Load, database: Database) -> None:
    make_long_table(database, "id int, time timestamptz, kwh float")

    with pytest.raises(
        SourceError, match=r"has no column 'machine'.*ANOMALY_SOURCE_MACHINE_COLUMN"
    ):
        load_long(LONG + "2017-03-07T00:00Z,1,5\n")


# Whose right is used ------------------------------------------------------


@pytest.fixture
def ordinary_login(
    postgres: EmbeddedPostgres, database: Database, settings: Settings
) -> Iterator[Database]:
    """The same database, as a login that may nothing yet."""
    query(database, "CREATE ROLE ingest_login LOGIN PASSWORD 'secret'")
    name = str(database.engine.url.database)
    theirs = Database(postgres.url(name, "ingest_login", "secret"), settings.database)
    yield theirs
    theirs.dispose()
    query(database, "DROP OWNED BY ingest_login; DROP ROLE ingest_login")


def test_our_own_table_is_written_by_a_login_that_may_act_as_its_owner(
    ordinary_login: Database, database: Database, settings: Settings, tmp_path: Path
) -> None:
    query(database, "GRANT anomaly_owner TO ingest_login")
    file = tmp_path / "readings.csv"
    file.write_text(HEADER + FIRST)

    assert ingest(ordinary_login, settings.meter_table, settings.meter, file).inserted == 1


def test_a_login_that_may_not_is_refused_with_the_next_step(
    ordinary_login: Database, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "readings.csv"
    file.write_text(HEADER + FIRST)

    with pytest.raises(DatabaseError, match="run `anomaly migrate`, or grant the role"):
        ingest(ordinary_login, settings.meter_table, settings.meter, file)


def test_a_foreign_table_is_written_by_the_login_itself(
    ordinary_login: Database, database: Database, tmp_path: Path
) -> None:
    make_long_table(database, "machine int, time timestamptz, kwh float")
    query(database, "GRANT USAGE ON SCHEMA plant TO ingest_login")
    query(database, "GRANT SELECT, INSERT, UPDATE ON plant.readings TO ingest_login")
    file = tmp_path / "readings.csv"
    file.write_text(LONG + "2017-03-07T00:00Z,1,5\n")

    assert (
        ingest(ordinary_login, long_settings().meter_table, long_settings().meter, file).inserted
        == 1
    )


def test_a_foreign_table_without_the_right_is_refused_with_the_next_step(
    ordinary_login: Database, database: Database, tmp_path: Path
) -> None:
    make_long_table(database, "machine int, time timestamptz, kwh float")
    file = tmp_path / "readings.csv"
    file.write_text(LONG + "2017-03-07T00:00Z,1,5\n")

    with pytest.raises(
        DatabaseError, match="let the table's owner grant USAGE on its schema and SELECT,"
    ):
        ingest(ordinary_login, long_settings().meter_table, long_settings().meter, file)


# The demo's feeder --------------------------------------------------------


def fed(database: Database) -> list[object]:
    return [row[0] for row in query(database, "SELECT utc_timestamp FROM anomaly.meter_readings")]


def test_a_quarter_hour_is_fed_once_it_has_ended(database: Database) -> None:
    almost = START + timedelta(minutes=44, seconds=59)

    assert append_missing(database, START, almost, 7) == 2
    assert append_missing(database, START, almost + timedelta(seconds=1), 7) == 1
    assert sorted(map(str, fed(database)))[-1] == "2017-03-07 00:30:00+00:00"


def test_nothing_is_fed_before_the_first_quarter_hour_has_ended(database: Database) -> None:
    assert append_missing(database, START, START + timedelta(minutes=14), 7) == 0


def test_feeding_again_inserts_nothing_and_leaves_what_was_corrected(database: Database) -> None:
    now = START + timedelta(hours=1)
    append_missing(database, START, now, 7)
    query(database, "UPDATE anomaly.meter_readings SET machine_1 = -1, machine_2 = -2")

    assert append_missing(database, START, now, 7) == 0
    assert {row[1:] for row in stored(database)} == {(-1.0, -2.0)}


def test_what_is_fed_bit_by_bit_is_what_is_fed_at_once(database: Database) -> None:
    everything = "SELECT * FROM anomaly.meter_readings ORDER BY 1"
    for hour in range(1, 13):
        append_missing(database, START, START + timedelta(hours=hour), 7)
    columns = [row[:22] for row in query(database, everything)]
    query(database, "DELETE FROM anomaly.meter_readings")

    append_missing(database, START, START + timedelta(hours=12), 7)

    assert [row[:22] for row in query(database, everything)] == columns


def test_the_feeder_fills_our_own_table_whatever_the_environment_names(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOMALY_SOURCE_TABLE", "somebody_elses")

    assert append_missing(database, START, START + timedelta(hours=1), 7) == 4


def test_a_history_begins_once_and_a_restart_goes_on_with_it(database: Database) -> None:
    now, hour = START + timedelta(hours=1, minutes=7), timedelta(hours=1)

    begun = start_of_history(database, hour, now, 7)
    append_missing(database, begun, now, 7)

    assert begun == START
    assert start_of_history(database, hour, now + timedelta(days=1), 7) == START


def test_a_table_with_other_readings_is_left_alone_by_the_demo(
    database: Database, load: Load
) -> None:
    load(HEADER + FIRST)

    with pytest.raises(SourceError, match="readings that are not generated"):
        start_of_history(database, timedelta(hours=1), START + timedelta(hours=1), 7)


def test_the_feeder_is_healthy_while_the_newest_reading_is_young(database: Database) -> None:
    now = START + timedelta(hours=1)
    with pytest.raises(SourceError, match="newest generated reading is of None"):
        require_fed(database, now)

    append_missing(database, START, now, 7)

    require_fed(database, now + timedelta(minutes=20))
    with pytest.raises(SourceError, match="00:45"):
        require_fed(database, now + timedelta(minutes=45))


def test_the_feeder_outlives_a_restart_of_the_database(
    postgres: EmbeddedPostgres,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(feeder, "RETRY", timedelta(seconds=0.05))
    stop, start = threading.Event(), datetime.now(UTC) - timedelta(hours=1)
    feeding = threading.Thread(target=feeder.feed, args=(database, start, 7, stop))
    postgres.stop()
    try:
        feeding.start()
        wait_until(lambda: "trying again" in caplog.text)
    finally:
        postgres.start()

    wait_until(lambda: len(fed(database)) >= 3)
    stop.set()
    feeding.join(5)
    assert not feeding.is_alive()


def test_the_feeder_ends_when_it_is_told_to(database: Database) -> None:
    url = database.engine.url.render_as_string(hide_password=False)
    start = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    process = subprocess.Popen(
        [sys.executable, "-m", "anomaly.demo.feeder", "--start", start, "--seed", "3"],
        env=os.environ | {"ANOMALY_DATABASE_URL": url},
        stderr=subprocess.PIPE,
    )
    try:
        wait_until(lambda: len(fed(database)) >= 3)
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()
