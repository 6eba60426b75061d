"""Load readings into the meter table: COPY stages them, a merge writes only rows that differ."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import psycopg2
from psycopg2 import errors as pg
from psycopg2.sql import SQL, Composable, Composed, Identifier, Literal
from sqlalchemy.exc import DBAPIError

from anomaly.database.connection import OWNER, Database, Transaction, composed
from anomaly.database.doubled_hours import DoubledHours
from anomaly.database.meter_table import MeterSource, table_columns, written_now
from anomaly.errors import AnomalyError, DatabaseError, IngestError, SourceError
from anomaly.settings import Layout, MeterSettings, MeterTableSettings

OWN_TABLE = "anomaly.meter_readings"

_INTEGERS = {"smallint", "integer", "bigint"}
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)


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

    Our own table is written as its owner, any other table as the log-in itself.

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
    """
    role = OWNER if meter_table.source_name == OWN_TABLE else None
    try:
        with database.transaction(role) as transaction:
            yield MeterTable(transaction, meter_table, meter, loading)
    except (psycopg2.Error, DBAPIError) as error:
        raise _explained(error, database, meter_table, loading) from None


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
        self._hours = DoubledHours(transaction, meter_table, meter, self._shape, loading)

    def expect(self, columns: list[str]) -> None:
        """Wait until no other load runs, then create the staging table for these columns."""
        for column in columns:
            if column not in self._types:
                raise SourceError(
                    f"{self._meter_table.source_name} has no column {column!r}: add it to the"
                    f" table, or remove it from {self._loading}"
                )
        self._columns = columns
        # The lock comes before anything is read from the table, so that two loads of the same
        # rows do not both insert them.
        self._run("lock")
        self._run("stage")

    def stage(self, readings: pd.DataFrame) -> None:
        """Copy readings, indexed by line, into the staging table.

        In a long table with local times, the readings of a doubled hour wait for `merge`.
        """
        stored = self._as_stored(readings)
        if self._shape.naive and self._meter_table.source_layout is Layout.LONG:
            moments = readings[self._meter_table.source_timestamp_column]
            stored = self._hours.hold_back(stored, moments)
        buffer = BytesIO()
        stored.to_csv(buffer, header=False)
        buffer.seek(0)
        with self._transaction.cursor as cursor:
            cursor.copy_expert(self._statement("copy_staged"), buffer)

    def first_repeat(self) -> tuple[int, int, str] | None:
        """Two lines with the same key, and their moment; None if no key is repeated.

        Equal lines of a long file are not an error: only one of them is kept.
        """
        rows, _ = self._run("first_repeat")
        if rows:
            ((first, second, moment),) = rows
            return first, second, str(moment)
        self._run("drop_repeats")
        return None

    def merge(self) -> Merged:
        """Update the rows that differ, and insert the new ones."""
        # Updates first: rows that are inserted afterwards need not be compared.
        self._run("analyze_staged")
        ((updated,),), _ = self._run("update_changed")
        inserted = self.insert_new()
        ((rows,),), _ = self._run("count_staged")
        hours = self._hours.merge()
        return Merged(rows + hours[0], inserted + hours[1], updated + hours[2])

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

    def _statement(self, query: str) -> Composed:
        keys = [self._meter_table.source_timestamp_column]
        if self._meter_table.source_layout is Layout.LONG:
            keys.append(self._meter_table.source_machine_column)
        values = [column for column in self._columns if column not in keys]
        new: dict[str, Composable] = {column: Identifier("s", column) for column in self._columns}
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
        )


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
            " let the table's owner grant SELECT, INSERT and UPDATE on it to this login"
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
