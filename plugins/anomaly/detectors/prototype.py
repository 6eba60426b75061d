"""The prototype's detector: one Isolation Forest over ``power_diff`` and the machine."""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import Floats, Ints
from anomaly.detectors.base import Scores
from anomaly.detectors.step_table import StepTables, compile_rows
from anomaly.readings.measuring import is_restart
from anomaly.settings import MeterSettings, TrainingSettings

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


class PrototypeDetector:
    """The prototype's forest, compiled to one step table per machine, and one for unseen machines.

    The score is the paper's s (scikit-learn's ``-score_samples``, bit for bit). The threshold
    is ``-offset_``, so that about the share ``contamination`` of training readings are
    anomalies. Scoring needs no scikit-learn.

    Parameters
    ----------
    machine_ids : array of int, sorted
        Machines that have a column of their own.
    tables : StepTables
        One row per machine of `machine_ids`, and a last one for all others.
    offset : float
        Readings with lower ``score_samples`` are anomalies.
    unit : str
        Of ``power_diff``, for reasons.

    Notes
    -----
    F. T. Liu, K. M. Ting, Z.-H. Zhou: Isolation Forest, ICDM 2008.
    """

    name: ClassVar[str] = "prototype"
    reach: ClassVar[timedelta] = timedelta(0)
    """It looks at no earlier reading: ``power_diff`` is a column of the reading."""

    def __init__(self, machine_ids: Ints, tables: StepTables, offset: float, unit: str) -> None:
        self.machine_ids = machine_ids
        self.tables = tables
        self.offset = offset
        self.unit = unit

    @classmethod
    def compile(cls, pipeline: "Pipeline", meter: MeterSettings) -> Self:
        """Compile what `fit_forest` trained."""
        features, forest = pipeline[0], pipeline[-1]
        machine_ids = _machines_with_column(features)
        unseen = int(machine_ids.max(initial=0)) + 1  # its columns are all 0, as of any unseen one
        held = pd.DataFrame({"machine_id": [*machine_ids.tolist(), unseen], "power_diff": 0.0})
        rows = np.asarray(features.transform(held), dtype=np.float64)
        unit = "kW" if meter.is_counter else "W/h"
        tables = compile_rows(forest, rows, rows.shape[1] - 1)
        return cls(machine_ids, tables, float(forest.offset_), unit)

    @property
    def threshold(self) -> float:
        """The score above which a reading is an anomaly."""
        return -self.offset

    def score(self, measured: pd.DataFrame, wanted: npt.NDArray[np.bool_]) -> Scores:
        """Score the `wanted` readings; unseen machines are judged only by ``power_diff``.

        The first reading of a new count has no known rate: it gets the score of an unknown one,
        and no alarm.
        """
        machine_ids = measured["machine_id"].to_numpy()[wanted]
        restarts = is_restart(measured)[wanted]
        rates = np.where(restarts, np.nan, measured["power_diff"].to_numpy(float)[wanted])
        samples = self.tables.score_samples(self._rows(machine_ids), rates)
        samples = np.where(restarts, np.maximum(samples, self.offset), samples)
        anomaly = samples < self.offset
        unknown = np.full(len(samples), np.nan)
        return Scores(-samples, anomaly, self._reasons(rates, anomaly), unknown)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that scoring needs."""
        return {
            "machine_ids": self.machine_ids,
            "keys": self.tables.keys,
            "scores": self.tables.scores,
            "missing": self.tables.missing,
            "offset": np.array(self.offset),
            "unit": np.array(self.unit),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Make the detector again that `arrays` came from."""
        tables = StepTables(arrays["keys"], arrays["scores"], arrays["missing"])
        offset, unit = float(arrays["offset"]), str(arrays["unit"])
        return cls(arrays["machine_ids"], tables, offset, unit)

    def _rows(self, machine_ids: npt.NDArray[np.generic]) -> Ints:
        """Row of each machine in `tables`; the last is for machines without a column."""
        if not len(self.machine_ids):
            return np.zeros(len(machine_ids), np.int64)
        place = np.minimum(
            np.searchsorted(self.machine_ids, machine_ids), len(self.machine_ids) - 1
        )
        known = self.machine_ids[place] == machine_ids
        return np.where(known, place, len(self.machine_ids)).astype(np.int64)

    def _reasons(self, rates: Floats, anomaly: npt.NDArray[np.bool_]) -> npt.NDArray[np.object_]:
        reasons = np.full(len(rates), None, dtype=object)
        for row in np.flatnonzero(anomaly):
            reasons[row] = f"unusual for this machine: {rates[row]:.1f} {self.unit}"
        return reasons


def fit_forest(measured: pd.DataFrame, training: TrainingSettings) -> "Pipeline":
    """Train on ``machine_id`` and ``power_diff``; the same rows give the same forest.

    The first readings of new counts are left out: their rate is not known.
    Each machine has a column, as in the prototype. With more than ``forest_one_hot_machines``
    machines hardly a split would be left for ``power_diff``. Then the columns are left out, and
    one forest judges all machines alike.

    Returns
    -------
    sklearn.pipeline.Pipeline
        The eighth step, and the ``IsolationForest``.
    """
    from sklearn.ensemble import IsolationForest
    from sklearn.pipeline import Pipeline

    from anomaly.readings.transformers import feature_columns

    measured = measured[~is_restart(measured)]
    machines = measured["machine_id"].nunique()
    forest = IsolationForest(
        n_estimators=training.forest_trees,
        max_samples=training.forest_max_samples,
        contamination=training.forest_contamination,
        random_state=training.random_seed,
    )
    features = feature_columns(one_hot=machines <= training.forest_one_hot_machines)
    pipeline = Pipeline([("features", features), ("forest", forest)])
    return pipeline.fit(measured[["machine_id", "power_diff"]])


def _machines_with_column(features: Any) -> Ints:
    """Ids of the machines that have a column of their own, sorted."""
    encoder = features.named_transformers_.get("machine")
    ids = [] if encoder is None else encoder.categories_[0]
    return np.asarray(ids, dtype=np.int64)
