"""The detector `signals`: a small forest a signal, calibrated a machine, and an alert budget.

It is trained in `anomaly.signal_training`; scoring needs arrays and step tables alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.contradictions import REACH
from anomaly.detector import Scores
from anomaly.signals import Readings, explain, measure_signals
from anomaly.step_table import StepTable
from anomaly.usual_day import UsualDay

if TYPE_CHECKING:
    from anomaly.settings import Settings

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

STRETCH = 0.6
"""How fast abnormality rises beyond the training range, where a forest is flat."""
_BLOCK = 16_384  # readings at once, so that what is made of them stays in the processor's cache


BY_ROW = (
    "centre", "spread", "low", "high", "often", "decay", "rarity", "limit", "realised_rate",
)  # fmt: skip
"""Arrays with a row a machine, and one of the fleet."""


@dataclass(frozen=True, eq=False)
class SignalDetector:
    """Isolation Forests over a machine's signals, each compiled to a step table.

    The score is ``p0 / (p0 + p)``: p is the smallest tail probability of the
    signals, p0 the machine's own at its alert budget, so 0.5 is the threshold on
    every machine and version. Both are kept as evidence, ``-log p``.

    The last row of every array is the fleet's: how a machine behaves of which nothing is
    known. A machine that training has not seen is judged by it, as row -1.

    Attributes
    ----------
    interval_minutes : int
        Of the meter.
    usual : UsualDay
    centre, spread : array, shape (row, signal)
        What each signal is scaled by.
    low, high : array, shape (row, signal)
        Range of the scaled signal in training, without its outermost hundredths.
    tables : tuple of StepTable
        A forest a signal, shared by all machines.
    often : array, shape (row, signal)
        Abnormality that training reached on about three days of ten.
    decay : array, shape (row, signal)
        By how much more it is there when it is e times rarer.
    rarity : array, shape (row, signal)
        Evidence at `often`: minus the logarithm of the share of days.
    limit : array, shape (row,)
        Evidence at which the machine alarms: its alert budget; infinite where nothing is
        known of the fleet.
    realised_rate : array, shape (row,)
        Incidents a week that these limits would have raised in training, held out.
    """

    name: ClassVar[str] = "signals"
    threshold: ClassVar[float] = 0.5
    reach: ClassVar[timedelta] = REACH

    interval_minutes: int
    usual: UsualDay
    centre: Floats
    spread: Floats
    low: Floats
    high: Floats
    tables: tuple[StepTable, ...]
    often: Floats
    decay: Floats
    rarity: Floats
    limit: Floats
    realised_rate: Floats

    @classmethod
    def fit(
        cls, measured: pd.DataFrame, machines: pd.DataFrame, settings: "Settings"
    ) -> "SignalDetector":
        """Train on measured readings without meter faults, sorted by machine and time.

        Parameters
        ----------
        machines : DataFrame
            Indexed by ``machine_id``: ``time_zone``, ``alert_budget`` (incidents a week;
            NaN: the setting's), ``often_flat`` (bool). A machine that is not in it stands
            in UTC and has the setting's budget.
        """
        from anomaly.signal_training import train_signals

        return train_signals(measured, machines, settings).detector

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that scoring needs; the tables' arrays carry the number of their signal."""
        found: dict[str, npt.NDArray[Any]] = {name: getattr(self, name) for name in BY_ROW}
        found |= {f.name: getattr(self.usual, f.name) for f in fields(self.usual)}
        found["interval_minutes"] = np.array(self.interval_minutes)
        found["missing"] = np.array([table.missing for table in self.tables])
        for k, table in enumerate(self.tables):
            found |= {f"keys_{k}": table.keys, f"scores_{k}": table.scores}
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Make the detector again that `arrays` came from."""
        tables = tuple(
            StepTable(arrays[f"keys_{k}"], arrays[f"scores_{k}"], missing)
            for k, missing in enumerate(arrays["missing"].tolist())
        )
        return cls(
            interval_minutes=int(arrays["interval_minutes"]),
            usual=UsualDay(**{f.name: arrays[f.name] for f in fields(UsualDay)}),
            tables=tables,
            **{name: arrays[name] for name in BY_ROW},
        )

    @property
    def interval(self) -> timedelta:
        """Of the meter."""
        return timedelta(minutes=self.interval_minutes)

    def score(self, measured: pd.DataFrame, wanted: Bools) -> Scores:
        """Score the `wanted` readings, given with those that precede them by up to a day."""
        readings, chosen = Readings(measured, self.usual), np.flatnonzero(wanted)
        rows = readings.rows[chosen]
        evidence = self.evidence(measure_signals(readings, chosen, self.interval), rows)
        beyond = evidence.max(axis=1) - self.limit[rows]
        with np.errstate(over="ignore"):
            score = 1 / (1 + np.exp(-beyond))
        anomaly = score > self.threshold
        reason = np.full(len(chosen), None, dtype=object)
        reason[anomaly] = explain(
            readings,
            chosen[anomaly],
            evidence[anomaly].argmax(axis=1),
            self.centre[rows[anomaly]],
            self.interval,
        )
        expected = np.where(rows >= 0, readings.expected_kw[chosen], np.nan)
        return Scores(score, anomaly, reason, expected)

    def evidence(self, signals: Floats, rows: Ints) -> Floats:
        """Evidence of each signal: ``-log`` of the share of days that reach it; at least 0.

        Parameters
        ----------
        signals : array, shape (reading, signal)
        rows : array of int
            The readings' machines, as rows of the usual day.

        Returns
        -------
        array, shape (reading, signal)
            0 where a signal is not known.
        """
        evidence = np.empty_like(signals)
        for begin in range(0, len(rows), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            row = rows[block]
            rare = (self.abnormality(signals[block], row) - self.often[row]) / self.decay[row]
            evidence[block] = np.nan_to_num(np.maximum(rare + self.rarity[row], 0))
        return evidence

    def abnormality(self, signals: Floats, rows: Ints) -> Floats:
        """The forests' scores, rising on beyond the training range; NaN where not known."""
        found = np.full(signals.shape, np.nan)
        for k, table in enumerate(self.tables):
            known = np.flatnonzero(np.isfinite(signals[:, k]))
            row = rows[known]
            scaled = (signals[known, k] - self.centre[row, k]) / self.spread[row, k]
            beyond = np.maximum(self.low[row, k] - scaled, scaled - self.high[row, k])
            found[known, k] = STRETCH * np.maximum(beyond, 0) - table.score_samples(scaled)
        return found
