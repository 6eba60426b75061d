"""``anomaly machines``: list the machines of the deployment, and remove one."""

from dataclasses import asdict
from typing import Annotated

import typer

from anomaly.cli.console import AsCsv, AsJson, connect, print_json, print_list, say
from anomaly.database.connection import SCORER
from anomaly.database.machines import list_machines
from anomaly.operations.machine_removal import remove_machine

machines_app = typer.Typer(help="Machines that the deployment knows.", no_args_is_help=True)

_COLUMNS = (
    "machine_id", "source_key", "name", "site", "time_zone", "active_from", "active_to",
    "max_power_kw", "rolls_over_at", "alert_budget", "holidays",
)  # fmt: skip


@machines_app.command("list")
def machines_list(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List machines by id."""
    database, _ = connect()
    with database.transaction(SCORER, read_only=True) as transaction:
        rows = [dict(row) for row in list_machines(transaction)]
    print_list("Machines", rows, _COLUMNS, as_json=as_json, as_csv=as_csv)


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
    """
    database, _ = connect()
    removed = remove_machine(database, machine, with_verdicts=with_verdicts)
    if as_json:
        return print_json(asdict(removed))
    say(
        f"machine {removed.machine_id} ({removed.machine}) was removed, with {removed.verdicts}"
        f" verdicts, {removed.incidents} incidents and {removed.labels} labels"
    )
