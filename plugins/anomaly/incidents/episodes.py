"""Episodes: runs of abnormal readings of one machine or its meter.

Everything here is a pure function of verdicts. `anomaly.incidents.onsets` moves the start of an
episode back to the onset of the deviation, and `anomaly.incidents.identity` gives episodes an
identity.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import Ints
from anomaly.readings.local_clocks import time_shown_twice
from anomaly.readings.quality import QUALITY_NAMES, Quality
from anomaly.settings import IncidentSettings, MeterSettings

JOIN = timedelta(hours=1)
"""Abnormal readings of a machine that are at most this far apart are one incident. Chosen."""
_FAULTS = QUALITY_NAMES[Quality.STUCK :]
_AFTER_GAP = QUALITY_NAMES[Quality.GAP :]
# Shares of the way from the threshold to a score of 1. Chosen.
_WARNING, _CRITICAL = 0.8, 0.98
# Where no energy can be computed, an episode this long is one step more severe. Chosen.
WORSE_AFTER = timedelta(hours=4)


class Kind(StrEnum):
    """What is at fault: the machine or its meter."""

    MACHINE = "machine"
    METER = "meter"


class Severity(StrEnum):
    """How severe an incident is, in rising order."""

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
        End of the first abnormal interval: nobody could be told earlier. For a silence: the
        end of the interval with which it became too long.
    readings : int
        Number of abnormal readings in it; 0 for a dropout.
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
        """Machine and kind; episodes with different keys are never joined or compared."""
        return self.machine_id, self.kind

    def overlap(self, other: "Episode", interval: timedelta) -> timedelta:
        """How long both last at the same time; zero or less if they do not overlap."""
        return min(self.last_at, other.last_at) + interval - max(self.started_at, other.started_at)


@dataclass(frozen=True)
class Silence:
    """A machine whose newest verdict is older than that of others."""

    machine_id: int
    last_at: datetime
    active_to: datetime | None = None


def join_after(meter: MeterSettings) -> timedelta:
    """Longest time between two abnormal intervals of one incident."""
    return max(JOIN, meter.interval)


def find_episodes(
    rows: pd.DataFrame,
    silences: Iterable[Silence],
    as_of: datetime,
    meter: MeterSettings,
    rules: IncidentSettings,
) -> list[Episode]:
    """Join abnormal intervals to episodes, separately per machine and kind.

    Episodes of machines begin with their first alarm. They have the reason of their worst
    reading, the severity of its score, and no energy yet: `with_onsets` completes them.

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
        *_machine_episodes(ordered[ordered["anomaly"] == 1], meter),
        *_meter_episodes(ordered, silences, as_of, meter, rules),
    ]


def _machine_episodes(alarms: pd.DataFrame, meter: MeterSettings) -> list[Episode]:
    """Episodes from all alarms, which are sorted by machine and time."""
    if alarms.empty:
        return []
    first, last = _run_bounds(alarms, join_after(meter))
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
            told_at=stamps[begin] + meter.interval,
            readings=int(end - begin + 1),
            reason=str(reasons[row]),
            severity=list(Severity)[_severity_steps(badness[number])],
            peak_score=float(score[row]),
        )
        for number, (begin, end, row) in enumerate(zip(first, last, worst, strict=True))
    ]


def _run_bounds(rows: pd.DataFrame, join: timedelta) -> tuple[Ints, Ints]:
    """First and last row of each run: rows of one machine that are at most `join` apart."""
    machine = rows["machine_id"].to_numpy()
    ticks = rows["utc_timestamp"].to_numpy(dtype="datetime64[us]").astype(np.int64)
    breaks = (np.diff(machine) != 0) | (np.diff(ticks) > join / timedelta(microseconds=1))
    edges = np.flatnonzero(breaks)
    return np.concatenate([[0], edges + 1]), np.concatenate([edges, [len(rows) - 1]])


def _worst_rows(score: npt.NDArray[np.float64], first: Ints, last: Ints) -> Ints:
    """For each run, the first row with the highest score."""
    run = np.repeat(np.arange(len(first)), last - first + 1)
    highest = np.flatnonzero(score == np.maximum.reduceat(score, first)[run])
    _, place = np.unique(run[highest], return_index=True)
    worst: Ints = highest[place]
    return worst


def _severity_steps(badness: float) -> int:
    """Severity of a score as steps above a notice, from its share of the way to 1."""
    return int(badness >= _WARNING) + int(badness >= _CRITICAL)


@dataclass
class _Fault:
    """A span in which a meter was at fault, and the reason for each kind of fault."""

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
    rows: pd.DataFrame,
    silences: Iterable[Silence],
    as_of: datetime,
    meter: MeterSettings,
    rules: IncidentSettings,
) -> list[Episode]:
    found = [
        *_faulty_readings(rows, meter),
        *_ended_silences(rows, meter, rules),
        *_lasting_silences(silences, as_of, meter, rules),
    ]
    joined: list[_Fault] = []
    for fault in sorted(found, key=lambda fault: (fault.machine_id, fault.started_at)):
        # Faults of different kinds are joined too: a reset, then a stuck meter is one incident.
        last = joined[-1] if joined else None
        near = last and last.machine_id == fault.machine_id
        if last and near and fault.started_at - last.last_at <= join_after(meter):
            last.take(fault)
        else:
            joined.append(replace(fault, reasons=dict(fault.reasons)))
    return [_meter_episode(fault, meter) for fault in joined]


def _meter_episode(fault: _Fault, meter: MeterSettings) -> Episode:
    lasted = fault.last_at - fault.started_at + meter.interval
    return Episode(
        machine_id=fault.machine_id,
        kind=Kind.METER,
        started_at=fault.started_at,
        last_at=fault.last_at,
        told_at=fault.told_at,
        readings=fault.readings,
        reason="; ".join(fault.reasons.values()),
        severity=Severity.WARNING if lasted >= WORSE_AFTER else Severity.NOTICE,
    )


def _faulty_readings(rows: pd.DataFrame, meter: MeterSettings) -> list[_Fault]:
    faulty = rows[rows["quality"].isin(_FAULTS)]
    return [
        _Fault(int(machine), moment, moment, moment + meter.interval, 1, {quality: reason})
        for machine, moment, quality, reason in zip(
            faulty["machine_id"],
            faulty["utc_timestamp"].dt.to_pydatetime(),
            faulty["quality"],
            faulty["reason"],
            strict=True,
        )
    ]


def _ended_silences(
    rows: pd.DataFrame, meter: MeterSettings, rules: IncidentSettings
) -> list[_Fault]:
    """Silences that ended with a reading.

    Only readings marked as following a gap count: if readings in between are not scored yet,
    the time since the previous verdict is not a silence.
    """
    marked = rows[rows["quality"].isin(_AFTER_GAP)]
    gaps = marked[marked["utc_timestamp"] - marked["previous_at"] > longest_silence(meter, rules)]
    return [
        _dropout_fault(int(machine), before.to_pydatetime(), moment.to_pydatetime(), meter, rules)
        for machine, moment, before in zip(
            gaps["machine_id"], gaps["utc_timestamp"], gaps["previous_at"], strict=True
        )
        if _is_silence(before.to_pydatetime(), moment.to_pydatetime(), meter, rules)
    ]


def _lasting_silences(
    silences: Iterable[Silence], as_of: datetime, meter: MeterSettings, rules: IncidentSettings
) -> list[_Fault]:
    found = []
    for silence in silences:
        until = min(as_of, silence.active_to or as_of)
        if _is_silence(silence.last_at, until, meter, rules):
            found.append(_dropout_fault(silence.machine_id, silence.last_at, until, meter, rules))
    return found


def _is_silence(
    before: datetime, until: datetime, meter: MeterSettings, rules: IncidentSettings
) -> bool:
    """Whether the time between two readings is a silence.

    The hour that a local clock shows twice does not count: a table in local time may have room
    for only one of the two hours.
    """
    apart = until - before
    if meter.zone is not None and apart <= meter.max_gap:
        apart -= time_shown_twice(meter.zone, before + meter.interval, until)
    return apart > longest_silence(meter, rules)


def longest_silence(meter: MeterSettings, rules: IncidentSettings) -> timedelta:
    """How long a machine may send nothing before that is an incident: two intervals at least."""
    return max(rules.dropout, 2 * meter.interval)


def _dropout_fault(
    machine_id: int,
    before: datetime,
    until: datetime,
    meter: MeterSettings,
    rules: IncidentSettings,
) -> _Fault:
    """The intervals without readings; for a machine that never returns, up to ``max_gap``."""
    started_at = before + meter.interval  # the first interval without a reading
    last_at = max(started_at, min(until - meter.interval, before + meter.max_gap))
    hours = (last_at + meter.interval - started_at) / timedelta(hours=1)
    reason = {"dropout": f"no readings for {hours:.1f} h"}
    told_at = before + longest_silence(meter, rules) + meter.interval
    return _Fault(machine_id, started_at, last_at, told_at, 0, reason)
