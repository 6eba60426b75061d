"""A trained model, what it is as plain arrays, and its verdicts on readings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.detector import Detector
from anomaly.drift import Reference
from anomaly.quality import explain_faults, in_hindsight, judge, names
from anomaly.schema import Quality
from anomaly.settings import Settings


@dataclass(frozen=True)
class Model:
    """A trained model: the detector, and what training saw of each machine.

    Attributes
    ----------
    detector : Detector
    profiles : DataFrame
        As `anomaly.quality.profile` made it.
    reading_kind : str
    interval_minutes : int
    reference : Reference
        How the training readings were distributed, to tell drift by.
    """

    detector: Detector
    profiles: pd.DataFrame
    reading_kind: str
    interval_minutes: int
    reference: Reference

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that scoring needs, as arrays of numbers and text."""
        profiles = {name: self.profiles[name].to_numpy() for name in self.profiles.columns}
        return (
            _named("detector", self.detector.arrays())
            | _named("profiles", {"machine_id": self.profiles.index.to_numpy(np.int64)} | profiles)
            | _named("reference", self.reference.arrays())
        )

    def hardly_ever_flat(self, settings: Settings) -> frozenset[int]:
        """Machines of which a long flat run is a fault of the meter."""
        hardly = self.profiles["flat_share"] <= settings.stuck_flat_share
        return frozenset(self.profiles.index[hardly].tolist())

    @classmethod
    def from_arrays(
        cls,
        detector: type[Detector],
        arrays: Mapping[str, npt.NDArray[Any]],
        reading_kind: str,
        interval_minutes: int,
    ) -> Self:
        """Make the model again that `arrays` came from."""
        profiles = pd.DataFrame(_of("profiles", arrays)).set_index("machine_id")
        if "highest_kw" not in profiles:  # of a version trained before this was kept
            profiles["highest_kw"] = np.nan
        return cls(
            detector.from_arrays(_of("detector", arrays)),
            profiles,
            reading_kind,
            interval_minutes,
            Reference.from_arrays(_of("reference", arrays)),
        )


# What of a reading its verdict is made of, the detector's own features apart.
_JUDGED = [
    "machine_id", "utc_timestamp", "reading", "power_kw", "power_diff", "quality",
    "flat_hours", "change", "max_power_kw", "step_hours", "still", "follows_hours",
]  # fmt: skip


def judged(measured: pd.DataFrame, model: Model, settings: Settings) -> pd.DataFrame:
    """Measured readings with the quality, power and rate that a verdict states of them.

    Parameters
    ----------
    measured : DataFrame
        As `anomaly.quality.measure` returns it, with what precedes and follows.

    Returns
    -------
    DataFrame
        As `anomaly.quality.in_hindsight` returns it, with the final ``quality``; readings
        that no machine can have drawn have neither power nor rate.
    """
    seen = in_hindsight(measured, model.profiles, settings)
    quality = judge(seen, model.profiles, settings)
    return _without_impossible(seen.assign(quality=quality), quality)


def judge_readings(
    measured: pd.DataFrame, wanted: npt.NDArray[np.bool_], model: Model, settings: Settings
) -> pd.DataFrame:
    """Verdicts on measured readings: a pure function of them and the model.

    Parameters
    ----------
    measured : DataFrame
        As `anomaly.quality.measure` returns it, with what precedes the readings wanted.
    wanted : array of bool
        Which rows to judge.

    Returns
    -------
    DataFrame
        A row each: ``machine_id``, ``utc_timestamp``, ``reading``, ``power_kw``,
        ``power_diff``, ``anomaly_score`` (NaN for meter faults), ``threshold``,
        ``anomaly`` (0 or 1), ``reason`` (None: nothing to say), ``quality`` and
        ``expected_kw`` (NaN: not known).
    """
    hindsight = in_hindsight(measured, model.profiles, settings)
    every = judge(hindsight, model.profiles, settings)
    quality = every[wanted]
    sound = quality < Quality.STUCK
    scores = model.detector.score(hindsight.assign(quality=every), wanted & (every < Quality.STUCK))
    mine = hindsight[_JUDGED][wanted].reset_index(drop=True)
    score, expected = np.full(len(mine), np.nan), np.full(len(mine), np.nan)
    anomaly = np.zeros(len(mine), dtype=np.int64)
    reason = explain_faults(mine, quality)
    score[sound], anomaly[sound], reason[sound] = scores.score, scores.anomaly, scores.reason
    expected[sound] = scores.expected_kw
    columns = ["machine_id", "utc_timestamp", "reading", "power_kw", "power_diff"]
    told = _without_impossible(mine[columns], quality)
    return pd.DataFrame(
        {
            **{name: told[name].array for name in columns},
            "anomaly_score": score,
            "threshold": model.detector.threshold,
            "anomaly": anomaly,
            "reason": pd.Series(reason, dtype=object),
            "quality": names(quality),
            "expected_kw": expected,
        }
    )


def _without_impossible(readings: pd.DataFrame, quality: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Without the power of readings that no machine can have drawn: nobody shall add it up."""
    impossible = quality == Quality.IMPOSSIBLE
    if not impossible.any():
        return readings
    masked = {name: readings[name].mask(impossible) for name in ("power_kw", "power_diff")}
    return readings.assign(**masked)


def _named(part: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    return {f"{part}/{name}": array for name, array in arrays.items()}


def _of(part: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    prefix = f"{part}/"
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
