"""The table ``anomaly.model_versions``, and the drafts of versions that are being written."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping

from anomaly.database.connection import Transaction
from anomaly.database.scoring_runs import lock_publishing
from anomaly.errors import FolderTakenError
from anomaly.models.artefacts import Artefact, version_folder


@dataclass(frozen=True)
class Draft:
    """A version that is being written or deleted.

    Attributes
    ----------
    token : str
        Part of the folder's name until the version is complete.
    sha256 : mapping or None
        Hashes of its files; only for a version that is retired.
    """

    version: int
    folder: str
    token: str
    sha256: Mapping[str, str] | None = None


# Versions --------------------------------------------------------------------------


def all_versions(transaction: Transaction) -> Sequence[RowMapping]:
    """Every version, newest first, with whether it judges new readings."""
    return transaction.rows("model_versions/all")


def versions_page(
    transaction: Transaction, *, before: int | None, rows: int
) -> Sequence[RowMapping]:
    """Versions before a number, newest first, as ``bi.model_versions`` has them."""
    return transaction.rows("model_versions/page", before=before, rows=rows)


def version_row(transaction: Transaction, version: int) -> dict[str, Any] | None:
    """All columns of a version; None if there is no such version."""
    rows = transaction.rows("model_versions/one", version=version)
    return dict(rows[0]) if rows else None


def refused_in_a_row(transaction: Transaction) -> tuple[int, int | None]:
    """How many of the newest versions were refused, and the newest of them.

    A version that is in force, or that the gate let through, ends the row.
    """
    (row,) = transaction.rows("model_versions/refused_in_a_row")
    return row["refused"], row["newest"]


def register_version(
    transaction: Transaction, version: int, artefact: Artefact, details: Mapping[str, Any]
) -> None:
    """Record a version whose files are in place, and delete its draft."""
    encoded = {
        name: json.dumps(value) if isinstance(value, dict) else value
        for name, value in ({"judgement": None, "status": "registered"} | dict(details)).items()
    }
    transaction.run(
        "model_versions/register",
        version=version,
        artefact=artefact.folder,
        sha256=json.dumps(dict(artefact.sha256)),
        **encoded,
    )
    transaction.run("model_versions/end_draft", version=version)


def retire_versions(transaction: Transaction, keep: int, by: str) -> list[int]:
    """Retire versions that nothing refers to, except the newest `keep`; return their numbers.

    Their folders become drafts, to be deleted later. The publishing lock is held, so that no
    version is promoted or judges a reading meanwhile.
    """
    lock_publishing(transaction)
    rows = transaction.rows("model_versions/retire", keep=keep, by=by)
    return [row["version"] for row in rows]


# Drafts ----------------------------------------------------------------------------


def begin_draft(transaction: Transaction, taken: int, by: str) -> Draft:
    """Draw the next version number, and record its folder before anything is written to it.

    Two trainings at the same time draw different numbers. Commit before writing files: a
    recorded folder is found and swept later, even if its training is killed.

    Parameters
    ----------
    taken : int
        The highest number that already has a folder.
    """
    # The lock is a statement of its own, so that the next statement sees what others committed.
    transaction.rows("model_versions/lock")
    version = max(int(transaction.value("model_versions/next_version")), taken + 1)
    draft = Draft(version, version_folder(version), uuid.uuid4().hex)
    transaction.run(
        "model_versions/begin_draft",
        version=version,
        folder=draft.folder,
        token=draft.token,
        by=by,
    )
    return draft


def hold_draft(transaction: Transaction, draft: Draft) -> None:
    """Lock the draft, so that it is not swept until the transaction ends.

    Raises
    ------
    FolderTakenError
        When it was swept already. Nothing was written then.
    """
    if not transaction.rows("model_versions/hold_draft", version=draft.version, token=draft.token):
        raise FolderTakenError(
            f"version {draft.version} was swept before it was written: train again"
        )


def orphaned_drafts(transaction: Transaction) -> list[Draft]:
    """Drafts of this database that no training is writing, locked until the transaction ends."""
    return [Draft(**row) for row in transaction.rows("model_versions/orphaned_drafts")]


def end_draft(transaction: Transaction, draft: Draft) -> None:
    """Delete a draft whose folder is gone."""
    transaction.run("model_versions/end_draft", version=draft.version)
