"""Train the detector `signals`: usual days, forests, calibration held out, alert budgets."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.ensemble import IsolationForest

from anomaly.grouped import cell_quantiles, quantiles
from anomaly.regimes import settled_since
from anomaly.settings import Settings
from anomaly.signal_detector import BY_ROW, SignalDetector
from anomaly.signals import NAMES, Readings, measure_signals
from anomaly.step_table import StepTable, compile_forest
from anomaly.steps import microseconds
from anomaly.usual_day import (
    DAY_TYPES,
    DEVIATIONS,
    HOURS,
    WEEK,
    UsualDay,
    local_slots,
    weekend,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FOLDS = 5
"""Stretches of a machine's time, or groups of a fleet's machines; each is judged by the others."""
MOST_MACHINES = 100
"""What is usual of a fleet is learnt from no more machines, evenly drawn."""
TREES, MAX_SAMPLES, POOL = 60, 256, 20_000
CAUTION = 1.5
"""Limits are set for the budget divided by this: the weeks after a training raise half as many
incidents again as held-out weeks amid it do (docs/detection.md says where that was measured)."""
INCIDENT_GAP = timedelta(hours=1)

_SMOOTHING = timedelta(hours=1)
_BAND = (0.02, 0.98)
_BAND_SIGMAS = 2.0537  # of a normal distribution, from its median to the band's edge
_RANGE = (0.05, 0.995)
_LEAST_SHARE, _LEAST_KW = 0.005, 0.02  # no spread is smaller: of the range, and in kW
_STOPS, _RUNNING = 0.1, 0.25  # P5 of a machine that stops, of P99.5; where it runs, of the range
_EDGES = 0.01  # of a signal's training values on either side, not in its range
_USUALLY, _WEEKS_SEEN = 0.7, 3  # runs in more of the weeks, of no fewer
_LEAST_SPREAD = {
    "run": 0.1,
    "pause": 0.1,
    "idle_6h": 0.25,
    "flat": 0.1,
}  # log hours; else half a machine's least
_OFTEN = 0.3  # of days: the tail is fitted to the rest
_FEWEST = 5  # days with a signal before its tail is believed
_LEAST_DECAY, _UNSEEN_DECAY = 0.03, 0.1  # the latter where most days show nothing at all
_DAYS_OF_A_SHORT_TRAINING = 7
_WITHIN_BUDGET = 0.9  # of a fleet's machines, were they new
_MOST_ALARMED = 0.05  # of a machine's readings, whatever its budget
_DAY, _WEEK = (int(timedelta(days=days) / timedelta(microseconds=1)) for days in (1, 7))


@dataclass(frozen=True)
class _Tail:
    """How rare high values are: an exponential tail of each row's highest a day.

    Attributes
    ----------
    often, decay, rarity : array, shape (row,)
        As of `SignalDetector`. Without enough days the decay is infinite and the rarity 0:
        nothing is rare then.
    """

    often: Floats
    decay: Floats
    rarity: Floats

    def level(self, share: float | Floats) -> Floats:
        """The value that this share of days reaches; for evidence, which is rarity already."""
        rare = -np.log(np.minimum(share, 1.0))
        known = np.isfinite(self.decay)
        level = self.often + np.where(known, self.decay, 0) * (rare - self.rarity)
        return np.where(known, np.maximum(level, rare), np.inf)


@dataclass(frozen=True)
class Trained:
    """A detector, and what it said of the readings it was trained on, held out.

    Attributes
    ----------
    evidence : array, shape (reading,)
        NaN for readings from before the machine's last change of level.
    """

    detector: SignalDetector
    evidence: Floats
    _budgets: "_Budgets"

    def limit(self, budget: float | Floats) -> Floats:
        """Evidence of each machine that so many incidents a week reach."""
        return self._budgets.limit(budget)


def train_signals(measured: pd.DataFrame, machines: pd.DataFrame, settings: Settings) -> Trained:
    """Train on measured readings, as `SignalDetector.fit` says."""
    ids = np.unique(measured["machine_id"].to_numpy(np.int64))
    known = machines.reindex(ids)
    zones = known["time_zone"].fillna("UTC").to_numpy(dtype=str)
    budget = known["alert_budget"].fillna(settings.alert_budget).to_numpy(np.float64)
    often_flat = known["often_flat"].fillna(False).to_numpy(dtype=bool)
    kept = _since_last_change(measured, ids)
    table = measured[kept].reset_index(drop=True)
    learnt = _Learning(table, ids, zones, settings.interval)
    signals = learnt.held_out_signals()
    signals[often_flat[learnt.rows], NAMES.index("flat")] = np.nan
    scaled = _scaled(learnt, signals, settings)
    scaled = replace(scaled, tables=_forests(scaled, signals, learnt, settings.random_seed))
    detector, evidence, budgets = _calibrated(scaled, signals, learnt, budget)
    everything = np.full(len(measured), np.nan)
    everything[kept] = evidence
    fleet = _fleet(table, ids, zones, scaled.tables, settings)
    return Trained(_with_fleet(detector, fleet), everything, budgets)


class _Learning:
    """Training readings, and what is usual of their machines.

    Attributes
    ----------
    lanes : array of int
        Machine of each reading.
    rows : array of int
        What each reading is learnt for: its machine.
    count : int
        How many rows there are.
    """

    def __init__(
        self, measured: pd.DataFrame, ids: Ints, zones: npt.NDArray[np.str_], interval: timedelta
    ) -> None:
        self.interval = interval
        self._measured = measured
        self._ids, self._zones = ids, zones
        self.lanes: Ints = np.searchsorted(ids, measured["machine_id"].to_numpy())
        self.rows, self.count = self._rows()
        self.ticks = microseconds(measured["utc_timestamp"])
        self._power = measured["power_kw"].to_numpy()
        self._slots = max(1, int(timedelta(days=1) / interval))
        self._days, self._places = local_slots(self.ticks, self.lanes, zones, self._slots)
        self._types = weekend(self._days)
        everything = np.ones(len(measured), dtype=bool)
        self._hours = self._days * HOURS + self._places * HOURS // self._slots
        self._seen_often = self._hours_seen_often()
        self.usual = self._with_habits(self._blank(ids, zones), everything)
        readings = Readings(measured, self.usual)
        self._level = readings.level
        lasting = readings.lasting(np.arange(len(measured)), interval)
        self._deviations = lasting.deviations(0.0)
        self.usual = self._with_spreads(self.usual, everything)

    @property
    def weeks(self) -> Floats:
        """How long each row's machines were watched."""
        first, last = self._extent()
        span = self.ticks[last] - self.ticks[first] + self.interval / timedelta(microseconds=1)
        weeks = np.bincount(self.rows[first], weights=span / _WEEK, minlength=self.count)
        return weeks.astype(np.float64)

    @property
    def day(self) -> int:
        """Microseconds in which the highest values are taken: a day, less in a short training."""
        return min(_DAY, int(np.ptp(self.ticks)) // _DAYS_OF_A_SHORT_TRAINING + 1)

    def held_out_signals(self) -> Floats:
        """Signals of each reading by a usual day learnt in the other stretches of time."""
        first, last = (self.ticks[ends] for ends in self._extent())
        length = (last - first + 1)[self.lanes]
        age = self.ticks - first[self.lanes]
        fold = age * FOLDS // length
        signals = np.full((len(age), len(NAMES)), np.nan)
        for number in range(FOLDS):
            mine = fold == number
            others = self._with_habits(self.usual, ~mine)
            others = self._with_spreads(others, ~mine)
            near = (fold <= number) & (age * FOLDS >= number * length - FOLDS * _DAY)
            readings = Readings(self._measured[near], others)
            chosen = np.flatnonzero(mine[near])
            signals[mine] = measure_signals(readings, chosen, self.interval)
        return signals

    def days(self) -> tuple[Ints, Ints]:
        """Where each machine's days begin among the readings, and the days' rows."""
        day = self.ticks // self.day
        begins = (np.diff(self.lanes, prepend=-1) != 0) | (np.diff(day, prepend=-1) != 0)
        starts = np.flatnonzero(begins)
        return starts, self.rows[starts]

    def _rows(self) -> tuple[Ints, int]:
        return self.lanes, len(self._ids)

    def _blank(self, ids: Ints, zones: npt.NDArray[np.str_]) -> UsualDay:
        """Of each row only what does not depend on the time of day."""
        low, high = quantiles(self._power, self.rows, len(zones), _RANGE)
        stops = (high > 0) & (low <= _STOPS * high)
        by_hour = np.ones((len(zones), DAY_TYPES, HOURS))
        even = np.ones((len(DEVIATIONS), *by_hour.shape))
        return UsualDay(
            machine_ids=ids,
            time_zones=zones,
            median=np.zeros((len(zones), DAY_TYPES, self._slots)),
            lower=even,
            upper=even,
            weight=by_hour,
            least=np.maximum(_LEAST_SHARE * (high - low), _LEAST_KW),
            running_above=np.where(stops, low + _RUNNING * (high - low), np.inf),
            usually_runs=np.zeros((len(zones), WEEK * HOURS), dtype=bool),
        )

    def _with_habits(self, usual: UsualDay, kept: Bools) -> UsualDay:
        """Add usual power, smoothed over neighbouring slots, and the hours at which it runs.

        Learnt from the readings kept.
        """
        shape = (len(usual.least), self._slots)
        power = np.where(kept, self._power, np.nan)
        reach = int(_SMOOTHING / self.interval)
        median = self._by_clock(power, self._places, shape, reach, [0.5])[0]
        cell = (self.rows * WEEK * HOURS + self._hours)[np.isfinite(power)]
        ran = (power > usual.running_above[self.rows])[np.isfinite(power)]
        known = np.bincount(cell, minlength=len(self._seen_often))
        often_ran = np.bincount(cell, weights=ran, minlength=len(known)) > _USUALLY * known
        runs = self._seen_often & often_ran
        return replace(usual, median=median, usually_runs=runs.reshape(-1, WEEK * HOURS))

    def _hours_seen_often(self) -> Bools:
        """Which hours of the week of each row were seen in enough weeks to tell a habit.

        By all readings, those held out as well: a habit that is told later has to be told here
        too, or its first breach would be beyond all that was ever held out.
        """
        known = np.isfinite(self._power)
        cell = (self.rows * WEEK * HOURS + self._hours)[known]
        seen = np.bincount(cell, minlength=self.count * WEEK * HOURS)
        often: Bools = seen >= _WEEKS_SEEN * max(1, self._slots // HOURS)
        return often

    def _with_spreads(self, usual: UsualDay, kept: Bools) -> UsualDay:
        """Add how far each deviation usually goes, learnt from the readings kept."""
        spreads = [self._spread(usual, found, kept) for found in self._deviations.T]
        lower, upper = np.moveaxis(np.array(spreads), 1, 0)
        # What held throughout hours matters no sooner than an hour's mean at the calmest hour.
        calmest = np.minimum(lower[0], upper[0]).min(axis=(1, 2))[:, None, None]
        lower, upper = np.maximum(lower, calmest), np.maximum(upper, calmest)
        steady = usual.least[:, None, None] / self._spread(usual, self._level, kept).mean(axis=0)
        return replace(usual, lower=lower, upper=upper, weight=steady**2)

    def _spread(self, usual: UsualDay, deviation: Floats, kept: Bools) -> Floats:
        """Lower and upper spread of a deviation, shape (2, row, day type, hour)."""
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
        reach: int,
        shares: Sequence[float],
    ) -> Floats:
        """Quantiles by row, day type and place; over all days where one type has too few.

        NaN where there is nothing on any day.
        """
        machines, count = shape
        known = np.isfinite(numbers)
        rows, places, numbers = self.rows[known], places[known], numbers[known]
        cell = (rows * DAY_TYPES + self._types[known]) * count + places
        found = cell_quantiles(numbers, cell, (machines * DAY_TYPES, count), reach, shares)
        found = found.reshape(len(shares), machines, DAY_TYPES, count)
        filled = np.bincount(cell, minlength=machines * DAY_TYPES * count)
        filled = filled.reshape(machines, DAY_TYPES, count)
        few = (filled == 0).any(axis=2) | (filled.sum(axis=2) < 3 * count)
        if few.any():
            needy = few.any(axis=1)[rows]
            cell = (rows * count + places)[needy]
            whole = cell_quantiles(numbers[needy], cell, (machines, count), reach, shares)
            found = np.where(few[None, :, :, None], whole[:, :, None, :], found)
        return found

    def _extent(self) -> tuple[Ints, Ints]:
        """Each machine's first and last reading."""
        machines = np.arange(len(self._ids))
        begins = np.searchsorted(self.lanes, machines)
        return begins, np.searchsorted(self.lanes, machines, side="right") - 1


class _Fleet(_Learning):
    """Readings of several machines, learnt as if they were of one that training did not see."""

    def held_out_signals(self) -> Floats:
        """Signals of each reading by what is usual of other machines."""
        signals = np.full((len(self.lanes), len(NAMES)), np.nan)
        folds = min(FOLDS, len(self._ids))
        fold = np.arange(len(self._ids)) % folds
        for number in range(folds if folds > 1 else 0):
            mine, others = fold[self.lanes] == number, fold != number
            theirs = self._measured[~mine]
            usual = _Fleet(theirs, self._ids[others], self._zones[others], self.interval).usual
            readings = Readings(self._measured[mine], usual)
            signals[mine] = measure_signals(readings, np.arange(mine.sum()), self.interval)
        return signals

    def told_apart(self) -> Self:
        """The same readings, each for its own machine."""
        apart = copy(self)
        apart.rows, apart.count = super()._rows()
        return apart

    def _rows(self) -> tuple[Ints, int]:
        return np.zeros_like(self.lanes), 1

    def _blank(self, ids: Ints, zones: npt.NDArray[np.str_]) -> UsualDay:
        blank = super()._blank(ids[:0], zones[:1])
        return replace(blank, running_above=np.full(1, np.inf))


def _since_last_change(measured: pd.DataFrame, ids: Ints) -> Bools:
    rows = np.searchsorted(ids, measured["machine_id"].to_numpy())
    ticks = microseconds(measured["utc_timestamp"])
    since = settled_since(measured["power_kw"].to_numpy(), ticks, rows, len(ids))
    kept: Bools = ticks >= since[rows]
    return kept


def _fleet(
    table: pd.DataFrame,
    ids: Ints,
    zones: npt.NDArray[np.str_],
    tables: tuple[StepTable, ...],
    settings: Settings,
) -> SignalDetector:
    """A detector without a machine: its one row is of those that training has not seen.

    It has the fleet's most common clock. All machines together keep the setting's budget, and
    so do nine of ten of them each: those that a few raise are no measure of the others. Where
    nothing can be told of a fleet, of a single machine say, it never alarms.
    """
    names, machines = np.unique(zones, return_counts=True)
    few = np.linspace(0, len(ids) - 1, min(MOST_MACHINES, len(ids))).astype(np.int64)
    seen = table[np.isin(table["machine_id"].to_numpy(), ids[few])]
    clock = np.full(len(few), names[machines.argmax()])
    learnt = _Fleet(seen, ids[few], clock, settings.interval)
    signals = learnt.held_out_signals()
    scaled = replace(_scaled(learnt, signals, settings), tables=tables)
    budget = np.array([settings.alert_budget])
    detector, evidence, budgets = _calibrated(scaled, signals, learnt, budget)
    if not np.isfinite(detector.decay).any():
        return replace(detector, limit=np.full(1, np.inf))
    each = _Budgets(evidence, learnt.told_apart()).limit(budget)
    known = np.append(each[np.isfinite(each)], detector.limit)
    limit = np.maximum(detector.limit, np.quantile(known, _WITHIN_BUDGET, method="higher"))
    return replace(detector, limit=limit, realised_rate=budgets.incidents(limit) / learnt.weeks)


def _with_fleet(detector: SignalDetector, fleet: SignalDetector) -> SignalDetector:
    """Put the fleet's row behind those of the machines."""
    usual: dict[str, Any] = {}
    for name in (field.name for field in fields(UsualDay)):
        both = [getattr(detector.usual, name), getattr(fleet.usual, name)]
        usual[name] = np.concatenate(both, axis=1 if name in ("lower", "upper") else 0)
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(detector, name), getattr(fleet, name)]) for name in BY_ROW
    }
    return replace(detector, usual=UsualDay(**usual), **joined)


def _scaled(learnt: _Learning, signals: Floats, settings: Settings) -> SignalDetector:
    """Scale each signal by its row's own centre and spread; neither forests nor limits yet."""
    shares = (_EDGES, 0.25, 0.5, 0.75, 1 - _EDGES)
    found = [quantiles(signal, learnt.rows, learnt.count, shares) for signal in signals.T]
    bottom, quarter, centre, three, top = np.moveaxis(np.array(found), 0, 2)
    spread = np.maximum((three - quarter) / 1.349, _least_spread(learnt.usual))
    nothing = np.zeros(centre.shape)
    return SignalDetector(
        interval_minutes=settings.interval_minutes,
        usual=learnt.usual,
        centre=centre,
        spread=spread,
        low=(bottom - centre) / spread,
        high=(top - centre) / spread,
        tables=(),
        often=nothing,
        decay=nothing + 1,
        rarity=nothing,
        limit=nothing[:, 0],
        realised_rate=nothing[:, 0],
    )


def _least_spread(usual: UsualDay) -> Floats:
    """Shape (row, signal)."""
    least = np.full((len(usual.least), len(NAMES)), 0.5)
    for name, spread in _LEAST_SPREAD.items():
        least[:, NAMES.index(name)] = spread
    least[:, NAMES.index("running_4h")] = usual.least / 2
    return least


def _forests(
    scaled: SignalDetector, signals: Floats, learnt: _Learning, seed: int
) -> tuple[StepTable, ...]:
    """Fit a forest to each signal, of all machines together."""
    numbers = (signals - scaled.centre[learnt.rows]) / scaled.spread[learnt.rows]
    return tuple(_forest(numbers[:, k], seed + k) for k in range(len(NAMES)))


def _forest(scaled: Floats, seed: int) -> StepTable:
    known = scaled[np.isfinite(scaled)]
    if not len(known):
        known = np.zeros(1)
    if len(known) > POOL:
        known = np.random.default_rng(seed).choice(known, POOL, replace=False)
    forest = IsolationForest(
        n_estimators=TREES, max_samples=min(MAX_SAMPLES, len(known)), random_state=seed
    )
    return compile_forest(forest.fit(known[:, None]))


def _calibrated(
    detector: SignalDetector, signals: Floats, learnt: _Learning, budget: Floats
) -> tuple[SignalDetector, Floats, "_Budgets"]:
    """Fit the tail of each signal's abnormality on each row, and set limits for budgets.

    The evidence of each reading is given too.
    """
    abnormal = detector.abnormality(signals, learnt.rows)
    tails = [_tail(column, learnt) for column in abnormal.T]
    often, decay, rarity = (
        np.column_stack([getattr(tail, name) for tail in tails])
        for name in ("often", "decay", "rarity")
    )
    detector = replace(detector, often=often, decay=decay, rarity=rarity)
    evidence = detector.evidence(signals, learnt.rows).max(axis=1)
    budgets = _Budgets(evidence, learnt)
    limit = budgets.limit(budget)
    rate = budgets.incidents(limit) / learnt.weeks
    return replace(detector, limit=limit, realised_rate=rate), evidence, budgets


def _tail(values: Floats, learnt: _Learning) -> _Tail:
    """Fit the tail of each row's daily highest values."""
    starts, rows = learnt.days()
    size = learnt.count
    days = np.bincount(rows, minlength=size)
    highest = np.fmax.reduceat(values, starts)
    known = np.isfinite(highest)
    rows, highest = rows[known], highest[known]
    count = np.bincount(rows, minlength=size)
    rank = np.maximum(np.ceil(_OFTEN * count).astype(np.int64), np.minimum(count, _FEWEST))
    often = _nth_highest(highest, rows, count, rank)
    beyond = np.maximum(highest - often[rows], 0)
    reached = np.bincount(rows, weights=highest >= often[rows], minlength=size)
    mean = np.bincount(rows, weights=beyond, minlength=size) / np.maximum(rank - 1, 1)
    enough = count >= _FEWEST
    least = np.where(reached > rank, _UNSEEN_DECAY, _LEAST_DECAY)
    rarity = -np.log(np.maximum(reached, 1) / np.maximum(days, 1))
    return _Tail(
        often=often,
        decay=np.where(enough, np.maximum(mean, least), np.inf),
        rarity=np.where(enough, rarity, 0.0),
    )


def _nth_highest(values: Floats, rows: Ints, count: Ints, rank: Ints) -> Floats:
    """The value of each row that so many of its own reach; 0 where it has none."""
    ordered = np.append(values[np.lexsort((-values, rows))], 0.0)
    start = np.cumsum(count) - count
    return np.where(count > 0, ordered[start + np.maximum(rank - 1, 0)], 0.0)


class _Budgets:
    """Limits for alert budgets, from the evidence of held-out readings."""

    def __init__(self, evidence: Floats, learnt: _Learning) -> None:
        self._evidence = evidence
        self._learnt = learnt
        self._tail = _tail(evidence, learnt)
        shares = (1 - _MOST_ALARMED,)
        self._least = quantiles(evidence, learnt.rows, learnt.count, shares)[0]

    def limit(self, budget: float | Floats) -> Floats:
        """Evidence of each row that so many incidents a week of one machine reach.

        By the tail of its days first; then again for as many incidents as an alarmed day had.
        However large the budget, a machine does not alarm most of the time.
        """
        days = budget / CAUTION * self._learnt.day / _WEEK
        limit = self._tail.level(days)
        alarmed = self._alarmed_days(limit)
        incidents = self.incidents(limit) / np.maximum(alarmed, 1)
        several = np.where(alarmed < _FEWEST, 1, np.maximum(incidents, 1))
        limits: Floats = np.maximum(self._tail.level(days / several), self._least)
        return limits

    def incidents(self, limit: Floats) -> Floats:
        """How many groups of alarms of one machine, more than an hour apart, each row has."""
        alarm = self._evidence > limit[self._learnt.rows]
        at, rows = self._learnt.ticks[alarm], self._learnt.rows[alarm]
        apart = np.diff(at, prepend=0) > INCIDENT_GAP / timedelta(microseconds=1)
        begins = apart | (np.diff(self._learnt.lanes[alarm], prepend=-1) != 0)
        return np.bincount(rows, weights=begins, minlength=self._learnt.count).astype(float)

    def _alarmed_days(self, limit: Floats) -> Ints:
        starts, rows = self._learnt.days()
        alarmed = np.fmax.reduceat(self._evidence, starts) > limit[rows]
        return np.bincount(rows[alarmed], minlength=self._learnt.count)
