"""Labelled readings in a table or view of the database: anybody's, only ever read."""

from io import BytesIO

import pandas as pd
from psycopg2.errors import InsufficientPrivilege
from psycopg2.sql import SQL, Composable, Identifier, Literal

from anomaly.errors import SourceError
from anomaly.postgres.database import Transaction, sql_file
from anomaly.settings import Settings

_SPELT = {  # times in UTC, whatever zone the session speaks
    "timestamp with time zone": "{} AT TIME ZONE 'UTC' || 'Z'",
    "boolean": "{}::integer",
}


def read_labels(
    transaction: Transaction, name: str, settings: Settings, *, label: str = "label"
) -> pd.DataFrame:
    """Read a long table of readings with a column of labels, as a CSV file would hold it.

    Parameters
    ----------
    name : str
        ``schema.table``, spelt as the database has it.
    settings : Settings
        How the columns of a long meter table are named.

    Raises
    ------
    SourceError
        When there is no such table, or this log-in may not read it.
    """
    schema, _, table = name.partition(".")
    found = transaction.rows("source_columns", schema=schema, table=table)
    if not found:
        raise SourceError(
            f"--labels: there is no file {name!r}, and no table {name!r} that this log-in may"
            " see: write the path of a CSV file, or schema.table"
        )
    types = {row["name"]: row["type"] for row in found}
    needed = {settings.source_timestamp_column, settings.source_value_column, label}
    complete = needed <= types.keys()
    wanted = needed | {settings.source_machine_column} if complete else types.keys()
    statement = SQL(sql_file("queries/read_labels.sql")).format(
        columns=SQL(", ").join(_column(c, types[c]) for c in types if c in wanted),
        table=Identifier(schema, table),
        complete=Literal(complete),
    )
    try:
        return pd.read_csv(BytesIO(transaction.copy_out(statement)))
    except InsufficientPrivilege:
        raise SourceError(
            f"--labels: this log-in may not read {name}: have its owner grant SELECT on it,"
            f" and USAGE on schema {schema}"
        ) from None


def _column(name: str, type_name: str) -> Composable:
    identifier = Identifier(name)
    spelt = SQL(_SPELT.get(type_name, "{}")).format(identifier)
    return SQL("{} AS {}").format(spelt, identifier)
