"""Order statistics by sorting equal those of numpy, group by group."""

import doctest

import numpy as np
import pytest

from anomaly.detectors import quantiles as grouped
from anomaly.detectors.quantiles import cell_quantiles, quantiles

SHARES = (0.02, 0.5, 0.98)


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(grouped, extraglobs={"np": np}).failed == 0


def test_quantiles_of_groups_are_those_of_numpy():
    random = np.random.default_rng(3)
    numbers, group = random.standard_normal(500), random.integers(0, 7, 500)
    numbers[::11] = np.nan

    found = quantiles(numbers, group, 8, SHARES)

    for number in range(7):
        np.testing.assert_allclose(
            found[:, number], np.nanquantile(numbers[group == number], SHARES), rtol=1e-12
        )
    assert (found[:, 7] == 0).all()


@pytest.mark.parametrize("at_once", [1, 4_000_000])
def test_a_cell_is_pooled_with_its_neighbours_round_the_clock(monkeypatch, at_once):
    monkeypatch.setattr(grouped, "_AT_ONCE", at_once)
    random = np.random.default_rng(4)
    clocks, cells, reach = 3, 6, 1
    numbers, cell = random.standard_normal(400), random.integers(0, clocks * cells, 400)

    found = cell_quantiles(numbers, cell, (clocks, cells), reach, SHARES)

    for clock in range(clocks):
        for place in range(cells):
            near = [clock * cells + (place + shift) % cells for shift in (-1, 0, 1)]
            pooled = numbers[np.isin(cell, near)]
            np.testing.assert_allclose(
                found[:, clock, place], np.quantile(pooled, SHARES), rtol=1e-12
            )


def test_a_cell_that_no_number_is_near_is_not_known():
    found = cell_quantiles(np.ones(3), np.array([1, 1, 2]), (1, 6), 1, [0.5])

    np.testing.assert_array_equal(found[0, 0], [1, 1, 1, 1, np.nan, np.nan])
