"""The page of all tables and views, made from the comments in a migrated database."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from docgen import NOTE

_INTRODUCTION = """\
# Tables and views

These descriptions are comments in the database, where most tools show them (`\\d+` in psql).
BI tools read the views of the schema `bi`; their names and columns stay as they are, and new
columns are added at the end. The schema `anomaly` is the product's own: read it, but let only
the product write it. The exceptions are columns of `anomaly.machines` that only you can know:
`name`, `site`, `time_zone`, `active_from`, `active_to`, `max_power_kw`, `rolls_over_at` and
`alert_budget` (and `source_key`, to [rename a machine](../how-to/rename-a-machine.md)).
Times are UTC."""
_SHORT = {"timestamp with time zone": "timestamptz", "double precision": "double"}


def tables_page(database: Engine) -> str:
    """The page as Markdown: a section per view and table, with every column."""
    columns, others = _rows(database, "columns.sql"), _rows(database, "types_and_functions.sql")
    lines = [NOTE, _INTRODUCTION]
    for (schema, name), rows in groupby(columns, lambda row: (row["schema"], row["name"])):
        lines += _section(f"{schema}.{name}", list(rows))
    lines += [
        "",
        "## Types and functions",
        "",
        "| | values or arguments | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{row['name']}` | {row['details']} | {row['about']} |" for row in others]
    return "\n".join(lines) + "\n"


def without_comment(database: Engine) -> list[str]:
    """Tables, views and columns that no comment describes."""
    return [
        f"{row['schema']}.{row['name']}.{row['column_name']}"
        for row in _rows(database, "columns.sql")
        if not row["about"] or not row["meaning"]
    ]


def _rows(database: Engine, query: str) -> list[dict[str, Any]]:
    statement = Path(__file__).with_name(query).read_text(encoding="utf-8")
    with database.connect() as connection:
        found = connection.exec_driver_sql(statement).mappings().all()
    return [dict(row) for row in found]


def _section(title: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    kind = "View" if rows[0]["is_view"] else "Table"
    about = str(rows[0]["about"])
    stop = "" if about.endswith("?") else "."
    yield from ("", f"## `{title}`", "", f"{kind}. {about}{stop}", "")
    yield from ("| column | type | meaning |", "|---|---|---|")
    for row in rows:
        kind = _SHORT.get(row["type"], row["type"])
        yield f"| `{row['column_name']}` | {kind} | {row['meaning']} |"
