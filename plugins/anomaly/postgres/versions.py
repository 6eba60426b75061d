"""Model versions and the version map: which version judges a reading of a given time."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from anomaly.errors import NoModelError
from anomaly.postgres.database import Transaction
from anomaly.registry import Artefact
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


def register_version(
    transaction: Transaction, version: int, artefact: Artefact, details: Mapping[str, Any]
) -> None:
    """Record a version whose files are in place."""
    encoded = {
        name: json.dumps(value) if isinstance(value, dict) else value
        for name, value in details.items()
    }
    transaction.run(
        "register_version",
        version=version,
        artefact=artefact.folder,
        sha256=json.dumps(dict(artefact.sha256)),
        **encoded,
    )


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
) -> None:
    """Rewrite the version map for ``[start, end)`` (None: without bound).

    The caller holds the publishing lock. Replaced entries stay recorded; what of
    them lies outside the range is in force as before.
    """
    first = "-infinity" if start is None else start.isoformat()
    last = None if end is None else end.isoformat()
    outside = transaction.rows("supersede_entries", start=first, end=last)
    pieces = [
        (row["starts_at"], row["ends_at"], row["version"], row["recorded_by"], row["reason"])
        for row in outside
    ]
    for piece in [*pieces, (first, last, version, by, reason)]:
        names = ("start", "end", "version", "recorded_by", "reason")
        transaction.run("put_in_force", **dict(zip(names, piece, strict=True)))
