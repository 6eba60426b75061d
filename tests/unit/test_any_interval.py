"""Whatever means "an hour" honours the meter's interval, from a minute to a day."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from meters import MONDAY, machines

from anomaly.detectors.prototype import PrototypeDetector, fit_forest
from anomaly.detectors.signals.calibration import AlertBudgets, incident_gap
from anomaly.detectors.signals.signals import NAMES, measure_signals
from anomaly.detectors.signals.training import train_signals
from anomaly.detectors.signals.usual_day_training import Machines, TrainingReadings
from anomaly.evaluation.alert_matching import (
    GRACE,
    grace_after,
    group_incidents,
    join_gap,
    match_alerts,
)
from anomaly.evaluation.fault_injection import Event
from anomaly.evaluation.our_detector import dropout_after, measured_readings, meter_alarms
from anomaly.evaluation.thresholds import thresholds
from anomaly.incidents.episodes import join_after
from anomaly.lifecycle.gate import CHALLENGER, JudgingDays, judge_challenger
from anomaly.models.drift import Reference
from anomaly.models.model import Model
from anomaly.readings.meter_faults import profile_machines
from anomaly.settings import load_settings
from anomaly.windows import Window

INTERVALS = st.integers(1, 1440)
READINGS = 200


def settings_at(minutes, **options):
    return load_settings({}, interval_minutes=minutes, reading_kind="power_w", **options)


def gapless(minutes, readings=READINGS, seed=1):
    """Watts of one machine, a reading per interval."""
    times = pd.date_range(MONDAY, periods=readings, freq=timedelta(minutes=minutes))
    power = 9000 + 500 * np.random.default_rng(seed).standard_normal(readings)
    stamps = times.astype("datetime64[us, UTC]")
    return pd.DataFrame({"utc_timestamp": stamps, "machine_id": 1, "reading": power.round(1)})


def measured(minutes, **options):
    return measured_readings(gapless(minutes, **options), settings_at(minutes).meter)


def dropouts(readings, minutes):
    meter = settings_at(minutes).meter
    frame = measured_readings(readings.reset_index(drop=True), meter)
    return meter_alarms(frame, np.zeros(len(frame), dtype=bool), meter)


@given(minutes=INTERVALS)
def test_gapless_readings_hold_no_dropout(minutes):
    assert dropouts(gapless(minutes), minutes).empty


@given(minutes=INTERVALS)
def test_a_silence_longer_than_an_hour_and_two_intervals_is_a_dropout(minutes):
    interval = timedelta(minutes=minutes)
    missing = dropout_after(interval) // interval  # so many, and the silence lasts one more
    readings = gapless(minutes)

    assert not dropouts(readings.drop(index=range(50, 50 + missing)), minutes).empty
    assert dropouts(readings.drop(index=range(50, 50 + missing - 1)), minutes).empty


@given(minutes=INTERVALS)
def test_alarms_of_consecutive_readings_are_one_incident_for_the_judge(minutes):
    readings, interval = gapless(minutes), timedelta(minutes=minutes)
    window = Window(MONDAY.to_pydatetime(), MONDAY.to_pydatetime() + READINGS * interval)

    found = match_alerts(readings, [], window, [1], interval)

    assert len(group_incidents(readings, interval)) == 1
    assert len(found.incidents) == 1


@given(minutes=INTERVALS)
def test_alarms_of_consecutive_readings_are_one_incident_for_the_budget(minutes):
    settings = load_settings({}, interval_minutes=minutes)
    machine = Machines(np.array([1]), np.array(["UTC"]), np.array([""]))
    learnt = TrainingReadings(measured(minutes), machine, settings.meter, settings.training)

    budgets = AlertBudgets(np.ones(READINGS), learnt, np.ones(1))

    assert budgets.incidents(np.zeros(1)).tolist() == [1]


@given(minutes=INTERVALS)
def test_a_threshold_may_let_through_consecutive_readings_as_one_incident(minutes):
    readings, score = gapless(minutes), np.zeros(READINGS)
    score[50:60] = 1.0

    found = thresholds(readings, score, budget=1, weeks=1, interval=timedelta(minutes=minutes))

    assert 0 < found[1] <= 1


@given(minutes=INTERVALS)
def test_an_alert_at_the_reading_after_an_event_is_about_it(minutes):
    readings, interval = gapless(minutes), timedelta(minutes=minutes)
    start, end, after = (readings["utc_timestamp"][n].to_pydatetime() for n in (20, 30, 31))
    window = Window(MONDAY.to_pydatetime(), MONDAY.to_pydatetime() + READINGS * interval)

    found = match_alerts(
        readings[readings["utc_timestamp"] == after],
        [Event(1, "spike", "mild", start, end)],
        window,
        [1],
        interval,
    )

    assert (found.recall, found.precision) == (1, 1)


@given(minutes=INTERVALS)
def test_judge_budget_and_incidents_join_alarms_alike(minutes):
    meter = settings_at(minutes).meter

    assert join_gap(meter.interval) == incident_gap(meter.interval) == join_after(meter)


@pytest.mark.parametrize("minutes", [1, 5, 15, 30, 60])
def test_up_to_an_hour_nothing_is_stretched(minutes):
    interval = timedelta(minutes=minutes)

    assert join_gap(interval) == incident_gap(interval) == timedelta(hours=1)
    assert grace_after(interval) == GRACE
    assert dropout_after(interval) == timedelta(hours=2 if minutes == 60 else 1)


@pytest.mark.parametrize("minutes", [15, 60, 90, 241, 480, 720])
def test_deviations_are_known_at_every_reading_behind_the_first_hours(minutes):
    settings = settings_at(minutes)
    frame = measured(minutes, readings=30 * 1440 // minutes)
    detector = train_signals(frame, machines(1), settings.meter, settings.training).detector

    signals = measure_signals(detector.readings(frame), np.arange(len(frame)))

    behind = (frame["utc_timestamp"] >= MONDAY + timedelta(days=1)).to_numpy()
    for name in ("level_1h", "throughout_4h"):
        assert np.isfinite(signals[behind, NAMES.index(name)]).all()


def test_an_alarm_that_lasts_is_one_alert_for_the_gate_at_90_minutes():
    settings = settings_at(90, forest_trees=20)
    frame = measured(90, readings=30 * 16)
    detector = PrototypeDetector.compile(fit_forest(frame, settings.training), settings.meter)
    detector.offset = 1.0  # so that every reading alarms
    model = Model(detector, profile_machines(frame), "power_w", 90, Reference.of(frame))
    days = JudgingDays(frame, Window.parse("2017-03-20", "2017-03-27"))

    judgement = judge_challenger(model, None, None, frame, days, settings).judgement

    assert judgement.challenger.alerts == 1
    assert judgement.alerts_by_machine[CHALLENGER] == {"1": 1}
