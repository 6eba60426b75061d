"""Learn what a machine does on ordinary days, as far as the fault injector must know it.

Frozen by its outputs, together with `anomaly.evaluation.fault_injection`.
"""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import numpy as np
import pandas as pd

from anomaly.arrays import MICROSECONDS_PER_HOUR, Bools, Floats, Ints
from anomaly.errors import SourceError
from anomaly.readings.measuring import fall_tolerance
from anomaly.readings.preprocessing import in_kwh, microseconds
from anomaly.settings import MeterSettings

HOURS_PER_WEEK = 168

# The numbers were chosen once, before any detector was judged. Changing one makes all figures in
# docs/explanation/detection-lab-report.md incomparable with new ones.
_STOPS = 0.1  # a machine stops now and then if its P5 is at most this share of its P99.5
_RUNNING = 0.25  # a machine that stops runs above its P5 plus this share of its P5-P99.5 range
_USUAL = 0.8  # usual on: it runs at that hour of the week in four weeks of five
_NEVER = 0.02  # usual off: it runs in at most this share of the readings of that hour of the week
_WEEKS_SEEN = 3  # an hour of the week that was seen in fewer weeks is neither on nor off
_DECIMALS = 6  # of kWh
_NIGHT = (20, 21, 22, 23, 0, 1, 2, 3, 4, 5)  # local hours


@dataclass(frozen=True)
class OrdinaryDays:
    """One machine's ordinary days; power in the readings' own unit, per hour if it counts energy.

    Attributes
    ----------
    low, high : float
        P5 and P99.5 of power.
    running_above : float
        Power above which it runs; -inf for a machine that never stops.
    flat_share : float
        Share of readings equal to their predecessor.
    usual_on, usual_off : array of bool, shape (168,)
        By local hour of the week, Monday 00:00 first; only hours of the night count as off.
        All False for a machine that never stops.
    running, idle : array of float
        Power of its running and of its idle readings, in the order of time.
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
class MachineReadings:
    """One machine's readings as arrays on a regular grid.

    Attributes
    ----------
    ticks : array of int
        Time of each reading, in microseconds since the Unix epoch.
    step : int
        Microseconds between two readings of the grid.
    power : array of float
        Mean over each interval, in units of the reading per hour from a counter, else the readings
        themselves. Of a counter NaN for the first reading and for one after a gap.
    hour_of_week : array of int
        Local, 0 is Monday 00:00 to 01:00.
    counter : bool
        Whether a difference of power lasts in all later readings, up to the next restart.
    restarts : array of bool
        The first readings of new counts, of a counter that restarts each day. They are taken as
        what was used in the interval.
    decimals : int
        Of a counter, so many that no rounding error lets it fall.
    """

    machine_id: int
    ticks: Ints
    step: int
    reading: Floats
    power: Floats
    hour_of_week: Ints
    counter: bool
    restarts: Bools
    decimals: int

    @classmethod
    def of(cls, rows: pd.DataFrame, meter: MeterSettings, zone: str) -> Self:
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
        step = round(meter.interval.total_seconds() * 1e6)
        restarts = _restarts(reading, meter)
        counted = np.where(restarts, 0.0, np.append(np.nan, reading[:-1]))
        return cls(
            machine_id=machine_id,
            ticks=ticks,
            step=step,
            reading=reading,
            power=_power(reading - counted, ticks, step) if meter.is_counter else reading.copy(),
            hour_of_week=(local.dt.day_of_week * 24 + local.dt.hour).to_numpy(dtype=np.int64),
            counter=meter.is_counter,
            restarts=restarts,
            decimals=_DECIMALS + max(0, round(math.log10(meter.scale))),
        )

    @property
    def hours(self) -> float:
        """Hours between two readings of the grid."""
        return self.step / MICROSECONDS_PER_HOUR

    def time(self, row: int) -> datetime:
        """A reading's timestamp, in UTC."""
        return pd.Timestamp(int(self.ticks[row]), unit="us", tz="UTC").to_pydatetime()


def learn_ordinary_days(
    readings: pd.DataFrame, *, until: datetime, meter: MeterSettings, zone: str = "UTC"
) -> dict[int, OrdinaryDays]:
    """Learn each machine's ordinary days, only from its readings before `until`.

    Parameters
    ----------
    readings : DataFrame
        ``utc_timestamp`` (aware), ``machine_id`` and ``reading``.
    zone : str
        Where the machines stand: decides which hours are night, and the hour of the week.

    Returns
    -------
    dict
        By machine id; without the machines that have no known power before `until`.

    Raises
    ------
    SourceError
        When two readings of a machine have the same time.
    """
    past = readings[readings["utc_timestamp"] < until]
    ordered = past.sort_values(["machine_id", "utc_timestamp"])
    machines = [MachineReadings.of(rows, meter, zone) for _, rows in ordered.groupby("machine_id")]
    return {
        machine.machine_id: _ordinary_days(machine)
        for machine in machines
        if np.isfinite(machine.power).any()
    }


def _restarts(reading: Floats, meter: MeterSettings) -> Bools:
    if not meter.restarts_daily:
        return np.zeros(len(reading), dtype=bool)
    counted = in_kwh(reading, meter)
    falls: Bools = np.diff(counted, prepend=np.nan) < -fall_tolerance(counted, meter)
    return falls


def _power(used: Floats, ticks: Ints, step: int) -> Floats:
    power = used / (step / MICROSECONDS_PER_HOUR)
    return np.where(np.diff(ticks, prepend=ticks[0]) == step, power, np.nan)


def _ordinary_days(machine: MachineReadings) -> OrdinaryDays:
    seen = np.isfinite(machine.power)
    power, hour = machine.power[seen], machine.hour_of_week[seen]
    low, high = (float(level) for level in np.percentile(power, [5, 99.5]))
    stops = high > 0 and low <= _STOPS * high
    above = low + _RUNNING * (high - low) if stops else -np.inf
    running = power > above
    often, share = _shares_by_hour(hour, running, machine.hours)
    night = np.isin(np.arange(HOURS_PER_WEEK) % 24, _NIGHT)
    return OrdinaryDays(
        low=low,
        high=high,
        running_above=above,
        flat_share=float(np.mean(np.diff(machine.reading) == 0)),
        usual_on=stops & often & (share >= _USUAL - 1e-9),
        usual_off=stops & often & (share <= _NEVER) & night,
        running=power[running],
        idle=power[~running],
    )


def _shares_by_hour(hour: Ints, running: Bools, interval_hours: float) -> tuple[Bools, Floats]:
    """Whether each hour of the week was seen often enough, and how often the machine ran in it."""
    readings = np.bincount(hour, minlength=HOURS_PER_WEEK)
    ran = np.bincount(hour, weights=running, minlength=HOURS_PER_WEEK)
    often = readings >= _WEEKS_SEEN * max(1.0, 1 / interval_hours)
    return often, ran / np.maximum(readings, 1)
