"""Explain in words what a signal found: what was measured, over which time, and the usual."""

from datetime import timedelta

import numpy as np
import pandas as pd

from anomaly.arrays import Floats, Ints
from anomaly.detectors.signals.signals import FOUR_HOURS, NAMES, ONE_HOUR, SIX_HOURS, Readings
from anomaly.detectors.signals.usual_day import DEVIATIONS
from anomaly.readings.contradictions import REACH
from anomaly.wording import beside_usual, kilowatts

_SPANS = {"level_1h": ONE_HOUR, "throughout_4h": FOUR_HOURS}


def explain(readings: Readings, chosen: Ints, signal: Ints, centre: Floats) -> list[str]:
    """Explain chosen readings, each by one signal.

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
    means = {name: readings.means(chosen, span) for name, span in _SPANS.items()}
    others = readings.other_signals(chosen)
    words = []
    for n, k in enumerate(signal.tolist()):
        name, row = NAMES[k], int(chosen[n])
        to = _end_of_interval(readings, row)
        if name in _SPANS:
            power, usual = (float(mean[n]) for mean in means[name])
            span = _span(readings, _SPANS[name])
            says = _deviation(readings, row, power, usual, f"{span} to {to}")
        elif name == "change":
            before, after = (kilowatts(readings.power[at]) for at in (row - 1, row))
            says = f"power went from {before} kW to {after} kW in the interval to {to}"
        else:
            found, usually = others[n, k - len(DEVIATIONS)], centre[n, k]
            says = _other_signal(readings, name, float(found), float(usually), to)
        words.append(says + ("; not trained yet" if readings.rows[row] < 0 else ""))
    return words


def _deviation(readings: Readings, row: int, power: float, usual: float, span: str) -> str:
    of_fleet = " of this fleet" if readings.rows[row] < 0 else ""
    return f"{beside_usual(power, usual)}{of_fleet}, on average over the {span}"


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
