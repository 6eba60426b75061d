"""The page Backup and restore, word for word: nothing is lost, and scoring goes on."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import make_url

from anomaly.database.connection import SCORER, Database
from anomaly.database.meter_table import MeterSource
from anomaly.database.migrations import migrate
from anomaly.demo.embedded_postgres import EmbeddedPostgres
from anomaly.settings import load_settings
from deployment import START, counters, execute, insert, rows, score, train
from integration_settings import SMALL

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "how-to" / "backup-and-restore.md"
DAY = 96
EVERYTHING = {
    "anomaly.anomaly_results": "machine_id, utc_timestamp",
    "anomaly.anomaly_results_history": "machine_id, utc_timestamp, superseded_at",
    "anomaly.scoring_runs": "run_id",
    "anomaly.model_versions": "version",
    "anomaly.model_in_force": "version, recorded_at",
    "anomaly.incidents": "incident_id",
    "anomaly.machines": "machine_id",
    "anomaly.meter_readings": "utc_timestamp",
    "bi.verdicts": "machine_id, utc_timestamp",
}


def blocks():
    """The commands of the page: to back up, to restore, to check."""
    return re.findall(r"^```\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)


def bash(script, folder, server, **environment):
    """Run commands as an administrator of a server."""
    where = {
        "PATH": f"{server.psql.parent}{os.pathsep}{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": "postgres",
        "PGPASSWORD": server.password,
        "PGDATABASE": "postgres",
    }
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        command, cwd=folder, env=where | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def content(database):
    return {
        table: rows(database, f"SELECT * FROM {table} ORDER BY {order}")
        for table, order in EVERYTHING.items()
    }


@pytest.fixture
def new_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("restored")
    folder.chmod(0o755)
    for parent in folder.parents:
        if parent.owner() == folder.owner() and parent.stat().st_mode & 0o005 == 0:
            parent.chmod(0o755)
        if parent.name.startswith("pytest-of-"):
            break
    with EmbeddedPostgres(folder / "postgres") as server:
        yield server


def test_a_dump_and_the_models_are_the_whole_deployment(
    postgres, new_server, database, tmp_path, command_line
):
    old_models, new_models = tmp_path / "old models", tmp_path / "new"
    settings = load_settings({}, models_url=str(old_models), **SMALL)
    insert(database, counters(10 * DAY))
    train(database, settings)
    score(database, settings, 7 * DAY, 9 * DAY)
    before = content(database)
    assert all(before[t] for t in ("anomaly.anomaly_results", "anomaly.model_versions"))
    backup, restore, check = blocks()
    url = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    (tmp_path / "sql").symlink_to(PROJECT / "sql")

    bash(
        backup.replace("/path/to/models", f"'{old_models}'"), tmp_path, postgres,
        ANOMALY_DATABASE_URL=url,
    )  # fmt: skip
    bash(restore.replace("/path/to/models", f"'{new_models}'"), tmp_path, new_server)

    environment = {
        "ANOMALY_DATABASE_URL": new_server.url("plant", "anomaly_app", "change-me"),
        "ANOMALY_MODELS_URL": str(new_models),
        "ANOMALY_DETECTOR": "prototype",
    }
    assert check.split() == [
        "anomaly",
        "migrate",
        "anomaly",
        "models",
        "verify",
        "anomaly",
        "status",
    ]
    migrated, verified, status = (
        command_line.run(line.split()[1:], environment) for line in check.strip().splitlines()
    )
    assert "nothing, the schema is up to date" in migrated.stdout, migrated.stderr
    assert "1 versions are sound" in verified.stdout, verified.stderr
    assert status.returncode in (0, 3), status.stderr
    restored = Database(new_server.url("plant"), settings.database)
    assert content(restored) == before

    moved = settings.changed(models_url=str(new_models))
    going_on = score(restored, moved, 9 * DAY, 10 * DAY)
    assert going_on.counts() == score(database, settings, 9 * DAY, 10 * DAY).counts()
    verdict = (
        "SELECT machine_id, utc_timestamp, reading, anomaly_score, threshold, anomaly, reason"
        " FROM anomaly.anomaly_results ORDER BY 1, 2"
    )
    assert rows(restored, verdict) == rows(database, verdict)
    restored.dispose()


@pytest.mark.parametrize("schemas", [["--schema=anomaly", "--schema=bi"], []])
def test_an_administrator_who_is_no_superuser_can_restore(new_server, tmp_path, schemas):
    """As a database that somebody else runs has one: it may make roles and databases."""
    settings = load_settings({}, **SMALL)
    new_server.create_user("administrator", "secret", may_create_roles=True)
    plain = make_url(new_server.url("postgres", "administrator", "secret"))
    superuser = Database(new_server.url(), settings.database)
    execute(superuser, "ALTER ROLE administrator CREATEDB")
    superuser.dispose()

    def ours(name):
        return plain.set(drivername="postgresql", database=name).render_as_string(
            hide_password=False
        )

    def run(*command):
        program = new_server.binaries / command[0]
        done = subprocess.run(
            [str(program), *command[1:]], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    dump = str(tmp_path / "anomaly.dump")
    run("psql", ours("postgres"), "-c", "CREATE DATABASE old")
    old = Database(ours("old"), settings.database)
    migrate(old, settings.meter_table)
    insert(old, counters(DAY))
    old.dispose()
    run("pg_dump", "--format=custom", *schemas, f"--file={dump}", ours("old"))
    run("psql", ours("postgres"), "-c", "DROP DATABASE old", "-c", "CREATE DATABASE new")
    run("psql", ours("new"), "-f", str(PROJECT / "sql" / "roles.sql"))

    run("pg_restore", "--exit-on-error", f"--dbname={ours('new')}", dump)
    restored = Database(ours("new"), settings.database)
    migrate(restored, settings.meter_table)

    source = MeterSource(settings.meter_table, settings.meter)
    with restored.transaction(SCORER, read_only=True) as transaction:
        assert source.extent(transaction, source.describe(transaction))[0] == START
    restored.dispose()
