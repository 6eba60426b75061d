"""Load a CSV file of readings into the meter table: either the whole file or nothing."""

import csv
import difflib
import gzip
import io
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, cast
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import Bools
from anomaly.database.connection import Database
from anomaly.database.meter_table_loading import OWN_TABLE, Merged, open_meter_table
from anomaly.errors import IngestError
from anomaly.readings import local_clocks
from anomaly.readings.record import MACHINES, RECORD
from anomaly.settings import (
    Layout,
    MeterSettings,
    MeterTableSettings,
    ReadingKind,
    TimestampLabel,
)

CHUNK_ROWS = 20_000  # chosen: memory stays flat, whatever the size of the file
LONGEST_LINE = 1 << 20  # bytes; chosen: a longer line means that the file is not text
# Prefixes of the columns of the public file "household data" of Open Power System Data.
OPSD_SITE = "DE_KN_industrial3_"
OPSD_OTHER_SITES = "DE_KN_"

# Signs that readings are of another kind than the settings say. Chosen. Power in W falls about as
# often as it rises. So a day of quarter-hours (96 readings) without a fall and with 10 rises is a
# counter. A counter that is reset now and then falls in few of its steps, so 10 falls that are
# more than a fifth of the steps are power.
COUNTER_READINGS = 96
COUNTER_VALUES = 10
POWER_FALLS = 10
POWER_FALL_SHARE = 0.2

Row = tuple[int, tuple[str, ...]]


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
        Earliest and latest timestamp in UTC, labelled as in the file.
    machines : list of str or list of int
        Wide: the file's machine columns. Long: the ids, as numbers if all are.
    ignored_columns : list of str
        Columns of the file that were left out on purpose.
    skipped_rows : int
        Empty rows that were left out because the clock skips their local time.
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
    skipped_rows: int = 0


def ingest(
    database: Database, meter_table: MeterTableSettings, meter: MeterSettings, file: Path
) -> IngestReport:
    """Load a CSV file, plain or gzipped, into the meter table in one transaction.

    Loading the same file again changes nothing. A row that differs is updated and
    gets a new ``ingested_at``, so that its verdicts are computed again. A column
    that is not in the file keeps its values. An empty cell in a column that is in the
    file means "no reading", and overwrites the value.

    Parameters
    ----------
    meter_table : MeterTableSettings
        The target: our own `anomaly.meter_readings`, written as its owner, or a long
        table, written as the log-in itself.
    meter : MeterSettings
        Timestamps keep their label: ``timestamp_label`` is for reading the table and is
        not applied here.

    Raises
    ------
    IngestError
        When the file cannot be read whole (see `read_readings`), or the table
        refuses a reading. Nothing was loaded then.
    SourceError, DatabaseError
        When the table is not what the settings say, or may not be written.
    """
    _refuse_foreign_wide_table(meter_table, file)
    with (
        open_readings(file, meter_table, meter) as readings,
        open_meter_table(database, meter_table, meter, loading=str(file)) as table,
    ):
        table.expect(readings.plan.columns)
        for frame in readings.frames():
            table.stage(frame)
        if repeat := table.first_repeat():
            raise readings.repeated(*repeat)
        merged = table.merge()
    return readings.report(merged)


def read_readings(
    file: Path, meter_table: MeterTableSettings, meter: MeterSettings
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
        With file, line, column, the value found and the next step. Causes: an unknown
        column, a number or timestamp that cannot be read, an infinity, a timestamp
        without a zone, a reading at a local time that the clock skips, two lines with the
        same moment (a long file may repeat an equal reading; the second is dropped),
        readings that look like another kind than ``reading_kind``.
    """
    with open_readings(file, meter_table, meter) as readings:
        frame = pd.concat(list(readings.frames())).sort_index()
    if meter_table.source_layout is Layout.LONG:
        frame = frame[~frame.duplicated()]
    keys = frame[readings.plan.keys]
    again = np.flatnonzero(keys.duplicated())
    if again.size:
        second = keys.iloc[again[0]]
        first = np.flatnonzero((keys == second).all(axis=1))[0]
        raise readings.repeated(frame.index[first], frame.index[again[0]], str(second.iloc[0]))
    return frame


def _refuse_foreign_wide_table(meter_table: MeterTableSettings, file: Path) -> None:
    if meter_table.source_layout is Layout.WIDE and meter_table.source_name != OWN_TABLE:
        raise IngestError(
            f"{meter_table.source_name} is somebody else's wide table and is not written: let its"
            f" owner load {file}, or unset ANOMALY_SOURCE_SCHEMA and ANOMALY_SOURCE_TABLE to"
            f" load it into {OWN_TABLE}"
        )


# The file ---------------------------------------------------------------

_GZIP = b"\x1f\x8b"


@contextmanager
def open_readings(
    file: Path, meter_table: MeterTableSettings, meter: MeterSettings
) -> Iterator["CsvReadings"]:
    """Open a CSV file, gzipped or not, and read its header.

    Raises
    ------
    IngestError
        When the file cannot be opened, is empty or has another header.
    """
    try:
        with file.open("rb") as raw:
            yield CsvReadings(_text_lines(_unzipped(raw), file), file, meter_table, meter)
    except FileNotFoundError:
        raise IngestError(f"{file} does not exist: check the path") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise IngestError(f"{file} is a damaged gzip file ({error}): copy it again") from None
    except OSError as error:
        raise IngestError(f"{file} cannot be read: {error.strerror}: check the path") from None


def _unzipped(raw: io.BufferedReader) -> BinaryIO:
    # Decided by content, not by file name: a pipe or a renamed download works as well.
    if raw.peek(2).startswith(_GZIP):
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    return raw


def _text_lines(stream: BinaryIO, file: Path) -> Iterator[str]:
    number = 0
    while line := stream.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE or b"\0" in line:
            raise IngestError(f"{file}, line {number} is not text: save the file as CSV in UTF-8")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise IngestError(
                f"{file}, line {number}: byte 0x{error.object[error.start]:02x} is not UTF-8:"
                " save the file as CSV in UTF-8"
            ) from None


class CsvReadings:
    """A CSV file's readings in chunks, and a summary of those read so far.

    Attributes
    ----------
    plan : Plan
        Which columns are loaded.
    """

    def __init__(
        self,
        lines: Iterator[str],
        file: Path,
        meter_table: MeterTableSettings,
        meter: MeterSettings,
    ) -> None:
        self._file = file
        self._meter_table = meter_table
        self._meter = meter
        self._rows = csv.reader(lines, strict=True)
        self._header = self._read_header()
        self.plan = _column_plan(self._header, meter_table, file)
        self._stamps = _Stamps(meter)
        self._doubled = _DoubledHours(meter)
        self._summary = _FileSummary()

    def frames(self) -> Iterator[pd.DataFrame]:
        """Return the readings in chunks, each a DataFrame as `read_readings` returns it.

        Lines with a local time that the clock shows twice come last: their order in the whole
        file shows which line is the first hour's and which the second's.

        Raises
        ------
        IngestError
            At the first chunk with a line that cannot be read; at the end, when there
            was no reading or the readings look like another kind.
        """
        rows = self._numbered_rows()
        while chunk := list(islice(rows, CHUNK_ROWS)):
            if wanted := [row for row in chunk if self._is_wanted(row)]:
                frame = self._frame(wanted)
                if self._stamps.are_naive:
                    frame = self._doubled.hold_back(frame, self.plan.keys)
                yield from self._summarised(frame)
        yield from self._summarised(self._doubled.with_moments(self.plan.keys))
        if self._summary.first is None:
            raise IngestError(f"{self._file} {self._message_without_readings()}")
        if fault := self._summary.course.fault(self._meter.reading_kind):
            raise IngestError(f"{self._file}: {fault}")

    def _summarised(self, frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
        if not frame.empty:
            self._summary.add(self.plan.long(frame), frame[self.plan.keys[0]])
            yield frame

    def repeated(self, first: int, second: int, moment: str) -> IngestError:
        """Make the error for two lines with the same moment (and machine)."""
        return IngestError(
            f"{self._file}, lines {first} and {second} have the same"
            f" {' and '.join(self.plan.keys)} ({moment}): keep the right one"
        )

    def report(self, merged: Merged) -> IngestReport:
        """Make the report from the file's summary and the counts of the merge."""
        seen = self._summary
        assert seen.first is not None
        assert seen.last is not None
        return IngestReport(
            rows=merged.rows,
            inserted=merged.inserted,
            updated=merged.updated,
            unchanged=merged.rows - merged.inserted - merged.updated,
            readings=seen.readings,
            first=seen.first,
            last=seen.last,
            machines=self.plan.machines or _as_ids(seen.machines),
            ignored_columns=self.plan.ignored,
            skipped_rows=seen.skipped,
        )

    # Rows ---------------------------------------------------------------

    def _read_header(self) -> list[str]:
        for _, row in self._filled_rows():
            return [name.strip() for name in row]
        raise IngestError(f"{self._file} is empty: export it again, with a header")

    def _numbered_rows(self) -> Iterator[Row]:
        """Rows with the plan's columns only, and the line on which each begins."""
        pick = itemgetter(*self.plan.places.values())
        for line, row in self._filled_rows():
            self._refuse_ragged(line, row)
            yield line, pick(row)

    def _filled_rows(self) -> Iterator[tuple[int, list[str]]]:
        """Rows that are not blank, and the line on which each begins."""
        while True:
            line = self._rows.line_num + 1
            try:
                row = next(self._rows, None)
            except csv.Error as error:
                raise IngestError(
                    f"{self._file}, line {line} is not CSV ({error}): look for a stray quote"
                ) from None
            if row is None:
                return
            if row:
                yield line, row

    def _refuse_ragged(self, line: int, row: list[str]) -> None:
        if len(row) != len(self._header):
            raise IngestError(
                f"{self._file}, line {line}: the header names {len(self._header)} columns, this"
                f" line has {len(row)}: look for a decimal comma or a line that is cut off"
            )

    def _is_wanted(self, row: Row) -> bool:
        if not self.plan.skips_empty:
            return True
        cells = zip(self.plan.columns, row[1], strict=True)
        return any(cell for column, cell in cells if column in self.plan.numbers)

    def _message_without_readings(self) -> str:
        if self._rows.line_num > 1 and self.plan.skips_empty:
            return f"has no reading in any column {OPSD_SITE}*: take another part of it"
        return "holds a header and no rows: export it again"

    # Cells --------------------------------------------------------------

    def _frame(self, rows: list[Row]) -> pd.DataFrame:
        lines = [line for line, _ in rows]
        columns = [*zip(*(cells for _, cells in rows), strict=True)]
        cells = {
            column: self._parsed_column(column, lines, texts)
            for column, texts in zip(self.plan.columns, columns, strict=True)
        }
        frame = pd.DataFrame(cells, index=pd.Index(lines, name="line"))
        return self._without_skipped(frame, columns)

    def _without_skipped(self, frame: pd.DataFrame, texts: Sequence[Sequence[str]]) -> pd.DataFrame:
        """Leave out empty rows at a time that the clock skips; refuse rows with a reading."""
        stamps = frame[self.plan.keys[0]]
        skipped, edge = stamps.isna().to_numpy(), self._stamps.are_ends_as_set_forward(stamps)
        if not (skipped | edge).any():
            return frame
        filled = frame[[*self.plan.numbers]].notna().any(axis=1).to_numpy()
        skipped = skipped | (edge & ~filled)
        if (wrong := np.flatnonzero(skipped & filled)).size:
            place = int(wrong[0])
            line, stamp = int(frame.index[place]), texts[0][place].strip()
            shown = self._header[self.plan.places[self.plan.keys[0]]]
            raise IngestError(
                f"{self._file}, line {line}, column {shown}: {self._stamps.fault_of_skipped(stamp)}"
            )
        self._summary.skipped += int(skipped.sum())
        kept: pd.DataFrame = frame[~skipped]
        return kept

    def _parsed_column(self, column: str, lines: list[int], texts: Sequence[str]) -> object:
        try:
            if column == self.plan.keys[0]:
                return self._stamps.parse(lines, texts)
            if column in self.plan.numbers:
                return _parse_numbers(lines, texts)
            return _parse_texts(lines, texts, may_be_empty=column not in self.plan.keys)
        except _CellError as bad:
            shown = self._header[self.plan.places[column]]
            raise IngestError(
                f"{self._file}, line {bad.line}, column {shown}: {bad.fault}"
            ) from None


# Columns ----------------------------------------------------------------

_NOT_READINGS = {"interpolated", "ingested_at"}
_MACHINE = re.compile(r"machine_\d+", re.ASCII)


@dataclass(frozen=True)
class Plan:
    """Which columns of a file are loaded into which columns of the table.

    Attributes
    ----------
    places : dict of str to int
        Columns of the table, the timestamp first, and their places in a line.
    keys : list of str
        The columns that identify a row: the timestamp, in a long file also the machine.
    numbers : frozenset of str
        Columns that hold readings.
    machines : list of str
        Wide: the reading columns that are machines. Long: empty.
    ignored : list of str
        Columns of the file that are left out.
    skips_empty : bool
        Rows without a reading are left out: the public file has years of them.
    """

    places: dict[str, int]
    keys: list[str]
    numbers: frozenset[str]
    machines: list[str]
    ignored: list[str]
    skips_empty: bool = False

    @property
    def columns(self) -> list[str]:
        """Columns of the table in the order of a chunk."""
        return list(self.places)

    def long(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The machines' readings in a chunk: ``moment``, ``machine``, ``reading``, by line."""
        if not self.machines:
            return frame.set_axis(["moment", "machine", "reading"], axis="columns")
        wide = frame[[*self.keys, *self.machines]].rename(columns={self.keys[0]: "moment"})
        return wide.melt("moment", var_name="machine", value_name="reading", ignore_index=False)


def _column_plan(header: list[str], meter_table: MeterTableSettings, file: Path) -> Plan:
    if len(header) == 1 and (found := re.search(r"[;\t|]", header[0])):
        raise IngestError(
            f"{file} separates its columns by {found[0]!r}:"
            " write commas between them and points in decimals"
        )
    if meter_table.source_layout is Layout.LONG:
        return _long_plan(header, meter_table, file)
    return _wide_plan(header, meter_table, file)


def _wide_plan(header: list[str], meter_table: MeterTableSettings, file: Path) -> Plan:
    long_columns = {
        meter_table.source_machine_column,
        meter_table.source_value_column,
    }
    if long_columns <= set(header):
        raise IngestError(
            f"{file} is a long file, it has columns {' and '.join(sorted(long_columns))}:"
            " set ANOMALY_SOURCE_LAYOUT=long and name its table in ANOMALY_SOURCE_TABLE"
        )
    record = [meter_table.source_timestamp_column, *RECORD[1:]]
    if record[0] not in header:
        raise IngestError(
            f"{file} has no column {record[0]!r}, {_shown_columns(header)}: rename one"
        )
    found, ignored = _matched_columns(header, record, meter_table, file)
    machines = [name for name in meter_table.source_machines or MACHINES if name in found]
    if not machines:
        raise IngestError(
            f"{file} has no machine column, {_shown_columns(header)}: name them machine_1 to"
            f" machine_5, or {OPSD_SITE}machine_1 and so on"
        )
    places = {name: found[name] for name in record if name in found}
    return Plan(
        places=places,
        keys=record[:1],
        numbers=frozenset(places) - {*record[:2]},
        machines=machines,
        ignored=ignored,
        skips_empty=any(name.startswith(OPSD_OTHER_SITES) for name in header),
    )


def _long_plan(header: list[str], meter_table: MeterTableSettings, file: Path) -> Plan:
    names = {
        "ANOMALY_SOURCE_TIMESTAMP_COLUMN": meter_table.source_timestamp_column,
        "ANOMALY_SOURCE_MACHINE_COLUMN": meter_table.source_machine_column,
        "ANOMALY_SOURCE_VALUE_COLUMN": meter_table.source_value_column,
    }
    for setting, name in names.items():
        if name not in header:
            raise IngestError(
                f"{file} has no column {name!r}, {_shown_columns(header)}: rename one, or set"
                f" {setting}"
            )
    found, ignored = _matched_columns(header, list(names.values()), meter_table, file)
    timestamp, machine, value = names.values()
    return Plan(
        places={name: found[name] for name in names.values()},
        keys=[timestamp, machine],
        numbers=frozenset({value}),
        machines=[],
        ignored=ignored,
    )


def _matched_columns(
    header: list[str], accepted: list[str], meter_table: MeterTableSettings, file: Path
) -> tuple[dict[str, int], list[str]]:
    """Places of the accepted columns, and the columns that may be left out."""
    left_out = (_NOT_READINGS | {meter_table.source_ingested_at_column}) - {""}
    places: dict[str, int] = {}
    ignored = []
    for place, shown in enumerate(header):
        name = shown.removeprefix(OPSD_SITE)
        if name in places:
            raise IngestError(f"{file} has two columns {name}: keep the right one")
        if name in accepted:
            places[name] = place
        elif shown in left_out or name.startswith(OPSD_OTHER_SITES):
            ignored.append(shown)
        else:
            raise IngestError(f"{file} {_unknown_column_message(place, shown, accepted)}")
    return places, ignored


def _unknown_column_message(place: int, shown: str, accepted: list[str]) -> str:
    """The message about an unknown column, with the next step."""
    if not shown:
        return f"has no name for column {place + 1}: remove it (pandas: to_csv(index=False))"
    if _MACHINE.fullmatch(shown) and MACHINES[0] in accepted:
        return (
            f"has a column {shown!r}, and {OWN_TABLE} has {MACHINES[0]} to {MACHINES[-1]}:"
            " remove it, or load all machines into a long table (ANOMALY_SOURCE_LAYOUT=long)"
        )
    name = shown.removeprefix(OPSD_SITE).lower()
    close = difflib.get_close_matches(name, accepted, n=1)
    hint = (
        f"did you mean {close[0]!r}?"
        if close
        else f"rename or remove it; known: {', '.join(accepted)}"
    )
    return f"has an unknown column {shown!r}: {hint}"


def _shown_columns(header: list[str]) -> str:
    shown = ", ".join(map(repr, header[:6]))
    return f"it has {shown}{', ...' * (len(header) > 6)}"


# Cells ------------------------------------------------------------------

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_NAN = re.compile(r"[+-]?nan", re.IGNORECASE)
_INFINITY = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)


class _CellError(Exception):
    """A cell that cannot be read, with its line and the fault."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(fault)
        self.line = line
        self.fault = fault


class _Stamps:
    """Reads timestamps. All must have a zone, or none has one and a setting names it."""

    def __init__(self, meter: MeterSettings) -> None:
        self._zone = meter.zone
        self._ends = meter.timestamp_label is TimestampLabel.END
        self._first: tuple[int, bool] | None = None

    @property
    def are_naive(self) -> bool:
        """Whether the timestamps read so far have no zone."""
        return self._first is not None and self._first[1]

    def parse(self, lines: list[int], texts: Sequence[str]) -> pd.DatetimeIndex:
        """Turn texts into UTC; NaT for a local time that the clock skips.

        A local time that the clock shows twice means its second showing here, see
        `_DoubledHours`.
        """
        known: dict[str, datetime] = {}
        for line, text in zip(lines, texts, strict=True):
            if text not in known:
                known[text] = self._parsed_moment(line, text.strip())
        moments = [known[text] for text in texts]
        if self._zone is None or not self.are_naive:
            return pd.DatetimeIndex(moments, dtype="datetime64[us, UTC]")
        local = np.array(moments, dtype="datetime64[us]")
        utc = local_clocks.usual_utc(local, self._zone)
        utc[self._is_skipped(local, self._zone)] = np.datetime64("NaT")
        return pd.DatetimeIndex(utc).tz_localize("UTC")

    def _is_skipped(self, local: local_clocks.Stamps, zone: ZoneInfo) -> Bools:
        skipped = local_clocks.is_skipped(local, zone)
        if self._ends:  # an interval may end at the moment of the change
            skipped &= local_clocks.is_skipped(local - np.timedelta64(1, "us"), zone)
        return skipped

    def are_ends_as_set_forward(self, stamps: "pd.Series[pd.Timestamp]") -> Bools:
        """Which labels of interval ends are at the moment when the clock is set forward.

        This moment has two names, for example 02:00 and 03:00. An empty row with one name must
        not contradict a row with the other.
        """
        if self._zone is None or not (self.are_naive and self._ends):
            return np.zeros(len(stamps), dtype=bool)
        local = stamps.dt.tz_convert(self._zone).dt.tz_localize(None).to_numpy()
        return local_clocks.is_skipped(
            local_clocks.as_local(local) - np.timedelta64(1, "us"), self._zone
        )

    def fault_of_skipped(self, text: str) -> str:
        """The message about a reading at a time that the clock skips."""
        assert self._zone is not None
        advice = local_clocks.advice_on_skipped(self._zone, datetime.fromisoformat(text))
        return f"{text!r} is a time that clocks in {self._zone} skip: {advice}"

    def _parsed_moment(self, line: int, text: str) -> datetime:
        if not text:
            raise _CellError(line, "empty, and every row needs a timestamp")
        try:
            moment = datetime.fromisoformat(text)
            self._refuse_naive(line, text, naive=moment.tzinfo is None)
            utc = moment.replace(tzinfo=moment.tzinfo or self._zone).astimezone(UTC)
            return moment if moment.tzinfo is None else utc
        except (ValueError, OverflowError):
            raise _CellError(
                line, f"{text!r} is not a time: write ISO 8601, for example 2017-03-07T04:45:00Z"
            ) from None

    def _refuse_naive(self, line: int, text: str, *, naive: bool) -> None:
        first_line, first_naive = self._first = self._first or (line, naive)
        if naive != first_naive:
            has, had = ("no", "one") if naive else ("a", "none")
            raise _CellError(
                line,
                f"{text!r} has {has} time zone and line {first_line} has {had}:"
                " write all timestamps the same way",
            )
        if naive and self._zone is None:
            raise _CellError(
                line,
                f"{text!r} has no time zone: set ANOMALY_SOURCE_TIMEZONE=UTC if it is UTC,"
                " else the zone it is written in, for example Europe/Berlin",
            )


class _DoubledHours:
    """Lines with a local time that can mean two moments, kept until the whole file is read.

    Two lines with the same time (and machine) are the two moments. The earlier line is the
    earlier moment, or the later one if the file goes back in time.
    """

    def __init__(self, meter: MeterSettings) -> None:
        self._zone = meter.zone
        ends = meter.timestamp_label is TimestampLabel.END
        self._ending = meter.interval if ends else None
        self._kept: list[pd.DataFrame] = []
        self._forward = 0

    def hold_back(self, frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
        """Keep the lines with such times, and return the others."""
        assert self._zone is not None
        stamps = frame[keys[0]]
        steps = stamps.diff() if len(keys) == 1 else stamps.groupby(frame[keys[1]]).diff()
        self._forward += int(np.sign(steps.dt.total_seconds()).sum())
        doubled = local_clocks.is_doubled(self._local(stamps), self._zone, ending=self._ending)
        if doubled.any():
            self._kept.append(frame[doubled])
        return frame[~doubled]

    def with_moments(self, keys: list[str]) -> pd.DataFrame:
        """Return the lines that were kept, each with the moment that it means."""
        if self._zone is None or not self._kept:
            return pd.DataFrame()
        frame = pd.concat(self._kept)
        local = self._local(frame[keys[0]])
        groups = frame.groupby(keys, sort=False)
        twice = (groups[keys[0]].transform("size") == 2).to_numpy()
        number = groups.cumcount(ascending=self._forward >= 0).to_numpy()
        early = twice & (number == 0)
        if self._ending is not None:
            machine = frame[keys[1]].to_numpy(str) if len(keys) > 1 else None
            early |= local_clocks.begins_doubled_hour(
                local, self._zone, machine, early, self._ending
            )
        utc = local_clocks.usual_utc(local, self._zone)
        utc[early] = local_clocks.first_utc(local, self._zone, ending=self._ending)[early]
        return frame.assign(**{keys[0]: pd.DatetimeIndex(utc).tz_localize("UTC")})

    def _local(self, stamps: "pd.Series[pd.Timestamp]") -> local_clocks.Stamps:
        local = stamps.dt.tz_convert(self._zone).dt.tz_localize(None)
        return local_clocks.as_local(local.to_numpy())


def _parse_numbers(lines: list[int], texts: Sequence[str]) -> npt.NDArray[np.float64]:
    try:
        numbers = np.array([float(text) if text else math.nan for text in texts])
        # float() also accepts 1_000 and digits of other scripts: those cells are checked one by
        # one below.
        plain = "".join(texts)
        suspicious = not plain.isascii() or "_" in plain or bool(np.isinf(numbers).any())
    except ValueError:
        suspicious = True
    if not suspicious:
        return numbers
    return np.array(
        [_parsed_number(line, text.strip()) for line, text in zip(lines, texts, strict=True)]
    )


def _parsed_number(line: int, text: str) -> float:
    if not text or _NAN.fullmatch(text):
        return math.nan
    if not _NUMBER.fullmatch(text) and not _INFINITY.fullmatch(text):
        hint = "write a decimal point" if "," in text else "leave it empty if there is no reading"
        raise _CellError(line, f"{text!r} is not a number: {hint}")
    if math.isinf(number := float(text)):
        raise _CellError(line, f"{text!r} is infinite: leave it empty if there is no reading")
    return number


def _parse_texts(lines: list[int], texts: Sequence[str], *, may_be_empty: bool) -> list[str | None]:
    cells = [text.strip() or None for text in texts]
    if not may_be_empty and None in cells:
        raise _CellError(lines[cells.index(None)], "empty, and every row needs a machine")
    return cells


# Summary of the file ----------------------------------------------------


class _FileSummary:
    """Counts of a file's readings, in memory that does not grow with the file."""

    def __init__(self) -> None:
        self.readings = 0
        self.skipped = 0
        self.first: datetime | None = None
        self.last: datetime | None = None
        self.machines: dict[str, None] = {}
        self.course = _RisesAndFalls()

    def add(self, long: pd.DataFrame, moments: "pd.Series[pd.Timestamp]") -> None:
        """Add a chunk to the counts."""
        first, last = moments.min().to_pydatetime(), moments.max().to_pydatetime()
        self.first = min(self.first or first, first)
        self.last = max(self.last or last, last)
        self.machines.update(dict.fromkeys(long["machine"].unique()))
        read = long.dropna(subset="reading")
        self.readings += len(read)
        self.course.follow(read)


class _RisesAndFalls:
    """Rises and falls of each machine's readings, to recognise counters.

    A step is judged by time, not by the order of lines: a reading that is later and lower is a
    fall, whatever the order of the file.
    """

    def __init__(self) -> None:
        self._last: list[pd.DataFrame] = []
        self._steps: list[pd.DataFrame] = []

    def follow(self, readings: pd.DataFrame) -> None:
        """Count the steps within a chunk, and the step from the chunk before."""
        joined = pd.concat([*self._last, readings]).sort_values("machine", kind="stable")
        same = joined["machine"] == joined["machine"].shift()
        later = np.sign(joined["moment"].diff().dt.total_seconds())
        slope = np.sign(joined["reading"].diff()) * later.where(same, 0.0)
        steps = pd.DataFrame(
            {"steps": same, "rises": slope > 0, "falls": slope < 0, "line": joined.index}
        ).groupby(joined["machine"])
        sums = steps[["steps", "rises", "falls"]].sum()
        self._steps = [self._with_steps_so_far(sums.join(steps["line"].agg(["min", "max"])))]
        self._last = [joined.groupby("machine").tail(1)]

    def _with_steps_so_far(self, steps: pd.DataFrame) -> pd.DataFrame:
        how = {"steps": "sum", "rises": "sum", "falls": "sum", "min": "min", "max": "max"}
        return pd.concat([*self._steps, steps]).groupby(level=0).agg(how)

    def fault(self, kind: ReadingKind) -> str | None:
        """The message about a machine whose readings look like another kind; None if none do."""
        (steps,) = self._steps
        if kind is ReadingKind.ENERGY_KWH_TODAY:
            return None  # it falls once per day, which says nothing at any interval
        if kind in (ReadingKind.POWER_W, ReadingKind.ENERGY_KWH_PER_INTERVAL):
            enough = (steps["steps"] + 1 >= COUNTER_READINGS) & (steps["rises"] >= COUNTER_VALUES)
            return _counter_message(steps[enough & (steps["falls"] == 0)])
        often = steps["falls"] > POWER_FALL_SHARE * steps["steps"]
        return _power_message(steps[often & (steps["falls"] >= POWER_FALLS)])


def _counter_message(steps: pd.DataFrame) -> str | None:
    if steps.empty:
        return None
    first, last = steps[["min", "max"]].iloc[0]
    return (
        f"{steps.index[0]} never falls from line {first} to line {last}: it looks like a counter"
        " in kWh, set ANOMALY_READING_KIND=energy_kwh"
    )


def _power_message(steps: pd.DataFrame) -> str | None:
    if steps.empty:
        return None
    falls, count = steps[["falls", "steps"]].iloc[0]
    return (
        f"{steps.index[0]} falls in {falls / count:.0%} of its steps: it looks like power in W,"
        " not a counter in kWh, set ANOMALY_READING_KIND=power_w"
    )


def _as_ids(machines: dict[str, None]) -> list[str] | list[int]:
    if all(map(_INTEGER.fullmatch, machines)):
        return sorted(map(int, machines))
    return sorted(machines)
