"""The usual day: what is usual for each machine at each time of day, on its own clock."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import Floats, Ints

DAY_TYPES = 2  # working day; weekend or holiday
HOURS, WEEK = 24, 7
DEVIATIONS = ("level_1h", "throughout_4h")
"""Signals whose spread depends on the hour of the day."""

_QUARTER = int(timedelta(minutes=15) / timedelta(microseconds=1))
_DAY = int(timedelta(days=1) / timedelta(microseconds=1))
_SATURDAY, _SUNDAY = 5, 6
_THURSDAY = 3  # the weekday of 1 January 1970: days are counted from the Monday before
CALENDAR_DAYS = 1_000_000
"""More days than any calendar has: a calendar's number times this, plus a day, is one number."""


@dataclass(frozen=True)
class UsualDay:
    """What is usual for each machine at each time of day; power in kW.

    Every array but `machine_ids` has one row per machine, and a last one for the fleet: it
    serves machines that training has not seen.

    Attributes
    ----------
    machine_ids : array of int, shape (machine,), sorted
    time_zones : array of str, shape (row,)
    median : array, shape (row, day type, slot)
        Usual power, NaN where training never saw the machine; slots are wall-clock intervals.
    lower, upper : array, shape (deviation, row, day type, hour)
        How far each of `DEVIATIONS` usually goes below and above 0.
    weight : array, shape (row, day type, hour)
        How much a reading of that hour says about the machine's level, at most 1.
    least : array, shape (row,)
        The smallest spread in kW.
    running_above : array, shape (row,)
        Power above which the machine runs; infinite for the fleet and for a machine that never
        stops: then nothing is said about runs.
    usually_runs : array of bool, shape (row, 168)
        Whether it usually runs at that hour of the week, from Monday 0:00 on.
    worth_telling : array, shape (row,)
        A mean of one hour that is off by less, in kW, is not worth telling.
    least_hour, most_hour : array, shape (row,)
        Lowest and highest mean of one hour that training saw, in kW; NaN where it saw none.
    weeks : array, shape (row,)
        Weeks that training saw.
    course : array, shape (row, point)
        Mean course of power over the hours that `shape` looks at, newest first; NaN where
        training knows none.
    course_parts : array, shape (row, part, point)
        Principal components of those courses.
    calendar : array of int, shape (row,)
        Number of the machine's holiday calendar; -1: none.
    holidays : array of int, sorted
        ``calendar * CALENDAR_DAYS + day`` of each holiday; days as `local_slots` counts them.
    """

    machine_ids: Ints
    time_zones: npt.NDArray[np.str_]
    median: Floats
    lower: Floats
    upper: Floats
    weight: Floats
    least: Floats
    running_above: Floats
    usually_runs: npt.NDArray[np.bool_]
    worth_telling: Floats
    least_hour: Floats
    most_hour: Floats
    weeks: Floats
    course: Floats
    course_parts: Floats
    calendar: Ints
    holidays: Ints

    def rows(self, machine_ids: npt.NDArray[np.generic]) -> Ints:
        """Row of each machine; -1, which is the fleet's, where training did not see it."""
        if not len(self.machine_ids):
            return np.full(len(machine_ids), -1)
        place = np.searchsorted(self.machine_ids, machine_ids)
        place = np.minimum(place, len(self.machine_ids) - 1)
        known = self.machine_ids[place] == machine_ids
        return np.where(known, place, -1).astype(np.int64)

    def cells(self, ticks: Ints, rows: Ints) -> tuple[Ints, Ints, Ints]:
        """Place of each reading in the flattened arrays by slot, by hour, and by hour of the week.

        Parameters
        ----------
        ticks : array of int
            Microseconds since the epoch.
        rows : array of int
            As `rows` returns them; places of row -1 count from the ends of the arrays.
        """
        slots = self.median.shape[2]
        days, places = local_slots(ticks, rows, self.time_zones, slots)
        days = with_holidays(days, self.calendar[rows], self.holidays)
        hours = places * HOURS // slots
        kind = rows * DAY_TYPES + day_types(days)
        return kind * slots + places, kind * HOURS + hours, (rows * WEEK + days) * HOURS + hours


def local_slots(
    ticks: Ints, rows: Ints, time_zones: npt.NDArray[np.str_], slots: int
) -> tuple[Ints, Ints]:
    """Day and slot of each reading on its machine's own clock; days since a Monday in 1969."""
    if not len(ticks):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    zones, codes = np.unique(time_zones, return_inverse=True)
    quarter = ticks // _QUARTER  # clocks change on the quarter-hour
    first = int(quarter.min())
    offsets = _offsets(zones, first, int(quarter.max()) + 1)
    local = ticks + offsets[codes[rows], quarter - first]
    return local // _DAY + _THURSDAY, local % _DAY * slots // _DAY


def day_number(day: date) -> int:
    """A day as `local_slots` counts it."""
    return (day - date(1970, 1, 1)).days + _THURSDAY


def with_holidays(days: Ints, calendar: Ints, holidays: Ints) -> Ints:
    """Weekday of each day, from Monday on; a holiday is a Sunday.

    Parameters
    ----------
    days : array of int
        As `local_slots` returns them.
    calendar : array of int
        The calendar that holds for each.
    holidays : array of int
        As in `UsualDay`.
    """
    weekdays = days % WEEK
    if not len(holidays):
        return weekdays
    asked = calendar * CALENDAR_DAYS + days
    found = holidays[np.minimum(np.searchsorted(holidays, asked), len(holidays) - 1)]
    return np.where(found == asked, _SUNDAY, weekdays)


def day_types(weekdays: Ints) -> Ints:
    """Day type of each weekday."""
    types: Ints = (weekdays >= _SATURDAY).astype(np.int64)
    return types


def _offsets(zones: npt.NDArray[np.str_], first: int, last: int) -> Ints:
    """Microseconds by which each zone's clock is ahead of UTC: shape (zone, quarter-hour)."""
    quarters = np.arange(first, last) * _QUARTER
    utc = pd.DatetimeIndex(quarters.astype("datetime64[us]"), tz="UTC")
    clocks = [utc.tz_convert(zone).tz_localize(None).as_unit("us") for zone in zones.tolist()]
    return np.array([clock.asi8 - quarters for clock in clocks], dtype=np.int64)
