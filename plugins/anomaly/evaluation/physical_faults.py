"""Physical faults written into real meter readings: what breaks, slips or is left on in a plant.

A second injector beside `anomaly.evaluation.fault_injection`, with the same contract and with other
faults: each is defined by what the machine does, and is placed only where somebody who looks at
the curve, with the previous weeks beside it, could see it. Frozen by its outputs:
``tests/unit/test_frozen_judge.py``. Nothing here looks at a detector, and nothing may be adapted
to one.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from functools import partial

import numpy as np
import pandas as pd

from anomaly.arrays import Bools, Floats, Ints
from anomaly.evaluation.fault_injection import (
    MARGIN_HOURS,
    Dose,
    Injected,
    MachineInjection,
    Magnitude,
    inject_each,
    share_of,
)
from anomaly.evaluation.machine_habits import Habits, learn_habits, runs_of, starts_of
from anomaly.evaluation.ordinary_days import MachineReadings, OrdinaryDays
from anomaly.settings import MeterSettings
from anomaly.windows import Window


class PhysicalFault(StrEnum):
    """What goes wrong."""

    OFF = "always-on machine off"
    HALF = "half power"
    TWICE = "twice the power"
    WORKS_AT_REST = "works at rest"
    BASE_LOAD = "base load up"
    CYCLE = "other cycle length"
    MORE_BURSTS = "twice as many bursts"
    START = "start early or late"
    DROPS = "short drop-outs"


DOSES: Mapping[PhysicalFault, tuple[Dose, Dose, Dose]] = {
    PhysicalFault.OFF: (
        Dose(0.05, 2.0),  # share of its power. A pump stops, its control goes on
        Dose(0.02, 6.0),  # tripped, until the next shift notices; a display and a heater go on
        Dose(0.0, 16.0),  # fuse or contactor gone, in the afternoon and over the night
    ),
    PhysicalFault.HALF: (
        Dose(0.5, 1.0),  # share of its power. One of two feeders or lines jams and is cleared
        Dose(0.5, 8.0),  # one of two parallel motors, or a phase of the heating, out for a shift
        Dose(0.5, 24.0),  # the same, until the spare part comes
    ),
    PhysicalFault.TWICE: (
        Dose(2.0, 1.0),  # share of its power. A jam, or the stand-by unit runs along in a test
        Dose(2.0, 8.0),  # the stand-by unit is left on for a shift
        Dose(2.0, 24.0),  # a worn bearing or blocked flow, or both units left on, for a day
    ),
    PhysicalFault.WORKS_AT_REST: (
        Dose(1.0, 4.0),  # share of a working day's power. Not switched off for half a night
        Dose(1.0, 8.0),  # not switched off for a whole night: the shift's program runs on
        Dose(1.0, 24.0),  # the timer does not know that the plant is closed that day
    ),
    PhysicalFault.BASE_LOAD: (
        Dose(0.05, 168.0),  # share of the base load. A small leak of air, a fouled filter
        Dose(0.10, 168.0),  # a usual leak: a tenth of the compressors' base load
        Dose(0.20, 168.0),  # a stuck drain valve, or auxiliaries that no longer switch off
    ),
    PhysicalFault.CYCLE: (
        Dose(1.5, 8.0),  # times as long, or as short. A pressure switch's band moved
        Dose(2.0, 8.0),  # twice the band, or half the storage: a vessel lost its air cushion
        Dose(3.0, 24.0),  # the sensor sticks, or the storage is nearly lost, until somebody comes
    ),
    PhysicalFault.MORE_BURSTS: (
        Dose(2.0, 8.0),  # times as many. A tap was left open for a shift
        Dose(2.0, 24.0),  # a leak: the pump or compressor makes up for it all day
        Dose(2.0, 48.0),  # the same over a weekend
    ),
    PhysicalFault.START: (
        Dose(0.0, 0.5),  # a shift that begins half an hour off, a warm-up begun too soon
        Dose(0.0, 1.0),  # the timer missed the change to summer time
        Dose(0.0, 2.0),  # it did not come up until somebody was called, or was put on by the night
    ),
    PhysicalFault.DROPS: (
        Dose(2, 8.0),  # drop-outs in a shift. A loose contact trips it twice
        Dose(4, 8.0),  # a thermal protection that trips again when it was reset
        Dose(8, 8.0),  # a contactor that chatters, a jam at each other part
    ),
}

# The numbers were chosen once, before any detector was judged, and stay.
_NEARLY_NOTHING = 0.02  # share of power left in a drop-out: the control goes on
_DROP_HOURS = 1.0  # longest drop-out
_SHARE_WORKING = {1.0: 0.75, 8.0: 0.5, 24.0: 0.25}  # by hours: a day holds one shift of work
_HARDLY_STOPS = 0.9  # share of a shift in which a machine must work for drop-outs to be seen
_EVER_WORKS = 0.05  # a machine that works less has no usual power
_LEAST_BASE = 0.1  # share of the mean power: a lower base load is nothing
_MOST = 0.75  # of the time behind a start it works; of so much work is a stretch like another
_CYCLES = 4  # fewer runs in a fault's time are no cycle
_READINGS_PER_CYCLE = 3  # a cycle that is shorter than this cannot be seen by the meter
_USUAL_START = 1.0  # hours: a start that scatters more is at no usual time
_FEWEST_WEEKS = 3  # to compare with
_STANDS_OUT = 0.8  # lower, or higher, than in at least so many of the weeks before
_PLACES_TRIED = 10  # for one fault, before another is drawn
_CHANGED = 1e-6  # smaller differences of power are rounding


def inject_physical(
    readings: pd.DataFrame,
    *,
    window: Window,
    seed: int | Sequence[int],
    meter: MeterSettings,
    zone: str = "UTC",
    ordinary_days: Mapping[int, OrdinaryDays] | None = None,
    habits: Mapping[int, Habits] | None = None,
) -> Injected:
    """Write a few physical faults into the readings of `window`.

    Parameters
    ----------
    readings : DataFrame
        As for `fault_injection.inject`.
    seed : int or sequence of int
        The same seed gives the same events.
    zone : str
        Where the machines stand: decides what is the same time of day and of the week.
    ordinary_days : mapping of int to OrdinaryDays, optional
        Only used to learn `habits`, where these are not given.
    habits : mapping of int to Habits, optional
        As `learn_habits` returns them for the readings before the window. Needed when `readings`
        do not hold the weeks before the window; else saves time.

    Returns
    -------
    Injected
        One or two events per machine and week, as far apart as those of `fault_injection.inject`
        and with the same weights. A base load that is up lasts the week, within the margins of the
        window, and is then the only event. An event lasts from the first to the last reading that
        it changes. A machine without history, or with nothing that can break, stays as it is.

    Notes
    -----
    Base load is what the machine draws at its lowest on a usual day: the median of the P5 of each
    day. A leak, a fouled filter or auxiliaries that no longer switch off draw as much at night as
    at work, so a share of that base is added to all readings of the week. A share of the running
    mean would be several times the whole base of a machine that works in shifts.
    """
    ordered = readings.sort_values(["machine_id", "utc_timestamp"], ignore_index=True)
    if habits is None:
        habits = learn_habits(
            ordered, until=window.start, meter=meter, zone=zone, ordinary_days=ordinary_days
        )
    return inject_each(
        ordered,
        habits,
        {fault: partial(is_possible, fault) for fault in PhysicalFault},
        _PhysicalInjection,
        window=window,
        seed=seed,
        meter=meter,
        zone=zone,
    )


def is_possible(fault: PhysicalFault, habits: Habits) -> bool:
    """Whether such a fault can happen, and be seen, on a machine with such habits."""
    known = habits.power[np.isfinite(habits.power)]
    works = bool((known > habits.works_above).mean() >= _EVER_WORKS)
    strongest = DOSES[PhysicalFault.BASE_LOAD][-1].size * habits.base
    return {
        PhysicalFault.OFF: habits.always_on and works,
        PhysicalFault.HALF: works,
        PhysicalFault.TWICE: works,
        PhysicalFault.WORKS_AT_REST: bool(habits.usual_rest.any() and len(habits.working_days))
        and not habits.cycles,
        PhysicalFault.BASE_LOAD: works
        and habits.base >= _LEAST_BASE * float(known.mean())
        and strongest >= habits.base_scatter,
        PhysicalFault.CYCLE: habits.cycles,
        # A pause must have room for a burst and a reading of pause on both sides.
        PhysicalFault.MORE_BURSTS: habits.cycles and habits.pause >= habits.run + 2,
        PhysicalFault.START: habits.start_scatter <= _USUAL_START and not habits.cycles,
        PhysicalFault.DROPS: works and not habits.cycles,
    }[fault]


class _PhysicalInjection(MachineInjection[PhysicalFault]):
    def __init__(
        self,
        machine: MachineReadings,
        habits: Habits,
        window: Window,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(machine, window, rng)
        self.habits = habits
        self.row_of_past = habits.rows(machine)
        self.works = machine.power > habits.works_above

    def write(self, family: PhysicalFault, magnitude: Magnitude) -> tuple[int, int] | None:
        dose = DOSES[family][list(Magnitude).index(magnitude)]
        if family is PhysicalFault.START:
            return self._write_start(dose)
        length = self._length(family, dose)
        first = self.free(length)
        suits = self._suits(family, dose, first, first + length)
        for row in self.rng.permutation(first[suits])[:_PLACES_TRIED]:
            rows = slice(int(row), int(row) + length)
            power = self._faulty_power(family, dose, rows)
            if self._is_seen(family, magnitude, rows, power):
                return self._draw_changes(rows, power)
        return None

    def _length(self, family: PhysicalFault, dose: Dose) -> int:
        """Readings of a fault: those of its hours, one at least."""
        length = max(1, round(dose.hours / self.machine.hours))
        if family is PhysicalFault.BASE_LOAD:
            inside = (self.window.end - self.window.start) / timedelta(hours=1) - 2 * MARGIN_HOURS
            return min(length, int(inside / self.machine.hours))
        if family is PhysicalFault.DROPS:  # with time to run between two drop-outs
            return max(length, round(2 * dose.size))
        return length

    def _suits(self, family: PhysicalFault, dose: Dose, first: Ints, after: Ints) -> Bools:
        """Whether the machine does there what the fault needs it to do."""
        suits: Bools = share_of(self.machine.power >= 0, first, after) == 1
        working = share_of(self.works, first, after)
        if family in (PhysicalFault.HALF, PhysicalFault.TWICE):
            suits &= working >= _SHARE_WORKING[dose.hours]
        if family is PhysicalFault.DROPS:
            suits &= working >= _HARDLY_STOPS
        if family in (PhysicalFault.CYCLE, PhysicalFault.MORE_BURSTS):
            runs = share_of(starts_of(self.works), first, after) * (after - first)
            suits &= runs >= _CYCLES - 0.5
        if family is PhysicalFault.WORKS_AT_REST:
            usual = self.habits.usual_rest[self.row_of_past % len(self.habits.usual_rest)]
            suits &= share_of(usual & ~self.works, first, after) == 1
            if dose.hours == 24.0:
                suits &= self.row_of_past[first] % self.habits.per_day == 0
        return suits

    def _faulty_power(self, family: PhysicalFault, dose: Dose, rows: slice) -> Floats:
        power, works = self.machine.power[rows], self.works[rows]
        if family is PhysicalFault.OFF:
            return dose.size * power
        if family is PhysicalFault.WORKS_AT_REST:
            work = self._working_power(rows)  # its rests are rests here, too
            return np.where(work > self.habits.works_above, np.maximum(power, work), power)
        if family is PhysicalFault.BASE_LOAD:
            return power + dose.size * self.habits.base
        if family is PhysicalFault.CYCLE:
            shorter = (self.habits.run + self.habits.pause) / dose.size >= _READINGS_PER_CYCLE
            longer = not shorter or bool(self.rng.integers(2))
            return stretched(power, dose.size if longer else 1 / dose.size)
        if family is PhysicalFault.MORE_BURSTS:
            return with_bursts_in_pauses(power, works)
        if family is PhysicalFault.DROPS:
            return np.where(self._drops(len(power), round(dose.size)), _NEARLY_NOTHING, 1.0) * power
        return np.where(works, power * dose.size, power)

    def _working_power(self, rows: slice) -> Floats:
        """Power at the same time of a recent working day.

        Where it rested then, too, as in any night of a day shift: of the busiest time of that day.
        """
        days = self.habits.working_days
        day, length = days[int(self.rng.integers(len(days)))], rows.stop - rows.start
        same_time: Floats = day[(self.row_of_past[rows.start] + np.arange(length)) % len(day)]
        if length >= len(day) or (same_time > self.habits.works_above).mean() >= 0.5:
            return same_time
        blocks = np.lib.stride_tricks.sliding_window_view(day, length)
        busiest: Floats = blocks[int(np.argmax(blocks.mean(axis=1)))]
        return busiest

    def _drops(self, length: int, count: int) -> Bools:
        """Where `count` drop-outs are, one in each part of the time, apart from each other."""
        part, longest = length // count, max(1, round(_DROP_HOURS / self.machine.hours))
        down = np.zeros(length, dtype=bool)
        for number in range(count):
            lasts = int(self.rng.integers(1, min(longest, part - 1) + 1))
            first = number * part + 1 + int(self.rng.integers(part - lasts))
            down[first : first + lasts] = True
        return down

    def _is_seen(
        self, family: PhysicalFault, magnitude: Magnitude, rows: slice, power: Floats
    ) -> bool:
        """Whether the weeks before, beside the fault, show it."""
        habits = self.habits
        if family is PhysicalFault.BASE_LOAD:
            added = float(power[0] - self.machine.power[rows.start])
            return magnitude is Magnitude.MILD or added >= habits.base_scatter
        if family in (PhysicalFault.CYCLE, PhysicalFault.MORE_BURSTS):
            return self._starts_unusually_often(rows, power, habits.works_above)
        if family is PhysicalFault.DROPS:
            usual = float(np.median(habits.power[habits.works]))
            return self._starts_unusually_often(rows, power, max(habits.works_above, 0.2 * usual))
        return self._stands_out(rows, power)

    def _starts_unusually_often(self, rows: slice, power: Floats, above: float) -> bool:
        """Whether it goes above a power more or less often than in so long a time of work.

        Compared are all stretches of the past in which the machine worked about as much as here.
        """
        past, length = self.habits.power > above, len(power)
        first = np.arange(len(past) - length + 1)
        worked = share_of(past, first, first + length)
        like = worked >= _MOST * np.mean(self.machine.power[rows] > above)
        like &= share_of(np.isfinite(self.habits.power), first, first + length) == 1
        if not like.any():
            return False
        counts = share_of(starts_of(past), first, first + length)[like] * length
        few, many = np.percentile(counts, [10, 90])
        starts = int(starts_of(power > above).sum())
        return bool(starts < few - 0.5 or starts > many + 0.5)

    def _stands_out(self, rows: slice, power: Floats) -> bool:
        """Whether the mean is unlike the weeks before, or the working power unlike the usual."""
        habits, before, works = self.habits, self.machine.power[rows], self.works[rows]
        sign = np.sign(power.mean() - before.mean())
        weeks = habits.weeks_before(int(self.row_of_past[rows.start]), len(power)).mean(axis=1)
        if len(weeks) >= _FEWEST_WEEKS and (
            (sign * power.mean() > sign * weeks).mean() >= _STANDS_OUT
        ):
            return True
        low, high = np.percentile(habits.power[habits.works], [5, 95])
        level = power[works].mean() if works.any() else np.nan
        return bool(level < low if sign < 0 else level > high)

    def _write_start(self, dose: Dose) -> tuple[int, int] | None:
        """Let a day's work start early, or late, by the hours of the dose."""
        length, early = max(1, round(dose.hours / self.machine.hours)), bool(self.rng.integers(2))
        places = self.free(length + 1)
        usual = self._usual_starts(length)
        usual = usual[np.isin(usual - length if early else usual, places)]
        for start in self.rng.permutation(usual)[:_PLACES_TRIED]:
            before, after = int(start) - length, int(start) + length
            if not self._is_other_start(before if early else after):
                continue
            power = self.machine.power
            if early:  # the first reading of work is the first again, the others follow
                return self._draw_changes(slice(before, start + 1), power[start : after + 1])
            return self._draw_changes(slice(int(start), after), power[before:start])
        return None

    def _usual_starts(self, length: int) -> Ints:
        """Rows at which the day's work starts as it usually does, between rest and work."""
        row = np.flatnonzero(starts_of(self.works))
        row = row[(row >= length) & (row + length < len(self.works))]
        span = row[:, None] + np.arange(-length, length + 1)
        known = np.isfinite(self.machine.power[span]) & (self.machine.power[span] >= 0)
        rested = ~self.works[span[:, :length]].any(axis=1)
        worked = self.works[span[:, length:]].mean(axis=1) >= _MOST
        away = self._hours_from_start(row)
        usual = away <= self.habits.start_scatter + self.machine.hours / 2
        starts: Ints = row[known.all(axis=1) & rested & worked & usual]
        return starts

    def _is_other_start(self, row: int) -> bool:
        away = self._hours_from_start(np.array([row]))[0]
        return bool(away > self.habits.start_scatter + self.machine.hours / 2)

    def _hours_from_start(self, row: Ints) -> Floats:
        """Hours between rows and the usual start of their day; NaN where there is none."""
        past, per_day = self.row_of_past[row], self.habits.per_day
        hour = past % per_day * self.machine.hours
        hours: Floats = np.abs(hour - self.habits.starts[past // per_day % 7])
        return hours

    def _draw_changes(self, rows: slice, power: Floats) -> tuple[int, int] | None:
        changed = np.flatnonzero(np.abs(power - self.machine.power[rows]) > _CHANGED)
        if not changed.size:
            return None
        self.draw(rows, power)
        return int(rows.start + changed[0]), int(rows.start + changed[-1])


def stretched(power: Floats, factor: float) -> Floats:
    """The same curve, `factor` times as long, with the energy of the whole kept.

    It is stretched from where the part that then fits has the mean power of the whole, so that no
    level changes. Shown from there on, it starts over at its end.
    """
    length, part = len(power), len(power) / factor
    copies = int(np.ceil(1 / factor)) + 1
    edge = np.arange(copies * length + 1)
    energy = np.concatenate([[0.0], np.cumsum(np.tile(power, copies))])
    # Between these the energy of the part is linear in its begin, and over a round it is on
    # average that of the whole: somewhere it is equal.
    ends = (np.arange(length) - part) % length
    begin = np.unique(np.concatenate([np.arange(length + 1.0), ends]))
    excess = np.interp(begin + part, edge, energy) - np.interp(begin, edge, energy)
    excess -= part * power.mean()
    crosses = int(np.argmax(excess[:-1] * excess[1:] <= 0))
    here, there = excess[crosses], excess[crosses + 1]
    share = here / (here - there) if here != there else 0.0
    at = begin[crosses] + share * (begin[crosses + 1] - begin[crosses])
    bounds = np.interp(at + np.arange(length + 1) / factor, edge, energy)
    longer: Floats = np.maximum(np.diff(bounds) * factor, 0.0)
    return longer


def with_bursts_in_pauses(power: Floats, works: Bools) -> Floats:
    """Write each burst once more into the middle of the pause behind it, as far as it fits."""
    more = power.copy()
    begin, end = runs_of(works)
    for i in range(len(begin) - 1):
        room = begin[i + 1] - end[i] - 2
        burst = power[begin[i] : end[i]][: max(0, room)]
        first = end[i] + 1 + (room - len(burst)) // 2
        more[first : first + len(burst)] = np.maximum(power[first : first + len(burst)], burst)
    return more
