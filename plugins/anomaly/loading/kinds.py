"""What the readings of a file are: counters, power or energy per interval, by their course."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.arrays import Bools, Floats, Ints
from anomaly.settings import MeterSettings, ReadingKind

# Signs that readings are of another kind than the settings say. Chosen. Power in W falls about as
# often as it rises. So a day of quarter-hours (96 readings) without a fall and with 10 rises is a
# counter. A counter that is reset now and then falls in few of the steps in which it changes, so 10
# falls that are more than a fifth of those are no counter's.
COUNTER_READINGS = 96
COUNTER_VALUES = 10
POWER_FALLS = 10
POWER_FALL_SHARE = 0.2
# A counter of "energy today" falls to less than a tenth of what it was, once a day, at the same
# time give or take the hour by which clocks are set. Chosen: from the third time on.
RESTART_SHARE = 0.1
RESTARTS = 3
RESTART_HOURS = 1.5
MOST_DAYS = 3
"""Days without readings over which a daily restart is still one. Chosen."""
FEW_FALLS = 0.005
"""A counter that is reset now and then falls in no more of its changes than this. Chosen."""
RISES_PER_RESTART = 4
"""A counter rises many times a day, a machine that is on once a day does so once. Chosen."""
LEAST_FOR_INTERVAL = 2
"""Steps that tell how often there is a reading. Chosen."""
REGULAR_SHARE = 0.1
"""A machine of the settings' interval has it in more of its steps than this, gaps or not.
Chosen."""
LARGE_INTERVAL = 500.0
"""A mean value above this is rather W than kWh per interval. Chosen: 500 kWh in a quarter-hour
are 2 MW."""

_DAY = 86_400_000_000  # microseconds
_NEVER = np.iinfo(np.int64).max
_WORDS = ("W", "MW")
"""Units that may as well be west, or a mean value (Mittelwert)."""
_NOT_READ = {"gwh", "twh", "gw", "mj", "gj", "kj", "kvarh", "kvar", "kva", "kvah"}
_UNITS = {unit.casefold(): unit for unit in ("Wh", "kWh", "MWh", "W", "kW", "MW")}


class Courses:
    """Rises and falls of each machine's readings, followed through a file.

    A step is judged by time, not by the order of lines: a reading that is later and lower is a
    fall, whatever the order of the file.

    Parameters
    ----------
    interval_minutes : int
        How often there is a reading, as the settings say.
    """

    def __init__(self, interval_minutes: int) -> None:
        self._interval = interval_minutes * 60_000_000
        self.machines: dict[str, int] = {}
        self._last_tick = np.empty(0, np.int64)
        self._last_value = np.empty(0)
        self._last_restart = np.empty(0, np.int64)
        self._counts: dict[str, Floats] = {}
        self._steps: dict[int, int] = defaultdict(int)

    def numbers(self, names: Sequence[str]) -> Ints:
        """The machines' numbers, in the order in which they appeared."""
        known = self.machines
        return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64)

    def follow(self, machine: Ints, ticks: Ints, values: Floats, lines: Ints) -> None:
        """Count the steps of some readings, and the steps from those before.

        Parameters
        ----------
        machine : array of int
            From `numbers`.
        ticks : array of int
            Microseconds since the Unix epoch.
        values : array of float
            NaN: no reading.
        lines : array of int
        """
        read = ~np.isnan(values)
        if not read.any():
            return
        machine, ticks, values, lines = machine[read], ticks[read], values[read], lines[read]
        self._grow()
        if (np.diff(machine) < 0).any():
            order = np.argsort(machine, kind="stable")
            machine, ticks, lines = machine[order], ticks[order], lines[order]
            values = values[order]
        starts = _starts(machine)
        here = machine[starts]
        last = np.append(starts[1:] - 1, len(machine) - 1)
        before_tick, before = (
            _shifted(ticks, starts, self._last_tick[here]),
            _shifted(values, starts, self._last_value[here]),
        )
        self._last_tick[here], self._last_value[here] = ticks[last], values[last]

        apart = ticks - before_tick
        change = values - before  # NaN for a machine's first reading
        slope = np.where(apart < 0, -change, change) * (apart != 0)
        rises, falls = slope > 0, slope < 0
        self._add("readings", here, np.diff(starts, append=len(machine)))
        self._add("steps", here, np.add.reduceat(~np.isnan(change), starts, dtype=float))
        self._add("rises", here, np.add.reduceat(rises, starts, dtype=float))
        self._add("falls", here, np.add.reduceat(falls, starts, dtype=float))
        sizes = np.abs(values)
        self._add("sum", here, np.add.reduceat(sizes, starts))
        self._add("positive", here, np.add.reduceat(sizes > 0, starts, dtype=float))
        self._most("most", here, np.maximum.reduceat(sizes, starts))
        self._most("last line", here, np.maximum.reduceat(lines, starts))
        self._most("first line", here, -np.minimum.reduceat(lines, starts))
        self._most("last tick", here, np.maximum.reduceat(ticks, starts))
        self._most("first tick", here, -np.minimum.reduceat(ticks, starts))
        self._follow_restarts(machine, ticks, before_tick, values, before, falls)
        lengths = np.where(np.isnan(change) | (apart == 0), _NEVER, np.abs(apart))
        regular = np.abs(lengths - self._interval) <= self._interval // 10
        self._add("regular", here, np.add.reduceat(regular, starts, dtype=float))
        self._most("shortest", here, -np.minimum.reduceat(lengths, starts))
        self._count_steps(np.abs(apart)[~np.isnan(change)])

    def _follow_restarts(
        self,
        machine: Ints,
        ticks: Ints,
        before_tick: Ints,
        values: Floats,
        before: Floats,
        falls: Bools,
    ) -> None:
        fell = np.flatnonzero(falls)
        low, high = np.minimum(values, before)[fell], np.maximum(values, before)[fell]
        fell = fell[(low >= 0) & (low <= RESTART_SHARE * high)]
        if not len(fell):
            return
        machine, ticks = machine[fell], np.maximum(ticks, before_tick)[fell]
        starts = _starts(machine)
        here = machine[starts]
        apart = np.abs(ticks - _shifted(ticks, starts, self._last_restart[here]))
        self._last_restart[here] = ticks[np.append(starts[1:] - 1, len(machine) - 1)]
        days = np.round(apart / _DAY)
        daily = (
            (days >= 1)
            & (days <= MOST_DAYS)
            & (np.abs(apart - days * _DAY) <= RESTART_HOURS * _DAY / 24)
        )
        self._add("restarts", here, np.diff(starts, append=len(machine)))
        self._add("daily", here, np.add.reduceat(daily, starts, dtype=float))

    def _count_steps(self, lengths: Ints) -> None:
        if len(lengths) and (lengths == lengths[0]).all():
            self._steps[int(lengths[0])] += len(lengths)
        elif len(self._steps) < 10_000:
            different, counts = np.unique(lengths, return_counts=True)
            for length, count in zip(different.tolist(), counts.tolist(), strict=True):
                self._steps[length] += count

    def _grow(self) -> None:
        more = len(self.machines) - len(self._last_tick)
        if more > 0:
            self._last_tick = np.append(self._last_tick, np.zeros(more, np.int64))
            self._last_value = np.append(self._last_value, np.full(more, np.nan))
            # Not a whole number of days before any time.
            self._last_restart = np.append(self._last_restart, np.full(more, _DAY // 2))

    def _add(self, name: str, machines: Ints, amounts: npt.NDArray[Any]) -> None:
        self._padded(name, 0.0)[machines] += amounts

    def _most(self, name: str, machines: Ints, amounts: npt.NDArray[Any]) -> None:
        most = self._padded(name, -np.inf)
        most[machines] = np.maximum(most[machines], amounts)

    def _padded(self, name: str, start: float = 0.0) -> Floats:
        counts = self._counts.get(name, np.empty(0))
        more = len(self.machines) - len(counts)
        self._counts[name] = np.append(counts, np.full(more, start)) if more else counts
        return self._counts[name]

    # What they tell -----------------------------------------------------

    @property
    def readings(self) -> int:
        """How many readings there are."""
        return int(self._padded("readings").sum())

    def interval_minutes(self) -> float | None:
        """The most common time between two readings of a machine."""
        steps = {length: count for length, count in self._steps.items() if length > 0}
        return max(steps, key=steps.__getitem__) / 60_000_000 if steps else None

    def other_interval(self) -> tuple[str, float, bool] | None:
        """The first machine that is read in other intervals than the settings say.

        Returns
        -------
        (machine, minutes, is_everywhere), or None
            Its shortest interval, and whether no machine has the interval of the settings.
        """
        steps = self._padded("steps")
        told = steps >= LEAST_FOR_INTERVAL
        wrong = told & (self._padded("regular") < REGULAR_SHARE * steps)
        if not (places := np.flatnonzero(wrong)).size:
            return None
        shortest = -self._padded("shortest", -np.inf)[places[0]] / 60_000_000
        return self._name(places), shortest, bool((wrong == told).all())

    def missing(self) -> int:
        """Intervals without a reading, between the first and the last one of each machine."""
        interval = self.interval_minutes()
        if interval is None:
            return 0
        first, last = -self._padded("first tick", -np.inf), self._padded("last tick", -np.inf)
        readings = self._padded("readings")
        read = readings > 0
        expected = np.round((last - first)[read] / (interval * 60_000_000)) + 1
        return int(np.maximum(expected - readings[read], 0).sum())

    def describe(self) -> str:
        """Rises and falls in words."""
        steps, rises, falls = (self._padded(name).sum() for name in ("steps", "rises", "falls"))
        if not steps:
            return "too few to tell"
        return f"rises in {rises / steps:.0%}, falls in {falls / steps:.0%} of steps"

    def fault(self, meter: MeterSettings, unit_said: str | None = None) -> tuple[str, str] | None:
        """What is wrong with the kind of the settings and what to do; None: nothing is.

        Parameters
        ----------
        unit_said : str or None
            A unit that the file itself names for its readings.
        """
        if not self.readings:
            return None
        kind = meter.reading_kind
        steps, rises, falls, restarts, daily = (
            self._padded(name) for name in ("steps", "rises", "falls", "restarts", "daily")
        )
        by_day = (restarts >= RESTARTS) & (daily >= 0.8 * (restarts - 1))
        by_day &= (restarts >= 0.8 * falls) & (rises >= RISES_PER_RESTART * restarts)
        often = (falls >= POWER_FALLS) & (falls > POWER_FALL_SHARE * (rises + falls)) & ~by_day
        if meter.is_counter and often.any():
            return self._no_counter(np.flatnonzero(often), meter, unit_said)
        if kind is not ReadingKind.ENERGY_KWH_TODAY and by_day.any():
            places = np.flatnonzero(by_day)
            return (
                f"{self._name(places)} falls to about 0 once a day ({restarts[places[0]]:.0f}"
                " times): it looks like a counter that restarts each day",
                f"set ANOMALY_READING_KIND={ReadingKind.ENERGY_KWH_TODAY.value}",
            )
        if meter.is_counter:
            return None
        counts = (steps + 1 >= COUNTER_READINGS) & (rises >= COUNTER_VALUES)
        never = np.flatnonzero(counts & (falls <= FEW_FALLS * rises))
        if not never.size:
            return None
        first = -self._padded("first line")[never[0]]
        last = self._padded("last line")[never[0]]
        how = "never" if not falls[never[0]] else "hardly ever"
        return (
            f"{self._name(never)} {how} falls from line {first:.0f} to line {last:.0f}: it"
            " looks like a counter in kWh",
            f"set ANOMALY_READING_KIND={ReadingKind.ENERGY_KWH.value}",
        )

    def _no_counter(
        self, places: Ints, meter: MeterSettings, unit_said: str | None
    ) -> tuple[str, str]:
        place = places[0]
        rises, falls, most, total, positive = (
            self._padded(name)[place] for name in ("rises", "falls", "most", "sum", "positive")
        )
        mean = total / max(1, positive)
        per_interval = most * 60 / meter.interval_minutes
        power = (
            f"if it is mean power in W (at most {most / 1000:,.3g} kW), set"
            f" ANOMALY_READING_KIND={ReadingKind.POWER_W.value}"
        )
        energy = (
            f"if it is energy per interval in kWh (at most {per_interval:,.3g} kW), set"
            f" ANOMALY_READING_KIND={ReadingKind.ENERGY_KWH_PER_INTERVAL.value}"
        )
        is_energy = unit_said.endswith("h") if unit_said else mean < LARGE_INTERVAL
        advice = [power, energy] if is_energy else [energy, power]
        return (
            f"{self._name(places)} falls in {falls / (rises + falls):.0%} of the steps in"
            " which it changes: it is not a counter in kWh",
            "; ".join(advice),
        )

    def _name(self, places: Ints) -> str:
        """The first of some machines, and how many more there are."""
        more = len(places) - 1
        also = f" (and {more} more machine{'s' * (more > 1)})" if more else ""
        return f"{[*self.machines][places[0]]}{also}"


def _starts(machine: Ints) -> Ints:
    """Where each machine's rows begin, of rows that are sorted by machine."""
    return np.append(0, np.flatnonzero(np.diff(machine)) + 1)


def _shifted(column: npt.NDArray[Any], starts: Ints, before: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Each row's predecessor of the same machine; `before`: of the machine's first row."""
    shifted = np.empty_like(column)
    shifted[1:] = column[:-1]
    shifted[starts] = before
    return shifted


def unit_in(*texts: str) -> str | None:
    """The unit that a column's name, or the line below it, names: ``Wirkleistung [kW]``.

    What stands in brackets counts first. A unit of energy or power that is not read, such as GWh,
    is returned as it is.
    """
    for text in texts:
        plain = re.sub(r"kilowatt[- ]?hours?", "kWh", text, flags=re.IGNORECASE)
        in_brackets = " ".join(re.findall(r"[\[(]([^\[\]()]*)[\])]", plain))
        for part in (in_brackets, plain):
            for word in re.split(r"[^A-Za-z]+", part):
                if unit := _unit(word, part, sure=part is in_brackets):
                    return unit
    return None


def _unit(word: str, text: str, *, sure: bool) -> str | None:
    is_alone = sure or re.search(rf"^\W*{word}\W*$|_{word}$", text) is not None
    if word == "mW" or word.casefold() in _NOT_READ:
        return word if is_alone or word != "mW" else None
    unit = _UNITS.get(word.casefold())
    return unit if unit not in _WORDS or is_alone else None
