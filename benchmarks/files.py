"""``make bench-files``: ten million rows of a file, as fast as COPY takes in a clean one.

The baseline is what a database administrator would do: `COPY` of the same bytes into the same
table, by psycopg2, with nothing checked. Run as ``python -m benchmarks.files DATABASE_URL FILE`` a
file is loaded in a process of its own, so that memory is that load's alone.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from anomaly.database.connection import Database
from anomaly.settings import load_settings
from benchmarks.figures import Figure, in_a_process, memory, saying, seconds

ROWS = (1_000_000, 10_000_000)
OF_COPY = 2.0
"""A load may take this many times what COPY takes."""
FLAT = 1.2
"""Ten times the rows may take this many times the memory."""


_COLUMNS = "utc_timestamp, machine_1, machine_2"
_MINUTE = 60_000_000  # microseconds


def measure(database: Database, sizes: tuple[int, ...] = ROWS) -> list[Figure]:
    """Load ever longer files, each into an empty table, beside COPY."""
    figures: list[Figure] = []
    megabytes: dict[int, float] = {}
    with TemporaryDirectory(prefix="anomaly-bench-") as folder:
        for rows in sizes:
            for name, write in (("CSV", _plain), ("German CSV", _german)):
                figures.append(_beside_copy(database, Path(folder), rows, name, write, megabytes))
    few, many = min(sizes), max(sizes)
    figures.append(
        Figure.at_most(
            f"memory of {many:,} rows",
            megabytes[many],
            "MB",
            f"of {few:,} rows: {megabytes[few]:.0f} MB",
            megabytes[few],
            FLAT,
        )
    )
    return figures


def _beside_copy(
    database: Database,
    folder: Path,
    rows: int,
    name: str,
    write: Callable[[pa.Table, Path], None],
    megabytes: dict[int, float],
) -> Figure:
    table, clean, file = _readings(rows), folder / "clean.csv", folder / "file.csv"
    _plain(table, clean)
    write(table, file)
    with saying(f"{rows:,} rows of {name}"):
        _empty(database)
        copied = seconds(lambda: _copy(database, clean))
        _empty(database)
        url = database.engine.url.render_as_string(hide_password=False)
        taken = in_a_process("benchmarks.files", url, str(file))
    if taken["inserted"] != rows:
        raise AssertionError(f"{taken['inserted']} of {rows} rows were loaded")
    megabytes[rows] = max(taken["megabytes"], megabytes.get(rows, 0.0))
    return Figure.at_most(
        f"{rows:,} rows of {name}: {taken['seconds'] / rows * 1e6:.1f} us each",
        taken["seconds"],
        "s",
        f"COPY of clean CSV: {copied:.1f} s",
        copied,
        OF_COPY,
    )


def _readings(rows: int) -> pa.Table:
    """Two counters, read each minute."""
    random = np.random.default_rng(1)
    counted = np.cumsum(random.random((rows, 2)), axis=0).round(3)
    at = pa.array(np.arange(rows) * _MINUTE).cast(pa.timestamp("us"))
    return pa.table({"at": at, "one": counted[:, 0], "two": counted[:, 1]})


def _plain(table: pa.Table, file: Path) -> None:
    stamps = pc.strftime(table["at"].cast(pa.timestamp("s")), "%Y-%m-%d %H:%M:%SZ")
    _write(table.set_column(0, "utc_timestamp", stamps), file, ",")


def _german(table: pa.Table, file: Path) -> None:
    stamps = pc.strftime(table["at"].cast(pa.timestamp("s")), "%d.%m.%Y %H:%M")
    numbers = [
        pc.replace_substring(table[name].cast(pa.string()), ".", ",") for name in ("one", "two")
    ]
    _write(pa.table([stamps, *numbers], ["at", "one", "two"]), file, ";")


def _write(table: pa.Table, file: Path, delimiter: str) -> None:
    names = _COLUMNS.split(", ")
    options = arrow_csv.WriteOptions(delimiter=delimiter, quoting_style="none")
    arrow_csv.write_csv(table.rename_columns(names), file, options)


def _empty(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE anomaly.meter_readings")


def _copy(database: Database, file: Path) -> None:
    raw = database.engine.raw_connection()
    try:
        with closing(raw.cursor()) as cursor, file.open("rb") as stream:
            statement = f"COPY anomaly.meter_readings ({_COLUMNS}) FROM STDIN (FORMAT csv, HEADER)"
            cursor.copy_expert(statement, stream)
        raw.commit()
    finally:
        raw.close()


def run(url: str, file: str) -> None:
    """Load a file, and print seconds and the peak of resident memory."""
    from anomaly.loading.files import ingest

    settings = load_settings({}, source_timezone="UTC", interval_minutes=1)
    database = Database(url, settings.database)
    began = time.perf_counter()
    report = ingest(database, settings.meter_table, settings.meter, Path(file))
    taken = time.perf_counter() - began
    print(json.dumps({"seconds": taken, "megabytes": memory(), "inserted": report.inserted}))


def main() -> None:
    """Measure, print the table and write it to the docs."""
    from benchmarks.deployments import deployment
    from benchmarks.figures import PAGE, print_table, write_page

    with deployment() as (database, _):
        figures = measure(database)
    print_table(figures)
    write_page(PAGE, "bench-files", figures)


if __name__ == "__main__":
    run(*sys.argv[1:]) if len(sys.argv) > 1 else main()
