"""Draw the readings around an incident as lines of text, each with the usual band."""

from collections.abc import Mapping
from math import isfinite
from typing import Any
from zoneinfo import ZoneInfo

from anomaly.incidents.usual_band import Band, UsualBands, Verdicts
from anomaly.windows import Window

_WIDTH = 24  # characters of a strip, so that a line fits into 80


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
    bands = UsualBands(history, inside.start, zone)
    powers = [reading[name] for reading in readings for name in ("power_kw", "expected_kw")]
    known = [power for power in powers if power is not None and isfinite(power)]
    if not known:
        return ["no power is known around it"] if readings else ["there are no readings around it"]
    scale = Band(min(0.0, *known), max(0.0, *known))
    head = f"{'  time':<19}{'kW':>8}{'usual':>8}{'score':>7}  {'quality':<12}"
    ends = f"{scale.low:.4g}".ljust(_WIDTH // 2) + f"{scale.high:.4g} kW".rjust(_WIDTH // 2)
    drawn = [
        f"{_line_mark(reading, inside)} {_reading_text(reading, zone)}"
        f"{_drawn_strip(reading, bands.at(reading['utc_timestamp']), scale)}".rstrip()
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
