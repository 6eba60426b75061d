"""Update the table of incidents after each publication and when operators say something."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from anomaly.database import incidents as incident_table
from anomaly.database import labels as label_table
from anomaly.database import results
from anomaly.database.connection import Transaction
from anomaly.database.results import Origin, Ranges
from anomaly.incidents.changes import IncidentChanges
from anomaly.incidents.episodes import (
    Episode,
    Kind,
    Severity,
    Silence,
    find_episodes,
    join_after,
    longest_silence,
)
from anomaly.incidents.identity import match
from anomaly.incidents.incident import Incident, State
from anomaly.incidents.labels import Label, LabelName
from anomaly.incidents.onsets import LOOK_BACK, with_onsets
from anomaly.incidents.states import look_back, with_states
from anomaly.settings import IncidentSettings, MeterSettings
from anomaly.windows import Window


@dataclass(frozen=True)
class VerdictsChanged:
    """A change of verdicts of `machines` in `window`, which may have changed incidents.

    Attributes
    ----------
    quiet : list of int
        Those of `machines` that may have become silent.
    as_of : datetime
        End of the newest interval that has been judged, of any machine.
    origin : Origin
        Recorded as the origin of new incidents.
    at : datetime
        Recorded as the time of the change.
    """

    window: Window
    machines: Sequence[int]
    quiet: Sequence[int]
    as_of: datetime
    origin: Origin
    at: datetime


def refresh_incidents(
    transaction: Transaction,
    change: VerdictsChanged,
    meter: MeterSettings,
    rules: IncidentSettings,
) -> IncidentChanges:
    """Compute the incidents again that changed verdicts may affect; return what changed.

    Runs in the publishing transaction, under its lock. So nobody sees new verdicts with old
    incidents.
    """
    ranges = _ranges_to_look_at(transaction, change, meter, rules)
    if not ranges:
        return IncidentChanges()
    known: list[Incident] = []
    episodes: list[Episode] = []
    pending: Ranges = ranges
    # An episode or a known incident may be longer than the range that was read. Then the range of
    # its machine is widened and read again, until everything lies inside.
    while pending:
        others = [episode for episode in episodes if episode.machine_id not in pending]
        apart = [incident for incident in known if incident.episode.machine_id not in pending]
        found = _found_episodes(transaction, pending, change.as_of, meter, rules)
        touched = _known_incidents(transaction, _padded_ranges(pending, join_after(meter)))
        wider = _widened_ranges(pending, found, (incident.episode for incident in touched))
        episodes, known = [*others, *found], [*apart, *touched]
        pending = {
            machine: wider[machine] for machine in wider if wider[machine] != pending[machine]
        }
        ranges = {**ranges, **wider}
    decided = _before_and_now(transaction, ranges, known, episodes, change.as_of, meter, rules)
    return _write_changes(transaction, IncidentChanges.of(decided), change)


def labels_during(
    transaction: Transaction,
    machines: Sequence[int],
    start: datetime,
    end: datetime,
    through: int | None = None,
) -> list[Label]:
    """Labels of machines in a range, both ends included, in the order in which they were given.

    Parameters
    ----------
    through : int, optional
        Ignore labels with a higher number.
    """
    return [
        Label(row["machine_id"], LabelName(row["label"]), row["starts_at"], row["ends_at"])
        for row in label_table.labels_during(transaction, machines, start, end, through)
    ]


# Machines and ranges to read ----------------------------------------------------------


def _ranges_to_look_at(
    transaction: Transaction,
    change: VerdictsChanged,
    meter: MeterSettings,
    rules: IncidentSettings,
) -> Ranges:
    """The machines to read, with a range each: the window, and incidents that still last.

    An incident begins before its first alarm. So a verdict can affect incidents whose first
    alarm is up to `LOOK_BACK` after it.
    """
    join = join_after(meter)
    after = max(join, LOOK_BACK)
    window, machines = change.window, change.machines
    touched = incident_table.candidate_machines(
        transaction,
        Window(window.start - join, window.end + after),
        machines,
        change.quiet,
        change.as_of - longest_silence(meter, rules),
    )
    # A gap shows in the verdict after it, so the first verdict after the window counts as well.
    if window.end < change.as_of:
        touched = [*touched, *results.machines_after_gap(transaction, machines, window.end)]
    until = window.end + after
    ranges = dict.fromkeys(touched, (window.start, until))
    for machine, since in incident_table.lasting_since(transaction, machines).items():
        ranges[machine] = (min(window.start, since), until)
    return ranges


def _padded_ranges(ranges: Ranges, by: timedelta) -> Ranges:
    return {machine: (start - by, end + by) for machine, (start, end) in ranges.items()}


def _widened_ranges(ranges: Ranges, *touched: Iterable[Episode]) -> Ranges:
    wider = dict(ranges)
    for episodes in touched:
        for episode in episodes:
            start, end = wider[episode.machine_id]
            wider[episode.machine_id] = (
                min(start, episode.started_at),
                max(end, episode.last_at),
            )
    return wider


# Read ---------------------------------------------------------------------------------


def _found_episodes(
    transaction: Transaction,
    ranges: Ranges,
    as_of: datetime,
    meter: MeterSettings,
    rules: IncidentSettings,
) -> list[Episode]:
    verdicts = results.abnormal_verdicts(transaction, ranges)
    newest = results.newest_verdicts(transaction, list(ranges))
    silences = [Silence(row["machine_id"], row["last_at"], row["active_to"]) for row in newest]
    zones = {row["machine_id"]: row["time_zone"] for row in newest}
    found = find_episodes(verdicts, silences, as_of, meter, rules)
    asked = [number for number, episode in enumerate(found) if episode.kind is Kind.MACHINE]
    about = results.verdicts_about(
        transaction,
        asked,
        [found[number].machine_id for number in asked],
        [(found[number].started_at, found[number].last_at) for number in asked],
        LOOK_BACK,
    )
    return with_onsets(found, about, zones, meter)


def _known_incidents(transaction: Transaction, ranges: Ranges) -> list[Incident]:
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
        for row in incident_table.known_incidents(transaction, ranges)
    ]


# Decide and write ---------------------------------------------------------------------


def _before_and_now(
    transaction: Transaction,
    ranges: Ranges,
    known: Sequence[Incident],
    episodes: Sequence[Episode],
    as_of: datetime,
    meter: MeterSettings,
    rules: IncidentSettings,
) -> list[tuple[Incident | None, Incident]]:
    """Pairs of an incident before (None if it is new) and now.

    Later incidents are included: their state can change although their episode did not. Earlier
    incidents are only read to know how long a machine has been abnormal.
    """
    # Wider by `look_back` on both sides: before, for the incidents that decide about a new normal;
    # after, for the incidents that may become one.
    around = _padded_ranges(ranges, look_back(rules))
    before = {incident.incident_id: incident for incident in _known_incidents(transaction, around)}
    matched = match(known, episodes, meter.interval)
    mine = {incident.incident_id for incident in known}
    others = [incident for number, incident in before.items() if number not in mine]
    held = _widened_ranges(around, (incident.episode for incident in [*matched, *others]))
    starts, ends = zip(*held.values(), strict=True)
    labels = labels_during(transaction, list(held), min(starts), max(ends))
    stated = with_states([*matched, *others], labels, as_of, meter, rules)
    return [
        (before.get(incident.incident_id), incident)
        for number, incident in enumerate(stated)
        if number < len(matched)
        or incident.episode.started_at >= ranges[incident.episode.machine_id][0]
    ]


def _write_changes(
    transaction: Transaction, found: IncidentChanges, change: VerdictsChanged
) -> IncidentChanges:
    """Write the changes; return them with the numbers of the new incidents."""
    new = [one.now for one in found.changes if one.before is None]
    known = [one.now for one in found.changes if one.before is not None]
    numbers: Mapping[tuple[int, str, datetime], int] = {}
    if new:
        numbers = incident_table.insert_incidents(
            transaction,
            [_incident_columns(incident) for incident in new],
            origin=change.origin,
            at=change.at,
        )
    if known:
        rows = [_incident_columns(incident) for incident in known]
        incident_table.update_incidents(transaction, rows, at=change.at)
    return IncidentChanges(
        tuple(
            one if one.before else replace(one, now=_with_number(one.now, numbers))
            for one in found.changes
        )
    )


def _with_number(incident: Incident, numbers: Mapping[tuple[int, str, datetime], int]) -> Incident:
    episode = incident.episode
    key = (episode.machine_id, episode.kind.value, episode.started_at)
    return replace(incident, incident_id=numbers[key])


def _incident_columns(incident: Incident) -> dict[str, Any]:
    return vars(incident.episode) | {
        "incident_id": incident.incident_id,
        "state": incident.state.value,
        "ended_at": incident.ended_at,
        "merged_into": incident.merged_into,
        "settled": incident.settled,
    }
