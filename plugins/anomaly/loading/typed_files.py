"""Parquet, JSON lines and Excel workbooks of readings, in the same blocks as text files."""

import datetime as dt
import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile, ZipFile

import numpy as np
import openpyxl
import pyarrow as pa
from pyarrow import parquet

from anomaly.errors import IngestError
from anomaly.loading.headers import Header, find_header
from anomaly.loading.problems import Problem, Problems
from anomaly.loading.text_files import Block

BLOCK_ROWS = 100_000
"""Rows that are read at once. Chosen: memory stays flat."""
HEADER_ROWS = 300
"""Rows of a workbook in which its header is looked for. Chosen."""

_PLAIN = (pa.types.is_floating, pa.types.is_integer, pa.types.is_timestamp)


class ParquetReader:
    """The rows of a Parquet file, in blocks; a row's line is its number, from 1."""

    def __init__(self, path: Path, file: str) -> None:
        try:
            self._parquet = parquet.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise IngestError(
                f"{file} is a damaged Parquet file ({error}): copy it again"
            ) from None
        self._file = file
        schema = self._parquet.schema_arrow
        if twice := [name for name in schema.names if schema.names.count(name) > 1]:
            raise IngestError(f"{file} has two columns {twice[0]}: keep the right one")
        # pandas keeps an index without a name; only times are worth reading.
        self.header = [
            field.name
            for field in schema
            if not field.name.startswith("__index_level_") or pa.types.is_timestamp(field.type)
        ]

    def blocks(self) -> Iterator[Block]:
        """Yield the rows."""
        line = 1
        try:
            for batch in self._parquet.iter_batches(BLOCK_ROWS, columns=self.header):
                lines = np.arange(line, line + batch.num_rows)
                line += batch.num_rows
                yield Block(lines, [_simplified(column) for column in batch.columns])
        except (pa.ArrowInvalid, OSError) as error:
            raise IngestError(
                f"{self._file} is a damaged Parquet file ({error}): copy it again"
            ) from None


def _simplified(column: pa.Array) -> pa.Array:
    """Numbers and times as they are; everything else as text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _simplified(column.dictionary_decode())
    if any(is_kind(kind) for is_kind in _PLAIN):
        return column
    if pa.types.is_decimal(kind):
        return column.cast(pa.string())
    if pa.types.is_date(kind):
        return column.cast(pa.timestamp("us"))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return column.cast(pa.string())
    return pa.array([_as_text(cell) for cell in column.to_pylist()], pa.string())


class JsonLinesReader:
    """The rows of a file with one JSON object per line, or of one JSON array of objects.

    Parameters
    ----------
    stream : binary file
        From the beginning of the file, decompressed.
    """

    def __init__(
        self, stream: BinaryIO, file: str, problems: Problems | None, header: Sequence[str] = ()
    ) -> None:
        self._stream = stream
        self._file = file
        self._problems = problems
        self.header = [*header]

    def find_header(self) -> list[str]:
        """All names in the first objects, in their order."""
        names: dict[str, None] = {}
        for _, row in islice(self._rows(), 1000):
            if isinstance(row, dict):
                names.update(dict.fromkeys(row))
        if not names:
            raise IngestError(f"{self._file} is empty: export it again")
        self.header = [*names]
        return self.header

    def blocks(self) -> Iterator[Block]:
        """Yield the rows."""
        rows, known = self._rows(), set(self.header)
        while chunk := list(islice(rows, BLOCK_ROWS)):
            lines, cells = [], []
            for line, row in chunk:
                if fault := self._fault(row, known):
                    assert self._problems is not None
                    self._problems.add(line, Problem(f"line {line}", *fault))
                    continue
                lines.append(line)
                cells.append([_as_text(row.get(name)) for name in self.header])
            if lines:
                columns = zip(*cells, strict=True)
                yield Block(np.array(lines), [pa.array(column, pa.string()) for column in columns])

    def _fault(self, row: Any, known: set[str]) -> tuple[str, str] | None:
        if not isinstance(row, dict):
            return "not a JSON object", 'write one object per line: {"time": ..., "machine_1": ...}'
        if more := [name for name in row if name not in known]:
            return f"has a name {more[0]!r} that the first lines lack", "give all lines all names"
        return None

    def _rows(self) -> Iterator[tuple[int, Any]]:
        first = True
        for number, text in enumerate(self._stream, 1):
            if not text.strip():
                continue
            if first and text.lstrip().startswith(b"["):
                yield from enumerate(self._array(text + self._stream.read()), 1)
                return
            first = False
            yield number, self._parsed(text, number)

    def _array(self, text: bytes) -> list[Any]:
        return list(self._parsed(text, 1))

    def _parsed(self, text: bytes, number: int) -> Any:
        try:
            return json.loads(text)
        except (ValueError, UnicodeDecodeError) as error:
            raise IngestError(
                f"{self._file}, line {number} is not JSON ({error}): write one object per line"
            ) from None


class WorkbookReader:
    """The rows of one sheet of an Excel workbook (.xlsx), in blocks.

    Parameters
    ----------
    sheet : str or None
        The sheet's name; None: the only one with cells.
    """

    def __init__(
        self,
        stream: BinaryIO,
        file: str,
        sheet: str | None = None,
        problems: Problems | None = None,
    ) -> None:
        self._stream = stream
        self._file = file
        self._problems = problems
        try:
            self._book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
        except (BadZipFile, KeyError, ValueError, OSError) as error:
            raise IngestError(
                f"{file} is a damaged Excel file ({error}): save it again as .xlsx"
            ) from None
        self._sheet = self._chosen(sheet)
        found = self._header()
        self.header, self.units, self._first_row = found.names, found.units, found.first_line

    def blocks(self) -> Iterator[Block]:
        """Yield the rows below the header; empty rows are left out."""
        width = len(self.header)
        rows = self._filled_rows(self._first_row)
        while chunk := list(islice(rows, BLOCK_ROWS // 10)):
            cells = [(*row, *[None] * width)[:width] for _, row in chunk]
            yield Block(
                np.array([line for line, _ in chunk]),
                [_as_column(column) for column in zip(*cells, strict=True)],
            )

    def refuse_formulas_without_values(self) -> None:
        """Refuse cells that only look empty: many programs write formulas and no values."""
        if not _holds_formulas(self._stream):
            return
        written = openpyxl.load_workbook(self._stream, read_only=True)[self._sheet.title]
        for values, cells in zip(
            self._sheet.iter_rows(values_only=True), written.iter_rows(), strict=True
        ):
            for value, cell in zip(values, cells, strict=True):
                if value is None and cell.data_type == "f":
                    raise IngestError(
                        f"{self._file}, cell {cell.coordinate}: {cell.value!r} is a formula whose"
                        " value was not saved: open the file in Excel or LibreOffice and save it"
                    )

    def _chosen(self, name: str | None) -> Any:
        sheets = {sheet.title: sheet for sheet in self._book.worksheets}
        if name is not None and name not in sheets:
            raise IngestError(
                f"{self._file} has no sheet {name!r}: there are {', '.join(map(repr, sheets))}"
            )
        if name is not None:
            return sheets[name]
        filled = [sheet for sheet in sheets.values() if _has_cells(sheet)]
        if not filled:
            raise IngestError(f"{self._file} is empty: export it again, with a header")
        if len(filled) > 1:
            names = ", ".join(repr(sheet.title) for sheet in filled)
            raise IngestError(
                f"{self._file} has {len(filled)} sheets with cells ({names}): name one, for example"
                f" --sheet {filled[0].title!r}"
            )
        return filled[0]

    def _filled_rows(self, first: int) -> Iterator[tuple[int, Sequence[Any]]]:
        rows = self._sheet.iter_rows(min_row=first, values_only=True)
        for number, row in enumerate(rows, first):
            if any(cell is not None and cell != "" for cell in row):
                yield number, row

    def _header(self) -> Header:
        rows = [
            (number, [(_as_text(cell) or "").strip() for cell in row])
            for number, row in islice(self._filled_rows(1), HEADER_ROWS)
        ]
        width = max(len(row) for _, row in rows)
        return find_header(
            [(number, [*row, *[""] * (width - len(row))]) for number, row in rows],
            self._file,
            "row",
        )


def _holds_formulas(book: BinaryIO) -> bool:
    with ZipFile(book) as packed:
        sheets = [name for name in packed.namelist() if name.startswith("xl/worksheets/")]
        return any(_holds_formula(packed, name) for name in sheets)


def _holds_formula(packed: ZipFile, name: str) -> bool:
    end = b""
    with packed.open(name) as sheet:
        while part := sheet.read(1 << 20):
            if re.search(rb"<(?:\w+:)?f[ >/]", end + part):
                return True
            end = part[-20:]
    return False


def _has_cells(sheet: Any) -> bool:
    return any(
        cell is not None and cell != ""
        for row in islice(sheet.iter_rows(values_only=True), 200)
        for cell in row
    )


def _as_column(cells: Sequence[Any]) -> pa.Array:
    """Numbers as numbers: nobody needs to ask what their decimal mark is."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if float in kinds and kinds <= {float, int}:
        return pa.array([None if cell is None else float(cell) for cell in cells], pa.float64())
    return pa.array([_as_text(cell) for cell in cells], pa.string())


def _as_text(cell: Any) -> str | None:
    """A cell as text: numbers with a decimal point, times in ISO 8601."""
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell)
    if isinstance(cell, float):
        text = repr(cell)
        return text + "0" * (text[-4:-3] == ".")  # no text with a mark of thousands
    if isinstance(cell, dt.datetime):
        # Excel keeps fractions of a day as doubles, which are off by some microseconds.
        return _rounded(cell).isoformat(sep=" ")
    if isinstance(cell, dt.timedelta):  # 24:00 in a column of times
        hours, rest = divmod(round(cell.total_seconds()), 3600)
        return f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}"
    if isinstance(cell, dt.date | dt.time):
        return cell.isoformat()
    return str(cell)


def _rounded(moment: dt.datetime) -> dt.datetime:
    second = dt.timedelta(seconds=1)
    apart = dt.timedelta(microseconds=moment.microsecond)
    off = min(apart, second - apart)
    if off > dt.timedelta(milliseconds=1):
        return moment
    return moment - apart if apart == off else moment - apart + second
