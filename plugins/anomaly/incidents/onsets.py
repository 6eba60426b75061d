"""Find when an episode of a machine began, its energy, and its severity."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import fsum, isfinite
from typing import NamedTuple

import numpy as np
import pandas as pd

from anomaly.arrays import MICROSECONDS_PER_HOUR, Bools, Floats, Ints
from anomaly.incidents.episodes import WORSE_AFTER, Episode, Severity, join_after
from anomaly.readings.local_clocks import zone_or_utc
from anomaly.settings import MeterSettings
from anomaly.wording import beside_usual

LOOK_BACK = timedelta(hours=24)
"""Longest time from the onset of an episode to its first alarm: as far as a detector looks back."""
ONSET_SHARE = 0.5
"""A reading belongs to the deviation from this share of the typical deviation on.

At one half, a reading is as near to the deviation as it is to the usual power.
"""
_MOST_INTERVALS = 1.5  # longest step between readings that follow each other: more is a gap
# Excess energy, in hours of the machine's usual power, above which an incident may be critical by
# its score, is a warning, and is critical. Chosen.
_FELT, _LARGE, _VERY_LARGE = 0.5, 1.0, 6.0
# The usual power counts as at least this share of its highest value around the episode: the little
# that a machine draws at rest would make every excess look large. Chosen.
_RANGE_SHARE = 0.25
_LEAST_DRAW_KW = 0.1  # chosen: below it energy is not compared with the usual power


def with_onsets(
    episodes: Sequence[Episode],
    verdicts: pd.DataFrame,
    zones: Mapping[int, str],
    meter: MeterSettings,
) -> list[Episode]:
    """Move the start of machines' episodes back to the onset, and add energy and severity.

    From the first alarm, the verdicts directly before it are searched backwards. For each
    reading, the part of its deviation above `ONSET_SHARE` of the typical deviation is added up;
    the onset is the reading at which this sum is highest. So one small reading among many large
    ones does not end the search. The search goes back `LOOK_BACK` at most. It stops at an alarm
    (of an earlier episode), a fault of the meter, a gap, or a reading whose usual power is not
    known. The onset does not depend on readings after the first alarm, so it stays the same
    while the episode grows.

    Parameters
    ----------
    episodes : sequence of Episode
        As `find_episodes` gives them; those of meters stay as they are.
    verdicts : DataFrame
        All verdicts from `LOOK_BACK` before the first alarm of each machine's episode to its
        last alarm, and always the one directly before the first, sorted by time.
        ``number`` (place of the episode in `episodes`), ``utc_timestamp``, ``alarm`` and
        ``sound`` (bool; not a fault of the meter), ``power_kw`` and ``expected_kw`` (NaN:
        not known).
    zones : mapping
        Names of the machines' time zones, for the reasons; UTC if a zone does not exist.

    Returns
    -------
    list of Episode
        ``started_at``, ``excess_kwh`` (kWh; faults of the meter and intervals longer than
        ``max_gap_days`` do not count), ``severity`` and ``reason`` (mean power beside the
        usual, the start on the machine's clock, and the reason of the worst reading).
    """
    made = list(episodes)
    for number, stretch in _stretches_by_episode(verdicts):
        episode = episodes[number]
        first = int(np.searchsorted(stretch.ticks, _ticks(episode.started_at)))
        begin = _onset_row(stretch, first, meter)
        started_at = episode.started_at - timedelta(
            microseconds=int(stretch.ticks[first] - stretch.ticks[begin])
        )
        begun = replace(episode, started_at=started_at)
        sums = _sums_from(stretch, begin, meter)
        zone = zones.get(episode.machine_id, "UTC")
        made[number] = replace(
            begun,
            excess_kwh=None if sums is None else round(sums.excess_kwh, 3),
            severity=_final_severity(begun, sums, meter),
            reason=_full_reason(begun, sums, zone, meter),
        )
    return made


@dataclass(frozen=True)
class _Stretch:
    """Verdicts around one episode; ``hours`` since the verdict before, NaN for the first."""

    ticks: Ints
    hours: Floats
    alarm: Bools
    sound: Bools
    power: Floats
    usual: Floats
    deviation: Floats
    """Power above the usual, kW; NaN where it is not known and for faults of the meter."""


class _Sums(NamedTuple):
    """Sums over an episode: mean powers in kW, weighted by time, and energy beyond the usual."""

    measured_kw: float
    usual_kw: float
    highest_usual_kw: float
    excess_kwh: float


def _stretches_by_episode(verdicts: pd.DataFrame) -> Iterator[tuple[int, _Stretch]]:
    """Verdicts about each episode, by its number."""
    numbers = verdicts["number"].to_numpy(np.int64)
    ticks = verdicts["utc_timestamp"].to_numpy(dtype="datetime64[us]").astype(np.int64)
    alarm, sound = (verdicts[name].to_numpy(bool) for name in ("alarm", "sound"))
    power, usual = (verdicts[name].to_numpy(float) for name in ("power_kw", "expected_kw"))
    deviation = np.where(sound, power - usual, np.nan)
    edges = np.flatnonzero(np.diff(numbers, prepend=-1, append=-1))
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = slice(begin, end)
        hours = np.diff(ticks[part]) / MICROSECONDS_PER_HOUR
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


def _onset_row(stretch: _Stretch, first: int, meter: MeterSettings) -> int:
    """Row in which the deviation began whose first alarm is row `first`."""
    typical = _typical_deviation(stretch, first, meter)
    longest = _MOST_INTERVALS * (meter.interval / timedelta(hours=1))
    onset, most, total = first, 0.0, 0.0
    # Row 0 has no verdict before it, so it is not known whether it follows a gap.
    for row in range(first - 1, 0, -1):
        follow = stretch.hours[row] <= longest and stretch.hours[row + 1] <= longest
        if not follow or stretch.alarm[row]:
            break
        if meter.restarts_daily and stretch.sound[row] and np.isnan(stretch.power[row]):
            continue  # the restart of a count neither shows the deviation nor ends it
        if not isfinite(stretch.deviation[row]):
            break
        deviation = float(stretch.deviation[row])
        total += (deviation if typical > 0 else -deviation) - ONSET_SHARE * abs(typical)
        if total > most:
            onset, most = row, total
    return onset


def _typical_deviation(stretch: _Stretch, first: int, meter: MeterSettings) -> float:
    """Deviation of the first alarm, or the mean of the time before it if that is larger.

    An alarm may be about the hour before it rather than about its own reading.
    """
    since = stretch.ticks[first] - join_after(meter) // timedelta(microseconds=1)
    begin = int(np.searchsorted(stretch.ticks, since, side="right"))
    near = [float(found) for found in stretch.deviation[begin : first + 1] if isfinite(found)]
    if not near:
        return np.nan
    own, mean = float(stretch.deviation[first]), fsum(near) / len(near)
    return own if abs(own) >= abs(mean) else mean


def _sums_from(stretch: _Stretch, begin: int, meter: MeterSettings) -> _Sums | None:
    """Sums over the intervals from row `begin` on; None where no power is known."""
    hours, deviation = stretch.hours[begin:], stretch.deviation[begin:]
    # A reading's power holds for the time since the reading before it, so it has that weight.
    counted = np.isfinite(deviation) & (hours <= meter.max_gap / timedelta(hours=1))
    if meter.is_of_interval:  # what was used in a gap before it is not known
        hours = np.minimum(hours, meter.interval / timedelta(hours=1))
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


def _final_severity(episode: Episode, sums: _Sums | None, meter: MeterSettings) -> Severity:
    """Severity by the worst score, and by the excess energy in hours of usual power.

    A score alone cannot make an incident critical: the energy must reach `_FELT` as well.
    """
    by_score = list(Severity).index(episode.severity)
    draw = max(abs(sums.usual_kw), _RANGE_SHARE * sums.highest_usual_kw) if sums else 0.0
    if sums is None or draw < _LEAST_DRAW_KW:
        lasted = episode.last_at - episode.started_at + meter.interval
        return list(Severity)[min(by_score + int(lasted >= WORSE_AFTER), 2)]
    hours = abs(sums.excess_kwh) / draw
    by_energy = int(hours >= _LARGE) + int(hours >= _VERY_LARGE)
    return list(Severity)[max(by_energy, by_score if hours >= _FELT else min(by_score, 1))]


def _full_reason(episode: Episode, sums: _Sums | None, zone: str, meter: MeterSettings) -> str:
    if sums is None:
        return episode.reason
    local = episode.started_at.astimezone(zone_or_utc(zone))
    hours = (episode.last_at + meter.interval - episode.started_at) / timedelta(hours=1)
    return (
        f"{beside_usual(sums.measured_kw, sums.usual_kw)}, on average over {hours:.1f} h"
        f" from {local:%a %Y-%m-%d %H:%M}; most unusual: {episode.reason}"
    )


def _ticks(moment: datetime) -> int:
    return int(np.datetime64(moment.replace(tzinfo=None), "us").astype(np.int64))
