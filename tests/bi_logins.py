"""Log-ins of BI tools: made as the documentation says, and what none of them may do."""

import re
import subprocess
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import errors as pg

from anomaly.demo.embedded_postgres import EmbeddedPostgres

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT / "docs" / "how-to" / "bi-login.md"
FORBIDDEN = [
    "SELECT * FROM anomaly.incidents",
    "SELECT * FROM anomaly.locks FOR UPDATE",
    "SELECT * FROM anomaly.schema_migrations",
    "BEGIN; LOCK TABLE anomaly.locks IN ACCESS EXCLUSIVE MODE",
    "BEGIN; LOCK TABLE bi.incidents IN ACCESS EXCLUSIVE MODE",
    "SELECT * FROM bi.latest FOR UPDATE",
    "UPDATE bi.incidents SET reason = ''",
    "SELECT anomaly.ensure_partitions(now(), now())",
    "CREATE TABLE public.mine ()",
    "CREATE TEMP TABLE mine ()",
    "CREATE FUNCTION pg_temp.leak(text) RETURNS bool LANGUAGE sql AS 'SELECT true'",
    "CREATE SCHEMA mine",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT pg_read_file('postgresql.conf')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SET ROLE anomaly_scorer",
    "SET ROLE anomaly_owner",
    "SELECT set_config('role', 'anomaly_owner', false)",
    "SET SESSION AUTHORIZATION postgres",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "ALTER ROLE anomaly_bi CREATEDB",
    "GRANT anomaly_owner TO CURRENT_USER",
    "SELECT * FROM anomaly.machine_days",
    "SELECT * FROM anomaly.price_periods",
    "SELECT anomaly.refresh_sums(NULL, NULL, NULL)",
    "SELECT anomaly.clock_or_utc('UTC') FROM anomaly.machines",
    "SELECT nextval('anomaly.fencing_token')",
    "SELECT * FROM anomaly_results_2026_03",
    "COPY bi.sites TO '/tmp/sites'",
    "COPY (SELECT * FROM bi.sites) TO PROGRAM 'cat'",
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_statistic",
    "UPDATE pg_catalog.pg_class SET relacl = NULL",
    "SELECT pg_ls_dir('.')",
    "SELECT lo_import('/etc/hostname')",
    "CREATE EXTENSION dblink",
    "CREATE VIEW bi.mine AS SELECT 1",
    "CREATE OR REPLACE VIEW bi.sites AS SELECT 1",
    "DROP VIEW bi.sites CASCADE",
    "TRUNCATE anomaly.anomaly_results",
    "ALTER SYSTEM SET log_statement = 'all'",
    "CREATE DATABASE mine",
]
REFUSED = (
    pg.InsufficientPrivilege, pg.FeatureNotSupported, pg.ObjectNotInPrerequisiteState,
    pg.UndefinedTable, pg.UndefinedFunction,
)  # fmt: skip


def make_as_documented(postgres: EmbeddedPostgres, database: str, name: str, password: str) -> None:
    """Let psql run the very statements of the page."""
    (script,) = re.findall(r"```sql\n(CREATE ROLE plant_dashboard.*?)```", PAGE.read_text(), re.S)
    script = script.replace("plant_dashboard", name).replace("'...'", f"'{password}'")
    address = postgres.url(database).replace("+psycopg2", "")
    subprocess.run(
        [str(postgres.psql), "--quiet", "--set=ON_ERROR_STOP=1", address],
        cwd=PROJECT, input=script, text=True, check=True,
    )  # fmt: skip


def what_is_allowed(**address: Any) -> list[str]:
    """Those of `FORBIDDEN` that a log-in can do, as it comes or after it has lifted its limits."""
    connection = psycopg2.connect(**address)
    connection.autocommit = True
    allowed = []
    with connection.cursor() as cursor:
        for limits in ("", "SET default_transaction_read_only = off; SET statement_timeout = 0;"):
            for statement in FORBIDDEN:
                cursor.execute("ROLLBACK")
                cursor.execute("DISCARD ALL")
                if limits:
                    cursor.execute(limits)
                try:
                    cursor.execute(statement)
                    allowed.append(f"{limits} {statement}")
                except REFUSED:
                    pass
                except pg.ReadOnlySqlTransaction:
                    if limits:
                        allowed.append(f"{limits} {statement}")
    connection.close()
    return allowed
