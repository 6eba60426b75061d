"""Model versions and the version map: which version judges a reading of a given time."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from anomaly.errors import FolderTakenError, NoModelError
from anomaly.postgres.database import Transaction
from anomaly.registry import FAMILY, Artefact
from anomaly.windows import Window, ceil_to_interval


@dataclass(frozen=True)
class InForce:
    """A part of a window and the version that judges it."""

    entry_id: int
    window: Window
    version: int
    artefact: Artefact


def in_force(transaction: Transaction, window: Window) -> tuple[InForce, ...]:
    """Cut a window where the version in force changes.

    Raises
    ------
    NoModelError
        When no version is in force for a part of it.
    """
    parts = tuple(
        InForce(
            row["entry_id"],
            Window(row["starts_at"], row["ends_at"]),
            row["version"],
            Artefact(row["artefact"], row["sha256"]),
        )
        for row in transaction.rows("versions_in_force", start=window.start, end=window.end)
    )
    covered = window.start
    for part in parts:
        if part.window.start != covered:
            break
        covered = part.window.end
    if covered != window.end:
        raise NoModelError(
            f"no model version is in force for {window}: train one with"
            " `anomaly train --promote` or run the DAG retrain_model; the readings are kept"
            " and scored by the next run"
        )
    return parts


@dataclass(frozen=True)
class Champion:
    """The version that judges new readings."""

    version: int
    artefact: Artefact
    trained_to: datetime


def champion(transaction: Transaction) -> Champion | None:
    """The version that judges new readings; None before a first one is in force."""
    for row in transaction.rows("champion"):
        return Champion(row["version"], Artefact(row["artefact"], row["sha256"]), row["trained_to"])
    return None


@dataclass(frozen=True)
class Draft:
    """A version being written: its number, its folder and the name it has meanwhile.

    Of a version that is retired, the hashes of its files as well.
    """

    version: int
    folder: str
    token: str
    sha256: Mapping[str, str] | None = None


def begin_draft(transaction: Transaction, taken: int, by: str) -> Draft:
    """Draw a number above all others, and record the folder before anything is written to it.

    Two trainings at once draw a number each. Commit before writing: what is on record
    is found and swept, whatever becomes of its training.

    Parameters
    ----------
    taken : int
        The highest number that has a folder, whoever wrote it.
    """
    transaction.rows("lock_versions")
    version = max(int(transaction.value("next_version")), taken + 1)
    draft = Draft(version, f"{FAMILY}/v{version:04d}", uuid.uuid4().hex)
    transaction.run("begin_draft", version=version, folder=draft.folder, token=draft.token, by=by)
    return draft


def hold_draft(transaction: Transaction, draft: Draft) -> None:
    """Keep the draft from being swept until the transaction ends.

    Raises
    ------
    FolderTakenError
        When it was swept already: nothing was written.
    """
    if not transaction.rows("hold_draft", version=draft.version, token=draft.token):
        raise FolderTakenError(
            f"version {draft.version} was swept before it was written: train again"
        )


def register_version(
    transaction: Transaction, version: int, artefact: Artefact, details: Mapping[str, Any]
) -> None:
    """Record a version whose files are in place; it is no draft any more."""
    encoded = {
        name: json.dumps(value) if isinstance(value, dict) else value
        for name, value in ({"judgement": None, "status": "registered"} | dict(details)).items()
    }
    transaction.run(
        "register_version",
        version=version,
        artefact=artefact.folder,
        sha256=json.dumps(dict(artefact.sha256)),
        **encoded,
    )
    transaction.run("end_draft", version=version)


def orphaned_drafts(transaction: Transaction) -> list[Draft]:
    """Drafts that nobody is writing, locked until the transaction ends."""
    return [Draft(**row) for row in transaction.rows("orphaned_drafts")]


def end_draft(transaction: Transaction, draft: Draft) -> None:
    """Forget a draft whose folder is gone."""
    transaction.run("end_draft", version=draft.version)


def retire_versions(transaction: Transaction, keep: int, by: str) -> list[int]:
    """Retire versions beyond the newest `keep` that nothing refers to; their folders become drafts.

    Holds the publishing lock, so that none is promoted, or judges a reading, meanwhile.
    """
    transaction.rows("lock_publishing")
    return [row["version"] for row in transaction.rows("retire_versions", keep=keep, by=by)]


def promote(
    transaction: Transaction, version: int, interval: timedelta, *, by: str, reason: str
) -> datetime | None:
    """Put a version in force from the next interval boundary that is not yet scored.

    Returns
    -------
    datetime or None
        That boundary; None when nothing is scored yet and it judges all time.
    """
    transaction.rows("lock_publishing")
    scored_to = transaction.value("first_unscored")
    start = ceil_to_interval(scored_to, interval) if scored_to else None
    put_in_force(transaction, version, start, None, by=by, reason=reason)
    return start


def put_in_force(
    transaction: Transaction,
    version: int,
    start: datetime | None,
    end: datetime | None,
    *,
    by: str,
    reason: str,
    decision: str = "promotion",
    unfinished: bool = False,
) -> None:
    """Rewrite the version map for ``[start, end)`` (None: without bound).

    The caller holds the publishing lock. Replaced entries stay recorded; what of
    them lies outside the range is in force as before. An `unfinished` decision waits
    for `finish_decision`.
    """
    first, last = _bounds(start, end)
    outside = transaction.rows("supersede_entries", start=first, end=last)
    columns = ("starts_at", "ends_at", "version", "recorded_by", "reason")
    pieces = [(*(row[name] for name in columns), "kept", False) for row in outside]
    for piece in [*pieces, (first, last, version, by, reason, decision, unfinished)]:
        names = ("start", "end", "version", "recorded_by", "reason", "decision", "unfinished")
        transaction.run("put_in_force", **dict(zip(names, piece, strict=True)))


def judges_all(
    transaction: Transaction, version: int, start: datetime | None, end: datetime | None
) -> bool:
    """Whether a version judges all of ``[start, end)`` already."""
    first, last = _bounds(start, end)
    return bool(transaction.value("judges_all", version=version, start=first, end=last))


def finish_decision(transaction: Transaction, version: int) -> None:
    """Record that what was decided about a version is done."""
    transaction.run("finish_decision", version=version)


def _bounds(start: datetime | None, end: datetime | None) -> tuple[str, str | None]:
    return (
        "-infinity" if start is None else start.isoformat(),
        None if end is None else end.isoformat(),
    )
