"""The header of a table that may stand below other lines: its names, and where the rows begin."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from anomaly.errors import IngestError

_VALUE = re.compile(
    r"[+-]?[\d.,]*\d[\d.,]*(?:e[+-]?\d+)?|nan|null|n/?a|-", re.ASCII | re.IGNORECASE
)
_TIME = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}:\d{2}|\d{8}[T ]\d{2}"
    r"|\d{1,2}(?:[-. ]{1,2}| de )[A-Za-z\u00c0-\u00ff]{3}|[A-Za-z]{3,9}\.? \d{1,2},? \d{4}"
    r"|(?:\d{8}|\d{10}(?:\.\d+)?|\d{12,14}|\d{16}|\d{19})$",
    re.ASCII,
)
_UNIT_LINE = re.compile(
    r"(?:units?|uom|einheit|unité|unidad|unità|eenheid)\W*(?:\(?(?P<unit>[kM]?Wh?)\)?)?",
    re.IGNORECASE,
)
_UNIT = re.compile(r"[\[(]?(?:[kMG]?Wh?|VAr|kVArh?|°?C|%|h|UTC|ISO ?8601)?[\])]?")


@dataclass(frozen=True)
class Header:
    """Where a table begins.

    Attributes
    ----------
    names : list of str
        Of the columns.
    line : int
        The header's line or row, from 1.
    units : list of str
        Units of the columns where a line below the header holds them, else empty.
    first_line : int
        Where the rows begin.
    """

    names: list[str]
    line: int
    units: list[str]
    first_line: int


def find_header(
    rows: Sequence[tuple[int, Sequence[str]]], file: str, word: str, delimiter: str = ", "
) -> Header:
    """Find the header: the last row of names above the first row with values.

    Parameters
    ----------
    rows : sequence of (int, sequence of str)
        The first rows that are not empty and their lines, cells without spaces around them.
    word : str
        What a row is called in messages: line or row.

    Raises
    ------
    IngestError
        When there is no row, or the first one holds values.
    """
    if not rows:
        raise IngestError(f"{file} is empty: export it again, with a header")
    below = rows[len(rows) // 2 :]  # a preamble may be as long as a short table
    width = Counter(len(row) for _, row in below).most_common(1)[0][0]
    full = [place for place, (_, row) in enumerate(rows) if len(row) == width]
    values, column = _first_values([rows[place][1] for place in full])
    if values is None:
        # No values at all: a header alone, or text without one.
        line, names = rows[full[0] if width > 1 else 0]
        return Header([*names], line, [""] * len(names), line + 1)
    first_line = rows[full[values]][0]
    if not values and full[0] and len(rows[full[0] - 1][1]) > 1:
        # A header with another number of cells than the rows: those are refused by line.
        line, names = rows[full[0] - 1]
        return Header([*names], line, [""] * len(names), first_line)
    if not values:
        shown = delimiter.join(rows[full[0]][1])
        shown = f"{shown[:60]}..." if len(shown) > 60 else shown
        raise IngestError(
            f"{file}, {word} {first_line} holds values ({shown!r}) where a header should name the"
            f" columns: write a {word} of names above it"
        )
    line, header = rows[full[values - 1]]
    _refuse_values(line, header, column, file, word)
    units: Sequence[str] = [_unit_above(rows[: full[values - 1]])] * width
    if values > 1 and all(_UNIT.fullmatch(cell) for cell in header):
        units = header
        line, header = rows[full[values - 2]]
    return Header([*header], line, [*units], first_line)


def _refuse_values(
    line: int, header: Sequence[str], column: int | None, file: str, word: str
) -> None:
    """Refuse a row for the header that looks like a row whose time cannot be read."""
    if column is None or sum(mark.isdigit() for mark in header[column]) < 5:
        return
    others = [cell for place, cell in enumerate(header) if place != column]
    if any(_VALUE.fullmatch(cell) for cell in others if cell):
        raise IngestError(
            f"{file}, {word} {line}: {header[column]!r} is not a time that can be read, and the"
            f" {word}s below it have one: write all times the same way"
        )


def _unit_above(rows: Sequence[tuple[int, Sequence[str]]]) -> str:
    """The unit that a line above the header names for the whole table, as in ``Unit: kW``."""
    for _, row in rows:
        if row and (found := _UNIT_LINE.fullmatch(row[0])):
            if found["unit"]:
                return found["unit"]
            if len(row) > 1 and _UNIT.fullmatch(row[1]):
                return row[1]
    return ""


def _first_values(rows: Sequence[Sequence[str]]) -> tuple[int | None, int | None]:
    """Which row is the first with values: it has a time where most rows have one.

    Returns
    -------
    row, column : int or None
        The row, and the column with the times.
    """
    times = [sum(bool(_TIME.match(cell)) for cell in column) for column in zip(*rows, strict=True)]
    most = max(times)
    if most:
        column = times.index(most)
        first = next(place for place, row in enumerate(rows) if _TIME.match(row[column]))
        return first, column
    return next((place for place, row in enumerate(rows) if _is_numbers(row)), None), None


def _is_numbers(row: Sequence[str]) -> bool:
    filled = [cell for cell in row if cell]
    return 2 * sum(bool(_VALUE.fullmatch(cell)) for cell in filled) > len(filled)
