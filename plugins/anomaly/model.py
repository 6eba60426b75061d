"""A trained model, what it is as plain arrays, and its verdicts on readings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.detector import Detector
from anomaly.drift import Reference
from anomaly.quality import explain_faults, judge, names
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
        return cls(
            detector.from_arrays(_of("detector", arrays)),
            profiles,
            reading_kind,
            interval_minutes,
            Reference.from_arrays(_of("reference", arrays)),
        )


# What of a reading bears on its verdict, the detector's own features apart.
_JUDGED = [
    "machine_id", "utc_timestamp", "reading", "power_kw", "power_diff", "quality",
    "flat_hours", "change", "max_power_kw",
]  # fmt: skip


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
    mine = measured if wanted.all() else measured[_JUDGED][wanted].reset_index(drop=True)
    quality = judge(mine, model.profiles, settings)
    sound = quality < Quality.STUCK
    chosen = wanted.copy()
    chosen[wanted] = sound
    scores = model.detector.score(measured, chosen)
    score, expected = np.full(len(mine), np.nan), np.full(len(mine), np.nan)
    anomaly = np.zeros(len(mine), dtype=np.int64)
    reason = explain_faults(mine, quality)
    score[sound], anomaly[sound], reason[sound] = scores.score, scores.anomaly, scores.reason
    expected[sound] = scores.expected_kw
    columns = ["machine_id", "utc_timestamp", "reading", "power_kw", "power_diff"]
    return pd.DataFrame(
        {
            **{name: mine[name].array for name in columns},
            "anomaly_score": score,
            "threshold": model.detector.threshold,
            "anomaly": anomaly,
            "reason": pd.Series(reason, dtype=object),
            "quality": names(quality),
            "expected_kw": expected,
        }
    )


def _named(part: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    return {f"{part}/{name}": array for name, array in arrays.items()}


def _of(part: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    prefix = f"{part}/"
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
