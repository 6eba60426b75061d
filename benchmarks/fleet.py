"""A thousand machines, one set of forests: who finds faults, and how fast.

A one-hot forest splits on machines, hardly ever on power: what it says of a fleet is noise.
Found or not is asked of machine-days: a day's score is its highest, and a day is faulty when
a fault of the frozen injector lies in it. Left out are the day after a fault, which still
echoes it, and dropouts, which a rule finds and no score can.
"""

import time
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import average_precision_score

from anomaly.detectors.prototype import fit_forest
from anomaly.detectors.signals.detector import SignalDetector
from anomaly.detectors.signals.signals import measure_signals
from anomaly.detectors.signals.training import train_signals
from anomaly.evaluation.fault_injection import Event, Family, inject
from anomaly.evaluation.our_detector import measured_readings
from anomaly.readings.preprocessing import microseconds
from anomaly.settings import Settings, load_settings
from anomaly.windows import Window
from benchmarks.figures import Figure, saying

MACHINES, WEEKS = 1000, 6
FAULTY = 0.1
"""Share of machines that something is wrong with in the last week; the others are as ever."""

_MONDAY = pd.Timestamp("2024-01-08", tz="UTC")
_SHOWN = 20_000  # readings that the one-hot forest is shown at once: each is a thousand columns
_DAY = 86_400_000_000

Floats = npt.NDArray[np.float64]


def measure(machines: int = MACHINES, settings: Settings | None = None) -> list[Figure]:
    """Train on five weeks of a fleet, judge a sixth with faults in it."""
    settings = settings or load_settings({})
    with saying(f"generating {machines} machines"):
        readings = fleet(machines)
        until = _MONDAY + timedelta(weeks=WEEKS - 1)
        train = measured_readings(readings[readings["utc_timestamp"] < until], settings.meter)
        faulty, events = with_faults(readings, until, settings)
        test = measured_readings(faulty, settings.meter)
    wanted = (test["utc_timestamp"] >= until).to_numpy()
    days = _days(test, wanted)
    truth = _faulty_days(days, events)
    truth = truth.drop(_unclear_days(events, truth), errors="ignore")
    with saying("detector signals"):
        began = time.perf_counter()
        detector = train_signals(
            train, _table(train, settings), settings.meter, settings.training
        ).detector
        training = time.perf_counter() - began
        ours = _precision(truth, days, _log_odds(detector, test)[wanted])
        began = time.perf_counter()
        detector.score(test, np.ones(len(test), dtype=bool))
        each = (time.perf_counter() - began) / len(test) * 1e6
    with saying("a one-hot forest"):
        theirs = _precision(truth, days, _one_hot_scores(train, test[wanted], settings))
    name = f"{machines} machines, one set of forests: average precision"
    return [
        Figure(
            name, ours, "", f"one-hot forest, {theirs:.2f}", ours / theirs, ">= 0.9", ours >= 0.9
        ),
        Figure("signals whole, a reading", each, "us", target="<= 3 us", met=each <= 3),
        Figure(f"training signals on {machines} machines x {WEEKS - 1} weeks", training, "s"),
    ]


def fleet(machines: int, seed: int = 11) -> pd.DataFrame:
    """Counters of machines from 1 to 1000 kW: steady ones, shifts, and day and night rhythms."""
    random = np.random.default_rng(seed)
    times = pd.date_range(_MONDAY, periods=WEEKS * 7 * 96, freq="15min")
    hour = np.asarray(times.hour + times.minute / 60)
    working = np.asarray(times.day_of_week < 5)
    frames = []
    for machine in range(1, machines + 1):
        size, noise = 10 ** random.uniform(0, 3), random.uniform(0.01, 0.05)
        kind, start = machine % 3, random.uniform(5, 9)
        shift = working & (hour >= start) & (hour < start + random.uniform(6, 12))
        rhythm = 1 + 0.4 * np.sin((hour - start) * np.pi / 12)
        shape = (np.ones(len(times)), np.where(shift, 1.0, 0.02), rhythm)[kind]
        power = size * shape * (1 + noise * random.standard_normal(len(times)))
        reading = np.round(np.cumsum(np.maximum(power, 0)) / 4, 3)
        frames.append(
            pd.DataFrame({"utc_timestamp": times, "machine_id": machine, "reading": reading})
        )
    table = pd.concat(frames, ignore_index=True)
    return table.astype({"utc_timestamp": "datetime64[us, UTC]"})


def with_faults(
    readings: pd.DataFrame, until: pd.Timestamp, settings: Settings
) -> tuple[pd.DataFrame, Sequence[Event]]:
    """The last week and the two days before it, with faults on some machines."""
    chosen = readings["machine_id"] % round(1 / FAULTY) == 0
    window = Window(until, until + timedelta(weeks=1))
    injected = inject(readings[chosen], window=window, seed=0, meter=settings.meter)
    both = pd.concat([readings[~chosen], injected.readings], ignore_index=True)
    shown = both[both["utc_timestamp"] >= until - timedelta(days=2)]
    return shown.sort_values(["machine_id", "utc_timestamp"], ignore_index=True), injected.events


def _table(train: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    flat = (train["change"] == 0).groupby(train["machine_id"]).mean()
    often_flat = flat > settings.meter.stuck_flat_share
    return pd.DataFrame({"time_zone": "UTC", "alert_budget": np.nan, "often_flat": often_flat})


def _one_hot_scores(train: pd.DataFrame, test: pd.DataFrame, settings: Settings) -> Floats:
    """The prototype's forest with a column per machine, however many; a tree sees 256 readings."""
    machines = train["machine_id"].nunique()
    one_hot = settings.training.model_copy(update={"forest_one_hot_machines": machines})
    pipeline = fit_forest(train.sample(_SHOWN, random_state=0), one_hot)
    parts = np.array_split(np.arange(len(test)), max(1, len(test) // _SHOWN))
    return -np.concatenate([pipeline.score_samples(test.iloc[part]) for part in parts])


def _log_odds(detector: SignalDetector, test: pd.DataFrame) -> Floats:
    """The score before it is squeezed into 0 to 1, where the surest would tie."""
    readings = detector.readings(test)
    signals = measure_signals(readings, np.arange(len(test)))
    evidence = detector.evidence(signals, readings.rows).max(axis=1)
    odds: Floats = evidence - detector.limit[readings.rows]
    return odds


def _days(test: pd.DataFrame, wanted: npt.NDArray[np.bool_]) -> pd.MultiIndex:
    judged = test[wanted]
    return pd.MultiIndex.from_arrays(
        [judged["machine_id"], microseconds(judged["utc_timestamp"]) // _DAY]
    )


def _faulty_days(days: pd.MultiIndex, events: Sequence[Event]) -> pd.Series:
    truth = pd.Series(False, index=days.unique())
    for event in events:
        first, last = (round(at.timestamp() * 1e6) // _DAY for at in (event.start, event.end))
        for day in range(first, last + 1):
            truth[event.machine_id, day] = True
    return truth


def _unclear_days(events: Sequence[Event], truth: pd.Series) -> list[tuple[int, int]]:
    unclear = []
    for event in events:
        first, last = (round(at.timestamp() * 1e6) // _DAY for at in (event.start, event.end))
        around = range(first if event.family == Family.DROPOUT else last + 1, last + 2)
        unclear += [(event.machine_id, day) for day in around]
    faulty = {
        (event.machine_id, round(event.start.timestamp() * 1e6) // _DAY)
        for event in events
        if event.family != Family.DROPOUT
    }
    return [day for day in unclear if day not in faulty and day in truth.index]


def _precision(truth: pd.Series, days: pd.MultiIndex, scores: Floats) -> float:
    highest = pd.Series(scores, index=days).groupby(level=[0, 1]).max()
    judged = highest.reindex(truth.index).fillna(highest.min())
    return float(average_precision_score(truth.to_numpy(bool), judged.to_numpy()))
