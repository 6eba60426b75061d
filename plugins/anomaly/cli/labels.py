"""``anomaly labels``: what people said, and taking it back."""

from dataclasses import asdict
from typing import Annotated

import typer

from anomaly.cli.console import AsCsv, AsJson, connect, print_json, print_list, say
from anomaly.cli.incidents import By
from anomaly.labelling import take_back
from anomaly.postgres.database import SCORER
from anomaly.postgres.machines import find_machine, known_machines
from anomaly.training import current_user

labels_app = typer.Typer(help="What people said of machines.", no_args_is_help=True)

_COLUMNS = (
    "label_id", "machine_id", "machine", "label", "starts_at", "ends_at", "note", "labelled_by",
    "labelled_at",
)  # fmt: skip


@labels_app.command("list")
def labels_list(
    machine: Annotated[
        str | None, typer.Option(help="Of this machine only, by id or name.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Those that were taken back as well.")
    ] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List labels, newest first; times are UTC."""
    database, _ = connect()
    with database.transaction(SCORER, read_only=True) as transaction:
        known = known_machines(transaction)
        rows = transaction.rows(
            "list_labels",
            machine_id=None if machine is None else find_machine(known, machine),
            withdrawn=everything,
            start=None,
            end=None,
        )
    columns = (*_COLUMNS, *(("withdrawn_by", "withdrawn_at") if everything else ()))
    print_list("Labels", [dict(row) for row in rows], columns, as_json=as_json, as_csv=as_csv)


@labels_app.command("remove")
def labels_remove(
    label: Annotated[int, typer.Argument(help="Number of the label.", min=1)],
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Take a label back: it counts no more, and stays on record."""
    database, settings = connect()
    done = take_back(database, settings, label, by=by or current_user())
    if as_json:
        return print_json(asdict(done))
    say(
        f"label {done.label_id} ({done.label.value}, machine {done.machine_id}, {done.machine})"
        f" was taken back by {done.withdrawn_by} at {done.withdrawn_at:%Y-%m-%d %H:%M}Z;"
        f" {done.incidents_changed} incidents changed"
    )
