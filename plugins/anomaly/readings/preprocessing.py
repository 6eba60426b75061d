"""The first seven of the eight preprocessing steps, as functions of a table.

`anomaly.readings.transformers` offers the same steps as scikit-learn transformers. Scoring calls
the functions here, because importing scikit-learn takes longer than scoring a tick.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import Floats, Ints
from anomaly.errors import SourceError
from anomaly.readings.local_clocks import usual_utc
from anomaly.readings.record import OTHER_METERS
from anomaly.settings import MeterSettings, MeterTableSettings, TimestampLabel

UNUSED = ("cet_cest_timestamp", *OTHER_METERS)
"""Columns of the prototype's record that no verdict needs."""

ID_COLUMNS = ("utc_timestamp", "ingested_at")

MOST_READING = 1e12
"""Highest reading that a meter can have, in kWh of a counter, else in W. Chosen.

A higher reading is garbage: it is marked impossible, and no other reading is compared with it.
"""
_LARGEST = float(np.finfo(np.float64).max)


class ReadingSteps:
    """The seven steps, with the settings of the meter table and the meters."""

    def __init__(self, meter_table: MeterTableSettings, meter: MeterSettings) -> None:
        self._meter_table = meter_table
        self._meter = meter
        self._unused = unused_columns(meter_table)

    def parse(self, records: pd.DataFrame) -> pd.DataFrame:
        """Steps one and two: drop the columns that no verdict needs, turn timestamps into UTC."""
        return parse_timestamps(
            drop_columns(records, self._unused),
            self._meter.source_timezone or None,
            self._meter.timestamp_label,
            self._meter.interval_minutes,
        )

    def melt(self, wide: pd.DataFrame) -> pd.DataFrame:
        """Step three: one row per timestamp and machine column."""
        return melt_machines(wide)

    def drop_missing(self, long: pd.DataFrame) -> pd.DataFrame:
        """Step four: drop readings that are not finite."""
        return drop_missing(long)

    def machine_ids(self, long: pd.DataFrame) -> pd.DataFrame:
        """Step five: replace column names by machine ids."""
        return extract_machine_ids(long, self._meter_table.source_machines)

    def sort(self, long: pd.DataFrame) -> pd.DataFrame:
        """Step six: sort by machine and time, one row per machine and time."""
        return sort_by_machine_and_time(long)

    def power_diff(self, readings: pd.DataFrame) -> pd.DataFrame:
        """Step seven: change per hour since the machine's previous reading."""
        meter = self._meter
        return add_power_diff(
            readings, meter.interval_minutes, meter.max_gap_days, meter.change_scale
        )


def unused_columns(meter_table: MeterTableSettings) -> list[str]:
    """Columns that the first step drops; columns that the settings map to machines stay."""
    return [name for name in UNUSED if name not in meter_table.source_machines]


def drop_columns(records: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Step one, see `anomaly.readings.transformers.ColumnDropper`."""
    return records.drop(columns=list(columns), errors="ignore")


def parse_timestamps(
    records: pd.DataFrame, zone: str | None, label: str, interval_minutes: int
) -> pd.DataFrame:
    """Step two, see `anomaly.readings.transformers.TimestampParser`."""
    stamps = _to_utc(_parsed_times(records["utc_timestamp"]), zone).astype("datetime64[us, UTC]")
    if label == TimestampLabel.END:
        stamps = stamps - timedelta(minutes=interval_minutes)
    return records.assign(utc_timestamp=stamps)


def melt_machines(wide: pd.DataFrame) -> pd.DataFrame:
    """Step three, see `anomaly.readings.transformers.MachineMelter`."""
    ids = [name for name in ID_COLUMNS if name in wide]
    # Not `DataFrame.melt`: it refuses a meter column with the name "reading".
    meters = [name for name in wide if name not in ids]
    repeated = pd.concat([wide[ids]] * len(meters), ignore_index=True) if meters else wide[ids][:0]
    readings = [wide[name].to_numpy(dtype=float) for name in meters] or [np.empty(0)]
    return repeated.assign(
        machine=np.repeat(np.asarray(meters, dtype=object), len(wide)),
        reading=np.concatenate(readings),
    )


def drop_missing(long: pd.DataFrame) -> pd.DataFrame:
    """Step four, see `anomaly.readings.transformers.MissingDropper`."""
    finite = np.isfinite(long["reading"].to_numpy(dtype=float))
    return long if finite.all() else long[finite]


def extract_machine_ids(long: pd.DataFrame, machines: Mapping[str, int] | None) -> pd.DataFrame:
    """Step five, see `anomaly.readings.transformers.MachineIdExtractor`."""
    names, codes = np.unique(long["machine"].to_numpy(dtype=str), return_inverse=True)
    ids = np.array([machine_number(str(name), machines) for name in names], dtype=np.int64)
    return long.drop(columns="machine").assign(machine_id=ids[codes] if len(ids) else codes)


def machine_number(column: str, machines: Mapping[str, int] | None) -> int:
    """Id of the machine that a column meters.

    Raises
    ------
    SourceError
        For a column that is neither in `machines` nor ``machine_<n>``.
    """
    if machines and column in machines:
        return machines[column]
    if not (match := re.fullmatch(r"machine_(\d+)", column)):
        raise SourceError(
            f"column {column!r} is not a machine: name it machine_<n>, drop it,"
            " or map it in ANOMALY_SOURCE_MACHINES"
        )
    return int(match[1])


def sort_by_machine_and_time(long: pd.DataFrame) -> pd.DataFrame:
    """Step six, see `anomaly.readings.transformers.MachineTimeSorter`."""
    machines, ticks = long["machine_id"].to_numpy(), microseconds(long["utc_timestamp"])
    order = _row_order(machines, ticks)
    same = _repeats_row_before(machines[order], ticks[order])
    # Rows with the same key are sorted so that the one to keep comes last (see below).
    if same.any():
        ties = [name for name in ("ingested_at", "reading") if name in long]
        keys = long[["machine_id", "utc_timestamp", *ties]].reset_index(drop=True)
        order = keys.sort_values([*keys], kind="stable").index.to_numpy()
    ordered = long.take(order).reset_index(drop=True).assign(duplicate=same)
    return ordered[~np.append(same[1:], False)].reset_index(drop=True) if same.any() else ordered


def _row_order(machines: npt.NDArray[np.generic], ticks: Ints) -> Ints:
    """Order of the rows by machine and time."""
    distinct, codes = np.unique(machines, return_inverse=True)
    first, last = (int(ticks.min()), int(ticks.max())) if len(ticks) else (0, 0)
    span = last - first + 1
    # Machine and time usually fit into one 64-bit number: one sort instead of two.
    if len(distinct) * span > np.iinfo(np.int64).max:
        return np.lexsort([ticks, machines])
    return np.argsort(codes * span + (ticks - first), kind="stable")


def _repeats_row_before(machines: npt.NDArray[np.generic], ticks: Ints) -> npt.NDArray[np.bool_]:
    """Which sorted rows have the same machine and time as the row before."""
    same = np.zeros(len(ticks), dtype=bool)
    same[1:] = (machines[1:] == machines[:-1]) & (ticks[1:] == ticks[:-1])
    return same


def scaled(values: Floats, scale: Fraction) -> Floats:
    """Values in another unit: correctly rounded by one product and one quotient, never infinite."""
    if scale == 1:
        return values
    with np.errstate(over="ignore"):
        found: Floats = values * scale.numerator / scale.denominator
    return np.clip(found, -_LARGEST, _LARGEST)  # of garbage; NaN stays NaN


def in_kwh(reading: Floats, meter: MeterSettings) -> Floats:
    """Readings of a counter in kWh."""
    return scaled(reading, meter.scale)


def is_sane(reading: Floats, scale: Fraction) -> npt.NDArray[np.bool_]:
    """Whether a meter can have each reading (`MOST_READING`).

    Parameters
    ----------
    scale : Fraction
        One unit of the readings, in kWh of a counter, else in W.
    """
    sane: npt.NDArray[np.bool_] = np.abs(scaled(reading, scale)) <= MOST_READING
    return sane


def add_power_diff(
    readings: pd.DataFrame,
    interval_minutes: int,
    max_gap_days: float,
    scale: Fraction = Fraction(1),
) -> pd.DataFrame:
    """Step seven, see `anomaly.readings.transformers.PowerDiff`."""
    elapsed, change, rate = power_diff(
        readings["machine_id"].to_numpy(),
        microseconds(readings["utc_timestamp"]),
        readings["reading"].to_numpy(dtype=float),
        interval_minutes,
        max_gap_days,
        scale,
    )
    return readings.assign(elapsed_hours=elapsed, change=change, power_diff=rate)


def power_diff(
    machine: npt.NDArray[np.generic],
    ticks: Ints,
    reading: Floats,
    interval_minutes: int,
    max_gap_days: float,
    scale: Fraction = Fraction(1),
) -> tuple[Floats, Floats, Floats]:
    """Elapsed hours, change and change per hour since the machine's previous reading.

    Parameters
    ----------
    machine, ticks, reading : array
        Sorted by machine and time; ticks are microseconds since the Unix epoch. The previous
        reading is the one that `previous_rows` finds.
    scale : Fraction
        One unit of the readings, in kWh of a counter, else in W.

    Returns
    -------
    elapsed_hours, change : array
        NaN where there is no previous reading within `max_gap_days`. Changes are in kWh or W.
    power_diff : array
        0 where there is no previous reading within `max_gap_days`.
    """
    before = previous_rows(machine, ticks, reading, interval_minutes, scale)
    hours = (ticks - ticks[before]) / 3_600_000_000
    none = (before < 0) | (hours > max_gap_days * 24)
    elapsed: Floats = np.where(none, np.nan, hours)
    with np.errstate(over="ignore"):
        change: Floats = np.where(none, np.nan, scaled(reading - reading[before], scale))
        rate = np.where(none, 0.0, change / np.where(none, 1.0, hours))
    return elapsed, change, rate


def previous_rows(
    machine: npt.NDArray[np.generic],
    ticks: Ints,
    reading: Floats,
    interval_minutes: int,
    scale: Fraction = Fraction(1),
) -> Ints:
    """Row of the reading that each reading is compared with; -1 where there is none.

    This is the reading right before. If that reading is too close (`too_close`) or garbage
    (`MOST_READING`), it is the latest reading that is neither.

    Parameters
    ----------
    machine, ticks, reading : array
        Sorted by machine and time; ticks are microseconds since the Unix epoch.
    """
    rows = np.arange(len(ticks))
    if not len(rows):
        return rows
    lane = np.cumsum(np.diff(machine, prepend=machine[0]) != 0)
    before = np.where(np.diff(lane, prepend=-1) != 0, -1, rows - 1)
    least = too_close(interval_minutes)
    sane = is_sane(reading, scale)
    odd = np.flatnonzero((before >= 0) & ((ticks - ticks[before] < least) | ~sane[before]))
    if len(odd):
        # The keys of two machines differ by more than `least`, so that a search for
        # `key - least` never finds a reading that is close in another machine's time.
        kept = np.flatnonzero(sane)
        width = int(np.ptp(ticks)) + least + 1
        keys = lane * width + (ticks - ticks.min())
        place = np.searchsorted(keys[kept], keys[odd] - least, side="right") - 1
        found = np.append(kept, -1)[place]
        before[odd] = np.where((found >= 0) & (lane[found] == lane[odd]), found, -1)
    return before


def too_close(interval_minutes: int) -> int:
    """Microseconds within which a second reading says nothing new: a fifteenth of the interval.

    A gateway sends a reading again within seconds. A meter that reports once per minute in a
    15-minute interval must still count.
    """
    return interval_minutes * 4_000_000  # 60_000_000 microseconds per minute / 15


def microseconds(stamps: pd.Series) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Timestamps as microseconds since the Unix epoch."""
    return stamps.to_numpy(dtype="datetime64[us]").astype(np.int64)


def _parsed_times(stamps: pd.Series) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(stamps):
        return stamps
    try:
        return pd.to_datetime(stamps, format="ISO8601")
    except ValueError:
        # pandas refuses mixed offsets (a local clock before and after it is set) without UTC.
        pass
    try:
        return pd.to_datetime(stamps, format="ISO8601", utc=True)
    except ValueError as error:
        raise SourceError(
            f"utc_timestamp cannot be read ({str(error).splitlines()[0]}):"
            " write ISO 8601, for example 2017-03-07 04:45:00+00:00"
        ) from None


def _to_utc(stamps: pd.Series, zone: str | None) -> pd.Series:
    if stamps.dt.tz is not None:
        aware: pd.Series = stamps.dt.tz_convert("UTC")
        return aware
    if zone is None:
        raise SourceError(
            f"utc_timestamp {stamps.iloc[0]} has no time zone:"
            " set ANOMALY_SOURCE_TIMEZONE to the zone it is written in"
        )
    utc = usual_utc(stamps.to_numpy(dtype="datetime64[us]"), ZoneInfo(zone))
    converted: pd.Series = pd.Series(utc, index=stamps.index).dt.tz_localize("UTC")
    return converted
