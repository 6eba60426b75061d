"""Describe machines: name, site, time zone, limits, alert budget, when they are in use."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import available_timezones

import pandas as pd

from anomaly.database.connection import OWNER, Database, Transaction
from anomaly.database.machines import (
    describe_machine,
    find_machine,
    known_machines,
    list_machines,
    lock_machines,
    register_machines,
)
from anomaly.database.meter_table import LARGEST_ID
from anomaly.database.scoring_runs import lock_publishing
from anomaly.errors import AnomalyError, MachineError
from anomaly.settings import MOST_ALERTS
from anomaly.windows import parse_moment
from anomaly.wording import printable

FIELDS = (
    "name", "site", "time_zone", "active_from", "active_to", "max_power_kw", "rolls_over_at",
    "alert_budget", "holidays",
)  # fmt: skip
"""What can be said of a machine."""
LIMITS = {"max_power_kw", "rolls_over_at"}
"""Fields by which readings are measured: verdicts that are out stay until they are scored again."""
LEARNT = {"time_zone", "alert_budget", "holidays"}
"""Fields that a version learns in training."""
_NEVER_EMPTY = ("name", "time_zone")


@dataclass
class MachineChanges:
    """Machines that were changed or added, and for each the fields that are new.

    ``ambiguous`` has new names that another machine has as well.
    """

    changed: dict[int, dict[str, Any]] = field(default_factory=dict)
    added: list[int] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)

    @property
    def next_steps(self) -> list[str]:
        """What remains to be done, in words."""
        new = {name for fields in self.changed.values() for name in fields}
        steps = [
            f"{name!r} is also the name or the id of another machine: commands find this one by"
            " its id only"
            for name in self.ambiguous
        ]
        if limits := {n for n, fields in self.changed.items() if LIMITS & fields.keys()}:
            numbers = ",".join(str(number) for number in sorted(limits))
            steps.append(
                "verdicts from now on follow the new limits; for those that are out run `anomaly"
                f" backfill --mode everything --machines {numbers} --start ... --end ...`"
            )
        if new & LEARNT:
            steps.append(f"{', '.join(sorted(new & LEARNT))}: models learn it in the next training")
        return steps


def change_machine(database: Database, machine: str, fields: Mapping[str, str]) -> MachineChanges:
    """Change what is known of one machine; an empty text clears a field.

    Parameters
    ----------
    machine : str
        Its id or name.
    fields : mapping of str to str
        Some of `FIELDS`, as people write them.

    Raises
    ------
    MachineError
        When there is no such machine, or a value makes no sense. Nothing is changed then.
    """
    changes = MachineChanges()
    with database.transaction(OWNER) as transaction:
        lock_publishing(transaction)  # the same order as in publishing
        lock_machines(transaction)
        number = find_machine(known_machines(transaction), machine)
        _change(transaction, _machines(transaction)[number], _parsed(fields), changes)
        _note_ambiguous(transaction, changes)
    return changes


def change_all_machines(database: Database, fields: Mapping[str, str]) -> MachineChanges:
    """Change what is known of every machine, as `change_machine`; each keeps its own name.

    Each in its own transaction: with a new time zone a year of hours and days is summed again,
    and nobody publishes meanwhile. If it dies in between, it can be repeated.
    """
    if "name" in fields:
        raise MachineError("a name is one machine's: write its id or name instead of --all")
    changes, parsed = MachineChanges(), _parsed(fields)
    with database.transaction(OWNER) as transaction:
        numbers = list(_machines(transaction))
    for number in numbers:
        with database.transaction(OWNER) as transaction:
            lock_publishing(transaction)  # the same order as in publishing
            lock_machines(transaction)
            for machine in _machines(transaction, [number]).values():  # none: removed meanwhile
                _change(transaction, machine, parsed, changes)
    return changes


def import_machines(
    database: Database, lines: Iterable[Mapping[str, str]], zone: str
) -> MachineChanges:
    """Change and add machines from the rows of a file, all of them or none.

    A row names its machine by ``source_key``, else by ``machine_id``, else by ``machine`` (an id or
    a name). A ``source_key`` that is not known yet is added, so that a machine has its name and its
    zone from its first reading on. A cell that is empty clears its field; of a machine that is new
    it stays what it is by default.

    Parameters
    ----------
    zone : str
        Time zone of new machines that name none.

    Raises
    ------
    MachineError
        Naming the row. Nothing is changed then.
    """
    changes = MachineChanges()
    with database.transaction(OWNER) as transaction:
        lock_publishing(transaction)  # the same order as in publishing
        lock_machines(transaction)
        rows, seen = list(lines), dict[int, int]()
        changes.added = _register_new(transaction, rows, zone)
        machines = _machines(transaction)
        by_key = {machine["source_key"]: number for number, machine in machines.items()}
        known = known_machines(transaction)
        for line, row in enumerate(rows, start=2):
            try:
                number = _number_of(row, by_key, known)
                if number in seen:
                    raise MachineError(f"machine {number} stands in row {seen[number]} already")
                seen[number] = line
                is_new = number in changes.added
                given = {
                    name: row[name] for name in FIELDS if name in row and (row[name] or not is_new)
                }
                _change(transaction, machines[number], _parsed(given), changes)
            except AnomalyError as error:
                raise MachineError(f"row {line}: {error}; nothing was changed") from None
        _note_ambiguous(transaction, changes)
    return changes


def _machines(
    transaction: Transaction, numbers: Sequence[int] | None = None
) -> dict[int, Mapping[str, Any]]:
    return {int(row["machine_id"]): dict(row) for row in list_machines(transaction, numbers)}


def _register_new(
    transaction: Transaction, rows: Sequence[Mapping[str, str]], zone: str
) -> list[int]:
    """Add the machines whose source key is not known yet; return their ids."""
    before = _machines(transaction)
    keys = {machine["source_key"] for machine in before.values()}
    wanted: dict[str, int | None] = {}
    for line, row in enumerate(rows, start=2):
        if (key := row.get("source_key", "")) and key not in keys:
            if key != key.strip():
                raise MachineError(
                    f"row {line}: source_key is {key!r}: remove the spaces around it; nothing was"
                    " changed"
                )
            number = _whole(line, row.get("machine_id", ""))
            if number in before or (number and number in wanted.values()):
                raise MachineError(
                    f"row {line}: machine_id {number} is another machine's: leave it empty; nothing"
                    " was changed"
                )
            wanted[key] = number
    if wanted:
        register_machines(transaction, wanted, zone)
    return sorted(_machines(transaction).keys() - before.keys())


def _number_of(row: Mapping[str, str], by_key: Mapping[str, int], known: pd.DataFrame) -> int:
    if key := row.get("source_key"):
        wanted = row.get("machine_id")
        if wanted and wanted != str(by_key[key]):
            raise MachineError(
                f"machine_id is {wanted!r}, and {key!r} is machine {by_key[key]}: correct one, or"
                " leave machine_id empty"
            )
        return by_key[key]
    name = row.get("machine_id") or row.get("machine")
    if not name:
        raise MachineError("no machine is named: fill source_key, machine_id or machine")
    return find_machine(known, name)


def _whole(line: int, text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= LARGEST_ID):
        raise MachineError(
            f"row {line}: machine_id is {text!r}: write a whole number from 1 to {LARGEST_ID}, or"
            " leave it empty; nothing was changed"
        )
    return int(text)


def _change(
    transaction: Transaction,
    machine: Mapping[str, Any],
    fields: Mapping[str, Any],
    changes: MachineChanges,
) -> None:
    number = int(machine["machine_id"])
    new = {name: value for name, value in fields.items() if machine[name] != value}
    whole = {name: machine[name] for name in FIELDS} | new
    since, until = whole["active_from"], whole["active_to"]
    if since and until and since >= until:
        raise MachineError(f"machine {number} would be in use from {since} to {until}: correct one")
    if new:
        describe_machine(transaction, number, whole)
        changes.changed[number] = new


def _note_ambiguous(transaction: Transaction, changes: MachineChanges) -> None:
    """Note new names that another machine has as its name or its id."""
    names = {number: row["name"] for number, row in _machines(transaction).items()}
    for number, fields in changes.changed.items():
        name = fields.get("name")
        others = [other for other in names if other != number]
        if name is not None and any(name in (names[other], str(other)) for other in others):
            changes.ambiguous.append(str(name))


def _parsed(fields: Mapping[str, str]) -> dict[str, Any]:
    return {name: _value(name, text.strip()) for name, text in fields.items()}


def _value(name: str, text: str) -> str | float | datetime | None:
    if not text:
        if name in _NEVER_EMPTY:
            raise MachineError(f"{name} is empty: write one, or leave it out")
        return "" if name == "site" else None
    if name in ("name", "site") and printable(text) != text:
        raise MachineError(f"{name} is {printable(text)!r}: write one line of plain text")
    if name == "time_zone" and text not in available_timezones():
        raise MachineError(
            f"time_zone is {text!r}, which does not exist: write one such as 'Europe/Berlin'"
        )
    if name == "holidays":
        from anomaly.detectors.signals.holiday_calendars import holiday_days

        holiday_days(text, 2024, 2024)
    if name in ("active_from", "active_to"):
        return parse_moment(text)
    if name in ("max_power_kw", "rolls_over_at", "alert_budget"):
        return _positive(name, text)
    return text


def _positive(name: str, text: str) -> float:
    most = MOST_ALERTS if name == "alert_budget" else float("inf")
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= most or number == float("inf"):
        limit = f" and at most {most:g}" if most < float("inf") else ""
        raise MachineError(f"{name} is {text!r}: write a number above 0{limit}, or nothing")
    return number
