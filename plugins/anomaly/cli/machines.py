"""``anomaly machines``: list, describe and remove the machines of the deployment."""

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from anomaly.cli.console import AsCsv, AsJson, connect, notes, print_json, print_list, say
from anomaly.database.connection import SCORER
from anomaly.database.machines import list_machines
from anomaly.errors import MachineError
from anomaly.operations.machine_changes import (
    FIELDS,
    MachineChanges,
    change_all_machines,
    change_machine,
    import_machines,
)
from anomaly.operations.machine_removal import remove_machine
from anomaly.wording import counted

machines_app = typer.Typer(help="Machines of the deployment.", no_args_is_help=True)

_COLUMNS = (
    "machine_id", "source_key", "name", "site", "time_zone", "active_from", "active_to",
    "max_power_kw", "rolls_over_at", "alert_budget", "holidays",
)  # fmt: skip


@machines_app.command("list")
def machines_list(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List machines by id.

    Example: anomaly machines list --csv
    """
    database, _ = connect()
    with database.transaction(SCORER, read_only=True) as transaction:
        rows = [dict(row) for row in list_machines(transaction)]
    print_list("Machines", rows, _COLUMNS, as_json=as_json, as_csv=as_csv)


@machines_app.command("set")
def machines_set(
    machine: Annotated[
        str | None, typer.Argument(help="Id or name of the machine; or write --all.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All machines.")] = False,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    site: Annotated[str | None, typer.Option(help="Where it stands.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="Zone of its working day.")] = None,
    active_from: Annotated[str | None, typer.Option(help="In use from then on (UTC).")] = None,
    active_to: Annotated[str | None, typer.Option(help="Retired then (UTC).")] = None,
    max_power_kw: Annotated[
        str | None, typer.Option(help="A reading above this power is impossible, kW.")
    ] = None,
    rolls_over_at: Annotated[
        str | None, typer.Option(help="Where its counter starts again at 0, kWh.")
    ] = None,
    alert_budget: Annotated[
        str | None, typer.Option(help="Incidents per week that are bearable.")
    ] = None,
    holidays: Annotated[
        str | None, typer.Option(help="Country or region of its public holidays: DE-BW.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Describe a machine. What is not written stays; an empty value ("") clears a field.

    Example: anomaly machines set 3 --name "Band saw" --site "Hall 2" --time-zone Europe/Berlin
    """
    options = locals()
    fields = {field: options[field] for field in FIELDS if options[field] is not None}
    if not fields:
        raise MachineError("nothing is to be changed: write at least one option, see --help")
    if every == (machine is not None):
        raise MachineError("write one machine, or --all")
    database, _ = connect()
    if machine is None:
        changes = change_all_machines(database, fields)
    else:
        changes = change_machine(database, machine, fields)
    _print_changes(changes, as_json)


@machines_app.command("import")
def machines_import(
    file: Annotated[Path, typer.Argument(help="CSV with a header, as `list --csv` writes it.")],
    as_json: AsJson = False,
) -> None:
    """Describe many machines by a file, all of them or none. Machines that are new are added.

    A row names its machine by source_key, machine_id or machine; the other columns are those of
    `anomaly machines list`. Columns that are not there stay as they are, empty cells are cleared.

    Example: anomaly machines list --csv > m.csv; edit it; anomaly machines import m.csv
    """
    database, settings = connect()
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            text = opened.read()
            between = max(",;\t", key=text.partition("\n")[0].count)
            reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=between)
            names, lines = list(reader.fieldnames or ()), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise MachineError(f"{file} is no CSV in UTF-8: {error}; save it as such") from None
    if not lines:
        raise MachineError(f"{file} has no rows: begin with `anomaly machines list --csv`")
    known = {"machine", *_COLUMNS}
    if wrong := [name for name in names if name not in known]:
        raise MachineError(
            f"{file} has a column {wrong[0]!r}: the columns are {', '.join(sorted(known))}"
        )
    if ragged := [
        n for n, line in enumerate(lines, start=2) if None in line or None in line.values()
    ]:
        raise MachineError(f"{file}, row {ragged[0]}: it has not as many cells as the header")
    zone = settings.meter.source_timezone or "UTC"
    _print_changes(import_machines(database, lines, zone), as_json)


def _print_changes(changes: MachineChanges, as_json: bool) -> None:
    if as_json:
        return print_json(asdict(changes) | {"next_steps": changes.next_steps})
    for number, fields in changes.changed.items():
        told = ", ".join(
            f"{name} is {value if value not in (None, '') else 'cleared'}"
            for name, value in fields.items()
        )
        say(f"machine {number}: {told}")
    known = changes.changed.keys() - set(changes.added)
    say(f"{counted(len(known), 'machine')} changed, {len(changes.added)} added")
    for step in changes.next_steps:
        say(f"note: {step}", style="yellow", to=notes)


@machines_app.command("remove")
def machines_remove(
    machine: Annotated[str, typer.Argument(help="Id or name of the machine.")],
    with_verdicts: Annotated[
        bool,
        typer.Option("--with-verdicts", help="Also delete its verdicts, incidents and labels."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a machine that a wrong setting created, or that nobody needs.

    As long as the meter table has readings of it, the next run adds it again.

    Example: anomaly machines remove 99 --with-verdicts
    """
    database, _ = connect()
    removed = remove_machine(database, machine, with_verdicts=with_verdicts)
    if as_json:
        return print_json(asdict(removed))
    say(
        f"machine {removed.machine_id} ({removed.machine}) was removed, with {removed.verdicts}"
        f" verdicts, {removed.incidents} incidents and {removed.labels} labels"
    )
