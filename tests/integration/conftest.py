"""Settings under which a forest is trained in a blink."""

from pathlib import Path

import pytest

from anomaly.settings import Settings, load_settings
from integration_settings import SMALL


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings with a small forest and a models folder of the test's own."""
    return load_settings({}, models_url=str(tmp_path / "models"), **SMALL)
