"""Explain a database error in one line: the cause, the value found, and the next step."""

from psycopg2 import Error, InterfaceError, OperationalError
from psycopg2 import errors as pg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from anomaly.errors import AnomalyError, DatabaseError, RefusedError

EXPLAINED = (SQLAlchemyError, Error, OSError, OverflowError, MemoryError)
"""Errors that `explained` can explain, besides `AnomalyError`."""

_Kinds = type[Error] | tuple[type[Error], ...]

# Errors that may not come again: a retry can help.
_PASSING: tuple[tuple[_Kinds, str], ...] = (
    (pg.LockNotAvailable, "another transaction holds a lock that is needed: see pg_stat_activity"
     " for who, end it, or raise ANOMALY_LOCK_TIMEOUT_SECONDS; then run it again"),
    (pg.QueryCanceled, "a statement took longer than ANOMALY_STATEMENT_TIMEOUT_SECONDS, or was"
     " cancelled: run it again, raise that setting, or lower ANOMALY_CHUNK_READINGS"),
    (pg.IdleInTransactionSessionTimeout, "a transaction idled for longer than"
     " ANOMALY_IDLE_TIMEOUT_SECONDS: run it again, or raise that setting"),
    ((pg.SerializationFailure, pg.DeadlockDetected), "another transaction was in the way: run it"
     " again"),
    (pg.ReadOnlySqlTransaction, "the server accepts no writes, as a standby does: name the"
     " primary in ANOMALY_DATABASE_URL or the connection anomaly_db, or wait until it is one"),
    (pg.TooManyConnections, "the server has no connection left: run it again later, or raise"
     " max_connections"),
    ((pg.DiskFull, pg.OutOfMemory, pg.InsufficientResources), "the server has no room left: make"
     " room on it, then run it again"),
    ((pg.AdminShutdown, pg.CrashShutdown, pg.CannotConnectNow), "the server is stopped or starts:"
     " run it again once it is up"),
)  # fmt: skip

# Errors that come again until somebody changes something: a retry does not help.
_LASTING: tuple[tuple[_Kinds, str], ...] = (
    (pg.InsufficientPrivilege, "run `anomaly migrate`, which grants it or says who has to"),
    ((pg.UndefinedTable, pg.UndefinedColumn, pg.UndefinedFunction, pg.InvalidSchemaName,
      pg.UndefinedObject), "run `anomaly migrate`; if it is the meter table, see ANOMALY_SOURCE_*"),
    (pg.ObjectNotInPrerequisiteState, ""),  # its own message says what to do: ensure_partitions
    (pg.CheckViolation, "if a month of results is detached, attach it again; else report this"),
    (pg.DataError, "a value in the meter table or in the settings is not accepted by the database:"
     " correct it, or leave its rows out by a view"),
)  # fmt: skip


def explained(error: BaseException) -> AnomalyError:
    """Explain an error in one line.

    Returns
    -------
    AnomalyError
        The error itself if it is an `AnomalyError`. Else `DatabaseError` if a retry may help,
        and `RefusedError` if it does not.
    """
    if isinstance(error, AnomalyError):
        return error
    if isinstance(error, OverflowError):
        return RefusedError(
            "a time is after the year 9999, or a number is too large to store"
            f" ({first_line(error)}): correct it in the meter table or in the settings"
        )
    if isinstance(error, MemoryError):
        return DatabaseError(
            f"memory ran out ({first_line(error)}): give this process more, or lower"
            " ANOMALY_CHUNK_READINGS; then run it again"
        )
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, Error):
        return _explained_database_error(cause)
    if isinstance(cause, OSError):
        file = cause.filename or "a file"
        if isinstance(cause, PermissionError):
            return DatabaseError(
                f"{file}: Permission denied; let this account use it, then run it again"
            )
        return DatabaseError(
            f"{file}: {cause.strerror or first_line(cause)}; check the file, then run it again"
        )
    return DatabaseError(f"the database broke off: {first_line(error)}; run it again")


def first_line(error: BaseException | None) -> str:
    """First line of an error's message; the error's name if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _explained_database_error(cause: Error) -> AnomalyError:
    says = first_line(cause)
    if "within security-definer function" in says:
        return RefusedError(
            f"the database refused: {says}: a function that the meter table calls wants to act as"
            " another role; ask who owns the table"
        )
    for kinds, then in _PASSING:
        if isinstance(cause, kinds):
            return DatabaseError(f"the database refused: {says}: {then}")
    for kinds, then in _LASTING:
        if isinstance(cause, kinds):
            return RefusedError(f"the database refused: {says}" + (f": {then}" if then else ""))
    if isinstance(cause, OperationalError | InterfaceError):
        return DatabaseError(
            f"the connection to the database broke off: {says}; what was under way is undone, run"
            " it again once the server answers"
        )
    return RefusedError(f"the database refused: {says}; this is unexpected, please report it")
