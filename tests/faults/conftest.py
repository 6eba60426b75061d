"""One plant per process, and the table of what was injected."""

import json
import os
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from anomaly.demo.embedded_postgres import EmbeddedPostgres
from faults.plant import Plant
from faults.table import write_table
from oracle_deployment import WIDE, Deployment

FULL = os.environ.get("FAULTS") == "full"
"""`make test-faults`: as often as the table wants it, and the table is written."""


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
    injected = defaultdict(list)
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "fault":
                    found = json.loads(value)
                    injected[found["number"], found["fault"]].append(found)
    if not injected:
        return
    from faults.test_faults import FAULTS

    rows = [
        {
            "number": number,
            "fault": fault,
            "times": len(found),
            "lost": sum(each["lost"] for each in found),
            "doubled": sum(each["doubled"] for each in found),
            "wrong": sum(each["wrong"] for each in found),
            "seconds": statistics.median(each["seconds"] for each in found),
            "longest": max(each["seconds"] for each in found),
        }
        for (number, fault), found in sorted(injected.items())
    ]
    for row in rows:
        terminalreporter.write_line(
            f"fault {row['number']:>2} {row['fault']}: {row['times']} times, lost {row['lost']},"
            f" doubled {row['doubled']}, wrong {row['wrong']}, recovered in {row['seconds']:.1f} s"
        )
    whole = {fault.says for fault in FAULTS} <= {row["fault"] for row in rows}
    if FULL and whole and exitstatus == 0:
        write_table(rows, Path(__file__).parents[2] / "docs" / "reference" / "faults.md")
    elif FULL:
        terminalreporter.write_line("the table is not written: not every fault passed")
