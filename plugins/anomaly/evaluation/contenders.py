"""The baselines that every detector stands beside: simple, standard, and scored by one protocol."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.ensemble import IsolationForest

from anomaly.evaluation.protocol import Contender, MissingLibraryError, Scored
from anomaly.forest import fit_forest
from anomaly.preprocessing import PowerDiff
from anomaly.settings import ReadingKind, Settings

Floats = npt.NDArray[np.float64]
Verdict = Callable[[Sequence[pd.DataFrame]], list[Floats]]
"""Scores for each of several measured frames; NaN where there is no verdict."""

_FOLDS = 5  # stretches of training time, each scored by what was learnt from the others
_DECIMALS = 9  # readings behind an injected fault differ by rounding; their scores need not
_FLOOR = 0.01  # of a machine's P5-P99.5 range: no spread is taken to be smaller


def baselines(settings: Settings, zone: str = "UTC") -> list[Contender]:
    """All baselines of the table, in its order; those of a library raise when it is missing."""
    return [
        RandomAlerts(settings, zone),
        AbsoluteChange(settings, zone),
        HourOfWeekResidual(settings, zone),
        PrototypeForest(settings, zone),
        JointForest(settings, zone),
        LibraryDetector(settings, zone, "ECOD"),
        LibraryDetector(settings, zone, "KNN"),
    ]


class Baseline(ABC):
    """A contender that learns from measured readings and scores each of them.

    Parameters
    ----------
    zone : str
        Where the machines stand, for hours of the day and the week.
    """

    cross_fitted: ClassVar[bool] = False
    """Whether scores of readings that were learnt from would be too low."""

    def __init__(self, settings: Settings, zone: str = "UTC") -> None:
        self.settings = settings
        self.zone = zone

    @property
    @abstractmethod
    def name(self) -> str:
        """What the table calls it."""

    @abstractmethod
    def learn(self, measured: pd.DataFrame) -> Verdict:
        """Make the function that scores measured readings."""

    def fit(self, train: pd.DataFrame) -> "FittedBaseline":
        """Learn from training readings, and score them."""
        measured = self.measure(train)
        verdict = self.learn(measured)
        scores = self._held_out(measured) if self.cross_fitted else verdict([measured])[0]
        return FittedBaseline(self, verdict, Scored(scores))

    def measure(self, readings: pd.DataFrame) -> pd.DataFrame:
        """Add ``power_kw``, ``jump`` (its absolute change) and the local time."""
        frame = PowerDiff(self.settings.interval_minutes, self.settings.max_gap_days).transform(
            readings
        )
        first = frame["elapsed_hours"].isna().to_numpy()
        counter = self.settings.reading_kind is ReadingKind.ENERGY_KWH
        power = np.where(first, np.nan, frame["power_diff"]) if counter else frame["reading"] / 1000
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
    """A baseline that has learnt."""

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
    """Any reading, with the same chance: what recall luck alone gives at a rate of alerts."""

    name = "random"

    def learn(self, measured: pd.DataFrame) -> Verdict:
        """Learn nothing; seeded by the settings and the training time."""
        until = int(measured["utc_timestamp"].max().timestamp())
        rng = np.random.default_rng([self.settings.random_seed, until])
        return lambda frames: [rng.random(len(frame)) for frame in frames]


class AbsoluteChange(Baseline):
    """The absolute change of power since the reading before."""

    name = "|diff|"

    def learn(self, measured: pd.DataFrame) -> Verdict:
        """Learn nothing."""
        return lambda frames: [frame["jump"].to_numpy(float) for frame in frames]


class HourOfWeekResidual(Baseline):
    """How many robust deviations power is from the machine's median at that hour of the week."""

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

    Each of its trees has seen 256 readings of thousands: its scores of training
    readings need no cross-fitting.
    """

    name = "prototype's forest"

    def learn(self, measured: pd.DataFrame) -> Verdict:
        """Train it as the product does."""
        pipeline = fit_forest(measured, self.settings)
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
            n_estimators=200, max_samples=256, random_state=self.settings.random_seed
        )
        forest.fit(_finite(features(measured)))
        return _at_once(features, lambda values: -np.asarray(forest.score_samples(values)))


class LibraryDetector(Baseline):
    """A detector of PyOD, with its own defaults, over the features of the joint forest.

    ECOD looks at all rows it is asked about at once, so it is asked frame by frame.

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

    def __init__(self, settings: Settings, zone: str = "UTC", algorithm: str = "ECOD") -> None:
        super().__init__(settings, zone)
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
    """Features of a measured frame; power and its change by the machine's own centre and spread."""
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
    """P5 to P99.5 of each machine's power, in kW; never nought."""
    groups = measured.groupby("machine_id")["power_kw"]
    return (groups.quantile(0.995) - groups.quantile(0.05)).clip(lower=1e-6)


def _at_once(
    features: Callable[[pd.DataFrame], Floats], model: Callable[[Floats], Floats]
) -> Verdict:
    """Score all frames in one call of `model`, and each distinct row once."""

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
