"""Load readings into the meter table: staged by COPY, merged without touching equal rows."""

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

from anomaly.errors import AnomalyError, DatabaseError, IngestError, SourceError
from anomaly.postgres.database import OWNER, Database, Transaction, sql_file
from anomaly.postgres.doubled_hours import DoubledHours
from anomaly.postgres.source import MeterSource, written_now
from anomaly.settings import Layout, Settings

OWN_TABLE = "anomaly.meter_readings"

_INTEGERS = {"smallint", "integer", "bigint"}
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)


@dataclass(frozen=True)
class Merged:
    """What became of the staged rows; those neither inserted nor updated were equal."""

    rows: int
    inserted: int
    updated: int


@contextmanager
def open_meter_table(
    database: Database, settings: Settings, *, loading: str
) -> Iterator["MeterTable"]:
    """Open the meter table for one load, in one transaction: all of it or nothing.

    Our own table is written as its owner, any other as the login itself.

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
    role = OWNER if settings.source_name == OWN_TABLE else None
    try:
        with database.transaction(role) as transaction:
            yield MeterTable(transaction, settings, loading)
    except (psycopg2.Error, DBAPIError) as error:
        raise _explained(error, database, settings, loading) from None


class MeterTable:
    """The meter table as something to load into."""

    def __init__(self, transaction: Transaction, settings: Settings, loading: str) -> None:
        self._transaction = transaction
        self._settings = settings
        self._loading = loading
        self._types = self._column_types()
        self._shape = MeterSource(settings).describe(transaction)
        self._columns: list[str] = []
        self._hours = DoubledHours(transaction, settings, self._shape, loading)

    def expect(self, columns: list[str]) -> None:
        """Wait for other loads, and make the staging table, for these columns."""
        for column in columns:
            if column not in self._types:
                raise SourceError(
                    f"{self._settings.source_name} has no column {column!r}: add it to the table,"
                    f" or remove it from {self._loading}"
                )
        self._columns = columns
        self._run("lock_ingest")
        self._run("ingest_stage")

    def stage(self, readings: pd.DataFrame) -> None:
        """Copy readings, indexed by line, into the staging table.

        In a long table of local times those of a doubled hour wait for `merge`.
        """
        stored = self._as_stored(readings)
        if self._shape.naive and self._settings.source_layout is Layout.LONG:
            moments = readings[self._settings.source_timestamp_column]
            stored = self._hours.held_back(stored, moments)
        buffer = BytesIO()
        stored.to_csv(buffer, header=False)
        buffer.seek(0)
        with self._transaction.cursor as cursor:
            cursor.copy_expert(self._statement("ingest_copy"), buffer)

    def first_repeat(self) -> tuple[int, int, str] | None:
        """Two lines of one key and its moment; of equal lines of a long file one is dropped."""
        rows, _ = self._run("ingest_first_repeat")
        if rows:
            ((first, second, moment),) = rows
            return first, second, str(moment)
        self._run("ingest_drop_repeats")
        return None

    def merge(self) -> Merged:
        """Update the rows that differ, insert those that are new."""
        self._run("ingest_analyze")
        ((updated,),), _ = self._run("ingest_update_changed")
        inserted = self.insert_new()
        ((rows,),), _ = self._run("ingest_count")
        hours = self._hours.merge()
        return Merged(rows + hours[0], inserted + hours[1], updated + hours[2])

    def insert_new(self) -> int:
        """Insert the staged rows whose key is not in the table; return how many."""
        _, inserted = self._run("ingest_insert_new")
        return inserted

    # The table's own types ----------------------------------------------

    def _column_types(self) -> dict[str, str]:
        settings = self._settings
        found = self._transaction.rows(
            "source_columns", schema=settings.source_schema, table=settings.source_table
        )
        if not found:
            make = "run `anomaly migrate`"
            if settings.source_name != OWN_TABLE:
                make = "create it, or set ANOMALY_SOURCE_SCHEMA and ANOMALY_SOURCE_TABLE"
            raise SourceError(f"there is no table {settings.source_name} to load into: {make}")
        return {row["name"]: row["type"] for row in found}

    def _as_stored(self, readings: pd.DataFrame) -> pd.DataFrame:
        stored = readings.copy()
        timestamp = self._settings.source_timestamp_column
        if self._shape.naive:
            local = stored[timestamp].dt.tz_convert(self._settings.source_timezone)
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
                f" {self._settings.source_name}.{column} ({self._types[column]}) needs"
            )

    # Statements ---------------------------------------------------------

    def _run(self, query: str) -> tuple[list[tuple[Any, ...]], int]:
        """Run a query; give its rows and how many it touched."""
        with self._transaction.cursor as cursor:
            cursor.execute(self._statement(query))
            return (cursor.fetchall() if cursor.description else []), cursor.rowcount

    def _statement(self, query: str) -> Composed:
        settings = self._settings
        keys = [settings.source_timestamp_column]
        if settings.source_layout is Layout.LONG:
            keys.append(settings.source_machine_column)
        values = [column for column in self._columns if column not in keys]
        new: dict[str, Composable] = {column: Identifier("s", column) for column in self._columns}
        if self._shape.has_ingested_at:
            new[settings.source_ingested_at_column] = written_now(self._shape, settings)
        return SQL(sql_file(f"queries/{query}.sql")).format(
            table=Identifier(settings.source_schema, settings.source_table),
            timestamp=new[keys[0]],
            columns=_listed(Identifier(column) for column in self._columns),
            keys=_listed(new[key] for key in keys),
            same_key=SQL(" AND ").join(_assign(Identifier("t", key), new[key]) for key in keys),
            stored_values=_listed(Identifier("t", column) for column in values),
            staged_values=_listed(new[column] for column in values),
            assignments=_listed(
                _assign(Identifier(column), value)
                for column, value in new.items()
                if column not in keys
            ),
            new_columns=_listed(Identifier(column) for column in new),
            new_row=_listed(new.values()),
            may_repeat=Literal(settings.source_layout is Layout.LONG),
        )


def _listed(parts: Iterable[Composable]) -> Composed:
    return SQL(", ").join(parts)


def _assign(left: Composable, right: Composable) -> Composed:
    return SQL("{} = {}").format(left, right)


def _explained(
    error: psycopg2.Error | DBAPIError, database: Database, settings: Settings, loading: str
) -> AnomalyError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    says = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    if isinstance(cause, pg.InsufficientPrivilege):
        return DatabaseError(
            f"{database.name} refuses to load {settings.source_name}: {says};"
            " let the table's owner grant SELECT, INSERT and UPDATE on it to this login"
        )
    if isinstance(cause, psycopg2.DataError | psycopg2.IntegrityError):
        return IngestError(
            f"{loading}: {settings.source_name} refuses a reading: {says}; nothing was loaded,"
            " correct the file or the table"
        )
    return DatabaseError(
        f"{database.name} broke off while {loading} was loaded: {says};"
        " nothing was loaded, try again"
    )
