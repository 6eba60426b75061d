"""Rules that tell a fault of the meter from a fault of the machine."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import MICROSECONDS_PER_HOUR, Bools, Floats, Ints
from anomaly.readings.contradictions import REACH, Course, find_breaks, settle_breaks
from anomaly.readings.measuring import fall_tolerance
from anomaly.readings.preprocessing import in_kwh, is_sane, microseconds
from anomaly.readings.quality import Quality
from anomaly.readings.sorted_rows import (
    flat_hours,
    is_first,
    places_in,
    run_starts,
    values_at,
    worst_of,
)
from anomaly.settings import SURE_RESTART, MeterSettings

MOST_FLAT_HOURS = 12.0
"""A longer flat run is `STUCK`, on a machine that hardly ever stands still.

The limit holds whatever training saw: a meter that froze during training must not hide a meter
that is frozen now. Chosen.
"""
LEAP = 1.5
"""A rise above this multiple of the machine's highest power in training is a leap.

Chosen: a smaller rise (the machine at half or twice its usual power) says something about the
machine, a larger one about the meter.
"""
ABSURD = 10.0
"""Power above this multiple of any machine's highest power in training is impossible. Chosen."""
# Quantile of a machine's positive powers, taken as its usual power. Chosen so high that only
# outliers lie above it; powers above `ABSURD` times this quantile are left out of ``highest_kw``.
_OUTLIERS = 0.995


class Limits(NamedTuple):
    """What machines can draw, from what training saw.

    Attributes
    ----------
    leap_kw : array, shape (machines + 1,)
        Power above which a rise of a counter is a leap. The last value is for machines that
        training did not see. NaN where nothing is known.
    absurd_kw : float
        Power that no machine can draw; NaN where nothing is known.
    """

    leap_kw: Floats
    absurd_kw: float

    @classmethod
    def of(cls, profiles: pd.DataFrame) -> "Limits":
        """Limits from `profile_machines`; a machine that never ran gets the fleet's highest."""
        highest = profiles["highest_kw"].to_numpy(float)
        most = float(np.fmax.reduce(highest, initial=0.0))
        if not most > 0:
            return cls(np.full(len(highest) + 1, np.nan), np.nan)
        # The last entry is also what an index of -1 (a machine that training did not see) finds.
        own = LEAP * np.where(highest > 0, highest, np.where(np.isnan(highest), np.nan, most))
        return cls(np.append(own, ABSURD * most), ABSURD * most)


def in_hindsight(
    measured: pd.DataFrame, profiles: pd.DataFrame, meter: MeterSettings, *, later: bool = True
) -> pd.DataFrame:
    """Judge measured readings again, from what machines can draw and from later readings.

    A counter reading that later readings contradict gets no power. A reading that comes back
    from such readings, or that catches up, gets the mean power since the last reading that
    counts.

    Parameters
    ----------
    profiles : DataFrame
        As `profile_machines` made it, indexed by ``machine_id``.
    later : bool
        False: judge each reading without the later ones, as it is judged live.

    Returns
    -------
    DataFrame
        `measured` with new ``quality``, ``power_kw``, ``power_diff``, ``energy_kwh`` and
        ``energy_hours``, and with ``follows_hours`` (for a catch-up: hours since the last
        reading that counts; else NaN). A meter that moves again after a long stop has no power,
        because it is not known when it counted, but the energy that it counted.
    """
    limits = Limits.of(profiles)
    place = places_in(profiles.index, measured)
    declared = measured["max_power_kw"].to_numpy()
    most_kw = np.where(np.isnan(declared), limits.leap_kw[place], declared)
    # A declared limit was checked when the roll-over was found, see `measure`. Without one, a
    # roll-over that needs more power than training allows is a reset.
    judged = _JudgedAgain(measured)
    rolled = (judged.quality == Quality.ROLLOVER) & np.isnan(declared)
    fell = rolled & (judged.power_kw > most_kw)
    judged.mark(fell, Quality.RESET, np.nan)
    judged.count(fell, np.nan, np.nan)
    # Never lowers a quality that is higher already.
    absurd = np.abs(judged.power_kw) > limits.absurd_kw
    judged.quality[absurd] = np.maximum(judged.quality[absurd], Quality.IMPOSSIBLE)
    if meter.is_counter and len(measured):
        _mark_contradictions(judged, most_kw, profiles, place, meter, later=later)
    return judged.frame()


class _JudgedAgain:
    """Measured readings with the columns that are judged again."""

    def __init__(self, measured: pd.DataFrame) -> None:
        self.measured = measured
        self.quality: Ints = measured["quality"].to_numpy().astype(np.int64)
        self.power_kw: Floats = measured["power_kw"].to_numpy().copy()
        self.power_diff: Floats = measured["power_diff"].to_numpy().copy()
        self.energy_kwh: Floats = measured["energy_kwh"].to_numpy().copy()
        self.energy_hours: Floats = measured["energy_hours"].to_numpy().copy()
        self.follows_hours: Floats = np.full(len(measured), np.nan)

    def mark(self, rows: Ints | Bools, quality: Quality, power_kw: float | Floats) -> None:
        """Give counter readings a quality and a power."""
        self.quality[rows] = quality
        self.power_kw[rows] = power_kw
        self.power_diff[rows] = power_kw

    def count(self, rows: Ints | Bools, energy_kwh: float | Floats, hours: float | Floats) -> None:
        """Give counter readings the energy that was metered since the last that counts."""
        self.energy_kwh[rows] = energy_kwh
        self.energy_hours[rows] = hours

    def frame(self) -> pd.DataFrame:
        """The readings with the new columns."""
        names = (
            "quality", "power_kw", "power_diff", "energy_kwh", "energy_hours", "follows_hours",
        )  # fmt: skip
        return self.measured.assign(**{name: getattr(self, name) for name in names})


def _mark_contradictions(
    judged: _JudgedAgain,
    most_kw: Floats,
    profiles: pd.DataFrame,
    place: npt.NDArray[np.intp],
    meter: MeterSettings,
    *,
    later: bool,
) -> None:
    """Mark the counter readings that are contradicted, that catch up, or that come back."""
    rows, course = _course_of_counters(judged.measured, judged.quality, most_kw, meter)
    breaks = find_breaks(course)
    if not breaks.any.any():
        return
    run_start = np.searchsorted(rows, run_starts(_equals_row_before(judged.measured))[rows])
    settled = settle_breaks(course, breaks, run_start)
    stopped = _is_after_long_stop(judged.measured, profiles, place, meter)[rows] & breaks.leaps
    leapt = rows[stopped | settled.moves_again]
    judged.mark(leapt, Quality.CATCH_UP, np.nan)
    judged.energy_hours[leapt] = np.nan
    # A reading that came back is marked after the leaps, because it has a power: the mean since
    # the last reading that counts. Contradicted readings are marked last and lose their power.
    back = np.flatnonzero(settled.follows >= 0)
    before = settled.follows[back]
    hours = (course.ticks[back] - course.ticks[before]) / MICROSECONDS_PER_HOUR
    energy_kwh = course.reading[back] - course.reading[before]
    if meter.restarts_daily:  # it may have restarted in between: then the energy is not known
        unsure = hours >= SURE_RESTART / timedelta(hours=1)
        energy_kwh[unsure], hours[unsure] = np.nan, np.nan
    judged.mark(rows[back], Quality.CATCH_UP, energy_kwh / hours)
    judged.count(rows[back], energy_kwh, hours)
    judged.follows_hours[rows[back]] = hours
    if later:
        contradicted = rows[settled.contradicted]
        judged.mark(contradicted, Quality.CONTRADICTED, np.nan)
        judged.count(contradicted, np.nan, np.nan)


def quality_at_once(measured: pd.DataFrame, profiles: pd.DataFrame, meter: MeterSettings) -> Ints:
    """Quality of each reading as it is judged live: before later readings can contradict it.

    Otherwise as `final_quality`.
    """
    at_once = in_hindsight(measured, profiles, meter, later=False)
    return final_quality(at_once, profiles, meter)


def final_quality(measured: pd.DataFrame, profiles: pd.DataFrame, meter: MeterSettings) -> Ints:
    """Quality of each reading, from the reading and from what training saw of its machine.

    Parameters
    ----------
    measured : DataFrame
        As `measure` or `in_hindsight` gives it.
    profiles : DataFrame
        As `profile_machines` made it, indexed by ``machine_id``.

    Returns
    -------
    array of int
        `Quality`; a machine that training did not see is ``LEARNING``.
    """
    if "follows_hours" not in measured:
        measured = in_hindsight(measured, profiles, meter)
    place = places_in(profiles.index, measured)
    learning = np.isnan(values_at(profiles["readings"], place))
    stuck = _is_flat_too_long(measured["flat_hours"].to_numpy(), profiles, place, meter)
    stuck |= _is_flat_since_break(measured) & _is_hardly_flat(profiles, place, meter)
    return worst_of(
        measured["quality"].to_numpy(),
        np.select([stuck, learning], [Quality.STUCK, Quality.LEARNING], Quality.OK),
    )


def profile_machines(measured: pd.DataFrame) -> pd.DataFrame:
    """What training stores about each machine, for `in_hindsight` and `final_quality`.

    Returns
    -------
    DataFrame
        Indexed by ``machine_id``: ``readings`` (count), ``longest_flat_hours``, ``flat_share``
        (share of readings equal to the one before) and ``highest_kw`` (highest power without
        outliers; 0 where the machine drew none).
    """
    still = measured["still"].to_numpy()
    hours = flat_hours(measured, _equals_row_before(measured), longest=None)
    power = measured["power_kw"].where(measured["power_kw"] > 0)
    machine = measured["machine_id"]
    usual = power.groupby(machine).quantile(_OUTLIERS)
    power = power.where(~(power > ABSURD * machine.map(usual)))
    table = measured.assign(flat=still, hours=hours, positive_kw=power)
    found = table.groupby("machine_id").agg(
        readings=("reading", "size"),
        longest_flat_hours=("hours", "max"),
        flat_share=("flat", "mean"),
        highest_kw=("positive_kw", "max"),
    )
    return found.fillna({"highest_kw": 0.0})


def explain_faults(
    measured: pd.DataFrame, quality: Ints, meter: MeterSettings | None = None
) -> npt.NDArray[np.object_]:
    """Say in words why a reading is a meter fault; None for all other readings.

    Parameters
    ----------
    measured : DataFrame
        As `in_hindsight` gives it.
    meter : MeterSettings, optional
        Default: the meter is a counter in kWh.
    """
    meter = meter or MeterSettings()
    reasons = np.full(len(measured), None, dtype=object)
    for row in np.flatnonzero(quality >= Quality.STUCK):
        reasons[row] = _REASONS[Quality(quality[row])](measured.iloc[row], meter)
    return reasons


def _impossible_reason(reading: Any, meter: MeterSettings) -> str:
    if not is_sane(reading["reading"], meter.change_scale):
        return f"impossible: the meter reads {reading['reading']:.3g}"
    power, most = reading["power_kw"], reading["max_power_kw"]
    if power > most:
        return f"impossible: {power:.1f} kW, it draws {most:.1f} kW at most"
    return f"impossible: {power:.1f} kW, more than ten times what any machine drew in training"


def _catch_up_reason(reading: Any, _: MeterSettings) -> str:
    hours = reading["follows_hours"]
    if np.isnan(hours):
        return "meter moves again after it stood still: what it counted belongs to the time before"
    energy = reading["power_kw"] * hours
    return f"meter right again: {energy:.1f} kWh in the last {hours:.1f} h"


def _stuck_reason(reading: Any, _: MeterSettings) -> str:
    return f"meter stuck: no change for {reading['flat_hours']:.1f} h"


def _reset_reason(reading: Any, _: MeterSettings) -> str:
    return f"meter reset: the counter fell by {-reading['change']:.3f} kWh"


def _contradicted_reason(reading: Any, meter: MeterSettings) -> str:
    read = f"{reading['reading']:.{_DECIMALS.get(meter.unit, 3)}f} {meter.unit}"
    return f"meter wrong: it read {read}, which later readings contradict"


_DECIMALS = {"MWh": 6, "Wh": 0}
_REASONS: dict[Quality, Callable[[Any, MeterSettings], str]] = {
    Quality.STUCK: _stuck_reason,
    Quality.RESET: _reset_reason,
    Quality.IMPOSSIBLE: _impossible_reason,
    Quality.CATCH_UP: _catch_up_reason,
    Quality.CONTRADICTED: _contradicted_reason,
}


def _equals_row_before(measured: pd.DataFrame) -> Bools:
    """Whether each reading equals the machine's reading right before, and that row is here."""
    since: Bools = measured["still"].to_numpy() & ~is_first(measured)
    return since


def _course_of_counters(
    measured: pd.DataFrame, quality: Ints, most_kw: Floats, meter: MeterSettings
) -> tuple[Ints, Course]:
    """Rows of the readings that are not garbage, and the `Course` in which to find breaks."""
    reading = measured["reading"].to_numpy(float)
    rows = np.flatnonzero(is_sane(reading, meter.change_scale))
    reading = in_kwh(reading, meter)
    # A gap longer than ``max_gap_days`` begins a new lane: nothing is compared across it.
    lane = np.cumsum(is_first(measured) | np.isnan(measured["step_hours"].to_numpy()))
    course = Course(
        lane=lane[rows],
        ticks=microseconds(measured["utc_timestamp"])[rows],
        reading=reading[rows],
        tolerance=fall_tolerance(reading[rows], meter),
        most_kw=most_kw[rows],
        rolls=(quality == Quality.ROLLOVER)[rows],
        interval=meter.interval // timedelta(microseconds=1),
        restarts=meter.restarts_daily,
    )
    return rows, course


def _is_hardly_flat(
    profiles: pd.DataFrame, place: npt.NDArray[np.intp], meter: MeterSettings
) -> Bools:
    hardly: Bools = values_at(profiles["flat_share"], place) <= meter.stuck_flat_share
    return hardly


def _is_flat_too_long(
    flat_hours: Floats, profiles: pd.DataFrame, place: npt.NDArray[np.intp], meter: MeterSettings
) -> Bools:
    """Whether a machine that hardly ever stands still has been flat for too long."""
    # Two intervals at least: at long intervals one equal reading alone is longer than the hours.
    margin = max(meter.stuck_margin_hours, 2 * meter.interval_minutes / 60)
    most = max(MOST_FLAT_HOURS, 2 * meter.interval_minutes / 60)
    limit = np.minimum(values_at(profiles["longest_flat_hours"], place) + margin, most)
    too_long: Bools = _is_hardly_flat(profiles, place, meter) & (flat_hours > limit)
    return too_long


def _is_after_long_stop(
    measured: pd.DataFrame,
    profiles: pd.DataFrame,
    place: npt.NDArray[np.intp],
    meter: MeterSettings,
) -> Bools:
    """Whether the machine's reading before was stuck and this reading has changed."""
    flat = measured["flat_hours"].to_numpy()
    stuck = _is_flat_too_long(flat, profiles, place, meter)
    still = measured["still"].to_numpy()
    begins = is_first(measured) | np.isnan(measured["step_hours"].to_numpy())
    after: Bools = np.append(False, stuck[:-1]) & ~still & ~begins
    return after


def _is_flat_since_break(measured: pd.DataFrame) -> Bools:
    """Whether the meter has not moved since a reset or an impossible reading.

    A break longer ago than `REACH` does not count. So the result does not depend on where a
    window starts.
    """
    quality, still = measured["quality"].to_numpy(), _equals_row_before(measured)
    ticks = microseconds(measured["utc_timestamp"])
    start = run_starts(still)
    broken = np.isin(quality[start], [Quality.RESET, Quality.IMPOSSIBLE]) if len(start) else still
    step = measured["step_hours"].to_numpy()[start]
    since = (ticks - ticks[start]) / MICROSECONDS_PER_HOUR + step
    found: Bools = still & broken & (since <= REACH / timedelta(hours=1))
    return found
