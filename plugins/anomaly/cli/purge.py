"""``anomaly purge``: delete what is older than is kept."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from anomaly.cli.console import AsJson, connect, print_facts, print_json
from anomaly.errors import SettingsError
from anomaly.operations.purging import purge as purge_database


def purge(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be deleted; delete nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete verdicts, history, ledger and alerts that are older than is kept.

    The DAG reconcile_scores does it each day.

    Example: ANOMALY_KEEP_RESULTS_MONTHS=24 anomaly purge --dry-run
    """
    database, settings = connect()
    if not settings.retention.deletes:
        raise SettingsError(
            "everything is kept for ever: set ANOMALY_KEEP_RESULTS_MONTHS,"
            " ANOMALY_KEEP_HISTORY_MONTHS or ANOMALY_KEEP_LEDGER_MONTHS"
        )
    purged = purge_database(database, settings.retention, datetime.now(UTC), dry_run=dry_run)
    if as_json:
        return print_json(asdict(purged))
    print_facts("Would be deleted" if dry_run else "Deleted", asdict(purged))
