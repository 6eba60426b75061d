"""The ten questions of the documentation, answered by the views and by other means."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from anomaly.database.connection import Database
from anomaly.operations.machine_changes import change_machine
from anomaly.operations.site_changes import change_price, change_shifts
from anomaly.settings import load_settings
from deployment import QUARTER, START, execute, insert, rows, score, train

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "how-to" / "bi-questions.md"
DAY = 96
TRAINED, END = 28 * DAY, 40 * DAY
TODAY = date(2026, 4, 10)  # a Friday; clocks in Berlin were changed on 29 March
SINCE = TODAY - timedelta(days=28)
SINCE_MONDAY = SINCE - timedelta(days=SINCE.weekday())
ZONES = {1: "Europe/Berlin", 2: "Asia/Kolkata", 3: "America/New_York"}
SITES = {1: "Hall 1", 2: "Hall 2", 3: "Hall 2"}
RESET = 33 * DAY + 30
"""Where the counter of machine 2 starts again at 0."""


def counters() -> pd.DataFrame:
    """Six weeks of three noisy machines; machine 1 misbehaves twice, the meters do as well."""
    random = np.random.default_rng(3)
    power = random.normal(16, 1.2, (END, 3)).clip(min=0.5)
    power[30 * DAY + 72 : 30 * DAY + 96, 0] += 20.0
    power[37 * DAY + 8 : 37 * DAY + 40, 0] += 30.0
    frame = pd.DataFrame((power / 4).cumsum(axis=0).round(3), columns=list("123"))
    frame.loc[RESET:, "2"] -= frame["2"][RESET - 1]
    frame.loc[20 * DAY + 40 : 20 * DAY + 100, "1"] = np.nan  # no reading, past midnight
    frame.loc[34 * DAY + 8 : 34 * DAY + 19, "3"] = frame["3"][34 * DAY + 7]  # stands, catches up
    frame.columns = [f"machine_{number}" for number in frame]
    frame.insert(0, "utc_timestamp", [START + quarter * QUARTER for quarter in range(END)])
    return frame


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    return counters()


@pytest.fixture(scope="module")
def deployed(postgres, migrated, raw, tmp_path_factory):
    models = str(tmp_path_factory.mktemp("models"))
    settings = load_settings(models_url=models, stale_after_hours=0)  # its readings are old
    postgres.create_database("questions", template=migrated)
    database = Database(postgres.url("questions"), settings.database)
    insert(database, raw)
    train(database, settings, TRAINED)
    score(database, settings, 0, END)
    for machine in ZONES:  # after the verdicts: their sums follow the new clock
        said = {"name": f"Saw {machine}", "site": SITES[machine], "time_zone": ZONES[machine]}
        change_machine(database, str(machine), said)
    change_price(database, None, 0.2, "EUR", date(2026, 1, 1))
    change_price(database, None, 0.3, "EUR", date(2026, 3, 25))  # within a week
    change_price(database, "Hall 2", 9.0, "INR", date(2026, 3, 20))
    change_shifts(database, "Hall 1", ["day 06:00-22:00", "night 22:00-06:00"])
    ((first, second),) = [
        tuple(
            number
            for (number,) in rows(
                database,
                "SELECT incident_id FROM anomaly.incidents WHERE kind = 'machine'"
                " AND machine_id = 1 AND state NOT IN ('withdrawn', 'merged')"
                " ORDER BY excess_kwh DESC LIMIT 2",
            )
        )
    ]
    for number, label in ((first, "real"), (second, "false_alarm")):
        execute(
            database,
            "INSERT INTO anomaly.labels (machine_id, during, label, labelled_by)"
            " SELECT machine_id, tstzrange(started_at, ended_at), :label, 'test'"
            "   FROM anomaly.incidents WHERE incident_id = :number",
            label=label,
            number=number,
        )
    yield database
    database.dispose()
    postgres.drop_database("questions")


def answer(database, number: int) -> pd.DataFrame:
    """What a statement of the page says on `TODAY`, asked with the rights of a BI log-in."""
    (statement,) = re.findall(rf"^## {number}\. .*?```sql\n(.*?)```", PAGE.read_text(), re.S | re.M)
    statement = statement.replace("current_date", f"DATE '{TODAY}'")
    statement = statement.replace("now()", f"TIMESTAMPTZ '{TODAY} 12:00Z'")
    with database.engine.connect() as connection:
        connection.exec_driver_sql("SET ROLE anomaly_bi")
        found = connection.exec_driver_sql(statement)
        frame = pd.DataFrame(found.fetchall(), columns=list(found.keys()))
        connection.rollback()
    return frame


def local_days(machine: int, stamps: pd.Series) -> pd.Series:
    return stamps.dt.tz_convert(ZONES[machine]).dt.date


@pytest.fixture(scope="module")
def counted(raw) -> dict[int, pd.Series]:
    """The counter of each machine as if it had never started again, kWh."""
    series = {}
    for machine in ZONES:
        counter = raw.set_index("utc_timestamp")[f"machine_{machine}"].dropna()
        series[machine] = counter.copy()
        if machine == 2:  # what was used in the quarter-hour of the reset is not known
            at = START + RESET * QUARTER
            series[machine][counter.index >= at] += (
                counter[START + (RESET - 1) * QUARTER] - counter[at]
            )
    return series


@pytest.fixture(scope="module")
def energy(counted) -> pd.Series:
    """Difference of the counter from the end of a local day to that of the next, kWh."""
    parts = {}
    for machine, counter in counted.items():
        days = pd.Series(counter.index, index=counter.index).dt.tz_convert(ZONES[machine]).dt.date
        ends = counter.groupby(days).last()
        drawn = ends.diff().fillna(ends.iloc[0] - counter.iloc[0])
        for day, kwh in drawn.items():
            parts[machine, day] = kwh
    return pd.Series(parts)


def recent(energy, since: date = SINCE) -> pd.Series:
    return energy[[day >= since for _, day in energy.index]]


def test_energy_per_machine_and_day(deployed, energy):
    found = answer(deployed, 1)

    expected = recent(energy)
    keys = list(zip(found["machine"].str[-1].astype(int), found["local_date"], strict=True))
    assert sorted(keys) == sorted(expected.index)
    assert found["energy_kwh"].to_list() == pytest.approx([expected[key] for key in keys])
    hours = dict(zip(keys, found["day_hours"], strict=True))
    assert (hours[1, date(2026, 3, 29)], hours[2, date(2026, 3, 29)]) == (23, 24)
    assert all(len(repr(kwh)) < 14 for kwh in found["energy_kwh"]), "no sixteen digits"


def price(machine: int, day: date) -> tuple[float, str]:
    if SITES[machine] == "Hall 2" and day >= date(2026, 3, 20):
        return 9.0, "INR"
    return (0.2 if day < date(2026, 3, 25) else 0.3), "EUR"


def test_cost_per_week(deployed, energy):
    found = answer(deployed, 2)

    expected: dict[tuple, float] = {}
    for (machine, day), kwh in recent(energy, SINCE_MONDAY).items():
        each, currency = price(machine, day)
        key = (day - timedelta(days=day.weekday()), SITES[machine], currency)
        expected[key] = expected.get(key, 0.0) + kwh * each
    cost = {tuple(row[:3]): float(row[3]) for row in found.itertuples(index=False)}
    assert cost == pytest.approx(expected, abs=0.011)


def verdicts(database) -> pd.DataFrame:
    found = pd.DataFrame(
        rows(
            database,
            "SELECT machine_id, utc_timestamp, anomaly FROM anomaly.anomaly_results ORDER BY 1, 2",
        ),
        columns=["machine", "at", "anomaly"],
    )
    found["at"] = pd.to_datetime(found["at"], utc=True)
    parts = [
        mine.assign(day=local_days(int(machine), mine["at"]))
        for machine, mine in found.groupby("machine")
    ]
    return pd.concat(parts)


def test_anomalies_per_week(deployed):
    found = answer(deployed, 3)

    every = verdicts(deployed)
    every = every[every["day"] >= SINCE_MONDAY]
    every["week"] = [day - timedelta(days=day.weekday()) for day in every["day"]]
    expected = every.groupby(["week", "machine"])["anomaly"].agg(["sum", "size"])
    assert [
        (row.week_start, int(row.machine[-1]), row.anomalies, row.readings)
        for row in found.itertuples()
    ] == [(*key, total, size) for key, total, size in expected.itertuples()]
    assert found["anomalies"].sum() > 10


def incidents(database) -> list[dict]:
    names = ("incident_id", "machine_id", "kind", "started_at", "ended_at", "last_at", "excess_kwh")
    found = rows(
        database,
        f"SELECT {', '.join(names)} FROM anomaly.incidents"
        " WHERE state NOT IN ('withdrawn', 'merged')",
    )
    return [dict(zip(names, row, strict=True)) for row in found]


def test_hours_in_incidents(deployed):
    found = answer(deployed, 4)

    now = datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC)
    since = now - timedelta(days=28)
    expected = {number: {"machine": 0.0, "meter": 0.0} for number in ZONES}
    for incident in incidents(deployed):
        end = incident["ended_at"] or now
        if end > since:
            lasted = end - max(incident["started_at"], since)
            expected[incident["machine_id"]][incident["kind"]] += lasted / timedelta(hours=1)
    told = {
        int(row.machine[-1]): (
            float(row.hours_in_incident),
            float(row.hours_of_meter_faults),
        )
        for row in found.itertuples()
    }
    for machine, hours in expected.items():
        assert told[machine] == pytest.approx((hours["machine"], hours["meter"]), abs=0.06)
    assert told[1][0] > 10


def test_incidents_with_most_excess_energy(deployed):
    found = answer(deployed, 5)

    begins = {
        incident["incident_id"]: incident["started_at"].astimezone(
            ZoneInfo(ZONES[incident["machine_id"]])
        )
        for incident in incidents(deployed)
    }
    expected = sorted(
        (-(i["excess_kwh"] or 0.0), i["incident_id"])
        for i in incidents(deployed)
        if i["kind"] == "machine" and begins[i["incident_id"]].date() >= SINCE
    )[:10]
    assert found["incident_id"].to_list() == [number for _, number in expected]
    assert found["excess_kwh"].to_list() == pytest.approx([-kwh for kwh, _ in expected], abs=1e-3)
    first = found.iloc[0]
    assert first["local_start"] == begins[first["incident_id"]].replace(tzinfo=None)
    assert first["excess_kwh"] > 100
    assert first["excess_cost"] == pytest.approx(first["excess_kwh"] * 0.3, abs=0.01)


def test_this_week_against_the_same_hours_of_the_last(deployed, counted):
    found = answer(deployed, 6)

    now, week = datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC), timedelta(days=7)
    for row in found.itertuples():
        machine = int(row.machine[-1])
        zone = ZoneInfo(ZONES[machine])
        monday, before = (datetime(2026, *day, tzinfo=zone) for day in ((4, 6), (3, 30)))
        # In Kolkata an hour of the clock begins half an hour later.
        minute = monday.astimezone(UTC).minute
        until = now + timedelta(minutes=minute) if minute else now
        this = used(counted[machine], monday, until)
        last = used(counted[machine], before, until - week)
        assert (row.this_week_kwh, row.last_week_kwh) == pytest.approx((this, last)), zone
    assert len(found) == len(ZONES)


def used(counter: pd.Series, start: datetime, end: datetime) -> float:
    """What a counter counted in readings from `start` to before `end`."""
    return counter[counter.index < end].iloc[-1] - counter[counter.index < start].iloc[-1]


def test_precision(deployed):
    found = answer(deployed, 7).set_index("machine")

    told = found.loc["Saw 1"]
    assert (told["real_alerts"], told["false_alarms"], float(told["precision"])) == (1, 1, 0.5)
    weeks = {
        (i["machine_id"], i["incident_id"])
        for i in incidents(deployed)
        if i["kind"] == "machine"
        and i["started_at"].astimezone(ZoneInfo(ZONES[i["machine_id"]])).date()
        >= SINCE + timedelta(days=(7 - SINCE.weekday()) % 7)
    }
    for machine in ZONES:
        mine = sum(number == machine for number, _ in weeks)
        assert found.loc[f"Saw {machine}", "alerts"] == mine
    assert pd.isna(found.loc["Saw 2", "precision"])


def test_state_of_every_machine(deployed):
    every = answer(deployed, 8)

    assert set(every["state"][~every["machine"].str.startswith("Saw")]) == {"no verdict yet"}
    found = every[every["machine"].str.startswith("Saw")]
    lasting = {i["machine_id"] for i in incidents(deployed) if i["ended_at"] is None}
    assert {int(row.machine[-1]): row.state != "normal" for row in found.itertuples()} == {
        machine: machine in lasting for machine in ZONES
    }
    last = START + (END - 1) * QUARTER
    assert [row.local_last_reading for row in found.sort_values("machine").itertuples()] == [
        last.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for zone in ZONES.values()
    ]


def test_which_model_judged_when(deployed):
    found = answer(deployed, 9)

    expected = rows(
        deployed,
        "SELECT version, effective_to FROM anomaly.model_in_force WHERE superseded_at IS NULL"
        " ORDER BY effective_from",
    )
    told = list(zip(found["model_version"], found["effective_to"], strict=True))
    assert told == [(version, end) for version, end in expected]
    assert found["detector"].to_list() == ["signals"] * len(expected)


def test_how_fresh(deployed):
    found = answer(deployed, 10).iloc[0]

    newest = START + END * QUARTER
    assert found["newest_reading_at"] == newest
    age = (datetime.now(UTC) - newest) / timedelta(minutes=1)
    assert float(found["freshness_minutes"]) == pytest.approx(age, abs=5)
    assert (found["machines"], found["backfills_running"]) == (5, 0)


# What the views say beside that ---------------------------------------------------


def test_hours_of_a_clock_add_up_to_its_days(deployed):
    wrong = rows(
        deployed,
        "SELECT d.machine, d.local_date, d.energy_kwh, h.energy_kwh FROM bi.machine_days d"
        "  FULL JOIN (SELECT machine_id, local_date, sum(energy_kwh) AS energy_kwh,"
        "                    sum(readings) AS readings, sum(incident_minutes) AS minutes,"
        "                    max(peak_power_kw) AS peak, sum(cost) AS cost"
        "               FROM bi.machine_hours GROUP BY 1, 2) h USING (machine_id, local_date)"
        " WHERE abs(d.energy_kwh - h.energy_kwh) > 1e-4 OR d.readings <> h.readings"
        "    OR d.peak_power_kw <> h.peak OR abs(d.cost - h.cost) > 0.01"
        "    OR h.minutes > d.incident_minutes + 24 OR d.machine_id IS NULL",
    )

    assert wrong == []


def test_the_hour_that_a_clock_skips_and_the_shifts(deployed):
    hours = rows(
        deployed,
        "SELECT hour, shift FROM bi.machine_hours WHERE machine_id = 1"
        " AND local_date = '2026-03-29' ORDER BY hour_start",
    )

    assert [hour for hour, _ in hours] == [0, 1, *range(3, 24)]
    assert {hour for hour, shift in hours if shift == "night"} == {0, 1, 3, 4, 5, 22, 23}
    ((other,),) = rows(deployed, "SELECT count(shift) FROM bi.machine_hours WHERE machine_id = 2")
    assert other == 0, "no shift is set for Hall 2"


def test_energy_that_is_unusual_lies_in_the_days_of_the_incidents(deployed):
    found = rows(
        deployed,
        "SELECT local_date FROM bi.machine_days WHERE machine_id = 1 AND local_date > '2026-03-31'"
        " ORDER BY excess_kwh DESC LIMIT 2",
    )

    assert {day for (day,) in found} == {date(2026, 4, 1), date(2026, 4, 8)}


def test_no_incident_without_a_known_excess_sorts_first(deployed):
    first = rows(
        deployed, "SELECT kind, excess_kwh FROM bi.incidents ORDER BY excess_kwh DESC LIMIT 1"
    )
    unknown = rows(deployed, "SELECT excess_kwh FROM bi.incidents WHERE NOT excess_known")

    assert first[0][0] == "machine"
    assert {excess for (excess,) in unknown} == {0.0}


def test_the_calendar_has_every_day_once_and_weeks_of_seven(deployed):
    ((days, distinct, weekends, mondays),) = rows(
        deployed,
        "SELECT count(*), count(DISTINCT date_key), count(*) FILTER (WHERE is_weekend),"
        " count(*) FILTER (WHERE weekday = 1 AND week_start = date) FROM bi.calendar"
        " WHERE year = 2026",
    )

    assert (days, distinct, weekends, mondays) == (365, 365, 104, 52)


# Tools --------------------------------------------------------------------------


def ask(database, statement: str) -> list[tuple]:
    """Rows that a BI log-in gets."""
    with database.engine.connect() as connection:
        connection.exec_driver_sql("SET ROLE anomaly_bi")
        found = [tuple(row) for row in connection.exec_driver_sql(statement)]
        connection.rollback()
    return found


def in_grafana(statement: str) -> str:
    """What Grafana makes of a statement for `TODAY` and the 30 days before."""
    since, until = f"'{TODAY - timedelta(days=30)}T00:00:00Z'", f"'{TODAY}T23:59:59Z'"
    statement = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN {since} AND {until}", statement)
    statement = statement.replace("$__timeFrom()", since).replace("$__timeTo()", until)
    statement = statement.replace("${site:sqlstring}", "'Hall 1','Hall 2'")
    return statement.replace("${machine:sqlstring}", "'Saw 1'")


def test_every_panel_of_the_grafana_dashboard_has_rows(deployed):
    dashboard = json.loads((PROJECT / "docker" / "grafana" / "plant.json").read_text())
    asked = {panel["title"]: panel["targets"][0]["rawSql"] for panel in dashboard["panels"]}
    variables = {
        variable["name"]: variable["query"]
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    }

    assert len(asked) >= 10
    for name, statement in {**asked, **variables}.items():
        sent = in_grafana(statement)
        assert "$" not in sent, name
        assert ask(deployed, sent), name
    assert ask(deployed, in_grafana(variables["machine"])) == [(f"Saw {n}",) for n in ZONES]


@pytest.mark.parametrize("page", ["grafana", "metabase", "power-bi"])
def test_the_statements_of_the_pages_about_tools_run(deployed, page):
    text = (PAGE.parent / f"{page}.md").read_text()
    statements = re.findall(r"```sql\n(.*?)```", text, re.S)

    assert statements
    for statement in statements:
        sent = statement.replace("{{since}}", f"DATE '{SINCE}'")
        sent = sent.replace("current_date", f"DATE '{TODAY}'").replace(
            "now()", f"TIMESTAMPTZ '{TODAY} 12:00Z'"
        )
        found = ask(deployed, sent)
        assert found or "machine_health" in sent, statement
    for view in set(re.findall(r"`(\w+)[\[.]\w+", text)):
        assert ask(deployed, f"SELECT * FROM bi.{view} LIMIT 1") or view == "sites", view
