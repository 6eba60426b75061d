"""A worker of Airflow's executor dies with a task that it took: later ticks score all the same."""

import shutil
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from anomaly.windows import Window
from deployment import QUARTER, counters_until, insert, rows, train_in_force
from integration_settings import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROJECT = Path(__file__).parents[2]
DAY = 96
RUN_SECONDS = 60
SETTINGS = SMALL | {"dag_scoring_hours": RUN_SECONDS / 3600}


@pytest.fixture(scope="module")
def environment(environment, tmp_path_factory):
    """Let the schedule tick each minute: nobody waits for a quarter of an hour here."""
    dags = tmp_path_factory.mktemp("ticks") / "dags"
    shutil.copytree(PROJECT / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
    scoring = dags / "score_readings.py"
    shipped = scoring.read_text()
    assert shipped.count('("*/15 * * * *"') == 1
    scoring.write_text(shipped.replace('("*/15 * * * *"', '("* * * * *"'))
    return environment | {"AIRFLOW__CORE__DAGS_FOLDER": str(dags)}


@pytest.fixture(scope="module")
def history(database, settings, today):
    """Ten days of readings up to now, and a model."""
    frame = counters_until(today, 10 * DAY)
    insert(database, frame)
    first = frame["utc_timestamp"].min()
    window = Window(first, first + timedelta(days=3))
    train_in_force(database, settings, window)
    return frame


def kill_the_worker_that_takes_a_task():
    """Kill it before its task runs; all others of the executor wait for one."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        for process in psutil.process_iter(["cmdline"]):
            title = " ".join(process.info["cmdline"] or ())
            if "worker -- LocalExecutor" in title and "<idle>" not in title:
                process.kill()
                return
        time.sleep(0.005)
    raise AssertionError("no worker took a task")


def later_tick(airflow, killed):
    """The first run that the schedule made after the killed one, when it has ended."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        later = [run["dag_run_id"] for run in airflow.runs("score_readings")]
        if (at := later.index(killed)) > 0:
            airflow.wait_for_run("score_readings", later[at - 1])
            return airflow.run("score_readings", later[at - 1])
        time.sleep(0.5)
    raise AssertionError("the schedule made no other run")


def test_a_worker_killed_with_a_task_in_hand_stops_one_run_and_not_the_next(
    airflow, database, history, today
):
    newest = "SELECT count(*) FROM anomaly.anomaly_results WHERE utc_timestamp = :t"
    airflow.unpause("score_readings")  # the schedule's own run of the last interval begins
    kill_the_worker_that_takes_a_task()
    killed = airflow.runs("score_readings")[-1]["dag_run_id"]

    assert airflow.wait_for_run("score_readings", killed) == "failed"
    assert airflow.task_states("score_readings", killed)["score"] != "success"
    later = later_tick(airflow, killed)

    assert (later["run_type"], later["triggered_by"]) == ("scheduled", "timetable")
    assert airflow.task_states("score_readings", later["dag_run_id"])["score"] == "success"
    assert rows(database, newest, t=today - QUARTER) == [(2,)]
