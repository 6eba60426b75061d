"""What operators say: labels on machines and incidents, taking them back, and acknowledging."""

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

_MOST = 2**63 - 1  # no number of an incident or a label is higher


@dataclass(frozen=True)
class Labelled:
    """What a label did.

    Attributes
    ----------
    machine : str
        Name of the machine.
    incidents_changed : int
        How many incidents stand differently now.
    """

    label_id: int
    machine_id: int
    machine: str
    window: Window
    label: LabelName
    incidents_changed: int


@dataclass(frozen=True)
class TakenBack:
    """What taking a label back did; who took it back first, and when, stays on record."""

    label_id: int
    machine_id: int
    machine: str
    label: LabelName
    withdrawn_by: str
    withdrawn_at: datetime
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
    """Say what a range of a machine was, or will be; saying it again changes nothing.

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
        return _label(transaction, settings, machine_id, window, name, note, by)


def label_incident(
    database: Database,
    settings: Settings,
    incident_id: int,
    name: LabelName,
    *,
    note: str = "",
    by: str,
) -> Labelled:
    """Say what an incident was: its machine, from its start to its last abnormal interval.

    Raises
    ------
    LabelError
        When there is no such incident, or it was withdrawn or merged into another.
    """
    with database.transaction(SCORER) as transaction:
        found = transaction.rows("incident", incident_id=min(incident_id, _MOST))
        if not found:
            raise LabelError(_no_incident(incident_id))
        incident = found[0]
        if incident["merged_into"]:
            raise LabelError(
                f"incident {incident_id} is a part of incident {incident['merged_into']} now:"
                " label that one"
            )
        if incident["state"] == State.WITHDRAWN:
            raise LabelError(
                f"incident {incident_id} is withdrawn, its readings were corrected: label the"
                " machine and a range"
            )
        window = Window(incident["started_at"], incident["last_at"] + settings.interval)
        return _label(transaction, settings, incident["machine_id"], window, name, note, by)


def take_back(database: Database, settings: Settings, label_id: int, *, by: str) -> TakenBack:
    """Let a label count no more; doing so again changes nothing.

    Incidents that it touched stand at once as if it had not been said. Trainings from now
    on do not heed it; it stays on record for those before.

    Raises
    ------
    LabelError
        When there is no such label.
    """
    with database.transaction(SCORER) as transaction:
        at = transaction.row("lock_publishing")["published_at"]
        number = min(label_id, _MOST)
        done = transaction.rows("withdraw_label", label_id=number, by=by, at=at)
        found = transaction.rows("label", label_id=number)
        if not found:
            raise LabelError(f"there is no label {label_id}: `anomaly labels list` lists them")
        row = found[0]
        window = Window(row["starts_at"], row["ends_at"])
        changed = _refresh(transaction, settings, row["machine_id"], window) if done else 0
    return TakenBack(
        label_id,
        row["machine_id"],
        row["machine"],
        LabelName(row["label"]),
        row["withdrawn_by"],
        row["withdrawn_at"],
        changed,
    )


def acknowledge(database: Database, settings: Settings, incident_id: int, *, by: str) -> State:
    """Take an incident on; it stays acknowledged until it is over.

    Several may take on the same: all are kept, the first as the one who did. Who says so
    again changes nothing.

    Raises
    ------
    LabelError
        When there is no such incident, or it is over.
    """
    with database.transaction(SCORER) as transaction:
        at = transaction.row("lock_publishing")["published_at"]
        number = min(incident_id, _MOST)
        done = transaction.rows("acknowledge_incident", incident_id=number, by=by, at=at)
        if not done:
            raise LabelError(_why_not(transaction, number))
        transaction.run("insert_acknowledgement", incident_id=number, by=by, at=at)
        window = Window(done[0]["started_at"], done[0]["last_at"] + settings.interval)
        _refresh(transaction, settings, done[0]["machine_id"], window)
        return State(transaction.row("incident", incident_id=number)["state"])


def is_incident(database: Database, text: str) -> bool:
    """Whether a text is the number of an incident."""
    if not (text.isascii() and text.isdigit()) or int(text) > _MOST:
        return False
    with database.transaction(SCORER, read_only=True) as transaction:
        return bool(transaction.rows("incident", incident_id=int(text)))


def _label(
    transaction: Transaction,
    settings: Settings,
    machine_id: int,
    window: Window,
    name: LabelName,
    note: str,
    by: str,
) -> Labelled:
    said = {
        "machine_id": machine_id,
        "start": window.start,
        "end": window.end,
        "label": name.value,
        "note": note,
        "by": by,
    }
    transaction.rows("lock_publishing")  # two that say the same at once
    (row, *_) = transaction.rows("same_label", **said) or transaction.rows("insert_label", **said)
    changed = _refresh(transaction, settings, machine_id, window)
    return Labelled(row["label_id"], machine_id, row["machine"], window, name, changed)


def _no_incident(incident_id: int) -> str:
    return f"there is no incident {incident_id}: `anomaly incidents` lists them"


def _why_not(transaction: Transaction, incident_id: int) -> str:
    found = transaction.rows("incident", incident_id=incident_id)
    if not found:
        return _no_incident(incident_id)
    return (
        f"incident {incident_id} is {found[0]['state']}: only an open one can be acknowledged;"
        " say what it was with `anomaly label`"
    )


def _refresh(transaction: Transaction, settings: Settings, machine_id: int, window: Window) -> int:
    at: datetime = transaction.row("lock_publishing")["published_at"]
    as_of = readings_to(transaction)
    if as_of is None:
        return 0
    change = Change(window, [machine_id], [machine_id], as_of, Origin.LATE, at)
    return refresh_incidents(transaction, change, settings)
