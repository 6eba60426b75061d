"""One plant per process, and the table of what was injected."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from anomaly.demo.embedded_postgres import EmbeddedPostgres
from faults.plant import Plant
from faults.table import FULL, missing, rows_of, write_table
from oracle_deployment import WIDE, Deployment


@pytest.fixture(scope="session")
def plant(
    postgres: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Plant]:
    """A deployment in miniature with three trained versions."""
    name = "faults"
    postgres.create_database(name, template=migrated)
    deployment = Deployment(postgres, name, WIDE, tmp_path_factory.mktemp("models"))
    yield Plant(postgres, deployment)
    deployment.close()
    postgres.drop_database(name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """Print the table, and write it where all of it was asked for and passed."""
    outcomes = ("passed", "failed", "skipped")
    rows = rows_of(
        report for outcome in outcomes for report in terminalreporter.getreports(outcome)
    )
    for row in rows:
        terminalreporter.write_line(row.as_text)
    if not (FULL and rows):
        return
    from faults.test_faults import FAULTS

    says = missing(rows, [fault.says for fault in FAULTS])
    if exitstatus:
        says.append("not every test passed")
    if says:
        terminalreporter.write_line("the table is not written: " + "; ".join(says))
    else:
        write_table(rows, Path(__file__).parents[2] / "docs" / "reference" / "faults.md")
