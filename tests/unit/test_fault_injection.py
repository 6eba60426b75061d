"""Injected faults are where they claim to be, and change nothing else."""

from collections import defaultdict
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from anomaly.errors import SourceError
from anomaly.evaluation.fault_injection import (
    APART_HOURS,
    DOSES,
    Family,
    Magnitude,
    inject,
    is_possible,
)
from anomaly.evaluation.ordinary_days import learn_ordinary_days
from anomaly.settings import load_settings
from anomaly.windows import Window

SETTINGS = load_settings({})
WATTS = load_settings({}, reading_kind="power_w")
START = pd.Timestamp("2017-03-06", tz="UTC")  # a Monday
WINDOW = Window.parse("2017-04-10", "2017-04-17")
QUARTER = pd.Timedelta(minutes=15)
SHIFT, ALWAYS, NEW = 1, 2, 7


def powers():
    """Power in kW: a machine that works by day, one that always runs, one without a past."""
    times = pd.date_range(START, WINDOW.end, freq=QUARTER, inclusive="left")
    rng, by_day = np.random.default_rng(5), (times.hour >= 8) & (times.hour < 18)
    shift = np.where(by_day & (times.day_of_week < 5), 30.0, 0.0) + rng.uniform(
        0.1, 0.5, len(times)
    )
    frames = [
        pd.DataFrame({"machine_id": machine, "utc_timestamp": times, "power": power})
        for machine, power in ((SHIFT, shift), (ALWAYS, 9 + rng.uniform(0, 2, len(times))))
    ]
    new = frames[1][times >= WINDOW.start].assign(machine_id=NEW)
    return pd.concat([*frames, new], ignore_index=True)


def counters(frame):
    energy = frame.groupby("machine_id")["power"].cumsum() / 4
    return frame.assign(reading=(1000 + energy).round(3))[
        ["utc_timestamp", "machine_id", "reading"]
    ]


def power_of(readings, machine):
    rows = readings[readings["machine_id"] == machine].set_index("utc_timestamp")["reading"]
    return rows.diff() * 4


@pytest.fixture(scope="module")
def clean():
    return counters(powers())


@pytest.fixture(scope="module")
def ordinary(clean):
    return learn_ordinary_days(clean, until=WINDOW.start, meter=SETTINGS.meter)


@pytest.fixture(scope="module")
def runs(clean, ordinary):
    return [
        inject(clean, window=WINDOW, seed=seed, meter=SETTINGS.meter, ordinary_days=ordinary)
        for seed in range(60)
    ]


@pytest.fixture(scope="module")
def by_family(runs):
    """Every event with the readings it was written into."""
    found = defaultdict(list)
    for run in runs:
        for event in run.events:
            found[event.family].append((event, run.readings))
    return found


def length(event):
    return round((event.end - event.start) / timedelta(minutes=15)) + 1


def dose(event):
    return DOSES[Family(event.family)][list(Magnitude).index(Magnitude(event.magnitude))]


def test_the_same_seed_gives_the_same_events_and_readings(clean, runs):
    again = inject(clean, window=WINDOW, seed=3, meter=SETTINGS.meter)

    assert again.events == runs[3].events
    pd.testing.assert_frame_equal(again.readings, runs[3].readings)
    assert again.events != runs[4].events


def test_every_family_and_magnitude_occurs(runs):
    found = {(event.family, event.magnitude) for run in runs for event in run.events}

    assert found == {(family, magnitude) for family in Family for magnitude in Magnitude}


def test_events_are_few_inside_the_window_and_more_than_a_day_apart(runs):
    for run in runs:
        for machine in (SHIFT, ALWAYS):
            mine = [event for event in run.events if event.machine_id == machine]
            assert len(mine) in (1, 2)
            assert all(e.start in WINDOW and e.end + timedelta(hours=1) in WINDOW for e in mine)
            assert all(b.start - a.end >= timedelta(hours=APART_HOURS) for a, b in pairwise(mine))


def test_counters_never_fall(runs):
    for run in runs:
        assert (run.readings.groupby("machine_id")["reading"].diff().dropna() >= 0).all()


def test_a_machine_without_a_past_and_all_readings_before_the_window_are_untouched(clean, runs):
    for run in runs:
        for part in (
            lambda frame: frame[frame["machine_id"] == NEW],
            lambda frame: frame[frame["utc_timestamp"] < WINDOW.start],
        ):
            assert part(run.readings)["reading"].tolist() == part(clean)["reading"].tolist()


def test_outside_its_events_a_machine_draws_what_it_drew(clean, runs):
    for run in runs[:20]:
        for machine in (SHIFT, ALWAYS):
            before, after = power_of(clean, machine), power_of(run.readings, machine)
            outside = pd.Series(True, index=after.index)
            for event in run.events:
                if event.machine_id == machine:
                    # The reading behind missing ones is the mean over the gap.
                    outside[event.start : event.end + QUARTER] = False
            assert np.allclose(after[outside][1:], before.reindex(after.index)[outside][1:])


def test_a_spike_adds_its_share_of_the_machines_own_range(clean, ordinary, by_family):
    for event, readings in by_family[Family.SPIKE]:
        added = power_of(readings, event.machine_id) - power_of(clean, event.machine_id)
        width = ordinary[event.machine_id].width
        assert np.allclose(added[event.start : event.end], dose(event).size * width)


def test_a_restart_surge_stops_then_overshoots_and_decays(clean, ordinary, by_family):
    for event, readings in by_family[Family.SURGE]:
        stopped, power = length(event) // 4, power_of(readings, event.machine_id)
        added = (power - power_of(clean, event.machine_id))[event.start : event.end]
        low = ordinary[event.machine_id].low
        assert (power[event.start : event.end].iloc[:stopped] <= low + 1e-6).all()
        assert added.iloc[stopped:].is_monotonic_decreasing
        assert np.isclose(added.iloc[stopped], dose(event).size * ordinary[event.machine_id].width)


def test_a_stuck_counter_stands_still_and_catches_up_in_one_reading(clean, by_family):
    for event, readings in by_family[Family.STUCK]:
        rows = readings[readings["machine_id"] == event.machine_id].set_index("utc_timestamp")
        truth = clean[clean["machine_id"] == event.machine_id].set_index("utc_timestamp")
        during = rows.loc[event.start - QUARTER : event.end - QUARTER, "reading"]
        used = truth.loc[event.end, "reading"] - truth.loc[event.start - QUARTER, "reading"]
        assert during.nunique() == 1
        assert np.isclose(rows.loc[event.end, "reading"] - during.iloc[0], used)


def test_an_overload_raises_running_power_by_its_share_and_nothing_else(clean, ordinary, by_family):
    for event, readings in by_family[Family.OVERLOAD]:
        before = power_of(clean, event.machine_id)[event.start : event.end]
        after = power_of(readings, event.machine_id)[event.start : event.end]
        running = before > ordinary[event.machine_id].running_above
        assert running.mean() >= 0.75
        assert np.allclose(after, before * np.where(running, 1 + dose(event).size, 1), atol=1e-4)


def test_a_drift_rises_slowly_to_its_share(clean, by_family):
    for event, readings in by_family[Family.DRIFT]:
        before = power_of(clean, event.machine_id)[event.start : event.end]
        ratio = power_of(readings, event.machine_id)[event.start : event.end] / before
        assert np.isclose(ratio.iloc[-1], 1 + dose(event).size, atol=1e-3)
        assert ratio.iloc[0] < 1.01
        assert (ratio.diff().dropna() > -1e-4).all()


def test_a_run_on_is_at_night_when_the_machine_was_off(clean, ordinary, by_family):
    assert by_family[Family.RUN_ON]
    for event, readings in by_family[Family.RUN_ON]:
        before = power_of(clean, event.machine_id)[event.start : event.end]
        after = power_of(readings, event.machine_id)[event.start : event.end]
        assert event.machine_id == SHIFT
        assert ((after.index.hour >= 20) | (after.index.hour < 6)).all()
        assert (before < 1).all()
        assert (after > dose(event).size * 29).all()


def test_a_missed_cycle_is_idle_where_the_machine_would_have_run(clean, by_family):
    assert by_family[Family.MISSED]
    for event, readings in by_family[Family.MISSED]:
        before = power_of(clean, event.machine_id)[event.start : event.end]
        after = power_of(readings, event.machine_id)[event.start : event.end]
        assert event.machine_id == SHIFT
        assert (before > 25).mean() >= 0.75
        assert (after < 1).all()


def test_a_dropout_takes_exactly_its_readings_away(clean, by_family):
    for event, readings in by_family[Family.DROPOUT]:
        rows = readings[readings["machine_id"] == event.machine_id]["utc_timestamp"]
        truth = clean[clean["machine_id"] == event.machine_id]["utc_timestamp"]
        during = truth[~truth.isin(rows) & (truth >= event.start) & (truth <= event.end)]
        assert len(during) == length(event) == dose(event).hours * 4


def test_what_a_fault_consumed_stays_on_the_counter(clean, by_family):
    def offset(event, readings):
        last = readings[readings["machine_id"] == event.machine_id]["reading"].iloc[-1]
        return last - clean[clean["machine_id"] == event.machine_id]["reading"].iloc[-1]

    # Seeds whose machine has one event only show it alone.
    single = {
        family: [
            offset(event, readings)
            for event, readings in events
            if sum(e.machine_id == event.machine_id for e in _events_of(by_family, readings)) == 1
        ]
        for family, events in by_family.items()
    }

    assert min(single[Family.OVERLOAD] + single[Family.RUN_ON] + single[Family.SPIKE]) > 0.1
    assert max(single[Family.MISSED]) < -10
    assert np.allclose(single[Family.STUCK] + single[Family.DROPOUT], 0)


def _events_of(by_family, readings):
    return [event for events in by_family.values() for event, rows in events if rows is readings]


def test_families_are_only_injected_where_they_mean_something(ordinary):
    on_shift = {family for family in Family if is_possible(family, ordinary[SHIFT])}
    always_on = {family for family in Family if is_possible(family, ordinary[ALWAYS])}

    assert on_shift == set(Family)
    assert set(Family) - always_on == {Family.RUN_ON, Family.MISSED}


def test_a_meter_that_is_often_flat_is_never_called_stuck():
    flat = powers().assign(power=lambda frame: frame["power"].where(frame["power"] > 1, 0.0))

    ordinary = learn_ordinary_days(counters(flat), until=WINDOW.start, meter=SETTINGS.meter)

    assert not is_possible(Family.STUCK, ordinary[SHIFT])
    assert is_possible(Family.STUCK, ordinary[ALWAYS])


def test_ordinary_days_are_learnt_from_readings_before_the_window_only(clean, runs):
    poisoned = clean.copy()
    poisoned.loc[poisoned["utc_timestamp"] >= WINDOW.start, "reading"] *= 7

    again = inject(poisoned, window=WINDOW, seed=3, meter=SETTINGS.meter)

    assert [e.family for e in again.events] == [e.family for e in runs[3].events]


def test_night_is_night_where_the_machines_stand(clean):
    events = [
        event
        for seed in range(20)
        for event in inject(
            clean, window=WINDOW, seed=seed, meter=SETTINGS.meter, zone="America/New_York"
        ).events
        if event.family == Family.RUN_ON
    ]

    assert events
    hours = {(event.start - timedelta(hours=4)).hour for event in events}
    assert hours <= {20, 21, 22, 23, 0, 1, 2, 3, 4, 5}


def test_watts_are_raised_in_place_and_a_stuck_meter_repeats_itself():
    watts = powers().assign(reading=lambda frame: frame["power"] * 1000).drop(columns="power")
    seen = set()
    for seed in range(30):
        run = inject(watts, window=WINDOW, seed=seed, meter=WATTS.meter)
        before = watts.set_index(["machine_id", "utc_timestamp"])["reading"]
        after = run.readings.set_index(["machine_id", "utc_timestamp"])["reading"]
        changed = after[after != before.reindex(after.index)].reset_index()
        for event in run.events:
            mine = changed[changed["machine_id"] == event.machine_id]
            inside = mine["utc_timestamp"].between(event.start, event.end)
            seen.add(event.family)
            if event.family == Family.STUCK:
                assert mine[inside]["reading"].nunique() == 1
        spans = [(e.machine_id, e.start, e.end) for e in run.events]
        for machine, time in changed[["machine_id", "utc_timestamp"]].itertuples(index=False):
            assert any(machine == m and start <= time <= end for m, start, end in spans)
    assert seen == set(Family)


def test_two_readings_of_one_time_are_refused(clean):
    with pytest.raises(SourceError, match="machine 1 has two readings of one time"):
        inject(pd.concat([clean, clean[:1]]), window=WINDOW, seed=0, meter=SETTINGS.meter)


def test_gaps_in_the_readings_hold_no_event(clean):
    gap = clean["utc_timestamp"].between(
        pd.Timestamp("2017-04-11", tz="UTC"), pd.Timestamp("2017-04-13", tz="UTC")
    )
    for seed in range(20):
        for event in inject(clean[~gap], window=WINDOW, seed=seed, meter=SETTINGS.meter).events:
            if event.machine_id != NEW:
                assert event.end < pd.Timestamp("2017-04-11", tz="UTC") or (
                    event.start > pd.Timestamp("2017-04-13", tz="UTC")
                )
