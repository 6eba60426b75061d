"""``anomaly status``: the state of the deployment, problems first."""

from datetime import UTC, datetime

import typer

from anomaly.cli.console import (
    NEEDS_ATTENTION,
    AsJson,
    connect,
    print_facts,
    print_json,
    print_rows,
    say,
)
from anomaly.cli.incidents import print_incidents
from anomaly.operations.status import Status
from anomaly.operations.status import status as read_status


def status(as_json: AsJson = False) -> None:
    """Show the state of the deployment, problems first. Exits with 3 if there are any.

    Example: anomaly status --json
    """
    database, settings = connect()
    found = read_status(database, settings, datetime.now(UTC))
    if as_json:
        print_json(found.as_dict())
    else:
        _print_status(found)
    if found.problems:
        raise typer.Exit(NEEDS_ATTENTION)


def _print_status(found: Status) -> None:
    for problem in found.problems:
        say(f"needs attention: {problem}", style="yellow")
    if found.incidents:
        print_incidents("Open incidents", found.incidents)
    elif not found.problems:
        say("Nothing needs attention.")
    facts = found.as_dict()
    del facts["problems"], facts["incidents"], facts["skipped_advice"]  # printed above
    machines, runs = facts.pop("machines"), facts.pop("runs")
    print_facts("Status", facts)
    print_rows("Machines", machines, tuple(machines[0]) if machines else ())
    if runs:
        columns = ("window_start", "window_end", "origin", "readings", "inserted", "updated",
                   "retracted", "anomalies")  # fmt: skip
        print_rows("Last windows with readings or changes", runs, columns)
