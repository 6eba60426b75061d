"""Find counter readings that later readings contradict.

A counter only rises, and no faster than its machine can draw power. A break is a reading that
falls, or that rises by more than that. The readings of the next day settle the break:

- The counter comes back to where it was (``L, 0, L + 3``): the readings in between were wrong.
- A counter that stood still catches up (``L, L, L, L + 12``): the equal readings were wrong.

A counter that restarts each day falls by design, so a fall says nothing about the readings before
it. It was no restart only if a later rise comes back to the old level, and is more than the machine
can have used since.

The result for a reading depends only on the readings within `REACH` before and after it, never on
where a window starts or ends.
"""

from datetime import timedelta
from typing import NamedTuple

import numpy as np

from anomaly.arrays import MICROSECONDS_PER_HOUR, Bools, Floats, Ints

REACH = timedelta(hours=24)
"""Longest time between the reading before a break and the reading that settles it.

Chosen: 24 hours, whatever the interval. Meters that are read less often than every eight hours
have too few readings in that time for most of these rules.
"""

_REACH = int(REACH / timedelta(microseconds=1))
# Intervals; one hour at 15 minutes. Chosen: a fall to a level this recent needs no second break.
_NEAR = 4


class Course(NamedTuple):
    """Counter readings sorted by machine and time, and what each machine can draw.

    Attributes
    ----------
    lane : array of int
        Rising number, one per machine. A gap longer than ``max_gap_days`` starts a new number.
    ticks : array of int
        Microseconds.
    reading : array
        kWh.
    tolerance : array
        A fall of at most this much does not count as a fall, kWh.
    most_kw : array
        Power above which a rise is a leap; NaN: nothing is known.
    rolls : array of bool
        Readings that fell because the counter rolled over. They are no break.
    interval : int
        Interval of the meter, microseconds. A rise may always hold the energy of one interval.
    restarts : bool
        Whether the counters restart each day: then a fall is a restart, unless a leap comes back.
    """

    lane: Ints
    ticks: Ints
    reading: Floats
    tolerance: Floats
    most_kw: Floats
    rolls: Bools
    interval: int
    restarts: bool = False


class Breaks(NamedTuple):
    """Readings that cannot follow the reading before them.

    Attributes
    ----------
    falls, leaps : array of bool
    """

    falls: Bools
    leaps: Bools

    @property
    def any(self) -> Bools:
        """Falls and leaps together."""
        return self.falls | self.leaps


class Settled(NamedTuple):
    """What the later readings say about the breaks.

    Attributes
    ----------
    contradicted : array of bool
        Readings that a later reading contradicts.
    follows : array of int
        For a reading whose predecessors are contradicted: row of the last reading before it
        that counts. -1 for all others.
    moves_again : array of bool
        Leaps after a run of equal readings that may have begun earlier than `REACH` before. It
        is not known when their energy was used.
    """

    contradicted: Bools
    follows: Ints
    moves_again: Bools


def find_breaks(course: Course) -> Breaks:
    """Find the readings that fall, or that rise by more than their machine can draw."""
    change = np.diff(course.reading, prepend=np.nan)
    same = np.diff(course.lane, prepend=-1) == 0
    step = np.diff(course.ticks, prepend=0)
    falls = same & (change < -course.tolerance) & ~course.rolls
    leaps = same & (change > _most_energy(course.most_kw, step, course.interval))
    return Breaks(falls, leaps)


def settle_breaks(course: Course, breaks: Breaks, flat_since: Ints) -> Settled:
    """Find what the readings within `REACH` after a break say about it.

    Parameters
    ----------
    flat_since : array of int
        First row of the run of equal readings that each reading belongs to.
    """
    size = len(course.lane)
    settled = Settled(np.zeros(size, bool), np.full(size, -1, np.int64), np.zeros(size, bool))
    if not breaks.any.any():
        return settled
    if not course.restarts:
        _settle_single_dips(course, breaks, settled)
    keys = _sort_keys(course)
    returning = _return_candidates(course, breaks, keys)
    # Single dips come first: they are decided for all rows at once, and a reading that is
    # contradicted already cannot be a way back. Catch-ups come last: a reading that came back
    # from wrong readings is not looked at as the end of a flat run.
    for row in returning[~settled.contradicted[returning]].tolist():
        _settle_return(course, breaks, keys, row, settled)
    for row in _catch_up_rows(breaks, flat_since).tolist():
        if settled.follows[row] < 0:
            _settle_catch_up(course, int(flat_since[row - 1]), row, settled)
    return settled


def longest_dip(interval: int) -> int:
    """Longest time between the readings before and after a single dip, microseconds."""
    # Two intervals, plus a fifteenth of each (chosen) for a meter whose clock is not exact.
    return 2 * interval + 2 * (interval // 15)


def _most_energy(power_kw: Floats, span: Ints, interval: int) -> Floats:
    """Most energy that can be used in a span, kWh. A span counts as one interval or longer."""
    energy: Floats = power_kw * (np.maximum(span, interval) / MICROSECONDS_PER_HOUR)
    return energy


def _sort_keys(course: Course) -> Ints:
    """One sort key per reading: rising with time, and more than `REACH` apart between machines."""
    width = int(np.ptp(course.ticks)) + _REACH + 1
    keys: Ints = course.lane * width + (course.ticks - course.ticks.min())
    return keys


def _return_candidates(course: Course, breaks: Breaks, keys: Ints) -> Ints:
    """Rows of breaks with which the counter may come back from wrong readings.

    A leap counts only if a fall and a break lie within `REACH` before it: the wrong readings
    that it comes back from are lower than it.
    """
    may_return = breaks.leaps if course.restarts else breaks.any
    rows = np.flatnonzero(may_return & np.isfinite(course.most_kw))
    first = np.searchsorted(keys, keys[rows] - _REACH)
    lower = np.diff(course.reading, prepend=np.nan) < 0  # roll-overs included
    # Counts up to each row, so that a difference of two counts is the number in between.
    lows, all_breaks = (np.append(0, np.cumsum(side)) for side in (lower, breaks.any))
    before = np.minimum(lows[rows] - lows[first], all_breaks[rows] - all_breaks[first])
    found: Ints = rows[breaks.falls[rows] | (before > 0)]
    return found


def _settle_single_dips(course: Course, breaks: Breaks, settled: Settled) -> None:
    """Contradict a single reading that fell, if the next reading can follow the one before it.

    The size of the fall does not matter: a counter that goes on from its old level was not
    reset. If the reading before may also have been too high, the smoother course decides.
    """
    fell = np.flatnonzero(breaks.falls[:-1])
    dips = fell[_can_follow(course, fell - 1, fell + 1, longest_dip(course.interval))]
    dips = dips[_is_smoother_without(course, dips)]
    settled.contradicted[dips] = True
    settled.follows[dips + 1] = dips - 1


def _is_smoother_without(course: Course, fell: Ints) -> Bools:
    """Whether power is smoother without the reading that fell than without the one before it."""
    two_before = np.maximum(fell - 2, 0)
    # Only if the reading that fell can follow the one two before it, the one before may be wrong.
    doubtful = (fell >= 2) & _can_follow(course, two_before, fell, _NEAR * course.interval)
    with np.errstate(invalid="ignore", divide="ignore"):
        without = _mean_power(course, two_before, fell - 1) - _mean_power(
            course, fell - 1, fell + 1
        )
        otherwise = _mean_power(course, two_before, fell) - _mean_power(course, fell, fell + 1)
    smoother: Bools = ~doubtful | (np.abs(without) <= np.abs(otherwise))
    return smoother


def _can_follow(course: Course, before: Ints, after: Ints, longest: int) -> Bools:
    """Whether the later readings can follow the earlier ones of the same machine."""
    span = course.ticks[after] - course.ticks[before]
    change = course.reading[after] - course.reading[before]
    found: Bools = (
        (course.lane[after] == course.lane[before])
        & (span <= longest)
        & (change >= -course.tolerance[after])
        & (change <= _most_energy(course.most_kw[after], span, course.interval))
    )
    return found


def _mean_power(course: Course, before: Ints, after: Ints) -> Floats:
    """Mean power between readings, kWh per microsecond."""
    change = course.reading[after] - course.reading[before]
    power: Floats = change / (course.ticks[after] - course.ticks[before])
    return power


def _settle_return(course: Course, breaks: Breaks, keys: Ints, row: int, settled: Settled) -> None:
    """Contradict the readings between `row` and the last reading that `row` can follow."""
    first = int(np.searchsorted(keys, keys[row] - _REACH))
    before = slice(first, row - 1)  # `row` is a break: it cannot follow the reading at row - 1
    allowed = _most_energy(
        course.most_kw[row], course.ticks[row] - course.ticks[before], course.interval
    )
    value = course.reading[row]
    follows = (course.reading[before] <= value + course.tolerance[row]) & (
        course.reading[before] >= value - allowed
    )
    if not follows.any():
        return
    last = first + int(np.flatnonzero(follows)[-1])
    if course.restarts and value <= allowed[last - first]:
        return  # the machine can have used all of it since a restart
    near = course.ticks[row] - course.ticks[last] <= _NEAR * course.interval
    # The counter must leave its level by a break as well: a slow rise over a day is real energy.
    # Without such a break only a fall within `_NEAR` counts: the few readings before it were
    # too high.
    if breaks.any[last + 1] or (near and breaks.falls[row]):
        settled.contradicted[last + 1 : row] = True
        settled.follows[row] = last


def _catch_up_rows(breaks: Breaks, flat_since: Ints) -> Ints:
    """Rows of leaps that end a run of equal readings."""
    rows = np.flatnonzero(breaks.leaps)
    found: Ints = rows[flat_since[rows - 1] < rows - 1]
    return found


def _settle_catch_up(course: Course, since: int, row: int, settled: Settled) -> None:
    """Contradict a run of equal readings if the machine can have used the leap's energy during it.

    The reading before the run must lie within `REACH` as well: it shows when the run began.
    """
    begun = since > 0 and course.lane[since - 1] == course.lane[row]
    if not begun or course.ticks[row] - course.ticks[since - 1] > _REACH:
        settled.moves_again[row] = True
        return
    span = course.ticks[row] - course.ticks[since]
    change = course.reading[row] - course.reading[since]
    if change <= _most_energy(course.most_kw[row], span, course.interval):
        settled.contradicted[since + 1 : row] = True
        settled.follows[row] = since
