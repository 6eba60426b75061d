"""VUS-PR of the scores of an evaluation; ``make vus`` runs it in an environment that has aeon.

aeon cannot be installed beside the product, which is locked to newer libraries than it allows.
So the evaluation writes its scores (``anomaly evaluate --scores FILE.npz``), and this reads them.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.arrays import Ints
from anomaly.evaluation.alert_matching import bootstrap_counts, ratio_interval, vus_pr

TOGETHER = 4
"""Injections of one test week that are judged end to end; one week alone has too few faults."""


def main() -> None:
    """Print VUS-PR of every contender."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="from `anomaly evaluate --scores FILE.npz`")
    with np.load(parser.parse_args().file, allow_pickle=False) as arrays:
        scores = dict(arrays)
    if not scores["faulty"].any():
        parser.exit(1, "no reading in the file is labelled as faulty: nothing to measure\n")
    buffer = median_event_length(scores)
    hours = buffer * int(scores["interval_minutes"]) / 60
    print(f"VUS-PR, slopes up to the median fault's {hours:g} h; 95 % intervals over test weeks")
    for number, name in enumerate(scores["contender"].tolist()):
        value, low, high = mean_vus_pr(scores, number, buffer)
        print(f"{name:22}{value:.2f} [{low:.2f},{high:.2f}]", flush=True)


def mean_vus_pr(
    scores: Mapping[str, npt.NDArray[Any]], contender: int, buffer: int
) -> tuple[float, float, float]:
    """Mean VUS-PR of a contender over weeks, machines and injections, and its 95 % interval.

    Parameters
    ----------
    scores : mapping of str to array
        As `EvaluationReport.write_scores` writes them.
    contender : int
        Row of ``score``.
    buffer : int
        The longest slope on both sides of a fault, in readings.
    """
    found, weeks = [], []
    for rows in _stretches(scores):
        faulty = scores["faulty"][rows]
        if faulty.any():
            found.append(vus_pr(faulty, scores["score"][contender, rows], buffer=buffer))
            weeks.append(int(scores["week"][rows[0]]))
    units = np.array(found)
    low, high = ratio_interval(units, np.ones(len(units)), bootstrap_counts(np.array(weeks)))
    return float(units.mean()), low, high


def median_event_length(scores: Mapping[str, npt.NDArray[Any]]) -> int:
    """Median number of readings of a fault."""
    faulty, keys = scores["faulty"], _keys(scores)
    new = np.concatenate([[True], (np.diff(keys, axis=1) != 0).any(axis=0)])
    rises = faulty & (new | ~np.concatenate([[False], faulty[:-1]]))
    return int(np.median(np.bincount(np.cumsum(rises)[faulty])[1:]))


def _stretches(scores: Mapping[str, npt.NDArray[Any]]) -> list[Ints]:
    """Rows of a week's machine in `TOGETHER` injections, one after another."""
    week, seed, machine = _keys(scores)
    _, stretch = np.unique(np.stack([week, machine, seed // TOGETHER]), axis=1, return_inverse=True)
    order = np.argsort(stretch.ravel(), kind="stable")
    return np.split(order, np.cumsum(np.bincount(stretch.ravel()))[:-1])


def _keys(scores: Mapping[str, npt.NDArray[Any]]) -> Ints:
    return np.stack([scores[name].astype(np.int64) for name in ("week", "seed", "machine_id")])


if __name__ == "__main__":
    main()
