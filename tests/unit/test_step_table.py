"""The compiled forest gives scikit-learn's own scores, bit for bit."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from anomaly.detectors.prototype import PrototypeDetector, fit_forest
from anomaly.detectors.step_table import StepTable, compile_forest
from anomaly.settings import load_settings


@pytest.fixture(scope="module")
def forest():
    numbers = np.random.default_rng(0).normal(size=(5000, 1))
    return IsolationForest(n_estimators=60, random_state=1).fit(numbers)


@pytest.fixture(scope="module")
def table(forest):
    return compile_forest(forest)


def test_scores_are_equal_on_thresholds_their_neighbours_and_extremes(forest, table):
    thresholds = np.concatenate([tree.tree_.threshold for tree in forest.estimators_])
    near = thresholds.astype(np.float32)
    above, below = np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))
    odd = [0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38]
    numbers = np.concatenate([thresholds, near, above, below, odd]).astype(float)

    np.testing.assert_array_equal(
        table.score_samples(numbers), forest.score_samples(numbers[:, None])
    )


def test_a_missing_number_scores_as_scikit_learn_has_it(forest, table):
    assert table.score_samples(np.array([np.nan])) == forest.score_samples([[np.nan]])


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=50))
def test_scores_are_equal_on_any_numbers(numbers):
    rows = np.random.default_rng(0).normal(size=(300, 1))
    small = IsolationForest(n_estimators=5, random_state=1).fit(rows)
    numbers = np.array(numbers)

    np.testing.assert_array_equal(
        compile_forest(small).score_samples(numbers), small.score_samples(numbers[:, None])
    )


MOST = float(np.finfo(np.float32).max)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    st.one_of(
        st.lists(FLOAT32, max_size=60),
        st.integers(1, 60).map(lambda count: np.geomspace(1e-3, 1e3, count).tolist()),
        st.sampled_from([[0.0], [1.0, np.nextafter(np.float32(1), np.float32(2))], [-MOST, MOST]]),
    ),
    st.integers(0, 2**32 - 1),
)
def test_many_numbers_find_the_steps_that_bisection_finds(keys, seed):
    keys = np.unique(np.array(keys, np.float32))
    random = np.random.default_rng(seed)
    table = StepTable(keys, random.random(len(keys) + 1), missing=-1.0)
    near = [np.nextafter(keys, np.float32(side)) for side in (np.inf, -np.inf)]
    odd = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, MOST, -MOST, 1e300]
    drawn = random.standard_t(2, 5000) * 10 ** random.uniform(-40, 38, 5000)
    numbers = random.permutation(np.concatenate([keys, *near, odd, drawn]).astype(float))
    with np.errstate(over="ignore"):
        narrow = numbers.astype(np.float32)

    bisected = table.scores[np.searchsorted(keys, narrow)]

    expected = np.where(np.isnan(narrow), -1.0, bisected)
    np.testing.assert_array_equal(table.score_samples(numbers), expected)


@pytest.mark.parametrize("most", [100, 2])
def test_the_prototype_s_forest_is_compiled_exactly(most):
    random = np.random.default_rng(3)
    readings = pd.DataFrame(
        {"machine_id": random.integers(1, 4, 9000), "power_diff": random.normal(0, 9, 9000)}
    )
    settings = load_settings({}, forest_trees=30, forest_one_hot_machines=most)
    pipeline = fit_forest(readings, settings.training)
    detector = PrototypeDetector.compile(pipeline, settings.meter)
    readings.loc[:500, "machine_id"] = 99  # training has not seen it

    again = PrototypeDetector.from_arrays(detector.arrays())

    for one in (detector, again):
        scores = one.score(readings, np.ones(len(readings), dtype=bool))
        np.testing.assert_array_equal(scores.score, -pipeline.score_samples(readings))
        np.testing.assert_array_equal(scores.anomaly, pipeline.predict(readings) < 0)


def test_a_large_fleet_shares_what_is_usual():
    random = np.random.default_rng(3)
    readings = pd.DataFrame({"machine_id": [7, 8] * 500, "power_diff": random.normal(0, 9, 1000)})
    settings = load_settings({}, forest_trees=10, forest_one_hot_machines=1)

    detector = PrototypeDetector.compile(fit_forest(readings, settings.training), settings.meter)

    assert detector.arrays()["scores"].shape[0] == 1


def test_infinities_score_as_the_largest_numbers_do(forest, table):
    most = float(np.finfo(np.float32).max)

    found = table.score_samples(np.array([np.inf, -np.inf, 1e300]))

    np.testing.assert_array_equal(found, forest.score_samples([[most], [-most], [most]]))


def test_labels_are_those_of_predict(forest, table):
    numbers = np.random.default_rng(4).standard_t(2, 20_000)

    anomaly = table.score_samples(numbers) - forest.offset_ < 0

    np.testing.assert_array_equal(anomaly, forest.predict(numbers[:, None]) < 0)
