"""Readings that somebody has labelled, in a table or view of the database."""

import pandas as pd
import pytest

from anomaly.database.connection import Database
from anomaly.database.labelled_readings import read_labels
from anomaly.errors import SourceError
from anomaly.evaluation.labelled_readings import as_labelled, is_csv, read_labelled
from anomaly.settings import load_settings
from deployment import execute

SETTINGS = load_settings({}, reading_kind="power_w", interval_minutes=5)


@pytest.fixture
def pump(database):
    """A day of a pump in watts every five minutes; an hour of it is labelled."""
    execute(
        database,
        "CREATE SCHEMA lab; GRANT USAGE ON SCHEMA lab TO anomaly_source;"
        " ALTER DEFAULT PRIVILEGES IN SCHEMA lab GRANT SELECT ON TABLES TO anomaly_source",
    )
    execute(
        database,
        "CREATE TABLE lab.pumps AS SELECT t AS utc_timestamp, 'pump' AS machine_id,"
        " 1000 + extract(minute FROM t)::float AS reading, 'by hand' AS note,"
        " t >= '2026-03-02T10:00Z' AND t < '2026-03-02T11:00Z' AS label"
        " FROM generate_series('2026-03-02T00:00Z', '2026-03-03T00:00Z'::timestamptz, '5 min') t",
    )


def labelled(database, name, settings=SETTINGS):
    with database.transaction(read_only=True) as transaction:
        return as_labelled(
            read_labels(transaction, name, settings.meter_table),
            settings.meter_table,
            settings.meter,
        )


def test_a_table_is_read_as_the_file_that_it_could_be(database, pump, tmp_path):
    execute(database, "SET timezone = 'Europe/Berlin'")
    found = labelled(database, "lab.pumps")
    times = pd.date_range("2026-03-02", "2026-03-03", freq="5min", tz="UTC")
    marked = ((times.hour == 10) & (times.day == 2)).astype(int)
    file = tmp_path / "pumps.csv"
    pd.DataFrame(
        {
            "utc_timestamp": times,
            "machine_id": "pump",
            "reading": 1000.0 + times.minute,
            "label": marked,
        }
    ).to_csv(file, index=False)

    same = read_labelled(file, SETTINGS.meter_table, SETTINGS.meter)

    pd.testing.assert_frame_equal(found.readings, same.readings)
    assert found.events == same.events
    assert len(found.events) == 1
    assert found.machines == {"pump": 1}


def test_a_view_with_other_names_and_local_times_is_read(database, pump):
    execute(
        database,
        "CREATE VIEW lab.seen AS SELECT utc_timestamp AT TIME ZONE 'Europe/Berlin' AS \"When\","
        " reading AS watts, label::integer AS label FROM lab.pumps",
    )
    settings = load_settings(
        {}, reading_kind="power_w", interval_minutes=5, source_timestamp_column="When",
        source_value_column="watts", source_timezone="Europe/Berlin",
    )  # fmt: skip

    found, same = labelled(database, "lab.seen", settings), labelled(database, "lab.pumps")

    pd.testing.assert_frame_equal(found.readings, same.readings)
    assert found.events == same.events


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        ("SELECT", "lab.pump", "no file 'lab.pump', and no table 'lab.pump' that this log-in may"),
        ("SELECT", "pumps", "write the path of a CSV file, or schema.table"),
        ("ALTER TABLE lab.pumps DROP label", "lab.pumps", "column 'label' is missing, there are"),
        ("UPDATE lab.pumps SET label = NULL", "lab.pumps", "label nan in column"),
        (
            "DELETE FROM lab.pumps WHERE extract(minute FROM utc_timestamp) % 15 > 0", "lab.pumps",
            "readings are 15 minutes apart, not 5",
        ),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_judged_is_refused(database, pump, change, name, message):
    execute(database, change)

    with pytest.raises(SourceError, match=message):
        labelled(database, name)


def test_a_table_that_the_log_in_may_not_read_says_what_to_grant(database, postgres, pump):
    postgres.create_user("stranger", "secret")
    stranger = Database(
        postgres.url(database.engine.url.database, "stranger", "secret"), SETTINGS.database
    )
    try:
        with pytest.raises(SourceError, match=r"may not read lab\.pumps: .* grant SELECT"):
            labelled(stranger, "lab.pumps")
    finally:
        stranger.dispose()


@pytest.mark.parametrize(
    ("name", "file"),
    [("labels.csv", True), ("labels.csv.gz", True), ("./labels", True), ("lab.pumps", False)],
)
def test_a_file_is_told_from_a_table_by_its_name(name, file):
    assert is_csv(name) is file


def test_a_file_that_is_there_is_one_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.pumps").touch()

    assert is_csv("lab.pumps")
