"""One Postgres database: transactions that act as a role, and that never wait without a limit."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Protocol, TypeGuard
from urllib.parse import unquote

import numpy.typing as npt
import pandas as pd
import psycopg2
from psycopg2 import errors as pg
from psycopg2.extensions import cursor as Psycopg2Cursor
from psycopg2.extensions import make_dsn
from psycopg2.sql import SQL, Composable, Composed
from sqlalchemy import (
    Connection,
    Engine,
    RowMapping,
    TextClause,
    create_engine,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError

from anomaly.database import binary_copy
from anomaly.database.connection_limits import connection_arguments
from anomaly.database.sql_files import sql_file
from anomaly.errors import DatabaseError, RefusedError
from anomaly.settings import DatabaseSettings
from anomaly.wording import without_secrets

SCORER = "anomaly_scorer"
TRAINER = "anomaly_trainer"
OWNER = "anomaly_owner"
API = "anomaly_api"

# Errors of SET ROLE when the role does not exist or is not granted. A retry does not help.
_NO_SUCH_ROLE = (pg.InvalidParameterValue, pg.UndefinedObject, pg.InsufficientPrivilege)


Fields = Sequence[tuple[str, str]]
"""Names of columns and their big-endian types."""


class Readable(Protocol):
    """A source that COPY can read its input from."""

    def read(self, size: int, /) -> bytes:
        """The next bytes; none at the end."""
        ...


class Transaction:
    """An open transaction: named queries, scripts and COPY.

    A query is named by its module and file: ``"<module>/<name>"`` is
    ``sql/queries/<module>/<name>.sql``. Values are passed as parameters (``:name``). Two kinds
    of parts are composed by `psycopg2.sql` instead (``{name}``): names of tables and columns
    from the settings, and all parts of COPY, which has no parameters.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def cursor(self) -> Psycopg2Cursor:
        """A new psycopg2 cursor in this transaction."""
        cursor: Psycopg2Cursor = self._connection.connection.cursor()
        return cursor

    def rows(self, query: str, **parameters: object) -> Sequence[RowMapping]:
        """Run a query and return its rows."""
        return (
            self._connection.execute(_sql_text(query), _with_array_literals(parameters))
            .mappings()
            .all()
        )

    def frame(self, query: str, **parameters: object) -> pd.DataFrame:
        """Run a query and return its rows as a table."""
        result = self._connection.execute(_sql_text(query), _with_array_literals(parameters))
        return pd.DataFrame(map(tuple, result.fetchall()), columns=list(result.keys()))

    def row(self, query: str, **parameters: object) -> RowMapping:
        """Run a query that returns exactly one row."""
        (row,) = self.rows(query, **parameters)
        return row

    def value(self, query: str, **parameters: object) -> Any:
        """Run a query that returns exactly one value."""
        (value,) = self.row(query, **parameters).values()
        return value

    def run(self, query: str, **parameters: object) -> int:
        """Run a query that returns no rows; return how many rows it changed."""
        return self._connection.execute(_sql_text(query), _with_array_literals(parameters)).rowcount

    def script(self, file: str) -> None:
        """Run a whole file below ``sql/`` that takes no parameters."""
        with self.cursor as cursor:
            cursor.execute(sql_file(file))

    def execute(self, statement: Composable, parameters: Sequence[object] = ()) -> list[Any]:
        """Run a composed statement and return its rows."""
        with self.cursor as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def run_composed(self, query: str, **parts: Composable) -> int:
        """Compose and run a query that returns no rows; return how many rows it changed."""
        with self.cursor as cursor:
            cursor.execute(composed(query, **parts))
            return int(cursor.rowcount)

    def copy_out(self, statement: Composable) -> memoryview:
        """Run ``COPY ... TO STDOUT`` and return its bytes."""
        buffer = BytesIO()
        with self.cursor as cursor:
            cursor.copy_expert(statement, buffer)
        return buffer.getbuffer()

    def copy_columns(
        self, query: str, fields: Fields, **parts: Composable
    ) -> dict[str, npt.NDArray[Any]]:
        """Compose a query that is a binary ``COPY ... TO STDOUT``, and return its columns.

        Parameters
        ----------
        fields : list of (name, big-endian dtype)
            As `anomaly.database.binary_copy.decode` takes them.
        """
        records = binary_copy.decode(self.copy_out(composed(query, **parts)), fields)
        return {name: binary_copy.native_byte_order(records[name]) for name, _ in fields}

    def copy_in(self, query: str, source: Readable, **parts: Composable) -> None:
        """Compose a query that is ``COPY ... FROM STDIN``, and send `source` to it."""
        with self.cursor as cursor:
            cursor.copy_expert(composed(query, **parts), source)

    def rollback(self) -> None:
        """Undo everything; nothing more may be run in this transaction."""
        transaction = self._connection.get_transaction()
        assert transaction is not None
        transaction.rollback()


class Database:
    """A Postgres database, with time limits for everything that is run in it.

    Parameters
    ----------
    url : str
        Any Postgres URL; the driver is always psycopg2.
    limits : DatabaseSettings
        The time limits.

    Raises
    ------
    DatabaseError
        When the URL is not a Postgres URL, or has an item that Postgres's library does not
        know. From `transaction`: when the database cannot be reached or refuses the role.
    """

    def __init__(self, url: str, limits: DatabaseSettings) -> None:
        self.engine = _make_engine(url, limits)
        self._timeouts = sql_timeouts(limits)

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
                if _is_lost(connection):  # a roll-back would fail and hide the cause
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
            if "permission denied for database" in _first_line(error):
                raise RefusedError(
                    f"cannot connect to {self.name}: {_first_line(error)}; let the database's"
                    " owner grant CONNECT on it to this login"
                ) from None
            raise DatabaseError(
                f"cannot connect to {self.name}: {_first_line(error)}; is the server running"
                " and the URL in ANOMALY_DATABASE_URL or the connection anomaly_db right?"
            ) from None
        with connection:
            yield connection

    def _prepare(self, connection: Connection, role: str | None, read_only: bool) -> None:
        statements = self._timeouts
        if read_only:
            # Repeatable read: all statements see the same snapshot, so that what they read fits
            # together. It must be the first statement of the transaction.
            statements = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; " + statements
        statements += f"; SET LOCAL ROLE {role or 'NONE'}"
        try:
            connection.exec_driver_sql(statements)
        except DBAPIError as error:
            kind = RefusedError if isinstance(error.orig, _NO_SUCH_ROLE) else DatabaseError
            raise kind(
                f"{self.name} refuses to act as {role or 'this login'}: {_first_line(error)};"
                " run `anomaly migrate`, or grant the role to this login"
            ) from None


def _is_lost(connection: Connection) -> bool:
    if connection.invalidated:
        return True
    raw = connection.connection.dbapi_connection
    return raw is None or bool(raw.closed)


def composed(query: str, **parts: Composable) -> Composed:
    """Text of ``sql/queries/<query>.sql`` with its parts filled in."""
    return SQL(sql_file(f"queries/{query}.sql")).format(**parts)


def _sql_text(query: str) -> TextClause:
    return text(sql_file(f"queries/{query}.sql"))


def int_array(numbers: Iterable[int]) -> str:
    """An array as one literal; the server parses ``ARRAY[...]`` a hundred times more slowly."""
    return f"{{{','.join(map(str, numbers))}}}"


def _with_array_literals(parameters: Mapping[str, object]) -> dict[str, object]:
    return {
        name: int_array(value) if _is_ints(value) else value for name, value in parameters.items()
    }


def _is_ints(value: object) -> TypeGuard[list[int]]:
    # Not `isinstance`: a bool is an int for it, and would be written as True.
    return isinstance(value, list) and all(type(number) is int for number in value)


def sql_timeouts(limits: DatabaseSettings) -> str:
    """Statements that limit how long a transaction may run, wait or be idle.

    They also set the time zone UTC, and a search path without schemas in which other log-ins
    may create objects.
    """
    return (
        "SET LOCAL search_path = pg_catalog, pg_temp; "
        f"SET LOCAL statement_timeout = '{limits.statement_timeout_seconds}s'; "
        f"SET LOCAL lock_timeout = '{limits.lock_timeout_seconds}s'; "
        f"SET LOCAL idle_in_transaction_session_timeout = '{limits.idle_timeout_seconds}s'; "
        "SET LOCAL TIME ZONE 'UTC'"
    )


def _make_engine(url: str, limits: DatabaseSettings) -> Engine:
    _refuse_unescaped(url)
    try:
        parsed = make_url(url.strip())
    except (ArgumentError, ValueError):  # the latter: a port that is no number
        raise DatabaseError(
            "the database URL cannot be read, perhaps its port is not a number: write"
            " postgresql://user:password@host:5432/database"
        ) from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise DatabaseError(
            f"{parsed.drivername!r} is not Postgres: write postgresql://user:password@host/database"
        )
    _refuse_hidden_password(parsed.username, parsed.host, parsed.database)
    parameters = _driver_parameters(parsed.query)
    _refuse_hidden_password(*parameters.values())
    bounds = connection_arguments(limits.statement_timeout_seconds)
    # A lost connection is reported by who used it. The pool would also log, with a traceback, that
    # it cannot roll back.
    logging.getLogger(f"sqlalchemy.pool.impl.QueuePool.{_POOL}").setLevel(logging.CRITICAL)
    return create_engine(
        parsed.set(drivername="postgresql+psycopg2", query=parameters),
        pool_pre_ping=True,
        pool_logging_name=_POOL,
        connect_args={name: value for name, value in bounds.items() if name not in parameters},
    )


def _refuse_unescaped(url: str) -> None:
    """Refuse a URL of which it is not plain where its password ends."""
    user, *places = url.partition("://")[2].split("@")
    if len(places) > 1 or (places and not {*user}.isdisjoint("/?#")):
        raise DatabaseError(
            "it is not plain where the password in the database URL ends: percent-encode what is"
            " special in it, @ as %40, / as %2F, ? as %3F and # as %23"
        )
    plain = unquote(url)
    if "\0" in plain or r"\u0000" in plain:  # the latter: in an Extra, which is JSON
        raise DatabaseError("the database URL holds a zero character, written %00: remove it")


def _refuse_hidden_password(*parts: str | tuple[str, ...] | None) -> None:
    """Refuse a part that holds ``password=...``: an error of Postgres would name the part."""
    if any(without_secrets(str(part)) != str(part) for part in parts):
        raise DatabaseError(
            "a part of the database URL holds a password that is no item of its own: begin the"
            " items by ?, separate them by &, and percent-encode the password"
        )


_POOL = "anomaly"
_EXTRA = "__extra__"
"""Item of Airflow's connection URI that holds, as JSON, an Extra with values other than texts."""
_HOOK_EXTRAS = {
    "aws_conn_id", "azure_conn_id", "cluster-identifier", "cursor", "enable_log_db_messages", "iam",
    "redshift", "redshift-serverless", "sqlalchemy_query", "sqlalchemy_scheme", "workgroup-name",
}  # fmt: skip
"""Items of a connection's Extra that Airflow's Postgres hook uses itself."""


def _driver_parameters(
    query: Mapping[str, str | tuple[str, ...]],
) -> dict[str, str | tuple[str, ...]]:
    """Items of a URL as parameters of Postgres's library.

    Raises
    ------
    DatabaseError
        When Postgres's library does not know an item.
    """
    items: dict[str, Any] = {**query}
    items |= _parsed_extra(items.pop(_EXTRA, "{}"))
    parameters = {
        name: value if isinstance(value, tuple) else _as_parameter(value)
        for name, value in items.items()
        if value is not None and name not in _HOOK_EXTRAS
    }
    # What follows an unescaped & of a password would look like the name of an item.
    told = "pass" not in str(parameters).lower()
    for name in parameters:
        try:
            make_dsn(**{name: ""})
        except psycopg2.ProgrammingError:
            raise DatabaseError(
                "the database URL, or the Extra of the connection anomaly_db, has an item"
                f" {f'{name!r} ' if told else ''}that Postgres does not know: remove it, correct"
                " its name, or percent-encode an & of a password as %26"
            ) from None
    return parameters


def _parsed_extra(text: str) -> dict[str, Any]:
    try:
        extra = json.loads(text)
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise DatabaseError(
            "the Extra of the connection anomaly_db is not a JSON object: write one, for example"
            ' {"sslmode": "require"}'
        )
    return extra


def _as_parameter(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _first_line(error: DBAPIError) -> str:
    return without_secrets(str(error.orig).strip().splitlines()[0])
