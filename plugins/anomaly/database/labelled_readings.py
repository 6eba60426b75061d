"""Read labelled readings from any table or view of the database."""

from io import BytesIO

import pandas as pd
from psycopg2.errors import InsufficientPrivilege
from psycopg2.sql import SQL, Composable, Identifier, Literal

from anomaly.database.connection import Transaction, composed
from anomaly.database.meter_table import from_source, table_columns
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
        When there is no such table, or anomaly_source may not read it.
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
    columns = [name for name in types if name in wanted]
    statement = composed(
        "labelled_readings/read",
        columns=SQL(", ").join(_as_text(name, types[name]) for name in columns),
        table=Identifier(schema, table),
        complete=Literal(complete),
    )
    copy = SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER)").format(
        from_source(transaction, statement, ["text"] * len(columns))
    )
    try:
        readings = pd.read_csv(BytesIO(transaction.copy_out(copy)))
    except InsufficientPrivilege:
        raise SourceError(
            f"--labels: anomaly_source may not read {name}: have its owner grant SELECT on it, and"
            f" USAGE on schema {schema}, to anomaly_source"
        ) from None
    return readings.set_axis(columns, axis="columns")


def _as_text(name: str, type_name: str) -> Composable:
    return SQL(_SPELT.get(type_name, "{}")).format(Identifier(name))
