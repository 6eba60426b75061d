"""Doors that are shut: each way in or out that somebody may try, tried."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psycopg2
import pytest
from bi_logins import make_as_documented, what_is_allowed
from hypothesis import given
from hypothesis import strategies as st
from psycopg2.sql import SQL
from sqlalchemy import make_url

from anomaly.database import connection_limits as bounded
from anomaly.database.connection import SCORER, Database
from anomaly.database.explained_errors import EXPLAINED, explained
from anomaly.database.meter_table import MeterSource
from anomaly.database.migrations import migrate
from anomaly.errors import ArtefactError, DatabaseError, RefusedError
from anomaly.lifecycle.promotion import Promoter
from anomaly.lifecycle.training import Trainer
from anomaly.models.artefact_store import LocalStore
from anomaly.scoring.publishing import Publisher
from anomaly.settings import load_settings
from anomaly.windows import Window
from deployment import (
    START,
    at,
    counters,
    delete,
    execute,
    insert,
    own_log_in,
    rows,
    score,
    train,
    verdicts,
)
from integration_settings import SMALL

DAY = 96
UPGRADE = Path(__file__).parents[2] / "docs" / "how-to" / "upgrade.md"
ANOMALY = Path(sys.executable).with_name("anomaly")


@pytest.fixture
def scored(database, settings):
    insert(database, counters(10 * DAY))
    train(database, settings)
    score(database, settings, 0, 2 * DAY)
    return database


# A BI log-in ------------------------------------------------------------------


def by_the_page(postgres, database, name):
    make_as_documented(postgres, database, name, "...")


def as_the_demo_does(postgres, database, name):
    postgres.create_user(name, "...")
    postgres.make_bi_login(name, database)


@pytest.fixture(params=[by_the_page])
def reader(request, scored, postgres):
    """The connection of a BI log-in."""
    name = f"reader_{uuid.uuid4().hex[:8]}"
    request.param(postgres, scored.engine.url.database, name)
    with closing(psycopg2.connect(raw(scored, name, "..."))) as connection:
        connection.autocommit = True
        yield connection
    execute(scored, f"DROP OWNED BY {name}; DROP ROLE {name}")


def raw(database, user=None, password=None):
    url = database.engine.url.set(drivername="postgresql")
    if user:
        url = url.set(username=user, password=password)
    return url.render_as_string(hide_password=False)


@pytest.mark.parametrize("reader", [by_the_page, as_the_demo_does], indirect=True)
def test_a_bi_login_cannot(reader):
    assert what_is_allowed(dsn=reader.dsn, password="...") == []


def test_a_bi_login_reads_for_a_minute_and_writes_nothing_by_default(reader):
    with reader.cursor() as cursor:
        shown = {}
        for name in ("default_transaction_read_only", "statement_timeout"):
            cursor.execute(f"SHOW {name}")
            shown[name] = cursor.fetchone()[0]

    assert shown == {"default_transaction_read_only": "on", "statement_timeout": "1min"}


def test_whatever_a_bi_login_holds_scoring_goes_on(reader, scored, settings):
    settings = settings.changed(lock_timeout_seconds=5)
    impatient = Database(raw(scored), settings.database)
    names = ("publishing", "machines", "versions", "ingest", "schema_migrations",
             "ensure_partitions")  # fmt: skip
    with reader.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
        for name in names:
            cursor.execute("SELECT pg_advisory_lock(hashtext(%s))", [f"anomaly.{name}"])
        reader.autocommit = False
        for view in ("verdicts", "anomalies", "latest", "incidents"):
            cursor.execute(f"LOCK TABLE bi.{view} IN ACCESS SHARE MODE")
            cursor.execute(f"SELECT * FROM bi.{view}")

        report = score(impatient, settings, 2 * DAY, 3 * DAY)
        trained = train(impatient, settings)
        Promoter(impatient, settings).promote(1, by="me", reason="x")

        reader.rollback()
        reader.autocommit = True
    impatient.dispose()
    assert (report.inserted, trained) == (2 * DAY, 2)


def test_no_error_of_a_query_shows_a_withdrawn_incident(reader, scored):
    execute(
        scored,
        "INSERT INTO anomaly.incidents (machine_id, kind, started_at, told_at, last_at, reason,"
        " severity, state, origin, opened_at, updated_at) VALUES (1, 'machine', now(), now(),"
        " now(), 'secret reason', 'notice', 'withdrawn', 'live', now(), now())",
    )

    with reader.cursor() as cursor:
        cursor.execute("SELECT * FROM bi.incidents WHERE reason::int = 1 AND reason LIKE 'secret%'")

        assert cursor.fetchall() == []


# Functions and operators of others ----------------------------------------------


def test_an_operator_planted_in_public_is_not_called(scored, settings):
    execute(
        scored,
        "GRANT CREATE ON SCHEMA public TO PUBLIC; CREATE TABLE public.caught (who text);"
        " GRANT ALL ON public.caught TO PUBLIC;"
        " CREATE FUNCTION public.spy(smallint, integer) RETURNS bool LANGUAGE plpgsql AS $$"
        " BEGIN INSERT INTO public.caught VALUES (current_user); RETURN $1::int = $2; END $$;"
        " CREATE OPERATOR public.= (LEFTARG = smallint, RIGHTARG = integer,"
        " FUNCTION = public.spy);"
        " ALTER ROLE CURRENT_USER SET search_path = public, pg_catalog",
    )
    spied = Database(raw(scored), settings.database)
    try:
        score(spied, settings, 0, 3 * DAY)
    finally:
        execute(scored, "ALTER ROLE CURRENT_USER RESET search_path")
        spied.dispose()

    assert rows(scored, "SELECT * FROM public.caught") == []


def test_migrating_closes_public_where_it_may(database, settings):
    execute(database, "GRANT CREATE ON SCHEMA public TO PUBLIC")

    report = migrate(database, settings.meter_table)

    assert report.notes == []
    assert rows(database, "SELECT has_schema_privilege('anomaly_bi', 'public', 'CREATE')") == [
        (False,)
    ]


STOLEN = 666.0
"""What the view below gives for a reading, where its function got at something of ours."""


@pytest.fixture
def hostile(database, settings):
    """A meter table that is a view; its function tries to get at everything of ours."""
    attempts = [
        *(f"PERFORM set_config('role', '{role}', {is_local})"
          for role in ("anomaly_owner", "anomaly_scorer", "anomaly_api", "postgres", "none")
          for is_local in ("true", "false")),
        "PERFORM set_config('session_authorization', 'postgres', false)",
        "SET ROLE anomaly_owner",
        "RESET ROLE",
        "PERFORM FROM anomaly.api_keys",
        "PERFORM FROM anomaly.anomaly_results",
        "UPDATE anomaly.machines SET name = 'hacked'",
        "PERFORM set_config('transaction_read_only', 'off', true);"
        " UPDATE anomaly.machines SET name = 'hacked'",
        "PERFORM FROM anomaly.locks WHERE name = 'publishing' FOR UPDATE",
        "CREATE TABLE anomaly.planted ()",
        "EXECUTE 'GRANT anomaly_owner TO anomaly_bi'",
        "EXECUTE 'COPY (SELECT 1) TO PROGRAM ''true'''",
        "PERFORM pg_read_file('postgresql.conf')",
    ]  # fmt: skip
    execute(
        database,
        "CREATE SCHEMA plant; CREATE TABLE plant.raw (LIKE anomaly.meter_readings INCLUDING ALL);"
        " CREATE FUNCTION plant.checked(v double precision) RETURNS double precision"
        " LANGUAGE plpgsql VOLATILE AS $$ BEGIN "
        + "".join(
            f"BEGIN {attempt}; RETURN {STOLEN}; EXCEPTION WHEN others THEN NULL; END; "
            for attempt in attempts
        )
        + "PERFORM set_config('search_path', 'plant', false);"
        " PERFORM set_config('default_transaction_read_only', 'on', false);"
        " PERFORM set_config('TimeZone', 'Asia/Tokyo', false);"
        " NOTIFY plant; "
        "RETURN v; END $$;"
        " CREATE VIEW plant.readings AS SELECT utc_timestamp, ingested_at,"
        "   plant.checked(machine_1) AS machine_1, machine_2 FROM plant.raw"
        "   WHERE plant.checked(1) = 1;"
        " GRANT USAGE ON SCHEMA plant TO anomaly_source;"
        " GRANT SELECT ON plant.readings, plant.raw TO anomaly_source;",
    )
    return settings.changed(source_schema="plant", source_table="readings")


def test_a_function_behind_the_meter_table_gets_at_nothing_of_ours(database, hostile):
    insert(database, counters(10 * DAY))
    execute(database, "INSERT INTO plant.raw SELECT * FROM anomaly.meter_readings")
    with closing(psycopg2.connect(raw(database))) as plant, plant.cursor() as cursor:
        plant.autocommit = True
        cursor.execute("LISTEN plant")

        train(database, hostile)
        score(database, hostile, 0, 4 * DAY)
        # A correction and a deletion make the publication itself look at the table again.
        execute(database, "UPDATE plant.raw SET machine_1 = machine_1 - 900, ingested_at = now()"
                " WHERE utc_timestamp = '2026-03-04T12:00Z';"
                " DELETE FROM plant.raw WHERE utc_timestamp = '2026-03-04T18:00Z'")  # fmt: skip
        report = score(database, hostile, 2 * DAY, 3 * DAY, retractable=10)
        source = MeterSource(hostile.meter_table, hostile.meter)
        with database.transaction(SCORER) as transaction:
            source.previous_reading(transaction, source.describe(transaction), at(20 * DAY))
            settings = transaction.execute(
                SQL("SELECT current_setting('search_path'), current_setting('TimeZone'),"
                    " current_setting('default_transaction_read_only'), current_user")
            )  # fmt: skip

        cursor.execute("SELECT")
        assert plant.notifies == []
    assert settings == [("pg_catalog, pg_temp", "UTC", "off", "anomaly_scorer")]
    assert (report.updated > 0, report.retracted) == (True, 2)
    assert rows(database, "SELECT name FROM anomaly.machines ORDER BY 1") == [
        ("machine_1",), ("machine_2",)]  # fmt: skip
    assert rows(
        database, "SELECT count(*) FROM anomaly.anomaly_results WHERE reading = :s", s=STOLEN
    ) == [(0,)]
    with database.transaction() as transaction:  # nothing is left in a pooled connection
        transaction.execute(SQL("CREATE TEMP TABLE written ()"))


def test_the_function_that_reads_acts_as_nobody_else_and_migrating_mends_it(scored, settings):
    for broken, says in (
        ("ALTER FUNCTION anomaly_reading.read_source(text) SECURITY INVOKER", "acts as anomaly_sc"),
        ("DROP SCHEMA anomaly_reading CASCADE", "does not exist"),
    ):
        execute(scored, broken)
        with pytest.raises(psycopg2.Error, match=says):
            score(scored, settings, DAY, 2 * DAY)
        migrate(scored, settings.meter_table)
        assert score(scored, settings, DAY, 2 * DAY).unchanged == 2 * DAY
    # As after a restore without owners.
    execute(scored, "ALTER FUNCTION anomaly_reading.read_source(text) OWNER TO postgres")
    with pytest.raises(psycopg2.Error, match="acts as postgres") as caught:
        score(scored, settings, DAY, 2 * DAY)
    assert str(explained(caught.value)).endswith("administrator make anomaly_reader its owner")


@pytest.mark.parametrize(
    "table",
    [
        "CREATE TABLE plant.readings (utc_timestamp timestamptz PRIMARY KEY,"
        " machine_1 double precision);"
        " CREATE TRIGGER t BEFORE INSERT ON plant.readings"
        " FOR EACH STATEMENT EXECUTE FUNCTION plant.steal_by_trigger()",
        "CREATE TABLE plant.readings (utc_timestamp timestamptz PRIMARY KEY,"
        " machine_1 double precision CHECK (plant.steal(machine_1) > 0))",
        "CREATE TABLE plant.readings (utc_timestamp timestamptz PRIMARY KEY,"
        " machine_1 double precision, line double precision DEFAULT plant.steal(1))",
        "CREATE TABLE plant.raw (utc_timestamp timestamptz PRIMARY KEY,"
        " machine_1 double precision); CREATE VIEW plant.readings AS SELECT utc_timestamp,"
        " machine_1 FROM plant.raw WHERE plant.steal(machine_1) > 0 WITH CHECK OPTION",
    ],
    ids=["trigger", "check", "default", "view"],
)
def test_who_owns_the_meter_table_gets_no_rights_of_ours_by_what_is_loaded_into_it(
    postgres, database, settings, tmp_path, command_line, table
):
    suffix = uuid.uuid4().hex[:8]
    owner, product, loader = (f"{name}_{suffix}" for name in ("plant", "product", "loader"))
    name = database.engine.url.database
    own_log_in(postgres, product, "pw")
    for login in (owner, loader):
        postgres.create_user(login, "pw")
    execute(database, f'GRANT CREATE ON DATABASE "{name}" TO {owner}')
    steal = (
        f"PERFORM set_config('role', 'anomaly_owner', true);"
        f" GRANT SELECT ON anomaly.api_keys TO {owner}; PERFORM set_config('role', 'none', true)"
    )
    ignored = "EXCEPTION WHEN insufficient_privilege OR invalid_parameter_value THEN NULL"
    with Database(postgres.url(name, owner, "pw"), settings.database).transaction() as transaction:
        transaction.execute(
            SQL(
                "CREATE SCHEMA plant;"
                " CREATE FUNCTION plant.steal(v double precision) RETURNS double precision"
                f" LANGUAGE plpgsql AS $$ BEGIN BEGIN {steal}; {ignored}; END; RETURN v; END $$;"
                " CREATE FUNCTION plant.steal_by_trigger() RETURNS trigger LANGUAGE plpgsql AS"
                f" $$ BEGIN BEGIN {steal}; {ignored}; END; RETURN NULL; END $$; {table};"
                f" GRANT USAGE ON SCHEMA plant TO {product}, {loader};"
                " GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA plant"
                f" TO {product}, {loader}"
            )
        )

    def load_as(login):
        return load(command_line, postgres.url(name, login, "pw"), settings, tmp_path)

    try:
        assert f"plant.readings of {owner} is not all {product}'s own" in load_as(product).stderr
        assert rows(database, "SELECT count(*) FROM plant.readings") == [(0,)]
        loaded = [json.loads(load_as(loader).stdout)["inserted"] for _ in range(2)]
        assert loaded == [2, 0]
        stolen = f"SELECT has_table_privilege('{owner}', 'anomaly.api_keys', 'SELECT')"
        assert rows(database, stolen) == [(False,)]
        assert (
            "the product's rights"
            in load(command_line, postgres.url(name), settings, tmp_path).stderr
        )
    finally:
        execute(database, f"DROP OWNED BY {owner} CASCADE; DROP OWNED BY {loader}")


def load(command_line, url, settings, folder):
    """Load two readings into plant.readings by the command line, as a log-in."""
    file = folder / "readings.csv"
    file.write_text("utc_timestamp,machine_1\n2026-03-01T00:00Z,1.5\n2026-03-01T00:15Z,1.7\n")
    variables = {
        "ANOMALY_DATABASE_URL": url,
        "ANOMALY_SOURCE_SCHEMA": "plant",
        "ANOMALY_SOURCE_TABLE": "readings",
    }
    return command_line.run(["ingest", str(file), "--json"], variables, folder=folder)


COLUMNS = "(utc_timestamp timestamptz PRIMARY KEY, machine_1 double precision)"


@pytest.mark.parametrize(
    ("made", "is_refused"),
    [
        (f"CREATE TABLE plant.readings {COLUMNS}; ALTER TABLE plant.readings OWNER TO mine", False),
        (f"CREATE TABLE plant.raw {COLUMNS}; ALTER TABLE plant.raw OWNER TO plant;"
         " CREATE VIEW plant.readings AS SELECT * FROM plant.raw", True),
        (f"CREATE TABLE plant.raw {COLUMNS}; ALTER TABLE plant.raw OWNER TO plant;"
         " CREATE VIEW plant.readings AS SELECT * FROM plant.raw;"
         " ALTER VIEW plant.readings OWNER TO mine", True),
        (f"CREATE TABLE plant.readings {COLUMNS}; ALTER TABLE plant.readings OWNER TO plant;"
         " GRANT plant TO mine", True),
        (f"CREATE TABLE plant.readings {COLUMNS}", True),
        (f"CREATE TABLE plant.readings {COLUMNS}; ALTER TABLE plant.readings OWNER TO mine;"
         " GRANT TRIGGER ON plant.readings TO plant", True),
        ("CREATE FUNCTION plant.same(double precision) RETURNS double precision LANGUAGE sql"
         " IMMUTABLE AS 'SELECT $1'; ALTER FUNCTION plant.same OWNER TO plant;"
         f" CREATE TABLE plant.readings {COLUMNS}; CREATE INDEX ON plant.readings"
         " (plant.same(machine_1)); ALTER TABLE plant.readings OWNER TO mine", True),
        ("CREATE TABLE plant.readings (utc_timestamp timestamptz, machine_1 double precision)"
         " PARTITION BY RANGE (utc_timestamp); CREATE TABLE plant.part PARTITION OF plant.readings"
         " DEFAULT; ALTER TABLE plant.readings OWNER TO mine;"
         " ALTER TABLE plant.part OWNER TO plant", True),
    ],
    ids=["own", "view of a superuser", "own view", "of a role", "of a superuser",
         "may get triggers", "function in an index", "partition"],
)  # fmt: skip
def test_a_log_in_of_the_product_writes_to_what_is_all_its_own_alone(
    postgres, database, settings, tmp_path, command_line, made, is_refused
):
    suffix = uuid.uuid4().hex[:8]
    owner, product = f"plant_{suffix}", f"product_{suffix}"
    own_log_in(postgres, product, "pw")
    postgres.create_user(owner, "pw")
    name = database.engine.url.database
    owned = re.sub(r"\b(TO|GRANT) plant\b(?!\.)", rf"\1 {owner}", made)
    execute(
        database,
        f"CREATE SCHEMA plant; {re.sub('TO mine', f'TO {product}', owned)};"
        f" GRANT USAGE ON SCHEMA plant TO {product};"
        f" GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA plant TO {product}",
    )
    try:
        said = load(command_line, postgres.url(name, product, "pw"), settings, tmp_path)

        assert ("is not all" in said.stderr) is is_refused, said.stderr
        assert said.returncode == int(is_refused)
    finally:
        execute(database, "DROP SCHEMA plant CASCADE")


def test_who_owns_one_deployment_does_not_become_the_owner_of_another(postgres, database, settings):
    other = f"other_{uuid.uuid4().hex[:8]}"
    postgres.create_user(other, "secret", may_create_roles=True)
    postgres.create_database(other, owner=other)
    theirs = Database(postgres.url(other, other, "secret"), settings.database)

    with pytest.raises(RefusedError, match=r"a deployment already, in database .* of its own$"):
        migrate(theirs, settings.meter_table)

    theirs.dispose()
    postgres.drop_database(other)


# Folders ------------------------------------------------------------------------


@given(st.one_of(st.text(), st.from_regex(r"(\.\./)*(/?[a-z_.]+/)*v?[0-9.]*", fullmatch=True)))
def test_no_name_leads_out_of_the_models_folder(folder):
    store = LocalStore(Path("/nowhere/models"))
    try:
        place = store._path(folder)
    except ArtefactError:
        return
    assert re.fullmatch(r"/nowhere/models/[a-z][a-z0-9_]*/v[0-9]{4,9}", str(place))


@pytest.mark.parametrize("column", ["folder", "token"])
def test_a_draft_that_points_elsewhere_removes_nothing(scored, settings, tmp_path, column):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("x")
    told = {"folder": "isolation_forest/v0009", "token": "aa"} | {column: "../../victim"}
    execute(
        scored,
        "INSERT INTO anomaly.model_drafts (version, folder, token, begun_by)"
        " VALUES (9, :folder, :token, 'somebody')",
        **told,
    )

    assert Trainer(scored, settings).sweep() == []
    assert (victim / "precious").exists()


def test_a_version_that_points_elsewhere_is_not_opened(scored, settings, tmp_path):
    shutil_target = tmp_path / "elsewhere"
    Path(settings.models.models_url, "isolation_forest", "v0001").rename(shutil_target)
    execute(scored, "UPDATE anomaly.model_versions SET artefact = :a", a=str(shutil_target))

    with pytest.raises(ArtefactError, match="is no folder of a model version"):
        score(scored, settings, 2 * DAY, 3 * DAY)


def _fifo(path):
    os.mkfifo(path)


def _device(path):
    path.symlink_to("/dev/zero")


def _link(path):
    path.symlink_to("/etc/hostname")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [_fifo, _device, _link, Path.mkdir])
def test_only_regular_files_of_a_version_are_opened(scored, settings, make):
    file = Path(settings.models.models_url, "isolation_forest", "v0001", "manifest.json")
    file.unlink()
    make(file)

    (problem,) = Promoter(scored, settings).verify([1]).values()

    assert f"{file} is no regular file, it was not opened" in problem


def test_a_folder_that_is_a_link_is_not_followed(scored, settings, tmp_path):
    folder = Path(settings.models.models_url, "isolation_forest", "v0001")
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")

    (problem,) = Promoter(scored, settings).verify([1]).values()

    assert f"{folder} is a link, it was not followed" in problem


@pytest.fixture
def second(postgres, migrated, settings):
    """Another database that has the same models folder."""
    name = f"second_{uuid.uuid4().hex[:8]}"
    postgres.create_database(name, template=migrated)
    database = Database(postgres.url(name), settings.database)
    insert(database, counters(10 * DAY))
    yield database
    database.dispose()
    postgres.drop_database(name)


def test_two_databases_that_train_at_once_in_one_folder_get_numbers_of_their_own(
    database, second, settings
):
    insert(database, counters(10 * DAY))
    with ThreadPoolExecutor(4) as pool:
        mine = [pool.submit(train, database, settings) for _ in range(2)]
        others = [pool.submit(train, second, settings) for _ in range(2)]
        numbers = [future.result() for future in mine + others]

    assert len(set(numbers)) == 4
    for owner in (database, second):
        assert set(Promoter(owner, settings).verify().values()) == {""}


def test_a_sweep_leaves_what_another_database_has_under_the_same_number(
    database, second, settings, monkeypatch
):
    insert(database, counters(10 * DAY))

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # its number is drawn, nothing is written
        patch.setattr("anomaly.lifecycle.training.hold_draft", killed)
        with pytest.raises(KeyboardInterrupt):
            train(database, settings)
    assert train(second, settings) == 1

    assert Trainer(database, settings).sweep() == []
    assert Promoter(second, settings).verify() == {1: ""}
    assert train(database, settings) == 2


(ADOPTED,) = re.findall(
    r"```sql\n(SET ROLE anomaly_owner;\nUPDATE anomaly.*?)```",
    UPGRADE.read_text(encoding="utf-8"),
    re.S,
)


@contextmanager
def copy_of(postgres, database):
    """A copy of a database in the same cluster, as a staging database is one."""
    name = f"copy_{uuid.uuid4().hex[:8]}"
    database.dispose()
    postgres.create_database(name, template=database.engine.url.database)
    copy = Database(postgres.url(name), load_settings({}).database)
    try:
        yield copy
    finally:
        copy.dispose()
        postgres.drop_database(name)


def test_a_copy_of_a_database_removes_no_files_of_the_original(postgres, database, settings):
    insert(database, counters(12 * DAY))
    settings = settings.changed(keep_versions=2)
    train(database, settings)
    with copy_of(postgres, database) as copy:
        trained = [train(copy, settings, end=DAY * (8 + more)) for more in range(4)]
        retired = rows(
            copy, "SELECT version FROM anomaly.model_versions WHERE status = 'retired' ORDER BY 1"
        )
        drafts = rows(copy, "SELECT version FROM anomaly.model_drafts")

        assert (1,) in retired, "the copy does not need it any more"
        assert drafts == [(1,)], "on record, until somebody says that it is this one's"
        assert Promoter(database, settings).verify([]) == {1: ""}
        swept = Path(settings.models.models_url) / "isolation_forest"
        assert {path.name for path in swept.iterdir()} >= {"v0001"}
        assert len(list(swept.iterdir())) < 1 + len(trained), "the copy removes what is its own"


def test_a_copy_that_was_made_during_a_training_removes_nothing_of_it(
    postgres, scored, settings, monkeypatch
):
    trainer, copies = Trainer(scored, settings), []
    write = trainer._write

    def write_after_a_copy_was_made(draft, *rest):
        copies.append(stack.enter_context(copy_of(postgres, scored)))
        return write(draft, *rest)

    monkeypatch.setattr(trainer, "_write", write_after_a_copy_was_made)
    with ExitStack() as stack:
        trainer.register(trainer.train(Window(START, at(9 * DAY))), by="tests")

        assert Trainer(copies[0], settings).sweep() == []
        assert {*Promoter(scored, settings).verify([]).values()} == {""}
        # The page Upgrade: once the original is gone, all of it is this one's.
        execute(copies[0], ADOPTED)
        assert Trainer(copies[0], settings).sweep() == ["isolation_forest/v0002"]


def test_a_models_folder_that_may_not_be_written_is_named_in_one_line(scored, settings, tmp_path):
    folder = Path(settings.models.models_url)
    for path in (tmp_path, *tmp_path.parents):
        if path.owner() == "root" and path != Path("/") and path.name.startswith("pytest-"):
            path.chmod(0o755)
    folder.chmod(0o500 if os.geteuid() else 0o700)
    demote = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

    done = subprocess.run(
        [*(demote if not os.geteuid() else []), ANOMALY, "train"],
        env={
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "ANOMALY_DATABASE_URL": raw(scored),
            "ANOMALY_MODELS_URL": str(folder),
            **{f"ANOMALY_{name.upper()}": str(value) for name, value in SMALL.items()},
        },
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert str(folder) in last
    assert "Permission denied" in last


# Waits ---------------------------------------------------------------------------


@pytest.fixture
def short_margin(monkeypatch):
    """An answer may come a second after the server should have ended the statement, not ten."""
    monkeypatch.setattr(bounded, "MARGIN_SECONDS", 1.0)


@pytest.fixture
def hasty(database, settings, short_margin):
    """The same database, with statements that end after a second."""
    hasty = Database(raw(database), settings.changed(statement_timeout_seconds=1).database)
    yield hasty
    hasty.dispose()


@pytest.mark.timeout(60)
def test_a_stopped_backend_is_waited_for_no_longer_than_its_statement_may_take(hasty, database):
    def stop_it_and_ask():
        with hasty.transaction() as transaction:
            ((pid,),) = transaction.execute(SQL("SELECT pg_backend_pid()"))
            os.kill(pid, signal.SIGSTOP)
            try:
                transaction.execute(SQL("SELECT 1"))
            finally:
                os.kill(pid, signal.SIGCONT)

    began = time.monotonic()
    with pytest.raises(EXPLAINED) as caught:
        stop_it_and_ask()

    assert time.monotonic() - began < 1 + bounded.MARGIN_SECONDS + 5
    assert "no answer in 2 s: server or network do not respond" in str(explained(caught.value))


@contextmanager
def stalling_proxy(port):
    """A TCP proxy to a port that forwards until its event is set, and then swallows all."""
    stalled = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def forward(source, target):
        while data := source.recv(65536):
            if not stalled.is_set():
                target.sendall(data)

    def serve():
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", port))
            for pair in ((client, server), (server, client)):
                threading.Thread(target=forward, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listening.getsockname()[1], stalled
    finally:
        listening.close()


@pytest.mark.timeout(60)
def test_a_network_that_swallows_everything_is_not_waited_for_for_ever(
    database, settings, short_margin
):
    url = make_url(raw(database))
    with stalling_proxy(url.port) as (port, stalled):
        through = url.set(port=port).render_as_string(hide_password=False)
        hasty = settings.changed(statement_timeout_seconds=1)
        far = Database(through, hasty.database)

        def ask_in_silence():
            with far.transaction(SCORER) as transaction:
                stalled.set()
                transaction.rows("machines/known")

        with pytest.raises(EXPLAINED) as caught:
            ask_in_silence()

        assert "do not respond" in str(explained(caught.value))


# Failures in one line ------------------------------------------------------------


def test_a_month_of_results_that_was_detached_is_named_with_the_statement_that_mends_it(
    scored, settings
):
    part = "anomaly.anomaly_results_2026_03"
    execute(scored, f"ALTER TABLE anomaly.anomaly_results DETACH PARTITION {part}")
    with pytest.raises(EXPLAINED) as caught:
        score(scored, settings, 0, 3 * DAY)
    said = explained(caught.value)

    assert isinstance(said, RefusedError)
    assert "the results of 2026-03 are detached" in str(said)
    (mend,) = re.findall(r"run (ALTER TABLE .*)$", str(said))
    execute(scored, mend)
    assert score(scored, settings, 0, 3 * DAY).inserted == 2 * DAY


@pytest.mark.parametrize(
    ("statement", "kind", "then"),
    [
        ("SELECT 1 FROM anomaly.nothing", RefusedError, "anomaly migrate"),
        ("SELECT nothing FROM anomaly.machines", RefusedError, "anomaly migrate"),
        ("SET LOCAL ROLE anomaly_bi; SELECT * FROM anomaly.machines", RefusedError, "migrate"),
        ("SELECT 'x'::int", RefusedError, "correct it"),
        ("SELECT pg_sleep(20)", DatabaseError, "ANOMALY_STATEMENT_TIMEOUT_SECONDS"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", DatabaseError, "run it again"),
        ("SET TRANSACTION READ ONLY; CREATE TABLE x ()", DatabaseError, "the primary"),
    ],
)
def test_what_the_database_refuses_is_one_line_with_the_next_step(hasty, statement, kind, then):
    with pytest.raises(EXPLAINED) as caught, hasty.transaction() as transaction:
        transaction.execute(SQL(statement))

    said = explained(caught.value)
    assert type(said) is kind
    assert len(str(said).splitlines()) == 1
    assert then in str(said)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:{secret}@127.0.0.1:1/db",
        "postgresql://me@127.0.0.1:1/db?password={secret}",
        "postgresql://me:a@{secret}@127.0.0.1:1/db",
        "postgresql://me:a@{secret}/b@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?sslmode=require password='two {secret}'",
        "postgresql://me:{secret}@127.0.0.1:port/db",
        "postgresql://me:{secret}/x@127.0.0.1:1/db?passfile=/home/{secret}",
        "mysql://me:{secret}@127.0.0.1/db",
        "me:{secret}@nowhere",
        "postgresql://me:{secret}@127.0.0.1:1/db?no_such_option={secret}",
    ],
)
def test_no_error_about_the_database_holds_the_password(url):
    done = subprocess.run(
        [ANOMALY, "status"],
        env={"PATH": os.environ["PATH"], "ANOMALY_DATABASE_URL": url.format(secret="Hunter2x")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "Hunter2x" not in done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


COMPETITORS, CROWD = 7, 20


@pytest.fixture
def databases(scored, settings):
    """Connections of their own for a crowd, as processes have them."""
    databases = [Database(raw(scored), settings.database) for _ in range(CROWD)]
    yield databases
    for one in databases:
        one.dispose()


def test_several_that_score_the_same_window_at_once_all_come_through(
    scored, settings, databases, monkeypatch
):
    """In each round all have read before one publishes: the last is overtaken by every other."""
    monkeypatch.setattr("anomaly.scoring.scorer._LONGEST_PAUSE", 0.1)
    delete(scored, 2 * DAY)  # something to retract, for whoever is first
    rounds = [threading.Barrier(left, timeout=60) for left in range(COMPETITORS, 0, -1)]
    publish, attempts = Publisher.publish, Counter()

    def publish_together(publisher, *attempt):
        attempts[publisher] += 1
        rounds[attempts[publisher] - 1].wait()
        return publish(publisher, *attempt)

    monkeypatch.setattr(Publisher, "publish", publish_together)
    with ThreadPoolExecutor(COMPETITORS) as pool:
        some = databases[:COMPETITORS]
        runs = [pool.submit(score, one, settings, 0, 4 * DAY) for one in some]
        for run in as_completed(runs):
            if run.exception():
                for one in rounds:
                    one.abort()
        reports = [run.result() for run in runs]

    assert sorted(attempts.values()) == [*range(1, COMPETITORS + 1)]
    assert [sum(report.inserted for report in reports), len(verdicts(scored))] == [
        2 * 2 * DAY - 2, 2 * 4 * DAY - 2]  # fmt: skip
    assert rows(scored, "SELECT count(*) FROM anomaly.scoring_runs") == [(1 + COMPETITORS,)]


@pytest.mark.slow
def test_a_crowd_that_scores_the_same_window_spreads_until_all_come_through(
    scored, settings, databases
):
    """More than there are attempts: without pauses they overtake each other until some give up."""
    with ThreadPoolExecutor(CROWD) as pool:
        runs = [pool.submit(score, one, settings, 0, 4 * DAY) for one in databases]
        reports = [run.result() for run in runs]

    assert sum(report.inserted for report in reports) == 2 * 2 * DAY
