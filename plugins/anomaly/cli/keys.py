"""``anomaly keys``: make, list and revoke the keys of the API."""

from typing import Annotated

import typer

from anomaly.cli.console import AsCsv, AsJson, connect, print_json, print_list, say
from anomaly.cli.incidents import By
from anomaly.current_user import current_user
from anomaly.database.api_keys import list_keys
from anomaly.database.connection import SCORER
from anomaly.operations.api_keys import create_key, take_key_away

keys_app = typer.Typer(help="Make, list and revoke the keys of the API.", no_args_is_help=True)

_COLUMNS = ("key_id", "name", "can_label", "created_at", "created_by")


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="Who uses it; stands beside labels.")],
    can_label: Annotated[
        bool, typer.Option("--can-label", help="Labels may be given with it, too.")
    ] = False,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Make a key, and show it; nobody can show it again.

    Example: anomaly keys create "line 3 gateway"
    """
    database, _ = connect()
    key, row = create_key(database, name, can_label=can_label, by=by or current_user())
    if as_json:
        return print_json({**row, "key": key})
    say(f"key of {row['name']}, shown this once (send it as Authorization: Bearer KEY):")
    say(key)


@keys_app.command("list")
def keys_list(
    everything: Annotated[bool, typer.Option("--all", help="Also revoked keys.")] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List keys, newest first; the keys themselves are not stored.

    Example: anomaly keys list --all
    """
    database, _ = connect()
    with database.transaction(SCORER, read_only=True) as transaction:
        rows = list_keys(transaction, revoked=everything)
    columns = (*_COLUMNS, *(("revoked_at", "revoked_by") if everything else ()))
    print_list("Keys", [dict(row) for row in rows], columns, as_json=as_json, as_csv=as_csv)


@keys_app.command("revoke")
def keys_revoke(
    name: Annotated[str, typer.Argument(help="Name of the key.")],
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Revoke a key; within seconds nobody can ask with it.

    Example: anomaly keys revoke "line 3 gateway"
    """
    database, _ = connect()
    row = take_key_away(database, name, by=by or current_user())
    if as_json:
        return print_json(dict(row))
    say(f"the key of {row['name']} is revoked")
