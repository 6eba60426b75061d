"""Calibrate a detector: how rare abnormality is (tails), and limits that keep an alert budget."""

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np

from anomaly.arrays import Floats, Ints
from anomaly.detectors.quantiles import quantiles
from anomaly.detectors.signals.detector import SignalDetector
from anomaly.detectors.signals.usual_day_training import TrainingReadings

CAUTION = 1.5
"""Limits of a first version are set for the budget divided by this. The weeks after a training
raise half as many incidents again as held-out weeks inside it. Measured:
docs/explanation/detection-lab-report.md, "How it was chosen"."""

_LEARNING_RATE = 0.15
"""How much an incident more or less than the budget changes the caution, on a logarithmic scale.
Chosen on real sets, replayed week by week: docs/explanation/detection-lab-report.md."""

_CAUTIONS = (0.75, 12.0)
"""The caution stays between these, however many incidents there were. Chosen likewise."""

INCIDENT_GAP = timedelta(hours=1)
"""Alarms of a machine that are no farther apart are one incident. Incidents are formed so
(`anomaly.incidents.episodes`), and budgets are in incidents."""

_OFTEN = 0.3
"""Share of days above which the tail begins: it is fitted to the highest three days of ten. Chosen
on injected faults (docs/explanation/detection-lab-report.md, "How it was chosen")."""

_FEWEST = 5
"""Days with a value below which no tail is believed, and alarmed days below which their number of
incidents is not. Chosen."""

_LEAST_DECAY = 0.03
"""Smallest decay of a tail. Where the highest days of a training are nearly equal, the smallest
step beyond them would otherwise be next to impossible. Chosen on injected faults."""

_UNSEEN_DECAY = 0.1
"""Smallest decay where most days show nothing, so that they tie at one value: there the training
says less about how high a first real value may be. Chosen on a generated fleet, the only number
that was (docs/explanation/detection-lab-report.md, `benchmarks/fleet.py`)."""

_MOST_ALARMED = 0.05
"""Share of a machine's readings that may alarm, however large its budget. Chosen: what alarms more
often is no alarm."""

_WEEK = int(timedelta(days=7) / timedelta(microseconds=1))
_MICROSECOND = timedelta(microseconds=1)


def incident_gap(interval: timedelta) -> timedelta:
    """How far apart alarms of one incident may lie: `INCIDENT_GAP`, or one interval if longer.

    Otherwise every alarm of a 90-minute meter would be an incident of its own.
    """
    return max(INCIDENT_GAP, interval)


def next_caution(caution: Floats, raised: Floats, bearable: Floats) -> Floats:
    """The caution for the next version, from what was really raised under the one in force.

    Over time as many incidents are raised as the budget says, whatever the machine does: as in
    adaptive conformal inference (Gibbs and Candes, 2021).

    Parameters
    ----------
    caution : array
        That of the version in force.
    raised : array
        Incidents since it judges, without those that people called real.
    bearable : array
        Incidents that the budget bears in that time.
    """
    least, most = _CAUTIONS
    return np.clip(caution * np.exp(_LEARNING_RATE * (raised - bearable)), least, most)


def calibrate(
    detector: SignalDetector,
    signals: Floats,
    learnt: TrainingReadings,
    budget: Floats,
    caution: Floats,
) -> tuple[SignalDetector, Floats, "AlertBudgets"]:
    """Fit the tails of each row's signals, and set its limit for its budget.

    Parameters
    ----------
    detector : SignalDetector
        With its forests.
    signals : array, shape (reading, signal)
        Held out, so that they are as those of later weeks.
    budget : array, shape (row,)
        Incidents per week of one machine.
    caution : array, shape (row,)
        Limits are set for the budget divided by this.

    Returns
    -------
    tuple
        The calibrated detector, the evidence of each reading, and the budgets it was set by.
    """
    abnormal = detector.abnormality(signals, learnt.rows)
    tails = [fit_tail(column, learnt) for column in abnormal.T]
    often, decay, rarity = (
        np.column_stack([getattr(tail, name) for tail in tails])
        for name in ("often", "decay", "rarity")
    )
    detector = replace(detector, often=often, decay=decay, rarity=rarity)
    evidence = detector.evidence(signals, learnt.rows).max(axis=1)
    budgets = AlertBudgets(evidence, learnt, caution)
    limit = budgets.limit(budget)
    rate = budgets.incidents(limit) / learnt.weeks
    return (
        replace(detector, limit=limit, caution=caution, realised_rate=rate),
        evidence,
        budgets,
    )


class AlertBudgets:
    """Limits for alert budgets, from the evidence of held-out readings.

    Parameters
    ----------
    evidence : array, shape (reading,)
    learnt : TrainingReadings
        The same readings.
    caution : array, shape (row,)
        Limits are set for a budget divided by this.
    """

    def __init__(self, evidence: Floats, learnt: TrainingReadings, caution: Floats) -> None:
        self._evidence = evidence
        self._caution = caution
        self._learnt = learnt
        self._tail = fit_tail(evidence, learnt)
        shares = (1 - _MOST_ALARMED,)
        self._least = quantiles(evidence, learnt.rows, learnt.count, shares)[0]

    def limit(self, budget: float | Floats) -> Floats:
        """Evidence of each row that so many incidents per week of one machine reach.

        The tail of the days gives a first limit. An alarmed day may have several incidents, so
        the limit is set again for the days that the budget then allows. However large the
        budget, a machine does not alarm on more than `_MOST_ALARMED` of its readings.
        """
        days = budget / self._caution * self._learnt.day / _WEEK
        limit = self._tail.level(days)
        alarmed = self._alarmed_days(limit)
        incidents = self.incidents(limit) / np.maximum(alarmed, 1)
        several = np.where(alarmed < _FEWEST, 1, np.maximum(incidents, 1))
        limits: Floats = np.maximum(self._tail.level(days / several), self._least)
        return limits

    def incidents(self, limit: Floats) -> Floats:
        """Number of incidents of each row: groups of alarms of one machine."""
        alarm = self._evidence > limit[self._learnt.rows]
        at, rows = self._learnt.ticks[alarm], self._learnt.rows[alarm]
        apart = np.diff(at, prepend=0) > incident_gap(self._learnt.interval) / _MICROSECOND
        begins = apart | (np.diff(self._learnt.lanes[alarm], prepend=-1) != 0)
        return np.bincount(rows, weights=begins, minlength=self._learnt.count).astype(float)

    def _alarmed_days(self, limit: Floats) -> Ints:
        """Number of days of each row on which its evidence exceeds the limit."""
        starts, rows = self._learnt.days()
        alarmed = np.fmax.reduceat(self._evidence, starts) > limit[rows]
        return np.bincount(rows[alarmed], minlength=self._learnt.count)


@dataclass(frozen=True)
class Tail:
    """How rare high values are: an exponential tail of each row's daily highest values.

    Attributes
    ----------
    often, decay, rarity : array, shape (row,)
        As those of `SignalDetector`. Without enough days the decay is infinite and the rarity
        0: then nothing is rare.
    """

    often: Floats
    decay: Floats
    rarity: Floats

    def level(self, share: float | Floats) -> Floats:
        """The evidence that this share of days reaches, per row.

        At least minus the logarithm of the share: that is what evidence means.
        """
        rare = -np.log(np.minimum(share, 1.0))
        known = np.isfinite(self.decay)
        level = self.often + np.where(known, self.decay, 0) * (rare - self.rarity)
        return np.where(known, np.maximum(level, rare), np.inf)


def fit_tail(values: Floats, learnt: TrainingReadings) -> Tail:
    """Fit the tail of each row's daily highest values; the values are one per reading."""
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
    return Tail(
        often=often,
        decay=np.where(enough, np.maximum(mean, least), np.inf),
        rarity=np.where(enough, rarity, 0.0),
    )


def _nth_highest(values: Floats, rows: Ints, count: Ints, rank: Ints) -> Floats:
    """The value of each row that `rank` of its own values reach; 0 where it has none."""
    ordered = np.append(values[np.lexsort((-values, rows))], 0.0)
    start = np.cumsum(count) - count
    return np.where(count > 0, ordered[start + np.maximum(rank - 1, 0)], 0.0)
