"""Measure readings: power, the time without change, and the quality that needs no model."""

from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import MICROSECONDS_PER_HOUR, Bools, Floats, Ints
from anomaly.readings.contradictions import REACH
from anomaly.readings.energy import counted_energy, drawn_energy
from anomaly.readings.preprocessing import in_kwh, is_sane, microseconds, scaled, too_close
from anomaly.readings.quality import Quality
from anomaly.readings.sorted_rows import flat_hours, places_in, values_at, worst_of
from anomaly.settings import SURE_RESTART, MeterSettings

Columns = dict[str, npt.NDArray[Any]]

# A table may hold readings in single precision (``real``). Such a number is exact to this share
# of its size (24 bits of mantissa), so a smaller fall is rounding.
_LEAST_FALL = 2.0**-23
# Sums in double precision (2**-52, about 2e-16) are off by less than this share of the reading.
_NOISE = 1e-12


def measure(readings: pd.DataFrame, machines: pd.DataFrame, meter: MeterSettings) -> pd.DataFrame:
    """Add the columns that can be computed from readings without a model.

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
        `readings` with ``power_kw`` (NaN for the first and after a reset or a restart),
        ``step_hours`` (since the machine's reading right before; NaN where there is none, or
        it is more than ``max_gap_days`` old), ``still`` (whether the reading is equal to that
        one), ``informative`` (False: it came so soon after that one that it says nothing new),
        ``flat_hours`` (how long the reading has not changed, at most `REACH`),
        ``energy_kwh`` and ``energy_hours`` (what the reading adds to the energy metered, and
        over how long, see `anomaly.readings.energy`), ``max_power_kw`` and ``quality``
        (`Quality`, before a model is asked).
    """
    place = places_in(pd.Index(machines["machine_id"]), readings)
    most_kw = values_at(machines["max_power_kw"], place)
    step = _step_hours(readings, meter)
    rolls_over_at = values_at(machines["rolls_over_at"], place)
    columns: Columns = {"max_power_kw": most_kw, "step_hours": step}
    columns["informative"] = _is_informative(readings, step, meter)
    columns["still"] = _is_unchanged(readings, step, meter)
    columns["flat_hours"] = flat_hours(readings, columns["still"], REACH)
    if meter.restarts_daily:
        columns |= _daily_counter_columns(readings, meter)
    elif meter.is_counter:
        columns |= _counter_columns(readings, rolls_over_at, most_kw, meter)
    else:
        columns |= _power_meter_columns(readings, meter)
    columns |= _energy_columns(readings, columns, rolls_over_at, meter)
    marks = _quality_at_first_sight(readings, columns, meter)
    columns["quality"] = worst_of(columns["quality"], marks)
    return readings.assign(**columns)


def _energy_columns(
    readings: pd.DataFrame, columns: Columns, rolls_over_at: Floats, meter: MeterSettings
) -> Columns:
    """``energy_kwh`` and ``energy_hours``, from the columns measured so far."""
    if meter.is_counter:
        restarts = np.zeros(len(readings), dtype=bool)
        if meter.restarts_daily:
            restarts = begins_count(readings, meter)
        reading = in_kwh(readings["reading"].to_numpy(float), meter)
        energy, hours = counted_energy(
            readings,
            rolls_over_at,
            columns["quality"],
            restarts,
            fall_tolerance(reading, meter),
            meter,
        )
    else:
        energy, hours = drawn_energy(
            columns["power_kw"], columns["step_hours"], columns["informative"], meter
        )
    return {"energy_kwh": energy, "energy_hours": hours}


def is_restart(measured: pd.DataFrame) -> Bools:
    """Whether each reading is the first of a new count, though the machine has earlier readings.

    Readings without a quality are none.
    """
    if "quality" not in measured:
        return np.zeros(len(measured), dtype=bool)
    first = measured["quality"].to_numpy() == Quality.FIRST
    restarts: Bools = first & np.isfinite(measured["elapsed_hours"].to_numpy())
    return restarts


def begins_count(frame: pd.DataFrame, meter: MeterSettings) -> Bools:
    """Whether a counter of the day has restarted since the reading that each is compared with.

    Parameters
    ----------
    frame : DataFrame
        Output of the seventh step.
    """
    reading = in_kwh(frame["reading"].to_numpy(float), meter)
    change = _changes_without_rounding(frame["change"].to_numpy(), reading, meter)
    longest = SURE_RESTART / timedelta(hours=1)
    begins: Bools = (change < 0) | (frame["elapsed_hours"].to_numpy() >= longest)
    return begins


def _step_hours(frame: pd.DataFrame, meter: MeterSettings) -> Floats:
    """Hours since the machine's reading right before; NaN if none within ``max_gap_days``."""
    machine, ticks = frame["machine_id"].to_numpy(), microseconds(frame["utc_timestamp"])
    hours = np.diff(ticks, prepend=0) / MICROSECONDS_PER_HOUR
    first = np.diff(machine, prepend=np.nan) != 0
    return np.where(first | (hours > meter.max_gap_days * 24), np.nan, hours)


def _is_informative(frame: pd.DataFrame, step: Floats, meter: MeterSettings) -> Bools:
    """Whether a reading says something new.

    False for a reading that is sent again within seconds. True for a meter that always reports
    that often.
    """
    least = too_close(meter.interval_minutes) / MICROSECONDS_PER_HOUR
    # `elapsed_hours` skips readings that are too close. If even it is short, the meter always
    # reports this often.
    repeats: Bools = (step < least) & (frame["elapsed_hours"].to_numpy() > 2 * least)
    return ~repeats


def _is_unchanged(frame: pd.DataFrame, step: Floats, meter: MeterSettings) -> Bools:
    """Whether each reading is equal to the machine's reading right before."""
    reading = frame["reading"].to_numpy(float)
    with np.errstate(over="ignore"):
        change = np.diff(reading, prepend=np.nan)
    if meter.is_counter:
        change = scaled(change, meter.change_scale)
        change = _changes_without_rounding(change, in_kwh(reading, meter), meter)
    still: Bools = ~np.isnan(step) & (change == 0)
    return still


def _changes_without_rounding(change: Floats, reading: Floats, meter: MeterSettings) -> Floats:
    """Changes of a counter, kWh; 0 where one is no larger than the meter's resolution or noise."""
    # Few rows fall or stand still, so only those are compared with the tolerance.
    small = np.flatnonzero(change <= _NOISE * np.abs(reading))
    fell = -change[small] <= fall_tolerance(reading[small], meter)
    without = change.copy()
    without[small[fell | (change[small] > 0)]] = 0.0
    return without


def fall_tolerance(reading: Floats, meter: MeterSettings) -> Floats:
    """Largest fall of a counter that counts as rounding; both are in kWh."""
    return np.maximum(meter.meter_resolution_kwh, _LEAST_FALL * np.abs(reading))


def _counter_columns(
    frame: pd.DataFrame, rolls_over_at: Floats, most_kw: Floats, meter: MeterSettings
) -> Columns:
    """Columns for counters that only rise."""
    reading = in_kwh(frame["reading"].to_numpy(float), meter)
    change = _changes_without_rounding(frame["change"].to_numpy(), reading, meter)
    hours = frame["elapsed_hours"].to_numpy()
    # A counter that rolled over has counted `beyond` since the reading before. More than half of
    # its range in one step is not a roll-over but a reset.
    beyond = change + rolls_over_at
    rolled = (change < 0) & (beyond >= 0) & (beyond <= rolls_over_at / 2)
    rolled &= ~(beyond > most_kw * hours)
    reset = (change < 0) & ~rolled
    # Garbage may overflow; `_quality_at_first_sight` makes it `IMPOSSIBLE`.
    with np.errstate(over="ignore"):
        power_diff = np.where(np.isnan(change), 0.0, np.where(rolled, beyond, change) / hours)
    power_diff[reset] = np.nan
    return {
        "change": change,
        "power_diff": power_diff,
        "power_kw": np.where(np.isnan(change), np.nan, power_diff),
        "quality": np.select([reset, rolled], [Quality.RESET, Quality.ROLLOVER], Quality.OK),
    }


def _daily_counter_columns(frame: pd.DataFrame, meter: MeterSettings) -> Columns:
    """Columns for counters that restart each day: the first reading of a count has no power.

    What was used between the last reading of a count and its restart is not known.
    """
    reading = in_kwh(frame["reading"].to_numpy(float), meter)
    change = _changes_without_rounding(frame["change"].to_numpy(), reading, meter)
    restarts = begins_count(frame, meter)
    change = np.where(restarts, np.nan, change)
    with np.errstate(over="ignore"):
        power = change / frame["elapsed_hours"].to_numpy()
    return {
        "change": change,
        "power_diff": np.where(np.isnan(change), 0.0, power),
        "power_kw": power,
        "quality": np.where(restarts, Quality.FIRST, Quality.OK),
    }


def _power_meter_columns(frame: pd.DataFrame, meter: MeterSettings) -> Columns:
    """Columns for meters that report the mean power, or the energy, of each interval."""
    power = scaled(frame["reading"].to_numpy(float), meter.scale)
    power = np.where(np.isnan(frame["change"].to_numpy()), np.nan, power)
    return {"power_kw": power, "quality": np.full(len(frame), int(Quality.OK))}


def _quality_at_first_sight(frame: pd.DataFrame, columns: Columns, meter: MeterSettings) -> Ints:
    """Quality of each reading by its value and the time since the one before.

    The first condition that applies counts.
    """
    step, interval = columns["step_hours"], meter.interval_minutes / 60
    absurd = ~is_sane(frame["reading"].to_numpy(float), meter.change_scale)
    return np.select(
        [
            absurd | (columns["power_kw"] > columns["max_power_kw"]),
            np.isnan(frame["elapsed_hours"].to_numpy()),
            frame["duplicate"].to_numpy(),
            step < interval / 3,  # irregular: much earlier than the interval (chosen)
            step > 1.5 * interval,  # gap: at least one reading is missing
        ],
        [Quality.IMPOSSIBLE, Quality.FIRST, Quality.DUPLICATE, Quality.IRREGULAR, Quality.GAP],
        Quality.OK,
    )
