"""Where readings and verdicts disagree, compared both ways without judging anything again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pandas as pd

from anomaly.model import Model
from anomaly.postgres.database import SCORER, Database
from anomaly.postgres.readings import WindowReader
from anomaly.postgres.results import read_results
from anomaly.postgres.versions import InForce, in_force
from anomaly.quality import judge
from anomaly.schema import Quality
from anomaly.settings import Settings
from anomaly.windows import Window

_KEY = ["machine_id", "utc_timestamp"]

Load = Callable[[tuple[InForce, ...]], Mapping[int, Model]]


@dataclass(frozen=True)
class Differences:
    """Where readings and verdicts of a window disagree.

    Attributes
    ----------
    missing : DataFrame
        Readings without a verdict (``machine_id``, ``utc_timestamp``).
    changed : DataFrame
        Verdicts on another reading, rate, quality or model version than now holds.
    deleted : DataFrame
        Verdicts whose reading is gone, between the source's first and last: what
        lies outside was purged or is yet to come.
    verdicts : int
        Verdicts in the window.
    """

    missing: pd.DataFrame
    changed: pd.DataFrame
    deleted: pd.DataFrame
    verdicts: int

    @property
    def moments(self) -> pd.Series:
        """Timestamps at which something differs."""
        return pd.concat([self.missing, self.changed, self.deleted])[
            "utc_timestamp"
        ].drop_duplicates()


def compare(
    database: Database, reader: WindowReader, window: Window, load: Load | None = None
) -> Differences:
    """Compare the readings of a window with its verdicts, both ways.

    Parameters
    ----------
    load : callable, optional
        Opens the models in force, to tell ``stuck`` and ``learning`` exactly;
        without it a stored quality that a model may have given counts as right.

    Raises
    ------
    NoModelError
        When no version is in force for a part of the window.
    """
    shape = reader.prepare(database, window)
    with database.transaction(SCORER, read_only=True) as transaction:
        versions = in_force(transaction, window)
        measured = reader.read(transaction, shape, window)
        verdicts = read_results(transaction, window)
        extent = reader.source.extent(transaction, shape)
    mine = verdicts[verdicts["machine_id"].isin(measured.machines)]
    readings = measured.frame.assign(version=_version_at(measured.frame, versions))
    if load:
        readings = _judged(readings, load(versions), reader.settings)
    found = _differences(readings, mine, exactly=load is not None)
    return replace(found, deleted=_between(found.deleted, extent))


def _judged(
    readings: pd.DataFrame, models: Mapping[int, Model], settings: Settings
) -> pd.DataFrame:
    """Qualities as each reading's model sees them."""
    quality = readings["quality"].to_numpy().copy()
    for version, model in models.items():
        mine = readings["version"].to_numpy() == version
        quality[mine] = judge(readings[mine], model.profiles, settings)
    return readings.assign(quality=quality)


def _between(deleted: pd.DataFrame, extent: tuple[datetime, datetime] | None) -> pd.DataFrame:
    if extent is None:
        return deleted.iloc[:0]
    inside: pd.DataFrame = deleted[deleted["utc_timestamp"].between(*extent)]
    return inside


def _differences(readings: pd.DataFrame, verdicts: pd.DataFrame, *, exactly: bool) -> Differences:
    both = readings[[*_KEY, "reading", "power_diff", "quality", "version"]].merge(
        verdicts, on=_KEY, how="outer", suffixes=("", "_scored"), indicator="side"
    )
    scored = both[both["side"] == "both"]
    quality = scored["quality"].to_numpy(), scored["quality_scored"].to_numpy()
    rate = scored["power_diff"].to_numpy(), scored["power_diff_scored"].to_numpy()
    same = (
        (scored["reading"] == scored["reading_scored"])
        & ((rate[0] == rate[1]) | (np.isnan(rate[0]) & np.isnan(rate[1])))
        & (scored["version"] == scored["model_version"])
        & (quality[0] == quality[1] if exactly else _quality_agrees(*quality))
    )
    return Differences(
        missing=both.loc[both["side"] == "left_only", _KEY],
        changed=scored.loc[~same, _KEY],
        deleted=both.loc[both["side"] == "right_only", _KEY],
        verdicts=len(verdicts),
    )


def _quality_agrees(measured: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Whether a stored quality can come from what was measured: a model only ever raises it."""
    by_model = np.isin(scored, [Quality.STUCK, Quality.LEARNING]) & (scored > measured)
    agrees: np.ndarray = (scored == measured) | by_model
    return agrees


def _version_at(readings: pd.DataFrame, versions: tuple[InForce, ...]) -> np.ndarray:
    starts = pd.Series([part.window.start for part in versions])
    place = np.searchsorted(
        starts.astype("datetime64[us, UTC]"), readings["utc_timestamp"], side="right"
    )
    return np.array([part.version for part in versions])[place - 1]
