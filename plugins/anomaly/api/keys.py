"""Who may ask where the API stands alone: who has a key; or, before the first key, this machine."""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.requests import Request

from anomaly.api.door import Caller
from anomaly.database.api_keys import KeyHolder, count_keys, valid_keys
from anomaly.database.connection import API, Database
from anomaly.operations.api_keys import digest_of

_ANYBODY = Caller("anybody on this machine", "anybody", can_label=True)


class Keys:
    """Knows the valid keys. They are read by `refresh`, to be called every few seconds.

    Parameters
    ----------
    is_only_here : bool
        Whether the server listens on this machine only. Then, as long as no key was ever made,
        no key is needed.
    """

    def __init__(self, database: Database, *, is_only_here: bool) -> None:
        self._database = database
        self._is_only_here = is_only_here
        self._holders: Mapping[str, KeyHolder] = {}
        self._ever: bool | None = None

    @property
    def is_needed(self) -> bool:
        """Whether nobody may ask without a key."""
        return self._ever is not False or not self._is_only_here

    @property
    def are_there(self) -> bool:
        """Whether there is a valid key."""
        return bool(self._holders)

    def refresh(self) -> None:
        """Read the keys."""
        with self._database.transaction(API, read_only=True) as transaction:
            # Once there was a key, one is needed, even if somebody has emptied the table since.
            self._ever = self._ever or count_keys(transaction) > 0
            self._holders = valid_keys(transaction)

    def __call__(self, request: Request) -> Caller:
        """Say who asks.

        Raises
        ------
        HTTPException
            401 without a valid key; 403 for a web page of another host, where none is needed.
        """
        if not self.is_needed:
            _refuse_other_hosts(request)
            return _ANYBODY
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        key = request.headers.get("x-api-key") or (token if scheme.lower() == "bearer" else "")
        digest = digest_of(key.strip())
        holder = self._holders.get(digest)
        if holder is None:
            raise HTTPException(
                401,
                "a key is needed: send Authorization: Bearer KEY; `anomaly keys create` makes one"
                if not key
                else "this key is not valid: `anomaly keys list` lists those that are",
                {"WWW-Authenticate": "Bearer"},
            )
        return Caller(holder.name, f"key {digest}", holder.can_label)


def _hostname(url: str) -> str:
    """The host of a URL; nothing where it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_this_machine(host: str) -> bool:
    """Whether a host's name or address means this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _refuse_other_hosts(request: Request) -> None:
    """Refuse what a proxy asks for others, or a web page makes a browser on this machine ask."""
    headers = request.headers
    host = _hostname(f"//{headers.get('host', '')}")
    asked_by = _hostname(headers["origin"]) if "origin" in headers else host
    is_forwarded = any(
        name in ("forwarded", "via") or name.startswith("x-forwarded-") for name in headers
    )
    if is_forwarded or not (is_this_machine(host) and is_this_machine(asked_by)):
        raise HTTPException(
            403,
            "without keys the API answers localhost alone: make a key by `anomaly keys create`",
        )
