"""One Postgres database: transactions that take on a role and never wait for ever."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import pandas as pd
import psycopg2
from psycopg2.extensions import cursor as Psycopg2Cursor
from psycopg2.extensions import make_dsn
from psycopg2.sql import Composable
from sqlalchemy import Connection, Engine, RowMapping, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from anomaly.errors import DatabaseError
from anomaly.postgres.bounded import connection_arguments
from anomaly.settings import Settings
from anomaly.wording import without_secrets

SCORER = "anomaly_scorer"
TRAINER = "anomaly_trainer"
OWNER = "anomaly_owner"


@cache
def sql_file(name: str) -> str:
    """Text of ``sql/<name>``, from the installed package or from the repository."""
    packaged = Path(__file__).parents[1] / "sql"
    folder = packaged if packaged.is_dir() else Path(__file__).parents[3] / "sql"
    return (folder / name).read_text(encoding="utf-8")


def sql_files(folder: str) -> list[str]:
    """Names of the files in ``sql/<folder>``, sorted, as `sql_file` takes them."""
    packaged = Path(__file__).parents[1] / "sql"
    root = packaged if packaged.is_dir() else Path(__file__).parents[3] / "sql"
    return sorted(f"{folder}/{path.name}" for path in (root / folder).glob("*.sql"))


class Readable(Protocol):
    """What COPY takes its input from."""

    def read(self, size: int, /) -> bytes:
        """The next bytes; none at the end."""
        ...


class Transaction:
    """An open transaction: named queries, scripts and COPY."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def cursor(self) -> Psycopg2Cursor:
        """A new psycopg2 cursor in this transaction."""
        cursor: Psycopg2Cursor = self._connection.connection.cursor()
        return cursor

    def rows(self, query: str, **parameters: object) -> Sequence[RowMapping]:
        """Run ``sql/queries/<query>.sql`` and return its rows."""
        statement = text(sql_file(f"queries/{query}.sql"))
        return self._connection.execute(statement, _brief(parameters)).mappings().all()

    def frame(self, query: str, **parameters: object) -> pd.DataFrame:
        """Run a query and return its rows as a table."""
        statement = text(sql_file(f"queries/{query}.sql"))
        result = self._connection.execute(statement, _brief(parameters))
        return pd.DataFrame(map(tuple, result.fetchall()), columns=list(result.keys()))

    def row(self, query: str, **parameters: object) -> RowMapping:
        """Run a query that gives exactly one row."""
        (row,) = self.rows(query, **parameters)
        return row

    def value(self, query: str, **parameters: object) -> Any:
        """Run a query that gives exactly one value."""
        (value,) = self.row(query, **parameters).values()
        return value

    def run(self, query: str, **parameters: object) -> int:
        """Run a query that gives no rows; return how many it touched."""
        statement = text(sql_file(f"queries/{query}.sql"))
        return self._connection.execute(statement, _brief(parameters)).rowcount

    def script(self, file: str) -> None:
        """Run a whole file below ``sql/`` that takes no parameters."""
        with self.cursor as cursor:
            cursor.execute(sql_file(file))

    def copy_out(self, statement: Composable) -> memoryview:
        """Run ``COPY ... TO STDOUT`` and return its bytes."""
        buffer = BytesIO()
        with self.cursor as cursor:
            cursor.copy_expert(statement, buffer)
        return buffer.getbuffer()

    def copy_in(self, query: str, source: Readable) -> None:
        """Run ``COPY ... FROM STDIN`` from a query file."""
        with self.cursor as cursor:
            cursor.copy_expert(sql_file(f"queries/{query}.sql"), source)

    def execute(self, statement: Composable, parameters: Sequence[object] = ()) -> list[Any]:
        """Run a statement composed of identifiers that are settings."""
        with self.cursor as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Let nothing be written meanwhile: a view of others may call functions of others.

        What such a function sets, a role or a setting, is undone at the end too. Nothing
        that it runs can make a read-only part writable again.
        """
        part = self._connection.begin_nested()
        self._connection.exec_driver_sql("SET LOCAL transaction_read_only = on")
        try:
            yield
        finally:
            if part.is_active and not _is_lost(self._connection):
                part.rollback()

    def rollback(self) -> None:
        """Undo everything; nothing more may be run in this transaction."""
        transaction = self._connection.get_transaction()
        assert transaction is not None
        transaction.rollback()


class Database:
    """A Postgres database and how long anything in it may take.

    Parameters
    ----------
    url : str
        Any Postgres URL; the driver is always psycopg2.
    settings : Settings
        For the timeouts.

    Raises
    ------
    DatabaseError
        When the URL is no Postgres URL, or holds an item that Postgres's library does not
        know; from `transaction`, when the database cannot be reached or refuses the role.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        self.engine = _engine(url, settings)
        self._timeouts = sql_timeouts(settings)

    @property
    def name(self) -> str:
        """The URL without its password, and without its items, which may hold another."""
        return self.engine.url.set(query={}).render_as_string(hide_password=True)

    @contextmanager
    def transaction(
        self, role: str | None = None, *, read_only: bool = False
    ) -> Iterator[Transaction]:
        """Open a transaction as `role`; a read-only one sees a single snapshot."""
        with self._connect() as connection, connection.begin():
            self._prepare(connection, role, read_only)
            try:
                yield Transaction(connection)
            except psycopg2.Error:
                if _is_lost(connection):  # there is nothing to roll back on: keep the cause
                    connection.invalidate()
                raise

    def dispose(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        try:
            connection = self.engine.connect()
        except DBAPIError as error:
            raise DatabaseError(
                f"cannot connect to {self.name}: {_first_line(error)}; is the server running"
                " and the URL in ANOMALY_DATABASE_URL or the connection anomaly_db right?"
            ) from None
        with connection:
            yield connection

    def _prepare(self, connection: Connection, role: str | None, read_only: bool) -> None:
        statements = self._timeouts
        if read_only:
            statements = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; " + statements
        # Always: a function in somebody's view may have left the session another role.
        statements += f"; SET LOCAL ROLE {role or 'NONE'}"
        try:
            connection.exec_driver_sql(statements)
        except DBAPIError as error:
            raise DatabaseError(
                f"{self.name} refuses to act as {role or 'this login'}: {_first_line(error)};"
                " run `anomaly migrate`, or grant the role to this login"
            ) from None


def _is_lost(connection: Connection) -> bool:
    if connection.invalidated:
        return True
    raw = connection.connection.dbapi_connection
    return raw is None or bool(raw.closed)


def int_array(numbers: Iterable[int]) -> str:
    """An array as one literal: the server parses ``ARRAY[...]`` a hundred times slower."""
    return f"{{{','.join(map(str, numbers))}}}"


def _brief(parameters: Mapping[str, object]) -> dict[str, object]:
    return {
        name: int_array(value) if _is_ints(value) else value for name, value in parameters.items()
    }


def _is_ints(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(number) is int for number in value)


def sql_timeouts(settings: Settings) -> str:
    """Statements that bound how long a transaction may run, wait or idle.

    UTC throughout, and no name that is found in a schema in which others may create.
    """
    return (
        "SET LOCAL search_path = pg_catalog, pg_temp; "
        f"SET LOCAL statement_timeout = '{settings.statement_timeout_seconds}s'; "
        f"SET LOCAL lock_timeout = '{settings.lock_timeout_seconds}s'; "
        f"SET LOCAL idle_in_transaction_session_timeout = '{settings.idle_timeout_seconds}s'; "
        "SET LOCAL TIME ZONE 'UTC'"
    )


def _engine(url: str, settings: Settings) -> Engine:
    try:
        parsed = make_url(url.strip())
    except (ArgumentError, ValueError):  # the latter: a port that is no number
        raise DatabaseError(
            "the database URL cannot be read, its port may be no number: write"
            " postgresql://user:password@host:5432/database"
        ) from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise DatabaseError(
            f"{parsed.drivername!r} is not Postgres: write postgresql://user:password@host/database"
        )
    if "@" in (parsed.host or ""):
        raise DatabaseError(
            "the database URL holds more than one @, one perhaps in its password: write %40 there"
        )
    parameters = _driver_parameters(parsed.query)
    bounds = connection_arguments(settings.statement_timeout_seconds)
    return create_engine(
        parsed.set(drivername="postgresql+psycopg2", query=parameters),
        pool_pre_ping=True,
        connect_args={name: value for name, value in bounds.items() if name not in parameters},
    )


_EXTRA = "__extra__"
"""Where Airflow's URI of a connection keeps an Extra that holds more than texts, as JSON."""
_HOOK_EXTRAS = {
    "aws_conn_id", "azure_conn_id", "cluster-identifier", "cursor", "enable_log_db_messages", "iam",
    "redshift", "redshift-serverless", "sqlalchemy_query", "sqlalchemy_scheme", "workgroup-name",
}  # fmt: skip
"""What Airflow's Postgres hook takes from a connection's Extra for itself."""


def _driver_parameters(
    query: Mapping[str, str | tuple[str, ...]],
) -> dict[str, str | tuple[str, ...]]:
    """A URL's items as parameters of Postgres's library: texts, and such as it knows."""
    items: dict[str, Any] = {**query}
    items |= _extra(items.pop(_EXTRA, "{}"))
    parameters = {
        name: value if isinstance(value, tuple) else _as_parameter(value)
        for name, value in items.items()
        if value is not None and name not in _HOOK_EXTRAS
    }
    for name in parameters:
        try:
            make_dsn(**{name: ""})
        except psycopg2.ProgrammingError:
            raise DatabaseError(
                f"the database URL, or the Extra of the connection anomaly_db, has an item"
                f" {name!r} that Postgres does not know: remove it, or mend its name"
            ) from None
    return parameters


def _extra(text: str) -> dict[str, Any]:
    try:
        extra = json.loads(text)
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise DatabaseError(
            "the Extra of the connection anomaly_db is no JSON object: write one, for example"
            ' {"sslmode": "require"}'
        )
    return extra


def _as_parameter(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _first_line(error: DBAPIError) -> str:
    return without_secrets(str(error.orig).strip().splitlines()[0])
