"""Thresholds from training scores alone: as low as the alert budget allows, for each machine."""

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.evaluation.judging import JOIN
from anomaly.steps import microseconds

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_ALARMED = 0.25
"""No threshold lies so low that more of the training readings alarm: that is no alarm."""

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Ladder:
    """The lowest threshold of one machine for each number of training incidents.

    Attributes
    ----------
    rungs : array of float
        ``rungs[k]`` raises at most k incidents in training, and so does everything
        above it; midway to the score that would raise more. ``rungs[0]`` raises none.
    spread : float
        From the median score to ``rungs[0]``: the unit for thresholds beyond it.
    """

    rungs: Floats
    spread: float

    def at(self, budget: float, weeks: float) -> float:
        """The threshold for `budget` alerts a week, after `weeks` of training."""
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
    alarms: pd.DataFrame | None = None,
    join: timedelta = JOIN,
) -> dict[int, float]:
    """The score at or above which each machine alarms, for a budget of alerts a week.

    Parameters
    ----------
    train : DataFrame
        ``machine_id`` and ``utc_timestamp`` of the training readings.
    score : array of float
        Theirs; higher is more abnormal, NaN is no verdict.
    weeks : float
        How long the training lasted. The incidents allowed are whole, rounded down.
    alarms : DataFrame, optional
        Readings flagged whatever the threshold; their incidents use up the budget.
    join : timedelta
        Alarms no farther apart are one incident.
    """
    most = _whole(budget * weeks)
    found = ladders(train, score, most=most, alarms=alarms, join=join)
    return {machine: ladder.at(budget, weeks) for machine, ladder in found.items()}


def ladders(
    train: pd.DataFrame,
    score: Floats,
    *,
    most: int,
    alarms: pd.DataFrame | None = None,
    join: timedelta = JOIN,
) -> dict[int, Ladder]:
    """Each machine's ladder, up to `most` training incidents."""
    flagged = pd.DataFrame({"machine_id": [], "utc_timestamp": []}) if alarms is None else alarms
    machines, found = train["machine_id"].to_numpy(), {}
    for machine in np.unique(machines).tolist():
        rows = np.flatnonzero(machines == machine)
        known = rows[np.isfinite(score[rows])]
        ticks = microseconds(train["utc_timestamp"].iloc[known])
        hard = flagged.loc[flagged["machine_id"] == machine, "utc_timestamp"]
        always = _Flagged(join, microseconds(hard).tolist() if len(hard) else [])
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
    return int(incidents + 1e-9)


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
