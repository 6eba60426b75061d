"""What every command shares: the database, tables or JSON, and one line on failure."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from anomaly.errors import DatabaseError
from anomaly.postgres.database import Database
from anomaly.postgres.migrations import check_migrated
from anomaly.settings import Settings, load_settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Start = Annotated[str, typer.Option(help="First moment, e.g. 2017-03-07 or 2017-03-07T04:45Z.")]
End = Annotated[str, typer.Option(help="End, not included.")]

out = Console(soft_wrap=True)
notes = Console(stderr=True)


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
    typer.echo(f"error: {message}", err=True)
    sys.exit(1)


def print_json(value: object) -> None:
    """Print JSON; times in ISO 8601."""
    typer.echo(json.dumps(value, indent=2, default=_encode))


def _encode(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def print_facts(title: str, facts: dict[str, Any]) -> None:
    """Print names and values."""
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), _shown(value))
    out.print(table)


def print_rows(title: str, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print a table."""
    table = Table(*(name.replace("_", " ") for name in columns), title=title, title_justify="left")
    for row in rows:
        table.add_row(*(_shown(row[name]) for name in columns))
    out.print(table)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}Z"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return str(value)
