"""``anomaly incidents`` and ``anomaly label``: what is wrong, and what people say of it."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from anomaly.cli.console import AsJson, End, Start, connect, out, print_json, print_rows
from anomaly.errors import SettingsError
from anomaly.incidents import LabelName, State
from anomaly.labelling import acknowledge as take_on
from anomaly.labelling import label as write_label
from anomaly.postgres.database import SCORER
from anomaly.postgres.machines import find_machine, known_machines
from anomaly.settings import Settings
from anomaly.training import current_user
from anomaly.windows import Window, parse_moment

_PRESENT = [State.OPEN, State.ACKNOWLEDGED, State.SILENCED]
_COLUMNS = (
    "incident_id", "machine", "kind", "state", "severity", "started_at", "ended_at", "excess_kwh",
    "reason",
)  # fmt: skip

By = Annotated[str, typer.Option(help="Who says so; default: this account.")]


def incidents(
    machine: Annotated[
        str | None, typer.Option(help="Of this machine only, by id or name.")
    ] = None,
    state: Annotated[
        str, typer.Option(help="States by comma; default: open,acknowledged,silenced.")
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="Whatever their state.")] = False,
    start: Annotated[str | None, typer.Option(help="That lasted beyond this moment.")] = None,
    end: Annotated[str | None, typer.Option(help="That began before this moment.")] = None,
    acknowledge: Annotated[int | None, typer.Option(help="Take this incident on, by id.")] = None,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """List incidents, newest first; those that need somebody unless told otherwise."""
    database, settings = connect()
    if acknowledge is not None:
        found = take_on(database, settings, acknowledge, by=by or current_user())
        facts = {"incident_id": acknowledge, "state": found.value}
        return print_json(facts) if as_json else out.print(f"incident {acknowledge}: {found}")
    chosen = list(State) if everything else _states(state)
    since, until = (parse_moment(moment) if moment else None for moment in (start, end))
    if since and until:
        Window(since, until)  # refuses one that ends before it starts
    with database.transaction(SCORER, read_only=True) as transaction:
        known = known_machines(transaction)
        rows = transaction.rows(
            "list_incidents",
            states=[item.value for item in chosen],
            machine_id=None if machine is None else find_machine(known, machine),
            start=since,
            end=until,
        )
    needed = [row for row in rows if everything or state or row["ended_at"] is None]
    shown = [dict(row) | _cost(row["excess_kwh"], settings) for row in needed]
    if as_json:
        return print_json(shown)
    print_rows("Incidents", shown, (*_COLUMNS, *(["cost"] if settings.price_per_kwh else [])))


def label(
    machine: Annotated[str, typer.Argument(help="Id or name of the machine.")],
    what: Annotated[LabelName, typer.Argument(help="What it was, or will be.")],
    start: Start,
    end: End,
    note: Annotated[str, typer.Option(help="What else there is to say.")] = "",
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Say what a range was: a real fault, a false alarm, maintenance or a meter fault."""
    database, settings = connect()
    done = write_label(
        database,
        settings,
        machine,
        Window.parse(start, end),
        what,
        note=note,
        by=by or current_user(),
    )
    if as_json:
        facts = asdict(done)
        return print_json(facts | {"window": [done.window.start, done.window.end]})
    out.print(
        f"machine {done.machine_id} in {done.window}: {done.label.value};"
        f" {done.incidents_changed} incidents changed"
    )


def _states(text: str) -> list[State]:
    if not text:
        return _PRESENT
    try:
        return [State(part.strip()) for part in text.split(",")]
    except ValueError:
        raise SettingsError(
            f"--state is {text!r}: write some of {', '.join(State)}, by comma"
        ) from None


def _cost(excess_kwh: float | None, settings: Settings) -> dict[str, Any]:
    if not settings.price_per_kwh:
        return {}
    return {"cost": None if excess_kwh is None else round(excess_kwh * settings.price_per_kwh, 2)}
