"""The doctor finds what is set up wrongly, says how to mend it, and writes nothing."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from anomaly.database.connection import Database
from anomaly.operations.doctor import Level, examine
from deployment import at, counters, execute, insert, rows, score, train

DAY = 96


@pytest.fixture
def sound(database, settings, tmp_path):
    """A deployment of three weeks, scored to its end."""
    settings = settings.changed(
        models_url=str(tmp_path / "models"), training_min_days=2, forest_trees=20
    )
    insert(database, counters(9 * DAY))
    train(database, settings)
    score(database, settings, 8 * DAY, 9 * DAY)
    return settings


def bad(database, settings, as_of=None):
    found = examine(database, settings, as_of or datetime.now(UTC))
    return {(one.about, one.found): one for one in found if one.level is not Level.GOOD}


def told(database, settings, as_of=None):
    found = bad(database, settings, as_of)
    return "\n".join(f"{one.about}: {one.found} -> {one.fix}" for one in found.values())


def test_it_looks_at_everything_and_writes_nothing(database, sound):
    name = database.engine.url.database
    execute(database, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    database.dispose()

    found = list(examine(database, sound, datetime.now(UTC)))

    assert {one.about for one in found} >= {
        "connection", "server", "clock", "roles", "schema", "results", "meter table", "machines",
        "models", "state",
    }  # fmt: skip
    assert not [one for one in found if one.level is Level.ERROR]


def test_settings_that_the_version_in_force_refuses_are_an_error(database, sound):
    found = told(database, sound.changed(reading_kind="power_w"))

    assert "models: model version 1 was trained on energy_kwh in kWh every 15 minutes" in found
    assert "scoring stops until then" in found


def test_a_database_of_another_version_is_named(database, sound):
    execute(database, "DELETE FROM anomaly.schema_migrations WHERE name LIKE '0013%'")
    assert "schema: it lacks 0013_backfills.sql -> run `anomaly migrate`" in told(database, sound)

    execute(
        database,
        "INSERT INTO anomaly.schema_migrations (name, sha256)"
        " VALUES ('0013_backfills.sql', 'x'), ('9999_later.sql', 'x')",
    )
    found = told(database, sound)
    assert "it has 9999_later.sql, which this version does not know" in found
    assert "0013_backfills.sql was applied with another text" in found


def test_what_the_settings_say_wrongly_of_the_meter_table_is_named(database, sound):
    assert "there is no table plant.meters" in told(
        database, sound.changed(source_schema="plant", source_table="meters")
    )
    assert "has no column" in told(database, sound.changed(source_timestamp_column="measured"))


def test_a_table_that_its_owner_has_not_granted_is_named_with_the_grants(database, sound):
    execute(database, "CREATE SCHEMA plant; CREATE TABLE plant.t (LIKE anomaly.meter_readings)")

    found = told(database, sound.changed(source_schema="plant", source_table="t"))

    assert "meter table: anomaly_source may not read plant.t" in found
    assert 'GRANT SELECT ON "plant"."t" TO anomaly_source;' in found


def test_rights_that_a_restore_has_lost_are_named(database, sound):
    execute(database, "REVOKE INSERT ON anomaly.scoring_runs FROM anomaly_scorer")

    assert "rights are missing: anomaly_scorer INSERT ON anomaly.scoring_runs" in told(
        database, sound
    )


def test_an_empty_deployment_says_what_comes_next(database, settings):
    found = told(database, settings)

    assert "models: there is no version yet -> run `anomaly train --promote`" in found
    assert "state: nothing needs attention" not in found


def test_a_month_that_is_detached_is_named(database, sound):
    month = f"anomaly_results_{at(8 * DAY):%Y_%m}"
    execute(database, f"ALTER TABLE anomaly.anomaly_results DETACH PARTITION anomaly.{month}")

    assert f"results: {month}: no partition of anomaly.anomaly_results" in told(database, sound)


def test_clocks_zones_and_files_that_are_wrong_are_named(database, sound, postgres):
    assert "the server's clock is -3600 s off" in told(
        database, sound, datetime.now(UTC) + timedelta(hours=1)
    )
    (version,) = rows(database, "SELECT artefact FROM anomaly.model_versions")[0]
    assert "models" not in {about for about, _ in bad(database, sound)}
    execute(database, "UPDATE anomaly.machines SET time_zone = 'Mars/Base'")
    assert "machines: the time zone 'Mars/Base' does not exist" in told(database, sound)
    execute(database, "UPDATE anomaly.machines SET time_zone = 'UTC'")
    name = database.engine.url.database
    execute(database, f"ALTER DATABASE \"{name}\" SET timezone = 'Europe/Berlin'")
    other = Database(postgres.url(name), sound.database)
    try:
        assert "anomaly machines set --all --time-zone Europe/Berlin" in told(other, sound)
    finally:
        other.dispose()
    assert version


def test_the_command_says_it_and_exits_with_3(database, sound, command_line):
    url = database.engine.url.render_as_string(hide_password=False)
    environment = {
        "ANOMALY_DATABASE_URL": url,
        "ANOMALY_MODELS_URL": sound.models.models_url,
        "AIRFLOW_CONN_ANOMALY_DB": url.replace("postgresql+psycopg2", "postgres"),
    }

    found = command_line.run(["doctor", "--json"], environment)

    lines = {(one["about"], one["level"]) for one in json.loads(found.stdout)}
    assert ("Airflow", "good") in lines
    assert found.returncode == 3  # the readings are of long ago

    wrong = environment | {
        "AIRFLOW_CONN_ANOMALY_DB": '{"host": "localhost", "schema": "x", "port": 1}'
    }
    shown = command_line.run(["doctor"], wrong)
    assert "no  Airflow: its connection cannot be used:" in shown.stdout
    extra = environment | {"AIRFLOW_CONN_ANOMALY_DB": f"{url}?sslmod=require"}
    assert (
        "an item 'sslmod' that Postgres does not know" in command_line.run(["doctor"], extra).stdout
    )
    nothing = command_line.run(["doctor"], {})
    assert (nothing.returncode, "ANOMALY_DATABASE_URL is not set" in nothing.stdout) == (3, True)
