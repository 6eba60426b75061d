"""The compiled forest gives scikit-learn's own scores, bit for bit."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from anomaly import forest as forest_module
from anomaly.forest import PrototypeDetector
from anomaly.settings import load_settings
from anomaly.step_table import compile_forest


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


def test_the_prototype_s_forest_is_compiled_a_machine_exactly(monkeypatch):
    random = np.random.default_rng(3)
    readings = pd.DataFrame(
        {"machine_id": random.integers(1, 4, 3000), "power_diff": random.normal(0, 9, 3000)}
    )
    detector = PrototypeDetector.fit(readings, load_settings({}, forest_trees=30))
    readings.loc[:500, "machine_id"] = 99  # training has not seen it
    everything = np.ones(len(readings), dtype=bool)
    slow = detector.score(readings, everything)
    monkeypatch.setattr(forest_module, "WORTH_COMPILING", 1)

    fast = detector.score(readings, everything)

    np.testing.assert_array_equal(fast.score, slow.score)
    np.testing.assert_array_equal(fast.anomaly, slow.anomaly)
