"""Sets of readings to evaluate on: the files of several plants, named in one TOML file."""

import difflib
import multiprocessing
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from anomaly.errors import AnomalyError, IngestError, SettingsError, SourceError, TrainingError
from anomaly.evaluation.labelled_readings import check_interval, machine_ids
from anomaly.evaluation.train_test_weeks import finite_readings
from anomaly.loading.files import read_readings
from anomaly.readings.transformers import TimestampParser
from anomaly.settings import Layout, Settings

T = TypeVar("T")

_OWN_KEYS = ("file", "time_zone", "machines")


@dataclass(frozen=True)
class ReadingSet:
    """The readings of one plant, and what they are.

    Attributes
    ----------
    readings : DataFrame
        ``utc_timestamp`` (aware), ``machine_id`` and ``reading``: finite, one per machine and
        time, sorted by both.
    settings : Settings
        The kind of readings, their interval and whatever else differs from set to set.
    zone : str
        Where the machines stand, or most of them.
    machines : DataFrame or None
        What is on record of each, as `anomaly.database.machines.trainable_machines` gives it; None
        for files, of which nothing more is known.
    """

    name: str
    readings: pd.DataFrame
    settings: Settings
    zone: str
    machines: pd.DataFrame | None = None

    @property
    def known_machines(self) -> pd.DataFrame:
        """`machines`, or for files a table like it of the machines that have readings."""
        if self.machines is not None:
            return self.machines
        ids = np.unique(self.readings["machine_id"].to_numpy())
        nothing = dict.fromkeys(("alert_budget", "max_power_kw", "rolls_over_at"), np.nan)
        return pd.DataFrame({"machine_id": ids, "time_zone": self.zone, "holidays": None} | nothing)


def side_by_side(work: Callable[..., T], jobs: Sequence[tuple[Any, ...]]) -> list[T]:
    """The results of some work on each job, in their order: done by all processors at once.

    Parameters
    ----------
    work : function
        Of a module, so that another process finds it.
    jobs : sequence of tuple
        Its arguments.
    """
    if len(jobs) == 1:
        return [work(*jobs[0])]
    processes = min(len(jobs), os.cpu_count() or 1)
    fresh = multiprocessing.get_context("spawn")  # a copy of this process would share its threads
    try:
        with ProcessPoolExecutor(processes, mp_context=fresh) as pool:
            return list(pool.map(work, *zip(*jobs, strict=True)))
    except BrokenProcessPool:
        raise TrainingError(
            f"one of {processes} processes was killed, most likely for want of memory: give fewer"
            " sets or shorter ones at once"
        ) from None


@contextmanager
def named(name: str) -> Iterator[None]:
    """Say in every expected failure which set it is about."""
    try:
        yield
    except AnomalyError as error:
        raise type(error)(f"set {name}: {error}") from None


def read_sets(path: Path, settings: Settings) -> list[ReadingSet]:
    """Read the sets that a TOML file names.

    Each table of the file is a set: ``file`` (a path from where the TOML file lies),
    ``time_zone`` (of the machines; UTC unless it is given), ``machines`` (names or ids; all unless
    given), and any setting without its prefix, such as ``reading_kind = "power_w"``. Settings that
    a set does not name are those given.

    Raises
    ------
    SettingsError
        When the file is no TOML, names no set, or a set has no file, an unknown key or value.
    IngestError
        When a file cannot be read whole.
    """
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}: write the sets to a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
    if not tables:
        raise SettingsError(f"{path} names no set: write [plant] and below it file = 'plant.csv'")
    return [_read_set(path, name, table, settings) for name, table in tables.items()]


def _read_set(path: Path, name: str, table: object, settings: Settings) -> ReadingSet:
    if not isinstance(table, dict) or not isinstance(table.get("file"), str):
        raise SettingsError(f"{path}: set {name!r} has no file: write file = 'plant.csv' below it")
    zone = _zone(path, name, table.get("time_zone", "UTC"))
    own = {key: value for key, value in table.items() if key not in _OWN_KEYS}
    _refuse_unknown(path, name, own, settings)
    try:
        settings = settings.changed(**own)
    except SettingsError as error:
        raise SettingsError(f"{path}, set {name!r}: {error}") from None
    try:
        readings = _chosen(path, name, _long(path.parent / table["file"], settings), table)
        check_interval(readings, settings.meter)
    except (IngestError, SourceError) as error:
        raise type(error)(f"{path}, set {name!r}: {error}") from None
    return ReadingSet(name, readings, settings, zone)


def _refuse_unknown(path: Path, name: str, own: Mapping[str, Any], settings: Settings) -> None:
    """Refuse keys that are no settings of meters, training or gate: nothing else counts here."""
    groups = (settings.meter_table, settings.meter, settings.training, settings.gate)
    known = [*_OWN_KEYS, *(field for group in groups for field in type(group).model_fields)]
    for key in own:
        if key not in known:
            near = difflib.get_close_matches(key.lower().removeprefix("anomaly_"), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"a set has {', '.join(_OWN_KEYS)}"
            raise SettingsError(
                f"{path}: set {name!r} has the key {key!r}, which is no setting of readings,"
                f" training or gate: {hint}"
            )


def _zone(path: Path, name: str, zone: object) -> str:
    try:
        return ZoneInfo(str(zone)).key
    except (OSError, ValueError, KeyError):  # a folder, a name of no zone, or none of that name
        raise SettingsError(
            f"{path}: set {name!r} has the time_zone {zone!r}, which does not exist: write one such"
            " as 'Europe/Berlin'"
        ) from None


def _long(file: Path, settings: Settings) -> pd.DataFrame:
    """A file's readings, with the machines' names in the column ``machine``."""
    frame = read_readings(file, settings.meter_table, settings.meter)
    if settings.meter_table.source_layout is Layout.LONG:
        long = frame.set_axis(["utc_timestamp", "machine", "reading"], axis="columns")
    else:
        moment = frame.columns[0]
        machines = [column for column in frame if re.fullmatch(r"machine_\d+", str(column))]
        long = frame.melt(moment, machines, "machine", "reading").rename(
            columns={moment: "utc_timestamp"}
        )
        long["machine"] = long["machine"].str.removeprefix("machine_")
    parser = TimestampParser(
        None, settings.meter.timestamp_label.value, settings.meter.interval_minutes
    )
    parsed: pd.DataFrame = parser.transform(long)
    return parsed.assign(
        machine_id=parsed["machine"].map(machine_ids(parsed["machine"], settings.meter_table))
    )


def _chosen(
    path: Path, name: str, readings: pd.DataFrame, table: Mapping[str, Any]
) -> pd.DataFrame:
    there = readings["machine"].astype(str)
    named = table.get("machines", sorted(set(there)))
    if not isinstance(named, list) or not named:
        raise SettingsError(f"{path}: set {name!r} has machines = {named!r}: write a list, [1, 2]")
    known = set(there)
    wanted = [
        full if (full := str(machine)) in known else full.removeprefix("machine_")
        for machine in named
    ]
    if missing := sorted(set(wanted) - set(there)):
        raise SettingsError(
            f"{path}: set {name!r} has no machine {missing[0]!r}: there are"
            f" {', '.join(sorted(set(there)))}"
        )
    return finite_readings(readings[there.isin(wanted)])
