"""Parts of a real Airflow die while a task publishes: nothing is lost, doubled or wrong.

The task is held at the publishing lock from outside, so that it is known what it was doing.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
import psycopg2
import pytest

from anomaly.windows import Window
from deployment import QUARTER, counters_until, insert, rows, train_in_force
from integration_settings import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(580)]

DAY = 96
SETTINGS = SMALL | {"dag_scoring_hours": 90 / 3600}
WAITS = (
    "SELECT client_port FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock' AND query LIKE '%anomaly.locks%'"
)


@pytest.fixture(scope="module")
def environment(environment):
    """Let a dead task be noticed soon."""
    return environment | {
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    }


@pytest.fixture(scope="module")
def history(airflow, database, settings, today):
    """Ten days of readings up to an hour ago, scored, and a model."""
    frame = counters_until(today - timedelta(hours=1), 10 * DAY)
    insert(database, frame)
    first = frame["utc_timestamp"].min().to_pydatetime()
    train_in_force(database, settings, Window(first, first + timedelta(days=3)))
    airflow.unpause("score_readings")
    return frame


@contextmanager
def publishing_is_held(database):
    """Hold the publishing lock, as an idle transaction does."""
    url = database.engine.url.set(drivername="postgresql")
    with psycopg2.connect(url.render_as_string(hide_password=False)) as holder:
        with holder.cursor() as cursor:
            cursor.execute("SELECT FROM anomaly.locks WHERE name = 'publishing' FOR UPDATE")
        yield
        holder.rollback()
    holder.close()


def task_at_the_lock(database):
    """The process of the task that waits for the lock, found by its connection."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        ports = [port for (port,) in rows(database, WAITS)]
        for connection in psutil.net_connections("tcp") if ports else ():
            if connection.laddr.port in ports and connection.pid:
                return psutil.Process(connection.pid)
        time.sleep(0.1)
    raise AssertionError("no task came to the lock")


def part(airflow, name):
    """The process of a part of this Airflow."""
    port = airflow.url.rpartition(":")[2]

    def is_it(process):
        title = " ".join(process.info["cmdline"] or ())
        if f"airflow {name}" not in title:
            return False
        # A process that has given itself a title has written it over its environment.
        home = (process.info["environ"] or {}).get("AIRFLOW_HOME")
        return home == str(airflow.folder) or f"port:{port}" in title

    found = [each for each in psutil.process_iter(["cmdline", "environ"]) if is_it(each)]
    assert found, f"there is no {name}"
    return min(found, key=lambda process: process.create_time())


def kill(process):
    """Kill a process; its parent may never ask for its end."""
    process.kill()
    end = time.monotonic() + 20
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, f"{process} does not die"
        time.sleep(0.05)


@contextmanager
def started_again(airflow, *command):
    """Start a part again, as a service manager does."""
    program = str(Path(sys.executable).with_name("airflow"))
    with (airflow.folder / "again.log").open("a") as log:
        process = subprocess.Popen(
            [program, *command],
            env=airflow._environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def check(airflow, database, settings, record_property, number, says, begun):
    """The next run scores what is missing; scoring anew changes nothing; each reading has one."""
    airflow.wait_until_healthy()
    run = airflow.trigger("score_readings")
    assert airflow.wait_for_run("score_readings", run) is not None
    assert airflow.task_states("score_readings", run)["score"] == "success"
    seconds = time.monotonic() - begun
    lost, extra = rows(
        database,
        "SELECT count(*) FILTER (WHERE v.machine_id IS NULL), count(*) FILTER (WHERE r.t IS NULL)"
        "  FROM (SELECT utc_timestamp AS t, m FROM anomaly.meter_readings, (VALUES (1), (2)) x (m)"
        "         WHERE utc_timestamp >= (SELECT min(utc_timestamp) FROM anomaly.anomaly_results)"
        "       ) r FULL JOIN anomaly.anomaly_results v"
        "    ON v.machine_id = r.m AND v.utc_timestamp = r.t",
    )[0]
    first, end = rows(
        database,
        "SELECT min(utc_timestamp), max(utc_timestamp) FROM anomaly.anomaly_results",
    )[0]
    from anomaly.database.results import Origin
    from anomaly.database.scoring_runs import RequestedBy
    from anomaly.scoring.publishing import Job
    from anomaly.scoring.scorer import Scorer

    anew = Scorer(database, settings).score_range(
        Window(first, end + QUARTER), Job(Origin.BACKFILL, RequestedBy("test"))
    )
    record_property(
        "fault",
        json.dumps(
            {
                "number": number, "fault": says, "lost": lost, "doubled": extra,
                "wrong": anew.updated + anew.inserted + anew.retracted, "seconds": seconds,
            }
        ),
    )  # fmt: skip
    assert (lost, extra, anew.updated, anew.inserted, anew.retracted) == (0, 0, 0, 0, 0)


def new_reading(database, history, quarters):
    """Add a reading; each fault has its own."""
    more = history.tail(1).assign(utc_timestamp=history["utc_timestamp"].max() + quarters * QUARTER)
    more[["machine_1", "machine_2"]] += 2.0 * quarters
    insert(database, more)


def test_the_supervisor_is_killed_and_the_orphan_goes_on(
    airflow, database, settings, history, record_property
):
    new_reading(database, history, 1)
    with publishing_is_held(database):
        run = airflow.trigger("score_readings")
        task = task_at_the_lock(database)
        supervisor = task.parent()
        assert "airflow" in " ".join(supervisor.cmdline())
        kill(supervisor)
        assert task.is_running(), "the orphan goes on"
    begun = time.monotonic()
    airflow.wait_for_run("score_readings", run)

    says = "the task's supervisor is killed, its orphan goes on"
    check(airflow, database, settings, record_property, 6, says, begun)


def test_the_scheduler_is_killed_and_started_again(
    airflow, database, settings, history, record_property
):
    new_reading(database, history, 2)
    with publishing_is_held(database):
        airflow.trigger("score_readings")
        task_at_the_lock(database)
        scheduler = part(airflow, "scheduler")
        orphans = scheduler.children(recursive=True)
        kill(scheduler)
    begun = time.monotonic()
    try:
        with started_again(airflow, "scheduler"):
            says = "the scheduler is killed while a task publishes, and started again"
            check(airflow, database, settings, record_property, 7, says, begun)
    finally:
        for orphan in orphans:  # its workers, and what serves its logs
            if orphan.is_running():
                kill(orphan)


def test_the_api_server_is_killed_in_mid_task_and_started_again(
    airflow, database, settings, history, record_property
):
    new_reading(database, history, 3)
    with started_again(airflow, "scheduler"):
        airflow.wait_until_healthy()
        with publishing_is_held(database):
            airflow.trigger("score_readings")
            task_at_the_lock(database)
            server = part(airflow, "api_server")
            for process in [server, *server.children(recursive=True)]:
                kill(process)
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"{airflow.url}/api/v2/monitor/health", timeout=5)
        begun = time.monotonic()
        port = airflow.url.rpartition(":")[2]
        with started_again(airflow, "api-server", "--port", port):
            says = "the API server is killed in mid-task, and started again"
            check(airflow, database, settings, record_property, 8, says, begun)
