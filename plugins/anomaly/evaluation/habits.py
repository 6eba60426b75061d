"""What a machine does on ordinary days, as far as the fault injector must know it.

Frozen together with ``injection.py``: see ``PINNED.json``.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.errors import SourceError
from anomaly.preprocessing import microseconds
from anomaly.settings import ReadingKind, Settings

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

HOUR = 3_600_000_000  # microseconds
HOURS_A_WEEK = 168

_STOPS = 0.1  # a machine stops when its P5 lies below this share of its P99.5
_RUNNING = 0.25  # one that stops runs above this share of its P5-P99.5 range
_USUAL = 0.8  # usual on: runs in four weeks of five at that hour of the week
_NEVER = 0.02  # usual off: runs in no more of the readings at that hour of the week
_WEEKS_SEEN = 3  # an hour of the week seen less often is neither
_NIGHT = (20, 21, 22, 23, 0, 1, 2, 3, 4, 5)  # local hours


@dataclass(frozen=True)
class Habits:
    """One machine's ordinary days; power in kW for counters, else in the readings' W.

    Attributes
    ----------
    low, high : float
        P5 and P99.5 of power.
    running_above : float
        Power above which it runs; -inf for a machine that never stops.
    flat_share : float
        Share of readings equal to their predecessor.
    usual_on, usual_off : array of bool, shape (168,)
        By local hour of the week, Monday 00:00 first; off counts at night only.
        Both are empty of True for a machine that never stops.
    running, idle : array of float
        Power of its running and its idle readings, in time's order.
    """

    low: float
    high: float
    running_above: float
    flat_share: float
    usual_on: Bools
    usual_off: Bools
    running: Floats
    idle: Floats

    @property
    def width(self) -> float:
        """The P5-P99.5 range, in units of which spikes and surges are measured."""
        return self.high - self.low


@dataclass(frozen=True)
class Meter:
    """One machine's readings as arrays on a regular grid.

    Attributes
    ----------
    ticks, step : microseconds
        Since the Unix epoch; between two readings of the grid.
    power : array of float
        Mean over each interval: kW from a counter, else the readings themselves;
        NaN for the first reading and behind a gap.
    hour_of_week : array of int
        Local, 0 is Monday 00:00 to 01:00.
    """

    machine_id: int
    ticks: Ints
    step: int
    reading: Floats
    power: Floats
    hour_of_week: Ints
    counter: bool

    @classmethod
    def of(cls, rows: pd.DataFrame, settings: Settings, zone: str) -> Self:
        """Take one machine's rows, sorted by time.

        Raises
        ------
        SourceError
            When two readings have the same time.
        """
        machine_id = int(rows["machine_id"].iloc[0])
        ticks = microseconds(rows["utc_timestamp"])
        if (np.diff(ticks) <= 0).any():
            raise SourceError(
                f"machine {machine_id} has two readings of one time, or they are not sorted:"
                " keep one of each and sort them"
            )
        local = rows["utc_timestamp"].dt.tz_convert(zone)
        reading = rows["reading"].to_numpy(dtype=float).copy()
        step = round(settings.interval.total_seconds() * 1e6)
        counter = settings.reading_kind is ReadingKind.ENERGY_KWH
        return cls(
            machine_id=machine_id,
            ticks=ticks,
            step=step,
            reading=reading,
            power=_power(reading, ticks, step) if counter else reading.copy(),
            hour_of_week=(local.dt.day_of_week * 24 + local.dt.hour).to_numpy(dtype=np.int64),
            counter=counter,
        )

    @property
    def hours(self) -> float:
        """Hours between two readings of the grid."""
        return self.step / HOUR

    def time(self, row: int) -> datetime:
        """A reading's timestamp, in UTC."""
        return pd.Timestamp(int(self.ticks[row]), unit="us", tz="UTC").to_pydatetime()


def learn_habits(
    readings: pd.DataFrame, *, until: datetime, settings: Settings, zone: str = "UTC"
) -> dict[int, Habits]:
    """Habits of each machine, from its readings before `until` alone.

    Parameters
    ----------
    readings : DataFrame
        ``utc_timestamp`` (aware), ``machine_id`` and ``reading``.
    zone : str
        Where the machines stand: decides what night and hour of the week are.
    """
    past = readings[readings["utc_timestamp"] < until]
    ordered = past.sort_values(["machine_id", "utc_timestamp"])
    meters = [Meter.of(rows, settings, zone) for _, rows in ordered.groupby("machine_id")]
    return {meter.machine_id: _habits(meter) for meter in meters if np.isfinite(meter.power).any()}


def _power(reading: Floats, ticks: Ints, step: int) -> Floats:
    power = np.diff(reading, prepend=np.nan) / (step / HOUR)
    return np.where(np.diff(ticks, prepend=ticks[0]) == step, power, np.nan)


def _habits(meter: Meter) -> Habits:
    seen = np.isfinite(meter.power)
    power, hour = meter.power[seen], meter.hour_of_week[seen]
    low, high = (float(level) for level in np.percentile(power, [5, 99.5]))
    stops = high > 0 and low <= _STOPS * high
    above = low + _RUNNING * (high - low) if stops else -np.inf
    running = power > above
    often, share = _shares_by_hour(hour, running, meter.hours)
    night = np.isin(np.arange(HOURS_A_WEEK) % 24, _NIGHT)
    return Habits(
        low=low,
        high=high,
        running_above=above,
        flat_share=float(np.mean(np.diff(meter.reading) == 0)),
        usual_on=stops & often & (share >= _USUAL - 1e-9),
        usual_off=stops & often & (share <= _NEVER) & night,
        running=power[running],
        idle=power[~running],
    )


def _shares_by_hour(hour: Ints, running: Bools, interval_hours: float) -> tuple[Bools, Floats]:
    """Whether each hour of the week was seen often enough, and how often the machine ran in it."""
    readings = np.bincount(hour, minlength=HOURS_A_WEEK)
    ran = np.bincount(hour, weights=running, minlength=HOURS_A_WEEK)
    often = readings >= _WEEKS_SEEN * max(1.0, 1 / interval_hours)
    return often, ran / np.maximum(readings, 1)
