"""The demo as a newcomer meets it, on the real readings."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg2
import pytest

PROJECT = Path(__file__).parents[2]

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


def query(folder, user, statement):
    port = json.loads((folder / "postgres" / "server.json").read_text())["port"]
    password = json.loads((folder / "demo.json").read_text())["passwords"][user]
    connection = psycopg2.connect(
        host="127.0.0.1", port=port, user=user, password=password, dbname="anomaly"
    )
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


def test_stopping_ends_what_it_started_and_keeps_the_data(first, folder):
    airflow = json.loads((folder / "airflow" / "standalone.json").read_text())["pid"]
    family = [psutil.Process(airflow), *psutil.Process(airflow).children(recursive=True)]

    stopped = demo("stop", "--folder", folder)

    assert stopped.returncode == 0
    assert not any(
        process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family
    )
    assert (folder / "postgres" / "data").is_dir()
    assert demo("stop", "--folder", folder).returncode == 0
