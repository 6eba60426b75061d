"""Backfills on a real Airflow: previewed, asked about, cancelled, gone on with, reported."""

import os
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from airflow_questions import wait_for_question
from browser import chromium

from anomaly.demo.airflow_server import USER, AirflowServerError
from anomaly.windows import Window
from deployment import (
    at,
    counters,
    execute,
    insert,
    register_trained,
    rows,
    train_in_force,
    verdicts,
)
from integration_settings import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# The names of the DAGs have a prefix here, as beside other people's DAGs.
PREFIX = "plant_"
SETTINGS = SMALL | {"dag_prefix": PREFIX}
DAG = f"{PREFIX}backfill_scores"
DAY = 96
DAYS = 10
FIELDS = [
    "Start",
    "End",
    "Machines",
    "What is scored",
    "Model version",
    "Preview first",
    "After the preview",
    "Days per chunk",
]


@pytest.fixture(scope="module")
def history(database, settings, airflow):
    """Ten days of readings of a past month, and a model."""
    frame = counters(DAYS * DAY)
    insert(database, frame)
    train_in_force(database, settings, Window(at(0), at(3 * DAY)))
    airflow.unpause(DAG)
    return frame


def form(first=0, end=DAYS * DAY, **fields):
    """Fill in the form: quarter-hours `first` to `end`."""
    return {"start": at(first).isoformat(), "end": at(end).isoformat(), **fields}


def finished(airflow, **fields):
    """Trigger a backfill and wait for its end; return its run and the states of its tasks."""
    run_id = airflow.trigger(DAG, form(**fields))
    airflow.wait_for_run(DAG, run_id)
    return airflow.run(DAG, run_id), airflow.task_states(DAG, run_id)


def wait_until(said, seconds=120):
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if said():
            return
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s")


def contents(database):
    """Every row of every table of the product."""
    names = rows(
        database,
        "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables"
        " WHERE table_schema = 'anomaly' AND table_type = 'BASE TABLE'",
    )
    return {
        name: rows(database, f"SELECT t::text, xmin::text FROM {name} t ORDER BY 1")
        for (name,) in names
    }


def test_a_preview_alone_writes_nothing_and_is_in_the_runs_note(airflow, database, history):
    before = contents(database)

    run, states = finished(airflow, after_preview="stop")

    assert run["state"] == "success"
    assert (states["report_preview"], states["start_scoring"], states["report"]) == (
        "success",
        "skipped",
        "skipped",
    )
    assert contents(database) == before
    assert run["note"].startswith(f"Preview: {2 * len(history):,} new, 0 changed")
    log = airflow.task_log(DAG, run["dag_run_id"], "report_preview")
    assert f"verdicts would be new | {2 * len(history):,}" in log


def test_a_backfill_is_previewed_run_and_reported(airflow, database, history):
    run, states = finished(airflow, chunk_days=4)

    assert run["state"] == "success", states
    assert states["ask"] == "skipped"  # nothing there could turn into its opposite
    chunks = [task for task in airflow.tasks(DAG, run["dag_run_id"]) if "chunk" in task["task_id"]]
    assert sorted({task["rendered_map_index"] for task in chunks}) == [
        "2026-03-02 00:00 to 2026-03-06 00:00",
        "2026-03-06 00:00 to 2026-03-10 00:00",
        "2026-03-10 00:00 to 2026-03-12 00:00",
    ]
    assert len(verdicts(database)) == 2 * len(history)
    ((number, kept, ended),) = rows(
        database,
        "SELECT backfill_id, report, finished_at IS NOT NULL FROM anomaly.backfills"
        " WHERE dag_run_id = :run_id",
        run_id=run["dag_run_id"],
    )
    assert (kept["read"], kept["inserted"], kept["unchanged"], ended) == (
        2 * len(history),
        2 * len(history),
        0,
        True,
    )
    assert run["note"].startswith(f"Backfill {number}: {2 * len(history):,} new, 0 changed")
    told = [event for event in airflow.asset_events() if event["name"] == "anomaly_backfills"]
    assert [event["extra"]["preview"] for event in told[:2]] == [False, True]
    assert told[0]["extra"]["inserted"] == 2 * len(history)
    log = airflow.task_log(DAG, run["dag_run_id"], "report")
    assert f"verdicts new | {2 * len(history):,}" in log
    assert "time estimated" in log


def test_a_version_asks_before_it_turns_verdicts(airflow, database, settings, history):
    second = register_trained(database, settings, Window(at(3 * DAY), at(6 * DAY))).version
    before = contents(database)

    run_id = airflow.trigger(DAG, form(DAY, 2 * DAY, version=second, after_preview="always_ask"))
    question = wait_for_question(airflow, DAG, run_id)

    assert contents(database) == before
    assert question["subject"] == "Write these changes?"
    assert f"version 1 now; version {second} would be in force |" in question["body"]
    airflow.answer(DAG, run_id, "ask", "Reject")
    assert airflow.wait_for_run(DAG, run_id) == "success"
    assert contents(database) == before

    run_id = airflow.trigger(DAG, form(DAY, 2 * DAY, version=second, after_preview="always_ask"))
    wait_for_question(airflow, DAG, run_id)
    airflow.answer(DAG, run_id, "ask", "Approve")
    assert airflow.wait_for_run(DAG, run_id) == "success"
    versions = "SELECT model_version, count(*) FROM anomaly.anomaly_results GROUP BY 1 ORDER BY 1"
    assert rows(database, versions) == [(1, 2 * (DAYS - 1) * DAY), (second, 2 * DAY)]


def test_many_flips_ask_by_themselves(airflow, database, history):
    execute(
        database,
        "UPDATE anomaly.anomaly_results SET anomaly = 1 - anomaly, features_version = 0"
        " WHERE utc_timestamp < :t",
        t=at(DAY),
    )

    run_id = airflow.trigger(DAG, form())
    body = wait_for_question(airflow, DAG, run_id)["body"]
    airflow.answer(DAG, run_id, "ask", "Approve")

    assert airflow.wait_for_run(DAG, run_id) == "success"
    assert f"verdicts would be changed | {2 * DAY} |" in body
    assert "| machine | abnormal now | normal now |" in body


def test_a_cancelled_backfill_is_gone_on_with_by_clearing_it(airflow, database, history):
    fields = {"mode": "everything", "chunk_days": 1, "preview_first": False}
    was = verdicts(database)
    run_id = airflow.trigger(DAG, form(**fields))
    windows = "SELECT count(*) FROM anomaly.scoring_runs WHERE dag_run_id = :run_id"
    wait_until(lambda: rows(database, windows, run_id=run_id)[0][0] >= 2)

    airflow.cancel(DAG, run_id)
    wait_until(lambda: not any(task["state"] == "running" for task in airflow.tasks(DAG, run_id)))
    assert rows(database, windows, run_id=run_id)[0][0] < DAYS
    airflow.clear(DAG, run_id)

    assert airflow.wait_for_run(DAG, run_id) == "success"
    each = rows(
        database,
        "SELECT window_start, count(*) FROM anomaly.scoring_runs WHERE dag_run_id = :run_id"
        " GROUP BY 1",
        run_id=run_id,
    )
    assert len(each) == DAYS
    assert sum(count for _, count in each) <= DAYS + 2  # two were under way
    (report,) = rows(
        database, "SELECT report FROM anomaly.backfills WHERE dag_run_id = :run_id", run_id=run_id
    )
    assert (report[0]["read"], report[0]["unchanged"]) == (2 * len(history), 2 * len(history))
    assert verdicts(database) == was


def test_a_form_for_a_month_after_tomorrow_or_of_one_machine(airflow, database, history):
    machine = finished(airflow, machines=["machine_2"], preview_first=False, mode="everything")
    later = finished(airflow, first=400 * DAY, end=401 * DAY)

    assert machine[0]["state"] == "success", machine
    assert rows(
        database,
        "SELECT DISTINCT machines FROM anomaly.scoring_runs WHERE dag_run_id = :run_id",
        run_id=machine[0]["dag_run_id"],
    ) == [([2],)]
    assert later[0]["state"] == "failed"
    log = airflow.task_log(DAG, later[0]["dag_run_id"], "check_request")
    assert "is not due yet" in log
    assert later[1]["start_scoring"] == "upstream_failed"


@pytest.mark.parametrize(
    "wrong",
    [
        {"start": "yesterday"},
        {"start": "2026-03-02T00:00"},
        {"mode": "all"},
        {"version": 0},
        {"machines": "machine_1"},
        {"chunk_days": 1.5},
        {"end": None},
    ],
)
def test_airflow_refuses_what_the_fields_do_not_allow(wrong, airflow, history):
    with pytest.raises(AirflowServerError, match=r"40\d|422"):
        airflow.trigger(DAG, form() | wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"machine": "machine_1"},
            "there is no field 'machine': the form has start, end, machines",
        ),
        ({"end": at(-1).isoformat()}, "the end must be later than the start"),
        ({"machines": ["lathe"]}, "no machine is called 'lathe'"),
        ({"version": 99}, "there is no model version 99"),
        ({"preview_first": False, "after_preview": "stop"}, "turn Preview first on"),
    ],
)
def test_what_only_the_database_knows_is_refused_by_the_first_task(wrong, said, airflow, history):
    run_id = airflow.trigger(DAG, form() | wrong)

    assert airflow.wait_for_run(DAG, run_id) == "failed"
    assert said in airflow.task_log(DAG, run_id, "check_request")


# In a browser ---------------------------------------------------------------------

PICTURES = os.environ.get("PICTURES")  # a folder: the operators' page shows them


@pytest.fixture
def page(airflow):
    """A browser that is logged in."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 1350})
        page.set_default_timeout(60_000)
        page.goto(f"{airflow.url}/dags/{DAG}")
        page.fill("input[name=username]", USER)
        page.fill("input[name=password]", airflow.password)
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/dags/{DAG}**")
        yield page


def names_are_offered(airflow):
    """Whether the form offers the machines by name."""
    machines = airflow._call("GET", f"/dags/{DAG}/details")["params"]["machines"]
    return machines["schema"].get("examples") == [f"machine_{n}" for n in range(1, 6)]


def keep_picture(target, name, tmp_path):
    """Take a picture of a page or a part of it."""
    path = Path(PICTURES or tmp_path) / f"backfill-{name}.png"
    target.screenshot(path=path)
    assert path.stat().st_size > 10_000


def choose_moment(page, form, day, clock):
    """Choose a day and a time in the first picker that is empty."""
    form.get_by_text("Select date and time").nth(0).click()
    popup = page.get_by_placeholder("YYYY/MM/DD").locator("visible=true")
    popup.fill(day)
    clocks = page.get_by_placeholder("HH:mm").locator("visible=true")
    clocks.fill(clock)
    clocks.press("Enter")
    form.get_by_text(f"Trigger Dag - {DAG}").click()  # the picker closes
    popup.wait_for(state="hidden")


def test_the_form_has_fields_of_its_own_and_starts_a_backfill(page, airflow, history, tmp_path):
    """Once a run has told Airflow the machines' names."""
    assert airflow.wait_for_run(DAG, airflow.trigger(DAG, form(after_preview="stop"))) == "success"
    wait_until(lambda: names_are_offered(airflow))
    page.reload()
    page.get_by_role("button", name="Trigger").first.click()
    dialog = page.locator("[role=dialog][data-state=open]")
    dialog.get_by_text("Run Parameters").wait_for()
    choose_moment(page, dialog, "2026/03/02", "00:00")
    choose_moment(page, dialog, "2026/03/04", "12:00")
    machines = dialog.locator("div:has(> div > input[name=element_machines])").first
    choice = dialog.get_by_label("Select one or multiple values")
    choice.fill("machine_2")
    choice.press("Enter")

    labels = [label.replace("*", "").strip() for label in dialog.locator("label").all_inner_texts()]
    assert [label for label in labels if label in FIELDS] == FIELDS
    assert dialog.locator("input[type=hidden][name=element_mode]").count() == 1  # a choice
    assert dialog.locator("input[type=hidden][name=element_after_preview]").count() == 1
    assert dialog.get_by_role("spinbutton").count() == 2  # numbers
    assert dialog.locator("input[type=checkbox][name=element_preview_first]").count() == 1
    assert machines.count() == 1
    keep_picture(dialog, "form", tmp_path)
    dialog.get_by_test_id("trigger-dag-submit").click()

    wait_until(lambda: airflow.runs(DAG)[0]["conf"].get("machines") == ["machine_2"])
    run = airflow.runs(DAG)[0]
    assert airflow.wait_for_run(DAG, run["dag_run_id"]) == "success"
    asked_for = {name: run["conf"][name] for name in ("start", "end")}
    assert {name: datetime.fromisoformat(text) for name, text in asked_for.items()} == {
        "start": at(0),
        "end": at(2 * DAY + DAY // 2),
    }


def test_a_person_sees_the_preview_where_it_asks_and_the_report_in_the_note(
    page, airflow, database, history, tmp_path
):
    execute(
        database,
        "UPDATE anomaly.anomaly_results SET anomaly = 1 - anomaly, features_version = 0"
        " WHERE utc_timestamp < :t",
        t=at(DAY),
    )
    run_id = airflow.trigger(DAG, form())
    wait_for_question(airflow, DAG, run_id)

    page.goto(f"{airflow.url}/dags/{DAG}/runs/{run_id}/tasks/ask/required_actions")
    page.get_by_text("Write these changes?").first.wait_for()
    page.get_by_role("cell", name="abnormal now").first.wait_for()  # a table, not its marks
    keep_picture(page, "question", tmp_path)
    page.get_by_role("button", name="Approve").click()
    assert airflow.wait_for_run(DAG, run_id) == "success"

    page.goto(f"{airflow.url}/dags/{DAG}/runs/{run_id}")
    page.get_by_text("10 turned abnormal").first.wait_for()
    keep_picture(page, "run", tmp_path)


# Airflow's own backfill --------------------------------------------------------------


def test_a_native_backfill_of_months_reconciles_them(airflow, database, history):
    execute(
        database,
        "DELETE FROM anomaly.anomaly_results WHERE utc_timestamp >= :a AND utc_timestamp < :b",
        a=at(2 * DAY),
        b=at(7 * DAY),
    )
    airflow.unpause(f"{PREFIX}reconcile_scores")

    airflow.backfill(f"{PREFIX}reconcile_scores", at(0) + timedelta(hours=3), at(9 * DAY))
    wait_until(lambda: len(verdicts(database)) == 2 * len(history), 300)

    origins = "SELECT DISTINCT origin::text FROM anomaly.anomaly_results WHERE utc_timestamp > :t"
    assert rows(database, origins, t=at(3 * DAY)) == [("backfill",)]
