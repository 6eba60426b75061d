"""``anomaly models``: list, show, promote, roll back, verify and reproduce model versions."""

from datetime import datetime
from typing import Annotated, Any

import typer

from anomaly.cli.console import (
    AsCsv,
    AsJson,
    connect,
    notes,
    print_facts,
    print_json,
    print_list,
    print_rows,
    say,
)
from anomaly.current_user import current_user
from anomaly.database.model_versions import all_versions
from anomaly.database.scoring_runs import RequestedBy
from anomaly.errors import ArtefactError, SettingsError, WindowError
from anomaly.lifecycle.promotion import Promoted, Promoter
from anomaly.models.artefacts import CARD, Artefact, Registry
from anomaly.windows import parse_moment

models_app = typer.Typer(help="Model versions.", no_args_is_help=True)

Version = Annotated[int, typer.Argument(help="Number of the version.", min=1)]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]


@models_app.command("list")
def models_list(
    on: Annotated[
        str | None, typer.Option(help="Show which version judges the readings of this moment.")
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List model versions, newest first, or show which one was live on a date.

    Example: anomaly models list --on 2026-11-01
    """
    if on is not None and as_csv:
        raise SettingsError("--on prints no list, so --csv does not go with it: use --json")
    database, settings = connect()
    if on is not None:
        return _print_moment(Promoter(database, settings).version_on(parse_moment(on)), as_json)
    with database.transaction(read_only=True) as transaction:
        rows = [dict(row) for row in all_versions(transaction)]
    columns = (
        "version",
        "in_force",
        "judges_a_range",
        "detector",
        "status",
        "trained_from",
        "trained_to",
        "readings",
    )
    print_list("Model versions", rows, columns, as_json=as_json, as_csv=as_csv)


@models_app.command("show")
def models_show(version: Version, as_json: AsJson = False) -> None:
    """Show what is recorded about a version, and its model card.

    Example: anomaly models show 3
    """
    database, settings = connect()
    found = Promoter(database, settings).show(version)
    registry, artefact = (
        Registry(settings.models.models_url),
        Artefact(found["artefact"], found["sha256"]),
    )
    found["place"] = registry.place(artefact)
    if as_json:
        return print_json(found)
    entries = found.pop("in_force")
    shown = ("version", "status", "detector", "trained_from", "trained_to", "readings",
             "registered_at", "registered_by", "place")  # fmt: skip
    print_facts(f"Version {version}", {name: found[name] for name in shown})
    if entries:
        columns = ("decision", "effective_from", "effective_to", "recorded_at", "recorded_by",
                   "reason", "superseded_at")  # fmt: skip
        print_rows("In force", entries, columns)
    if CARD in artefact.sha256 and found["status"] != "retired":
        say(*registry.read(artefact, CARD).decode().split("\n"))


@models_app.command("promote")
def models_promote(
    version: Version,
    reason: Reason = "by hand",
    start: Annotated[
        str | None, typer.Option(help="Use it for readings from here on, and score them again.")
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="With --start: end of the range, not included.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put a version in force, for new readings or for a past range that is scored again.

    Example: anomaly models promote 3 --reason "finds run-on at night"
    """
    if end and not start:
        raise WindowError("--end needs --start: give both for a past range, or neither")
    database, settings = connect()
    promoter, by = Promoter(database, settings), current_user()
    if start is None:
        return _print_promoted(promoter.promote(version, by=by, reason=reason), as_json)
    promoted = promoter.promote_range(
        version,
        parse_moment(start),
        parse_moment(end) if end else None,
        by=by,
        reason=reason,
        requested_by=RequestedBy("anomaly models promote"),
    )
    _print_promoted(promoted, as_json)


@models_app.command("rollback")
def models_rollback(
    to: Annotated[
        int | None, typer.Option(help="Default: the version before the one in force.", min=1)
    ] = None,
    reason: Reason = "roll back",
    from_now: Annotated[
        bool, typer.Option("--from-now", help="Leave the existing verdicts as they are.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Go back to an earlier version, and score again what later versions have judged.

    If it is killed, run it again: that finishes the roll-back and goes no further back.

    Example: anomaly models rollback --reason "too many alerts"
    """
    database, settings = connect()
    promoter = Promoter(database, settings)
    promoted = promoter.roll_back(
        by=current_user(),
        reason=reason,
        requested_by=RequestedBy("anomaly models rollback"),
        to=to,
        from_now=from_now,
    )
    _print_promoted(promoted, as_json)
    promoter.finish_rollback(promoted)


@models_app.command("verify")
def models_verify(
    version: Annotated[int | None, typer.Argument(help="Default: all.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Compare every file of every version with its hash; exits with 1 if one differs.

    Example: anomaly models verify
    """
    database, settings = connect()
    found = Promoter(database, settings).verify([version] if version else [])
    rows = [{"version": v, "sound": not words, "problem": words} for v, words in found.items()]
    broken = [row for row in rows if not row["sound"]]
    if as_json:
        print_json(rows)
    elif not broken:
        say(f"{len(rows)} versions are sound")
    if broken:
        raise ArtefactError(
            "; ".join(f"version {row['version']}: {row['problem']}" for row in broken)
        )


@models_app.command("reproduce")
def models_reproduce(version: Version, as_json: AsJson = False) -> None:
    """Train a version again as recorded, and compare; exits with 1 if it differs.

    Example: anomaly models reproduce 3
    """
    database, settings = connect()
    from anomaly.lifecycle.reproduction import reproduce

    found = reproduce(database, settings, version)
    if as_json:
        print_json(vars(found) | {"same": found.same})
    elif found.same:
        say(f"version {version} is reproduced bit for bit, from {found.readings} readings")
    if not found.same:
        raise ArtefactError(
            f"version {version} differs when trained again, in {', '.join(found.differing)}:"
            f" {found.readings} readings, then {found.readings_then}; libraries that changed:"
            f" {', '.join(found.libraries) or 'none'}. Readings, labels or machines may have been"
            " changed since"
        )


def _print_moment(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return print_json(found)
    entries = found.pop("entries")
    print_facts("The version map", found)
    if entries:
        columns = ("version", "decision", "effective_from", "effective_to", "recorded_at",
                   "recorded_by", "reason", "superseded_at")  # fmt: skip
        print_rows("What was decided about it", entries, columns)


def _print_promoted(promoted: Promoted, as_json: bool) -> None:
    if as_json:
        return print_json(promoted.as_dict())
    until = f" to {_moment_text(promoted.effective_to)}" if promoted.effective_to else " on"
    since = (
        f"from {_moment_text(promoted.effective_from)}{until}"
        if promoted.effective_from
        else "always"
    )
    say(f"version {promoted.version} is in force {since}")
    if promoted.decided_before:
        say(
            f"this finishes the roll-back that was cut short ({promoted.decided_before});"
            " to go further back, run it again",
            to=notes,
        )
    if promoted.scores is not None:
        print_facts("Scored again", promoted.scores.counts())


def _moment_text(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}Z" if moment else "the first reading"
