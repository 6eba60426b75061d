"""What each role must not do, tried."""

import pytest
from psycopg2 import errors as pg
from psycopg2.sql import SQL

from anomaly.database.connection import Database
from deployment import counters, insert, own_log_in, rows, score, train

FORBIDDEN = {
    "anomaly_scorer": [
        "INSERT INTO anomaly.meter_readings (utc_timestamp) VALUES (now())",
        "UPDATE anomaly.meter_readings SET machine_1 = 0",
        "DELETE FROM anomaly.meter_readings",
        "UPDATE anomaly.scoring_runs SET inserted = 0",
        "DELETE FROM anomaly.scoring_runs",
        "DELETE FROM anomaly.anomaly_results_history",
        "INSERT INTO anomaly.model_in_force (effective_from, version, recorded_by)"
        " VALUES ('-infinity', 1, 'x')",
        "UPDATE anomaly.model_versions SET sha256 = '{}'",
        "TRUNCATE anomaly.anomaly_results",
        "DROP TABLE anomaly.anomaly_results",
        "UPDATE anomaly.machines SET name = 'x'",
        "UPDATE anomaly.locks SET name = 'x'",
        "DELETE FROM anomaly.locks",
        "CREATE TABLE anomaly.mine ()",
    ],
    "anomaly_reader": [
        "SELECT * FROM anomaly.api_keys",
        "SELECT * FROM anomaly.anomaly_results",
        "SELECT name FROM anomaly.machines",
        "UPDATE anomaly.meter_readings SET machine_1 = 0",
        "CREATE TABLE anomaly.mine ()",
        "CREATE FUNCTION anomaly.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    ],
    "anomaly_trainer": [
        "UPDATE anomaly.locks SET name = 'x'",
        "UPDATE anomaly.meter_readings SET machine_1 = 0",
        "DELETE FROM anomaly.anomaly_results",
        "UPDATE anomaly.anomaly_results SET anomaly = 0",
        "INSERT INTO anomaly.scoring_runs (run_id, window_start, window_end, written_to, origin,"
        " command, package_version) VALUES (0, now(), now(), now(), 'live', 'x', 'x')",
        "UPDATE anomaly.model_versions SET sha256 = '{}'",
        "DELETE FROM anomaly.model_versions",
        "DELETE FROM anomaly.model_in_force",
        "UPDATE anomaly.model_in_force SET version = 1",
        "SELECT anomaly.ensure_partitions(now(), now())",
    ],
    "anomaly_api": [
        "UPDATE anomaly.meter_readings SET machine_1 = 0",
        "UPDATE anomaly.anomaly_results SET anomaly = 0",
        "INSERT INTO anomaly.labels (machine_id, during, label, labelled_by)"
        " VALUES (1, tstzrange(now(), now() + interval '1 h'), 'real', 'x')",
        "INSERT INTO anomaly.api_keys (name, digest, created_by)"
        " VALUES ('x', repeat('0', 64), 'x')",
        "UPDATE anomaly.api_keys SET can_label = true",
        "UPDATE anomaly.api_keys SET revoked_at = NULL",
        "UPDATE anomaly.model_in_force SET version = 1",
        "SELECT * FROM anomaly.alert_messages",
        "SELECT * FROM anomaly.locks FOR UPDATE",
        "SELECT anomaly.ensure_partitions(now(), now())",
        "CREATE TABLE anomaly.mine ()",
    ],
    "anomaly_bi": [
        "SELECT * FROM anomaly.api_keys",
        "SELECT * FROM anomaly.anomaly_results",
        "SELECT * FROM anomaly.meter_readings",
        "SELECT * FROM anomaly.scoring_runs",
        "SELECT FROM anomaly_reading.read_source('SELECT 1') AS r (x integer)",
        "SELECT anomaly.this_database()",
        "SELECT * FROM anomaly.anomaly_results_as_of(now())",
        "INSERT INTO bi.verdicts (machine_id) VALUES (1)",
        "DELETE FROM bi.latest",
        "CREATE VIEW bi.mine AS SELECT 1",
    ],
}


@pytest.mark.parametrize(
    ("role", "statement"),
    [(role, statement) for role, statements in FORBIDDEN.items() for statement in statements],
)
def test_a_role_must_not(database, role, statement):
    with database.transaction() as transaction:
        transaction.execute(SQL(f"SET LOCAL ROLE {role}"))
        with pytest.raises((pg.InsufficientPrivilege, pg.ObjectNotInPrerequisiteState)):
            transaction.execute(SQL(statement))


def test_a_reading_transaction_cannot_write_even_what_its_role_may(database):
    with (
        database.transaction("anomaly_scorer", read_only=True) as transaction,
        pytest.raises(pg.ReadOnlySqlTransaction),
    ):
        transaction.execute(SQL("DELETE FROM anomaly.anomaly_results"))


def test_the_bi_reader_sees_the_views(database, settings, postgres):
    insert(database, counters(96 * 2))
    train(database, settings, end=96 * 2)
    score(database, settings, 0, 96 * 2)
    postgres.create_user("bi_reader_test", "secret")
    postgres.grant_role("anomaly_bi", "bi_reader_test")
    url = postgres.url(database.engine.url.database, "bi_reader_test", "secret")
    reader = Database(url, settings.database)

    ((verdicts,),) = rows(reader, "SELECT count(*) FROM bi.verdicts")
    latest = rows(reader, "SELECT machine_id, machine FROM bi.latest ORDER BY 1")
    ((anomalies,),) = rows(reader, "SELECT count(*) FROM bi.anomalies")

    reader.dispose()
    assert (verdicts, latest) == (4 * 96, [(1, "machine_1"), (2, "machine_2")])
    assert 0 < anomalies < verdicts


@pytest.mark.parametrize("role", ["anomaly_api", "anomaly_bi"])
def test_every_view_can_be_read(database, role):
    views = rows(database, "SELECT viewname FROM pg_views WHERE schemaname = 'bi' ORDER BY 1")
    with database.transaction(role) as transaction:
        for (view,) in views:
            transaction.execute(SQL(f"SELECT * FROM bi.{view}"))

    assert len(views) > 10


def test_statements_locks_and_idle_transactions_are_bounded(database):
    with database.transaction("anomaly_scorer") as transaction:
        bounds = transaction.execute(
            SQL(
                "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),"
                " current_setting('idle_in_transaction_session_timeout'), current_user"
            )
        )

    assert bounds == [("15min", "5min", "30min", "anomaly_scorer")]


def test_no_function_looks_a_name_up_where_another_log_in_may_put_one(database):
    """Each has a search path of its own, or a body that was bound when it was made."""
    functions = rows(
        database,
        "SELECT p.oid::regprocedure::text, prosecdef, prosqlbody IS NOT NULL, s.setting"
        "  FROM pg_proc p LEFT JOIN LATERAL unnest(p.proconfig) AS s (setting)"
        "    ON s.setting LIKE 'search_path=%'"
        " WHERE p.pronamespace = ANY (ARRAY['anomaly', 'bi', 'anomaly_reading']::regnamespace[])",
    )

    definers = [name for name, is_definer, _, _ in functions if is_definer]
    assert (
        "anomaly.ensure_partitions(timestamp with time zone,timestamp with time zone)" in definers
    )
    for name, is_definer, is_bound, setting in functions:
        if is_definer or not is_bound:
            schemas = (setting or "").removeprefix("search_path=").split(", ")
            assert (schemas[0], schemas[-1]) == ("pg_catalog", "pg_temp"), (name, setting)


def test_a_log_in_that_may_still_make_roles_is_told_how_to_lose_that_right(
    command_line, postgres, tmp_path
):
    name, place = 'keeper "of" roles', "kept_roles"
    own_log_in(postgres, name, "secret")
    postgres.create_database(place, owner=name)
    variables = {"ANOMALY_DATABASE_URL": postgres.url(place, name, "secret")}

    before = command_line.run(["migrate"], variables, folder=tmp_path)
    postgres.create_user(name, "secret")  # without the right
    after = command_line.run(["migrate"], variables, folder=tmp_path)
    postgres.drop_database(place)

    assert before.returncode == after.returncode == 0, before.stderr + after.stderr
    assert (
        f"note: {name} may still make roles, and no longer needs this right: let an administrator"
        ' run ALTER ROLE "keeper ""of"" roles" NOCREATEROLE;'
    ) in before.stderr.splitlines()
    assert "may still make roles" not in after.stderr


def test_every_table_view_and_column_of_the_contract_has_a_comment(database):
    uncommented = rows(
        database,
        "SELECT n.nspname || '.' || c.relname || coalesce('.' || a.attname, '')"
        "  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        "  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE n.nspname IN ('anomaly', 'bi') AND c.relkind IN ('r', 'p', 'v')"
        "   AND NOT c.relispartition"
        "   AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL)",
    )

    assert uncommented == []


ROLES = ("anomaly_bi", "anomaly_api", "anomaly_source", "anomaly_scorer", "anomaly_trainer")
CLIMBS = [
    "ALTER FUNCTION anomaly_reading.read_source(text) SECURITY INVOKER",
    "ALTER FUNCTION anomaly_reading.read_source(text) OWNER TO CURRENT_USER",
    "DROP FUNCTION anomaly_reading.read_source(text)",
    "CREATE FUNCTION anomaly_reading.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "SET ROLE anomaly_reader",
    *(f"SET ROLE {role}" for role in ("anomaly_owner", "postgres")),
    "SET SESSION AUTHORIZATION anomaly_owner",
    "ALTER ROLE anomaly_owner LOGIN PASSWORD 'x'",
    "CREATE ROLE climber SUPERUSER",
    "GRANT anomaly_owner TO CURRENT_USER",
    "ALTER FUNCTION anomaly.ensure_partitions(timestamptz, timestamptz) SECURITY INVOKER",
    "CREATE FUNCTION public.lower(text) RETURNS text LANGUAGE sql AS 'SELECT $1'",
    "CREATE SCHEMA mine",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
    "UPDATE pg_authid SET rolsuper = true",
    "SELECT rolpassword FROM pg_authid",
]


@pytest.mark.parametrize("role", ROLES)
def test_a_log_in_with_one_role_climbs_to_no_other(database, postgres, settings, role):
    name = f"only_{role}"
    postgres.create_user(name, "secret")
    postgres.grant_role(role, name)
    mine = Database(postgres.url(database.engine.url.database, name, "secret"), settings.database)
    others = [f"SET ROLE {other}" for other in ROLES if other not in (role, "anomaly_source")]
    try:
        for climb in [*CLIMBS, *others]:
            with pytest.raises(pg.InsufficientPrivilege), mine.transaction() as transaction:
                transaction.execute(SQL(climb.replace("{", "{{").replace("}", "}}")))
    finally:
        mine.dispose()
