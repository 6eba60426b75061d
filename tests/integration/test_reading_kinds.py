"""Each kind and unit of reading, from the meter table to what an incident costs."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from anomaly.cli.app import app
from anomaly.database.connection import Database
from anomaly.errors import SettingsError
from anomaly.settings import load_settings
from deployment import QUARTER, at, execute, insert, rows, score, train

DAY = 96
ZONE = "Europe/Berlin"
TRAINED, END = 29 * DAY, 36 * DAY  # from 2 March 2026 on: the clock is set forward on the 29th
FAULT = slice(32 * DAY + 18 * 4, 33 * DAY)  # 20:00 to 02:00 in Berlin
MORE_KW = 20.0
MIDNIGHT = 32 * DAY + 22 * 4  # in the midst of it
CASES = {
    "kWh": {"reading_kind": "energy_kwh"},
    "MWh": {"reading_kind": "energy_kwh", "reading_unit": "MWh"},
    "today": {"reading_kind": "energy_kwh_today"},
    "today Wh": {"reading_kind": "energy_kwh_today", "reading_unit": "Wh"},
    "interval": {"reading_kind": "energy_kwh_per_interval"},
    "interval MWh": {"reading_kind": "energy_kwh_per_interval", "reading_unit": "MWh"},
    "W": {"reading_kind": "power_w"},
    "kW": {"reading_kind": "power_w", "reading_unit": "kW"},
}


def energy():
    """What two machines use in each quarter-hour, kWh: 16 kW, one of them 36 kW for six hours."""
    random = np.random.default_rng(3)
    power = random.normal(16, 0.4, (END, 2))
    power[FAULT, 0] += MORE_KW
    return (power / 4).round(3)


def restarts():
    """Quarter-hours with which a day of Berlin begins."""
    local = pd.date_range(at(0), periods=END, freq=QUARTER).tz_convert(ZONE)
    return (local.hour == 0) & (local.minute == 0)


def readings_as(used, reading_kind, reading_unit=""):
    """The same energy as a meter of that kind shows it."""
    factor = {"Wh": 1000, "MWh": 0.001, "W": 1000, "kW": 1}.get(reading_unit, 1)
    if reading_kind == "power_w":
        return used * 4 * (1000 if not reading_unit else factor)
    if reading_kind == "energy_kwh_per_interval":
        return used * factor
    days = np.cumsum(restarts()) if reading_kind == "energy_kwh_today" else np.zeros(END)
    counted = pd.DataFrame(used).groupby(days).cumsum().to_numpy()
    return counted.round(3) * factor


@pytest.fixture(scope="module", params=CASES)
def deployed(request, postgres, migrated, tmp_path_factory):
    """A meter table of such readings, trained on four weeks and scored whole."""
    name = f"kinds_{list(CASES).index(request.param)}"
    settings = load_settings(
        {}, models_url=str(tmp_path_factory.mktemp("models")), **CASES[request.param]
    )
    postgres.create_database(name, template=migrated)
    database = Database(postgres.url(name), settings.database)
    readings = readings_as(energy(), **CASES[request.param])
    frame = pd.DataFrame(readings, columns=["machine_1", "machine_2"])
    frame.insert(0, "utc_timestamp", [at(quarter) for quarter in range(END)])
    insert(database, frame)
    train(database, settings, TRAINED)
    execute(database, f"UPDATE anomaly.machines SET time_zone = '{ZONE}'")
    score(database, settings, 0, END)
    yield database, settings, frame
    database.dispose()
    postgres.drop_database(name)


def verdicts_of(database, machine):
    names = ["at", "reading", "power_kw", "power_diff", "anomaly", "anomaly_score", "quality"]
    found = rows(
        database,
        "SELECT utc_timestamp, reading, power_kw, power_diff, anomaly, anomaly_score, quality"
        "  FROM anomaly.anomaly_results WHERE machine_id = :m ORDER BY 1",
        m=machine,
    )
    return pd.DataFrame(found, columns=names)


def incidents_of(database, settings):
    """Incidents as the command line lists them, at 0.25 per kWh."""
    environment = {
        "ANOMALY_DATABASE_URL": database.engine.url.render_as_string(hide_password=False),
        "ANOMALY_READING_KIND": settings.meter.reading_kind.value,
        "ANOMALY_READING_UNIT": settings.meter.reading_unit,
        "ANOMALY_PRICE_PER_KWH": "0.25",
    }
    shown = CliRunner().invoke(app, ["incidents", "--all", "--json"], env=environment)
    assert shown.exit_code == 0, shown.output
    return json.loads(shown.output)


def test_power_is_that_of_the_machine_and_readings_are_kept_as_they_are(deployed):
    database, settings, frame = deployed
    used = energy()
    for machine in (1, 2):
        found = verdicts_of(database, machine)

        assert found["reading"].tolist() == frame[f"machine_{machine}"].tolist()
        unknown = np.arange(END) == 0
        if settings.meter.restarts_daily:
            unknown |= restarts()
        assert found["power_kw"].isna().tolist() == unknown.tolist()
        assert (found["quality"] == "first").tolist() == unknown.tolist()
        assert set(found["quality"][~unknown]) == {"ok"}
        np.testing.assert_allclose(
            found["power_kw"][~unknown], used[~unknown, machine - 1] * 4, rtol=1e-9, atol=1e-7
        )


def test_six_hours_of_20_kw_more_are_one_incident_of_120_kwh(deployed):
    """A counter of the day does not show the quarter-hour before it restarts: 115 kWh."""
    database, settings, _ = deployed

    found = incidents_of(database, settings)

    assert {one["kind"] for one in found} == {"machine"}
    moment = at(MIDNIGHT).isoformat()
    (incident,) = (one for one in found if one["started_at"] < moment < (one["ended_at"] or ""))
    assert pd.Timestamp(incident["started_at"]) == at(FAULT.start)
    kwh = MORE_KW * (23 if settings.meter.restarts_daily else 24) / 4
    assert incident["excess_kwh"] == pytest.approx(kwh, rel=0.02)
    assert incident["cost"] == pytest.approx(kwh * 0.25, rel=0.02)
    assert re.match(r"[\d.]+ kW, .* above the usual 16(\.\d)? kW, on average", incident["reason"])
    found = verdicts_of(database, 1)
    assert found["anomaly"][MIDNIGHT - 1 : MIDNIGHT + 1].tolist() == [
        1,
        0 if settings.meter.restarts_daily else 1,
    ]


def test_another_kind_or_unit_than_the_models_is_refused(deployed):
    database, settings, _ = deployed
    meter = settings.meter
    own = f"was trained on {meter.reading_kind.value} in {meter.unit} every 15 minutes"
    for other in CASES.values():
        changed = settings.changed(**({"reading_unit": ""} | other))
        if (changed.meter.reading_kind, changed.meter.unit) != (meter.reading_kind, meter.unit):
            with pytest.raises(SettingsError, match=own):
                score(database, changed, 0, 10)


@pytest.fixture(scope="module")
def judged(postgres, migrated, tmp_path_factory):
    """Verdicts on the same counters in kWh and in MWh."""
    found = []
    for name in ("kWh", "MWh"):
        folder = tmp_path_factory.mktemp("models")
        settings = load_settings({}, models_url=str(folder), **CASES[name])
        postgres.create_database(f"same_{name.lower()}", template=migrated)
        database = Database(postgres.url(f"same_{name.lower()}"), settings.database)
        frame = pd.DataFrame(readings_as(energy(), **CASES[name])).add_prefix("machine_")
        frame.insert(0, "utc_timestamp", [at(quarter) for quarter in range(END)])
        insert(database, frame.rename(columns={"machine_0": "machine_3"}))
        train(database, settings, TRAINED)
        score(database, settings, 0, END)
        found.append(verdicts_of(database, 3))
        database.dispose()
        postgres.drop_database(f"same_{name.lower()}")
    return found


def test_mwh_and_kwh_give_the_same_verdicts(judged):
    kwh, mwh = judged

    for name in ("anomaly", "quality"):
        assert kwh[name].tolist() == mwh[name].tolist()
    assert kwh["anomaly"].sum() > 10
    for name in ("power_kw", "power_diff"):
        np.testing.assert_allclose(kwh[name], mwh[name], rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(kwh["anomaly_score"], mwh["anomaly_score"], atol=1e-3)
