"""The table ``anomaly.api_keys``: who may ask the API. Only digests of keys are stored."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import RowMapping

from anomaly.database.connection import Transaction


class KeyHolder(NamedTuple):
    """Whose key it is, and whether labels may be given with it."""

    name: str
    can_label: bool


def valid_keys(transaction: Transaction) -> dict[str, KeyHolder]:
    """Keys that are not revoked, by their digest."""
    rows = transaction.rows("api_keys/valid")
    return {row["digest"]: KeyHolder(row["name"], row["can_label"]) for row in rows}


def count_keys(transaction: Transaction) -> int:
    """How many keys there have ever been, revoked ones included."""
    return int(transaction.value("api_keys/count"))


def insert_key(
    transaction: Transaction, name: str, digest: str, *, can_label: bool, by: str
) -> RowMapping | None:
    """Write a key; None if a valid one has that name."""
    rows = transaction.rows("api_keys/insert", name=name, digest=digest, can_label=can_label, by=by)
    return rows[0] if rows else None


def list_keys(transaction: Transaction, *, revoked: bool) -> Sequence[RowMapping]:
    """Keys to show to people, newest first; `revoked`: also those."""
    return transaction.rows("api_keys/list", everything=revoked)


def revoke_key(transaction: Transaction, name: str, *, by: str) -> RowMapping | None:
    """Revoke the valid key of a name; None if there is none."""
    rows = transaction.rows("api_keys/revoke", name=name, by=by)
    return rows[0] if rows else None
