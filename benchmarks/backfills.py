"""``make bench-backfill``: a year of five machines, in this process and by one run of Airflow.

The baseline of scoring is `Scorer.score_range` on the same empty results: what a backfill did
before it compared first. The baseline of the 15-minute run is that run on an idle Airflow.
"""

import statistics
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

from anomaly.database.connection import Database
from anomaly.database.results import Origin
from anomaly.database.scoring_runs import RequestedBy
from anomaly.demo.airflow_server import AirflowServer, AirflowServerError
from anomaly.operations.backfilling import Backfiller, Mode
from anomaly.scoring.publishing import Job
from anomaly.scoring.scorer import Scorer
from anomaly.settings import Settings
from anomaly.windows import Window
from benchmarks.deployments import deployment, train_in_force
from benchmarks.figures import PAGE, Figure, print_table, saying, seconds, write_page

PROJECT = Path(__file__).parents[1]
BENCH = RequestedBy("bench")
END = datetime.fromisoformat("2026-01-01T00:00+00:00")
YEAR = Window(END - timedelta(days=365), END)
READINGS = 365 * 96 * 5
MOST_SECONDS = 20.0
MOST_SECONDS_OF_SCORING = 3.0
MOST_TIMES_SLOWER = 2.0
TICKS = 5
FILL = f"""
INSERT INTO anomaly.meter_readings
       (utc_timestamp, machine_1, machine_2, machine_3, machine_4, machine_5)
SELECT timestamptz '{YEAR.start}' + tick * interval '15 minutes',
       tick * 2.5 + random(), tick * 1.5 + random(), tick * 9 + random(),
       tick * 0.5 + random() / 4, tick + random() / 2
  FROM generate_series(0, 365 * 96 - 1) AS tick
"""
FORGET = (
    "TRUNCATE anomaly.anomaly_results, anomaly.anomaly_results_history, anomaly.scoring_runs,"
    " anomaly.incidents, anomaly.acknowledgements, anomaly.backfill_pieces, anomaly.backfills,"
    " anomaly.alert_events, anomaly.alert_messages, anomaly.alert_message_events"
)


def measure(database: Database, settings: Settings) -> list[Figure]:
    """Score the year in every way."""
    with saying("a year of five machines is made, and a model"):
        _run(database, FILL)
        train_in_force(database, settings, Window(YEAR.end - timedelta(days=60), YEAR.end))
        _run(database, "UPDATE anomaly.model_in_force SET effective_from = '-infinity'")
    figures = _in_process(database, settings)
    with tempfile.TemporaryDirectory(prefix="anomaly-bench-airflow-") as folder:
        airflow = _server(Path(folder), database, settings)
        try:
            with saying("Airflow's start"):
                airflow.start()
                airflow.wait_until_healthy()
                airflow.unpause("backfill_scores")
            return [*figures, *_by_airflow(airflow, database), *_beside(airflow)]
        finally:
            airflow.stop()


def _in_process(database: Database, settings: Settings) -> list[Figure]:
    scorer, backfiller = Scorer(database, settings), Backfiller(database, settings)
    job = Job(Origin.BACKFILL, BENCH)
    name = f"{READINGS:,} readings, in this process"
    with saying("the year in this process"):
        plain = seconds(lambda: scorer.score_range(YEAR, job))
        _run(database, FORGET)
        request = backfiller.check(YEAR, due=YEAR.end)
        everything = backfiller.check(YEAR, mode=Mode.EVERYTHING, due=YEAR.end)
        chunks = backfiller.chunks(request)
        preview = seconds(lambda: [backfiller.preview(request, chunk) for chunk in chunks])
        fresh = seconds(lambda: _backfill(backfiller, request))
        again = seconds(lambda: _backfill(backfiller, request))
        whole = seconds(lambda: _backfill(backfiller, everything))
        _run(database, FORGET)
    baseline = f"score_range: {plain:.2f} s"
    return [
        Figure.below(f"{name}: all are new", fresh, "s", MOST_SECONDS_OF_SCORING),
        Figure.at_most(f"{name}: all are new", fresh, "s", baseline, plain, None),
        Figure.at_most(f"{name}: preview", preview, "s", baseline, plain, None),
        Figure.at_most(f"{name}: nothing has changed", again, "s", baseline, plain, None),
        Figure.at_most(f"{name}: everything once more", whole, "s", baseline, plain, None),
    ]


def _backfill(backfiller: Backfiller, request: object) -> None:
    number = backfiller.begin(request, BENCH, "bench")  # type: ignore[arg-type]
    for chunk in backfiller.chunks(request):  # type: ignore[arg-type]
        backfiller.run(number, chunk, BENCH)
    backfiller.report(number, is_finished=True)


def _by_airflow(airflow: AirflowServer, database: Database) -> list[Figure]:
    with saying("the year by one run of Airflow, after one that fills caches"):
        for _ in range(2):
            _run(database, FORGET)
            asked = time.time()
            run_id = airflow.trigger("backfill_scores", _form(preview_first=False))
            _succeed(airflow, "backfill_scores", run_id)
        run = airflow.run("backfill_scores", run_id)
        tasks = [
            task
            for task in airflow.tasks("backfill_scores", run_id)
            if task["state"] == "success" and task["duration"]
        ]
    ended = datetime.fromisoformat(run["end_date"]).timestamp()
    total = ended - asked
    work = sum(task["duration"] for task in tasks)
    name = f"{READINGS:,} readings by one run, from request to success"
    return [
        Figure.below(name, total, "s", MOST_SECONDS),
        *(
            Figure(f"... task {task['task_id']}", task["duration"], "s")
            for task in sorted(tasks, key=lambda task: task["start_date"])
        ),
        Figure("... between the tasks", total - work, "s"),
    ]


def _beside(airflow: AirflowServer) -> list[Figure]:
    """The 15-minute run alone, and while a backfill of everything is running."""
    with saying(f"{TICKS} runs of score_readings alone, and {TICKS} beside a backfill"):
        airflow.unpause("score_readings")
        _tick(airflow)
        alone = statistics.median(_tick(airflow) for _ in range(TICKS))
        beside: list[float] = []
        while len(beside) < TICKS:
            run_id = airflow.trigger(
                "backfill_scores", _form(preview_first=False, mode="everything", chunk_days=30)
            )
            while not _is_scoring(airflow, run_id):
                time.sleep(0.2)
            while len(beside) < TICKS and _is_scoring(airflow, run_id):
                beside.append(_tick(airflow))
            _succeed(airflow, "backfill_scores", run_id)
    return [
        Figure.at_most(
            "score_readings, from request to success, during a backfill",
            statistics.median(beside),
            "s",
            f"alone: {alone:.1f} s",
            alone,
            MOST_TIMES_SLOWER,
        )
    ]


def _tick(airflow: AirflowServer) -> float:
    asked = time.time()
    run_id = airflow.trigger("score_readings")
    airflow.wait_for_run("score_readings", run_id)  # the check of freshness fails, rightly
    ended = datetime.fromisoformat(airflow.run("score_readings", run_id)["end_date"])
    return ended.timestamp() - asked


def _is_scoring(airflow: AirflowServer, run_id: str) -> bool:
    return any(
        task["task_id"] == "score_chunk" and task["state"] == "running"
        for task in airflow.tasks("backfill_scores", run_id)
    )


def _form(**fields: object) -> dict[str, object]:
    return {"start": YEAR.start.isoformat(), "end": YEAR.end.isoformat(), **fields}


def _succeed(airflow: AirflowServer, dag_id: str, run_id: str) -> None:
    if airflow.wait_for_run(dag_id, run_id) != "success":
        raise AirflowServerError(f"{dag_id} {run_id} failed: {airflow.task_states(dag_id, run_id)}")


def _server(folder: Path, database: Database, settings: Settings) -> AirflowServer:
    with database.engine.connect() as connection:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        alone.exec_driver_sql("CREATE DATABASE airflow")
    url = database.engine.url
    return AirflowServer(
        folder / "airflow",
        project=PROJECT,
        metadata_url=url.set(database="airflow").render_as_string(hide_password=False),
        anomaly_url=url.render_as_string(hide_password=False),
        environment={"ANOMALY_MODELS_URL": settings.models.models_url},
    )


def _run(database: Database, statement: str) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql(statement)


def main() -> None:
    """Measure, print the table and write it to the docs."""
    with deployment() as (database, settings):
        figures = measure(database, settings.changed(chunk_days=7))
    print_table(figures)
    write_page(PAGE, "bench-backfill", figures)


if __name__ == "__main__":
    main()
