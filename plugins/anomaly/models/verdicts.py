"""A model's verdicts on measured readings: one per reading, a pure function of both."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.models.model import Model
from anomaly.readings.meter_faults import explain_faults, final_quality, in_hindsight
from anomaly.readings.quality import Quality, quality_column
from anomaly.settings import MeterSettings

FEATURES_VERSION = 2
"""What readings are turned into before they are judged: preprocessing, measuring, signals.

Whoever changes what any of these compute adds 1 here. Then ``anomaly backfill --mode changed`` and
`reconcile_scores` find the verdicts that are to be made anew.
"""

# What was measured, as the verdict states it.
_STATED = ["power_kw", "power_diff", "energy_kwh", "energy_hours"]
# The columns that verdicts and reasons of meter faults are made of; detectors read more.
_JUDGED = [
    "machine_id", "utc_timestamp", "reading", "power_kw", "power_diff", "quality",
    "energy_kwh", "energy_hours", "flat_hours", "change", "max_power_kw", "step_hours", "still",
    "follows_hours",
]  # fmt: skip


def with_final_quality(measured: pd.DataFrame, model: Model, meter: MeterSettings) -> pd.DataFrame:
    """Measured readings with the quality, power and rate that their verdicts state.

    Parameters
    ----------
    measured : DataFrame
        As `anomaly.readings.measuring.measure` returns it, with the readings before and after.

    Returns
    -------
    DataFrame
        As `in_hindsight` returns it, with the final ``quality``. Impossible readings have
        neither power nor rate.
    """
    seen = in_hindsight(measured, model.profiles, meter)
    quality = final_quality(seen, model.profiles, meter)
    return _without_impossible(seen.assign(quality=quality), quality)


def verdicts_on(
    measured: pd.DataFrame, wanted: npt.NDArray[np.bool_], model: Model, meter: MeterSettings
) -> pd.DataFrame:
    """Verdicts on measured readings: a pure function of them and the model.

    Parameters
    ----------
    measured : DataFrame
        As `anomaly.readings.measuring.measure` returns it, with the readings of the day before
        the wanted ones.
    wanted : array of bool
        Which rows to judge.

    Returns
    -------
    DataFrame
        One row per wanted reading: ``machine_id``, ``utc_timestamp``, ``reading``, ``power_kw``,
        ``power_diff``, ``anomaly_score`` (NaN for meter faults), ``threshold``,
        ``anomaly`` (0 or 1), ``reason`` (None: no anomaly and no fault), ``quality``,
        ``expected_kw`` (NaN: not known), ``energy_kwh`` and ``energy_hours`` (NaN: nothing was
        metered) and ``features_version``.
    """
    hindsight = in_hindsight(measured, model.profiles, meter)
    every = final_quality(hindsight, model.profiles, meter)
    quality = every[wanted]
    sound = quality < Quality.STUCK
    scores = model.detector.score(hindsight.assign(quality=every), wanted & (every < Quality.STUCK))
    mine = hindsight[_JUDGED][wanted].reset_index(drop=True)
    score, expected = np.full(len(mine), np.nan), np.full(len(mine), np.nan)
    anomaly = np.zeros(len(mine), dtype=np.int64)
    reason = explain_faults(mine, quality, meter)
    score[sound], anomaly[sound], reason[sound] = scores.score, scores.anomaly, scores.reason
    expected[sound] = scores.expected_kw
    columns = ["machine_id", "utc_timestamp", "reading", *_STATED]
    shown = _without_impossible(mine[columns], quality)
    return pd.DataFrame(
        {
            **{name: shown[name].array for name in columns},
            "anomaly_score": score,
            "threshold": model.detector.threshold,
            "anomaly": anomaly,
            "reason": pd.Series(reason, dtype=object),
            "quality": quality_column(quality),
            "expected_kw": expected,
            "features_version": FEATURES_VERSION,
        }
    )


def _without_impossible(readings: pd.DataFrame, quality: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Readings without power and energy of impossible ones, so that nobody adds them up."""
    impossible = quality == Quality.IMPOSSIBLE
    if not impossible.any():
        return readings
    masked = {name: readings[name].mask(impossible) for name in _STATED}
    return readings.assign(**masked)
