"""Write messages from templates: the first line of a template is the title, the rest the text.

The templates are Jinja, in the folder `templates` beside this module. A file of the same name in
the folder ``ANOMALY_ALERT_TEMPLATES`` replaces one.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly.alerts.channels import Message
from anomaly.alerts.events import is_end
from anomaly.errors import AlertError
from anomaly.readings.local_clocks import zone_or_utc
from anomaly.settings import AlertSettings, AlertSeverity, IncidentSettings, MeterSettings
from anomaly.wording import printable

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).with_name("templates")
TEMPLATES = ("opened", "worsened", "ended", "escalated", "pipeline", "group", "answers")
"""Names of the templates.

`pipeline` tells of everything but incidents, `group` of many events; `answers` is a part of others.
"""


def write_message(
    facts: Sequence[Mapping[str, Any]], message_id: int | str | None, alerts: AlertSettings
) -> Message:
    """The message about one or several events.

    Parameters
    ----------
    facts : sequence of mapping
        As `facts_of` gives them.
    message_id : int, str or None
        Stands in the message; None: it is a sample.

    Raises
    ------
    AlertError
        When a template of the user's cannot be used.
    """
    first, over = facts[0], all(is_end(fact["event"]) for fact in facts)
    name = "group" if len(facts) > 1 else first["event"]
    if name not in TEMPLATES:
        name = "pipeline"
    severity = max((AlertSeverity(fact["severity"]) for fact in facts), key=lambda one: one.rank)
    every = dict(first) | {
        "events": sorted(facts, key=lambda fact: -AlertSeverity(fact["severity"]).rank),
        "severity": severity,
        "message_id": "sample" if message_id is None else message_id,
        "all_over": over,
    }
    text = _rendered(name, every, alerts)
    title, _, body = text.strip().partition("\n")
    return Message(printable(title.strip()), body.strip(), severity, over)


def write_anyway(
    facts: Sequence[Mapping[str, Any]], message_id: int | str | None, alerts: AlertSettings
) -> Message:
    """As `write_message`; by the shipped template where the user's cannot be used."""
    try:
        return write_message(facts, message_id, alerts)
    except AlertError as error:
        log.warning("%s", error)
        return write_message(facts, message_id, alerts.model_copy(update={"alert_templates": ""}))


def facts_of(
    event: Mapping[str, Any], now: datetime, meter: MeterSettings, incidents: IncidentSettings
) -> dict[str, Any]:
    """What a template may say of an event.

    Parameters
    ----------
    event : mapping
        A row of `anomaly.database.alerts.message_events`.
    """
    clock = zone_or_utc(event["clock"] or "UTC")
    facts: dict[str, Any] = {
        "event": event["event"],
        "kind": event["kind"],
        "severity": event["severity_now"] or event["severity"],
        "says": printable(event["says"]),
        "at": _moment(event["created_at"], clock),
        "incident_id": event["incident_id"],
        "machine": None,
    }
    if event["incident_id"] is None:
        return facts
    last_end = event["ended_at"] or event["last_at"] + meter.interval
    excess = event["excess_kwh"]
    price = event["price_per_kwh"]
    currency = event["currency"] or ""
    if price is None and incidents.price_per_kwh:
        price = incidents.price_per_kwh
    return facts | {
        "machine": printable(event["machine"]),
        "machine_id": event["machine_id"],
        "site": printable(event["site"]),
        "reason": printable(event["reason"]),
        "since": _moment(event["started_at"], clock),
        "until": _moment(last_end, clock),
        "lasted": lasting(last_end - event["started_at"]),
        "is_over": event["ended_at"] is not None,
        "is_settled": event["settled"],
        "is_withdrawn": event["state"] == "withdrawn",
        "excess_kwh": None if excess is None else f"{excess:.3g}",
        "cost": None if excess is None or price is None else f"{excess * price:.2f}",
        "currency": currency,
        "told_after": lasting(now - event["created_at"]),
        "acknowledged_by": event["acknowledged_by"] and printable(event["acknowledged_by"]),
    }


def lasting(span: timedelta) -> str:
    """A duration in words.

    Examples
    --------
    >>> lasting(timedelta(minutes=45)), lasting(timedelta(hours=3.25)), lasting(timedelta(days=3))
    ('45 min', '3.2 h', '3 days')
    """
    if span < timedelta(hours=2):
        return f"{span / timedelta(minutes=1):.0f} min"
    if span < timedelta(days=2):
        return f"{span / timedelta(hours=1):.1f} h"
    return f"{span / timedelta(days=1):.0f} days"


def _moment(moment: datetime, clock: Any) -> str:
    return f"{moment.astimezone(clock):%a %Y-%m-%d %H:%M %Z}"


def _rendered(name: str, facts: Mapping[str, Any], alerts: AlertSettings) -> str:
    environment = _environment(alerts)
    try:
        return environment.get_template(f"{name}.txt").render(facts)
    except Exception as error:  # a template of a user's may do anything
        where = alerts.alert_templates or str(SHIPPED)
        raise AlertError(
            f"the template {name}.txt in {where} cannot be used: {type(error).__name__}: {error};"
            " compare it with the shipped one, `anomaly alerts templates FOLDER` copies it"
        ) from None


def _environment(alerts: AlertSettings) -> "SandboxedEnvironment":
    """Templates of users come first; they cannot reach into Python, nor name what is not there."""
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    own = alerts.alert_templates
    if own and not Path(own).is_dir():
        raise AlertError(
            f"ANOMALY_ALERT_TEMPLATES is {printable(own)!r}: there is no such folder; make it by"
            " `anomaly alerts templates FOLDER`"
        )
    folders = [*([own] if own else []), str(SHIPPED)]
    return SandboxedEnvironment(
        loader=FileSystemLoader(folders),
        undefined=StrictUndefined,
        autoescape=False,  # plain text: apprise escapes it where a channel wants HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
