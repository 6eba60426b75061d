"""Give each incident its state: open, acknowledged, closed (also as a new normal) or silenced."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from anomaly.incidents.episodes import Episode, Kind, Severity, join_after
from anomaly.incidents.incident import Incident, State
from anomaly.incidents.labels import Label, LabelName
from anomaly.settings import IncidentSettings, MeterSettings

_DAY = timedelta(days=1)
# A weekend with a holiday before and after it. A machine that is only used on working days may show
# its new normal that much later.
_WEEKEND = timedelta(days=4)


def with_states(
    incidents: Sequence[Incident],
    labels: Iterable[Label],
    as_of: datetime,
    meter: MeterSettings,
    rules: IncidentSettings,
) -> list[Incident]:
    """Give each live incident its state and its end.

    Parameters
    ----------
    incidents : sequence of Incident
        All incidents of their machines, as far back as `look_back`.
    labels : iterable of Label
        In the order in which they were given.
    """
    by_machine: dict[int, list[Label]] = {}
    for label in labels:
        by_machine.setdefault(label.machine_id, []).append(label)
    settled = _new_normals(incidents, by_machine, meter, rules)
    acknowledged = {
        incident.merged_into if incident.state is State.MERGED else incident.incident_id
        for incident in incidents
        if incident.acknowledged
    }  # an incident that was merged passes its acknowledgement on to the whole incident
    return [
        _with_state(
            incident,
            by_machine.get(incident.episode.machine_id, []),
            incident.incident_id in acknowledged,
            number in settled,
            as_of,
            meter,
        )
        if incident.is_live
        else incident
        for number, incident in enumerate(incidents)
    ]


def look_back(rules: IncidentSettings) -> timedelta:
    """How long before an incident's last alarm earlier incidents count towards a new normal."""
    return rules.settle_after + _WEEKEND


def _new_normals(
    incidents: Sequence[Incident],
    labels: Mapping[int, Sequence[Label]],
    meter: MeterSettings,
    rules: IncidentSettings,
) -> set[int]:
    """Places in `incidents` of those that are a new normal of their machine or meter."""
    found: set[int] = set()
    earlier: dict[tuple[int, Kind], list[Episode]] = {}
    live = [number for number, incident in enumerate(incidents) if incident.is_live]
    for number in sorted(live, key=lambda number: incidents[number].episode.started_at):
        episode = incidents[number].episode
        before = earlier.setdefault(episode.key, [])
        maintained_to = _end_of_maintenance(labels.get(episode.machine_id, []), episode.last_at)
        if _is_new_normal(episode, before, maintained_to, meter, rules):
            found.add(number)
        before.append(episode)
    return found


def _is_new_normal(
    episode: Episode,
    earlier: Sequence[Episode],
    maintained_to: datetime | None,
    meter: MeterSettings,
    rules: IncidentSettings,
) -> bool:
    """Whether a machine has been abnormal for long enough, or on enough of its last days.

    Time until the end of a maintenance does not count. An episode that is more severe than the
    recent ones is not a new normal. A meter that has been at fault for ``max_gap`` is assumed
    to have stopped for good.
    """
    since = episode.last_at - look_back(rules)
    since = max(since, maintained_to or since)
    lasted = episode.last_at - max(episode.started_at, maintained_to or episode.started_at)
    if episode.kind is Kind.METER:
        return lasted >= meter.max_gap
    if lasted >= rules.settle_after:
        return True
    # The days are counted back from the last alarm in steps of 24 hours, not by the calendar.
    recent = [other for other in earlier if other.last_at >= since]
    days = {
        day
        for other in [*recent, episode]
        for day in range(
            (episode.last_at - other.last_at) // _DAY,
            (episode.last_at - max(other.started_at, since)) // _DAY + 1,
        )
    }
    severities = list(Severity)
    worst = max((severities.index(other.severity) for other in recent), default=len(severities))
    # One day more than `settle_after` holds, and two at least: with pauses it takes more to be
    # sure than without.
    return (
        len(days) > max(1, rules.settle_after // _DAY)
        and severities.index(episode.severity) <= worst
    )


def _end_of_maintenance(labels: Sequence[Label], moment: datetime) -> datetime | None:
    """End of the last maintenance that was over by `moment`; None if there was none."""
    ends = [label.end for label in labels if label.label is LabelName.MAINTENANCE and label.end]
    return max((end for end in ends if end <= moment), default=None)


def _with_state(
    incident: Incident,
    labels: Sequence[Label],
    acknowledged: bool,
    settled: bool,
    as_of: datetime,
    meter: MeterSettings,
) -> Incident:
    episode = incident.episode
    over = as_of - meter.interval >= episode.last_at + join_after(meter)
    ended_at = episode.last_at + meter.interval if over else None
    # Maintenance says nothing about what an incident was, so the latest other label counts. A
    # meter fault explains an incident of a machine; an incident of a meter is confirmed by it.
    touching = [label.label for label in labels if label.touches(episode, meter.interval)]
    said = next((name for name in reversed(touching) if name is not LabelName.MAINTENANCE), None)
    explained = said is LabelName.FALSE_ALARM or (
        said is LabelName.METER_FAULT and episode.kind is Kind.MACHINE
    )
    taken_on = acknowledged or said in (LabelName.REAL, LabelName.METER_FAULT)
    settled = settled and not taken_on  # training must not learn what people call a real fault
    if any(
        label.label is LabelName.MAINTENANCE and label.covers(episode.last_at) for label in labels
    ):
        state = State.SILENCED
    elif over or settled or explained:
        state = State.CLOSED
    elif taken_on:
        state = State.ACKNOWLEDGED
    else:
        state = State.OPEN
    return replace(incident, state=state, ended_at=ended_at, settled=settled)
