"""What operators say: labels on a machine and a range, and taking an incident on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from anomaly.errors import LabelError
from anomaly.incidents import LabelName, State
from anomaly.postgres.database import SCORER, Database, Transaction
from anomaly.postgres.incidents import Change, readings_to, refresh_incidents
from anomaly.postgres.machines import find_machine, known_machines
from anomaly.schema import Origin
from anomaly.settings import Settings
from anomaly.windows import Window


@dataclass(frozen=True)
class Labelled:
    """What a label did: how many incidents stand differently now."""

    label_id: int
    machine_id: int
    window: Window
    label: LabelName
    incidents_changed: int


def label(
    database: Database,
    settings: Settings,
    machine: str,
    window: Window,
    name: LabelName,
    *,
    note: str = "",
    by: str,
) -> Labelled:
    """Say what a range of a machine was, or will be.

    Parameters
    ----------
    machine : str
        Its id or its name.
    window : Window
        Past or future; incidents that it touches change their state at once, future
        ones when they come.

    Raises
    ------
    MachineError
        When there is no such machine, or several have that name.
    """
    with database.transaction(SCORER) as transaction:
        machine_id = find_machine(known_machines(transaction), machine)
        row = transaction.row(
            "insert_label",
            machine_id=machine_id,
            start=window.start,
            end=window.end,
            label=name.value,
            note=note,
            by=by,
        )
        changed = _refresh(transaction, settings, machine_id, window)
    return Labelled(row["label_id"], machine_id, window, name, changed)


def acknowledge(database: Database, settings: Settings, incident_id: int, *, by: str) -> State:
    """Take an incident on; it stays acknowledged until it is over.

    Raises
    ------
    LabelError
        When there is no such incident, or it is over.
    """
    with database.transaction(SCORER) as transaction:
        at = transaction.row("lock_publishing")["published_at"]
        done = transaction.rows("acknowledge_incident", incident_id=incident_id, by=by, at=at)
        if not done:
            raise LabelError(_why_not(transaction, incident_id))
        window = Window(done[0]["started_at"], done[0]["last_at"] + settings.interval)
        _refresh(transaction, settings, done[0]["machine_id"], window)
        return State(transaction.row("incident", incident_id=incident_id)["state"])


def _why_not(transaction: Transaction, incident_id: int) -> str:
    found: Sequence[object] = transaction.rows("incident", incident_id=incident_id)
    if not found:
        return f"there is no incident {incident_id}: `anomaly incidents` lists them"
    state = transaction.row("incident", incident_id=incident_id)["state"]
    return (
        f"incident {incident_id} is {state}: only an open one can be acknowledged;"
        " say what it was with `anomaly label`"
    )


def _refresh(transaction: Transaction, settings: Settings, machine_id: int, window: Window) -> int:
    at: datetime = transaction.row("lock_publishing")["published_at"]
    as_of = readings_to(transaction)
    if as_of is None:
        return 0
    change = Change(window, [machine_id], [machine_id], as_of, Origin.LATE, at)
    return refresh_incidents(transaction, change, settings)
