"""Make and revoke the keys of the API."""

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from anomaly.database.api_keys import insert_key, revoke_key
from anomaly.database.connection import SCORER, Database
from anomaly.errors import KeyNameError
from anomaly.wording import printable

_BEGINS = "anomaly_"
"""What every key begins with, so that a scanner for secrets can tell what it is."""
_MOST_CHARACTERS = 100
"""Of a name. Chosen."""


def create_key(
    database: Database, name: str, *, can_label: bool, by: str
) -> tuple[str, Mapping[str, Any]]:
    """Make a key, and return it with what is stored; nobody can read the key again.

    Raises
    ------
    KeyNameError
        When a valid key has that name, or the name cannot be shown in a line.
    """
    name = name.strip()
    if not name or len(name) > _MOST_CHARACTERS or printable(name) != name:
        raise KeyNameError(
            f"{printable(name[:_MOST_CHARACTERS])!r} is no name for a key: write one line of 1 to"
            f" {_MOST_CHARACTERS} characters that says who uses it"
        )
    key = _BEGINS + secrets.token_urlsafe(32)
    with database.transaction(SCORER) as transaction:
        row = insert_key(transaction, name, digest_of(key), can_label=can_label, by=by)
    if row is None:
        raise KeyNameError(
            f"there is a key {name!r} already: revoke it by `anomaly keys revoke`, or take another"
            " name"
        )
    return key, dict(row)


def take_key_away(database: Database, name: str, *, by: str) -> Mapping[str, Any]:
    """Revoke the key of a name.

    Raises
    ------
    KeyNameError
        When no valid key has that name.
    """
    with database.transaction(SCORER) as transaction:
        row = revoke_key(transaction, name.strip(), by=by)
    if row is None:
        raise KeyNameError(
            f"there is no valid key {name!r}: `anomaly keys list` lists those that there are"
        )
    return dict(row)


def digest_of(key: str) -> str:
    """What is stored of a key. Its 32 random bytes cannot be guessed, so no salt is needed."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
