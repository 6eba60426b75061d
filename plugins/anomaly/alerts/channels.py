"""Hand a message to a channel, by the library apprise."""

import logging
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

from anomaly.alerts.routes import Channel
from anomaly.errors import AlertError
from anomaly.settings import AlertSeverity
from anomaly.wording import printable

ANSWERS_WITHIN = timedelta(seconds=60)
"""So long a channel has to answer; far below the lease of a sender. Chosen."""

_IN_ONE = {
    "mailto", "mailtos", "json", "jsons", "xml", "xmls", "form", "forms",
}  # fmt: skip
"""Services that take the text and the picture in one request: it is taken whole, or not at all."""
_MAIL = {"mailto", "mailtos"}
_KINDS = {
    AlertSeverity.NOTICE: "info",
    AlertSeverity.WARNING: "warning",
    AlertSeverity.CRITICAL: "failure",
}


@dataclass(frozen=True)
class Message:
    """What is sent.

    Attributes
    ----------
    is_over : bool
        It says only what is over.
    picture : bytes or None
        A PNG; left out where a channel takes none.
    """

    title: str
    body: str
    severity: AlertSeverity
    is_over: bool = False
    picture: bytes | None = None


class ChannelError(Exception):
    """A channel has not taken a message."""


def shown(channel: Channel) -> str:
    """A channel as people may see it: its service and host, for its path may be a token."""
    plugin = _opened(channel, suppress=True)
    host = urlsplit(str(plugin.url(privacy=True))).netloc.rpartition("@")[2] if plugin else ""
    people = re.search(r"[?&]to=([^&]+)", channel.url) if channel.scheme in _MAIL else None
    to = f" to {unquote(people[1])}" if people else ""
    return f"{channel.route}: {channel.scheme}://{host or '...'}{to}"


def check(channel: Channel) -> None:
    """Refuse a URL that apprise does not know.

    Raises
    ------
    AlertError
        Naming the route, and no part of the URL but its scheme.
    """
    if not channel.scheme:
        raise AlertError(
            f"a URL of the route {channel.route!r} has no '://': write one of apprise's, such as"
            " mailto://..."
        )
    if _opened(channel, suppress=True) is None:
        raise AlertError(
            f"a URL of the route {channel.route!r} begins with {printable(channel.scheme)!r}, and"
            " apprise cannot use it: compare it with the page of that service in apprise's"
            " documentation"
        )


def deliver(channel: Channel, message: Message, *, again: bool = False) -> None:
    """Send a message, and wait until the channel has taken it.

    Parameters
    ----------
    again : bool
        It was tried before. A service that gets text and picture one after the other may have
        refused the picture alone: it gets the text now.

    Raises
    ------
    AlertError
        When the URL is wrong.
    ChannelError
        When the channel did not take it, with what apprise said of it.
    """
    check(channel)
    plugin = _opened(channel, suppress=False)
    with_picture = plugin.attachment_support and (not again or channel.scheme in _IN_ONE)
    said = _Said()
    log = logging.getLogger("apprise")
    log.addHandler(said)
    try:
        taken = plugin.notify(
            title=message.title,
            body=_within(message, plugin.body_maxlen),
            notify_type="success" if message.is_over else _KINDS[message.severity],
            body_format="text",
            attach=_attached(message.picture) if with_picture else None,
        )
    except Exception as error:  # a service's plugin of apprise failed: the message is not lost
        raise ChannelError(f"{type(error).__name__} in apprise") from None
    finally:
        log.removeHandler(said)
    if not taken:
        raise ChannelError(said.last or "it was not taken")


def _within(message: Message, most: int) -> str:
    """The text in at most so many characters with the title, and with its last line: its number."""
    room = most - len(message.title) - 10  # some services put the title above the text
    if len(message.body) <= room:
        return message.body
    last = message.body.splitlines()[-1]
    return f"{message.body[: max(0, room - len(last) - 10)]}\n[...]\n{last}"


class _Said(logging.Handler):
    """The last that apprise warned of; it never names passwords there."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = printable(record.getMessage())[:500]


def _opened(channel: Channel, *, suppress: bool) -> Any:
    import apprise

    asset = apprise.AppriseAsset(
        app_id="anomaly", app_desc="machine alerts", app_url="", image_url_mask=None
    )
    log = logging.getLogger("apprise")
    level = log.level
    if suppress:
        log.setLevel(logging.CRITICAL)
    try:
        plugin = apprise.Apprise.instantiate(channel.url, asset=asset, suppress_exceptions=True)
    finally:
        log.setLevel(level)
    if plugin is not None:
        # A channel that answers later than this has taken the message, and gets it again.
        plugin.socket_read_timeout = ANSWERS_WITHIN.total_seconds()
        plugin.socket_connect_timeout = ANSWERS_WITHIN.total_seconds()  # of mail: of every answer
    return plugin


def _attached(picture: bytes | None) -> Any:
    if picture is None:
        return None
    from apprise import AppriseAttachment
    from apprise.attachment.memory import AttachMemory

    attached = AppriseAttachment()
    png = AttachMemory(content=picture, name="last-day.png", mimetype="image/png")  # type: ignore[no-untyped-call]
    attached.add(png)
    return attached
