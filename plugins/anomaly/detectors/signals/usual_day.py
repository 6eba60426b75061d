"""The usual day: what is usual for each machine at each time of day, on its own clock."""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import Floats, Ints

DAY_TYPES = 2  # working day, weekend
HOURS, WEEK = 24, 7
DEVIATIONS = ("level_1h", "throughout_4h")
"""Signals whose spread depends on the hour of the day."""

_QUARTER = int(timedelta(minutes=15) / timedelta(microseconds=1))
_DAY = int(timedelta(days=1) / timedelta(microseconds=1))
_THURSDAY, _SATURDAY = 3, 5  # the former is the weekday of 1 January 1970


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
        day = rows * DAY_TYPES
        days, places = local_slots(ticks, rows, self.time_zones, slots)
        hours = places * HOURS // slots
        kind = day + weekend(days)
        return kind * slots + places, kind * HOURS + hours, (rows * WEEK + days) * HOURS + hours


def local_slots(
    ticks: Ints, rows: Ints, time_zones: npt.NDArray[np.str_], slots: int
) -> tuple[Ints, Ints]:
    """Day of the week, from Monday on, and slot of each reading on its machine's own clock."""
    if not len(ticks):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    zones, codes = np.unique(time_zones, return_inverse=True)
    quarter = ticks // _QUARTER  # clocks change on the quarter-hour
    first = int(quarter.min())
    offsets = _offsets(zones, first, int(quarter.max()) + 1)
    local = ticks + offsets[codes[rows], quarter - first]
    return (local // _DAY + _THURSDAY) % WEEK, local % _DAY * slots // _DAY


def weekend(days: Ints) -> Ints:
    """Day type of each day of the week."""
    types: Ints = (days >= _SATURDAY).astype(np.int64)
    return types


def _offsets(zones: npt.NDArray[np.str_], first: int, last: int) -> Ints:
    """Microseconds by which each zone's clock is ahead of UTC: shape (zone, quarter-hour)."""
    quarters = np.arange(first, last) * _QUARTER
    utc = pd.DatetimeIndex(quarters.astype("datetime64[us]"), tz="UTC")
    clocks = [utc.tz_convert(zone).tz_localize(None).as_unit("us") for zone in zones.tolist()]
    return np.array([clock.asi8 - quarters for clock in clocks], dtype=np.int64)
