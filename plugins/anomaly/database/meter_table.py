"""Read the meter table, which belongs to somebody else and can have any name and layout."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from psycopg2.sql import SQL, Composable, Composed, Identifier, Literal
from sqlalchemy import RowMapping

from anomaly.database import binary_copy
from anomaly.database.connection import Transaction, composed, int_array
from anomaly.database.machines import machine_numbers
from anomaly.errors import SourceError
from anomaly.readings import local_clocks
from anomaly.settings import Layout, MeterSettings, MeterTableSettings, TimestampLabel
from anomaly.windows import Window

_MACHINE_COLUMN = re.compile(r"machine_(\d+)")
LARGEST_ID = 999_999_999  # chosen: nine digits fit into the column, an integer
UNREGISTERED = -(2**31)
"""Id of a machine of a long table that is not registered yet: the smallest integer."""
_WHOLE_TYPES = {"smallint", "integer", "bigint"}
_FLOATING_TYPES = {"real", "double precision"}
_NUMBER_TYPES = _WHOLE_TYPES | _FLOATING_TYPES | {"numeric"}
_DOUBLE = "double precision"
_NAIVE, _AWARE = "timestamp without time zone", "timestamp with time zone"
# Postgres stores the years 4713 BC to 294276, and infinities. Python's datetime has only the years
# 1 to 9999; two days less leave room for a zone and for an interval.
_EARLIEST = datetime(1, 1, 3, tzinfo=UTC)
_LATEST = datetime(9999, 12, 29, tzinfo=UTC)
_PG_EPOCH = 946_684_800_000_000  # microseconds from 1970 to 2000
# Postgres refuses to cast a numeric outside these limits to a double: too large or too near to 0.
_DOUBLES = {"most": SQL("1.7976931348623157e308"), "least": SQL("2.2250738585072014e-308")}


class MeterSource:
    """Reads the meter table that the settings name.

    Raises
    ------
    SourceError
        When the table, a column or a type is not what the settings say.
    """

    def __init__(self, meter_table: MeterTableSettings, meter: MeterSettings) -> None:
        self.meter_table = meter_table
        self.meter = meter
        self._table = Identifier(meter_table.source_schema, meter_table.source_table)
        self._timestamp = Identifier(meter_table.source_timestamp_column)

    # Columns and types --------------------------------------------------

    def describe(self, transaction: Transaction) -> "SourceShape":
        """Check the table against the settings, and return its columns and types."""
        columns = table_columns(
            transaction, self.meter_table.source_schema, self.meter_table.source_table
        )
        if not columns:
            raise SourceError(
                f"there is no table {self.meter_table.source_name} that this login may see:"
                " set ANOMALY_SOURCE_SCHEMA and ANOMALY_SOURCE_TABLE, or grant it"
            )
        types = {row["name"]: row["type"] for row in columns}
        naive = self._timestamp_is_naive(types)
        machines = (
            self._machine_columns(types) if self.meter_table.source_layout is Layout.WIDE else {}
        )
        if self.meter_table.source_layout is Layout.LONG:
            self._require_id(types, {row["name"]: row["scale"] for row in columns})
            self._require_number(types, self.meter_table.source_value_column)
        return SourceShape(
            naive=naive,
            written=self._type_of_written_at(types),
            machines=machines,
            numbered=types.get(self.meter_table.source_machine_column) in _WHOLE_TYPES,
            types=types,
        )

    def _timestamp_is_naive(self, types: dict[str, str]) -> bool:
        column = self.meter_table.source_timestamp_column
        self._require(types, column, "ANOMALY_SOURCE_TIMESTAMP_COLUMN")
        if types[column] not in (_NAIVE, _AWARE):
            raise SourceError(
                f"{self.meter_table.source_name}.{column} is {types[column]}, not a timestamp:"
                " name another column in ANOMALY_SOURCE_TIMESTAMP_COLUMN"
            )
        self._require_zone(types, column)
        return types[column] == _NAIVE

    def _type_of_written_at(self, types: dict[str, str]) -> str | None:
        column = self.meter_table.source_ingested_at_column
        found = types.get(column)
        if found not in (None, _NAIVE, _AWARE):
            raise SourceError(
                f"{self.meter_table.source_name}.{column} is {found}, not a timestamp, and cannot"
                " say when a row was written: name another column in"
                " ANOMALY_SOURCE_INGESTED_AT_COLUMN, or a name that no column has, for example none"
            )
        self._require_zone(types, column)
        return found

    def _require_zone(self, types: dict[str, str], column: str) -> None:
        if types.get(column) == _NAIVE and self.meter.zone is None:
            raise SourceError(
                f"{self.meter_table.source_name}.{column} has no time zone:"
                " set ANOMALY_SOURCE_TIMEZONE to the zone it is written in, for example UTC"
            )

    def _require_id(self, types: dict[str, str], scales: dict[str, int | None]) -> None:
        column, setting = (
            self.meter_table.source_machine_column,
            "ANOMALY_SOURCE_MACHINE_COLUMN",
        )
        self._require(types, column, setting)
        fractional = types[column] == "numeric" and scales[column] != 0
        if types[column] in _FLOATING_TYPES or fractional:
            raise SourceError(
                f"{self.meter_table.source_name}.{column} is {types[column]}, which holds"
                " fractions: it is a reading, not a machine's id; name another column in"
                f" {setting}, or make it a whole number or text"
            )

    def _machine_columns(self, types: dict[str, str]) -> dict[str, int]:
        machines = self.meter_table.source_machines or {
            name: int(match[1]) for name in types if (match := _MACHINE_COLUMN.fullmatch(name))
        }
        if not machines:
            long = self.meter_table.source_machine_column in types
            raise SourceError(
                f"{self.meter_table.source_name} has no machine_<n> column:"
                " map its columns in ANOMALY_SOURCE_MACHINES"
                + (", or set ANOMALY_SOURCE_LAYOUT=long for one row per machine" if long else "")
            )
        by_id: dict[int, str] = {}
        for column, machine_id in machines.items():
            self._require_number(types, column)
            if machine_id > LARGEST_ID or machine_id in by_id:
                other = f", as {by_id[machine_id]!r} is" if machine_id in by_id else ""
                raise SourceError(
                    f"{self.meter_table.source_name}.{column} would be machine {machine_id}{other}:"
                    f" give each an id up to {LARGEST_ID} in ANOMALY_SOURCE_MACHINES"
                )
            by_id[machine_id] = column
        return machines

    def _require(self, types: dict[str, str], column: str, setting: str) -> None:
        if column not in types:
            raise SourceError(
                f"{self.meter_table.source_name} has no column {column!r}, it has"
                f" {', '.join(types)}: set {setting}"
            )

    def _require_number(self, types: dict[str, str], column: str) -> None:
        setting = (
            "ANOMALY_SOURCE_MACHINES"
            if self.meter_table.source_layout is Layout.WIDE
            else "ANOMALY_SOURCE_VALUE_COLUMN"
        )
        self._require(types, column, setting)
        if types[column] not in _NUMBER_TYPES:
            raise SourceError(
                f"{self.meter_table.source_name}.{column} is {types[column]}, not a number:"
                f" name another column in {setting}"
            )

    # Reading ------------------------------------------------------------

    def read(
        self,
        transaction: Transaction,
        shape: "SourceShape",
        window: Window,
        machines: list[int] | None = None,
    ) -> pd.DataFrame:
        """Read every row whose interval may start in `window`; the caller trims the result.

        Parameters
        ----------
        machines : list of int, optional
            Read only these; default: all.

        Returns
        -------
        DataFrame
            ``utc_timestamp`` as labelled, in UTC (for local times see
            `anomaly.readings.local_clocks.utc_of_rows`), ``ingested_at`` (int64
            microseconds since 2000, the minimum where unknown), then one column per machine
            (wide) or ``machine_id`` (`UNREGISTERED` where it is not registered) and
            ``reading`` (long). Empty cells, and numbers that a double cannot hold, are NaN.
        """
        if self.meter_table.source_layout is Layout.WIDE:
            return self._read_wide(transaction, shape, window, machines)
        return self._read_long(transaction, shape, window, machines)

    def _read_wide(
        self,
        transaction: Transaction,
        shape: "SourceShape",
        window: Window,
        machines: list[int] | None,
    ) -> pd.DataFrame:
        wanted = [
            column
            for column, machine_id in shape.machines.items()
            if machines is None or machine_id in machines
        ]
        # Two rows of one local time are told apart by all columns together. So all columns are
        # read, whatever machines are asked for: the result must not depend on them.
        columns = [*shape.machines] if shape.naive else wanted
        if not wanted:
            never = pd.DatetimeIndex([], tz=UTC).as_unit("us")
            return pd.DataFrame({"utc_timestamp": never, "ingested_at": np.empty(0, np.int64)})
        statement = composed(
            "meter_table/read_wide",
            **self._window_bounds(shape, window),
            timestamp=self._timestamp,
            ingested_at=self._ingested_at(shape),
            table=self._table,
            meters=SQL(", ").join(_reading_as_double(shape, column) for column in columns),
        )
        stamps = [("utc_timestamp", ">i8"), ("ingested_at", ">i8")]
        types = [*self._types_of_times(shape), *[_DOUBLE] * len(columns)]
        records = binary_copy.decode(
            transaction.copy_out(_to_stdout(from_source(transaction, statement, types))),
            stamps + [(f"m{i}", ">f8") for i in range(len(columns))],
        )
        frame = pd.DataFrame(
            {
                column: binary_copy.native_byte_order(records[f"m{i}"])
                for i, column in enumerate(columns)
            }
        )
        timed = self._with_times(frame, records, shape)
        return timed if columns == wanted else timed[[*timed.columns[:2], *wanted]]

    def _read_long(
        self,
        transaction: Transaction,
        shape: "SourceShape",
        window: Window,
        machines: list[int] | None,
    ) -> pd.DataFrame:
        # For the whole table the ids are looked up here: a join in Postgres would take as long
        # as reading the table.
        whole = machines is None and shape.numbered
        query = "read_long_numbered" if whole else "read_long"
        statement = composed(
            f"meter_table/{query}",
            **self._window_bounds(shape, window),
            timestamp=self._timestamp,
            ingested_at=self._ingested_at(shape),
            table=self._table,
            machine=Identifier(self.meter_table.source_machine_column),
            unregistered=Literal(str(UNREGISTERED)),
            machines=Literal(None if machines is None else int_array(machines)),
            reading=_reading_as_double(shape, self.meter_table.source_value_column),
        )
        types = [*self._types_of_times(shape), "bigint" if whole else "integer", _DOUBLE]
        records = binary_copy.decode(
            transaction.copy_out(_to_stdout(from_source(transaction, statement, types))),
            [
                ("utc_timestamp", ">i8"), ("ingested_at", ">i8"),
                ("machine", ">i8" if whole else ">i4"), ("reading", ">f8"),
            ],
        )  # fmt: skip
        machine_ids = binary_copy.native_byte_order(records["machine"])
        if whole:
            machine_ids = self._ids_of_numbers(transaction, machine_ids)
        readings = binary_copy.native_byte_order(records["reading"])
        frame = pd.DataFrame({"machine_id": machine_ids, "reading": readings})
        # Machines that are not registered yet share an id: their rows wait for the next attempt.
        return self._with_times(frame, records, shape)

    def _ids_of_numbers(
        self, transaction: Transaction, asked: npt.NDArray[np.generic]
    ) -> npt.NDArray[np.int32]:
        """Ids of machines by their numbers in the table; `UNREGISTERED` for unknown ones."""
        known = machine_numbers(transaction)
        numbers = np.append(known[0], np.iinfo(np.int64).max)
        ids = np.append(known[1], np.int32(UNREGISTERED))
        place = np.searchsorted(numbers, asked)
        return np.where(numbers[place] == asked, ids[place], np.int32(UNREGISTERED))

    def _with_times(
        self, frame: pd.DataFrame, records: npt.NDArray[np.void], shape: "SourceShape"
    ) -> pd.DataFrame:
        stamps = binary_copy.as_timestamps(records["utc_timestamp"])
        written = binary_copy.native_byte_order(records["ingested_at"]).astype(np.int64)
        if shape.written_is_naive:
            written = self._written_in_utc(written)
        if shape.naive:
            stamps = self._labels_in_utc(stamps, written, frame)
        frame.insert(0, "utc_timestamp", pd.Series(stamps).dt.tz_localize("UTC"))
        frame.insert(1, "ingested_at", written)
        return frame

    def _written_in_utc(self, written: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        assert self.meter.zone is not None
        limits = np.iinfo(np.int64)
        known = ~np.isin(written, (limits.min, limits.max))
        local = (written[known] + _PG_EPOCH).view("datetime64[us]")
        utc = written.copy()
        utc[known] = local_clocks.usual_utc(local, self.meter.zone).astype(np.int64) - _PG_EPOCH
        return utc

    def labels(
        self,
        shape: "SourceShape",
        local: local_clocks.Stamps,
        written: npt.NDArray[np.int64],
        rows: pd.DataFrame,
    ) -> local_clocks.Stamps:
        """Timestamps in UTC of rows of a long table with local times, as `read` returns them.

        Parameters
        ----------
        written : array of int64
            Microseconds since 2000, as stored.
        rows : DataFrame
            ``machine``, ``value``.
        """
        if shape.written_is_naive:
            written = self._written_in_utc(written)
        named = rows.set_axis(["machine_id", "reading"], axis="columns")
        return self._labels_in_utc(local, written, named)

    def _labels_in_utc(
        self, local: local_clocks.Stamps, written: npt.NDArray[np.int64], frame: pd.DataFrame
    ) -> local_clocks.Stamps:
        assert self.meter.zone is not None
        long = self.meter_table.source_layout is Layout.LONG
        limits = np.iinfo(np.int64)
        known = ~np.isin(written, (limits.min, limits.max))
        rows = local_clocks.Rows(
            cells=(frame[["reading"]] if long else frame).to_numpy(float),
            # Times `known`: an unknown time plus the epoch would overflow.
            written=np.where(known, written + _PG_EPOCH * known, local_clocks.UNKNOWN),
            machine=frame["machine_id"].to_numpy() if long else None,
        )
        return local_clocks.utc_of_rows(
            local,
            self.meter.zone,
            rows,
            self.meter.interval,
            counters=self.meter.is_counter,
            ends=self._labels_ends,
        )

    def unknown_machines(
        self, transaction: Transaction, shape: "SourceShape", window: Window
    ) -> list[str]:
        """Source keys of a long table in `window` that are not in anomaly.machines."""
        statement = composed(
            "meter_table/unknown_machines",
            **self._window_bounds(shape, window),
            machine=Identifier(self.meter_table.source_machine_column),
            timestamp=self._timestamp,
            table=self._table,
        )
        return [key for (key,) in _rows(transaction, statement, ["text"])]

    # Questions about times ----------------------------------------------

    def extent(
        self, transaction: Transaction, shape: "SourceShape"
    ) -> tuple[datetime, datetime] | None:
        """First and last interval start in the table, or None when it is empty.

        A local time that is shown twice means its first showing at the start of the extent and
        its second showing at the end. Rows before the year 1 or after 9999 are ignored, here
        and everywhere.
        """
        statement = self._statement(
            "extent",
            shape,
            earliest=_moment_as_stored(shape, _EARLIEST),
            latest=_moment_as_stored(shape, _LATEST),
        )
        ((first, last),) = _rows(transaction, statement, [shape.stamp] * 2)
        return (
            None
            if first is None
            else (self._possible_starts(first)[0], self._possible_starts(last)[-1])
        )

    def next_reading(
        self, transaction: Transaction, shape: "SourceShape", moment: datetime
    ) -> datetime | None:
        """The first interval start at or after `moment`, or None when nothing follows."""
        start = self._to_source(shape, moment)
        # Near a change of the clock the order of local times is not the order of moments. So the
        # next hours are read in full, and all moments of their rows are compared.
        if self._clock_is_set_near(shape, moment):
            span = Window(moment, moment + local_clocks.LARGEST)
            if near := self._starts_with_reading(transaction, shape, span):
                return min(near)
            start = self._to_source(shape, span.end)
        statement = self._statement(
            "next_reading", shape, start=Literal(start), end=_moment_as_stored(shape, _LATEST)
        )
        ((found,),) = _rows(transaction, statement, [shape.stamp])
        return None if found is None else max(self._possible_starts(found)[0], moment)

    def previous_reading(
        self, transaction: Transaction, shape: "SourceShape", moment: datetime
    ) -> datetime | None:
        """The last interval start before `moment` with a finite reading, or None.

        A local time that is shown twice means its second showing, once that has happened.
        """
        end = self._to_source(shape, moment)
        if self._clock_is_set_near(shape, moment):
            span = Window(moment - local_clocks.LARGEST, moment)
            if near := self._starts_with_reading(transaction, shape, span):
                return max(near)
            end = self._to_source(shape, span.start)
        statement = self._statement(
            "previous_reading", shape, start=_moment_as_stored(shape, _EARLIEST), end=Literal(end)
        )
        ((found,),) = _rows(transaction, statement, [shape.stamp])
        return None if found is None else min(self._possible_starts(found)[-1], moment)

    def _starts_with_reading(
        self, transaction: Transaction, shape: "SourceShape", window: Window
    ) -> list[datetime]:
        """Every interval start in `window` that a row with a reading can mean."""
        statement = self._statement("moments", shape, **self._window_bounds(shape, window))
        return self._starts_inside(window, _rows(transaction, statement, [shape.stamp]))

    def ingested_since(
        self, transaction: Transaction, shape: "SourceShape", since: datetime, window: Window
    ) -> list[datetime]:
        """Interval starts in `window` whose rows were written at or after `since`.

        A local time that is shown twice gives both of its moments.
        """
        statement = self._statement(
            "written_since",
            shape,
            ingested_at=Identifier(self.meter_table.source_ingested_at_column),
            since=Literal(self._written_as_stored(shape, since)),
            **self._window_bounds(shape, window),
        )
        return self._starts_inside(window, _rows(transaction, statement, [shape.stamp]))

    def _written_as_stored(self, shape: "SourceShape", since: datetime) -> datetime:
        zone = self.meter.zone
        if not shape.written_is_naive or zone is None:
            return since
        # After a clock is set back, the next rows have an earlier write time than those before.
        near = local_clocks.changes(
            zone, since - local_clocks.LARGEST, since + local_clocks.LARGEST
        )
        return local_clocks.local_time(
            since - (local_clocks.LARGEST if near else timedelta(0)), zone
        )

    def _starts_inside(self, window: Window, rows: list[tuple[datetime]]) -> list[datetime]:
        found = {moment for (stored,) in rows for moment in self._possible_starts(stored)}
        return sorted(moment for moment in found if moment in window)

    def count_from(self, transaction: Transaction, shape: "SourceShape", moment: datetime) -> int:
        """How many rows have an interval start at or after `moment`; 'infinity' counts as one."""
        start = self._to_source(shape, moment)
        if shape.naive and self.meter.zone is not None:
            start = max(start, local_clocks.shown_before(self._label_of(moment), self.meter.zone))
        statement = self._statement("count_from", shape, start=Literal(start))
        ((count,),) = _rows(transaction, statement, ["bigint"])
        return int(count)

    def skipped_times(
        self, transaction: Transaction, shape: "SourceShape", until: datetime
    ) -> tuple[int, datetime] | None:
        """How many readings have a local time that the clock skips, and the first such time.

        Only rows up to `until` count. None if there are none; always None for times with a zone.
        """
        extent = self.extent(transaction, shape) if shape.naive else None
        zone = self.meter.zone
        if extent is None or zone is None:
            return None
        first = max(extent[0] - local_clocks.LARGEST, datetime(1970, 1, 1, tzinfo=UTC))
        last = min(extent[1] + local_clocks.LARGEST, until)
        spans = [
            change.skipped for change in local_clocks.changes(zone, first, last) if change.skipped
        ]
        if not spans:
            return None
        # An interval may end at the moment of the change: that label is not a skipped time.
        within = SQL("{c} > {a} AND {c} < {b}" if self._labels_ends else "{c} >= {a} AND {c} < {b}")
        ranges = SQL(" OR ").join(
            within.format(c=self._timestamp, a=Literal(a), b=Literal(b)) for a, b in spans
        )
        statement = self._statement("during", shape, ranges=ranges)
        ((count, stored),) = _rows(transaction, statement, ["bigint", shape.stamp])
        return (int(count), stored) if count else None

    def _statement(self, query: str, shape: "SourceShape", **parts: Composable) -> Composable:
        return composed(
            f"meter_table/{query}",
            timestamp=self._timestamp,
            table=self._table,
            has_reading=SQL(" OR ").join(_is_finite(shape, name) for name in self._meters(shape)),
            **parts,
        )

    @staticmethod
    def _types_of_times(shape: "SourceShape") -> tuple[str, str]:
        return shape.stamp, _NAIVE if shape.written_is_naive else _AWARE

    def _meters(self, shape: "SourceShape") -> list[str]:
        return [*shape.machines] or [self.meter_table.source_value_column]

    # Times as the table stores them -------------------------------------

    def _window_bounds(self, shape: "SourceShape", window: Window) -> dict[str, Composable]:
        # A local clock jumps, so that much more is read on both sides. The caller trims to the
        # window after the timestamps are converted to UTC.
        slack = local_clocks.LARGEST if shape.naive else timedelta(0)
        return {
            "start": Literal(self._to_source(shape, window.start - slack)),
            "end": Literal(self._to_source(shape, window.end + slack)),
        }

    def _label_of(self, moment: datetime) -> datetime:
        """The label, in UTC, of the interval that starts at `moment`."""
        return moment + self.meter.interval if self._labels_ends else moment

    @property
    def _labels_ends(self) -> bool:
        return self.meter.timestamp_label is TimestampLabel.END

    def _to_source(self, shape: "SourceShape", moment: datetime) -> datetime:
        label = self._label_of(moment)
        if shape.naive and self.meter.zone is not None:
            return local_clocks.local_time(label, self.meter.zone)
        return label

    def _possible_starts(self, stored: datetime) -> list[datetime]:
        """Every interval start that a stored timestamp can mean, in order."""
        zone, labels = self.meter.zone, [stored]
        if stored.tzinfo is None and zone is not None:
            labels = local_clocks.possible_moments(
                stored, zone, ending=self.meter.interval if self._labels_ends else None
            )
        back = self.meter.interval if self._labels_ends else timedelta(0)
        return [label.astimezone(UTC) - back for label in labels]

    def _clock_is_set_near(self, shape: "SourceShape", moment: datetime) -> bool:
        zone = self.meter.zone
        if not shape.naive or zone is None:
            return False
        day = timedelta(days=1)  # chosen: more than `LARGEST` and an interval together
        return bool(local_clocks.changes(zone, moment - day, moment + day))

    def written_microseconds(self, shape: "SourceShape") -> Composable:
        """SQL for the time at which a row was written, in the form that `labels` takes."""
        if shape.written is None:
            return Literal(local_clocks.UNKNOWN)
        column = Identifier(self.meter_table.source_ingested_at_column)
        return SQL(
            "CASE WHEN isfinite({c}) THEN (extract(epoch FROM {c} - {epoch}) * 1000000)::bigint"
            " ELSE {unknown} END"
        ).format(
            c=column,
            epoch=SQL("'2000-01-01'::timestamp" if shape.written_is_naive else "'2000-01-01Z'"),
            unknown=Literal(local_clocks.UNKNOWN),
        )

    def _ingested_at(self, shape: "SourceShape") -> Composable:
        if shape.written is None:
            return SQL("'-infinity'::timestamptz")
        column = Identifier(self.meter_table.source_ingested_at_column)
        return SQL("coalesce({}, '-infinity')").format(column)


def table_columns(transaction: Transaction, schema: str, table: str) -> Sequence[RowMapping]:
    """Columns of a table or view that this log-in may see, in order; none if no such table exists.

    Each has ``name``, ``type`` (for a domain: the type that it is based on) and ``scale`` (of a
    numeric).
    """
    return transaction.rows("meter_table/columns", schema=schema, table=table)


def from_source(transaction: Transaction, statement: Composable, types: Sequence[str]) -> Composed:
    """A query of somebody else's table, as the role anomaly_reader reads it.

    A view may call any function of its owner's. Inside ``anomaly_reading.read_source`` such a
    function has no right but that role's, can take on no other one, and what it sets is undone.

    Parameters
    ----------
    types : sequence of str
        Types of the query's columns, in SQL; each column is cast to its type.
    """
    names = [Identifier(f"c{place}") for place in range(len(types))]
    columns = [SQL("{} {}").format(n, SQL(t)) for n, t in zip(names, types, strict=True)]
    casts = [SQL("{}::{}").format(n, SQL(t)) for n, t in zip(names, types, strict=True)]
    comma = SQL(", ")
    query = SQL("SELECT {} FROM ({}) AS asked ({})").format(
        comma.join(casts), statement, comma.join(names)
    )
    return SQL("SELECT * FROM anomaly_reading.read_source({}) AS source ({})").format(
        Literal(query.as_string(transaction.cursor)), comma.join(columns)
    )


def _rows(transaction: Transaction, statement: Composable, types: Sequence[str]) -> list[Any]:
    return transaction.execute(from_source(transaction, statement, types))


def _to_stdout(query: Composable) -> Composed:
    return SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query)


@dataclass(frozen=True)
class SourceShape:
    """What `MeterSource.describe` found.

    Attributes
    ----------
    naive : bool
        Timestamps are stored without a zone.
    written : str or None
        Type of the column that says when a row was written, None where there is none.
    machines : dict of str to int
        Wide layout: columns and their machine ids.
    numbered : bool
        Long layout: machines are whole numbers.
    types : dict of str to str
        Every column and its type; for a domain: the type that it is based on.
    """

    naive: bool
    written: str | None
    machines: dict[str, int]
    numbered: bool
    types: dict[str, str]

    @property
    def has_ingested_at(self) -> bool:
        """Whether a column says when a row was written."""
        return self.written is not None

    @property
    def stamp(self) -> str:
        """Type of the timestamps."""
        return _NAIVE if self.naive else _AWARE

    @property
    def written_is_naive(self) -> bool:
        """Whether that column has no zone."""
        return self.written == _NAIVE


def written_now(shape: SourceShape, meter: MeterSettings) -> Composable:
    """SQL for the current time, in the type of the column that says when a row was written."""
    if not shape.written_is_naive:
        return SQL("now()")
    return SQL("(now() AT TIME ZONE {})").format(Literal(meter.source_timezone))


def _moment_as_stored(shape: SourceShape, moment: datetime) -> Composable:
    return Literal(moment.replace(tzinfo=None) if shape.naive else moment)


def _reading_as_double(shape: SourceShape, name: str) -> Composable:
    """SQL for a reading as a double; NaN where it is empty or a double cannot hold it."""
    column = Identifier("s", name)
    if shape.types[name] != "numeric":
        return SQL("coalesce({}::double precision, 'NaN')").format(column)
    return SQL(
        "CASE WHEN {finite} THEN CASE WHEN abs({c}) < {least} THEN 0 ELSE {c}::double precision END"
        " ELSE 'NaN' END"
    ).format(finite=_is_finite(shape, name), c=column, least=_DOUBLES["least"])


def _is_finite(shape: SourceShape, name: str) -> Composable:
    """SQL for whether a cell holds a finite reading; to Postgres NaN is larger than any number."""
    column, kind = Identifier("s", name), shape.types[name]
    if kind == "numeric":
        return SQL("({c} >= -{most} AND {c} <= {most})").format(c=column, most=_DOUBLES["most"])
    if kind in _WHOLE_TYPES:
        return SQL("({} IS NOT NULL)").format(column)
    return SQL("({c} > '-Infinity' AND {c} < 'Infinity')").format(c=column)
