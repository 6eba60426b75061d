"""Find the last lasting change of a machine's level: training learns from there on."""

from datetime import timedelta

import numpy as np

from anomaly.arrays import Bools, Floats, Ints

SETTLING = timedelta(days=14)
"""A level counts as new once it has lasted so long. Chosen: two of each weekday, and shorter
excursions (a works holiday, a repair) must not be learnt as usual."""

_DAY = int(timedelta(days=1) / timedelta(microseconds=1))
_WEEK = 7  # days: each day is compared with the same weekdays of the weeks before
_BEFORE = (15, 29)
"""A change is compared with at least 14 and at most 28 days before it. Both numbers are one higher,
for the day of the change itself is left out."""
_CLEAR = 0.05
"""A day differs when its mean lies outside the earlier ones by more than this share of the mean
power of the machine. Chosen: less is noise."""
_CHANGED_DAYS = 4
"""Weekdays of seven that must have changed. On the others, such as a weekend, the machine may stand
still as before. Chosen: more than half."""


def level_change_time(power: Floats, ticks: Ints, rows: Ints, machines: int) -> Ints:
    """Time of the last lasting change of each machine's level.

    A level has changed when, for at least `SETTLING`, the mean power of each day lies outside
    that of the same weekdays in the two to four weeks before, and always on the same side. Up to
    three weekdays may be as before.

    Parameters
    ----------
    power : array
        kW; NaN where unknown.
    ticks : array of int
        Microseconds; sorted within a machine.
    rows : array of int
        Machine of each reading, 0 to `machines` - 1, sorted.

    Returns
    -------
    array of int, shape (machine,)
        Microseconds. The machine's first reading where its level has not changed, or where
        its power is never known.
    """
    begins = np.searchsorted(rows, np.arange(machines))
    ends = np.searchsorted(rows, np.arange(machines), side="right") - 1
    since, last = ticks[begins].copy(), ticks[ends]
    means = _daily_means(power, (last[rows] - ticks) // _DAY, rows, machines)
    clear = _CLEAR * _mean_known(np.abs(means))
    least, most = _BEFORE
    newest = int(SETTLING / timedelta(days=1))
    was = np.zeros(machines, dtype=bool)
    for days in range(means.shape[1] - least, newest - 1, -1):  # the latest change stands
        new, old = means[:, :days], means[:, days + 1 : days + most]
        changed = _changed(new, old, -(days + 1) % _WEEK, clear)
        since = np.where(changed & ~was, last - days * _DAY + 1, since)
        was = changed
    return since


def _daily_means(power: Floats, age: Ints, rows: Ints, machines: int) -> Floats:
    """Mean power in kW, shape (machine, days before its newest reading); NaN where unknown."""
    known = np.isfinite(power)
    days = int(age.max(initial=0)) + 1
    cell, size = (rows * days + age)[known], machines * days
    total = np.bincount(cell, weights=power[known], minlength=size)
    count = np.bincount(cell, minlength=size)
    with np.errstate(invalid="ignore"):
        means: Floats = (total / count).reshape(machines, days)
    return means


def _mean_known(means: Floats) -> Floats:
    """Mean over each machine's known days; NaN without any, so that no day ever differs."""
    known = np.isfinite(means)
    total, days = np.where(known, means, 0.0).sum(axis=1), known.sum(axis=1)
    found: Floats = np.divide(total, days, out=np.full(len(means), np.nan), where=days > 0)
    return found


def _changed(new: Floats, old: Floats, shift: int, clear: Floats) -> Bools:
    """Whether each machine's new days all differ from the same weekdays before.

    Parameters
    ----------
    new, old : array, shape (machine, day)
        Newest first.
    shift : int
        Place in `old` of the first day that is the same weekday as the first of `new`.
    """
    below, above, alike = (np.zeros(len(new), dtype=np.int64) for _ in range(3))
    for weekday in range(_WEEK):
        now, before = new[:, weekday::_WEEK], old[:, (weekday + shift) % _WEEK :: _WEEK]
        lowest, highest = _extremes(before)
        least, most = _extremes(now)
        below += most < lowest - clear
        above += least > highest + clear
        alike += (least >= lowest - clear) & (most <= highest + clear) & (
            highest - lowest <= 2 * clear
        ) | np.isnan(least + lowest)
    moved = np.maximum(below, above)
    changed: Bools = (moved >= _CHANGED_DAYS) & (moved + alike == _WEEK)
    return changed


def _extremes(days: Floats) -> tuple[Floats, Floats]:
    """Lowest and highest of each machine's days, NaN where none is known."""
    return np.fmin.reduce(days, axis=1), np.fmax.reduce(days, axis=1)
