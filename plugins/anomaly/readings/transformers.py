"""The prototype's eight preprocessing steps, in its order, as scikit-learn transformers.

Wide records go in, and one row per machine and reading comes out. Steps one to seven learn
nothing; their functions are in `anomaly.readings.preprocessing`. The eighth step fixes the machine
categories when it is fitted. Scoring only transforms.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from anomaly.readings.preprocessing import (
    ID_COLUMNS,
    UNUSED,
    add_power_diff,
    drop_columns,
    drop_missing,
    extract_machine_ids,
    melt_machines,
    parse_timestamps,
    sort_by_machine_and_time,
    unused_columns,
)
from anomaly.readings.preprocessing import (
    microseconds as microseconds,  # the frozen judge knows it from here
)
from anomaly.settings import MeterSettings, MeterTableSettings

Names = np.ndarray[Any, np.dtype[np.object_]]


class StatelessTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A transformer that learns nothing and returns a DataFrame."""

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:
        """Remember the columns, as scikit-learn does, and learn nothing."""
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Apply the step to `X`."""
        raise NotImplementedError

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> Names:
        """Names of the output columns, for `input_features` or for the fitted columns."""
        names = self.feature_names_in_ if input_features is None else input_features
        return np.asarray(self._names_out(list(names)), dtype=object)

    def _names_out(self, names: list[str]) -> list[str]:
        """Names of the output columns; a step that changes columns overrides this."""
        return names


class ColumnDropper(StatelessTransformer):
    """Drop the columns that no verdict needs; columns that are missing are ignored.

    Examples
    --------
    >>> records = pd.DataFrame({"cet_cest_timestamp": ["x"], "ev": [0.0], "machine_1": [4.0]})
    >>> ColumnDropper().fit_transform(records).columns.tolist()
    ['machine_1']
    """

    def __init__(self, columns: Sequence[str] = UNUSED) -> None:
        self.columns = columns

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return `X` without the columns."""
        return drop_columns(X, self.columns)

    def _names_out(self, names: list[str]) -> list[str]:
        return [name for name in names if name not in self.columns]


class TimestampParser(StatelessTransformer):
    """Turn ``utc_timestamp`` into the UTC start of the reading's interval.

    Parameters
    ----------
    zone : str or None
        Zone of timestamps without one; None refuses such timestamps. A time that a clock
        shows twice means its second showing. A skipped time is read with the offset before
        the change.
    label : {"start", "end"}
        Whether the timestamps label the start or the end of the interval.
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
        return parse_timestamps(X, self.zone, self.label, self.interval_minutes)


class MachineMelter(StatelessTransformer):
    """Melt wide to long: one row per timestamp and machine column.

    Examples
    --------
    >>> wide = pd.DataFrame({"utc_timestamp": [0], "machine_1": [4.0], "machine_2": [9.0]})
    >>> MachineMelter().fit_transform(wide)[["machine", "reading"]].values.tolist()
    [['machine_1', 4.0], ['machine_2', 9.0]]
    """

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return ``utc_timestamp``, ``ingested_at`` where given, ``machine``, ``reading``."""
        return melt_machines(X)

    def _names_out(self, names: list[str]) -> list[str]:
        return [*(name for name in ID_COLUMNS if name in names), "machine", "reading"]


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
        return drop_missing(X)


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
        return extract_machine_ids(X, self.machines)

    def _names_out(self, names: list[str]) -> list[str]:
        return [*(name for name in names if name != "machine"), "machine_id"]


class MachineTimeSorter(StatelessTransformer):
    """Sort by machine and time, and keep one row per machine and time.

    If several rows have the same machine and time, the row with the highest ``ingested_at``
    stays, then the one with the highest reading. It is marked ``duplicate``.

    Examples
    --------
    >>> long = pd.DataFrame({"machine_id": [2, 1, 1], "utc_timestamp": [0, 1, 0], "reading": 1.0})
    >>> MachineTimeSorter().fit_transform(long)[["machine_id", "utc_timestamp"]].values.tolist()
    [[1, 0], [1, 1], [2, 0]]
    """

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return `X` sorted and unique, with a boolean column ``duplicate``."""
        return sort_by_machine_and_time(X)

    def _names_out(self, names: list[str]) -> list[str]:
        return [*names, "duplicate"]


class PowerDiff(StatelessTransformer):
    """Add ``power_diff``: change per hour since the machine's previous reading.

    Expects one row per reading, sorted by machine and time. Pass the last reading before the
    window as well, or the first row of each machine gets 0. The prototype always divided by a
    quarter of an hour, whatever the gap was.

    Parameters
    ----------
    interval_minutes : int
        The interval at which the meter is read. A reading that comes less than a fifteenth of
        an interval after another is compared with an earlier one: so short a time says nothing.
    max_gap_days : float
        A previous reading that is older is ignored.
    scale : Fraction
        What one unit of the readings is: kWh of a counter, W of any other. ``change`` is then in
        kWh or W, and ``power_diff`` in kW or W/h.

    Examples
    --------
    >>> times = pd.to_datetime(["2017-03-07 00:00Z", "2017-03-07 00:15Z", "2017-03-07 02:15Z"])
    >>> readings = pd.DataFrame({"machine_id": 1, "utc_timestamp": times, "reading": [4, 5, 13.0]})
    >>> PowerDiff().fit_transform(readings)["power_diff"].tolist()
    [0.0, 4.0, 4.0]
    """

    def __init__(
        self,
        interval_minutes: int = 15,
        max_gap_days: float = 7.0,
        scale: Fraction = Fraction(1),
    ) -> None:
        self.interval_minutes = interval_minutes
        self.max_gap_days = max_gap_days
        self.scale = scale

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return `X` with ``elapsed_hours``, ``change`` (NaN for the first) and ``power_diff``."""
        return add_power_diff(X, self.interval_minutes, self.max_gap_days, self.scale)

    def _names_out(self, names: list[str]) -> list[str]:
        return [*names, "elapsed_hours", "change", "power_diff"]


def feature_columns(
    machine_ids: Sequence[int] | None = None, *, one_hot: bool = True
) -> ColumnTransformer:
    """The eighth step: one-hot machine ids and ``power_diff``, as float64.

    Parameters
    ----------
    machine_ids : sequence of int, optional
        The categories; default: those seen when it is fitted. A machine that is not among
        them gets zeros, so a new or missing machine breaks nothing.
    one_hot : bool
        Whether each machine gets a column. False for a fleet of thousands: that would be
        thousands of columns.
    """
    rate = ("power_diff", "passthrough", ["power_diff"])
    if not one_hot:
        return ColumnTransformer([rate], verbose_feature_names_out=False)
    categories = "auto" if machine_ids is None else [list(machine_ids)]
    encoder = OneHotEncoder(categories=categories, handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer(
        [("machine", encoder, ["machine_id"]), rate], verbose_feature_names_out=False
    )


def reading_steps(
    meter_table: MeterTableSettings, meter: MeterSettings
) -> list[tuple[str, StatelessTransformer]]:
    """Steps one to seven for a wide table; a long table starts at step four, `MissingDropper`."""
    return [
        ("column_dropper", ColumnDropper(unused_columns(meter_table))),
        (
            "timestamp_parser",
            TimestampParser(
                meter.source_timezone or None,
                meter.timestamp_label.value,
                meter.interval_minutes,
            ),
        ),
        ("machine_melter", MachineMelter()),
        ("missing_dropper", MissingDropper()),
        ("machine_id_extractor", MachineIdExtractor(meter_table.source_machines or None)),
        ("machine_time_sorter", MachineTimeSorter()),
        (
            "power_diff",
            PowerDiff(meter.interval_minutes, meter.max_gap_days, meter.change_scale),
        ),
    ]


def build_pipeline(meter_table: MeterTableSettings, meter: MeterSettings) -> Pipeline:
    """The eight steps as one scikit-learn pipeline, for wide records."""
    return Pipeline([*reading_steps(meter_table, meter), ("features", feature_columns())])
