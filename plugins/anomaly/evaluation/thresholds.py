"""Thresholds from training scores alone: per machine, as low as the alert budget allows."""

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd

from anomaly.arrays import Floats, Ints
from anomaly.evaluation.alert_matching import join_gap
from anomaly.readings.preprocessing import microseconds

MOST_ALARMED = 0.25
"""No threshold lies so low that a larger share of the training readings alarms. Chosen: a score
that is mostly above its threshold tells nobody anything."""

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Ladder:
    """The lowest threshold of one machine for each number of training incidents.

    Attributes
    ----------
    rungs : array of float
        ``rungs[k]`` raises at most k incidents in training, and so does every higher
        threshold. It lies midway to the score that would raise more. ``rungs[0]`` raises none.
    spread : float
        Distance from the median score to ``rungs[0]``: the unit for thresholds beyond that.
    """

    rungs: Floats
    spread: float

    def at(self, budget: float, weeks: float) -> float:
        """The threshold for `budget` alerts per week, after `weeks` of training."""
        return float(self.rungs[min(_whole(budget * weeks), len(self.rungs) - 1)])

    def beyond(self, share: float) -> float:
        """A threshold above all training scores, by a share of their spread."""
        return float(self.rungs[0] + share * self.spread)


def thresholds(
    train: pd.DataFrame,
    score: Floats,
    *,
    budget: float,
    weeks: float,
    interval: timedelta,
    alarms: pd.DataFrame | None = None,
) -> dict[int, float]:
    """The score at or above which each machine alarms, for a budget of alerts per week.

    Parameters
    ----------
    train : DataFrame
        ``machine_id`` and ``utc_timestamp`` of the training readings.
    score : array of float
        Their scores; higher is more abnormal, NaN is no verdict.
    weeks : float
        How long the training lasted. The number of incidents allowed is rounded down.
    interval : timedelta
        The meter's: it decides which alarms are one incident.
    alarms : DataFrame, optional
        Readings flagged whatever the threshold; their incidents use up the budget.
    """
    most = _whole(budget * weeks)
    found = ladders(train, score, most=most, interval=interval, alarms=alarms)
    return {machine: ladder.at(budget, weeks) for machine, ladder in found.items()}


def ladders(
    train: pd.DataFrame,
    score: Floats,
    *,
    most: int,
    interval: timedelta,
    alarms: pd.DataFrame | None = None,
) -> dict[int, Ladder]:
    """Each machine's ladder, up to `most` training incidents; parameters as of `thresholds`."""
    flagged = pd.DataFrame({"machine_id": [], "utc_timestamp": []}) if alarms is None else alarms
    machines, found = train["machine_id"].to_numpy(), {}
    for machine in np.unique(machines).tolist():
        rows = np.flatnonzero(machines == machine)
        known = rows[np.isfinite(score[rows])]
        ticks = microseconds(train["utc_timestamp"].iloc[known])
        hard = flagged.loc[flagged["machine_id"] == machine, "utc_timestamp"]
        always = _Flagged(join_gap(interval), microseconds(hard).tolist() if len(hard) else [])
        found[int(machine)] = _ladder(ticks, score[known], always, most)
    return found


def _ladder(ticks: Ints, score: Floats, flagged: "_Flagged", most: int) -> Ladder:
    """Lower the threshold score by score, counting incidents as they appear and merge."""
    if not score.size:
        return Ladder(np.full(most + 1, np.inf), 0.0)
    top = float(np.nextafter(score.max(), np.inf))
    rungs = np.full(most + 1, top)
    worst = flagged.incidents
    for level, group in _descending(ticks, score):
        flagged.update(group)
        if len(flagged) > MOST_ALARMED * len(ticks):
            break
        if flagged.incidents > worst:
            met = slice(max(worst, 1), flagged.incidents)
            between = level + (rungs[met] - level) / 2
            rungs[met] = np.where(rungs[met] < top, between, top)
            worst = flagged.incidents
        if worst > most:
            break
        rungs[worst:] = level
    rungs[0] = top
    return Ladder(rungs, top - float(np.median(score)))


def _descending(ticks: Ints, score: Floats) -> Iterable[tuple[float, Sequence[int]]]:
    """Scores from the highest down, each with the times that have it."""
    order = np.argsort(-score, kind="stable")
    falls = np.flatnonzero(np.diff(score[order]) != 0) + 1
    for rows in np.split(order, falls):
        yield float(score[rows[0]]), ticks[rows].tolist()


def _whole(incidents: float) -> int:
    return int(incidents + 1e-9)  # 0.1 * 30 is a little less than 3 in floating point


class _Flagged:
    """Flagged times of one machine, and how many incidents they form."""

    def __init__(self, join: timedelta, ticks: Iterable[int]) -> None:
        self._join = join // _MICROSECOND
        self._ticks: list[int] = []
        self.incidents = 0
        self.update(ticks)

    def __len__(self) -> int:
        return len(self._ticks)

    def update(self, ticks: Iterable[int]) -> None:
        for tick in ticks:
            self._add(tick)

    def _add(self, tick: int) -> None:
        place = bisect.bisect_left(self._ticks, tick)
        left, right = self._ticks[max(place - 1, 0) : place], self._ticks[place : place + 1]
        if right and right[0] == tick:
            return
        near = sum(abs(tick - other) <= self._join for other in (*left, *right))
        together = bool(left and right) and right[0] - left[0] <= self._join
        self.incidents += 1 - near + together
        self._ticks.insert(place, tick)
