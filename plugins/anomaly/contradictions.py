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
_NEAR = 4  # intervals: an hour, where a meter is read each quarter-hour
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
    moves_again : array of bool
        Leaps after a run of equal readings that may have begun more than a day ago: their
        energy belongs to a time that nobody knows.
    """

    contradicted: Bools
    follows: Ints
    moves_again: Bools


def find_breaks(course: Course) -> Breaks:
    """Find the readings that fall, or leap beyond what their machine draws."""
    change = np.diff(course.reading, prepend=np.nan)
    same = np.diff(course.lane, prepend=-1) == 0
    step = np.diff(course.ticks, prepend=0)
    falls = same & (change < -course.tolerance) & ~course.rolls
    leaps = same & (change > _energy(course.most_kw, step, course.interval))
    return Breaks(falls, leaps)


def settle_breaks(course: Course, breaks: Breaks, flat_since: Ints) -> Settled:
    """Find what readings within a day say of the breaks before them.

    Parameters
    ----------
    flat_since : array of int
        First row of the run of equal readings that each reading belongs to.
    """
    size = len(course.lane)
    settled = Settled(np.zeros(size, bool), np.full(size, -1, np.int64), np.zeros(size, bool))
    if not breaks.any.any():
        return settled
    _settle_single_dips(course, breaks, settled)
    keys = _keys(course)
    returning = _returning(course, breaks, keys)
    for row in returning[~settled.contradicted[returning]].tolist():
        _settle_return(course, breaks, keys, row, settled)
    for row in _catching_up(breaks, flat_since).tolist():
        if settled.follows[row] < 0:
            _settle_catch_up(course, int(flat_since[row - 1]), row, settled)
    return settled


def longest_dip(interval: int) -> int:
    """How far apart the readings around a single one that fell may lie, microseconds."""
    return 2 * interval + 2 * (interval // 15)


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
    """Breaks that may be a way back.

    A leap needs a lower reading and a break within a day before: what it comes back from lies
    below it.
    """
    rows = np.flatnonzero(breaks.any & np.isfinite(course.most_kw))
    first = np.searchsorted(keys, keys[rows] - _REACH)
    lower = np.diff(course.reading, prepend=np.nan) < 0  # where it rolled over as well
    lows, all_breaks = (np.append(0, np.cumsum(side)) for side in (lower, breaks.any))
    before = np.minimum(lows[rows] - lows[first], all_breaks[rows] - all_breaks[first])
    found: Ints = rows[breaks.falls[rows] | (before > 0)]
    return found


def _settle_single_dips(course: Course, breaks: Breaks, settled: Settled) -> None:
    """Contradict a single reading that fell, if the next one follows the one before it.

    However little it fell: a counter that goes on from where it was has not been reset. Where
    the reading before may as well have been too high, the smoother course is taken.
    """
    fell = np.flatnonzero(breaks.falls[:-1])
    dips = fell[_follow(course, fell - 1, fell + 1, longest_dip(course.interval))]
    dips = dips[_is_smoother_without(course, dips)]
    settled.contradicted[dips] = True
    settled.follows[dips + 1] = dips - 1


def _is_smoother_without(course: Course, fell: Ints) -> Bools:
    """Whether the course is smoother without the readings that fell than without those before."""
    two_before = np.maximum(fell - 2, 0)
    doubtful = (fell >= 2) & _follow(course, two_before, fell, _NEAR * course.interval)
    with np.errstate(invalid="ignore", divide="ignore"):
        without = _power(course, two_before, fell - 1) - _power(course, fell - 1, fell + 1)
        otherwise = _power(course, two_before, fell) - _power(course, fell, fell + 1)
    smoother: Bools = ~doubtful | (np.abs(without) <= np.abs(otherwise))
    return smoother


def _follow(course: Course, before: Ints, after: Ints, longest: int) -> Bools:
    """Whether the later readings can follow the earlier ones of the same machine."""
    span = course.ticks[after] - course.ticks[before]
    change = course.reading[after] - course.reading[before]
    found: Bools = (
        (course.lane[after] == course.lane[before])
        & (span <= longest)
        & (change >= -course.tolerance[after])
        & (change <= _energy(course.most_kw[after], span, course.interval))
    )
    return found


def _power(course: Course, before: Ints, after: Ints) -> Floats:
    """Mean power between readings, kWh per microsecond."""
    change = course.reading[after] - course.reading[before]
    power: Floats = change / (course.ticks[after] - course.ticks[before])
    return power


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
    near = course.ticks[row] - course.ticks[last] <= _NEAR * course.interval
    # Out and back by breaks: a day's slow rise is no excursion. A counter that falls back by a
    # few readings has counted too much in those.
    if breaks.any[last + 1] or (near and breaks.falls[row]):
        settled.contradicted[last + 1 : row] = True
        settled.follows[row] = last


def _catching_up(breaks: Breaks, flat_since: Ints) -> Ints:
    """Leaps that end a run of equal readings."""
    rows = np.flatnonzero(breaks.leaps)
    found: Ints = rows[flat_since[rows - 1] < rows - 1]
    return found


def _settle_catch_up(course: Course, since: int, row: int, settled: Settled) -> None:
    """Contradict a run of equal readings if the machine can have drawn the leap during it.

    The reading before the run has to lie within the reach as well: it shows that the run began.
    """
    begun = since > 0 and course.lane[since - 1] == course.lane[row]
    if not begun or course.ticks[row] - course.ticks[since - 1] > _REACH:
        settled.moves_again[row] = True
        return
    span = course.ticks[row] - course.ticks[since]
    change = course.reading[row] - course.reading[since]
    if change <= _energy(course.most_kw[row], span, course.interval):
        settled.contradicted[since + 1 : row] = True
        settled.follows[row] = since
