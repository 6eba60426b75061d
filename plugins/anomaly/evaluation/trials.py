"""What is judged: rolling origins, and each test week as it was and with faults in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd

from anomaly.errors import TrainingError
from anomaly.evaluation.habits import learn_habits
from anomaly.evaluation.injection import Event, inject
from anomaly.preprocessing import MachineTimeSorter, MissingDropper
from anomaly.settings import Settings
from anomaly.windows import Window

SEEDS = 40
"""Injections of each test week: with five origins two hundred."""
CONTEXT = timedelta(days=2)
"""Readings before a test week that a contender may look at; no verdict reaches farther."""

WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Origin:
    """One split in time."""

    train: Window
    test: Window


@dataclass(frozen=True)
class Case:
    """One stretch to judge: context and window, and the faults in it.

    ``seed`` is None where nothing was injected: what is alarmed there is a false alert.
    """

    readings: pd.DataFrame
    window: Window
    events: tuple[Event, ...]
    week: int
    seed: int | None


@dataclass(frozen=True)
class Trial:
    """Readings to train on (lasting `weeks`), and what to judge afterwards."""

    train: pd.DataFrame
    weeks: float
    cases: tuple[Case, ...]


def rolling_origins(
    readings: pd.DataFrame,
    *,
    settings: Settings,
    train: timedelta = timedelta(weeks=5),
    test: timedelta = timedelta(weeks=1),
    shortest: timedelta = timedelta(days=5),
    count: int = 5,
) -> list[Origin]:
    """Train on all readings so far, at least `train`; test on the week that follows.

    Test weeks do not overlap. The last may be cut short by the end of the readings,
    to no less than `shortest`.

    Raises
    ------
    TrainingError
        When the readings do not last for `count` origins.
    """
    first = readings["utc_timestamp"].min().to_pydatetime()
    end = readings["utc_timestamp"].max().to_pydatetime() + settings.interval
    starts = [first + train + number * test for number in range(count)]
    if starts[-1] + shortest > end:
        raise TrainingError(
            f"the readings last {(end - first) / timedelta(days=1):.1f} days: {count} origins"
            f" need {(starts[-1] + shortest - first) / timedelta(days=1):.0f}; ask for fewer"
        )
    return [Origin(Window(first, start), Window(start, min(start + test, end))) for start in starts]


def injected_trials(
    readings: pd.DataFrame,
    origins: Sequence[Origin],
    *,
    settings: Settings,
    zone: str = "UTC",
    seeds: int = SEEDS,
) -> list[Trial]:
    """One trial an origin: its test week as it was, and with faults for each seed.

    Parameters
    ----------
    readings : DataFrame
        ``utc_timestamp`` (aware), ``machine_id`` and ``reading``: raw, long.
    zone : str
        Where the machines stand.
    """
    clean = tidy(readings)
    return [
        _injected_trial(clean, origin, week, seeds, settings, zone)
        for week, origin in enumerate(origins)
    ]


def tidy(readings: pd.DataFrame) -> pd.DataFrame:
    """Finite readings, one a machine and time, sorted by both."""
    kept = MachineTimeSorter().transform(MissingDropper().transform(readings))
    return kept[["utc_timestamp", "machine_id", "reading"]].astype(
        {"utc_timestamp": "datetime64[us, UTC]", "machine_id": np.int64, "reading": float}
    )


def within(readings: pd.DataFrame, window: Window) -> pd.DataFrame:
    """The readings of a window."""
    times = readings["utc_timestamp"]
    return readings[(times >= window.start) & (times < window.end)].reset_index(drop=True)


def _injected_trial(
    readings: pd.DataFrame, origin: Origin, week: int, seeds: int, settings: Settings, zone: str
) -> Trial:
    train, window = within(readings, origin.train), origin.test
    habits = learn_habits(train, until=window.start, settings=settings, zone=zone)
    shown = within(readings, window.starting_earlier(CONTEXT))
    cases = [Case(shown, window, (), week, None)]
    for seed in range(seeds):
        injected = inject(
            shown, window=window, seed=(week, seed), settings=settings, zone=zone, habits=habits
        )
        cases.append(Case(injected.readings, window, injected.events, week, seed))
    return Trial(train, (origin.train.end - origin.train.start) / WEEK, tuple(cases))
