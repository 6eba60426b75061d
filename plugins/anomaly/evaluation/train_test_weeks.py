"""What is judged: splits into training and test weeks, and test weeks with injected faults."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial

import numpy as np
import pandas as pd

from anomaly.errors import TrainingError
from anomaly.evaluation.fault_injection import Event, inject
from anomaly.evaluation.machine_habits import learn_habits
from anomaly.evaluation.ordinary_days import learn_ordinary_days
from anomaly.evaluation.physical_faults import inject_physical
from anomaly.readings.transformers import MachineTimeSorter, MissingDropper
from anomaly.settings import MeterSettings
from anomaly.windows import Window

SEEDS = 40
"""Injections per test week: two hundred in five splits. Chosen: the 95 % interval of recall is then
a few hundredths wide (docs/explanation/detection-lab-report.md)."""
JUDGING_LOOK_BACK = timedelta(days=2)
"""Readings so long before the judged time are shown to a contender. A verdict depends on one day
before its reading, and the power of that day's first reading on the reading before it."""

MOSTLY_FLAT = 0.9
"""A machine whose reading did not change this share of the time or more has nothing to find.
Chosen."""

WEEK = timedelta(days=7)


class Injector(StrEnum):
    """Who writes the faults."""

    CURVE = "curve"
    """`anomaly.evaluation.fault_injection`: what a curve may do."""
    PHYSICAL = "physical"
    """`anomaly.evaluation.physical_faults`: what a machine may do."""


@dataclass(frozen=True)
class TrainTestSplit:
    """A training window and the test window that follows it."""

    train: Window
    test: Window


@dataclass(frozen=True)
class Case:
    """A window to judge, and the faults in it.

    Attributes
    ----------
    readings : DataFrame
        Those of the window, and those of `JUDGING_LOOK_BACK` before it.
    week : int
        Number of the test week.
    seed : int or None
        None where nothing was injected: every alert there is a false one.
    """

    readings: pd.DataFrame
    window: Window
    events: tuple[Event, ...]
    week: int
    seed: int | None


@dataclass(frozen=True)
class Trial:
    """Readings to train on, which last `weeks`, and the cases to judge afterwards."""

    train: pd.DataFrame
    weeks: float
    cases: tuple[Case, ...]


def rolling_splits(
    readings: pd.DataFrame,
    *,
    meter: MeterSettings,
    train: timedelta = timedelta(weeks=5),
    test: timedelta = timedelta(weeks=1),
    shortest: timedelta = timedelta(days=5),
    count: int = 5,
) -> list[TrainTestSplit]:
    """Train on all readings so far, at least `train`; test on the week that follows.

    Test weeks do not overlap. The last may be cut short by the end of the readings,
    to no less than `shortest`.

    Raises
    ------
    TrainingError
        When the readings are too short for `count` splits.
    """
    first = readings["utc_timestamp"].min().to_pydatetime()
    end = readings["utc_timestamp"].max().to_pydatetime() + meter.interval
    starts = [first + train + number * test for number in range(count)]
    if starts[-1] + shortest > end:
        raise TrainingError(
            f"the readings last {(end - first) / timedelta(days=1):.1f} days: {count} splits"
            f" need {(starts[-1] + shortest - first) / timedelta(days=1):.0f}; ask for fewer"
        )
    return [
        TrainTestSplit(Window(first, start), Window(start, min(start + test, end)))
        for start in starts
    ]


def spread_splits(
    readings: pd.DataFrame,
    *,
    meter: MeterSettings,
    count: int,
    train: timedelta,
    least_train: timedelta = timedelta(weeks=5),
    shortest: timedelta = timedelta(days=5),
) -> list[TrainTestSplit]:
    """Test weeks spread evenly over all readings, each after the `train` before it.

    Test weeks do not overlap; of short readings there are fewer than `count`. The first come
    when there is `least_train` to train on, if the readings are too short for `train`.

    Raises
    ------
    TrainingError
        When the readings are too short for a single split.
    """
    first = readings["utc_timestamp"].min().to_pydatetime()
    end = readings["utc_timestamp"].max().to_pydatetime() + meter.interval
    begin = first + (train if end - first >= train + count * WEEK else least_train)
    if begin + shortest > end:
        raise TrainingError(
            f"the readings last {(end - first) / timedelta(days=1):.1f} days, and"
            f" {(least_train + shortest) / timedelta(days=1):.0f} are needed to train and to test:"
            " take a longer file"
        )
    last = end - shortest  # the latest start of a test week
    most = min(count, 1 + (last - begin) // WEEK)
    apart = timedelta(days=(last - begin) // timedelta(days=1) // max(most - 1, 1))
    starts = [begin + number * apart for number in range(most)]
    return [
        TrainTestSplit(
            Window(max(first, start - train), start), Window(start, min(start + WEEK, end))
        )
        for start in starts
    ]


def injected_trials(
    readings: pd.DataFrame,
    splits: Sequence[TrainTestSplit],
    *,
    meter: MeterSettings,
    zone: str = "UTC",
    seeds: int = SEEDS,
    injector: Injector = Injector.CURVE,
) -> list[Trial]:
    """One trial per split: its test week as it was, and with faults for each seed.

    Parameters
    ----------
    readings : DataFrame
        ``utc_timestamp`` (aware), ``machine_id`` and ``reading``: raw, long.
    zone : str
        Where the machines stand.
    """
    clean = finite_readings(readings)
    return [
        _injected_trial(clean, split, week, seeds, meter, zone, injector)
        for week, split in enumerate(splits)
    ]


def finite_readings(readings: pd.DataFrame) -> pd.DataFrame:
    """The finite readings, one per machine and time, sorted by both."""
    kept = MachineTimeSorter().transform(MissingDropper().transform(readings))
    return kept[["utc_timestamp", "machine_id", "reading"]].astype(
        {"utc_timestamp": "datetime64[us, UTC]", "machine_id": np.int64, "reading": float}
    )


def readings_within(readings: pd.DataFrame, window: Window) -> pd.DataFrame:
    """The readings of a window."""
    times = readings["utc_timestamp"]
    return readings[(times >= window.start) & (times < window.end)].reset_index(drop=True)


def _injected_trial(
    readings: pd.DataFrame,
    split: TrainTestSplit,
    week: int,
    seeds: int,
    meter: MeterSettings,
    zone: str,
    injector: Injector,
) -> Trial:
    train, window = readings_within(readings, split.train), split.test
    ordinary_days = learn_ordinary_days(train, until=window.start, meter=meter, zone=zone)
    if injector is Injector.CURVE:
        inject_faults = partial(inject, ordinary_days=ordinary_days)
    else:
        habits = learn_habits(
            train, until=window.start, meter=meter, zone=zone, ordinary_days=ordinary_days
        )
        inject_faults = partial(inject_physical, habits=habits)
    shown = readings_within(readings, window.starting_earlier(JUDGING_LOOK_BACK))
    cases = [Case(shown, window, (), week, None)]
    for seed in range(seeds):
        injected = inject_faults(shown, window=window, seed=(week, seed), meter=meter, zone=zone)
        cases.append(Case(injected.readings, window, injected.events, week, seed))
    return Trial(train, (split.train.end - split.train.start) / WEEK, tuple(cases))
