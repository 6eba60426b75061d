"""Airflow for the tests of the DAGs: a metadata database of this process's own."""

import os
import tempfile
from pathlib import Path

PROJECT = Path(__file__).parents[2]
_HOME = tempfile.TemporaryDirectory(prefix="anomaly-airflow-")

# Airflow reads these once, when it is first imported.
os.environ |= {
    "AIRFLOW_HOME": _HOME.name,
    "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME.name}/airflow.db",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
}

import pytest  # noqa: E402  (Airflow's pytest plugins may import it)


@pytest.fixture(scope="session")
def project() -> Path:
    """Folder of the repository."""
    return PROJECT


@pytest.fixture(scope="session")
def airflow_metadata() -> None:
    """Create Airflow's own tables."""
    from airflow.utils import db

    db.initdb()
