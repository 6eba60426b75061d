"""Judge records that are handed in as the scheduled scoring would, were they in the meter table."""

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pandas as pd

from anomaly.database.connection import API, Database, Transaction
from anomaly.database.machines import machine_limits
from anomaly.database.meter_table import SourceShape
from anomaly.database.model_in_force import InForce, during, version_map
from anomaly.database.scoring_runs import scored_to
from anomaly.errors import RecordError
from anomaly.readings.contradictions import REACH
from anomaly.scoring.judging import Judges, WindowJudge
from anomaly.scoring.record_scoring import Record, RecordReadings, judge_records, readings_of
from anomaly.scoring.window_reader import WindowReader
from anomaly.settings import Settings
from anomaly.windows import Window

_MOST_WINDOWS = 50
"""Chosen: so many take about a second."""
_FAR = 2 * REACH
"""Records farther apart are judged apart: reading their look-behind twice costs less."""
_LONGEST_WINDOW = timedelta(days=110)
"""What lies between two records is read, too. Chosen: 10,000 quarter-hours fit into one window."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_SHAPE_SECONDS = 10.0
"""How long the columns of the meter table are taken to be what they were. Chosen."""


class RecordJudge:
    """Judges records by the versions in force, with what the meter table says of the time around.

    The version map is held in memory, and its newest models are opened before they judge: a
    promotion makes no request slow. `refresh` is to be called every few seconds.

    Parameters
    ----------
    database : Database
        Read as the role `API`; nothing is written.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        # A record's time without a zone is UTC, as its name says, whatever the meter table has.
        self._record_meter = settings.meter.model_copy(update={"source_timezone": "UTC"})
        self._reader = WindowReader(settings.meter_table, settings.meter)
        self._judge = WindowJudge(self._reader, settings.models, settings.meter)
        self._map: tuple[InForce, ...] | None = None

        self._shape: tuple[float, SourceShape] | None = None
        self._refreshing = threading.Lock()

    @property
    def version(self) -> int | None:
        """The version that judges new readings; None: there is none yet."""
        return self._map[-1].version if self._map else None

    def refresh(self) -> None:
        """Read the version map and the meter table's columns, as requests do.

        The newest model is opened before the map counts.

        Raises
        ------
        NoModelError, ArtefactError, SettingsError
            As `WindowJudge.judges_of`. The map that was read before still counts then.
        SourceError
            When the meter table is not what the settings say.
        """
        with self._refreshing:
            with self._database.transaction(API, read_only=True) as transaction:
                found = version_map(transaction)
                self._shape = self._shape_now(transaction)
            if found and found != self._map:
                newest = found[-1]
                last_day = Window(newest.window.end - REACH, newest.window.end)
                self._judge.judges_by(lambda asked: during(found, asked), last_day)
            self._map = found

    def judge(
        self,
        records: Sequence[Record],
        previous: Sequence[Record] | None = None,
        deadline: float = float("inf"),
    ) -> pd.DataFrame | None:
        """Judge every finite reading of records, in any order.

        Parameters
        ----------
        records : sequence of mappings
            As `judge_records` takes them; times without a zone are UTC.
        previous : sequence of mappings, optional
            Earlier records. Then the meter table is not asked.
        deadline : float
            On the clock `time.monotonic`: no other window is begun after it.

        Returns
        -------
        DataFrame
            As `judge_records`, with ``model_version``, sorted by machine and time; None where
            the records hold no reading.

        Raises
        ------
        RecordError
            As `readings_of`, and when the records are spread over too many windows.
        TimeoutError
            When the deadline has passed.
        NoModelError, ArtefactError, SettingsError
            As `WindowJudge.judges_of`.
        """
        readings = readings_of(records, self._settings.meter_table, self._record_meter)
        earlier = None
        if previous is not None:
            try:
                earlier = readings_of(previous, self._settings.meter_table, self._record_meter)
            except RecordError as error:
                raise RecordError(f"previous: {error}") from None
        if self._map is None:
            self.refresh()
        if not len(readings.ticks):
            return None
        if earlier is not None:
            return self._judge_by_previous(records, readings, earlier)
        handed_in = readings.rows()
        machines = sorted({*readings.machine.tolist()})
        found = []
        with self._database.transaction(API, read_only=True) as transaction:
            shape = self._described(transaction)
            last = handed_in["utc_timestamp"].max() + self._settings.meter.interval
            judged_to = max(scored_to(transaction) or last, last)
            entries = self._map or ()
            for window in self._windows(handed_in["utc_timestamp"]):
                if time.monotonic() > deadline:
                    raise TimeoutError
                judges = self._judges_of(entries, window)
                measured = self._reader.read(
                    transaction, shape, window, machines, judges.behind, judged_to, handed_in
                )
                found.append(self._judge.verdicts(measured, judges))
        return _sorted(found)

    def _judge_by_previous(
        self, records: Sequence[Record], readings: RecordReadings, earlier: RecordReadings
    ) -> pd.DataFrame:
        """Judge records by what else is in the request alone."""
        with self._database.transaction(API, read_only=True) as transaction:
            limits = machine_limits(transaction)
        stamps = readings.rows()["utc_timestamp"]
        window = Window(stamps.min(), stamps.max() + self._settings.meter.interval)
        judges = self._judges_of(self._map or (), window)
        found = []
        for part in judges.parts:
            verdicts = judge_records(
                records,
                judges.models[part.version],
                self._settings.meter_table,
                self._record_meter,
                earlier.rows(),
                limits,
            )
            at = verdicts["utc_timestamp"]
            mine = verdicts[(at >= part.window.start) & (at < part.window.end)]
            found.append(mine.assign(model_version=part.version))
        return _sorted(found)

    def _judges_of(self, entries: tuple[InForce, ...], window: Window) -> Judges:
        def in_force(asked: Window) -> tuple[InForce, ...]:
            return during(entries, asked)

        return self._judge.judges_by(in_force, window)

    def _described(self, transaction: Transaction) -> SourceShape:
        """Columns and types of the meter table, asked for now and then."""
        known = self._shape
        if known is None or time.monotonic() > known[0]:
            known = self._shape = self._shape_now(transaction)
        return known[1]

    def _shape_now(self, transaction: Transaction) -> tuple[float, SourceShape]:
        shape = self._reader.source.describe(transaction)
        self._reader.source.next_reading(transaction, shape, _LONG_AGO)  # whether it may be read
        return time.monotonic() + _SHAPE_SECONDS, shape

    def _windows(self, stamps: pd.Series) -> list[Window]:
        """Windows that hold all times, apart where it costs less to read less."""
        moments = sorted(stamps.drop_duplicates().dt.to_pydatetime())
        windows, start = [], moments[0]
        for here, there in pairwise(moments):
            if there - here > _FAR or there - start > _LONGEST_WINDOW:
                windows.append(Window(start, here + self._settings.meter.interval))
                start = there
        windows.append(Window(start, moments[-1] + self._settings.meter.interval))
        if len(windows) > _MOST_WINDOWS:
            raise RecordError(
                f"the records are spread over {len(windows)} times that are days apart: send no"
                f" more than {_MOST_WINDOWS} of them at once"
            )
        return windows


def _sorted(found: Sequence[pd.DataFrame]) -> pd.DataFrame:
    if len(found) == 1:
        return found[0]
    by = ["machine_id", "utc_timestamp"]
    return pd.concat(found, ignore_index=True).sort_values(by, ignore_index=True)
