"""What the detector `signals` measures, and in which words it says so."""

from datetime import timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from meters import MONDAY, SETTINGS, machines, measured, odd_readings, shifts, steady

from anomaly.signal_detector import SignalDetector
from anomaly.signals import NAMES, Readings, explain, measure_signals
from anomaly.steps import microseconds
from anomaly.usual_day import local_slots

DAYS = 35
QUARTER = timedelta(minutes=15)


@pytest.fixture(scope="module")
def detector():
    learnt = measured({1: shifts(DAYS), 2: steady(DAYS)})
    return SignalDetector.fit(learnt, machines(1, 2), SETTINGS)


@pytest.fixture(scope="module", params=["seen", "new"])
def any_detector(request, detector):
    """Trained on the machines of `odd_readings`, or on a fleet without them."""
    if request.param == "seen":
        return detector
    learnt = measured({n: steady(14, seed=n) for n in (7, 8, 9)})
    return SignalDetector.fit(learnt, machines(7, 8, 9), SETTINGS)


@given(frame=st.builds(odd_readings, st.integers(0, 2**32 - 1)), data=st.data())
def test_signals_depend_bit_for_bit_on_the_day_before_alone(any_detector, frame, data):
    detector = any_detector
    everything = measure_signals(Readings(frame, detector.usual), np.arange(len(frame)), QUARTER)
    row = data.draw(st.integers(0, len(frame) - 1))
    reading = frame.iloc[row]
    since = reading["utc_timestamp"] - timedelta(hours=24)
    near = frame[
        (frame["machine_id"] == reading["machine_id"])
        & (frame["utc_timestamp"] >= since)
        & (frame["utc_timestamp"] <= reading["utc_timestamp"])
    ]

    alone = measure_signals(Readings(near, detector.usual), np.array([len(near) - 1]), QUARTER)

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
    np.testing.assert_array_equal(days, local.dt.day_of_week)
    np.testing.assert_array_equal(places, minutes * slots // 1440)


def reasons(detector, power, machine, signal):
    readings = Readings(measured({machine: power}), detector.usual)
    chosen = np.array([len(power) - 1])
    return explain(readings, chosen, np.array([NAMES.index(signal)]), QUARTER)


def test_the_reason_says_how_far_from_which_level_and_for_how_long(detector):
    power = steady(3)[:-30]
    power[-12:] *= 1.38

    (reason,) = reasons(detector, power, 2, "level_1h")

    assert reason.startswith(("38 % above its usual Wednesday", "37 % above its usual Wednesday"))
    assert reason.endswith(" level of 9.0 kW for 3.0 h")


def test_the_reason_of_a_reading_that_is_back_to_usual_speaks_of_those_before_it(detector):
    power = steady(3)[:-30]
    power[-3] *= 5
    lasted = steady(3)[:-30]
    lasted[-16:-1] *= 1.5

    (spike,) = reasons(detector, power, 2, "level_1h")
    (overload,) = reasons(detector, lasted, 2, "throughout_4h")

    assert " above its usual Wednesday 16:15 level of 9.0 kW on average over 1 h" in spike
    assert " above its usual Wednesday 16:15 level of 9.0 kW for most of the last 4 h" in overload


def test_the_reason_says_how_long_a_run_lasted(detector):
    power = np.full(96, 0.3)
    power[60:70] = 30.0
    power = power[:71]

    assert reasons(detector, power, 1, "run") == [
        "stopped after a run of 2.5 h, unusual for this machine"
    ]


def test_the_reason_of_a_new_machine_compares_it_with_the_fleet(detector):
    power = steady(3)[:-30]
    power[-16:] = 500.0

    mean, lasting, change = (
        reasons(detector, power, 77, signal) for signal in ("level_1h", "throughout_4h", "change")
    )

    usual = detector.usual.median[-1, 0, 16 * 4 + 1]
    on = f"{usual:.1f} kW usual of this fleet on Wednesdays at 16:15"
    assert mean == [f"500.0 kW on average over 1 h, far from the {on}; not trained yet"]
    assert lasting[0].endswith(
        f" kW or more above usual for most of the last 4 h ({on}); not trained yet"
    )
    assert change == ["power changed by +0.0 kW from one reading to the next; not trained yet"]


def test_what_held_throughout_four_hours_is_no_burst(detector):
    burst, overload = steady(2), steady(2)
    burst[-8::4] *= 3
    overload[-16:] *= 1.2

    found = [
        measure_signals(
            Readings(measured({2: power}), detector.usual), np.array([len(power) - 1]), QUARTER
        )[0, NAMES.index("throughout_4h")]
        for power in (burst, overload)
    ]

    assert abs(found[0]) < 1
    assert found[1] > 3
