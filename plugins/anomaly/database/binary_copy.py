"""Read and write Postgres's binary COPY format with numpy, without a loop over rows."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.errors import SourceError

# Bytes of the format, see `decode`.
_HEADER = 19  # signature, flags, length of the header's extension
_TRAILER = 2  # -1 as an int2, where a row has its count of fields
_EPOCH = np.datetime64("2000-01-01", "us")
_UNIX_TO_PG = int((_EPOCH - np.datetime64(0, "us")).astype(np.int64))
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
# Postgres writes the timestamps -infinity and infinity as these numbers.
_INFINITIES = (np.iinfo(np.int64).min, np.iinfo(np.int64).max)


def decode(data: memoryview, fields: Sequence[tuple[str, str]]) -> npt.NDArray[np.void]:
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


def native_byte_order(column: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Copy a big-endian column into the machine's own byte order."""
    return column.astype(column.dtype.newbyteorder("="))


def as_timestamps(column: npt.NDArray[np.generic]) -> npt.NDArray[np.datetime64]:
    """Turn timestamps into ``datetime64[us]``; an infinite one becomes NaT."""
    ticks = native_byte_order(column).astype(np.int64)
    stamps = _EPOCH + ticks.view("timedelta64[us]")
    infinite = np.isin(ticks, _INFINITIES)
    stamps[infinite] = np.datetime64("NaT")
    return stamps


class CopyInput:
    """A frame as input of COPY, without a loop over rows.

    A thread encodes the next piece while the server takes in the piece before. Rows that are
    NULL in the same columns and have texts of the same lengths have the same width. Each such
    group of rows is encoded as one record array. Then the rows of the groups are put back into
    the order of the frame.

    Parameters
    ----------
    kinds : sequence of (column, kind)
        In the order of the table's columns. A kind is ``int2``, ``int4``, ``int8``,
        ``float8`` (NaN is NULL), ``bool``, ``timestamptz`` or ``text`` (also for
        enums; None is NULL).
    rows_at_once : int
        Rows per piece.
    """

    def __init__(
        self, frame: pd.DataFrame, kinds: Sequence[tuple[str, str]], rows_at_once: int = 4096
    ) -> None:
        self._encoded_pieces = _encoded_pieces(frame, kinds, rows_at_once)
        self._thread = ThreadPoolExecutor(1)
        self._coming = self._thread.submit(self._next_piece)

    def read(self, size: int = -1) -> bytes:
        """The next piece, whatever `size` is; nothing at the end."""
        piece = self._coming.result()
        if piece:
            self._coming = self._thread.submit(self._next_piece)
        else:
            self._thread.shutdown()
        return piece

    def _next_piece(self) -> bytes:
        return next(self._encoded_pieces, b"")


def _encoded_pieces(
    frame: pd.DataFrame, kinds: Sequence[tuple[str, str]], rows_at_once: int
) -> Iterator[bytes]:
    yield _SIGNATURE
    for begin in range(0, len(frame), rows_at_once):
        yield b"".join(_encoded_rows(frame.iloc[begin : begin + rows_at_once], kinds))
    yield b"\xff\xff"


def _encoded_rows(frame: pd.DataFrame, kinds: Sequence[tuple[str, str]]) -> Iterator[memoryview]:
    columns = [_encoded_column(frame[name], kind) for name, kind in kinds]
    group = _group_numbers(columns, len(frame))
    order = np.argsort(group, kind="stable")  # stable: rows of a group stay in the frame's order
    bounds = [*np.flatnonzero(np.diff(group[order], prepend=-1)).tolist(), len(order)]
    groups = [
        memoryview(_encoded_records(columns, order[begin:end])) for begin, end in pairwise(bounds)
    ]
    return _in_frame_order(groups, group)


def _group_numbers(columns: Sequence["_Column"], rows: int) -> npt.NDArray[np.int64]:
    """Number of each row's group: rows of one group have the same widths in all columns."""
    group = np.zeros(rows, dtype=np.int64)
    for column in columns:
        if (column.widths != column.widths[:1]).any():
            codes, distinct = pd.factorize(column.widths)
            group, _ = pd.factorize(group * len(distinct) + codes)
    return group


def _in_frame_order(
    groups: Sequence[memoryview], group: npt.NDArray[np.int64]
) -> Iterator[memoryview]:
    """Pieces of the groups' bytes, so that the rows come in the order of the frame."""
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
    """A column's encoded values, and the length of each in bytes (-1: NULL)."""

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


def _encoded_column(values: pd.Series, kind: str) -> _Column:
    if kind == "text":
        return _encoded_text(values)
    if kind == "timestamptz":
        numbers = values.to_numpy(dtype="datetime64[us]").astype(np.int64) - _UNIX_TO_PG
    else:
        numbers = values.to_numpy()
    ready = numbers.astype(_FIXED[kind])
    widths = np.full(len(ready), ready.dtype.itemsize, dtype=np.int64)
    if kind == "float8":
        widths[np.isnan(ready)] = -1
    return _Column(ready, widths)


def _encoded_text(values: pd.Series) -> _Column:
    # Each distinct text is encoded once. A missing text has the code -1, which finds the last
    # entry: an empty text with the length -1 (NULL).
    codes, distinct = pd.factorize(values if _is_categorical(values) else values.astype(object))
    encoded = [str(value).encode() for value in distinct]
    lengths = np.array([*map(len, encoded), -1], dtype=np.int64)
    longest = max([1, *map(len, encoded)])
    return _Column(np.array([*encoded, b""], dtype=f"S{longest}")[codes], lengths[codes])


def _is_categorical(values: pd.Series) -> bool:
    return isinstance(values.dtype, pd.CategoricalDtype)


def _encoded_records(columns: Sequence[_Column], rows: npt.NDArray[np.int64]) -> bytes:
    layout: list[tuple[str, str]] = [("fields", ">i2")]
    for number, column in enumerate(columns):
        layout.append((f"{number}.length", ">i4"))
        # All rows of a group have the same widths, so the first row's are right for all.
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
