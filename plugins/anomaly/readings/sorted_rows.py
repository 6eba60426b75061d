"""Rows sorted by machine and time: first rows of machines and runs, and rows within a time."""

from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import MICROSECONDS_PER_HOUR, Bools, Floats, Ints
from anomaly.readings.preprocessing import microseconds


def places_in(index: "pd.Index[Any]", readings: pd.DataFrame) -> npt.NDArray[np.intp]:
    """Place of each reading's machine in an index; -1 for a machine that is not in it."""
    # One look-up per run of equal machines: a fleet has far more readings than machines.
    machine = readings["machine_id"].to_numpy()
    begins = np.flatnonzero(np.diff(machine, prepend=np.nan) != 0)
    lengths = np.diff(begins, append=len(machine))
    return np.repeat(index.get_indexer(pd.Index(machine[begins])), lengths)


def values_at(column: pd.Series, place: npt.NDArray[np.intp]) -> Floats:
    """Values at places of a column; NaN where a place is -1."""
    # A place of -1 means the last value, which is the NaN that is added here.
    found: Floats = np.append(column.to_numpy(float), np.nan)[place]
    return found


def worst_of(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> Ints:
    """The higher of two qualities, for each reading."""
    return np.maximum(one.astype(np.int64), other.astype(np.int64))


def flat_hours(frame: pd.DataFrame, still: Bools, longest: timedelta | None) -> Floats:
    """Hours since the start of each reading's run of equal readings, counted up to `longest`."""
    if frame.empty:
        return np.empty(0)
    ticks = microseconds(frame["utc_timestamp"])
    start = run_starts(still)
    if longest is not None:
        start = np.maximum(start, earliest_within(frame["machine_id"].to_numpy(), ticks, longest))
    return (ticks - ticks[start]) / MICROSECONDS_PER_HOUR


def run_starts(still: Bools) -> Ints:
    """First row of the run of equal readings that each row belongs to."""
    # A row that differs from the one before starts a run; the other rows inherit its number.
    starts: Ints = np.maximum.accumulate(np.where(still, 0, np.arange(len(still))))
    return starts


def is_first(measured: pd.DataFrame) -> Bools:
    """Whether each row is the machine's first row here; the machine may have earlier readings."""
    firsts: Bools = np.diff(measured["machine_id"].to_numpy(), prepend=np.nan) != 0
    return firsts


def earliest_within(machine: npt.NDArray[np.generic], ticks: Ints, longest: timedelta) -> Ints:
    """Row of the machine's earliest reading no more than `longest` before each row."""
    if not len(ticks):
        return np.empty(0, dtype=np.int64)
    # Keys of two machines differ by more than `span`, so that a search stays in its machine.
    span = int(longest / timedelta(microseconds=1))
    lane = np.cumsum(np.diff(machine, prepend=machine[0]) != 0)
    keys = lane * (int(np.ptp(ticks)) + span + 1) + (ticks - ticks.min())
    rows: Ints = np.searchsorted(keys, keys - span, side="left")
    return rows
