"""Quantiles of many groups at once, by sorting."""

from collections.abc import Sequence

import numpy as np

from anomaly.arrays import Floats, Ints


def quantiles(numbers: Floats, group: Ints, groups: int, shares: Sequence[float]) -> Floats:
    """Quantiles of the known numbers of each group, linearly interpolated.

    Parameters
    ----------
    numbers : array
        NaN is left out.
    group : array of int
        Group of each number, from 0 to `groups` - 1.
    shares : sequence of float
        Which quantiles, 0 to 1.

    Returns
    -------
    array, shape (share, group)
        0 for a group without numbers.

    Examples
    --------
    >>> quantiles(np.array([1.0, 3.0, 8.0]), np.array([0, 0, 2]), 3, [0.5]).tolist()
    [[2.0, 0.0, 8.0]]
    """
    known = np.isfinite(numbers)
    numbers, group = numbers[known], group[known]
    ordered = numbers[np.lexsort((numbers, group))]
    count = np.bincount(group, minlength=groups)
    return _picked(ordered, np.cumsum(count) - count, count, shares)


def cell_quantiles(
    numbers: Floats, cell: Ints, shape: tuple[int, int], reach: int, shares: Sequence[float]
) -> Floats:
    """Quantiles of each cell of a clock, pooled with the `reach` cells on either side.

    Parameters
    ----------
    numbers : array
        Finite.
    cell : array of int
        Place of each number in an array of `shape`, flattened.
    shape : (clocks, cells)
        Every clock goes round: the first cell follows the last.

    Returns
    -------
    array, shape (share, clock, cell)
        NaN where there is no number.
    """
    clocks, cells = shape
    found = np.zeros((len(shares), *shape))
    order = np.argsort(cell, kind="stable")
    ordered, count = numbers[order], np.bincount(cell, minlength=clocks * cells)
    start = np.cumsum(count) - count
    most = max(1, _AT_ONCE // max(1, cells * int(count.max(initial=1)) * (2 * reach + 1)))
    for first in range(0, clocks, most):
        last = min(first + most, clocks)
        few = slice(first * cells, last * cells)
        dense = _dense(ordered, start[few], count[few]).reshape(last - first, cells, -1)
        counts = count[few].reshape(last - first, cells)
        shifts = range(-reach, reach + 1)
        pooled = np.concatenate([np.roll(dense, shift, axis=1) for shift in shifts], axis=2)
        pooled.sort(axis=2)
        size = np.sum([np.roll(counts, shift, axis=1) for shift in shifts], axis=0).ravel()
        begin = np.arange(size.size) * pooled.shape[2]
        picked = _picked(pooled.ravel(), begin, size, shares)
        picked[:, size == 0] = np.nan
        found[:, first:last] = picked.reshape(len(shares), last - first, cells)
    return found


_AT_ONCE = 4_000_000  # numbers that are sorted at once (32 MB), so that memory stays flat


def _dense(ordered: Floats, start: Ints, count: Ints) -> Floats:
    """One row per group, filled up with infinity, which sorts last."""
    if not len(ordered):
        return np.full((len(start), 1), np.inf)
    width = max(1, int(count.max(initial=1)))
    place = start[:, None] + np.arange(width)
    inside = np.arange(width) < count[:, None]
    dense: Floats = np.where(inside, ordered[np.minimum(place, len(ordered) - 1)], np.inf)
    return dense


def _picked(ordered: Floats, start: Ints, count: Ints, shares: Sequence[float]) -> Floats:
    """Quantiles of groups that lie one after another, each of them sorted."""
    found = np.zeros((len(shares), len(count)))
    some = np.flatnonzero(count)
    last = count[some] - 1
    for number, share in enumerate(shares):
        below = np.floor(share * last).astype(np.int64)
        low = ordered[start[some] + below]
        high = ordered[start[some] + np.minimum(below + 1, last)]
        found[number, some] = low + (high - low) * (share * last - below)
    return found
