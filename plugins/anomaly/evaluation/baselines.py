"""Baselines to compare a detector with: simple ones, and standard detectors of libraries."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from sklearn.ensemble import IsolationForest

from anomaly.arrays import Floats
from anomaly.detectors.prototype import fit_forest
from anomaly.evaluation.protocol import Contender, MissingLibraryError, Scored
from anomaly.readings.measuring import begins_count
from anomaly.readings.preprocessing import scaled
from anomaly.readings.transformers import PowerDiff
from anomaly.settings import MeterSettings, TrainingSettings

Verdict = Callable[[Sequence[pd.DataFrame]], list[Floats]]
"""Scores for each of several measured frames; NaN where there is no verdict."""

_FOLDS = 5  # stretches of training time; each is scored by what was learnt from the others
_DECIMALS = 9  # features are rounded: readings after an injected fault differ by rounding errors
_FLOOR = 0.01  # no spread is smaller than this share of a machine's P5-P99.5 range; chosen


def baselines(
    meter: MeterSettings, training: TrainingSettings, zone: str = "UTC"
) -> list[Contender]:
    """All baselines, in the order of the table; `fit` raises where a library is missing."""
    return [
        RandomAlerts(meter, training, zone),
        AbsoluteChange(meter, training, zone),
        HourOfWeekResidual(meter, training, zone),
        PrototypeForest(meter, training, zone),
        JointForest(meter, training, zone),
        LibraryDetector(meter, training, zone, "ECOD"),
        LibraryDetector(meter, training, zone, "KNN"),
    ]


class Baseline(ABC):
    """A contender that learns from measured readings and scores each of them.

    Parameters
    ----------
    zone : str
        Where the machines stand, for hours of the day and the week.
    """

    cross_fitted: ClassVar[bool] = False
    """Whether scores of readings that it has learnt from would be too low."""

    def __init__(self, meter: MeterSettings, training: TrainingSettings, zone: str = "UTC") -> None:
        self.meter = meter
        self.training = training
        self.zone = zone

    @property
    @abstractmethod
    def name(self) -> str:
        """What the table calls it."""

    @abstractmethod
    def learn(self, measured: pd.DataFrame) -> Verdict:
        """Learn from measured readings; return the function that scores others."""

    def fit(self, train: pd.DataFrame) -> "FittedBaseline":
        """Learn from training readings, and score them."""
        measured = self.measure(train)
        verdict = self.learn(measured)
        scores = self._held_out(measured) if self.cross_fitted else verdict([measured])[0]
        return FittedBaseline(self, verdict, Scored(scores))

    def measure(self, readings: pd.DataFrame) -> pd.DataFrame:
        """Add ``power_kw``, ``jump`` (its absolute change) and the local time."""
        steps = PowerDiff(
            self.meter.interval_minutes, self.meter.max_gap_days, self.meter.change_scale
        )
        frame = steps.transform(readings)
        first = frame["elapsed_hours"].isna().to_numpy()
        if self.meter.restarts_daily:
            frame["power_diff"] = frame["power_diff"].mask(begins_count(frame, self.meter))
        if self.meter.is_counter:
            power = np.where(first, np.nan, frame["power_diff"])
        else:
            power = scaled(frame["reading"].to_numpy(float), self.meter.scale)
        local = frame["utc_timestamp"].dt.tz_convert(self.zone)
        hour = local.dt.hour + local.dt.minute / 60
        jump = np.abs(np.diff(power, prepend=np.nan))
        return frame.assign(
            power_kw=power,
            jump=np.where(first, np.nan, jump),
            hour_of_week=local.dt.day_of_week * 24 + local.dt.hour,
            sine=np.sin(hour * np.pi / 12),
            cosine=np.cos(hour * np.pi / 12),
            working_day=(local.dt.day_of_week < 5).astype(float),
        )

    def _held_out(self, measured: pd.DataFrame) -> Floats:
        ticks = measured["utc_timestamp"].astype("int64").to_numpy()
        edges = np.linspace(ticks.min(), ticks.max() + 1, _FOLDS + 1)[1:-1]
        fold, scores = np.searchsorted(edges, ticks, side="right"), np.full(len(ticks), np.nan)
        for number in np.unique(fold):
            out = fold == number
            scores[out] = self.learn(measured[~out])([measured[out]])[0]
        return scores


@dataclass(frozen=True)
class FittedBaseline:
    """A baseline that was fitted."""

    baseline: Baseline
    verdict: Verdict
    train: Scored

    def training_scores(self) -> Scored:
        """Scores of the training readings."""
        return self.train

    def score(self, frames: Sequence[pd.DataFrame]) -> list[Scored]:
        """Score each frame on its own."""
        measured = [self.baseline.measure(frame) for frame in frames]
        return [Scored(scores) for scores in self.verdict(measured)]


class RandomAlerts(Baseline):
    """Each reading alarms with the same chance: the recall that luck gives at a rate of alerts."""

    name = "random"

    def learn(self, measured: pd.DataFrame) -> Verdict:
        """Learn nothing; the settings and the end of the training are the seed."""
        until = int(measured["utc_timestamp"].max().timestamp())
        rng = np.random.default_rng([self.training.random_seed, until])
        return lambda frames: [rng.random(len(frame)) for frame in frames]


class AbsoluteChange(Baseline):
    """The absolute change of power since the reading before."""

    name = "|diff|"

    def learn(self, measured: pd.DataFrame) -> Verdict:
        """Learn nothing."""
        return lambda frames: [frame["jump"].to_numpy(float) for frame in frames]


class HourOfWeekResidual(Baseline):
    """Robust deviations of power from the machine's median at that hour of the week."""

    name = "hour-of-week residual"
    cross_fitted = True

    def learn(self, measured: pd.DataFrame) -> Verdict:
        """Learn median and spread (1.4826 MAD, floored) by machine and hour of the week."""
        keys = ["machine_id", "hour_of_week"]
        groups = measured.groupby(keys)["power_kw"]
        away = (measured["power_kw"] - groups.transform("median")).abs()
        spread = 1.4826 * away.groupby([measured[key] for key in keys]).median()
        floor = _FLOOR * _ranges(measured)
        floors = floor.reindex(spread.index.get_level_values("machine_id")).to_numpy()
        usual = pd.DataFrame({"centre": groups.median(), "spread": np.maximum(spread, floors)})

        def residual(frame: pd.DataFrame) -> Floats:
            known = frame[keys].join(usual, on=keys)
            away = np.abs(frame["power_kw"] - known["centre"]) / known["spread"]
            return np.asarray(away, dtype=np.float64)

        return lambda frames: [residual(frame) for frame in frames]


class PrototypeForest(Baseline):
    """The prototype's forest and its score, with a threshold from the budget instead of 5 %.

    Each tree has seen only 256 of thousands of readings, so its scores of training readings
    need no cross-fitting.
    """

    name = "prototype's forest"

    def learn(self, measured: pd.DataFrame) -> Verdict:
        """Train it as the product does."""
        pipeline = fit_forest(measured[measured["power_diff"].notna()], self.training)
        columns = ["machine_id", "power_diff"]

        def score(values: Floats) -> Floats:
            frame = pd.DataFrame(values, columns=columns).astype({"machine_id": np.int64})
            return -np.asarray(pipeline.score_samples(frame))

        return _at_once(lambda frame: frame[columns].to_numpy(float), score)


class JointForest(Baseline):
    """One Isolation Forest over power, its change, hour and weekday, scaled by machine."""

    name = "joint forest"

    def learn(self, measured: pd.DataFrame) -> Verdict:
        """Train it on all machines together."""
        features = _scaled_features(measured)
        forest = IsolationForest(
            n_estimators=200, max_samples=256, random_state=self.training.random_seed
        )
        forest.fit(_finite(features(measured)))
        return _at_once(features, lambda values: -np.asarray(forest.score_samples(values)))


class LibraryDetector(Baseline):
    """A detector of PyOD, with its own defaults, over the features of the joint forest.

    ECOD compares the rows of one call with each other, so it is called once per frame.

    Parameters
    ----------
    algorithm : {"ECOD", "KNN"}

    Raises
    ------
    MissingLibraryError
        From `fit`, when PyOD is not installed.
    """

    cross_fitted = True
    _options: ClassVar[Mapping[str, Mapping[str, object]]] = {"ECOD": {}, "KNN": {}}

    def __init__(
        self,
        meter: MeterSettings,
        training: TrainingSettings,
        zone: str = "UTC",
        algorithm: str = "ECOD",
    ) -> None:
        super().__init__(meter, training, zone)
        self.algorithm = algorithm

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"PyOD {self.algorithm}"

    def learn(self, measured: pd.DataFrame) -> Verdict:
        """Train it on all machines together."""
        try:
            module = importlib.import_module(f"pyod.models.{self.algorithm.lower()}")
        except ImportError:
            raise MissingLibraryError(
                f"{self.name} is left out: install PyOD (requirements-bench.txt)"
            ) from None
        features = _scaled_features(measured)
        detector = getattr(module, self.algorithm)(**self._options[self.algorithm])
        detector.fit(_finite(features(measured)))
        together = _at_once(features, lambda values: np.asarray(detector.decision_function(values)))
        if self.algorithm != "ECOD":
            return together
        return lambda frames: [together([frame])[0] for frame in frames]


def _scaled_features(measured: pd.DataFrame) -> Callable[[pd.DataFrame], Floats]:
    """The function that gives a frame's features: scaled power and change, and the time."""
    groups = measured.groupby("machine_id")["power_kw"]
    floor = _FLOOR * _ranges(measured)
    scale = pd.DataFrame(
        {
            "centre": groups.median(),
            "spread": np.maximum((groups.quantile(0.75) - groups.quantile(0.25)) / 1.349, floor),
        }
    )

    def features(frame: pd.DataFrame) -> Floats:
        own = scale.reindex(frame["machine_id"])
        spread = own["spread"].to_numpy()
        power = (frame["power_kw"].to_numpy() - own["centre"].to_numpy()) / spread
        times = frame[["sine", "cosine", "working_day"]].to_numpy()
        return np.column_stack([power, frame["jump"].to_numpy() / spread, times])

    return features


def _ranges(measured: pd.DataFrame) -> pd.Series:
    """P5 to P99.5 of each machine's power, in kW; never 0."""
    groups = measured.groupby("machine_id")["power_kw"]
    return (groups.quantile(0.995) - groups.quantile(0.05)).clip(lower=1e-6)


def _at_once(
    features: Callable[[pd.DataFrame], Floats], model: Callable[[Floats], Floats]
) -> Verdict:
    """Score all frames in one call of `model`, and each distinct row only once: it saves time."""

    def verdict(frames: Sequence[pd.DataFrame]) -> list[Floats]:
        parts = [features(frame) for frame in frames]
        rows = np.concatenate(parts).round(_DECIMALS)
        known = np.isfinite(rows).all(axis=1)
        distinct, place = np.unique(rows[known], axis=0, return_inverse=True)
        scores = np.full(len(rows), np.nan)
        scores[known] = model(distinct)[place.ravel()] if len(distinct) else np.nan
        ends = np.cumsum([len(part) for part in parts])
        return [scores[end - len(part) : end] for part, end in zip(parts, ends, strict=True)]

    return verdict


def _finite(values: Floats) -> Floats:
    rows: Floats = values[np.isfinite(values).all(axis=1)]
    return rows
