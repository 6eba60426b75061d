"""Each physical fault does to the power what its name says, where the machine allows it."""

from collections import defaultdict
from datetime import timedelta
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from anomaly.evaluation.fault_injection import APART_HOURS, Magnitude
from anomaly.evaluation.machine_habits import learn_habits, runs_of, starts_of
from anomaly.evaluation.physical_faults import (
    DOSES,
    PhysicalFault,
    inject_physical,
    is_possible,
    stretched,
    with_bursts_in_pauses,
)
from anomaly.settings import load_settings
from anomaly.windows import Window

START = pd.Timestamp("2017-02-27", tz="UTC")  # a Monday
WINDOW = Window.parse("2017-04-10", "2017-04-17")  # with the six weeks before it
ZONE = "Europe/Berlin"  # its clocks changed on 26 March
SHIFT, ALWAYS, BURSTS, FEEDER, QUIET_SUNDAY, DEAD, NEW = range(1, 8)
LIVING = (SHIFT, ALWAYS, BURSTS, FEEDER, QUIET_SUNDAY)
KINDS = [("energy_kwh", 15), ("power_w", 15), ("power_w", 30), ("energy_kwh", 60)]
SEEDS = 60
LEVEL = 30.0  # kW, of the shift


def powers(minutes):
    """Power in kW by machine, on local clocks."""
    times = pd.date_range(START, WINDOW.end, freq=f"{minutes}min", inclusive="left")
    local, rng = times.tz_convert(ZONE), np.random.default_rng(5)
    hour, day = (local.hour + local.minute / 60).to_numpy(), local.day_of_week.to_numpy()
    noise, n = rng.uniform(0, 1, len(times)), np.arange(len(times))
    runs = (n + n // 100) % 8 < 2
    return times, {
        SHIFT: np.where((hour >= 6) & (hour < 20) & (day < 5), LEVEL + 2 * noise, 0.3 + noise / 10),
        ALWAYS: 9 + noise / 2,
        BURSTS: np.where(runs, 12 + 2 * noise, 0.5 + noise / 10),
        FEEDER: 30_000 + 9_000 * np.sin(hour / 24 * 2 * np.pi) + 500 * noise,
        QUIET_SUNDAY: np.where(day < 6, 16 + noise, 4 + noise / 4),
        DEAD: np.zeros(len(times)),
    }


@cache
def clean(kind, minutes):
    times, power = powers(minutes)
    frames = [
        pd.DataFrame(
            {
                "utc_timestamp": times,
                "machine_id": machine,
                "reading": (100 + np.cumsum(kw * minutes / 60)).round(3)
                if kind == "energy_kwh"
                else (kw * 1000).round(0),
            }
        )
        for machine, kw in power.items()
    ]
    new = frames[1][times >= WINDOW.start].assign(machine_id=NEW)
    return pd.concat([*frames, new], ignore_index=True)


def meter(kind, minutes):
    return load_settings({}, reading_kind=kind, interval_minutes=minutes).meter


@cache
def habits(kind="energy_kwh", minutes=15):
    return learn_habits(
        clean(kind, minutes), until=WINDOW.start, meter=meter(kind, minutes), zone=ZONE
    )


def inject(kind, minutes, seed, readings=None, known=None):
    return inject_physical(
        clean(kind, minutes) if readings is None else readings,
        window=WINDOW,
        seed=seed,
        meter=meter(kind, minutes),
        zone=ZONE,
        habits=habits(kind, minutes) if known is None else known,
    )


@cache
def runs(kind, minutes):
    return [inject(kind, minutes, seed) for seed in range(SEEDS)]


def power_of(readings, machine, kind, minutes):
    """Power in kW, by local time."""
    rows = readings[readings["machine_id"] == machine].set_index("utc_timestamp")["reading"]
    power = rows.diff() * 60 / minutes if kind == "energy_kwh" else rows / 1000
    return power.tz_convert(ZONE)


class Case:
    """An event, with the power before and after it was written."""

    def __init__(self, event, readings, kind, minutes):
        self.event, self.machine, self.minutes = event, event.machine_id, minutes
        self.kind = kind
        self.all_before = power_of(clean(kind, minutes), self.machine, kind, minutes)
        self.all_after = power_of(readings, self.machine, kind, minutes)
        self.before = self.all_before[event.start : event.end]
        self.after = self.all_after[event.start : event.end]
        doses = DOSES[PhysicalFault(event.family)]
        self.dose = doses[list(Magnitude).index(Magnitude(event.magnitude))]
        self.habits = habits(kind, minutes)[self.machine]
        self.above = self.habits.works_above / (1 if kind == "energy_kwh" else 1000)

    @property
    def hours(self):
        return len(self.after) * self.minutes / 60

    @property
    def first_slot(self):
        local = self.after.index[0]
        return (local.hour * 60 + local.minute) // self.minutes

    def works(self, power):
        return power.to_numpy() > self.above


@cache
def cases(family):
    found = [
        Case(event, run.readings, kind, minutes)
        for kind, minutes in KINDS
        for run in runs(kind, minutes)
        for event in run.events
        if event.family == family
    ]
    assert found
    return found


def close(one, other):
    return np.allclose(one, other, rtol=1e-4, atol=0.002)


def test_families_are_only_possible_where_they_are_real():
    fault = PhysicalFault
    possible = {
        machine: {family for family in fault if is_possible(family, one)}
        for machine, one in habits().items()
    }

    level = {fault.HALF, fault.TWICE}
    assert possible == {
        SHIFT: level | {fault.WORKS_AT_REST, fault.START, fault.DROPS},
        ALWAYS: level | {fault.OFF, fault.BASE_LOAD, fault.DROPS},
        BURSTS: level | {fault.BASE_LOAD, fault.CYCLE, fault.MORE_BURSTS},
        FEEDER: level | {fault.OFF, fault.BASE_LOAD, fault.DROPS},
        QUIET_SUNDAY: level
        | {fault.OFF, fault.WORKS_AT_REST, fault.BASE_LOAD, fault.START, fault.DROPS},
        DEAD: set(),
    }


@pytest.mark.parametrize(("kind", "minutes"), KINDS)
def test_all_that_is_possible_happens_and_nothing_else(kind, minutes):
    found = {(e.machine_id, e.family) for run in runs(kind, minutes) for e in run.events}

    possible = {
        (machine, family)
        for machine, one in habits(kind, minutes).items()
        for family in PhysicalFault
        if is_possible(family, one)
    }
    assert found <= possible
    assert {family for _, family in found} == {family for _, family in possible}


def test_every_family_occurs_in_every_dose():
    found = {(e.family, e.magnitude) for run in runs("energy_kwh", 15) for e in run.events}

    assert found == {(family, magnitude) for family in PhysicalFault for magnitude in Magnitude}


@pytest.mark.parametrize(("kind", "minutes"), KINDS)
def test_events_are_few_inside_the_window_and_more_than_a_day_apart(kind, minutes):
    for run in runs(kind, minutes):
        by_machine = defaultdict(list)
        for event in run.events:
            by_machine[event.machine_id].append(event)
        assert set(by_machine) <= set(LIVING)
        assert all(len(mine) in (1, 2) for mine in by_machine.values())
        for mine in by_machine.values():
            assert all(e.start in WINDOW and e.end + timedelta(hours=1) in WINDOW for e in mine)
            assert all(b.start - a.end >= timedelta(hours=APART_HOURS) for a, b in pairwise(mine))


@pytest.mark.parametrize(("kind", "minutes"), KINDS)
def test_a_machine_changes_inside_its_events_only_and_at_both_ends_of_each(kind, minutes):
    for run in runs(kind, minutes):
        assert len(run.readings) == len(clean(kind, minutes))
        for machine in (*LIVING, DEAD, NEW):
            before = power_of(clean(kind, minutes), machine, kind, minutes)
            after = power_of(run.readings, machine, kind, minutes)
            outside = pd.Series(True, index=after.index)
            for event in run.events:
                if event.machine_id == machine:
                    outside[event.start : event.end] = False
                    changed = (after - before).abs()
                    assert changed[event.start] > 1e-6
                    assert changed[event.end] > 1e-6
            assert np.allclose(after[outside][1:], before[outside][1:], atol=1e-3)


@pytest.mark.parametrize(("kind", "minutes"), KINDS)
def test_no_power_is_negative_and_no_counter_falls(kind, minutes):
    for run in runs(kind, minutes):
        assert (run.readings["reading"] >= 0).all()
        if kind == "energy_kwh":
            assert (run.readings.groupby("machine_id")["reading"].diff().dropna() >= 0).all()


@pytest.mark.parametrize(("kind", "minutes"), KINDS)
def test_the_same_seed_gives_the_same_faults_in_any_order_of_readings(kind, minutes):
    mixed = clean(kind, minutes).sample(frac=1, random_state=1)

    again = inject_physical(
        mixed, window=WINDOW, seed=3, meter=meter(kind, minutes), zone=ZONE
    )  # learns the habits itself

    assert again.events == runs(kind, minutes)[3].events
    pd.testing.assert_frame_equal(again.readings, runs(kind, minutes)[3].readings)
    assert again.events != runs(kind, minutes)[4].events


def test_an_always_on_machine_that_is_off_draws_its_small_share():
    for case in cases(PhysicalFault.OFF):
        assert case.machine in (ALWAYS, FEEDER, QUIET_SUNDAY)
        assert case.hours == max(case.dose.hours, case.minutes / 60)
        assert close(case.after, case.before * case.dose.size)
        assert case.dose.size <= 0.05


@pytest.mark.parametrize(
    ("family", "factor"), [(PhysicalFault.HALF, 0.5), (PhysicalFault.TWICE, 2.0)]
)
def test_half_and_twice_change_the_power_of_work_by_just_that(family, factor):
    for case in cases(family):
        works = case.works(case.before)
        assert works.sum() * case.minutes / 60 >= 0.2 * case.dose.hours
        assert case.hours <= case.dose.hours
        assert close(case.after[works], case.before[works] * factor)
        assert close(case.after[~works], case.before[~works])


def test_half_and_twice_are_unlike_the_weeks_before():
    for case in [*cases(PhysicalFault.HALF), *cases(PhysicalFault.TWICE)]:
        if case.machine in (ALWAYS, FEEDER):
            week = pd.Timedelta(weeks=1)
            hour = pd.Timedelta(hours=1)  # clocks may have changed
            for back in (1, 2, 3):
                past = case.all_before[
                    case.event.start - back * week - hour : case.event.end - back * week + hour
                ]
                assert not past.min() <= case.after.mean() <= past.max()


def test_work_at_rest_is_the_power_of_a_recent_working_day():
    same_time = 0
    for case in cases(PhysicalFault.WORKS_AT_REST):
        assert case.machine in (SHIFT, QUIET_SUNDAY)
        assert not case.works(case.before).any()
        unit = 1 if case.kind == "energy_kwh" else 1000
        at_that_time = (case.first_slot + np.arange(len(case.after))) % case.habits.per_day
        days = case.habits.working_days / unit
        work = [day[at_that_time] for day in days]
        work += [
            block
            for day in days
            for block in np.lib.stride_tricks.sliding_window_view(day, len(case.after))
        ]
        like = [close(case.after, np.where(one > case.above, one, case.before)) for one in work]
        same = any(like[: len(days)])
        assert any(like)
        same_time += same
        if case.machine == QUIET_SUNDAY:
            assert same
            assert case.after.mean() > 15
        elif case.dose.hours < 24:
            assert case.works(case.after).mean() >= 0.9
    assert same_time


def test_a_whole_day_at_work_is_a_day_that_is_usually_off():
    days = [c for c in cases(PhysicalFault.WORKS_AT_REST) if c.dose.hours == 24]

    assert days
    for case in days:
        assert case.after.index[0].date() == case.after.index[-1].date()
        assert case.after.index[0].day_of_week in ((5, 6) if case.machine == SHIFT else (6,))


def test_base_load_is_up_by_its_share_all_week():
    for case in cases(PhysicalFault.BASE_LOAD):
        base = case.habits.base / (1 if case.kind == "energy_kwh" else 1000)
        lowest = {ALWAYS: 9, BURSTS: 0.5, FEEDER: 21_000, QUIET_SUNDAY: 16}[case.machine]
        assert np.isclose(base, lowest, rtol=0.1)
        assert 160 <= case.hours <= 164
        assert close(case.after, case.before + case.dose.size * base)


def test_a_base_load_that_varies_more_than_its_fault_is_left_alone():
    times, power = powers(15)
    wild = 9 * (1 + 0.4 * np.sin(np.arange(len(times)) // 96 * 2.4))  # another level each day
    energy = np.cumsum((wild + power[ALWAYS] - 9) / 4)
    readings = pd.DataFrame({"utc_timestamp": times, "machine_id": ALWAYS, "reading": energy})

    varying = learn_habits(readings, until=WINDOW.start, meter=meter("energy_kwh", 15))

    assert varying[ALWAYS].base > 5
    assert not is_possible(PhysicalFault.BASE_LOAD, varying[ALWAYS])


def test_a_cycle_changes_its_length_and_keeps_the_energy():
    longer = shorter = 0
    for case in cases(PhysicalFault.CYCLE):
        assert case.machine == BURSTS
        assert case.hours <= case.dose.hours
        assert np.isclose(case.after.sum(), case.before.sum(), rtol=1e-3)
        assert case.after.max() <= case.before.max() + 0.01
        then, now = (starts_of(case.works(p)).sum() for p in (case.before, case.after))
        assert now != then
        longer, shorter = longer + (now < then), shorter + (now > then)
    assert longer
    assert shorter


def test_a_stretched_curve_has_runs_and_pauses_so_much_longer():
    power = np.tile([10.0] * 4 + [0.0] * 8, 8)

    twice = stretched(power, 2.0)
    half = stretched(power, 0.5)

    assert np.isclose(twice.sum(), power.sum())
    assert np.isclose(half.sum(), power.sum())
    for curve, run, pause in ((twice, 8, 16), (half, 2, 4)):
        begin, end = runs_of(curve > 5)
        assert np.isin((end - begin)[1:-1], [run - 1, run, run + 1]).all()
        assert np.isin((begin[1:] - end[:-1])[1:-1], [pause - 1, pause, pause + 1]).all()


@pytest.mark.parametrize("factor", [1 / 3, 0.5, 2 / 3, 1.5, 2.0, 3.0])
def test_any_stretched_curve_keeps_its_energy_and_its_range(factor):
    for seed in range(30):
        power = np.random.default_rng(seed).exponential(size=32)
        other = stretched(power, factor)
        assert len(other) == 32
        assert np.isclose(other.sum(), power.sum())
        assert other.min() >= 0
        assert other.max() <= power.max() + 1e-9


def test_bursts_are_written_into_the_pauses_between_them():
    for case in cases(PhysicalFault.MORE_BURSTS):
        assert case.machine == BURSTS
        works = case.works(case.before)
        then, now = (starts_of(case.works(p)).sum() for p in (case.before, case.after))
        assert now >= 1.5 * then
        assert close(case.after[works], case.before[works])
        assert case.after.max() <= case.all_before.max() + 0.01
        assert (case.after >= case.before - 0.002).all()


def test_a_burst_does_not_touch_its_neighbours():
    power = np.array([0, 5, 6, 0, 0, 0, 0, 7, 0, 0, 8, 0.0])

    more = with_bursts_in_pauses(power, power > 1)

    assert more.tolist() == [0, 5, 6, 0, 5, 6, 0, 7, 0, 0, 8, 0]


def test_a_start_is_early_or_late_by_its_hours():
    early = late = 0
    for case in cases(PhysicalFault.START):
        hours = max(case.dose.hours, case.minutes / 60)
        assert case.machine in (SHIFT, QUIET_SUNDAY)
        day = slice(case.event.start - timedelta(hours=4), case.event.end + timedelta(hours=4))
        then, now = (
            p[day].index[starts_of(case.works(p[day]))] for p in (case.all_before, case.all_after)
        )
        assert len(then) == len(now) == 1
        assert abs(now[0] - then[0]) == pd.Timedelta(hours=hours)
        early, late = early + (now[0] < then[0]), late + (now[0] > then[0])
        if now[0] < then[0]:
            as_at_start = case.all_before[then[0] :].iloc[: len(case.after)]
            assert close(case.after.to_numpy(), as_at_start.to_numpy())
        if case.machine == SHIFT:
            assert then[0].day_of_week < 5
            assert then[0].hour == 6
    assert early
    assert late


def test_drop_outs_are_as_many_as_their_dose_and_an_hour_at_most():
    for case in cases(PhysicalFault.DROPS):
        down = case.after.to_numpy() < 0.1 * case.before.to_numpy()
        begin, end = runs_of(down)
        assert len(begin) == case.dose.size
        assert ((end - begin) * case.minutes <= 60).all()
        assert close(case.after[~down], case.before[~down])
        assert case.hours <= max(8, 2 * case.dose.size * case.minutes / 60)


def test_a_gap_stays_and_holds_no_event():
    gone = clean("energy_kwh", 15)["utc_timestamp"].between(
        pd.Timestamp("2017-04-11", tz="UTC"), pd.Timestamp("2017-04-13", tz="UTC")
    )
    gapped = clean("energy_kwh", 15)[~gone]

    for seed in range(20):
        run = inject("energy_kwh", 15, seed, gapped)
        assert len(run.readings) == len(gapped)
        assert run.events
        for event in run.events:
            assert event.end < pd.Timestamp("2017-04-11", tz="UTC") or (
                event.start > pd.Timestamp("2017-04-13", tz="UTC")
            )


def test_habits_are_of_the_readings_before_the_window_only():
    poisoned = clean("power_w", 15).copy()
    poisoned.loc[poisoned["utc_timestamp"] >= WINDOW.start, "reading"] *= 7

    learnt = learn_habits(poisoned, until=WINDOW.start, meter=meter("power_w", 15), zone=ZONE)

    for machine, one in habits("power_w", 15).items():
        for name, value in vars(one).items():
            np.testing.assert_array_equal(getattr(learnt[machine], name), value)


def test_two_days_are_enough_to_see_when_the_habits_are_given():
    times = clean("energy_kwh", 15)["utc_timestamp"]
    shown = clean("energy_kwh", 15)[times >= WINDOW.start - timedelta(days=2)]

    for seed in range(5):
        assert inject("energy_kwh", 15, seed, shown).events == runs("energy_kwh", 15)[seed].events


def test_usual_starts_are_on_local_clocks():
    starts = habits()[SHIFT].starts

    assert starts[:5].tolist() == [6.0] * 5
    assert np.isnan(starts[5:]).all()
    assert habits()[SHIFT].start_scatter == 0


def test_half_the_power_of_a_wild_machine_is_unlike_its_weeks_before():
    times = pd.date_range(START, WINDOW.end, freq="15min", inclusive="left")
    level = np.random.default_rng(1).uniform(10, 40, len(times) // 8 + 1)
    power = np.repeat(level, 8)[: len(times)]  # another one every two hours
    readings = pd.DataFrame({"utc_timestamp": times, "machine_id": 1, "reading": power * 1000})
    known = learn_habits(readings, until=WINDOW.start, meter=meter("power_w", 15))
    week, found = 7 * 96, 0

    for seed in range(40):
        for event in inject_physical(
            readings, window=WINDOW, seed=seed, meter=meter("power_w", 15), habits=known
        ).events:
            if event.family == PhysicalFault.HALF and event.magnitude == Magnitude.MILD:
                first, last = times.get_indexer([event.start, event.end])
                half = power[first : last + 1].mean() / 2
                weeks = [power[first - k * week : last + 1 - k * week].mean() for k in range(1, 7)]
                assert np.mean(half < np.array(weeks)) >= 0.8 or half < np.percentile(power, 6)
                found += 1
    assert found
