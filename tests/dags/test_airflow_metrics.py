"""Counts that tasks hand to Airflow's own metrics arrive by StatsD; off, nothing happens."""

import socket
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
# As Airflow's task runner begins, then as a task ends.
TASK = """
from types import SimpleNamespace
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils

stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
import anomaly_wiring
from anomaly.scoring.publishing import ScoreReport

report = ScoreReport(inserted=10, updated=2, anomalies=1)
anomaly_wiring.measure({"dag_run": SimpleNamespace(dag_id="score_readings")}, report)
"""


def run(tmp_path, **environment):
    return subprocess.run(
        [sys.executable, "-c", TASK],
        env={
            "PATH": str(Path(sys.executable).parent),
            "PYTHONPATH": str(PROJECT / "dags"),
            "AIRFLOW_HOME": str(tmp_path),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_counts_arrive_by_statsd(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector:
        collector.bind(("127.0.0.1", 0))
        collector.settimeout(10)
        ended = run(
            tmp_path,
            AIRFLOW__METRICS__STATSD_ON="True",
            AIRFLOW__METRICS__STATSD_HOST="127.0.0.1",
            AIRFLOW__METRICS__STATSD_PORT=str(collector.getsockname()[1]),
        )
        assert ended.returncode == 0, ended.stderr
        received = set()
        while len(received) < 4:
            packet = collector.recv(1000).decode()
            if "anomaly." in packet:  # the rest is Airflow's own
                received.add(packet)

    assert received == {
        "airflow.anomaly.readings_scored:10|c",
        "airflow.anomaly.verdicts_repaired:2|c",
        "airflow.anomaly.verdicts_retracted:0|c",
        "airflow.anomaly.abnormal_verdicts:1|c",
    }


def test_where_metrics_are_off_nothing_happens(tmp_path):
    ended = run(tmp_path)

    assert ended.returncode == 0, ended.stderr
