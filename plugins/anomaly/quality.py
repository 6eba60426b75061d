"""Meter reality: power, flat runs, and what is to be known about each reading.

A counter that falls, freezes or jumps beyond what its machine can draw is a
fault of the meter, not of the machine. Everything here depends on a reading,
its predecessor and at most the `REACH` before it, never on where a window starts.
"""

from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.schema import QUALITY_NAMES, Quality
from anomaly.settings import ReadingKind, Settings
from anomaly.steps import microseconds

REACH = timedelta(hours=24)
"""How far back and forward a reading influences verdicts; a flat run is measured no longer."""

MOST_FLAT_HOURS = 12.0
"""On a machine that hardly ever stands still, flat for longer is stuck, whatever training saw:
a meter that froze then must not excuse it now."""

_ROLLOVER_SHARE = 0.01  # of the counter's range: a larger step over zero is a reset
_MICROSECONDS_PER_HOUR = 3_600_000_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Columns = dict[str, npt.NDArray[Any]]


def measure(readings: pd.DataFrame, machines: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Add what can be measured on a reading without a model.

    Parameters
    ----------
    readings : DataFrame
        Output of the seventh step: sorted by machine and time, with
        ``elapsed_hours``, ``change`` and ``power_diff``.
    machines : DataFrame
        ``machine_id``, ``max_power_kw`` and ``rolls_over_at`` (NaN: unknown).

    Returns
    -------
    DataFrame
        `readings` with ``power_kw`` (NaN for the first and after a reset),
        ``flat_hours`` (how long the reading has not changed, at most `REACH`),
        ``max_power_kw`` and ``quality`` (`Quality`, before a model has spoken).
    """
    place = pd.Index(machines["machine_id"]).get_indexer(pd.Index(readings["machine_id"]))
    columns: Columns = {
        "max_power_kw": _taken(machines["max_power_kw"], place),
        "flat_hours": _flat_hours(readings, REACH),
    }
    if settings.reading_kind is ReadingKind.ENERGY_KWH:
        columns |= _counters(readings, _taken(machines["rolls_over_at"], place), settings)
    else:
        columns |= _watts(readings)
    marks = _marks(readings, columns["power_kw"], columns["max_power_kw"], settings)
    columns["quality"] = _worst(columns["quality"], marks)
    return readings.assign(**columns)


def judge(measured: pd.DataFrame, profiles: pd.DataFrame, settings: Settings) -> Ints:
    """Quality of each reading in the light of what training saw of its machine.

    Parameters
    ----------
    profiles : DataFrame
        As `profile` made it, indexed by ``machine_id``.

    Returns
    -------
    array of int
        `Quality`; a machine that training did not see is ``LEARNING``.
    """
    place = profiles.index.get_indexer(pd.Index(measured["machine_id"]))
    learning = np.isnan(_taken(profiles["readings"], place))
    least = 2 * settings.interval_minutes / 60  # equal to the one before is not stuck yet
    limit = np.minimum(
        _taken(profiles["longest_flat_hours"], place) + max(settings.stuck_margin_hours, least),
        max(MOST_FLAT_HOURS, least),
    )
    rarely_flat = _taken(profiles["flat_share"], place) <= settings.stuck_flat_share
    stuck = rarely_flat & (measured["flat_hours"].to_numpy() > limit)
    return _worst(
        measured["quality"].to_numpy(),
        np.select([stuck, learning], [Quality.STUCK, Quality.LEARNING], Quality.OK),
    )


def profile(measured: pd.DataFrame) -> pd.DataFrame:
    """What training remembers of each machine, for `judge`.

    Returns
    -------
    DataFrame
        Indexed by ``machine_id``: ``readings`` (count), ``longest_flat_hours``
        and ``flat_share`` (share of readings equal to their predecessor).
    """
    flat = measured["change"].to_numpy() == 0
    hours = _flat_hours(measured, longest=None)
    groups = measured.assign(flat=flat, hours=hours).groupby("machine_id")
    return groups.agg(
        readings=("reading", "size"),
        longest_flat_hours=("hours", "max"),
        flat_share=("flat", "mean"),
    )


def explain_faults(measured: pd.DataFrame, quality: Ints) -> npt.NDArray[np.object_]:
    """Why a reading is a meter fault, in words; None for all others."""
    reasons = np.full(len(measured), None, dtype=object)
    for row in np.flatnonzero(quality >= Quality.STUCK):
        reading = measured.iloc[row]
        if quality[row] == Quality.STUCK:
            reasons[row] = f"meter stuck: no change for {reading['flat_hours']:.1f} h"
        elif quality[row] == Quality.RESET:
            reasons[row] = f"meter reset: the counter fell by {-reading['change']:.3f} kWh"
        else:
            power, most = reading["power_kw"], reading["max_power_kw"]
            reasons[row] = f"impossible: {power:.1f} kW, it draws {most:.1f} kW at most"
    return reasons


def names(quality: Ints) -> "pd.Categorical[Any]":
    """Qualities as the database spells them."""
    return pd.Categorical.from_codes(quality, dtype=pd.CategoricalDtype([*QUALITY_NAMES]))


def _taken(column: pd.Series, place: npt.NDArray[np.intp]) -> Floats:
    """Values at places of a column, NaN where a place is -1."""
    taken: Floats = np.append(column.to_numpy(float), np.nan)[place]
    return taken


def _counters(frame: pd.DataFrame, rolls_over_at: Floats, settings: Settings) -> Columns:
    change = frame["change"].to_numpy()
    beyond = change + rolls_over_at
    rolled = (change < 0) & (beyond >= 0) & (beyond <= _ROLLOVER_SHARE * rolls_over_at)
    reset = (change < 0) & ~rolled
    power_diff = frame["power_diff"].to_numpy().copy()
    interval = settings.interval_minutes / 60
    elapsed = frame["elapsed_hours"].to_numpy()
    hours = np.where(elapsed < interval / 3, interval, elapsed)
    power_diff[rolled] = beyond[rolled] / hours[rolled]
    power_diff[reset] = np.nan
    return {
        "power_diff": power_diff,
        "power_kw": np.where(np.isnan(change), np.nan, power_diff),
        "quality": np.select([reset, rolled], [Quality.RESET, Quality.ROLLOVER], Quality.OK),
    }


def _watts(frame: pd.DataFrame) -> Columns:
    power = np.where(np.isnan(frame["change"].to_numpy()), np.nan, frame["reading"] / 1000)
    return {"power_kw": power, "quality": np.full(len(frame), int(Quality.OK))}


def _marks(frame: pd.DataFrame, power_kw: Floats, max_power_kw: Floats, settings: Settings) -> Ints:
    elapsed = frame["elapsed_hours"].to_numpy()
    interval = settings.interval_minutes / 60
    return np.select(
        [
            power_kw > max_power_kw,
            np.isnan(elapsed),
            frame["duplicate"].to_numpy(),
            elapsed < interval / 3,
            elapsed > 1.5 * interval,
        ],
        [Quality.IMPOSSIBLE, Quality.FIRST, Quality.DUPLICATE, Quality.IRREGULAR, Quality.GAP],
        Quality.OK,
    )


def _worst(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> Ints:
    return np.maximum(one.astype(np.int64), other.astype(np.int64))


def _flat_hours(frame: pd.DataFrame, longest: timedelta | None) -> Floats:
    """Hours since the earliest reading of the unbroken run of equal ones, within `longest`."""
    if frame.empty:
        return np.empty(0)
    ticks = microseconds(frame["utc_timestamp"])
    begins = frame["change"].to_numpy() != 0  # NaN, the first of a machine, begins one too
    start = np.maximum.accumulate(np.where(begins, np.arange(len(frame)), 0))
    if longest is not None:
        start = np.maximum(start, earliest_within(frame["machine_id"].to_numpy(), ticks, longest))
    return (ticks - ticks[start]) / _MICROSECONDS_PER_HOUR


def earliest_within(machine: npt.NDArray[np.generic], ticks: Ints, longest: timedelta) -> Ints:
    """Row of the machine's earliest reading no more than `longest` before each row."""
    if not len(ticks):
        return np.empty(0, dtype=np.int64)
    span = int(longest / timedelta(microseconds=1))
    lane = np.cumsum(np.diff(machine, prepend=machine[0]) != 0)
    keys = lane * (int(np.ptp(ticks)) + span + 1) + (ticks - ticks.min())
    rows: Ints = np.searchsorted(keys, keys - span, side="left")
    return rows
