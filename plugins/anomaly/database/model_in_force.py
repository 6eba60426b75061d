"""The version map ``anomaly.model_in_force``: which model version judges the readings of a time.

Entries are never deleted. A replaced entry stays, with the moment at which it was superseded. So
the table tells which version judged live at any time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import RowMapping

from anomaly.database.connection import Transaction
from anomaly.errors import NoModelError
from anomaly.models.artefacts import Artefact
from anomaly.windows import Window

_ALL_TIME = Window(datetime(1, 1, 3, tzinfo=UTC), datetime(9999, 12, 29, tzinfo=UTC))


@dataclass(frozen=True)
class InForce:
    """A part of a window and the version that judges it."""

    entry_id: int
    window: Window
    version: int
    artefact: Artefact


@dataclass(frozen=True)
class Champion:
    """The version that judges new readings."""

    version: int
    artefact: Artefact
    trained_to: datetime


# Read -----------------------------------------------------------------------------


def versions_in_force(transaction: Transaction, window: Window) -> tuple[InForce, ...]:
    """Cut a window where the version in force changes.

    Raises
    ------
    NoModelError
        When no version is in force for a part of it.
    """
    return during(_parts(transaction, window), window)


def version_map(transaction: Transaction) -> tuple[InForce, ...]:
    """The whole version map as it is now, in order of time; empty before the first version."""
    return _parts(transaction, _ALL_TIME)


def during(entries: Iterable[InForce], window: Window) -> tuple[InForce, ...]:
    """The entries of a version map that judge a window, cut to it.

    Raises
    ------
    NoModelError
        When no version is in force for a part of it.
    """
    parts = tuple(
        replace(entry, window=inside)
        for entry in entries
        if (inside := entry.window.within(window)) is not None
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


def _parts(transaction: Transaction, window: Window) -> tuple[InForce, ...]:
    return tuple(
        InForce(
            row["entry_id"],
            Window(row["starts_at"], row["ends_at"]),
            row["version"],
            Artefact(row["artefact"], row["sha256"]),
        )
        for row in transaction.rows("model_in_force/during", start=window.start, end=window.end)
    )


def champion(transaction: Transaction) -> Champion | None:
    """The version that judges new readings; None before the first version is in force."""
    for row in transaction.rows("model_in_force/champion"):
        return Champion(row["version"], Artefact(row["artefact"], row["sha256"]), row["trained_to"])
    return None


def champion_since(transaction: Transaction, versions: Sequence[int]) -> datetime | None:
    """Since when these versions, one after the other, have judged new readings; None: always."""
    since: datetime | None = transaction.value(
        "model_in_force/champion_since", versions=list(versions)
    )
    return since


def judges_all(
    transaction: Transaction, version: int, start: datetime | None, end: datetime | None
) -> bool:
    """Whether a version already judges all of ``[start, end)`` (None: no limit)."""
    first, last = _as_bounds(start, end)
    span = {"start": first, "end": last}
    return bool(transaction.value("model_in_force/judges_all", version=version, **span))


def decisions(transaction: Transaction) -> list[tuple[str, int, str]]:
    """Promotions and roll-backs, oldest first, as (decision, version, status of the version)."""
    rows = transaction.rows("model_in_force/decisions")
    return [(row["decision"], row["version"], row["status"]) for row in rows]


def unfinished_rollback(transaction: Transaction) -> RowMapping | None:
    """The roll-back in force that is not finished; None if there is none.

    Its command was killed or is still running.
    """
    rows = transaction.rows("model_in_force/unfinished_rollback")
    return rows[0] if rows else None


def entries_of(transaction: Transaction, version: int) -> Sequence[RowMapping]:
    """Every entry about a version, replaced ones included, oldest first."""
    return transaction.rows("model_in_force/entries_of", version=version)


def entries_on(transaction: Transaction, moment: datetime) -> Sequence[RowMapping]:
    """Every entry about a moment, replaced ones included, oldest first."""
    return transaction.rows("model_in_force/entries_on", moment=moment)


# Write ----------------------------------------------------------------------------


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
    """Rewrite the version map for ``[start, end)`` (None: no limit).

    The caller holds the publishing lock. Replaced entries stay on record. Their parts outside
    the range stay in force. An `unfinished` decision waits for `finish_decision`.
    """
    first, last = _as_bounds(start, end)
    # Parts outside the range are written again as entries of their own, with the decision "kept":
    # an entry's range never changes.
    outside = transaction.rows("model_in_force/supersede", start=first, end=last)
    columns = ("starts_at", "ends_at", "version", "recorded_by", "reason")
    pieces = [(*(row[name] for name in columns), "kept", False) for row in outside]
    for piece in [*pieces, (first, last, version, by, reason, decision, unfinished)]:
        names = ("start", "end", "version", "recorded_by", "reason", "decision", "unfinished")
        transaction.run("model_in_force/insert", **dict(zip(names, piece, strict=True)))


def finish_decision(transaction: Transaction, version: int) -> None:
    """Record that the decision about a version has been carried out."""
    transaction.run("model_in_force/finish_decision", version=version)


def _as_bounds(start: datetime | None, end: datetime | None) -> tuple[str, str | None]:
    return (
        "-infinity" if start is None else start.isoformat(),
        None if end is None else end.isoformat(),
    )
