"""``anomaly migrate``: bring the database to the current schema."""

from dataclasses import asdict

from anomaly.cli.console import AsJson, connect, notes, print_json, say
from anomaly.database.migrations import migrate as migrate_database


def migrate(as_json: AsJson = False) -> None:
    """Bring the database to the current schema; safe to repeat.

    Example: anomaly migrate
    """
    database, settings = connect(migrated=False)
    report = migrate_database(database, settings.meter_table, settings.meter)
    if as_json:
        return print_json(asdict(report))
    say(f"applied: {', '.join(report.applied) or 'nothing, the schema is up to date'}")
    for note in report.notes:
        say(*f"note: {note}".split("\n"), style="yellow", to=notes)
