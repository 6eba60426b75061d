"""Local clocks: which moment a time without a zone means, and what to do where it means two.

A clock that is set back shows an hour twice, one that is set forward skips one. All of the
product that meets such times asks here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Stamps = npt.NDArray[np.datetime64]

LARGEST = timedelta(hours=3)
"""No clock is set by more (but for the date line): how far a search by local time looks around."""
UNKNOWN = np.iinfo(np.int64).min
"""In place of the microsecond at which a row was written, where that is not known."""
_DAY = timedelta(days=1)
_TICK = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Change:
    """A clock is set: at a moment (UTC), from one offset to UTC to another."""

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def shown_twice(self) -> tuple[datetime, datetime] | None:
        """The span of time in which the clock shows each time twice; None where it is set forward.

        Examples
        --------
        >>> berlin = ZoneInfo("Europe/Berlin")
        >>> year = datetime(2025, 7, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
        >>> (autumn,) = changes(berlin, *year)
        >>> [f"{moment:%d %H:%M}" for moment in autumn.shown_twice]
        ['26 00:00', '26 02:00']
        """
        back = self.before - self.after
        return (self.at - back, self.at + back) if back > timedelta(0) else None

    @property
    def skipped(self) -> tuple[datetime, datetime] | None:
        """The first local time that the clock skips, and the first that it shows again."""
        if self.after <= self.before:
            return None
        plain = self.at.replace(tzinfo=None)
        return plain + self.before, plain + self.after


# Changes of a clock ---------------------------------------------------------


def changes(zone: ZoneInfo, start: datetime, end: datetime) -> list[Change]:
    """When a clock is set in ``[start, end)``, in order; the years 2 to 9998 are looked at."""
    years = range(max(start.astimezone(UTC).year, 2), min(end.astimezone(UTC).year, 9998) + 1)
    return [
        change
        for year in years
        for change in _changes_of(zone.key, year)
        if start <= change.at < end
    ]


@lru_cache(maxsize=4096)
def _changes_of(zone: str, year: int) -> tuple[Change, ...]:
    """Changes in a year of UTC: days between which the offset differs, searched by halves."""
    if not 2 <= year <= 9998:
        return ()
    found, moment = [], datetime(year, 1, 1, tzinfo=UTC)
    while moment.year == year:
        following = moment + _DAY
        if _offset(zone, moment) != _offset(zone, following):
            found.append(_change_between(zone, moment, following))
        moment = following
    return tuple(found)


def _change_between(zone: str, first: datetime, last: datetime) -> Change:
    before, after = _offset(zone, first), _offset(zone, last)
    while last - first > timedelta(seconds=1):
        middle = first + timedelta(seconds=(last - first) // timedelta(seconds=2))
        first, last = (middle, last) if _offset(zone, middle) == before else (first, middle)
    return Change(last, before, after)


def _offset(zone: str, moment: datetime) -> timedelta:
    offset = moment.astimezone(ZoneInfo(zone)).utcoffset()
    assert offset is not None
    return offset


# From local times to UTC ------------------------------------------------------

_Reading = Literal["usual", "first", "first end", "skipping"]


def usual_utc(local: Stamps, zone: ZoneInfo) -> Stamps:
    """The moment that each local time means where nothing else tells.

    A time shown twice means the second; one that is skipped what it would have been had the
    clock not been set, so that the first one skipped is the moment of the change: an interval
    that ends there is labelled so.

    Parameters
    ----------
    local : array of datetime64[us]
        Naive; NaT stays NaT.
    """
    return _utc(local, zone, "usual")


def first_utc(local: Stamps, zone: ZoneInfo, *, ends: bool = False) -> Stamps:
    """As `usual_utc`, but a time shown twice means the first.

    Parameters
    ----------
    ends : bool
        The times are labels of intervals' ends. Then the end of the doubled hour may mean
        the moment of the change as well: who writes 02:15 to 03:00 twice, and 02:00 once,
        labels the end of an interval as its start shows it.
    """
    return _utc(local, zone, "first end" if ends else "first")


def is_doubled(local: Stamps, zone: ZoneInfo, *, ends: bool = False) -> Bools:
    """Which local times can mean two moments (`ends`: see `first_utc`)."""
    first = first_utc(local, zone, ends=ends)
    doubled: Bools = (first != usual_utc(local, zone)) & ~np.isnat(local)
    return doubled


def is_skipped(local: Stamps, zone: ZoneInfo) -> Bools:
    """Which local times the clock skips, the first of them included."""
    skipped: Bools = (_utc(local, zone, "skipping") != usual_utc(local, zone)) & ~np.isnat(local)
    return skipped


def meanings(local: datetime, zone: ZoneInfo, *, ends: bool = False) -> list[datetime]:
    """Every moment that a local time can mean, in order: one, or two (`ends`: see `first_utc`)."""
    stamp = np.array([local], dtype="datetime64[us]")
    first = first_utc(stamp, zone, ends=ends)
    both = np.unique(np.concatenate([first, usual_utc(stamp, zone)]))
    return [moment.replace(tzinfo=UTC) for moment in both.tolist()]


def local_time(moment: datetime, zone: ZoneInfo) -> datetime:
    """What the clock shows at a moment, naive."""
    return moment.astimezone(zone).replace(tzinfo=None)


def shown_before(moment: datetime, zone: ZoneInfo) -> datetime:
    """The first local time that the clock has not shown before a moment, naive."""
    shown = [local_time(moment, zone)]
    for change in changes(zone, moment - LARGEST, moment):
        shown.append(change.at.replace(tzinfo=None) + change.before)
    return max(shown)


def _utc(local: Stamps, zone: ZoneInfo, reading: _Reading) -> Stamps:
    stamps = local.astype("datetime64[us]")
    known = ~np.isnat(stamps)
    ticks = stamps.astype(np.int64)
    years = stamps.astype("datetime64[Y]").astype(np.int64) + 1970
    utc = ticks.copy()
    for year in np.unique(years[known]).tolist():
        mine = known & (years == year)
        bounds, offsets = _offsets(zone.key, year, reading)
        utc[mine] -= offsets[np.searchsorted(bounds, ticks[mine], side="right")]
    return utc.view("datetime64[us]")


@lru_cache(maxsize=4096)
def _offsets(zone: str, year: int, reading: _Reading) -> tuple[Ints, Ints]:
    """Local times from which on a new offset holds, and the offsets: one more than times."""
    near = [change for each in (year - 1, year, year + 1) for change in _changes_of(zone, each)]
    steady = _offset(zone, datetime(min(max(year, 2), 9998), 7, 1, tzinfo=UTC))
    offsets = [near[0].before if near else steady, *(change.after for change in near)]
    bounds = [change.at - _EPOCH + _shown_from(change, reading) for change in near]
    return _ticks(bounds), _ticks(offsets)


def _shown_from(change: Change, reading: _Reading) -> timedelta:
    """Offset at which the local time is told from which on the new offset holds.

    In autumn that is the start of the doubled hour, or its end; in spring the end of the
    skipped hour, or its start.
    """
    if reading == "usual":
        return change.after
    if reading == "skipping":
        return min(change.before, change.after)
    behind = reading == "first end" and change.after < change.before
    return max(change.before, change.after) + (_TICK if behind else timedelta(0))


def _ticks(spans: Sequence[timedelta]) -> Ints:
    return np.array([span // _TICK for span in spans], dtype=np.int64)


# Two rows of a time shown twice -------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """What tells rows of one local time apart.

    Attributes
    ----------
    cells : array of float, rows by columns
        Readings, NaN where there is none.
    written : array of int64
        Microseconds since 1970 (UTC) at which each row was written, or `UNKNOWN`.
    machine : array of int, optional
        Whose reading a row is; None where a row is of all.
    """

    cells: Floats
    written: Ints
    machine: npt.NDArray[np.generic] | None

    def taken(self, places: npt.NDArray[np.intp]) -> "Rows":
        """Some of them."""
        machine = None if self.machine is None else self.machine[places]
        return Rows(self.cells[places], self.written[places], machine)


def utc_of_rows(
    local: Stamps, zone: ZoneInfo, rows: Rows, interval: timedelta, *, counters: bool, ends: bool
) -> Stamps:
    """The moment that each row of a table in local time means; two rows of one time are two.

    Of the rows of a machine and a time that is shown twice, those are the first hour's that
    were written before the clock showed the time again (a third of an interval is left to
    clocks that differ). Where there are none, of counters the lower reading is, else the row
    that was written earlier, else the lower reading; of rows that are equal, one. All others
    are the second hour's. Rows without a reading tell nothing.

    What comes out depends on the rows of that hour alone, never on what else is read.

    Parameters
    ----------
    counters : bool
        Whether readings only ever rise.
    ends : bool
        See `first_utc`.
    """
    utc, first = usual_utc(local, zone), first_utc(local, zone, ends=ends)
    doubled = np.flatnonzero((utc != first) & np.isfinite(rows.cells).any(axis=1))
    if doubled.size:
        told = rows.taken(doubled)
        early = _is_first(local[doubled], utc[doubled], told, interval, counters)
        if ends:
            early |= begins_doubled_hour(local[doubled], zone, told.machine, early)
        utc[doubled[early]] = first[doubled[early]]
    return utc


def begins_doubled_hour(
    local: Stamps, zone: ZoneInfo, machine: npt.NDArray[np.generic] | None, early: Bools
) -> Bools:
    """Which labels at the start of a doubled hour end the interval before it, and mean one moment.

    Those of a machine whose label at the end of that hour means two.

    Parameters
    ----------
    local : array of datetime64[us]
        Labels of intervals' ends that can mean two moments.
    early : array of bool
        Which of them are known to mean the first.
    """
    closing = ~is_doubled(local, zone) & early
    opening = is_doubled(local, zone) & ~is_doubled(local - np.timedelta64(1, "us"), zone)
    change = np.where(closing, first_utc(local, zone, ends=True), usual_utc(local, zone))
    night, same = _numbered(change, machine), _numbered(local, machine)
    alone = np.bincount(same, early)[same] == 0
    begins: Bools = opening & alone & np.isin(night, night[closing])
    return begins


def _is_first(
    local: Stamps, second: Stamps, rows: Rows, interval: timedelta, counters: bool
) -> Bools:
    group = _numbered(local, rows.machine)
    margin = interval / 3 // _TICK
    known = rows.written != UNKNOWN
    proven = known & (rows.written < second.astype(np.int64) - margin)
    # Readings as one number each: the row's place among those of its group.
    place = rows.cells[:, 0] if rows.machine is not None else _places(rows.cells, group)
    keys = (place, rows.written) if counters else (rows.written, place)
    order = np.lexsort((keys[1], keys[0], group))
    begins = np.diff(group[order], prepend=-1) != 0
    leader = order[np.flatnonzero(begins)]  # of each group, in its order
    like = (place == place[leader][group]) & (rows.written == rows.written[leader][group])
    groups = len(leader)
    differ = np.bincount(group, ~like, groups)[group] > 0
    leads = np.zeros(len(group), dtype=bool)
    leads[leader] = True
    several = np.bincount(group, minlength=groups)[group] > 1
    comparable = np.bincount(group, np.isnan(place), groups)[group] == 0
    lowest = np.where(differ, like, leads) & several & comparable
    first: Bools = np.where(np.bincount(group, proven, groups)[group] > 0, proven, lowest)
    return first


def _numbered(local: Stamps, machine: npt.NDArray[np.generic] | None) -> Ints:
    """Number the pairs of local time and machine from nought on."""
    _, time = np.unique(local, return_inverse=True)
    if machine is None:
        return time.astype(np.int64)
    names, who = np.unique(machine, return_inverse=True)
    _, group = np.unique(time.astype(np.int64) * len(names) + who, return_inverse=True)
    return group.astype(np.int64)


def _places(cells: Floats, group: Ints) -> Floats:
    """Places of wide rows among those of their group, by the sum of what all of them have.

    Rows that have no column in common cannot be compared: NaN.
    """
    places = np.full(len(cells), np.nan)
    for number in range(int(group.max()) + 1):
        mine = np.flatnonzero(group == number)
        common = cells[mine][:, np.isfinite(cells[mine]).all(axis=0)]
        if common.size:
            ranked = np.column_stack([common.sum(axis=1), common])
            places[mine] = np.unique(ranked, axis=0, return_inverse=True)[1].ravel()
    return places


# What people are told -----------------------------------------------------------


def time_shown_twice(zone: ZoneInfo, start: datetime, end: datetime) -> timedelta:
    """How much of ``[start, end)`` a clock shows twice: readings may be missing there for good."""
    total = timedelta(0)
    for change in changes(zone, start - LARGEST, end + LARGEST):
        if change.shown_twice is not None:
            first, last = change.shown_twice
            total += max(timedelta(0), min(end, last) - max(start, first))
    return total


def standard_zone(zone: ZoneInfo, local: datetime) -> str | None:
    """The zone of clocks that are never set, by the standard time before a skipped local time.

    None where there is none, as for half an hour off in most places.

    Examples
    --------
    >>> standard_zone(ZoneInfo("Europe/Berlin"), datetime(2020, 3, 29, 2, 15))
    'Etc/GMT-1'
    """
    stamp = np.array([local], dtype="datetime64[us]")
    offset: timedelta = (stamp - usual_utc(stamp, zone)).astype("timedelta64[us]").tolist()[0]
    hours, rest = divmod(offset, timedelta(hours=1))
    if not rest:
        return f"Etc/GMT{-hours:+d}" if hours else "Etc/GMT"
    years = range(local.year - 1, local.year + 2)
    same = (
        name
        for name in sorted(available_timezones())
        if "/" in name
        and _offset(name, local.replace(tzinfo=UTC)) == offset
        and not any(_changes_of(name, year) for year in years)
    )
    return next(same, None)


def advice_on_skipped(zone: ZoneInfo, local: datetime) -> str:
    """What to set where a table or a file has readings at a local time that is skipped."""
    standard = standard_zone(zone, local)
    looks = "that looks like standard time all year"
    if standard is None:
        return f"{looks}, for which there is no zone here: write the times in UTC"
    return f"{looks}, set ANOMALY_SOURCE_TIMEZONE={standard}"


def as_local(values: Any) -> Stamps:
    """Naive times as an array of datetime64[us]."""
    stamps: Stamps = np.asarray(values, dtype="datetime64[us]")
    return stamps
