"""A window of the meter table, measured: with what precedes it, and machines it names first."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.contradictions import REACH, Course, find_breaks, longest_dip
from anomaly.errors import SourceError
from anomaly.postgres.current import judged_readings
from anomaly.postgres.database import SCORER, Database, Transaction
from anomaly.postgres.machines import known_machines, machine_limits, register_machines
from anomaly.postgres.source import LARGEST_ID, UNREGISTERED, MeterSource, SourceShape
from anomaly.quality import measure
from anomaly.settings import Layout, ReadingKind, Settings
from anomaly.steps import MOST_READING, ReadingSteps, microseconds, too_close
from anomaly.windows import Window

_PG_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_CANONICAL = re.compile(r"0|[1-9]\d*", re.ASCII)


@dataclass(frozen=True)
class MeasuredWindow:
    """Readings of a window, measured, and what was left out.

    Attributes
    ----------
    context : DataFrame
        Output of `anomaly.quality.measure`: the window's rows, what precedes and follows them.
    inside : array of bool
        Which rows of `context` are the window's.
    machines : list of int
        Machines that were read, with or without a reading.
    missing : int
        Empty, NaN or infinite readings.
    duplicates : int
        Readings left out because another had their machine and time.
    ingested_through : datetime or None
        Newest ``ingested_at`` among the rows read.
    unregistered : bool
        Whether readings were left out whose machine is not registered yet.
    """

    context: pd.DataFrame
    inside: npt.NDArray[np.bool_]
    machines: list[int]
    missing: int
    duplicates: int
    ingested_through: datetime | None
    unregistered: bool = False

    @property
    def frame(self) -> pd.DataFrame:
        """The window's rows only."""
        return self.context[self.inside].reset_index(drop=True)

    @property
    def readings(self) -> int:
        """How many rows are the window's."""
        return int(self.inside.sum())


@dataclass(frozen=True)
class Context:
    """How far before a window readings matter to whoever judges it.

    Attributes
    ----------
    reach : timedelta
        Of the detectors that judge.
    flat_matters : set of int
        Machines of which it matters how long they have stood still, up to `REACH`.
    leap_kw : LeapLimits
        Rises beyond are looked at more closely: a day before them has to be read.
    """

    reach: timedelta
    flat_matters: frozenset[int]
    leap_kw: "LeapLimits"


@dataclass(frozen=True)
class LeapLimits:
    """Power above which a machine's rise is a leap, by the most careful of several models.

    Attributes
    ----------
    by_machine : Series
        kW by ``machine_id``; NaN: nothing is known.
    of_others : float
        Of machines that no model has seen.
    """

    by_machine: "pd.Series[float]"
    of_others: float

    def capped(self, known: pd.DataFrame) -> "LeapLimits":
        """No higher than what is declared of a machine, see `machine_limits`."""
        declared = known.set_index("machine_id")["max_power_kw"].dropna()
        if declared.empty:
            return self
        machines = self.by_machine.index.union(declared.index)
        capped = np.fmin(self.of(machines.to_numpy()), declared.reindex(machines).to_numpy(float))
        return LeapLimits(pd.Series(capped, machines), self.of_others)

    def of(self, machine_ids: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """Limit of each machine, kW."""
        known = self.by_machine.reindex(machine_ids, fill_value=self.of_others)
        limits: npt.NDArray[np.float64] = np.asarray(known, dtype=np.float64)
        return limits


class WindowReader:
    """Reads windows of the meter table and measures them by the first seven of the eight steps."""

    def __init__(self, settings: Settings) -> None:
        self.source = MeterSource(settings)
        self.settings = settings
        self._steps = ReadingSteps(settings)

    def prepare(
        self,
        database: Database,
        window: Window,
        role: str = SCORER,
        *,
        scan: bool = True,
        register: bool = True,
    ) -> SourceShape:
        """Describe the meter table, and register machines that are new in `window`.

        Without `register` nothing is written. Without `scan`, not those that only the rows of
        a long table tell of: reading says whether there are any
        (`MeasuredWindow.unregistered`).
        """
        with database.transaction(role, read_only=True) as transaction:
            shape = self.source.describe(transaction)
            long = self.settings.source_layout is Layout.LONG
            skip = not register or (long and not scan)
            new = {} if skip else self.new_machines(transaction, shape, window)
        if new:
            with database.transaction(role) as transaction:
                register_machines(transaction, new, self.settings.source_timezone or "UTC")
        return shape

    def new_machines(
        self, transaction: Transaction, shape: SourceShape, window: Window
    ) -> dict[str, int | None]:
        """Machines that are not registered, by their keys, with the id that each should have."""
        if self.settings.source_layout is Layout.WIDE:
            known = known_machines(transaction)
            numbers = dict(zip(known["source_key"], known["machine_id"], strict=True))
            for column, number in shape.machines.items():
                if (registered := numbers.get(column, number)) != number:
                    raise SourceError(
                        f"{self.settings.source_name}.{column} would be machine {number}, but is"
                        f" registered as {registered}: give it that id in ANOMALY_SOURCE_MACHINES"
                    )
            taken = {*numbers.values()}
            return {
                column: number for column, number in shape.machines.items() if number not in taken
            }
        keys = self.source.unknown_machines(transaction, shape, window)
        return {key: int(key) if _is_id(key) else None for key in keys}

    def read(
        self,
        transaction: Transaction,
        shape: SourceShape,
        window: Window,
        machines: list[int] | None = None,
        context: Context | None = None,
        judged_to: datetime | None = None,
    ) -> MeasuredWindow:
        """Read and measure the readings of `window`.

        What precedes it is read too, as far back as it matters: the reach, the flat run
        that a window begins in, a day before a break, and the longest gap for machines without
        a reading there. So is what follows within a day. What the source has purged since it
        was judged is taken from its verdicts: a purged past changes nothing.

        Parameters
        ----------
        context : Context, optional
            How far back matters; default: the whole reach, for every machine.
        judged_to : datetime, optional
            Readings beyond the window count up to here; default: none does.
        """
        back = self._back(context)
        ahead = min(window.end + REACH, max(judged_to or window.end, window.end))
        span = Window(window.start - back, ahead)
        raw = self.source.read(transaction, shape, span, machines)
        newest = _newest(raw["ingested_at"])
        every, unregistered = self._registered(self._long(raw, span), window)
        present = int(_inside(every, window).sum())
        finite = self._finite(every)
        found = int(_inside(finite, window).sum())
        first = every["utc_timestamp"].min()
        del raw, every  # of many machines each of these takes as much memory as the result
        unique = self._unique(finite)
        known = machine_limits(transaction)
        asked = self._asked_farther_back(unique, window, back, known, context)
        purged = None
        if any(asked.values()) or first > window.start - back + self.settings.interval:
            purged = self._purged(transaction, shape, window, back, machines)
        if purged is not None:
            finite = pd.concat([purged[0], finite], ignore_index=True)
            unique = self._unique(finite)
        earlier = self._earlier(transaction, shape, window, back, asked)
        if earlier is not None:
            unique = self._unique(pd.concat([earlier, finite], ignore_index=True))
        del finite, earlier
        unique = unique.drop(columns="ingested_at")
        measured = measure(self._steps.power_diff(unique), known, self.settings)
        inside = _inside(measured, window).to_numpy()
        if purged is not None:
            inside = inside & (measured["utc_timestamp"] >= purged[1]).to_numpy()
        return MeasuredWindow(
            measured,
            inside,
            _asked(known, shape, machines),
            missing=present - found,
            duplicates=found - int(inside.sum()),
            ingested_through=newest,
            unregistered=unregistered,
        )

    def _back(self, context: Context | None) -> timedelta:
        """How far before a window the readings of all machines are read."""
        reach = context.reach if context else REACH
        # So that a reading right at the edge finds those that it is compared with.
        interval = self.settings.interval // timedelta(microseconds=1)
        return reach + timedelta(microseconds=longest_dip(interval))

    def _longest_back(self, back: timedelta) -> timedelta:
        """How far before a window the readings of a machine are read that needs more."""
        return max(self.settings.max_gap, back + REACH)

    def _purged(
        self,
        transaction: Transaction,
        shape: SourceShape,
        window: Window,
        back: timedelta,
        machines: list[int] | None,
    ) -> tuple[pd.DataFrame, datetime] | None:
        """Readings that the source no longer has, from their verdicts, and where it begins.

        They only count where the source holds nothing at all for as long as a gap may last.
        """
        oldest = window.start - self._longest_back(back)
        kept_from = self.source.next_reading(transaction, shape, oldest)
        if kept_from is None or kept_from <= oldest:
            return None
        found = judged_readings(transaction, Window(oldest, kept_from), machines)
        return None if found.empty else (found, kept_from)

    def breaks(self, measured: MeasuredWindow, context: Context) -> list[int]:
        """Machines with a reading in the window that breaks with the one before it.

        What it says of earlier readings may change their verdicts.
        """
        if self.settings.reading_kind is not ReadingKind.ENERGY_KWH:
            return []
        declared = measured.context[["machine_id", "max_power_kw"]].drop_duplicates("machine_id")
        # A reading that follows a break settles it, though it is none itself.
        near = measured.inside | np.append(measured.inside[1:], False)
        return _with_breaks(measured.context, near, context.leap_kw.capped(declared))

    def _registered(self, every: pd.DataFrame, window: Window) -> tuple[pd.DataFrame, bool]:
        """Rows of registered machines, and whether the window has others."""
        if self.settings.source_layout is Layout.WIDE:
            return every, False
        known = every["machine_id"] != UNREGISTERED
        if known.all():
            return every, False
        return every[known], bool((_inside(every, window) & ~known).any())

    def _unique(self, finite: pd.DataFrame) -> pd.DataFrame:
        return self._steps.sort(finite)

    def _long(self, raw: pd.DataFrame, span: Window) -> pd.DataFrame:
        """One row a timestamp and machine, readings that are not finite included."""
        parsed = self._steps.parse(raw)
        before = parsed["utc_timestamp"] < span.end
        due = parsed if before.all() else parsed[before]
        if self.settings.source_layout is Layout.WIDE:
            return self._steps.melt(due)
        return due

    def _finite(self, long: pd.DataFrame) -> pd.DataFrame:
        finite = self._steps.drop_missing(long)
        if self.settings.source_layout is Layout.WIDE:
            return self._steps.machine_ids(finite)
        return finite

    def _asked_farther_back(
        self,
        unique: pd.DataFrame,
        window: Window,
        back: timedelta,
        known: pd.DataFrame,
        context: Context | None,
    ) -> dict[timedelta, set[int]]:
        """Machines that need readings from farther back than all were read, by how far."""
        least = timedelta(microseconds=too_close(self.settings.interval_minutes))
        is_sane = unique["reading"].abs() <= MOST_READING
        sane = unique if is_sane.all() else unique[is_sane]
        first = sane.groupby("machine_id")["utc_timestamp"].min()
        farthest = set(first.index[first > window.start - least].tolist())
        if context and self.settings.reading_kind is ReadingKind.ENERGY_KWH:
            near = (sane["utc_timestamp"] < window.start - back + REACH).to_numpy()
            farthest.update(_with_breaks(sane, near, context.leap_kw.capped(known)))
        asked = {self._longest_back(back): farthest}
        if context:
            standing = set(_flat_from_the_start(sane, window.start, self.settings))
            farthest |= standing & context.flat_matters
        if context and back < REACH:
            asked[REACH] = set(_flat_at_start(unique, window.start, self.settings))
            asked[REACH] &= context.flat_matters - farthest
        return asked

    def _earlier(
        self,
        transaction: Transaction,
        shape: SourceShape,
        window: Window,
        back: timedelta,
        asked: Mapping[timedelta, set[int]],
    ) -> pd.DataFrame | None:
        """Readings of machines from farther back than all were read; None: none is needed."""
        found = []
        for reach, machines in asked.items():
            if machines and reach > back:
                span = Window(window.start - reach, window.start - back)
                raw = self.source.read(transaction, shape, span, sorted(machines))
                rows = self._finite(self._long(raw, span))
                found.append(rows[rows["utc_timestamp"] < span.end])
        earlier = pd.concat(found, ignore_index=True) if found else None
        return None if earlier is None or earlier.empty else earlier


def _with_breaks(
    readings: pd.DataFrame, chosen: npt.NDArray[np.bool_], leap_kw: LeapLimits
) -> list[int]:
    """Machines of which a chosen reading falls, or leaps, however little."""
    if readings.empty:
        return []
    machines, nothing = readings["machine_id"].to_numpy(), np.zeros(len(readings))
    course = Course(
        lane=np.cumsum(np.diff(machines, prepend=machines[0]) != 0),
        ticks=microseconds(readings["utc_timestamp"]),
        reading=readings["reading"].to_numpy(float),
        tolerance=nothing,
        most_kw=leap_kw.of(machines),
        rolls=nothing.astype(bool),
        interval=1,
    )
    found: list[int] = np.unique(machines[find_breaks(course).any & chosen]).tolist()
    return found


def _flat_at_start(unique: pd.DataFrame, start: datetime, settings: Settings) -> list[int]:
    """Machines that stand still from the first reading that was read to the first from `start`."""
    after = unique[unique["utc_timestamp"] >= start].drop_duplicates("machine_id")
    both = pd.concat([unique[unique["utc_timestamp"] < start], after])
    readings = both.groupby("machine_id")["reading"].agg(["min", "max"])
    rounding = 2 * settings.meter_resolution_kwh + 1e-6 * readings["max"].abs()
    still = readings["max"] - readings["min"] <= rounding  # a few too many do no harm
    return readings.index[still & readings.index.isin(after["machine_id"])].tolist()


def _flat_from_the_start(sane: pd.DataFrame, start: datetime, settings: Settings) -> list[int]:
    """Machines whose first two readings that were read are equal: stuck since before, perhaps."""
    if len(sane) < 2:
        return []
    machine, reading = sane["machine_id"].to_numpy(), sane["reading"].to_numpy(float)
    first = np.flatnonzero(np.diff(machine, prepend=np.nan) != 0)
    first = first[(first + 1 < len(machine))]
    first = first[machine[first + 1] == machine[first]]
    rounding = 2 * settings.meter_resolution_kwh + 1e-6 * np.abs(reading[first])
    equal = np.abs(reading[first + 1] - reading[first]) <= rounding
    before = (sane["utc_timestamp"].iloc[first + 1] < start).to_numpy()
    found: list[int] = machine[first[equal & before]].tolist()
    return found


def _is_id(key: str) -> bool:
    """Whether a key is a number as everybody writes it, so that it can be the machine's id.

    "007", "+7", digits of other scripts and larger numbers are names.
    """
    return bool(_CANONICAL.fullmatch(key)) and int(key) <= LARGEST_ID


def _asked(known: pd.DataFrame, shape: SourceShape, machines: list[int] | None) -> list[int]:
    if machines is not None:
        return machines
    return list(shape.machines.values()) or known["machine_id"].tolist()


def _inside(frame: pd.DataFrame, window: Window) -> pd.Series:
    stamps = frame["utc_timestamp"]
    return (stamps >= window.start) & (stamps < window.end)


def _newest(ingested_at: pd.Series) -> datetime | None:
    """The newest that is known; what lies before the year 1 or beyond 9999 says nothing."""
    latest = (datetime.max.replace(tzinfo=UTC) - _PG_EPOCH) // timedelta(microseconds=1)
    earliest = (datetime.min.replace(tzinfo=UTC) - _PG_EPOCH) // timedelta(microseconds=1)
    known = ingested_at[ingested_at.between(earliest, latest)]
    return None if known.empty else _PG_EPOCH + timedelta(microseconds=int(known.max()))
