"""``anomaly train``: train a model version, and put it in force if that is wanted."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from anomaly.cli.console import NEEDS_ATTENTION, AsJson, connect, notes, print_json, say
from anomaly.current_user import current_user
from anomaly.lifecycle.promotion import Promoter, needs_a_person
from anomaly.settings import DetectorName, Settings
from anomaly.windows import Window, parse_moment

if TYPE_CHECKING:  # training imports scikit-learn, and no other command should wait for that
    from anomaly.lifecycle.training import Trainer, TrainingReport


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

    Example: anomaly train --promote
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


def _training_window(trainer: "Trainer", start: str | None, end: str | None) -> Window:
    if start and end:
        return Window.parse(start, end)
    usual = trainer.default_window(datetime.now(UTC))
    return Window(
        parse_moment(start) if start else usual.start, parse_moment(end) if end else usual.end
    )
