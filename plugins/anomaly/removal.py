"""Take a machine off the deployment: one that a wrong setting made, or that nobody needs."""

from dataclasses import dataclass

from anomaly import __version__
from anomaly.errors import MachineError
from anomaly.postgres.database import OWNER, Database
from anomaly.postgres.machines import find_machine, known_machines

_COMMAND = "anomaly machines remove"


@dataclass(frozen=True)
class Removed:
    """What went with a machine: verdicts with those they replaced, incidents and labels."""

    machine_id: int
    machine: str
    verdicts: int
    replaced_verdicts: int
    incidents: int
    labels: int


def remove_machine(database: Database, machine: str, *, with_verdicts: bool = False) -> Removed:
    """Remove a machine and all that is known of it.

    A run that is just scoring the machine starts again. While the meter table still has its
    readings, the next run that meets one adds the machine anew.

    Parameters
    ----------
    machine : str
        Its id or its name.
    with_verdicts : bool
        Also if it has verdicts, incidents or labels; they go with it.

    Raises
    ------
    MachineError
        When there is no such machine, several have that name, or it has verdicts, incidents or
        labels and `with_verdicts` is not set. Nothing was removed then.
    """
    with database.transaction(OWNER) as transaction:
        transaction.rows("lock_publishing")
        transaction.rows("lock_machines")
        known = known_machines(transaction)
        machine_id = find_machine(known, machine)
        name = str(known.loc[known["machine_id"] == machine_id, "name"].iloc[0])
        counts = dict(transaction.row("count_of_machine", machine_id=machine_id))
        if any(counts.values()) and not with_verdicts:
            held = ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in counts.items() if n)
            raise MachineError(
                f"machine {machine_id} ({name}) has {held}: add --with-verdicts to remove them"
                " with it, or set anomaly.machines.active_to to retire it"
            )
        transaction.run(
            "record_removal", machine_id=machine_id, command=_COMMAND, package_version=__version__
        )
        transaction.run("remove_machine", machine_id=machine_id)
    return Removed(machine_id, name, **counts)
