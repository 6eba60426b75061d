"""Episodes: runs of abnormal readings of a machine, from the onset of the deviation on.

Everything here is a pure function of verdicts; `anomaly.incidents` gives episodes an
identity.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from math import fsum, isfinite
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.clocks import time_shown_twice
from anomaly.schema import QUALITY_NAMES, Quality
from anomaly.settings import Settings
from anomaly.wording import beside_usual

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

JOIN = timedelta(hours=1)
"""Abnormal readings of a machine no farther apart are one incident."""

LOOK_BACK = timedelta(hours=24)
"""How far before its first alarm an episode may begin: as far as a detector looks back."""

ONSET_SHARE = 0.5
"""A reading speaks for the deviation from this share of what is typical of it on. Half is
where a reading is as near to the deviation as it is to the usual."""

_FAULTS = QUALITY_NAMES[Quality.STUCK :]
_BEHIND_GAP = QUALITY_NAMES[Quality.GAP :]
_MOST_INTERVALS = 1.5  # between two readings that follow each other; beyond is a gap
_WARNING, _CRITICAL = 0.8, 0.98  # of the way from the threshold to 1
_WORSE_AFTER = timedelta(hours=4)  # where the usual is not known
_FELT, _LARGE, _VERY_LARGE = 0.5, 1.0, 6.0  # hours of the machine's usual draw
_RANGE_SHARE = 0.25  # of the highest usual power: what a machine draws at rest is no measure
_LEAST_DRAW_KW = 0.1  # a smaller usual draw measures nothing
_MICROSECONDS_PER_HOUR = 3_600_000_000


class Kind(StrEnum):
    """What is at fault."""

    MACHINE = "machine"
    METER = "meter"


class Severity(StrEnum):
    """How bad it is."""

    NOTICE = "notice"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True)
class Episode:
    """A run of abnormal intervals of one machine.

    Attributes
    ----------
    started_at : datetime
        Start of the interval in which the deviation began.
    last_at : datetime
        Start of the last abnormal interval.
    told_at : datetime
        End of the first abnormal interval: nobody could be told before. Of a silence, the
        end of the interval after which it was too long.
    readings : int
        Abnormal readings in it; none for a dropout.
    excess_kwh : float or None
        Energy beyond the usual, from its start to the end of its last abnormal interval;
        None where the usual is not known, and for faults of the meter.
    """

    machine_id: int
    kind: Kind
    started_at: datetime
    last_at: datetime
    told_at: datetime
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
class Silence:
    """A machine whose newest verdict is older than that of others."""

    machine_id: int
    last_at: datetime
    active_to: datetime | None = None


def join_after(settings: Settings) -> timedelta:
    """How far apart abnormal intervals of one incident may lie."""
    return max(JOIN, settings.interval)


def find_episodes(
    rows: pd.DataFrame, silences: Iterable[Silence], as_of: datetime, settings: Settings
) -> list[Episode]:
    """Join abnormal intervals to episodes, machine by machine and kind by kind.

    Those of machines begin with their first alarm, have the reason of their worst reading
    and the severity of its score alone, and no energy: `with_onsets` makes them whole.

    Parameters
    ----------
    rows : DataFrame
        Verdicts that are abnormal or follow a gap, in any order: ``machine_id``,
        ``utc_timestamp``, ``anomaly``, ``anomaly_score``, ``threshold``, ``reason``,
        ``quality`` and ``previous_at`` (the machine's previous verdict, NaT where there
        is none).
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
    score = alarms["anomaly_score"].to_numpy(float)
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
            told_at=stamps[begin] + settings.interval,
            readings=int(end - begin + 1),
            reason=str(reasons[row]),
            severity=list(Severity)[_steps(badness[number])],
            peak_score=float(score[row]),
        )
        for number, (begin, end, row) in enumerate(zip(first, last, worst, strict=True))
    ]


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


def _steps(badness: float) -> int:
    """How many steps above a notice a score is, by its share of the way from threshold to 1."""
    return int(badness >= _WARNING) + int(badness >= _CRITICAL)


@dataclass
class _Fault:
    """A stretch of intervals at which a meter was at fault, and why by kind of fault."""

    machine_id: int
    started_at: datetime
    last_at: datetime
    told_at: datetime
    readings: int
    reasons: dict[str, str] = field(default_factory=dict)

    def take(self, other: "_Fault") -> None:
        self.last_at = max(self.last_at, other.last_at)
        self.told_at = min(self.told_at, other.told_at)
        self.readings += other.readings
        self.reasons |= other.reasons


def _meter_episodes(
    rows: pd.DataFrame, silences: Iterable[Silence], as_of: datetime, settings: Settings
) -> list[Episode]:
    found = [
        *_faulty_readings(rows, settings),
        *_gaps(rows, settings),
        *_silent(silences, as_of, settings),
    ]
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
        told_at=fault.told_at,
        readings=fault.readings,
        reason="; ".join(fault.reasons.values()),
        severity=Severity.WARNING if lasted >= _WORSE_AFTER else Severity.NOTICE,
    )


def _faulty_readings(rows: pd.DataFrame, settings: Settings) -> list[_Fault]:
    faulty = rows[rows["quality"].isin(_FAULTS)]
    return [
        _Fault(int(machine), moment, moment, moment + settings.interval, 1, {quality: reason})
        for machine, moment, quality, reason in zip(
            faulty["machine_id"],
            faulty["utc_timestamp"].dt.to_pydatetime(),
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
    told_at = before + _longest_silence(settings) + settings.interval
    return _Fault(machine_id, started_at, last_at, told_at, 0, reason)


# Onsets ---------------------------------------------------------------------


def with_onsets(
    episodes: Sequence[Episode],
    verdicts: pd.DataFrame,
    zones: Mapping[int, str],
    settings: Settings,
) -> list[Episode]:
    """Let episodes of machines begin when their deviation began, and say what it amounts to.

    From its first alarm an episode goes back, over the verdicts directly before, to where
    the deviation began: where what the readings are beyond `ONSET_SHARE` of the deviation
    adds up to most. So a reading that falls short among many that do not cuts nothing off.
    It goes back `LOOK_BACK` at most, and not over an alarm (that of an earlier episode), a
    fault of the meter, a gap, or a reading of which the usual is not known. The onset
    depends on no reading behind the first alarm: it stays while the episode grows.

    Parameters
    ----------
    episodes : sequence of Episode
        As `find_episodes` gives them; those of meters stay as they are.
    verdicts : DataFrame
        All verdicts about each episode of a machine: from `LOOK_BACK` before its first
        alarm, and at least the one directly before it, to its last, sorted by time.
        ``number`` (place of the episode in `episodes`), ``utc_timestamp``, ``alarm`` and
        ``sound`` (bool; not a fault of the meter), ``power_kw`` and ``expected_kw`` (NaN:
        not known).
    zones : mapping
        Names of the machines' time zones, for the reasons; UTC where there is no such zone.

    Returns
    -------
    list of Episode
        ``started_at``, ``excess_kwh`` (kWh; faults of the meter and intervals longer than
        ``max_gap_days`` do not count), ``severity`` and ``reason`` (mean power beside the
        usual, since when on the machine's clock, and the words of the worst reading).
    """
    made = list(episodes)
    for number, stretch in _stretches(verdicts):
        episode = episodes[number]
        first = int(np.searchsorted(stretch.ticks, _ticks(episode.started_at)))
        begin = _onset(stretch, first, settings)
        started_at = episode.started_at - timedelta(
            microseconds=int(stretch.ticks[first] - stretch.ticks[begin])
        )
        begun = replace(episode, started_at=started_at)
        sums = _sums(stretch, begin, settings)
        zone = zones.get(episode.machine_id, "UTC")
        made[number] = replace(
            begun,
            excess_kwh=None if sums is None else round(sums.excess_kwh, 3),
            severity=_severity(begun, sums, settings),
            reason=_reason(begun, sums, zone, settings),
        )
    return made


@dataclass(frozen=True)
class _Stretch:
    """Verdicts about an episode, one each; ``hours`` since the one before, NaN of the first."""

    ticks: Ints
    hours: Floats
    alarm: Bools
    sound: Bools
    power: Floats
    usual: Floats
    deviation: Floats
    """Power beyond the usual, kW; NaN where not known and for faults of the meter."""


class _Sums(NamedTuple):
    """An episode summed up: mean powers in kW, weighted by time, and energy beyond the usual."""

    measured_kw: float
    usual_kw: float
    highest_usual_kw: float
    excess_kwh: float


def _stretches(verdicts: pd.DataFrame) -> Iterator[tuple[int, _Stretch]]:
    """Verdicts about each episode, by its number."""
    numbers = verdicts["number"].to_numpy(np.int64)
    ticks = verdicts["utc_timestamp"].to_numpy(dtype="datetime64[us]").astype(np.int64)
    alarm, sound = (verdicts[name].to_numpy(bool) for name in ("alarm", "sound"))
    power, usual = (verdicts[name].to_numpy(float) for name in ("power_kw", "expected_kw"))
    deviation = np.where(sound, power - usual, np.nan)
    edges = np.flatnonzero(np.diff(numbers, prepend=-1, append=-1))
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = slice(begin, end)
        hours = np.diff(ticks[part]) / _MICROSECONDS_PER_HOUR
        yield (
            int(numbers[begin]),
            _Stretch(
                ticks[part],
                np.concatenate([[np.nan], hours]),
                alarm[part],
                sound[part],
                power[part],
                usual[part],
                deviation[part],
            ),
        )


def _onset(stretch: _Stretch, first: int, settings: Settings) -> int:
    """Row in which the deviation began that row `first` is the first alarm of."""
    typical = _typical(stretch, first, settings)
    longest = _MOST_INTERVALS * (settings.interval / timedelta(hours=1))
    onset, most, total = first, 0.0, 0.0
    for row in range(first - 1, 0, -1):
        follow = stretch.hours[row] <= longest and stretch.hours[row + 1] <= longest
        if not follow or stretch.alarm[row] or not isfinite(stretch.deviation[row]):
            break
        deviation = float(stretch.deviation[row])
        total += (deviation if typical > 0 else -deviation) - ONSET_SHARE * abs(typical)
        if total > most:
            onset, most = row, total
    return onset


def _typical(stretch: _Stretch, first: int, settings: Settings) -> float:
    """Deviation of the first alarm, or that of the time before it where that is larger.

    An alarm may speak of the hour before rather than of its own reading.
    """
    since = stretch.ticks[first] - join_after(settings) // timedelta(microseconds=1)
    begin = int(np.searchsorted(stretch.ticks, since, side="right"))
    near = [float(found) for found in stretch.deviation[begin : first + 1] if isfinite(found)]
    if not near:
        return np.nan
    own, mean = float(stretch.deviation[first]), fsum(near) / len(near)
    return own if abs(own) >= abs(mean) else mean


def _sums(stretch: _Stretch, begin: int, settings: Settings) -> _Sums | None:
    """What the intervals from row `begin` on add up to; None where nothing is known."""
    hours, deviation = stretch.hours[begin:], stretch.deviation[begin:]
    counted = np.isfinite(deviation) & (hours <= settings.max_gap / timedelta(hours=1))
    time = fsum(hours[counted])
    if not time:
        return None
    power, usual = (of[begin:][counted] * hours[counted] for of in (stretch.power, stretch.usual))
    return _Sums(
        fsum(power) / time,
        fsum(usual) / time,
        float(np.nanmax(np.abs(stretch.usual))),
        fsum(deviation[counted] * hours[counted]),
    )


def _severity(episode: Episode, sums: _Sums | None, settings: Settings) -> Severity:
    """By the worst score, and by how many hours of its usual draw a machine is off.

    The score alone makes no incident critical: the energy must be felt as well.
    """
    by_score = list(Severity).index(episode.severity)
    draw = max(abs(sums.usual_kw), _RANGE_SHARE * sums.highest_usual_kw) if sums else 0.0
    if sums is None or draw < _LEAST_DRAW_KW:
        lasted = episode.last_at - episode.started_at + settings.interval
        return list(Severity)[min(by_score + int(lasted >= _WORSE_AFTER), 2)]
    hours = abs(sums.excess_kwh) / draw
    by_energy = int(hours >= _LARGE) + int(hours >= _VERY_LARGE)
    return list(Severity)[max(by_energy, by_score if hours >= _FELT else min(by_score, 1))]


def _reason(episode: Episode, sums: _Sums | None, zone: str, settings: Settings) -> str:
    if sums is None:
        return episode.reason
    local = episode.started_at.astimezone(time_zone(zone))
    hours = (episode.last_at + settings.interval - episode.started_at) / timedelta(hours=1)
    return (
        f"{beside_usual(sums.measured_kw, sums.usual_kw)}, on average over {hours:.1f} h"
        f" from {local:%a %Y-%m-%d %H:%M}; worst reading: {episode.reason}"
    )


@cache
def time_zone(name: str) -> ZoneInfo:
    """The zone of that name; UTC where there is none, for a wrong name must stop nothing."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def _ticks(moment: datetime) -> int:
    return int(np.datetime64(moment.replace(tzinfo=None), "us").astype(np.int64))
