"""docker-compose.yml as it runs: real Postgres, Redis and Airflow, two Celery workers.

`containers.py` says what is the same as with Docker, and what is not.
"""

import json
import shutil
import subprocess
import time

import psycopg2
import pytest
from bi_logins import what_is_allowed
from containers import PROJECT, Compose, missing, private_network

from anomaly.demo.airflow_server import AirflowServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]

SETTINGS = """
ANOMALY_DETECTOR=prototype
ANOMALY_FOREST_TREES=20
ANOMALY_TRAINING_WEEKS=2
ANOMALY_JUDGING_DAYS=2
ANOMALY_CHUNK_DAYS=2
ANOMALY_DAG_BACKFILL_TASKS=3
ANOMALY_DAG_RETRIES=20
ANOMALY_DAG_RETRY_DELAY_SECONDS=1
ANOMALY_SOURCE_MACHINES='{"machine_1": 1, "machine_2": 2, "machine_3": 3}'
AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT=20
AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL=5
AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT=40
AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL=5
AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD=15
WORKER_CONCURRENCY=2
"""
# Readings without a verdict, and verdicts without a reading.
UNEQUAL = """
    SELECT machine_id, utc_timestamp, reading, anomaly
      FROM (SELECT machine.id AS machine_id, utc_timestamp, machine.reading
              FROM anomaly.meter_readings,
                   LATERAL (VALUES (1, machine_1), (2, machine_2), (3, machine_3))
                        AS machine (id, reading)
             WHERE machine.reading IS NOT NULL AND utc_timestamp <= '{end}') AS readings
      FULL JOIN (SELECT * FROM anomaly.anomaly_results WHERE utc_timestamp <= '{end}') AS verdicts
     USING (machine_id, utc_timestamp, reading)
     WHERE readings IS NULL OR verdicts IS NULL
"""


class ComposeAirflow(AirflowServer):
    """The REST API of the service `api-server`."""

    url = "http://127.0.0.1:8080"
    password = ""

    def __init__(self, password: str) -> None:
        self.password = password
        self._token = ""

    def dags(self):
        return self._call("GET", "/dags?limit=100")["dags"]


@pytest.fixture(scope="module")
def compose(tmp_path_factory):
    """Run every service but Superset, with two workers."""
    folder = tmp_path_factory.mktemp("compose")
    for above in [folder, *folder.parents[:2]]:
        above.chmod(0o755)  # Postgres and Redis do not run as root
    project = folder / "project"
    project.mkdir()
    shutil.copy(PROJECT / "docker-compose.yml", project)
    shutil.copytree(PROJECT / "docker", project / "docker")
    shutil.copytree(PROJECT / "sql", project / "sql")
    subprocess.run(["bash", "docker/make-env"], cwd=project, check=True, capture_output=True)
    with (project / ".env").open("a") as environment:
        environment.write(SETTINGS)
    compose = Compose(project, folder)
    with private_network():
        try:
            compose.up("scheduler", "dag-processor", "triggerer", "worker", "feeder", "flower")
            compose.scale("worker", 2, AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT="8795")
            for name in [*compose.containers]:
                if "healthcheck" in compose[name].service:
                    compose[name].wait_until_healthy()
            yield compose
        finally:
            compose.down()


@pytest.fixture(scope="module")
def secrets(compose):
    """Read what .env says."""
    lines = (compose.project / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture(scope="module")
def airflow(compose, secrets):
    """Return the REST API, once every DAG is known to it."""
    airflow = ComposeAirflow(secrets["AIRFLOW_ADMIN_PASSWORD"])
    every = {path.stem for path in (PROJECT / "dags").glob("*.py")}
    wait_until(lambda: {dag["dag_id"] for dag in airflow.dags()} == every, "all DAGs are known")
    return airflow


@pytest.fixture(scope="module")
def query(compose, secrets):
    """Return what a query gives in the product's database."""

    def ask(statement, user="anomaly_app", password="ANOMALY_DB_PASSWORD", database="anomaly"):
        connection = psycopg2.connect(
            host="127.0.0.1", user=user, password=secrets[password], dbname=database
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall()
        finally:
            connection.close()

    return ask


def wait_until(holds, what, seconds=120):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.3)


def run_of_schedule(airflow, dag_id):
    """Turn a DAG on, and wait for the run that the schedule makes of its last interval."""
    airflow.unpause(dag_id)
    wait_until(lambda: airflow.runs(dag_id), f"{dag_id} has a run")
    run_id = airflow.runs(dag_id)[-1]["dag_run_id"]
    state = airflow.wait_for_run(dag_id, run_id, seconds=150)
    assert state == "success", airflow.task_states(dag_id, run_id)
    return run_id


def scored(airflow, run_id):
    """Number of chunks that a backfill has scored."""
    tasks = airflow.tasks("backfill_scores", run_id)
    return sum(task["map_index"] >= 0 and task["state"] == "success" for task in tasks)


def kill_a_worker_at_work(compose, airflow, run_id):
    """Kill the worker that runs a task, at once; the engine starts it again."""
    found = []  # hosts of running tasks: a moment later there may be none, or another

    def runs():
        tasks = airflow.tasks("backfill_scores", run_id)
        found.extend(t["hostname"] for t in tasks if t["state"] == "running" and t["hostname"])
        return found

    wait_until(runs, "a task runs")
    name = "worker" if found[0] == "worker-1" else found[0]
    compose[name].kill()
    assert "does not answer" in compose[name].check_health().stderr
    compose[name].start()
    compose[name].wait_until_healthy()


def test_every_setting_of_the_environment_file_reaches_the_product(compose):
    shown = compose["worker"].run(
        "python",
        "-c",
        "from anomaly.settings import load_settings; settings = load_settings();"
        "print(settings.scoring.chunk_days, settings.meter_table.source_machines,"
        " settings.models.models_url)",
    )

    assert shown.stdout.split("\n")[0] == (
        "2 {'machine_1': 1, 'machine_2': 2, 'machine_3': 3} /opt/airflow/models"
    ), shown.stderr


def test_log_ins_reach_no_database_but_their_own(query):
    def refused(user, password, database):
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            query("SELECT 1", user, password, database)

    reader = ("bi_reader", "BI_DB_PASSWORD")
    assert query("SELECT count(*) FROM bi.verdicts", *reader) == [(0,)]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        query("SELECT * FROM anomaly.machines", *reader)
    refused(*reader, "airflow")
    refused("anomaly_app", "ANOMALY_DB_PASSWORD", "superset")
    refused("airflow", "AIRFLOW_DB_PASSWORD", "anomaly")


def test_the_log_in_for_bi_cannot_do_what_its_page_rules_out(compose, secrets):
    log_in = {"user": "bi_reader", "password": secrets["BI_DB_PASSWORD"], "dbname": "anomaly"}

    assert what_is_allowed(host="127.0.0.1", **log_in) == []


def test_the_doctor_finds_nothing_in_how_it_is_set_up(compose):
    said = compose["worker"].run("anomaly", "doctor", "--json").stdout

    bad = {one["about"]: one for one in json.loads(said) if one["level"] != "good"}
    assert bad.keys() <= {"meter table", "models", "state"}, bad  # nothing is scored yet


def test_no_service_answers_without_its_password(compose):
    assert "NOAUTH" in compose["redis"].run("redis-cli", "ping", REDISCLI_AUTH="").stdout
    page = "import urllib.request as r; r.urlopen('http://localhost:5555/api/workers')"
    assert "401" in compose["flower"].run("python", "-c", page).stderr


def test_work_goes_on_whatever_is_restarted_and_no_verdict_is_lost(
    compose, airflow, query, record_property
):
    run_of_schedule(airflow, "retrain_model")
    assert query("SELECT count(*) FROM anomaly.model_versions") == [(2,)]  # and the feeder's
    ((first, end),) = query(
        "SELECT min(utc_timestamp), max(utc_timestamp) FROM anomaly.meter_readings"
    )
    ends = {"start": first.isoformat(), "end": end.isoformat()}
    backfill = airflow.trigger("backfill_scores", ends | {"preview_first": False, "chunk_days": 3})
    airflow.unpause("backfill_scores")
    wait_until(lambda: scored(airflow, backfill) >= 2, "the first chunks are scored")
    kill_a_worker_at_work(compose, airflow, backfill)
    for name in [
        "worker",
        "redis",
        "postgres",
        "api-server",
        "scheduler",
        "dag-processor",
        "triggerer",
        "feeder",
        "flower",
    ]:
        began = time.monotonic()
        compose[name].stop()
        # The feeder's is about the newest reading; a worker's was seen to fail above. Of one that
        # had to be killed, the last heartbeat is young for half a minute.
        if name not in ("feeder", "worker"):
            wait_until(lambda n=name: compose[n].check_health().returncode, f"{name} is missed")
        compose[name].start()
        compose[name].wait_until_healthy()
        record_property(f"restart of {name}", f"{time.monotonic() - began:.0f} s")
    assert airflow.wait_for_run("backfill_scores", backfill, seconds=300) == "success"
    scoring = run_of_schedule(airflow, "score_readings")

    assert "inserted" in airflow.task_log("score_readings", scoring, "score")
    assert query(UNEQUAL.format(end=end)) == []
    assert query(
        "SELECT count(*), count(DISTINCT (machine_id, utc_timestamp)) FROM anomaly.anomaly_results"
    )[0] > (15_000, 15_000)
