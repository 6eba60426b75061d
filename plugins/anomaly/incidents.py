"""Incidents: episodes with an identity that survives being computed again, and their states.

Everything here is a pure function of episodes, labels and the moment up to which
readings are known; `anomaly.postgres.incidents` reads and writes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from anomaly.episodes import Episode, Kind, Severity, join_after
from anomaly.settings import Settings

_DAY, _WEEKEND = timedelta(days=1), timedelta(days=4)  # the latter with a holiday on either side


class State(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"
    SILENCED = "silenced"
    WITHDRAWN = "withdrawn"
    MERGED = "merged"


class LabelName(StrEnum):
    """What people say about a machine and a range of time."""

    REAL = "real"
    FALSE_ALARM = "false_alarm"
    MAINTENANCE = "maintenance"
    METER_FAULT = "meter_fault"


NOT_NORMAL = (LabelName.REAL, LabelName.MAINTENANCE, LabelName.METER_FAULT)
"""Readings so labelled are never trained on."""


@dataclass(frozen=True)
class Label:
    """What somebody said about a machine during ``[start, end)``; an end may be missing.

    Where labels contradict each other, the one said last counts: they are handed on in
    the order in which they were said.
    """

    machine_id: int
    label: LabelName
    start: datetime | None
    end: datetime | None

    def covers(self, moment: datetime) -> bool:
        """Whether the range holds `moment`."""
        return (self.start is None or self.start <= moment) and (
            self.end is None or moment < self.end
        )

    def touches(self, episode: Episode, interval: timedelta) -> bool:
        """Whether the range holds a part of the episode."""
        return (self.end is None or episode.started_at < self.end) and (
            self.start is None or self.start < episode.last_at + interval
        )


@dataclass(frozen=True)
class Incident:
    """An episode with an identity; ``incident_id`` is None until it is written.

    Attributes
    ----------
    settled : bool
        The machine has been so for days: a new normal, for training to learn.
    """

    episode: Episode
    incident_id: int | None = None
    state: State = State.OPEN
    ended_at: datetime | None = None
    merged_into: int | None = None
    acknowledged: bool = False
    settled: bool = False

    @property
    def is_live(self) -> bool:
        """Whether it stands for an episode that is there."""
        return self.state not in (State.WITHDRAWN, State.MERGED)


# Identity -------------------------------------------------------------------


def match(
    known: Sequence[Incident], episodes: Sequence[Episode], interval: timedelta
) -> list[Incident]:
    """Give episodes the identities of known incidents.

    An episode keeps the incident it overlaps most (ties: the earliest), live ones
    first. A live incident left without an episode is merged into the one that took
    its place, or withdrawn; it comes back when its episode does.

    Returns
    -------
    list of Incident
        Every known incident and every new one (without an id), states yet to be told.
    """
    taken: dict[int, Incident] = {}
    owner: dict[int, int] = {}
    for number, place in _by_overlap(known, episodes, interval):
        if number not in owner and place not in taken:
            owner[number] = place
            taken[place] = replace(
                known[number], episode=episodes[place], state=State.OPEN, merged_into=None
            )
    left = [
        _without_episode(incident, taken, interval)
        for number, incident in enumerate(known)
        if number not in owner
    ]
    new = [Incident(episode) for place, episode in enumerate(episodes) if place not in taken]
    return [*taken.values(), *left, *new]


def _by_overlap(
    known: Sequence[Incident], episodes: Sequence[Episode], interval: timedelta
) -> list[tuple[int, int]]:
    places: dict[tuple[int, Kind], list[int]] = {}
    for place, episode in enumerate(episodes):
        places.setdefault(episode.key, []).append(place)
    pairs = []
    for number, incident in enumerate(known):
        for place in places.get(incident.episode.key, []):
            overlap = incident.episode.overlap(episodes[place], interval)
            if overlap > timedelta(0):
                order = (not incident.is_live, -overlap, incident.episode.started_at)
                pairs.append((*order, incident.incident_id, number, place))
    return [(number, place) for *_, number, place in sorted(pairs)]


def _without_episode(
    incident: Incident, taken: Mapping[int, Incident], interval: timedelta
) -> Incident:
    if incident.state is State.WITHDRAWN:
        return incident
    overlaps = [
        (incident.episode.overlap(other.episode, interval), other)
        for other in taken.values()
        if other.episode.key == incident.episode.key
    ]
    meeting = [pair for pair in overlaps if pair[0] > timedelta(0)]
    over = replace(incident, ended_at=incident.episode.last_at + interval)
    if not meeting:
        return replace(over, state=State.WITHDRAWN, merged_into=None)
    _, heir = max(meeting, key=lambda pair: pair[0])
    return replace(over, state=State.MERGED, merged_into=heir.incident_id)


# States ---------------------------------------------------------------------


def with_states(
    incidents: Sequence[Incident], labels: Iterable[Label], as_of: datetime, settings: Settings
) -> list[Incident]:
    """Tell the state and the end of each live incident.

    Parameters
    ----------
    incidents : sequence of Incident
        All of their machines, as far back as `look_back`.
    labels : iterable of Label
        In the order in which they were said.
    """
    by_machine: dict[int, list[Label]] = {}
    for label in labels:
        by_machine.setdefault(label.machine_id, []).append(label)
    settled = _new_normals(incidents, by_machine, settings)
    acknowledged = {
        incident.merged_into if incident.state is State.MERGED else incident.incident_id
        for incident in incidents
        if incident.acknowledged
    }  # who took on a part, took on the whole
    return [
        _with_state(
            incident,
            by_machine.get(incident.episode.machine_id, []),
            incident.incident_id in acknowledged,
            number in settled,
            as_of,
            settings,
        )
        if incident.is_live
        else incident
        for number, incident in enumerate(incidents)
    ]


def look_back(settings: Settings) -> timedelta:
    """How long before an incident's last alarm others tell whether it is a new normal."""
    return settings.settle_after + _WEEKEND


def _new_normals(
    incidents: Sequence[Incident], labels: Mapping[int, Sequence[Label]], settings: Settings
) -> set[int]:
    """Incidents that speak of how things are now, by their numbers."""
    found: set[int] = set()
    earlier: dict[tuple[int, Kind], list[Episode]] = {}
    live = [number for number, incident in enumerate(incidents) if incident.is_live]
    for number in sorted(live, key=lambda number: incidents[number].episode.started_at):
        episode = incidents[number].episode
        before = earlier.setdefault(episode.key, [])
        maintained_to = _end_of_maintenance(labels.get(episode.machine_id, []), episode.last_at)
        if _is_new_normal(episode, before, maintained_to, settings):
            found.add(number)
        before.append(episode)
    return found


def _is_new_normal(
    episode: Episode,
    earlier: Sequence[Episode],
    maintained_to: datetime | None,
    settings: Settings,
) -> bool:
    """Whether a machine has been abnormal long enough, or on enough of its last days.

    Time in maintenance, and before it, does not count; one that is worse than those before
    it is news. A meter that has been at fault for as long as a gap may last is taken to
    have stopped for good.
    """
    since = episode.last_at - look_back(settings)
    since = max(since, maintained_to or since)
    lasted = episode.last_at - max(episode.started_at, maintained_to or episode.started_at)
    if episode.kind is Kind.METER:
        return lasted >= settings.max_gap
    if lasted >= settings.settle_after:
        return True
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
    return (
        len(days) > max(1, settings.settle_after // _DAY)
        and severities.index(episode.severity) <= worst
    )


def _end_of_maintenance(labels: Sequence[Label], moment: datetime) -> datetime | None:
    """When the last maintenance ended that was over by `moment`."""
    ends = [label.end for label in labels if label.label is LabelName.MAINTENANCE and label.end]
    return max((end for end in ends if end <= moment), default=None)


def _with_state(
    incident: Incident,
    labels: Sequence[Label],
    acknowledged: bool,
    settled: bool,
    as_of: datetime,
    settings: Settings,
) -> Incident:
    episode = incident.episode
    over = as_of - settings.interval >= episode.last_at + join_after(settings)
    ended_at = episode.last_at + settings.interval if over else None
    touching = [label.label for label in labels if label.touches(episode, settings.interval)]
    said = next((name for name in reversed(touching) if name is not LabelName.MAINTENANCE), None)
    explained = said is LabelName.FALSE_ALARM or (
        said is LabelName.METER_FAULT and episode.kind is Kind.MACHINE
    )
    taken_on = acknowledged or said in (LabelName.REAL, LabelName.METER_FAULT)
    settled = settled and not taken_on
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
