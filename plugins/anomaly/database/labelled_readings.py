"""Read labelled readings from any table or view of the database."""

from io import BytesIO

import pandas as pd
from psycopg2.errors import InsufficientPrivilege
from psycopg2.sql import SQL, Composable, Identifier, Literal

from anomaly.database.connection import Transaction, composed
from anomaly.database.meter_table import table_columns
from anomaly.errors import SourceError
from anomaly.settings import MeterTableSettings

_SPELT = {  # how a type is written to CSV: times in UTC, whatever zone the session has
    "timestamp with time zone": "{} AT TIME ZONE 'UTC' || 'Z'",
    "boolean": "{}::integer",
}


def read_labels(
    transaction: Transaction, name: str, meter_table: MeterTableSettings, *, label: str = "label"
) -> pd.DataFrame:
    """Read a long table of readings with a column of labels, as from a CSV file.

    Parameters
    ----------
    name : str
        ``schema.table``, as the database spells it.
    meter_table : MeterTableSettings
        The names of the columns of a long meter table.

    Raises
    ------
    SourceError
        When there is no such table, or this log-in may not read it.
    """
    schema, _, table = name.partition(".")
    found = table_columns(transaction, schema, table)
    if not found:
        raise SourceError(
            f"--labels: there is no file {name!r}, and no table {name!r} that this log-in may"
            " see: write the path of a CSV file, or schema.table"
        )
    types = {row["name"]: row["type"] for row in found}
    needed = {
        meter_table.source_timestamp_column,
        meter_table.source_value_column,
        label,
    }
    complete = needed <= types.keys()
    wanted = needed | {meter_table.source_machine_column} if complete else types.keys()
    statement = composed(
        "labelled_readings/read",
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
