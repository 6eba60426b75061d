"""A real standalone Airflow on a real Postgres, one of each test module that asks for it.

A module may say under which ``SETTINGS`` its deployment runs.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from anomaly.database.connection import Database
from anomaly.database.migrations import migrate
from anomaly.demo.airflow_server import AirflowServer
from anomaly.demo.embedded_postgres import EmbeddedPostgres
from anomaly.settings import Settings, load_settings
from anomaly.windows import floor_to_interval
from deployment import QUARTER, own_log_in
from integration_settings import SMALL

APP, PASSWORD = "acceptance_app", "secret"
USERS = "admin:admin,looker:viewer"


@pytest.fixture(scope="module")
def chosen(request: pytest.FixtureRequest) -> dict[str, object]:
    """Give the settings that the module chose."""
    return getattr(request.module, "SETTINGS", SMALL)


@pytest.fixture(scope="module")
def settings(chosen: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return them, with a models folder of the module's own."""
    return load_settings({}, models_url=str(tmp_path_factory.mktemp("models")), **chosen)


@pytest.fixture(scope="module")
def database_name(request: pytest.FixtureRequest) -> str:
    """Name the module's databases: Airflow's has a suffix."""
    return request.module.__name__.rpartition(".")[2].removeprefix("test_")


@pytest.fixture(scope="module")
def anomaly_url(postgres: EmbeddedPostgres, database_name: str) -> str:
    """Address of the module's own database."""
    own_log_in(postgres, APP, PASSWORD)
    postgres.create_database(database_name, owner=APP)
    return postgres.url(database_name, APP, PASSWORD)


@pytest.fixture(scope="module")
def database(anomaly_url: str, settings: Settings) -> Iterator[Database]:
    """Migrate it."""
    database = Database(anomaly_url, settings.database)
    migrate(database, settings.meter_table)
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def today() -> datetime:
    """Start of the quarter-hour in which the module began."""
    return floor_to_interval(datetime.now(UTC), QUARTER)


@pytest.fixture(scope="module")
def environment(chosen: dict[str, object], settings: Settings) -> dict[str, str]:
    """Return the settings as Airflow and the command line read them."""
    return {
        "ANOMALY_MODELS_URL": settings.models.models_url,
        "ANOMALY_DAG_RETRY_DELAY_SECONDS": "1",
        **{f"ANOMALY_{name.upper()}": str(value) for name, value in chosen.items()},
    }


@pytest.fixture(scope="module")
def airflow(
    postgres: EmbeddedPostgres,
    database_name: str,
    database: Database,
    anomaly_url: str,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[AirflowServer]:
    """Start an Airflow on the module's database, with every DAG paused."""
    metadata = f"{database_name}_airflow"
    postgres.create_user(metadata, PASSWORD)
    postgres.create_database(metadata, owner=metadata)
    server = AirflowServer(
        tmp_path_factory.mktemp("airflow"),
        project=Path(__file__).parents[2],
        metadata_url=postgres.url(metadata, metadata, PASSWORD),
        anomaly_url=anomaly_url,
        environment={"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": USERS, **environment},
    )
    server.start()
    try:
        server.wait_until_healthy()
        yield server
    finally:
        server.stop()
