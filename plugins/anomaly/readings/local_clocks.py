"""Local clocks: which moment a time without a zone means, and what to do where it means two.

A clock that is set back shows an hour twice. A clock that is set forward skips an hour. All code
that handles such times uses this module.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
import numpy.typing as npt

from anomaly.arrays import Bools, Floats, Ints

Stamps = npt.NDArray[np.datetime64]

LARGEST = timedelta(hours=3)
"""A search by local time reads this much more on both sides.

No clock is set by more than this, except when a country moves across the date line.
"""
UNKNOWN = np.iinfo(np.int64).min
"""Value of `Rows.written` for a row whose write time is not known."""
_DAY = timedelta(days=1)
_TICK = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Change:
    """A change of a clock: the moment (UTC), and the offset to UTC before and after it."""

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def shown_twice(self) -> tuple[datetime, datetime] | None:
        """Start and end (UTC) of the times that the clock shows twice; None if set forward.

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
        """First skipped local time and first shown one after it; None if set back."""
        if self.after <= self.before:
            return None
        plain = self.at.replace(tzinfo=None)
        return plain + self.before, plain + self.after


# Changes of a clock ---------------------------------------------------------


def changes(zone: ZoneInfo, start: datetime, end: datetime) -> list[Change]:
    """Changes of a clock in ``[start, end)``, in order.

    Only the years 2 to 9998 are searched: a day before or after must still be a `datetime`.
    """
    years = range(max(start.astimezone(UTC).year, 2), min(end.astimezone(UTC).year, 9998) + 1)
    return [
        change
        for year in years
        for change in _changes_in_year(zone.key, year)
        if start <= change.at < end
    ]


@lru_cache(maxsize=4096)
def _changes_in_year(zone: str, year: int) -> tuple[Change, ...]:
    """Changes in a year (UTC): find days on which the offset differs, then bisect each day."""
    if not 2 <= year <= 9998:
        return ()
    # `zoneinfo` does not list the changes of a zone, so they are searched for.
    found, moment = [], datetime(year, 1, 1, tzinfo=UTC)
    while moment.year == year:
        following = moment + _DAY
        if _offset_at(zone, moment) != _offset_at(zone, following):
            found.append(_change_between(zone, moment, following))
        moment = following
    return tuple(found)


def _change_between(zone: str, first: datetime, last: datetime) -> Change:
    before, after = _offset_at(zone, first), _offset_at(zone, last)
    while last - first > timedelta(seconds=1):  # zone files give changes in whole seconds
        middle = first + timedelta(seconds=(last - first) // timedelta(seconds=2))
        first, last = (middle, last) if _offset_at(zone, middle) == before else (first, middle)
    return Change(last, before, after)


def _offset_at(zone: str, moment: datetime) -> timedelta:
    offset = moment.astimezone(ZoneInfo(zone)).utcoffset()
    assert offset is not None
    return offset


# From local times to UTC ------------------------------------------------------

_Reading = Literal["usual", "first", "first end", "skipping"]


def usual_utc(local: Stamps, zone: ZoneInfo) -> Stamps:
    """The moment that each local time means if nothing else is known.

    A time shown twice means its second showing. A skipped time is read with the offset before
    the change. So the first skipped time means the moment of the change, which is right for an
    interval that ends there.

    Parameters
    ----------
    local : array of datetime64[us]
        Naive; NaT stays NaT.
    """
    return _local_to_utc(local, zone, "usual")


def first_utc(local: Stamps, zone: ZoneInfo, *, ending: timedelta | None = None) -> Stamps:
    """As `usual_utc`, but a time shown twice means its first showing.

    Parameters
    ----------
    ending : timedelta, optional
        The times label the ends of intervals of this length. Then the end of the doubled hour
        can also mean the end of the interval that began last before the change: some meters
        write 02:15 to 03:00 twice and 02:00 once, because they label the end of an interval by
        the offset at its start.
    """
    return _local_to_utc(local, zone, "first" if ending is None else "first end", ending)


def is_doubled(local: Stamps, zone: ZoneInfo, *, ending: timedelta | None = None) -> Bools:
    """Which local times can mean two moments (`ending`: see `first_utc`)."""
    first = first_utc(local, zone, ending=ending)
    doubled: Bools = (first != usual_utc(local, zone)) & ~np.isnat(local)
    return doubled


def is_skipped(local: Stamps, zone: ZoneInfo) -> Bools:
    """Which local times the clock skips, the first skipped time included."""
    skipped: Bools = (_local_to_utc(local, zone, "skipping") != usual_utc(local, zone)) & ~np.isnat(
        local
    )
    return skipped


def possible_moments(
    local: datetime, zone: ZoneInfo, *, ending: timedelta | None = None
) -> list[datetime]:
    """Every moment that a local time can mean, in order: one or two (`ending`: see `first_utc`)."""
    stamp = np.array([local], dtype="datetime64[us]")
    first = first_utc(stamp, zone, ending=ending)
    both = np.unique(np.concatenate([first, usual_utc(stamp, zone)]))
    return [moment.replace(tzinfo=UTC) for moment in both.tolist()]


def local_time(moment: datetime, zone: ZoneInfo) -> datetime:
    """The time that the clock shows at a moment, without a zone."""
    return moment.astimezone(zone).replace(tzinfo=None)


def shown_before(moment: datetime, zone: ZoneInfo) -> datetime:
    """First local time, without a zone, that the clock has not shown before a moment."""
    shown = [local_time(moment, zone)]
    for change in changes(zone, moment - LARGEST, moment):
        shown.append(change.at.replace(tzinfo=None) + change.before)
    return max(shown)


def _local_to_utc(
    local: Stamps, zone: ZoneInfo, reading: _Reading, ending: timedelta | None = None
) -> Stamps:
    stamps = local.astype("datetime64[us]")
    known = ~np.isnat(stamps)
    ticks = stamps.astype(np.int64)
    years = stamps.astype("datetime64[Y]").astype(np.int64) + 1970
    utc = ticks.copy()
    for year in np.unique(years[known]).tolist():
        mine = known & (years == year)
        bounds, offsets = _offsets_by_local_time(zone.key, year, reading, ending)
        utc[mine] -= offsets[np.searchsorted(bounds, ticks[mine], side="right")]
    return utc.view("datetime64[us]")


@lru_cache(maxsize=4096)
def _offsets_by_local_time(
    zone: str, year: int, reading: _Reading, ending: timedelta | None
) -> tuple[Ints, Ints]:
    """Local times at which a new offset begins, and the offsets (one more than the times)."""
    # The neighbouring years count too: near New Year the local year differs from the year in UTC.
    near = [
        change for each in (year - 1, year, year + 1) for change in _changes_in_year(zone, each)
    ]
    # Without a change in these years every day has the same offset: any day will do.
    steady = _offset_at(zone, datetime(min(max(year, 2), 9998), 7, 1, tzinfo=UTC))
    offsets = [near[0].before if near else steady, *(change.after for change in near)]
    bounds = [change.at - _EPOCH + _offset_at_change(change, reading, ending) for change in near]
    return _ticks(bounds), _ticks(offsets)


def _offset_at_change(change: Change, reading: _Reading, ending: timedelta | None) -> timedelta:
    """Offset that turns a change into the local time at which the new offset begins.

    In autumn this local time is the start or the end of the doubled hour. In spring it is the
    end or the start of the skipped hour.
    """
    if reading == "usual":
        return change.after
    if reading == "skipping":
        return min(change.before, change.after)
    doubled = max(change.before, change.after)
    if ending is None or change.after > change.before:
        return doubled
    # A clock may be set a minute past midnight (St. John's, until 2011): then the interval that
    # began last before the change ends somewhat after it.
    return doubled + -(change.at - _EPOCH) % ending + _TICK


def _ticks(spans: Sequence[timedelta]) -> Ints:
    return np.array([span // _TICK for span in spans], dtype=np.int64)


# Two rows of a time shown twice -------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """What distinguishes rows that have the same local time.

    Attributes
    ----------
    cells : array of float, rows by columns
        Readings; NaN where a cell is empty.
    written : array of int64
        Microseconds since 1970 (UTC) at which each row was written, or `UNKNOWN`.
    machine : array of int, optional
        The machine of each row; None where a row holds the readings of all machines.
    """

    cells: Floats
    written: Ints
    machine: npt.NDArray[np.generic] | None

    def at_places(self, places: npt.NDArray[np.intp]) -> "Rows":
        """The rows at these places."""
        machine = None if self.machine is None else self.machine[places]
        return Rows(self.cells[places], self.written[places], machine)


def utc_of_rows(
    local: Stamps, zone: ZoneInfo, rows: Rows, interval: timedelta, *, counters: bool, ends: bool
) -> Stamps:
    """The moment that each row of a table in local time means.

    For each machine and each time that is shown twice, the first hour gets:

    1. the rows that were written before the clock showed the time again (less a third of an
       interval, for clocks that differ);
    2. if there are none and the readings are counters: the row with the lower reading;
    3. else the row that was written earlier, or at the same write time the lower reading;
    4. if all rows are equal: one of them.

    All other rows belong to the second hour. Rows without a reading are ignored.
    The result depends only on the rows of that hour, never on what else is read.

    Parameters
    ----------
    counters : bool
        Whether readings only rise.
    ends : bool
        The times label the ends of intervals; see `first_utc`.
    """
    ending = interval if ends else None
    utc, first = usual_utc(local, zone), first_utc(local, zone, ending=ending)
    doubled = np.flatnonzero((utc != first) & np.isfinite(rows.cells).any(axis=1))
    if doubled.size:
        mine = rows.at_places(doubled)
        early = _is_first_hour(local[doubled], utc[doubled], mine, interval, counters)
        if ending is not None:
            early |= begins_doubled_hour(local[doubled], zone, mine.machine, early, ending)
        utc[doubled[early]] = first[doubled[early]]
    return utc


def begins_doubled_hour(
    local: Stamps,
    zone: ZoneInfo,
    machine: npt.NDArray[np.generic] | None,
    early: Bools,
    ending: timedelta,
) -> Bools:
    """Which labels at the start of a doubled hour mean the first showing.

    Such a label ends the interval before the doubled hour and has one meaning only, if the same
    machine's label at the end of that hour has two.

    Parameters
    ----------
    local : array of datetime64[us]
        Labels of intervals' ends that can mean two moments.
    early : array of bool
        Which of them are known to mean the first.
    ending : timedelta
        Length of the intervals.
    """
    closing = ~is_doubled(local, zone) & early
    # The first label on the grid of intervals that the clock shows twice.
    on_grid = usual_utc(local, zone).astype(np.int64) % (ending // _TICK) == 0
    before = local - np.timedelta64(ending // _TICK, "us")
    opening = is_doubled(local, zone) & ~is_doubled(before, zone) & on_grid
    change = np.where(closing, first_utc(local, zone, ending=ending), usual_utc(local, zone))
    night, same = _group_numbers(change, machine), _group_numbers(local, machine)
    alone = np.bincount(same, early)[same] == 0
    begins: Bools = opening & alone & np.isin(night, night[closing])
    return begins


def _is_first_hour(
    local: Stamps, second: Stamps, rows: Rows, interval: timedelta, counters: bool
) -> Bools:
    group = _group_numbers(local, rows.machine)
    # Rule 1 of `utc_of_rows`: written before the second showing.
    margin = interval / 3 // _TICK
    known = rows.written != UNKNOWN
    proven = known & (rows.written < second.astype(np.int64) - margin)
    # One number per row, to compare readings: the row's rank within its group.
    place = rows.cells[:, 0] if rows.machine is not None else _ranks_in_group(rows.cells, group)
    # Rules 2 and 3: the leader of each group comes first by this order.
    keys = (place, rows.written) if counters else (rows.written, place)
    order = np.lexsort((keys[1], keys[0], group))
    begins = np.diff(group[order], prepend=-1) != 0
    leader = order[np.flatnonzero(begins)]  # first row of each group
    like = (place == place[leader][group]) & (rows.written == rows.written[leader][group])
    # Rule 4: if all rows of a group are equal, only the leader belongs to the first hour.
    groups = len(leader)
    differ = np.bincount(group, ~like, groups)[group] > 0
    leads = np.zeros(len(group), dtype=bool)
    leads[leader] = True
    several = np.bincount(group, minlength=groups)[group] > 1
    comparable = np.bincount(group, np.isnan(place), groups)[group] == 0
    lowest = np.where(differ, like, leads) & several & comparable
    first: Bools = np.where(np.bincount(group, proven, groups)[group] > 0, proven, lowest)
    return first


def _group_numbers(local: Stamps, machine: npt.NDArray[np.generic] | None) -> Ints:
    """Give each pair of local time and machine a number, from 0."""
    _, time = np.unique(local, return_inverse=True)
    if machine is None:
        return time.astype(np.int64)
    names, who = np.unique(machine, return_inverse=True)
    _, group = np.unique(time.astype(np.int64) * len(names) + who, return_inverse=True)
    return group.astype(np.int64)


def _ranks_in_group(cells: Floats, group: Ints) -> Floats:
    """Rank of each wide row within its group, by the sum of the columns that all rows fill.

    NaN where the rows of a group have no filled column in common: they cannot be compared.
    """
    places = np.full(len(cells), np.nan)
    for number in range(int(group.max()) + 1):
        mine = np.flatnonzero(group == number)
        common = cells[mine][:, np.isfinite(cells[mine]).all(axis=0)]
        if common.size:
            ranked = np.column_stack([common.sum(axis=1), common])
            places[mine] = np.unique(ranked, axis=0, return_inverse=True)[1].ravel()
    return places


# For messages to people ---------------------------------------------------------


def time_shown_twice(zone: ZoneInfo, start: datetime, end: datetime) -> timedelta:
    """How much of ``[start, end)`` a clock shows twice. Readings may be missing there for ever."""
    total = timedelta(0)
    for change in changes(zone, start - LARGEST, end + LARGEST):
        if change.shown_twice is not None:
            first, last = change.shown_twice
            total += max(timedelta(0), min(end, last) - max(start, first))
    return total


def standard_zone(zone: ZoneInfo, local: datetime) -> str | None:
    """Name of a zone without clock changes that has the standard offset before a skipped time.

    None where no such zone exists, as for most offsets of half an hour.

    Examples
    --------
    >>> standard_zone(ZoneInfo("Europe/Berlin"), datetime(2020, 3, 29, 2, 15))
    'Etc/GMT-1'
    """
    stamp = np.array([local], dtype="datetime64[us]")
    # `usual_utc` reads a skipped time with the offset before the change: the standard time.
    offset: timedelta = (stamp - usual_utc(stamp, zone)).astype("timedelta64[us]").tolist()[0]
    hours, rest = divmod(offset, timedelta(hours=1))
    if not rest:
        # POSIX counts offsets westwards: UTC+1 is Etc/GMT-1.
        return f"Etc/GMT{-hours:+d}" if hours else "Etc/GMT"
    years = range(local.year - 1, local.year + 2)
    same = (
        name
        for name in sorted(available_timezones())
        if "/" in name
        and _offset_at(name, local.replace(tzinfo=UTC)) == offset
        and not any(_changes_in_year(name, year) for year in years)
    )
    return next(same, None)


def advice_on_skipped(zone: ZoneInfo, local: datetime) -> str:
    """Advice for a table or a file that has readings at a skipped local time."""
    standard = standard_zone(zone, local)
    looks = "that looks like standard time all year"
    if standard is None:
        return f"{looks}, for which there is no zone here: write the times in UTC"
    return f"{looks}, set ANOMALY_SOURCE_TIMEZONE={standard}"


def as_local(values: Any) -> Stamps:
    """Times without a zone as an array of datetime64[us]."""
    stamps: Stamps = np.asarray(values, dtype="datetime64[us]")
    return stamps


@cache
def zone_or_utc(name: str) -> ZoneInfo:
    """The zone of that name. UTC if it does not exist: a wrong name must not stop scoring."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")
