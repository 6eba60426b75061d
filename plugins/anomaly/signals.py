"""What the detector `signals` measures: a machine's power against its own usual day.

Every signal of a reading is a function of the readings of the `REACH` before it
alone. Sums over a span are taken in whole numbers, so they are exact and do not
depend on where a window starts.
"""

from datetime import timedelta
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.contradictions import REACH
from anomaly.schema import Quality
from anomaly.steps import microseconds
from anomaly.usual_day import DEVIATIONS, UsualDay
from anomaly.wording import beside_usual, kilowatts

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NAMES = (*DEVIATIONS, "change", "running_4h", "run", "pause", "idle_6h", "flat")
"""Order of the signals' columns."""

ONE_HOUR, FOUR_HOURS, SIX_HOURS, HALF_DAY = (timedelta(hours=n) for n in (1, 4, 6, 12))

_LOOKS = 16  # readings looked at to say what held throughout a span, evenly spaced
_OUTLIERS = 2  # of these on either side may say otherwise
_DENSE = 1.5  # times as many readings in a span as there are intervals: some come more often
_BLOCK = 100_000  # readings at once, where each looks at several
_NANO = 1e9
_MOST_KW = 1e9  # what is beyond counts as this: sums stay within 64 bits
_MICROSECONDS_PER_HOUR = 3_600_000_000


def measure_signals(readings: "Readings", chosen: Ints, interval: timedelta) -> Floats:
    """Compute every signal of chosen readings.

    Parameters
    ----------
    readings : Readings
        With those that precede the chosen ones by up to a day.
    chosen : array of int
        Their rows.
    interval : timedelta
        Of the meter.

    Returns
    -------
    array, shape (chosen, signal)
        In the order of `NAMES`. Deviations and change are on a logarithmic scale (asinh)
        of spreads, ``running_4h`` is in kW, ``run``, ``pause``, ``idle_6h`` and ``flat``
        are log hours. NaN where it cannot be told: first readings, meter faults, spans of
        which less than half is known; ``run`` and ``pause`` are known when one ends. Of a
        machine that training did not see, deviations and change alone can be told.
    """
    lasting, before = readings.lasting(chosen, interval), readings.before(chosen)
    scaled = _news(lasting, before, readings.usual, readings.hours[chosen], readings.size(chosen))
    return np.array([*scaled.T, *readings.others(chosen).T]).T


def _news(lasting: "Lasting", before: Floats, usual: UsualDay, hours: Ints, size: Floats) -> Floats:
    """Deviations in spreads of their hour, as far as they are news; on a logarithmic scale.

    A deviation that was there half a day ago already is none: a machine at a new level
    is told once, and judged by that level from then on.

    Parameters
    ----------
    before : array, shape (reading,), kW
        As `Readings.before` gives it.
    hours : array of int
        Places of the readings in the usual day's flattened arrays by hour.
    size : array, shape (reading,)
        As `Readings.size` gives it.
    """
    from_usual, from_before = lasting.deviations(0.0), lasting.deviations(before)
    news = np.empty_like(from_usual)
    for k in range(len(DEVIATIONS)):
        lower, upper = (side[k].ravel()[hours] * size for side in (usual.lower, usual.upper))
        one = _in_spreads(from_usual[:, k], lower, upper)
        other = _in_spreads(from_before[:, k], lower, upper)
        far = np.minimum(np.abs(one), np.abs(other)) - 1  # within a spread is nothing
        news[:, k] = np.arcsinh(np.sign(other) * np.maximum(far, 0))
    return news


def _in_spreads(deviation: Floats, lower: Floats, upper: Floats) -> Floats:
    spreads: Floats = deviation / np.where(deviation > 0, upper, lower)
    return spreads


class Lasting(NamedTuple):
    """How far power was from usual over the time before readings, kW; NaN where unknown.

    Attributes
    ----------
    mean : array
        Over an hour.
    least, most : array
        Over four hours, but for a few outliers.
    """

    mean: Floats
    least: Floats
    most: Floats

    def deviations(self, level: float | Floats) -> Floats:
        """Deviations from a level, in the order of `DEVIATIONS`.

        ``throughout_4h`` is what all readings agree on: nought where some are above the
        level and some below.
        """
        least, most = self.least - level, self.most - level
        held = np.where(least > 0, least, np.where(most < 0, most, least * 0))
        return np.array([self.mean - level, held]).T


class Readings:
    """Measured readings beside what is usual, and sums over the time before each.

    Parameters
    ----------
    measured : DataFrame
        As `anomaly.quality.measure` returns it, sorted by machine and time.
    usual : UsualDay

    Attributes
    ----------
    rows : array of int
        Row of each reading in the usual day; -1, the fleet's, where training did not see
        its machine.
    cells, hours : array of int
        Places in the usual day's flattened arrays by slot and by hour.
    power, expected_kw, level : array
        Power, what is usual, and how far it is from that, kW; NaN where unknown.
    """

    def __init__(self, measured: pd.DataFrame, usual: UsualDay) -> None:
        self.usual = usual
        self.rows = usual.rows(measured["machine_id"].to_numpy())
        self.ticks = microseconds(measured["utc_timestamp"])
        self.cells, self.hours, self._week = usual.cells(self.ticks, self.rows)
        sound = measured["tells"].to_numpy() & (measured["quality"].to_numpy() < Quality.STUCK)
        power = np.where(sound, measured["power_kw"].to_numpy(), np.nan)
        self.power = np.clip(power, -_MOST_KW, _MOST_KW)
        self.expected_kw = usual.median.ravel()[self.cells]
        self.level = self.power - self.expected_kw
        self._flat_hours = measured["flat_hours"].to_numpy()
        covered = np.fmin(measured["elapsed_hours"].to_numpy(), measured["step_hours"].to_numpy())
        self._elapsed = np.where(np.isfinite(covered), covered, 0.0)
        self._keys = self._time_in_lanes(measured["machine_id"].to_numpy())
        self._found: dict[timedelta, tuple[Ints, Ints]] = {}
        self._known_time = self._time_where(np.isfinite(self.power))

    def lasting(self, chosen: Ints, interval: timedelta) -> Lasting:
        """How far power was from usual over the time before chosen readings."""
        mean = self._mean(self._level_energy, self._known_time, chosen, ONE_HOUR)
        return Lasting(mean, *self._throughout(chosen, FOUR_HOURS, interval))

    def before(self, chosen: Ints) -> Floats:
        """How far power was from usual 12 to 24 hours before chosen readings, kW.

        A mean, weighted by how steady each hour usually is; nought where too little is known.
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

    def size(self, chosen: Ints) -> Floats:
        """How many times as much as usual of the fleet a machine drew 4 to 24 hours before.

        At least 1, and 1 for a machine that training saw: a new one may be larger than the
        others, and its noise with it. NaN where too little is known or it stood still.
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
        least = self.usual.least[-1] * _NANO * time / _MICROSECONDS_PER_HOUR
        enough = (time >= HALF_DAY / timedelta(microseconds=1)) & (drawn != 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            times = np.maximum(np.abs(drawn) / np.maximum(usual, least), 1)
        size[new] = np.where(enough, times, np.nan)
        return size

    def others(self, chosen: Ints) -> Floats:
        """The signals that need no usual day, in the order of `NAMES`."""
        rows = self.rows[chosen]
        change = self.change(chosen) / (self.usual.least[rows] * self.size(chosen))
        return np.array(
            [
                np.arcsinh(change),
                self._mean(*self._running, chosen, FOUR_HOURS),
                *self._ended(chosen),
                np.log1p(self._idle(chosen, SIX_HOURS)),
                np.where(rows >= 0, np.log1p(self._flat_hours[chosen]), np.nan),
            ]
        ).T

    def means(self, chosen: Ints, span: timedelta) -> tuple[Floats, Floats]:
        """Mean power, and what is usual, over what is known of a span before readings, kW."""
        energy, known = self._energy(self.power), self._known_time
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
        """A number that rises with time within a machine, and by more than a day between two."""
        if not len(machines):
            return np.empty(0, np.int64)
        lane = np.cumsum(np.diff(machines, prepend=machines[0]) != 0)
        width = int(np.ptp(self.ticks)) + int(REACH / timedelta(microseconds=1)) + 1
        keys: Ints = lane * width + (self.ticks - self.ticks.min())
        return keys

    def _time_where(self, known: Bools) -> Ints:
        """Running total of microseconds metered by readings that are known."""
        return _running_total(np.where(known, self._elapsed * _MICROSECONDS_PER_HOUR, 0))

    def _energy(self, power: Floats) -> Ints:
        """Running total of nano-kWh; what is not known counts as nought."""
        return _running_total(np.nan_to_num(power) * self._elapsed * _NANO)

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
        """Mean power over the intervals that lie wholly in the `span` before each chosen reading.

        Parameters
        ----------
        energy, known_time : array of int
            Running totals of nano-kWh, and of the microseconds that they are of.
        least : float
            Share of the span that must be known.
        """
        first = self.earliest(chosen, span)
        covered = known_time[chosen] - known_time[first]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (energy[chosen] - energy[first]) / _NANO / (covered / _MICROSECONDS_PER_HOUR)
        return np.where(covered >= span / timedelta(microseconds=1) * least, mean, np.nan)

    def _throughout(
        self, chosen: Ints, span: timedelta, interval: timedelta
    ) -> tuple[Floats, Floats]:
        """Least and most level in the span before each chosen reading, but for outliers."""
        intervals = span / interval
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
        """Rows to look at where a meter reports more often than each interval."""
        step = span // timedelta(microseconds=1) // _LOOKS
        asked = self._keys[chosen, None] - np.arange(_LOOKS) * step
        rows: Ints = np.searchsorted(self._keys, asked, side="right") - 1
        return rows

    def change(self, chosen: Ints) -> Floats:
        """Change of power since the reading before; both intervals lie within a day."""
        change = np.diff(self.power, prepend=np.nan)[chosen]
        return np.where(chosen - 2 < self.earliest(chosen, REACH), np.nan, change)

    def _idle(self, chosen: Ints, span: timedelta) -> Floats:
        """Hours of the span in which the machine stood still though it usually runs then."""
        limit = self._limit
        idle = (self.power <= limit) & self.usual.usually_runs.ravel()[self._week]
        time = self._time_where(idle & np.isfinite(limit))
        first = self.earliest(chosen, span)
        known = self._known_time[chosen] - self._known_time[first]
        told = np.isfinite(limit[chosen]) & (known >= span / timedelta(microseconds=1) / 2)
        return np.where(told, (time[chosen] - time[first]) / _MICROSECONDS_PER_HOUR, np.nan)

    def _ended(self, chosen: Ints) -> tuple[Floats, Floats]:
        """Log hours of the run, and of the pause, that a reading ends; a day at most."""
        limit = self._limit
        known = np.isfinite(self.power) & np.isfinite(limit)
        state = np.where(known, (self.power > limit).astype(np.int64), -1)
        begins = np.diff(state, prepend=-2) != 0
        begun = np.maximum.accumulate(np.where(begins, np.arange(len(state)), 0))
        inside = self.earliest(chosen, REACH) + 2  # a change needs the interval before as well
        previous = np.maximum(chosen - 1, 0)
        start = begun[previous]
        seen = start >= inside
        hours = (self.ticks[chosen] - self.ticks[start]) / _MICROSECONDS_PER_HOUR
        hours = np.where(seen, hours, REACH / timedelta(hours=1))
        ended = begins[chosen] & (chosen >= inside) & (state[chosen] >= 0) & (state[previous] >= 0)
        ended &= ~seen | (state[np.maximum(start - 1, 0)] >= 0)
        with np.errstate(divide="ignore"):
            log = np.where(ended & (hours > 0), np.log(hours), np.nan)
        ran = state[previous] == 1
        return np.where(ran, log, np.nan), np.where(ran, np.nan, log)


def explain(
    readings: Readings, chosen: Ints, signal: Ints, centre: Floats, interval: timedelta
) -> list[str]:
    """Say in words what a signal found: what was measured, over which time, and the usual.

    Times are on the machine's own clock, and end where the reading's interval does.

    Parameters
    ----------
    chosen : array of int
        Rows of the readings.
    signal : array of int
        For each the place of its signal in `NAMES`.
    centre : array, shape (reading, signal)
        What each signal usually is on the machine.
    """
    spans = {"level_1h": ONE_HOUR, "throughout_4h": FOUR_HOURS}
    means = {name: readings.means(chosen, span) for name, span in spans.items()}
    others = readings.others(chosen)
    words = []
    for n, k in enumerate(signal.tolist()):
        name, row = NAMES[k], int(chosen[n])
        to = _clock(readings, row, interval)
        if name in spans:
            power, usual = (float(mean[n]) for mean in means[name])
            of_fleet = " of this fleet" if readings.rows[row] < 0 else ""
            hours = spans[name] / timedelta(hours=1)
            says = (
                f"{beside_usual(power, usual)}{of_fleet}, on average over the {hours:.0f} h to {to}"
            )
        elif name == "change":
            before, after = (kilowatts(readings.power[at]) for at in (row - 1, row))
            says = f"power went from {before} kW to {after} kW in the interval to {to}"
        else:
            found, usually = others[n, k - len(DEVIATIONS)], centre[n, k]
            says = _other(name, float(found), float(usually), to)
        words.append(says + ("; not trained yet" if readings.rows[row] < 0 else ""))
    return words


def _clock(readings: Readings, row: int, interval: timedelta) -> str:
    """End of a reading's interval on its machine's clock."""
    zone = str(readings.usual.time_zones[readings.rows[row]])
    start = pd.Timestamp(int(readings.ticks[row]), unit="us", tz="UTC")
    return f"{(start + interval).tz_convert(zone):%a %H:%M}"


def _other(name: str, found: float, usually: float, to: str) -> str:
    if name == "flat":
        return f"no change for {np.expm1(found):.1f} h to {to}"
    if name == "running_4h":
        return f"ran at {beside_usual(found, usually)}, on average over the 4 h to {to}"
    if name == "idle_6h":
        return (
            f"stood still for {np.expm1(found):.1f} h of the 6 h to {to},"
            " at a time at which it usually runs"
        )
    ended = "stopped after a run" if name == "run" else "started after a pause"
    return f"{ended} of {_hours(found)} in the interval to {to}, usually {_hours(usually)}"


def _hours(log: float) -> str:
    longest = REACH / timedelta(hours=1)
    hours = float(np.exp(log))
    return f"{longest:.0f} h or more" if hours > longest - 1e-6 else f"{hours:.1f} h"


def _extremes(looked: Floats, enough: float) -> tuple[Floats, Floats]:
    """Least and most of each row but for outliers, NaN where no more than `enough` are known."""
    looked.sort(axis=1)  # unknown ones last
    known = np.isfinite(looked).sum(axis=1)
    outliers = known * _OUTLIERS // _LOOKS
    each = np.arange(len(looked))
    least, most = looked[each, outliers], looked[each, np.maximum(known - 1 - outliers, 0)]
    return np.where(known > enough, least, np.nan), np.where(known > enough, most, np.nan)


def _running_total(amounts: Floats) -> Ints:
    """Running sum of amounts rounded to whole numbers: exact, whatever went before."""
    total: Ints = np.cumsum(np.rint(amounts).astype(np.int64))
    return total
