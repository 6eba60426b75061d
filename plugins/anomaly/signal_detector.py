"""The detector `signals`: a small forest a signal, calibrated a machine, and an alert budget."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.detector import Scores
from anomaly.preprocessing import microseconds
from anomaly.settings import Settings
from anomaly.signals import NAMES, SPANS, UsualDay, explain, measure_signals, usual_day
from anomaly.step_table import StepTable, compile_forest

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BLOCK = timedelta(days=7)
TREES, MAX_SAMPLES = 60, 256
POOL = 20_000
INCIDENT_GAP = timedelta(hours=1)
_GRID = np.concatenate([np.linspace(0, 0.9, 37), [0.92, 0.94, 0.96, 0.97, 0.98]])
_TAIL = 1 - _GRID[-1]
_STRETCH = 0.05
_LEAST_SPREAD = 0.01  # of the machine's power range


@dataclass(frozen=True)
class Calibration:
    """How abnormal a forest's score is on each machine, as a tail probability.

    Attributes
    ----------
    grid : array (machine, signal, point)
        Quantiles of training scores at `_GRID`.
    decay : array (machine, signal)
        Scale of the exponential tail beyond the last of them.
    knee : array (machine, signal)
        Scaled distance from which the score is stretched: a forest is flat
        beyond its training range, and a monstrous spike is not like a large one.
    """

    grid: Floats
    decay: Floats
    knee: Floats


class SignalDetector:
    """Isolation Forests over a machine's signals, each compiled to a step table.

    The score is ``p0 / (p0 + p)``: p is the smallest tail probability of the
    signals, p0 the machine's own at its alert budget, so 0.5 is the threshold on
    every machine and version.
    """

    name: ClassVar[str] = "signals"
    threshold: ClassVar[float] = 0.5
    reach: ClassVar[timedelta] = max(SPANS)

    def __init__(
        self,
        usual: UsualDay,
        centre: Floats,
        spread: Floats,
        tables: tuple[StepTable, ...],
        calibration: Calibration,
        budget_p: Floats,
    ) -> None:
        self.usual = usual
        self.centre = centre
        self.spread = spread
        self.tables = tables
        self.calibration = calibration
        self.budget_p = budget_p

    @classmethod
    def fit(
        cls,
        measured: pd.DataFrame,
        settings: Settings,
        time_zones: Mapping[int, str],
        often_flat: npt.NDArray[np.bool_],
    ) -> Self:
        """Train on measured readings without meter faults, sorted by machine and time."""
        return cls.fit_and_score(measured, settings, time_zones, often_flat)[0]

    @classmethod
    def fit_and_score(
        cls,
        measured: pd.DataFrame,
        settings: Settings,
        time_zones: Mapping[int, str],
        often_flat: npt.NDArray[np.bool_],
    ) -> tuple[Self, Floats]:
        """Train as `fit` does, and give each training reading's held-out tail probability."""
        machine_ids = np.unique(measured["machine_id"].to_numpy())
        zones = [time_zones.get(int(machine), "UTC") for machine in machine_ids]
        usual = usual_day(measured, zones, settings.interval)
        held_out = _held_out_signals(measured, zones, settings.interval)
        held_out[np.isin(measured["machine_id"], machine_ids[often_flat]), NAMES.index("flat")] = (
            np.nan
        )
        rows = usual.rows(measured["machine_id"].to_numpy())
        centre, spread = _centre_and_spread(held_out, rows, len(machine_ids))
        scaled = (held_out - centre[rows]) / spread[rows]
        tables = tuple(_table(scaled[:, k], settings.random_seed + k) for k in range(len(NAMES)))
        calibration = _calibrate(scaled, rows, len(machine_ids), tables)
        detector = cls(usual, centre, spread, tables, calibration, np.ones(len(machine_ids)))
        p = detector._tail_probabilities(scaled, rows).min(axis=1)
        detector.budget_p = _budget_p(p, rows, measured, len(machine_ids), settings.alert_budget)
        return detector, p

    def tail_probability(self, measured: pd.DataFrame) -> Floats:
        """Smallest tail probability of each reading's signals; 1 where there is none."""
        rows = self.usual.rows(measured["machine_id"].to_numpy())
        signals = measure_signals(measured, self.usual)
        tails = self._tail_probabilities((signals - self.centre[rows]) / self.spread[rows], rows)
        return np.where(rows < 0, 1.0, tails.min(axis=1))

    def score(self, measured: pd.DataFrame, wanted: npt.NDArray[np.bool_]) -> Scores:
        """Score the `wanted` readings, given with those that precede them by up to a day."""
        rows = self.usual.rows(measured["machine_id"].to_numpy())
        signals = measure_signals(measured, self.usual)
        signals, rows = signals[wanted], rows[wanted]
        scaled = (signals - self.centre[rows]) / self.spread[rows]
        tails = self._tail_probabilities(scaled, rows)
        tails[rows < 0] = 1.0
        p, strongest = tails.min(axis=1), tails.argmin(axis=1)
        budget = self.budget_p[rows]
        anomaly = (p < budget) & (rows >= 0)
        reason = np.full(len(p), None, dtype=object)
        alarms = np.flatnonzero(anomaly)
        if len(alarms):
            words = explain(measured, self.usual, np.flatnonzero(wanted)[alarms], strongest[alarms])
            reason[alarms] = words
        return Scores(
            budget / (budget + p), anomaly, reason, self._expected(measured, wanted, rows)
        )

    def _expected(
        self, measured: pd.DataFrame, wanted: npt.NDArray[np.bool_], rows: Ints
    ) -> Floats:
        types, slots = self.usual.slots(measured[wanted], rows)
        return np.where(rows < 0, np.nan, self.usual.median[rows, types, slots])

    def _tail_probabilities(self, scaled: Floats, rows: Ints) -> Floats:
        """Tail probability of each reading and signal; 1 where a signal is not known."""
        tails = np.ones_like(scaled)
        for k, table in enumerate(self.tables):
            abnormal = _abnormality(scaled[:, k], table, self.calibration.knee[rows, k])
            tails[:, k] = _tail(
                abnormal, self.calibration.grid[:, k], self.calibration.decay[:, k], rows
            )
        return np.where(np.isnan(scaled), 1.0, tails)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that scoring needs; the tables' arrays carry the number of their signal."""
        usual, calibration = self.usual, self.calibration
        found: dict[str, npt.NDArray[Any]] = {
            "machine_ids": usual.machine_ids,
            "time_zones": np.array(usual.time_zones),
            "median": usual.median,
            "low": usual.low,
            "high": usual.high,
            "centre": self.centre,
            "spread": self.spread,
            "grid": calibration.grid,
            "decay": calibration.decay,
            "knee": calibration.knee,
            "budget_p": self.budget_p,
            "missing": np.array([table.missing for table in self.tables]),
        }
        for k, table in enumerate(self.tables):
            found |= {f"keys_{k}": table.keys, f"scores_{k}": table.scores}
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Make the detector again that `arrays` came from."""
        zones = tuple(arrays["time_zones"].tolist())
        days = (arrays[name] for name in ("median", "low", "high"))
        tables = tuple(
            StepTable(arrays[f"keys_{k}"], arrays[f"scores_{k}"], missing)
            for k, missing in enumerate(arrays["missing"].tolist())
        )
        return cls(
            UsualDay(arrays["machine_ids"], zones, *days),
            arrays["centre"],
            arrays["spread"],
            tables,
            Calibration(arrays["grid"], arrays["decay"], arrays["knee"]),
            arrays["budget_p"],
        )


def _held_out_signals(measured: pd.DataFrame, zones: list[str], interval: timedelta) -> Floats:
    """Signals of each block of days by a usual day learnt from the other blocks."""
    ticks = microseconds(measured["utc_timestamp"])
    block = (ticks - ticks.min()) // int(BLOCK / timedelta(microseconds=1))
    found = np.full((len(measured), len(NAMES)), np.nan)
    for number in np.unique(block):
        mine = block == number
        if mine.all():
            return measure_signals(measured, usual_day(measured, zones, interval))
        others = usual_day(measured[~mine], zones, interval)
        found[mine] = measure_signals(measured, others)[mine]
    return found


def _centre_and_spread(signals: Floats, rows: Ints, machines: int) -> tuple[Floats, Floats]:
    centre = np.zeros((machines, signals.shape[1]))
    spread = np.ones_like(centre)
    for machine in range(machines):
        mine = signals[rows == machine]
        low, middle, high = (_quantile(mine, q) for q in (0.25, 0.5, 0.75))
        least = np.full(len(NAMES), _LEAST_SPREAD * _range(mine[:, 0]))
        least[NAMES.index("flat")] = 0.1
        centre[machine] = middle
        spread[machine] = np.maximum((high - low) / 1.349, least)
    return centre, spread


def _range(power: Floats) -> float:
    known = power[np.isfinite(power)]
    if not len(known):
        return 1.0
    return max(float(np.subtract(*np.quantile(known, (0.995, 0.05)))), 0.1)


def _quantile(signals: Floats, q: float) -> Floats:
    empty = np.isnan(signals).all(axis=0)
    filled = np.where(empty, 0.0, signals)
    quantiles: Floats = np.nanquantile(filled, q, axis=0)
    return quantiles


def _table(scaled: Floats, seed: int) -> StepTable:
    from sklearn.ensemble import IsolationForest

    known = scaled[np.isfinite(scaled)]
    if not len(known):
        known = np.zeros(1)
    if len(known) > POOL:
        known = np.random.default_rng(seed).choice(known, POOL, replace=False)
    forest = IsolationForest(
        n_estimators=TREES, max_samples=min(MAX_SAMPLES, len(known)), random_state=seed
    )
    return compile_forest(forest.fit(known[:, None]))


def _abnormality(scaled: Floats, table: StepTable, knee: Floats) -> Floats:
    """The forest's score, rising on beyond `knee`."""
    distance = np.maximum(np.abs(np.nan_to_num(scaled)) - knee, 0)
    return -table.score_samples(np.nan_to_num(scaled)) + _STRETCH * np.log1p(distance)


def _calibrate(
    scaled: Floats, rows: Ints, machines: int, tables: tuple[StepTable, ...]
) -> Calibration:
    shape = (machines, len(tables))
    grid, decay, knee = np.zeros((*shape, len(_GRID))), np.ones(shape), np.full(shape, np.inf)
    for machine in range(machines):
        mine = scaled[rows == machine]
        for k, table in enumerate(tables):
            known = mine[np.isfinite(mine[:, k]), k]
            if not len(known):
                continue
            knee[machine, k] = np.quantile(np.abs(known), _GRID[-1])
            abnormal = _abnormality(known, table, np.full(len(known), knee[machine, k]))
            grid[machine, k] = np.quantile(abnormal, _GRID)
            beyond = abnormal[abnormal > grid[machine, k, -1]] - grid[machine, k, -1]
            decay[machine, k] = max(beyond.mean(), 1e-3) if len(beyond) else 1e-3
    return Calibration(grid, decay, knee)


def _tail(abnormal: Floats, grid: Floats, decay: Floats, rows: Ints) -> Floats:
    tail = np.ones(len(abnormal))
    for machine in np.unique(rows[rows >= 0]):
        mine = rows == machine
        body = 1 - np.interp(abnormal[mine], grid[machine], _GRID)
        beyond = abnormal[mine] - grid[machine, -1]
        tail[mine] = np.where(beyond > 0, _TAIL * np.exp(-beyond / decay[machine]), body)
    return tail


def _budget_p(
    p: Floats, rows: Ints, measured: pd.DataFrame, machines: int, budget: float
) -> Floats:
    ticks = microseconds(measured["utc_timestamp"])
    found = np.zeros(machines)
    for machine in range(machines):
        mine = rows == machine
        weeks = (np.ptp(ticks[mine]) + 1) / (BLOCK / timedelta(microseconds=1))
        found[machine] = threshold_at(p[mine], ticks[mine], budget * weeks)
    return found


def threshold_at(p: Floats, ticks: Ints, incidents: float) -> float:
    """The largest probability below which readings form at most so many incidents."""
    candidates = np.unique(p)[:2000]
    low, high = 0, len(candidates)
    while high - low > 1:
        middle = (low + high) // 2
        if count_incidents(ticks[p < candidates[middle]]) <= incidents:
            low = middle
        else:
            high = middle
    return float(candidates[low])


def count_incidents(ticks: Ints) -> int:
    """How many groups of alarms lie more than an hour apart."""
    gap = int(INCIDENT_GAP / timedelta(microseconds=1))
    return int(len(ticks) > 0) + int((np.diff(np.sort(ticks)) > gap).sum())
