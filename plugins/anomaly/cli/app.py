"""The command line ``anomaly``: every command prints a table, or JSON with ``--json``."""

import logging
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from anomaly import __version__
from anomaly.cli.backfill import backfill
from anomaly.cli.console import (
    AsJson,
    End,
    Start,
    connect,
    fail,
    notes,
    print_facts,
    print_json,
    print_rows,
    say,
)
from anomaly.cli.evaluation import evaluate
from anomaly.cli.incidents import incidents_app, label, print_incidents
from anomaly.cli.ingest import ingest
from anomaly.cli.labels import labels_app
from anomaly.cli.machines import machines_app
from anomaly.cli.metrics import metrics
from anomaly.cli.models import models_app
from anomaly.current_user import current_user
from anomaly.database.explained_errors import EXPLAINED, explained
from anomaly.database.migrations import migrate as migrate_database
from anomaly.database.results import Origin
from anomaly.database.scoring_runs import RequestedBy
from anomaly.errors import AnomalyError
from anomaly.lifecycle.promotion import Promoter, needs_a_person
from anomaly.operations.status import Status
from anomaly.operations.status import status as read_status
from anomaly.scoring.publishing import Job, ScoreReport
from anomaly.scoring.reconciling import Reconciler
from anomaly.scoring.scorer import Scorer
from anomaly.settings import (
    DetectorName,
    MeterSettings,
    ScoringSettings,
    Settings,
)
from anomaly.windows import Window, parse_moment

if TYPE_CHECKING:  # training imports scikit-learn, and no other command should wait for that
    from anomaly.lifecycle.training import Trainer, TrainingReport

NEEDS_ATTENTION = 3
"""Exit code when something needs attention. Code 1 is an error, 2 is wrong usage."""

app = typer.Typer(
    name="anomaly",
    help="Score machine meter readings: see the README for a first run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(machines_app, name="machines")
app.add_typer(models_app, name="models")
app.add_typer(incidents_app, name="incidents")
app.add_typer(labels_app, name="labels")
app.command()(backfill)
app.command()(ingest)
app.command()(label)
app.command()(evaluate)
app.command()(metrics)

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Count what would change, write nothing. Readings of machines that are not"
        " registered yet are left out where the meter table is long.",
    ),
]
AllowRetract = Annotated[
    bool,
    typer.Option("--allow-retract", help="Retract all verdicts without a reading, without limit."),
]


def main() -> None:
    """Run the command line; an expected failure prints one line on standard error."""
    # A lost connection is reported once, below. The pool would also log that it cannot roll back.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    try:
        app()
    except (AnomalyError, *EXPLAINED) as error:
        fail(str(explained(error)))


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
    database, settings = connect(migrated=False)
    report = migrate_database(database, settings.meter_table)
    if as_json:
        return print_json(asdict(report))
    say(f"applied: {', '.join(report.applied) or 'nothing, the schema is up to date'}")
    for note in report.notes:
        say(f"note: {note}", style="yellow", to=notes)


@app.command()
def train(
    start: Annotated[str | None, typer.Option(help="Default: as in the weekly training.")] = None,
    end: Annotated[str | None, typer.Option(help="End, not included.")] = None,
    detector: Annotated[
        DetectorName | None, typer.Option(help="Default: ANOMALY_DETECTOR.")
    ] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Put the version in force.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model version, compare it with the one in force, and register it.

    With --promote it is put in force if it passes the gate. Exits with 3 if the gate refuses it,
    also without --promote.
    """
    from anomaly.lifecycle.training import Trainer

    database, settings = connect()
    if detector is not None:
        settings = settings.changed(detector=detector)
    trainer, due, by = Trainer(database, settings), datetime.now(UTC), current_user()
    report = trainer.challenge(_training_window(trainer, start, end), by=by, due=due)
    judgement = report.judgement
    refused = judgement is not None and not judgement.passed
    if promote and not refused:
        promoted = Promoter(database, settings).promote(
            report.version,
            by=by,
            reason="anomaly train --promote",
            judged_against=judgement.champion_version if judgement else None,
        )
        report = replace(report, promoted=True, effective_from=promoted.effective_from)
    if as_json:
        print_json(report.as_dict())
    else:
        _print_training(report, settings)
    if refused:  # after printing: the report says why
        raise typer.Exit(NEEDS_ATTENTION)


def _print_training(report: "TrainingReport", settings: Settings) -> None:
    state = "in force" if report.promoted else "registered, not in force"
    say(
        f"version {report.version} {state}: {report.readings} readings of {report.machines}"
        f" machines in {report.window}"
    )
    say(f"model card: {report.card}")
    for reason in report.judgement.reasons if report.judgement else ():
        say(f"refused: {reason}", style="yellow", to=notes)
    if decide := needs_a_person(report.judgement, settings.gate, report.refused_in_a_row):
        say(
            f"a person must decide: {decide}; to put it in force all the same: `anomaly models"
            f" promote {report.version}`",
            style="yellow",
            to=notes,
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
    database, settings = connect()
    window = Window.parse(start, end).due(datetime.now(UTC), settings.meter.interval)
    job = Job(
        Origin.BACKFILL,
        RequestedBy("anomaly score"),
        retractable=sys.maxsize if allow_retract else None,  # None: the limit of the settings
        dry_run=dry_run,
    )
    report = _score_with_progress(Scorer(database, settings), window, job)
    if as_json:
        return print_json(report.counts() | {"dry_run": dry_run})
    print_facts("Would be scored" if dry_run else "Scored", report.counts())


@app.command()
def reconcile(
    start: Annotated[
        str | None, typer.Option(help="Default: ANOMALY_RECONCILE_DAYS before the end.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="End, not included; default: now.")] = None,
    dry_run: DryRun = False,
    allow_retract: AllowRetract = False,
    as_json: AsJson = False,
) -> None:
    """Compare readings with verdicts, and score again where they differ."""
    database, settings = connect()
    report = Reconciler(database, settings).reconcile(
        _reconcile_window(settings.meter, settings.scoring, start, end),
        RequestedBy("anomaly reconcile"),
        allow_retract=allow_retract,
        dry_run=dry_run,
    )
    facts = {name: value for name, value in vars(report).items() if name != "scores"}
    if as_json:
        return print_json(facts | {"scores": report.scores.counts()})
    print_facts("Compared", facts)
    print_facts("Would be scored again" if dry_run else "Scored again", report.scores.counts())


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show the state of the deployment, problems first. Exits with 3 if there are any."""
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


def _score_with_progress(scorer: Scorer, window: Window, job: Job) -> ScoreReport:
    chunks = list(window.chunks(scorer.longest_chunk()))
    total = ScoreReport()
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        bar = progress.add_task(f"scoring {window}", total=len(chunks))
        for chunk in chunks:
            total += scorer.score_window(chunk, job)
            progress.advance(bar)
    return total


def _training_window(trainer: "Trainer", start: str | None, end: str | None) -> Window:
    if start and end:
        return Window.parse(start, end)
    usual = trainer.default_window(datetime.now(UTC))
    return Window(
        parse_moment(start) if start else usual.start, parse_moment(end) if end else usual.end
    )


def _reconcile_window(
    meter: MeterSettings, scoring: ScoringSettings, start: str | None, end: str | None
) -> Window:
    now = datetime.now(UTC)
    until = parse_moment(end) if end else now
    since = parse_moment(start) if start else until - scoring.reconcile_horizon
    return Window(since, until).due(now, meter.interval)
