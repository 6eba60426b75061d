"""Measure the signals: a machine's power against its own usual day.

A signal depends only on the reading and on the readings of the `REACH` before it. Sums over a
span are sums of whole numbers, so they are exact and do not depend on where a window starts.
`anomaly.detectors.signals.explaining` says the same in words.
"""

from datetime import timedelta
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import MICROSECONDS_PER_HOUR, Bools, Floats, Ints
from anomaly.detectors.signals.shape import misfit
from anomaly.detectors.signals.usual_day import DEVIATIONS, UsualDay
from anomaly.readings.contradictions import REACH
from anomaly.readings.measuring import is_restart
from anomaly.readings.preprocessing import microseconds
from anomaly.readings.quality import Quality

NAMES = (
    *DEVIATIONS,
    "power_1h",
    "change",
    "shape_6h",
    "running_4h",
    "run",
    "pause",
    "idle_6h",
    "flat",
)
"""The signals, in the order of their columns. Artefacts store it: a new signal or another order
needs a new training."""

ONE_SIDED = ("shape_6h",)
"""Signals of which only high values are abnormal: a course may be as usual as it likes."""

ONE_HOUR, FOUR_HOURS, SIX_HOURS, HALF_DAY = (timedelta(hours=n) for n in (1, 4, 6, 12))

_LOOKS = 16
"""Readings that are looked at, evenly spaced, to say what held throughout a span. Four hours of
15-minute readings are sixteen, so there none is left out."""
_OUTLIERS = 2
"""Of `_LOOKS` readings so many of the highest, and of the lowest, may contradict the others.
Chosen on injected faults (docs/explanation/detection-lab-report.md, "How it was chosen")."""
_DENSE = 1.5
"""A span with more than this many times its number of intervals holds extra readings: then the
readings are picked by time, not by number. Chosen: a few doubled readings do no harm."""
_BLOCK = 100_000
"""Readings that are looked at at once; each needs `_LOOKS` places, so memory stays flat."""
_NANO = 1e9
"""Nano-kWh in a kWh: energies are summed as whole numbers of them."""
_MOST_KW = 1e9
"""Higher power counts as this much. A running sum may pass 64 bits and wrap; a difference of two is
right all the same up to 2**63 nano-kWh: nine hours at this power, or a day at 380 million kW."""


def measure_signals(readings: "Readings", chosen: Ints) -> Floats:
    """Compute every signal of chosen readings.

    Parameters
    ----------
    readings : Readings
        With those that precede the chosen ones by up to a day.
    chosen : array of int
        Their rows.

    Returns
    -------
    array, shape (chosen, signal)
        In the order of `NAMES`. The two deviations and ``change`` are spreads on a logarithmic
        scale (asinh), ``power_1h`` and ``running_4h`` are in kW, ``shape_6h`` is a logarithm of
        kW, and ``run``, ``pause``, ``idle_6h`` and ``flat`` are logarithms of hours. NaN where a
        signal is not known: for the first readings of counts, meter faults, and spans of which
        less than half is known; for ``shape_6h``, where any is unknown. ``run`` and ``pause`` are
        known only where one ends. For a machine that training did not see, only the deviations and
        ``change`` are known.
    """
    lasting, before = readings.lasting(chosen), readings.level_before(chosen)
    scaled = _new_deviations(lasting, before, readings, chosen)
    power = _new_power(lasting, before, readings, chosen)
    found = dict(zip(DEVIATIONS, scaled.T, strict=True)) | {"power_1h": power}
    found |= readings.other_signals(chosen)
    signals = np.array([found[name] for name in NAMES]).T
    signals[readings.restarts[chosen]] = np.nan
    return signals


def new_power(readings: "Readings", chosen: Ints) -> Floats:
    """The signal ``power_1h`` of chosen readings, in kW."""
    return _new_power(readings.lasting(chosen), readings.level_before(chosen), readings, chosen)


def _new_power(lasting: "Lasting", before: Floats, readings: "Readings", chosen: Ints) -> Floats:
    """Mean power of an hour in kW, as far as it is news: between the usual and the measured.

    By the same rule as `_new_deviations`, in kW.
    """
    usual = readings.hour_mean(chosen) - lasting.mean
    news = _in_both(lasting.mean, lasting.mean - before)
    return np.where(readings.rows[chosen] >= 0, usual + news, np.nan)


def _new_deviations(
    lasting: "Lasting", before: Floats, readings: "Readings", chosen: Ints
) -> Floats:
    """Deviations that are news, in spreads of their hour, on a logarithmic scale.

    A deviation counts only as far as power differs both from usual and from half a day ago. So a
    machine that moves to a new level is reported once, and judged by that level afterwards. Within
    one spread it is usual; within what is worth telling it counts only once it has lasted. A
    machine that is on its way back to usual is no news, though power is not as it was half a day
    ago.

    Parameters
    ----------
    before : array, shape (chosen,), kW
        As `Readings.level_before` returns it.
    """
    size = readings.size_in_fleet(chosen)
    usual, hours = readings.usual, readings.hours[chosen]
    from_usual, from_before = lasting.deviations(0.0), lasting.deviations(before)
    news = np.empty_like(from_usual)
    for k, name in enumerate(DEVIATIONS):
        lower, upper = (side[k].ravel()[hours] * size for side in (usual.lower, usual.upper))
        one = _in_spreads(from_usual[:, k], lower, upper)
        other = _in_spreads(from_before[:, k], lower, upper)
        least = 1.0
        if name == "level_1h":
            worth = usual.worth_telling[readings.rows[chosen]] * size
            least = np.maximum(1.0, worth / np.where(other > 0, upper, lower))
        both = _in_both(one, other)
        news[:, k] = np.arcsinh(np.sign(both) * np.maximum(np.abs(both) - least, 0))
    return news


def _in_both(one: Floats, other: Floats) -> Floats:
    """What two deviations have in common: the smaller one, or 0 if they are opposite."""
    smaller: Floats = np.sign(other) * np.minimum(np.abs(one), np.abs(other))
    return np.where(one * other < 0, 0.0, smaller)


def _in_spreads(deviation: Floats, lower: Floats, upper: Floats) -> Floats:
    spreads: Floats = deviation / np.where(deviation > 0, upper, lower)
    return spreads


class Lasting(NamedTuple):
    """How far power was from usual over the time before readings, in kW; NaN where unknown.

    Attributes
    ----------
    mean : array
        The mean of an hour.
    least, most : array
        The lowest and the highest of four hours, without a few outliers.
    """

    mean: Floats
    least: Floats
    most: Floats

    def deviations(self, level: float | Floats) -> Floats:
        """Deviations from a level in kW, shape (reading, deviation), in the order of `DEVIATIONS`.

        ``throughout_4h`` is the deviation that all readings share: 0 where some are above the
        level and some are below.
        """
        least, most = self.least - level, self.most - level
        held = np.where(least > 0, least, np.where(most < 0, most, least * 0))
        return np.array([self.mean - level, held]).T


class Readings:
    """Measured readings beside what is usual, and sums over the time before each.

    Every span is at least one interval long. A shorter one would hold no whole interval, and
    nothing would be known of it.

    Parameters
    ----------
    measured : DataFrame
        As `anomaly.readings.measuring.measure` returns it, sorted by machine and time.
    usual : UsualDay
    interval : timedelta
        The meter's; a day at most.

    Attributes
    ----------
    rows : array of int
        Row of each reading in the usual day; -1, the fleet's, where training did not see
        its machine.
    cells, hours : array of int
        Places in the usual day's flattened arrays by slot and by hour.
    power, expected_kw, level : array
        Power, the usual power, and the difference of the two, in kW; NaN where unknown.
    restarts : array of bool
        First readings of new counts, of counters that restart each day.
    """

    def __init__(self, measured: pd.DataFrame, usual: UsualDay, interval: timedelta) -> None:
        self.usual = usual
        self.interval = interval
        self.rows = usual.rows(measured["machine_id"].to_numpy())
        self.ticks = microseconds(measured["utc_timestamp"])
        self.cells, self.hours, self._week = usual.cells(self.ticks, self.rows)
        sound = measured["informative"].to_numpy() & (
            measured["quality"].to_numpy() < Quality.STUCK
        )
        power = np.where(sound, measured["power_kw"].to_numpy(), np.nan)
        self.power = np.clip(power, -_MOST_KW, _MOST_KW)
        self.expected_kw = usual.median.ravel()[self.cells]
        self.level = self.power - self.expected_kw
        self.restarts = is_restart(measured)
        self._flat_hours = measured["flat_hours"].to_numpy()
        covered = np.fmin(measured["elapsed_hours"].to_numpy(), measured["step_hours"].to_numpy())
        self._elapsed = np.where(np.isfinite(covered), covered, 0.0)
        self._keys = self._time_in_lanes(measured["machine_id"].to_numpy())
        self._found: dict[timedelta, tuple[Ints, Ints]] = {}
        self._even_power: dict[int, Floats] = {}
        self._known_time = self._time_where(np.isfinite(self.power))

    def span(self, span: timedelta) -> timedelta:
        """A span, or one interval of the meter where that is longer."""
        return max(span, self.interval)

    def lasting(self, chosen: Ints) -> Lasting:
        """How far power was from usual over the time before chosen readings."""
        mean = self._mean(self._level_energy, self._known_time, chosen, ONE_HOUR)
        return Lasting(mean, *self._throughout(chosen, FOUR_HOURS))

    def level_before(self, chosen: Ints) -> Floats:
        """How far power was from usual 12 to 24 hours before chosen readings, in kW.

        It is a mean, weighted by how steady each hour usually is; 0 where too little is known.
        """
        weight = self.usual.weight.ravel()[self.hours] * self._elapsed * _NANO
        weights = _running_total(np.where(np.isfinite(self.level), weight, 0))
        sums = _running_total(np.nan_to_num(self.level) * weight)
        first, last = self.earliest(chosen, REACH), self.earliest(chosen, HALF_DAY)
        known = self._known_time[last] - self._known_time[first]
        with np.errstate(invalid="ignore", divide="ignore"):
            before = (sums[last] - sums[first]) / (weights[last] - weights[first])
        enough = known >= FOUR_HOURS / timedelta(microseconds=1)
        return np.where(enough & np.isfinite(before), before, 0.0)

    def size_in_fleet(self, chosen: Ints) -> Floats:
        """How many times the fleet's usual power a machine drew 4 to 24 hours before.

        At least 1, and 1 for a machine that training saw. A new machine may be larger than the
        others, and its noise grows with it. NaN where too little is known or it stood still.
        """
        size, new = np.ones(len(chosen)), np.flatnonzero(self.rows[chosen] < 0)
        if not len(new):
            return size
        first, last = (self.earliest(chosen[new], span) for span in (REACH, FOUR_HOURS))
        known = np.isfinite(self.level)
        totals = [
            self._time_where(known),
            *(self._energy(np.where(known, power, 0)) for power in (self.power, self.expected_kw)),
        ]
        time, drawn, usual = (total[last] - total[first] for total in totals)
        least = self.usual.least[-1] * _NANO * time / MICROSECONDS_PER_HOUR
        enough = (time >= HALF_DAY / timedelta(microseconds=1)) & (drawn != 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            times = np.maximum(np.abs(drawn) / np.maximum(usual, least), 1)
        size[new] = np.where(enough, times, np.nan)
        return size

    def other_signals(self, chosen: Ints) -> dict[str, Floats]:
        """The signals that need no news, by name."""
        rows, size = self.rows[chosen], self.size_in_fleet(chosen)
        least, worth = self.usual.least[rows], self.usual.worth_telling[rows]
        change = self.change(chosen)
        change = np.where(np.abs(change) < worth * size, 0.0, change) / (least * size)
        # A stretch that is off by so much moves a course by half of it at most.
        off = np.maximum(misfit(self, chosen), worth / 2)
        run, pause = self._ended(chosen)
        return {
            "change": np.arcsinh(change),
            "shape_6h": np.log(off + least),
            "running_4h": self._mean(*self._running, chosen, FOUR_HOURS),
            "run": run,
            "pause": pause,
            "idle_6h": np.log1p(self._idle(chosen, SIX_HOURS)),
            "flat": np.where(rows >= 0, np.log1p(self._flat_hours[chosen]), np.nan),
        }

    def hour_mean(self, chosen: Ints) -> Floats:
        """Mean power in kW over the hour before chosen readings."""
        return self._mean(self._power_energy, self._known_time, chosen, ONE_HOUR)

    def evenly_spaced_power(self, each: int) -> Floats:
        """Mean power in kW over the `each` intervals up to every reading, computed once.

        NaN where any of them is unknown, or a reading is missing among them.
        """
        if each not in self._even_power:
            self._even_power[each] = self._evenly_spaced_power(each)
        return self._even_power[each]

    def _evenly_spaced_power(self, each: int) -> Floats:
        if each == 1:
            whole = np.abs(self._elapsed * MICROSECONDS_PER_HOUR - self._step) <= self._step / 2
            return np.where(whole, self.power, np.nan)
        every = np.arange(len(self.power))
        first = np.maximum(every - each, 0)
        known = self._known_time - self._known_time[first]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (self._power_energy - self._power_energy[first]) / _NANO
            mean /= known / MICROSECONDS_PER_HOUR
        whole = (np.abs(known - each * self._step) <= self._step / 2) & self.is_apart(
            first, every, each
        )
        return np.where(whole, mean, np.nan)

    def is_apart(self, first: Ints, last: Ints, intervals: int) -> Bools:
        """Whether pairs of readings are of one machine and so many intervals apart, or nearly."""
        apart: Bools = (
            np.abs(self._keys[last] - self._keys[first] - intervals * self._step) <= self._step / 2
        )
        return apart

    def means(self, chosen: Ints, span: timedelta) -> tuple[Floats, Floats]:
        """Mean power and mean usual power, in kW, over the known part of a span before readings."""
        energy, known = self._power_energy, self._known_time
        power = self._mean(energy, known, chosen, span, least=0)
        return power, power - self._mean(self._level_energy, known, chosen, span, least=0)

    def earliest(self, chosen: Ints, span: timedelta) -> Ints:
        """Row of the machine's earliest reading no more than `span` before each chosen one."""
        asked, rows = self._found.get(span, (None, chosen))
        if asked is not chosen:
            length = int(span / timedelta(microseconds=1))
            rows = np.searchsorted(self._keys, self._keys[chosen] - length, side="left")
            self._found[span] = chosen, rows
        return rows

    def _time_in_lanes(self, machines: npt.NDArray[np.generic]) -> Ints:
        """One ascending number for each machine and time.

        Machines lie more than a `REACH` apart, so that a search back in time never finds a
        reading of another machine.
        """
        if not len(machines):
            return np.empty(0, np.int64)
        lane = np.cumsum(np.diff(machines, prepend=machines[0]) != 0)
        width = int(np.ptp(self.ticks)) + int(REACH / timedelta(microseconds=1)) + 1
        keys: Ints = lane * width + (self.ticks - self.ticks.min())
        return keys

    def _time_where(self, known: Bools) -> Ints:
        """Running total of microseconds metered by readings that are known."""
        return _running_total(np.where(known, self._elapsed * MICROSECONDS_PER_HOUR, 0))

    def _energy(self, power: Floats) -> Ints:
        """Running total of nano-kWh; unknown power counts as 0."""
        return _running_total(np.nan_to_num(power) * self._elapsed * _NANO)

    @property
    def _step(self) -> int:
        """Microseconds of an interval."""
        return int(self.interval / timedelta(microseconds=1))

    @cached_property
    def _power_energy(self) -> Ints:
        return self._energy(self.power)

    @cached_property
    def _level_energy(self) -> Ints:
        return self._energy(self.level)

    @cached_property
    def _limit(self) -> Floats:
        """Power above which the machine of each reading runs."""
        return self.usual.running_above[self.rows]

    @cached_property
    def _running(self) -> tuple[Ints, Ints]:
        """Running totals of energy and of time while running."""
        runs = self.power > self._limit
        return self._energy(np.where(runs, self.power, 0)), self._time_where(runs)

    def _mean(
        self, energy: Ints, known_time: Ints, chosen: Ints, span: timedelta, least: float = 0.5
    ) -> Floats:
        """Mean power in kW over the intervals that lie wholly in the `span` before chosen readings.

        Parameters
        ----------
        energy, known_time : array of int
            Running totals of nano-kWh, and of the microseconds in which they were metered.
        least : float
            Share of the span that must be known; NaN where less is.
        """
        span = self.span(span)
        first = self.earliest(chosen, span)
        covered = known_time[chosen] - known_time[first]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (energy[chosen] - energy[first]) / _NANO / (covered / MICROSECONDS_PER_HOUR)
        return np.where(covered >= span / timedelta(microseconds=1) * least, mean, np.nan)

    def _throughout(self, chosen: Ints, span: timedelta) -> tuple[Floats, Floats]:
        """Lowest and highest level in the span before each chosen reading, without outliers."""
        span = self.span(span)
        intervals = span / self.interval
        ago = np.arange(_LOOKS) * max(_LOOKS, int(intervals)) // _LOOKS
        first = self.earliest(chosen, span)
        least, most = np.empty(len(chosen)), np.empty(len(chosen))
        for begin in range(0, len(chosen), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            back = chosen[block, None] - ago
            dense = chosen[block] - first[block] > _DENSE * intervals
            if dense.any():
                back[dense] = self._at_even_times(chosen[block][dense], span)
            inside = back > first[block, None]
            looked = np.where(inside, self.level[np.maximum(back, 0)], np.nan)
            least[block], most[block] = _extremes(looked, min(intervals, _LOOKS) / 2)
        return least, most

    def _at_even_times(self, chosen: Ints, span: timedelta) -> Ints:
        """Rows to look at where a meter reports more often than once per interval."""
        step = span // timedelta(microseconds=1) // _LOOKS
        asked = self._keys[chosen, None] - np.arange(_LOOKS) * step
        rows: Ints = np.searchsorted(self._keys, asked, side="right") - 1
        return rows

    def change(self, chosen: Ints) -> Floats:
        """Change of power since the reading before, in kW; NaN where that lies over a day back."""
        change = np.diff(self.power, prepend=np.nan)[chosen]
        return np.where(chosen - 2 < self.earliest(chosen, REACH), np.nan, change)

    def _idle(self, chosen: Ints, span: timedelta) -> Floats:
        """Hours of the span in which the machine stood still though it usually runs then."""
        span = self.span(span)
        limit = self._limit
        idle = (self.power <= limit) & self.usual.usually_runs.ravel()[self._week]
        time = self._time_where(idle & np.isfinite(limit))
        first = self.earliest(chosen, span)
        known = self._known_time[chosen] - self._known_time[first]
        is_known = np.isfinite(limit[chosen]) & (known >= span / timedelta(microseconds=1) / 2)
        return np.where(is_known, (time[chosen] - time[first]) / MICROSECONDS_PER_HOUR, np.nan)

    def _ended(self, chosen: Ints) -> tuple[Floats, Floats]:
        """Logarithm of the hours of the run, and of the pause, that a reading ends.

        NaN where a reading ends none. What began before the `REACH` counts as a day: farther
        back no signal may look.
        """
        limit = self._limit
        known = np.isfinite(self.power) & np.isfinite(limit)
        state = np.where(known, (self.power > limit).astype(np.int64), -1)
        begins = np.diff(state, prepend=-2) != 0
        begun = np.maximum.accumulate(np.where(begins, np.arange(len(state)), 0))
        inside = self.earliest(chosen, REACH) + 2  # a change of state needs two known intervals
        previous = np.maximum(chosen - 1, 0)
        start = begun[previous]
        seen = start >= inside
        hours = (self.ticks[chosen] - self.ticks[start]) / MICROSECONDS_PER_HOUR
        hours = np.where(seen, hours, REACH / timedelta(hours=1))
        ended = begins[chosen] & (chosen >= inside) & (state[chosen] >= 0) & (state[previous] >= 0)
        ended &= ~seen | (state[np.maximum(start - 1, 0)] >= 0)
        with np.errstate(divide="ignore"):
            log = np.where(ended & (hours > 0), np.log(hours), np.nan)
        ran = state[previous] == 1
        return np.where(ran, log, np.nan), np.where(ran, np.nan, log)


def _extremes(looked: Floats, enough: float) -> tuple[Floats, Floats]:
    """Lowest and highest known number of each row, without outliers.

    NaN where `enough` or fewer are known. Sorts `looked` in place.
    """
    looked.sort(axis=1)  # NaN goes last
    known = np.isfinite(looked).sum(axis=1)
    outliers = known * _OUTLIERS // _LOOKS
    each = np.arange(len(looked))
    least, most = looked[each, outliers], looked[each, np.maximum(known - 1 - outliers, 0)]
    return np.where(known > enough, least, np.nan), np.where(known > enough, most, np.nan)


def _running_total(amounts: Floats) -> Ints:
    """Running sum of amounts rounded to whole numbers: exact, whatever went before."""
    total: Ints = np.cumsum(np.rint(amounts).astype(np.int64))
    return total
