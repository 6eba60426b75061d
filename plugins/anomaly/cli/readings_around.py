"""Draw the readings around an incident as lines of text, each with the usual band."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from math import isfinite
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from anomaly.readings.quality import QUALITY_NAMES, Quality
from anomaly.windows import Window

HISTORY = timedelta(weeks=4)
"""Time before the incident from which the band is computed. Chosen."""

_LEAST, _MOST = 10, 90  # percentiles of the band's ends; chosen: four of five readings are inside
_ENOUGH = 8  # chosen: with fewer readings of an hour no band is drawn
_WIDTH = 24  # characters of a strip, so that a line fits into 80
_SOUND = QUALITY_NAMES[: Quality.STUCK]

Verdicts = Sequence[Mapping[str, Any]]


class Band(NamedTuple):
    """The range of power, kW, in which most readings of an hour lie."""

    low: float
    high: float


def lines_around(
    history: Verdicts, readings: Verdicts, inside: Window, zone: ZoneInfo, most: int
) -> list[str]:
    """One line per reading: time, power, usual power, score, quality, and a strip that draws them.

    Readings of the incident begin with ``:``, alarms with ``!``. In the strip ``*`` is the
    power, ``|`` what is usual, and ``-`` the band in which four of five readings of that
    hour and kind of day lay in the `HISTORY` before the incident.

    Parameters
    ----------
    history : sequence of mappings
        The machine's verdicts since `HISTORY` before the incident.
    readings : sequence of mappings
        The readings to draw.
    inside : Window
        The incident.
    most : int
        Most readings to draw. If there are more, the first and the last are drawn.
    """
    bands = _usual_bands(history, inside.start, zone)
    powers = [reading[name] for reading in readings for name in ("power_kw", "expected_kw")]
    known = [power for power in powers if power is not None and isfinite(power)]
    if not known:
        return ["no power is known around it"] if readings else ["there are no readings around it"]
    scale = Band(min(0.0, *known), max(0.0, *known))
    head = f"{'  time':<19}{'kW':>8}{'usual':>8}{'score':>7}  {'quality':<12}"
    ends = f"{scale.low:.4g}".ljust(_WIDTH // 2) + f"{scale.high:.4g} kW".rjust(_WIDTH // 2)
    drawn = [
        f"{_line_mark(reading, inside)} {_reading_text(reading, zone)}"
        f"{_drawn_strip(reading, _band_of(bands, reading, zone), scale)}".rstrip()
        for reading in readings
    ]
    if len(drawn) > most:
        begin, end = most - most // 2, most // 2
        left = f"  ... {len(drawn) - most} more readings, to see all: --readings {len(drawn)}"
        drawn = [*drawn[:begin], left, *drawn[-end:]]
    return [
        head + ends,
        *drawn,
        "  * power  | usual  - usual band of four weeks  ! alarm  : incident",
    ]


def _line_mark(reading: Mapping[str, Any], inside: Window) -> str:
    if reading["anomaly"]:
        return "!"
    return ":" if reading["utc_timestamp"] in inside else " "


def _reading_text(reading: Mapping[str, Any], zone: ZoneInfo) -> str:
    power, usual, score = (
        "-" if value is None else f"{value:.{digits}f}"
        for value, digits in (
            (reading["power_kw"], 1), (reading["expected_kw"], 1), (reading["anomaly_score"], 2),
        )
    )  # fmt: skip
    local = reading["utc_timestamp"].astimezone(zone)
    return f"{local:%a %m-%d %H:%M}  {power:>8}{usual:>8}{score:>7}  {reading['quality']:<12}"


def _usual_bands(
    history: Verdicts, until: datetime, zone: ZoneInfo
) -> dict[tuple[bool, int], Band]:
    """Usual band per hour and kind of day, from sound readings without alarms."""
    powers: dict[tuple[bool, int], list[float]] = {}
    for reading in history:
        sound = reading["quality"] in _SOUND and not reading["anomaly"]
        if sound and reading["power_kw"] is not None and reading["utc_timestamp"] < until:
            hour = _hour_and_weekend(reading["utc_timestamp"], zone)
            powers.setdefault(hour, []).append(reading["power_kw"])
    return {
        hour: Band(*map(float, np.percentile(found, [_LEAST, _MOST])))
        for hour, found in powers.items()
        if len(found) >= _ENOUGH
    }


def _band_of(
    bands: Mapping[tuple[bool, int], Band], reading: Mapping[str, Any], zone: ZoneInfo
) -> Band | None:
    return bands.get(_hour_and_weekend(reading["utc_timestamp"], zone))


def _hour_and_weekend(moment: datetime, zone: ZoneInfo) -> tuple[bool, int]:
    local = moment.astimezone(zone)
    return local.weekday() >= 5, local.hour


def _drawn_strip(reading: Mapping[str, Any], band: Band | None, scale: Band) -> str:
    strip = [" "] * _WIDTH
    if band is not None:
        low, high = (_column_of(power, scale) for power in band)
        strip[low : high + 1] = "-" * (high + 1 - low)
    for value, sign in ((reading["expected_kw"], "|"), (reading["power_kw"], "*")):
        if value is not None and isfinite(value):
            strip[_column_of(value, scale)] = sign
    return "".join(strip)


def _column_of(power: float, scale: Band) -> int:
    span = scale.high - scale.low
    share = (power - scale.low) / span if span else 0.0
    return min(max(round(share * (_WIDTH - 1)), 0), _WIDTH - 1)
