"""Parts of a real Airflow die while a task works: nothing is lost, doubled or wrong.

The task is held from outside, at a lock of the test's, so that it is known what it was doing.
"""

import itertools
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

from anomaly.database.results import Origin
from anomaly.database.scoring_runs import RequestedBy
from anomaly.scoring.publishing import Job
from anomaly.scoring.scorer import Scorer
from anomaly.windows import Window
from deployment import QUARTER, counters_until, execute, insert, rows, train_in_force
from faults.table import (
    FULL,
    NO_API_SERVER,
    NO_SCHEDULER,
    ORPHANED,
    SLEPT,
    recorded,
    wanted,
)  # fmt: skip
from integration_settings import SMALL
from lives import wrong_history

pytestmark = [pytest.mark.slow, pytest.mark.timeout(580)]

DAY = 96
SETTINGS = SMALL | {
    "dag_scoring_hours": 90 / 3600,
    "lateness_hours": 12,  # each fault adds a reading to those that ended some hours ago
    "stale_after_hours": 24,
}
HEARTBEAT_SECONDS = 20
"""After which Airflow takes a task for dead that does not say that it lives."""
WAITS = (
    "SELECT client_port FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock'"
)
SCORED_ANEW = Job(Origin.BACKFILL, RequestedBy("test"))


def times(number):
    """As often as the table wants it; else once, because each takes most of a minute."""
    return pytest.mark.parametrize("turn", range(wanted(number) if FULL else 1))


@pytest.fixture(scope="module")
def environment(environment):
    """Let a dead task be noticed soon, and a stopped one keep no other from running."""
    return environment | {
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_SECONDS),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
        "AIRFLOW__CORE__PARALLELISM": "4",
    }


@pytest.fixture(scope="module")
def history(airflow, database, settings, today):
    """Ten days of readings up to some hours ago, scored by the schedule, and a model."""
    frame = counters_until(today - timedelta(hours=8), 10 * DAY)
    insert(database, frame)
    first = frame["utc_timestamp"].min().to_pydatetime()
    train_in_force(database, settings, Window(first, first + timedelta(days=3)))
    airflow.unpause("score_readings")  # the schedule's own run of the last interval begins
    until(lambda: airflow.runs("score_readings"), "no run began", 60)
    for begun in airflow.runs("score_readings"):
        assert airflow.wait_for_run("score_readings", begun["dag_run_id"]) == "success"
    return frame


@pytest.fixture(scope="module")
def new_reading(database, history):
    """Add the next reading, one for each fault, and say when it is."""
    numbers = itertools.count(1)

    def add():
        quarters = next(numbers)
        at = history["utc_timestamp"].max() + quarters * QUARTER
        more = history.tail(1).assign(utc_timestamp=at)
        more[["machine_1", "machine_2"]] += 2.0 * quarters
        insert(database, more)
        return at.to_pydatetime()

    return add


# What holds a task ------------------------------------------------------------------


@contextmanager
def held(database, statement):
    """Hold a lock, as an idle transaction does."""
    url = database.engine.url.set(drivername="postgresql")
    with psycopg2.connect(url.render_as_string(hide_password=False)) as holder:
        with holder.cursor() as cursor:
            cursor.execute(statement)
        yield
        holder.rollback()
    holder.close()


def publishing_held(database):
    """Hold every task that has judged and is about to publish."""
    return held(database, "SELECT FROM anomaly.locks WHERE name = 'publishing' FOR UPDATE")


def readings_held(database):
    """Hold every task that is about to read."""
    return held(database, "LOCK TABLE anomaly.meter_readings IN ACCESS EXCLUSIVE MODE")


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


# Airflow's parts ---------------------------------------------------------------------


class ServiceManager:
    """Starts parts of an Airflow again, as systemd does, and stops them at the end."""

    def __init__(self, airflow):
        self.airflow = airflow
        self._started = {}

    def find(self, name):
        """The process of a part: the one that this has started, or the one from the beginning."""
        port = self.airflow.url.rpartition(":")[2]
        known = self._started.get(name)
        if known is not None and known.poll() is None:
            return psutil.Process(known.pid)

        def is_it(process):
            title = " ".join(process.info["cmdline"] or ())
            # A process that has given itself a title has written it over its environment.
            home = (process.info["environ"] or {}).get("AIRFLOW_HOME")
            mine = home == str(self.airflow.folder) or f"port:{port}" in title
            return mine and f"airflow {name}" in title

        found = [each for each in psutil.process_iter(["cmdline", "environ"]) if is_it(each)]
        assert found, f"there is no {name}"
        return min(found, key=lambda process: process.create_time())

    def start(self, name, *command):
        """Start a part; who has started one before waits for its end."""
        if name in self._started:
            self._started.pop(name).wait(20)
        program = str(Path(sys.executable).with_name("airflow"))
        with (self.airflow.folder / "again.log").open("a") as log:
            self._started[name] = subprocess.Popen(
                [program, *command], env=self.airflow._environment(), stdout=log, stderr=log
            )

    def close(self):
        for process in self._started.values():
            family = [process, *_family(process.pid)] if process.poll() is None else []
            for each in family:
                each.send_signal(signal.SIGTERM)
            psutil.wait_procs([each for each in family if each is not process], timeout=60)
            process.wait(60)


def _family(pid):
    return psutil.Process(pid).children(recursive=True)


@pytest.fixture(scope="module")
def parts(airflow):
    """Start parts again that were killed."""
    manager = ServiceManager(airflow)
    yield manager
    manager.close()


def kill(process):
    """Kill a process; its parent may never ask for its end."""
    process.kill()
    until(
        lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE,
        f"{process} does not die",
    )


def put_to_sleep(process):
    """Stop a process, as SIGSTOP does."""
    process.suspend()
    until(lambda: process.status() == psutil.STATUS_STOPPED, f"{process} does not stop")


def until(holds, otherwise, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, otherwise
        time.sleep(0.05)


def tries_of_newest_runs(airflow):
    """How often their task was tried."""
    return {
        task["try_number"]
        for run in airflow.runs("score_readings")[:2]
        for task in airflow.tasks("score_readings", run["dag_run_id"])
        if task["task_id"] == "score"
    }


# What must be so afterwards -----------------------------------------------------------


def check(airflow, database, settings, injection, begun):
    """The next run scores what is missing; scoring anew changes nothing; each reading has one."""
    until(lambda: not airflow._missing(), "Airflow is not at work", 180)
    run = airflow.trigger("score_readings")
    assert airflow.wait_for_run("score_readings", run) is not None
    assert airflow.task_states("score_readings", run)["score"] == "success"
    injection.seconds = time.monotonic() - begun
    compare(database, settings, injection)


def compare(database, settings, injection):
    """Compare verdicts with readings, with a scoring anew, and with history and ledger."""
    ((lost, extra),) = rows(
        database,
        "SELECT count(*) FILTER (WHERE v.machine_id IS NULL), count(*) FILTER (WHERE r.t IS NULL)"
        "  FROM (SELECT utc_timestamp AS t, m FROM anomaly.meter_readings, (VALUES (1), (2)) x (m)"
        "         WHERE utc_timestamp >= (SELECT min(utc_timestamp) FROM anomaly.anomaly_results)"
        "       ) r FULL JOIN anomaly.anomaly_results v"
        "    ON v.machine_id = r.m AND v.utc_timestamp = r.t",
    )
    ((first, last),) = rows(
        database, "SELECT min(utc_timestamp), max(utc_timestamp) FROM anomaly.anomaly_results"
    )
    anew = Scorer(database, settings).score_range(Window(first, last + QUARTER), SCORED_ANEW)
    unfounded = wrong_history(lambda statement: rows(database, statement))
    wrong = anew.updated + anew.inserted + anew.retracted + len(unfounded)
    wrong += len(wrong_sums(database))
    injection.found(lost, extra, wrong)
    assert (lost, extra, wrong) == (0, 0, 0), (anew, unfounded[:5], wrong_sums(database))


def wrong_sums(database):
    """Machines and days whose sums are not those of their verdicts; all clocks are UTC here."""
    return rows(
        database,
        "SELECT machine_id, day, s.readings, v.readings, s.anomalies, v.anomalies"
        "  FROM (SELECT machine_id, local_date AS day, readings, anomalies"
        "          FROM anomaly.machine_days) s"
        "  FULL JOIN (SELECT machine_id, (utc_timestamp AT TIME ZONE 'UTC')::date AS day,"
        "                    count(*) AS readings, sum(anomaly) AS anomalies"
        "               FROM anomaly.anomaly_results GROUP BY 1, 2) v USING (machine_id, day)"
        " WHERE (s.readings, s.anomalies) IS DISTINCT FROM (v.readings, v.anomalies)",
    )


# Faults ------------------------------------------------------------------------------


@times(5)
def test_supervisor_and_task_sleep_past_the_heartbeat_and_a_retry_overtakes_them(
    airflow, database, settings, new_reading, record_property, turn
):
    with recorded(record_property, 5, SLEPT) as injection:
        at = new_reading()
        with readings_held(database):
            airflow.trigger("score_readings")
            task = task_at_the_lock(database)
            supervisor = task.parent()
            for process in (supervisor, task):
                put_to_sleep(process)
        has_read = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state = 'idle in transaction'"
        )
        until(lambda: rows(database, has_read) == [(1,)], "the server has not read for it")
        execute(  # it has read what is no longer so
            database,
            "UPDATE anomaly.meter_readings SET machine_1 = machine_1 + 0.5, ingested_at = now()"
            " WHERE utc_timestamp = :t",
            t=at,
        )
        begun = time.monotonic()
        is_scored = "SELECT count(*) FROM anomaly.anomaly_results WHERE utc_timestamp = :t"
        until(lambda: rows(database, is_scored, t=at) == [(2,)], "no retry succeeds", 120)
        assert time.monotonic() - begun > HEARTBEAT_SECONDS / 2, "nobody waited for the heartbeat"
        assert 2 in tries_of_newest_runs(airflow)
        ((newest,),) = rows(database, "SELECT max(run_id) FROM anomaly.scoring_runs")
        for process in (task, supervisor):
            assert process.status() == psutil.STATUS_STOPPED, "it slept until the retry was over"
            process.resume()
        until(lambda: not task.is_running(), "the attempt that slept does not end", 60)

        assert rows(
            database,
            "SELECT count(*) FROM anomaly.anomaly_results_history WHERE run_id = :run",
            run=newest,
        ) == [(0,)], "the attempt that slept wrote over the newer one"
        check(airflow, database, settings, injection, time.monotonic())


@times(6)
def test_the_supervisor_is_killed_and_the_orphan_goes_on(
    airflow, database, settings, new_reading, record_property, turn
):
    with recorded(record_property, 6, ORPHANED) as injection:
        new_reading()
        with publishing_held(database):
            run = airflow.trigger("score_readings")
            task = task_at_the_lock(database)
            supervisor = task.parent()
            assert "airflow" in " ".join(supervisor.cmdline())
            kill(supervisor)
            assert task.is_running(), "the orphan goes on"
        begun = time.monotonic()
        airflow.wait_for_run("score_readings", run)

        check(airflow, database, settings, injection, begun)


@times(7)
def test_the_scheduler_is_killed_and_started_again(
    airflow, parts, database, settings, new_reading, record_property, turn
):
    with recorded(record_property, 7, NO_SCHEDULER) as injection:
        new_reading()
        with publishing_held(database):
            airflow.trigger("score_readings")
            task_at_the_lock(database)
            scheduler = parts.find("scheduler")
            orphans = scheduler.children(recursive=True)
            kill(scheduler)
        begun = time.monotonic()
        parts.start("scheduler", "scheduler", "--skip-serve-logs")
        try:
            check(airflow, database, settings, injection, begun)
        finally:
            for orphan in orphans:  # its workers
                if orphan.is_running():
                    kill(orphan)


@times(8)
def test_the_api_server_is_killed_in_mid_task_and_started_again(
    airflow, parts, database, settings, new_reading, record_property, turn
):
    with recorded(record_property, 8, NO_API_SERVER) as injection:
        new_reading()
        with publishing_held(database):
            airflow.trigger("score_readings")
            task_at_the_lock(database)
            server = parts.find("api_server")
            for process in [server, *server.children(recursive=True)]:
                kill(process)
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"{airflow.url}/api/v2/monitor/health", timeout=5)
        begun = time.monotonic()
        parts.start("api_server", "api-server", "--port", airflow.url.rpartition(":")[2])

        check(airflow, database, settings, injection, begun)
