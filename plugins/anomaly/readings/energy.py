"""The energy that each reading adds to what was metered before it, and over how long."""

from datetime import timedelta

import numpy as np
import pandas as pd

from anomaly.arrays import MICROSECONDS_PER_HOUR, Bools, Floats, Ints
from anomaly.readings.preprocessing import in_kwh, is_sane, microseconds, scaled
from anomaly.readings.quality import Quality
from anomaly.settings import SURE_RESTART, MeterSettings, ReadingKind


def counted_energy(
    readings: pd.DataFrame,
    rolls_over_at: Floats,
    quality: Ints,
    restarts: Bools,
    tolerance: Floats,
    meter: MeterSettings,
) -> tuple[Floats, Floats]:
    """Energy of counter readings, so that the energies of a span add up to what it counted.

    Each reading is compared with the machine's reading right before that is not garbage, even
    one that is so close that its power means nothing. A fall within the counter's rounding is
    kept, because the next rise holds it again.

    Parameters
    ----------
    readings : DataFrame
        Sorted by machine and time: ``machine_id``, ``utc_timestamp`` and ``reading``.
    rolls_over_at : array
        kWh; NaN: the counter does not roll over.
    quality : array
        `Quality` at first sight: what fell is a roll-over or a reset.
    restarts : array of bool
        Readings that begin a new count of the day: what they say was counted since then.
    tolerance : array
        A fall of at most this much is rounding, kWh.

    Returns
    -------
    energy_kwh, hours : array
        NaN where nothing is known: for the first reading, after ``max_gap_days`` without one,
        after a reset and for garbage. Of a new count of the day the hours are not known.
    """
    reading = readings["reading"].to_numpy(float)
    ticks, machine = microseconds(readings["utc_timestamp"]), readings["machine_id"].to_numpy()
    energy, hours = np.full((2, len(reading)), np.nan)
    sane = np.flatnonzero(is_sane(reading, meter.change_scale))
    if not len(sane):
        return energy, hours
    span = np.diff(ticks[sane], prepend=0) / MICROSECONDS_PER_HOUR
    same = np.diff(machine[sane], prepend=-1) == 0
    same[0] = False
    counted = scaled(np.diff(reading[sane], prepend=np.nan), meter.change_scale)
    # A reading that is sent again after a roll-over or a restart has not fallen once more.
    fell = counted < -tolerance[sane]
    rolled = fell & (quality[sane] == Quality.ROLLOVER)
    counted[rolled] += rolls_over_at[sane][rolled]
    begins = restarts[sane] & (fell | (span >= SURE_RESTART / timedelta(hours=1)))
    counted[begins] = in_kwh(reading[sane][begins], meter)
    lost = ~same | (span > meter.max_gap_days * 24)
    lost |= quality[sane] == Quality.RESET
    energy[sane] = np.where(lost, np.nan, counted)
    hours[sane] = np.where(lost | begins, np.nan, span)
    return energy, hours


def drawn_energy(
    power_kw: Floats, step_hours: Floats, informative: Bools, meter: MeterSettings
) -> tuple[Floats, Floats]:
    """Energy of readings that are the mean power, or the energy, of their own interval.

    What was used in a gap is not known, so a reading stands for one interval at most. A reading
    that is sent again within seconds adds nothing.

    Parameters
    ----------
    power_kw : array
        NaN: not known.
    step_hours : array
        Hours since the reading right before; NaN: there is none.
    informative : array of bool
        False: sent again.

    Returns
    -------
    energy_kwh, hours : array
        NaN where the power is not known, or the reading says nothing new.
    """
    interval = meter.interval / timedelta(hours=1)
    hours = np.full(len(power_kw), interval)
    if meter.reading_kind is not ReadingKind.ENERGY_KWH_PER_INTERVAL:
        hours = np.fmin(step_hours, interval)
    known = informative & ~np.isnan(power_kw)
    return np.where(known, power_kw * hours, np.nan), np.where(known, hours, np.nan)
