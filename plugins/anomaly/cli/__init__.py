"""The command line ``anomaly``: every command prints a table, or JSON with ``--json``."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import psycopg2
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy.exc import DBAPIError

from anomaly import __version__
from anomaly.errors import AnomalyError, DatabaseError, SettingsError
from anomaly.ingest import ingest as ingest_file
from anomaly.postgres.database import Database
from anomaly.postgres.migrations import check_migrated
from anomaly.postgres.migrations import migrate as migrate_database
from anomaly.postgres.results import RunContext, ScoreReport
from anomaly.reconciling import Reconciler
from anomaly.schema import Origin
from anomaly.scoring import Job, Scorer
from anomaly.settings import Settings, load_settings
from anomaly.status import status as take_stock
from anomaly.training import Trainer, current_user
from anomaly.windows import Window, parse_moment

NEEDS_ATTENTION = 3
"""Exit code of ``anomaly status`` when something needs attention; 1 is an error, 2 misuse."""

app = typer.Typer(
    name="anomaly",
    help="Score machine meter readings: see the README for a first run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="Model versions.", no_args_is_help=True)
app.add_typer(models_app, name="models")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Start = Annotated[str, typer.Option(help="First moment, e.g. 2017-03-07 or 2017-03-07T04:45Z.")]
End = Annotated[str, typer.Option(help="End, not included.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count what would change, write nothing.")]
AllowRetract = Annotated[
    bool,
    typer.Option("--allow-retract", help="Retract verdicts without a reading, however many."),
]

_out = Console(soft_wrap=True)
_progress = Console(stderr=True)


def main() -> None:
    """Run the command line; an expected failure is one line on standard error."""
    try:
        app()
    except AnomalyError as error:
        _fail(str(error))
    except DBAPIError as error:
        _fail(f"the database refused: {str(error.orig).strip().splitlines()[0]}")
    except psycopg2.Error as error:
        _fail(f"the database refused: {str(error).strip().splitlines()[0]}")
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror}")
    except OverflowError:
        _fail("a time in the meter table or in the settings lies beyond the year 9999")


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Score machine meter readings."""
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def migrate(as_json: AsJson = False) -> None:
    """Bring the database to the current schema; safe to repeat."""
    database, settings = _connect(migrated=False)
    report = migrate_database(database, settings)
    if as_json:
        return _print_json(asdict(report))
    _out.print(f"applied: {', '.join(report.applied) or 'nothing, all was there'}")
    for note in report.notes:
        _progress.print(f"note: {note}", style="yellow", markup=False)


@app.command()
def ingest(
    file: Annotated[Path, typer.Argument(help="CSV with a header, also .csv.gz.")],
    as_json: AsJson = False,
) -> None:
    """Load readings from a CSV file: all of it or nothing, safe to repeat."""
    database, settings = _connect()
    report = ingest_file(database, settings, file)
    if as_json:
        return _print_json(asdict(report))
    _print_facts("Loaded", asdict(report))


@app.command()
def train(
    start: Annotated[
        str | None, typer.Option(help="Default: as the weekly training has it.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="End, not included.")] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Put the version in force.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model version and register it."""
    database, settings = _connect()
    trainer = Trainer(database, settings)
    report = trainer.train(
        _training_window(trainer, start, end),
        by=current_user(),
        put_in_force=promote,
        reason="anomaly train --promote",
    )
    if as_json:
        return _print_json(asdict(report))
    state = "in force" if promote else "registered, not in force"
    _out.print(
        f"version {report.version} {state}: {report.readings} readings of {report.machines}"
        f" machines in {report.window}"
    )


@app.command()
def score(
    start: Start,
    end: End,
    dry_run: DryRun = False,
    allow_retract: AllowRetract = False,
    as_json: AsJson = False,
) -> None:
    """Score a range of readings."""
    _score("anomaly score", start, end, dry_run, allow_retract, as_json)


@app.command()
def backfill(
    start: Start,
    end: End,
    dry_run: DryRun = False,
    allow_retract: AllowRetract = False,
    as_json: AsJson = False,
) -> None:
    """Score a past range, chunk by chunk; may be stopped and started again at any time."""
    _score("anomaly backfill", start, end, dry_run, allow_retract, as_json)


@app.command()
def reconcile(
    start: Annotated[
        str | None, typer.Option(help="Default: the last days the settings say.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="End, not included; default: now.")] = None,
    dry_run: DryRun = False,
    allow_retract: AllowRetract = False,
    as_json: AsJson = False,
) -> None:
    """Compare readings with verdicts, and re-score what differs."""
    database, settings = _connect()
    report = Reconciler(database, settings).reconcile(
        _reconcile_window(settings, start, end),
        RunContext("anomaly reconcile"),
        allow_retract=allow_retract,
        dry_run=dry_run,
    )
    facts = {name: value for name, value in vars(report).items() if name != "scores"}
    if as_json:
        return _print_json(facts | {"scores": report.scores.counts()})
    _print_facts("Reconciled", facts | report.scores.counts())


@models_app.command("list")
def models_list(as_json: AsJson = False) -> None:
    """List model versions, newest first."""
    database, _ = _connect()
    with database.transaction(read_only=True) as transaction:
        rows = [dict(row) for row in transaction.rows("model_versions")]
    if as_json:
        return _print_json(rows)
    columns = (
        "version",
        "in_force",
        "detector",
        "status",
        "trained_from",
        "trained_to",
        "readings",
    )
    _print_rows("Model versions", rows, columns)


@app.command()
def evaluate(
    budgets: Annotated[
        str, typer.Option(help="Bearable alerts a machine and week, several by comma.")
    ] = "0.5,1,3",
    labels: Annotated[
        Path | None, typer.Option(help="A CSV of readings with a column `label`, 0 or 1.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="Default: the first reading.")] = None,
    end: Annotated[str | None, typer.Option(help="End, not included.")] = None,
    machines: Annotated[str, typer.Option(help="Ids by comma; default: all that move.")] = "",
    seeds: Annotated[int, typer.Option(help="Injections a test week.", min=1)] = 40,
    picture: Annotated[Path | None, typer.Option(help="PNG: recall against false alerts.")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge the detector `signals` beside baselines, on injected faults or on labels."""
    from anomaly.evaluating import evaluate_deployment, evaluate_labels

    asked = _budgets(budgets)
    if labels is not None:
        report = evaluate_labels(labels, load_settings(), budgets=asked)
    else:
        database, settings = _connect()
        window = Window.parse(start, end) if start and end else None
        report = evaluate_deployment(
            database,
            settings,
            datetime.now(UTC),
            window=window,
            machines=[int(part) for part in machines.split(",") if part],
            budgets=asked,
            seeds=seeds,
        )
    if as_json:
        _print_json(report.summary().to_dict("records"))
    else:
        _out.print(report.table())
    for _, reason in report.skipped.itertuples(index=False):
        _progress.print(reason, style="yellow", markup=False)
    if picture is not None:
        _progress.print(f"picture: {report.picture(picture)}", markup=False)


def _budgets(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) <= 0:
        raise SettingsError(f"--budgets is {text!r}: write numbers above 0, e.g. 0.5,1,3")
    return found


@app.command()
def status(as_json: AsJson = False) -> None:
    """Take stock; exits with 3 when something needs attention."""
    database, settings = _connect()
    found = take_stock(database, settings, datetime.now(UTC))
    if as_json:
        _print_json(found.as_dict())
    else:
        facts = found.as_dict()
        machines, runs, problems = (facts.pop(name) for name in ("machines", "runs", "problems"))
        _print_facts("Status", facts)
        _print_rows("Machines", machines, ("machine_id", "name", "state", "newest_verdict"))
        if runs:
            _print_rows("Last windows", runs, tuple(runs[0]))
        for problem in problems:
            _out.print(f"needs attention: {problem}", style="yellow", markup=False)
    if found.problems:
        raise typer.Exit(NEEDS_ATTENTION)


def _score(
    command: str, start: str, end: str, dry_run: bool, allow_retract: bool, as_json: bool
) -> None:
    database, settings = _connect()
    window = Window.parse(start, end).due(datetime.now(UTC), settings.interval)
    job = Job(
        Origin.BACKFILL,
        RunContext(command),
        retractable=sys.maxsize if allow_retract else None,
        dry_run=dry_run,
    )
    report = _score_with_progress(Scorer(database, settings), window, job)
    if as_json:
        return _print_json(report.counts() | {"dry_run": dry_run})
    _print_facts("Would be scored" if dry_run else "Scored", report.counts())


def _score_with_progress(scorer: Scorer, window: Window, job: Job) -> ScoreReport:
    chunks = list(window.chunks(scorer.settings.chunk))
    total = ScoreReport()
    with Progress(console=_progress, transient=True, disable=not _progress.is_terminal) as progress:
        bar = progress.add_task(f"scoring {window}", total=len(chunks))
        for chunk in chunks:
            total += scorer.score_window(chunk, job)
            progress.advance(bar)
    return total


def _training_window(trainer: Trainer, start: str | None, end: str | None) -> Window:
    if start and end:
        return Window.parse(start, end)
    usual = trainer.default_window(datetime.now(UTC))
    return Window(
        parse_moment(start) if start else usual.start, parse_moment(end) if end else usual.end
    )


def _reconcile_window(settings: Settings, start: str | None, end: str | None) -> Window:
    now = datetime.now(UTC)
    until = parse_moment(end) if end else now
    since = parse_moment(start) if start else until - settings.reconcile_horizon
    return Window(since, until).due(now, settings.interval)


def _connect(*, migrated: bool = True) -> tuple[Database, Settings]:
    settings = load_settings()
    if not settings.database_url:
        raise DatabaseError(
            "ANOMALY_DATABASE_URL is not set: write postgresql://user:password@host:5432/database"
        )
    database = Database(settings.database_url, settings)
    if migrated:
        check_migrated(database)
    return database, settings


def _fail(message: str) -> None:
    typer.echo(f"error: {message}", err=True)
    sys.exit(1)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, default=_encode))


def _encode(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _print_facts(title: str, facts: dict[str, Any]) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), _shown(value))
    _out.print(table)


def _print_rows(title: str, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    table = Table(*(name.replace("_", " ") for name in columns), title=title, title_justify="left")
    for row in rows:
        table.add_row(*(_shown(row[name]) for name in columns))
    _out.print(table)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}Z"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return str(value)
