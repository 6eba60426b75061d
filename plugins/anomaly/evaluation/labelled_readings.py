"""Judge contenders on labelled readings: of any machine, kind and interval."""

import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pandas as pd

from anomaly.errors import SourceError
from anomaly.evaluation.alert_matching import join_gap
from anomaly.evaluation.fault_injection import Event
from anomaly.evaluation.protocol import BUDGETS, Contender, run_trials
from anomaly.evaluation.report import EvaluationReport
from anomaly.evaluation.train_test_weeks import (
    JUDGING_LOOK_BACK,
    WEEK,
    Case,
    Trial,
    finite_readings,
    readings_within,
)
from anomaly.readings.transformers import TimestampParser
from anomaly.settings import MeterSettings, MeterTableSettings
from anomaly.windows import Window

LABEL = "label"
FAMILY = "labelled"

_DIGITS = 9  # of a machine's id at most, as in the meter table
_LEAST = timedelta(days=1)  # of training: every contender learns a usual day


@dataclass(frozen=True)
class LabelledReadings:
    """Readings, and the events that their labels mark.

    Attributes
    ----------
    readings : DataFrame
        ``utc_timestamp``, ``machine_id`` and ``reading``, sorted by machine and time.
    events : tuple of Event
        Runs of labelled readings. Runs no farther apart than `join_gap` are one event.
    machines : mapping of str to int
        The id of each machine, by its name in the file or table.
    """

    readings: pd.DataFrame
    events: tuple[Event, ...]
    machines: Mapping[str, int]


def is_csv(name: str) -> bool:
    """Whether a name is a CSV file's, and not a table's (``schema.table``)."""
    return Path(name).exists() or "/" in name or name.endswith((".csv", ".csv.gz"))


def read_labelled(
    path: Path | str, meter_table: MeterTableSettings, meter: MeterSettings, *, label: str = LABEL
) -> LabelledReadings:
    """Read a long CSV with a column of labels, 0 or 1.

    Parameters
    ----------
    path : path
        One row per reading. Columns are named as the settings name those of a long meter
        table; without the machine column all readings are of machine 1.
    meter : MeterSettings
        ``reading_kind``, ``reading_unit`` and ``interval_minutes`` say what the readings are.
    label : str
        The label column.

    Raises
    ------
    SourceError
        When it is not CSV in UTF-8, a column or a machine is missing, a label is neither 0
        nor 1, a reading is not a number, or the readings are not ``interval_minutes`` apart.
    """
    table = _read_csv(path)
    try:
        return as_labelled(table, meter_table, meter, label=label)
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from None


def as_labelled(
    table: pd.DataFrame,
    meter_table: MeterTableSettings,
    meter: MeterSettings,
    *,
    label: str = LABEL,
) -> LabelledReadings:
    """Labelled readings from a table, which looks as the file of `read_labelled`.

    Raises
    ------
    SourceError
        As `read_labelled`.
    """
    table = _named(table, meter_table, label)
    machines = machine_ids(table["machine"], meter_table)
    parser = TimestampParser(
        meter.source_timezone or None,
        meter.timestamp_label.value,
        meter.interval_minutes,
    )
    parsed = parser.transform(table).assign(machine_id=table["machine"].map(machines))
    readings = finite_readings(parsed[["utc_timestamp", "machine_id", "reading"]])
    check_interval(readings, meter)
    marked = parsed[parsed["label"] == 1].sort_values(["machine_id", "utc_timestamp"])
    return LabelledReadings(readings, _events(marked, join_gap(meter.interval)), machines)


def judge_labelled(
    labelled: LabelledReadings,
    contenders: Sequence[Contender],
    *,
    meter: MeterSettings,
    train_share: float = 0.5,
    budgets: Sequence[float] = BUDGETS,
    keep_scores: bool = False,
) -> EvaluationReport:
    """Train on the first share of the time, whatever its labels, and judge the rest week by week.

    Intervals are over weeks. An event that lasts into the next week counts in both.

    Raises
    ------
    SourceError
        When the first share lasts less than a day.
    """
    trial = _trial(labelled, train_share, meter)
    return run_trials([trial], contenders, meter=meter, budgets=budgets, keep_scores=keep_scores)


def _read_csv(path: Path | str) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except pd.errors.EmptyDataError:
        raise SourceError(f"{path} is empty: write a header, and one row per reading") from None
    except pd.errors.ParserError as error:
        says = str(error).rpartition("C error: ")[2].strip()
        raise SourceError(f"{path} is not CSV ({says}): mend that line") from None
    except UnicodeDecodeError as error:
        found = error.object[error.start]
        raise SourceError(
            f"{path}: byte 0x{found:02x} is not UTF-8: save the file as CSV in UTF-8"
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SourceError(f"{path} is a damaged gzip file ({error}): copy it again") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas makes surplus fields the index
        raise SourceError(f"{path}: line 2 holds more fields than the header: name every column")
    return table


def _named(table: pd.DataFrame, meter_table: MeterTableSettings, label: str) -> pd.DataFrame:
    names = {
        meter_table.source_timestamp_column: "utc_timestamp",
        meter_table.source_value_column: "reading",
        label: "label",
    }
    for name in names:
        if name not in table:
            raise SourceError(
                f"column {name!r} is missing, there are {', '.join(map(str, table.columns))}:"
                " rename it, or set ANOMALY_SOURCE_TIMESTAMP_COLUMN or ANOMALY_SOURCE_VALUE_COLUMN"
            )
    if table.empty:
        raise SourceError("there is no row below the header: write one row per reading")
    reading, column = meter_table.source_value_column, meter_table.source_machine_column
    _require_filled(table, (meter_table.source_timestamp_column, column))
    numbers, marks = (pd.to_numeric(table[name], errors="coerce") for name in (reading, label))
    if (wrong := ~marks.isin([0, 1])).any():
        found = table.loc[wrong, label].tolist()[0]
        raise SourceError(f"label {found!r} in column {label!r} is neither 0 nor 1: write those")
    if (wrong := numbers.isna() & table[reading].notna()).any():
        found = table.loc[wrong, reading].tolist()[0]
        raise SourceError(f"{found!r} in column {reading!r} is not a number: write one, or nothing")
    machine = table[column].astype(str) if column in table else "1"
    renamed = table[[*names]].rename(columns=names)
    return renamed.assign(reading=numbers, label=marks, machine=machine)


def _require_filled(table: pd.DataFrame, names: Sequence[str]) -> None:
    for name in names:
        if name in table and (empty := table[name].isna()).any():
            row = int(empty.argmax()) + 1
            raise SourceError(f"column {name!r} is empty in row {row}: fill it in")


def machine_ids(names: pd.Series, meter_table: MeterTableSettings) -> dict[str, int]:
    """The id of each name: as the settings map it, else the number itself, else counted from 1."""
    found = sorted(names.unique().tolist())
    if all(name in meter_table.source_machines for name in found):
        return {name: meter_table.source_machines[name] for name in found}
    if all(name.isdecimal() and len(name) <= _DIGITS for name in found):
        return {name: int(name) for name in found}
    return {name: number for number, name in enumerate(found, start=1)}


def check_interval(readings: pd.DataFrame, meter: MeterSettings) -> None:
    """Refuse readings that are not as far apart as the settings say.

    Raises
    ------
    SourceError
        With what they are, or when no machine has two readings.
    """
    apart = readings.groupby("machine_id")["utc_timestamp"].diff()
    minutes = float(apart.dt.total_seconds().median()) / 60
    if pd.isna(minutes):
        raise SourceError("no machine has two readings: add some, two weeks are a good start")
    if abs(minutes / meter.interval_minutes - 1) > 0.01:
        raise SourceError(
            f"readings are {minutes:g} minutes apart, not {meter.interval_minutes}:"
            " set ANOMALY_INTERVAL_MINUTES"
        )


def _events(marked: pd.DataFrame, join: timedelta) -> tuple[Event, ...]:
    apart = marked.groupby("machine_id")["utc_timestamp"].diff()
    run = ((apart > join) | apart.isna()).cumsum()
    spans = marked.groupby(["machine_id", run.rename("run")])["utc_timestamp"].agg(["min", "max"])
    return tuple(
        Event(int(machine), FAMILY, FAMILY, first.to_pydatetime(), last.to_pydatetime())
        for (machine, _), first, last in spans.itertuples()
    )


def _trial(labelled: LabelledReadings, train_share: float, meter: MeterSettings) -> Trial:
    times = labelled.readings["utc_timestamp"]
    first = times.min().to_pydatetime()
    end = times.max().to_pydatetime() + meter.interval
    split = first + train_share * (end - first)
    if split - first < _LEAST:
        raise SourceError(
            f"the labelled readings reach from {first} to {end}, and the first {train_share:.0%}"
            f" train: that is less than {_LEAST.days} day, give more"
        )
    train = readings_within(labelled.readings, Window(first, split))
    weeks = Window(split, end).chunks(WEEK)
    cases = [_case(labelled, week, number, meter) for number, week in enumerate(weeks)]
    shown = tuple(case for case in cases if not case.readings.empty)
    return Trial(train, (split - first) / WEEK, shown)


def _case(labelled: LabelledReadings, window: Window, week: int, meter: MeterSettings) -> Case:
    readings = readings_within(labelled.readings, window.starting_earlier(JUDGING_LOOK_BACK))
    last = window.end - meter.interval
    clipped = tuple(
        replace(event, start=max(event.start, window.start), end=min(event.end, last))
        for event in labelled.events
        if event.start < window.end and event.end >= window.start
    )
    return Case(readings, window, clipped, week, 0)
