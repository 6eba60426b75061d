"""From readings to incidents with the detector `signals`: onset, energy, severity and reasons."""

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from anomaly.settings import load_settings
from deployment import QUARTER, execute, insert, rows, score, train

DAY = 96
START = datetime(2026, 3, 2, tzinfo=UTC)
TRAINED, END = 28 * DAY, 40 * DAY
FAULTS = {
    "overload": (30 * DAY + 72, 30 * DAY + 96, 20.0),  # from 18:00 on, for six hours
    "leak": (33 * DAY + 40, 33 * DAY + 64, 6.0),
    "stop": (35 * DAY + 8, 35 * DAY + 40, -10.0),
}
"""First and last quarter-hour (not included) of what happens to machine 1, and by how many kW."""


@pytest.fixture(scope="module")
def deployed(postgres, migrated, tmp_path_factory):
    """Six weeks of two noisy machines on Berlin's clock, trained on four, scored whole."""
    from anomaly.database.connection import Database

    settings = load_settings(models_url=str(tmp_path_factory.mktemp("models")))
    postgres.create_database("energy", template=migrated)
    database = Database(postgres.url("energy"), settings.database)
    random = np.random.default_rng(3)
    power = random.normal(16, 1.2, (END, 2)).clip(min=0.5)
    for begin, end, more in FAULTS.values():
        power[begin:end, 0] += more
    power[36 * DAY : 36 * DAY + 30, 1] = 0.0  # stands still, and catches up
    power[36 * DAY + 30, 1] = 16.0 * 31
    frame = pd.DataFrame((power / 4).cumsum(axis=0).round(3), columns=["machine_1", "machine_2"])
    frame.insert(0, "utc_timestamp", [START + quarter * QUARTER for quarter in range(END)])
    insert(database, frame)
    train(database, settings, TRAINED)
    execute(database, "UPDATE anomaly.machines SET time_zone = 'Europe/Berlin'")
    score(database, settings, 0, END)
    yield database
    database.dispose()
    postgres.drop_database("energy")


def readings(database, machine: int) -> pd.DataFrame:
    """What was metered in each interval, kWh, beside the usual and the quality."""
    frame = pd.DataFrame(
        rows(
            database,
            f"SELECT v.utc_timestamp, m.machine_{machine}, v.expected_kw, v.quality"
            "  FROM bi.verdicts v JOIN anomaly.meter_readings m USING (utc_timestamp)"
            " WHERE v.machine_id = :machine ORDER BY 1",
            machine=machine,
        ),
        columns=["at", "counter", "usual_kw", "quality"],
    )
    return frame.assign(
        kwh=frame["counter"].diff(), hours=frame["at"].diff().dt.total_seconds() / 3600
    )


def incidents(database, machine: int) -> list[dict]:
    names = (
        "incident_id", "started_at", "told_at", "ended_at", "severity", "excess_kwh", "reason",
    )  # fmt: skip
    found = rows(
        database,
        f"SELECT {', '.join(names)} FROM bi.incidents WHERE kind = 'machine'"
        " AND machine_id = :machine AND started_at >= :trained ORDER BY started_at",
        machine=machine,
        trained=START + TRAINED * QUARTER,
    )
    return [dict(zip(names, row, strict=True)) for row in found]


@pytest.mark.parametrize("name", FAULTS)
def test_an_incident_begins_with_its_deviation_and_holds_its_energy(deployed, name):
    begin, end, more = FAULTS[name]
    first, last = START + begin * QUARTER, START + end * QUARTER

    found = [i for i in incidents(deployed, 1) if i["started_at"] < last and i["ended_at"] > first]

    assert abs(found[0]["started_at"] - first) <= QUARTER
    assert found[0]["started_at"] < found[0]["told_at"]
    energy = more * (end - begin) / 4
    assert sum(i["excess_kwh"] for i in found) == pytest.approx(energy, rel=0.15)


def test_three_times_as_much_for_hours_is_critical(deployed):
    begin, _, _ = FAULTS["overload"]
    moment = START + begin * QUARTER + timedelta(hours=1)

    (found,) = [i for i in incidents(deployed, 1) if i["started_at"] <= moment < i["ended_at"]]

    assert found["severity"] == "critical"


@pytest.mark.parametrize("machine", [1, 2])
def test_the_energy_of_a_months_incidents_is_metered_minus_usual_of_the_same_intervals(
    deployed, machine
):
    frame, found = readings(deployed, machine), incidents(deployed, machine)

    inside = np.zeros(len(frame), dtype=bool)
    for incident in found:
        mine = (frame["at"] >= incident["started_at"]) & (frame["at"] < incident["ended_at"])
        assert not inside[mine].any()
        inside |= mine.to_numpy()

    sound = ~frame["quality"].isin(["stuck", "catch_up", "reset", "contradicted", "impossible"])
    beyond = frame["kwh"] - frame["usual_kw"] * frame["hours"]
    total = sum(incident["excess_kwh"] or 0 for incident in found)
    assert total == pytest.approx(beyond[inside & sound].sum(), abs=0.0005 * len(found) + 1e-6)


@pytest.mark.parametrize("machine", [1, 2])
def test_a_reason_says_what_the_counter_says_of_its_hours_on_the_machines_clock(deployed, machine):
    frame = readings(deployed, machine)
    for incident in incidents(deployed, machine):
        measured, side, usual, hours, moment = re.match(
            r"(\S+) kW, \S+ (?:%|kW) (above|below) the usual (\S+) kW, on average over (\S+) h"
            r" from \w{3} (.{16}); most unusual: ",
            incident["reason"],
        ).groups()
        inside = frame[
            (frame["at"] >= incident["started_at"]) & (frame["at"] < incident["ended_at"])
        ]
        sound = inside[inside["usual_kw"].notna()]
        lasted = (incident["ended_at"] - incident["started_at"]) / timedelta(hours=1)
        time = sound["hours"].sum()
        assert float(measured) == pytest.approx(sound["kwh"].sum() / time, rel=0.006)
        assert float(usual) == pytest.approx(
            (sound["usual_kw"] * sound["hours"]).sum() / time, rel=0.006
        )
        assert side == ("above" if float(measured) >= float(usual) else "below")
        assert (side == "above") == (incident["excess_kwh"] >= 0)
        assert float(hours) == pytest.approx(lasted, abs=0.051)
        berlin = pd.Timestamp(incident["started_at"]).tz_convert("Europe/Berlin")
        assert moment == f"{berlin:%Y-%m-%d %H:%M}"
