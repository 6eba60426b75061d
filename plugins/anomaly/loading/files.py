"""Load a file of readings into the meter table: either the whole file or nothing."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from anomaly.database.connection import Database
from anomaly.database.meter_table_loading import (
    Merged,
    MustStageError,
    Repeat,
    open_meter_table,
)
from anomaly.loading.file_readings import FileReadings, Part
from anomaly.loading.opening import open_source
from anomaly.loading.options import FileOptions
from anomaly.loading.problems import MOST_SHOWN
from anomaly.loading.taken_for import TakenFor
from anomaly.settings import MeterSettings, MeterTableSettings

Progress = Callable[[int, int], None]
"""Called with the bytes of the file that have been read, and its size."""

PREVIEW_ROWS = 10


@dataclass(frozen=True)
class IngestReport:
    """What was loaded from one file.

    Attributes
    ----------
    rows : int
        Rows of the table that are in the file: inserted, updated and unchanged.
    readings : int
        Machine readings in the file; empty cells do not count.
    first, last : datetime
        Earliest and latest timestamp in UTC, labelled as in the table.
    machines : list of str or list of int
        The machines' columns, or in a long table their ids, as numbers if all are.
    ignored_columns : list of str
        Columns of the file that were left out on purpose.
    skipped_rows : int
        Empty rows that were left out because the clock skips their local time.
    taken_for : TakenFor
        What the file was taken for.
    """

    rows: int
    inserted: int
    updated: int
    unchanged: int
    readings: int
    first: datetime
    last: datetime
    machines: list[str] | list[int]
    ignored_columns: list[str]
    skipped_rows: int
    taken_for: TakenFor

    def counts(self) -> dict[str, Any]:
        """All but what the file was taken for."""
        return {name: value for name, value in asdict(self).items() if name != "taken_for"}


@dataclass(frozen=True)
class Preview:
    """What a file would be loaded as.

    Attributes
    ----------
    readings : list of dict
        The first readings: ``line``, ``utc_timestamp``, ``machine`` and ``reading``.
    """

    taken_for: TakenFor
    readings: list[dict[str, Any]]


def ingest(
    database: Database,
    meter_table: MeterTableSettings,
    meter: MeterSettings,
    file: Path,
    options: FileOptions | None = None,
    *,
    progress: Progress | None = None,
    announce: Callable[[TakenFor], None] | None = None,
) -> IngestReport:
    """Load a file into the meter table in one transaction.

    Loading the same file again changes nothing. A row that differs is updated and
    gets a new ``ingested_at``, so that its verdicts are computed again. A column
    that is not in the file keeps its values. In a wide file an empty cell means "no reading": in
    a wide table it overwrites the value, in a long table it says nothing.

    Parameters
    ----------
    meter_table : MeterTableSettings
        The target: our own `anomaly.meter_readings`, written as its owner, or somebody's table,
        written as the log-in itself.
    meter : MeterSettings
        What the table holds: the kind and unit of readings, and which end of their interval
        timestamps name. A file that says otherwise is converted, or refused.
    announce : function, optional
        Called with what the file was taken for when all of it has been read, before anything of
        it counts.

    Raises
    ------
    IngestError
        When the file cannot be read whole (see `read_readings`), or the table
        refuses a reading. Nothing was loaded then.
    SourceError, DatabaseError
        When the table is not what the settings say, or may not be written.
    """
    with open_readings(file, meter_table, meter, options, progress) as readings:
        try:
            return _load(database, meter_table, meter, readings, announce, directly=True)
        except MustStageError:
            # The table holds some of the rows already, or the file holds a row twice.
            readings.start_again()
            return _load(database, meter_table, meter, readings, announce, directly=False)


def _load(
    database: Database,
    meter_table: MeterTableSettings,
    meter: MeterSettings,
    readings: FileReadings,
    announce: Callable[[TakenFor], None] | None,
    *,
    directly: bool,
) -> IngestReport:
    with open_meter_table(database, meter_table, meter, loading=readings.file) as table:
        table.expect(readings.staged, directly=directly)
        for part in _read_ahead(readings.parts()):
            table.stage(part.frame, part.plain)
        repeats, count = table.repeats()
        if repeats:
            raise readings.repeated(repeats, count)
        if announce:
            announce(readings.taken_for())
        merged = table.merge()
    return _report(readings, merged)


def _read_ahead(parts: Iterator[Part]) -> Iterator[Part]:
    """Read the next part while the database takes in this one."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, parts, None)
        while (part := coming.result()) is not None:
            coming = pool.submit(next, parts, None)
            yield part


def _report(readings: FileReadings, merged: Merged) -> IngestReport:
    taken_for = readings.taken_for()
    return IngestReport(
        rows=merged.rows,
        inserted=merged.inserted,
        updated=merged.updated,
        unchanged=merged.rows - merged.inserted - merged.updated,
        readings=readings.courses.readings,
        first=taken_for.first,
        last=taken_for.last,
        machines=taken_for.machines,
        ignored_columns=taken_for.ignored_columns,
        skipped_rows=readings.skipped_rows,
        taken_for=taken_for,
    )


def preview(
    file: Path,
    meter_table: MeterTableSettings,
    meter: MeterSettings,
    options: FileOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Preview:
    """Read and check a whole file without a database, and show its first readings.

    Raises
    ------
    IngestError
        As `read_readings`, except for moments that two lines share: those show when the file is
        loaded.
    """
    with open_readings(file, meter_table, meter, options, progress) as readings:
        first: list[dict[str, Any]] = []
        for part in readings.parts():
            if len(first) < PREVIEW_ROWS:
                rows = readings.as_long(part.frame.head(PREVIEW_ROWS)).dropna(subset="reading")
                rows = rows.sort_index(kind="stable").reset_index()
                records = rows.head(PREVIEW_ROWS - len(first)).to_dict("records")
                first += [{str(name): cell for name, cell in row.items()} for row in records]
        return Preview(readings.taken_for(), first)


def read_readings(
    file: Path,
    meter_table: MeterTableSettings,
    meter: MeterSettings,
    options: FileOptions | None = None,
) -> pd.DataFrame:
    """Read and check a whole file, without a database.

    Returns
    -------
    DataFrame
        Indexed by line number as an editor shows it, in that order. First the timestamp
        (``datetime64[us, UTC]``), then the columns of the record that the file
        has (wide), or machine (text) and value (long), as the settings name them.
        Missing readings are NaN.

    Raises
    ------
    IngestError
        With file, line, column, the value found and the next step. Causes: unknown
        columns, a number or timestamp that cannot be read or that can be read in two ways, an
        infinity, a timestamp without a zone, a reading at a local time that the clock skips, two
        lines with the same moment (a long file may repeat an equal reading; the second is
        dropped), readings that look like another kind than ``reading_kind``.
    """
    with open_readings(file, meter_table, meter, options) as readings:
        frame = pd.concat([part.frame for part in readings.parts()]).sort_index(kind="stable")
    keys = [*readings.staged.keys]
    if len(keys) > 1:
        frame = frame[~frame.duplicated()]
    if repeats := _repeats(frame[keys]):
        raise readings.repeated(repeats[:MOST_SHOWN], len(repeats))
    if readings.staged.pivoted:
        frame = _pivoted(frame, keys)
    return frame


def _repeats(keys: pd.DataFrame) -> list[Repeat]:
    """The first two lines of each key that several lines have."""
    again = keys[keys.duplicated(keep=False)]
    lines = again.assign(line=again.index).groupby([*keys], sort=False)["line"]
    found = [Repeat(rows.iloc[0], rows.iloc[1], str(_first(key))) for key, rows in lines]
    return sorted(found)


def _first(key: Any) -> Any:
    return key[0] if isinstance(key, tuple) else key


def _pivoted(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """One row per moment, with a column per machine, by the line on which the moment begins."""
    lines = frame.groupby(keys[0])[keys[0]].apply(lambda rows: rows.index.min())
    wide = frame.pivot(index=keys[0], columns=keys[1], values=frame.columns[-1])
    wide.columns.name = None
    return wide.reset_index().set_index(pd.Index(lines.to_numpy(), name="line")).sort_index()


@contextmanager
def open_readings(
    file: Path,
    meter_table: MeterTableSettings,
    meter: MeterSettings,
    options: FileOptions | None = None,
    progress: Progress | None = None,
) -> Iterator[FileReadings]:
    """Open a file of any format, and find out what it holds.

    Raises
    ------
    IngestError
        When the file cannot be opened, is empty, or its columns are not known.
    """
    with open_source(file) as source:
        yield FileReadings(source, meter_table, meter, options or FileOptions(), progress)
