"""The prototype's eight preprocessing steps, in its order, as scikit-learn transformers.

Wide records go in, one row a machine-reading comes out. Steps one to seven
learn nothing; the eighth fixes the machine categories when it is fitted, and
scoring only ever transforms.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from anomaly.errors import SourceError
from anomaly.schema import OTHER_METERS
from anomaly.settings import Settings, TimestampLabel

_ID_COLUMNS = ("utc_timestamp", "ingested_at")

Names = np.ndarray[Any, np.dtype[np.object_]]


class StatelessTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A transformer that learns nothing and hands DataFrames on."""

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:
        """Remember the columns, as scikit-learn does, and learn nothing."""
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return what the step makes of `X`."""
        raise NotImplementedError

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> Names:
        """Names of the columns that come out, for `input_features` or those fitted."""
        names = self.feature_names_in_ if input_features is None else input_features
        return np.asarray(self._names_out(list(names)), dtype=object)

    def _names_out(self, names: list[str]) -> list[str]:
        """The same columns, unless a step says otherwise."""
        return names


class ColumnDropper(StatelessTransformer):
    """Drop the columns that no machine's verdict needs; absent ones are ignored.

    Examples
    --------
    >>> records = pd.DataFrame({"cet_cest_timestamp": ["x"], "ev": [0.0], "machine_1": [4.0]})
    >>> ColumnDropper().fit_transform(records).columns.tolist()
    ['machine_1']
    """

    def __init__(self, columns: Sequence[str] = ("cet_cest_timestamp", *OTHER_METERS)) -> None:
        self.columns = columns

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return `X` without the columns."""
        return X.drop(columns=list(self.columns), errors="ignore")

    def _names_out(self, names: list[str]) -> list[str]:
        return [name for name in names if name not in self.columns]


class TimestampParser(StatelessTransformer):
    """Turn ``utc_timestamp`` into the UTC start of the reading's interval.

    Parameters
    ----------
    zone : str or None
        Zone of timestamps written without one; None refuses them. An hour that
        a clock shows twice is taken as its second, one it skips as its end.
    label : {"start", "end"}
        Which end of the interval the timestamps name.
    interval_minutes : int
        Length of the interval, for ``label="end"``.

    Raises
    ------
    SourceError
        When a timestamp cannot be read, or is naive and `zone` is None.

    Examples
    --------
    >>> records = pd.DataFrame({"utc_timestamp": ["2017-03-07 04:45:00+00:00"]})
    >>> TimestampParser().fit_transform(records)["utc_timestamp"].dt.hour.tolist()
    [4]
    """

    def __init__(
        self, zone: str | None = "UTC", label: str = "start", interval_minutes: int = 15
    ) -> None:
        self.zone = zone
        self.label = label
        self.interval_minutes = interval_minutes

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return `X` with ``utc_timestamp`` as ``datetime64[us, UTC]``."""
        stamps = self._to_utc(self._parse(X["utc_timestamp"])).astype("datetime64[us, UTC]")
        if self.label == TimestampLabel.END:
            stamps = stamps - timedelta(minutes=self.interval_minutes)
        return X.assign(utc_timestamp=stamps)

    def _parse(self, stamps: pd.Series) -> pd.Series:
        if pd.api.types.is_datetime64_any_dtype(stamps):
            return stamps
        try:
            return pd.to_datetime(stamps, format="ISO8601")
        except ValueError:
            # Mixed offsets (a local clock over a change of the hour) need UTC at once.
            pass
        try:
            return pd.to_datetime(stamps, format="ISO8601", utc=True)
        except ValueError as error:
            raise SourceError(
                f"utc_timestamp cannot be read ({str(error).splitlines()[0]}):"
                " write ISO 8601, for example 2017-03-07 04:45:00+00:00"
            ) from None

    def _to_utc(self, stamps: pd.Series) -> pd.Series:
        if stamps.dt.tz is not None:
            aware: pd.Series = stamps.dt.tz_convert("UTC")
            return aware
        if self.zone is None:
            raise SourceError(
                f"utc_timestamp {stamps.iloc[0]} has no time zone:"
                " set ANOMALY_SOURCE_TIMEZONE to the zone it is written in"
            )
        second = np.zeros(len(stamps), dtype=bool)
        local = stamps.dt.tz_localize(self.zone, ambiguous=second, nonexistent="shift_forward")
        converted: pd.Series = local.dt.tz_convert("UTC")
        return converted


class MachineMelter(StatelessTransformer):
    """Melt wide to long: one row a timestamp and machine column.

    Examples
    --------
    >>> wide = pd.DataFrame({"utc_timestamp": [0], "machine_1": [4.0], "machine_2": [9.0]})
    >>> MachineMelter().fit_transform(wide)[["machine", "reading"]].values.tolist()
    [['machine_1', 4.0], ['machine_2', 9.0]]
    """

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return ``utc_timestamp``, ``ingested_at`` where given, ``machine``, ``reading``."""
        ids = [name for name in _ID_COLUMNS if name in X]
        # Not `DataFrame.melt`: it refuses a meter that is called "reading" itself.
        meters = [name for name in X if name not in ids]
        repeated = pd.concat([X[ids]] * len(meters), ignore_index=True) if meters else X[ids][:0]
        readings = [X[name].to_numpy(dtype=float) for name in meters] or [np.empty(0)]
        return repeated.assign(
            machine=np.repeat(np.asarray(meters, dtype=object), len(X)),
            reading=np.concatenate(readings),
        )

    def _names_out(self, names: list[str]) -> list[str]:
        return [*(name for name in _ID_COLUMNS if name in names), "machine", "reading"]


class MissingDropper(StatelessTransformer):
    """Drop rows without a finite reading: NULL, NaN and infinities get no verdict.

    Examples
    --------
    >>> long = pd.DataFrame({"reading": [4.0, None, float("inf")]})
    >>> len(MissingDropper().fit_transform(long))
    1
    """

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of `X` whose reading is finite."""
        finite: pd.DataFrame = X[np.isfinite(X["reading"].to_numpy(dtype=float))]
        return finite


class MachineIdExtractor(StatelessTransformer):
    """Turn column names into integer machine ids.

    Parameters
    ----------
    machines : mapping of str to int, optional
        Column names and their ids; default: the number in ``machine_<n>``.

    Raises
    ------
    SourceError
        Naming a column that is neither in `machines` nor ``machine_<n>``.

    Examples
    --------
    >>> long = pd.DataFrame({"machine": ["machine_3"], "reading": [4.0]})
    >>> MachineIdExtractor().fit_transform(long)["machine_id"].tolist()
    [3]
    """

    def __init__(self, machines: Mapping[str, int] | None = None) -> None:
        self.machines = machines

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return `X` with ``machine_id`` (int64) in place of ``machine``."""
        names, codes = np.unique(X["machine"].to_numpy(dtype=str), return_inverse=True)
        ids = np.array([self._id(str(name)) for name in names], dtype=np.int64)
        return X.drop(columns="machine").assign(machine_id=ids[codes] if len(ids) else codes)

    def _names_out(self, names: list[str]) -> list[str]:
        return [*(name for name in names if name != "machine"), "machine_id"]

    def _id(self, name: str) -> int:
        if self.machines and name in self.machines:
            return self.machines[name]
        if not (match := re.fullmatch(r"machine_(\d+)", name)):
            raise SourceError(
                f"column {name!r} is not a machine: name it machine_<n>, drop it,"
                " or map it in ANOMALY_SOURCE_MACHINES"
            )
        return int(match[1])


class MachineTimeSorter(StatelessTransformer):
    """Sort by machine and time, one row each.

    Of several rows with the same machine and time the one with the highest
    ``ingested_at`` stays, else the highest reading; it is marked ``duplicate``.

    Examples
    --------
    >>> long = pd.DataFrame({"machine_id": [2, 1, 1], "utc_timestamp": [0, 1, 0], "reading": 1.0})
    >>> MachineTimeSorter().fit_transform(long)[["machine_id", "utc_timestamp"]].values.tolist()
    [[1, 0], [1, 1], [2, 0]]
    """

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return `X` sorted and unique, with a boolean column ``duplicate``."""
        keys = ["machine_id", "utc_timestamp"]
        ties = [name for name in ("ingested_at", "reading") if name in X]
        ordered = X.sort_values(keys + ties, kind="stable", ignore_index=True)
        same = (ordered[keys] == ordered[keys].shift()).all(axis=1)
        kept = ~same.shift(-1, fill_value=False)
        return ordered.assign(duplicate=same)[kept].reset_index(drop=True)

    def _names_out(self, names: list[str]) -> list[str]:
        return [*names, "duplicate"]


class PowerDiff(StatelessTransformer):
    """Add ``power_diff``: change per hour since the machine's previous reading.

    Expects one row a reading, sorted by machine and time; hand in the last
    reading before the window as well, or the first row of each machine gets 0.
    The prototype divided by a quarter of an hour whatever the gap.

    Parameters
    ----------
    interval_minutes : int
        The interval at which the meter is read. Readings less than a third of
        it apart are divided by the whole interval, not by a sliver of time.
    max_gap_days : float
        A previous reading farther back counts as none.

    Examples
    --------
    >>> times = pd.to_datetime(["2017-03-07 00:00Z", "2017-03-07 00:15Z", "2017-03-07 02:15Z"])
    >>> readings = pd.DataFrame({"machine_id": 1, "utc_timestamp": times, "reading": [4, 5, 13.0]})
    >>> PowerDiff().fit_transform(readings)["power_diff"].tolist()
    [0.0, 4.0, 4.0]
    """

    def __init__(self, interval_minutes: int = 15, max_gap_days: float = 7.0) -> None:
        self.interval_minutes = interval_minutes
        self.max_gap_days = max_gap_days

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return `X` with ``elapsed_hours``, ``change`` (NaN for the first) and ``power_diff``."""
        elapsed = self._elapsed_hours(X)
        change = np.where(
            np.isnan(elapsed), np.nan, np.diff(X["reading"].to_numpy(dtype=float), prepend=np.nan)
        )
        interval = self.interval_minutes / 60
        hours = np.where(elapsed < interval / 3, interval, elapsed)
        rate = np.where(np.isnan(elapsed), 0.0, change / hours)
        return X.assign(elapsed_hours=elapsed, change=change, power_diff=rate)

    def _names_out(self, names: list[str]) -> list[str]:
        return [*names, "elapsed_hours", "change", "power_diff"]

    def _elapsed_hours(self, X: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Hours since the machine's previous reading, NaN where there is none."""
        machine = X["machine_id"].to_numpy()
        ticks = microseconds(X["utc_timestamp"])
        hours = np.diff(ticks, prepend=0) / 3_600_000_000
        first = np.diff(machine, prepend=np.nan) != 0
        return np.where(first | (hours > self.max_gap_days * 24), np.nan, hours)


def microseconds(stamps: pd.Series) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Timestamps as microseconds since the Unix epoch."""
    return stamps.to_numpy(dtype="datetime64[us]").astype(np.int64)


def feature_columns(
    machine_ids: Sequence[int] | None = None, *, one_hot: bool = True
) -> ColumnTransformer:
    """The eighth step: one-hot machine ids and ``power_diff``, as float64.

    Parameters
    ----------
    machine_ids : sequence of int, optional
        The categories; default: those seen when it is fitted. A machine that is
        not among them gets zeros, so one that is new or missing breaks nothing.
    one_hot : bool
        Whether machines are told apart at all; a fleet of thousands is not, this way.
    """
    rate = ("power_diff", "passthrough", ["power_diff"])
    if not one_hot:
        return ColumnTransformer([rate], verbose_feature_names_out=False)
    categories = "auto" if machine_ids is None else [list(machine_ids)]
    encoder = OneHotEncoder(categories=categories, handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer(
        [("machine", encoder, ["machine_id"]), rate], verbose_feature_names_out=False
    )


def reading_steps(settings: Settings) -> list[tuple[str, StatelessTransformer]]:
    """Steps one to seven for a wide table; a long one starts at the fourth, `MissingDropper`."""
    return [
        ("column_dropper", _unmapped_dropper(settings)),
        (
            "timestamp_parser",
            TimestampParser(
                settings.source_timezone or None,
                settings.timestamp_label.value,
                settings.interval_minutes,
            ),
        ),
        ("machine_melter", MachineMelter()),
        ("missing_dropper", MissingDropper()),
        ("machine_id_extractor", MachineIdExtractor(settings.source_machines or None)),
        ("machine_time_sorter", MachineTimeSorter()),
        ("power_diff", PowerDiff(settings.interval_minutes, settings.max_gap_days)),
    ]


def _unmapped_dropper(settings: Settings) -> ColumnDropper:
    """The first step, sparing columns that the settings map to machines."""
    dropped = ("cet_cest_timestamp", *OTHER_METERS)
    return ColumnDropper([name for name in dropped if name not in settings.source_machines])


def build_pipeline(settings: Settings) -> Pipeline:
    """The eight steps as one scikit-learn pipeline, for wide records."""
    return Pipeline([*reading_steps(settings), ("features", feature_columns())])
