"""Routes: which channels an event goes to."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from anomaly.alerts.events import ESCALATED
from anomaly.settings import AlertKind, AlertRoute, AlertSeverity


@dataclass(frozen=True)
class Channel:
    """One URL of a route, which may hold a password: it is named by a digest."""

    route: str
    url: str

    @property
    def scheme(self) -> str:
        """Its service, such as ``mailto``; empty: it is no URL."""
        return self.url.partition("://")[0][:20] if "://" in self.url else ""

    @property
    def digest(self) -> str:
        """Names its URL in the database, which may not know it: its service and a digest."""
        return f"{self.scheme}-{hashlib.sha256(self.url.encode()).hexdigest()[:12]}"


def channels(routes: Iterable[AlertRoute]) -> list[Channel]:
    """Every channel of every route, each URL once: its first route counts.

    A mail to several people is one per person: where a server refuses one of them, the others do
    not get it again.
    """
    every = (
        Channel(route.name, one)
        for route in routes
        for url in route.urls
        for one in _one_per_person(url.get_secret_value())
    )
    by_url: dict[str, Channel] = {}
    for channel in every:
        by_url.setdefault(channel.url, channel)
    return list(by_url.values())


def _one_per_person(url: str) -> list[str]:
    """The same URL for each of the people in its ``to=``, if it is one of a mail.

    Examples
    --------
    >>> _one_per_person("mailto://mail.example.com?from=a@example.com&to=b@example.com,c@example.com")
    ['mailto://mail.example.com?from=a@example.com&to=b@example.com', \
'mailto://mail.example.com?from=a@example.com&to=c@example.com']
    """
    start, mark, query = url.partition("?")
    if not mark or not start.lower().startswith(("mailto://", "mailtos://")):
        return [url]
    parts = query.split("&")
    found = [part for part in parts if part.lower().startswith("to=")]
    if len(found) != 1:
        return [url]
    people = [one for one in re.split(r",|%2C|%20", found[0][3:], flags=re.I) if one]
    return [
        f"{start}?{'&'.join('to=' + one if part is found[0] else part for part in parts)}"
        for one in people
    ] or [url]


def routes_of(
    routes: Sequence[AlertRoute], event: str, kind: str, severity: str, site: str
) -> Iterator[AlertRoute]:
    """Routes that an event goes to.

    Parameters
    ----------
    site : str
        Empty: of no machine, or of one without a site. What is about no machine goes to the
        routes of every site.
    """
    of_a_machine = kind in (AlertKind.MACHINE, AlertKind.METER)
    for route in routes:
        if (
            route.escalation is (event == ESCALATED)
            and AlertKind(kind) in route.kinds
            and AlertSeverity(severity) in route.severities
            and (not route.sites or not of_a_machine or site in route.sites)
        ):
            yield route
