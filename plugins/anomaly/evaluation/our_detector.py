"""The product's own detector as a contender: its scores, its meter faults and its dropouts."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np
import pandas as pd

from anomaly.detectors.signals.signals import NAMES, measure_signals
from anomaly.detectors.signals.training import TrainedDetector, train_signals
from anomaly.evaluation.protocol import Scored
from anomaly.readings.measuring import measure
from anomaly.readings.meter_faults import final_quality, profile_machines, quality_at_once
from anomaly.readings.quality import Quality
from anomaly.readings.transformers import PowerDiff
from anomaly.settings import MeterSettings, TrainingSettings

DROPOUT = timedelta(hours=1)
"""Time without a reading after which a machine's meter has dropped out: the default of the setting
``dropout_hours``."""


def dropout_after(interval: timedelta) -> timedelta:
    """How long a silence may last: `DROPOUT`, or two intervals if that is longer.

    Two intervals have one reading missing between them.
    Incidents use the same rule (`anomaly.incidents.episodes`).
    """
    return max(DROPOUT, 2 * interval)


class SignalsContender:
    """Detector `signals` with the rules for meter faults, trained as the product trains it.

    Parameters
    ----------
    without : str, optional
        A signal or a rule (`anomaly.detectors.signals.training.RULES`) that counts for nothing, to
        see what it is worth.
    """

    def __init__(
        self,
        meter: MeterSettings,
        training: TrainingSettings,
        zone: str = "UTC",
        without: str | None = None,
    ) -> None:
        self.meter = meter
        self.training = training
        self.zone = zone
        self.without = without

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"without {self.without}" if self.without else "signals (ours)"

    def fit(self, train: pd.DataFrame) -> "FittedSignals":
        """Train on the readings that are no meter faults."""
        measured = measured_readings(train, self.meter)
        faulty = final_quality(measured, profile_machines(measured), self.meter) >= Quality.STUCK
        sound = measured[~faulty].reset_index(drop=True)
        profiles = profile_machines(sound)
        machines = pd.DataFrame(
            {
                "time_zone": self.zone,
                "alert_budget": np.nan,
                "often_flat": profiles["flat_share"] > self.meter.stuck_flat_share,
            },
            index=profiles.index,
        )
        left_out = [self.without] if self.without else []
        trained = train_signals(sound, machines, self.meter, self.training, without=left_out)
        score = np.full(len(measured), np.nan)
        score[~faulty] = trained.evidence
        alarms = meter_alarms(measured, faulty, self.meter)
        return FittedSignals(self.meter, trained, profiles, Scored(score, alarms), left_out)


class FittedSignals:
    """A trained detector and what training saw of each machine."""

    def __init__(
        self,
        meter: MeterSettings,
        trained: TrainedDetector,
        profiles: pd.DataFrame,
        training: Scored,
        without: Sequence[str] = (),
    ) -> None:
        self.meter = meter
        self.trained = trained
        self.without = [NAMES.index(name) for name in without if name in NAMES]
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
        measured = measured_readings(frame, self.meter)
        quality = quality_at_once(measured, self.profiles, self.meter)
        faulty = quality >= Quality.STUCK
        detector = self.trained.detector
        readings = detector.readings(measured.assign(quality=quality))
        signals = measure_signals(readings, np.arange(len(measured)))
        signals[:, self.without] = np.nan
        evidence = detector.evidence(signals, readings.rows).max(axis=1)
        return Scored(
            np.where(faulty, np.nan, evidence), meter_alarms(measured, faulty, self.meter)
        )


def measured_readings(
    readings: pd.DataFrame, meter: MeterSettings, machines: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Raw long readings, measured as scoring does.

    Parameters
    ----------
    machines : DataFrame, optional
        ``machine_id``, ``max_power_kw`` and ``rolls_over_at``; default: neither is known.
    """
    power_diff = PowerDiff(meter.interval_minutes, meter.max_gap_days, meter.change_scale)
    frame = power_diff.transform(readings.assign(duplicate=False).reset_index(drop=True))
    if machines is None:
        machines = pd.DataFrame({"machine_id": frame["machine_id"].unique()})
        machines = machines.assign(max_power_kw=np.nan, rolls_over_at=np.nan)
    return measure(frame, machines, meter)


def meter_alarms(measured: pd.DataFrame, faulty: np.ndarray, meter: MeterSettings) -> pd.DataFrame:
    """Faulty readings, and the missing intervals of dropouts.

    Parameters
    ----------
    measured : DataFrame
        As `measured_readings` returns it.
    faulty : array of bool
        Which of them are faults of the meter.

    Returns
    -------
    DataFrame
        ``machine_id`` and ``utc_timestamp`` of each. A dropout alarms from the moment at which
        the silence has lasted too long, once per interval, up to the reading that ends it.
    """
    columns = ["machine_id", "utc_timestamp"]
    longest, hours = dropout_after(meter.interval), measured["elapsed_hours"].to_numpy()
    parts = [measured.loc[faulty, columns]]
    for _, reading in measured[hours > longest / timedelta(hours=1)].iterrows():
        last = reading["utc_timestamp"] - timedelta(hours=reading["elapsed_hours"])
        missing = pd.date_range(last + longest, reading["utc_timestamp"], freq=meter.interval)
        parts.append(pd.DataFrame({"machine_id": reading["machine_id"], "utc_timestamp": missing}))
    return pd.concat(parts, ignore_index=True)
