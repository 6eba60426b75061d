"""What every command shares: the database, tables, CSV or JSON, and one line on failure.

Text from data is printed as text: no word of it is markup, and what would steer a terminal
is shown by its code.
"""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from anomaly.errors import DatabaseError, SettingsError
from anomaly.postgres.database import Database
from anomaly.postgres.migrations import check_migrated
from anomaly.settings import Settings, load_settings
from anomaly.wording import printable, without_secrets

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")]
Start = Annotated[str, typer.Option(help="First moment, e.g. 2017-03-07 or 2017-03-07T04:45Z.")]
End = Annotated[str, typer.Option(help="End, not included.")]

_WHOLE = 100_000  # columns of what is no terminal: nothing is wrapped there, or cut

out = Console(markup=False, emoji=False, highlight=False)
notes = Console(stderr=True, markup=False, emoji=False, highlight=False)


def connect(*, migrated: bool = True) -> tuple[Database, Settings]:
    """Open the database of ``ANOMALY_DATABASE_URL``, with the settings."""
    settings = load_settings()
    if not settings.database_url:
        raise DatabaseError(
            "ANOMALY_DATABASE_URL is not set: write postgresql://user:password@host:5432/database"
        )
    database = Database(settings.database_url, settings)
    if migrated:
        check_migrated(database)
    return database, settings


def fail(message: str) -> None:
    """Say what is wrong in one line, and exit with 1."""
    typer.echo(f"error: {printable(without_secrets(message))}", err=True)
    sys.exit(1)


def print_json(value: object) -> None:
    """Print JSON; times in ISO 8601."""
    typer.echo(json.dumps(value, indent=2, default=_encode))


def _encode(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def say(text: str, *, style: str = "", to: Console = out) -> None:
    """Print text as it is, each of its lines whole."""
    for line in text.split("\n"):
        to.print(Text(printable(line)), style=style, soft_wrap=True)


def print_facts(title: str, facts: Mapping[str, Any]) -> None:
    """Print names and values."""
    table = Table(title=Text(title), show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), Text(_shown(value)))
    print_table(table)


def print_rows(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print a table: in a terminal its cells are wrapped, elsewhere each row is one line."""
    table = Table(title=Text(title), title_justify="left")
    for name in columns:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(row[name])) for name in columns))
    print_table(table)


def print_list(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    as_json: bool = False,
    as_csv: bool = False,
) -> None:
    """Print rows as JSON, as CSV (with a header, times in ISO 8601), or as a table."""
    if as_json and as_csv:
        raise SettingsError("--json and --csv exclude each other: write one of them")
    if as_json:
        return print_json([dict(row) for row in rows])
    if not as_csv:
        return print_rows(title, rows, columns)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_csv_cell(row[name]) for name in columns])


def print_table(table: Table) -> None:
    """Print a table: in a terminal its cells are wrapped, elsewhere each row is one line."""
    if out.is_terminal:
        out.print(table)
    else:
        Console(file=out.file, width=_WHOLE, markup=False, emoji=False).print(table)


def _csv_cell(value: object) -> object:
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list):
        return printable(", ".join(map(str, value)))
    return printable(str(value))


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        zone = "Z" if value.tzname() == "UTC" else f" {value:%Z}"
        return f"{value:%Y-%m-%d %H:%M}{zone}"
    if isinstance(value, timedelta):
        return f"{value / timedelta(hours=1):.1f} h"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list):
        return printable(", ".join(map(str, value))) or "-"
    return printable(str(value))
