"""Your own meter table: mixed case, naive times, duplicates, no key, SELECT only."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from anomaly.database.connection import Database
from anomaly.database.migrations import migrate
from anomaly.database.results import Origin
from anomaly.errors import DatabaseError, SourceError
from anomaly.scoring.publishing import Job
from anomaly.scoring.scorer import Scorer
from anomaly.settings import load_settings
from anomaly.windows import Window
from deployment import START, TESTS, rows, train_in_force, verdicts
from integration_settings import SMALL

DAYS = 3
LOCAL = datetime(2026, 3, 2, 1)  # START in Berlin


@pytest.fixture
def settings(tmp_path):
    return load_settings(
        {},
        models_url=str(tmp_path / "models"),
        source_schema="Plant Data",
        source_table="Meter Readings",
        source_timestamp_column="Measured At",
        source_ingested_at_column="",
        source_machines={"Pump A": 7, "Fan (roof)": 3},
        source_timezone="Europe/Berlin",
        **SMALL,
    )


@pytest.fixture
def plant(postgres, database, settings):
    """Somebody else's table; our login may select from it and no more."""
    with database.engine.begin() as connection:
        connection.execute(text('CREATE SCHEMA "Plant Data"'))
        connection.execute(
            text(
                'CREATE TABLE "Plant Data"."Meter Readings" ("Measured At" timestamp,'
                ' "Pump A" numeric(12,3), "Fan (roof)" real, "Comment" text)'
            )
        )
        connection.execute(
            text('INSERT INTO "Plant Data"."Meter Readings" VALUES (:at, :pump, :fan, :note)'),
            [
                {
                    "at": LOCAL + n * timedelta(minutes=15),
                    "pump": n * 1.25,
                    "fan": n * 3,
                    "note": "",
                }
                for n in range(DAYS * 96)
            ],
        )
    name = database.engine.url.database
    login = f"login_{name}"
    postgres.create_user(login, "secret")
    with database.engine.begin() as connection:
        for role in ("anomaly_scorer", "anomaly_trainer"):
            connection.execute(text(f"GRANT {role} TO {login}"))
        connection.execute(text('GRANT USAGE ON SCHEMA "Plant Data" TO anomaly_source'))
        connection.execute(text('GRANT SELECT ON "Plant Data"."Meter Readings" TO anomaly_source'))
    ours = Database(postgres.url(name, login, "secret"), settings.database)
    yield ours
    ours.dispose()
    with database.engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {login}"))
        connection.execute(text(f"DROP ROLE {login}"))


def train_and_score(database, settings):
    window = Window(START, START + timedelta(days=DAYS))
    train_in_force(database, settings, window)
    return Scorer(database, settings).score_range(window, Job(Origin.BACKFILL, TESTS))


def test_a_foreign_table_is_trained_on_and_scored(plant, settings):
    report = train_and_score(plant, settings)

    assert (report.read, report.inserted) == (2 * DAYS * 96, 2 * DAYS * 96)
    assert verdicts(plant)[7, START]["reading"] == 0.0
    assert verdicts(plant)[7, START + timedelta(minutes=15)]["power_kw"] == 5.0


def test_its_machines_are_registered_under_their_own_names(plant, settings, database):
    train_and_score(plant, settings)

    assert rows(database, "SELECT machine_id, source_key, name FROM anomaly.machines") == [
        (3, "Fan (roof)", "Fan (roof)"),
        (7, "Pump A", "Pump A"),
    ]


def test_duplicate_rows_of_a_table_without_a_key_give_one_verdict(plant, settings, database):
    with database.engine.begin() as connection:
        connection.execute(
            text('INSERT INTO "Plant Data"."Meter Readings" VALUES (:at, 99, NULL, NULL)'),
            {"at": LOCAL + timedelta(minutes=30)},
        )

    report = train_and_score(plant, settings)

    found = verdicts(plant)[7, START + timedelta(minutes=30)]
    assert report.duplicates == 1
    # The highest value stands, and the readings after it contradict it.
    assert (found["reading"], found["quality"]) == (99.0, "contradicted")


def test_the_login_cannot_write_the_meter_table(plant, settings):
    from psycopg2.errors import InsufficientPrivilege
    from psycopg2.sql import SQL

    with (
        plant.transaction("anomaly_scorer") as transaction,
        pytest.raises(InsufficientPrivilege),
    ):
        transaction.execute(SQL('DELETE FROM "Plant Data"."Meter Readings"'))


def test_naive_timestamps_are_refused_until_their_zone_is_set(plant, settings):
    unset = settings.changed(source_timezone="")

    with pytest.raises(SourceError, match="has no time zone: set ANOMALY_SOURCE_TIMEZONE"):
        train_and_score(plant, unset)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"source_table": "meter readings"}, "there is no table Plant Data.meter readings"),
        ({"source_timestamp_column": "at"}, "has no column 'at', it has Measured At, Pump A"),
        ({"source_timestamp_column": "Comment"}, "Comment is text, not a timestamp"),
        ({"source_machines": {"Comment": 1}}, "Comment is text, not a number"),
        ({"source_machines": {"Pump B": 1}}, "has no column 'Pump B'"),
        ({"source_machines": {}}, "map its columns in ANOMALY_SOURCE_MACHINES"),
    ],
)
def test_a_table_unlike_the_settings_is_refused_by_name(plant, settings, changed, message):
    with pytest.raises(SourceError, match=message):
        train_and_score(plant, settings.changed(**changed))


def test_migrate_says_which_grants_the_owner_has_to_run(postgres, plant, settings, database):
    with database.engine.begin() as connection:
        connection.execute(text('REVOKE ALL ON SCHEMA "Plant Data" FROM anomaly_source'))
    name = database.engine.url.database
    owner = f"owner_{name}"
    postgres.create_user(owner, "secret", may_create_roles=True)
    with database.engine.begin() as connection:
        for role in ("anomaly_owner", "anomaly_scorer", "anomaly_trainer", "anomaly_api"):
            connection.execute(text(f"GRANT {role} TO {owner} WITH ADMIN OPTION"))
        connection.execute(text(f"ALTER DATABASE {name} OWNER TO {owner}"))
    ours = Database(postgres.url(name, owner, "secret"), settings.database)

    report = migrate(ours, settings.meter_table)

    ours.dispose()
    with database.engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {name} OWNER TO postgres"))
        connection.execute(text(f"DROP OWNED BY {owner}"))
        connection.execute(text(f"DROP ROLE {owner}"))
    assert 'GRANT USAGE ON SCHEMA "Plant Data" TO anomaly_source' in report.notes[0]


def test_an_unreachable_database_is_named_without_its_password(settings):
    nowhere = Database("postgres://me:hunter2@127.0.0.1:1/plant", settings.database)

    with pytest.raises(DatabaseError, match=r"cannot connect to .*127\.0\.0\.1:1/plant") as error:
        Scorer(nowhere, settings).score_range(
            Window(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
            Job(Origin.BACKFILL, TESTS),
        )
    assert "hunter2" not in str(error.value)
