"""The machines a deployment knows; new ones are added when their first reading is seen."""

import difflib
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


def trainable_machines(transaction: Transaction) -> pd.DataFrame:
    """Every machine as `known_machines` has it, each with a time zone that there is.

    Raises
    ------
    MachineError
        When a machine's time zone is none.
    """
    machines = known_machines(transaction)
    zones = sorted(available_timezones())
    wrong = machines.loc[~machines["time_zone"].isin(zones), ["machine_id", "time_zone"]]
    for number, zone in wrong.itertuples(index=False):
        close = [*difflib.get_close_matches(zone, zones, n=1), "UTC"][0]
        raise MachineError(
            f"machine {number} has the time zone {zone!r}, which there is not: run UPDATE"  # noqa: S608
            f" anomaly.machines SET time_zone = '{close}' WHERE machine_id = {number}"
        )
    return machines


def find_machine(machines: pd.DataFrame, machine: str) -> int:
    """Id of the one among `known_machines` that has this id or name; an id goes first.

    Raises
    ------
    MachineError
        When there is none, or several have that name.
    """
    named = machines.loc[
        (machines["name"] == machine) | (machines["machine_id"].astype(str) == machine),
        "machine_id",
    ].tolist()
    exact = [number for number in named if str(number) == machine]
    if len(exact or named) != 1:
        what = "several machines are" if named else "no machine is"
        some = ", ".join(map(str, machines["machine_id"].tolist()[:20]))
        then = f"write an id, one of {some}" if some else "there are none yet, train first"
        raise MachineError(f"{what} called {machine!r}: {then}")
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


def register_machines(
    transaction: Transaction, machines: Mapping[str, int | None], time_zone: str = "UTC"
) -> int:
    """Add machines by source key, with the id each should have (None: the next free one).

    An id that another machine has, or another key here, is not given twice: the next free
    one is.

    Parameters
    ----------
    time_zone : str
        Of the working day of those that are new.

    Returns
    -------
    int
        How many were new; registering again adds none and changes none.
    """
    transaction.rows("lock_machines")
    return transaction.run(
        "register_machines",
        keys=list(machines),
        wanted_ids=list(machines.values()),
        time_zone=time_zone,
    )
