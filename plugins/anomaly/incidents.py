"""Incidents: episodes of abnormal readings, with an identity that survives being computed again.

Everything here is a pure function of verdicts, labels and the moment up to which
readings are known; `anomaly.postgres.incidents` reads and writes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.clocks import time_shown_twice
from anomaly.schema import QUALITY_NAMES, Quality
from anomaly.settings import Settings

Ints = npt.NDArray[np.int64]

JOIN = timedelta(hours=1)
"""Abnormal readings of a machine no farther apart are one incident."""
_FAULTS = QUALITY_NAMES[Quality.STUCK :]
_BEHIND_GAP = QUALITY_NAMES[Quality.GAP :]
_SETTLED = "; for days: a new normal, for training to learn"
_DAY, _WEEKEND = timedelta(days=1), timedelta(days=4)  # the latter with a holiday on either side
_WORSE_AFTER = timedelta(hours=4)
_WARNING, _CRITICAL = 0.8, 0.98  # of the way from the threshold to 1


class Kind(StrEnum):
    """What is at fault."""

    MACHINE = "machine"
    METER = "meter"


class State(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"
    SILENCED = "silenced"
    WITHDRAWN = "withdrawn"
    MERGED = "merged"


class Severity(StrEnum):
    """How bad it is."""

    NOTICE = "notice"
    WARNING = "warning"
    CRITICAL = "critical"


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

    def touches(self, episode: "Episode", interval: timedelta) -> bool:
        """Whether the range holds a part of the episode."""
        return (self.end is None or episode.started_at < self.end) and (
            self.start is None or self.start < episode.last_at + interval
        )


@dataclass(frozen=True)
class Episode:
    """A run of abnormal intervals of one machine.

    Attributes
    ----------
    started_at, last_at : datetime
        Start of its first and of its last abnormal interval.
    readings : int
        Abnormal readings in it; none for a dropout.
    excess_kwh : float or None
        Energy beyond the usual while abnormal; None where the usual is not known.
    """

    machine_id: int
    kind: Kind
    started_at: datetime
    last_at: datetime
    readings: int
    reason: str
    severity: Severity
    peak_score: float | None = None
    excess_kwh: float | None = None

    @property
    def key(self) -> tuple[int, Kind]:
        """Episodes of different keys have nothing to do with each other."""
        return self.machine_id, self.kind

    def overlap(self, other: "Episode", interval: timedelta) -> timedelta:
        """How long both last at the same time; zero or less where they do not meet."""
        return min(self.last_at, other.last_at) + interval - max(self.started_at, other.started_at)


@dataclass(frozen=True)
class Incident:
    """An episode with an identity; ``incident_id`` is None until it is written."""

    episode: Episode
    incident_id: int | None = None
    state: State = State.OPEN
    ended_at: datetime | None = None
    merged_into: int | None = None
    acknowledged: bool = False

    @property
    def is_live(self) -> bool:
        """Whether it stands for an episode that is there."""
        return self.state not in (State.WITHDRAWN, State.MERGED)


@dataclass(frozen=True)
class Silence:
    """A machine whose newest verdict is older than that of others."""

    machine_id: int
    last_at: datetime
    active_to: datetime | None = None


# Episodes -------------------------------------------------------------------


def join_after(settings: Settings) -> timedelta:
    """How far apart abnormal intervals of one incident may lie."""
    return max(JOIN, settings.interval)


def find_episodes(
    rows: pd.DataFrame, silences: Iterable[Silence], as_of: datetime, settings: Settings
) -> list[Episode]:
    """Join abnormal intervals to episodes, machine by machine and kind by kind.

    Parameters
    ----------
    rows : DataFrame
        Verdicts that are abnormal or follow a gap, in any order: ``machine_id``,
        ``utc_timestamp``, ``anomaly``, ``anomaly_score``, ``threshold``, ``reason``,
        ``quality``, ``power_kw``, ``expected_kw`` and ``previous_at`` (the machine's
        previous verdict, NaT where there is none).
    silences : iterable of Silence
        Machines that may be silent up to `as_of`.
    as_of : datetime
        End of the newest interval metered anywhere.
    """
    ordered = rows.sort_values(["machine_id", "utc_timestamp"], ignore_index=True)
    return [
        *_machine_episodes(ordered[ordered["anomaly"] == 1], settings),
        *_meter_episodes(ordered, silences, as_of, settings),
    ]


def _machine_episodes(alarms: pd.DataFrame, settings: Settings) -> list[Episode]:
    """Episodes of alarms sorted by machine and time, all at once."""
    if alarms.empty:
        return []
    first, last = _runs(alarms, join_after(settings))
    score, energy = alarms["anomaly_score"].to_numpy(float), _energy(alarms, settings)
    known = np.isfinite(energy)
    total = np.add.reduceat(np.where(known, energy, 0.0), first)
    counted = np.add.reduceat(known.astype(np.int64), first)
    worst = _worst_rows(score, first, last)
    threshold = alarms["threshold"].to_numpy(float)[worst]
    badness = (score[worst] - threshold) / (1 - threshold)
    stamps = alarms["utc_timestamp"].dt.to_pydatetime().to_numpy()
    reasons, machines = alarms["reason"].to_numpy(), alarms["machine_id"].to_numpy()
    return [
        Episode(
            machine_id=int(machines[begin]),
            kind=Kind.MACHINE,
            started_at=stamps[begin],
            last_at=stamps[end],
            readings=int(end - begin + 1),
            reason=str(reasons[row]),
            severity=_severity(badness[number], stamps[end] - stamps[begin] + settings.interval),
            peak_score=float(score[row]),
            excess_kwh=round(float(total[number]), 3) if counted[number] else None,
        )
        for number, (begin, end, row) in enumerate(zip(first, last, worst, strict=True))
    ]


def _energy(alarms: pd.DataFrame, settings: Settings) -> npt.NDArray[np.float64]:
    """Energy beyond the usual of each alarm's interval, kWh; NaN where that is not known."""
    hours = (alarms["utc_timestamp"] - alarms["previous_at"]).dt.total_seconds() / 3600
    usual = settings.interval / timedelta(hours=1)
    hours = hours.where(hours <= settings.max_gap / timedelta(hours=1), usual).fillna(usual)
    return ((alarms["power_kw"] - alarms["expected_kw"]) * hours).to_numpy(float)


def _runs(rows: pd.DataFrame, join: timedelta) -> tuple[Ints, Ints]:
    """First and last row of each run of one machine whose rows are no farther apart."""
    machine = rows["machine_id"].to_numpy()
    ticks = rows["utc_timestamp"].to_numpy(dtype="datetime64[us]").astype(np.int64)
    breaks = (np.diff(machine) != 0) | (np.diff(ticks) > join / timedelta(microseconds=1))
    edges = np.flatnonzero(breaks)
    return np.concatenate([[0], edges + 1]), np.concatenate([edges, [len(rows) - 1]])


def _worst_rows(score: npt.NDArray[np.float64], first: Ints, last: Ints) -> Ints:
    """The first row with the highest score of each run."""
    run = np.repeat(np.arange(len(first)), last - first + 1)
    highest = np.flatnonzero(score == np.maximum.reduceat(score, first)[run])
    _, place = np.unique(run[highest], return_index=True)
    worst: Ints = highest[place]
    return worst


def _severity(badness: float, lasted: timedelta) -> Severity:
    """By how far the worst score is beyond its threshold; a step worse where it lasts."""
    step = int(badness >= _WARNING) + int(badness >= _CRITICAL) + int(lasted >= _WORSE_AFTER)
    return list(Severity)[min(step, 2)]


@dataclass
class _Fault:
    """A stretch of intervals at which a meter was at fault, and why by kind of fault."""

    machine_id: int
    started_at: datetime
    last_at: datetime
    readings: int
    reasons: dict[str, str] = field(default_factory=dict)

    def take(self, other: "_Fault") -> None:
        self.last_at = max(self.last_at, other.last_at)
        self.readings += other.readings
        self.reasons |= other.reasons


def _meter_episodes(
    rows: pd.DataFrame, silences: Iterable[Silence], as_of: datetime, settings: Settings
) -> list[Episode]:
    found = [*_faulty_readings(rows), *_gaps(rows, settings), *_silent(silences, as_of, settings)]
    joined: list[_Fault] = []
    for fault in sorted(found, key=lambda fault: (fault.machine_id, fault.started_at)):
        last = joined[-1] if joined else None
        near = last and last.machine_id == fault.machine_id
        if last and near and fault.started_at - last.last_at <= join_after(settings):
            last.take(fault)
        else:
            joined.append(replace(fault, reasons=dict(fault.reasons)))
    return [_meter_episode(fault, settings) for fault in joined]


def _meter_episode(fault: _Fault, settings: Settings) -> Episode:
    lasted = fault.last_at - fault.started_at + settings.interval
    return Episode(
        machine_id=fault.machine_id,
        kind=Kind.METER,
        started_at=fault.started_at,
        last_at=fault.last_at,
        readings=fault.readings,
        reason="; ".join(fault.reasons.values()),
        severity=_severity(0, lasted),
    )


def _faulty_readings(rows: pd.DataFrame) -> list[_Fault]:
    faulty = rows[rows["quality"].isin(_FAULTS)]
    return [
        _Fault(int(machine), moment.to_pydatetime(), moment.to_pydatetime(), 1, {quality: reason})
        for machine, moment, quality, reason in zip(
            faulty["machine_id"],
            faulty["utc_timestamp"],
            faulty["quality"],
            faulty["reason"],
            strict=True,
        )
    ]


def _gaps(rows: pd.DataFrame, settings: Settings) -> list[_Fault]:
    """Silences that a reading ended; one behind a range not scored yet is not marked so."""
    marked = rows[rows["quality"].isin(_BEHIND_GAP)]
    gaps = marked[marked["utc_timestamp"] - marked["previous_at"] > _longest_silence(settings)]
    return [
        _dropout(int(machine), before.to_pydatetime(), moment.to_pydatetime(), settings)
        for machine, moment, before in zip(
            gaps["machine_id"], gaps["utc_timestamp"], gaps["previous_at"], strict=True
        )
        if _is_silence(before.to_pydatetime(), moment.to_pydatetime(), settings)
    ]


def _silent(silences: Iterable[Silence], as_of: datetime, settings: Settings) -> list[_Fault]:
    found = []
    for silence in silences:
        until = min(as_of, silence.active_to or as_of)
        if _is_silence(silence.last_at, until, settings):
            found.append(_dropout(silence.machine_id, silence.last_at, until, settings))
    return found


def _is_silence(before: datetime, until: datetime, settings: Settings) -> bool:
    """Whether two readings lie too far apart; the hour that a local clock shows twice is no time.

    A table in local time may not be able to hold both.
    """
    apart = until - before
    if settings.zone is not None and apart <= settings.max_gap:
        apart -= time_shown_twice(settings.zone, before + settings.interval, until)
    return apart > _longest_silence(settings)


def _longest_silence(settings: Settings) -> timedelta:
    return max(settings.dropout, 2 * settings.interval)


def _dropout(machine_id: int, before: datetime, until: datetime, settings: Settings) -> _Fault:
    """The intervals between two readings; of a machine that stays away, no more than the gap."""
    started_at = before + settings.interval
    last_at = max(started_at, min(until - settings.interval, before + settings.max_gap))
    hours = (last_at + settings.interval - started_at) / timedelta(hours=1)
    reason = {"dropout": f"no readings for {hours:.1f} h"}
    return _Fault(machine_id, started_at, last_at, 0, reason)


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
    reason = episode.reason.split(_SETTLED)[0] + (_SETTLED if settled else "")
    episode = replace(episode, reason=reason)
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
    return replace(incident, episode=episode, state=state, ended_at=ended_at)
