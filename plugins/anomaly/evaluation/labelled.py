"""Judging on readings that somebody has labelled: any machine, any interval, counters or watts."""

import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pandas as pd

from anomaly.errors import SourceError
from anomaly.evaluation.injection import Event
from anomaly.evaluation.judging import JOIN
from anomaly.evaluation.protocol import BUDGETS, Contender, run
from anomaly.evaluation.report import EvaluationReport
from anomaly.evaluation.trials import CONTEXT, WEEK, Case, Trial, tidy, within
from anomaly.preprocessing import TimestampParser
from anomaly.settings import Settings
from anomaly.windows import Window

LABEL = "label"
FAMILY = "labelled"

_DIGITS = 9  # of a machine's id at most
_LEAST = timedelta(days=1)


@dataclass(frozen=True)
class Labelled:
    """Readings and what their labels say.

    Attributes
    ----------
    readings : DataFrame
        ``utc_timestamp``, ``machine_id`` and ``reading``, sorted by machine and time.
    events : tuple of Event
        Runs of labelled readings; runs no farther apart than alarms are joined are one.
    machines : mapping of str to int
        The ids of machines as the file or table names them.
    """

    readings: pd.DataFrame
    events: tuple[Event, ...]
    machines: Mapping[str, int]


def is_csv(name: str) -> bool:
    """Whether a name is that of a CSV file, rather than of a table: ``schema.table``."""
    return Path(name).exists() or "/" in name or name.endswith((".csv", ".csv.gz"))


def read_labelled(path: Path | str, settings: Settings, *, label: str = LABEL) -> Labelled:
    """Read a long CSV with a column of labels, 0 or 1.

    Parameters
    ----------
    path : path
        A row a reading. Columns are named as the settings name those of a long meter
        table; without the machine column all readings are of machine 1.
    settings : Settings
        ``reading_kind`` and ``interval_minutes`` say what the readings are.
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
        return as_labelled(table, settings, label=label)
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from None


def as_labelled(table: pd.DataFrame, settings: Settings, *, label: str = LABEL) -> Labelled:
    """Labelled readings from a table as `read_labelled` finds it in a file.

    Raises
    ------
    SourceError
        As `read_labelled`.
    """
    table = _named(table, settings, label)
    machines = _machine_ids(table["machine"], settings)
    parser = TimestampParser(
        settings.source_timezone or None, settings.timestamp_label.value, settings.interval_minutes
    )
    parsed = parser.transform(table).assign(machine_id=table["machine"].map(machines))
    readings = tidy(parsed[["utc_timestamp", "machine_id", "reading"]])
    _check_interval(readings, settings)
    marked = parsed[parsed["label"] == 1].sort_values(["machine_id", "utc_timestamp"])
    return Labelled(readings, _events(marked, max(JOIN, settings.interval)), machines)


def judge_labelled(
    labelled: Labelled,
    contenders: Sequence[Contender],
    *,
    settings: Settings,
    train_share: float = 0.5,
    budgets: Sequence[float] = BUDGETS,
    keep_scores: bool = False,
) -> EvaluationReport:
    """Train on the first share of the time, whatever its labels, and judge the rest week by week.

    Intervals are over weeks. An event that goes on into the next week counts in both.

    Raises
    ------
    SourceError
        When the first share lasts less than a day.
    """
    trial = _trial(labelled, train_share, settings)
    return run([trial], contenders, settings=settings, budgets=budgets, keep_scores=keep_scores)


def _read_csv(path: Path | str) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except pd.errors.EmptyDataError:
        raise SourceError(f"{path} is empty: write a header, and a row a reading") from None
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
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes what is too much for an index
        raise SourceError(f"{path}: line 2 holds more fields than the header: name every column")
    return table


def _named(table: pd.DataFrame, settings: Settings, label: str) -> pd.DataFrame:
    names = {
        settings.source_timestamp_column: "utc_timestamp",
        settings.source_value_column: "reading",
        label: "label",
    }
    for name in names:
        if name not in table:
            raise SourceError(
                f"column {name!r} is missing, there are {', '.join(map(str, table.columns))}:"
                " rename it, or set ANOMALY_SOURCE_TIMESTAMP_COLUMN or ANOMALY_SOURCE_VALUE_COLUMN"
            )
    if table.empty:
        raise SourceError("there is no row below the header: write a row a reading")
    reading, column = settings.source_value_column, settings.source_machine_column
    for name in (settings.source_timestamp_column, column):
        if name in table and (empty := table[name].isna()).any():
            row = int(empty.argmax()) + 1
            raise SourceError(f"column {name!r} is empty in row {row}: fill it in")
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


def _machine_ids(names: pd.Series, settings: Settings) -> dict[str, int]:
    """Numbers that can be ids stay, mapped names get theirs, all others are counted from 1."""
    found = sorted(names.unique().tolist())
    if all(name in settings.source_machines for name in found):
        return {name: settings.source_machines[name] for name in found}
    if all(name.isdecimal() and len(name) <= _DIGITS for name in found):
        return {name: int(name) for name in found}
    return {name: number for number, name in enumerate(found, start=1)}


def _check_interval(readings: pd.DataFrame, settings: Settings) -> None:
    apart = readings.groupby("machine_id")["utc_timestamp"].diff()
    minutes = float(apart.dt.total_seconds().median()) / 60
    if pd.isna(minutes):
        raise SourceError("no machine has two readings: add some, two weeks are a fair start")
    if abs(minutes / settings.interval_minutes - 1) > 0.01:
        raise SourceError(
            f"readings are {minutes:g} minutes apart, not {settings.interval_minutes}:"
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


def _trial(labelled: Labelled, train_share: float, settings: Settings) -> Trial:
    times = labelled.readings["utc_timestamp"]
    first = times.min().to_pydatetime()
    end = times.max().to_pydatetime() + settings.interval
    split = first + train_share * (end - first)
    if split - first < _LEAST:
        raise SourceError(
            f"the labelled readings reach from {first} to {end}, and the first {train_share:.0%}"
            f" train: that is less than {_LEAST.days} day, give more"
        )
    train = within(labelled.readings, Window(first, split))
    weeks = Window(split, end).chunks(WEEK)
    cases = [_case(labelled, week, number, settings) for number, week in enumerate(weeks)]
    shown = tuple(case for case in cases if not case.readings.empty)
    return Trial(train, (split - first) / WEEK, shown)


def _case(labelled: Labelled, window: Window, week: int, settings: Settings) -> Case:
    readings = within(labelled.readings, window.starting_earlier(CONTEXT))
    last = window.end - settings.interval
    clipped = tuple(
        replace(event, start=max(event.start, window.start), end=min(event.end, last))
        for event in labelled.events
        if event.start < window.end and event.end >= window.start
    )
    return Case(readings, window, clipped, week, 0)
