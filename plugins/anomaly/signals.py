"""What the detector `signals` measures: a machine's power against its own usual day.

Every signal of a reading is a function of the readings of the `SPANS` before it
alone. Sums over a span are taken in whole nano-kilowatt-hours, so they are
exact and do not depend on where a window starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.preprocessing import microseconds
from anomaly.quality import earliest_within
from anomaly.schema import Quality

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SPANS = (timedelta(hours=1), timedelta(hours=4), timedelta(hours=24))
BAND_SPAN = timedelta(hours=4)
NAMES = ("power", "level", "change", "level_1h", "level_4h", "level_24h", "band_4h", "flat")
"""Order of the signals' columns."""

DAY_TYPES = 2  # working day, weekend
_NANO = 1e9
_MICROSECONDS_PER_HOUR = 3_600_000_000
_SMOOTHING = timedelta(hours=1)
_BAND = (0.02, 0.98)


@dataclass(frozen=True)
class UsualDay:
    """What is usual of each machine at each time of day.

    Attributes
    ----------
    machine_ids : array of int, sorted
    time_zones : tuple of str
        Zone of each machine's working day.
    median, low, high : array (machine, day type, slot), kW
        Median, and the band that holds 96 % of readings; slots are wall-clock
        intervals, smoothed over an hour to either side.
    """

    machine_ids: Ints
    time_zones: tuple[str, ...]
    median: Floats
    low: Floats
    high: Floats

    def rows(self, machine_ids: npt.NDArray[np.generic]) -> Ints:
        """Row of each machine, -1 where training did not see it."""
        place = np.searchsorted(self.machine_ids, machine_ids)
        place = np.minimum(place, len(self.machine_ids) - 1)
        known = self.machine_ids[place] == machine_ids
        return np.where(known, place, -1).astype(np.int64)

    def slots(self, readings: pd.DataFrame, rows: Ints) -> tuple[Ints, Ints]:
        """Day type and slot of each reading on its machine's own clock."""
        types, slots = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        zones = np.asarray([*self.time_zones, "UTC"])[rows]
        for zone in np.unique(zones):
            here = zones == zone
            local = readings["utc_timestamp"][here].dt.tz_convert(ZoneInfo(str(zone)))
            minutes = (local.dt.hour * 60 + local.dt.minute).to_numpy()
            types[here] = (local.dt.day_of_week >= 5).to_numpy().astype(np.int64)
            slots[here] = minutes * self.median.shape[2] // (24 * 60)
        return types, slots


def usual_day(measured: pd.DataFrame, time_zones: Sequence[str], interval: timedelta) -> UsualDay:
    """Learn the usual day of each machine.

    Parameters
    ----------
    measured : DataFrame
        As `anomaly.quality.measure` returns it, meter faults left out.
    time_zones : sequence of str
        Zone of each machine, in the order of their ids.
    """
    machine_ids = np.unique(measured["machine_id"].to_numpy(np.int64))
    slots = max(1, int(timedelta(days=1) / interval))
    shape = (len(machine_ids), DAY_TYPES, slots)
    blank = UsualDay(machine_ids, tuple(time_zones), *(np.zeros(shape) for _ in range(3)))
    rows = blank.rows(measured["machine_id"].to_numpy())
    types, places = blank.slots(measured, rows)
    power = measured["power_kw"].to_numpy()
    reach = int(_SMOOTHING / interval)
    for machine in range(len(machine_ids)):
        mine = (rows == machine) & np.isfinite(power)
        for day_type in range(DAY_TYPES):
            chosen = mine & (types == day_type)
            if len(np.unique(places[chosen])) < slots or chosen.sum() < 3 * slots:
                chosen = mine  # too few such days to know them
            found = _smoothed_quantiles(power[chosen], places[chosen], slots, reach)
            blank.median[machine, day_type], blank.low[machine, day_type] = found[0], found[1]
            blank.high[machine, day_type] = found[2]
    return blank


def measure_signals(measured: pd.DataFrame, usual: UsualDay) -> Floats:
    """Compute every signal of every reading.

    Parameters
    ----------
    measured : DataFrame
        As `anomaly.quality.measure` returns it, with the readings that precede
        those of interest by up to a day.

    Returns
    -------
    array (reading, signal)
        In the order of `NAMES`, unscaled: kW, and log hours for ``flat``. NaN
        where it cannot be told: unknown machines, first readings, meter faults,
        spans of which less than half is known.
    """
    rows = usual.rows(measured["machine_id"].to_numpy())
    types, slots = usual.slots(measured, rows)
    sound = _sound(measured)
    power = np.where(sound & (rows >= 0), measured["power_kw"].to_numpy(), np.nan)
    level = power - usual.median[rows, types, slots]
    beyond = np.maximum(power - usual.high[rows, types, slots], 0) + np.minimum(
        power - usual.low[rows, types, slots], 0
    )
    spans = Spans(measured)
    return np.column_stack(
        [
            power,
            level,
            spans.change(power),
            *(spans.mean(level, span) for span in SPANS),
            spans.mean(beyond, BAND_SPAN),
            np.where(rows >= 0, np.log1p(measured["flat_hours"].to_numpy()), np.nan),
        ]
    )


def explain(measured: pd.DataFrame, usual: UsualDay, chosen: Ints, signal: Ints) -> list[str]:
    """Say in words what a signal found.

    Parameters
    ----------
    chosen : array of int
        Rows of `measured`.
    signal : array of int
        For each the place of its signal in `NAMES`.
    """
    rows = usual.rows(measured["machine_id"].to_numpy())
    types, slots = usual.slots(measured, rows)
    normal = usual.median[rows, types, slots]
    power = np.where(_sound(measured), measured["power_kw"].to_numpy(), np.nan)
    spans = Spans(measured)
    found = measure_signals(measured, usual)
    words = []
    for row, k in zip(chosen, signal, strict=True):
        name, value = NAMES[k], found[row, k]
        if name in ("power", "level"):
            local = measured["utc_timestamp"].iloc[row].tz_convert(usual.time_zones[rows[row]])
            level = _compared(power[row], normal[row])
            words.append(f"{level} its usual {local:%A %H:%M} level of {normal[row]:.1f} kW")
        elif name == "change":
            words.append(f"power changed by {value:+.1f} kW from one reading to the next")
        elif name == "flat":
            words.append(f"no change for {np.expm1(value):.1f} h")
        elif name == "band_4h":
            words.append(f"outside its usual range by {value:+.1f} kW on average over 4 h")
        else:
            span = SPANS[NAMES[3:6].index(name)]
            mean = spans.mean(power, span)[row]
            hours = span / timedelta(hours=1)
            words.append(f"{_compared(mean, mean - value)} its usual level over {hours:.0f} h")
    return words


def _compared(power: float, normal: float) -> str:
    """How far above or below: in per cent where that says something, else in kW."""
    side = "above" if power >= normal else "below"
    if abs(normal) < 0.1 or abs(power - normal) > 10 * abs(normal):
        return f"{abs(power - normal):.1f} kW {side}"
    return f"{abs(power / normal - 1) * 100:.0f} % {side}"


class Spans:
    """Means over the time before each reading, exact to a nano-kilowatt-hour."""

    def __init__(self, measured: pd.DataFrame) -> None:
        self._machines = measured["machine_id"].to_numpy()
        self._ticks = microseconds(measured["utc_timestamp"])
        hours = measured["elapsed_hours"].to_numpy()
        self._hours = np.where(np.isfinite(hours), hours, 0.0)

    def mean(self, rate: Floats, span: timedelta) -> Floats:
        """Mean of `rate` over the intervals that lie wholly in the `span` before each reading."""
        known = np.isfinite(rate)
        energy = np.where(known, np.round(np.where(known, rate, 0) * self._hours * _NANO), 0)
        time = np.where(known, self._hours * _MICROSECONDS_PER_HOUR, 0)
        first = earliest_within(self._machines, self._ticks, span)
        total, covered = (self._since(first, amount) for amount in (energy, time))
        hours = covered / _MICROSECONDS_PER_HOUR
        enough = hours >= span / timedelta(hours=1) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(enough, total / _NANO / hours, np.nan)

    def change(self, power: Floats) -> Floats:
        """Change of power since the reading before; both intervals lie within a day."""
        first = earliest_within(self._machines, self._ticks, max(SPANS))
        change = np.diff(power, prepend=np.nan)
        change[np.arange(len(power)) - 2 < first] = np.nan
        return change

    @staticmethod
    def _since(first: Ints, amount: Floats) -> Ints:
        """Sum of the whole numbers after row `first` up to each row."""
        sums: Ints = np.cumsum(np.rint(amount).astype(np.int64))
        return sums - sums[first]


def _sound(measured: pd.DataFrame) -> npt.NDArray[np.bool_]:
    quality = measured["quality"].to_numpy()
    return ~np.isin(quality, [Quality.RESET, Quality.IMPOSSIBLE])


def _smoothed_quantiles(power: Floats, slots: Ints, count: int, reach: int) -> Floats:
    """Median and band of each slot, pooled with `reach` slots to either side, round the clock."""
    shifts = np.arange(-reach, reach + 1)
    pooled = np.tile(power, len(shifts))
    places = np.concatenate([(slots + shift) % count for shift in shifts])
    order = np.argsort(places, kind="stable")
    groups = np.split(pooled[order], np.searchsorted(places[order], np.arange(1, count)))
    return np.array(
        [np.quantile(group, (0.5, *_BAND)) if len(group) else (0, 0, 0) for group in groups]
    ).T
