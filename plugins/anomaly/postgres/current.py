"""The verdicts that are there, and how an attempt's differ from them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from psycopg2.sql import SQL, Literal

from anomaly.postgres import binary
from anomaly.postgres.database import Transaction, int_array, sql_file
from anomaly.schema import QUALITY_NAMES
from anomaly.steps import microseconds
from anomaly.windows import Window

Bools = npt.NDArray[np.bool_]
Current = dict[str, npt.NDArray[np.generic]]
"""Columns of current verdicts; ``quality`` is `anomaly.schema.Quality`, ``reason`` a hash."""
Ints = npt.NDArray[np.int64]

_FIELDS = [
    ("machine_id", ">i4"), ("utc_timestamp", ">i8"), ("reading", ">f8"), ("power_kw", ">f8"),
    ("power_diff", ">f8"), ("anomaly_score", ">f8"), ("threshold", ">f8"), ("expected_kw", ">f8"),
    ("anomaly", ">i2"), ("model_version", ">i4"), ("quality", ">i4"), ("reason", ">i8"),
]  # fmt: skip
_MACHINES_AT_ONCE = 20_000  # COPY's output takes twice the memory of what is kept of it
_COMPARED = [name for name, _ in _FIELDS[2:-2]]


@dataclass(frozen=True)
class Differences:
    """How an attempt's verdicts differ from the current ones of the same machines and window.

    Attributes
    ----------
    new, changed, reading_changed : array of bool
        Of the attempt's verdicts: without a current one; with another one; with one
        on another reading.
    gone : DataFrame
        ``machine_id`` and ``utc_timestamp`` of current verdicts that the attempt has not.
    current : int
        How many current verdicts there are.
    """

    new: Bools
    changed: Bools
    reading_changed: Bools
    gone: pd.DataFrame
    current: int


def read_current(
    transaction: Transaction, window: Window, machines: Sequence[int] | None = None
) -> Current:
    """Read the current verdicts of `machines` (default: all) in `window`.

    They stay so under the publishing lock, and before it as long as the ledger shows no
    publication of the window since.
    """
    count = transaction.value("count_machines") if machines is None else len(machines)
    parts = 1 + count // _MACHINES_AT_ONCE
    read = [_read(transaction, window, machines, parts, part) for part in range(parts)]
    return {name: np.concatenate([part.pop(name) for part in read]) for name, _ in _FIELDS}


def _read(
    transaction: Transaction,
    window: Window,
    machines: Sequence[int] | None,
    parts: int,
    part: int,
) -> Current:
    every = SQL("SELECT machine_id FROM anomaly.machines")
    some = SQL("SELECT unnest({}::integer[]) AS machine_id")
    statement = SQL(sql_file("queries/current_results.sql")).format(
        machines=every if machines is None else some.format(Literal(int_array(machines))),
        parts=Literal(parts),
        part=Literal(part),
        start=Literal(window.start),
        end=Literal(window.end),
    )
    records = binary.decode(transaction.copy_out(statement), _FIELDS)
    columns = {name: binary.native(records[name]) for name, _ in _FIELDS}
    return columns | {"utc_timestamp": binary.moments(records["utc_timestamp"])}


def judged_readings(
    transaction: Transaction, window: Window, machines: Sequence[int] | None = None
) -> pd.DataFrame:
    """Readings that the verdicts in `window` are on, of `machines` (default: all).

    Returns
    -------
    DataFrame
        ``machine_id``, ``utc_timestamp``, ``ingested_at`` (int64, the lowest: not known) and
        ``reading``, as the meter table would hold them.
    """
    statement = SQL(sql_file("queries/judged_readings.sql")).format(
        machines=Literal(None if machines is None else int_array(machines)),
        start=Literal(window.start),
        end=Literal(window.end),
    )
    fields = [("machine_id", ">i4"), ("utc_timestamp", ">i8"), ("reading", ">f8")]
    records = binary.decode(transaction.copy_out(statement), fields)
    stamps = pd.Series(binary.moments(records["utc_timestamp"])).dt.tz_localize("UTC")
    return pd.DataFrame(
        {
            "utc_timestamp": stamps,
            "ingested_at": np.iinfo(np.int64).min,
            "machine_id": binary.native(records["machine_id"]),
            "reading": binary.native(records["reading"]),
        }
    )


def compare_current(verdicts: pd.DataFrame, current: Current) -> Differences:
    """Compare an attempt's verdicts with the current ones of the same machines and window."""
    place = _places(verdicts, current)
    found = place >= 0
    changed, reading_changed = np.zeros(len(verdicts), bool), np.zeros(len(verdicts), bool)
    changed[found] = _differ(verdicts, found, current, place[found])
    theirs = current["reading"][place[found]]
    reading_changed[found] = verdicts["reading"].to_numpy()[found] != theirs
    left = np.ones(len(current["reading"]), bool)
    left[place[found]] = False
    return Differences(~found, changed, reading_changed, _keys(current, left), len(left))


def _keys(current: Current, chosen: Bools) -> pd.DataFrame:
    stamps = pd.Series(current["utc_timestamp"][chosen]).dt.tz_localize("UTC")
    return pd.DataFrame({"machine_id": current["machine_id"][chosen], "utc_timestamp": stamps})


def _places(verdicts: pd.DataFrame, current: Current) -> Ints:
    """Row of the current verdict of each of the attempt's, -1 where there is none."""
    if not len(current["reading"]) or verdicts.empty:
        return np.full(len(verdicts), -1, np.int64)
    stamps = current["utc_timestamp"].astype(np.int64)
    ticks = np.unique(stamps)
    asked = microseconds(verdicts["utc_timestamp"])
    tick = np.minimum(np.searchsorted(ticks, asked), len(ticks) - 1)
    theirs = current["machine_id"].astype(np.int64) * len(ticks)
    theirs += np.searchsorted(ticks, stamps)
    order = np.argsort(theirs)
    keys = verdicts["machine_id"].to_numpy(np.int64) * len(ticks) + tick
    place = np.minimum(np.searchsorted(theirs, keys, sorter=order), len(theirs) - 1)
    found = (theirs[order[place]] == keys) & (ticks[tick] == asked)
    return np.where(found, order[place], -1)


def _differ(verdicts: pd.DataFrame, found: Bools, current: Current, place: Ints) -> Bools:
    """Compare column by column: a copy of both tables would be the largest thing in memory."""
    differ = np.zeros(len(place), bool)
    for name in _COMPARED:
        one, other = verdicts[name].to_numpy()[found], current[name][place]
        differ |= (one != other) & ~((one != one) & (other != other))
    codes, distinct = pd.factorize(verdicts["quality"])
    quality = np.array([QUALITY_NAMES.index(name) for name in distinct], np.int64)
    differ |= quality[codes[found]] != current["quality"][place]
    hashes = _reason_hashes(verdicts["reason"])[found]
    differ |= hashes != current["reason"][place]
    return differ


def _reason_hashes(reasons: pd.Series) -> Ints:
    """The first half of each reason's md5 as a number, zero where there is none."""
    codes, distinct = pd.factorize(reasons.astype(object))
    digests = [hashlib.md5(str(text).encode(), usedforsecurity=False).digest() for text in distinct]
    table = np.frombuffer(b"".join([*digests, bytes(16)]), ">i8")[::2]
    hashes: Ints = table[codes].astype(np.int64)
    return hashes
