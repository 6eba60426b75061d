"""Match alerts to known events: events found, false alerts and delay, with intervals.

Frozen by its outputs: ``tests/unit/test_frozen_judge.py`` compares what fixed readings give. There
is no point-adjust: a hit does not make the other readings of its event hits.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats  # type: ignore[import-untyped]

from anomaly.arrays import MICROSECONDS_PER_HOUR, Bools, Floats, Ints
from anomaly.evaluation.fault_injection import Event, events_frame
from anomaly.readings.preprocessing import microseconds
from anomaly.windows import Window

JOIN = timedelta(hours=1)
"""Alarms of a machine that are no farther apart are one incident, so one alert. As in
`anomaly.incidents.episodes`, but a constant of its own: figures of different days are comparable
only while the judge stays the same."""

GRACE = timedelta(hours=1)
"""An alert so soon after an event's last reading is still about the event. Chosen: as `JOIN`."""

_WEEK = timedelta(days=7)
_MICROSECOND = timedelta(microseconds=1)


def join_gap(interval: timedelta) -> timedelta:
    """How far apart alarms of one incident may lie: `JOIN`, or one interval if that is longer."""
    return max(JOIN, interval)


def grace_after(interval: timedelta) -> timedelta:
    """How long after an event an alert is about it: `GRACE`, or one interval if that is longer."""
    return max(GRACE, interval)


@dataclass(frozen=True)
class MatchedAlerts:
    """What became of each event and each incident.

    Attributes
    ----------
    events : DataFrame
        ``machine_id, family, magnitude, start, end``, ``found`` (bool) and
        ``delay_hours`` (from the start to the alert; NaN when missed).
    incidents : DataFrame
        ``machine_id, start, end`` (first and last alarm) and ``real`` (bool).
    machine_weeks : float
        Time judged, the time of events included.
    """

    events: pd.DataFrame
    incidents: pd.DataFrame
    machine_weeks: float

    @property
    def recall(self) -> float:
        """Share of events found; NaN without events."""
        return float(self.events["found"].astype(float).mean())

    @property
    def precision(self) -> float:
        """Share of incidents that are about an event; NaN without incidents."""
        return float(self.incidents["real"].astype(float).mean())

    @property
    def false_alerts(self) -> float:
        """False alerts per machine and week."""
        return float((~self.incidents["real"].to_numpy(bool)).sum()) / self.machine_weeks

    @property
    def delay_hours(self) -> float:
        """Median hours from an event's start to its alert, of those found; NaN if none is."""
        return float(self.events["delay_hours"].median())

    def by(self, *columns: str) -> pd.DataFrame:
        """``events``, ``found``, ``recall`` and median ``delay_hours`` by family or magnitude."""
        groups = self.events.groupby(list(columns), as_index=False)
        table = groups.agg(
            events=("found", "size"), found=("found", "sum"), delay_hours=("delay_hours", "median")
        )
        return table.assign(recall=table["found"] / table["events"])


def match_alerts(
    alarms: pd.DataFrame,
    events: Sequence[Event],
    window: Window,
    machines: Sequence[int],
    interval: timedelta,
) -> MatchedAlerts:
    """Match flagged readings to the events that are known.

    An alert is raised when an incident begins. An event is found when an incident
    begins in ``[start, end + grace]``; an incident that begins in none of these is a
    false alert. So an alarm that never ends finds nothing: an incident that was open
    before an event is not about it.

    Parameters
    ----------
    alarms : DataFrame
        ``machine_id`` and ``utc_timestamp`` of each flagged reading, in any order. A
        missing reading may be flagged at the time it should have had. Those outside
        `window` or of other machines are ignored.
    events : sequence of Event
        Of one machine they do not overlap.
    machines : sequence of int
        All that were watched: they count as time judged, also without an alarm.
    interval : timedelta
        The meter's; see `join_gap` and `grace_after`.
    """
    watched = alarms["machine_id"].isin(machines)
    inside = (alarms["utc_timestamp"] >= window.start) & (alarms["utc_timestamp"] < window.end)
    incidents = group_incidents(alarms[watched & inside], interval)
    table = events_frame(events).sort_values(["machine_id", "start"], ignore_index=True)
    real, found, delay = _match(incidents, table, grace_after(interval))
    return MatchedAlerts(
        events=table.assign(found=found, delay_hours=delay),
        incidents=incidents.assign(real=real),
        machine_weeks=len(machines) * ((window.end - window.start) / _WEEK),
    )


def group_incidents(alarms: pd.DataFrame, interval: timedelta) -> pd.DataFrame:
    """``machine_id``, ``start`` and ``end`` of each run of alarms: of each incident.

    Parameters
    ----------
    alarms : DataFrame
        ``machine_id`` and ``utc_timestamp`` of each, in any order.
    interval : timedelta
        The meter's: alarms no farther apart than `join_gap` of it are one incident.
    """
    ordered = alarms[["machine_id", "utc_timestamp"]].sort_values(["machine_id", "utc_timestamp"])
    machine, ticks = ordered["machine_id"].to_numpy(), microseconds(ordered["utc_timestamp"])
    apart = np.diff(ticks) > join_gap(interval) / _MICROSECOND
    begins = np.concatenate([[True], apart | (np.diff(machine) != 0)])[: len(ordered)]
    ends = np.concatenate([begins[1:], [True]])[: len(ordered)]
    return pd.DataFrame(
        {
            "machine_id": machine[begins],
            "start": ordered["utc_timestamp"].array[begins],
            "end": ordered["utc_timestamp"].array[ends],
        }
    )


def bootstrap_counts(weeks: Ints, *, draws: int = 1000, seed: int = 0) -> Floats:
    """How often each unit counts in each bootstrap draw.

    Weeks are drawn with replacement; then, within each drawn week, its units (one per seed)
    with replacement. There are two stages because seeds of one week share its false alerts.

    Parameters
    ----------
    weeks : array of int, shape (units,)
        The week each unit belongs to.

    Returns
    -------
    array of float, shape (draws, units)
    """
    rng = np.random.default_rng(seed)
    units = [np.flatnonzero(weeks == week) for week in np.unique(weeks)]
    counts = np.zeros((draws, len(weeks)))
    for row in counts:
        for week in rng.integers(len(units), size=len(units)):
            members = units[week]
            np.add.at(row, members[rng.integers(len(members), size=len(members))], 1)
    return counts


def ratio_interval(
    numerator: npt.ArrayLike, denominator: npt.ArrayLike, counts: Floats, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a ratio of sums over units; NaN when no draw defines the ratio."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (counts @ np.asarray(numerator, float)) / (counts @ np.asarray(denominator, float))
    return _percentiles(ratios[np.isfinite(ratios)], level)


def median_interval(
    values: npt.ArrayLike, units: Ints, counts: Floats, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the median of `values`, each of which belongs to a unit."""
    known = np.isfinite(np.asarray(values, float))
    order = np.argsort(np.asarray(values, float)[known], kind="stable")
    ordered = np.asarray(values, float)[known][order]
    running = np.cumsum(counts[:, np.asarray(units)[known][order]], axis=1)
    if not ordered.size:
        return float("nan"), float("nan")
    drawn = running[running[:, -1] > 0]
    middle = (drawn >= drawn[:, -1:] / 2).argmax(axis=1)
    return _percentiles(ordered[middle], level)


def poisson_bound(rate: float, exposure: float, level: float = 0.95) -> tuple[int, int]:
    """The fewest and the most alerts that a `rate` per unit of exposure explains, at `level`.

    Examples
    --------
    >>> poisson_bound(1.0, 14.5)  # 1 alert per machine-week, in 14.5 machine-weeks
    (8, 22)
    """
    low, high = stats.poisson.interval(level, rate * exposure)
    return int(low), int(high)


def vus_pr(labels: npt.ArrayLike, scores: npt.ArrayLike, *, buffer: int) -> float:
    """Volume under the precision-recall surface, from aeon; higher is better.

    Parameters
    ----------
    labels : array of 0 and 1
    scores : array of float
        Higher is more abnormal; finite.
    buffer : int
        The longest slope added to both sides of an event, in readings.

    Raises
    ------
    ImportError
        When aeon is not installed.

    Notes
    -----
    J. Paparrizos et al.: Volume Under the Surface, PVLDB 15(11), 2022.
    """
    metrics = importlib.import_module("aeon.benchmarking.metrics.anomaly_detection")
    truth, guess = np.asarray(labels, np.int64), np.asarray(scores, float)
    return float(metrics.range_pr_vus_score(truth, guess, max_buffer_size=buffer))


def _match(
    incidents: pd.DataFrame, events: pd.DataFrame, grace: timedelta
) -> tuple[Bools, Bools, Floats]:
    """Which incidents are real, which events are found, and after how many hours."""
    if incidents.empty or events.empty:
        nothing = np.full(len(events), np.nan)
        return np.zeros(len(incidents), bool), np.zeros(len(events), bool), nothing
    lag = int(grace / _MICROSECOND)
    raised, begun = microseconds(incidents["start"]), microseconds(events["start"])
    ended = microseconds(events["end"]) + lag
    first, last = min(raised.min(), begun.min()), 1 + max(raised.max(), ended.max())
    lanes = np.unique(np.concatenate([incidents["machine_id"], events["machine_id"]]))
    alert = _keys(lanes, incidents["machine_id"], raised - first, last - first)
    opens = _keys(lanes, events["machine_id"], begun - first, last - first)
    closes = opens + (ended - begun)
    latest = np.searchsorted(opens, alert, side="right") - 1
    real = (latest >= 0) & (alert <= closes[latest])
    earliest = np.minimum(np.searchsorted(alert, opens, side="left"), len(alert) - 1)
    found = (alert[earliest] >= opens) & (alert[earliest] <= closes)
    hours = (alert[earliest] - opens) / MICROSECONDS_PER_HOUR
    return real, found, np.where(found, hours, np.nan)


def _keys(lanes: Ints, machine: pd.Series, ticks: Ints, span: int) -> Ints:
    """One ascending number for each machine and time: machine after machine, `span` ticks each."""
    keys: Ints = np.searchsorted(lanes, machine.to_numpy()) * span + ticks
    return keys


def _percentiles(values: Floats, level: float) -> tuple[float, float]:
    if not values.size:
        return float("nan"), float("nan")
    tail = 50 * (1 - level)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
