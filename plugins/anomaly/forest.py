"""The prototype's detector: one Isolation Forest over ``power_diff`` and the machine."""

from datetime import timedelta
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import IsolationForest

from anomaly.detector import Scores
from anomaly.preprocessing import feature_columns
from anomaly.settings import ReadingKind, Settings
from anomaly.step_table import StepTable, compile_forest

WORTH_COMPILING = 10_000
"""Rows of a machine, seen by one process, after which a step table is worth its 0.15 s."""


class PrototypeDetector:
    """Isolation Forest over one-hot machine ids and ``power_diff``, as the prototype had it.

    The score is the paper's s (scikit-learn's ``-score_samples``), the threshold
    ``-offset_``, so that about the share ``contamination`` of training readings
    are anomalies.

    Notes
    -----
    F. T. Liu, K. M. Ting, Z.-H. Zhou: Isolation Forest, ICDM 2008.
    """

    name: ClassVar[str] = "prototype"
    reach: ClassVar[timedelta] = timedelta(0)
    """``power_diff`` looks at the previous reading alone."""

    def __init__(self, features: ColumnTransformer, forest: IsolationForest, unit: str) -> None:
        self.features = features
        self.forest = forest
        self.unit = unit
        self._seen: dict[int, int] = {}
        self._tables: dict[int, StepTable] = {}

    @classmethod
    def fit(cls, measured: pd.DataFrame, settings: Settings) -> Self:
        """Train on ``machine_id`` and ``power_diff``; the same rows give the same forest."""
        features = feature_columns()
        forest = IsolationForest(
            n_estimators=settings.forest_trees,
            max_samples=settings.forest_max_samples,
            contamination=settings.forest_contamination,
            random_state=settings.random_seed,
        )
        forest.fit(features.fit_transform(measured))
        unit = "kW" if settings.reading_kind is ReadingKind.ENERGY_KWH else "W/h"
        return cls(features, forest, unit)

    @property
    def threshold(self) -> float:
        """The score above which a reading is an anomaly."""
        return -float(self.forest.offset_)

    def score(self, measured: pd.DataFrame, wanted: npt.NDArray[np.bool_]) -> Scores:
        """Score readings; a machine that training did not see is judged by ``power_diff`` alone."""
        measured = measured[wanted]
        if measured.empty:
            nothing = np.empty(0)
            return Scores(nothing, nothing.astype(bool), nothing.astype(object), nothing)
        samples = self._score_samples(measured)
        anomaly = samples < self.forest.offset_
        unknown = np.full(len(samples), np.nan)
        return Scores(-samples, anomaly, self._reasons(measured, anomaly), unknown)

    def _score_samples(self, measured: pd.DataFrame) -> npt.NDArray[np.float64]:
        """The forest's scores; of machines seen often through a step table, bit for bit."""
        machines, codes, counts = np.unique(
            measured["machine_id"], return_inverse=True, return_counts=True
        )
        samples = np.empty(len(measured))
        for machine, count in zip(machines.tolist(), counts.tolist(), strict=True):
            self._seen[machine] = self._seen.get(machine, 0) + count
        compiled = np.array([self._seen[machine] >= WORTH_COMPILING for machine in machines])
        few = ~compiled[codes]
        if few.any():
            samples[few] = self.forest.score_samples(self.features.transform(measured[few]))
        rates = measured["power_diff"].to_numpy(float)
        for code in np.flatnonzero(compiled):
            mine = codes == code
            samples[mine] = self._table(int(machines[code])).score_samples(rates[mine])
        return samples

    def _table(self, machine_id: int) -> StepTable:
        if machine_id not in self._tables:
            one = pd.DataFrame({"machine_id": [machine_id], "power_diff": [0.0]})
            row = self.features.transform(one)[0]
            self._tables[machine_id] = compile_forest(self.forest, row, len(row) - 1)
        return self._tables[machine_id]

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_seen": {}, "_tables": {}}  # compiled again where it is worth it

    def _reasons(
        self, measured: pd.DataFrame, anomaly: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.object_]:
        reasons = np.full(len(measured), None, dtype=object)
        rates = measured["power_diff"].to_numpy()
        for row in np.flatnonzero(anomaly):
            reasons[row] = f"unusual for this machine: {rates[row]:.1f} {self.unit}"
        return reasons
