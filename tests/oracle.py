"""What the results table must hold, recomputed from raw readings and the version map.

Slow, plain Python that shares no code with the product: one reading after the
other, each looked at with the readings before it. Only the forest itself is
not recomputed: a version brings a callable that scores one point.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import NamedTuple
from zoneinfo import ZoneInfo

Key = tuple[int, datetime]

REACH = timedelta(hours=24)
MOST_FLAT_HOURS = 12.0
MOST_READING = 1e12
LEAP, ABSURD = 1.5, 10.0
ORDER = (
    "ok", "learning", "gap", "irregular", "duplicate", "first", "rollover",
    "stuck", "reset", "impossible", "catch_up", "contradicted",
)  # fmt: skip
"""Qualities by precedence: of several the last one here stands."""
METER_FAULTS = {"stuck", "reset", "impossible", "catch_up", "contradicted"}
KILO = {
    "Wh": Fraction(1, 1000), "kWh": Fraction(1), "MWh": Fraction(1000),
    "W": Fraction(1, 1000), "kW": Fraction(1), "MW": Fraction(1000),
}  # fmt: skip
"""Units in kWh, or in kW."""
HALF_DAY = timedelta(hours=12)
"""After which a counter of the day may have passed its old value unseen."""


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
    energy_kwh: float | None
    energy_hours: float | None


class Episode(NamedTuple):
    """An incident as it must be: a run of abnormal intervals of one machine."""

    machine: int
    kind: str
    started_at: datetime
    told_at: datetime
    last_at: datetime
    readings: int
    peak_score: float | None
    excess_kwh: float | None
    lasts: bool


@dataclass(frozen=True)
class Meter:
    """The settings that verdicts depend on, as plain values."""

    kind: str = "energy_kwh"
    unit: str = "kWh"
    interval: timedelta = timedelta(minutes=15)
    max_gap: timedelta = timedelta(days=7)
    stuck_margin_hours: float = 2.0
    stuck_flat_share: float = 0.02
    zone: str = ""
    resolution_kwh: float = 0.001

    @property
    def too_close(self) -> timedelta:
        """Within which a second reading tells nothing."""
        return self.interval / 15

    @property
    def counts(self) -> bool:
        """Whether energy is the difference of two readings."""
        return self.kind in ("energy_kwh", "energy_kwh_today")

    @property
    def of_the_day(self) -> bool:
        """Whether the count starts again each day."""
        return self.kind == "energy_kwh_today"

    @property
    def of_interval(self) -> bool:
        """Whether a reading is the energy of its own interval."""
        return self.kind == "energy_kwh_per_interval"

    @property
    def worth(self) -> Fraction:
        """What 1 is: kWh where readings count, else kW."""
        worth = KILO[self.unit]
        if self.of_interval:
            return worth / Fraction(self.interval // timedelta(minutes=1), 60)
        return worth

    @property
    def change_worth(self) -> Fraction:
        """What a change of 1 is: kWh where readings count, else W."""
        return self.worth if self.counts else 1000 * self.worth


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
    highest_kw: float = math.nan


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
    meter: Meter

    @property
    def kwh(self) -> float:
        """What a counter has counted."""
        return _times(self.value, self.meter.worth)

    @property
    def sane(self) -> bool:
        """Whether a meter can show it at all."""
        return abs(_times(self.value, self.meter.change_worth)) <= MOST_READING


def _times(value: float, factor: Fraction) -> float:
    return value * factor.numerator / factor.denominator


def expected(
    rows: Iterable[Row],
    version_map: Sequence[Entry],
    versions: Mapping[int, Version],
    meter: Meter,
    limits: Mapping[int, Limits] | None = None,
    *,
    due: datetime | None = None,
    remembered: Sequence[Row] = (),
) -> dict[Key, Verdict]:
    """Compute the verdict on every finite reading before `due`.

    `remembered` are readings that the source has purged since they were judged: they count as
    what precedes the others, and keep the verdicts that they have.
    """
    verdicts = {}
    kept = {(row.machine, row.at) for row in remembered}
    for machine, readings in _by_machine([*rows, *remembered], due, meter).items():
        known = (limits or {}).get(machine, Limits())
        for place, reading in enumerate(readings):
            if (machine, reading.at) in kept:
                continue
            number = _in_force(version_map, reading.at)
            meets = Meets(machine, readings, known, versions[number], meter)
            verdicts[machine, reading.at] = _verdict(meets, place, number)
    return verdicts


def _by_machine(
    rows: Iterable[Row], due: datetime | None, meter: Meter
) -> dict[int, list[Reading]]:
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
        readings.setdefault(machine, []).append(Reading(at, value, len(rivals) > 1, meter))
    return readings


def _precedence(row: Row) -> tuple[datetime, float]:
    """The highest ``ingested_at`` stands, an unknown one being lowest; else the highest value."""
    assert row.value is not None
    return (row.ingested_at or datetime.min.replace(tzinfo=UTC), row.value)


def _in_force(version_map: Sequence[Entry], moment: datetime) -> int:
    (version,) = [entry.version for entry in version_map if moment in entry]
    return version


@dataclass(frozen=True)
class Meets:
    """A machine's readings and everything that one of them may be judged by."""

    machine: int
    readings: Sequence[Reading]
    known: Limits
    version: Version
    meter: Meter

    @property
    def profile(self) -> Profile | None:
        return self.version.profiles.get(self.machine)

    @property
    def hardly_flat(self) -> bool:
        """Whether the machine hardly ever stands still."""
        return self.profile is not None and self.profile.flat_share <= self.meter.stuck_flat_share

    @property
    def fleet_kw(self) -> float:
        """The most that any machine drew in training; 0 where none did."""
        drawn = [p.highest_kw for p in self.version.profiles.values() if p.highest_kw > 0]
        return max(drawn, default=0.0)

    @property
    def absurd_kw(self) -> float | None:
        return ABSURD * self.fleet_kw if self.fleet_kw else None

    @property
    def learnt_leap_kw(self) -> float | None:
        """Power above which a rise is a leap, by what training saw."""
        if not self.fleet_kw:
            return None
        if self.profile is None:
            return self.absurd_kw
        if math.isnan(self.profile.highest_kw):
            return None
        return LEAP * (self.profile.highest_kw or self.fleet_kw)

    @property
    def leap_kw(self) -> float | None:
        """The same, or what is declared."""
        declared = self.known.max_power_kw
        return self.learnt_leap_kw if declared is None else declared

    def tolerance(self, reading: Reading) -> float:
        """By how many kWh a counter may fall to a reading without having fallen."""
        return max(self.meter.resolution_kwh, 2.0**-23 * abs(reading.kwh))

    def change(self, before: Reading, reading: Reading) -> float:
        """Change in kWh or W, nought where a counter's is less than it can tell."""
        change = _times(reading.value - before.value, self.meter.change_worth)
        if not self.meter.counts:
            return change
        fell = change < 0 and -change <= self.tolerance(reading)
        rose = 0 < change <= 1e-12 * abs(reading.kwh)
        return 0.0 if fell or rose else change


def _verdict(meets: Meets, place: int, number: int) -> Verdict:
    """Judge the reading at `place` of a machine's readings."""
    power_kw, power_diff, marks = _in_hindsight(meets, place)
    if meets.profile is None:
        marks.add("learning")
    elif _is_stuck(meets, place) or (meets.hardly_flat and _still_since_break(meets, place)):
        marks.add("stuck")
    quality = max(marks, key=ORDER.index)
    energy_kwh, energy_hours = _energy(meets, place, power_kw, marks)
    if quality == "catch_up" and power_kw is None:
        energy_hours = None  # it is not known when it was used
    if quality == "impossible":
        power_kw = power_diff = energy_kwh = energy_hours = None
    score: float | None
    if quality in METER_FAULTS:
        _, threshold, _ = meets.version.score(meets.machine, 0.0)
        score, anomaly = None, False
    elif quality == "first" and _compared_with(meets, place) is not None:
        # A new count: its rate is not known, and it never alarms.
        score, threshold, _ = meets.version.score(meets.machine, math.nan)
        score, anomaly = min(score, threshold), False
    else:
        assert power_diff is not None
        score, threshold, anomaly = meets.version.score(meets.machine, power_diff)
    value = meets.readings[place].value
    return Verdict(
        value, power_kw, power_diff, score, threshold, int(anomaly), quality, number,
        energy_kwh, energy_hours,
    )  # fmt: skip


def _energy(
    meets: Meets, place: int, power_kw: float | None, marks: set[str]
) -> tuple[float | None, float | None]:
    """Energy since the last reading that counts, and in how many hours it was used."""
    reading, meter = meets.readings[place], meets.meter
    if not meter.counts:
        return _energy_drawn(meets, place, power_kw)
    if not reading.sane or "contradicted" in marks:
        return None, None
    follows = _follows(meets, place)
    if follows is not None:
        before = meets.readings[follows]
        if meter.of_the_day and reading.at - before.at >= HALF_DAY:
            return None, None
        return reading.kwh - before.kwh, _hours(reading.at - before.at)
    last = next((b for b in reversed(meets.readings[:place]) if b.sane), None)
    if last is None or reading.at - last.at > meter.max_gap or "reset" in marks:
        return None, None
    previous = _compared_with(meets, place)
    counted = _times(reading.value - last.value, meter.change_worth)
    fell = counted < -meets.tolerance(reading)
    if meter.of_the_day and previous is not None:
        restarts = meets.change(previous, reading) < 0 or reading.at - previous.at >= HALF_DAY
        if restarts and (fell or reading.at - last.at >= HALF_DAY):
            return reading.kwh, None
    if fell and "rollover" in marks:
        assert meets.known.rolls_over_at is not None
        counted += meets.known.rolls_over_at
    return counted, _hours(reading.at - last.at)


def _energy_drawn(
    meets: Meets, place: int, power_kw: float | None
) -> tuple[float | None, float | None]:
    """Energy of a reading that is the power, or the energy, of its own interval."""
    reading, meter = meets.readings[place], meets.meter
    before, compared = _right_before(meets, place), _compared_with(meets, place)
    if power_kw is None:
        return None, None
    hours = _hours(meter.interval)
    if before is not None:
        step = reading.at - meets.readings[before].at
        since = reading.at - compared.at if compared is not None else timedelta(0)
        if step < meter.too_close and since > 2 * meter.too_close:
            return None, None  # sent again
        if not meter.of_interval:
            hours = min(hours, _hours(step))
    return power_kw * hours, hours


# One reading and those before it ---------------------------------------------


def _measure(meets: Meets, place: int) -> tuple[float | None, float | None, set[str]]:
    """Power, rate of change and marks of a reading, before hindsight."""
    reading, meter, known = meets.readings[place], meets.meter, meets.known
    marks = {"ok", "duplicate"} if reading.duplicated else {"ok"}
    if not reading.sane:
        marks.add("impossible")
    right_before = _right_before(meets, place)
    if right_before is not None:
        step = reading.at - meets.readings[right_before].at
        if 2 * step > 3 * meter.interval:
            marks.add("gap")
        if 3 * step < meter.interval:
            marks.add("irregular")
    previous = _compared_with(meets, place)
    if previous is None:
        return None, 0.0, marks | {"first"}
    hours = _hours(reading.at - previous.at)
    change = meets.change(previous, reading)
    power_kw: float | None
    power_diff: float | None
    if not meter.counts:
        power_kw, power_diff = _times(reading.value, meter.worth), change / hours
    elif meter.of_the_day:
        if change < 0 or reading.at - previous.at >= HALF_DAY:
            return None, 0.0, marks | {"first"}
        power_kw = power_diff = change / hours
    else:
        power_kw = power_diff = _counter_power(meets, change, hours, marks)
    if power_kw is not None and known.max_power_kw is not None and power_kw > known.max_power_kw:
        marks.add("impossible")
    return power_kw, power_diff, marks


def _counter_power(meets: Meets, change: float, hours: float, marks: set[str]) -> float | None:
    """Mean power of a counter, which may roll over; None, and marked, when it was reset."""
    known, most_kw = meets.known, meets.leap_kw
    if change >= 0:
        return change / hours
    if known.rolls_over_at is not None:
        beyond = change + known.rolls_over_at
        drawable = known.max_power_kw is None or beyond <= known.max_power_kw * hours
        if known.max_power_kw is None and most_kw is not None:
            drawable = beyond / hours <= most_kw
        if 0 <= beyond <= known.rolls_over_at / 2 and drawable:
            marks.add("rollover")
            return beyond / hours
    marks.add("reset")
    return None


def _right_before(meets: Meets, place: int) -> int | None:
    """Place of the machine's reading right before, unless it is too far back to count."""
    readings = meets.readings
    if place == 0 or readings[place].at - readings[place - 1].at > meets.meter.max_gap:
        return None
    return place - 1


def _compared_with(meets: Meets, place: int) -> Reading | None:
    """The last reading before that is neither garbage nor too close, if it counts at all."""
    reading = meets.readings[place]
    for before in reversed(meets.readings[:place]):
        if reading.at - before.at > meets.meter.max_gap:
            return None
        if before.sane and reading.at - before.at >= meets.meter.too_close:
            return before
    return None


def _is_still(meets: Meets, place: int) -> bool:
    """Whether a reading is equal to the one right before."""
    before = _right_before(meets, place)
    return before is not None and meets.change(meets.readings[before], meets.readings[place]) == 0


def _run_start(meets: Meets, place: int) -> int:
    """Place of the first of the unbroken run of equal readings."""
    while _is_still(meets, place):
        place -= 1
    return place


def _flat_hours(meets: Meets, place: int) -> float:
    """How long a reading has not changed: back to the earliest equal one within reach."""
    last, earliest = meets.readings[place], place
    while _is_still(meets, earliest) and last.at - meets.readings[earliest - 1].at <= REACH:
        earliest -= 1
    return _hours(last.at - meets.readings[earliest].at)


def _is_stuck(meets: Meets, place: int) -> bool:
    """Whether a machine that hardly ever stands still has not changed for too long."""
    if not meets.hardly_flat:
        return False
    assert meets.profile is not None
    two = _hours(2 * meets.meter.interval)
    longest = meets.profile.longest_flat_hours + max(meets.meter.stuck_margin_hours, two)
    return _flat_hours(meets, place) > min(longest, max(MOST_FLAT_HOURS, two))


def _still_since_break(meets: Meets, place: int) -> bool:
    """Whether the meter has not moved since it fell, or leapt absurdly, within a day."""
    start = _run_start(meets, place)
    before = _right_before(meets, start)
    if start == place or before is None:
        return False
    if meets.readings[place].at - meets.readings[before].at > REACH:
        return False
    _, _, marks = _in_hindsight(meets, start)
    return max(marks, key=ORDER.index) in ("reset", "impossible")


# One reading and those after it ------------------------------------------------


def _in_hindsight(meets: Meets, place: int) -> tuple[float | None, float | None, set[str]]:
    """Power, rate and marks of a reading, knowing what follows and what the machine draws."""
    power_kw, power_diff, marks = _measure(meets, place)
    absurd = meets.absurd_kw
    if power_kw is not None and absurd is not None and abs(power_kw) > absurd:
        marks.add("impossible")
    if not meets.meter.counts or not meets.readings[place].sane:
        return power_kw, power_diff, marks
    if any(_contradicts(meets, later, place) for later in _within_reach_after(meets, place)):
        return None, None, marks | {"contradicted"}
    follows = _follows(meets, place)
    if follows is not None:
        before = meets.readings[follows]
        reading = meets.readings[place]
        if meets.meter.of_the_day and reading.at - before.at >= HALF_DAY:
            return None, None, marks | {"catch_up"}
        power = (reading.kwh - before.kwh) / _hours(reading.at - before.at)
        return power, power, marks | {"catch_up"}
    last = _sane_before(meets, place)
    moves_again = last is not None and _leaps(meets, place) and not _is_still(meets, place)
    if moves_again and _right_before(meets, place) is not None and _is_stuck(meets, place - 1):
        return None, None, marks | {"catch_up"}
    if moves_again and _stood_since_unknown(meets, place):
        return None, None, marks | {"catch_up"}
    return power_kw, power_diff, marks


def _within_reach_after(meets: Meets, place: int) -> list[int]:
    first = meets.readings[place].at
    return [
        later
        for later in range(place + 1, len(meets.readings))
        if meets.readings[later].at - first <= REACH
    ]


def _contradicts(meets: Meets, later: int, place: int) -> bool:
    """Whether a later reading shows that the one at `place` was wrong."""
    if not meets.readings[later].sane:
        return False
    follows = _follows(meets, later)
    return follows is not None and follows < place < later


def _sane_before(meets: Meets, place: int) -> int | None:
    """The last reading before that is no garbage, with no gap in between that is too long."""
    while (before := _right_before(meets, place)) is not None:
        if meets.readings[before].sane:
            return before
        place = before
    return None


def _allowed(meets: Meets, span: timedelta) -> float:
    """The most energy that a machine draws in a span; that of an interval at the least."""
    assert meets.leap_kw is not None
    return meets.leap_kw * _hours(max(span, meets.meter.interval))


def _falls(meets: Meets, place: int) -> bool:
    before = _sane_before(meets, place)
    if before is None:
        return False
    reading = meets.readings[place]
    if not reading.kwh - meets.readings[before].kwh < -meets.tolerance(reading):
        return False
    power_kw, _, marks = _measure(meets, place)
    absurd = meets.absurd_kw
    beyond = power_kw is not None and absurd is not None and abs(power_kw) > absurd
    return "rollover" not in marks or "impossible" in marks or beyond


def _leaps(meets: Meets, place: int) -> bool:
    before = _sane_before(meets, place)
    if before is None or meets.leap_kw is None:
        return False
    one, other = meets.readings[before], meets.readings[place]
    return other.kwh - one.kwh > _allowed(meets, other.at - one.at)


def _breaks(meets: Meets, place: int) -> bool:
    return _falls(meets, place) or _leaps(meets, place)


def _follows(meets: Meets, place: int) -> int | None:
    """The reading that one follows whose own predecessors it contradicts."""
    if meets.leap_kw is None or (meets.meter.of_the_day and not _leaps(meets, place)):
        return None
    found = _over_a_dip(meets, place)
    if found is None and _breaks(meets, place):
        found = None if _is_dip(meets, place) else _comes_back_to(meets, place)
        found = _catches_up_with(meets, place) if found is None else found
    return found


def _over_a_dip(meets: Meets, place: int) -> int | None:
    """The reading before a single one that fell, if this one goes on from it."""
    fell = _sane_before(meets, place)
    return _sane_before(meets, fell) if fell is not None and _is_dip(meets, fell) else None


def _is_dip(meets: Meets, fell: int) -> bool:
    """Whether a reading that fell was wrong, and not the one before it."""
    if meets.leap_kw is None or meets.meter.of_the_day or not _falls(meets, fell):
        return False
    before, after = _sane_before(meets, fell), _sane_after(meets, fell)
    longest = 2 * meets.meter.interval + 2 * meets.meter.too_close
    if before is None or after is None or not _can_follow(meets, before, after, longest):
        return False
    earlier = _sane_before(meets, before)
    if earlier is None or not _can_follow(meets, earlier, fell, 4 * meets.meter.interval):
        return True
    without = _slope(meets, earlier, before) - _slope(meets, before, after)
    otherwise = _slope(meets, earlier, fell) - _slope(meets, fell, after)
    return abs(without) <= abs(otherwise)


def _can_follow(meets: Meets, before: int, after: int, longest: timedelta) -> bool:
    rival, reading = meets.readings[before], meets.readings[after]
    span, change = reading.at - rival.at, reading.kwh - rival.kwh
    if span > longest:
        return False
    return -meets.tolerance(reading) <= change <= _allowed(meets, span)


def _slope(meets: Meets, before: int, after: int) -> float:
    rival, reading = meets.readings[before], meets.readings[after]
    return (reading.kwh - rival.kwh) / ((reading.at - rival.at) // timedelta(microseconds=1))


def _sane_after(meets: Meets, place: int) -> int | None:
    """The next reading that is no garbage, with no gap in between that is too long."""
    for later in range(place + 1, len(meets.readings)):
        if meets.readings[later].sane:
            return later if _sane_before(meets, later) == place else None
    return None


def _comes_back_to(meets: Meets, place: int) -> int | None:
    """The last reading within a day that this one can follow, if a break led away from it."""
    reading = meets.readings[place]
    after = before = _sane_before(meets, place)
    while (before := _sane_before(meets, before)) is not None if before is not None else False:
        assert before is not None
        assert after is not None
        rival = meets.readings[before]
        if reading.at - rival.at > REACH:
            return None
        allowed = _allowed(meets, reading.at - rival.at)
        if reading.kwh - allowed <= rival.kwh <= reading.kwh + meets.tolerance(reading):
            if meets.meter.of_the_day and reading.kwh <= allowed:
                return None  # all of it may have been used since the count started again
            near = _falls(meets, place) and reading.at - rival.at <= 4 * meets.meter.interval
            return before if near or _breaks(meets, after) else None
        after = before
    return None


def _catches_up_with(meets: Meets, place: int) -> int | None:
    """The first reading of a run of equal ones during which the machine can have drawn a leap."""
    last = _sane_before(meets, place)
    if last is None or not _leaps(meets, place):
        return None
    start = _run_start(meets, last)
    before = _sane_before(meets, start)
    reading = meets.readings[place]
    if start == last or before is None or reading.at - meets.readings[before].at > REACH:
        return None
    change = reading.kwh - meets.readings[start].kwh
    return start if change <= _allowed(meets, reading.at - meets.readings[start].at) else None


def _stood_since_unknown(meets: Meets, place: int) -> bool:
    """Whether the readings before are equal, and nothing within a day shows since when."""
    last = _sane_before(meets, place)
    assert last is not None
    start = _run_start(meets, last)
    before = _sane_before(meets, start)
    shown = before is not None and meets.readings[place].at - meets.readings[before].at <= REACH
    return start != last and not shown


def _hours(duration: timedelta) -> float:
    return duration // timedelta(microseconds=1) / 3_600_000_000


# Hours and days -----------------------------------------------------------------


def sums(
    verdicts: Mapping[Key, Verdict], clocks: Mapping[int, ZoneInfo], span: str
) -> dict[tuple[int, object], list[float]]:
    """Readings, anomalies, meter faults, energy, its hours, mean and peak power of each span."""
    groups: dict[tuple[int, object], list[Verdict]] = {}
    for (machine, at), verdict in verdicts.items():
        local = at.astimezone(clocks[machine])
        into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        group = at - into if span == "hour" else local.date()
        groups.setdefault((machine, group), []).append(verdict)
    return {key: _sums_of(group) for key, group in groups.items()}


def _sums_of(verdicts: Sequence[Verdict]) -> list[float]:
    weights = [
        (v.power_kw, v.energy_hours)
        for v in verdicts
        if v.power_kw is not None and v.energy_hours is not None
    ]
    hours = sum(weight for _, weight in weights)
    return [
        len(verdicts),
        sum(v.anomaly for v in verdicts),
        sum(v.quality in METER_FAULTS for v in verdicts),
        sum(v.energy_kwh or 0.0 for v in verdicts),
        sum(v.energy_hours or 0.0 for v in verdicts),
        sum(power * weight for power, weight in weights) / hours if hours else 0.0,
        max([v.power_kw for v in verdicts if v.power_kw is not None], default=0.0),
    ]


# Incidents ------------------------------------------------------------------

HOUR = timedelta(hours=1)


def episodes(
    verdicts: Mapping[Key, Verdict],
    usual: Mapping[Key, float | None],
    as_of: datetime,
    meter: Meter,
) -> list[Episode]:
    """Every incident that the verdicts make, `as_of` being where the newest reading ends.

    `usual` is the power that each verdict names as usual.
    """
    found = []
    for machine in sorted({machine for machine, _ in verdicts}):
        mine = sorted(
            (at, verdict) for (other, at), verdict in verdicts.items() if other == machine
        )
        alarms = [
            Stretch(at, at, at + meter.interval, verdict.anomaly_score)
            for at, verdict in mine
            if verdict.anomaly
        ]
        faults = [
            Stretch(at, at, at + meter.interval, None)
            for at, verdict in mine
            if verdict.quality in METER_FAULTS
        ]
        stamps = [at for at, _ in mine]
        # What was not scored yet is no silence: a reading behind one is marked.
        marked = [ORDER.index(verdict.quality) >= ORDER.index("gap") for _, verdict in mine]
        longest = max(HOUR, 2 * meter.interval)
        silences = [
            Stretch(
                before + meter.interval,
                min(after - meter.interval, before + meter.max_gap),
                before + longest + meter.interval,
                None,
            )
            for before, after, silent in zip(
                stamps, [*stamps[1:], as_of], [*marked[1:], True], strict=True
            )
            if silent
            and after - before - _shown_twice(before + meter.interval, after, meter) > longest
        ]
        deviations = _deviations(machine, mine, usual, meter)
        for episode in _joined(machine, "machine", alarms, [], as_of, meter):
            onset = _onset(episode.started_at, deviations, meter)
            found.append(
                episode._replace(
                    started_at=onset, excess_kwh=_excess(deviations, onset, episode.last_at, meter)
                )
            )
        found += _joined(machine, "meter", faults, silences, as_of, meter)
    return sorted(found, key=str)


class Stretch(NamedTuple):
    """Intervals at fault, from the first to the last, and when that could be told."""

    first: datetime
    last: datetime
    told: datetime
    score: float | None


class Deviation(NamedTuple):
    """How far a reading was from usual, kW, and how long after the one before it came."""

    at: datetime
    elapsed: timedelta | None
    kw: float | None
    alarms: bool
    restarts: bool


def _deviations(
    machine: int,
    mine: Sequence[tuple[datetime, Verdict]],
    usual: Mapping[Key, float | None],
    meter: Meter,
) -> list[Deviation]:
    found = []
    for place, (at, verdict) in enumerate(mine):
        normal = usual[machine, at]
        known = verdict.quality not in METER_FAULTS and verdict.power_kw is not None
        found.append(
            Deviation(
                at,
                at - mine[place - 1][0] if place else None,
                verdict.power_kw - normal if known and normal is not None else None,
                bool(verdict.anomaly),
                meter.of_the_day and verdict.quality == "first",
            )
        )
    return found


def _onset(first: datetime, deviations: Sequence[Deviation], meter: Meter) -> datetime:
    """Where the deviation began that was told at `first`.

    Of all starts that could be, the one whose readings make the most of the deviation, each
    less half of what is typical of it; the latest of equals.
    """
    hour = max(HOUR, meter.interval)
    recent = [d.kw for d in deviations if first - hour < d.at <= first and d.kw is not None]
    own = next(d.kw for d in deviations if d.at == first)
    if not recent:
        return first
    mean = math.fsum(recent) / len(recent)
    typical = own if own is not None and abs(own) >= abs(mean) else mean
    sign = 1 if typical > 0 else -1

    best, gained, onset, follower = 0.0, 0.0, first, first
    for before in reversed([d for d in deviations if first - REACH < d.at < first]):
        if (
            before.alarms
            or (before.kw is None and not before.restarts)
            or before.elapsed is None
            or 2 * before.elapsed > 3 * meter.interval
            or 2 * (follower - before.at) > 3 * meter.interval
            or before.at - before.elapsed < first - REACH
        ):
            break
        follower = before.at
        if before.kw is None:
            continue
        gained += sign * before.kw - abs(typical) / 2
        if gained > best:
            best, onset = gained, before.at
    return onset


def _excess(
    deviations: Sequence[Deviation], onset: datetime, last: datetime, meter: Meter
) -> float | None:
    """Energy beyond the usual, kWh, of all intervals from the onset to the last alarm."""
    parts = [
        d.kw * _hours(min(d.elapsed, meter.interval if meter.of_interval else d.elapsed))
        for d in deviations
        if onset <= d.at <= last
        and d.kw is not None
        and d.elapsed is not None
        and d.elapsed <= meter.max_gap
    ]
    return round(math.fsum(parts), 3) if parts else None


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
    readings: Sequence[Stretch],
    silences: Sequence[Stretch],
    as_of: datetime,
    meter: Meter,
) -> list[Episode]:
    join = max(HOUR, meter.interval)
    groups: list[list[Stretch]] = []
    for stretch in sorted([*readings, *silences], key=lambda stretch: stretch[:2]):
        if groups and stretch.first - max(other.last for other in groups[-1]) <= join:
            groups[-1].append(stretch)
        else:
            groups.append([stretch])
    return [
        Episode(
            machine,
            kind,
            group[0].first,
            min(stretch.told for stretch in group),
            last := max(stretch.last for stretch in group),
            sum(stretch in readings for stretch in group),
            max((stretch.score for stretch in group if stretch.score is not None), default=None),
            None,
            as_of - meter.interval < last + join,
        )
        for group in groups
    ]
