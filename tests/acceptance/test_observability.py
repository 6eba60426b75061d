"""What a real Airflow tells other systems of a run: metrics, lineage, log fields, deadlines.

One Airflow with everything turned on; the collectors are real receivers on this machine.
"""

import gzip
import json
import threading
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from anomaly.windows import Window
from deployment import QUARTER, counters_until, insert, rows, train_in_force

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DAY = 96


class Receiver:
    """Takes OpenTelemetry's metrics at /v1/metrics and OpenLineage's events everywhere else."""

    def __init__(self):
        self.measured, self.events = defaultdict(list), []
        received = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == "/v1/metrics":
                    received.take_metrics(body)
                else:
                    received.events.append(json.loads(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take_metrics(self, body):
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = getattr(metric, metric.WhichOneof("data")).data_points
                    if metric.WhichOneof("data") in ("sum", "gauge"):
                        self.measured[metric.name] += [p.as_int or p.as_double for p in points]

    def lineage(self, dag_id, task_id):
        """Inputs and outputs of the task that has ended well."""
        for event in self.events:
            if event["job"]["name"] == f"{dag_id}.{task_id}" and event["eventType"] == "COMPLETE":
                return tuple(
                    [(d["namespace"], d["name"]) for d in event[side]]
                    for side in ("inputs", "outputs")
                )
        return None


@pytest.fixture(scope="module")
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture(scope="module")
def alarms(tmp_path_factory):
    """Folder of a module with what is called when a run is late, and the file it writes."""
    folder = tmp_path_factory.mktemp("alarms")
    file = folder / "late.jsonl"
    (folder / "late_runs.py").write_text(
        "import json\n"
        "def tell(context):\n"
        f"    with open({str(file)!r}, 'a') as told:\n"
        "        told.write(json.dumps(context['dag_run']['dag_run_id']) + '\\n')\n"
    )
    return file


@pytest.fixture(scope="module")
def environment(environment, receiver, alarms):
    transport = {"type": "http", "url": receiver.url, "endpoint": "api/v1/lineage"}
    return environment | {
        "PYTHONPATH": str(alarms.parent),
        "ANOMALY_DAG_DEADLINE_CALLBACK": "late_runs.tell",
        "AIRFLOW__METRICS__OTEL_ON": "True",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
    }


@pytest.fixture(scope="module")
def history(database, settings, today):
    """Ten days of readings up to now, and a model."""
    frame = counters_until(today, 10 * DAY)
    insert(database, frame)
    first = frame["utc_timestamp"].min()
    train_in_force(database, settings, Window(first, first + timedelta(days=3)))
    return frame


@pytest.fixture(scope="module")
def late(airflow, history, alarms):
    """A run whose deadline was hours ago."""
    airflow.unpause("score_readings")
    start = history["utc_timestamp"].max().to_pydatetime() - timedelta(hours=5)
    run_id = airflow.trigger("score_readings", interval=(start, start + QUARTER))
    airflow.wait_for_run("score_readings", run_id)
    return run_id


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError("it did not come")


def test_a_run_that_misses_its_deadline_calls_the_callback_and_one_in_time_does_not(
    airflow, late, alarms
):
    def told():
        return [json.loads(line) for line in alarms.read_text().splitlines()]

    wait_for(lambda: alarms.exists() and late in told())

    # The scheduler's own run of the last quarter-hour may be late as well.
    now = datetime.now(UTC)
    in_time = airflow.trigger("score_readings", interval=(now - QUARTER, now))
    assert airflow.wait_for_run("score_readings", in_time) == "success"
    assert in_time not in told()
    assert told().count(late) == 1


def test_the_tasks_log_has_run_window_and_version_as_fields(airflow, database, late):
    entries = json.loads(airflow.task_log("score_readings", late, "score"))["content"]
    logged = {entry["run_id"]: entry for entry in entries if entry["event"] == "window published"}

    published = rows(
        database,
        "SELECT run_id, window_start, window_end, inserted FROM anomaly.scoring_runs"
        " WHERE dag_run_id = :run_id",
        run_id=late,
    )
    assert len(published) == len(logged) > 0
    for run_id, start, end, inserted in published:
        told = logged[run_id]
        assert (told["window_start"], told["window_end"]) == (start.isoformat(), end.isoformat())
        assert (told["inserted"], told["dag_run_id"]) == (inserted, late)
        assert told["model_versions"] in ([1], []), "none where there was no reading"


def test_airflows_own_metrics_have_the_runs_counts_and_ages(receiver, database, late):
    measured = wait_for(
        lambda: (
            {
                name.removeprefix("airflow."): values
                for name, values in receiver.measured.items()
                if "anomaly." in name
            }
            or None
        )
    )
    ((inserted,),) = rows(
        database,
        "SELECT sum(inserted)::int FROM anomaly.scoring_runs WHERE dag_run_id = :run_id",
        run_id=late,
    )

    assert inserted > 0
    assert inserted in measured["anomaly.readings_scored"]
    assert measured["anomaly.lag_seconds"][0] > 0
    assert measured["anomaly.freshness_seconds"][0] < 900 * 2


def test_lineage_leads_from_the_meter_table_to_the_results_and_the_model(
    airflow, receiver, postgres, database, settings, late
):
    url = database.engine.url
    server = f"postgres://{url.host}:{url.port}"
    meters = (server, f"{url.database}.anomaly.meter_readings")
    results = (server, f"{url.database}.anomaly.anomaly_results")
    airflow.unpause("retrain_model")
    run_id = airflow.trigger("retrain_model")
    airflow.wait_for_run("retrain_model", run_id)

    scored = wait_for(lambda: receiver.lineage("score_readings", "score"))
    trained = wait_for(lambda: receiver.lineage("retrain_model", "train"))

    assert scored == ([meters], [results])
    assert trained[0] == [meters]
    ((namespace, name),) = trained[1]
    ((artefact,),) = rows(
        database, "SELECT artefact FROM anomaly.model_versions ORDER BY version DESC LIMIT 1"
    )
    assert (namespace, name) == ("file", f"{settings.models.models_url}/{artefact}")
