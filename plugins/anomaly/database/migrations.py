"""Bring a database to the current schema: roles, migrations, views, grants."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field

from psycopg2 import errors as pg
from psycopg2.sql import SQL, Composed, Identifier
from sqlalchemy.exc import ProgrammingError

from anomaly.database.connection import OWNER, SCORER, Database, Transaction
from anomaly.database.meter_table import MeterSource
from anomaly.database.setup import public_is_open
from anomaly.database.sql_files import sql_file, sql_files
from anomaly.errors import DatabaseError, RefusedError, SourceError
from anomaly.settings import MeterSettings, MeterTableSettings


@dataclass
class MigrationReport:
    """What `migrate` did, and what an administrator still has to do."""

    applied: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def migrate(
    database: Database, meter_table: MeterTableSettings, meter: MeterSettings | None = None
) -> MigrationReport:
    """Apply the missing migrations in order, each once, in one transaction.

    Safe to repeat. Safe if two start at once: the second waits and finds nothing to do.

    Parameters
    ----------
    meter : MeterSettings, optional
        If given, the columns of the meter table are checked too, and noted where they do not fit.

    Raises
    ------
    DatabaseError
        When an applied file has changed since, or the log-in may not make roles.
    """
    report = MigrationReport()
    # The order: roles first, because all else is created as anomaly_owner; the table of
    # migrations next, because its lock lets one migration run at a time; views after the tables
    # that they read; grants last, on everything that exists then.
    with database.transaction() as transaction:
        _make_roles(transaction)
        _act_as_owner(transaction)
        transaction.script("migrations.sql")
        _apply_pending(transaction, report)
        for view in sql_files("views"):
            transaction.script(view)
        transaction.script("reading.sql")
        transaction.script("grants.sql")
    # Each in its own transaction: if the log-in lacks a right, the migration itself stays.
    if _let_source_be_read(database, meter_table, report) and meter is not None:
        _note_wrong_columns(database, MeterSource(meter_table, meter), report)
    _close_public(database, report)
    _note_needless_rights(database, report)
    return report


def _make_roles(transaction: Transaction) -> None:
    try:
        transaction.script("roles.sql")
    except pg.InvalidRoleSpecification as error:
        raise RefusedError(
            f"{str(error).splitlines()[0]}; give this deployment a cluster of its own"
        ) from None
    except pg.InsufficientPrivilege as error:
        raise DatabaseError(
            f"this login may not make the product's roles ({str(error).splitlines()[0]});"
            " let an administrator run sql/roles.sql in this database once and grant"
            " anomaly_owner, anomaly_scorer, anomaly_trainer and anomaly_api to it"
        ) from None


def _act_as_owner(transaction: Transaction) -> None:
    transaction.execute(SQL("SET LOCAL ROLE {}").format(Identifier(OWNER)))


def _apply_pending(transaction: Transaction, report: MigrationReport) -> None:
    applied = {row["name"]: row["sha256"] for row in transaction.rows("migrations/applied")}
    for file in sql_files("migrations"):
        name = file.removeprefix("migrations/")
        sha256 = hashlib.sha256(sql_file(file).encode()).hexdigest()
        if name not in applied:
            transaction.script(file)
            transaction.run("migrations/record", name=name, sha256=sha256)
            report.applied.append(name)
        elif applied[name] != sha256:
            raise DatabaseError(
                f"migration {name} was applied, and its text has changed since:"
                " restore the file and put the change into a new migration"
            )


def _let_source_be_read(
    database: Database, meter_table: MeterTableSettings, report: MigrationReport
) -> bool:
    """Grant the meter table to anomaly_source, or note who has to grant it; whether it is."""
    why = "anomaly_source may not read it yet"
    try:
        with database.transaction() as transaction:
            if _source_is_readable(transaction, meter_table):
                return True
            for grant in _source_grants(meter_table):
                transaction.execute(grant)
            # Without the right to grant, Postgres only warns.
            if _source_is_readable(transaction, meter_table):
                return True
    except (pg.UndefinedTable, pg.InvalidSchemaName) as error:
        report.notes.append(
            f"the meter table {meter_table.source_name} is not there yet"
            f" ({str(error).splitlines()[0]}): make it, or correct ANOMALY_SOURCE_SCHEMA and"
            " ANOMALY_SOURCE_TABLE, then run `anomaly migrate` again, which grants it"
        )
        return False
    except pg.InsufficientPrivilege as error:
        why = str(error).splitlines()[0]
    report.notes.append(
        f"{why}: let the owner of {meter_table.source_name} run\n"
        + missing_source_grants(database, meter_table)
    )
    return False


def _source_grants(meter_table: MeterTableSettings) -> list[Composed]:
    schema, table = Identifier(meter_table.source_schema), Identifier(meter_table.source_table)
    return [
        SQL("GRANT USAGE ON SCHEMA {} TO anomaly_source").format(schema),
        SQL("GRANT SELECT ON {}.{} TO anomaly_source").format(schema, table),
    ]


def missing_source_grants(database: Database, meter_table: MeterTableSettings) -> str:
    """What the owner of the meter table has to run, a statement per line; empty: nothing."""
    with database.transaction() as transaction:
        if _source_is_readable(transaction, meter_table):
            return ""
        lines = SQL(";\n").join(_source_grants(meter_table)) + SQL(";")
        return str(lines.as_string(transaction.cursor))


def _note_wrong_columns(database: Database, source: MeterSource, report: MigrationReport) -> None:
    """Note what the settings say of the meter table and it is not."""
    try:
        with database.transaction(SCORER, read_only=True) as transaction:
            source.describe(transaction)
    except SourceError as error:
        report.notes.append(str(error))


def _close_public(database: Database, report: MigrationReport) -> None:
    """Stop other log-ins from creating objects in the schema public, or note who has to do it."""
    revoke = SQL("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with database.transaction() as transaction:
        if not public_is_open(transaction):
            return
    with suppress(pg.InsufficientPrivilege), database.transaction() as transaction:
        transaction.execute(revoke)
        # Without the right to revoke, Postgres only warns.
        if not public_is_open(transaction):
            return
    report.notes.append(
        f"every log-in may create objects in the schema public: let its owner run {revoke.string};"
    )


def _note_needless_rights(database: Database, report: MigrationReport) -> None:
    """Note rights that the log-in needed to migrate and does not need any more."""
    with database.transaction() as transaction:
        (login,) = transaction.rows("migrations/may_make_roles") or (None,)
        if login is not None:
            name = Identifier(login["name"]).as_string(transaction.cursor)
            report.notes.append(
                f"{login['name']} may still make roles, and no longer needs this right: let an"
                f" administrator run ALTER ROLE {name} NOCREATEROLE;"
            )


def _source_is_readable(transaction: Transaction, meter_table: MeterTableSettings) -> bool:
    return bool(
        transaction.value(
            "migrations/source_is_readable",
            schema=meter_table.source_schema,
            table=meter_table.source_table,
        )
    )


@dataclass(frozen=True)
class SchemaState:
    """Migrations that a database lacks, has in another text, or has from a newer version."""

    missing: list[str]
    changed: list[str]
    unknown: list[str]


def schema_state(database: Database) -> SchemaState:
    """Compare a database's migrations with this version's.

    Raises
    ------
    RefusedError
        When this log-in may not read which were applied.
    """
    applied = _applied(database)
    ours = {
        file.removeprefix("migrations/"): hashlib.sha256(sql_file(file).encode()).hexdigest()
        for file in sql_files("migrations")
    }
    return SchemaState(
        missing=sorted(ours.keys() - applied.keys()),
        changed=sorted(
            name for name in ours.keys() & applied.keys() if ours[name] != applied[name]
        ),
        unknown=sorted(applied.keys() - ours.keys()),
    )


def check_migrated(database: Database) -> None:
    """Refuse a database that lacks a migration.

    Raises
    ------
    RefusedError
        Naming the first one that is missing.
    """
    if missing := missing_migrations(database):
        raise RefusedError(f"{database.name} lacks {missing[0]}: run `anomaly migrate`")


def missing_migrations(database: Database) -> list[str]:
    """Migrations that the database lacks, in their order.

    Raises
    ------
    RefusedError
        When this log-in may not read which were applied.
    """
    return schema_state(database).missing


def _applied(database: Database) -> dict[str, str]:
    """Names of the applied migrations, and the hash of each."""
    try:
        with database.transaction(SCORER, read_only=True) as transaction:
            return {row["name"]: row["sha256"] for row in transaction.rows("migrations/applied")}
    except ProgrammingError as error:
        if not isinstance(error.orig, pg.UndefinedTable | pg.InvalidSchemaName):
            raise RefusedError(
                f"{database.name} does not show its migrations:"
                f" {str(error.orig).strip().splitlines()[0]}; run `anomaly migrate` as the login"
                " that made the schema, which grants it"
            ) from None
    return {}
