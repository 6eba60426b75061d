"""The verdicts that are there, and how an attempt's differ from them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from psycopg2.sql import SQL, Literal

from anomaly.postgres import binary
from anomaly.postgres.database import Transaction, sql_file
from anomaly.schema import QUALITY_NAMES
from anomaly.steps import microseconds
from anomaly.windows import Window

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_FIELDS = [
    ("machine_id", ">i4"), ("utc_timestamp", ">i8"), ("reading", ">f8"), ("power_kw", ">f8"),
    ("power_diff", ">f8"), ("anomaly_score", ">f8"), ("threshold", ">f8"), ("expected_kw", ">f8"),
    ("anomaly", ">i2"), ("model_version", ">i4"), ("quality", ">i4"), ("reason", "(2,)>i8"),
]  # fmt: skip
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


def compare_current(
    transaction: Transaction, verdicts: pd.DataFrame, window: Window, machines: Sequence[int]
) -> Differences:
    """Read the verdicts of `machines` in `window`, and compare an attempt's with them.

    Call it under the publishing lock: what it sees then stays so.
    """
    current = _read(transaction, window, machines)
    place = _places(verdicts, current)
    found = place >= 0
    changed, reading_changed = np.zeros(len(verdicts), bool), np.zeros(len(verdicts), bool)
    changed[found] = _differ(verdicts, found, current, place[found])
    theirs = binary.native(current["reading"][place[found]])
    reading_changed[found] = verdicts["reading"].to_numpy()[found] != theirs
    left = np.ones(len(current), bool)
    left[place[found]] = False
    return Differences(~found, changed, reading_changed, _keys(current[left]), len(current))


def _read(
    transaction: Transaction, window: Window, machines: Sequence[int]
) -> npt.NDArray[np.void]:
    statement = SQL(sql_file("queries/current_results.sql")).format(
        machines=Literal(list(machines)), start=Literal(window.start), end=Literal(window.end)
    )
    return binary.decode(transaction.copy_out(statement), _FIELDS)


def _keys(records: npt.NDArray[np.void]) -> pd.DataFrame:
    stamps = pd.Series(binary.moments(records["utc_timestamp"])).dt.tz_localize("UTC")
    return pd.DataFrame({"machine_id": binary.native(records["machine_id"])}).assign(
        utc_timestamp=stamps
    )


def _places(verdicts: pd.DataFrame, current: npt.NDArray[np.void]) -> Ints:
    """Row of the current verdict of each of the attempt's, -1 where there is none."""
    if not len(current) or verdicts.empty:
        return np.full(len(verdicts), -1, np.int64)
    stamps = binary.moments(current["utc_timestamp"]).astype(np.int64)
    ticks = np.unique(stamps)
    asked = microseconds(verdicts["utc_timestamp"])
    tick = np.minimum(np.searchsorted(ticks, asked), len(ticks) - 1)
    theirs = binary.native(current["machine_id"]).astype(np.int64) * len(ticks)
    theirs += np.searchsorted(ticks, stamps)
    order = np.argsort(theirs)
    keys = verdicts["machine_id"].to_numpy(np.int64) * len(ticks) + tick
    place = np.minimum(np.searchsorted(theirs, keys, sorter=order), len(theirs) - 1)
    found = (theirs[order[place]] == keys) & (ticks[tick] == asked)
    return np.where(found, order[place], -1)


def _differ(
    verdicts: pd.DataFrame, found: Bools, current: npt.NDArray[np.void], place: Ints
) -> Bools:
    """Compare column by column: a copy of both tables would be the largest thing in memory."""
    differ = np.zeros(len(place), bool)
    for name in _COMPARED:
        one, other = verdicts[name].to_numpy()[found], binary.native(current[name][place])
        differ |= (one != other) & ~((one != one) & (other != other))
    codes, distinct = pd.factorize(verdicts["quality"])
    quality = np.array([QUALITY_NAMES.index(name) for name in distinct], np.int64)
    differ |= quality[codes[found]] != current["quality"][place]
    hashes = _reason_hashes(verdicts["reason"])[found]
    differ |= (hashes != current["reason"][place]).any(axis=1)
    return differ


def _reason_hashes(reasons: pd.Series) -> Ints:
    """The md5 of each reason as two numbers, zero where there is none."""
    codes, distinct = pd.factorize(reasons.astype(object))
    digests = [hashlib.md5(str(text).encode(), usedforsecurity=False).digest() for text in distinct]
    table = np.frombuffer(b"".join([*digests, bytes(16)]), ">i8").reshape(-1, 2)
    hashes: Ints = table[codes].astype(np.int64)
    return hashes
