"""``anomaly incidents`` and ``anomaly label``: list, show, acknowledge and label incidents."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

import typer

from anomaly.cli.console import (
    AsCsv,
    AsJson,
    connect,
    out,
    print_facts,
    print_json,
    print_list,
    print_rows,
    say,
)
from anomaly.cli.readings_around import lines_around
from anomaly.current_user import current_user
from anomaly.database.connection import SCORER, Transaction
from anomaly.database.incidents import acknowledgements, list_incidents
from anomaly.database.labels import list_labels
from anomaly.database.machines import find_machine, known_machines
from anomaly.database.results import verdicts_between
from anomaly.errors import LabelError, SettingsError
from anomaly.incidents.incident import State
from anomaly.incidents.labels import LabelName
from anomaly.incidents.operator_feedback import acknowledge as acknowledge_incident
from anomaly.incidents.operator_feedback import is_incident, label_incident
from anomaly.incidents.operator_feedback import label as write_label
from anomaly.incidents.usual_band import HISTORY
from anomaly.readings.local_clocks import zone_or_utc
from anomaly.settings import IncidentSettings
from anomaly.windows import Window, parse_moment

_PRESENT = [State.OPEN, State.ACKNOWLEDGED, State.SILENCED]
_COLUMNS = (
    "incident_id", "machine", "kind", "state", "severity", "started_at", "told_at", "ended_at",
    "settled", "excess_kwh", "reason",
)  # fmt: skip
_NARROW = ("no", "machine", "what", "when", "kWh", "reason")
_WIDE = 160  # chosen: columns of a terminal from which on the full table is readable
_AROUND = timedelta(hours=2)  # chosen: shown before and after an incident, to see the change

By = Annotated[str, typer.Option(help="Who does this; default: this account.")]
Zone = Annotated[
    str, typer.Option("--tz", help="Show times in this zone; default: each machine's own.")
]

incidents_app = typer.Typer(
    help="List incidents, newest first; by default those that need somebody.\n\n"
    "Example: anomaly incidents --all --tz Europe/Berlin"
)


@incidents_app.callback(invoke_without_command=True)
def incidents(
    context: typer.Context,
    machine: Annotated[
        str | None, typer.Option(help="Only incidents of this machine (id or name).")
    ] = None,
    state: Annotated[
        str,
        typer.Option(help="States separated by commas; default: open,acknowledged,silenced."),
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="Incidents in any state.")] = False,
    start: Annotated[
        str | None, typer.Option(help="Only incidents that lasted beyond this moment.")
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="Only incidents that began before this moment.")
    ] = None,
    acknowledge: Annotated[int | None, typer.Option(help="Acknowledge this incident (id).")] = None,
    by: By = "",
    zone: Zone = "",
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List incidents, newest first; by default those that need somebody.

    Example: anomaly incidents --all --tz Europe/Berlin
    """
    if context.invoked_subcommand is not None:
        return None
    shown_in = _checked_zone(zone)
    database, settings = connect()
    if acknowledge is not None:
        found = acknowledge_incident(
            database, settings.meter, settings.incidents, acknowledge, by=by or current_user()
        )
        facts = {"incident_id": acknowledge, "state": found.value}
        return print_json(facts) if as_json else say(f"incident {acknowledge}: {found}")
    chosen = list(State) if everything else _states(state)
    since, until = (parse_moment(moment) if moment else None for moment in (start, end))
    if since and until:
        Window(since, until)  # refuses one that ends before it starts
    with database.transaction(SCORER, read_only=True) as transaction:
        known = known_machines(transaction)
        rows = _incident_rows(
            transaction,
            states=chosen,
            machine_id=None if machine is None else find_machine(known, machine),
            start=since,
            end=until,
        )
    # A silenced incident that is over needs nobody; it is shown only if asked for.
    needed = [row for row in rows if everything or state or row["ended_at"] is None]
    shown = [row | _cost_column(row["excess_kwh"], settings.incidents) for row in needed]
    columns = (*_COLUMNS, *(["cost"] if settings.incidents.price_per_kwh else []))
    if as_json or as_csv:
        return print_list("Incidents", shown, columns, as_json=as_json, as_csv=as_csv)
    print_incidents("Incidents", shown, zone=shown_in, columns=columns)
    if not shown and not everything:
        say("No incident needs anybody. `anomaly incidents --all` shows those that are over, too.")


@incidents_app.command("show")
def show(
    incident: Annotated[int, typer.Argument(help="Number of the incident.", min=1)],
    zone: Zone = "",
    most: Annotated[int, typer.Option("--readings", help="Most readings to show.", min=2)] = 48,
    as_json: AsJson = False,
) -> None:
    """Show an incident: its readings compared with the usual power, and what people said.

    Example: anomaly incidents show 12
    """
    shown_in = _checked_zone(zone)
    database, settings = connect()
    with database.transaction(SCORER, read_only=True) as transaction:
        found = _incident_rows(
            transaction, states=list(State), incident_id=min(incident, 2**63 - 1)
        )
        if not found:
            raise LabelError(
                f"there is no incident {incident}: `anomaly incidents --all` lists them"
            )
        row = found[0]
        end = row["last_at"] + settings.meter.interval
        around = {"machine_id": row["machine_id"], "start": row["started_at"], "end": end}
        labels = [dict(label) for label in list_labels(transaction, withdrawn=True, **around)]
        taken_on = [dict(one) for one in acknowledgements(transaction, incident)]
        between = verdicts_between(
            transaction,
            row["machine_id"],
            row["started_at"] - HISTORY,
            row["last_at"] + _AROUND,
        )
        verdicts = [dict(verdict) for verdict in between]
    row |= _cost_column(row["excess_kwh"], settings.incidents)
    readings = [v for v in verdicts if v["utc_timestamp"] >= row["started_at"] - _AROUND]
    if as_json:
        return print_json(
            row | {"readings_around": readings, "labels": labels, "acknowledgements": taken_on}
        )
    clock = shown_in or zone_or_utc(row["time_zone"])
    _print_incident(row, clock)
    inside = Window(row["started_at"], end)
    for line in lines_around(verdicts, readings, inside, clock, most):
        say(line)
    if labels:
        columns = ("label_id", "label", "starts_at", "ends_at", "note", "labelled_by",
                   "labelled_at", "withdrawn_by")  # fmt: skip
        print_rows("Labels", [_in_zone(label, clock) for label in labels], columns)
    if taken_on:
        people = [_in_zone(each, clock) for each in taken_on]
        print_rows("Taken on", people, ("acknowledged_by", "acknowledged_at"))


def label(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[MACHINE] WHAT",
            help="Id or name of the machine (not with --incident), and what it was or will"
            f" be: {', '.join(LabelName)}.",
        ),
    ],
    incident: Annotated[
        int | None, typer.Option(help="Label the machine and the range of this incident.", min=1)
    ] = None,
    start: Annotated[str | None, typer.Option(help="First moment of the range.")] = None,
    end: Annotated[str | None, typer.Option(help="End, not included.")] = None,
    note: Annotated[str, typer.Option(help="Free text.")] = "",
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Label a range: a real fault, a false alarm, maintenance or a meter fault.

    Example: anomaly label --incident 12 false_alarm
    """
    *machines, what = words
    name = _label_name(what)
    said = {"note": note, "by": by or current_user()}
    if incident is not None:
        if machines or start or end:
            raise SettingsError(
                f"--incident {incident} has a machine and a range of its own: leave out the"
                " machine, --start and --end"
            )
        database, settings = connect()
        done = label_incident(database, settings.meter, settings.incidents, incident, name, **said)
    else:
        if len(machines) != 1 or not start or not end:
            raise SettingsError(
                f"{' '.join(words)!r} is not a machine with a range: write a machine, what it was,"
                " --start and --end; or --incident and what it was"
            )
        window = Window.parse(start, end)
        database, settings = connect()
        done = write_label(
            database, settings.meter, settings.incidents, machines[0], window, name, **said
        )
    if as_json:
        facts = asdict(done)
        return print_json(facts | {"window": [done.window.start, done.window.end]})
    say(
        f"machine {done.machine_id} ({done.machine}) in {done.window}: {done.label.value};"
        f" label {done.label_id}, the next training uses it; incidents with another state now:"
        f" {done.incidents_changed}"
    )
    # Machines and incidents both have numbers, which are easily mixed up.
    if machines and is_incident(database, machines[0]):
        say(
            f"this is machine {done.machine}, not incident {machines[0]}: for that one take"
            f" label {done.label_id} back (anomaly labels remove {done.label_id}) and write"
            f" --incident {machines[0]}"
        )


def print_incidents(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    zone: ZoneInfo | None = None,
    columns: Sequence[str] = _COLUMNS,
) -> None:
    """Print a table of incidents. Times are in `zone`, or in each machine's own zone."""
    local = [_in_zone(row, zone or zone_or_utc(row["time_zone"])) for row in rows]
    if not out.is_terminal or out.width >= _WIDE:
        known = [name for name in columns if not local or name in local[0]]
        return print_rows(title, local, known)
    print_rows(title, [_narrow_row(row) for row in local], _NARROW)


def _narrow_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """An incident in few columns, for a narrow terminal."""
    start, told, end = (row[name] for name in ("started_at", "told_at", "ended_at"))
    cost = f", costs {row['cost']}" if row.get("cost") is not None else ""
    until = f"to {end:%a %m-%d %H:%M}" if end else "lasts"
    return {
        "no": row["incident_id"],
        "machine": row["machine"],
        "what": f"{row['severity']} {row['state']} {row['kind']}",
        "when": f"{start:%Y-%m-%d %H:%M %Z}, told {told:%a %H:%M}, {until}",
        "kWh": row["excess_kwh"],
        "reason": f"{row['reason']}{cost}",
    }


def _print_incident(row: Mapping[str, Any], zone: ZoneInfo) -> None:
    local = _in_zone(row, zone)
    new_normal = " (a new normal, which training learns)" if row["settled"] else ""
    merged = f" into {row['merged_into']}" if row["merged_into"] else ""
    facts = {
        "machine": f"{row['machine_id']} ({row['machine']})",
        "site": row["site"] or None,
        "kind": row["kind"],
        "severity": row["severity"],
        "state": f"{row['state']}{merged}{new_normal}",
        "started": local["started_at"],
        "told": local["told_at"],
        "ended": local["ended_at"] or "lasts",
        "reason": row["reason"],
        "excess_kwh": row["excess_kwh"],
        **{name: row[name] for name in ("cost",) if name in row},
        "abnormal_readings": row["readings"],
        "highest_score": None if row["peak_score"] is None else f"{row['peak_score']:.3f}",
        "found_by": row["origin"],
    }
    print_facts(f"Incident {row['incident_id']}, times in {zone.key}", facts)


def _incident_rows(
    transaction: Transaction,
    *,
    states: Sequence[State],
    incident_id: int | None = None,
    machine_id: int | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> list[dict[str, Any]]:
    rows = list_incidents(
        transaction,
        states=[item.value for item in states],
        incident_id=incident_id,
        machine_id=machine_id,
        start=start,
        end=end,
    )
    return [dict(row) for row in rows]


def _in_zone(row: Mapping[str, Any], zone: ZoneInfo) -> dict[str, Any]:
    """A row with its times in a zone."""
    return {
        name: value.astimezone(zone) if isinstance(value, datetime) else value
        for name, value in row.items()
    }


def _checked_zone(name: str) -> ZoneInfo | None:
    if name and name not in available_timezones():
        raise SettingsError(
            f"--tz is {name!r}, which is not a time zone: write one such as Europe/Berlin or UTC"
        )
    return ZoneInfo(name) if name else None


def _label_name(text: str) -> LabelName:
    try:
        return LabelName(text)
    except ValueError:
        raise SettingsError(
            f"{text!r} is not a label: write one of {', '.join(LabelName)}"
        ) from None


def _states(text: str) -> list[State]:
    if not text:
        return _PRESENT
    try:
        return [State(part.strip()) for part in text.split(",")]
    except ValueError:
        raise SettingsError(
            f"--state is {text!r}: write some of {', '.join(State)}, by comma"
        ) from None


def _cost_column(excess_kwh: float | None, rules: IncidentSettings) -> dict[str, Any]:
    if not rules.price_per_kwh:
        return {}
    return {"cost": None if excess_kwh is None else round(excess_kwh * rules.price_per_kwh, 2)}
