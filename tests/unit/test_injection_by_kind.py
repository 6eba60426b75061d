"""Faults are injected alike into every kind and unit of reading."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from anomaly.evaluation.baselines import AbsoluteChange, PrototypeForest
from anomaly.evaluation.fault_injection import inject
from anomaly.evaluation.our_detector import SignalsContender, measured_readings
from anomaly.evaluation.physical_faults import inject_physical
from anomaly.settings import load_settings
from anomaly.windows import Window

WEEK = Window.parse("2017-04-10", "2017-04-17")
ZONE = "Europe/Berlin"
INJECTORS = {"first": inject, "physical": inject_physical}
SEEDS = range(6)


@cache
def energy():
    """Six weeks of two machines: kWh of each quarter-hour, of shifts and of one always on."""
    times = pd.date_range("2017-02-27", "2017-04-17", freq="15min", tz="UTC", inclusive="left")
    local, noise = times.tz_convert(ZONE), np.random.default_rng(5).uniform(0, 1, len(times))
    hour, day = local.hour, local.day_of_week
    shift = np.where((hour >= 6) & (hour < 20) & (day < 5), 30 + 2 * noise, 0.3 + noise / 10)
    machines = {1: shift, 2: 9 + noise / 2}
    return times, {machine: (power / 4).round(3) for machine, power in machines.items()}


@cache
def readings(kind, unit):
    times, machines = energy()
    days = pd.Series(times.tz_convert(ZONE).date)
    factor = {"MWh": 0.001, "Wh": 1000, "kW": 0.001}.get(unit, 1)
    shown = {
        "energy_kwh": lambda used: np.cumsum(used),
        "energy_kwh_today": lambda used: pd.Series(used).groupby(days).cumsum().to_numpy(),
        "energy_kwh_per_interval": lambda used: used,
        "power_w": lambda used: used * 4000,
    }[kind]
    frames = [
        pd.DataFrame(
            {
                "utc_timestamp": times,
                "machine_id": machine,
                "reading": shown(used).round(3) * factor,
            }
        )
        for machine, used in machines.items()
    ]
    return pd.concat(frames, ignore_index=True)


def settings(kind, unit):
    return load_settings({}, reading_kind=kind, reading_unit=unit)


@cache
def injected(name, kind, unit, seed):
    meter = settings(kind, unit).meter
    return INJECTORS[name](readings(kind, unit), window=WEEK, seed=seed, meter=meter, zone=ZONE)


def power_of(frame, kind, unit):
    return measured_readings(frame, settings(kind, unit).meter)["power_kw"].to_numpy()


@pytest.mark.parametrize("name", INJECTORS)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("energy_kwh", "kWh"), ("energy_kwh", "MWh")),
        (("energy_kwh_today", "kWh"), ("energy_kwh_today", "Wh")),
        (("energy_kwh_per_interval", "kWh"), ("energy_kwh_per_interval", "MWh")),
        (("energy_kwh_per_interval", "kWh"), ("power_w", "W")),
    ],
)
def test_the_same_faults_are_written_whatever_the_unit(name, one, other):
    for seed in SEEDS:
        first, second = (injected(name, *each, seed) for each in (one, other))

        assert first.events == second.events
        powers = [power_of(each.readings, *kind) for each, kind in ((first, one), (second, other))]
        np.testing.assert_allclose(*powers, rtol=1e-6, atol=0.005)


@pytest.mark.parametrize("name", INJECTORS)
def test_a_fault_in_a_counter_of_the_day_ends_with_its_day(name):
    """Its energy is counted up to the restart; no other power changes, and nothing else falls."""
    kind = ("energy_kwh_today", "kWh")
    clean = readings(*kind).assign(before=power_of(readings(*kind), *kind))
    families = set()
    for seed in SEEDS:
        found = injected(name, *kind, seed)
        after = found.readings.assign(after=power_of(found.readings, *kind))
        both = clean.merge(after, on=["machine_id", "utc_timestamp"], suffixes=("_before", ""))
        inside, times = np.zeros(len(both), bool), both["utc_timestamp"]
        next_day = np.ones(len(both), bool)
        for event in found.events:
            families.add(event.family)
            mine = (both["machine_id"] == event.machine_id).to_numpy()
            inside |= mine & times.between(event.start, event.end + pd.Timedelta("15min"))
            last = pd.Timestamp(event.end).tz_convert(ZONE).normalize() + pd.Timedelta(days=1)
            next_day &= ~(mine & (times >= event.start) & (times < last))

        changed = ~np.isclose(both["before"], both["after"], atol=0.005, equal_nan=True)
        assert changed.any()
        assert not (changed & ~inside).any()
        np.testing.assert_allclose(
            both["reading"][next_day], both["reading_before"][next_day], atol=2e-6
        )
        assert (both["reading"] >= 0).all()
        fell = both.groupby("machine_id")["reading"].diff() < -0.0005
        midnight = times.dt.tz_convert(ZONE).dt.hour + times.dt.minute / 60 == 0
        assert not (fell & ~midnight & ~inside).any()
    assert len(families) >= 3


@pytest.mark.parametrize(
    "kind",
    [
        ("energy_kwh", "MWh"), ("energy_kwh_today", "kWh"), ("energy_kwh_per_interval", "Wh"),
        ("power_w", "kW"),
    ],
)  # fmt: skip
def test_contenders_see_the_power_of_the_machine_and_no_alarm_at_a_restart(kind):
    given = settings(*kind)
    frame = readings(*kind)
    train = frame[frame["utc_timestamp"] < WEEK.start].reset_index(drop=True)

    power = AbsoluteChange(given.meter, given.training, ZONE).measure(train)["power_kw"]

    used = np.concatenate([used[: len(train) // 2] for used in energy()[1].values()])
    first = (train["machine_id"].diff() != 0).to_numpy()
    restarts = (train["reading"].diff() < 0).to_numpy() & ~first & given.meter.restarts_daily
    assert restarts.sum() == (84 if given.meter.restarts_daily else 0)
    known = ~restarts & ~(first & given.meter.is_counter)
    assert power.notna().tolist() == known.tolist()
    np.testing.assert_allclose(power[known], used[known] * 4, atol=0.0041)
    forest = PrototypeForest(given.meter, given.training, ZONE).fit(train)
    (scores,) = forest.score([train])
    assert np.isnan(scores.score[restarts]).all()
    assert np.isfinite(scores.score[known]).all()
    signals = SignalsContender(given.meter, given.training, ZONE).fit(train)
    (found,) = signals.score([train])
    assert found.alarms.empty
