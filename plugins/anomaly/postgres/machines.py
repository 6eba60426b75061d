"""The machines a deployment knows; new ones are added when their first reading is seen."""

from collections.abc import Mapping
from zoneinfo import available_timezones

import pandas as pd
from psycopg2.sql import SQL

from anomaly.errors import MachineError
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


def known_zones(machines: pd.DataFrame) -> pd.DataFrame:
    """Hand on `known_machines` where every time zone is one.

    Raises
    ------
    MachineError
        When one is not.
    """
    wrong = machines[~machines["time_zone"].isin(available_timezones())]
    for number, zone in wrong[["machine_id", "time_zone"]].itertuples(index=False):
        raise MachineError(
            f"machine {number} stands in {zone!r}, which is no time zone: write one, as"
            " Europe/Berlin is, into anomaly.machines.time_zone"
        )
    return machines


def find_machine(transaction: Transaction, machine: str) -> int:
    """Id of the machine that has this id or name.

    Raises
    ------
    MachineError
        When there is none, or several have that name.
    """
    machines = known_machines(transaction)
    named = machines.loc[
        (machines["name"] == machine) | (machines["machine_id"].astype(str) == machine),
        "machine_id",
    ].tolist()
    exact = [number for number in named if str(number) == machine]
    if len(exact or named) != 1:
        what = "several machines are" if named else "no machine is"
        some = ", ".join(map(str, machines["machine_id"].tolist()[:20]))
        raise MachineError(f"{what} called {machine!r}: write an id, one of {some}")
    return int((exact or named)[0])


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
