"""VUS-PR is measured by the library, in an environment of its own."""

import re
import subprocess
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from anomaly.evaluation.baselines import AbsoluteChange, RandomAlerts
from anomaly.evaluation.protocol import evaluate
from anomaly.evaluation.train_test_weeks import rolling_splits
from anomaly.evaluation.vus_pr import median_event_length
from anomaly.settings import load_settings
from deployment import counters

SETTINGS = load_settings({})
PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Scores of two contenders in two test weeks with four injections each, as a file."""
    wide = counters(49 * 96).melt("utc_timestamp", var_name="machine_id", value_name="reading")
    readings = wide.assign(machine_id=wide["machine_id"].str.removeprefix("machine_").astype(int))
    report = evaluate(
        readings,
        [
            AbsoluteChange(SETTINGS.meter, SETTINGS.training),
            RandomAlerts(SETTINGS.meter, SETTINGS.training),
        ],
        meter=SETTINGS.meter,
        splits=rolling_splits(readings, meter=SETTINGS.meter, count=2),
        seeds=4,
        keep_scores=True,
    )
    return report.write_scores(tmp_path_factory.mktemp("scores") / "scores.npz", 15)


def test_the_file_holds_every_reading_of_the_injected_weeks_once_for_each_contender(scores):
    with np.load(scores, allow_pickle=False) as arrays:
        found = dict(arrays)

    assert found["contender"].tolist() == ["|diff|", "random"]
    readings = len(found["faulty"])
    assert found["score"].shape == (2, readings)
    assert np.isfinite(found["score"]).all()
    assert 0.9 * 2 * 2 * 4 * 672 < readings <= 2 * 2 * 4 * 672  # some drop out
    assert 0 < found["faulty"].mean() < 0.2
    assert found["interval_minutes"] * timedelta(minutes=1) == SETTINGS.meter.interval


def test_the_typical_event_is_the_median_run_of_faulty_readings_within_an_injection():
    runs = {
        "faulty": np.array([1, 1, 0, 1, 1, 1, 0, 0, 1, 1], dtype=bool),
        "week": np.zeros(10, np.int32),
        "seed": np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1], dtype=np.int32),
        "machine_id": np.ones(10, np.int64),
    }

    assert median_event_length(runs) == 2  # 2, 2, 1 and 2: the third begins with a new injection


@pytest.fixture
def with_the_truth(scores, tmp_path):
    """The same file with a third contender, who knows what is faulty."""
    with np.load(scores, allow_pickle=False) as arrays:
        found = dict(arrays)
    known = found["faulty"] + 0.1 * np.random.default_rng(0).random(len(found["faulty"]))
    found["contender"] = np.append(found["contender"], "truth")
    found["score"] = np.vstack([found["score"], known])
    np.savez(tmp_path / "scores.npz", **found)
    return tmp_path / "scores.npz"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_make_vus_ranks_contenders_by_what_they_know(with_the_truth):
    done = subprocess.run(
        ["make", "--no-print-directory", "vus", f"SCORES={with_the_truth}"],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    volume = {
        name: float(value)
        for name, value in re.findall(r"^(\S+) +(\d\.\d\d) \[", done.stdout, re.MULTILINE)
    }
    assert volume["random"] < volume["|diff|"] < 0.9 < volume["truth"]
