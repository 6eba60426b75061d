"""Each kind and unit of reading gives the power that the machine drew, and no faults of its own."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import PROPERTY

from anomaly.errors import SettingsError
from anomaly.readings.measuring import measure
from anomaly.readings.meter_faults import explain_faults, final_quality, in_hindsight
from anomaly.readings.quality import Quality, quality_column
from anomaly.readings.transformers import PowerDiff
from anomaly.settings import ReadingKind, load_settings

TODAY = {"reading_kind": "energy_kwh_today"}
PER_INTERVAL = {"reading_kind": "energy_kwh_per_interval"}
UNITS = [
    *((kind, unit) for kind in ReadingKind if kind != "power_w" for unit in ("Wh", "kWh", "MWh")),
    *(("power_w", unit) for unit in ("W", "kW", "MW")),
]


def meter_of(**settings):
    return load_settings({}, **settings).meter


def measured(values, times=None, *, max_power_kw=np.nan, rolls_over_at=np.nan, **settings):
    """Readings of one machine at times, or one per interval, as scoring measures them."""
    meter = meter_of(**settings)
    if times is None:
        times = pd.date_range("2024-03-01", periods=len(values), freq=meter.interval, tz="UTC")
    long = pd.DataFrame(
        {
            "machine_id": 1,
            "utc_timestamp": pd.DatetimeIndex(times).astype("datetime64[us, UTC]"),
            "reading": np.asarray(values, float),
            "duplicate": False,
        }
    )
    machines = pd.DataFrame(
        {"machine_id": [1], "max_power_kw": [max_power_kw], "rolls_over_at": [rolls_over_at]}
    )
    steps = PowerDiff(meter.interval_minutes, meter.max_gap_days, meter.change_scale)
    return measure(steps.transform(long), machines, meter)


def profile(longest_flat_hours=1.0, flat_share=0.0, highest_kw=np.nan):
    row = {
        "readings": 9,
        "longest_flat_hours": longest_flat_hours,
        "flat_share": flat_share,
        "highest_kw": highest_kw,
    }
    return pd.DataFrame([row], index=pd.Index([1], name="machine_id"))


def judged(frame, profiles, **settings):
    """Readings in hindsight, with their final quality by name and the reasons."""
    meter = meter_of(**settings)
    seen = in_hindsight(frame, profiles, meter)
    quality = final_quality(seen, profiles, meter)
    reason = explain_faults(seen, quality, meter)
    return seen.assign(quality=quality_column(quality).astype(str), reason=reason)


# Units ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "unit", "minutes", "scale"),
    [
        ("energy_kwh", "", 15, Fraction(1)),
        ("energy_kwh", "Wh", 15, Fraction(1, 1000)),
        ("energy_kwh_today", "MWh", 15, Fraction(1000)),
        ("energy_kwh_per_interval", "", 15, Fraction(4)),
        ("energy_kwh_per_interval", "Wh", 7, Fraction(60, 7000)),
        ("power_w", "", 15, Fraction(1, 1000)),
        ("power_w", "kW", 15, Fraction(1)),
        ("power_w", "MW", 15, Fraction(1000)),
    ],
)
def test_one_unit_of_a_reading_is_so_many_kwh_or_kw(kind, unit, minutes, scale):
    meter = meter_of(reading_kind=kind, reading_unit=unit, interval_minutes=minutes)

    assert meter.scale == scale
    assert meter.change_scale == (scale if meter.is_counter else 1000 * scale)


@pytest.mark.parametrize(
    ("kind", "unit", "said"),
    [
        ("energy_kwh", "W", "'W', .*'energy_kwh': set Wh, kWh or MWh"),
        ("energy_kwh_per_interval", "kW", "'kW', .*'energy_kwh_per_interval': set Wh, kWh or MWh"),
        ("power_w", "kWh", "'kWh', .*'power_w': set W, kW or MW"),
        ("energy_kwh", "kwh", "'kwh', .*set Wh, kWh or MWh"),
    ],
)
def test_a_unit_that_does_not_fit_the_kind_is_refused_with_those_that_do(kind, unit, said):
    with pytest.raises(SettingsError, match=f"ANOMALY_READING_UNIT is {said}"):
        load_settings({"ANOMALY_READING_KIND": kind, "ANOMALY_READING_UNIT": unit})
    with pytest.raises(SettingsError, match=f"ANOMALY_READING_UNIT is {said}"):
        load_settings({}).changed(reading_kind=kind, reading_unit=unit)


def test_a_counter_of_the_day_that_is_read_once_a_day_is_refused():
    with pytest.raises(SettingsError, match=r"is 1440, too long for .*energy_kwh_per_interval"):
        load_settings({}, reading_kind="energy_kwh_today", interval_minutes=1440)


def readings_as(kind, unit, energy_kwh, minutes):
    """Energies of intervals as a meter of that kind and unit shows them; the day is 96 long."""
    if kind == "power_w":
        return np.array(energy_kwh) * 60 / minutes * {"W": 1000, "kW": 1, "MW": 0.001}[unit]
    per_kwh = {"Wh": 1000, "kWh": 1, "MWh": 0.001}[unit]
    if kind == "energy_kwh_per_interval":
        return np.array(energy_kwh) * per_kwh
    whole = np.cumsum(energy_kwh)
    if kind == "energy_kwh_today":
        day = np.arange(len(whole)) // 96
        whole = whole - np.append(0.0, whole[95::96])[day]
    return (1234.5 if kind == "energy_kwh" else 0) * per_kwh + whole * per_kwh


@PROPERTY
@given(
    energy=st.lists(st.floats(0.01, 50), min_size=2, max_size=200),
    minutes=st.sampled_from([5, 7, 15, 30, 60]),
)
def test_the_same_energy_gives_the_same_power_in_every_kind_and_unit(energy, minutes):
    expected = np.array(energy) * 60 / minutes
    for kind, unit in UNITS:
        frame = measured(
            readings_as(kind, unit, energy, minutes),
            reading_kind=kind,
            reading_unit=unit,
            interval_minutes=minutes,
        )
        power = frame["power_kw"].to_numpy()
        unknown = np.arange(len(energy)) == 0
        if kind == "energy_kwh_today":
            restarts = (np.arange(len(energy)) % 96 == 0) & (frame["quality"] == Quality.FIRST)
            unknown = unknown | restarts.to_numpy()
        assert np.isnan(power).tolist() == unknown.tolist()
        np.testing.assert_allclose(power[~unknown], expected[~unknown], rtol=1e-9, atol=1e-8)
        assert set(frame["quality"][~unknown]) <= {Quality.OK}


@pytest.mark.parametrize("unit", ["Wh", "kWh", "MWh"])
@pytest.mark.parametrize("kind", ["energy_kwh", "energy_kwh_today"])
def test_a_fall_by_the_resolution_is_rounding_in_every_unit(kind, unit):
    kwh = np.array([500.0, 500.4, 500.399, 500.9, 500.8])
    per_kwh = {"Wh": 1000, "kWh": 1, "MWh": 0.001}[unit]

    frame = measured(kwh * per_kwh, reading_kind=kind, reading_unit=unit, meter_resolution_kwh=0.01)

    fell = Quality.RESET if kind == "energy_kwh" else Quality.FIRST
    assert frame["quality"].tolist() == [Quality.FIRST, *[Quality.OK] * 3, fell]
    assert frame["still"].tolist() == [False, False, True, False, False]
    assert frame["power_kw"][2] == 0.0


@pytest.mark.parametrize(("kind", "unit"), UNITS)
def test_garbage_is_garbage_in_every_unit(kind, unit):
    meter = meter_of(reading_kind=kind, reading_unit=unit)
    most = 1e12 / float(meter.change_scale)

    frame = measured(
        [1.0, most * 1.01, 1.0, 1e308, -1e308, 1.0], reading_kind=kind, reading_unit=unit
    )

    garbage = (frame["quality"] == Quality.IMPOSSIBLE).tolist()
    assert garbage == [False, True, False, True, True, False]
    reason = judged(frame, profile(), reading_kind=kind, reading_unit=unit)["reason"][3]
    assert reason == "impossible: the meter reads 1e+308"


def test_a_roll_over_is_set_in_kwh_whatever_the_unit():
    frame = measured([999_999e3, 1e3], rolls_over_at=1_000_000.0, reading_unit="Wh")

    assert frame["quality"].tolist()[1] == Quality.ROLLOVER
    assert frame["power_kw"][1] == 8.0


def test_reasons_show_readings_in_their_unit_and_energy_in_kwh():
    megawatt_hours = [0.050, 0.052, 0.010, 0.056, 0.058, 0.003]
    settings = {"reading_unit": "MWh"}

    seen = judged(measured(megawatt_hours, **settings), profile(highest_kw=10.0), **settings)

    assert seen["reason"].fillna("").tolist()[2:] == [
        "meter wrong: it read 0.010000 MWh, which later readings contradict",
        "meter right again: 4.0 kWh in the last 0.5 h",
        "",
        "meter reset: the counter fell by 55.000 kWh",
    ]


# Energy of each interval ------------------------------------------------------------


def test_energy_of_an_interval_is_that_of_its_own_interval_after_a_gap_as_well():
    times = pd.to_datetime(["2024-03-01 00:00Z", "2024-03-01 00:15Z", "2024-03-01 03:15Z"])

    frame = measured([2.0, 3.0, 1.5], times, **PER_INTERVAL)

    assert np.isnan(frame["power_kw"][0])
    assert frame["power_kw"].tolist()[1:] == [12.0, 6.0]
    assert frame["power_diff"].tolist() == [0.0, 16_000.0, -2_000.0]  # W per hour, as of watts
    assert frame["quality"].tolist() == [Quality.FIRST, Quality.OK, Quality.GAP]


def test_energy_of_intervals_may_fall_and_be_negative_and_never_rolls_over():
    frame = measured([5.0, 0.5, -0.25], rolls_over_at=6.0, **PER_INTERVAL)
    seen = judged(frame, profile(highest_kw=20.0), **PER_INTERVAL)

    assert frame["power_kw"].tolist()[1:] == [2.0, -1.0]
    assert seen["quality"].tolist() == ["first", "ok", "ok"]


# A counter that restarts each day ------------------------------------------------------


def test_a_restart_has_no_power_and_is_the_first_of_a_new_count():
    frame = measured([40.0, 42.0, 1.0, 3.0], rolls_over_at=45.0, **TODAY)
    seen = judged(frame, profile(highest_kw=8.0), **TODAY)

    assert seen["quality"].tolist() == ["first", "ok", "first", "ok"]
    assert seen["power_kw"].isna().tolist() == [True, False, True, False]
    assert seen["power_kw"].tolist()[1::2] == [8.0, 8.0]
    assert seen["power_diff"].tolist() == [0.0, 8.0, 0.0, 8.0]
    assert seen["reason"].isna().all()


def test_a_machine_that_is_off_over_midnight_stands_still_and_nothing_is_wrong():
    values = [3.0, *[3.0] * 20, 0.0, *[0.0] * 40, 1.0, 2.0]

    seen = judged(measured(values, **TODAY), profile(24.0, 0.5, 8.0), **TODAY)

    assert seen["quality"].tolist() == ["first", *["ok"] * 20, "first", *["ok"] * 42]
    assert seen["flat_hours"][20] == 5.0
    assert seen["flat_hours"][21] == 0.0  # the restart is a change
    assert seen["flat_hours"][61] == 10.0
    assert set(seen["power_kw"][22:62]) == {0.0}


def test_a_count_of_nothing_that_restarts_at_nothing_is_one_flat_run():
    seen = judged(measured([0.0] * 200, **TODAY), profile(24.0, 1.0, 8.0), **TODAY)

    assert seen["quality"].tolist() == ["first", *["ok"] * 199]
    assert set(seen["power_kw"][1:]) == {0.0}
    assert seen["flat_hours"].max() == 24.0


def test_a_machine_that_never_stands_still_is_stuck_across_midnight_as_well():
    frozen = [10.0, 12.0, *[14.0] * 30, 3.0, 5.0]

    seen = judged(measured(frozen, **TODAY), profile(highest_kw=8.0), **TODAY)

    assert seen["quality"].tolist()[-2:] == ["first", "ok"]  # it has restarted in between
    assert set(seen["quality"][16:32]) == {"stuck"}


def test_a_counter_that_is_dead_after_a_restart_is_stuck():
    seen = judged(measured([10.0, 12.0, *[0.0] * 40], **TODAY), profile(highest_kw=8.0), **TODAY)

    assert seen["quality"][2] == "first"
    assert seen["quality"].tolist()[-20:] == ["stuck"] * 20


def test_a_zero_in_between_is_contradicted_when_the_count_goes_on():
    frame = measured([50.0, 52.0, 0.0, 56.0, 58.0], **TODAY)

    seen = judged(frame, profile(highest_kw=8.0), **TODAY)

    assert seen["quality"].tolist() == ["first", "ok", "contradicted", "catch_up", "ok"]
    assert seen["power_kw"].tolist()[3:] == [8.0, 8.0]
    at_once = in_hindsight(frame, profile(highest_kw=8.0), meter_of(**TODAY), later=False)
    assert at_once["quality"].tolist()[2] == Quality.FIRST


def test_a_restart_after_a_day_of_little_use_is_not_taken_for_a_wrong_reading():
    """The count passes yesterday's at once, and the machine can have used that much."""
    standby = [0.1, 0.2, 0.3]

    seen = judged(measured([*standby, 0.0, 2.0, 4.0], **TODAY), profile(highest_kw=8.0), **TODAY)

    assert seen["quality"].tolist() == ["first", "ok", "ok", "first", "ok", "ok"]
    assert seen["power_kw"].tolist()[4:] == [8.0, 8.0]


def test_a_leap_before_a_restart_contradicts_nothing():
    seen = judged(measured([0.0, 0.1, 5.1, 0.1, 0.2], **TODAY), profile(9.0, 0.5, 8.0), **TODAY)

    assert seen["quality"].tolist() == ["first", "ok", "ok", "first", "ok"]


def test_a_meter_that_stood_still_catches_up_within_a_day():
    values = [10.0, 12.0, 14.0, 14.0, 14.0, 20.0, 22.0]

    seen = judged(measured(values, **TODAY), profile(highest_kw=8.0), **TODAY)

    assert seen["quality"].tolist()[2:] == ["ok", "contradicted", "contradicted", "catch_up", "ok"]
    assert seen["power_kw"][5] == 8.0


def test_energy_after_half_a_day_without_a_reading_is_not_known():
    """It may have restarted, and counted past the old value since."""
    times = pd.to_datetime(["2024-03-01 02:00Z", "2024-03-01 13:45Z", "2024-03-02 01:45Z"])

    frame = measured([2.0, 25.5, 30.0], times, **TODAY)

    assert frame["quality"].tolist() == [Quality.FIRST, Quality.GAP, Quality.FIRST]
    assert frame["power_kw"][1] == 2.0
    assert np.isnan(frame["power_kw"][2])


def test_a_catch_up_after_half_a_day_has_no_power_and_says_so():
    values = [10.0, 12.0, *[14.0] * 50, 40.0]

    seen = judged(measured(values, **TODAY), profile(20.0, 0.0, 8.0), **TODAY).iloc[-1]

    assert seen["quality"] == "catch_up"
    assert np.isnan(seen["power_kw"])
    assert seen["reason"].startswith("meter moves again after it stood still")


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC"])
@pytest.mark.parametrize("unit", ["Wh", "kWh", "MWh"])
def test_a_month_with_a_change_of_clocks_has_a_restart_each_local_day_and_no_fault(zone, unit):
    """March and October have the days of 23 and of 25 hours."""
    per_kwh = {"Wh": 1000, "kWh": 1, "MWh": 0.001}[unit]
    for month in ("2024-03", "2024-10"):
        times = pd.date_range(f"{month}-01", periods=31 * 96, freq="15min", tz="UTC")
        local = times.tz_convert(zone)
        power = 8 + 2 * np.sin(local.hour.to_numpy() / 24 * 2 * np.pi)
        day = pd.Series(local.normalize().tz_localize(None))
        counted = pd.Series(power / 4).groupby(day).cumsum().round(3).to_numpy()
        settings = {**TODAY, "reading_unit": unit}

        frame = measured(counted * per_kwh, times, **settings)
        seen = judged(frame, profile(highest_kw=10.0), **settings)

        midnights = day.ne(day.shift()).to_numpy()
        assert (seen["quality"] == "first").tolist() == midnights.tolist()
        assert (seen["quality"] == "ok").tolist() == (~midnights).tolist()
        np.testing.assert_allclose(seen["power_kw"][~midnights], power[~midnights], atol=0.0041)
