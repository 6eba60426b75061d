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


@dataclass(frozen=True)
class StepTables:
    """Scores of a forest as a function of one number, for each of several other inputs.

    Attributes
    ----------
    keys : array of float32, sorted
        Where any of the functions steps.
    scores : array (row, one more than keys)
        ``score_samples`` on each step.
    missing : array (row)
        ``score_samples`` of NaN.
    """

    keys: npt.NDArray[np.float32]
    scores: Floats
    missing: Floats

    def score_samples(self, rows: npt.NDArray[np.int64], numbers: Floats) -> Floats:
        """Scores of numbers, each by the function of its row, as scikit-learn would give them."""
        with np.errstate(over="ignore"):
            narrow = numbers.astype(np.float32)
        scores = self.scores[rows, np.searchsorted(self.keys, narrow, side="left")]
        return np.where(np.isnan(narrow), self.missing[rows], scores)


def compile_forest(forest: Any) -> StepTable:
    """Compile a fitted ``IsolationForest`` over a single input.

    Parameters
    ----------
    forest : sklearn.ensemble.IsolationForest
        Fitted, with ``n_jobs`` of one (two add the trees in another order).
    """
    tables = compile_rows(forest, np.zeros((1, 1)), 0)
    return StepTable(tables.keys, tables.scores[0], float(tables.missing[0]))


def compile_rows(forest: Any, rows: Floats, column: int) -> StepTables:
    """Compile a fitted ``IsolationForest`` over its `column`, the others held at each of `rows`.

    Parameters
    ----------
    forest : sklearn.ensemble.IsolationForest
        As in `compile_forest`.
    rows : array (row, input)
        The other inputs.
    """
    keys = _steps(forest, column)
    beyond = np.nextafter(keys[-1:], np.float32(np.inf)) if len(keys) else np.zeros(1, np.float32)
    points = np.concatenate([keys, beyond, [np.nan]]).astype(np.float64)
    scores = np.empty((len(rows), len(points)))
    for number, row in enumerate(rows):
        inputs = np.tile(row, (len(points), 1)).astype(np.float64)
        inputs[:, column] = points
        scores[number] = forest.score_samples(inputs)
    return StepTables(keys, scores[:, :-1].copy(), scores[:, -1].copy())


def _steps(forest: Any, column: int) -> npt.NDArray[np.float32]:
    """Where the forest splits on `column`."""
    thresholds = [
        tree.tree_.threshold[tree.tree_.feature == used.tolist().index(column)]
        for tree, used in zip(forest.estimators_, forest.estimators_features_, strict=True)
        if column in used
    ]
    return np.unique(_largest_float32_not_above(np.concatenate([np.empty(0), *thresholds])))


def _largest_float32_not_above(thresholds: Floats) -> npt.NDArray[np.float32]:
    keys = thresholds.astype(np.float32)
    too_large = keys.astype(np.float64) > thresholds
    keys[too_large] = np.nextafter(keys[too_large], np.float32(-np.inf))
    return keys
