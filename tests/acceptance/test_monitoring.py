"""A real Prometheus scrapes real metrics: alerts fire and end, the dashboard has data."""

import json
import re
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, text

from anomaly.operations.backfilling import Backfiller
from anomaly.scoring.scorer import Scorer
from anomaly.scoring.ticks import score_tick
from anomaly.windows import Window, floor_to_interval
from command_line import ANOMALY
from deployment import QUARTER, TESTS, counters, execute, insert, train_in_force

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not shutil.which("prometheus"), reason="needs Debian's package prometheus"),
]

MONITORING = Path(__file__).parents[2] / "docker" / "monitoring"
DAY = 96
SILENT = 16  # quarter-hours, more than the meters may be silent


class Prometheus:
    """A Prometheus with our rules and our configuration, in a hurry."""

    def __init__(self, folder, target):
        config = (MONITORING / "prometheus.yml").read_text()
        rules = (MONITORING / "prometheus-rules.yml").read_text()
        hurried = config.replace("30s", "1s").replace("127.0.0.1:9185", target)
        assert target in hurried
        (folder / "prometheus.yml").write_text(hurried)
        # promtool tries how long each rule waits: tests/unit/test_alert_rules.py
        (folder / "prometheus-rules.yml").write_text(re.sub(r"for: 1m\b", "for: 2s", rules))
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={folder}/prometheus.yml",
                 f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:0"],
                stdout=log, stderr=log,
            )  # fmt: skip
        self.url = f"http://{self._address()}/api/v1"

    def _address(self):
        return wait_for(
            lambda: (
                (found := re.search(r"Listening on.*address=(\S+)", self.log.read_text()))
                and found[1]
            ),
            self.log.read_text,
        )

    def ask(self, query):
        answer = httpx.get(f"{self.url}/query", params={"query": query}, timeout=30).json()
        assert answer["status"] == "success", (query, answer)
        return answer["data"]["result"]

    def value(self, query):
        found = self.ask(query)
        return float(found[0]["value"][1]) if found else None

    def firing(self):
        alerts = httpx.get(f"{self.url}/alerts", timeout=30).json()["data"]["alerts"]
        return {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}


def wait_for(condition, otherwise, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except httpx.TransportError:
            pass  # it is starting
        time.sleep(0.2)
    raise AssertionError(otherwise())


@pytest.fixture(scope="module")
def stopped(database, settings):
    """Meters and scoring have stopped four hours ago; before, all was well for ten days."""
    now = floor_to_interval(datetime.now(UTC), QUARTER)
    frame = counters(10 * DAY)
    moments = [now - (10 * DAY - number) * QUARTER for number in range(10 * DAY)]
    frame = frame.assign(utc_timestamp=moments)
    insert(database, frame[:-SILENT])
    execute(database, "UPDATE anomaly.meter_readings SET ingested_at = utc_timestamp")
    train_in_force(database, settings, Window(moments[0], moments[3 * DAY]))
    scorer = Scorer(database, settings)
    end = moments[-SILENT]
    score_tick(scorer, Window(end - timedelta(days=2), end), TESTS)
    backfiller = Backfiller(database, settings)
    request = backfiller.check(Window(moments[0], moments[4 * DAY]), due=end)
    number = backfiller.begin(request, TESTS, "test")
    backfiller.run(number, backfiller.chunks(request)[0], TESTS)
    return frame[-SILENT:], now


@pytest.fixture(scope="module")
def exporter(anomaly_url, environment, stopped):
    process = subprocess.Popen(
        [ANOMALY, "metrics", "--serve", "--port", "0"],
        env=environment | {"ANOMALY_DATABASE_URL": anomaly_url, "PATH": str(ANOMALY.parent)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield re.search(r"http://(\S+)/metrics", process.stderr.readline())[1]
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def prometheus(exporter, tmp_path_factory):
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), exporter)
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait(timeout=30)


def test_alerts_fire_while_meters_and_scoring_stand_still_and_end_when_they_go_on(
    prometheus, database, settings, stopped
):
    expected = {"AnomalyReadingsStale", "AnomalyScoringBehind"}

    wait_for(lambda: prometheus.firing() == expected, prometheus.firing)

    missing, now = stopped
    insert(database, missing)
    score_tick(Scorer(database, settings), Window(now - QUARTER, now), TESTS)
    wait_for(lambda: prometheus.firing() == set(), prometheus.firing)
    assert prometheus.value("anomaly_watermark_timestamp_seconds") == now.timestamp()


def test_every_query_of_the_dashboard_returns_data(prometheus):
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    queries = [
        target["expr"].replace("$instance", ".*")
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]
    wait_for(lambda: prometheus.ask(queries[0]), prometheus.log.read_text)

    empty = [query for query in queries if not prometheus.ask(query)]

    assert len(queries) > 20
    assert empty == []
    (variable,) = [v for v in dashboard["templating"]["list"] if v["name"] == "instance"]
    metric, label = re.fullmatch(
        r"label_values\((\w+), (\w+)\)", variable["query"]["query"]
    ).groups()
    assert all(label in found["metric"] for found in prometheus.ask(metric))


def test_a_database_that_goes_away_is_seen_and_comes_back(prometheus, postgres, database):
    name = database.engine.url.database
    database.dispose()
    administrator = create_engine(postgres.url("postgres"), isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(text(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": name},
        )
        wait_for(lambda: prometheus.value("anomaly_up") == 0, prometheus.log.read_text)
        connection.execute(text(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'))
    administrator.dispose()

    wait_for(lambda: prometheus.value("anomaly_up") == 1, prometheus.log.read_text)
