"""A forest over one scalar, compiled exactly into a sorted table: no forest when scoring.

An Isolation Forest whose only varying input is one number is a step function of
it. scikit-learn compares ``float32(x) <= threshold``, so the steps lie at the
largest float32 not above each threshold. scikit-learn itself fills the table, with
one number per step. Scores are bitwise those of ``score_samples``. Few numbers are
looked up by bisection, many by a grid that leads to the same step.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.arrays import Floats, Ints

Narrow = npt.NDArray[np.float32]

_CELLS = 1 << 16
"""Cells of a grid: many more than a forest has keys, so hardly a cell holds more than two."""
_EDGES = 0.002
"""Share of the keys on either side that lies outside the grid: a few far keys would make its cells
too wide. Chosen."""
_FEW = 4_096
"""Fewer numbers than these are looked up by bisection, which is faster for them."""
_BLOCK = 32_768
"""Numbers at once, so that the arrays made of them stay in the processor's cache."""


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

    keys: Narrow
    scores: Floats
    missing: float

    @cached_property
    def _places(self) -> "_Places":
        return _Places(self.keys)

    def score_samples(self, numbers: Floats) -> Floats:
        """Scores of numbers, bitwise as scikit-learn gives them; same shape."""
        found = np.empty(len(numbers))
        for begin in range(0, len(numbers), _BLOCK):
            narrow = _narrow(numbers[begin : begin + _BLOCK])
            scores = self.scores.take(self._places.of(narrow))
            scores[np.isnan(narrow)] = self.missing
            found[begin : begin + _BLOCK] = scores
        return found


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

    keys: Narrow
    scores: Floats
    missing: Floats

    @cached_property
    def _places(self) -> "_Places":
        return _Places(self.keys)

    def score_samples(self, rows: npt.NDArray[np.int64], numbers: Floats) -> Floats:
        """Scores of numbers, each by the function of its row, bitwise as of scikit-learn."""
        found = np.empty(len(numbers))
        for begin in range(0, len(numbers), _BLOCK):
            narrow, row = _narrow(numbers[begin : begin + _BLOCK]), rows[begin : begin + _BLOCK]
            scores = self.scores.take(row * self.scores.shape[1] + self._places.of(narrow))
            unknown = np.isnan(narrow)
            scores[unknown] = self.missing[row[unknown]]
            found[begin : begin + _BLOCK] = scores
        return found


class _Places:
    """Find the places of numbers among sorted keys.

    Few numbers are found by bisection. For many, a grid of equal cells says how many keys lie
    in the cells before a number's own cell. Subtracting, multiplying and cutting off decimals
    keep the order, so all of those keys are below the number. Hardly a cell holds more than
    two keys; a number that is not found after two steps is found by bisection after all.
    """

    def __init__(self, keys: Narrow) -> None:
        self._keys = keys

    def of(self, numbers: Narrow) -> Ints:
        """How many keys are below each number; of NaN, anything from none to all."""
        if len(numbers) < _FEW or not len(self._keys):
            return np.searchsorted(self._keys, numbers)
        place = self._before.take(self._cells(numbers))
        place += self._closed.take(place) < numbers
        left = np.flatnonzero(self._closed.take(place) < numbers)
        place[left] = np.searchsorted(self._keys, numbers[left])
        return place

    @cached_property
    def _before(self) -> Ints:
        """Number of keys in the cells before each cell."""
        filled = np.bincount(self._cells(self._keys), minlength=_CELLS + 2)
        return np.cumsum(filled) - filled

    @cached_property
    def _closed(self) -> Narrow:
        """The keys, and an infinite one, so that a step beyond the last key finds an end."""
        return np.append(self._keys, np.float32(np.inf))

    @cached_property
    def _grid(self) -> tuple[np.float32, np.float32]:
        """Where the grid begins, and its number of cells per unit."""
        low, high = np.quantile(self._keys, [_EDGES, 1 - _EDGES]).astype(np.float32)
        width = float(high) - float(low)
        return low, np.float32(_CELLS / width if width > 0 else 0)

    def _cells(self, numbers: Narrow) -> npt.NDArray[np.int32]:
        """The cell of each number; the first and the last hold all numbers outside the grid."""
        low, scale = self._grid
        with np.errstate(over="ignore", invalid="ignore"):
            cells = (numbers - low) * scale
        np.fmax(cells, -1, out=cells)  # fmax and fmin also turn NaN into a number
        np.fmin(cells, _CELLS, out=cells)
        cells += 1
        return cells.astype(np.int32)


def _narrow(numbers: Floats) -> Narrow:
    """Numbers as float32, which scikit-learn rounds its inputs to."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def compile_forest(forest: Any) -> StepTable:
    """Compile a fitted ``IsolationForest`` over a single input.

    Parameters
    ----------
    forest : sklearn.ensemble.IsolationForest
        Fitted with ``n_jobs=1``: two jobs add up the trees in another order.
    """
    tables = compile_rows(forest, np.zeros((1, 1)), 0)
    return StepTable(tables.keys, tables.scores[0], float(tables.missing[0]))


def compile_rows(forest: Any, rows: Floats, column: int) -> StepTables:
    """Compile a fitted ``IsolationForest`` over one `column`, once for each of `rows`.

    Parameters
    ----------
    forest : sklearn.ensemble.IsolationForest
        As in `compile_forest`.
    rows : array (row, input)
        The other inputs, which stay as they are in a row.
    column : int
        The input that varies.
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
    """The numbers at which the forest splits on `column`, sorted."""
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
