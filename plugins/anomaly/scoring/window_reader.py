"""Read a window of the meter table and measure it, with the readings before and after it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from anomaly.arrays import Bools
from anomaly.database.connection import SCORER, Database, Transaction
from anomaly.database.machines import machine_limits
from anomaly.database.meter_table import UNREGISTERED, MeterSource, SourceShape
from anomaly.database.results import judged_readings
from anomaly.readings.contradictions import REACH
from anomaly.readings.measuring import measure
from anomaly.readings.preprocessing import ReadingSteps
from anomaly.scoring.look_behind import (
    LookBehind,
    back_of_all,
    back_of_some,
    machines_to_look_farther,
    machines_with_breaks,
)
from anomaly.scoring.new_machines import describe_source
from anomaly.settings import Layout, MeterSettings, MeterTableSettings
from anomaly.windows import Window

_PG_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_HANDED_IN = np.iinfo(np.int64).max
"""``ingested_at`` of readings that no table holds."""


@dataclass(frozen=True)
class MeasuredWindow:
    """Readings of a window, measured, and what was left out.

    Attributes
    ----------
    around : DataFrame
        Output of `measure`: the window's rows, and those that precede and follow them.
    inside : array of bool
        Which rows of `around` are the window's.
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

    around: pd.DataFrame
    inside: Bools
    machines: list[int]
    missing: int
    duplicates: int
    ingested_through: datetime | None
    unregistered: bool = False

    @property
    def frame(self) -> pd.DataFrame:
        """The window's rows only."""
        return self.around[self.inside].reset_index(drop=True)

    @property
    def readings(self) -> int:
        """How many rows are the window's."""
        return int(self.inside.sum())


class WindowReader:
    """Reads windows of the meter table and measures them by the first seven of the eight steps."""

    def __init__(self, meter_table: MeterTableSettings, meter: MeterSettings) -> None:
        self.source = MeterSource(meter_table, meter)
        self.meter_table = meter_table
        self.meter = meter
        self._steps = ReadingSteps(meter_table, meter)

    def prepare(
        self,
        database: Database,
        window: Window,
        role: str = SCORER,
        *,
        scan: bool = True,
        register: bool = True,
    ) -> SourceShape:
        """Describe the meter table, and register new machines (see `describe_source`)."""
        return describe_source(database, self.source, window, role, scan=scan, register=register)

    def read(
        self,
        transaction: Transaction,
        shape: SourceShape,
        window: Window,
        machines: list[int] | None = None,
        behind: LookBehind | None = None,
        judged_to: datetime | None = None,
        handed_in: pd.DataFrame | None = None,
    ) -> MeasuredWindow:
        """Read and measure the readings of `window`.

        What precedes it is read too, as far back as it matters: the reach, the flat run in
        which a window begins, a day before a break, and the longest gap for machines without a
        reading there. So is what follows within a day. What the source has purged since it
        was judged is taken from its verdicts: a purged past changes nothing.

        Parameters
        ----------
        behind : LookBehind, optional
            How far back matters; default: the whole reach, for every machine.
        judged_to : datetime, optional
            Readings after the window count up to here; default: none does.
        handed_in : DataFrame, optional
            Finite readings that count as if the meter table had them in place of its own of the
            same machine and time: ``machine_id``, ``utc_timestamp``, ``reading``. Then only
            these are the window's, and all others precede and follow them.
        """
        back = back_of_all(behind, self.meter.interval)
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
        older = None
        if handed_in is not None:
            due = handed_in[handed_in["utc_timestamp"] < ahead].assign(ingested_at=_HANDED_IN)
            before = due["utc_timestamp"] < span.start
            older, due = due[before], due[~before]
            finite = pd.concat([_without(finite, due), due], ignore_index=True)
        unique = self._steps.sort(finite)
        known = machine_limits(transaction)
        asked = machines_to_look_farther(unique, window, back, known, behind, self.meter)
        purged = None
        if any(asked.values()) or first > window.start - back + self.meter.interval:
            first_handed = None if handed_in is None else handed_in["utc_timestamp"].min()
            purged = self._purged(transaction, shape, window, back, machines, first_handed)
        if purged is not None:
            finite = pd.concat([_without(purged[0], handed_in), finite], ignore_index=True)
            unique = self._steps.sort(finite)
        earlier = self._earlier(transaction, shape, window, back, asked)
        if older is not None and not older.empty:
            # Whoever needs more than all machines do needs what is handed in there, too.
            parts = [older] if earlier is None else [_without(earlier, older), older]
            earlier = pd.concat(parts, ignore_index=True)
        if earlier is not None:
            unique = self._steps.sort(pd.concat([earlier, finite], ignore_index=True))
        del finite, earlier
        written = unique.pop("ingested_at")
        measured = measure(self._steps.power_diff(unique), known, self.meter)
        inside = _inside(measured, window).to_numpy()
        if handed_in is not None:
            inside = inside & (written == _HANDED_IN).to_numpy()
        elif purged is not None:
            inside = inside & (measured["utc_timestamp"] >= purged[1]).to_numpy()
        return MeasuredWindow(
            measured,
            inside,
            _asked_for(known, shape, machines),
            missing=present - found,
            duplicates=found - int(inside.sum()),
            ingested_through=newest,
            unregistered=unregistered,
        )

    def machines_with_breaks(self, measured: MeasuredWindow, behind: LookBehind) -> list[int]:
        """Machines with a reading in the window that breaks with the one before it.

        What it says of earlier readings may change their verdicts.
        """
        if not self.meter.is_counter:
            return []
        around = measured.around
        declared = around[["machine_id", "max_power_kw"]].drop_duplicates("machine_id")
        # A reading that follows a break settles it, though it is none itself.
        near = measured.inside | np.append(measured.inside[1:], False)
        limits = behind.leap_kw.capped(declared)
        return machines_with_breaks(around, near, limits, self.meter)

    # Rows of the table --------------------------------------------------

    def _long(self, raw: pd.DataFrame, span: Window) -> pd.DataFrame:
        """One row per timestamp and machine, readings that are not finite included."""
        parsed = self._steps.parse(raw)
        before = parsed["utc_timestamp"] < span.end
        due = parsed if before.all() else parsed[before]
        if self.meter_table.source_layout is Layout.WIDE:
            return self._steps.melt(due)
        return due

    def _registered(self, every: pd.DataFrame, window: Window) -> tuple[pd.DataFrame, bool]:
        """Rows of registered machines, and whether the window has others."""
        if self.meter_table.source_layout is Layout.WIDE:
            return every, False
        known = every["machine_id"] != UNREGISTERED
        if known.all():
            return every, False
        return every[known], bool((_inside(every, window) & ~known).any())

    def _finite(self, long: pd.DataFrame) -> pd.DataFrame:
        finite = self._steps.drop_missing(long)
        if self.meter_table.source_layout is Layout.WIDE:
            return self._steps.machine_ids(finite)
        return finite

    # From farther back ----------------------------------------------------

    def _purged(
        self,
        transaction: Transaction,
        shape: SourceShape,
        window: Window,
        back: timedelta,
        machines: list[int] | None,
        first_handed: datetime | None = None,
    ) -> tuple[pd.DataFrame, datetime] | None:
        """Readings that the source no longer has, from their verdicts, and where it begins.

        They only count where the source holds nothing at all for as long as a gap may last.
        What is handed in counts as the source's.
        """
        oldest = window.start - back_of_some(back, self.meter.max_gap)
        kept_from = self.source.next_reading(transaction, shape, oldest)
        if first_handed is not None:
            begins = max(first_handed, oldest)
            kept_from = begins if kept_from is None else min(kept_from, begins)
        if kept_from is None or kept_from <= oldest:
            return None
        found = judged_readings(transaction, Window(oldest, kept_from), machines)
        return None if found.empty else (found, kept_from)

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


def _without(readings: pd.DataFrame, handed_in: pd.DataFrame | None) -> pd.DataFrame:
    """Readings but those of which another of the same machine and time was handed in."""
    if handed_in is None or readings.empty or handed_in.empty:
        return readings
    if readings["utc_timestamp"].max() < handed_in["utc_timestamp"].min():
        return readings  # as nearly always: what is handed in is new
    key = ["machine_id", "utc_timestamp"]
    given = pd.MultiIndex.from_frame(handed_in[key])
    return readings[~pd.MultiIndex.from_frame(readings[key]).isin(given)]


def _asked_for(known: pd.DataFrame, shape: SourceShape, machines: list[int] | None) -> list[int]:
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
