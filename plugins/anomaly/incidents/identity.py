"""Give episodes the identity of known incidents, so that it survives a new computation.

Everything here is a pure function of incidents and episodes. `anomaly.incidents.refresh` reads and
writes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from anomaly.incidents.episodes import Episode, Kind
from anomaly.incidents.incident import Incident, State

# Identity -------------------------------------------------------------------


def match(
    known: Sequence[Incident], episodes: Sequence[Episode], interval: timedelta
) -> list[Incident]:
    """Give episodes the identities of known incidents.

    An episode keeps the incident that it overlaps most; live incidents come first, and of
    equal overlaps the earliest. A live incident without an episode is merged into the incident
    that took its place, or withdrawn. It comes back when its episode comes back.

    Returns
    -------
    list of Incident
        Every known incident and every new one (without an id). Their states are not final:
        see `anomaly.incidents.states.with_states`.
    """
    taken: dict[int, Incident] = {}
    owner: dict[int, int] = {}
    # Best pairs first: each incident and each episode is used once.
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
