"""``anomaly models``: what versions there are, and which is in force."""

import typer

from anomaly.cli.console import AsJson, connect, print_json, print_rows

models_app = typer.Typer(help="Model versions.", no_args_is_help=True)


@models_app.command("list")
def models_list(as_json: AsJson = False) -> None:
    """List model versions, newest first."""
    database, _ = connect()
    with database.transaction(read_only=True) as transaction:
        rows = [dict(row) for row in transaction.rows("model_versions")]
    if as_json:
        return print_json(rows)
    columns = (
        "version",
        "in_force",
        "detector",
        "status",
        "trained_from",
        "trained_to",
        "readings",
    )
    print_rows("Model versions", rows, columns)
