"""The shape of the last hours: how far their course is from all that training saw.

A course is the power of the last hours as up to `POINTS` means of equal parts, newest first, beside
its own mean: a level is no shape, and other signals judge it. Training learns each machine's mean
course and its principal components. What these leave unexplained is the signal ``shape_6h``. It is
computed course by course, so it is the same bit for bit wherever a window starts.
"""

from datetime import timedelta
from typing import Protocol

import numpy as np

from anomaly.arrays import Bools, Floats, Ints, one_if_equal
from anomaly.detectors.signals.usual_day import UsualDay

SPAN = timedelta(hours=6)
POINTS = 24
"""Most points of a course: quarter-hours of six hours. A faster meter gives means of quarter-hours,
a slower one fewer points."""
PARTS = 4
"""Principal components that are learnt. Chosen: more explain faults away, too."""

_BLOCK = 4_096  # courses at once, so that they stay in the processor's cache


class EvenReadings(Protocol):
    """What a course needs of `anomaly.detectors.signals.signals.Readings`."""

    usual: UsualDay
    interval: timedelta
    rows: Ints

    def evenly_spaced_power(self, each: int) -> Floats:
        """Mean power in kW over the `each` intervals up to every reading; NaN where unknown."""

    def is_apart(self, first: Ints, last: Ints, intervals: int) -> Bools:
        """Whether pairs of readings are of one machine and so many intervals apart."""


def points(interval: timedelta) -> tuple[int, int]:
    """Number of points of a course, and of readings per point, for a meter's interval."""
    each = max(1, -(-SPAN // (POINTS * interval)))
    return max(2, int(SPAN / (each * interval))), each


def courses(readings: EvenReadings, chosen: Ints) -> Floats:
    """Courses before chosen readings, shape (chosen, point), in kW beside their own mean.

    NaN where one is not wholly known.
    """
    return np.ascontiguousarray(_by_point(readings, chosen).T)


def misfit(readings: EvenReadings, chosen: Ints) -> Floats:
    """Root mean square in kW of what the usual courses leave unexplained; NaN where unknown."""
    found = np.empty(len(chosen))
    for begin in range(0, len(chosen), _BLOCK):
        away = _unexplained_by_point(readings, chosen[begin : begin + _BLOCK])
        found[begin : begin + _BLOCK] = np.sqrt(_total(away * away) / len(away))
    return found


def unexplained(readings: EvenReadings, chosen: Ints) -> Floats:
    """What the usual courses leave unexplained at each point, in kW, shape (chosen, point)."""
    return _unexplained_by_point(readings, chosen).T


def _by_point(readings: EvenReadings, chosen: Ints) -> Floats:
    """As `courses`, shape (point, chosen): sums over points then run along the readings."""
    count, each = points(readings.interval)
    power = readings.evenly_spaced_power(each)
    back = np.maximum(chosen - each * np.arange(count)[:, None], 0)
    found: Floats = power[back]
    found[:, ~readings.is_apart(back[-1], chosen, (count - 1) * each)] = np.nan
    found -= _total(found) / count
    return found


def _unexplained_by_point(readings: EvenReadings, chosen: Ints) -> Floats:
    rows = one_if_equal(readings.rows[chosen])
    away = _by_point(readings, chosen)
    away -= readings.usual.course[rows].T
    for number in range(readings.usual.course_parts.shape[1]):
        part = readings.usual.course_parts[rows, number].T
        away -= _total(away * part) * part
    return away


def _total(values: Floats) -> Floats:
    """Sums over the points, in their order: numpy adds a single column in another one."""
    if values.shape[1] == 1:
        total: Floats = np.cumsum(values, axis=0)[-1]
    else:
        total = values.sum(axis=0)
    return total


def learn_courses(known: Floats) -> tuple[Floats, Floats]:
    """Mean and principal components of courses.

    Parameters
    ----------
    known : array, shape (course, point)
        Without NaN.

    Returns
    -------
    tuple
        Shapes (point,) and (part, point); NaN and zeros where there are too few courses.
    """
    size = known.shape[1]
    parts = np.zeros((PARTS, size))
    if len(known) < 2 * size:
        return np.full(size, np.nan), parts
    _, vectors = np.linalg.eigh(np.cov(known.T))
    kept = min(PARTS, size - 1)
    parts[:kept] = vectors[:, ::-1][:, :kept].T
    return known.mean(axis=0), parts
