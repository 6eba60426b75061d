"""Meter reality: power, flat runs, and what is to be known about each reading.

A counter that falls, freezes or jumps beyond what its machine can draw is a fault of the meter,
not of the machine. `measure` needs the readings alone; `in_hindsight` adds what training and the
readings that follow say of them; `judge` gives each reading its quality. All of it depends on a
reading, its predecessors and at most the `REACH` before and after it, never on where a window
starts.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.contradictions import REACH, Course, find_breaks, settle_breaks
from anomaly.schema import QUALITY_NAMES, Quality
from anomaly.settings import ReadingKind, Settings
from anomaly.steps import MOST_READING, microseconds, too_close

MOST_FLAT_HOURS = 12.0
"""On a machine that hardly ever stands still, flat for longer is stuck, whatever training saw:
a meter that froze then must not excuse it now."""

LEAP = 1.5
"""A rise is a leap beyond so many times the most that the machine drew in training: less is news
about the machine (half or twice its usual power), more is news about the meter."""

ABSURD = 10.0
"""More than so many times the most that any machine drew in training is no machine's power."""

_LEAST_FALL = 2.0**-23  # of the reading: what is left of a number in single precision
_NOISE = 1e-12  # of the reading: sums of double precision differ by less
_OUTLIERS = 0.995  # of positive powers, to tell what of a training is no power at all
_MICROSECONDS_PER_HOUR = 3_600_000_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Columns = dict[str, npt.NDArray[Any]]


def measure(readings: pd.DataFrame, machines: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Add what can be measured on a reading without a model.

    Parameters
    ----------
    readings : DataFrame
        Output of the seventh step: sorted by machine and time, with
        ``elapsed_hours``, ``change`` and ``power_diff``.
    machines : DataFrame
        ``machine_id``, ``max_power_kw`` and ``rolls_over_at`` (NaN: unknown).

    Returns
    -------
    DataFrame
        `readings` with ``power_kw`` (NaN for the first and after a reset),
        ``step_hours`` (since the machine's reading right before; NaN where there is none that
        counts), ``still`` (whether the reading is equal to that one), ``tells`` (False: it came
        so soon after that one that it says nothing new), ``flat_hours`` (how long the reading
        has not changed, at most `REACH`), ``max_power_kw`` and ``quality`` (`Quality`, before
        a model has spoken).
    """
    place = _places(pd.Index(machines["machine_id"]), readings)
    most_kw = _taken(machines["max_power_kw"], place)
    step = _step_hours(readings, settings)
    columns: Columns = {"max_power_kw": most_kw, "step_hours": step}
    columns["tells"] = _tells(readings, step, settings)
    columns["still"] = _still(readings, step, settings)
    columns["flat_hours"] = _flat_hours(readings, columns["still"], REACH)
    if settings.reading_kind is ReadingKind.ENERGY_KWH:
        rolls_over_at = _taken(machines["rolls_over_at"], place)
        columns |= _counters(readings, rolls_over_at, most_kw, settings)
    else:
        columns |= _watts(readings)
    marks = _marks(readings, columns, settings)
    columns["quality"] = _worst(columns["quality"], marks)
    return readings.assign(**columns)


class Limits(NamedTuple):
    """What machines can draw, by what training saw of them.

    Attributes
    ----------
    leap_kw : array, shape (machine + 1,)
        Power above which a rise of a counter is a leap; the last is for machines that
        training did not see. NaN where nothing is known.
    absurd_kw : float
        Power that no machine draws; NaN where nothing is known.
    """

    leap_kw: Floats
    absurd_kw: float

    @classmethod
    def of(cls, profiles: pd.DataFrame) -> "Limits":
        """Read them off `profile`'s table; one that never ran may draw what the others do."""
        highest = profiles["highest_kw"].to_numpy(float)
        most = float(np.fmax.reduce(highest, initial=0.0))
        if not most > 0:
            return cls(np.full(len(highest) + 1, np.nan), np.nan)
        own = LEAP * np.where(highest > 0, highest, np.where(np.isnan(highest), np.nan, most))
        return cls(np.append(own, ABSURD * most), ABSURD * most)


def in_hindsight(
    measured: pd.DataFrame, profiles: pd.DataFrame, settings: Settings, *, later: bool = True
) -> pd.DataFrame:
    """Look at measured readings again, knowing what machines draw and what came after.

    A counter's reading that the following ones contradict has no power; one that comes back
    from such readings, or catches up, has the mean power since the last reading that counts.

    Parameters
    ----------
    profiles : DataFrame
        As `profile` made it, indexed by ``machine_id``.
    later : bool
        False: each reading as it is told at once, before later ones may contradict it.

    Returns
    -------
    DataFrame
        `measured` with ``quality``, ``power_kw`` and ``power_diff`` of what was found, and
        ``follows_hours`` (how far back the reading that a catch-up follows; else NaN).
    """
    limits = Limits.of(profiles)
    place = _places(profiles.index, measured)
    declared = measured["max_power_kw"].to_numpy()
    most_kw = np.where(np.isnan(declared), limits.leap_kw[place], declared)
    seen = _Seen(measured)
    rolled = (seen.quality == Quality.ROLLOVER) & np.isnan(declared)
    seen.mark(rolled & (seen.power_kw > most_kw), Quality.RESET, np.nan)
    absurd = np.abs(seen.power_kw) > limits.absurd_kw
    seen.quality[absurd] = np.maximum(seen.quality[absurd], Quality.IMPOSSIBLE)
    if settings.reading_kind is ReadingKind.ENERGY_KWH and len(measured):
        _look_for_contradictions(seen, most_kw, profiles, place, settings, later=later)
    return seen.frame()


class _Seen:
    """Measured readings, of which some are seen in another light."""

    def __init__(self, measured: pd.DataFrame) -> None:
        self.measured = measured
        self.quality: Ints = measured["quality"].to_numpy().astype(np.int64)
        self.power_kw: Floats = measured["power_kw"].to_numpy().copy()
        self.power_diff: Floats = measured["power_diff"].to_numpy().copy()
        self.follows_hours: Floats = np.full(len(measured), np.nan)

    def mark(self, rows: Ints | Bools, quality: Quality, power_kw: float | Floats) -> None:
        """Give counter readings a quality and a power."""
        self.quality[rows] = quality
        self.power_kw[rows] = power_kw
        self.power_diff[rows] = power_kw

    def frame(self) -> pd.DataFrame:
        """The readings as they are seen now."""
        names = ("quality", "power_kw", "power_diff", "follows_hours")
        return self.measured.assign(**{name: getattr(self, name) for name in names})


def _look_for_contradictions(
    seen: _Seen,
    most_kw: Floats,
    profiles: pd.DataFrame,
    place: npt.NDArray[np.intp],
    settings: Settings,
    *,
    later: bool,
) -> None:
    """Mark what breaks, and what settles it, say of a counter's readings."""
    rows, course = _course(seen.measured, seen.quality, most_kw, settings)
    breaks = find_breaks(course)
    if not breaks.any.any():
        return
    run_start = np.searchsorted(rows, _run_starts(_still_since(seen.measured))[rows])
    settled = settle_breaks(course, breaks, run_start)
    stopped = _after_long_stop(seen.measured, profiles, place, settings)[rows] & breaks.leaps
    seen.mark(rows[stopped | settled.moves_again], Quality.CATCH_UP, np.nan)
    back = np.flatnonzero(settled.follows >= 0)
    before = settled.follows[back]
    hours = (course.ticks[back] - course.ticks[before]) / _MICROSECONDS_PER_HOUR
    power_kw = (course.reading[back] - course.reading[before]) / hours
    seen.mark(rows[back], Quality.CATCH_UP, power_kw)
    seen.follows_hours[rows[back]] = hours
    if later:
        seen.mark(rows[settled.contradicted], Quality.CONTRADICTED, np.nan)


def judge_at_once(measured: pd.DataFrame, profiles: pd.DataFrame, settings: Settings) -> Ints:
    """Quality of each reading as it is told live: later readings have not contradicted it yet.

    Otherwise as `judge`.
    """
    at_once = in_hindsight(measured, profiles, settings, later=False)
    return judge(at_once, profiles, settings)


def judge(measured: pd.DataFrame, profiles: pd.DataFrame, settings: Settings) -> Ints:
    """Quality of each reading in the light of what training saw of its machine.

    Parameters
    ----------
    measured : DataFrame
        As `measure` or `in_hindsight` gives it.
    profiles : DataFrame
        As `profile` made it, indexed by ``machine_id``.

    Returns
    -------
    array of int
        `Quality`; a machine that training did not see is ``LEARNING``.
    """
    if "follows_hours" not in measured:
        measured = in_hindsight(measured, profiles, settings)
    place = _places(profiles.index, measured)
    learning = np.isnan(_taken(profiles["readings"], place))
    stuck = _flat_too_long(measured["flat_hours"].to_numpy(), profiles, place, settings)
    stuck |= _flat_since_break(measured, settings) & _hardly_flat(profiles, place, settings)
    return _worst(
        measured["quality"].to_numpy(),
        np.select([stuck, learning], [Quality.STUCK, Quality.LEARNING], Quality.OK),
    )


def profile(measured: pd.DataFrame) -> pd.DataFrame:
    """What training remembers of each machine, for `in_hindsight` and `judge`.

    Returns
    -------
    DataFrame
        Indexed by ``machine_id``: ``readings`` (count), ``longest_flat_hours``, ``flat_share``
        (share of readings equal to their predecessor) and ``highest_kw`` (the most it drew but
        for outliers; 0 where it never did).
    """
    still = measured["still"].to_numpy()
    hours = _flat_hours(measured, _still_since(measured), longest=None)
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


def explain_faults(measured: pd.DataFrame, quality: Ints) -> npt.NDArray[np.object_]:
    """Why a reading is a meter fault, in words; None for all others.

    Parameters
    ----------
    measured : DataFrame
        As `in_hindsight` gives it.
    """
    reasons = np.full(len(measured), None, dtype=object)
    for row in np.flatnonzero(quality >= Quality.STUCK):
        reasons[row] = _FAULTS[Quality(quality[row])](measured.iloc[row])
    return reasons


def _impossible(reading: Any) -> str:
    if not abs(reading["reading"]) <= MOST_READING:
        return f"impossible: the meter reads {reading['reading']:.3g}"
    power, most = reading["power_kw"], reading["max_power_kw"]
    if power > most:
        return f"impossible: {power:.1f} kW, it draws {most:.1f} kW at most"
    return f"impossible: {power:.1f} kW, more than ten times what any machine drew in training"


def _catch_up(reading: Any) -> str:
    hours = reading["follows_hours"]
    if np.isnan(hours):
        return "meter moves again after it stood still: what it counted belongs to the time before"
    energy = reading["power_kw"] * hours
    return f"meter right again: {energy:.1f} kWh in the last {hours:.1f} h"


def _stuck(reading: Any) -> str:
    return f"meter stuck: no change for {reading['flat_hours']:.1f} h"


def _reset(reading: Any) -> str:
    return f"meter reset: the counter fell by {-reading['change']:.3f} kWh"


def _contradicted(reading: Any) -> str:
    return f"meter wrong: it read {reading['reading']:.3f} kWh, which later readings contradict"


_FAULTS: dict[Quality, Callable[[Any], str]] = {
    Quality.STUCK: _stuck,
    Quality.RESET: _reset,
    Quality.IMPOSSIBLE: _impossible,
    Quality.CATCH_UP: _catch_up,
    Quality.CONTRADICTED: _contradicted,
}


def names(quality: Ints) -> "pd.Categorical[Any]":
    """Qualities as the database spells them."""
    return pd.Categorical.from_codes(quality, dtype=pd.CategoricalDtype([*QUALITY_NAMES]))


def _places(index: "pd.Index[Any]", readings: pd.DataFrame) -> npt.NDArray[np.intp]:
    """Place of each reading's machine in an index, -1 where it is not in it."""
    machine = readings["machine_id"].to_numpy()
    begins = np.flatnonzero(np.diff(machine, prepend=np.nan) != 0)
    lengths = np.diff(begins, append=len(machine))
    return np.repeat(index.get_indexer(pd.Index(machine[begins])), lengths)


def _taken(column: pd.Series, place: npt.NDArray[np.intp]) -> Floats:
    """Values at places of a column, NaN where a place is -1."""
    taken: Floats = np.append(column.to_numpy(float), np.nan)[place]
    return taken


# What readings alone say ----------------------------------------------------


def _step_hours(frame: pd.DataFrame, settings: Settings) -> Floats:
    machine, ticks = frame["machine_id"].to_numpy(), microseconds(frame["utc_timestamp"])
    hours = np.diff(ticks, prepend=0) / _MICROSECONDS_PER_HOUR
    first = np.diff(machine, prepend=np.nan) != 0
    return np.where(first | (hours > settings.max_gap_days * 24), np.nan, hours)


def _tells(frame: pd.DataFrame, step: Floats, settings: Settings) -> Bools:
    """Whether a reading tells something new; one of a meter that is always so quick does."""
    least = too_close(settings.interval_minutes) / _MICROSECONDS_PER_HOUR
    repeats: Bools = (step < least) & (frame["elapsed_hours"].to_numpy() > 2 * least)
    return ~repeats


def _still(frame: pd.DataFrame, step: Floats, settings: Settings) -> Bools:
    """Whether each reading is equal to the machine's reading right before."""
    reading = frame["reading"].to_numpy(float)
    with np.errstate(over="ignore"):
        change = np.diff(reading, prepend=np.nan)
    if settings.reading_kind is ReadingKind.ENERGY_KWH:
        change = _without_rounding(change, reading, settings)
    still: Bools = ~np.isnan(step) & (change == 0)
    return still


def _without_rounding(change: Floats, reading: Floats, settings: Settings) -> Floats:
    """Changes of a counter, nought where it fell by less than a meter can tell."""
    small = np.flatnonzero(change <= _NOISE * np.abs(reading))  # hardly any, so looked at alone
    fell = -change[small] <= _tolerance(reading[small], settings)
    without = change.copy()
    without[small[fell | (change[small] > 0)]] = 0.0
    return without


def _tolerance(reading: Floats, settings: Settings) -> Floats:
    """By how much a counter may fall without having fallen, kWh."""
    return np.maximum(settings.meter_resolution_kwh, _LEAST_FALL * np.abs(reading))


def _counters(
    frame: pd.DataFrame, rolls_over_at: Floats, most_kw: Floats, settings: Settings
) -> Columns:
    reading = frame["reading"].to_numpy(float)
    change = _without_rounding(frame["change"].to_numpy(), reading, settings)
    hours = frame["elapsed_hours"].to_numpy()
    beyond = change + rolls_over_at
    rolled = (change < 0) & (beyond >= 0) & (beyond <= rolls_over_at / 2)
    rolled &= ~(beyond > most_kw * hours)
    reset = (change < 0) & ~rolled
    with np.errstate(over="ignore"):  # of garbage: it is impossible
        power_diff = np.where(np.isnan(change), 0.0, np.where(rolled, beyond, change) / hours)
    power_diff[reset] = np.nan
    return {
        "change": change,
        "power_diff": power_diff,
        "power_kw": np.where(np.isnan(change), np.nan, power_diff),
        "quality": np.select([reset, rolled], [Quality.RESET, Quality.ROLLOVER], Quality.OK),
    }


def _watts(frame: pd.DataFrame) -> Columns:
    power = np.where(np.isnan(frame["change"].to_numpy()), np.nan, frame["reading"] / 1000)
    return {"power_kw": power, "quality": np.full(len(frame), int(Quality.OK))}


def _marks(frame: pd.DataFrame, columns: Columns, settings: Settings) -> Ints:
    step, interval = columns["step_hours"], settings.interval_minutes / 60
    absurd = ~(np.abs(frame["reading"].to_numpy()) <= MOST_READING)
    return np.select(
        [
            absurd | (columns["power_kw"] > columns["max_power_kw"]),
            np.isnan(frame["elapsed_hours"].to_numpy()),
            frame["duplicate"].to_numpy(),
            step < interval / 3,
            step > 1.5 * interval,
        ],
        [Quality.IMPOSSIBLE, Quality.FIRST, Quality.DUPLICATE, Quality.IRREGULAR, Quality.GAP],
        Quality.OK,
    )


def _worst(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> Ints:
    return np.maximum(one.astype(np.int64), other.astype(np.int64))


def _flat_hours(frame: pd.DataFrame, still: Bools, longest: timedelta | None) -> Floats:
    """Hours since the earliest reading of the unbroken run of equal ones, within `longest`."""
    if frame.empty:
        return np.empty(0)
    ticks = microseconds(frame["utc_timestamp"])
    start = _run_starts(still)
    if longest is not None:
        start = np.maximum(start, earliest_within(frame["machine_id"].to_numpy(), ticks, longest))
    return (ticks - ticks[start]) / _MICROSECONDS_PER_HOUR


def _run_starts(still: Bools) -> Ints:
    """First row of the run of equal readings that each row belongs to."""
    starts: Ints = np.maximum.accumulate(np.where(still, 0, np.arange(len(still))))
    return starts


def _firsts(measured: pd.DataFrame) -> Bools:
    """Whether each reading is the machine's first here; it may have been measured on earlier."""
    firsts: Bools = np.diff(measured["machine_id"].to_numpy(), prepend=np.nan) != 0
    return firsts


def _still_since(measured: pd.DataFrame) -> Bools:
    """Whether each reading is equal to the machine's one right before, and that one is here."""
    since: Bools = measured["still"].to_numpy() & ~_firsts(measured)
    return since


def earliest_within(machine: npt.NDArray[np.generic], ticks: Ints, longest: timedelta) -> Ints:
    """Row of the machine's earliest reading no more than `longest` before each row."""
    if not len(ticks):
        return np.empty(0, dtype=np.int64)
    span = int(longest / timedelta(microseconds=1))
    lane = np.cumsum(np.diff(machine, prepend=machine[0]) != 0)
    keys = lane * (int(np.ptp(ticks)) + span + 1) + (ticks - ticks.min())
    rows: Ints = np.searchsorted(keys, keys - span, side="left")
    return rows


# What training and the following readings say -----------------------------------


def _course(
    measured: pd.DataFrame, quality: Ints, most_kw: Floats, settings: Settings
) -> tuple[Ints, Course]:
    """The readings that are no garbage, as contradictions are looked for in, and their rows."""
    reading = measured["reading"].to_numpy(float)
    rows = np.flatnonzero(np.abs(reading) <= MOST_READING)
    lane = np.cumsum(_firsts(measured) | np.isnan(measured["step_hours"].to_numpy()))
    course = Course(
        lane=lane[rows],
        ticks=microseconds(measured["utc_timestamp"])[rows],
        reading=reading[rows],
        tolerance=_tolerance(reading[rows], settings),
        most_kw=most_kw[rows],
        rolls=(quality == Quality.ROLLOVER)[rows],
        interval=settings.interval // timedelta(microseconds=1),
    )
    return rows, course


def _hardly_flat(profiles: pd.DataFrame, place: npt.NDArray[np.intp], settings: Settings) -> Bools:
    hardly: Bools = _taken(profiles["flat_share"], place) <= settings.stuck_flat_share
    return hardly


def _flat_too_long(
    flat_hours: Floats, profiles: pd.DataFrame, place: npt.NDArray[np.intp], settings: Settings
) -> Bools:
    """Whether machines that hardly ever stand still have done so for too long."""
    margin = max(settings.stuck_margin_hours, 2 * settings.interval_minutes / 60)
    most = max(MOST_FLAT_HOURS, 2 * settings.interval_minutes / 60)
    limit = np.minimum(_taken(profiles["longest_flat_hours"], place) + margin, most)
    too_long: Bools = _hardly_flat(profiles, place, settings) & (flat_hours > limit)
    return too_long


def _after_long_stop(
    measured: pd.DataFrame,
    profiles: pd.DataFrame,
    place: npt.NDArray[np.intp],
    settings: Settings,
) -> Bools:
    """Whether the machine's reading before was stuck and this one is not."""
    flat = measured["flat_hours"].to_numpy()
    stuck = _flat_too_long(flat, profiles, place, settings)
    still = measured["still"].to_numpy()
    begins = _firsts(measured) | np.isnan(measured["step_hours"].to_numpy())
    after: Bools = np.append(False, stuck[:-1]) & ~still & ~begins
    return after


def _flat_since_break(measured: pd.DataFrame, settings: Settings) -> Bools:
    """Whether the meter has not moved since it fell or leapt absurdly: nothing is known since.

    What lies farther back than the reach says nothing, so that no window's start does.
    """
    quality, still = measured["quality"].to_numpy(), _still_since(measured)
    ticks = microseconds(measured["utc_timestamp"])
    start = _run_starts(still)
    broken = np.isin(quality[start], [Quality.RESET, Quality.IMPOSSIBLE]) if len(start) else still
    step = measured["step_hours"].to_numpy()[start]
    since = (ticks - ticks[start]) / _MICROSECONDS_PER_HOUR + step
    found: Bools = still & broken & (since <= REACH / timedelta(hours=1))
    return found
