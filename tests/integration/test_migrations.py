"""Migrations: once each, in order, whole or not at all, safe when two start at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from psycopg2.errors import ExclusionViolation
from sqlalchemy.exc import IntegrityError

from anomaly.database import migrations
from anomaly.database.connection import Database
from anomaly.database.migrations import check_migrated, migrate
from anomaly.errors import DatabaseError
from deployment import execute, rows


@pytest.fixture
def empty(postgres, settings, request):
    postgres.create_database("empty")
    database = Database(postgres.url("empty"), settings.database)
    yield database
    database.dispose()
    postgres.drop_database("empty")


def test_migrating_twice_applies_each_file_once(empty, settings):
    first, second = migrate(empty, settings.meter_table), migrate(empty, settings.meter_table)

    assert first.applied[0] == "0001_contract_tables.sql"
    assert second.applied == []
    check_migrated(empty)


def test_two_that_start_at_once_both_succeed(empty, settings):
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: migrate(empty, settings.meter_table), range(2)))

    assert sorted(bool(report.applied) for report in reports) == [False, True]


def test_a_migration_that_fails_leaves_nothing_behind(empty, settings, monkeypatch):
    original = migrations.sql_file

    def broken(name):
        return "SELECT 1/0" if name.endswith("0002_ensure_partitions.sql") else original(name)

    monkeypatch.setattr("anomaly.database.connection.sql_file", broken)
    with pytest.raises(Exception, match="division by zero"):
        migrate(empty, settings.meter_table)

    assert rows(empty, "SELECT to_regnamespace('anomaly')") == [(None,)]


def test_a_changed_migration_is_refused(database, settings):
    execute(
        database, "UPDATE anomaly.schema_migrations SET sha256 = 'other' WHERE name LIKE '0001%'"
    )

    with pytest.raises(
        DatabaseError, match=r"0001_contract_tables.sql was applied, and its text has changed"
    ):
        migrate(database, settings.meter_table)


def test_an_unmigrated_database_is_named_with_the_command_to_run(empty):
    with pytest.raises(
        DatabaseError, match=r"lacks 0001_contract_tables.sql: run `anomaly migrate`"
    ):
        check_migrated(empty)


def test_partitions_are_made_by_the_month_once(database):
    query = "SELECT anomaly.ensure_partitions(:a, :b)"
    ends = {"a": datetime(2026, 1, 31, tzinfo=UTC), "b": datetime(2026, 3, 1, tzinfo=UTC)}
    with database.engine.begin() as connection:
        from sqlalchemy import text

        made = [connection.execute(text(query), ends).scalar() for _ in range(2)]

    assert made == [3, 0]
    assert rows(
        database,
        "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'anomaly.anomaly_results'::regclass ORDER BY 1",
    ) == [(f"anomaly.anomaly_results_2026_0{month}",) for month in (1, 2, 3)]


def test_alert_budgets_that_are_none_are_unset_when_they_are_bounded(database, settings):
    execute(
        database,
        "ALTER TABLE anomaly.machines DROP CONSTRAINT machines_alert_budget_bearable;"
        " DELETE FROM anomaly.schema_migrations WHERE name LIKE '0006%';"
        " INSERT INTO anomaly.machines (machine_id, source_key, name, alert_budget) VALUES"
        " (1, 'a', 'a', 'NaN'), (2, 'b', 'b', 'Infinity'), (3, 'c', 'c', 3), (4, 'd', 'd', NULL)",
    )

    migrate(database, settings.meter_table)

    mended = rows(database, "SELECT alert_budget FROM anomaly.machines ORDER BY machine_id")
    assert mended == [(None,), (None,), (3,), (None,)]


def test_what_incidents_and_people_said_before_is_kept_in_columns_of_its_own(database, settings):
    execute(
        database,
        "DROP SCHEMA bi CASCADE; DROP VIEW anomaly.alerts, anomaly.alert_facts,"
        " anomaly.incident_facts;"
        " DROP TABLE anomaly.acknowledgements;"
        " ALTER TABLE anomaly.incidents DROP COLUMN told_at, DROP COLUMN settled;"
        " ALTER TABLE anomaly.labels DROP COLUMN withdrawn_at, DROP COLUMN withdrawn_by,"
        " DROP COLUMN withdrawn_as;"
        " DELETE FROM anomaly.schema_migrations WHERE name LIKE '0007%';"
        " INSERT INTO anomaly.machines (machine_id, source_key, name) VALUES (1, 'a', 'a');"
        " INSERT INTO anomaly.incidents (machine_id, kind, started_at, last_at, reason, severity,"
        " state, origin, opened_at, updated_at, acknowledged_at, acknowledged_by) VALUES"
        " (1, 'machine', '2026-03-02Z', '2026-03-02Z', 'odd; for days: a new normal, for training"
        " to learn', 'notice', 'closed', 'live', now(), now(), NULL, NULL),"
        " (1, 'machine', '2026-03-03Z', '2026-03-03Z', 'odd', 'notice', 'closed', 'live', now(),"
        " now(), now(), 'Ann')",
    )

    migrate(database, settings.meter_table)

    assert rows(
        database, "SELECT reason, settled, told_at = started_at, acknowledged_by_all"
        " FROM bi.incidents ORDER BY incident_id",
    ) == [("odd", True, True, []), ("odd", False, True, ["Ann"])]  # fmt: skip


def test_the_version_map_cannot_overlap(database):
    execute(
        database,
        "INSERT INTO anomaly.model_versions (version, detector, artefact, sha256, trained_from,"
        " trained_to, readings, parameters, library_versions, registered_by)"
        " VALUES (1, 'prototype', 'x', '{}', '2026-01-01', '2026-01-02', 1, '{}', '{}', 'test')",
    )
    entry = (
        "INSERT INTO anomaly.model_in_force (effective_from, effective_to, version, recorded_by)"
        " VALUES (:a, :b, 1, 'test')"
    )
    execute(database, entry, a="-infinity", b="2026-01-01")

    with pytest.raises(IntegrityError) as refused:
        execute(database, entry, a="2025-12-31", b=None)
    assert isinstance(refused.value.orig, ExclusionViolation)
    execute(database, entry, a="2026-01-01", b=None)
