"""``anomaly alerts``: send, look at, try out and silence alerts."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from anomaly.alerts.channels import ChannelError, Message, check, deliver, shown
from anomaly.alerts.events import ENDED, OPENED
from anomaly.alerts.messages import SHIPPED, TEMPLATES
from anomaly.alerts.routes import channels
from anomaly.alerts.sending import compose_preview
from anomaly.cli.console import AsCsv, AsJson, connect, print_json, print_list, say
from anomaly.cli.incidents import By
from anomaly.current_user import current_user
from anomaly.database.alerts import (
    add_silence,
    count_waiting,
    end_silence,
    list_events,
    list_silences,
)
from anomaly.database.connection import SCORER
from anomaly.database.machines import find_machine, known_machines
from anomaly.database.sites import site_names
from anomaly.errors import AlertError
from anomaly.operations.alert_checks import tell_people
from anomaly.operations.site_changes import known_site
from anomaly.settings import AlertSeverity
from anomaly.wording import counted, printable

alerts_app = typer.Typer(
    help="Alerts: who is told what. Nobody is before ANOMALY_ALERT_ROUTES is set.",
    no_args_is_help=True,
)

_EVENTS = (
    "event_id", "created_at", "event", "kind", "severity", "incident_id", "machine", "decision",
    "sent", "waiting", "dropped", "given_up", "error",
)  # fmt: skip
_SILENCES = ("silence_id", "machine", "site", "starts_at", "ends_at", "note", "silenced_by")


@alerts_app.command("send")
def alerts_send(as_json: AsJson = False) -> None:
    """Look at the pipeline, and send every message that is due; the DAG send_alerts does the same.

    Example: anomaly alerts send
    """
    database, settings = connect()
    done, found = tell_people(database, settings, datetime.now(UTC))
    with database.transaction(SCORER, read_only=True) as transaction:
        events, messages = count_waiting(transaction)
    if as_json:
        waiting = {"waiting_events": events, "waiting_messages": messages}
        return print_json(asdict(done) | {"found": found} | waiting)
    if not settings.alerts.alert_routes:
        say("there is no route, so nobody is told: set ANOMALY_ALERT_ROUTES")
    say(
        f"{counted(done.sent, 'message')} sent, {done.failed} to be tried again, {done.given_up}"
        f" given up, {done.dropped} with nothing left to say;"
        f" {done.untold} told to nobody; {counted(events, 'event')} and"
        f" {counted(messages, 'message')} waiting"
    )


@alerts_app.command("test")
def alerts_test() -> None:
    """Send a sample through every channel, and say which took it.

    Example: anomaly alerts test
    """
    database, settings = connect()
    every = channels(settings.alerts.alert_routes)
    if not every:
        raise AlertError("there is no route: set ANOMALY_ALERT_ROUTES, to a URL of apprise")
    for channel in every:
        check(channel)
    limited = [route for route in settings.alerts.alert_routes if route.sites]
    if limited:
        with database.transaction(SCORER, read_only=True) as transaction:
            sites = site_names(transaction)
    for route in limited:
        for site in set(route.sites) - set(sites):
            raise AlertError(
                f"the route {route.name!r} is for the site {printable(site)!r}, which no machine"
                f" has: there are {', '.join(printable(one) for one in sites if one) or 'none'}"
            )
    for route in settings.alerts.alert_routes:
        if route.escalation and settings.alerts.escalate_after is None:
            say(f"route {route.name}: gets nothing until ANOMALY_ALERT_ESCALATE_MINUTES is set")
    message = Message(
        "Sample: machine alerts reach you",
        "This is a sample of `anomaly alerts test`: nothing is wrong with any machine.",
        AlertSeverity.NOTICE,
    )
    failed = 0
    for channel in every:
        try:
            deliver(channel, message)
            say(f"taken   {shown(channel)}")
        except ChannelError as error:
            failed += 1
            say(f"FAILED  {shown(channel)}: {error}")
    if failed:
        raise AlertError(f"{failed} of {counted(len(every), 'channel')} did not take the sample")


@alerts_app.command("list")
def alerts_list(
    most: Annotated[int, typer.Option("--most", help="Most events to list.", min=1)] = 50,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only events with a message that was given up.")
    ] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List what people were told, or not and why, newest first; times are UTC.

    Example: anomaly alerts list --failed
    """
    database, _ = connect()
    with database.transaction(SCORER, read_only=True) as transaction:
        rows = [dict(row) for row in list_events(transaction, most, only_failed=failed)]
    print_list("Alerts", rows, _EVENTS, as_json=as_json, as_csv=as_csv)


@alerts_app.command("preview")
def alerts_preview(
    incident: Annotated[int, typer.Argument(help="Number of the incident.", min=1)],
    over: Annotated[bool, typer.Option("--ended", help="The message that it is over.")] = False,
    picture: Annotated[
        Path | None, typer.Option(help="Write the picture into this file (PNG).")
    ] = None,
) -> None:
    """Show the message about an incident, without sending it.

    Example: anomaly alerts preview 12 --picture day.png
    """
    database, settings = connect()
    with database.transaction(SCORER, read_only=True) as transaction:
        message = compose_preview(
            transaction, incident, ENDED if over else OPENED, settings, datetime.now(UTC)
        )
    say(message.title, "", *message.body.split("\n"))
    if picture is not None:
        if picture.suffix.lower() != ".png":
            raise AlertError(f"{printable(str(picture))} is no .png: the picture is one")
        if message.picture is None:
            raise AlertError(f"incident {incident} has no readings to draw")
        picture.write_bytes(message.picture)


@alerts_app.command("silence")
def alerts_silence(
    machine: Annotated[str | None, typer.Option(help="A machine (id or name).")] = None,
    site: Annotated[str | None, typer.Option(help="A site.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    hours: Annotated[float, typer.Option(help="For so long.", min=0.02, max=24 * 366)] = 8.0,
    note: Annotated[str, typer.Option(help="Why.")] = "",
    by: By = "",
) -> None:
    """Tell nobody of a machine, a site or anything for some hours; what lasts is told afterwards.

    Example: anomaly alerts silence --site "Hall 2" --hours 4 --note "power cut"
    """
    if sum((machine is not None, site is not None, everything)) != 1:
        raise AlertError("write one of --machine, --site and --all")
    database, _ = connect()
    until = datetime.now(UTC) + timedelta(hours=hours)
    with database.transaction(SCORER) as transaction:
        known = known_machines(transaction)
        number = add_silence(
            transaction,
            until,
            machine_id=None if machine is None else find_machine(known, machine),
            site=None if site is None else known_site(transaction, site),
            note=note,
            by=by or current_user(),
        )
    what = "everything" if everything else f"machine {machine}" if machine else f"site {site}"
    say(
        f"silence {number}, of {what}, until {until:%Y-%m-%d %H:%M} UTC; end it by `anomaly alerts"
        f" unsilence {number}`"
    )


@alerts_app.command("silences")
def alerts_silences(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the silences that have not ended; times are UTC.

    Example: anomaly alerts silences
    """
    database, _ = connect()
    with database.transaction(SCORER, read_only=True) as transaction:
        rows = [dict(row) for row in list_silences(transaction, datetime.now(UTC))]
    print_list("Silences", rows, _SILENCES, as_json=as_json, as_csv=as_csv)


@alerts_app.command("unsilence")
def alerts_unsilence(
    silence: Annotated[int, typer.Argument(help="Number of the silence.", min=1)],
) -> None:
    """End a silence now.

    Example: anomaly alerts unsilence 3
    """
    database, _ = connect()
    with database.transaction(SCORER) as transaction:
        ended = end_silence(transaction, min(silence, 2**63 - 1))
    if ended is None:
        raise AlertError(f"there is no silence {silence}: `anomaly alerts silences` lists them")
    say(f"silence {silence} ended at {ended:%Y-%m-%d %H:%M} UTC")


@alerts_app.command("templates")
def alerts_templates(
    folder: Annotated[Path, typer.Argument(help="An empty or new folder.")],
) -> None:
    """Copy the shipped templates of messages into a folder, to change them.

    Example: anomaly alerts templates my-templates
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = [name for name in TEMPLATES if (folder / f"{name}.txt").exists()]
    if taken:
        raise AlertError(f"{folder / taken[0]}.txt is there already: nothing was copied")
    for name in TEMPLATES:
        (folder / f"{name}.txt").write_bytes((SHIPPED / f"{name}.txt").read_bytes())
    say(f"change what you like, delete the others, and set ANOMALY_ALERT_TEMPLATES={folder}")
