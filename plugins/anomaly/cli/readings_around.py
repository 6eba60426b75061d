"""Readings around an incident as lines of text, each with its place in the usual band."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from math import isfinite
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from anomaly.schema import QUALITY_NAMES, Quality
from anomaly.windows import Window

HISTORY = timedelta(weeks=4)
"""How far back the band looks."""

_LEAST, _MOST = 10, 90  # per cent of the readings that lie below the band's ends
_ENOUGH = 8  # readings of an hour: from fewer no band can be told
_WIDTH = 24  # characters of a strip: a line stays within 80
_SOUND = QUALITY_NAMES[: Quality.STUCK]

Verdicts = Sequence[Mapping[str, Any]]


class Band(NamedTuple):
    """Between which powers, kW, most readings of an hour lie."""

    low: float
    high: float


def lines_around(
    history: Verdicts, readings: Verdicts, inside: Window, zone: ZoneInfo, most: int
) -> list[str]:
    """A line each reading: time, power, usual, score, quality, and a strip that draws them.

    Readings of the incident begin with ``:``, alarms with ``!``. In the strip ``*`` is the
    power, ``|`` what is usual, and ``-`` the band in which four of five readings of that
    hour and kind of day lay in the `HISTORY` before the incident.

    Parameters
    ----------
    history : sequence of mappings
        The machine's verdicts since `HISTORY` before the incident.
    readings : sequence of mappings
        Those to draw.
    inside : Window
        The incident.
    most : int
        No more readings than these: of many the first and the last.
    """
    bands = _bands(history, inside.start, zone)
    powers = [reading[name] for reading in readings for name in ("power_kw", "expected_kw")]
    known = [power for power in powers if power is not None and isfinite(power)]
    if not known:
        return ["no power is known around it"] if readings else ["no readings are there around it"]
    scale = Band(min(0.0, *known), max(0.0, *known))
    head = f"{'  time':<19}{'kW':>8}{'usual':>8}{'score':>7}  {'quality':<12}"
    ends = f"{scale.low:.4g}".ljust(_WIDTH // 2) + f"{scale.high:.4g} kW".rjust(_WIDTH // 2)
    drawn = [
        f"{_mark(reading, inside)} {_line(reading, zone)}"
        f"{_strip(reading, _band(bands, reading, zone), scale)}".rstrip()
        for reading in readings
    ]
    if len(drawn) > most:
        begin, end = most - most // 2, most // 2
        left = f"  ... {len(drawn) - most} readings more, for all: --readings {len(drawn)}"
        drawn = [*drawn[:begin], left, *drawn[-end:]]
    return [
        head + ends,
        *drawn,
        "  * power  | usual  - usual band of four weeks  ! alarm  : incident",
    ]


def _mark(reading: Mapping[str, Any], inside: Window) -> str:
    if reading["anomaly"]:
        return "!"
    return ":" if reading["utc_timestamp"] in inside else " "


def _line(reading: Mapping[str, Any], zone: ZoneInfo) -> str:
    power, usual, score = (
        "-" if value is None else f"{value:.{digits}f}"
        for value, digits in (
            (reading["power_kw"], 1), (reading["expected_kw"], 1), (reading["anomaly_score"], 2),
        )
    )  # fmt: skip
    local = reading["utc_timestamp"].astimezone(zone)
    return f"{local:%a %m-%d %H:%M}  {power:>8}{usual:>8}{score:>7}  {reading['quality']:<12}"


def _bands(history: Verdicts, until: datetime, zone: ZoneInfo) -> dict[tuple[bool, int], Band]:
    """Usual band of each hour of each kind of day, from sound readings that were no alarms."""
    powers: dict[tuple[bool, int], list[float]] = {}
    for reading in history:
        sound = reading["quality"] in _SOUND and not reading["anomaly"]
        if sound and reading["power_kw"] is not None and reading["utc_timestamp"] < until:
            hour = _hour(reading["utc_timestamp"], zone)
            powers.setdefault(hour, []).append(reading["power_kw"])
    return {
        hour: Band(*map(float, np.percentile(found, [_LEAST, _MOST])))
        for hour, found in powers.items()
        if len(found) >= _ENOUGH
    }


def _band(
    bands: Mapping[tuple[bool, int], Band], reading: Mapping[str, Any], zone: ZoneInfo
) -> Band | None:
    return bands.get(_hour(reading["utc_timestamp"], zone))


def _hour(moment: datetime, zone: ZoneInfo) -> tuple[bool, int]:
    local = moment.astimezone(zone)
    return local.weekday() >= 5, local.hour


def _strip(reading: Mapping[str, Any], band: Band | None, scale: Band) -> str:
    strip = [" "] * _WIDTH
    if band is not None:
        low, high = (_place(power, scale) for power in band)
        strip[low : high + 1] = "-" * (high + 1 - low)
    for value, sign in ((reading["expected_kw"], "|"), (reading["power_kw"], "*")):
        if value is not None and isfinite(value):
            strip[_place(value, scale)] = sign
    return "".join(strip)


def _place(power: float, scale: Band) -> int:
    span = scale.high - scale.low
    share = (power - scale.low) / span if span else 0.0
    return min(max(round(share * (_WIDTH - 1)), 0), _WIDTH - 1)
