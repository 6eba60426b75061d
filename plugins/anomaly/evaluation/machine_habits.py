"""Learn a machine's habits: its weeks, rests, starts, cycles and base load.

What `anomaly.evaluation.physical_faults` must know to place a fault where it is real. Frozen by its
outputs, together with that module. Nothing here looks at a detector.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from anomaly.arrays import MICROSECONDS_PER_HOUR, Bools, Floats, Ints
from anomaly.evaluation.ordinary_days import (
    MachineReadings,
    OrdinaryDays,
    learn_ordinary_days,
)
from anomaly.settings import MeterSettings

# The numbers were chosen once, before any detector was judged.
WEEKS = 8
"""So many weeks are remembered: longer ago is another season."""
_DAY = 24 * MICROSECONDS_PER_HOUR
_WEEKS_SEEN = 3  # what was seen in fewer weeks is no habit
_RESTS = 0.1  # at a time of the week at which it usually rests it works in one week of ten at most
_LOW_REST = 0.5  # a machine that never stops rests, if it does, at half its working power or less
_BETWEEN = 0.1  # ... and is seldom in the middle third between the two
_WORKING_DAY = 1 / 6  # a day is a working day from four hours of work on
_WORKING_DAYS = 5  # so many are kept: a working week
_ALWAYS_ON = 0.1  # a machine is always on if its P1 is above this share of its P99.5
_START_HOURS = 2.0  # a start: rest for so long, then work for most of as long
_MOST = 0.75
_CYCLES_PER_DAY = 4  # a machine cycles if it starts so often on a usual working day ...
_CYCLE_HOURS = 3.0  # ... and neither its runs nor its pauses usually last longer
_LOW_DAYS = 28  # the base load is of these last days: a season moves it


@dataclass(frozen=True)
class Habits:
    """What one machine did in the weeks before a window, by local clock time.

    Power is in the readings' own unit, per hour if it counts energy.

    Attributes
    ----------
    zone : str
        Where the machine stands.
    origin, step : int
        Local clock time of the first value of `power`, a Monday midnight, in microseconds, and the
        time between two values.
    power : array of float
        The last `WEEKS` weeks; NaN where it is not known.
    works_above : float
        Power above which it works; -inf for a machine that never rests, inf for one that draws
        nothing.
    always_on : bool
        Whether it is practically never off.
    working_days : array of float, shape (days, readings per day)
        Power of its latest complete working days.
    usual_rest : array of bool, shape (readings per week,)
        When it usually rests, from Monday midnight on.
    starts : array of float, shape (7,)
        Usual hour of day of the start of work, Monday first; NaN where there is none.
    start_scatter : float
        Four starts of five are at most so many hours from the usual one.
    run, pause : float
        Usual lengths of a run and a pause in readings, of a machine that cycles, else NaN.
    base, base_scatter : float
        Base load, the median of the lowest power (P5) of each day, and the standard deviation of
        that power against the week before it.
    """

    zone: str
    origin: int
    step: int
    power: Floats
    works_above: float
    always_on: bool
    working_days: Floats
    usual_rest: Bools
    starts: Floats
    start_scatter: float
    run: float
    pause: float
    base: float
    base_scatter: float

    @property
    def cycles(self) -> bool:
        """Whether the machine switches on and off all the time while it works."""
        return bool(np.isfinite(self.run))

    @property
    def works(self) -> Bools:
        """Where in `power` it worked."""
        return self.power > self.works_above

    @property
    def per_day(self) -> int:
        """Readings of a day."""
        return round(_DAY / self.step)

    def rows(self, machine: MachineReadings) -> Ints:
        """Where a machine's readings are, or would be, in `power`."""
        rows: Ints = (clock(machine.ticks, self.zone) - self.origin) // self.step
        return rows

    def weeks_before(self, row: int, length: int) -> Floats:
        """Power at the same time of the weeks before, a week per row; only weeks fully known."""
        week = 7 * self.per_day
        first = row - week * np.arange(1, WEEKS + 1)
        first = first[(first >= 0) & (first + length <= len(self.power))]
        before = self.power[first[:, None] + np.arange(length)]
        known: Floats = before[np.isfinite(before).all(axis=1)]
        return known


def clock(ticks: Ints, zone: str) -> Ints:
    """What local clocks show, in microseconds."""
    utc = pd.DatetimeIndex(ticks.astype("datetime64[us]")).tz_localize("UTC")
    local = utc.tz_convert(zone).tz_localize(None)
    return np.asarray(local.as_unit("us").asi8)


def starts_of(works: Bools) -> Bools:
    """The first reading of each run that follows a pause."""
    return np.asarray(works & ~np.concatenate([[True], works[:-1]]))


def learn_habits(
    readings: pd.DataFrame,
    *,
    until: datetime,
    meter: MeterSettings,
    zone: str = "UTC",
    ordinary_days: Mapping[int, OrdinaryDays] | None = None,
) -> dict[int, Habits]:
    """Learn each machine's habits, only from its last `WEEKS` weeks of readings before `until`.

    Parameters
    ----------
    readings : DataFrame
        ``utc_timestamp`` (aware), ``machine_id`` and ``reading``; three weeks at least, else
        nothing is a habit.
    zone : str
        Where the machines stand.
    ordinary_days : mapping of int to OrdinaryDays, optional
        As `learn_ordinary_days` returns them for the readings before `until`; saves time.

    Returns
    -------
    dict
        By machine id; without the machines whose ordinary days are not known.
    """
    if ordinary_days is None:
        ordinary_days = learn_ordinary_days(readings, until=until, meter=meter, zone=zone)
    times = readings["utc_timestamp"]
    past = readings[(times < until) & (times >= until - timedelta(weeks=WEEKS))]
    ordered = past.sort_values(["machine_id", "utc_timestamp"])
    machines = [MachineReadings.of(rows, meter, zone) for _, rows in ordered.groupby("machine_id")]
    return {
        machine.machine_id: _habits(machine, ordinary_days[machine.machine_id], zone)
        for machine in machines
        if machine.machine_id in ordinary_days and np.isfinite(machine.power).any()
    }


def _habits(machine: MachineReadings, ordinary: OrdinaryDays, zone: str) -> Habits:
    origin, power = _whole_weeks(machine, zone)
    per_day = round(_DAY / machine.step)
    known = power[np.isfinite(power)]
    above = _works_above(known, ordinary)
    works, days = power > above, power.reshape(-1, per_day)
    share = (days > above).mean(axis=1)
    working = np.isfinite(days).all(axis=1) & (share >= _WORKING_DAY)
    starts, start_scatter = _usual_starts(power, works, machine.hours, per_day)
    run, pause = _usual_cycle(works, share >= _WORKING_DAY, machine.hours)
    base, base_scatter = _base_load(days)
    return Habits(
        zone=zone,
        origin=origin,
        step=machine.step,
        power=power,
        works_above=above,
        always_on=bool(np.percentile(known, 1) > _ALWAYS_ON * max(ordinary.high, 0.0)),
        working_days=days[working][-_WORKING_DAYS:],
        usual_rest=_usual_rest(power, works, 7 * per_day),
        starts=starts,
        start_scatter=start_scatter,
        run=run,
        pause=pause,
        base=base,
        base_scatter=base_scatter,
    )


def _whole_weeks(machine: MachineReadings, zone: str) -> tuple[int, Floats]:
    """Power on the grid of whole local weeks, Monday first, and the clock time of its start."""
    shown = clock(machine.ticks, zone)
    monday = 4 * _DAY  # the Unix epoch was a Thursday
    origin = int((shown[0] - monday) // (7 * _DAY)) * 7 * _DAY + monday
    rows = (shown - origin) // machine.step
    week = 7 * round(_DAY / machine.step)
    power = np.full(int(-(-(rows[-1] + 1) // week)) * week, np.nan)
    power[rows] = machine.power
    return origin, power


def _works_above(known: Floats, ordinary: OrdinaryDays) -> float:
    if ordinary.high <= 0:
        return np.inf
    if np.isfinite(ordinary.running_above):
        return ordinary.running_above
    low, high = np.percentile(known, [5, 95])
    middle = (known > low + (high - low) / 3) & (known < high - (high - low) / 3)
    rests = low <= _LOW_REST * high and middle.mean() < _BETWEEN
    return float((low + high) / 2) if rests else -np.inf


def _usual_rest(power: Floats, works: Bools, week: int) -> Bools:
    seen = np.isfinite(power).reshape(-1, week).sum(axis=0)
    worked = works.reshape(-1, week).sum(axis=0)
    return np.asarray((seen >= _WEEKS_SEEN) & (worked <= _RESTS * seen))


def _usual_starts(power: Floats, works: Bools, hours: float, per_day: int) -> tuple[Floats, float]:
    """Usual hour of the day's first start by day of the week, and the scatter around it."""
    length = max(1, round(_START_HOURS / hours))
    rests = np.isfinite(power) & ~works
    row = np.arange(length, len(power) - length + 1)
    before = row[:, None] - np.arange(1, length + 1)
    behind = np.minimum(row[:, None] + np.arange(length), len(power) - 1)
    is_start = works[behind[:, 0]] & rests[before].all(axis=1)
    is_start &= works[behind].mean(axis=1) >= _MOST
    row = row[is_start]
    day, first = np.unique(row // per_day, return_index=True)
    hour = row[first] % per_day * hours
    usual = np.full(7, np.nan)
    for weekday in range(7):
        mine = hour[day % 7 == weekday]
        if len(mine) >= _WEEKS_SEEN:
            usual[weekday] = np.median(mine)
    away = np.abs(hour - usual[day % 7])
    away = away[np.isfinite(away)]
    return usual, float(np.percentile(away, 80)) if away.size else np.nan


def _usual_cycle(works: Bools, working_day: Bools, hours: float) -> tuple[float, float]:
    """Usual lengths of a run and of a pause between runs in readings; NaN if it does not cycle."""
    per_day = starts_of(works).reshape(len(working_day), -1).sum(axis=1)[working_day]
    if not per_day.size or np.median(per_day) < _CYCLES_PER_DAY:
        return np.nan, np.nan
    begin, end = runs_of(works)
    run, pause = float(np.median(end - begin)), float(np.median(begin[1:] - end[:-1]))
    short = max(run, pause) * hours <= _CYCLE_HOURS
    return (run, pause) if short else (np.nan, np.nan)


def runs_of(works: Bools) -> tuple[Ints, Ints]:
    """Rows at which runs of work begin, and the rows behind their ends."""
    edges = np.diff(np.concatenate([[0], works.astype(np.int64), [0]]))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def _base_load(days: Floats) -> tuple[float, float]:
    known = days[np.isfinite(days).mean(axis=1) >= _MOST][-_LOW_DAYS:]
    if len(known) < 7 * _WEEKS_SEEN:
        return 0.0, np.inf
    lows = np.nanpercentile(known, 5, axis=1)
    week_before = np.median(np.lib.stride_tricks.sliding_window_view(lows, 7)[:-1], axis=1)
    scatter = 1.4826 * np.median(np.abs(lows[7:] - week_before))  # of a normal distribution
    return float(np.median(lows)), float(scatter)
