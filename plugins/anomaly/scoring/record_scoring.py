"""Judge records that are handed in as lists of dicts: the eight steps and the verdicts, at once.

The same as the seven steps of `anomaly.readings.transformers`, `measure` and `verdicts_on` one
after the other, without a table between the steps.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from anomaly.arrays import Bools, Floats, Ints
from anomaly.database.meter_table import LARGEST_ID
from anomaly.errors import RecordError, SourceError
from anomaly.models.model import Model
from anomaly.models.verdicts import verdicts_on
from anomaly.readings.measuring import measure
from anomaly.readings.preprocessing import (
    UNUSED,
    machine_number,
    microseconds,
    parse_timestamps,
    power_diff,
)
from anomaly.readings.record import RECORD
from anomaly.settings import MeterSettings, MeterTableSettings, TimestampLabel

_TIMESTAMP, _LOCAL_TIMESTAMP = RECORD[:2]
_NUMBERS = {float, int, type(None)}
_TEXTS = {str, datetime, pd.Timestamp}
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
"""Chosen: a time outside was not meant, and leaves room for every window around it."""
_LIKE = 0.8
"""How much a field must be like a machine's to be taken for a slip of the pen. Chosen."""
_LONGEST = 40
"""Characters of a value that a message shows. Chosen: the message stays short."""

Record = Mapping[str, Any]


def judge_records(
    records: Sequence[Record],
    model: Model,
    meter_table: MeterTableSettings,
    meter: MeterSettings,
    previous: pd.DataFrame | None = None,
    machines: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Judge every reading of records, in any order.

    Parameters
    ----------
    records : sequence of mappings
        The prototype's 22-field record, or some of it: ``utc_timestamp`` (ISO 8601 or a
        datetime; UTC, or the settings' zone, where it names none) and one field per machine,
        the same in every record; None, NaN and infinities are no reading. Fields that no
        verdict needs may be left out, and others may be added. Two records of one time are
        one reading: the higher one counts, with the quality ``duplicate``.
    previous : DataFrame, optional
        Earlier readings: ``machine_id``, ``utc_timestamp``, ``reading``. A verdict depends
        on the machine's last one before, and on those within the detector's reach; without
        any the first reading of a machine has ``power_diff`` 0 and quality ``first``. A
        record wins over a previous reading of the same time.
    machines : DataFrame, optional
        ``machine_id``, ``max_power_kw``, ``rolls_over_at``; default: not known.

    Returns
    -------
    DataFrame
        As `anomaly.models.verdicts.verdicts_on` returns it, sorted by machine and time; no rows
        for no records.

    Raises
    ------
    RecordError
        As `readings_of`. Nothing was judged then.
    """
    readings = readings_of(records, meter_table, meter)
    if machines is None:
        machines = _unlimited(readings)
    if previous is not None:
        readings = readings.after(previous)
    readings = readings.finite().sorted()
    measured = measure(readings.frame(meter), machines, meter)
    return verdicts_on(measured, readings.wanted, model, meter)


def readings_of(
    records: Sequence[Record], meter_table: MeterTableSettings, meter: MeterSettings
) -> "RecordReadings":
    """The finite readings of records, as `judge_records` takes them, by machine.

    Raises
    ------
    RecordError
        Naming the record (counted from 1), the field and the value, when a field is missing,
        of another type, or looks like a misspelt machine. None was read then.
    """
    if not isinstance(records, Sequence) or isinstance(records, str):
        raise RecordError(f"records are {type(records).__name__}: send a list of records")
    fields = _fields(records)
    ticks = _ticks(_column(records, _TIMESTAMP) if records else [], meter)
    columns = _machine_columns(records, fields, meter_table)
    return _melted(columns, ticks).finite()


class RecordReadings(NamedTuple):
    """One row per reading: `wanted` are the records' own, `duplicate` those that won over another.

    The fields are those that the steps' tables have as columns.
    """

    machine: Ints
    ticks: Ints
    reading: Floats
    wanted: Bools
    duplicate: Bools

    def after(self, previous: pd.DataFrame) -> "RecordReadings":
        """These behind previous ones."""
        given = RecordReadings(
            previous["machine_id"].to_numpy(np.int64),
            microseconds(previous["utc_timestamp"]),
            previous["reading"].to_numpy(float),
            *np.zeros((2, len(previous)), dtype=bool),
        )
        return RecordReadings(*(np.concatenate(both) for both in zip(given, self, strict=True)))

    def finite(self) -> "RecordReadings":
        """Step four: those that are finite."""
        return self._only(np.isfinite(self.reading))

    def sorted(self) -> "RecordReadings":
        """Step six: by machine and time, one each: a record's rather than a previous one."""
        later = (self.machine[1:] > self.machine[:-1]) | (self.ticks[1:] > self.ticks[:-1])
        if (later & (self.machine[1:] >= self.machine[:-1])).all():
            return self
        ordered = self._only(np.lexsort((self.reading, self.wanted, self.ticks, self.machine)))
        machine, ticks, _, wanted, _ = ordered
        same = (machine[1:] == machine[:-1]) & (ticks[1:] == ticks[:-1])
        corrects = wanted[1:] & ~wanted[:-1]
        marked = ordered._replace(duplicate=np.append(False, same & ~corrects)[: len(ticks)])
        return marked._only(~np.append(same, False)[: len(ticks)])

    def frame(self, meter: MeterSettings) -> pd.DataFrame:
        """Step seven: the table of readings with ``power_diff``."""
        elapsed, change, rate = power_diff(
            self.machine,
            self.ticks,
            self.reading,
            meter.interval_minutes,
            meter.max_gap_days,
            meter.change_scale,
        )
        return self.rows().assign(
            duplicate=self.duplicate, elapsed_hours=elapsed, change=change, power_diff=rate
        )

    def rows(self) -> pd.DataFrame:
        """The table of readings as step five leaves it."""
        return pd.DataFrame(
            {
                "utc_timestamp": pd.DatetimeIndex(self.ticks.view("datetime64[us]"), tz="UTC"),
                "reading": self.reading,
                "machine_id": self.machine,
            }
        )

    def _only(self, rows: Bools | Ints) -> "RecordReadings":
        machine, ticks, reading, wanted, duplicate = self
        return RecordReadings(
            machine[rows], ticks[rows], reading[rows], wanted[rows], duplicate[rows]
        )


def _machine_columns(
    records: Sequence[Record], fields: Iterable[str], meter_table: MeterTableSettings
) -> dict[int, Floats]:
    """Readings of each machine, by its id; every other field is checked and left out."""
    columns: dict[int, Floats] = {}
    named: dict[int, str] = {}
    for name in fields:
        if name == _TIMESTAMP:
            continue
        number = _machine(name, meter_table)
        if number is not None:
            if number in named:
                raise RecordError(
                    f"{named[number]} and {name} are the same machine: send one of them"
                )
            named[number] = name
            columns[number] = _numbers(name, _column(records, name))
        elif name == _LOCAL_TIMESTAMP:
            _check_types(name, _values(records, name), {*_TEXTS, type(None)})
        elif name in UNUSED:
            _numbers(name, _values(records, name))
    if records and not columns:
        raise RecordError(
            f"no field of the records is a machine: send {_machine_names(meter_table)}"
        )
    return columns


def _fields(records: Sequence[Record]) -> Iterable[str]:
    """Every field that any record has."""
    try:
        first = records[0].keys() if records else set()
        return first if all(record.keys() == first for record in records) else _all_fields(records)
    except AttributeError:
        number = next(n for n, record in enumerate(records, 1) if not isinstance(record, Mapping))
        raise RecordError(
            f"record {number} is {_shown(records[number - 1])}: send an object with"
            f" {_TIMESTAMP} and a field per machine"
        ) from None


def _all_fields(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record))


def _machine(name: str, meter_table: MeterTableSettings) -> int | None:
    """Id of the machine that a field meters; None for one that no verdict needs."""
    if name in meter_table.source_machines:
        return meter_table.source_machines[name]
    if name in UNUSED:
        return None
    with suppress(SourceError, TypeError):
        number = machine_number(name, None)
        if number > LARGEST_ID:
            raise RecordError(
                f"{_shown(name)} is no machine: the largest id is {LARGEST_ID}, send one up to that"
            )
        return number
    if isinstance(name, str) and len(name) <= _LONGEST:
        digits = name[len(name.rstrip("0123456789")) :]
        known = [*meter_table.source_machines, f"machine_{digits or 1}"]
        if close := difflib.get_close_matches(name.lower(), known, n=1, cutoff=_LIKE):
            raise RecordError(f"field {name!r} is not known: did you mean {close[0]}?")
    return None


def _machine_names(meter_table: MeterTableSettings) -> str:
    return ", ".join(meter_table.source_machines) or "machine_<n>"


def _column(records: Sequence[Record], name: str) -> list[Any]:
    """A field's value in every record."""
    try:
        return [record[name] for record in records]
    except KeyError:
        number = next(n for n, record in enumerate(records, 1) if name not in record)
        raise RecordError(
            f"record {number} has no {name}: send it"
            + ("" if name == _TIMESTAMP else ", null where there is no reading")
        ) from None


def _values(records: Sequence[Record], name: str) -> list[Any]:
    """A field's value in every record, None where it is left out."""
    try:
        return [record[name] for record in records]
    except KeyError:
        return [record.get(name) for record in records]


def _numbers(name: str, values: list[Any]) -> Floats:
    if not set(map(type, values)) <= _NUMBERS:
        values = [_number(value) if type(value) is str else value for value in values]
        _check_types(name, values, _NUMBERS)
    try:
        return np.array(values, dtype=float)
    except OverflowError:
        number = next(n for n, value in enumerate(values, 1) if _too_large(value))
        raise RecordError(
            f"record {number}: {name} is too large a number: send one below 1e308"
        ) from None


def _number(text: str) -> float | str:
    """The number that a text is, as the prototype took it; the text where it is none."""
    try:
        return float(text)
    except ValueError:
        return text


def _check_types(name: str, values: list[Any], allowed: set[type]) -> None:
    if set(map(type, values)) <= allowed:
        return
    for number, value in enumerate(values, 1):
        if type(value) not in allowed:
            wanted = (
                "a number, or null where there is no reading"
                if allowed == _NUMBERS
                else "ISO 8601, for example 2017-03-07T04:45:00Z"
            )
            raise RecordError(f"record {number}: {name} is {_shown(value)}: send {wanted}")


def _too_large(value: float | None) -> bool:
    try:
        float(value or 0)
    except OverflowError:
        return True
    return False


def _ticks(stamps: list[Any], meter: MeterSettings) -> Ints:
    """Step two: microseconds since the Unix epoch at which each reading's interval starts."""
    _check_types(_TIMESTAMP, stamps, _TEXTS)
    try:
        if not all(map(_begins_with_a_year, stamps)):
            raise ValueError  # "now" and "today", which pandas would understand
        parsed = _parsed(stamps, meter.source_timezone or "UTC")
    except (ValueError, SourceError):
        parsed = None
    if parsed is None or parsed.hasnans:
        number = next(n for n, stamp in enumerate(stamps, 1) if not _readable(stamp))
        raise RecordError(
            f"record {number}: {_TIMESTAMP} is {_shown(stamps[number - 1])}: send ISO 8601,"
            " for example 2017-03-07T04:45:00Z"
        )
    ticks: Ints = parsed.as_unit("us").asi8
    earliest, latest = (int(moment.timestamp()) * 1_000_000 for moment in (_EARLIEST, _LATEST))
    outside = np.flatnonzero((ticks < earliest) | (ticks >= latest))
    if len(outside):
        raise RecordError(
            f"record {outside[0] + 1}: {_TIMESTAMP} is {_shown(stamps[outside[0]])}: send a time"
            f" from {_EARLIEST.year} to {_LATEST.year - 1}"
        )
    return ticks - (meter.interval_minutes * 60_000_000) * (
        meter.timestamp_label is TimestampLabel.END
    )


def _parsed(stamps: list[Any], zone: str) -> pd.DatetimeIndex:
    if zone == "UTC":
        return pd.to_datetime(stamps, format="ISO8601", utc=True)
    frame = parse_timestamps(pd.DataFrame({_TIMESTAMP: stamps}), zone, TimestampLabel.START, 0)
    return pd.DatetimeIndex(frame[_TIMESTAMP])


def _begins_with_a_year(stamp: Any) -> bool:
    return not isinstance(stamp, str) or stamp[:4].isdecimal()


def _readable(stamp: Any) -> bool:
    try:
        return _begins_with_a_year(stamp) and not pd.isna(
            pd.to_datetime(stamp, format="ISO8601", utc=True)
        )
    except ValueError:
        return False


def _melted(columns: Mapping[int, Floats], ticks: Ints) -> RecordReadings:
    """Steps three and five: one row per machine and time, by machine."""
    ids = sorted(columns)
    machine = np.repeat(np.array(ids, dtype=np.int64), len(ticks))
    reading = np.concatenate([columns[number] for number in ids] or [np.empty(0)])
    wanted, duplicate = np.ones(len(machine), dtype=bool), np.zeros(len(machine), dtype=bool)
    return RecordReadings(machine, np.tile(ticks, len(ids)), reading, wanted, duplicate)


def _unlimited(readings: RecordReadings) -> pd.DataFrame:
    """Limits as `anomaly.readings.measuring.measure` takes them, of machines that have none."""
    ids = np.unique(readings.machine)
    return pd.DataFrame({"machine_id": ids, "max_power_kw": np.nan, "rolls_over_at": np.nan})


def _shown(value: Any) -> str:
    """A value as people can read it in one line."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
