"""Faults written into real meter readings, so that it is known what a detector should find.

Frozen by its outputs: ``tests/unit/test_frozen_judge.py`` compares what fixed readings give.
Nothing here looks at a detector, and nothing may be adapted to one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import pandas as pd

from anomaly.arrays import MICROSECONDS_PER_HOUR, Bools, Floats, Ints
from anomaly.evaluation.ordinary_days import (
    MachineReadings,
    OrdinaryDays,
    learn_ordinary_days,
)
from anomaly.settings import MeterSettings
from anomaly.windows import Window

F = TypeVar("F", bound=StrEnum)
K = TypeVar("K")


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
    # Added power, in the machine's own P5-P99.5 ranges. A mild spike ends a quarter of a range
    # or more above P99.5; a few normal peaks are still higher.
    Family.SPIKE: (Dose(1.25, 0.25), Dose(2.0, 0.25), Dose(3.0, 0.5)),
    # In the same unit. Off (at P5) for the first quarter, then an inrush that decays linearly.
    Family.SURGE: (Dose(1.25, 1.0), Dose(2.0, 1.5), Dose(3.0, 2.0)),
    # The reading stands still; a counter then catches up in one. Part of a shift, a shift, a night.
    Family.STUCK: (Dose(0.0, 3.0), Dose(0.0, 6.0), Dose(0.0, 12.0)),
    # Share added to the power while running. At 1.2 times the set current IEC 60947-4-1 wants a
    # thermal overload relay to trip within two hours, at 1.5 within minutes.
    Family.OVERLOAD: (Dose(0.20, 4.0), Dose(0.35, 6.0), Dose(0.60, 8.0)),
    # It ends at the overload's level, takes two to four days to get there, and is then repaired.
    Family.DRIFT: (Dose(0.20, 48.0), Dose(0.35, 72.0), Dose(0.60, 96.0)),
    # Share of the machine's own running power, at night: auxiliaries left on, half load, all.
    Family.RUN_ON: (Dose(0.25, 2.0), Dose(0.5, 4.0), Dose(1.0, 8.0)),
    # Idle where it usually runs and would have run: a late start, half a shift, most of one.
    Family.MISSED: (Dose(0.0, 2.0), Dose(0.0, 4.0), Dose(0.0, 6.0)),
    # Readings that never arrive: a gateway restarts, is out for a shift, for a night.
    Family.DROPOUT: (Dose(0.0, 2.0), Dose(0.0, 6.0), Dose(0.0, 12.0)),
}

# The numbers were chosen once, before any detector was judged, and stay: see `DOSES`.
EVENTS_PER_WEEK = (1, 2)
"""Fewest and most faults per machine and week: faults are rare, and the days between them show the
false alerts."""
APART_HOURS = 30.0
"""Events of a machine lie farther apart than the 24 h in which a reading influences verdicts."""
MARGIN_HOURS = 2.0  # from an event to the ends of the window: the grace after it must fit
_HARDLY_FLAT = 0.02  # a meter that is flat more often looks like a stuck one
_SHARE_RUNNING = {Family.OVERLOAD: 0.75, Family.MISSED: 0.75, Family.DRIFT: 0.1}
"""Share of an event in which the machine must have run, else the fault would change nothing."""
# Of a missed cycle so much must lie in hours of the week at which the machine usually runs.
_SHARE_USUAL = 0.5
_DRAWS = 20  # of family, magnitude and place, before a machine gets no event


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
    meter: MeterSettings,
    zone: str = "UTC",
    ordinary_days: Mapping[int, OrdinaryDays] | None = None,
) -> Injected:
    """Write a few faults into the readings of `window`.

    Parameters
    ----------
    readings : DataFrame
        ``utc_timestamp`` (aware), ``machine_id``, ``reading``: raw, finite, one row per
        machine and time, on a regular grid; gaps stay as they are. Ordinary days are learnt
        from readings before the window. After a fault a counter keeps the difference, up to its
        next restart if it restarts each day.
    seed : int or sequence of int
        The same seed gives the same events.
    zone : str
        Where the machines stand: decides which hours are night, and the hour of the week.
    ordinary_days : mapping of int to OrdinaryDays, optional
        As `learn_ordinary_days` returns them for the readings before the window; saves time.

    Returns
    -------
    Injected
        One or two events per machine and week (`EVENTS_PER_WEEK`), at least `APART_HOURS`
        apart, inside the window. The weight of a family is 1 over the number of machines on
        which it is possible, so that families of few machines are not rare. A machine without
        history stays as it is.
    """
    ordered = readings.sort_values(["machine_id", "utc_timestamp"], ignore_index=True)
    if ordinary_days is None:
        ordinary_days = learn_ordinary_days(ordered, until=window.start, meter=meter, zone=zone)
    return inject_each(
        ordered,
        ordinary_days,
        {family: partial(is_possible, family) for family in Family},
        _Injection,
        window=window,
        seed=seed,
        meter=meter,
        zone=zone,
    )


def is_possible(family: Family, ordinary: OrdinaryDays) -> bool:
    """Whether a fault of this family can happen on a machine with such ordinary days."""
    if family is Family.STUCK:
        return ordinary.flat_share <= _HARDLY_FLAT
    if family is Family.RUN_ON:
        return bool(ordinary.usual_off.any()) and ordinary.running.size > 0
    if family is Family.MISSED:
        return bool(ordinary.usual_on.any()) and ordinary.idle.size > 0
    return family is Family.DROPOUT or ordinary.width > 0


def events_frame(events: Sequence[Event]) -> pd.DataFrame:
    """Events as a table, one row each, in their order."""
    columns = ["machine_id", "family", "magnitude", "start", "end"]
    rows = [[getattr(event, name) for name in columns] for event in events]
    frame = pd.DataFrame(rows, columns=columns).astype({"machine_id": np.int64})
    stamps = {name: pd.to_datetime(frame[name], utc=True) for name in ("start", "end")}
    return frame.assign(**stamps).astype(dict.fromkeys(stamps, "datetime64[us, UTC]"))


def inject_each(
    ordered: pd.DataFrame,
    known: Mapping[int, K],
    possible: Mapping[F, Callable[[K], bool]],
    injection: "Callable[[MachineReadings, K, Window, np.random.Generator], MachineInjection[F]]",
    *,
    window: Window,
    seed: int | Sequence[int],
    meter: MeterSettings,
    zone: str,
) -> Injected:
    """Write faults into each machine by itself; leave those of which nothing is known.

    Parameters
    ----------
    ordered : DataFrame
        Readings as for `inject`, sorted by machine and time.
    known : mapping of int
        By machine id: what an injection must know of the machine.
    possible : mapping of family to function
        Whether the family is possible on a machine of which so much is known.
    injection : function
        Makes a machine's injection of its readings, what is known, the window, and a generator.
    """
    numbers = {
        family: sum(map(can_happen, known.values())) for family, can_happen in possible.items()
    }
    root = [seed] if isinstance(seed, int) else list(seed)
    parts, events = [ordered[:0]], list[Event]()
    for _, rows in ordered.groupby("machine_id"):
        machine = MachineReadings.of(rows, meter, zone)
        knowledge = known.get(machine.machine_id)
        if knowledge is None:
            parts.append(rows)
            continue
        rng = np.random.default_rng([*root, machine.machine_id])
        done = injection(machine, knowledge, window, rng)
        done.run({f: 1 / number for f, number in numbers.items() if possible[f](knowledge)})
        parts.append(rows.assign(reading=done.reading)[~done.missing])
        events += done.events
    return Injected(pd.concat(parts, ignore_index=True), tuple(events))


class MachineInjection(ABC, Generic[F]):
    """The faults of one machine, drawn one after another; a subclass says what they are."""

    def __init__(self, machine: MachineReadings, window: Window, rng: np.random.Generator) -> None:
        self.machine = machine
        self.window = window
        self.rng = rng
        self.reading = machine.reading.copy()
        self.missing = np.zeros(len(machine.ticks), dtype=bool)
        self.events: list[Event] = []
        self._taken: list[tuple[int, int]] = []

    def run(self, weights: Mapping[F, float]) -> None:
        """Draw the week's events from the families that have a weight, and write them."""
        if not weights:
            return
        families, share = list(weights), np.array(list(weights.values()))
        weeks = (self.window.end - self.window.start).total_seconds() / (7 * 86_400)
        few, many = EVENTS_PER_WEEK
        for _ in range(max(1, round(int(self.rng.integers(few, many + 1)) * weeks))):
            self._add_one(families, share / share.sum())
        self.events.sort(key=lambda event: event.start)

    @abstractmethod
    def write(self, family: F, magnitude: Magnitude) -> tuple[int, int] | None:
        """Write such a fault somewhere; return its first and last row, None: there is no place."""

    def free(self, length: int) -> Ints:
        """Rows at which an event of so many readings may begin."""
        machine, ticks = self.machine, self.machine.ticks
        first = np.arange(1, len(ticks) - length)
        after = first + length
        fits = ticks[after] - ticks[first - 1] == (length + 1) * machine.step
        start, end = (round(t.timestamp() * 1e6) for t in (self.window.start, self.window.end))
        margin, apart = (
            round(MARGIN_HOURS * MICROSECONDS_PER_HOUR),
            round(APART_HOURS * MICROSECONDS_PER_HOUR),
        )
        fits &= (ticks[first] >= start + margin) & (ticks[after] <= end - margin)
        for begun, ended in self._taken:
            fits &= (ticks[after] <= begun - apart) | (ticks[first] >= ended + apart)
        fits &= share_of(np.isfinite(machine.power), first, after) == 1
        places: Ints = first[fits]
        return places

    def draw(self, rows: slice, power: Floats) -> None:
        """Let the machine draw `power`; a counter keeps the difference until it restarts."""
        machine = self.machine
        if not machine.counter:
            self.reading[rows] = power
            return
        extra = np.zeros(len(self.reading))
        extra[rows] = (power - machine.power[rows]) * machine.hours
        total = np.append(0.0, np.cumsum(extra))
        begun = np.maximum.accumulate(np.where(machine.restarts, np.arange(len(extra)), 0))
        self.reading += total[1:] - total[begun]
        self.reading[rows.start :] = np.round(self.reading[rows.start :], machine.decimals)

    def _add_one(self, families: list[F], share: Floats) -> None:
        for _ in range(_DRAWS):
            family = families[int(self.rng.choice(len(families), p=share))]
            magnitude = list(Magnitude)[int(self.rng.integers(len(Magnitude)))]
            rows = self.write(family, magnitude)
            if rows:
                first, last = rows
                self._taken.append((int(self.machine.ticks[first]), int(self.machine.ticks[last])))
                start, end = self.machine.time(first), self.machine.time(last)
                self.events.append(Event(self.machine.machine_id, family, magnitude, start, end))
                return


class _Injection(MachineInjection[Family]):
    def __init__(
        self,
        machine: MachineReadings,
        ordinary: OrdinaryDays,
        window: Window,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(machine, window, rng)
        self.ordinary = ordinary

    def write(self, family: Family, magnitude: Magnitude) -> tuple[int, int] | None:
        dose = DOSES[family][list(Magnitude).index(magnitude)]
        length = max(1, round(dose.hours / self.machine.hours))
        first = self.free(length)
        places = first[self._suits(family, first, first + length)]
        if not places.size:
            return None
        row = int(self.rng.choice(places))
        return row, self._write(family, dose.size, slice(row, row + length))

    def _suits(self, family: Family, first: Ints, after: Ints) -> Bools:
        """Whether the machine does there what the family needs it to do."""
        ordinary, running = self.ordinary, self.machine.power > self.ordinary.running_above
        if family is Family.RUN_ON:
            off = ordinary.usual_off[self.machine.hour_of_week] & ~running
            return np.asarray(share_of(off, first, after) == 1)
        suits: Bools = share_of(running, first, after) >= _SHARE_RUNNING.get(family, 0.0)
        if family is Family.MISSED:
            usual = ordinary.usual_on[self.machine.hour_of_week]
            suits &= share_of(usual, first, after) >= _SHARE_USUAL
        return suits

    def _write(self, family: Family, size: float, rows: slice) -> int:
        """Write the fault; return the last row it affects."""
        if family is Family.STUCK:
            self.reading[rows] = self.reading[rows.start - 1]
            return int(rows.stop) if self.machine.counter else int(rows.stop) - 1
        if family is Family.DROPOUT:
            self.missing[rows] = True
        else:
            self.draw(rows, self._faulty_power(family, size, self.machine.power[rows]))
        return int(rows.stop) - 1

    def _faulty_power(self, family: Family, size: float, power: Floats) -> Floats:
        ordinary = self.ordinary
        if family is Family.SPIKE:
            return power + size * ordinary.width
        if family is Family.SURGE:
            return _surge(ordinary, size, power)
        if family is Family.OVERLOAD:
            return np.where(power > ordinary.running_above, power * (1 + size), power)
        if family is Family.DRIFT:
            return power * (1 + size * np.arange(1, len(power) + 1) / len(power))
        if family is Family.RUN_ON:
            load = self._stretch(ordinary.running, len(power)) - ordinary.low
            return np.maximum(power, ordinary.low + size * load)
        return np.minimum(power, self._stretch(ordinary.idle, len(power)))

    def _stretch(self, pool: Floats, length: int) -> Floats:
        """Consecutive values of `pool` from a random place on, starting over at its end."""
        return np.take(pool, int(self.rng.integers(len(pool))) + np.arange(length), mode="wrap")


def _surge(ordinary: OrdinaryDays, size: float, power: Floats) -> Floats:
    stopped = len(power) // 4
    inrush = np.linspace(1, 0, len(power) - stopped, endpoint=False) * size * ordinary.width
    return np.concatenate([np.minimum(power[:stopped], ordinary.low), power[stopped:] + inrush])


def share_of(true: Bools, first: Ints, after: Ints) -> Floats:
    """Share of true values in rows ``[first, after)``."""
    total = np.concatenate([[0], np.cumsum(true)])
    share: Floats = (total[after] - total[first]) / (after - first)
    return share
