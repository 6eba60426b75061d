"""Alerts through Airflow: failed tasks, the sender and the form that labels an incident."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from anomaly.demo.processes import free_port
from deployment import execute, rows

SCHEDULED = {"score_readings", "reconcile_scores", "retrain_model", "send_alerts"}


@pytest.fixture
def dag(airflow_metadata, monkeypatch, project, webhook):
    """Parse a DAG with one route."""
    monkeypatch.setenv("ANOMALY_ALERT_ROUTES", webhook.url)

    def parsed(name):
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(project / "dags" / f"{name}.py")
        assert bag.import_errors == {}
        return bag.dags[name]

    return parsed


@pytest.fixture
def connected(database, monkeypatch):
    url = database.engine.url.set(drivername="postgres").render_as_string(hide_password=False)
    monkeypatch.setenv("AIRFLOW_CONN_ANOMALY_DB", url)
    return database


def fail(task, error: BaseException | None, day: str = "2026-03-02") -> None:
    """Call what Airflow calls when a task has failed for good."""
    instance = SimpleNamespace(
        dag_id=task.dag_id, task_id=task.task_id, run_id=f"scheduled__{day}", task=task
    )
    for callback in task.on_failure_callback:
        callback({"ti": instance, "exception": error, "dag": task.dag})


def told(database) -> list[tuple]:
    return rows(
        database, "SELECT event, kind, severity, says FROM anomaly.alert_events ORDER BY event_id"
    )


def test_scheduled_dags_tell_of_failed_tasks_and_no_others_do(dag, project):
    tells = set()
    for name in (path.stem for path in (project / "dags").glob("*.py")):
        callbacks = {bool(task.on_failure_callback) for task in dag(name).tasks}
        assert len(callbacks) == 1, name
        if callbacks == {True}:
            tells.add(name)

    assert tells == SCHEDULED


def test_a_failed_task_is_told_once_a_day_and_by_one_line_without_secrets(dag, connected):
    score = dag("score_readings").get_task("score")

    for number in range(3):
        fail(score, RuntimeError(f"postgresql://ann:secret@db/x\nis full ({number})"))
    fail(dag("reconcile_scores").tasks[0], None)

    (first, second) = told(connected)
    assert first[:3] == ("failed", "pipeline", "warning")
    assert first[3].startswith("the task score of score_readings has failed; ")
    assert "is full (0)" in first[3]
    assert "secret" not in first[3]
    assert "\n" not in first[3]
    assert "run scheduled__2026-03-02" in first[3]
    assert "it was killed" in second[3]


def test_what_the_sender_tells_anyway_is_not_told_as_a_failure(dag, connected):
    from anomaly_wiring import ToldAnywayError

    fail(dag("score_readings").get_task("check_freshness"), ToldAnywayError("stale"))

    assert told(connected) == []


def test_without_the_database_the_routes_are_told_at_once_and_once_a_day(dag, monkeypatch, webhook):
    gone = f"postgres://ann:secret@127.0.0.1:{free_port()}/x"
    monkeypatch.setenv("AIRFLOW_CONN_ANOMALY_DB", gone)
    kept = {}
    monkeypatch.setattr("airflow.sdk.Variable.get", lambda key, default=None: kept.get(key))
    monkeypatch.setattr(
        "airflow.sdk.Variable.set", lambda key, value, *_: kept.__setitem__(key, value)
    )
    score = dag("score_readings").get_task("score")

    for _ in range(3):
        fail(score, RuntimeError("cannot connect"))

    (one,) = webhook.received
    assert one["title"] == "CRITICAL: the task score of score_readings has failed"
    assert "The outbox is of no use: " in one["message"]
    assert "secret" not in one["message"]


def test_a_sender_that_fails_tells_it_by_itself_until_somebody_took_it(
    dag, connected, monkeypatch, webhook
):
    kept = {}
    monkeypatch.setattr("airflow.sdk.Variable.get", lambda key, default=None: kept.get(key))
    monkeypatch.setattr(
        "airflow.sdk.Variable.set", lambda key, value, *_: kept.__setitem__(key, value)
    )
    send = dag("send_alerts").get_task("send")

    webhook.answer = lambda _: 503
    fail(send, RuntimeError("no module named apprise"))
    webhook.answer = lambda _: 200
    for _ in range(3):
        fail(send, RuntimeError("no module named apprise"))

    (one,) = webhook.received
    assert one["title"] == "CRITICAL: the task send of send_alerts has failed"
    assert "no module named apprise" in one["message"]
    assert told(connected) == []


def test_the_sender_looks_at_the_pipeline_and_sends(dag, connected, webhook):
    before = datetime.now(UTC) - timedelta(hours=5)
    execute(
        connected,
        "INSERT INTO anomaly.checks (name, checked_at) VALUES ('freshness', :t)",
        t=before,
    )

    for _ in range(2):
        assert dag("send_alerts").test().state == "success"

    empty, unchecked = (one["title"] for one in webhook.received)
    assert empty == "CRITICAL: no meter has ever delivered a reading"
    assert unchecked.startswith("Warning: whether meters deliver was last checked at")
    sent = "SELECT count(*), count(sent_at) FROM anomaly.alert_messages"
    assert rows(connected, sent) == [(2, 2)]


@pytest.mark.parametrize(
    ("what", "labels", "taken_on"), [("false_alarm", ["false_alarm"], 0), ("take on", [], 1)]
)
def test_the_form_says_what_an_incident_was(dag, connected, what, labels, taken_on):
    began = datetime.now(UTC) - timedelta(hours=2)
    execute(
        connected,
        "INSERT INTO anomaly.machines (machine_id, source_key, name)"
        " VALUES (3, 'machine_3', 'Saw')",
    )
    execute(
        connected,
        "INSERT INTO anomaly.incidents (machine_id, kind, started_at, last_at, told_at, severity,"
        " reason, state, origin, opened_at, updated_at)"
        " VALUES (3, 'machine', :t, :t, :t, 'warning', 'x', 'open', 'live', :t, :t)",
        t=began,
    )

    run = dag("label_incident").test(run_conf={"incident": 1, "what": what, "note": "by form"})

    assert run.state == "success"
    found = rows(connected, "SELECT label, note FROM anomaly.labels")
    assert found == [(label, "by form") for label in labels]
    assert rows(connected, "SELECT count(*) FROM anomaly.acknowledgements") == [(taken_on,)]


def test_an_incident_that_is_not_there_fails_the_form_with_one_line(dag, connected, capfd):
    run = dag("label_incident").test(run_conf={"incident": 77, "what": "real"})

    assert run.state == "failed"
    assert "there is no incident 77" in "".join(capfd.readouterr())
