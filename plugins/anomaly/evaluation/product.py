"""The product's own detector as a contender: its scores, its meter faults, its dropouts."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np
import pandas as pd

from anomaly.evaluation.protocol import Scored
from anomaly.preprocessing import PowerDiff
from anomaly.quality import judge, judge_at_once, measure, profile
from anomaly.schema import Quality
from anomaly.settings import Settings
from anomaly.signal_training import Trained, train_signals
from anomaly.signals import Readings, measure_signals

DROPOUT = timedelta(hours=1)
"""Time without a reading after which a machine's meter has dropped out."""


class SignalsContender:
    """Detector `signals` with the rules for meter faults, trained as the product trains it."""

    name = "signals (ours)"

    def __init__(self, settings: Settings, zone: str = "UTC") -> None:
        self.settings = settings
        self.zone = zone

    def fit(self, train: pd.DataFrame) -> "FittedSignals":
        """Train on the readings that are no meter faults."""
        measured = measured_readings(train, self.settings)
        faulty = judge(measured, profile(measured), self.settings) >= Quality.STUCK
        sound = measured[~faulty].reset_index(drop=True)
        profiles = profile(sound)
        machines = pd.DataFrame(
            {
                "time_zone": self.zone,
                "alert_budget": np.nan,
                "often_flat": profiles["flat_share"] > self.settings.stuck_flat_share,
            },
            index=profiles.index,
        )
        trained = train_signals(sound, machines, self.settings)
        score = np.full(len(measured), np.nan)
        score[~faulty] = trained.evidence
        alarms = meter_alarms(measured, faulty, self.settings)
        return FittedSignals(self.settings, trained, profiles, Scored(score, alarms))


class FittedSignals:
    """A trained detector and what training saw of each machine."""

    def __init__(
        self, settings: Settings, trained: Trained, profiles: pd.DataFrame, training: Scored
    ) -> None:
        self.settings = settings
        self.trained = trained
        self.profiles = profiles
        self._training = training

    def training_scores(self) -> Scored:
        """Held-out evidence of the training readings."""
        return self._training

    def thresholds(self, budget: float) -> Mapping[int, float]:
        """The limits that the product sets for such a budget."""
        limits = np.nextafter(self.trained.limit(budget), np.inf)  # the product alarms beyond
        return {int(m): float(x) for m, x in zip(self.profiles.index, limits, strict=True)}

    def score(self, frames: Sequence[pd.DataFrame]) -> list[Scored]:
        """Score each frame."""
        return [self._score(frame) for frame in frames]

    def _score(self, frame: pd.DataFrame) -> Scored:
        measured = measured_readings(frame, self.settings)
        quality = judge_at_once(measured, self.profiles, self.settings)
        faulty = quality >= Quality.STUCK
        detector = self.trained.detector
        readings = Readings(measured.assign(quality=quality), detector.usual)
        signals = measure_signals(readings, np.arange(len(measured)), detector.interval)
        evidence = detector.evidence(signals, readings.rows).max(axis=1)
        return Scored(
            np.where(faulty, np.nan, evidence), meter_alarms(measured, faulty, self.settings)
        )


def measured_readings(readings: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Raw long readings, measured as scoring does."""
    power_diff = PowerDiff(settings.interval_minutes, settings.max_gap_days)
    frame = power_diff.transform(readings.assign(duplicate=False).reset_index(drop=True))
    machines = pd.DataFrame({"machine_id": frame["machine_id"].unique()})
    return measure(frame, machines.assign(max_power_kw=np.nan, rolls_over_at=np.nan), settings)


def meter_alarms(measured: pd.DataFrame, faulty: np.ndarray, settings: Settings) -> pd.DataFrame:
    """Faulty readings, and each interval missing for longer than `DROPOUT`."""
    columns = ["machine_id", "utc_timestamp"]
    hours = measured["elapsed_hours"].to_numpy()
    parts = [measured.loc[faulty, columns]]
    for _, reading in measured[hours > DROPOUT / timedelta(hours=1)].iterrows():
        last = reading["utc_timestamp"] - timedelta(hours=reading["elapsed_hours"])
        missing = pd.date_range(last + DROPOUT, reading["utc_timestamp"], freq=settings.interval)
        parts.append(pd.DataFrame({"machine_id": reading["machine_id"], "utc_timestamp": missing}))
    return pd.concat(parts, ignore_index=True)
