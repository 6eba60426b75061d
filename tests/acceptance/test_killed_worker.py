"""A worker of Airflow's executor dies with a task that it took: later ticks score all the same."""

import time
from datetime import timedelta

import psutil
import pytest

from anomaly.windows import Window
from deployment import QUARTER, counters_until, insert, rows, train_in_force
from integration_settings import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DAY = 96
RUN_SECONDS = 60
SETTINGS = SMALL | {"dag_scoring_hours": RUN_SECONDS / 3600}


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


def test_a_worker_killed_with_a_task_in_hand_stops_one_run_and_not_the_next(
    airflow, database, history, today
):
    airflow.unpause("score_readings")  # the schedule's own run of the last interval begins
    kill_the_worker_that_takes_a_task()
    time.sleep(5)
    (killed,) = [run["dag_run_id"] for run in airflow.runs("score_readings")]
    assert airflow.task_states("score_readings", killed)["score"] == "queued"

    assert airflow.wait_for_run("score_readings", killed) == "failed"
    later = airflow.trigger("score_readings")
    airflow.wait_for_run("score_readings", later)

    assert airflow.task_states("score_readings", later)["score"] == "success"
    assert rows(
        database,
        "SELECT count(*) FROM anomaly.anomaly_results WHERE utc_timestamp = :t",
        t=today - QUARTER,
    ) == [(2,)]
