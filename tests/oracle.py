"""What the results table must hold, recomputed from raw readings and the version map.

Slow, plain Python that shares no code with the product: one reading after the
other, each looked at with the readings before it. Only the forest itself is
not recomputed: a version brings a callable that scores one point.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

Key = tuple[int, datetime]

REACH = timedelta(hours=24)
MOST_FLAT_HOURS = 12.0
ROLLOVER_SHARE = 0.01
ORDER = (
    "ok", "learning", "gap", "irregular", "duplicate", "first", "rollover",
    "stuck", "reset", "impossible",
)  # fmt: skip
"""Qualities by precedence: of several the last one here stands."""
METER_FAULTS = {"stuck", "reset", "impossible"}


class Row(NamedTuple):
    """A cell of the meter table: what it says of a machine at a time, and when it was written."""

    at: datetime
    machine: int
    value: float | None
    ingested_at: datetime | None


class Verdict(NamedTuple):
    """What the results table must say of a reading; None where it must be NULL."""

    reading: float
    power_kw: float | None
    power_diff: float | None
    anomaly_score: float | None
    threshold: float
    anomaly: int
    quality: str
    model_version: int


class Episode(NamedTuple):
    """An incident as it must be: a run of abnormal intervals of one machine."""

    machine: int
    kind: str
    started_at: datetime
    last_at: datetime
    readings: int
    peak_score: float | None
    lasts: bool


@dataclass(frozen=True)
class Meter:
    """The settings that verdicts depend on, as plain values."""

    kind: str = "energy_kwh"
    interval: timedelta = timedelta(minutes=15)
    max_gap: timedelta = timedelta(days=7)
    stuck_margin_hours: float = 2.0
    stuck_flat_share: float = 0.02
    zone: str = ""


@dataclass(frozen=True)
class Limits:
    """What is known of a machine: its highest power, and where its counter starts again."""

    max_power_kw: float | None = None
    rolls_over_at: float | None = None


@dataclass(frozen=True)
class Profile:
    """What training saw of a machine."""

    longest_flat_hours: float
    flat_share: float


Score = Callable[[int, float], tuple[float, float, bool]]


@dataclass(frozen=True)
class Version:
    """A model version: whom it knows, and how it scores ``(machine, power_diff)``.

    `score` returns the score, the threshold and whether it is an anomaly.
    """

    profiles: Mapping[int, Profile]
    score: Score


class Entry(NamedTuple):
    """A line of the version map; None is without bound."""

    start: datetime | None
    end: datetime | None
    version: int

    def __contains__(self, moment: object) -> bool:
        assert isinstance(moment, datetime)
        return (self.start is None or self.start <= moment) and (
            self.end is None or moment < self.end
        )


@dataclass(frozen=True)
class Reading:
    """A finite reading, and whether other rows claimed its place."""

    at: datetime
    value: float
    duplicated: bool


def expected(
    rows: Iterable[Row],
    version_map: Sequence[Entry],
    versions: Mapping[int, Version],
    meter: Meter,
    limits: Mapping[int, Limits] | None = None,
    *,
    due: datetime | None = None,
) -> dict[Key, Verdict]:
    """Compute the verdict on every finite reading before `due`."""
    verdicts = {}
    for machine, readings in _by_machine(rows, due).items():
        known = (limits or {}).get(machine, Limits())
        for place, reading in enumerate(readings):
            number = _in_force(version_map, reading.at)
            verdicts[machine, reading.at] = _verdict(
                machine, readings, place, known, number, versions[number], meter
            )
    return verdicts


def _by_machine(rows: Iterable[Row], due: datetime | None) -> dict[int, list[Reading]]:
    """Finite readings of each machine in the order of time, one a moment."""
    claims: dict[Key, list[Row]] = {}
    for row in rows:
        if row.value is None or not math.isfinite(row.value) or (due and row.at >= due):
            continue
        claims.setdefault((row.machine, row.at), []).append(row)
    readings: dict[int, list[Reading]] = {}
    for (machine, at), rivals in sorted(claims.items()):
        value = max(rivals, key=_precedence).value
        assert value is not None
        readings.setdefault(machine, []).append(Reading(at, value, len(rivals) > 1))
    return readings


def _precedence(row: Row) -> tuple[datetime, float]:
    """The highest ``ingested_at`` stands, an unknown one being lowest; else the highest value."""
    assert row.value is not None
    return (row.ingested_at or datetime.min.replace(tzinfo=UTC), row.value)


def _in_force(version_map: Sequence[Entry], moment: datetime) -> int:
    (version,) = [entry.version for entry in version_map if moment in entry]
    return version


def _verdict(
    machine: int,
    readings: Sequence[Reading],
    place: int,
    known: Limits,
    number: int,
    version: Version,
    meter: Meter,
) -> Verdict:
    """Judge the reading at `place` of a machine's readings."""
    power_kw, power_diff, marks = _measure(readings, place, known, meter)
    profile = version.profiles.get(machine)
    if profile is None:
        marks.add("learning")
    elif profile.flat_share <= meter.stuck_flat_share:
        two = 2 * _hours(meter.interval)
        margin = max(meter.stuck_margin_hours, two)
        limit = min(profile.longest_flat_hours + margin, max(MOST_FLAT_HOURS, two))
        if _flat_hours(readings, place, meter) > limit:
            marks.add("stuck")
    quality = max(marks, key=ORDER.index)
    score: float | None
    if quality in METER_FAULTS:
        _, threshold, _ = version.score(machine, 0.0)
        score, anomaly = None, False
    else:
        assert power_diff is not None
        score, threshold, anomaly = version.score(machine, power_diff)
    return Verdict(
        readings[place].value, power_kw, power_diff, score, threshold, int(anomaly), quality, number
    )


def _measure(
    readings: Sequence[Reading], place: int, known: Limits, meter: Meter
) -> tuple[float | None, float | None, set[str]]:
    """Power, rate of change and marks of a reading, before a model has spoken."""
    reading, previous = readings[place], _previous(readings, place, meter)
    marks = {"ok", "duplicate"} if reading.duplicated else {"ok"}
    if previous is None:
        return None, 0.0, marks | {"first"}

    elapsed = reading.at - previous.at
    if 2 * elapsed > 3 * meter.interval:
        marks.add("gap")
    if 3 * elapsed < meter.interval:
        marks.add("irregular")
        elapsed = meter.interval  # not divided by a sliver of time
    change = reading.value - previous.value
    power_kw: float | None
    power_diff: float | None
    if meter.kind == "power_w":
        power_kw, power_diff = reading.value / 1000, change / _hours(elapsed)
    else:
        power_diff = _mean_power(change, elapsed, known, marks)
        power_kw = power_diff
    if power_kw is not None and known.max_power_kw is not None and power_kw > known.max_power_kw:
        marks.add("impossible")
    return power_kw, power_diff, marks


def _mean_power(change: float, elapsed: timedelta, known: Limits, marks: set[str]) -> float | None:
    """Mean power of a counter, which may roll over; None, and marked, when it was reset."""
    if change >= 0:
        return change / _hours(elapsed)
    if known.rolls_over_at is not None:
        beyond = change + known.rolls_over_at
        if 0 <= beyond <= ROLLOVER_SHARE * known.rolls_over_at:
            marks.add("rollover")
            return beyond / _hours(elapsed)
    marks.add("reset")
    return None


def _previous(readings: Sequence[Reading], place: int, meter: Meter) -> Reading | None:
    """The machine's reading before, unless it is too far back to count."""
    if place == 0 or readings[place].at - readings[place - 1].at > meter.max_gap:
        return None
    return readings[place - 1]


def _flat_hours(readings: Sequence[Reading], place: int, meter: Meter) -> float:
    """How long a reading has not changed: back to the earliest equal one within reach."""
    last, earliest = readings[place], place
    while (before := _previous(readings, earliest, meter)) is not None:
        if before.value != last.value or last.at - before.at > REACH:
            break
        earliest -= 1
    return _hours(last.at - readings[earliest].at)


def _hours(duration: timedelta) -> float:
    return duration // timedelta(microseconds=1) / 3_600_000_000


# Incidents ------------------------------------------------------------------

HOUR = timedelta(hours=1)


def episodes(verdicts: Mapping[Key, Verdict], as_of: datetime, meter: Meter) -> list[Episode]:
    """Every incident that the verdicts make, `as_of` being where the newest reading ends."""
    found = []
    for machine in sorted({machine for machine, _ in verdicts}):
        mine = sorted(
            (at, verdict) for (other, at), verdict in verdicts.items() if other == machine
        )
        alarms = [(at, at, verdict.anomaly_score) for at, verdict in mine if verdict.anomaly]
        faults = [(at, at, None) for at, verdict in mine if verdict.quality in METER_FAULTS]
        stamps = [at for at, _ in mine]
        # What was not scored yet is no silence: a reading behind one is marked.
        marked = [ORDER.index(verdict.quality) >= ORDER.index("gap") for _, verdict in mine]
        silences = [
            (before + meter.interval, min(after - meter.interval, before + meter.max_gap), None)
            for before, after, silent in zip(
                stamps, [*stamps[1:], as_of], [*marked[1:], True], strict=True
            )
            if silent
            and after - before - _shown_twice(before + meter.interval, after, meter)
            > max(HOUR, 2 * meter.interval)
        ]
        found += _joined(machine, "machine", alarms, [], as_of, meter)
        found += _joined(machine, "meter", faults, silences, as_of, meter)
    return sorted(found)


def _shown_twice(start: datetime, end: datetime, meter: Meter) -> timedelta:
    """How much of a silence a local clock shows twice, minute by minute; no more than a gap is."""
    if not meter.zone or end - start > meter.max_gap:
        return timedelta(0)
    twice = 0
    while start < end:
        at = start.astimezone(ZoneInfo(meter.zone))
        twice += at.replace(fold=0).utcoffset() != at.replace(fold=1).utcoffset()
        start += timedelta(minutes=1)
    return timedelta(minutes=twice)


def _joined(
    machine: int,
    kind: str,
    readings: Sequence[tuple[datetime, datetime, float | None]],
    silences: Sequence[tuple[datetime, datetime, float | None]],
    as_of: datetime,
    meter: Meter,
) -> list[Episode]:
    join = max(HOUR, meter.interval)
    groups: list[list[tuple[datetime, datetime, float | None]]] = []
    for stretch in sorted([*readings, *silences], key=lambda stretch: stretch[:2]):
        if groups and stretch[0] - max(last for _, last, _ in groups[-1]) <= join:
            groups[-1].append(stretch)
        else:
            groups.append([stretch])
    return [
        Episode(
            machine,
            kind,
            group[0][0],
            last := max(last for _, last, _ in group),
            sum(stretch in readings for stretch in group),
            max((score for *_, score in group if score is not None), default=None),
            as_of - meter.interval < last + join,
        )
        for group in groups
    ]
