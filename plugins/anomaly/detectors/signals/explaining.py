"""Explain in words what a signal found: what was measured, over which time, and the usual."""

from datetime import timedelta

import numpy as np
import pandas as pd

from anomaly.arrays import Floats, Ints
from anomaly.detectors.signals.shape import SPAN, points, unexplained
from anomaly.detectors.signals.signals import (
    FOUR_HOURS,
    NAMES,
    ONE_HOUR,
    SIX_HOURS,
    Readings,
    new_power,
)
from anomaly.readings.contradictions import REACH
from anomaly.wording import beside_usual, kilowatts

_SPANS = {"level_1h": ONE_HOUR, "throughout_4h": FOUR_HOURS}


def explain(readings: Readings, chosen: Ints, signal: Ints, centre: Floats) -> list[str]:
    """Explain chosen readings, each by one signal: by what no history holds, if it does not.

    Times are on the machine's own clock, and end where the reading's interval ends.

    Parameters
    ----------
    chosen : array of int
        Rows of the readings.
    signal : array of int
        The signal that explains each, as its place in `NAMES`.
    centre : array, shape (reading, signal)
        The usual value of each signal on the reading's machine.

    Returns
    -------
    list of str
        One sentence per chosen reading, in their order.
    """
    if not len(chosen):
        return []
    means = {name: readings.means(chosen, span) for name, span in _SPANS.items()}
    others = readings.other_signals(chosen)
    unseen = _Unseen(readings)
    news = new_power(readings, chosen)
    words = []
    for n, k in enumerate(signal.tolist()):
        name, row = NAMES[k], int(chosen[n])
        to = _end_of_interval(readings, row)
        if name != "flat" and unseen.holds(row, float(news[n])):
            says = unseen.in_words(row, to)
        elif name in _SPANS:
            power, usual = (float(mean[n]) for mean in means[name])
            span = _span(readings, _SPANS[name])
            says = _deviation(readings, row, power, usual, f"{span} to {to}")
        elif name == "change":
            before, after = (kilowatts(readings.power[at]) for at in (row - 1, row))
            says = f"power went from {before} kW to {after} kW in the interval to {to}"
        elif name == "shape_6h":
            says = _shape(readings, row, float(np.exp(centre[n, k])), to)
        elif name == "power_1h":
            says = _power(readings, row, float(centre[n, k]), to)
        else:
            found, usually = others[name][n], centre[n, k]
            says = _other_signal(readings, name, float(found), float(usually), to)
        words.append(says + ("; not trained yet" if readings.rows[row] < 0 else ""))
    return words


class _Unseen:
    """Means of an hour beyond those of all training, and for how long they have lasted."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        every = np.arange(len(readings.power))
        self._side = self._beyond(readings.hour_mean(every))
        now = self._beyond(readings.power)
        new = (np.diff(now, prepend=2) != 0) | (np.diff(readings.rows, prepend=-2) != 0)
        self._since = np.maximum.accumulate(np.where(new, every, 0))
        self._lasts = now == self._side

    def _beyond(self, power: Floats) -> Ints:
        """-1 where power is below all hours of training, 1 where it is above, else 0."""
        usual, rows = self._readings.usual, self._readings.rows
        above = power > usual.most_hour[rows]
        return above.astype(np.int64) - (power < usual.least_hour[rows])

    def holds(self, row: int, news: float) -> bool:
        """Whether the hour up to a reading is such a mean, and as far as it is news, too.

        Parameters
        ----------
        news : float
            The reading's ``power_1h``.
        """
        usual, of = self._readings.usual, self._readings.rows[row]
        is_new = not usual.least_hour[of] <= news <= usual.most_hour[of]
        return bool(self._side[row]) and is_new

    def in_words(self, row: int, to: str) -> str:
        """What was drawn, for how long, and the lowest or highest that training saw.

        No farther back than a reading's verdict looks, so the words do not depend on a window.
        """
        readings = self._readings
        of = readings.rows[row]
        least, most, weeks = (
            float(array[of])
            for array in (readings.usual.least_hour, readings.usual.most_hour, readings.usual.weeks)
        )
        (inside,) = readings.earliest(np.array([row]), REACH - readings.interval)
        since = max(int(self._since[row]), int(inside)) if self._lasts[row] else row
        lasted = timedelta(microseconds=int(readings.ticks[row] - readings.ticks[since]))
        lasted = max(lasted + readings.interval, readings.span(ONE_HOUR))
        (mean,), _ = readings.means(np.array([row]), lasted)
        low = self._side[row] < 0
        never = f"below {kilowatts(least)}" if low else f"above {kilowatts(most)}"
        return (
            f"{kilowatts(mean)} kW for {lasted / timedelta(hours=1):.3g} h to {to}; no hour was"
            f" {never} kW in {_weeks(weeks)}"
        )


def _weeks(weeks: float) -> str:
    return "1 week" if round(weeks) == 1 else f"{weeks:.0f} weeks"


def _shape(readings: Readings, row: int, usually: float, to: str) -> str:
    """Where the course of the last hours is least like the usual ones."""
    (away,) = unexplained(readings, np.array([row]))
    found = float(np.sqrt((away * away).mean()))
    span = _span(readings, SPAN)
    usually = max(usually - float(readings.usual.least[readings.rows[row]]), 0.0)
    _, each = points(readings.interval)
    at = row - int(np.abs(away).argmax()) * each
    return (
        f"its last {span} to {to} do not look like any of the usual courses"
        f" ({kilowatts(found)} kW off on average, usually {kilowatts(usually)} kW); most different"
        f" in the interval to {_end_of_interval(readings, at)}"
    )


def _deviation(readings: Readings, row: int, power: float, usual: float, span: str) -> str:
    of_fleet = " of this fleet" if readings.rows[row] < 0 else ""
    return f"{beside_usual(power, usual)}{of_fleet}, on average over the {span}"


def _power(readings: Readings, row: int, usually: float, to: str) -> str:
    """Power that hardly any hour of training held."""
    (found,) = readings.hour_mean(np.array([row])).tolist()
    side = "high" if found > usually else "low"
    weeks = float(readings.usual.weeks[readings.rows[row]])
    return (
        f"{kilowatts(found)} kW on average over the {_span(readings, ONE_HOUR)} to {to}, as {side}"
        f" as hardly ever in {_weeks(weeks)}"
    )


def _other_signal(readings: Readings, name: str, found: float, usually: float, to: str) -> str:
    if name == "flat":
        return f"no change for {np.expm1(found):.1f} h to {to}"
    if name == "running_4h":
        span = _span(readings, FOUR_HOURS)
        return f"ran at {beside_usual(found, usually)}, on average over the {span} to {to}"
    if name == "idle_6h":
        return (
            f"stood still for {np.expm1(found):.1f} h of the {_span(readings, SIX_HOURS)} to {to},"
            " at a time at which it usually runs"
        )
    ended = {"run": "stopped after a run", "pause": "started after a pause"}[name]
    return f"{ended} of {_hours(found)} in the interval to {to}, usually {_hours(usually)}"


def _end_of_interval(readings: Readings, row: int) -> str:
    """End of a reading's interval on its machine's clock."""
    zone = str(readings.usual.time_zones[readings.rows[row]])
    start = pd.Timestamp(int(readings.ticks[row]), unit="us", tz="UTC")
    return f"{(start + readings.interval).tz_convert(zone):%a %H:%M}"


def _span(readings: Readings, span: timedelta) -> str:
    return f"{readings.span(span) / timedelta(hours=1):.3g} h"


def _hours(log: float) -> str:
    longest = REACH / timedelta(hours=1)
    hours = float(np.exp(log))
    return f"{longest:.0f} h or more" if hours > longest - 1e-6 else f"{hours:.1f} h"
