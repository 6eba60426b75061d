"""A tick of `score_readings` under a real Airflow, from the run's start to committed results.

Airflow's REST API tells when runs and tasks were queued, started and ended; what happens
within the task's process is timed there (`benchmarks.airflow_clock`).
"""

import json
import os
import statistics
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from anomaly.database.connection import Database
from anomaly.demo.airflow_server import AirflowServer, AirflowServerError
from anomaly.settings import Settings
from anomaly.windows import Window
from benchmarks.airflow_clock import FOLDER, clock_file
from benchmarks.clock import INNER
from benchmarks.deployments import train_in_force
from benchmarks.figures import Figure, saying
from benchmarks.pipeline import QUARTER, START
from benchmarks.wall_time import DAYS, FILL, MOST_SECONDS_OF_IMPORT

DAG = "score_readings"
TICKS = 5
PROJECT = Path(__file__).parents[1]
BEFORE = ("scheduling", "worker", "process start", "DAG file", "imports", *INNER, "bookkeeping")


def measure(database: Database, settings: Settings) -> list[Figure]:
    """The middle of several ticks, each a quarter-hour later, after two that fill caches.

    Raises
    ------
    AirflowServerError
        When Airflow does not start, or a run fails or scores nothing.
    """
    with database.engine.begin() as connection:
        connection.exec_driver_sql(FILL)
    last = START + timedelta(days=DAYS)
    learnt = Window(START, last - timedelta(days=1))
    train_in_force(database, settings, learnt)
    with tempfile.TemporaryDirectory(prefix="anomaly-bench-airflow-") as name:
        folder = Path(name)
        airflow = _server(folder, database, settings)
        try:
            with saying("Airflow's start, and its schedule's own run"):
                airflow.start()
                airflow.wait_until_healthy()
                _let_the_schedule_have_its_run(airflow)
                _forget(database)
            with saying(f"{TICKS} ticks of five machines under Airflow"):
                ticks = [
                    _tick(airflow, folder, database, last - k * QUARTER)
                    for k in range(TICKS, -1, -1)
                ]
        finally:
            airflow.stop()
    middle = {part: statistics.median(tick[part] for tick in ticks[1:]) for part in ticks[0]}
    return _figures(middle)


def _figures(middle: dict[str, float]) -> list[Figure]:
    limits = {"imports": MOST_SECONDS_OF_IMPORT}
    name = "tick of 5 machines under Airflow, from run start to committed results"
    further = "a further task: from the end of `score` to the end of `check_freshness`"
    return [
        Figure(name, middle["committed"], "s"),
        *(Figure.below(f"... {part}", middle[part], "s", limits.get(part)) for part in BEFORE),
        Figure("... after that: the task's end", middle["task's end"], "s"),
        Figure(further, middle["further task"], "s"),
        Figure("... of that until it starts", middle["further task's start"], "s"),
        Figure("... after that: the run's end", middle["run's end"], "s"),
    ]


def _server(folder: Path, database: Database, settings: Settings) -> AirflowServer:
    """An Airflow with the product's DAGs, and our clock among its plugins."""
    plugins = folder / "plugins"
    plugins.mkdir()
    for file in (PROJECT / "plugins").iterdir():
        (plugins / file.name).symlink_to(file)
    (plugins / "airflow_clock.py").symlink_to(PROJECT / "benchmarks" / "airflow_clock.py")
    with database.engine.connect() as connection:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        alone.exec_driver_sql("CREATE DATABASE airflow")
    url = database.engine.url
    return AirflowServer(
        folder / "airflow",
        project=PROJECT,
        metadata_url=url.set(database="airflow").render_as_string(hide_password=False),
        anomaly_url=url.render_as_string(hide_password=False),
        environment={
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
            "ANOMALY_MODELS_URL": settings.models.models_url,
            "ANOMALY_STALE_AFTER_HOURS": "0",  # the readings are of long ago
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])
            ),
            FOLDER: str(folder),
        },
    )


def _let_the_schedule_have_its_run(airflow: AirflowServer) -> None:
    """A DAG that is turned on makes up for its last interval."""
    run_id = airflow.trigger(DAG)
    airflow.unpause(DAG)
    _succeed(airflow, run_id)
    for run in airflow.runs(DAG):
        _succeed(airflow, run["dag_run_id"])


def _succeed(airflow: AirflowServer, run_id: str) -> None:
    if airflow.wait_for_run(DAG, run_id) != "success":
        raise AirflowServerError(
            f"{DAG} {run_id} failed:\n{airflow.task_log(DAG, run_id, 'score')}"
        )


def _forget(database: Database) -> None:
    """What was covered up to today, so that the ticks of long ago are live ones."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE anomaly.scoring_runs")


def _tick(
    airflow: AirflowServer, folder: Path, database: Database, start: datetime
) -> dict[str, float]:
    """Seconds a part."""
    run_id = airflow.trigger(DAG, interval=(start, start + QUARTER))
    _succeed(airflow, run_id)
    _check_ledger(database, run_id)
    measured = json.loads((folder / clock_file(run_id)).read_text(encoding="utf-8"))
    moments, taken = measured["moments"], measured["taken"]
    run = _moments(airflow.run(DAG, run_id))
    tasks = {task["task_id"]: _moments(task) for task in airflow.tasks(DAG, run_id)}
    score, further = tasks["score"], tasks["check_freshness"]
    work = sum(taken[part] for part in ("imports", *INNER))
    return {
        "committed": moments["committed"] - run["queued_at"],
        "scheduling": score["queued_when"] - run["queued_at"],
        "worker": score["start_date"] - score["queued_when"],
        "process start": moments["entered"] - score["start_date"],
        "DAG file": moments["running"] - moments["entered"],
        **{part: taken[part] for part in ("imports", *INNER)},
        "bookkeeping": moments["committed"] - moments["running"] - work,
        "task's end": score["end_date"] - moments["committed"],
        "further task": further["end_date"] - score["end_date"],
        "further task's start": further["start_date"] - score["end_date"],
        "run's end": run["end_date"] - further["end_date"],
    }


def _check_ledger(database: Database, run_id: str) -> None:
    with database.engine.connect() as connection:
        scored = connection.exec_driver_sql(
            "SELECT sum(scored) FROM anomaly.scoring_runs WHERE dag_run_id = %s", (run_id,)
        ).scalar_one()
    if not scored:
        raise AirflowServerError(f"{DAG} {run_id} has judged nothing")


def _moments(found: dict[str, Any]) -> dict[str, float]:
    """The moments of a run or task, in seconds since the epoch."""
    names = ("queued_at", "queued_when", "start_date", "end_date")
    return {
        name: datetime.fromisoformat(found[name]).timestamp() for name in names if found.get(name)
    }
