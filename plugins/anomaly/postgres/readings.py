"""A window of the meter table, measured: with what precedes it, and machines it names first."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.errors import SourceError
from anomaly.postgres.database import SCORER, Database, Transaction
from anomaly.postgres.machines import known_machines, machine_limits, register_machines
from anomaly.postgres.source import LARGEST_ID, UNREGISTERED, MeterSource, SourceShape
from anomaly.quality import REACH, measure
from anomaly.settings import Layout, Settings
from anomaly.steps import ReadingSteps
from anomaly.windows import Window

_PG_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_CANONICAL = re.compile(r"0|[1-9]\d*", re.ASCII)


@dataclass(frozen=True)
class MeasuredWindow:
    """Readings of a window, measured, and what was left out.

    Attributes
    ----------
    context : DataFrame
        Output of `anomaly.quality.measure`: the window's rows, and what precedes them.
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
    """

    reach: timedelta
    flat_matters: frozenset[int]


class WindowReader:
    """Reads windows of the meter table and measures them by the first seven of the eight steps."""

    def __init__(self, settings: Settings) -> None:
        self.source = MeterSource(settings)
        self.settings = settings
        self._steps = ReadingSteps(settings)

    def prepare(
        self, database: Database, window: Window, role: str = SCORER, *, scan: bool = True
    ) -> SourceShape:
        """Describe the meter table, and register machines that are new in `window`.

        Without `scan`, not those that only the rows of a long table tell of: reading says
        whether there are any (`MeasuredWindow.unregistered`).
        """
        with database.transaction(role, read_only=True) as transaction:
            shape = self.source.describe(transaction)
            long = self.settings.source_layout is Layout.LONG
            new = {} if long and not scan else self._new_machines(transaction, shape, window)
        if new:
            with database.transaction(role) as transaction:
                register_machines(transaction, new, self.settings.source_timezone or "UTC")
        return shape

    def _new_machines(
        self, transaction: Transaction, shape: SourceShape, window: Window
    ) -> dict[str, int | None]:
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
    ) -> MeasuredWindow:
        """Read and measure the readings of `window`.

        What precedes it is read too, as far back as it matters: the reach, the flat run
        that a window begins in, and the longest gap for machines without a reading there.

        Parameters
        ----------
        context : Context, optional
            How far back matters; default: the whole reach, for every machine.
        """
        back = max(context.reach, 2 * self.settings.interval) if context else REACH
        raw = self.source.read(transaction, shape, window.starting_earlier(back), machines)
        newest = _newest(raw["ingested_at"])
        every, unregistered = self._registered(self._long(raw, window), window)
        present = int(_inside(every, window).sum())
        finite = self._finite(every)
        found = int(_inside(finite, window).sum())
        del raw, every  # of many machines each of these takes as much memory as the result
        unique = self._unique(finite)
        earlier = self._earlier(transaction, shape, window, back, unique, context)
        if len(earlier):
            unique = self._unique(pd.concat([earlier, finite], ignore_index=True))
        del finite, earlier
        known = machine_limits(transaction)
        unique = unique.drop(columns="ingested_at")
        measured = measure(self._steps.power_diff(unique), known, self.settings)
        inside = _inside(measured, window).to_numpy()
        return MeasuredWindow(
            measured,
            inside,
            _asked(known, shape, machines),
            missing=present - found,
            duplicates=found - int(inside.sum()),
            ingested_through=newest,
            unregistered=unregistered,
        )

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

    def _long(self, raw: pd.DataFrame, window: Window) -> pd.DataFrame:
        """One row a timestamp and machine, readings that are not finite included."""
        parsed = self._steps.parse(raw)
        before = parsed["utc_timestamp"] < window.end
        due = parsed if before.all() else parsed[before]
        if self.settings.source_layout is Layout.WIDE:
            return self._steps.melt(due)
        return due

    def _finite(self, long: pd.DataFrame) -> pd.DataFrame:
        finite = self._steps.drop_missing(long)
        if self.settings.source_layout is Layout.WIDE:
            return self._steps.machine_ids(finite)
        return finite

    def _earlier(
        self,
        transaction: Transaction,
        shape: SourceShape,
        window: Window,
        back: timedelta,
        unique: pd.DataFrame,
        context: Context | None,
    ) -> pd.DataFrame:
        """Readings farther back than all were read, of the machines that need them."""
        first = unique.groupby("machine_id")["utc_timestamp"].min()
        asked = {self.settings.max_gap: first.index[first >= window.start].tolist()}
        if context and back < REACH:
            flat = _flat_at_start(unique, window.start)
            asked[REACH] = sorted(set(flat) & context.flat_matters - set(*asked.values()))
        found = []
        for reach, machines in asked.items():
            if machines and reach > back:
                span = Window(window.start - reach, window.start - back)
                raw = self.source.read(transaction, shape, span, machines)
                rows = self._finite(self._long(raw, window))
                found.append(rows[rows["utc_timestamp"] < span.end])
        return pd.concat(found, ignore_index=True) if found else unique[:0]


def _flat_at_start(unique: pd.DataFrame, start: datetime) -> list[int]:
    """Machines that stand still from the first reading that was read to the first from `start`."""
    after = unique[unique["utc_timestamp"] >= start].drop_duplicates("machine_id")
    both = pd.concat([unique[unique["utc_timestamp"] < start], after])
    readings = both.groupby("machine_id")["reading"].agg(["min", "max"])
    still = readings[
        (readings["min"] == readings["max"]) & readings.index.isin(after["machine_id"])
    ]
    return still.index.tolist()


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
