"""The machines a deployment knows; new ones are added when their first reading is seen."""

from collections.abc import Mapping

import pandas as pd
from psycopg2.sql import SQL

from anomaly.postgres import binary
from anomaly.postgres.database import Transaction, sql_file

_NUMBERS = ("max_power_kw", "rolls_over_at", "alert_budget")
_COLUMNS = ("machine_id", "source_key", "name", "time_zone", *_NUMBERS)


def known_machines(transaction: Transaction) -> pd.DataFrame:
    """Every machine, a row each.

    Returns
    -------
    DataFrame
        ``machine_id`` (int64), ``source_key``, ``name``, ``time_zone``,
        ``max_power_kw``, ``rolls_over_at`` and ``alert_budget`` (float64, NaN where
        not set).
    """
    frame = transaction.frame("machines")[list(_COLUMNS)]
    return frame.astype({"machine_id": int, **dict.fromkeys(_NUMBERS, float)})


def machine_limits(transaction: Transaction) -> pd.DataFrame:
    """What of every machine bears on its readings, sorted by ``machine_id``.

    Returns
    -------
    DataFrame
        ``machine_id`` (int32), ``max_power_kw`` and ``rolls_over_at`` (float64, NaN where
        not set).
    """
    columns = [("machine_id", ">i4"), ("max_power_kw", ">f8"), ("rolls_over_at", ">f8")]
    data = transaction.copy_out(SQL(sql_file("queries/machine_limits.sql")))
    records = binary.decode(data, columns)
    return pd.DataFrame({name: binary.native(records[name]) for name, _ in columns})


def register_machines(transaction: Transaction, machines: Mapping[str, int | None]) -> int:
    """Add machines by source key, with the id each should have (None: the next free one).

    Returns
    -------
    int
        How many were new; registering again adds none and changes none.
    """
    transaction.rows("lock_machines")
    return transaction.run(
        "register_machines", keys=list(machines), wanted_ids=list(machines.values())
    )
