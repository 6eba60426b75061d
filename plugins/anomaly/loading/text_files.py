"""Text files of readings (CSV in all its dialects): found out from a sample, read in blocks."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import charset_normalizer
import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from anomaly.arrays import Ints
from anomaly.errors import IngestError
from anomaly.loading.headers import find_header
from anomaly.loading.problems import Problem, Problems

BLOCK_BYTES = 1 << 23
"""How much of a file is read at once. Chosen: memory stays flat, whatever the size of the file."""
SAMPLE_BYTES = 1 << 18
"""How much of a file is looked at to find out how it is written. Chosen."""
LONGEST_ROW = 1 << 20
"""Bytes; chosen: a longer row means a stray quote, or that the file is not text."""

_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_ONE_BYTE = ["cp1252", "latin_1", "cp1250", "iso8859_15", "cp1251"]
_TWO_BYTES = ["cp932", "gb18030"]
SURE_OF_LANGUAGE = 0.2
"""Share of a language's letters from which on charset-normalizer's guess is taken. Chosen."""
_DELIMITERS = "\t;|,"


@dataclass(frozen=True)
class Block:
    """Some rows of a file.

    Attributes
    ----------
    lines : array of int
        The line on which each row begins, as an editor shows it.
    columns : list of pyarrow.Array
        One per name in the header: texts, numbers or timestamps.
    """

    lines: Ints
    columns: list[pa.Array]

    def row(self, place: int) -> list[object]:
        """The cells of one row."""
        return [column[place].as_py() for column in self.columns]


@dataclass(frozen=True)
class Dialect:
    """How a text file is written.

    Attributes
    ----------
    encoding : str
        Python's name.
    delimiter : str
        What separates columns.
    header : list of str
        Names of the columns, without spaces around them.
    header_line : int
        The header's line, from 1.
    units : list of str
        Units of the columns where a line below the header holds them, else empty.
    first_line : int
        The line of the first row.
    """

    encoding: str
    delimiter: str
    header: list[str]
    header_line: int
    units: list[str]
    first_line: int

    @property
    def is_plain(self) -> bool:
        """Whether it is CSV as everybody expects it."""
        return (self.delimiter, self.header_line) == (",", 1) and self.encoding.startswith("utf-8")

    def describe(self) -> str:
        """The dialect in words."""
        name = {"utf-8": "UTF-8", "utf-8-sig": "UTF-8"}.get(self.encoding, self.encoding)
        above = f", header in line {self.header_line}" if self.header_line > 1 else ""
        return f"text in {name} that separates its columns by {self.delimiter!r}{above}"


# Finding out ------------------------------------------------------------


def find_dialect(stream: BinaryIO, file: str, encoding: str | None = None) -> Dialect:
    """Find out how a text file is written, from its beginning.

    Raises
    ------
    IngestError
        When the file is empty, is no table, or has no header.
    """
    sample = stream.read(SAMPLE_BYTES)
    whole = len(sample) < SAMPLE_BYTES
    encoding = encoding or _encoding(sample, file, whole=whole)
    text = _decoded(sample, encoding, file, whole=whole)
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise IngestError(f"{file}, line {line} is not text: {_FORMATS}")
    _refuse_other_languages(text, file)
    lines = _sample_lines(text, whole=whole)
    if not any(line.strip() for line in lines):
        raise IngestError(f"{file} is empty: export it again, with a header")
    skipped = 0
    delimiter = ""
    if named := re.fullmatch(r'"?sep=(.)"?;*\s*', lines[0], re.IGNORECASE):
        delimiter, skipped = named[1], 1
    delimiter = delimiter or _delimiter(lines)
    return _with_header(lines, encoding, delimiter, skipped, file)


_FORMATS = "save it as CSV in UTF-8, as .xlsx, as Parquet or as JSON lines"


def _encoding(sample: bytes, file: str, *, whole: bool) -> str:
    for mark, name in _BOMS.items():
        if sample.startswith(mark):
            return name
    # Without a mark, UTF-16 shows by its zero bytes: every other byte of plain letters and digits.
    even, odd = sample[:2000:2].count(0), sample[1:2000:2].count(0)
    if max(even, odd) > len(sample[:2000]) / 5 and min(even, odd) == 0:
        return "utf-16-le" if odd else "utf-16-be"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample, final=whole)
    except UnicodeDecodeError:
        # A lone accent among plain letters is no Japanese or Chinese word.
        has_words = re.search(rb"[\x80-\xff]{2}", sample) is not None
        possible = _ONE_BYTE + _TWO_BYTES * has_words
        best = charset_normalizer.from_bytes(sample, cp_isolation=possible).best()
        if best is None:
            raise IngestError(f"{file} is not text: {_FORMATS}") from None
        if best.encoding in _ONE_BYTE and best.coherence < SURE_OF_LANGUAGE:
            # Too few words to tell languages apart: the encoding that most such files have.
            is_western = not has_words or best.encoding != "cp1251"
            return "cp1252" if is_western and _is_cp1252(sample) else best.encoding
        return best.encoding
    return "utf-8"


def _is_cp1252(sample: bytes) -> bool:
    try:
        sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return True


def _decoded(sample: bytes, encoding: str, file: str, *, whole: bool) -> str:
    try:
        "".encode(encoding)  # refuses what is no encoding of texts, such as base64
        text = codecs.getincrementaldecoder(encoding)().decode(sample, final=whole)
    except LookupError:
        raise IngestError(
            f"--encoding {encoding} is not known: write one such as utf-8, cp1252 or utf-16"
        ) from None
    except UnicodeDecodeError as error:
        line = sample[: error.start].count(b"\n") + 1
        raise IngestError(
            f"{file}, line {line}: byte 0x{sample[error.start]:02x} is not {encoding}: name its"
            " encoding, for example --encoding cp1252"
        ) from None
    except UnicodeError as error:
        raise IngestError(f"{file} is not {encoding} ({error}): name its encoding") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _refuse_other_languages(text: str, file: str) -> None:
    start = text.lstrip()[:200]
    if start.startswith("version https://git-lfs"):
        raise IngestError(
            f"{file} is a pointer of Git LFS, not the file itself: run `git lfs pull`"
        )
    if start.startswith("<"):
        raise IngestError(f"{file} is XML or HTML, not a table: {_FORMATS}")


def _sample_lines(text: str, *, whole: bool) -> list[str]:
    lines = text.split("\n")
    return lines if whole or len(lines) == 1 else lines[:-1]  # the last one is cut off


def _delimiter(lines: Sequence[str]) -> str:
    """What separates the columns: what divides most lines into the same number of cells."""
    filled = [line for line in lines[-500:] if line.strip()]
    best, most = ",", (0.0, 0)
    for delimiter in _DELIMITERS:
        counts = Counter(len(row) for row in _rows(filled, delimiter))
        cells, rows = max(counts.items(), key=lambda pair: (pair[0] > 1, pair[1]))
        share = rows / len(filled) if cells > 1 else 0.0
        # A decimal comma divides lines as well, so the others come first where they divide nearly
        # all lines.
        if share >= 0.8 and delimiter != ",":
            return delimiter
        if (share, cells) > most:
            best, most = delimiter, (share, cells)
    return best


def _rows(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    try:
        return list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return [line.split(delimiter) for line in lines]


def _with_header(
    lines: list[str], encoding: str, delimiter: str, skipped: int, file: str
) -> Dialect:
    """Find the header: the last line of names above the first line with values."""
    reader = csv.reader((f"{line}\n" for line in lines[skipped:]), delimiter=delimiter)
    rows: list[tuple[int, list[str]]] = []
    while True:
        line = skipped + reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error:
            break
        if row is None:
            break
        if any(cell.strip() for cell in row):
            rows.append((line, [cell.strip() for cell in row]))
    found = find_header(rows, file, "line", delimiter)
    return Dialect(encoding, delimiter, found.names, found.line, found.units, found.first_line)


# Reading ----------------------------------------------------------------


class TextReader:
    """A text file's rows, in blocks.

    Parameters
    ----------
    stream : binary file
        From the beginning of the file, decompressed.
    wanted : sequence of int
        Columns that are read; the others are empty in a block, unless `problems` keeps whole rows.
    problems : Problems
        Where rows with too few or too many cells are noted.
    """

    def __init__(
        self,
        stream: BinaryIO,
        file: str,
        dialect: Dialect,
        wanted: Sequence[int],
        problems: Problems,
    ) -> None:
        self._stream = stream
        self._file = file
        self._dialect = dialect
        self._problems = problems
        width = len(dialect.header)
        self._wanted = [*range(width)] if problems.wants_all else sorted(set(wanted))

    def blocks(self) -> Iterator[Block]:
        """Yield the rows below the header.

        Raises
        ------
        IngestError
            When the file stops being text, or a quote is not closed.
        """
        for first, text, count in self._texts():
            if block := self._block(first, text, count):
                yield block

    # Bytes --------------------------------------------------------------

    def _texts(self) -> Iterator[tuple[int, bytes, int]]:
        """Whole rows in UTF-8, with the number of their first line and the count of lines."""
        rest, line, ended = b"", 1, False
        source = self._utf8()
        skip = self._dialect.first_line - 1
        while not ended:
            more = next(source, None)
            ended = more is None
            rest += more or b""
            if skip:
                rest, skipped = _without_lines(rest, skip)
                skip, line = skip - skipped, line + skipped
                if skip and not ended:
                    continue
            cut = len(rest) if ended else _end_of_rows(rest)
            if not cut and len(rest) > LONGEST_ROW + BLOCK_BYTES:
                raise self._stray_quote(line, rest)
            if cut:
                text, rest = rest[:cut], rest[cut:]
                if b"\0" in text:
                    line += text[: text.index(b"\0")].count(b"\n")
                    raise IngestError(f"{self._file}, line {line} is not text: {_FORMATS}")
                count = text.count(b"\n") + (not text.endswith(b"\n"))
                yield line, text, count
                line += count

    def _utf8(self) -> Iterator[bytes]:
        encoding = self._dialect.encoding
        if encoding in ("utf-8", "utf-8-sig"):
            first, carried = True, b""
            while chunk := self._stream.read(BLOCK_BYTES):
                if first and chunk.startswith(codecs.BOM_UTF8):
                    chunk = chunk[len(codecs.BOM_UTF8) :]
                first = False
                chunk, carried = carried + chunk, b""
                if b"\r" in chunk:
                    if chunk.endswith(b"\r"):  # half of a line end, perhaps
                        chunk, carried = chunk[:-1], b"\r"
                    chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
                yield chunk
            if carried:
                yield b"\n"
            return
        wrapped = io.TextIOWrapper(self._stream, encoding=encoding, newline=None)
        try:
            while text := wrapped.read(BLOCK_BYTES):
                yield text.encode()
        except UnicodeDecodeError as error:
            raise IngestError(
                f"{self._file}: a byte 0x{error.object[error.start]:02x} is not {encoding}: name"
                " its encoding, for example --encoding cp1252"
            ) from None
        finally:
            wrapped.detach()

    def _stray_quote(self, first: int, text: bytes) -> IngestError:
        line = first
        for row in text.split(b"\n"):
            if row.count(b'"') % 2:
                break
            line += 1
        return IngestError(
            f"{self._file}, line {line} is not CSV (a quote is not closed): look for a stray quote"
        )

    # Cells --------------------------------------------------------------

    def _block(self, first: int, text: bytes, count: int) -> Block | None:
        names = [str(number) for number in range(len(self._dialect.header))]
        try:
            table = arrow_csv.read_csv(
                io.BytesIO(text),
                arrow_csv.ReadOptions(column_names=names, block_size=len(text) + 1),
                arrow_csv.ParseOptions(
                    delimiter=self._dialect.delimiter, newlines_in_values=b'"' in text
                ),
                arrow_csv.ConvertOptions(
                    include_columns=[names[place] for place in self._wanted],
                    column_types=dict.fromkeys(names, pa.string()),
                    strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid:
            return self._slowly(first, text)
        if table.num_rows == count:
            lines = first + np.arange(count)
        elif (known := self._slowly(first, text, check=False)) is not None:
            lines = known.lines
        else:
            return None
        read = dict(zip(self._wanted, table.itercolumns(), strict=True))
        empty = pa.nulls(table.num_rows, pa.string())
        return Block(
            lines,
            [
                read[place].combine_chunks() if place in read else empty
                for place in range(len(names))
            ],
        )

    def _slowly(self, first: int, text: bytes, *, check: bool = True) -> Block | None:
        """Read a block row by row: to find the line of each row, and rows that cannot be read."""
        try:
            whole = text.decode()
        except UnicodeDecodeError as error:
            line = first + text[: error.start].count(b"\n")
            raise IngestError(
                f"{self._file}, line {line}: byte 0x{text[error.start]:02x} is not UTF-8: name its"
                " encoding, for example --encoding cp1252"
            ) from None
        width = len(self._dialect.header)
        reader = csv.reader(
            io.StringIO(whole, newline=""), delimiter=self._dialect.delimiter, strict=True
        )
        lines, rows = [], []
        while True:
            line = first + reader.line_num
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise IngestError(
                    f"{self._file}, line {line} is not CSV ({error}): look for a stray quote"
                ) from None
            if row is None:
                break
            if not any(row) or (len(row) == 1 and not row[0].strip(" \t\x1a")):
                continue
            if check and len(row) != width:
                self._problems.add(line, _ragged(line, width, len(row)), row)
                continue
            lines.append(line)
            rows.append(row)
        if not rows:
            return None
        cells = zip(*rows, strict=True) if check else [() for _ in range(width)]
        return Block(np.array(lines), [pa.array(column, pa.string()) for column in cells])


def _ragged(line: int, expected: int, found: int) -> Problem:
    return Problem(
        f"line {line}",
        f"the header names {expected} columns, this line has {found}",
        "look for a decimal comma or a line that is cut off",
    )


def _without_lines(text: bytes, count: int) -> tuple[bytes, int]:
    """Take lines away from the beginning; return what is left and how many were taken."""
    start = 0
    for taken in range(count):
        end = text.find(b"\n", start)
        if end < 0:
            return text[start:], taken
        start = end + 1
    return text[start:], count


def _end_of_rows(text: bytes) -> int:
    """Where the last whole row ends; 0: nowhere."""
    cut = text.rfind(b"\n") + 1
    if b'"' not in text:
        return cut
    quotes = text.count(b'"', 0, cut)
    while cut and quotes % 2:
        before = text.rfind(b"\n", 0, cut - 1) + 1
        quotes -= text.count(b'"', before, cut)
        cut = before
    return cut
