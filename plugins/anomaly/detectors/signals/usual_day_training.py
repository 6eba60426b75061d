"""Learn the usual day of each machine from training readings, and hold signals out of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import Bools, Floats, Ints
from anomaly.detectors.quantiles import cell_quantiles, quantiles
from anomaly.detectors.signals.holiday_calendars import numbered_calendars
from anomaly.detectors.signals.shape import PARTS, courses, learn_courses, points
from anomaly.detectors.signals.signals import NAMES, Readings, measure_signals
from anomaly.detectors.signals.usual_day import (
    DAY_TYPES,
    DEVIATIONS,
    HOURS,
    WEEK,
    UsualDay,
    day_types,
    local_slots,
    with_holidays,
)
from anomaly.readings.preprocessing import microseconds
from anomaly.settings import MeterSettings, TrainingSettings

# Unless a comment names another source, a number was chosen on injected faults, on draws that the
# reported figures do not use: docs/explanation/detection-lab-report.md,
# "How it was chosen, and what that is worth".

FOLDS = 5
"""Stretches of each machine's time, or groups of a fleet's machines. Each is judged by a usual day
of the others, so calibration sees signals as later weeks give them. Chosen: as in 5-fold
cross-validation."""

_EACH_COURSE = 5
"""Every fifth course is learnt: neighbours are nearly the same. Chosen: no divisor of a day, so all
times of day are seen."""

_SMOOTHING = timedelta(hours=1)
"""Usual power pools the slots of so long before and after its own: a shift does not begin to the
minute. With an interval longer than this nothing is pooled."""

_BAND = (0.02, 0.98)
"""Quantiles of a deviation that its spreads are read off: 96 % of training readings lie between."""

_BAND_SIGMAS = 2.0537
"""Standard deviations from the median of a normal distribution to its 98 % quantile."""

_RANGE = (0.05, 0.995)
"""Quantiles of power that are a machine's range, P5 and P99.5, as in the fault injector."""

_LEAST_SHARE, _LEAST_KW = 0.005, 0.02
"""No spread is smaller than this share of the machine's range, nor than so many kW. A counter of
0.001 kWh that is read every 15 minutes shows power in steps of 0.004 kW."""

_STOPS = 0.1
"""A machine stops now and then when its P5 is at most this share of its P99.5. As in the fault
injector (`anomaly.evaluation.ordinary_days`), which may not be imported here."""

_RUNNING = 0.25
"""A machine that stops runs above its P5 plus this share of its range. As in the fault injector."""

_USUALLY = 0.7
"""A machine usually runs at an hour of the week at which more than this share of readings ran."""

_WEEKS_SEEN = 3
"""An hour of the week with readings of fewer weeks is not known. As in the fault injector."""

_FEWEST_PER_PLACE = 3
"""Numbers per slot or hour, on average, below which a day type takes the numbers of all days: two
weekends have 4 for each. Chosen."""

_DAYS_OF_A_SHORT_TRAINING = 7
"""A training shorter than this many days is cut into as many pieces: the tails need about that many
highest values. Chosen: 7 days is the default of ``training_min_days``."""

_DAY, _WEEK = (int(timedelta(days=days) / timedelta(microseconds=1)) for days in (1, 7))


@dataclass(frozen=True)
class Machines:
    """What is known of machines besides their readings; arrays have one entry per machine.

    Attributes
    ----------
    ids : array of int, sorted
    zones : array of str
        Their time zones.
    calendars : array of str
        Their holiday calendars, as `holiday_days` takes them; empty: none.
    """

    ids: Ints
    zones: npt.NDArray[np.str_]
    calendars: npt.NDArray[np.str_]

    def some(self, chosen: Bools | Ints | slice) -> "Machines":
        """Some of the machines."""
        return Machines(self.ids[chosen], self.zones[chosen], self.calendars[chosen])


class TrainingReadings:
    """Training readings, and the usual day that they give.

    Parameters
    ----------
    measured : DataFrame
        Measured readings without meter faults, sorted by machine and time.
    machines : Machines
        Those of the readings.
    meter : MeterSettings
    training : TrainingSettings
    only_news : bool
        Whether a deviation counts only as far as power was not like that half a day ago, too.

    Attributes
    ----------
    lanes : array of int
        Machine of each reading, as its place in `machines`.
    rows : array of int
        Row of the usual day that each reading teaches: here the machine's own.
    count : int
        Number of rows.
    ticks : array of int
        Time of each reading, in microseconds.
    highest : array, shape (row,)
        The most that each usually draws, in kW: P99.5.
    usual : UsualDay
        Learnt from all readings.
    """

    def __init__(
        self,
        measured: pd.DataFrame,
        machines: Machines,
        meter: MeterSettings,
        training: TrainingSettings,
        *,
        only_news: bool = True,
    ) -> None:
        self.interval = meter.interval
        self._meter, self._training = meter, training
        self._only_news = only_news
        self._measured = measured
        self._machines = machines
        self.lanes: Ints = np.searchsorted(machines.ids, measured["machine_id"].to_numpy())
        self.rows, self.count = self._rows()
        self.ticks = microseconds(measured["utc_timestamp"])
        self._power = measured["power_kw"].to_numpy()
        self._slots = max(1, int(timedelta(days=1) / self.interval))
        days, self._places = local_slots(self.ticks, self.lanes, machines.zones, self._slots)
        calendar, holidays = numbered_calendars(machines.calendars, days)
        weekdays = with_holidays(days, calendar[self.lanes], holidays)
        self._types = day_types(weekdays)
        self._hours = weekdays * HOURS + self._places * HOURS // self._slots
        self._hours_seen_often = self._find_hours_seen_often()
        low, high = quantiles(self._power, self.rows, self.count, _RANGE)
        self.highest = np.maximum(np.maximum(np.abs(low), np.abs(high)), _LEAST_KW)
        everything = np.ones(len(measured), dtype=bool)
        blank = self._blank(low, high, calendar, holidays)
        self.usual = self._with_usual_power(blank, everything)
        readings = Readings(measured, self.usual, self.interval)
        every = np.arange(len(measured))
        self._level = readings.level
        self._deviations = readings.lasting(every).deviations(0.0)
        self._looked_at = every[::_EACH_COURSE]
        self._courses = courses(readings, self._looked_at)
        self.usual = self._with_courses(self._with_spreads(self.usual, everything), everything)
        self.usual = self._with_hours(self.usual, readings.hour_mean(every))

    @property
    def weeks(self) -> Floats:
        """Weeks for which the machines of each row were watched, added up."""
        first, last = self._extent()
        span = self.ticks[last] - self.ticks[first] + self.interval / timedelta(microseconds=1)
        weeks = np.bincount(self.rows[first], weights=span / _WEEK, minlength=self.count)
        return weeks.astype(np.float64)

    @property
    def day(self) -> int:
        """Microseconds of which one highest value is taken: a day, less in a short training."""
        return min(_DAY, int(np.ptp(self.ticks)) // _DAYS_OF_A_SHORT_TRAINING + 1)

    def held_out_signals(self) -> Floats:
        """Signals of each reading by a usual day learnt in the other stretches of time.

        Shape (reading, signal), in the order of `NAMES`.
        """
        first, last = (self.ticks[ends] for ends in self._extent())
        length = (last - first + 1)[self.lanes]
        age = self.ticks - first[self.lanes]
        fold = age * FOLDS // length
        signals = np.full((len(age), len(NAMES)), np.nan)
        for number in range(FOLDS):
            mine = fold == number
            others = self._with_usual_power(self.usual, ~mine)
            others = self._with_courses(self._with_spreads(others, ~mine), ~mine)
            # The day before a stretch comes along: its first signals look back at it.
            near = (fold <= number) & (age * FOLDS >= number * length - FOLDS * _DAY)
            readings = Readings(self._measured[near], others, self.interval)
            chosen = np.flatnonzero(mine[near])
            signals[mine] = measure_signals(readings, chosen)
        return signals

    def days(self) -> tuple[Ints, Ints]:
        """Places among the readings at which days of machines begin, and the row of each day."""
        day = self.ticks // self.day
        begins = (np.diff(self.lanes, prepend=-1) != 0) | (np.diff(day, prepend=-1) != 0)
        starts = np.flatnonzero(begins)
        return starts, self.rows[starts]

    def _rows(self) -> tuple[Ints, int]:
        return self.lanes, len(self._machines.ids)

    def _blank(self, low: Floats, high: Floats, calendar: Ints, holidays: Ints) -> UsualDay:
        """The part of each row that does not depend on the time of day."""
        stops = (high > 0) & (low <= _STOPS * high)
        by_hour = np.ones((self.count, DAY_TYPES, HOURS))
        even = np.ones((len(DEVIATIONS), *by_hour.shape))
        size, _ = points(self.interval)
        share, kw = self._training.least_deviation_share, self._training.least_deviation_kw
        unknown = np.full(self.count, np.nan)
        return UsualDay(
            machine_ids=self._machines.ids,
            time_zones=self._machines.zones,
            median=np.zeros((self.count, DAY_TYPES, self._slots)),
            lower=even,
            upper=even,
            weight=by_hour,
            least=np.maximum(_LEAST_SHARE * (high - low), _LEAST_KW),
            running_above=np.where(stops, low + _RUNNING * (high - low), np.inf),
            usually_runs=np.zeros((self.count, WEEK * HOURS), dtype=bool),
            worth_telling=np.maximum(share * self.highest, kw),
            least_hour=unknown,
            most_hour=unknown,
            weeks=self.weeks,
            course=np.full((self.count, size), np.nan),
            course_parts=np.zeros((self.count, PARTS, size)),
            calendar=calendar,
            holidays=holidays,
        )

    def _with_hours(self, usual: UsualDay, hour_mean: Floats) -> UsualDay:
        """Add the lowest and the highest mean of an hour."""
        known = np.flatnonzero(np.isfinite(hour_mean))
        least, most = np.full(self.count, np.inf), np.full(self.count, -np.inf)
        np.minimum.at(least, self.rows[known], hour_mean[known])
        np.maximum.at(most, self.rows[known], hour_mean[known])
        return replace(
            usual,
            least_hour=np.where(np.isfinite(least), least, np.nan),
            most_hour=np.where(np.isfinite(most), most, np.nan),
        )

    def _with_courses(self, usual: UsualDay, kept: Bools) -> UsualDay:
        """Add the usual courses. Only the `kept` readings count."""
        course, parts = usual.course.copy(), usual.course_parts.copy()
        known = np.flatnonzero(kept[self._looked_at] & np.isfinite(self._courses).all(axis=1))
        ends = np.searchsorted(self.rows[self._looked_at[known]], np.arange(self.count + 1))
        for row in range(self.count):
            mine = known[ends[row] : ends[row + 1]]
            course[row], parts[row] = learn_courses(self._courses[mine])
        return replace(usual, course=course, course_parts=parts)

    def _with_usual_power(self, usual: UsualDay, kept: Bools) -> UsualDay:
        """Add usual power, smoothed over neighbouring slots, and the hours at which machines run.

        Only the `kept` readings count.
        """
        shape = (len(usual.least), self._slots)
        power = np.where(kept, self._power, np.nan)
        neighbours = int(_SMOOTHING / self.interval)
        median = self._by_clock(power, self._places, shape, neighbours, [0.5])[0]
        cell = (self.rows * WEEK * HOURS + self._hours)[np.isfinite(power)]
        ran = (power > usual.running_above[self.rows])[np.isfinite(power)]
        known = np.bincount(cell, minlength=len(self._hours_seen_often))
        often_ran = np.bincount(cell, weights=ran, minlength=len(known)) > _USUALLY * known
        runs = self._hours_seen_often & often_ran
        return replace(usual, median=median, usually_runs=runs.reshape(-1, WEEK * HOURS))

    def _find_hours_seen_often(self) -> Bools:
        """Hours of the week that each row has seen in enough weeks, flattened.

        All readings count, also those held out. Otherwise ``idle_6h`` would be known for fewer
        hours in the calibration than later, and its first alarm would beat all that was held out.
        """
        known = np.isfinite(self._power)
        cell = (self.rows * WEEK * HOURS + self._hours)[known]
        seen = np.bincount(cell, minlength=self.count * WEEK * HOURS)
        often: Bools = seen >= _WEEKS_SEEN * max(1, self._slots // HOURS)
        return often

    def _with_spreads(self, usual: UsualDay, kept: Bools) -> UsualDay:
        """Add how far each deviation usually goes. Only the `kept` readings count."""
        spreads = [self._spread(usual, found, kept) for found in self._deviations.T]
        lower, upper = np.moveaxis(np.array(spreads), 1, 0)
        # What held for four hours gets no smaller spread than an hour's mean at the calmest hour.
        calmest = np.minimum(lower[0], upper[0]).min(axis=(1, 2))[:, None, None]
        lower, upper = np.maximum(lower, calmest), np.maximum(upper, calmest)
        steady = usual.least[:, None, None] / self._spread(usual, self._level, kept).mean(axis=0)
        # Without a weight nothing is known of half a day ago, and every deviation is news.
        weight = steady**2 if self._only_news else np.zeros_like(steady)
        return replace(usual, lower=lower, upper=upper, weight=weight)

    def _spread(self, usual: UsualDay, deviation: Floats, kept: Bools) -> Floats:
        """Lower and upper spread of a deviation in kW, shape (2, row, day type, hour)."""
        hours = self._places * HOURS // self._slots
        shape = (len(usual.least), HOURS)
        low, high = self._by_clock(np.where(kept, deviation, np.nan), hours, shape, 1, _BAND)
        spread: Floats = np.nan_to_num(np.array([-low, high])) / _BAND_SIGMAS
        return np.maximum(spread, usual.least[:, None, None])

    def _by_clock(
        self,
        numbers: Floats,
        places: Ints,
        shape: tuple[int, int],
        neighbours: int,
        shares: Sequence[float],
    ) -> Floats:
        """Quantiles by row, day type and place: shape (share, row, day type, place).

        Where a day type has too few numbers they are those of all days; NaN where no day has any.
        """
        machines, count = shape
        known = np.isfinite(numbers)
        rows, places, numbers = self.rows[known], places[known], numbers[known]
        cell = (rows * DAY_TYPES + self._types[known]) * count + places
        found = cell_quantiles(numbers, cell, (machines * DAY_TYPES, count), neighbours, shares)
        found = found.reshape(len(shares), machines, DAY_TYPES, count)
        filled = np.bincount(cell, minlength=machines * DAY_TYPES * count)
        filled = filled.reshape(machines, DAY_TYPES, count)
        few = (filled == 0).any(axis=2) | (filled.sum(axis=2) < _FEWEST_PER_PLACE * count)
        if few.any():
            needy = few.any(axis=1)[rows]
            cell = (rows * count + places)[needy]
            whole = cell_quantiles(numbers[needy], cell, (machines, count), neighbours, shares)
            found = np.where(few[None, :, :, None], whole[:, :, None, :], found)
        return found

    def _extent(self) -> tuple[Ints, Ints]:
        """Places of each machine's first and last reading."""
        machines = np.arange(len(self._machines.ids))
        begins = np.searchsorted(self.lanes, machines)
        return begins, np.searchsorted(self.lanes, machines, side="right") - 1
