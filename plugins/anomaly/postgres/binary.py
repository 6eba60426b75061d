"""Postgres's binary COPY format as numpy records, without a loop over rows."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.errors import SourceError

_HEADER = 19  # signature, flags, length of the header's extension
_TRAILER = 2  # a field count of -1
_EPOCH = np.datetime64("2000-01-01", "us")
_UNIX_TO_PG = int((_EPOCH - np.datetime64(0, "us")).astype(np.int64))
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_INFINITIES = (np.iinfo(np.int64).min, np.iinfo(np.int64).max)


def decode(data: memoryview, fields: list[tuple[str, str]]) -> npt.NDArray[np.void]:
    """View COPY's output as a record array.

    Parameters
    ----------
    data : memoryview
        Output of ``COPY ... TO STDOUT (FORMAT binary)`` over columns of fixed
        width without NULLs.
    fields : list of (name, big-endian dtype)
        In the order of the columns.

    Raises
    ------
    SourceError
        When the rows have another width: a column is NULL or of another type.

    Notes
    -----
    Format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
    """
    layout: list[tuple[str, str]] = [("fields", ">i2")]
    for name, kind in fields:
        layout += [(f"{name}.length", ">i4"), (name, kind)]
    dtype = np.dtype(layout)
    body = len(data) - _HEADER - _TRAILER
    if body % dtype.itemsize:
        raise SourceError(
            f"rows of the meter table are not {dtype.itemsize} bytes wide:"
            " a column has another type than expected"
        )
    return np.frombuffer(data, dtype, count=body // dtype.itemsize, offset=_HEADER)


def native(column: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Copy a big-endian column into the machine's own byte order."""
    return column.astype(column.dtype.newbyteorder("="))


def moments(column: npt.NDArray[np.generic]) -> npt.NDArray[np.datetime64]:
    """Turn timestamps into ``datetime64[us]``; an infinite one becomes NaT."""
    ticks = native(column).astype(np.int64)
    stamps = _EPOCH + ticks.view("timedelta64[us]")
    infinite = np.isin(ticks, _INFINITIES)
    stamps[infinite] = np.datetime64("NaT")
    return stamps


class CopyInput:
    """A frame as COPY's input, without a loop over rows.

    A thread makes the pieces while the server takes in those before. Rows that are NULL
    in the same columns and hold texts of the same lengths have one width: each such group
    of a piece is made as one record array, and stretches of rows of one group are then
    laid one after another, in the order of the frame.

    Parameters
    ----------
    kinds : sequence of (column, kind)
        In the order of the table's columns; a kind is ``int2``, ``int4``, ``int8``,
        ``float8`` (NaN is NULL), ``bool``, ``timestamptz`` or ``text`` (also for
        enums; None is NULL).
    rows_at_once : int
        Of a piece.
    """

    def __init__(
        self, frame: pd.DataFrame, kinds: Sequence[tuple[str, str]], rows_at_once: int = 4096
    ) -> None:
        self._pieces = _pieces(frame, kinds, rows_at_once)
        self._thread = ThreadPoolExecutor(1)
        self._coming = self._thread.submit(self._next)

    def read(self, size: int = -1) -> bytes:
        """The next piece, whatever its size; nothing at the end."""
        piece = self._coming.result()
        if piece:
            self._coming = self._thread.submit(self._next)
        else:
            self._thread.shutdown()
        return piece

    def _next(self) -> bytes:
        return next(self._pieces, b"")


def _pieces(
    frame: pd.DataFrame, kinds: Sequence[tuple[str, str]], rows_at_once: int
) -> Iterator[bytes]:
    yield _SIGNATURE
    for begin in range(0, len(frame), rows_at_once):
        yield b"".join(_rows(frame.iloc[begin : begin + rows_at_once], kinds))
    yield b"\xff\xff"


def _rows(frame: pd.DataFrame, kinds: Sequence[tuple[str, str]]) -> Iterator[memoryview]:
    columns = [_column(frame[name], kind) for name, kind in kinds]
    group = _groups(columns, len(frame))
    order = np.argsort(group, kind="stable")
    bounds = [*np.flatnonzero(np.diff(group[order], prepend=-1)).tolist(), len(order)]
    groups = [memoryview(_records(columns, order[begin:end])) for begin, end in pairwise(bounds)]
    return _interleaved(groups, group)


def _groups(columns: Sequence["_Column"], rows: int) -> npt.NDArray[np.int64]:
    """Number each row by the widths of its columns."""
    group = np.zeros(rows, dtype=np.int64)
    for column in columns:
        if (column.widths != column.widths[:1]).any():
            codes, distinct = pd.factorize(column.widths)
            group, _ = pd.factorize(group * len(distinct) + codes)
    return group


def _interleaved(
    groups: Sequence[memoryview], group: npt.NDArray[np.int64]
) -> Iterator[memoryview]:
    """Pieces of the groups' bytes such that rows come in their own order."""
    if len(groups) == 1:
        yield groups[0]
        return
    widths = [len(rows) // count for rows, count in zip(groups, np.bincount(group), strict=True)]
    taken = [0] * len(groups)
    begins = np.flatnonzero(np.diff(group, prepend=-1))
    lengths = np.diff(begins, append=len(group))
    for number, length in zip(group[begins].tolist(), lengths.tolist(), strict=True):
        begin = taken[number]
        taken[number] = begin + length * widths[number]
        yield groups[number][begin : taken[number]]


class _Column:
    """A column's values as they go into a record, and how many bytes each takes (-1: NULL)."""

    def __init__(self, values: npt.NDArray[np.generic], widths: npt.NDArray[np.int64]) -> None:
        self.values = values
        self.widths = widths


_FIXED = {
    "int2": ">i2",
    "int4": ">i4",
    "int8": ">i8",
    "float8": ">f8",
    "bool": "?",
    "timestamptz": ">i8",
}


def _column(values: pd.Series, kind: str) -> _Column:
    if kind == "text":
        return _text(values)
    if kind == "timestamptz":
        numbers = values.to_numpy(dtype="datetime64[us]").astype(np.int64) - _UNIX_TO_PG
    else:
        numbers = values.to_numpy()
    ready = numbers.astype(_FIXED[kind])
    widths = np.full(len(ready), ready.dtype.itemsize, dtype=np.int64)
    if kind == "float8":
        widths[np.isnan(ready)] = -1
    return _Column(ready, widths)


def _text(values: pd.Series) -> _Column:
    codes, distinct = pd.factorize(values if _is_categorical(values) else values.astype(object))
    encoded = [str(value).encode() for value in distinct]
    lengths = np.array([*map(len, encoded), -1], dtype=np.int64)
    longest = max([1, *map(len, encoded)])
    return _Column(np.array([*encoded, b""], dtype=f"S{longest}")[codes], lengths[codes])


def _is_categorical(values: pd.Series) -> bool:
    return isinstance(values.dtype, pd.CategoricalDtype)


def _records(columns: Sequence[_Column], rows: npt.NDArray[np.int64]) -> bytes:
    layout: list[tuple[str, str]] = [("fields", ">i2")]
    for number, column in enumerate(columns):
        layout.append((f"{number}.length", ">i4"))
        width = int(column.widths[rows[0]])
        if width > 0:
            kind = column.values.dtype
            layout.append((f"{number}", f"S{width}" if kind.kind == "S" else kind.str))
    records = np.zeros(len(rows), dtype=np.dtype(layout))
    records["fields"] = len(columns)
    for number, column in enumerate(columns):
        records[f"{number}.length"] = column.widths[rows[0]]
        if f"{number}" in (records.dtype.names or ()):
            records[f"{number}"] = column.values[rows]
    return records.tobytes()
