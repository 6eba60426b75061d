"""The dashboard in a real Superset, asked by its API and looked at in a browser.

``PICTURES=docs/pictures .venv/bin/pytest -m slow tests/acceptance/test_superset.py`` takes the
pictures of docs/how-to/superset.md.
"""

import json
import os
import re
import shutil
import subprocess
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml
from bi_logins import make_as_documented
from browser import chromium

from anomaly.database.connection import Database
from anomaly.database.migrations import migrate
from anomaly.database.results import Origin
from anomaly.demo.feeder import append_missing
from anomaly.demo.first_version import train_first_version
from anomaly.demo.superset_server import USER, SupersetServer
from anomaly.operations.machine_changes import change_machine
from anomaly.operations.site_changes import change_price
from anomaly.scoring.publishing import Job
from anomaly.scoring.scorer import Scorer
from anomaly.scoring.ticks import score_tick
from anomaly.settings import load_settings
from anomaly.windows import Window, floor_to_interval
from deployment import QUARTER, TESTS, execute, own_log_in, rows

PROJECT = Path(__file__).parents[2]
ASSETS = PROJECT / "docker" / "superset" / "dashboard"
PICTURES = os.environ.get("PICTURES")  # a folder: docs/how-to/superset.md shows two of them
TABS = ("Plant", "Machine", "Incidents", "Energy and cost", "Model and pipeline")
MACHINES = {
    1: ("Milling machine", "Hall 1"), 2: ("Compressor", "Hall 2"), 3: ("Extruder", "Hall 2"),
    4: ("Test bench", "Hall 1"), 5: ("Spare press", "Hall 1"),
}  # fmt: skip
WEEKS = 10

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


# A plant with ten weeks of verdicts, in which something is wrong now --------------------


@pytest.fixture(scope="module")
def plant(postgres, tmp_path_factory):
    own_log_in(postgres, "superset_app", "secret")
    postgres.create_database("superset_plant", owner="superset_app")
    settings = load_settings({}, models_url=str(tmp_path_factory.mktemp("models")))
    url = postgres.url("superset_plant", "superset_app", "secret")
    database = Database(url, settings.database)
    migrate(database, settings.meter_table)
    now = floor_to_interval(datetime.now(UTC), QUARTER)
    start = floor_to_interval(now - timedelta(weeks=WEEKS), timedelta(days=1))
    append_missing(database, start, now, seed=7)
    train_first_version(database, settings, now, by="retrain_model")
    let_something_be_wrong(database, now)
    job = Job(origin=Origin.BACKFILL, requested_by=TESTS)
    Scorer(database, settings).score_range(Window(start, now - QUARTER), job)
    score_tick(Scorer(database, settings), Window(now - QUARTER, now), TESTS)
    for number, (name, site) in MACHINES.items():
        change_machine(
            database, str(number), {"name": name, "site": site, "time_zone": "Europe/Berlin"}
        )
    change_price(database, None, 0.24, "EUR", date(2020, 1, 1))
    execute(
        database,
        "INSERT INTO anomaly.labels (machine_id, during, label, labelled_by)"
        " SELECT machine_id, tstzrange(started_at, ended_at),"
        "        CASE row_number() OVER (ORDER BY started_at DESC) WHEN 1 THEN 'false_alarm'"
        "             ELSE 'real' END, 'shift lead'"
        "   FROM anomaly.incidents WHERE kind = 'machine' AND ended_at IS NOT NULL"
        "    AND state NOT IN ('withdrawn', 'merged') ORDER BY started_at DESC LIMIT 3",
    )
    yield database
    database.dispose()


def let_something_be_wrong(database, now):
    """The compressor draws more than usual, and the press has no readings any more."""
    execute(
        database,
        "UPDATE anomaly.meter_readings r SET machine_2 = machine_2 + 1.6 * late.n"
        "  FROM (SELECT utc_timestamp, row_number() OVER (ORDER BY utc_timestamp) AS n"
        "          FROM anomaly.meter_readings WHERE utc_timestamp >= :since) AS late"
        " WHERE late.utc_timestamp = r.utc_timestamp",
        since=now - timedelta(hours=5),
    )
    execute(
        database,
        "UPDATE anomaly.meter_readings SET machine_5 = NULL WHERE utc_timestamp >= :since",
        since=now - timedelta(hours=7),
    )


@pytest.fixture(scope="module")
def bi_url(postgres, plant):
    """A log-in as docs/how-to/bi-login.md makes it."""
    password = "dash/board@1"  # what a URL has to quote
    make_as_documented(postgres, "superset_plant", "superset_reader", password)
    return postgres.url("superset_plant", "superset_reader", password)


@pytest.fixture(scope="module")
def superset(bi_url, tmp_path_factory):
    subprocess.run(
        ["make", "--no-print-directory", ".venv-superset/.installed"], cwd=PROJECT, check=True
    )
    server = SupersetServer(tmp_path_factory.mktemp("superset"), project=PROJECT, bi_url=bi_url)
    try:
        server.start()
        server.wait_until_healthy()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def api(superset):
    """Superset's API, logged in."""
    with httpx.Client(base_url=superset.url, timeout=120, trust_env=False) as client:
        said = {"username": USER, "password": superset.password, "provider": "db"}
        token = client.post("/api/v1/security/login", json=said).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


@pytest.fixture(scope="module")
def charts(api):
    """Every chart's name, by its number in Superset."""
    found = api.get("/api/v1/chart/?q=(page_size:200)").json()["result"]
    return {chart["id"]: chart["slice_name"] for chart in found}


# In a browser ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seen(superset, tmp_path_factory):
    """What a person sees: the errors on each tab, and the queries that the charts sent."""
    pictures = Path(PICTURES or tmp_path_factory.mktemp("pictures"))
    errors, queries = {}, {}
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(90_000)
        page.on("request", lambda request: keep_query(request, queries))
        page.goto(f"{superset.url}/login/")
        page.fill("input[name=username], #username", USER)
        page.fill("input[name=password], #password", superset.password)
        page.keyboard.press("Enter")
        page.wait_for_url("**/superset/welcome/**")
        page.goto(superset.dashboard_url)
        for tab in TABS:
            button = page.locator(".ant-tabs-tab").filter(has_text=re.compile(f"^{tab}$"))
            button.click()
            if tab == "Machine":
                choose(page, "Compressor")
            wait_for_charts(page)
            errors[tab] = page.locator("[role=alert]:visible").all_inner_texts()
            errors[tab] += page.get_by_text("No results were returned").all_inner_texts()
            picture = pictures / f"superset-{tab.split()[0].lower()}.png"
            page.screenshot(path=picture)
            assert 30_000 < picture.stat().st_size < 300_000, tab
    return errors, queries


def keep_query(request, queries):
    """Remember what a chart asks of /api/v1/chart/data; filters ask too, and have no number."""
    if "/api/v1/chart/data" in request.url and request.post_data:
        body = json.loads(request.post_data)
        if number := body.get("form_data", {}).get("slice_id"):
            queries[number] = body


def choose(page, machine):
    """Choose another machine than the one that the dashboard begins with."""
    filters = page.locator("[data-test=form-item-value] .ant-select:visible")
    filters.first.click()
    page.locator(f".ant-select-item-option[title='{machine}']:visible").click()
    page.locator("[data-test=filter-bar__apply-button]").click()


def wait_for_charts(page):
    """Wait until nothing loads any more, with all of the tab in the window."""
    for _ in range(2):  # charts load when they come into the window
        time.sleep(2)
        deadline = time.monotonic() + 90
        busy = page.locator("[data-test=loading-indicator]:visible, .loading:visible")
        while busy.count() and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not busy.count(), "charts are still loading"
        bottom = page.evaluate(
            "Math.max(...[...document.querySelectorAll('.dashboard-component-chart-holder')]"
            ".map(chart => chart.getBoundingClientRect().bottom))"
        )
        page.set_viewport_size({"width": 1440, "height": int(bottom) + 30})
    time.sleep(2)  # charts are drawn in the new size


def test_no_tab_shows_an_error(seen):
    errors, _ = seen

    assert errors == {tab: [] for tab in TABS}


def test_every_chart_gets_rows_with_the_read_only_log_in(api, charts, seen):
    _, queries = seen

    assert len(charts) == len(list(ASSETS.glob("charts/*.yaml")))
    assert {charts[number] for number in charts.keys() - queries.keys()} == set()
    for number, query in queries.items():
        answer = api.post("/api/v1/chart/data", json=query | {"force": True})
        assert answer.status_code == 200, (charts[number], answer.text)
        for result in answer.json()["result"]:
            assert (result["status"], result["error"]) == ("success", None), charts[number]
            assert result["rowcount"] > 0, charts[number]


# What Superset knows --------------------------------------------------------------------


def datasets(api):
    found = api.get("/api/v1/dataset/?q=(page_size:100)").json()["result"]
    return [api.get(f"/api/v1/dataset/{each['id']}").json()["result"] for each in found]


def test_datasets_and_columns_are_described_as_in_the_database(api, plant):
    described = {
        (view, column): text
        for view, column, text in rows(
            plant,
            "SELECT c.relname, coalesce(a.attname, ''), d.description FROM pg_description d"
            "  JOIN pg_class c ON c.oid = d.objoid AND d.classoid = 'pg_class'::regclass"
            "  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid"
            "   AND d.objsubid > 0 WHERE c.relnamespace = 'bi'::regnamespace",
        )
    }
    found = datasets(api)

    assert len(found) == len(list(ASSETS.glob("datasets/*/*.yaml")))
    for dataset in found:
        view = dataset["table_name"]
        assert dataset["schema"] == "bi"
        if dataset["sql"]:
            assert dataset["description"]
            assert all(column["description"] for column in dataset["columns"]), view
            continue
        assert dataset["description"] == described[view, ""]
        told = {column["column_name"]: column["description"] for column in dataset["columns"]}
        columns = {column for name, column in described if name == view and column}
        assert told == {column: described[view, column] for column in columns}, view


def test_nine_of_ten_ordinary_readings_lie_in_the_usual_band(plant):
    query = yaml.safe_load((ASSETS / "datasets/Anomaly/power_with_usual_band.yaml").read_text())

    found = rows(
        plant,
        "SELECT machine, avg((power_kw BETWEEN usual_from_kw - 0.05 AND usual_to_kw + 0.05)::int),"
        f"      count(*) FILTER (WHERE usual_from_kw > usual_to_kw) FROM ({query['sql']}) AS band"
        " WHERE anomaly = 0 AND expected_kw IS NOT NULL AND machine <> 'Spare press'"
        " GROUP BY machine",
    )

    assert len(found) == 4
    for machine, share, upside_down in found:
        assert 0.85 <= share <= 1, machine
        assert upside_down == 0, machine


def test_the_connection_reads_the_views_and_nothing_else(api, plant):
    (connection,) = api.get("/api/v1/database/").json()["result"]

    def ask(statement):
        query = {"database_id": connection["id"], "sql": statement, "runAsync": False}
        return api.post("/api/v1/sqllab/execute/", json=query, headers=csrf(api))

    assert ask("SELECT count(*) FROM bi.verdicts").json()["data"][0]["count"] > 30_000
    refused = ask("SELECT * FROM anomaly.anomaly_results")
    assert refused.status_code >= 400
    assert "permission denied" in refused.text
    shown = api.get(f"/api/v1/database/{connection['id']}/connection").json()["result"]
    assert shown["sqlalchemy_uri"].startswith("postgresql+psycopg2://superset_reader:XXXXXXXXXX@")


def csrf(api):
    token = api.get("/api/v1/security/csrf_token/").json()["result"]
    return {"X-CSRFToken": token, "Referer": str(api.base_url)}


def test_no_schema_is_listed_that_cannot_be_read(api):
    (connection,) = api.get("/api/v1/database/").json()["result"]

    assert api.get(f"/api/v1/database/{connection['id']}/schemas/").json()["result"] == ["bi"]


def test_a_second_start_brings_the_same_dashboard(api, charts, superset):
    superset.start()

    again = api.get("/api/v1/chart/?q=(page_size:200)").json()["result"]
    assert {chart["id"]: chart["slice_name"] for chart in again} == charts
    assert superset.running


def test_the_zip_file_for_another_superset_holds_no_password_and_can_be_imported(
    superset, api, bi_url, tmp_path
):
    bundle = tmp_path / "plant.zip"
    command = [PROJECT / ".venv" / "bin" / "python", ASSETS.with_name("load_dashboard.py")]
    subprocess.run(
        [*command, "--zip", bundle], env=os.environ | {"BI_DATABASE_URL": bi_url}, check=True
    )
    shutil.unpack_archive(bundle, tmp_path)

    connection = yaml.safe_load((tmp_path / "plant/databases/Anomaly.yaml").read_text())
    assert ":XXXXXXXXXX@" in connection["sqlalchemy_uri"]
    days = yaml.safe_load((tmp_path / "plant/datasets/Anomaly/machine_days.yaml").read_text())
    assert all(column["description"] for column in days["columns"])
    assert yaml.safe_load((tmp_path / "plant/metadata.yaml").read_text())["type"] == "Dashboard"

    files = {"formData": ("plant.zip", bundle.read_bytes(), "application/zip")}
    passwords = json.dumps({"databases/Anomaly.yaml": "dash/board@1"})
    brought = api.post(
        "/api/v1/dashboard/import/",
        files=files,
        data={"passwords": passwords, "overwrite": "true"},
        headers=csrf(api),
    )
    assert brought.status_code == 200, brought.text
