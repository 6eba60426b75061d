"""The table ``anomaly.machines``: every machine that the deployment knows.

A machine is added when a run finds its first reading.
"""

import difflib
from collections.abc import Mapping, Sequence
from zoneinfo import available_timezones

import numpy as np
import numpy.typing as npt
import pandas as pd
from sqlalchemy import RowMapping

from anomaly.database.connection import Transaction
from anomaly.errors import MachineError

_NUMBERS = ("max_power_kw", "rolls_over_at", "alert_budget")
_COLUMNS = ("machine_id", "source_key", "name", "time_zone", "holidays", *_NUMBERS)


def known_machines(transaction: Transaction) -> pd.DataFrame:
    """Every machine, one row each.

    Returns
    -------
    DataFrame
        ``machine_id`` (int64), ``source_key``, ``name``, ``time_zone``, ``holidays`` (None
        where not set), ``max_power_kw``, ``rolls_over_at`` and ``alert_budget`` (float64, NaN where
        not set).
    """
    frame = transaction.frame("machines/known", machines=None)[list(_COLUMNS)]
    return frame.astype({"machine_id": int, **dict.fromkeys(_NUMBERS, float)})


def trainable_machines(transaction: Transaction) -> pd.DataFrame:
    """Every machine as in `known_machines`, after a check that its time zone exists.

    Raises
    ------
    MachineError
        When a machine's time zone does not exist.
    """
    machines = known_machines(transaction)
    zones = sorted(available_timezones())
    wrong = machines.loc[~machines["time_zone"].isin(zones), ["machine_id", "time_zone"]]
    for number, zone in wrong.itertuples(index=False):
        close = [*difflib.get_close_matches(zone, zones, n=1), "UTC"][0]
        raise MachineError(
            f"machine {number} has the time zone {zone!r}, which does not exist: run `anomaly"
            f" machines set {number} --time-zone {close}`"
        )
    return machines


def find_machine(machines: pd.DataFrame, machine: str) -> int:
    """Id of the machine in `known_machines` with this id or name; an id takes precedence.

    Raises
    ------
    MachineError
        When no machine has this id or name, or several have this name.
    """
    named = machines.loc[
        (machines["name"] == machine) | (machines["machine_id"].astype(str) == machine),
        "machine_id",
    ].tolist()
    exact = [number for number in named if str(number) == machine]
    if len(exact or named) != 1:
        what = "several machines are" if named else "no machine is"
        some = ", ".join(map(str, machines["machine_id"].tolist()[:20]))
        then = f"write a name, or an id: {some}" if some else "there are none yet, train first"
        raise MachineError(f"{what} called {machine!r}: {then}")
    return int((exact or named)[0])


def choosable_names(transaction: Transaction) -> list[str]:
    """Each machine's name as `find_machine` finds it: its id where another has the same name."""
    machines = known_machines(transaction)
    once = ~machines["name"].duplicated(keep=False)
    names: list[str] = machines["name"].where(once, machines["machine_id"].astype(str)).tolist()
    return names


def machine_limits(transaction: Transaction) -> pd.DataFrame:
    """The limits of every machine that affect its readings, sorted by ``machine_id``.

    Returns
    -------
    DataFrame
        ``machine_id`` (int32), ``max_power_kw`` and ``rolls_over_at`` (float64, NaN where
        not set).
    """
    columns = [("machine_id", ">i4"), ("max_power_kw", ">f8"), ("rolls_over_at", ">f8")]
    return pd.DataFrame(transaction.copy_columns("machines/limits", columns))


def machine_numbers(
    transaction: Transaction,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Source keys that are whole numbers, sorted, and the ids of their machines."""
    columns = [("number", ">i8"), ("machine_id", ">i4")]
    found = transaction.copy_columns("machines/numbers", columns)
    return found["number"], found["machine_id"]


def count_machines(transaction: Transaction) -> int:
    """How many machines there are."""
    return int(transaction.value("machines/count"))


def list_machines(
    transaction: Transaction, numbers: Sequence[int] | None = None
) -> Sequence[RowMapping]:
    """Machines with all of their columns, to show to people; without `numbers` every one."""
    asked = None if numbers is None else list(numbers)
    return transaction.rows("machines/known", machines=asked)


def machines_page(
    transaction: Transaction, *, after: int | None, rows: int
) -> Sequence[RowMapping]:
    """Machines after a number, as ``bi.machines`` has them."""
    return transaction.rows("machines/page", after=after, rows=rows)


def register_machines(
    transaction: Transaction, machines: Mapping[str, int | None], time_zone: str = "UTC"
) -> int:
    """Add machines by source key, with the id that each should have (None: the next free one).

    If another machine, or another key here, already has that id, the machine gets the next
    free id.

    Parameters
    ----------
    time_zone : str
        Time zone of the new machines' working day.

    Returns
    -------
    int
        How many machines were new. Registering them again changes nothing.
    """
    # The lock is a statement of its own, before the insert reads which ids are free.
    lock_machines(transaction)
    return transaction.run(
        "machines/register",
        keys=list(machines),
        wanted_ids=list(machines.values()),
        time_zone=time_zone,
    )


def describe_machine(
    transaction: Transaction, machine_id: int, fields: Mapping[str, object]
) -> None:
    """Write what people say of a machine; `fields` has all columns but id and source key."""
    transaction.run("machines/describe", machine_id=machine_id, **fields)


def lock_machines(transaction: Transaction) -> None:
    """Stop others from adding or removing machines until the transaction ends."""
    transaction.rows("machines/lock")


def count_rows_of(transaction: Transaction, machine_id: int) -> dict[str, int]:
    """How many verdicts, replaced verdicts, incidents and labels a machine has."""
    return dict(transaction.row("machines/count_rows_of", machine_id=machine_id))


def delete_machine(transaction: Transaction, machine_id: int) -> None:
    """Delete a machine with its verdicts, incidents and labels."""
    transaction.run("machines/remove", machine_id=machine_id)
