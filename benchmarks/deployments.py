"""A Postgres of the benchmarks' own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomaly.demo.embedded_postgres import EmbeddedPostgres
from anomaly.postgres.database import Database
from anomaly.postgres.migrations import migrate
from anomaly.settings import Settings, load_settings


@contextmanager
def deployment() -> Iterator[tuple[Database, Settings]]:
    """An empty, migrated database, with the defaults of Postgres for safety."""
    with tempfile.TemporaryDirectory(prefix="anomaly-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        settings = load_settings({}, models_url=str(folder / "models"), chunk_days=92)
        with EmbeddedPostgres(folder / "postgres") as server:
            server.create_database("bench")
            database = Database(server.url("bench"), settings)
            migrate(database, settings)
            yield database, settings
            database.dispose()
            server.destroy()
