"""The weekly model on a real Airflow: asked about, refused, killed, tampered with, looked up."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from airflow_questions import wait_for_question
from sqlalchemy import text

from anomaly.database.results import Origin
from anomaly.database.scoring_runs import RequestedBy
from anomaly.scoring.publishing import Job
from anomaly.scoring.scorer import Scorer
from anomaly.windows import Window
from deployment import counters_until, execute, insert, rows, train_in_force
from integration_settings import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DAY = 96
TIMEOUT_SECONDS = 45
SETTINGS = SMALL | {
    "forest_trees": 100,  # fewer differ by chance from one training to the next
    "forest_max_samples": 256,
    "promotion": "approve",
    "approval_timeout_hours": TIMEOUT_SECONDS / 3600,
}


@pytest.fixture(scope="module")
def history(database, settings, today):
    """24 days of readings up to an hour ago; a model of the first ten; all scored."""
    everything = Window(today - timedelta(days=24, hours=1), today - timedelta(hours=1))
    insert(database, counters_until(everything.end, 24 * DAY))
    window = Window(everything.start, everything.start + timedelta(days=10))
    train_in_force(database, settings, window)
    Scorer(database, settings).score_range(everything, Job(Origin.BACKFILL, RequestedBy("test")))
    return everything


@pytest.fixture(scope="module")
def airflow(history, airflow):
    """Airflow with the DAGs of the weekly model turned on."""
    for dag_id in ("retrain_model", "promote_model", "backfill_scores"):
        airflow.unpause(dag_id)
    let_the_schedule_have_its_run(airflow)
    return airflow


def let_the_schedule_have_its_run(server):
    """The run of last Monday, which a DAG that is turned on makes up for; nobody approves it."""
    (run,) = until(lambda: server.runs("retrain_model"), "the scheduled run")
    assert server.wait_for_run("retrain_model", run["dag_run_id"]) == "success"


@pytest.fixture
def anomaly(anomaly_url, environment):
    """Run a command of the command line, as an operator does."""
    command = Path(sys.executable).with_name("anomaly")

    def run(*arguments):
        result = subprocess.run(
            [command, *arguments, "--json"],
            env=environment | {"ANOMALY_DATABASE_URL": anomaly_url, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(result.stdout)

    return run


def until(found, what, seconds=120):
    """Wait until something is there, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.2)
    raise AssertionError(f"{what} did not come within {seconds} s")


def asked(airflow, run_id):
    """What the run asks a person, once it waits for the answer."""
    return wait_for_question(airflow, "retrain_model", run_id, instead=["keep_champion"])


def answer(airflow, run_id, option):
    """Answer what the run asks; the question."""
    question = asked(airflow, run_id)
    airflow.answer("retrain_model", run_id, "ask", option)
    return question


def champion(database):
    ((version, by, reason),) = rows(
        database,
        "SELECT version, recorded_by, reason FROM anomaly.model_in_force"
        " WHERE superseded_at IS NULL AND effective_to IS NULL",
    )
    return version, by, reason


def retrained(airflow, run_id):
    """End of a weekly run: its state, and which task had the last word."""
    state = airflow.wait_for_run("retrain_model", run_id)
    assert state == "success", airflow.task_log("retrain_model", run_id, "train")
    states = airflow.task_states("retrain_model", run_id)
    return states["promote"], states["keep_champion"]


def test_an_approved_version_is_put_in_force(airflow, database):
    run_id = airflow.trigger("retrain_model")
    question = answer(airflow, run_id, "Approve")

    assert retrained(airflow, run_id) == ("success", "skipped")
    assert question["subject"] == "Put model version 3 in force?"
    assert "The gate lets it replace version 1" in question["body"]
    assert "| injected faults found |" in question["body"]
    assert question["defaults"] == ["Reject"]
    version, by, reason = champion(database)
    assert (version, by) == (3, f"retrain_model {run_id}")
    assert reason == "weekly training, approved by admin"
    event = airflow.asset_events()[0]
    assert (event["name"], event["extra"]["version"]) == ("anomaly_models", 3)
    assert event["extra"]["model_card"].endswith("v0003/model_card.md")


def test_a_rejected_version_is_kept_and_the_champion_stays(airflow, database):
    before = champion(database)
    run_id = airflow.trigger("retrain_model")
    answer(airflow, run_id, "Reject")

    assert retrained(airflow, run_id) == ("skipped", "skipped")
    assert champion(database) == before
    assert rows(database, "SELECT max(version) FROM anomaly.model_versions") == [(4,)]


def test_an_approval_that_nobody_gives_times_out_and_the_champion_stays(airflow, database):
    before = champion(database)
    run_id = airflow.trigger("retrain_model")
    asked(airflow, run_id)

    assert retrained(airflow, run_id) == ("skipped", "skipped")
    assert champion(database) == before
    assert airflow.question("retrain_model", run_id, "ask")["chosen_options"] == ["Reject"]


def test_versions_trained_on_corrupted_weeks_are_refused_until_a_person_is_asked(
    airflow, database, history
):
    before = champion(database)
    execute(
        database,
        "CREATE TABLE anomaly.as_metered AS SELECT utc_timestamp, machine_1, machine_2"
        " FROM anomaly.meter_readings",
    )
    execute(  # relays that bounce in all of its training: power leaps up and down
        database,
        "UPDATE anomaly.meter_readings SET machine_1 = machine_1 + 60, machine_2 = machine_2 + 60"
        " WHERE utc_timestamp < :end AND extract(epoch FROM utc_timestamp)::bigint / 900 % 2 = 0",
        end=history.start + timedelta(days=17),
    )

    run_id = airflow.trigger("retrain_model")

    assert retrained(airflow, run_id) == ("skipped", "success")
    assert champion(database) == before
    log = airflow.task_log("retrain_model", run_id, "keep_champion")
    assert "of the readings abnormal, the champion" in log
    ((status, reasons),) = rows(
        database,
        "SELECT status, judgement->'reasons' FROM anomaly.model_versions"
        " ORDER BY version DESC LIMIT 1",
    )
    assert status == "refused"
    assert len(reasons) >= 1

    run_id = airflow.trigger("retrain_model")  # a second refusal in a row: a person must decide
    question = answer(airflow, run_id, "Reject")

    assert airflow.wait_for_run("retrain_model", run_id) == "failed"
    assert airflow.task_states("retrain_model", run_id) == {
        "train": "success",
        "ask": "success",
        "check_gate": "failed",
        "promote": "skipped",
        "keep_champion": "skipped",
    }
    assert "**Refused**" in question["body"]
    said = airflow.task_log("retrain_model", run_id, "check_gate")
    assert "2 versions in a row were refused" in said
    assert champion(database) == before
    execute(
        database,
        "UPDATE anomaly.meter_readings AS readings"
        " SET machine_1 = kept.machine_1, machine_2 = kept.machine_2"
        " FROM anomaly.as_metered AS kept WHERE readings.utc_timestamp = kept.utc_timestamp",
    )
    execute(database, "DROP TABLE anomaly.as_metered")


def test_the_form_puts_a_past_range_under_another_version_and_scores_it_anew(
    airflow, database, history, anomaly
):
    start = history.start.replace(hour=0, minute=0) + timedelta(days=12)
    day = {"start": start.isoformat(), "end": (start + timedelta(days=1)).isoformat()}
    run_id = airflow.trigger("promote_model", {"version": 4, "reason": "a trial"} | day)

    assert airflow.wait_for_run("promote_model", run_id) == "success"
    judged = rows(
        database,
        "SELECT DISTINCT model_version FROM anomaly.anomaly_results"
        " WHERE utc_timestamp >= :a AND utc_timestamp < :b",
        a=start,
        b=start + timedelta(days=1),
    )
    assert judged == [(4,)]
    on_that_day = anomaly("models", "list", "--on", f"{start:%Y-%m-%d}T12:00Z")
    day_before = anomaly("models", "list", "--on", f"{start - timedelta(days=1):%Y-%m-%d}")
    assert (on_that_day["version"], day_before["version"]) == (4, 1)
    assert on_that_day["entries"][-1]["reason"] == "a trial"
    assert on_that_day["entries"][-1]["recorded_by"].endswith(", admin")


def test_rolling_back_scores_anew_what_the_version_judged(anomaly, database, history):
    before = champion(database)

    promoted = anomaly("models", "rollback", "--reason", "too noisy")

    assert (promoted["version"], promoted["replaced"]) == (1, before[0])
    assert champion(database)[0] == 1
    assert champion(database)[2] == "too noisy"


def test_a_tampered_version_is_refused_before_a_reading_is_read(
    airflow, database, settings, history
):
    file = Path(settings.models.models_url) / "isolation_forest/v0001/scoring.npz"
    content = file.read_bytes()
    before = rows(database, "SELECT count(*), max(run_id) FROM anomaly.scoring_runs")
    file.write_bytes(content[:-1])
    try:
        form = {"start": history.start.isoformat(), "end": history.end.isoformat()}
        run_id = airflow.trigger("backfill_scores", form | {"preview_first": False})

        assert airflow.wait_for_run("backfill_scores", run_id) == "failed"
        log = airflow.task_log("backfill_scores", run_id, "score_chunk", map_index=0)
        assert "scoring.npz was changed" in log
        assert "Restore it from a backup, or promote another version" in log
    finally:
        file.write_bytes(content)
    assert rows(database, "SELECT count(*), max(run_id) FROM anomaly.scoring_runs") == before


@contextmanager
def held(database, table):
    """Let nobody write a table; who wants to waits, and can be found by `waiting`."""
    with database.engine.connect() as connection, connection.begin():
        connection.execute(text(f"LOCK TABLE {table} IN SHARE MODE"))
        yield


def waiting(database, postgres):
    """The process whose connection waits for the table."""

    def process():
        ports = rows(
            database,
            "SELECT client_port FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        known = {port for (port,) in ports}
        found = [c for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port in known]
        return next((psutil.Process(c.pid) for c in found if c.pid and c.raddr), None)

    return until(process, "a process that waits for the table")


def test_a_training_killed_before_it_registers_leaves_a_whole_version_or_none(
    airflow, database, settings, postgres
):
    ((highest,),) = rows(database, "SELECT max(version) FROM anomaly.model_versions")
    family = Path(settings.models.models_url) / "isolation_forest"
    with held(database, "anomaly.model_versions"):
        run_id = airflow.trigger("retrain_model")
        waiting(database, postgres).kill()
        assert (family / f"v{highest + 1:04d}").exists()
    answer(airflow, run_id, "Reject")  # the retry's question

    assert retrained(airflow, run_id) == ("skipped", "skipped")
    versions = {v for (v,) in rows(database, "SELECT version FROM anomaly.model_versions")}
    assert versions == set(range(1, highest + 1)) | {highest + 2}
    assert {path.name for path in family.iterdir()} == {f"v{v:04d}" for v in versions}


def test_a_promotion_killed_while_it_scores_is_finished_by_its_retry(
    airflow, database, history, postgres
):
    start = history.start.replace(hour=0, minute=0) + timedelta(days=3)
    day = {"start": start.isoformat(), "end": (start + timedelta(days=1)).isoformat()}
    with held(database, "anomaly.anomaly_results"):
        run_id = airflow.trigger("promote_model", {"version": 2, "reason": "a trial"} | day)
        waiting(database, postgres).kill()

    assert airflow.wait_for_run("promote_model", run_id) == "success"
    found = rows(
        database,
        "SELECT model_version, count(*) FROM anomaly.anomaly_results"
        " WHERE utc_timestamp >= :a AND utc_timestamp < :b GROUP BY 1",
        a=start,
        b=start + timedelta(days=1),
    )
    assert found == [(2, 2 * DAY)]
