"""Half-open time ranges ``[start, end)`` in UTC: the unit in which readings are scored."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Self

from anomaly.errors import WindowError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, order=True)
class Window:
    """A time range that holds its start and not its end.

    Raises
    ------
    WindowError
        When an end is naive, or the range is empty or reversed.

    Examples
    --------
    >>> day = Window.parse("2017-03-07", "2017-03-08")
    >>> [str(part.start.time()) for part in day.chunks(timedelta(hours=12))]
    ['00:00:00', '12:00:00']
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            moment = getattr(self, name)
            if moment.tzinfo is None:
                raise WindowError(f"{name} {moment} has no time zone: add one, e.g. Z")
            object.__setattr__(self, name, _plain_utc(moment))
        if self.start >= self.end:
            raise WindowError(
                f"the range from {self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} is empty:"
                " the end must be later than the start"
            )

    @classmethod
    def parse(cls, start: str, end: str) -> Self:
        """Make a window of two ISO 8601 texts (see `parse_moment`)."""
        return cls(parse_moment(start), parse_moment(end))

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    def __str__(self) -> str:
        return f"[{self.start:%Y-%m-%d %H:%M}, {self.end:%Y-%m-%d %H:%M}) UTC"

    def chunks(self, longest: timedelta) -> Iterator["Window"]:
        """Cut into consecutive windows no longer than `longest`."""
        start = self.start
        while start < self.end:
            end = min(start + longest, self.end)
            yield Window(start, end)
            start = end

    def due(self, now: datetime, interval: timedelta) -> "Window":
        """The part whose intervals are complete at `now`.

        Raises
        ------
        WindowError
            When none is.
        """
        end = min(self.end, floor_to_interval(now, interval))
        if end <= self.start:
            raise WindowError(f"{self} is not due yet: it is {now:%Y-%m-%d %H:%M} UTC")
        return Window(self.start, end)

    def within(self, other: "Window") -> "Window | None":
        """The part that lies in another window; None: they do not overlap.

        Examples
        --------
        >>> day = Window.parse("2017-03-07", "2017-03-08")
        >>> print(day.within(Window.parse("2017-03-07T12:00Z", "2017-03-09")))
        [2017-03-07 12:00, 2017-03-08 00:00) UTC
        """
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Window(start, end) if start < end else None

    def starting_earlier(self, by: timedelta) -> "Window":
        """The same window, begun earlier."""
        return Window(self.start - by, self.end)


def _plain_utc(moment: datetime) -> datetime:
    """A plain datetime: Airflow's own subclass loses its zone in arithmetic."""
    utc = moment.astimezone(UTC)
    return datetime.combine(utc.date(), utc.time(), UTC)


def parse_moment(text: str) -> datetime:
    """Read an ISO 8601 date (midnight UTC) or date-time with a zone.

    Raises
    ------
    WindowError
        When the text is no ISO 8601 date or date-time, or has no zone.

    Examples
    --------
    >>> parse_moment("2017-03-07").isoformat()
    '2017-03-07T00:00:00+00:00'
    >>> parse_moment("2017-03-07T05:45+01:00").isoformat()
    '2017-03-07T04:45:00+00:00'
    """
    try:
        if len(text) == len("2017-03-07"):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise WindowError(
            f"{text!r} is not a date or time: write 2017-03-07 or 2017-03-07T04:45Z"
        ) from None
    if moment.tzinfo is None:
        raise WindowError(f"{text!r} has no time zone: write {text}Z for UTC")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise WindowError(f"{text!r} is before the year 1 or after 9999 in UTC") from None


def floor_to_interval(moment: datetime, interval: timedelta) -> datetime:
    """The last interval boundary at or before `moment`, counted from the Unix epoch."""
    return moment - (moment - _EPOCH) % interval


def ceil_to_interval(moment: datetime, interval: timedelta) -> datetime:
    """The first interval boundary at or after `moment`."""
    floor = floor_to_interval(moment, interval)
    return floor if floor == moment else floor + interval


def spans(moments: Iterable[datetime], interval: timedelta, longest: timedelta) -> list[Window]:
    """Cover `moments` by few windows, joining those within an hour or four intervals."""
    joined: list[Window] = []
    slack = max(4 * interval, timedelta(hours=1))
    for moment in sorted(moments):
        piece = Window(moment, moment + interval)
        last = joined[-1] if joined else None
        if last and piece.start <= last.end + slack and piece.end - last.start <= longest:
            joined[-1] = Window(last.start, max(last.end, piece.end))
        else:
            joined.append(piece)
    return joined
