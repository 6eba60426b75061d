"""Compare the verdicts of an attempt with those that are there: new, changed, gone."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from anomaly.arrays import Bools, Ints
from anomaly.database.results import COLUMNS, Column, CurrentVerdicts
from anomaly.readings.preprocessing import microseconds
from anomaly.readings.quality import QUALITY_NAMES


@dataclass(frozen=True)
class VerdictChanges:
    """How an attempt's verdicts differ from the current ones of the same machines and window.

    Attributes
    ----------
    new, changed, reading_changed : array of bool
        Of the attempt's verdicts: those without a current one; those with another one; those
        with one on another reading.
    flipped : array of bool
        Those that say anomaly where the current one says normal, or the other way round.
    gone : DataFrame
        ``machine_id`` and ``utc_timestamp`` of current verdicts that the attempt does not have.
    current : int
        How many current verdicts there are.
    """

    new: Bools
    changed: Bools
    reading_changed: Bools
    flipped: Bools
    gone: pd.DataFrame
    current: int


def compare_verdicts(verdicts: pd.DataFrame, current: CurrentVerdicts) -> VerdictChanges:
    """Compare an attempt's verdicts with the current ones of the same machines and window."""
    place = _places(verdicts, current)
    found = place >= 0
    changed, reading_changed, flipped = (np.zeros(len(verdicts), bool) for _ in range(3))
    changed[found] = _differ(verdicts, found, current, place[found])
    theirs = current["reading"][place[found]]
    reading_changed[found] = verdicts["reading"].to_numpy()[found] != theirs
    flipped[found] = verdicts["anomaly"].to_numpy()[found] != current["anomaly"][place[found]]
    left = np.ones(len(current["reading"]), bool)
    left[place[found]] = False
    return VerdictChanges(
        ~found, changed, reading_changed, flipped, _keys(current, left), len(left)
    )


def _keys(current: CurrentVerdicts, chosen: Bools) -> pd.DataFrame:
    stamps = pd.DatetimeIndex(current["utc_timestamp"][chosen], tz="UTC")
    return pd.DataFrame({"machine_id": current["machine_id"][chosen], "utc_timestamp": stamps})


def _places(verdicts: pd.DataFrame, current: CurrentVerdicts) -> Ints:
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


def _differ(verdicts: pd.DataFrame, found: Bools, current: CurrentVerdicts, place: Ints) -> Bools:
    """Compare column by column: a copy of both tables would be the largest thing in memory."""
    differ = np.zeros(len(place), bool)
    for column in COLUMNS:
        if column.is_verdict:
            mine = _as_number(verdicts[column.name], column)[found]
            theirs = current[column.name][place]
            differ |= (mine != theirs) & ~((mine != mine) & (theirs != theirs))  # NaN is NaN
    return differ


def _as_number(values: pd.Series, column: Column) -> np.ndarray:
    """A column as `anomaly.database.results.read_current` gives it."""
    if column.name == "quality":
        return _quality_numbers(values)
    return _hashes(values) if column.kind == "text" else values.to_numpy()


def _quality_numbers(qualities: pd.Series) -> Ints:
    codes, distinct = pd.factorize(qualities)
    numbers = np.array([QUALITY_NAMES.index(name) for name in distinct], np.int64)
    return numbers[codes]


def _hashes(texts: pd.Series) -> Ints:
    """The first half of each text's md5 as a number, 0 where there is none."""
    codes, distinct = pd.factorize(texts.astype(object))
    digests = [hashlib.md5(str(text).encode(), usedforsecurity=False).digest() for text in distinct]
    table = np.frombuffer(b"".join([*digests, bytes(16)]), ">i8")[::2]
    hashes: Ints = table[codes].astype(np.int64)
    return hashes
