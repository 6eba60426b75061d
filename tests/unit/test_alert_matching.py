"""What the judge counts, on a handful of alarms each."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from anomaly.evaluation.alert_matching import (
    bootstrap_counts,
    group_incidents,
    match_alerts,
    median_interval,
    poisson_bound,
    ratio_interval,
)
from anomaly.evaluation.fault_injection import Event
from anomaly.windows import Window

WEEK = Window.parse("2017-04-10", "2017-04-17")
QUARTER = timedelta(minutes=15)


def at(text):
    return pd.Timestamp(f"2017-04-{text}", tz="UTC")


def event(start, end, machine=1, family="spike"):
    return Event(machine, family, "mild", at(start).to_pydatetime(), at(end).to_pydatetime())


def alarms(*times, machine=1):
    stamps = pd.to_datetime(pd.Series([at(time) for time in times], dtype="object"), utc=True)
    return pd.DataFrame({"machine_id": machine, "utc_timestamp": stamps})


def every_quarter(start, end, machine=1):
    times = pd.date_range(at(start), at(end), freq="15min")
    return pd.DataFrame({"machine_id": machine, "utc_timestamp": times})


LONG = event("11 08:00", "11 16:00", family="sustained overload")


def test_a_perfect_detector_finds_everything_and_raises_no_false_alert():
    events = [LONG, event("13 02:00", "13 02:00"), event("12 00:00", "12 01:00", machine=2)]
    flagged = pd.concat([every_quarter(f"{e.start:%d %H:%M}", f"{e.end:%d %H:%M}", e.machine_id)
                         for e in events])  # fmt: skip

    result = match_alerts(flagged, events, WEEK, [1, 2], QUARTER)

    assert (result.recall, result.precision, result.false_alerts) == (1, 1, 0)
    assert result.delay_hours == 0


def test_a_silent_detector_finds_nothing_and_raises_nothing():
    result = match_alerts(alarms(), [LONG], WEEK, [1], QUARTER)

    assert (result.recall, result.false_alerts) == (0, 0)
    assert np.isnan(result.precision)
    assert np.isnan(result.delay_hours)


def test_one_hit_in_a_long_event_is_one_alert_with_its_delay_and_no_more():
    result = match_alerts(alarms("11 13:00"), [LONG], WEEK, [1], QUARTER)

    assert result.events["found"].tolist() == [True]
    assert result.delay_hours == 5
    assert len(result.incidents) == 1


def test_a_hit_does_not_find_the_next_event():
    result = match_alerts(
        alarms("11 13:00"), [LONG, event("13 08:00", "13 16:00")], WEEK, [1], QUARTER
    )

    assert result.recall == 0.5


def test_an_alarm_that_stands_for_ever_finds_nothing_and_is_one_false_alert():
    standing = every_quarter("10 00:00", "16 23:45")

    result = match_alerts(standing, [LONG, event("13 08:00", "13 16:00")], WEEK, [1], QUARTER)

    assert result.recall == 0
    assert result.incidents["real"].tolist() == [False]


def test_an_alert_raised_before_an_event_is_not_about_it():
    result = match_alerts(alarms("11 07:45", "11 08:30"), [LONG], WEEK, [1], QUARTER)

    assert result.recall == 0
    assert result.false_alerts == 1


def test_several_alerts_during_one_event_are_all_real_and_the_first_counts():
    result = match_alerts(alarms("11 09:00", "11 12:00", "11 15:00"), [LONG], WEEK, [1], QUARTER)

    assert result.incidents["real"].tolist() == [True, True, True]
    assert (result.recall, result.delay_hours) == (1, 1)


@pytest.mark.parametrize(
    ("time", "found"), [("11 16:00", True), ("11 17:00", True), ("11 17:15", False)]
)
def test_an_alert_within_an_hour_after_the_last_reading_still_counts(time, found):
    result = match_alerts(alarms(time), [LONG], WEEK, [1], QUARTER)

    assert result.recall == found
    assert result.false_alerts == (not found)


def test_the_reading_in_which_a_stuck_counter_catches_up_counts():
    stuck = event("12 00:00", "12 06:00", family="stuck")

    assert match_alerts(alarms("12 06:00"), [stuck], WEEK, [1], QUARTER).recall == 1


def test_alarms_within_an_hour_are_one_incident():
    flagged = pd.concat([alarms("11 10:00", "11 09:00", "11 11:15"), alarms("11 09:30", machine=2)])

    incidents = group_incidents(flagged, QUARTER)

    assert incidents["machine_id"].tolist() == [1, 1, 2]
    assert incidents["start"].tolist() == [at("11 09:00"), at("11 11:15"), at("11 09:30")]
    assert incidents["end"].tolist() == [at("11 10:00"), at("11 11:15"), at("11 09:30")]


def test_alarms_of_consecutive_readings_are_one_incident_however_long_the_interval():
    flagged = alarms("11 09:00", "11 10:30", "11 12:00", "11 15:00")

    assert len(group_incidents(flagged, timedelta(minutes=90))) == 2


def test_an_alarm_on_another_machine_finds_nothing():
    result = match_alerts(alarms("11 09:00", machine=2), [LONG], WEEK, [1, 2], QUARTER)

    assert result.recall == 0
    assert result.false_alerts == 0.5  # per machine-week


def test_alarms_outside_the_window_and_of_machines_not_watched_are_ignored():
    flagged = pd.concat([alarms("09 23:45", "17 00:00"), alarms("12 00:00", machine=9)])

    assert match_alerts(flagged, [], WEEK, [1], QUARTER).incidents.empty


def test_random_alerts_find_about_what_chance_gives():
    rng, weeks = np.random.default_rng(0), 400
    grid = pd.date_range(WEEK.start, WEEK.end, freq="15min", inclusive="left")
    rate = 3 / len(grid)
    machine, slot = np.nonzero(rng.random((weeks, len(grid))) < rate)
    flagged = pd.DataFrame({"machine_id": machine, "utc_timestamp": grid[slot]})
    events = [event("11 08:00", "11 16:00", machine=number) for number in range(weeks)]

    result = match_alerts(flagged, events, WEEK, range(weeks), QUARTER)

    readings = 8 * 4 + 1 + 4  # of the event, and of the grace after it
    assert result.recall == pytest.approx(1 - (1 - rate) ** readings, abs=0.05)
    assert result.false_alerts == pytest.approx(3 * (1 - readings / len(grid)), abs=0.3)


def test_results_are_told_apart_by_family():
    events = [LONG, event("13 02:00", "13 02:00"), event("14 12:00", "14 12:00")]

    table = match_alerts(alarms("13 02:00", "11 10:00"), events, WEEK, [1], QUARTER).by("family")

    assert table["family"].tolist() == ["spike", "sustained overload"]
    assert table["recall"].tolist() == [0.5, 1.0]
    assert table["delay_hours"].tolist() == [0.0, 2.0]


def test_bootstrap_draws_weeks_and_within_them_seeds():
    weeks = np.repeat([0, 1, 2], 4)

    counts = bootstrap_counts(weeks, draws=50, seed=1)

    by_week = np.stack([counts[:, weeks == week].sum(axis=1) for week in range(3)])
    assert (counts.sum(axis=1) == 12).all()
    assert (by_week % 4 == 0).all()
    assert np.array_equal(counts, bootstrap_counts(weeks, draws=50, seed=1))


def test_bootstrap_intervals_contain_the_truth_about_as_often_as_they_say():
    rng, weeks, held = np.random.default_rng(3), np.repeat(np.arange(12), 5), 0
    for trial in range(60):
        found = rng.binomial(4, 0.7, size=len(weeks))
        low, high = ratio_interval(
            found, np.full(len(weeks), 4), bootstrap_counts(weeks, draws=200, seed=trial)
        )
        held += low <= 0.7 <= high
        assert high - low < 0.25
    assert held >= 50


def test_the_interval_of_a_median_contains_it_and_leaves_out_what_was_missed():
    counts = bootstrap_counts(np.arange(30), draws=300)
    delays = np.append(np.arange(29.0), np.nan)

    low, high = median_interval(delays, np.arange(30), counts)

    assert 4 < low < 14 < high < 24


def test_intervals_of_nothing_are_not_numbers():
    counts = bootstrap_counts(np.arange(3), draws=10)

    assert np.isnan(ratio_interval([0, 0, 0], [0, 0, 0], counts)).all()
    assert np.isnan(median_interval([np.nan], np.array([0]), counts)).all()


@pytest.mark.parametrize(("rate", "weeks", "bound"), [(1.0, 14.5, (8, 22)), (0.5, 4.0, (0, 5))])
def test_the_poisson_bound_holds_95_percent_of_counts(rate, weeks, bound):
    low, high = poisson_bound(rate, weeks)
    counts = np.random.default_rng(0).poisson(rate * weeks, 20_000)

    assert (low, high) == bound
    assert ((counts >= low) & (counts <= high)).mean() >= 0.95
