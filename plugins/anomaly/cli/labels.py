"""``anomaly labels``: list labels and take them back."""

from dataclasses import asdict
from typing import Annotated

import typer

from anomaly.cli.console import AsCsv, AsJson, connect, print_json, print_list, say
from anomaly.cli.incidents import By
from anomaly.current_user import current_user
from anomaly.database.connection import SCORER
from anomaly.database.labels import list_labels
from anomaly.database.machines import find_machine, known_machines
from anomaly.incidents.operator_feedback import take_back

labels_app = typer.Typer(help="What people said about machines.", no_args_is_help=True)

_COLUMNS = (
    "label_id", "machine_id", "machine", "label", "starts_at", "ends_at", "note", "labelled_by",
    "labelled_at",
)  # fmt: skip


@labels_app.command("list")
def labels_list(
    machine: Annotated[
        str | None, typer.Option(help="Only labels of this machine (id or name).")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also labels that were taken back.")
    ] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List labels, newest first; times are UTC.

    Example: anomaly labels list --machine Saw --all
    """
    database, _ = connect()
    with database.transaction(SCORER, read_only=True) as transaction:
        known = known_machines(transaction)
        rows = list_labels(
            transaction,
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
    """Take a label back: it does not count any more, but stays on record.

    Example: anomaly labels remove 3
    """
    database, settings = connect()
    done = take_back(database, settings.meter, settings.incidents, label, by=by or current_user())
    if as_json:
        return print_json(asdict(done))
    say(
        f"label {done.label_id} ({done.label.value}, machine {done.machine_id}, {done.machine})"
        f" was taken back by {done.withdrawn_by} at {done.withdrawn_at:%Y-%m-%d %H:%M}Z;"
        f" {done.incidents_changed} incidents changed"
    )
