"""Counter readings that the following ones contradict: there and back again, and catching up.

A counter only rises, and no faster than its machine can draw. A reading that falls, or leaps by
more than that, breaks with the one before it. The break is settled by what follows within a day:

- the counter comes back to where it was (``L, 0, L + 3``): what lies between was wrong;
- a counter that stood still catches up (``L, L, L, L + 12``): it was not standing still.

What is found for a reading depends on the readings of the `REACH` before it and after it alone,
never on where a window starts or ends.
"""

from datetime import timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

REACH = timedelta(hours=24)
"""How far apart the reading before a break and the reading that settles it may lie."""

_REACH = int(REACH / timedelta(microseconds=1))
_MICROSECONDS_PER_HOUR = 3_600_000_000


class Course(NamedTuple):
    """Counter readings sorted by machine and time, and what each machine can draw.

    Attributes
    ----------
    lane : array of int
        Number of the machine, rising; another after a gap that counts as none before.
    ticks : array of int
        Microseconds.
    reading : array
        kWh.
    tolerance : array
        A fall from the reading before by no more is none, kWh.
    most_kw : array
        Power above which a rise is a leap; NaN: nothing is known.
    rolls : array of bool
        Readings that fell because the counter rolled over: no break.
    interval : int
        Of the meter, microseconds. A rise may always hold the energy of one.
    """

    lane: Ints
    ticks: Ints
    reading: Floats
    tolerance: Floats
    most_kw: Floats
    rolls: Bools
    interval: int


class Breaks(NamedTuple):
    """Readings that do not follow from the one before them.

    Attributes
    ----------
    falls, leaps : array of bool
    """

    falls: Bools
    leaps: Bools

    @property
    def any(self) -> Bools:
        """Both kinds."""
        return self.falls | self.leaps


class Settled(NamedTuple):
    """What became of the breaks.

    Attributes
    ----------
    contradicted : array of bool
        Readings that a following one contradicts.
    follows : array of int
        Row of the reading that each reading follows whose own predecessors are contradicted;
        -1 for all others.
    """

    contradicted: Bools
    follows: Ints


def find_breaks(course: Course) -> Breaks:
    """Find the readings that fall, or leap beyond what their machine draws."""
    change = np.diff(course.reading, prepend=np.nan)
    same = np.diff(course.lane, prepend=-1) == 0
    step = np.diff(course.ticks, prepend=0)
    falls = same & (change < -course.tolerance) & ~course.rolls
    leaps = same & (change > _energy(course.most_kw, step, course.interval))
    return Breaks(falls, leaps)


def settle_breaks(course: Course, breaks: Breaks, flat_since: Ints, often_flat: Bools) -> Settled:
    """Find what readings within a day say of the breaks before them.

    Parameters
    ----------
    flat_since : array of int
        First row of the run of equal readings that each reading belongs to.
    often_flat : array of bool
        Readings of machines that stand still often: these have nothing to catch up.
    """
    settled = Settled(np.zeros(len(course.lane), bool), np.full(len(course.lane), -1, np.int64))
    if not breaks.any.any():
        return settled
    keys = _keys(course)
    for row in _returning(course, breaks, keys).tolist():
        _settle_return(course, breaks, keys, row, settled)
    for row in _catching_up(breaks, flat_since, often_flat).tolist():
        if settled.follows[row] < 0:
            _settle_catch_up(course, int(flat_since[row - 1]), row, settled)
    return settled


def _energy(power_kw: Floats, span: Ints, interval: int) -> Floats:
    """Most energy that a span may hold, kWh: that of an interval at the least."""
    energy: Floats = power_kw * (np.maximum(span, interval) / _MICROSECONDS_PER_HOUR)
    return energy


def _keys(course: Course) -> Ints:
    """A number that rises with time within a machine, and by more than the reach between two."""
    width = int(np.ptp(course.ticks)) + _REACH + 1
    keys: Ints = course.lane * width + (course.ticks - course.ticks.min())
    return keys


def _returning(course: Course, breaks: Breaks, keys: Ints) -> Ints:
    """Breaks that may be a way back: each needs a break on the way out, within a day before.

    A leap needs a lower reading there: what it comes back from lies below it.
    """
    rows = np.flatnonzero(breaks.any & np.isfinite(course.most_kw))
    first = np.searchsorted(keys, keys[rows] - _REACH)
    lower = np.diff(course.reading, prepend=np.nan) < 0  # where it rolled over as well
    lows, all_breaks = (np.append(0, np.cumsum(side)) for side in (lower, breaks.any))
    counted = np.where(breaks.leaps[rows], lows[rows] - lows[first], 1)
    before = np.minimum(counted, all_breaks[rows] - all_breaks[first])
    found: Ints = rows[before > 0]
    return found


def _settle_return(course: Course, breaks: Breaks, keys: Ints, row: int, settled: Settled) -> None:
    """Contradict what lies between `row` and the last reading that it can follow."""
    first = int(np.searchsorted(keys, keys[row] - _REACH))
    before = slice(first, row - 1)  # it breaks with the one right before
    allowed = _energy(
        course.most_kw[row], course.ticks[row] - course.ticks[before], course.interval
    )
    value = course.reading[row]
    follows = (course.reading[before] <= value + course.tolerance[row]) & (
        course.reading[before] >= value - allowed
    )
    if not follows.any():
        return
    last = first + int(np.flatnonzero(follows)[-1])
    if breaks.any[last + 1]:  # out and back by breaks; a day's slow rise is no excursion
        settled.contradicted[last + 1 : row] = True
        settled.follows[row] = last


def _catching_up(breaks: Breaks, flat_since: Ints, often_flat: Bools) -> Ints:
    """Leaps that end a run of equal readings."""
    rows = np.flatnonzero(breaks.leaps & ~often_flat)
    found: Ints = rows[flat_since[rows - 1] < rows - 1]
    return found


def _settle_catch_up(course: Course, since: int, row: int, settled: Settled) -> None:
    """Contradict a run of equal readings if the machine can have drawn the leap during it.

    The reading before the run has to lie within the reach as well: it shows that the run began.
    """
    begun = since > 0 and course.lane[since - 1] == course.lane[row]
    if not begun or course.ticks[row] - course.ticks[since - 1] > _REACH:
        return
    span = course.ticks[row] - course.ticks[since]
    change = course.reading[row] - course.reading[since]
    if change <= _energy(course.most_kw[row], span, course.interval):
        settled.contradicted[since + 1 : row] = True
        settled.follows[row] = since
