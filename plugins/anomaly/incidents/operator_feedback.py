"""What operators say: label machines and incidents, take labels back, acknowledge incidents."""

from dataclasses import dataclass
from datetime import datetime

from anomaly.database.connection import SCORER, Database, Transaction
from anomaly.database.incidents import acknowledge as acknowledge_row
from anomaly.database.incidents import incident_row
from anomaly.database.labels import label_row, withdraw_label, write_label
from anomaly.database.machines import find_machine, known_machines
from anomaly.database.results import Origin
from anomaly.database.scoring_runs import lock_publishing, readings_to
from anomaly.errors import LabelError
from anomaly.incidents.incident import State
from anomaly.incidents.labels import LabelName
from anomaly.incidents.refresh import VerdictsChanged, refresh_incidents
from anomaly.settings import IncidentSettings, MeterSettings
from anomaly.windows import Window

_MOST = 2**63 - 1  # largest bigint: Postgres refuses a larger number, here it is just not found


@dataclass(frozen=True)
class LabelReport:
    """What a label did.

    Attributes
    ----------
    machine : str
        Name of the machine.
    incidents_changed : int
        How many incidents have changed.
    """

    label_id: int
    machine_id: int
    machine: str
    window: Window
    label: LabelName
    incidents_changed: int


@dataclass(frozen=True)
class TakenBack:
    """What taking a label back did. Who took it back first, and when, stays on record."""

    label_id: int
    machine_id: int
    machine: str
    label: LabelName
    withdrawn_by: str
    withdrawn_at: datetime
    incidents_changed: int


def label(
    database: Database,
    meter: MeterSettings,
    rules: IncidentSettings,
    machine: str,
    window: Window,
    name: LabelName,
    *,
    note: str = "",
    by: str,
) -> LabelReport:
    """Label a past or future range of a machine; giving the same label again changes nothing.

    Parameters
    ----------
    machine : str
        Its id or its name.
    window : Window
        Past or future. Incidents that it overlaps change their state at once, future incidents
        when they begin.

    Raises
    ------
    MachineError
        When there is no such machine, or several have that name.
    """
    with database.transaction(SCORER) as transaction:
        machine_id = find_machine(known_machines(transaction), machine)
        return _write_and_refresh(transaction, meter, rules, machine_id, window, name, note, by)


def label_incident(
    database: Database,
    meter: MeterSettings,
    rules: IncidentSettings,
    incident_id: int,
    name: LabelName,
    *,
    note: str = "",
    by: str,
) -> LabelReport:
    """Label an incident's machine, from the incident's start to its last abnormal interval.

    Raises
    ------
    LabelError
        When there is no such incident, or it was withdrawn or merged into another.
    """
    with database.transaction(SCORER) as transaction:
        incident = incident_row(transaction, min(incident_id, _MOST))
        if incident is None:
            raise LabelError(_no_such_incident(incident_id))
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
        window = Window(incident["started_at"], incident["last_at"] + meter.interval)
        return _write_and_refresh(
            transaction, meter, rules, incident["machine_id"], window, name, note, by
        )


def take_back(
    database: Database, meter: MeterSettings, rules: IncidentSettings, label_id: int, *, by: str
) -> TakenBack:
    """Take a label back; taking it back again changes nothing.

    Incidents that it overlaps change at once, as if the label had not been given. Trainings
    from now on ignore it. It stays on record for the trainings before.

    Raises
    ------
    LabelError
        When there is no such label.
    """
    with database.transaction(SCORER) as transaction:
        at = lock_publishing(transaction)
        number = min(label_id, _MOST)
        done = withdraw_label(transaction, number, by=by, at=at)
        row = label_row(transaction, number)
        if row is None:
            raise LabelError(f"there is no label {label_id}: `anomaly labels list` lists them")
        window = Window(row["starts_at"], row["ends_at"])
        changed = (
            _refresh_machine(transaction, meter, rules, row["machine_id"], window) if done else 0
        )
    return TakenBack(
        label_id,
        row["machine_id"],
        row["machine"],
        LabelName(row["label"]),
        row["withdrawn_by"],
        row["withdrawn_at"],
        changed,
    )


def acknowledge(
    database: Database, meter: MeterSettings, rules: IncidentSettings, incident_id: int, *, by: str
) -> State:
    """Acknowledge an incident; it stays acknowledged until it is over.

    Several people may acknowledge the same incident. All of them are recorded, and the first
    one is shown. If the same person does it again, nothing changes.

    Raises
    ------
    LabelError
        When there is no such incident, or it is over.
    """
    with database.transaction(SCORER) as transaction:
        at = lock_publishing(transaction)
        number = min(incident_id, _MOST)
        acknowledged = acknowledge_row(transaction, number, by=by, at=at)
        if acknowledged is None:
            raise LabelError(_why_not_acknowledged(transaction, number))
        window = Window(acknowledged["started_at"], acknowledged["last_at"] + meter.interval)
        _refresh_machine(transaction, meter, rules, acknowledged["machine_id"], window)
        incident = incident_row(transaction, number)
        assert incident is not None  # it was just acknowledged
        return State(incident["state"])


def is_incident(database: Database, text: str) -> bool:
    """Whether a text is the number of an existing incident."""
    if not (text.isascii() and text.isdigit()) or int(text) > _MOST:
        return False
    with database.transaction(SCORER, read_only=True) as transaction:
        return incident_row(transaction, int(text)) is not None


def _write_and_refresh(
    transaction: Transaction,
    meter: MeterSettings,
    rules: IncidentSettings,
    machine_id: int,
    window: Window,
    name: LabelName,
    note: str,
    by: str,
) -> LabelReport:
    lock_publishing(transaction)  # else two people could write the same label at the same time
    row = write_label(
        transaction, machine_id, window.start, window.end, name.value, note=note, by=by
    )
    changed = _refresh_machine(transaction, meter, rules, machine_id, window)
    return LabelReport(row["label_id"], machine_id, row["machine"], window, name, changed)


def _no_such_incident(incident_id: int) -> str:
    return f"there is no incident {incident_id}: `anomaly incidents --all` lists them"


def _why_not_acknowledged(transaction: Transaction, incident_id: int) -> str:
    incident = incident_row(transaction, incident_id)
    if incident is None:
        return _no_such_incident(incident_id)
    return (
        f"incident {incident_id} is {incident['state']}: only an open one can be acknowledged;"
        " say what it was with `anomaly label`"
    )


def _refresh_machine(
    transaction: Transaction,
    meter: MeterSettings,
    rules: IncidentSettings,
    machine_id: int,
    window: Window,
) -> int:
    at = lock_publishing(transaction)
    as_of = readings_to(transaction)
    if as_of is None:
        return 0
    change = VerdictsChanged(window, [machine_id], [machine_id], as_of, Origin.LATE, at)
    return len(refresh_incidents(transaction, change, meter, rules))
