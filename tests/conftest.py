"""One real Postgres a test run; every test that asks for a database gets its own copy of one."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from alert_receivers import Mailbox, Webhook

from anomaly.database.connection import Database
from anomaly.database.migrations import migrate
from anomaly.demo.embedded_postgres import EmbeddedPostgres
from anomaly.settings import Settings, load_settings
from command_line import CommandLine
from one_airflow import OneAirflowAtATime

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
# A crash of the test server costs nothing, so it need not wait for the disk.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

# A busy machine makes no property false.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

for _name in [name for name in os.environ if name.startswith("ANOMALY_")]:
    del os.environ[_name]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneAirflowAtATime | None:
    """Share out the slow tests (``--dist loadgroup``)."""
    return OneAirflowAtATime(config, log) if config.getoption("dist") == "loadgroup" else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """Start a real server, below a folder that any account may reach."""
    folder = Path(tempfile.mkdtemp(prefix="anomaly-tests-"))
    folder.chmod(0o755)
    binaries = os.environ.get("POSTGRES_BINARIES")
    server = EmbeddedPostgres(
        folder / "postgres", binaries=Path(binaries) if binaries else None, options=FAST
    )
    with server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def migrated(postgres: EmbeddedPostgres) -> str:
    """Name of a migrated, empty database to copy."""
    postgres.create_database("migrated")
    settings = load_settings()
    database = Database(postgres.url("migrated"), settings.database)
    migrate(database, settings.meter_table)
    database.dispose()
    return "migrated"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the default settings, with a models folder of the test's own."""
    return load_settings(models_url=str(tmp_path / "models"))


@pytest.fixture
def database(postgres: EmbeddedPostgres, migrated: str, settings: Settings) -> Iterator[Database]:
    """Copy the migrated database for one test."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    postgres.create_database(name, template=migrated)
    database = Database(postgres.url(name), settings.database)
    yield database
    database.dispose()
    postgres.drop_database(name)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """Start a real webhook."""
    with Webhook() as server:
        yield server


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """Start a real mail server."""
    with Mailbox() as server:
        yield server


@pytest.fixture(scope="session")
def command_line() -> Iterator[CommandLine]:
    """Runs commands of the command line."""
    runner = CommandLine()
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real readings, where there is one."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real readings (../shared/data) are not on this machine")
    return SHARED_DATA


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured (``record_property``) above the summary line."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")
