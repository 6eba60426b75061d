"""Where readings and verdicts disagree, compared both ways without judging anything again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pandas as pd

from anomaly.model import Model, judged
from anomaly.postgres.database import SCORER, Database, Transaction
from anomaly.postgres.readings import Context, MeasuredWindow, WindowReader
from anomaly.postgres.results import first_unscored, read_results
from anomaly.postgres.versions import InForce, in_force
from anomaly.schema import Quality
from anomaly.settings import Settings
from anomaly.windows import Window

_KEY = ["machine_id", "utc_timestamp"]

JudgeWith = Callable[
    [Transaction, Window, tuple[InForce, ...]], tuple[Mapping[int, Model], Context]
]


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
    database: Database,
    reader: WindowReader,
    window: Window,
    judge_with: JudgeWith | None = None,
    *,
    register: bool = False,
) -> Differences:
    """Compare the readings of a window with its verdicts, both ways.

    Parameters
    ----------
    judge_with : callable, optional
        Opens the models in force and says how far around the window they look, to tell
        exactly what a model gives; without it what a model may have given counts as right.
    register : bool
        Add machines that are new, so that their readings are missed too; else nothing is
        written, and readings of a long table's new machines are passed over.

    Raises
    ------
    NoModelError
        When no version is in force for a part of the window.
    """
    shape = reader.prepare(database, window, register=register)
    with database.transaction(SCORER, read_only=True) as transaction:
        versions = in_force(transaction, window)
        models, context = judge_with(transaction, window, versions) if judge_with else ({}, None)
        measured = reader.read(
            transaction, shape, window, context=context, judged_to=first_unscored(transaction)
        )
        verdicts = read_results(transaction, window)
        extent = reader.source.extent(transaction, shape)
    mine = verdicts[verdicts["machine_id"].isin(measured.machines)]
    if judge_with:
        readings = _judged(measured, versions, models, reader.settings)
    else:
        readings = measured.frame.assign(version=_version_at(measured.frame, versions))
    found = _differences(readings, mine, exactly=judge_with is not None)
    return replace(found, deleted=_between(found.deleted, extent))


def _judged(
    measured: MeasuredWindow,
    versions: tuple[InForce, ...],
    models: Mapping[int, Model],
    settings: Settings,
) -> pd.DataFrame:
    """The window's readings as each reading's model sees them."""
    numbers = _version_at(measured.context, versions)
    parts = []
    for version, model in models.items():
        mine = measured.inside & (numbers == version)
        if mine.any():
            seen = judged(measured.context, model, settings)[mine]
            parts.append(seen.assign(version=version))
    return pd.concat(parts) if parts else measured.frame.assign(version=0)


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
    same_rate = (rate[0] == rate[1]) | (np.isnan(rate[0]) & np.isnan(rate[1]))
    by_model = np.zeros(len(scored), bool) if exactly else _may_be_of_model(*quality)
    same = (
        (scored["reading"] == scored["reading_scored"])
        & (scored["version"] == scored["model_version"])
        & (((quality[0] == quality[1]) & same_rate) | by_model)
    )
    return Differences(
        missing=both.loc[both["side"] == "left_only", _KEY],
        changed=scored.loc[~same, _KEY],
        deleted=both.loc[both["side"] == "right_only", _KEY],
        verdicts=len(verdicts),
    )


def _may_be_of_model(measured: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Whether a stored quality can be a model's: it only ever raises what was measured."""
    given = [Quality.LEARNING, *(quality for quality in Quality if quality.is_meter_fault)]
    found: np.ndarray = np.isin(scored, given) & (scored > measured)
    return found


def _version_at(readings: pd.DataFrame, versions: tuple[InForce, ...]) -> np.ndarray:
    starts = pd.Series([part.window.start for part in versions])
    place = np.searchsorted(
        starts.astype("datetime64[us, UTC]"), readings["utc_timestamp"], side="right"
    )
    return np.array([part.version for part in versions])[place - 1]
