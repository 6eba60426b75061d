"""``anomaly score`` and ``anomaly reconcile``: score a range, or what differs."""

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.progress import Progress

from anomaly.cli.console import AsJson, End, Start, connect, notes, print_facts, print_json, say
from anomaly.database.results import Origin
from anomaly.database.scoring_runs import RequestedBy
from anomaly.scoring.publishing import Job, ScoreReport
from anomaly.scoring.reconciling import Reconciler
from anomaly.scoring.scorer import Scorer
from anomaly.settings import MeterSettings, ScoringSettings
from anomaly.windows import Window, parse_moment
from anomaly.wording import counted

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


def score(
    start: Start,
    end: End,
    dry_run: DryRun = False,
    allow_retract: AllowRetract = False,
    as_json: AsJson = False,
) -> None:
    """Score a range of readings; as a backfill does, it alerts nobody.

    Example: anomaly score --start 2026-11-01 --end 2026-11-02 --dry-run
    """
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


def reconcile(
    start: Annotated[
        str | None, typer.Option(help="Default: ANOMALY_RECONCILE_DAYS before the end.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="End, not included; default: now.")] = None,
    dry_run: DryRun = False,
    allow_retract: AllowRetract = False,
    as_json: AsJson = False,
) -> None:
    """Compare readings with verdicts, and score again where they differ.

    Example: anomaly reconcile --start 2026-11-01 --dry-run
    """
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
    if withheld := report.scores.retraction_withheld:
        say(
            f"note: {counted(withheld, 'verdict')} without a reading stay, because they are more"
            " than ANOMALY_RETRACT_LIMIT allows; if the readings were deleted on purpose, run it"
            " again with --allow-retract",
            style="yellow",
            to=notes,
        )


def _score_with_progress(scorer: Scorer, window: Window, job: Job) -> ScoreReport:
    chunks = list(window.chunks(scorer.longest_chunk()))
    total = ScoreReport()
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        bar = progress.add_task(f"scoring {window}", total=len(chunks))
        for chunk in chunks:
            total += scorer.score_window(chunk, job)
            progress.advance(bar)
    return total


def _reconcile_window(
    meter: MeterSettings, scoring: ScoringSettings, start: str | None, end: str | None
) -> Window:
    now = datetime.now(UTC)
    until = parse_moment(end) if end else now
    since = parse_moment(start) if start else until - scoring.reconcile_horizon
    return Window(since, until).due(now, meter.interval)
