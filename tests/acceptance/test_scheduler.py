"""A real standalone Airflow on a real Postgres: schedule, REST API, assets, log-in."""

import json
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from anomaly.windows import Window
from deployment import QUARTER, counters_until, execute, insert, rows, train_in_force

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DAY = 96


@pytest.fixture(scope="module")
def history(database, settings, today):
    """Ten days of readings up to an hour ago, and a model."""
    frame = counters_until(today - timedelta(hours=1), 10 * DAY)
    insert(database, frame)
    execute(database, "UPDATE anomaly.meter_readings SET ingested_at = utc_timestamp")
    first = frame["utc_timestamp"].min()
    window = Window(first, first + timedelta(days=3))  # the last week judges
    train_in_force(database, settings, window)
    return frame


def test_a_backfill_scores_the_history_in_mapped_chunks(airflow, database, history):
    airflow.unpause("backfill_scores")
    first, end = history["utc_timestamp"].min(), history["utc_timestamp"].max() + QUARTER

    form = {"start": first.isoformat(), "end": end.isoformat(), "chunk_days": 5}
    run_id = airflow.trigger("backfill_scores", form)

    assert airflow.wait_for_run("backfill_scores", run_id) == "success"
    found = rows(
        database,
        "SELECT count(*), count(DISTINCT run_id) FROM anomaly.anomaly_results"
        " JOIN anomaly.scoring_runs r USING (run_id)"
        " WHERE dag_id = 'backfill_scores' AND dag_run_id = :run_id AND r.origin = 'backfill'",
        run_id=run_id,
    )
    assert found == [(2 * len(history), 2)]


def test_the_schedule_scores_a_new_reading(airflow, database, history, today):
    new = history.tail(1).assign(utc_timestamp=today - QUARTER)
    new[["machine_1", "machine_2"]] += 2.0
    insert(database, new)

    airflow.unpause("score_readings")
    run_id = airflow.trigger("score_readings")  # in case the schedule's own run came before

    assert airflow.wait_for_run("score_readings", run_id) == "success"
    found = rows(
        database,
        "SELECT machine_id, dag_id, dag_run_id IS NOT NULL, quality::text"
        "  FROM anomaly.anomaly_results JOIN anomaly.scoring_runs USING (run_id)"
        " WHERE utc_timestamp = :t ORDER BY 1",
        t=today - QUARTER,
    )
    assert found == [(machine, "score_readings", True, "gap") for machine in (1, 2)]
    (scheduled,) = [r for r in airflow.runs("score_readings") if r["run_type"] == "scheduled"]
    assert airflow.wait_for_run("score_readings", scheduled["dag_run_id"]) == "success"


def test_a_run_can_be_given_an_interval_of_long_ago(airflow, database, history):
    start = datetime(2017, 5, 14, 23, 45, tzinfo=UTC)
    run_id = airflow.trigger("score_readings", interval=(start, start + QUARTER))

    airflow.wait_for_run("score_readings", run_id)

    states = airflow.task_states("score_readings", run_id)
    # There were no meters then: the run scores its window, and says that nothing came.
    assert states == {"score": "success", "check_freshness": "failed"}
    assert rows(
        database,
        "SELECT window_end FROM anomaly.scoring_runs WHERE dag_run_id = :run_id",
        run_id=run_id,
    ) == [(start + QUARTER,)]


def test_the_events_carry_window_and_counts(airflow, history):
    event = airflow.asset_events()[0]

    assert event["name"] == "anomaly_scores"
    assert {"window_start", "window_end", "inserted", "anomalies"} <= set(event["extra"])


def test_reconcile_repairs_a_reading_corrected_without_a_trace(airflow, database, history):
    moment = history["utc_timestamp"].iloc[500]
    execute(
        database,
        "UPDATE anomaly.meter_readings SET machine_1 = machine_1 + 0.1, ingested_at = :t"
        " WHERE utc_timestamp = :t",
        t=moment,
    )
    airflow.unpause("reconcile_scores")

    run_id = airflow.trigger("reconcile_scores")

    assert airflow.wait_for_run("reconcile_scores", run_id) == "success"
    causes = "SELECT cause FROM anomaly.anomaly_results_history WHERE utc_timestamp = :t"
    assert rows(database, causes, t=moment) == [("corrected",)]


def test_a_native_backfill_reconciles_exactly_its_days(airflow, database, history):
    first = history["utc_timestamp"].min().floor("D").to_pydatetime() + timedelta(days=3, hours=3)
    execute(
        database,
        "DELETE FROM anomaly.anomaly_results WHERE utc_timestamp >= :a AND utc_timestamp < :b",
        a=first - timedelta(hours=6),
        b=first + timedelta(days=1),
    )

    airflow.backfill("reconcile_scores", first, first)
    runs = _wait_for_backfill_run(airflow, "reconcile_scores")

    assert [run["state"] for run in runs] == ["success"]
    found = rows(
        database,
        "SELECT min(utc_timestamp), max(utc_timestamp), min(origin::text), max(origin::text)"
        "  FROM anomaly.anomaly_results WHERE utc_timestamp >= :a AND utc_timestamp < :b",
        a=first - timedelta(hours=6),
        b=first + timedelta(days=1),
    )
    ((earliest, latest, *origins),) = found
    assert origins == ["backfill", "backfill"]
    assert first <= earliest < latest < first + timedelta(days=1)


def _wait_for_backfill_run(airflow, dag_id):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        runs = [run for run in airflow.runs(dag_id) if run["run_type"] == "backfill"]
        if runs and all(run["state"] in ("success", "failed") for run in runs):
            return runs
        time.sleep(0.5)
    raise AssertionError(f"no backfill run of {dag_id} has ended: {airflow.runs(dag_id)}")


def test_retraining_registers_a_version_and_puts_it_in_force(airflow, database, history):
    airflow.unpause("retrain_model")
    run_id = airflow.trigger("retrain_model")

    state = airflow.wait_for_run("retrain_model", run_id)

    assert state == "success", airflow.task_log("retrain_model", run_id, "train")
    assert airflow.task_states("retrain_model", run_id) == {
        "train": "success",
        "ask": "skipped",
        "promote": "success",
        "keep_champion": "skipped",
        "check_gate": "skipped",
    }
    ((version, by),) = rows(
        database,
        "SELECT version, recorded_by FROM anomaly.model_in_force"
        " WHERE superseded_at IS NULL AND effective_to IS NULL",
    )
    assert version > 1
    assert by.startswith("retrain_model ")


def test_nobody_gets_in_without_the_password(airflow):
    answer = httpx.get(f"{airflow.url}/api/v2/dags")
    wrong = httpx.post(f"{airflow.url}/auth/token", json={"username": "admin", "password": "x"})

    assert answer.status_code == 401
    assert wrong.status_code == 401


def test_the_api_below_anomaly_knows_airflows_users_and_nobody_else(airflow, history):
    """All-admins is off: a viewer may ask, only who runs DAGs may label."""
    api = f"{airflow.url}/anomaly"
    passwords = json.loads((airflow.folder / "passwords.json").read_text())

    def of(user):
        log_in = {"username": user, "password": passwords[user]}
        token = httpx.post(f"{airflow.url}/auth/token", json=log_in, timeout=30).json()
        return {"Authorization": f"Bearer {token['access_token']}"}

    assert httpx.get(f"{api}/health/live", timeout=60).json() == {"status": "ok"}
    described = httpx.get(f"{api}/openapi.json", headers=of("looker"), timeout=120).json()
    calls = {(verb, path) for path, verbs in described["paths"].items() for verb in verbs}
    assert ("post", "/predict_real_time") in calls
    pages = [("get", path) for path in ("/openapi.json", "/docs", "/redoc", "/nothing")]
    for verb, path in [*(calls - {("get", "/health/live")}), *pages]:
        for headers in ({}, {"Authorization": "Bearer x"}, {"X-API-Key": "x"}):
            refused = httpx.request(verb, api + path, headers=headers, json={}, timeout=60)
            assert refused.status_code in (401, 403), (path, headers, refused.text)

    record = {"utc_timestamp": history["utc_timestamp"].max().isoformat(), "machine_1": 1.0}
    found = httpx.post(f"{api}/predict_real_time", json=record, headers=of("looker"), timeout=60)
    assert [row["machine_id"] for row in found.json()["prediction_result"]] == [1], found.text
    label = {"machine": "1", "start": "2026-01-01", "end": "2026-01-02", "label": "real"}
    said = [
        httpx.post(f"{api}/labels", json=label, headers=of(user), timeout=60).status_code
        for user in ("looker", "admin")
    ]
    assert said == [403, 201]
    measured = httpx.get(f"{api}/metrics", headers=of("looker"), timeout=60).text
    assert 'path="/predict_real_time",status="200"} 1.0' in measured
