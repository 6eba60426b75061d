"""The demo as a newcomer meets it, on the real readings."""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg2
import pytest
from bi_logins import what_is_allowed

from anomaly.demo.__main__ import Demo
from anomaly.demo.airflow_server import AirflowServerError
from anomaly.demo.processes import BackgroundProcess

PROJECT = Path(__file__).parents[2]
STARTED = "Worker startup parse complete"  # by Airflow, before our code begins

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def demo(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "anomaly.demo", *map(str, arguments)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "state"
    yield folder
    demo("reset", "--folder", folder)


@pytest.fixture(scope="module")
def first(folder, shared_data):
    wrong = demo("up", PROJECT / "README.md", "--folder", folder)  # is not remembered
    assert "make demo-stop" in wrong.stdout
    assert wrong.returncode == 1
    return demo("up", shared_data / "industrial3_15min.csv", "--folder", folder)


def log_in(folder, user, database="anomaly"):
    port = json.loads((folder / "postgres" / "server.json").read_text())["port"]
    password = json.loads((folder / "demo.json").read_text())["passwords"][user]
    place = {"host": "127.0.0.1", "port": port, "dbname": database}
    return place | {"user": user, "password": password}


def query(folder, user, statement):
    connection = psycopg2.connect(**log_in(folder, user))
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
        rows = cursor.fetchall()
    connection.close()
    return rows


def test_it_ends_with_a_verdict_on_every_reading_and_how_to_look(first, folder):
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    assert "33,025 verdicts in anomaly.anomaly_results" in first.stdout
    assert re.search(r"Airflow +http://127\.0\.0\.1:\d+", first.stdout)
    assert re.search(r"log-in +admin / \S+", first.stdout)
    assert "-U bi_reader" in first.stdout


def test_every_verdict_joins_a_ledger_row_that_names_its_airflow_run(first, folder):
    found = query(
        folder,
        "anomaly_app",
        "SELECT dag_id, count(*) FROM anomaly.anomaly_results JOIN anomaly.scoring_runs"
        " USING (run_id) WHERE dag_run_id IS NOT NULL GROUP BY 1 ORDER BY 1",
    )

    assert found == [("backfill_scores", 33_020), ("score_readings", 5)]


def test_the_read_only_log_in_sees_the_views_and_nothing_else(first, folder):
    assert query(folder, "bi_reader", "SELECT count(*) FROM bi.verdicts") == [(33_025,)]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        query(folder, "bi_reader", "SELECT * FROM anomaly.anomaly_results")


def test_no_log_in_of_a_demo_that_is_up_may_make_roles(first, folder):
    may = "SELECT rolname FROM pg_roles WHERE rolcreaterole AND NOT rolsuper"
    assert query(folder, "anomaly_app", may) == []


def test_the_read_only_log_in_cannot_do_what_its_page_rules_out(first, folder):
    assert what_is_allowed(**log_in(folder, "bi_reader")) == []
    for database in ("airflow", "postgres", "template1"):
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            psycopg2.connect(**log_in(folder, "bi_reader", database))


def test_the_command_line_is_that_of_the_demo(first, folder):
    done = subprocess.run(
        ["sh", "-c", f". {folder}/env && anomaly models verify && anomaly status --json"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "1 versions are sound" in done.stdout, done.stderr
    assert '"newest_reading": "2017-05-14T23:45:00+00:00"' in done.stdout


def test_what_is_no_file_is_refused_before_what_the_demo_holds(first, folder):
    missing = demo("up", folder / "none.csv", "--folder", folder)

    assert "none.csv is not a file" in missing.stdout


def test_other_data_are_refused_while_it_holds_these(first, folder):
    other = demo("up", PROJECT / "README.md", "--folder", folder)

    assert other.returncode == 1
    assert "make demo-reset" in other.stdout


def test_a_second_start_finds_everything_there(first, folder):
    began = time.monotonic()
    second = demo("up", "--folder", folder)

    assert second.returncode == 0
    assert "33,025 verdicts" in second.stdout
    assert time.monotonic() - began < 60


def lives(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def of_airflow(folder):
    """The demo's Airflow, and the process that has its parts for children."""
    airflow = Demo(folder, None).airflow
    return airflow, BackgroundProcess(airflow.folder / "standalone.json", airflow.log)


def kill(background, part):
    """Kill a part of Airflow."""
    (process,) = [
        child
        for child in background.process.children()
        if lives(child) and f"airflow {part}" in " ".join(child.cmdline()).replace("_", "-")
    ]
    process.kill()
    deadline = time.monotonic() + 20
    while lives(process):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def family(folder):
    """Every process that the demo has started."""
    server = int((folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
    parts = [Demo(folder, None)._feeder, of_airflow(folder)[1]]
    return [
        psutil.Process(server),
        *psutil.Process(server).children(recursive=True),
        *(process for part in parts for process in part.family),
    ]


def test_what_it_starts_listens_on_this_computer_alone(first, folder):
    listens = [
        connection.laddr
        for process in family(folder)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]

    airflow = of_airflow(folder)[0]
    ports = {log_in(folder, "bi_reader")["port"], int(airflow.url.rpartition(":")[2])}
    assert {address.port for address in listens} == ports
    assert {address.ip for address in listens} <= {"127.0.0.1", "::1"}


@pytest.fixture(scope="module")
def assert_no_secret(first, folder):
    """Look for the passwords and keys of the demo in a text."""
    made = json.loads((folder / "airflow" / "server.json").read_text())
    secrets = {name: made[name] for name in ("password", "jwt", "fernet")}
    secrets |= json.loads((folder / "demo.json").read_text())["passwords"]
    server = json.loads((folder / "postgres" / "server.json").read_text())
    secrets["of the superuser"] = server["password"]
    assert len(set(secrets.values())) == 7

    def look(text, where):
        for name, secret in secrets.items():
            assert secret not in text, (name, where)
            assert quote(secret, safe="") not in text, (name, where)

    return look


def test_no_command_line_shows_a_secret(assert_no_secret, folder):
    for process in family(folder):
        assert_no_secret(" ".join(process.cmdline()), process)


def test_no_log_shows_a_secret(assert_no_secret, folder):
    logs = [*folder.rglob("*.log"), *(folder / "airflow" / "logs").rglob("*")]
    assert {folder / "airflow" / "standalone.log", folder / "postgres" / "postgres.log"} < {*logs}
    for log in logs:
        if log.is_file():
            assert_no_secret(log.read_text(errors="replace"), log)


def test_no_template_and_no_log_of_a_task_shows_a_secret(assert_no_secret, folder):
    airflow = of_airflow(folder)[0]
    seen = [
        (dag_id, run["dag_run_id"], task)
        for dag_id in ("backfill_scores", "score_readings")
        for run in airflow.runs(dag_id)
        for task in airflow.tasks(dag_id, run["dag_run_id"])
    ]
    assert any(task["rendered_fields"] for *_, task in seen)
    for dag_id, run_id, task in seen:
        assert_no_secret(json.dumps(task), task["task_id"])
        for number in range(1, task["try_number"] + 1):
            text = airflow.task_log(
                dag_id, run_id, task["task_id"], number, map_index=task["map_index"]
            )
            assert_no_secret(text, task["task_id"])


def test_who_is_not_the_owner_can_open_no_file_that_holds_a_secret(assert_no_secret, folder):
    def is_open(path):
        return path.lstat().st_mode & 0o077 != 0

    opened = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if is_open(Path(place, name))]
        opened += [path for name in files if is_open(path := Path(place, name))]
    assert folder / "airflow" / "standalone.json" in opened, "some are looked at"
    for path in opened:
        assert_no_secret(path.read_bytes().decode("latin-1"), path)


def log_of_a_task_at_work(folder, airflow, run):
    """What Airflow shows of a task's log while the task waits for a lock."""
    superuser = Demo(folder, None).postgres.url("anomaly").replace("+psycopg2", "")
    deadline = time.monotonic() + 60
    with closing(psycopg2.connect(superuser)) as holder:
        holder.cursor().execute("LOCK TABLE anomaly.meter_readings IN ACCESS EXCLUSIVE MODE")
        while time.monotonic() < deadline:
            for task in airflow.tasks("backfill_scores", run):
                if task["state"] == "running":
                    log = airflow.task_log("backfill_scores", run, task["task_id"])
                    if STARTED in log:
                        return log
            time.sleep(0.3)
    raise AssertionError(f"no task at work has a log with {STARTED!r}")


def test_a_start_after_a_part_has_died_starts_airflow_again(first, folder):
    airflow, background = of_airflow(folder)
    family = background.family
    kill(background, "scheduler")

    again = demo("up", "--folder", folder)

    assert again.returncode == 0, again.stdout
    assert "Airflow's scheduler has ended: Airflow is started again" in again.stdout.splitlines()
    assert not any(map(lives, family))
    newest = (
        "SELECT count(*) FROM anomaly.anomaly_results WHERE utc_timestamp >= '2017-05-14 12:00Z'"
    )
    ((verdicts,),) = query(folder, "anomaly_app", newest)
    assert verdicts == 5 * 48
    query(
        folder,
        "anomaly_app",
        "SET ROLE anomaly_owner; DELETE FROM anomaly.anomaly_results"
        " WHERE utc_timestamp >= '2017-05-14 12:00Z' RETURNING 1",
    )
    ends = {"start": "2017-05-14T12:00:00+00:00", "end": "2017-05-15T00:00:00+00:00"}
    run = airflow.trigger("backfill_scores", ends | {"preview_first": False})
    assert "attempt=1.log" in log_of_a_task_at_work(folder, airflow, run)
    assert airflow.wait_for_run("backfill_scores", run, seconds=120) == "success"
    assert query(folder, "anomaly_app", newest) == [(verdicts,)]


def test_waiting_for_an_airflow_of_which_a_part_has_died_ends_at_once(first, folder):
    airflow, background = of_airflow(folder)
    airflow.wait_until_healthy()
    gone = []
    for part in ("dag-processor", "api-server", "triggerer"):
        kill(background, part)
        gone.append(part)
        began = time.monotonic()
        with pytest.raises(AirflowServerError, match=f"{', '.join(gone)} has ended while starting"):
            airflow.wait_until_healthy()
        assert time.monotonic() - began < 10


def test_stopping_ends_what_it_started_and_keeps_the_data(first, folder):
    family = of_airflow(folder)[1].family
    assert family

    stopped = demo("stop", "--folder", folder)

    assert stopped.returncode == 0
    assert not any(map(lives, family))
    assert (folder / "postgres" / "data").is_dir()
    assert demo("stop", "--folder", folder).returncode == 0
