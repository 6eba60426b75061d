"""How a database is set up: server, log-in, roles, partitions, index of the meter table."""

from collections.abc import Sequence

from sqlalchemy import RowMapping

from anomaly.database.connection import SCORER, Database, Transaction
from anomaly.settings import MeterTableSettings


def server(database: Database) -> RowMapping:
    """The server, the database and the log-in.

    Returns
    -------
    row
        ``version`` (150018, say), ``version_text``, ``now``, ``time_zone`` (of a session that sets
        none), ``database``, ``started_at``, ``login``, ``is_superuser``, ``may_make_roles``,
        ``is_standby``.
    """
    with database.transaction() as transaction:
        return transaction.row("setup/server")


def roles(database: Database) -> Sequence[RowMapping]:
    """Each role that tasks act as: ``name``, ``exists``, ``is_granted`` to this log-in."""
    with database.transaction() as transaction:
        return transaction.rows("setup/roles")


def public_is_open(transaction: Transaction) -> bool:
    """Whether every log-in may create objects in the schema public."""
    return bool(transaction.value("setup/public_is_open"))


def missing_grants(database: Database) -> list[str]:
    """Rights of the product's roles that are missing, as after a restore without grants."""
    with database.transaction() as transaction:
        return [str(row["missing"]) for row in transaction.rows("setup/missing_grants")]


def detached_months(database: Database) -> list[str]:
    """Tables of a month of results that are no partition any more."""
    with database.transaction() as transaction:
        return [str(row["name"]) for row in transaction.rows("setup/detached_months")]


def is_without_time_index(database: Database, meter_table: MeterTableSettings) -> bool:
    """Whether the meter table is a plain or partitioned table without an index on its time."""
    with database.transaction(SCORER, read_only=True) as transaction:
        found = transaction.rows(
            "setup/time_index",
            schema=meter_table.source_schema,
            table=meter_table.source_table,
            column=meter_table.source_timestamp_column,
        )
    return any(row["kind"] in ("r", "p") and not row["is_indexed"] for row in found)
