"""The command ``ingest``: files of readings into the meter table, or a look at what they hold."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from anomaly.cli.console import AsJson, connect, notes, print_facts, print_json, print_rows, say
from anomaly.database.meter_table_loading import OWN_TABLE
from anomaly.loading.files import ingest as ingest_file
from anomaly.loading.files import preview as preview_file
from anomaly.loading.number_parsing import Decimal
from anomaly.loading.options import FileOptions, parse_columns
from anomaly.loading.taken_for import TakenFor
from anomaly.loading.time_parsing import Order
from anomaly.settings import (
    ReadingKind,
    TimestampLabel,
    load_settings,
)


class Dates(StrEnum):
    """How 3/4/2024 is read: as the third of April, or as the fourth of March."""

    DAY_FIRST = Order.DAY_FIRST.value
    MONTH_FIRST = Order.MONTH_FIRST.value


class Unit(StrEnum):
    """Units of readings."""

    WH = "Wh"
    KWH = "kWh"
    MWH = "MWh"
    W = "W"
    KW = "kW"
    MW = "MW"


def ingest(
    file: Annotated[
        Path,
        typer.Argument(help="CSV in any dialect, also .gz or .zip; .xlsx; Parquet; JSON lines."),
    ],
    preview: Annotated[
        bool,
        typer.Option(
            "--preview",
            help="Show what the file is taken for and its first readings; load nothing.",
        ),
    ] = False,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            help="A column of the file and what it is in the table, 'Usage_kWh=machine_1'. Date and"
            " time in two columns: name both. 'their name=' leaves it out. May be repeated."
        ),
    ] = None,
    ignore_unknown: Annotated[
        bool, typer.Option("--ignore-unknown", help="Leave out columns that the table lacks.")
    ] = False,
    kind: Annotated[
        ReadingKind | None,
        typer.Option(help="What the file's readings are; default: ANOMALY_READING_KIND."),
    ] = None,
    unit: Annotated[
        Unit | None,
        typer.Option(
            help="Their unit; default: the one that the column names, else ANOMALY_READING_UNIT."
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            help="Zone of times without one, 'Europe/Berlin'; default: ANOMALY_SOURCE_TIMEZONE."
        ),
    ] = None,
    label: Annotated[
        TimestampLabel | None,
        typer.Option(
            help="Which end of its interval a time names; default: ANOMALY_TIMESTAMP_LABEL."
        ),
    ] = None,
    dates: Annotated[
        Dates | None, typer.Option(help="How 3/4/2024 is read where the file does not tell.")
    ] = None,
    decimal: Annotated[
        Decimal | None,
        typer.Option(help="The decimal mark, where the file does not tell: 1.234 or 1,234."),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of a text file, where it is not found out: cp1252.")
    ] = None,
    sheet: Annotated[str | None, typer.Option(help="Of a workbook with several sheets.")] = None,
    rejects: Annotated[
        Path | None,
        typer.Option(help="Write the rows that cannot be read to this CSV file, with the reason."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Load readings from a file: all of it or nothing, safe to repeat.

    Example: anomaly ingest readings.csv --timezone Europe/Berlin --preview
    """
    options = FileOptions(
        columns=parse_columns(columns or []),
        ignore_unknown=ignore_unknown,
        kind=kind,
        unit=None if unit is None else unit.value,
        timezone=timezone,
        label=label,
        dates=None if dates is None else Order(dates.value),
        decimal=decimal,
        encoding=encoding,
        sheet=sheet,
        rejects=rejects,
    )
    if preview:
        return _preview(file, options, as_json=as_json)
    # Somebody else's table is written by a log-in with none of the product's roles.
    is_own = load_settings().meter_table.source_name == OWN_TABLE
    database, settings = connect(migrated=is_own)
    with _progress(file) as progress:
        report = ingest_file(
            database,
            settings.meter_table,
            settings.meter,
            file,
            options,
            progress=progress,
            announce=None if as_json else _announce,
        )
    if as_json:
        return print_json(asdict(report))
    print_facts("Loaded", report.counts())


def _preview(file: Path, options: FileOptions, *, as_json: bool) -> None:
    settings = load_settings()
    with _progress(file) as progress:
        found = preview_file(file, settings.meter_table, settings.meter, options, progress=progress)
    if as_json:
        return print_json(asdict(found))
    facts = {name: value for name, value in asdict(found.taken_for).items() if value != ""}
    print_facts("Taken for", facts)
    if found.readings:
        rows = [row | {"reading": f"{row['reading']:.12g}"} for row in found.readings]
        print_rows("First readings", rows, tuple(rows[0]))
    say("Nothing was loaded.")


def _announce(taken_for: TakenFor) -> None:
    for line in taken_for.lines():
        say(line)


@contextmanager
def _progress(file: Path) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, of the bytes of the file that have been read."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(
        *columns, console=notes, transient=True, disable=not notes.is_terminal
    ) as progress:
        bar = progress.add_task(f"reading {file.name}", total=None)
        yield lambda read, size: progress.update(bar, completed=read, total=size)
