"""How far around a window readings must be read, so that no verdict depends on where it starts."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import Bools, Floats
from anomaly.models.model import Model
from anomaly.readings.contradictions import REACH, Course, find_breaks, longest_dip
from anomaly.readings.meter_faults import Limits
from anomaly.readings.preprocessing import is_sane, microseconds, scaled, too_close
from anomaly.settings import MeterSettings
from anomaly.windows import Window


@dataclass(frozen=True)
class LeapLimits:
    """Power above which a machine's rise is a leap, by the most careful of several models.

    Attributes
    ----------
    by_machine : Series
        kW by ``machine_id``; NaN: nothing is known.
    of_others : float
        For machines that no model has seen.
    """

    by_machine: "pd.Series[float]"
    of_others: float

    def capped(self, known: pd.DataFrame) -> "LeapLimits":
        """No higher than what is declared of a machine (``machine_id``, ``max_power_kw``)."""
        declared = known.set_index("machine_id")["max_power_kw"].dropna()
        if declared.empty:
            return self
        machines = self.by_machine.index.union(declared.index)
        capped = np.fmin(self.of(machines.to_numpy()), declared.reindex(machines).to_numpy(float))
        return LeapLimits(pd.Series(capped, machines), self.of_others)

    def of(self, machine_ids: npt.NDArray[np.generic]) -> Floats:
        """Limit of each machine, kW."""
        known = self.by_machine.reindex(machine_ids, fill_value=self.of_others)
        limits: Floats = np.asarray(known, dtype=np.float64)
        return limits


@dataclass(frozen=True)
class LookBehind:
    """How far before a window readings matter to the models that judge it.

    Attributes
    ----------
    reach : timedelta
        Of the detectors that judge.
    flat_matters : set of int
        Machines of which it matters how long they have stood still, up to `REACH`.
    leap_kw : LeapLimits
        A rise beyond is looked at more closely: the day before it has to be read.
    """

    reach: timedelta
    flat_matters: frozenset[int]
    leap_kw: LeapLimits

    @classmethod
    def of(cls, models: Iterable[Model], meter: MeterSettings) -> "LookBehind":
        """The farthest that any of several models looks."""
        judging = list(models)
        limits = [(model.profiles.index, Limits.of(model.profiles)) for model in judging]
        by_machine = pd.concat([pd.Series(found.leap_kw[:-1], index) for index, found in limits])
        return cls(
            max(model.detector.reach for model in judging),
            frozenset().union(*(model.hardly_ever_flat(meter) for model in judging)),
            LeapLimits(
                by_machine.groupby(level=0).min(),
                float(np.fmin.reduce([found.leap_kw[-1] for _, found in limits])),
            ),
        )


def back_of_all(behind: LookBehind | None, interval: timedelta) -> timedelta:
    """How far before a window the readings of all machines are read.

    A reading right at that edge has to find those that it is compared with, hence the dip.
    """
    reach = behind.reach if behind else REACH
    dip = longest_dip(interval // timedelta(microseconds=1))
    return reach + timedelta(microseconds=dip)


def back_of_some(back: timedelta, max_gap: timedelta) -> timedelta:
    """How far before a window the readings of a machine are read that needs more than all."""
    return max(max_gap, back + REACH)


def machines_to_look_farther(
    unique: pd.DataFrame,
    window: Window,
    back: timedelta,
    known: pd.DataFrame,
    behind: LookBehind | None,
    meter: MeterSettings,
) -> dict[timedelta, set[int]]:
    """Machines that need readings from farther back than all were read, by how far.

    Parameters
    ----------
    unique : DataFrame
        Readings from `back` before `window` on, sorted by machine and time.
    known : DataFrame
        ``machine_id`` and ``max_power_kw``.
    """
    least = timedelta(microseconds=too_close(meter.interval_minutes))
    sound = is_sane(unique["reading"].to_numpy(float), meter.change_scale)
    sane = unique if sound.all() else unique[sound]
    # A machine without a reading before the window: its last one may be up to a gap away.
    first = sane.groupby("machine_id")["utc_timestamp"].min()
    farthest = set(first.index[first > window.start - least].tolist())
    if behind and meter.is_counter:
        near = (sane["utc_timestamp"] < window.start - back + REACH).to_numpy()
        farthest.update(machines_with_breaks(sane, near, behind.leap_kw.capped(known), meter))
    asked = {back_of_some(back, meter.max_gap): farthest}
    if behind:
        standing = set(_flat_from_the_start(sane, window.start, meter))
        farthest |= standing & behind.flat_matters
    if behind and back < REACH:
        asked[REACH] = set(_flat_at_start(unique, window.start, meter))
        asked[REACH] &= behind.flat_matters - farthest
    return asked


def machines_with_breaks(
    readings: pd.DataFrame, chosen: Bools, leap_kw: LeapLimits, meter: MeterSettings
) -> list[int]:
    """Machines of which a chosen reading falls, or leaps, however little.

    Of counters that restart each day only those that leap: their falls contradict nothing.
    """
    if readings.empty:
        return []
    machines, nothing = readings["machine_id"].to_numpy(), np.zeros(len(readings))
    course = Course(
        lane=np.cumsum(np.diff(machines, prepend=machines[0]) != 0),
        ticks=microseconds(readings["utc_timestamp"]),
        reading=scaled(readings["reading"].to_numpy(float), meter.scale),
        tolerance=nothing,
        most_kw=leap_kw.of(machines),
        rolls=nothing.astype(bool),
        interval=1,
    )
    breaks = find_breaks(course)
    telling = breaks.leaps if meter.restarts_daily else breaks.any
    found: list[int] = np.unique(machines[telling & chosen]).tolist()
    return found


def _flat_at_start(unique: pd.DataFrame, start: datetime, meter: MeterSettings) -> list[int]:
    """Machines that stand still from the first reading that was read to the first from `start`."""
    after = unique[unique["utc_timestamp"] >= start].drop_duplicates("machine_id")
    both = pd.concat([unique[unique["utc_timestamp"] < start], after])
    readings = both.groupby("machine_id")["reading"].agg(["min", "max"])
    rounding = _rounding(readings["max"].to_numpy(float), meter)
    still = readings["max"] - readings["min"] <= rounding
    return readings.index[still & readings.index.isin(after["machine_id"])].tolist()


def _flat_from_the_start(sane: pd.DataFrame, start: datetime, meter: MeterSettings) -> list[int]:
    """Machines whose first two readings that were read are equal: stuck since before, perhaps."""
    if len(sane) < 2:
        return []
    machine, reading = sane["machine_id"].to_numpy(), sane["reading"].to_numpy(float)
    first = np.flatnonzero(np.diff(machine, prepend=np.nan) != 0)
    first = first[(first + 1 < len(machine))]
    first = first[machine[first + 1] == machine[first]]
    equal = np.abs(reading[first + 1] - reading[first]) <= _rounding(reading[first], meter)
    before = (sane["utc_timestamp"].iloc[first + 1] < start).to_numpy()
    found: list[int] = machine[first[equal & before]].tolist()
    return found


def _rounding(reading: Floats, meter: MeterSettings) -> Floats:
    """Readings no farther apart may be equal; a few machines too many do no harm here."""
    resolution = meter.meter_resolution_kwh / float(meter.change_scale)
    return 2 * resolution + 1e-6 * np.abs(reading)
