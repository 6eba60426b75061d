"""A Postgres of the benchmarks' own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomaly.database.connection import Database
from anomaly.database.migrations import migrate
from anomaly.demo.embedded_postgres import EmbeddedPostgres
from anomaly.lifecycle.promotion import Promoter
from anomaly.lifecycle.training import Trainer
from anomaly.settings import Settings, load_settings
from anomaly.windows import Window


@contextmanager
def deployment() -> Iterator[tuple[Database, Settings]]:
    """An empty, migrated database, with the defaults of Postgres for safety."""
    with tempfile.TemporaryDirectory(prefix="anomaly-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        settings = load_settings({}, models_url=str(folder / "models"), chunk_days=92)
        with EmbeddedPostgres(folder / "postgres") as server:
            server.create_database("bench")
            database = Database(server.url("bench"), settings.database)
            migrate(database, settings.meter_table)
            yield database, settings
            database.dispose()
            server.destroy()


def train_in_force(database: Database, settings: Settings, window: Window) -> None:
    """Train on a window, and let the version judge from the next reading on."""
    trainer = Trainer(database, settings)
    report = trainer.register(trainer.train(window), by="bench")
    Promoter(database, settings).promote(report.version, by="bench", reason="trained")
