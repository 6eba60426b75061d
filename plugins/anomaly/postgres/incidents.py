"""Keep the table of incidents right: after each publication, and when people say something."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
from psycopg2.sql import SQL, Literal

from anomaly.episodes import (
    LOOK_BACK,
    Episode,
    Kind,
    Severity,
    Silence,
    find_episodes,
    join_after,
    with_onsets,
)
from anomaly.incidents import Incident, Label, LabelName, State, look_back, match, with_states
from anomaly.postgres import binary
from anomaly.postgres.database import Transaction, int_array, sql_file
from anomaly.schema import Origin
from anomaly.settings import Settings
from anomaly.windows import Window

_KINDS: Any = {
    "utc_timestamp": "datetime64[us, UTC]",
    "previous_at": "datetime64[us, UTC]",
    "anomaly_score": float,
}
_ABOUT = [
    ("number", ">i4"), ("utc_timestamp", ">i8"), ("alarm", ">i1"), ("sound", ">i1"),
    ("power_kw", ">f8"), ("expected_kw", ">f8"),
]  # fmt: skip

Ranges = Mapping[int, tuple[datetime, datetime]]
"""From a first to a last moment of each machine, both included."""


@dataclass(frozen=True)
class Change:
    """What may have changed incidents: verdicts of `machines` in `window`, as of a moment.

    Attributes
    ----------
    quiet : list of int
        Those of `machines` that may have fallen silent.
    as_of : datetime
        End of the newest interval that has been judged, of any machine.
    origin : Origin
        What found incidents that are new.
    at : datetime
        When it was found.
    """

    window: Window
    machines: Sequence[int]
    quiet: Sequence[int]
    as_of: datetime
    origin: Origin
    at: datetime


def readings_to(transaction: Transaction) -> datetime | None:
    """End of the newest interval that has been judged; None before the first."""
    found: datetime | None = transaction.value("readings_to")
    return found


def labels_during(
    transaction: Transaction,
    machines: Sequence[int],
    start: datetime,
    end: datetime,
    through: int | None = None,
) -> list[Label]:
    """What people said of machines about a range, both ends included, up to label `through`.

    In the order in which they said it.
    """
    rows = transaction.rows(
        "labels_during", machines=list(machines), start=start, end=end, through=through
    )
    return [
        Label(row["machine_id"], LabelName(row["label"]), row["starts_at"], row["ends_at"])
        for row in rows
    ]


def refresh_incidents(transaction: Transaction, change: Change, settings: Settings) -> int:
    """Compute the incidents anew that a change may have touched; return how many differ.

    Runs in the publishing transaction, under its lock, so that verdicts and
    incidents are never seen apart.
    """
    ranges = _candidates(transaction, change, settings)
    if not ranges:
        return 0
    known: list[Incident] = []
    episodes: list[Episode] = []
    pending: Ranges = ranges
    while pending:
        others = [episode for episode in episodes if episode.machine_id not in pending]
        apart = [incident for incident in known if incident.episode.machine_id not in pending]
        found = _episodes(transaction, pending, change.as_of, settings)
        touched = _known(transaction, _padded(pending, join_after(settings)))
        wider = _widened(pending, found, (incident.episode for incident in touched))
        episodes, known = [*others, *found], [*apart, *touched]
        pending = {
            machine: wider[machine] for machine in wider if wider[machine] != pending[machine]
        }
        ranges = {**ranges, **wider}
    decided = _decide(transaction, ranges, known, episodes, change, settings)
    return _write(transaction, decided, change)


def _candidates(transaction: Transaction, change: Change, settings: Settings) -> Ranges:
    """The machines to look at, and the range of each: the window, and incidents that last.

    An incident begins before its first alarm, so a verdict bears on those that are told
    up to `LOOK_BACK` behind it.
    """
    join = join_after(settings)
    behind = max(join, LOOK_BACK)
    window, machines = change.window, list(change.machines)
    touched = transaction.rows(
        "incident_candidates",
        start=window.start - join,
        end=window.end + behind,
        machines=machines,
        quiet=list(change.quiet),
        silent_since=change.as_of - settings.dropout,
    )
    if window.end < change.as_of:
        touched = [*touched, *transaction.rows("gap_behind", end=window.end, machines=machines)]
    until = window.end + behind
    ranges = dict.fromkeys((row["machine_id"] for row in touched), (window.start, until))
    for row in transaction.rows("lasting_incidents", machines=machines):
        ranges[row["machine_id"]] = (min(window.start, row["since"]), until)
    return ranges


def _episodes(
    transaction: Transaction, ranges: Ranges, as_of: datetime, settings: Settings
) -> list[Episode]:
    verdicts = transaction.frame("abnormal_verdicts", **_arrays(ranges)).astype(_KINDS)
    newest = transaction.rows("newest_verdicts", machines=list(ranges))
    silences = [Silence(row["machine_id"], row["last_at"], row["active_to"]) for row in newest]
    zones = {row["machine_id"]: row["time_zone"] for row in newest}
    found = find_episodes(verdicts, silences, as_of, settings)
    return with_onsets(found, _verdicts_about(transaction, found), zones, settings)


def _verdicts_about(transaction: Transaction, episodes: Sequence[Episode]) -> pd.DataFrame:
    """All verdicts about episodes of machines, as `with_onsets` takes them."""
    asked = [number for number, found in enumerate(episodes) if found.kind is Kind.MACHINE]
    machines = [episodes[number].machine_id for number in asked]
    statement = SQL(sql_file("queries/verdicts_about.sql")).format(
        numbers=Literal(int_array(asked)),
        machines=Literal(int_array(machines)),
        firsts=Literal([episodes[number].started_at for number in asked]),
        lasts=Literal([episodes[number].last_at for number in asked]),
        look_back=Literal(LOOK_BACK),
    )
    records = binary.decode(transaction.copy_out(statement), _ABOUT)
    columns = {name: binary.native(records[name]) for name, _ in _ABOUT}
    return pd.DataFrame(columns | {"utc_timestamp": binary.moments(records["utc_timestamp"])})


def _known(transaction: Transaction, ranges: Ranges) -> list[Incident]:
    return [
        Incident(
            Episode(
                row["machine_id"],
                Kind(row["kind"]),
                row["started_at"],
                row["last_at"],
                row["told_at"],
                row["readings"],
                row["reason"],
                Severity(row["severity"]),
                row["peak_score"],
                row["excess_kwh"],
            ),
            row["incident_id"],
            State(row["state"]),
            row["ended_at"],
            row["merged_into"],
            row["acknowledged"],
            row["settled"],
        )
        for row in transaction.rows("known_incidents", **_arrays(ranges))
    ]


def _arrays(ranges: Ranges) -> dict[str, list[object]]:
    return {
        "machines": list(ranges),
        "starts": [start for start, _ in ranges.values()],
        "ends": [end for _, end in ranges.values()],
    }


def _padded(ranges: Ranges, by: timedelta) -> Ranges:
    return {machine: (start - by, end + by) for machine, (start, end) in ranges.items()}


def _widened(ranges: Ranges, *touched: Iterable[Episode]) -> Ranges:
    wider = dict(ranges)
    for episodes in touched:
        for episode in episodes:
            start, end = wider[episode.machine_id]
            wider[episode.machine_id] = (
                min(start, episode.started_at),
                max(end, episode.last_at),
            )
    return wider


def _decide(
    transaction: Transaction,
    ranges: Ranges,
    known: Sequence[Incident],
    episodes: Sequence[Episode],
    change: Change,
    settings: Settings,
) -> list[tuple[Incident | None, Incident]]:
    """What each incident was, None where it is new, and what it is now.

    Later neighbours whose episodes are as they were may yet change their state; earlier
    ones are there to tell how long a machine has been abnormal.
    """
    around = _padded(ranges, look_back(settings))
    before = {incident.incident_id: incident for incident in _known(transaction, around)}
    matched = match(known, episodes, settings.interval)
    mine = {incident.incident_id for incident in known}
    others = [incident for number, incident in before.items() if number not in mine]
    held = _widened(around, (incident.episode for incident in [*matched, *others]))
    starts, ends = zip(*held.values(), strict=True)
    labels = labels_during(transaction, list(held), min(starts), max(ends))
    told = with_states([*matched, *others], labels, change.as_of, settings)
    return [
        (before.get(incident.incident_id), incident)
        for number, incident in enumerate(told)
        if number < len(matched)
        or incident.episode.started_at >= ranges[incident.episode.machine_id][0]
    ]


def _write(
    transaction: Transaction,
    decided: Sequence[tuple[Incident | None, Incident]],
    change: Change,
) -> int:
    new = [incident for before, incident in decided if before is None]
    changed = [incident for before, incident in decided if before not in (None, incident)]
    if new:
        transaction.run(
            "insert_incidents", incidents=_as_json(new), origin=change.origin.value, at=change.at
        )
    if changed:
        transaction.run("update_incidents", incidents=_as_json(changed), at=change.at)
    return len(new) + len(changed)


def _as_json(incidents: Iterable[Incident]) -> str:
    return json.dumps([_fields(incident) for incident in incidents], default=datetime.isoformat)


def _fields(incident: Incident) -> dict[str, object]:
    return vars(incident.episode) | {
        "incident_id": incident.incident_id,
        "state": incident.state.value,
        "ended_at": incident.ended_at,
        "merged_into": incident.merged_into,
        "settled": incident.settled,
    }
