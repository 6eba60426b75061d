"""Every command that changes state, killed for real and repeated, ends where one run would."""

import os
import shutil
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest

from anomaly.database.connection import Database
from deployment import at, counters, execute, insert, rows, score, train
from integration_settings import SMALL

pytestmark = pytest.mark.timeout(600)

DAY = 96
ANOMALY = Path(sys.executable).with_name("anomaly")
GATE = 4711  # an advisory lock: what a trigger of the test waits for

# What differs between two runs that did the same: moments, and numbers drawn from sequences.
_RUN_BY_RUN = (
    "recorded_at", "scored_at", "run_id", "superseded_by", "labelled_at", "opened_at",
    "updated_at", "begun_at", "token", "registered_at", "applied_at", "acknowledged_at",
    "withdrawn_at", "published_at", "entry_id", "label_id", "withdrawn_as",
)  # fmt: skip
_TABLES = (
    "machines", "model_versions", "model_drafts", "model_in_force", "anomaly_results",
    "anomaly_results_history", "incidents", "labels", "acknowledgements", "schema_migrations",
)  # fmt: skip


@pytest.fixture(scope="module")
def base(postgres, migrated, tmp_path_factory):
    """Three versions, each scored with in its time; from there each test makes its copies."""
    from anomaly.settings import load_settings

    models = tmp_path_factory.mktemp("base") / "models"
    settings = load_settings({}, models_url=str(models), **SMALL)
    postgres.create_database("killed_base", template=migrated)
    database = Database(postgres.url("killed_base"), settings.database)
    insert(database, counters(8 * DAY))
    for number in range(3):
        train(database, settings.changed(random_seed=number), end=5 * DAY)
        score(database, settings, number * 2 * DAY, (number + 1) * 2 * DAY)
    database.dispose()
    return "killed_base", models


@pytest.fixture
def twins(base, postgres, tmp_path):
    """Two copies of the same deployment."""
    template, models = base
    made = []
    for name in ("killed", "whole"):
        database = f"{name}_{uuid.uuid4().hex[:8]}"
        postgres.create_database(database, template=template)
        shutil.copytree(models, tmp_path / name)
        made.append(Twin(postgres.url(database), tmp_path / name))
    yield made
    for twin in made:
        twin.database.dispose()
        postgres.drop_database(twin.database.engine.url.database)


class Twin:
    """A deployment of its own, and the command line on it."""

    def __init__(self, url, models):
        from anomaly.settings import load_settings

        self.url = url.replace("+psycopg2", "")
        self.settings = load_settings({}, models_url=str(models), **SMALL)
        self.database = Database(url, self.settings.database)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(models.parent),
            "ANOMALY_DATABASE_URL": self.url,
            "ANOMALY_MODELS_URL": str(models),
            "ANOMALY_CHUNK_DAYS": "1",
            **{f"ANOMALY_{name.upper()}": str(value) for name, value in SMALL.items()},
        }

    def begin(self, command):
        return subprocess.Popen(
            [ANOMALY, *command],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command):
        running = self.begin(command)
        out, errors = running.communicate(timeout=200)
        assert running.returncode in (0, 3), errors
        return out

    def kill_at(self, command, table, moment):
        """Kill the command when a statement on a table, under a condition, is about to happen."""
        execute(
            self.database,
            "CREATE OR REPLACE FUNCTION public.wait_at_the_gate() RETURNS trigger LANGUAGE plpgsql"
            f" AS $$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock({GATE}); RETURN NEW; END $$;"
            f" CREATE TRIGGER gate BEFORE {moment.replace('TABLE', f'anomaly.{table}')}"
            " EXECUTE FUNCTION public.wait_at_the_gate()",
        )
        with gate(self.url):
            running = self.begin(command)
            self._wait_until_it_waits(running)
            running.kill()
            running.communicate()
            execute(
                self.database,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event = 'advisory'",
            )
        execute(self.database, f"DROP TRIGGER gate ON anomaly.{table}")

    def _wait_until_it_waits(self, running):
        deadline = time.monotonic() + 120
        waiting = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event = 'advisory'"
        )
        while rows(self.database, waiting) == [(0,)]:
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline, "the command never came to the point"
            time.sleep(0.02)

    def state(self):
        """Every table's rows as text, apart from what differs run by run."""
        found = {}
        for table in _TABLES:
            columns = rows(
                self.database,
                "SELECT attname FROM pg_attribute WHERE attrelid = CAST(:t AS regclass)"
                "   AND attnum > 0 AND NOT attisdropped",
                t=f"anomaly.{table}",
            )
            kept = [f"t.{c}::text" for (c,) in columns if c not in _RUN_BY_RUN]
            kept = [f"({c} IS NULL)" if c.startswith("t.superseded_at") else c for c in kept]
            found[table] = sorted(
                rows(self.database, f"SELECT {', '.join(kept)} FROM anomaly.{table} t"), key=str
            )
        # Scoring a chunk again that is right already leaves a ledger row, and nothing else.
        found["scoring_runs"] = sorted(
            rows(
                self.database,
                "SELECT window_start, window_end, inserted, updated, retracted"
                "  FROM anomaly.scoring_runs WHERE inserted + updated + retracted > 0",
            )
        )
        return found


@contextmanager
def gate(url):
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [GATE])
        yield
    finally:
        connection.close()


DECIDING = ("model_in_force", "INSERT ON TABLE FOR EACH ROW")
SCORING = ("scoring_runs", "INSERT ON TABLE FOR EACH ROW")
LAST_CHUNK = (
    "scoring_runs",
    f"INSERT ON TABLE FOR EACH ROW WHEN (NEW.window_start >= '{at(5 * DAY)}')",
)
FINISHING = (
    "model_in_force",
    "UPDATE ON TABLE FOR EACH ROW WHEN (OLD.unfinished AND NOT NEW.unfinished)",
)
RANGE = ("--start", f"{at(DAY):%Y-%m-%dT%H:%MZ}", "--end", f"{at(5 * DAY):%Y-%m-%dT%H:%MZ}")
LABEL = ("label", "1", "real", *RANGE, "--by", "Ann")


@pytest.mark.parametrize(
    ("command", "point"),
    [
        (("models", "rollback"), DECIDING),
        (("models", "rollback"), SCORING),
        (("models", "rollback"), LAST_CHUNK),
        (("models", "rollback"), FINISHING),
        (("models", "rollback", "--from-now"), FINISHING),
        (("models", "rollback", "--to", "1"), LAST_CHUNK),
        (("models", "promote", "2"), DECIDING),
        (("models", "promote", "1", *RANGE), SCORING),
        (("models", "promote", "1", *RANGE), FINISHING),
        (LABEL, ("labels", "INSERT ON TABLE FOR EACH ROW")),
    ],
)
def test_a_command_killed_and_repeated_ends_where_one_run_would(twins, command, point):
    killed, whole = twins
    whole.run(command)

    killed.kill_at(command, *point)
    killed.run(command)

    assert killed.state() == whole.state()


def test_a_roll_back_that_finishes_one_cut_short_says_so_and_the_next_goes_further(twins):
    killed, _ = twins
    killed.kill_at(("models", "rollback"), *SCORING)

    running = killed.begin(("models", "rollback"))
    out, notes = running.communicate()
    further = killed.run(("models", "rollback"))

    assert "version 2 is in force" in out
    assert "this finishes the roll-back that was cut short" in notes
    assert "version 1 is in force from 2026-03-04" in further


def test_rolling_back_to_a_version_that_is_in_force_changes_nothing(twins):
    killed, _ = twins
    killed.run(("models", "rollback", "--to", "1"))
    before = killed.state()

    killed.run(("models", "rollback", "--to", "1"))

    assert killed.state() == before


def test_saying_and_taking_on_twice_changes_nothing_the_second_time(twins):
    killed, whole = twins
    for twin in twins:
        twin.run(LABEL)

    killed.run(LABEL)

    assert killed.state() == whole.state()


def test_a_training_killed_before_it_is_registered_leaves_nothing_once_it_is_repeated(twins):
    killed, whole = twins
    command = ("train", "--start", f"{at(0):%Y-%m-%d}", "--end", f"{at(5 * DAY):%Y-%m-%d}")
    whole.run(command)

    killed.kill_at(command, "model_versions", "INSERT ON TABLE FOR EACH ROW")
    killed.run(command)

    drafts = "SELECT count(*) FROM anomaly.model_drafts"
    versions = "SELECT count(*) FROM anomaly.model_versions"
    for query in (drafts, versions):
        assert rows(killed.database, query) == rows(whole.database, query)
    folders = sorted(
        path.name for path in Path(killed.settings.models.models_url).glob("isolation_forest/*")
    )
    assert folders == ["v0001", "v0002", "v0003", "v0005"]  # 4 was drawn, and swept


def test_a_migration_killed_half_way_is_applied_whole_when_it_is_repeated(twins):
    killed, whole = twins
    for twin in twins:
        execute(
            twin.database,
            "ALTER TABLE anomaly.locks DROP COLUMN lockable;"
            " DELETE FROM anomaly.schema_migrations WHERE name LIKE '0020%'",
        )
    whole.run(("migrate",))

    killed.kill_at(("migrate",), "schema_migrations", "INSERT ON TABLE FOR EACH ROW")
    killed.run(("migrate",))

    assert killed.state() == whole.state()
