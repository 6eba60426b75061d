"""The same integration tests on the oldest Postgres that is supported: Debian's 15."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
BINARIES = Path("/usr/lib/postgresql/15/bin")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.mark.skipif(not BINARIES.is_dir(), reason="Debian's postgresql-15 is not installed")
def test_the_integration_tests_pass_on_postgres_15():
    # The embedded server's own tests bring their own versions.
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-m", "not slow"]
    own = "tests/integration/test_embedded_postgres.py"
    result = subprocess.run(
        [*command, "tests/integration", "--ignore", own],
        cwd=PROJECT,
        # Random histories hold on any version: a few of them show that the SQL runs.
        env=os.environ | {"POSTGRES_BINARIES": str(BINARIES), "PROPERTIES": "quick"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout[-6000:]
    assert " passed" in result.stdout
