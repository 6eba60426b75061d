"""The energies of readings add up to what was used, whatever the meter did meanwhile."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import PROPERTY

from anomaly.readings.measuring import measure
from anomaly.readings.meter_faults import final_quality, in_hindsight
from anomaly.readings.quality import QUALITY_NAMES
from anomaly.readings.transformers import PowerDiff
from anomaly.settings import load_settings

STEP = 3.0
"""kWh that the machine draws in each quarter-hour, at 12 kW; it has never drawn more than 13."""


def energies(readings, times=None, *, kind="energy_kwh", **machine):
    """Readings as they are judged, with their energy."""
    settings = load_settings({}, reading_kind=kind)
    if times is None:
        times = pd.date_range("2026-03-02", periods=len(readings), freq="15min", tz="UTC")
    long = pd.DataFrame(
        {"machine_id": 1, "utc_timestamp": times, "reading": readings, "duplicate": False}
    ).astype({"reading": float})
    known = {"machine_id": 1, "max_power_kw": np.nan, "rolls_over_at": np.nan} | machine
    profile = {"readings": 999, "longest_flat_hours": 0.0, "flat_share": 0.0, "highest_kw": 13.0}
    profiles = pd.DataFrame([profile], index=pd.Index([1], name="machine_id"))
    rate = PowerDiff(15, 7.0, settings.meter.change_scale).transform(long)
    measured = measure(rate, pd.DataFrame([known]), settings.meter)
    seen = in_hindsight(measured, profiles, settings.meter)
    quality = final_quality(seen, profiles, settings.meter)
    return seen.assign(quality=[QUALITY_NAMES[number] for number in quality])


def counter(count=40, start=1000.0):
    return start + STEP * np.arange(count)


def test_over_a_gap_the_energy_of_the_gap_counts_once():
    times = pd.date_range("2026-03-02", periods=40, freq="15min", tz="UTC")
    seen = energies(np.delete(counter(), range(10, 22)), times.delete(range(10, 22)))

    assert seen["energy_kwh"].sum() == pytest.approx(39 * STEP)
    behind = seen.iloc[10]
    assert (behind["quality"], behind["energy_kwh"], behind["energy_hours"]) == (
        "gap", pytest.approx(13 * STEP), pytest.approx(13 / 4),
    )  # fmt: skip


def test_a_roll_over_loses_nothing():
    readings = counter(start=999_950.0) % 1_000_000

    assert energies(readings, rolls_over_at=1e6)["energy_kwh"].sum() == pytest.approx(39 * STEP)


def test_a_reset_loses_what_was_counted_since_the_reading_before_and_no_more():
    readings = counter()
    readings[20:] -= readings[20] - 1.0

    seen = energies(readings)

    assert seen["quality"][20] == "reset"
    assert np.isnan(seen["energy_kwh"][20])
    assert seen["energy_kwh"].sum() == pytest.approx(38 * STEP)


@pytest.mark.parametrize("wrong", [0.0, 4321.0, 500_000.0, 1e18])
def test_readings_that_were_wrong_count_for_nothing(wrong):
    readings = counter()
    readings[15:19] = wrong

    seen = energies(readings)

    assert seen["energy_kwh"].sum() == pytest.approx(39 * STEP)
    assert seen["energy_kwh"][15:19].isna().all()
    assert seen["energy_hours"][19] == pytest.approx(5 / 4)


@pytest.mark.parametrize("stood", [4, 120])
def test_a_meter_that_froze_and_catches_up_counts_all(stood):
    """For an hour: its power is known. For more than a day: its energy still is."""
    readings = counter(160)
    readings[20 : 20 + stood] = readings[19]

    seen = energies(readings)

    assert seen["quality"][20 + stood] == "catch_up"
    assert np.isnan(seen["power_kw"][20 + stood]) == (stood == 120)
    assert seen["energy_kwh"].sum() == pytest.approx(159 * STEP)


def test_a_reading_that_is_sent_again_within_seconds_adds_only_what_it_counted():
    times = pd.date_range("2026-03-02", periods=40, freq="15min", tz="UTC")
    again = times[10] + pd.Timedelta(seconds=20)
    readings = np.insert(counter(), 11, counter()[10] + 0.01)

    seen = energies(readings, times.insert(11, again))

    assert seen["energy_kwh"].sum() == pytest.approx(39 * STEP)
    assert seen["energy_kwh"][11] == pytest.approx(0.01)


def test_a_restart_that_is_sent_again_counts_once():
    day = STEP * np.arange(1, 97)
    readings = np.insert(np.concatenate([day, day]), 97, STEP)
    times = pd.date_range("2026-03-02", periods=192, freq="15min", tz="UTC")

    seen = energies(
        readings, times.insert(97, times[96] + pd.Timedelta(seconds=20)), kind="energy_kwh_today"
    )

    assert seen["energy_kwh"][96:].sum() == pytest.approx(day[-1])


def test_a_roll_over_that_is_sent_again_a_little_lower_counts_once():
    readings = counter(start=999_950.0) % 1_000_000
    place = int(np.flatnonzero(np.diff(readings) < 0)[0]) + 1
    times = pd.date_range("2026-03-02", periods=40, freq="15min", tz="UTC")
    again = times[place] + pd.Timedelta(seconds=20)

    seen = energies(
        np.insert(readings, place + 1, readings[place] - 0.0005),
        times.insert(place + 1, again),
        rolls_over_at=1e6,
    )

    assert seen["energy_kwh"].sum() == pytest.approx(39 * STEP)


def test_rounding_that_lets_a_counter_fall_does_not_add_up():
    jitter = np.where(np.arange(200) % 2, 0.0004, -0.0004)
    standing = 1000.0 + jitter

    assert abs(energies(standing)["energy_kwh"].sum()) < 0.001


def test_a_counter_of_the_day_counts_what_it_says_after_its_restart():
    day = STEP * np.arange(1, 97)
    seen = energies(np.concatenate([day, day]), kind="energy_kwh_today")

    assert seen["energy_kwh"][96] == STEP
    assert seen["energy_kwh"][96:].sum() == pytest.approx(day[-1])


@pytest.mark.parametrize(
    ("kind", "reading"), [("power_w", 12_000.0), ("energy_kwh_per_interval", STEP)]
)
def test_readings_of_an_interval_stand_for_one_interval(kind, reading):
    times = pd.date_range("2026-03-02", periods=40, freq="15min", tz="UTC").delete(range(10, 22))

    seen = energies(np.full(28, reading), times, kind=kind)

    assert seen["energy_kwh"].sum() == pytest.approx(27 * STEP)  # the first has no power
    assert (seen["energy_hours"][1:] == 0.25).all()


def test_what_no_machine_can_have_drawn_is_no_energy():
    readings = counter()
    readings[20:] += 50_000  # a meter exchanged for one that stands higher

    seen = energies(readings)

    assert seen["quality"][20] == "impossible"
    shown = seen["energy_kwh"].mask(seen["quality"] == "impossible")
    assert shown.sum() == pytest.approx(38 * STEP)


@PROPERTY
@given(
    st.lists(st.integers(0, 3000), min_size=3, max_size=60),
    st.lists(st.integers(4, 1800), min_size=60, max_size=60),
)
def test_energies_add_up_to_the_difference_of_the_counter(watt_hours, minutes):
    """However its readings lie in time, and however little it draws."""
    steps = pd.to_timedelta(minutes[: len(watt_hours)], unit="min")
    times = pd.Timestamp("2026-03-02", tz="UTC") + np.cumsum(steps)
    used = np.array(watt_hours) / 1000
    readings = 500.0 + np.cumsum(used)

    seen = energies(readings, times, max_power_kw=1e6)

    assert seen["energy_kwh"].sum() == pytest.approx(readings[-1] - readings[0], abs=1e-9)
    hours = (times[-1] - times[0]) / pd.Timedelta(hours=1)
    assert seen["energy_hours"].sum() == pytest.approx(hours)
