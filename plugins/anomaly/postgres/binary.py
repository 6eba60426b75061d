"""Postgres's binary COPY format as numpy records, without a loop over rows."""

import numpy as np
import numpy.typing as npt

from anomaly.errors import SourceError

_HEADER = 19  # signature, flags, length of the header's extension
_TRAILER = 2  # a field count of -1
_EPOCH = np.datetime64("2000-01-01", "us")
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
