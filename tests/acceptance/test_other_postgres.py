"""The integration tests on the oldest Postgres that is supported: Debian's 15."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
BINARIES = Path("/usr/lib/postgresql/15/bin")

# They bring their own versions, or try much with statements that the others run as well (as the
# server's log of all statements showed; only two of the demo, and what tests ask themselves, are
# run by none).
LEFT_OUT = (
    "embedded_postgres", "stateful", "invariants", "killed_commands", "meter_reality", "promoting",
    "your_own_file_page", "files_to_verdicts", "weekly_on_real_readings", "vus_pr", "cli", "alerts",
    "incidents", "training", "backfill_command",
)  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.skipif(not BINARIES.is_dir(), reason="Debian's postgresql-15 is not installed")
def test_the_integration_tests_pass_on_postgres_15():
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-m", "not slow"]
    files = [f"tests/integration/test_{name}.py" for name in LEFT_OUT]
    assert all((PROJECT / file).exists() for file in files)
    result = subprocess.run(
        [*command, "tests/integration", *(f"--ignore={file}" for file in files)],
        cwd=PROJECT,
        env=os.environ | {"POSTGRES_BINARIES": str(BINARIES)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout[-6000:]
    assert " passed" in result.stdout
