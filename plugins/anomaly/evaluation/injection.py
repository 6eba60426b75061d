"""Faults written into real meter readings, so that it is known what a detector should find.

Frozen: ``PINNED.json`` holds this file's hash and a test compares it. Nothing
here looks at a detector, and nothing may be adapted to one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np
import pandas as pd

from anomaly.evaluation.habits import HOUR, Bools, Floats, Habits, Ints, Meter, learn_habits
from anomaly.settings import Settings
from anomaly.windows import Window


class Family(StrEnum):
    """What goes wrong."""

    SPIKE = "spike"
    SURGE = "restart surge"
    STUCK = "stuck"
    OVERLOAD = "sustained overload"
    DRIFT = "slow drift"
    RUN_ON = "night run-on"
    MISSED = "missed cycle"
    DROPOUT = "dropout"


class Magnitude(StrEnum):
    """How badly."""

    MILD = "mild"
    MEDIUM = "medium"
    STRONG = "strong"


@dataclass(frozen=True)
class Dose:
    """How much of a fault, in its family's unit, and for how long."""

    size: float
    hours: float


DOSES: Mapping[Family, tuple[Dose, Dose, Dose]] = {
    # Added power, in the machine's own P5-P99.5 ranges. A mild one stands at least a quarter of
    # a range above what 199 of 200 readings stay below, which a few normal peaks still pass.
    Family.SPIKE: (Dose(1.25, 0.25), Dose(2.0, 0.25), Dose(3.0, 0.5)),
    # The same unit. Off (at P5) for the first quarter, then an inrush that decays linearly.
    Family.SURGE: (Dose(1.25, 1.0), Dose(2.0, 1.5), Dose(3.0, 2.0)),
    # The reading stands still; a counter then catches up in one. Part of a shift, a shift, a night.
    Family.STUCK: (Dose(0.0, 3.0), Dose(0.0, 6.0), Dose(0.0, 12.0)),
    # Share added to the power while running. At 1.2 times the set current IEC 60947-4-1 wants a
    # thermal overload relay to trip within two hours, at 1.5 within minutes.
    Family.OVERLOAD: (Dose(0.20, 4.0), Dose(0.35, 6.0), Dose(0.60, 8.0)),
    # Ends at the overload's level, takes two to four days to get there, then is repaired.
    Family.DRIFT: (Dose(0.20, 48.0), Dose(0.35, 72.0), Dose(0.60, 96.0)),
    # Share of the machine's own running power, at night: auxiliaries left on, half load, all.
    Family.RUN_ON: (Dose(0.25, 2.0), Dose(0.5, 4.0), Dose(1.0, 8.0)),
    # Idle where it usually runs and would have run: a late start, half a shift, most of one.
    Family.MISSED: (Dose(0.0, 2.0), Dose(0.0, 4.0), Dose(0.0, 6.0)),
    # Readings that never arrive: a gateway restarts, is out for a shift, for a night.
    Family.DROPOUT: (Dose(0.0, 2.0), Dose(0.0, 6.0), Dose(0.0, 12.0)),
}

EVENTS_A_WEEK = (1, 2)  # few: faults are rare, and the days between show the false alerts
APART_HOURS = 30.0  # more than the 24 h which a reading may influence: events stay apart
_MARGIN_HOURS = 2.0  # to the window's ends: the grace after an event must fit
_HARDLY_FLAT = 0.02  # a meter flat more often than this cannot be told from a stuck one
_SHARE_RUNNING = {Family.OVERLOAD: 0.75, Family.MISSED: 0.75, Family.DRIFT: 0.1}
_SHARE_USUAL = 0.5  # of a missed cycle lies in hours of the week at which it usually runs
_DRAWS = 20  # of family, magnitude and place, before a machine goes without
_DECIMALS = 6  # counters are rounded behind a fault: no sum may fall by 1e-12


@dataclass(frozen=True)
class Event:
    """One fault, from its first to its last affected reading, both included."""

    machine_id: int
    family: str
    magnitude: str
    start: datetime
    end: datetime


@dataclass(frozen=True)
class Injected:
    """Readings with faults in them, sorted by machine and time, and the faults."""

    readings: pd.DataFrame
    events: tuple[Event, ...]


def inject(
    readings: pd.DataFrame,
    *,
    window: Window,
    seed: int | Sequence[int],
    settings: Settings,
    zone: str = "UTC",
    habits: Mapping[int, Habits] | None = None,
) -> Injected:
    """Write a few faults into the readings of `window`.

    Parameters
    ----------
    readings : DataFrame
        ``utc_timestamp`` (aware), ``machine_id``, ``reading``: raw, finite, one row a
        machine and time, on a regular grid; gaps are left alone. Readings before the
        window teach the machines' habits, those behind a fault keep a counter's offset.
    seed : int or sequence of int
        The same seed gives the same events.
    zone : str
        Where the machines stand: decides what night and hour of the week are.
    habits : mapping of int to Habits, optional
        As `learn_habits` made them of the readings before the window; saves time.

    Returns
    -------
    Injected
        One or two events a machine-week (`EVENTS_A_WEEK`), at least `APART_HOURS` apart,
        inside the window. A family is drawn with the inverse of the number of machines
        that allow it, so that families of few machines are not rare. A machine without
        history stays as it is.
    """
    ordered = readings.sort_values(["machine_id", "utc_timestamp"], ignore_index=True)
    if habits is None:
        habits = learn_habits(ordered, until=window.start, settings=settings, zone=zone)
    share = _family_weights(habits)
    root = [seed] if isinstance(seed, int) else list(seed)
    done: list[_Injection] = []
    for _, rows in ordered.groupby("machine_id"):
        meter = Meter.of(rows, settings, zone)
        rng = np.random.default_rng([*root, meter.machine_id])
        done.append(_Injection(meter, habits.get(meter.machine_id), window, rng))
        done[-1].run(share)
    return _collect(ordered, done)


def defined(family: Family, habits: Habits) -> bool:
    """Whether the family means anything on a machine of such habits."""
    if family is Family.STUCK:
        return habits.flat_share <= _HARDLY_FLAT
    if family is Family.RUN_ON:
        return bool(habits.usual_off.any()) and habits.running.size > 0
    if family is Family.MISSED:
        return bool(habits.usual_on.any()) and habits.idle.size > 0
    return family is Family.DROPOUT or habits.width > 0


def events_frame(events: Sequence[Event]) -> pd.DataFrame:
    """Events as a table, one row each, in their order."""
    columns = ["machine_id", "family", "magnitude", "start", "end"]
    rows = [[getattr(event, name) for name in columns] for event in events]
    frame = pd.DataFrame(rows, columns=columns).astype({"machine_id": np.int64})
    stamps = {name: pd.to_datetime(frame[name], utc=True) for name in ("start", "end")}
    return frame.assign(**stamps).astype(dict.fromkeys(stamps, "datetime64[us, UTC]"))


def _family_weights(habits: Mapping[int, Habits]) -> dict[Family, float]:
    machines = {
        family: sum(defined(family, habit) for habit in habits.values()) for family in Family
    }
    return {family: 1 / number for family, number in machines.items() if number}


def _collect(ordered: pd.DataFrame, done: "Sequence[_Injection]") -> Injected:
    if not done:
        return Injected(ordered, ())
    written = ordered.assign(reading=np.concatenate([machine.reading for machine in done]))
    there = ~np.concatenate([machine.missing for machine in done])
    events = tuple(event for machine in done for event in machine.events)
    return Injected(written[there].reset_index(drop=True), events)


class _Injection:
    """The faults of one machine, drawn one after another."""

    def __init__(
        self, meter: Meter, habits: Habits | None, window: Window, rng: np.random.Generator
    ) -> None:
        self.meter = meter
        self.habits = habits
        self.window = window
        self.rng = rng
        self.reading = meter.reading.copy()
        self.missing = np.zeros(len(meter.ticks), dtype=bool)
        self.events: list[Event] = []
        self._taken: list[tuple[int, int]] = []

    def run(self, weights: Mapping[Family, float]) -> None:
        """Draw the week's events, and write them."""
        if self.habits is None:
            return
        families = [family for family in weights if defined(family, self.habits)]
        share = np.array([weights[family] for family in families])
        weeks = (self.window.end - self.window.start).total_seconds() / (7 * 86_400)
        few, many = EVENTS_A_WEEK
        for _ in range(max(1, round(int(self.rng.integers(few, many + 1)) * weeks))):
            self._add_one(self.habits, families, share / share.sum())
        self.events.sort(key=lambda event: event.start)

    def _add_one(self, habits: Habits, families: list[Family], share: Floats) -> None:
        for _ in range(_DRAWS):
            family = families[int(self.rng.choice(len(families), p=share))]
            magnitude = list(Magnitude)[int(self.rng.integers(len(Magnitude)))]
            dose = DOSES[family][list(Magnitude).index(magnitude)]
            length = max(1, round(dose.hours / self.meter.hours))
            places = self._places(habits, family, length)
            if places.size:
                first = int(self.rng.choice(places))
                last = self._write(habits, family, dose.size, slice(first, first + length))
                self._taken.append((int(self.meter.ticks[first]), int(self.meter.ticks[last])))
                start, end = self.meter.time(first), self.meter.time(last)
                self.events.append(Event(self.meter.machine_id, family, magnitude, start, end))
                return

    def _places(self, habits: Habits, family: Family, length: int) -> Ints:
        """Rows at which an event of so many readings may begin."""
        meter, ticks = self.meter, self.meter.ticks
        first = np.arange(1, len(ticks) - length)
        after = first + length
        fits = ticks[after] - ticks[first - 1] == (length + 1) * meter.step
        start, end = (round(t.timestamp() * 1e6) for t in (self.window.start, self.window.end))
        margin, apart = round(_MARGIN_HOURS * HOUR), round(APART_HOURS * HOUR)
        fits &= (ticks[first] >= start + margin) & (ticks[after] <= end - margin)
        for begun, ended in self._taken:
            fits &= (ticks[after] <= begun - apart) | (ticks[first] >= ended + apart)
        fits &= _share(np.isfinite(meter.power), first, after) == 1
        places: Ints = first[fits & self._suits(habits, family, first, after)]
        return places

    def _suits(self, habits: Habits, family: Family, first: Ints, after: Ints) -> Bools:
        """Whether the machine does there what the family needs it to do."""
        running = self.meter.power > habits.running_above
        if family is Family.RUN_ON:
            off = habits.usual_off[self.meter.hour_of_week] & ~running
            return np.asarray(_share(off, first, after) == 1)
        suits: Bools = _share(running, first, after) >= _SHARE_RUNNING.get(family, 0.0)
        if family is Family.MISSED:
            usual = habits.usual_on[self.meter.hour_of_week]
            suits &= _share(usual, first, after) >= _SHARE_USUAL
        return suits

    def _write(self, habits: Habits, family: Family, size: float, rows: slice) -> int:
        """Write the fault; return the last row it affects."""
        if family is Family.STUCK:
            self.reading[rows] = self.reading[rows.start - 1]
            return int(rows.stop) if self.meter.counter else int(rows.stop) - 1
        if family is Family.DROPOUT:
            self.missing[rows] = True
        else:
            self._draw(rows, self._faulty_power(habits, family, size, self.meter.power[rows]))
        return int(rows.stop) - 1

    def _draw(self, rows: slice, power: Floats) -> None:
        """Let the machine draw `power`; a counter keeps the difference ever after."""
        if not self.meter.counter:
            self.reading[rows] = power
            return
        extra = np.cumsum((power - self.meter.power[rows]) * self.meter.hours)
        self.reading[rows] += extra
        self.reading[rows.stop :] += extra[-1]
        self.reading[rows.start :] = np.round(self.reading[rows.start :], _DECIMALS)

    def _faulty_power(self, habits: Habits, family: Family, size: float, power: Floats) -> Floats:
        if family is Family.SPIKE:
            return power + size * habits.width
        if family is Family.SURGE:
            return _surge(habits, size, power)
        if family is Family.OVERLOAD:
            return np.where(power > habits.running_above, power * (1 + size), power)
        if family is Family.DRIFT:
            return power * (1 + size * np.arange(1, len(power) + 1) / len(power))
        if family is Family.RUN_ON:
            load = self._stretch(habits.running, len(power)) - habits.low
            return np.maximum(power, habits.low + size * load)
        return np.minimum(power, self._stretch(habits.idle, len(power)))

    def _stretch(self, pool: Floats, length: int) -> Floats:
        """Consecutive values of `pool`, from anywhere in it, going round."""
        return np.take(pool, int(self.rng.integers(len(pool))) + np.arange(length), mode="wrap")


def _surge(habits: Habits, size: float, power: Floats) -> Floats:
    stopped = len(power) // 4
    inrush = np.linspace(1, 0, len(power) - stopped, endpoint=False) * size * habits.width
    return np.concatenate([np.minimum(power[:stopped], habits.low), power[stopped:] + inrush])


def _share(true: Bools, first: Ints, after: Ints) -> Floats:
    """Share of true values in rows ``[first, after)``."""
    total = np.concatenate([[0], np.cumsum(true)])
    share: Floats = (total[after] - total[first]) / (after - first)
    return share
