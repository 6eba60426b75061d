"""Remove a machine that was created by a wrong setting, or that nobody needs any more."""

from dataclasses import dataclass

from anomaly.database.alerts import forget_empty_messages
from anomaly.database.connection import OWNER, Database
from anomaly.database.machines import (
    count_rows_of,
    delete_machine,
    find_machine,
    known_machines,
    lock_machines,
)
from anomaly.database.scoring_runs import lock_publishing, record_removal
from anomaly.errors import MachineError
from anomaly.readings.contradictions import REACH

_COMMAND = "anomaly machines remove"


@dataclass(frozen=True)
class Removed:
    """A removed machine, and how many of its verdicts, incidents and labels were deleted."""

    machine_id: int
    machine: str
    verdicts: int
    replaced_verdicts: int
    incidents: int
    labels: int


def remove_machine(database: Database, machine: str, *, with_verdicts: bool = False) -> Removed:
    """Remove a machine with its verdicts, incidents and labels.

    A run that is scoring the machine at this time starts again. As long as the meter table has
    readings of the machine, the next run that reads one adds the machine again.

    Parameters
    ----------
    machine : str
        Its id or its name.
    with_verdicts : bool
        Remove it even if it has verdicts, incidents or labels, which are deleted too.

    Raises
    ------
    MachineError
        When there is no such machine, several have that name, or it has verdicts, incidents or
        labels and `with_verdicts` is False. Nothing is removed then.
    """
    with database.transaction(OWNER) as transaction:
        # The same order as in publishing, so that the two cannot deadlock.
        lock_publishing(transaction)
        lock_machines(transaction)
        known = known_machines(transaction)
        machine_id = find_machine(known, machine)
        name = str(known.loc[known["machine_id"] == machine_id, "name"].iloc[0])
        counts = count_rows_of(transaction, machine_id)
        if any(counts.values()) and not with_verdicts:
            held = ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in counts.items() if n)
            raise MachineError(
                f"machine {machine_id} ({name}) has {held}: add --with-verdicts to remove them"
                " with it, or retire it by `anomaly machines set --active-to`"
            )
        record_removal(transaction, machine_id, REACH, _COMMAND)
        delete_machine(transaction, machine_id)
        forget_empty_messages(transaction)
    return Removed(machine_id, name, **counts)
