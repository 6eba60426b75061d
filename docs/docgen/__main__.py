"""Write every generated page and picture again."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomaly.database.connection import Database
from anomaly.database.migrations import migrate
from anomaly.demo.embedded_postgres import EmbeddedPostgres
from anomaly.settings import load_settings
from docgen import COMMAND_LINE, METRICS, PROJECT, ROOMS, SETTINGS, TABLES
from docgen.command_line_page import command_line_page
from docgen.metrics_page import metrics_page
from docgen.rooms_picture import rooms_picture
from docgen.settings_page import settings_page
from docgen.tables_page import tables_page


def main() -> None:
    """Make each page and say which files have changed."""
    with _migrated_database() as database:
        pages = {
            SETTINGS: settings_page(),
            COMMAND_LINE: command_line_page(),
            METRICS: metrics_page(),
            TABLES: tables_page(database.engine),
            ROOMS: rooms_picture(),
        }
    for file, text in pages.items():
        changed = not file.exists() or file.read_text(encoding="utf-8") != text
        file.write_text(text, encoding="utf-8")
        print(f"{'changed  ' if changed else 'unchanged'} {file.relative_to(PROJECT)}")


@contextmanager
def _migrated_database() -> Iterator[Database]:
    """A migrated, empty database on a server that goes away afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="anomaly-docs-"))
    folder.chmod(0o755)  # any account may reach the server below it
    settings = load_settings({})
    with EmbeddedPostgres(folder / "postgres", options={"fsync": "off"}) as server:
        server.create_database("docs")
        database = Database(server.url("docs"), settings.database)
        migrate(database, settings.meter_table)
        yield database
        database.dispose()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
