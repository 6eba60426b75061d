"""A forest over one scalar, compiled exactly into a sorted table: no forest when scoring.

An Isolation Forest whose only varying input is one number is a step function of
it. scikit-learn compares ``float32(x) <= threshold``, so the steps lie at the
largest float32 not above each threshold; the table is filled by scikit-learn
itself, on one number a step, and looked up by bisection. Scores are bitwise
those of ``score_samples``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StepTable:
    """Scores of a forest as a function of one number.

    Attributes
    ----------
    keys : array of float32, sorted
        Where the function steps: a number equal to a key lies on its left.
    scores : array of float64, one more than keys
        ``score_samples`` on each step, lower is more abnormal.
    missing : float
        ``score_samples`` of NaN.
    """

    keys: npt.NDArray[np.float32]
    scores: Floats
    missing: float

    def score_samples(self, numbers: Floats) -> Floats:
        """Scores of numbers, as scikit-learn would give them."""
        with np.errstate(over="ignore"):
            narrow = numbers.astype(np.float32)
        scores: Floats = self.scores[np.searchsorted(self.keys, narrow, side="left")]
        return np.where(np.isnan(narrow), self.missing, scores)


def compile_forest(forest: Any, row: Floats | None = None, column: int = 0) -> StepTable:
    """Compile a fitted ``IsolationForest`` over its `column`, the others held at `row`.

    Parameters
    ----------
    forest : sklearn.ensemble.IsolationForest
        Fitted, with ``n_jobs`` of one (two add the trees in another order).
    row : array, optional
        The other inputs; needed when the forest has more than one.
    """
    thresholds = [
        tree.tree_.threshold[tree.tree_.feature == used.tolist().index(column)]
        for tree, used in zip(forest.estimators_, forest.estimators_features_, strict=True)
        if column in used
    ]
    keys = np.unique(_largest_float32_not_above(np.concatenate([np.empty(0), *thresholds])))
    beyond = np.nextafter(keys[-1:], np.float32(np.inf)) if len(keys) else np.zeros(1, np.float32)
    points = np.concatenate([keys, beyond]).astype(np.float64)
    inputs = np.tile(np.zeros(1) if row is None else row, (len(points) + 1, 1)).astype(np.float64)
    inputs[:-1, column] = points
    inputs[-1, column] = np.nan
    scores = forest.score_samples(inputs)
    return StepTable(keys, scores[:-1], float(scores[-1]))


def _largest_float32_not_above(thresholds: Floats) -> npt.NDArray[np.float32]:
    keys = thresholds.astype(np.float32)
    too_large = keys.astype(np.float64) > thresholds
    keys[too_large] = np.nextafter(keys[too_large], np.float32(-np.inf))
    return keys
