"""Where readings and verdicts disagree, compared both ways without scoring anything again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import pandas as pd

from anomaly.arrays import Bools
from anomaly.database.connection import SCORER, Database
from anomaly.database.model_in_force import versions_in_force
from anomaly.database.results import read_for_mismatches
from anomaly.database.scoring_runs import scored_to
from anomaly.models.verdicts import FEATURES_VERSION
from anomaly.readings.quality import Quality
from anomaly.scoring.judging import WindowJudge, version_at
from anomaly.scoring.retraction import within_source
from anomaly.scoring.window_reader import WindowReader
from anomaly.windows import Window

_KEY = ["machine_id", "utc_timestamp"]


@dataclass(frozen=True)
class Mismatches:
    """Where readings and verdicts of a window disagree.

    Attributes
    ----------
    missing : DataFrame
        Readings without a verdict (``machine_id``, ``utc_timestamp``).
    changed : DataFrame
        Verdicts on another reading, rate, quality, model version or features than now hold.
    deleted : DataFrame
        Verdicts whose reading is gone, between the source's first and last reading.
    verdicts : int
        How many verdicts the window has.
    readings : int
        How many finite readings it has.
    """

    missing: pd.DataFrame
    changed: pd.DataFrame
    deleted: pd.DataFrame
    verdicts: int
    readings: int

    @property
    def moments(self) -> pd.Series:
        """Timestamps at which something differs."""
        return pd.concat([self.missing, self.changed, self.deleted])[
            "utc_timestamp"
        ].drop_duplicates()


def find_mismatches(
    database: Database,
    reader: WindowReader,
    window: Window,
    judge: WindowJudge | None = None,
    *,
    register: bool = False,
    machines: Sequence[int] | None = None,
) -> Mismatches:
    """Compare the readings of a window with its verdicts, both ways.

    Parameters
    ----------
    judge : WindowJudge, optional
        Opens the models in force, to tell exactly what quality a model gives. Without it a
        quality that a model may have given counts as right, and no model file is opened.
    register : bool
        Add machines that are new, so that their readings are missed too. Else nothing is
        written, and readings of a long table's new machines are passed over.
    machines : sequence of int, optional
        Only these; default: all.

    Raises
    ------
    NoModelError
        When no version is in force for a part of the window.
    """
    shape = reader.prepare(database, window, register=register)
    with database.transaction(SCORER, read_only=True) as transaction:
        judges = judge.judges_of(transaction, window) if judge else None
        parts = judges.parts if judges else versions_in_force(transaction, window)
        measured = reader.read(
            transaction,
            shape,
            window,
            None if machines is None else [*machines],
            behind=judges.behind if judges else None,
            judged_to=scored_to(transaction),
        )
        verdicts = read_for_mismatches(transaction, window, machines)
        extent = reader.source.extent(transaction, shape)
    mine = verdicts[verdicts["machine_id"].isin(measured.machines)]
    if judge and judges:
        readings = judge.readings_as_judged(measured, judges)
    else:
        readings = measured.frame.assign(version=version_at(measured.frame, parts))
    found = _compare(readings, mine, exactly=judge is not None)
    return replace(found, deleted=within_source(found.deleted, extent))


def count_mismatches(
    database: Database, reader: WindowReader, window: Window, longest: timedelta
) -> tuple[int, int, int]:
    """How many readings lack a verdict, verdicts are out of date, and have lost their reading.

    Nothing is written and no model file is opened; `window` is read in chunks of `longest`.

    Raises
    ------
    NoModelError
        When no version is in force for a part of the window.
    """
    missing = changed = deleted = 0
    for chunk in window.chunks(longest):
        found = find_mismatches(database, reader, chunk)
        missing += len(found.missing)
        changed += len(found.changed)
        deleted += len(found.deleted)
    return missing, changed, deleted


def _compare(readings: pd.DataFrame, verdicts: pd.DataFrame, *, exactly: bool) -> Mismatches:
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
        & (scored["features_version"] == FEATURES_VERSION)
        & (((quality[0] == quality[1]) & same_rate) | by_model)
    )
    return Mismatches(
        missing=both.loc[both["side"] == "left_only", _KEY],
        changed=scored.loc[~same, _KEY],
        deleted=both.loc[both["side"] == "right_only", _KEY],
        verdicts=len(verdicts),
        readings=len(readings),
    )


def _may_be_of_model(measured: np.ndarray, scored: np.ndarray) -> Bools:
    """Whether a stored quality can be a model's: it only ever raises what was measured."""
    given = [Quality.LEARNING, *(quality for quality in Quality if quality.is_meter_fault)]
    found: Bools = np.isin(scored, given) & (scored > measured)
    return found
