"""The detector `signals`: one small forest per signal, calibrated per machine to an alert budget.

`anomaly.detectors.signals.training` trains it. Scoring needs only arrays and step tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import Bools, Floats, Ints, one_if_equal
from anomaly.detectors.base import Scores
from anomaly.detectors.signals.explaining import explain
from anomaly.detectors.signals.signals import NAMES, ONE_SIDED, Readings, measure_signals
from anomaly.detectors.signals.usual_day import UsualDay
from anomaly.detectors.step_table import StepTable
from anomaly.errors import ArtefactError
from anomaly.readings.contradictions import REACH

STRETCH = 0.6
"""Abnormality that is added per spread beyond the training range. A forest is flat there, and a
monstrous spike would score like a large one. Chosen on injected faults
(docs/explanation/detection-lab-report.md, "How it was chosen")."""
_BLOCK = 8_192
"""Readings at once, so that the arrays made of them stay in the processor's cache."""

BY_ROW = (
    "centre", "spread", "low", "high", "often", "decay", "rarity", "limit", "caution",
    "realised_rate",
)  # fmt: skip
"""Arrays with one row per machine, and one row for the fleet."""

_SIGNALS_OF_OLD_ARTEFACTS = (
    "level_1h", "throughout_4h", "change", "running_4h", "run", "pause", "idle_6h", "flat",
)  # fmt: skip
"""The signals of artefacts that do not name theirs: they were written when these were all.
Never change it, whatever becomes of `NAMES`."""


@dataclass(frozen=True, eq=False)
class SignalDetector:
    """Isolation Forests over a machine's signals, each compiled to a step table.

    The score is ``p0 / (p0 + p)``: p is the smallest tail probability of the
    signals, p0 the machine's own at its alert budget, so 0.5 is the threshold on
    every machine and version. Both are kept as evidence, ``-log p``.

    The last row of every array is the fleet's. It judges machines that training has not seen,
    as row -1.

    Attributes
    ----------
    interval_minutes : int
        The meter's.
    usual : UsualDay
    centre, spread : array, shape (row, signal)
        Centre and spread that each signal is scaled by, in the order of `NAMES`.
    low, high : array, shape (row, signal)
        Range of the scaled signal in training, without the outermost hundredth on either side.
    tables : tuple of StepTable
        One forest per signal, shared by all machines.
    often : array, shape (row, signal)
        Abnormality that training reached on about three days of ten.
    decay : array, shape (row, signal)
        How much higher the abnormality is that is e times rarer.
    rarity : array, shape (row, signal)
        Evidence at `often`: minus the logarithm of the share of days.
    limit : array, shape (row,)
        Evidence above which the machine alarms, set for its alert budget. Infinite in the
        fleet's row where a fleet says nothing.
    caution : array, shape (row,)
        What the budget was divided by to set the limit.
    realised_rate : array, shape (row,)
        Incidents per week that these limits would have raised in training, held out.
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
    caution: Floats
    realised_rate: Floats

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that scoring needs, and the names of the signals in the order of the columns.

        The arrays of the step tables carry the number of their signal.
        """
        found: dict[str, npt.NDArray[Any]] = {name: getattr(self, name) for name in BY_ROW}
        found |= {f.name: getattr(self.usual, f.name) for f in fields(self.usual)}
        found["signals"] = np.array(NAMES)
        found["interval_minutes"] = np.array(self.interval_minutes)
        found["missing"] = np.array([table.missing for table in self.tables])
        for k, table in enumerate(self.tables):
            found |= {f"keys_{k}": table.keys, f"scores_{k}": table.scores}
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Make the detector again that `arrays` came from.

        Raises
        ------
        ArtefactError
            When it was trained on other signals than this version measures, or in another order.
        """
        _check_signals(arrays)
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
        """The meter's."""
        return timedelta(minutes=self.interval_minutes)

    def score(self, measured: pd.DataFrame, wanted: Bools) -> Scores:
        """Score the `wanted` readings; the others are those of the day before them."""
        readings, chosen = self.readings(measured), np.flatnonzero(wanted)
        rows = readings.rows[chosen]
        evidence = self.evidence(measure_signals(readings, chosen), rows)
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
        )
        expected = np.where(rows >= 0, readings.expected_kw[chosen], np.nan)
        return Scores(score, anomaly, reason, expected)

    def readings(self, measured: pd.DataFrame) -> Readings:
        """Measured readings beside this detector's usual day."""
        return Readings(measured, self.usual, self.interval)

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
            row = one_if_equal(rows[block])
            abnormal = self.abnormality(signals[block], rows[block])
            rare = (abnormal - self.often[row]) / self.decay[row]
            evidence[block] = np.nan_to_num(np.maximum(rare + self.rarity[row], 0))
        return evidence

    def scale(self, signal: Floats, rows: Ints, k: int) -> Floats:
        """A signal in spreads of its row, from the row's centre.

        Of the `ONE_SIDED` ones below the centre, nothing is abnormal: they count as the centre.
        """
        scaled: Floats = (signal - self.centre[rows, k]) / self.spread[rows, k]
        return np.maximum(scaled, 0) if NAMES[k] in ONE_SIDED else scaled

    def abnormality(self, signals: Floats, rows: Ints) -> Floats:
        """Scores of the forests, shape (reading, signal); NaN where a signal is not known.

        Beyond the training range they rise on by `STRETCH` per spread.
        """
        found = np.full(signals.shape, np.nan)
        for k, table in enumerate(self.tables):
            known = np.flatnonzero(np.isfinite(signals[:, k]))
            row = one_if_equal(rows[known])
            scaled = self.scale(signals[known, k], row, k)
            beyond = np.maximum(self.low[row, k] - scaled, scaled - self.high[row, k])
            found[known, k] = STRETCH * np.maximum(beyond, 0) - table.score_samples(scaled)
        return found


def _check_signals(arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Refuse arrays of other signals: their columns would be taken for those of this version."""
    stored = tuple(arrays["signals"].tolist()) if "signals" in arrays else _SIGNALS_OF_OLD_ARTEFACTS
    if stored != NAMES:
        raise ArtefactError(
            f"it was trained on the signals {', '.join(stored)}, and this version of the product"
            f" measures {', '.join(NAMES)}: train a new version, or use the version of the product"
            " that wrote it"
        )
