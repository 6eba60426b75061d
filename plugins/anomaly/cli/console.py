"""What all commands use: the database, tables, CSV or JSON, and one line on failure.

Text from data is printed as it is. It is never read as markup, and control characters are shown by
their codes, a line break too: so no text from data is taken for a line of ours.
"""

import csv
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from anomaly.database.connection import Database
from anomaly.database.migrations import check_migrated
from anomaly.errors import DatabaseError, SettingsError
from anomaly.settings import LogFormat, Settings, load_settings
from anomaly.wording import csv_cell, printable, safe_line

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")]
Start = Annotated[str, typer.Option(help="First moment, e.g. 2017-03-07 or 2017-03-07T04:45Z.")]
End = Annotated[str, typer.Option(help="End, not included.")]

NEEDS_ATTENTION = 3
"""Exit code when something needs attention. Code 1 is an error, 2 is wrong usage."""

_NO_WRAP_WIDTH = 100_000  # width without a terminal: so wide that no row is wrapped or cut

out = Console(markup=False, emoji=False, highlight=False)
notes = Console(stderr=True, markup=False, emoji=False, highlight=False)


def connect(
    *, migrated: bool = True, longest_statement: int | None = None
) -> tuple[Database, Settings]:
    """Open the database of ``ANOMALY_DATABASE_URL``, with the settings.

    Parameters
    ----------
    migrated : bool
        Refuse a database that lacks a migration.
    longest_statement : int, optional
        Limit of a statement in seconds, where the settings have a longer one.
    """
    settings = load_settings()
    if settings.log.log_format is LogFormat.JSON:
        _log_published_windows()
    if not settings.database.database_url:
        raise DatabaseError(
            "ANOMALY_DATABASE_URL is not set: write postgresql://user:password@host:5432/database"
        )
    limits = settings.database
    if longest_statement is not None:
        longest = min(limits.statement_timeout_seconds or longest_statement, longest_statement)
        limits = limits.model_copy(update={"statement_timeout_seconds": longest})
    database = Database(limits.database_url, limits)
    if migrated:
        check_migrated(database)
    return database, settings


def _log_published_windows() -> None:
    log = logging.getLogger("anomaly.published")
    log.setLevel(logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLine())
    log.handlers[:] = [handler]


class JsonLine(logging.Formatter):
    """What happened as a line of JSON; the facts of a published window, or of a request, apart."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat()
        facts = getattr(record, "published", None) or getattr(record, "facts", {})
        if record.levelno > logging.INFO:
            facts = {"level": record.levelname.lower(), **facts}
        if record.exc_info:
            facts = {**facts, "traceback": self.formatException(record.exc_info)}
        return json.dumps({"timestamp": moment, "event": record.getMessage(), **facts})


def fail(first: str, *others: str) -> None:
    """Print the failure, each text as one line, and exit with 1."""
    typer.echo("\n".join(map(safe_line, (f"error: {first}", *others))), err=True)
    sys.exit(1)


def print_json(value: object) -> None:
    """Print JSON; times in ISO 8601."""
    typer.echo(json.dumps(value, indent=2, default=_json_value))


def _json_value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def say(*lines: str, style: str = "", to: Console = out) -> None:
    """Print each text as one line, which is not wrapped."""
    for line in lines:
        to.print(Text(printable(line)), style=style, soft_wrap=True)


def print_facts(title: str, facts: Mapping[str, Any]) -> None:
    """Print names and values."""
    table = Table(title=Text(title), show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), Text(_cell_text(value)))
    print_table(table)


def print_rows(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print rows as a table, see `print_table`."""
    table = Table(title=Text(title), title_justify="left")
    for name in columns:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell_text(row[name])) for name in columns))
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
        writer.writerow([csv_cell(row[name]) for name in columns])


def print_table(table: Table) -> None:
    """Print a table. In a terminal its cells are wrapped; elsewhere each row is one line."""
    if out.is_terminal:
        out.print(table)
    else:
        Console(file=out.file, width=_NO_WRAP_WIDTH, markup=False, emoji=False).print(table)


def _cell_text(value: object) -> str:
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
