"""The meter table: somebody else's, any name and layout, only ever read."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
from psycopg2.sql import SQL, Composable, Identifier, Literal

from anomaly import clocks
from anomaly.errors import SourceError
from anomaly.postgres import binary
from anomaly.postgres.database import Transaction, int_array, sql_file
from anomaly.settings import Layout, ReadingKind, Settings, TimestampLabel
from anomaly.windows import Window

_MACHINE_COLUMN = re.compile(r"machine_(\d+)")
LARGEST_ID = 999_999_999
UNREGISTERED = -(2**31)
"""In place of the id of a machine of a long table that is not registered yet."""
_WHOLE_TYPES = {"smallint", "integer", "bigint"}
_FLOATING_TYPES = {"real", "double precision"}
_NUMBER_TYPES = _WHOLE_TYPES | _FLOATING_TYPES | {"numeric"}
_NAIVE, _AWARE = "timestamp without time zone", "timestamp with time zone"
# Postgres keeps years from 4713 BC to 294276, and infinities; no clock here shows those.
_EARLIEST = datetime(1, 1, 3, tzinfo=UTC)
_LATEST = datetime(9999, 12, 29, tzinfo=UTC)
_PG_EPOCH = 946_684_800_000_000  # microseconds from 1970 to 2000
# Beyond these Postgres refuses to make a double of a numeric: too large, and too near to nought.
_DOUBLES = {"most": SQL("1.7976931348623157e308"), "least": SQL("2.2250738585072014e-308")}


class MeterSource:
    """Reads the meter table that the settings name.

    Raises
    ------
    SourceError
        When the table, a column or a type is not what the settings say.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._table = Identifier(settings.source_schema, settings.source_table)
        self._timestamp = Identifier(settings.source_timestamp_column)

    # What is there ------------------------------------------------------

    def describe(self, transaction: Transaction) -> "SourceShape":
        """Check the table against the settings and say what it holds."""
        settings = self.settings
        columns = transaction.rows(
            "source_columns", schema=settings.source_schema, table=settings.source_table
        )
        if not columns:
            raise SourceError(
                f"there is no table {settings.source_name} that this login may see:"
                " set ANOMALY_SOURCE_SCHEMA and ANOMALY_SOURCE_TABLE, or grant it"
            )
        types = {row["name"]: row["type"] for row in columns}
        naive = self._timestamp_is_naive(types)
        machines = self._machine_columns(types) if settings.source_layout is Layout.WIDE else {}
        if settings.source_layout is Layout.LONG:
            self._require_id(types, {row["name"]: row["scale"] for row in columns})
            self._require_number(types, settings.source_value_column)
        return SourceShape(
            naive=naive,
            written=self._type_of_written_at(types),
            machines=machines,
            numbered=types.get(settings.source_machine_column) in _WHOLE_TYPES,
            types=types,
        )

    def _timestamp_is_naive(self, types: dict[str, str]) -> bool:
        column = self.settings.source_timestamp_column
        self._require(types, column, "ANOMALY_SOURCE_TIMESTAMP_COLUMN")
        if types[column] not in (_NAIVE, _AWARE):
            raise SourceError(
                f"{self.settings.source_name}.{column} is {types[column]}, not a timestamp:"
                " name another column in ANOMALY_SOURCE_TIMESTAMP_COLUMN"
            )
        self._require_zone(types, column)
        return types[column] == _NAIVE

    def _type_of_written_at(self, types: dict[str, str]) -> str | None:
        column = self.settings.source_ingested_at_column
        found = types.get(column)
        if found not in (None, _NAIVE, _AWARE):
            raise SourceError(
                f"{self.settings.source_name}.{column} is {found}, not a timestamp, and cannot say"
                " when a row was written: name another column in"
                " ANOMALY_SOURCE_INGESTED_AT_COLUMN, or one that is not there, for example none"
            )
        self._require_zone(types, column)
        return found

    def _require_zone(self, types: dict[str, str], column: str) -> None:
        if types.get(column) == _NAIVE and self.settings.zone is None:
            raise SourceError(
                f"{self.settings.source_name}.{column} has no time zone:"
                " set ANOMALY_SOURCE_TIMEZONE to the zone it is written in, for example UTC"
            )

    def _require_id(self, types: dict[str, str], scales: dict[str, int | None]) -> None:
        column, setting = self.settings.source_machine_column, "ANOMALY_SOURCE_MACHINE_COLUMN"
        self._require(types, column, setting)
        fractional = types[column] == "numeric" and scales[column] != 0
        if types[column] in _FLOATING_TYPES or fractional:
            raise SourceError(
                f"{self.settings.source_name}.{column} is {types[column]}, which holds fractions:"
                f" it is a reading, not a machine's id; name another column in {setting}, or make"
                " it a whole number or text"
            )

    def _machine_columns(self, types: dict[str, str]) -> dict[str, int]:
        machines = self.settings.source_machines or {
            name: int(match[1]) for name in types if (match := _MACHINE_COLUMN.fullmatch(name))
        }
        if not machines:
            long = self.settings.source_machine_column in types
            raise SourceError(
                f"{self.settings.source_name} has no machine_<n> column:"
                " map its columns in ANOMALY_SOURCE_MACHINES"
                + (", or set ANOMALY_SOURCE_LAYOUT=long for a row a machine" if long else "")
            )
        by_id: dict[int, str] = {}
        for column, machine_id in machines.items():
            self._require_number(types, column)
            if machine_id > LARGEST_ID or machine_id in by_id:
                other = f", as {by_id[machine_id]!r} is" if machine_id in by_id else ""
                raise SourceError(
                    f"{self.settings.source_name}.{column} would be machine {machine_id}{other}:"
                    f" give each an id up to {LARGEST_ID} in ANOMALY_SOURCE_MACHINES"
                )
            by_id[machine_id] = column
        return machines

    def _require(self, types: dict[str, str], column: str, setting: str) -> None:
        if column not in types:
            raise SourceError(
                f"{self.settings.source_name} has no column {column!r}, it has"
                f" {', '.join(types)}: set {setting}"
            )

    def _require_number(self, types: dict[str, str], column: str) -> None:
        setting = (
            "ANOMALY_SOURCE_MACHINES"
            if self.settings.source_layout is Layout.WIDE
            else "ANOMALY_SOURCE_VALUE_COLUMN"
        )
        self._require(types, column, setting)
        if types[column] not in _NUMBER_TYPES:
            raise SourceError(
                f"{self.settings.source_name}.{column} is {types[column]}, not a number:"
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
        """Read every row whose interval may start in `window`, and a little more.

        Parameters
        ----------
        machines : list of int, optional
            Read these only; default all.

        Returns
        -------
        DataFrame
            ``utc_timestamp`` as labelled, in UTC (see `anomaly.clocks.utc_of_rows` for local
            times), ``ingested_at`` (int64 microseconds since 2000, the minimum where
            unknown), then a column a machine (wide) or ``machine_id`` (`UNREGISTERED` where
            it is) and ``reading`` (long). Empty cells, and numbers that a double cannot
            hold, are NaN.
        """
        if self.settings.source_layout is Layout.WIDE:
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
        # All columns together tell two rows of one local time apart, whoever is asked about.
        columns = [*shape.machines] if shape.naive else wanted
        statement = SQL(sql_file("queries/read_wide.sql")).format(
            **self._bounds(shape, window),
            timestamp=self._timestamp,
            ingested_at=self._ingested_at(shape),
            table=self._table,
            meters=SQL(", ").join(_number(shape, column) for column in columns),
        )
        dtype = [("utc_timestamp", ">i8"), ("ingested_at", ">i8")]
        records = binary.decode(
            transaction.copy_out(statement), dtype + [(f"m{i}", ">f8") for i in range(len(columns))]
        )
        frame = pd.DataFrame(
            {column: binary.native(records[f"m{i}"]) for i, column in enumerate(columns)}
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
        whole = machines is None and shape.numbered  # a join costs as much as the reading
        query = "read_long_numbered" if whole else "read_long"
        statement = SQL(sql_file(f"queries/{query}.sql")).format(
            **self._bounds(shape, window),
            timestamp=self._timestamp,
            ingested_at=self._ingested_at(shape),
            table=self._table,
            machine=Identifier(self.settings.source_machine_column),
            unregistered=Literal(str(UNREGISTERED)),
            machines=Literal(None if machines is None else int_array(machines)),
            reading=_number(shape, self.settings.source_value_column),
        )
        records = binary.decode(
            transaction.copy_out(statement),
            [
                ("utc_timestamp", ">i8"), ("ingested_at", ">i8"),
                ("machine", ">i8" if whole else ">i4"), ("reading", ">f8"),
            ],
        )  # fmt: skip
        machine_ids = binary.native(records["machine"])
        if whole:
            machine_ids = self._ids_of_numbers(transaction, machine_ids)
        readings = binary.native(records["reading"])
        frame = pd.DataFrame({"machine_id": machine_ids, "reading": readings})
        # Machines that are not registered yet share an id: their rows wait for the next attempt.
        return self._with_times(frame, records, shape)

    def _ids_of_numbers(
        self, transaction: Transaction, asked: npt.NDArray[np.generic]
    ) -> npt.NDArray[np.int32]:
        """Ids of machines by their numbers in the table; `UNREGISTERED` for unknown ones."""
        data = transaction.copy_out(SQL(sql_file("queries/machine_numbers.sql")))
        known = binary.decode(data, [("number", ">i8"), ("machine_id", ">i4")])
        numbers = np.append(binary.native(known["number"]), np.iinfo(np.int64).max)
        ids = np.append(binary.native(known["machine_id"]), np.int32(UNREGISTERED))
        place = np.searchsorted(numbers, asked)
        return np.where(numbers[place] == asked, ids[place], np.int32(UNREGISTERED))

    def _with_times(
        self, frame: pd.DataFrame, records: npt.NDArray[np.void], shape: "SourceShape"
    ) -> pd.DataFrame:
        stamps = binary.moments(records["utc_timestamp"])
        written = binary.native(records["ingested_at"]).astype(np.int64)
        if shape.written_is_naive:
            written = self._written_in_utc(written)
        if shape.naive:
            stamps = self._labels(stamps, written, frame)
        frame.insert(0, "utc_timestamp", pd.Series(stamps).dt.tz_localize("UTC"))
        frame.insert(1, "ingested_at", written)
        return frame

    def _written_in_utc(self, written: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        assert self.settings.zone is not None
        limits = np.iinfo(np.int64)
        known = ~np.isin(written, (limits.min, limits.max))
        local = (written[known] + _PG_EPOCH).view("datetime64[us]")
        utc = written.copy()
        utc[known] = clocks.usual_utc(local, self.settings.zone).astype(np.int64) - _PG_EPOCH
        return utc

    def labels(
        self,
        shape: "SourceShape",
        local: clocks.Stamps,
        written: npt.NDArray[np.int64],
        rows: pd.DataFrame,
    ) -> clocks.Stamps:
        """Labels in UTC of rows of a long table in local time, as `read` gives them.

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
        return self._labels(local, written, named)

    def _labels(
        self, local: clocks.Stamps, written: npt.NDArray[np.int64], frame: pd.DataFrame
    ) -> clocks.Stamps:
        settings = self.settings
        assert settings.zone is not None
        long = settings.source_layout is Layout.LONG
        limits = np.iinfo(np.int64)
        told = ~np.isin(written, (limits.min, limits.max))
        rows = clocks.Rows(
            cells=(frame[["reading"]] if long else frame).to_numpy(float),
            written=np.where(told, written + _PG_EPOCH * told, clocks.UNKNOWN),
            machine=frame["machine_id"].to_numpy() if long else None,
        )
        return clocks.utc_of_rows(
            local,
            settings.zone,
            rows,
            settings.interval,
            counters=settings.reading_kind is ReadingKind.ENERGY_KWH,
            ends=self._labels_ends,
        )

    def unknown_machines(
        self, transaction: Transaction, shape: "SourceShape", window: Window
    ) -> list[str]:
        """Ids of a long table in `window` that anomaly.machines does not know."""
        statement = SQL(sql_file("queries/source_unknown_machines.sql")).format(
            **self._bounds(shape, window),
            machine=Identifier(self.settings.source_machine_column),
            timestamp=self._timestamp,
            table=self._table,
        )
        return [key for (key,) in transaction.execute(statement)]

    # Asking -------------------------------------------------------------

    def extent(
        self, transaction: Transaction, shape: "SourceShape"
    ) -> tuple[datetime, datetime] | None:
        """First and last interval start in the table, or None when it is empty.

        Of a local time that is shown twice, the first at the start and the second at the
        end. Rows before the year 1 or beyond 9999 do not count here, nor anywhere.
        """
        statement = self._statement(
            "source_extent", shape, earliest=_bound(shape, _EARLIEST), latest=_bound(shape, _LATEST)
        )
        ((first, last),) = transaction.execute(statement)
        return None if first is None else (self._meanings(first)[0], self._meanings(last)[-1])

    def next_reading(
        self, transaction: Transaction, shape: "SourceShape", moment: datetime
    ) -> datetime | None:
        """The first interval start at or after `moment`, or None when nothing follows."""
        start = self._to_source(shape, moment)
        if self._clock_is_set_near(shape, moment):
            span = Window(moment, moment + clocks.LARGEST)
            if near := self._moments(transaction, shape, span):
                return min(near)
            start = self._to_source(shape, span.end)
        statement = self._statement(
            "source_next", shape, start=Literal(start), end=_bound(shape, _LATEST)
        )
        ((found,),) = transaction.execute(statement)
        return None if found is None else max(self._meanings(found)[0], moment)

    def previous_reading(
        self, transaction: Transaction, shape: "SourceShape", moment: datetime
    ) -> datetime | None:
        """The last interval start before `moment` with a finite reading, or None.

        Of a local time that is shown twice the second, once it has been shown.
        """
        end = self._to_source(shape, moment)
        if self._clock_is_set_near(shape, moment):
            span = Window(moment - clocks.LARGEST, moment)
            if near := self._moments(transaction, shape, span):
                return max(near)
            end = self._to_source(shape, span.start)
        statement = self._statement(
            "source_previous", shape, start=_bound(shape, _EARLIEST), end=Literal(end)
        )
        ((found,),) = transaction.execute(statement)
        return None if found is None else min(self._meanings(found)[-1], moment)

    def _moments(
        self, transaction: Transaction, shape: "SourceShape", window: Window
    ) -> list[datetime]:
        """Every interval start in `window` that a row with a reading can mean."""
        statement = self._statement("source_moments", shape, **self._bounds(shape, window))
        return self._inside(window, transaction.execute(statement))

    def ingested_since(
        self, transaction: Transaction, shape: "SourceShape", since: datetime, window: Window
    ) -> list[datetime]:
        """Interval starts in `window` whose rows were written at or after `since`.

        Every moment that such a row can mean: a local time that is shown twice, both.
        """
        statement = self._statement(
            "source_ingested_since",
            shape,
            ingested_at=Identifier(self.settings.source_ingested_at_column),
            since=Literal(self._written_as_stored(shape, since)),
            **self._bounds(shape, window),
        )
        return self._inside(window, transaction.execute(statement))

    def _written_as_stored(self, shape: "SourceShape", since: datetime) -> datetime:
        zone = self.settings.zone
        if not shape.written_is_naive or zone is None:
            return since
        # Behind a clock that was set back, what is written next looks older.
        near = clocks.changes(zone, since - clocks.LARGEST, since + clocks.LARGEST)
        return clocks.local_time(since - (clocks.LARGEST if near else timedelta(0)), zone)

    def _inside(self, window: Window, rows: list[tuple[datetime]]) -> list[datetime]:
        found = {moment for (stored,) in rows for moment in self._meanings(stored)}
        return sorted(moment for moment in found if moment in window)

    def count_from(self, transaction: Transaction, shape: "SourceShape", moment: datetime) -> int:
        """How many rows have an interval start at or after `moment`; 'infinity' is one too."""
        start = self._to_source(shape, moment)
        if shape.naive and self.settings.zone is not None:
            start = max(start, clocks.shown_before(self._label(moment), self.settings.zone))
        statement = self._statement("source_future", shape, start=Literal(start))
        ((count,),) = transaction.execute(statement)
        return int(count)

    def skipped_times(
        self, transaction: Transaction, shape: "SourceShape", until: datetime
    ) -> tuple[int, datetime] | None:
        """How many readings have a local time that the clock skips, and the first such time.

        None where there are none: of times with a zone always. Rows up to `until` count.
        """
        extent = self.extent(transaction, shape) if shape.naive else None
        zone = self.settings.zone
        if extent is None or zone is None:
            return None
        first = max(extent[0] - clocks.LARGEST, datetime(1970, 1, 1, tzinfo=UTC))
        last = min(extent[1] + clocks.LARGEST, until)
        spans = [change.skipped for change in clocks.changes(zone, first, last) if change.skipped]
        if not spans:
            return None
        # An interval may end as the clock is set: that label is right.
        within = SQL("{c} > {a} AND {c} < {b}" if self._labels_ends else "{c} >= {a} AND {c} < {b}")
        ranges = SQL(" OR ").join(
            within.format(c=self._timestamp, a=Literal(a), b=Literal(b)) for a, b in spans
        )
        ((count, stored),) = transaction.execute(
            self._statement("source_during", shape, ranges=ranges)
        )
        return (int(count), stored) if count else None

    def _statement(self, query: str, shape: "SourceShape", **parts: Composable) -> Composable:
        return SQL(sql_file(f"queries/{query}.sql")).format(
            timestamp=self._timestamp,
            table=self._table,
            has_reading=SQL(" OR ").join(_is_finite(shape, name) for name in self._meters(shape)),
            **parts,
        )

    def _meters(self, shape: "SourceShape") -> list[str]:
        return [*shape.machines] or [self.settings.source_value_column]

    # Times, as the source writes them -----------------------------------

    def _bounds(self, shape: "SourceShape", window: Window) -> dict[str, Composable]:
        # A local clock jumps: read that much more, the caller trims to the window once
        # the timestamps are UTC.
        slack = clocks.LARGEST if shape.naive else timedelta(0)
        return {
            "start": Literal(self._to_source(shape, window.start - slack)),
            "end": Literal(self._to_source(shape, window.end + slack)),
        }

    def _label(self, moment: datetime) -> datetime:
        """What an interval that starts at `moment` is labelled, in UTC."""
        return moment + self.settings.interval if self._labels_ends else moment

    @property
    def _labels_ends(self) -> bool:
        return self.settings.timestamp_label is TimestampLabel.END

    def _to_source(self, shape: "SourceShape", moment: datetime) -> datetime:
        label = self._label(moment)
        if shape.naive and self.settings.zone is not None:
            return clocks.local_time(label, self.settings.zone)
        return label

    def _meanings(self, stored: datetime) -> list[datetime]:
        """Every interval start that a stored timestamp can mean, in order."""
        zone, labels = self.settings.zone, [stored]
        if stored.tzinfo is None and zone is not None:
            labels = clocks.meanings(stored, zone, ends=self._labels_ends)
        back = self.settings.interval if self._labels_ends else timedelta(0)
        return [label.astimezone(UTC) - back for label in labels]

    def _clock_is_set_near(self, shape: "SourceShape", moment: datetime) -> bool:
        zone = self.settings.zone
        if not shape.naive or zone is None:
            return False
        day = timedelta(days=1)
        return bool(clocks.changes(zone, moment - day, moment + day))

    def written_microseconds(self, shape: "SourceShape") -> Composable:
        """When a row was written, as `labels` takes it."""
        if shape.written is None:
            return Literal(clocks.UNKNOWN)
        column = Identifier(self.settings.source_ingested_at_column)
        return SQL(
            "CASE WHEN isfinite({c}) THEN (extract(epoch FROM {c} - {epoch}) * 1000000)::bigint"
            " ELSE {unknown} END"
        ).format(
            c=column,
            epoch=SQL("'2000-01-01'::timestamp" if shape.written_is_naive else "'2000-01-01Z'"),
            unknown=Literal(clocks.UNKNOWN),
        )

    def _ingested_at(self, shape: "SourceShape") -> Composable:
        if shape.written is None:
            return SQL("'-infinity'::timestamptz")
        column = Identifier(self.settings.source_ingested_at_column)
        return SQL("coalesce({}, '-infinity')").format(column)


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
        Every column and its type; of a domain the type below it.
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
    def written_is_naive(self) -> bool:
        """Whether that column has no zone."""
        return self.written == _NAIVE


def written_now(shape: SourceShape, settings: Settings) -> Composable:
    """Now, as the column that says when a row was written holds it."""
    if not shape.written_is_naive:
        return SQL("now()")
    return SQL("(now() AT TIME ZONE {})").format(Literal(settings.source_timezone))


def _bound(shape: SourceShape, moment: datetime) -> Composable:
    return Literal(moment.replace(tzinfo=None) if shape.naive else moment)


def _number(shape: SourceShape, name: str) -> Composable:
    """A reading as a double; NaN where there is none, or none that a double can hold."""
    column = Identifier("s", name)
    if shape.types[name] != "numeric":
        return SQL("coalesce({}::double precision, 'NaN')").format(column)
    return SQL(
        "CASE WHEN {finite} THEN CASE WHEN abs({c}) < {least} THEN 0 ELSE {c}::double precision END"
        " ELSE 'NaN' END"
    ).format(finite=_is_finite(shape, name), c=column, least=_DOUBLES["least"])


def _is_finite(shape: SourceShape, name: str) -> Composable:
    """Whether a cell holds a finite reading; NaN counts as larger than any number there."""
    column, kind = Identifier("s", name), shape.types[name]
    if kind == "numeric":
        return SQL("({c} >= -{most} AND {c} <= {most})").format(c=column, most=_DOUBLES["most"])
    if kind in _WHOLE_TYPES:
        return SQL("({} IS NOT NULL)").format(column)
    return SQL("({c} > '-Infinity' AND {c} < 'Infinity')").format(c=column)
