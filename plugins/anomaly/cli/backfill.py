"""``anomaly backfill``: score a past range, with a preview, a report, and a way to go on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from anomaly.cli.console import AsJson, connect, notes, print_json, say
from anomaly.current_user import current_user
from anomaly.database.scoring_runs import RequestedBy
from anomaly.errors import WindowError
from anomaly.operations.backfill_report import BackfillReport
from anomaly.operations.backfilling import Backfiller, Chunk, Mode, Request
from anomaly.windows import Window

COMMAND = "anomaly backfill"
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def backfill(
    start: Annotated[
        str | None, typer.Option(help="First moment, e.g. 2017-03-07 or 2017-03-07T04:45Z.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="End, not included.")] = None,
    machines: Annotated[
        list[str] | None,
        typer.Option(help="Ids or names, with commas between, or repeated. Default: all."),
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(
            help="missing: readings without a verdict; changed: those, and verdicts that are out of"
            " date; everything."
        ),
    ] = Mode.CHANGED,
    model_version: Annotated[
        int | None,
        typer.Option(
            help="Put this version in force for the range, for good. Default: each reading is"
            " judged by the version in force at its time."
        ),
    ] = None,
    chunk_days: Annotated[
        int | None, typer.Option(min=1, max=366, help="Days of a chunk; default: automatic.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show what would change, write nothing. Readings of machines that only a long"
            " table names so far are not counted.",
        ),
    ] = False,
    allow_retract: Annotated[
        bool,
        typer.Option(
            "--allow-retract", help="Retract all verdicts without a reading, without limit."
        ),
    ] = False,
    resume: Annotated[
        int | None,
        typer.Option(help="Go on with this backfill; of the others only --allow-retract counts."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a past range, chunk by chunk, and report what changed. Nobody is ever alerted.

    You can stop it at any time: finished chunks stay.

    Example: anomaly backfill --start 2026-10-01 --end 2026-11-01 --dry-run
    """
    database, settings = connect()
    backfiller = Backfiller(database, settings)
    if resume is not None:
        others = (start, end, machines, model_version, chunk_days, dry_run or None)
        if any(other is not None for other in others):
            raise WindowError(
                "--resume goes on with a backfill as it was asked for: leave the other options out"
            )
        request = backfiller.request_of(resume)
    else:
        if start is None or end is None:
            raise WindowError("say --start and --end, or --resume and a backfill's number")
        named = [name.strip() for each in machines or [] for name in each.split(",")]
        request = backfiller.check(
            Window.parse(start, end), named, model_version, mode, chunk_days, due=datetime.now(UTC)
        )
    chunks = backfiller.chunks(request)
    if dry_run:
        report = _previewed(backfiller, request, chunks, allow_retract=allow_retract)
        _tell(backfiller, request, report, None, as_json=as_json)
        return
    requested_by = RequestedBy(COMMAND)
    backfill_id = resume
    if backfill_id is None:
        backfill_id = backfiller.begin(request, requested_by, current_user())
    else:
        backfiller.go_on(backfill_id, requested_by, current_user())
    with _stoppable(backfill_id), _progress(backfiller, request, chunks) as done:
        for chunk in chunks:
            backfiller.run(backfill_id, chunk, requested_by, done, allow_retract=allow_retract)
    report = backfiller.report(backfill_id, is_finished=True)
    _tell(backfiller, request, report, backfill_id, as_json=as_json)


def _previewed(
    backfiller: Backfiller, request: Request, chunks: list[Chunk], *, allow_retract: bool
) -> BackfillReport:
    total = BackfillReport()
    with _progress(backfiller, request, chunks) as done:
        for chunk in chunks:
            total += backfiller.preview(request, chunk, done, allow_retract=allow_retract)
    return backfiller.joined(total)


def _tell(
    backfiller: Backfiller,
    request: Request,
    report: BackfillReport,
    backfill_id: int | None,
    *,
    as_json: bool,
) -> None:
    if as_json:
        print_json({"backfill_id": backfill_id, "dry_run": backfill_id is None} | report.as_dict())
    else:
        markdown = backfiller.as_markdown(request, report, backfill_id=backfill_id)
        say(*markdown.split("\n"))


@contextmanager
def _stoppable(backfill_id: int) -> Iterator[None]:
    """Say how to go on after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        say(
            f"stopped: what is finished stays. Go on with `{COMMAND} --resume {backfill_id}`",
            to=notes,
        )
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _progress(
    backfiller: Backfiller, request: Request, chunks: Sequence[Chunk]
) -> Iterator[Callable[[Window], None]]:
    """A bar with the time that is left; what is yielded is called after each piece."""
    pieces = sum(len(backfiller.pieces(request, chunk)) for chunk in chunks)
    columns = (TextColumn(str(request.window)), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(
        *columns, console=notes, transient=True, disable=not notes.is_terminal
    ) as progress:
        bar = progress.add_task("", total=pieces)
        yield lambda _: progress.advance(bar)
