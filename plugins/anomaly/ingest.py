"""Load a CSV file of readings into the meter table: the whole file, or nothing of it."""

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

from anomaly import clocks
from anomaly.errors import IngestError
from anomaly.postgres.database import Database
from anomaly.postgres.ingest import OWN_TABLE, Merged, open_meter_table
from anomaly.schema import MACHINES, RECORD
from anomaly.settings import Layout, ReadingKind, Settings, TimestampLabel

CHUNK_ROWS = 20_000
LONGEST_LINE = 1 << 20
OPSD_SITE = "DE_KN_industrial3_"
OPSD_OTHER_SITES = "DE_KN_"

# A counter never falls; one that is reset now and then falls in few of its steps.
COUNTER_READINGS = 96
COUNTER_VALUES = 10
POWER_FALLS = 10
POWER_FALL_SHARE = 0.2

Row = tuple[int, tuple[str, ...]]


@dataclass(frozen=True)
class IngestReport:
    """What one file brought.

    Attributes
    ----------
    rows : int
        Rows of the table that the file speaks of: inserted, updated and unchanged.
    readings : int
        Machine readings in the file; an empty cell is none.
    first, last : datetime
        Earliest and latest timestamp in UTC, labelled as in the file.
    machines : list of str or list of int
        Wide: the file's machine columns. Long: the ids, as numbers if all are.
    ignored_columns : list of str
        Columns of the file that were left out on purpose.
    skipped_rows : int
        Rows left out because they hold no reading at a local time that the clock skips.
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


def ingest(database: Database, settings: Settings, file: Path) -> IngestReport:
    """Load a CSV file, plain or gzipped, into the meter table in one transaction.

    Loading the same file again changes nothing. A row that differs is updated and
    gets a new ``ingested_at``, so that its verdicts are computed again. A column
    that the file lacks keeps the values it has; an empty cell in a column that
    the file has means "no reading" and does overwrite.

    Parameters
    ----------
    settings : Settings
        They name the table: our own `anomaly.meter_readings`, written as its
        owner, or a long table, written as the login itself. Timestamps keep
        their label: ``timestamp_label`` is for reading the table, not applied here.

    Raises
    ------
    IngestError
        When the file cannot be read whole (see `read_readings`), or the table
        refuses a reading. Nothing was loaded then.
    SourceError, DatabaseError
        When the table is not what the settings say, or may not be written.
    """
    _refuse_foreign_wide_table(settings, file)
    with (
        open_readings(file, settings) as readings,
        open_meter_table(database, settings, loading=str(file)) as table,
    ):
        table.expect(readings.plan.columns)
        for frame in readings.frames():
            table.stage(frame)
        if repeat := table.first_repeat():
            raise readings.repeated(*repeat)
        merged = table.merge()
    return readings.report(merged)


def read_readings(file: Path, settings: Settings) -> pd.DataFrame:
    """Read and check a whole file, without a database.

    Returns
    -------
    DataFrame
        Indexed by line number, as an editor shows it, in that order. First the timestamp
        (``datetime64[us, UTC]``), then the columns of the record that the file
        has (wide), or machine (text) and value (long), as the settings name them.
        Missing readings are NaN.

    Raises
    ------
    IngestError
        Naming file, line and column, the value found and the next step: for an
        unknown column, a number or timestamp that cannot be read, an infinity, a
        timestamp without a zone, a reading at a local time that the clock skips, two
        lines of one moment (a long file may repeat a reading that is equal; the second
        is dropped), readings that look like another kind than ``reading_kind``.
    """
    with open_readings(file, settings) as readings:
        frame = pd.concat(list(readings.frames())).sort_index()
    if settings.source_layout is Layout.LONG:
        frame = frame[~frame.duplicated()]
    keys = frame[readings.plan.keys]
    again = np.flatnonzero(keys.duplicated())
    if again.size:
        second = keys.iloc[again[0]]
        first = np.flatnonzero((keys == second).all(axis=1))[0]
        raise readings.repeated(frame.index[first], frame.index[again[0]], str(second.iloc[0]))
    return frame


def _refuse_foreign_wide_table(settings: Settings, file: Path) -> None:
    if settings.source_layout is Layout.WIDE and settings.source_name != OWN_TABLE:
        raise IngestError(
            f"{settings.source_name} is somebody else's wide table and is not written: let its"
            f" owner load {file}, or unset ANOMALY_SOURCE_SCHEMA and ANOMALY_SOURCE_TABLE to"
            f" load it into {OWN_TABLE}"
        )


# The file ---------------------------------------------------------------

_GZIP = b"\x1f\x8b"


@contextmanager
def open_readings(file: Path, settings: Settings) -> Iterator["CsvReadings"]:
    """Open a CSV file, gzipped or not, and read its header.

    Raises
    ------
    IngestError
        When the file cannot be opened, is empty or has another header.
    """
    try:
        with file.open("rb") as raw:
            yield CsvReadings(_lines(_unzipped(raw), file), file, settings)
    except FileNotFoundError:
        raise IngestError(f"{file} does not exist: check the path") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise IngestError(f"{file} is a damaged gzip file ({error}): copy it again") from None
    except OSError as error:
        raise IngestError(f"{file} cannot be read: {error.strerror}: check the path") from None


def _unzipped(raw: io.BufferedReader) -> BinaryIO:
    # By content, not by name: a pipe or a renamed download works as well.
    if raw.peek(2).startswith(_GZIP):
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    return raw


def _lines(stream: BinaryIO, file: Path) -> Iterator[str]:
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
    """A CSV file's readings in chunks, and what was seen of them so far.

    Attributes
    ----------
    plan : Plan
        Which columns are loaded.
    """

    def __init__(self, lines: Iterator[str], file: Path, settings: Settings) -> None:
        self._file = file
        self._settings = settings
        self._rows = csv.reader(lines, strict=True)
        self._header = self._read_header()
        self.plan = _plan(self._header, settings, file)
        self._stamps = _Stamps(settings)
        self._doubled = _DoubledHours(settings)
        self._seen = _Seen()

    def frames(self) -> Iterator[pd.DataFrame]:
        """Give the readings in chunks, each a DataFrame as `read_readings` returns it.

        Lines of a local time that the clock shows twice come last: which is the first hour's
        and which the second's, their order tells.

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
                    frame = self._doubled.held_back(frame, self.plan.keys)
                yield from self._noted(frame)
        yield from self._noted(self._doubled.told_apart(self.plan.keys))
        if self._seen.first is None:
            raise IngestError(f"{self._file} {self._why_nothing()}")
        if fault := self._seen.course.fault(self._settings.reading_kind):
            raise IngestError(f"{self._file}: {fault}")

    def _noted(self, frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
        if not frame.empty:
            self._seen.add(self.plan.long(frame), frame[self.plan.keys[0]])
            yield frame

    def repeated(self, first: int, second: int, moment: str) -> IngestError:
        """Make the error for two lines that speak of one moment (and machine)."""
        return IngestError(
            f"{self._file}, lines {first} and {second} have the same"
            f" {' and '.join(self.plan.keys)} ({moment}): keep the right one"
        )

    def report(self, merged: Merged) -> IngestReport:
        """Say what the file held and what became of it."""
        seen = self._seen
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
        """Rows with the line each begins on, cut to the plan's columns."""
        pick = itemgetter(*self.plan.places.values())
        for line, row in self._filled_rows():
            self._refuse_ragged(line, row)
            yield line, pick(row)

    def _filled_rows(self) -> Iterator[tuple[int, list[str]]]:
        """Rows that are not blank, with the line each begins on."""
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

    def _why_nothing(self) -> str:
        if self._rows.line_num > 1 and self.plan.skips_empty:
            return f"has no reading in any column {OPSD_SITE}*: take another part of it"
        return "holds a header and no rows: export it again"

    # Cells --------------------------------------------------------------

    def _frame(self, rows: list[Row]) -> pd.DataFrame:
        lines = [line for line, _ in rows]
        columns = [*zip(*(cells for _, cells in rows), strict=True)]
        cells = {
            column: self._parsed(column, lines, texts)
            for column, texts in zip(self.plan.columns, columns, strict=True)
        }
        frame = pd.DataFrame(cells, index=pd.Index(lines, name="line"))
        return self._without_skipped(frame, columns)

    def _without_skipped(self, frame: pd.DataFrame, texts: Sequence[Sequence[str]]) -> pd.DataFrame:
        """Leave out empty rows of a time that the clock skips; with a reading it is wrong."""
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
        self._seen.skipped += int(skipped.sum())
        return frame[~skipped]

    def _parsed(self, column: str, lines: list[int], texts: Sequence[str]) -> object:
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
    """Which columns of a file are loaded, and as what.

    Attributes
    ----------
    places : dict of str to int
        Columns of the table, the timestamp first, and their places in a line.
    keys : list of str
        What identifies a row: the timestamp, in a long file the machine as well.
    numbers : frozenset of str
        Columns that hold readings.
    machines : list of str
        Wide: those of them that are machines. Long: none.
    ignored : list of str
        Columns of the file that are left out.
    skips_empty : bool
        Rows without any reading are left out: the public file has years of them.
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


def _plan(header: list[str], settings: Settings, file: Path) -> Plan:
    if len(header) == 1 and (found := re.search(r"[;\t|]", header[0])):
        raise IngestError(
            f"{file} separates its columns by {found[0]!r}:"
            " write commas between them and points in decimals"
        )
    if settings.source_layout is Layout.LONG:
        return _long_plan(header, settings, file)
    return _wide_plan(header, settings, file)


def _wide_plan(header: list[str], settings: Settings, file: Path) -> Plan:
    long_columns = {settings.source_machine_column, settings.source_value_column}
    if long_columns <= set(header):
        raise IngestError(
            f"{file} is a long file, it has columns {' and '.join(sorted(long_columns))}:"
            " set ANOMALY_SOURCE_LAYOUT=long and name its table in ANOMALY_SOURCE_TABLE"
        )
    record = [settings.source_timestamp_column, *RECORD[1:]]
    if record[0] not in header:
        raise IngestError(f"{file} has no column {record[0]!r}, {_it_has(header)}: rename one")
    found, ignored = _match(header, record, settings, file)
    machines = [name for name in settings.source_machines or MACHINES if name in found]
    if not machines:
        raise IngestError(
            f"{file} has no machine column, {_it_has(header)}: name them machine_1 to machine_5,"
            f" or {OPSD_SITE}machine_1 and so on"
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


def _long_plan(header: list[str], settings: Settings, file: Path) -> Plan:
    names = {
        "ANOMALY_SOURCE_TIMESTAMP_COLUMN": settings.source_timestamp_column,
        "ANOMALY_SOURCE_MACHINE_COLUMN": settings.source_machine_column,
        "ANOMALY_SOURCE_VALUE_COLUMN": settings.source_value_column,
    }
    for setting, name in names.items():
        if name not in header:
            raise IngestError(
                f"{file} has no column {name!r}, {_it_has(header)}: rename one, or set {setting}"
            )
    found, ignored = _match(header, list(names.values()), settings, file)
    timestamp, machine, value = names.values()
    return Plan(
        places={name: found[name] for name in names.values()},
        keys=[timestamp, machine],
        numbers=frozenset({value}),
        machines=[],
        ignored=ignored,
    )


def _match(
    header: list[str], accepted: list[str], settings: Settings, file: Path
) -> tuple[dict[str, int], list[str]]:
    """Places of the accepted columns, and the columns that may be left out."""
    left_out = (_NOT_READINGS | {settings.source_ingested_at_column}) - {""}
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
            raise IngestError(f"{file} {_unknown(place, shown, accepted)}")
    return places, ignored


def _unknown(place: int, shown: str, accepted: list[str]) -> str:
    """Say what to do about a column that nobody expects."""
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


def _it_has(header: list[str]) -> str:
    shown = ", ".join(map(repr, header[:6]))
    return f"it has {shown}{', ...' * (len(header) > 6)}"


# Cells ------------------------------------------------------------------

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_NAN = re.compile(r"[+-]?nan", re.IGNORECASE)
_INFINITY = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)


class _CellError(Exception):
    """A cell that cannot be read: the line it is on, and what is wrong with it."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(fault)
        self.line = line
        self.fault = fault


class _Stamps:
    """Reads timestamps, which must all have a zone, or all have none and a setting for it."""

    def __init__(self, settings: Settings) -> None:
        self._zone = settings.zone
        self._ends = settings.timestamp_label is TimestampLabel.END
        self._first: tuple[int, bool] | None = None

    @property
    def are_naive(self) -> bool:
        """Whether those seen so far have no zone."""
        return self._first is not None and self._first[1]

    def parse(self, lines: list[int], texts: Sequence[str]) -> pd.DatetimeIndex:
        """Turn texts into UTC: NaT for a local time that the clock skips.

        A local time that it shows twice is taken as its second, see `_DoubledHours`.
        """
        known: dict[str, datetime] = {}
        for line, text in zip(lines, texts, strict=True):
            if text not in known:
                known[text] = self._moment(line, text.strip())
        moments = [known[text] for text in texts]
        if self._zone is None or not self.are_naive:
            return pd.DatetimeIndex(moments, dtype="datetime64[us, UTC]")
        local = np.array(moments, dtype="datetime64[us]")
        utc = clocks.usual_utc(local, self._zone)
        utc[self._is_skipped(local, self._zone)] = np.datetime64("NaT")
        return pd.DatetimeIndex(utc).tz_localize("UTC")

    def _is_skipped(self, local: clocks.Stamps, zone: ZoneInfo) -> clocks.Bools:
        skipped = clocks.is_skipped(local, zone)
        if self._ends:  # an interval may end as the clock is set
            skipped &= clocks.is_skipped(local - np.timedelta64(1, "us"), zone)
        return skipped

    def are_ends_as_set_forward(self, stamps: "pd.Series[pd.Timestamp]") -> clocks.Bools:
        """Which labels of ends are of the moment at which the clock is set forward.

        It has two names, 02:00 and 03:00: an empty row by the one is no rival of the other.
        """
        if self._zone is None or not (self.are_naive and self._ends):
            return np.zeros(len(stamps), dtype=bool)
        local = stamps.dt.tz_convert(self._zone).dt.tz_localize(None).to_numpy()
        return clocks.is_skipped(clocks.as_local(local) - np.timedelta64(1, "us"), self._zone)

    def fault_of_skipped(self, text: str) -> str:
        """Say what is wrong with a reading at a time that the clock skips."""
        assert self._zone is not None
        advice = clocks.advice_on_skipped(self._zone, datetime.fromisoformat(text))
        return f"{text!r} is a time that clocks in {self._zone} skip: {advice}"

    def _moment(self, line: int, text: str) -> datetime:
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
    """Lines of local times that can mean two moments, kept until all are there.

    Two lines of one time (and machine) are the two, in the order of the file: the earlier
    line is the earlier moment, unless the file goes back in time.
    """

    def __init__(self, settings: Settings) -> None:
        self._zone = settings.zone
        self._ends = settings.timestamp_label is TimestampLabel.END
        self._kept: list[pd.DataFrame] = []
        self._forward = 0

    def held_back(self, frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
        """Keep such lines of a chunk, and give the others."""
        assert self._zone is not None
        stamps = frame[keys[0]]
        steps = stamps.diff() if len(keys) == 1 else stamps.groupby(frame[keys[1]]).diff()
        self._forward += int(np.sign(steps.dt.total_seconds()).sum())
        doubled = clocks.is_doubled(self._local(stamps), self._zone, ends=self._ends)
        if doubled.any():
            self._kept.append(frame[doubled])
        return frame[~doubled]

    def told_apart(self, keys: list[str]) -> pd.DataFrame:
        """Give the lines that were kept, each at the moment it means."""
        if self._zone is None or not self._kept:
            return pd.DataFrame()
        frame = pd.concat(self._kept)
        local = self._local(frame[keys[0]])
        groups = frame.groupby(keys, sort=False)
        twice = (groups[keys[0]].transform("size") == 2).to_numpy()
        number = groups.cumcount(ascending=self._forward >= 0).to_numpy()
        early = twice & (number == 0)
        if self._ends:
            machine = frame[keys[1]].to_numpy(str) if len(keys) > 1 else None
            early |= clocks.begins_doubled_hour(local, self._zone, machine, early)
        utc = clocks.usual_utc(local, self._zone)
        utc[early] = clocks.first_utc(local, self._zone, ends=self._ends)[early]
        return frame.assign(**{keys[0]: pd.DatetimeIndex(utc).tz_localize("UTC")})

    def _local(self, stamps: "pd.Series[pd.Timestamp]") -> clocks.Stamps:
        local = stamps.dt.tz_convert(self._zone).dt.tz_localize(None)
        return clocks.as_local(local.to_numpy())


def _parse_numbers(lines: list[int], texts: Sequence[str]) -> npt.NDArray[np.float64]:
    try:
        numbers = np.array([float(text) if text else math.nan for text in texts])
        # float() also takes what nobody means: 1_000, digits of other scripts.
        plain = "".join(texts)
        suspicious = not plain.isascii() or "_" in plain or bool(np.isinf(numbers).any())
    except ValueError:
        suspicious = True
    if not suspicious:
        return numbers
    return np.array([_number(line, text.strip()) for line, text in zip(lines, texts, strict=True)])


def _number(line: int, text: str) -> float:
    if not text or _NAN.fullmatch(text):
        return math.nan
    if not _NUMBER.fullmatch(text) and not _INFINITY.fullmatch(text):
        hint = "write a decimal point" if "," in text else "leave it empty where nothing was read"
        raise _CellError(line, f"{text!r} is not a number: {hint}")
    if math.isinf(number := float(text)):
        raise _CellError(line, f"{text!r} is infinite: leave it empty where nothing was read")
    return number


def _parse_texts(lines: list[int], texts: Sequence[str], *, may_be_empty: bool) -> list[str | None]:
    cells = [text.strip() or None for text in texts]
    if not may_be_empty and None in cells:
        raise _CellError(lines[cells.index(None)], "empty, and every row needs a machine")
    return cells


# What was seen ----------------------------------------------------------


class _Seen:
    """Counts what a file held, in memory that does not grow with it."""

    def __init__(self) -> None:
        self.readings = 0
        self.skipped = 0
        self.first: datetime | None = None
        self.last: datetime | None = None
        self.machines: dict[str, None] = {}
        self.course = _Course()

    def add(self, long: pd.DataFrame, moments: "pd.Series[pd.Timestamp]") -> None:
        """Take note of a chunk."""
        first, last = moments.min().to_pydatetime(), moments.max().to_pydatetime()
        self.first = min(self.first or first, first)
        self.last = max(self.last or last, last)
        self.machines.update(dict.fromkeys(long["machine"].unique()))
        read = long.dropna(subset="reading")
        self.readings += len(read)
        self.course.follow(read)


class _Course:
    """Whether each machine's readings only rise, as a counter's do.

    A step is judged by time, not by the order of lines: a reading that is later
    and lower is a fall, however the file is sorted.
    """

    def __init__(self) -> None:
        self._last: list[pd.DataFrame] = []
        self._steps: list[pd.DataFrame] = []

    def follow(self, readings: pd.DataFrame) -> None:
        """Count the steps in a chunk, and from the chunk before to it."""
        joined = pd.concat([*self._last, readings]).sort_values("machine", kind="stable")
        same = joined["machine"] == joined["machine"].shift()
        later = np.sign(joined["moment"].diff().dt.total_seconds())
        slope = np.sign(joined["reading"].diff()) * later.where(same, 0.0)
        steps = pd.DataFrame(
            {"steps": same, "rises": slope > 0, "falls": slope < 0, "line": joined.index}
        ).groupby(joined["machine"])
        sums = steps[["steps", "rises", "falls"]].sum()
        self._steps = [self._added(sums.join(steps["line"].agg(["min", "max"])))]
        self._last = [joined.groupby("machine").tail(1)]

    def _added(self, steps: pd.DataFrame) -> pd.DataFrame:
        how = {"steps": "sum", "rises": "sum", "falls": "sum", "min": "min", "max": "max"}
        return pd.concat([*self._steps, steps]).groupby(level=0).agg(how)

    def fault(self, kind: ReadingKind) -> str | None:
        """Say which machine's readings look like another kind, if any."""
        (steps,) = self._steps
        if kind is ReadingKind.POWER_W:
            enough = (steps["steps"] + 1 >= COUNTER_READINGS) & (steps["rises"] >= COUNTER_VALUES)
            return _like_counter(steps[enough & (steps["falls"] == 0)])
        often = steps["falls"] > POWER_FALL_SHARE * steps["steps"]
        return _like_power(steps[often & (steps["falls"] >= POWER_FALLS)])


def _like_counter(steps: pd.DataFrame) -> str | None:
    if steps.empty:
        return None
    first, last = steps[["min", "max"]].iloc[0]
    return (
        f"{steps.index[0]} never falls from line {first} to line {last}: it looks like a counter"
        " in kWh, set ANOMALY_READING_KIND=energy_kwh"
    )


def _like_power(steps: pd.DataFrame) -> str | None:
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
