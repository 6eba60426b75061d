"""What the detector `signals` measures, and in which words it says so."""

import re
from dataclasses import replace
from datetime import date, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from meters import MONDAY, SETTINGS, machines, measured, odd_readings, shifts, steady

from anomaly.detectors.signals.explaining import explain
from anomaly.detectors.signals.holiday_calendars import numbered_calendars
from anomaly.detectors.signals.shape import misfit
from anomaly.detectors.signals.signals import NAMES, Readings, measure_signals
from anomaly.detectors.signals.training import train_signals
from anomaly.detectors.signals.usual_day import day_number, local_slots, with_holidays
from anomaly.errors import SettingsError
from anomaly.readings.preprocessing import microseconds

DAYS = 35
QUARTER = timedelta(minutes=15)


@pytest.fixture(scope="module")
def detector():
    learnt = measured({1: shifts(DAYS), 2: steady(DAYS)})
    return train_signals(learnt, machines(1, 2), SETTINGS.meter, SETTINGS.training).detector


@pytest.fixture(scope="module", params=["seen", "new"])
def any_detector(request, detector):
    """Trained on the machines of `odd_readings`, or on a fleet without them."""
    if request.param == "seen":
        return detector
    learnt = measured({n: steady(14, seed=n) for n in (7, 8, 9)})
    return train_signals(learnt, machines(7, 8, 9), SETTINGS.meter, SETTINGS.training).detector


@given(frame=st.builds(odd_readings, st.integers(0, 2**32 - 1)), data=st.data())
def test_signals_depend_bit_for_bit_on_the_day_before_alone(any_detector, frame, data):
    detector = any_detector
    everything = measure_signals(detector.readings(frame), np.arange(len(frame)))
    row = data.draw(st.integers(0, len(frame) - 1))
    reading = frame.iloc[row]
    since = reading["utc_timestamp"] - timedelta(hours=24)
    near = frame[
        (frame["machine_id"] == reading["machine_id"])
        & (frame["utc_timestamp"] >= since)
        & (frame["utc_timestamp"] <= reading["utc_timestamp"])
    ]

    alone = measure_signals(detector.readings(near), np.array([len(near) - 1]))

    np.testing.assert_array_equal(alone[0], everything[row])


@given(frame=st.builds(odd_readings, st.integers(0, 2**32 - 1)), data=st.data())
def test_scores_and_reasons_do_not_depend_on_the_window(any_detector, frame, data):
    detector = any_detector
    whole = detector.score(frame, np.ones(len(frame), dtype=bool))
    start = data.draw(st.integers(0, 72))
    begins = MONDAY + timedelta(hours=start)
    near = frame["utc_timestamp"] >= begins - timedelta(hours=24)
    inside = (frame["utc_timestamp"] >= begins)[near].to_numpy()

    part = detector.score(frame[near], inside)

    wanted = (frame["utc_timestamp"] >= begins).to_numpy()
    np.testing.assert_array_equal(part.score, whole.score[wanted])
    np.testing.assert_array_equal(part.anomaly, whole.anomaly[wanted])
    assert part.reason.tolist() == whole.reason[wanted].tolist()
    np.testing.assert_array_equal(part.expected_kw, whole.expected_kw[wanted])


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu"])
@pytest.mark.parametrize("slots", [24, 96, 288])
def test_slots_are_those_of_the_local_clock_also_when_it_changes(zone, slots):
    times = pd.Series(pd.date_range("2017-03-25", "2017-10-31", freq="5min", tz="UTC"))
    rows = np.zeros(len(times), np.int64)

    days, places = local_slots(microseconds(times), rows, np.array([zone]), slots)

    local = times.dt.tz_convert(ZoneInfo(zone))
    minutes = local.dt.hour * 60 + local.dt.minute
    np.testing.assert_array_equal(days % 7, local.dt.day_of_week)
    assert days[0] == day_number(local.iloc[0].date())
    np.testing.assert_array_equal(places, minutes * slots // 1440)


def reasons(detector, power, machine, signal, zone="UTC", *, seen=True):
    """What is said of the last reading, on the clock of a zone; `seen`: of no unseen hour."""
    zones = np.full_like(detector.usual.time_zones, zone, dtype="U32")
    usual = replace(detector.usual, time_zones=zones)
    if seen:
        everything = np.full_like(usual.least_hour, np.inf)
        usual = replace(usual, least_hour=-everything, most_hour=everything)
    readings = Readings(measured({machine: power}), usual, QUARTER)
    chosen = np.array([len(power) - 1])
    centre = detector.centre[readings.rows[chosen]]
    return explain(readings, chosen, np.array([NAMES.index(signal)]), centre)


@pytest.mark.parametrize("signal", ["level_1h", "throughout_4h", "power_1h", "running_4h"])
def test_what_no_hour_of_training_held_is_said_first_and_for_how_long(detector, signal):
    power = steady(4, seed=5)[:300]
    power[-12:] = 0.6
    readings = measured({2: steady(28)})["power_kw"].rolling(4).mean()

    (reason,) = reasons(detector, power, 2, signal, seen=False)

    said = re.fullmatch(
        r"0\.600 kW for 3 h to Thu 03:00; no hour was below (\S+) kW in (\d+) weeks", reason
    )
    assert said, reason
    assert float(said[1]) == pytest.approx(readings.min(), abs=0.1)
    assert int(said[2]) == round(detector.usual.weeks[1])


def test_twice_the_power_for_an_hour_is_beyond_every_hour(detector):
    power = steady(4, seed=5)[:300]
    power[-4:] = 22.8

    (reason,) = reasons(detector, power, 2, "level_1h", seen=False)

    assert re.match(r"22\.8 kW for 1 h to Thu 03:00; no hour was above 9\.\d+ kW in", reason)


@pytest.mark.parametrize("name", ["change", "shape_6h", "run", "pause", "idle_6h"])
def test_whatever_raised_an_alarm_an_hour_that_none_was_like_is_said_first(detector, name):
    power = steady(4, seed=5)[:300]
    power[-12:] = 0.6

    (reason,) = reasons(detector, power, 2, name, seen=False)

    assert reason.startswith("0.600 kW for 3 h to Thu 03:00; no hour was below")


def test_each_column_is_the_signal_of_its_name(detector):
    power = steady(4, seed=5)[:300]
    power[-1] += 5.0
    readings = detector.readings(measured({2: power}))
    last = np.array([len(power) - 1])

    found = dict(zip(NAMES, measure_signals(readings, last)[0], strict=True))

    shown = readings.power[-4:]
    least = readings.usual.least[readings.rows[-1]]
    assert found["change"] == pytest.approx(np.arcsinh((shown[-1] - shown[-2]) / least))
    usual = shown.mean() - readings.lasting(last).mean[0]
    assert usual < found["power_1h"] <= shown.mean() + 1e-9
    assert found["shape_6h"] == pytest.approx(np.log(misfit(readings, last)[0] + least))
    assert found["flat"] == 0


@pytest.mark.parametrize(
    ("share", "quarters", "told"), [(0.01, 2, False), (0.015, 4, False), (0.1, 4, True)]
)
def test_what_costs_next_to_nothing_is_told_by_no_signal_unless_it_lasts(share, quarters, told):
    random = np.random.default_rng(4)
    power = 16 * (1 + 0.001 * random.standard_normal(96 * 42))
    learnt = measured({1: power[: 96 * 35]})
    detector = train_signals(learnt, machines(1), SETTINGS.meter, SETTINGS.training).detector
    week = power[96 * 35 :].copy()
    week[400 : 400 + quarters] *= 1 + share
    frame = measured({1: week})

    alarms = detector.score(frame, np.ones(len(frame), dtype=bool)).anomaly

    assert alarms[400 : 400 + quarters + 24].any() == told


def test_a_course_that_is_more_usual_than_usual_is_not_abnormal(detector):
    smooth = np.array([-9.0, -3.0, 0.0])
    shape, level = (
        detector.scale(detector.centre[1, k] + smooth * detector.spread[1, k], np.array([1]), k)
        for k in (NAMES.index("shape_6h"), NAMES.index("level_1h"))
    )

    assert shape.tolist() == [0, 0, 0]
    assert level == pytest.approx(smooth)


def test_a_machine_on_its_way_back_to_usual_is_no_news(detector):
    power = steady(4, seed=5)[:300]
    power[150:290] *= 3
    power[290:] *= 2
    readings = detector.readings(measured({2: power}))
    last = np.array([len(power) - 1])

    found = dict(zip(NAMES, measure_signals(readings, last)[0], strict=True))

    assert readings.lasting(last).mean[0] > 5, "it is above usual, and lower than half a day ago"
    assert found["level_1h"] == found["throughout_4h"] == 0
    usual = readings.hour_mean(last)[0] - readings.lasting(last).mean[0]
    assert found["power_1h"] == pytest.approx(usual)


def test_a_course_that_no_usual_one_explains_is_pointed_at(detector):
    power = steady(4, seed=5)[:300]
    power[-10] += 3.0  # the quarter-hour to 00:45

    (reason,) = reasons(detector, power, 2, "shape_6h")

    assert reason.startswith("its last 6 h to Thu 03:00 do not look like any of the usual courses")
    assert reason.endswith("most different in the interval to Thu 00:45")


def test_a_holiday_is_a_sunday_of_its_own_calendar_alone():
    days = np.array([day_number(date(2026, 12, day)) for day in (24, 25, 26, 28)])
    calendar, holidays = numbered_calendars(np.array(["DE", "US", ""]), days)

    assert calendar.tolist() == [0, 1, -1]
    of = [with_holidays(days, np.full(4, number), holidays).tolist() for number in calendar]
    assert of == [[3, 6, 6, 0], [3, 6, 5, 0], [3, 4, 5, 0]]


@pytest.mark.parametrize("calendar", ["Germany", "DE-XX", "xx"])
def test_a_holiday_calendar_that_is_none_is_refused_with_what_to_write(calendar):
    with pytest.raises(SettingsError, match=f"no holiday calendar '{calendar}': write a country"):
        numbered_calendars(np.array([calendar]), np.array([day_number(date(2026, 1, 1))]))


@given(
    machine=st.sampled_from([1, 2, 77]),
    signal=st.sampled_from([("level_1h", 4), ("throughout_4h", 16)]),
    times=st.floats(0, 20),
    lasted=st.integers(1, 30),
    ended=st.integers(0, 3),
    length=st.integers(120, 300),
)
def test_a_reason_names_measured_and_usual_power_of_its_span(
    detector, machine, signal, times, lasted, ended, length
):
    name, quarters = signal
    power = (shifts if machine == 1 else steady)(4, seed=5)[:length]
    power[length - ended - lasted : length - ended] *= times

    (reason,) = reasons(detector, power, machine, name)

    measured_kw, apart, unit, side, usual, fleet, hours, clock = re.match(
        r"(\S+) kW, (\S+) (%|kW) (above|below) the usual (\S+) kW( of this fleet)?, on average"
        r" over the (\d) h to (.*?)(?:; not trained yet)?$",
        reason,
    ).groups()
    frame = measured({machine: power}).tail(quarters)
    slots = frame["utc_timestamp"].dt.hour * 4 + frame["utc_timestamp"].dt.minute // 15
    kinds = (frame["utc_timestamp"].dt.day_of_week >= 5).astype(int)
    row = {1: 0, 2: 1, 77: -1}[machine]
    normal = detector.usual.median[row][kinds, slots].mean()
    end = frame["utc_timestamp"].iloc[-1] + QUARTER
    drawn = frame["reading"].diff().tail(quarters - 1).sum() + frame["power_kw"].iloc[0] / 4
    assert float(measured_kw) == pytest.approx(drawn / quarters * 4, rel=0.006, abs=0.001)
    assert float(usual) == pytest.approx(normal, rel=0.006, abs=0.001)
    beyond = float(measured_kw) - float(usual)
    assert side == ("above" if beyond >= 0 else "below")
    shown = abs(beyond) / float(usual) * 100 if unit == "%" else abs(beyond)
    assert float(apart) == pytest.approx(shown, rel=0.006, abs=0.51 if unit == "%" else 0.001)
    assert (bool(fleet), int(hours), clock) == (machine == 77, quarters // 4, f"{end:%a %H:%M}")


def test_a_reason_speaks_of_the_machines_own_clock(detector):
    power = steady(3)[:-30]  # to 16:30 UTC on a Wednesday of winter

    (reason,) = reasons(detector, power, 2, "level_1h", "Asia/Kathmandu")

    assert reason.endswith("over the 1 h to Wed 22:15")


@given(before=st.floats(0, 500), after=st.floats(0, 500))
def test_a_reason_names_both_sides_of_a_change(detector, before, after):
    power = steady(2)
    power[-2:] = before, after

    (reason,) = reasons(detector, power, 2, "change")

    said = re.fullmatch(
        r"power went from (\S+) kW to (\S+) kW in the interval to Wed 00:00", reason
    )
    assert [float(number) for number in said.groups()] == pytest.approx(
        [before, after], rel=0.006, abs=0.005
    )


@given(quarters=st.integers(1, 60))
def test_a_reason_names_the_hours_of_a_run_and_of_a_pause_beside_the_usual(detector, quarters):
    run, pause = np.full(192, 0.3), np.full(192, 30.0)
    run[100 : 100 + quarters], pause[100 : 100 + quarters] = 30.0, 0.3
    end = f"{MONDAY + (101 + quarters) * QUARTER:%a %H:%M}"

    (stopped,) = reasons(detector, run[: 101 + quarters], 1, "run")
    (started,) = reasons(detector, pause[: 101 + quarters], 1, "pause")

    usually = np.exp(detector.centre[0, [NAMES.index("run"), NAMES.index("pause")]])
    for words, reason, usual in zip(
        ["stopped after a run", "started after a pause"], [stopped, started], usually, strict=True
    ):
        said = re.fullmatch(
            rf"{words} of (\S+) h in the interval to {end}, usually (\S+) h", reason
        )
        hours = [float(number) for number in said.groups()]
        assert hours == pytest.approx([quarters / 4, usual], abs=0.051)


@given(level=st.floats(20, 100), quarters=st.integers(8, 16))  # at least half of the span
def test_a_reason_names_the_power_of_running_beside_the_usual(detector, level, quarters):
    power = np.full(96 + 48, 0.3)
    power[-16:] = 0.3
    power[-quarters:] = level

    (reason,) = reasons(detector, power, 1, "running_4h")

    usually = detector.centre[0, NAMES.index("running_4h")]
    said = re.fullmatch(
        r"ran at (\S+) kW, .* the usual (\S+) kW, on average over the 4 h to Tue 12:00", reason
    )
    assert [float(number) for number in said.groups()] == pytest.approx([level, usually], rel=0.006)


@given(still=st.integers(1, 24))
def test_a_reason_names_the_hours_of_standing_still_and_of_no_change(detector, still):
    power = shifts(4)[: 96 + 60]  # to 15:00 on a working day
    power[-still:] = 0.0

    (idle,) = reasons(detector, power, 1, "idle_6h")
    (flat,) = reasons(detector, power, 1, "flat")

    stood = re.fullmatch(
        r"stood still for (\S+) h of the 6 h to Tue 15:00, at a time at which it usually runs", idle
    )
    stuck = re.fullmatch(r"no change for (\S+) h to Tue 15:00", flat)
    assert float(stood[1]) == pytest.approx(still / 4, abs=0.051)
    assert float(stuck[1]) == pytest.approx(still / 4, abs=0.051)


def test_every_signal_has_words_of_its_own(detector):
    words = {name: reasons(detector, shifts(4, seed=5), 1, name)[0] for name in NAMES}

    assert len(set(words.values())) == len(NAMES), words


def test_what_held_throughout_four_hours_is_no_burst(detector):
    burst, overload = steady(2), steady(2)
    burst[-8::4] *= 3
    overload[-16:] *= 1.2

    found = [
        measure_signals(detector.readings(measured({2: power})), np.array([len(power) - 1]))[
            0, NAMES.index("throughout_4h")
        ]
        for power in (burst, overload)
    ]

    assert abs(found[0]) < 1
    assert found[1] > 3
