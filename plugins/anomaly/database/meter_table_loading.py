"""Load readings into the meter table: COPY stages them, a merge writes only rows that differ."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psycopg2
import pyarrow as pa
import pyarrow.compute as pc
from psycopg2 import errors as pg
from psycopg2.sql import SQL, Composable, Composed, Identifier, Literal
from pyarrow import csv as arrow_csv
from sqlalchemy.exc import DBAPIError

from anomaly.database.connection import OWNER, Database, Transaction, composed
from anomaly.database.doubled_hours import DoubledHours
from anomaly.database.meter_table import MeterSource, table_columns, written_now
from anomaly.errors import AnomalyError, DatabaseError, IngestError, RefusedError, SourceError
from anomaly.settings import Layout, MeterSettings, MeterTableSettings

OWN_TABLE = "anomaly.meter_readings"

_INTEGERS = {"smallint", "integer", "bigint"}
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)


@dataclass(frozen=True)
class Staged:
    """The shape in which readings are handed over.

    Attributes
    ----------
    keys : list of str
        The columns that identify a row: the timestamp, perhaps also the machine.
    columns : list of str
        All columns, the keys first or in the order of the table.
    pivoted : bool
        One row per machine and time, for a wide table: the machine is the name of its column.
    """

    keys: list[str]
    columns: list[str]
    pivoted: bool = False


class Repeat(NamedTuple):
    """Two lines with the same key."""

    first: int
    second: int
    moment: str


class MustStageError(Exception):
    """Readings cannot be copied straight into the table, for it has some of their keys already."""


@dataclass(frozen=True)
class Merged:
    """Counts of a merge; rows that were neither inserted nor updated were equal already."""

    rows: int
    inserted: int
    updated: int


@contextmanager
def open_meter_table(
    database: Database, meter_table: MeterTableSettings, meter: MeterSettings, *, loading: str
) -> Iterator["MeterTable"]:
    """Open the meter table for one load, in one transaction: everything is loaded or nothing.

    Our own table is written as its owner, any other table as the log-in itself. Its triggers,
    checks and defaults then run with the log-in's rights: a log-in that may act as one of our
    roles is refused, unless the table and all that it calls is its own.

    Parameters
    ----------
    loading : str
        What is being loaded, for errors.

    Raises
    ------
    SourceError
        When the table is missing or not what the settings say.
    IngestError
        When the table refuses a row.
    DatabaseError
        When the database cannot be reached, breaks off or refuses the role.
    RefusedError
        When somebody else could run what he likes with our rights.
    """
    role = OWNER if meter_table.source_name == OWN_TABLE else None
    try:
        with database.transaction(role) as transaction:
            if role is None:
                _refuse_to_lend_rights(transaction, meter_table)
            yield MeterTable(transaction, meter_table, meter, loading)
    except (psycopg2.Error, DBAPIError) as error:
        raise _explained(error, database, meter_table, loading) from None


def _refuse_to_lend_rights(transaction: Transaction, meter_table: MeterTableSettings) -> None:
    for found in transaction.rows(
        "meter_table_loading/may_run_as_us",
        schema=meter_table.source_schema,
        table=meter_table.source_table,
    ):
        raise RefusedError(
            f"{meter_table.source_name} of {found['owner']} is not all {found['login']}'s own:"
            " triggers, checks or rules of somebody else would run with the product's rights; name"
            " in ANOMALY_DATABASE_URL a login that has SELECT, INSERT and UPDATE on the table and"
            " none of the product's roles; nothing was loaded"
        )


class MeterTable:
    """The meter table as the target of a load."""

    def __init__(
        self,
        transaction: Transaction,
        meter_table: MeterTableSettings,
        meter: MeterSettings,
        loading: str,
    ) -> None:
        self._transaction = transaction
        self._meter_table = meter_table
        self._meter = meter
        self._loading = loading
        self._types = self._column_types()
        self._shape = MeterSource(meter_table, meter).describe(transaction)
        self._columns: list[str] = []
        self._copied: int | None = None
        self._written_at: str | None = None
        self._pivoted = False
        self._hours = DoubledHours(transaction, meter_table, meter, self._shape, loading)

    def expect(self, staged: Staged, *, directly: bool = False) -> None:
        """Wait until no other load runs, then get ready for readings of this shape.

        Parameters
        ----------
        directly : bool
            Copy straight into the table where it allows that. It must have a unique key on the
            timestamp (and machine), or a row could get in twice.

        Raises
        ------
        SourceError
            When the table lacks a column.
        """
        self._pivoted = staged.pivoted
        if not staged.pivoted:
            self._expect_columns(staged.columns)
        if staged.pivoted and self._shape.naive:
            raise SourceError(
                f"{self._meter_table.source_name} keeps local times, and {self._loading} has one"
                " row per reading: make the column a timestamp with time zone, or load a file with"
                " one column per machine"
            )
        # The lock comes before anything is read from the table, so that two loads of the same
        # rows do not both insert them.
        self._run("lock")
        if directly and not staged.pivoted and not self._shape.naive and self._has_unique_key():
            self._copied = 0
        elif staged.pivoted:
            self._run("stage_long")
        else:
            self._run("stage")

    def _expect_columns(self, columns: list[str]) -> None:
        for column in columns:
            if column not in self._types:
                raise SourceError(
                    f"{self._meter_table.source_name} has no column {column!r}: add it to the"
                    f" table, or remove it from {self._loading}"
                )
        self._columns = columns

    def _has_unique_key(self) -> bool:
        found = self._transaction.execute(self._statement("unique_keys"))
        return sorted(self._keys) in [sorted(columns) for (columns,) in found]

    def stage(self, readings: pd.DataFrame, plain: Mapping[str, pa.Array] | None = None) -> None:
        """Take readings, indexed by line.

        In a long table with local times, the readings of a doubled hour wait for `merge`.

        Parameters
        ----------
        plain : mapping of str to pyarrow.Array, optional
            Columns as the file writes them: copied in place of the frame's, so that no digit is
            lost and none has to be written anew.

        Raises
        ------
        MustStageError
            When readings were to be copied straight into the table, and it has a row with the same
            key already. Nothing was written.
        """
        stored = readings if self._pivoted else self._as_stored(readings)
        if self._shape.naive and self._meter_table.source_layout is Layout.LONG:
            moments = readings[self._meter_table.source_timestamp_column]
            stored = self._hours.hold_back(stored, moments)
            plain = None
        kept = {} if plain is None else {n: a for n, a in plain.items() if self._may_copy(n)}
        if self._copied is None:
            query = "copy_staged_long" if self._pivoted else "copy_staged"
            self._copy(query, _as_csv(stored, kept, {"line": stored.index.to_numpy()}))
            return
        written = {"written": self._written()} if self._writes_time else {}
        try:
            self._copy("copy_into_table", _as_csv(stored, kept, written, last=True))
        except pg.UniqueViolation:
            raise MustStageError from None
        self._copied += len(stored)

    @property
    def _writes_time(self) -> bool:
        """Whether each row is copied with its time of writing; our own table fills that in."""
        is_own = self._meter_table.source_name == OWN_TABLE
        return self._shape.has_ingested_at and not is_own

    def _may_copy(self, column: str) -> bool:
        return self._pivoted or self._types[column] not in _INTEGERS

    def _copy(self, query: str, rows: BytesIO) -> None:
        with self._transaction.cursor as cursor:
            cursor.copy_expert(self._statement(query), rows)

    def _written(self) -> str:
        """The time at which the rows are written, as text: the same for all of a load."""
        if self._written_at is None:
            now = written_now(self._shape, self._meter)
            ((self._written_at,),) = self._transaction.execute(SQL("SELECT {}::text").format(now))
        return self._written_at

    def repeats(self) -> tuple[list[Repeat], int]:
        """Lines with the same key, at most ten pairs of them, and how many there are.

        Equal lines of a long file are not an error: only one of them is kept.
        """
        if self._copied is not None:
            return [], 0  # the table's own key would have refused them
        rows, _ = self._run("long_repeats" if self._pivoted else "repeats")
        if rows:
            found = [Repeat(first, second, str(moment)) for first, second, moment, _ in rows]
            return found, rows[0][-1]
        if self._pivoted:
            self._pivot()
        else:
            self._run("drop_repeats")
        return [], 0

    def merge(self) -> Merged:
        """Update the rows that differ, and insert the new ones."""
        if self._copied is not None:
            return Merged(self._copied, self._copied, 0)
        # Updates first: rows that are inserted afterwards need not be compared.
        self._run("analyze_staged")
        ((updated,),), _ = self._run("update_changed")
        inserted = self.insert_new()
        ((rows,),), _ = self._run("count_staged")
        hours = self._hours.merge()
        return Merged(rows + hours[0], inserted + hours[1], updated + hours[2])

    def _pivot(self) -> None:
        """Make one row per time of the staged readings; other machines keep their values."""
        (machines,), _ = self._run("staged_machines")
        names = machines[0]
        self._expect_columns([self._meter_table.source_timestamp_column, *names])
        self._run("stage")
        picked = SQL(", ").join(
            SQL(
                "CASE WHEN bool_or(s.machine = {name}) THEN max(s.reading)"
                " FILTER (WHERE s.machine = {name}) ELSE max(t.{column}) END"
            ).format(name=Literal(name), column=Identifier(name))
            for name in names
        )
        self._transaction.execute(self._statement("pivot", picked=picked))

    def insert_new(self) -> int:
        """Insert the staged rows whose key is not in the table; return how many."""
        _, inserted = self._run("insert_new")
        return inserted

    # The table's own types ----------------------------------------------

    def _column_types(self) -> dict[str, str]:
        found = table_columns(
            self._transaction, self._meter_table.source_schema, self._meter_table.source_table
        )
        if not found:
            make = "run `anomaly migrate`"
            if self._meter_table.source_name != OWN_TABLE:
                make = "create it, or set ANOMALY_SOURCE_SCHEMA and ANOMALY_SOURCE_TABLE"
            raise SourceError(
                f"there is no table {self._meter_table.source_name} to load into: {make}"
            )
        return {row["name"]: row["type"] for row in found}

    def _as_stored(self, readings: pd.DataFrame) -> pd.DataFrame:
        stored = readings.copy()
        timestamp = self._meter_table.source_timestamp_column
        if self._shape.naive:
            local = stored[timestamp].dt.tz_convert(self._meter.source_timezone)
            stored[timestamp] = local.dt.tz_localize(None)
        for column in self._columns:
            if self._types[column] in _INTEGERS:
                self._refuse_fractions(column, stored[column])
                if stored[column].dtype == np.float64:
                    stored[column] = stored[column].map("{:.0f}".format, na_action="ignore")
        return stored

    def _refuse_fractions(self, column: str, cells: "pd.Series[Any]") -> None:
        if cells.dtype == np.float64:
            whole = (cells.isna() | (cells % 1 == 0)).to_numpy()
        else:
            whole = cells.str.fullmatch(_INTEGER).to_numpy(dtype=bool)
        if not whole.all():
            place = int(np.argmin(whole))
            raise IngestError(
                f"{self._loading}, line {cells.index[place]}, column {column}:"
                f" {str(cells.iloc[place])!r} is not a whole number, as"
                f" {self._meter_table.source_name}.{column} ({self._types[column]}) needs"
            )

    # Statements ---------------------------------------------------------

    def _run(self, query: str) -> tuple[list[tuple[Any, ...]], int]:
        """Run a query; return its rows and how many rows it changed."""
        with self._transaction.cursor as cursor:
            cursor.execute(self._statement(query))
            return (cursor.fetchall() if cursor.description else []), cursor.rowcount

    @property
    def _keys(self) -> list[str]:
        keys = [self._meter_table.source_timestamp_column]
        if self._meter_table.source_layout is Layout.LONG:
            keys.append(self._meter_table.source_machine_column)
        return keys

    def _statement(self, query: str, **parts: Composable) -> Composed:
        keys = self._keys
        values = [column for column in self._columns if column not in keys]
        known = self._columns or keys  # of a long file the columns show when it has been read
        new: dict[str, Composable] = {column: Identifier("s", column) for column in known}
        if self._shape.has_ingested_at:
            new[self._meter_table.source_ingested_at_column] = written_now(self._shape, self._meter)
        return composed(
            f"meter_table_loading/{query}",
            table=Identifier(self._meter_table.source_schema, self._meter_table.source_table),
            timestamp=new[keys[0]],
            columns=_joined_by_comma(Identifier(column) for column in self._columns),
            keys=_joined_by_comma(new[key] for key in keys),
            same_key=SQL(" AND ").join(_assignment(Identifier("t", key), new[key]) for key in keys),
            stored_values=_joined_by_comma(Identifier("t", column) for column in values),
            staged_values=_joined_by_comma(new[column] for column in values),
            assignments=_joined_by_comma(
                _assignment(Identifier(column), value)
                for column, value in new.items()
                if column not in keys
            ),
            new_columns=_joined_by_comma(Identifier(column) for column in new),
            new_row=_joined_by_comma(new.values()),
            may_repeat=Literal(self._meter_table.source_layout is Layout.LONG),
            key=Identifier(keys[0]),
            schema=Literal(self._meter_table.source_schema),
            name=Literal(self._meter_table.source_table),
            written=_joined_by_comma(
                Identifier(column)
                for column in [
                    *self._columns,
                    *([self._meter_table.source_ingested_at_column] if self._writes_time else []),
                ]
            ),
            **parts,
        )


def _as_csv(
    frame: pd.DataFrame,
    plain: Mapping[str, pa.Array],
    more: Mapping[str, Any],
    *,
    last: bool = False,
) -> BytesIO:
    """Rows for COPY.

    Parameters
    ----------
    plain : mapping of str to pyarrow.Array
        Columns to be written as they are, in place of the frame's.
    more : mapping of str to array or str
        Further columns, before the frame's or, `last`, behind them; a text is repeated.
    """
    columns = {str(name): plain.get(str(name)) for name in frame}
    arrays = {
        name: _as_array(frame[name]) if array is None else array for name, array in columns.items()
    }
    extra = {
        name: pa.repeat(value, len(frame)) if isinstance(value, str) else pa.array(value)
        for name, value in more.items()
    }
    rows = pa.table(arrays | extra if last else extra | arrays)
    buffer = BytesIO()
    arrow_csv.write_csv(rows, buffer, arrow_csv.WriteOptions(include_header=False))
    buffer.seek(0)
    return buffer


def _as_array(column: "pd.Series[Any]") -> pa.Array:
    """A column for COPY: moments as text in UTC, the rest as it is."""
    if not isinstance(column.dtype, pd.DatetimeTZDtype):
        return pa.Array.from_pandas(column)
    # Arrow writes times with a zone ten times more slowly.
    naive = pa.array(column.to_numpy("datetime64[us]"))
    return pc.binary_join_element_wise(naive.cast(pa.string()), "Z", "")


def _joined_by_comma(parts: Iterable[Composable]) -> Composed:
    return SQL(", ").join(parts)


def _assignment(left: Composable, right: Composable) -> Composed:
    return SQL("{} = {}").format(left, right)


def _explained(
    error: psycopg2.Error | DBAPIError,
    database: Database,
    meter_table: MeterTableSettings,
    loading: str,
) -> AnomalyError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    says = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    if isinstance(cause, pg.InsufficientPrivilege):
        return DatabaseError(
            f"{database.name} refuses to load {meter_table.source_name}: {says};"
            " let the table's owner grant USAGE on its schema and SELECT, INSERT and UPDATE on it"
            " to this login, and the database's owner TEMPORARY on the database"
        )
    if isinstance(cause, psycopg2.DataError | psycopg2.IntegrityError):
        return IngestError(
            f"{loading}: {meter_table.source_name} refuses a reading: {says}; nothing was loaded,"
            " correct the file or the table"
        )
    return DatabaseError(
        f"{database.name} broke off while {loading} was loaded: {says};"
        " nothing was loaded, try again"
    )
