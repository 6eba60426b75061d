"""A file of readings, and what was found out of it: format, columns, times, numbers, units."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from anomaly.errors import IngestError
from anomaly.loading.columns import Plan, Planner, quoted
from anomaly.loading.kinds import unit_in
from anomaly.loading.nem12 import Nem12Reader
from anomaly.loading.number_parsing import Decimal, evidence
from anomaly.loading.opening import FileSource, Format
from anomaly.loading.options import FileOptions
from anomaly.loading.problems import Problems
from anomaly.loading.text_files import Block, Dialect, TextReader, find_dialect
from anomaly.loading.time_parsing import Order, find_order, holds_ranges, parse_times
from anomaly.loading.typed_files import JsonLinesReader, ParquetReader, WorkbookReader
from anomaly.settings import (
    ENERGY_UNITS,
    POWER_UNITS,
    MeterSettings,
    MeterTableSettings,
    ReadingKind,
    TimestampLabel,
)

_END_WORDS = {
    "end",
    "ending",
    "ends",
    "ended",
    "to",
    "until",
    "bis",
    "ende",
    "fin",
    "hasta",
    "fine",
}
_START_WORDS = {
    "start", "starting", "starts", "begin", "beginning", "from", "von", "beginn", "début", "desde",
}  # fmt: skip
SAMPLE_ROWS = 2000
"""Rows that are looked at to find out what the columns are. Chosen."""


class OpenedFile:
    """A file of readings, and what its beginning tells.

    Attributes
    ----------
    name : str
        The file's name for messages.
    header : list of str
        Names of its columns.
    format : str
        How it is written, in words.
    plan : Plan
        What its columns are.
    meter : MeterSettings
        What its readings and times are: as the options say, else as it tells itself, else as the
        table's.
    unit_said : str or None
        The unit that the file itself names.
    factor : Fraction
        What a reading is multiplied by for the table.
    shift : timedelta64
        What is added to a time for the table.
    order : Order
        How times are written.
    decimal : Decimal
        The decimal mark.

    Raises
    ------
    IngestError
        When the file is empty, its columns are not known, or it can be read in two ways.
    """

    def __init__(
        self,
        source: FileSource,
        meter_table: MeterTableSettings,
        meter: MeterSettings,
        options: FileOptions,
    ) -> None:
        self.name = source.name
        self._source = source
        self._table = meter_table
        self._table_meter = meter
        self._options = options
        self._dialect: Dialect | None = None
        self.header, self.format, units = self._look_at_header()
        try:
            self._find_out(units)
        except IngestError as error:
            raise IngestError(f"{error}{self.odd_format}") from None

    @property
    def is_text(self) -> bool:
        """Whether numbers are written with a decimal mark that had to be found out."""
        return self._dialect is not None

    @property
    def kind_said(self) -> bool:
        """Whether the user said what the readings are."""
        return self._options.kind is not None

    @property
    def word(self) -> str:
        """What a row is called where it is told."""
        return "row" if self._source.format in (Format.PARQUET, Format.WORKBOOK) else "line"

    @property
    def odd_format(self) -> str:
        """How the file was read, for a message, unless everybody would expect that."""
        is_odd = self._dialect is not None and not self._dialect.is_plain
        return f" (it is read as {self.format})" if is_odd else ""

    def _find_out(self, units: Sequence[str]) -> None:
        """Find out what the columns, times and numbers are."""
        sample = self._sample()
        self.plan: Plan = Planner(
            self.name,
            self.header,
            sample,
            self._table,
            self._options.columns,
            ignore_unknown=self._options.ignore_unknown,
        ).plan()
        self.unit_said = self._find_unit(units)
        self.meter = self._meter_of_file(sample)
        self.factor = self._find_factor()
        self.shift = self._find_shift()
        self.order = self._find_order()
        self.decimal = self._find_decimal()

    # What the file is ---------------------------------------------------

    def _look_at_header(self) -> tuple[list[str], str, list[str]]:
        kind, name = self._source.format, self.name
        packed = f", {self._source.compression}" if self._source.compression else ""
        if kind is Format.PARQUET:
            header = ParquetReader(self._source.path, name).header
            return header, "Parquet", [""] * len(header)
        with self._source.stream() as stream:
            if kind is Format.TEXT:
                self._dialect = find_dialect(stream, name, self._options.encoding)
                return self._dialect.header, self._dialect.describe() + packed, self._dialect.units
            if kind is Format.JSON:
                header = JsonLinesReader(stream, name, None).find_header()
                return header, kind.value + packed, [""] * len(header)
            if kind is Format.NEM12:
                unit = Nem12Reader(stream, name).find_unit()
                names = [
                    self._table.source_timestamp_column,
                    self._table.source_machine_column,
                    self._table.source_value_column,
                ]
                return names, kind.value + packed, ["", "", unit]
            book = WorkbookReader(stream, name, self._options.sheet)
            book.refuse_formulas_without_values()
            return book.header, kind.value + packed, book.units

    def blocks(self, wanted: Sequence[int], problems: Problems | None = None) -> Iterator[Block]:
        """Read the file from its beginning."""
        if problems is None:
            problems = Problems(self.name, self.header)
        if self._source.format is Format.PARQUET:
            yield from ParquetReader(self._source.path, self.name).blocks()
            return
        with self._source.stream() as stream:
            yield from self._reader(stream, wanted, problems).blocks()

    def _reader(
        self, stream: Any, wanted: Sequence[int], problems: Problems
    ) -> TextReader | JsonLinesReader | Nem12Reader | WorkbookReader:
        if self._dialect is not None:
            return TextReader(stream, self.name, self._dialect, wanted, problems)
        if self._source.format is Format.JSON:
            return JsonLinesReader(stream, self.name, problems, self.header)
        if self._source.format is Format.NEM12:
            return Nem12Reader(stream, self.name, problems)
        return WorkbookReader(stream, self.name, self._options.sheet, problems)

    def _sample(self) -> list[list[str]]:
        """The first cells of each column as text."""
        blocks = self.blocks(range(len(self.header)))
        block = next(blocks, None)
        blocks.close()  # type: ignore[attr-defined]
        if block is None:
            return [[] for _ in self.header]
        return [_texts(column.slice(0, SAMPLE_ROWS)) for column in block.columns]

    def _find_unit(self, units: Sequence[str]) -> str | None:
        """The unit that the file itself names for its readings; None: none, or several.

        Names that are the table's own say nothing: the settings say what the table holds.
        """
        own = {self._table.source_value_column, *self._table.source_machines}
        said = {
            unit_in(units[place], *([shown] if (shown := self.header[place]) not in own else []))
            for place in self.plan.numbers
        } - {None}
        if len(said) > 1:
            names = " and ".join(sorted(filter(None, said)))
            raise IngestError(
                f"{self.name} names several units, {names}: load one of them, leave the others out"
                f" by --columns {quoted(f'{self.header[self.plan.numbers[-1]]}=')}"
            )
        if self.plan.unit is not None:
            return self._unit_of_rows(next(iter(said), None))
        return next(iter(said), None)

    def _unit_of_rows(self, said: str | None) -> str | None:
        """The unit that a column of its own names; rows with another one are told by their line."""
        assert self.plan.unit is not None
        cells = self._sample()[self.plan.unit]
        found = {unit_in(f"[{cell.strip()}]") or cell.strip() for cell in cells if cell.strip()}
        if said:
            found.add(said)
        if len(found) > 1:
            names = " and ".join(sorted(found))
            raise IngestError(
                f"{self.name} names several units, {names}: load the rows of one unit at a time"
            )
        return next(iter(found), None)

    def _meter_of_file(self, sample: Sequence[Sequence[str]]) -> MeterSettings:
        """What the file holds: as the options say, else as it tells itself, else as the table."""
        said: dict[str, Any] = {
            # Another kind has another unit, unless that is said as well.
            "reading_kind": self._options.kind,
            "reading_unit": "" if self._options.kind else None,
            "source_timezone": self._options.timezone,
            "timestamp_label": self._options.label,
        }
        named = self._label_in_name()
        if all(holds_ranges(sample[place][:50]) for place in self.plan.time[-1:]):
            said["timestamp_label"] = TimestampLabel.START  # the first of the two times is read
        elif self._options.label is None and named is not None:
            said["timestamp_label"] = named
        changed = {name: value for name, value in said.items() if value is not None}
        meter = self._changed(self._table_meter, **changed)
        if self._options.unit is not None:
            return self._changed(meter, reading_unit=self._options.unit)
        if self.unit_said is None:
            return meter
        if self.unit_said not in units_of(meter.reading_kind):
            fits = [kind.value for kind in ReadingKind if self.unit_said in units_of(kind)]
            if not fits:
                raise IngestError(
                    f"{self.name} names the unit {self.unit_said}, which is not read: convert the"
                    " readings, or if the name is wrong, say the unit, for example --unit"
                    f" {meter.unit}"
                )
            raise IngestError(
                f"{self.name} names the unit {self.unit_said}, which is none of"
                f" {meter.reading_kind.value}: say what the readings are, --kind"
                f" {' or --kind '.join(fits)}, or if the name is wrong, --unit {meter.unit}"
            )
        return self._changed(meter, reading_unit=self.unit_said)

    def _label_in_name(self) -> TimestampLabel | None:
        """Which end of its interval the column of times names, as in ``Interval Ending``."""
        names = [self.header[place] for place in self.plan.time]
        if self._table.source_timestamp_column in names:
            return None
        words = {word.casefold() for name in names for word in re.findall(r"[^\W\d_]+", name)}
        ends, starts = words & _END_WORDS, words & _START_WORDS
        if bool(ends) == bool(starts):
            return None
        return TimestampLabel.END if ends else TimestampLabel.START

    def _changed(self, meter: MeterSettings, **said: Any) -> MeterSettings:
        try:
            return MeterSettings.model_validate(meter.model_dump() | said)
        except ValidationError as error:
            (first, *_) = error.errors()
            raise IngestError(
                f"{self.name}: {', '.join(f'{value!s}' for value in said.values())}:"
                f" {first['msg'].removeprefix('Value error, ')}"
            ) from None

    def _find_factor(self) -> Fraction:
        """What a reading of the file is multiplied by for the table."""
        file, table = self.meter, self._table_meter
        if file.reading_kind is not table.reading_kind and (file.is_counter or table.is_counter):
            raise IngestError(
                f"{self.name} holds {file.reading_kind.value} (--kind), and"
                f" {self._table.source_name} holds {table.reading_kind.value}: set"
                f" ANOMALY_READING_KIND={file.reading_kind.value} for all commands, or load the"
                " file into a table of its own"
            )
        return file.scale / table.scale

    def _find_shift(self) -> np.timedelta64:
        """What is added to a time of the file for the table."""
        file, table = self.meter.timestamp_label, self._table_meter.timestamp_label
        minutes = 0
        if file is not table:
            minutes = self.meter.interval_minutes * (1 if file is TimestampLabel.START else -1)
        return np.timedelta64(minutes, "m")

    def _find_order(self) -> Order:
        """How times are written; where the beginning leaves it open, the whole file is asked."""
        options, place = self._options, self.plan.time[0]
        found = None
        for block in self.blocks([place]):
            column = block.columns[place]
            if pa.types.is_timestamp(column.type):
                return Order.YEAR_FIRST
            found = find_order(_texts(pc.unique(column.drop_null().cast(pa.string()))))
            if found.order is not None:
                if options.dates and found.order in (Order.DAY_FIRST, Order.MONTH_FIRST):
                    break  # every line will be named that says otherwise
                return found.order
            if found.unknown is not None or options.dates is not None:
                break
        if options.dates is not None:
            return options.dates
        if found is not None and found.either is not None:
            raise IngestError(
                f"{self.name}: {found.either!r} in column {self.header[place]} can be"
                f" {_read_as(found.either, Order.DAY_FIRST)} or"
                f" {_read_as(found.either, Order.MONTH_FIRST)}, and no other time in the file"
                f" tells which: say --dates {Order.DAY_FIRST.value} or"
                f" --dates {Order.MONTH_FIRST.value}"
            )
        return Order.YEAR_FIRST

    def _find_decimal(self) -> Decimal:
        """The decimal mark; where the beginning leaves it open, the whole file is asked."""
        if self._options.decimal is not None:
            return self._options.decimal
        if self._dialect is None and self._source.format is not Format.WORKBOOK:
            return Decimal.POINT  # programs write these
        delimiter = self._dialect.delimiter if self._dialect else ""
        either = None
        for block in self.blocks(self.plan.numbers):
            for place in self.plan.numbers:
                marked = block.columns[place]
                if not pa.types.is_string(marked.type):
                    continue
                marked = marked.filter(pc.match_substring_regex(marked, "[.,]"))
                found = evidence(_texts(pc.unique(marked.slice(0, 100_000))))
                if found.point is not None and (not found.comma or delimiter == ","):
                    return Decimal.POINT
                if found.comma is not None:
                    return Decimal.COMMA
                either = either or found.either
        # Where commas separate columns, a point is the decimal one. Who separates them by
        # semicolons does so because the comma is.
        if either is not None and "," in either and delimiter == ";":
            return Decimal.COMMA
        if either is not None and not ("." in either and delimiter == ","):
            mark = "." if "." in either else ","
            small = either.replace(",", ".")
            large = either.replace(mark, "")
            raise IngestError(
                f"{self.name}: {either!r} can be {small} with decimals or {large} with a mark of"
                " thousands, and no other number in the file tells which: say"
                f" --decimal {mark!r} for {small}, --decimal {',.'[mark == ',']!r} for {large}"
            )
        return Decimal.POINT


def units_of(kind: ReadingKind) -> list[str]:
    """The units that readings of a kind may have."""
    return [*(POWER_UNITS if kind is ReadingKind.POWER_W else ENERGY_UNITS)]


def _texts(column: pa.Array) -> list[str]:
    return ["" if cell is None else str(cell) for cell in column.to_pylist()]


def _read_as(text: str, order: Order) -> str:
    stamp = parse_times(pa.array([text], pa.string()), order)[0][0]
    return str(stamp.astype("datetime64[D]"))
