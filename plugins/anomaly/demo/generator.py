"""Generate readings of an invented small plant: seeded, repeatable, with known faults.

Every power is a function of the seed and the moment. So extending a range by a quarter-hour only
appends to it. Counters begin to count at the start of the range.

The powers, hours and shares below are chosen.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import IntEnum
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly.arrays import Floats
from anomaly.readings.record import METERS, RECORD
from anomaly.windows import Window, ceil_to_interval

ZONE = ZoneInfo("Europe/Berlin")
INTERVAL = timedelta(minutes=15)
PER_DAY = 96
MISSING_SHARE = 0.001


class _Stream(IntEnum):
    """Purposes of random numbers; streams of different purposes never share numbers."""

    COUNTERS = 0
    QUARTER_HOURS = 1
    DAYS = 2
    FAULTS = 3


@dataclass(frozen=True)
class Fault:
    """A fault in ``[start, end)``.

    Attributes
    ----------
    machine : str
        Column of the machine.
    kind : str
        ``spike``, ``stuck``, ``overload``, ``night_run_on``, ``missed_cycle``,
        ``counter_reset`` or ``dropout``.
    start, end : datetime
        UTC, on quarter-hours. For a stuck meter, the reading that catches up is included.
    description : str
        One sentence for people.
    """

    machine: str
    kind: str
    start: datetime
    end: datetime
    description: str


@dataclass(frozen=True)
class GeneratedReadings:
    """The result of `generate`.

    Attributes
    ----------
    frame : DataFrame
        The wide record, one row per quarter-hour.
    faults : list of Fault
        The faults with a reading in the range, in the order of their start.
    """

    frame: pd.DataFrame
    faults: list[Fault]


def generate(
    start: datetime, end: datetime, *, seed: int = 7, faults: bool = True
) -> GeneratedReadings:
    """Generate the readings of every quarter-hour that starts in ``[start, end)``.

    Parameters
    ----------
    start, end : datetime
        With a time zone. The counters begin at `start`. With the same `start`, a later
        `end` only appends rows.
    seed : int
        Another seed gives another plant. Not negative.
    faults : bool
        Add two or three faults per week, at moments that depend only on seed and week.

    Returns
    -------
    GeneratedReadings
        `frame` has the columns of `anomaly.readings.record.RECORD`: ``utc_timestamp``
        (``datetime64[us, UTC]``, start of the interval), ``cet_cest_timestamp``
        (text) and 20 cumulative counters in kWh (resolution 0.001). One cell in a
        thousand is missing.

    Raises
    ------
    WindowError
        When `start` or `end` has no time zone or no quarter-hour lies between them.
    """
    asked = Window(start, end)
    span = Window(*(ceil_to_interval(moment, INTERVAL) for moment in (asked.start, asked.end)))
    plant = _Plant(pd.date_range(span.start, span.end, freq=INTERVAL, inclusive="left"), seed)
    known = _faults_between(span, seed) if faults else []
    power = _power(plant, known)
    counters = {meter: _counter(meter, power[meter], seed) for meter in METERS}
    for fault in known:
        _disturb_meter(counters[fault.machine], fault, plant)
    return GeneratedReadings(_frame(plant, counters), known)


# The plant's calendar and chance ----------------------------------------

_DAY_DRAWS = (
    "early_runs", "early_start", "early_end", "late_runs", "late_start", "late_end", "level",
    "cloud", "warmth", "ev_charges", "ev_start", "ev_hours", "dishes", "busy",
)  # fmt: skip


class _Plant:
    """The calendar of the plant: its quarter-hours, with a set of random numbers for each."""

    def __init__(self, moments: pd.DatetimeIndex, seed: int) -> None:
        self.moments = moments.as_unit("us")
        self.seed = seed
        self.local = self.moments.tz_convert(ZONE)
        self.hour: Floats = np.asarray(self.local.hour + self.local.minute / 60, dtype=float)
        self.weekday = np.asarray(self.local.day_of_week)
        self.working = self.weekday < 5
        self.normal, self.uniform, self.missing = self._chance_of_quarter_hours()

    @cached_property
    def day(self) -> dict[str, Floats]:
        """Random numbers, 0 to 1, of each quarter-hour's local day, by name."""
        ordinals = _ordinals(self.local.tz_localize(None))
        first = int(ordinals[0])
        table = np.array([_day_draws(self.seed, n) for n in range(first, int(ordinals[-1]) + 1)])
        return dict(zip(_DAY_DRAWS, table[ordinals - first].T, strict=True))

    def place(self, fault: Fault) -> slice:
        """The quarter-hours that a fault covers."""
        first, last = ((t - self.moments[0]) // INTERVAL for t in (fault.start, fault.end))
        return slice(max(first, 0), max(last, 0))

    def within(self, start: float | Floats, end: float | Floats) -> Floats:
        """Share of each quarter-hour between two local hours of its day."""
        overlap = np.minimum(end, self.hour + 0.25) - np.maximum(start, self.hour)
        share: Floats = np.clip(overlap, 0.0, 0.25) / 0.25
        return share

    def _chance_of_quarter_hours(self) -> tuple[dict[str, Floats], dict[str, Floats], Floats]:
        ordinals = _ordinals(self.moments.tz_localize(None))
        first = int(ordinals[0])
        shape = (PER_DAY, len(METERS))
        normal, uniform = [], []
        for day in range(first, int(ordinals[-1]) + 1):
            random = np.random.default_rng([self.seed, _Stream.QUARTER_HOURS, day])
            normal.append(random.standard_normal(shape))
            uniform.append(random.random((2, *shape)))
        begin = self.moments[0].hour * 4 + self.moments[0].minute // 15
        part = slice(begin, begin + len(self.moments))
        bursts, missing = np.concatenate(uniform, axis=1)[:, part]
        return _by_meter(np.concatenate(normal)[part]), _by_meter(bursts), missing


def _ordinals(wall_clock: pd.DatetimeIndex) -> npt.NDArray[np.int64]:
    """Number of each moment's day, counted as `datetime.date` counts."""
    days = wall_clock.to_numpy().astype("datetime64[D]").astype(np.int64)
    return np.asarray(days + date(1970, 1, 1).toordinal())


def _day_draws(seed: int, ordinal: int) -> Floats:
    random = np.random.default_rng([seed, _Stream.DAYS, ordinal])
    return random.random(len(_DAY_DRAWS))


def _by_meter(columns: Floats) -> dict[str, Floats]:
    return dict(zip(METERS, columns.T, strict=True))


# What each meter measures, in kW ----------------------------------------


def _power(plant: _Plant, faults: list[Fault]) -> dict[str, Floats]:
    power = {meter: np.clip(model(plant), 0.0, None) for meter, model in _MODELS.items()}
    for fault in faults:
        _disturb_power(power[fault.machine], fault, plant)
    used = sum(power[meter] for meter in _MODELS if not meter.startswith("pv_"))
    power["grid_import"] = np.maximum(used - power["pv_roof"] - power["pv_facade"], 0.0)
    return power


def _machine_1(plant: _Plant) -> Floats:
    """On during the shifts of working days, else off; a peak when it is switched on."""
    idle = 0.28 + 0.05 * plant.normal["machine_1"]
    runs, peak = np.zeros_like(idle), np.zeros_like(idle)
    for shift in ("early", "late"):
        start, end = _shift(plant.day, shift)
        on = plant.working & _runs(plant.day, shift)
        runs += on * plant.within(start, end)
        peak += on * plant.within(start, start + 0.3)
    level = 29.0 + 3.5 * plant.day["level"] + 0.9 * plant.normal["machine_1"]
    return idle + runs * level + peak * 9.0 * plant.uniform["machine_1"]


def _shift(day: dict[str, Any], shift: str) -> tuple[Any, Any]:
    """Local hours between which machine 1 runs in a shift."""
    first, last = (6.0, 13.4) if shift == "early" else (14.3, 20.6)
    return first + 0.8 * day[f"{shift}_start"], last + 0.8 * day[f"{shift}_end"]


def _runs(day: dict[str, Any], shift: str) -> Any:
    return day[f"{shift}_runs"] < (0.8 if shift == "early" else 0.6)


def _machine_2(plant: _Plant) -> Floats:
    """A steady base power, with bursts in working hours and short dips."""
    base = 9.25 + 0.06 * plant.normal["machine_2"]
    often = 0.14 * plant.working * plant.within(8, 20)
    dips = 3.1 * (plant.uniform["machine_2"] > 0.965)
    return base + _bursts(plant.uniform["machine_2"], often, 2.6, 20.0) - dips


def _machine_3(plant: _Plant) -> Floats:
    """A higher base power; the busiest days are Wednesday and Thursday."""
    base = 16.1 + 0.14 * plant.normal["machine_3"]
    of_weekday = np.array([0.12, 0.16, 0.26, 0.32, 0.10, 0.0, 0.0])[plant.weekday]
    often = of_weekday * plant.within(9, 18)
    return base + _bursts(plant.uniform["machine_3"], often, 4.5, 25.0)


def _machine_4(plant: _Plant) -> Floats:
    """Nearly always off; it works on every second Monday and Tuesday."""
    standby = 0.04 * (plant.uniform["machine_4"] < 0.35)
    fortnight = _ordinals(plant.local.tz_localize(None)) // 7 % 2 == 0
    monday = (plant.weekday == 0) * plant.within(11, 23)
    tuesday = (plant.weekday == 1) * plant.within(14, 18)
    power: Floats = standby + fortnight * (0.9 * monday + 2.9 * tuesday)
    return power


def _bursts(uniform: Floats, often: Floats, mean: float, most: float) -> Floats:
    """Extra power in a share `often` of the quarter-hours.

    It is exponentially distributed, `mean` kW on average and `most` kW at most.
    """
    hit = uniform < often
    share = np.where(hit, uniform / np.where(hit, often, 1.0), 1.0)
    return np.minimum(-mean * np.log(np.maximum(share, 1e-12)), most)


def _staff(plant: _Plant) -> Floats:
    """Share of the staff that is present: two shifts on working days."""
    return plant.working * (plant.within(6, 14) + 0.6 * plant.within(14, 22))


def _following_staff(meter: str, idle: float, busy: float) -> Callable[[_Plant], Floats]:
    """A meter that draws `idle` kW, and up to `busy` kW more while the staff is present."""

    def model(plant: _Plant) -> Floats:
        today = 0.85 + 0.3 * plant.day["busy"]
        return (idle + busy * today * _staff(plant)) * (1 + 0.08 * plant.normal[meter])

    return model


def _offices(plant: _Plant) -> Floats:
    hours = plant.working * plant.within(7.5, 17.5)
    return 0.8 + 2.6 * hours * (1 + 0.1 * plant.normal["area_offices"])


def _warmth(plant: _Plant) -> Floats:
    """Outdoor temperature in degrees Celsius: season, time of day, weather."""
    season = -np.cos(2 * np.pi * (np.asarray(plant.local.day_of_year) - 20) / 365.25)
    daily = np.cos(2 * np.pi * (plant.hour - 15) / 24)
    celsius: Floats = 10 + 9 * season + 4 * daily + 8 * (plant.day["warmth"] - 0.5)
    return celsius


def _cooling_aggregate(plant: _Plant) -> Floats:
    warm = np.clip(_warmth(plant) - 8, 0.0, None)
    noise = 1 + 0.1 * plant.normal["cooling_aggregate"]
    return (0.3 + 0.25 * warm * (0.3 + 0.7 * _staff(plant))) * noise


def _dishwasher(plant: _Plant) -> Floats:
    start = 13.0 + plant.day["dishes"]
    return 0.02 + 1.9 * plant.working * plant.within(start, start + 1.25)


def _ev(plant: _Plant) -> Floats:
    """A car that charges in the evening, on most working days and some other days."""
    charges = plant.day["ev_charges"] < np.where(plant.working, 0.65, 0.25)
    start = 16.5 + 3 * plant.day["ev_start"]
    return charges * 7.4 * plant.within(start, start + 1 + 2.5 * plant.day["ev_hours"])


def _photovoltaics(meter: str, peak: float) -> Callable[[_Plant], Floats]:
    """Solar panels on the roof (flat) or on the facade (upright, facing south)."""

    def model(plant: _Plant) -> Floats:
        height, south = _sun(plant)
        facing = height if meter == "pv_roof" else np.clip(south, 0.0, None) * (height > 0)
        clear = 0.12 + 0.88 * plant.day["cloud"] ** 0.7
        return peak * facing * clear * (1 - 0.3 * plant.uniform[meter])

    return model


def _sun(plant: _Plant) -> tuple[Floats, Floats]:
    """Upward (0 at night) and southward part of the direction to the sun, in Konstanz."""
    latitude, longitude = math.radians(47.7), 9.2
    # 0.125 h: the middle of the quarter-hour. 23.44 degrees: the tilt of the earth's axis.
    utc_hour = np.asarray(plant.moments.hour + plant.moments.minute / 60 + 0.125, dtype=float)
    turn = np.radians((utc_hour + longitude / 15 - 12) * 15)
    season = 2 * np.pi * (np.asarray(plant.moments.day_of_year) + 10) / 365.25
    tilt = -math.radians(23.44) * np.cos(season)
    up = math.sin(latitude) * np.sin(tilt) + math.cos(latitude) * np.cos(tilt) * np.cos(turn)
    south = math.sin(latitude) * np.cos(tilt) * np.cos(turn) - math.cos(latitude) * np.sin(tilt)
    return np.clip(up, 0.0, None), south


_MODELS: dict[str, Callable[[_Plant], Floats]] = {
    "area_offices": _offices,
    "area_room_1": _following_staff("area_room_1", 0.25, 0.9),
    "area_room_2": _following_staff("area_room_2", 0.20, 0.6),
    "area_room_3": _following_staff("area_room_3", 0.35, 1.4),
    "area_room_4": _following_staff("area_room_4", 0.15, 0.5),
    "compressor": _following_staff("compressor", 0.4, 6.0),
    "cooling_aggregate": _cooling_aggregate,
    "cooling_pumps": _following_staff("cooling_pumps", 0.3, 0.9),
    "dishwasher": _dishwasher,
    "ev": _ev,
    "machine_1": _machine_1,
    "machine_2": _machine_2,
    "machine_3": _machine_3,
    "machine_4": _machine_4,
    "machine_5": lambda plant: np.zeros_like(plant.hour),
    "pv_facade": _photovoltaics("pv_facade", 5.0),
    "pv_roof": _photovoltaics("pv_roof", 14.0),
    "refrigerator": _following_staff("refrigerator", 0.13, 0.05),
    "ventilation": _following_staff("ventilation", 0.6, 2.2),
}


# From power to counters -------------------------------------------------

_KWH_PER_PULSE = {"machine_1": 1 / 64, "machine_2": 1 / 32, "machine_3": 1 / 16}


def _counter(meter: str, power: Floats, seed: int) -> Floats:
    """Cumulative kWh at the end of each quarter-hour, rounded down to the meter's pulses."""
    random = np.random.default_rng([seed, _Stream.COUNTERS, METERS.index(meter)])
    before = round(float(random.uniform(1_000, 200_000)), 3)
    energy = np.cumsum(power * 0.25)
    pulse = _KWH_PER_PULSE.get(meter, 0.001)
    return before + np.floor(energy / pulse) * pulse


def _frame(plant: _Plant, counters: dict[str, Floats]) -> pd.DataFrame:
    frame = pd.DataFrame(counters)[list(METERS)].round(3)
    frame = frame.mask(plant.missing < MISSING_SHARE)
    frame.insert(0, "utc_timestamp", plant.moments)
    frame.insert(1, "cet_cest_timestamp", plant.local.strftime("%Y-%m-%dT%H:%M:%S%z"))
    return frame[list(RECORD)]


# Faults -----------------------------------------------------------------

_COMMON = ("spike", "stuck", "overload", "night_run_on", "missed_cycle", "dropout")
_USUAL_KW = {"machine_1": 30.0, "machine_2": 9.25, "machine_3": 16.1}


def _disturb_power(power: Floats, fault: Fault, plant: _Plant) -> None:
    """Apply a fault that changes the machine's real power."""
    place = plant.place(fault)
    usual = _USUAL_KW[fault.machine]
    if fault.kind == "spike":
        power[place] += usual * (2.5 + _strength(fault, plant))
    elif fault.kind == "overload":
        power[place] *= 1.3 + 0.3 * _strength(fault, plant)
    elif fault.kind == "night_run_on":
        power[place] = usual + 0.9 * plant.normal[fault.machine][place]
    elif fault.kind == "missed_cycle":
        power[place] = 0.28 + 0.05 * plant.normal[fault.machine][place]


def _disturb_meter(counter: Floats, fault: Fault, plant: _Plant) -> None:
    """Apply a fault that changes only what the meter shows."""
    place = plant.place(fault)
    if fault.kind == "stuck":
        counter[place.start : place.stop - 1] = counter[max(place.start - 1, 0)]
    elif fault.kind == "counter_reset":
        counter[place.start :] -= counter[max(place.start - 1, 0)]
    elif fault.kind == "dropout":
        counter[place] = np.nan


def _strength(fault: Fault, plant: _Plant) -> float:
    """How strong a fault is, 0 to 1: random, but always the same for the same fault."""
    seed = [plant.seed, _Stream.FAULTS, int(fault.start.timestamp())]
    return float(np.random.default_rng(seed).random())


def _faults_between(span: Window, seed: int) -> list[Fault]:
    """The faults with a reading in `span`."""
    day = span.start.astimezone(ZONE).date() - timedelta(days=1)
    monday = day - timedelta(days=day.weekday())
    found: list[Fault] = []
    while monday <= span.end.astimezone(ZONE).date():
        found += _faults_of_week(monday, seed)
        monday += timedelta(weeks=1)
    return [fault for fault in found if fault.start < span.end and fault.end > span.start]


def _faults_of_week(monday: date, seed: int) -> list[Fault]:
    """Two or three faults of different kinds, each on another day, never on Sunday."""
    random = np.random.default_rng([seed, _Stream.FAULTS, monday.toordinal()])
    days = [monday + timedelta(days=int(n)) for n in random.permutation(6)]
    faults = []
    for kind in _kinds_of_week(monday, seed, random):
        day = next((day for day in days if _suits(kind, day, seed)), None)
        if day:
            days.remove(day)
            faults.append(_fault(kind, day, random))
    return sorted(faults, key=lambda fault: fault.start)


def _kinds_of_week(monday: date, seed: int, random: np.random.Generator) -> list[str]:
    """Two common kinds, so that three weeks have all six; sometimes a third kind or a reset."""
    turn, week = divmod(monday.toordinal() // 7, 3)
    order = np.random.default_rng([seed, _Stream.FAULTS, turn]).permutation(_COMMON)
    kinds = [str(kind) for kind in order[2 * week : 2 * week + 2]]
    if (chance := random.random()) < 0.1:
        kinds.append("counter_reset")
    elif chance < 0.5:
        kinds.append(str(order[2 * week - 1]))
    return kinds


def _suits(kind: str, day: date, seed: int) -> bool:
    """Whether a kind of fault can happen on a day: some need machine 1 to run on it."""
    if kind not in ("night_run_on", "missed_cycle"):
        return True
    draws = dict(zip(_DAY_DRAWS, _day_draws(seed, day.toordinal()), strict=True))
    shifts = ("late",) if kind == "night_run_on" else ("early", "late")
    return day.weekday() < 5 and all(_runs(draws, shift) for shift in shifts)


def _fault(kind: str, day: date, random: np.random.Generator) -> Fault:
    """Place a fault on a local day."""
    machine, first, hours, says = _PLANS[kind](random)
    begin = datetime.combine(day, time(first // 4, first % 4 * 15), ZONE).astimezone(UTC)
    return Fault(machine, kind, begin, begin + timedelta(hours=hours), says)


def _steady(random: np.random.Generator) -> str:
    """A machine that never stands still: only for such machines a flat reading is a fault."""
    return str(random.choice(["machine_2", "machine_3"]))


def _plan_spike(random: np.random.Generator) -> tuple[str, int, float, str]:
    machine = str(random.choice(["machine_1", "machine_2", "machine_3"]))
    return machine, _quarter(random, 6, 18), 0.25, f"{machine} draws a multiple once"


def _plan_stuck(random: np.random.Generator) -> tuple[str, int, float, str]:
    machine, hours = _steady(random), int(random.integers(5, 12))
    says = f"the meter of {machine} stands still for {hours} h, then catches up"
    return machine, _quarter(random, 6, 18), hours + 0.25, says


def _plan_overload(random: np.random.Generator) -> tuple[str, int, float, str]:
    machine, hours = _steady(random), int(random.integers(4, 11))
    says = f"{machine} draws a third more than usual for {hours} h"
    return machine, _quarter(random, 6, 18), float(hours), says


def _plan_night_run_on(random: np.random.Generator) -> tuple[str, int, float, str]:
    hours = float(random.integers(4, 8))
    return "machine_1", 21 * 4, hours, f"machine_1 runs on for {hours:.0f} h after the late shift"


def _plan_missed_cycle(random: np.random.Generator) -> tuple[str, int, float, str]:
    return "machine_1", 6 * 4, 16.0, "machine_1 stays off through both shifts of a working day"


def _plan_counter_reset(random: np.random.Generator) -> tuple[str, int, float, str]:
    machine = _steady(random)
    says = f"the counter of {machine} begins again at 0"
    return machine, _quarter(random, 6, 18), 0.25, says


def _plan_dropout(random: np.random.Generator) -> tuple[str, int, float, str]:
    machine = str(random.choice(["machine_1", "machine_2", "machine_3"]))
    hours = float(random.integers(2, 9))
    return machine, _quarter(random, 6, 18), hours, f"{machine} has no readings for {hours:.0f} h"


def _quarter(random: np.random.Generator, first_hour: int, last_hour: int) -> int:
    """A random quarter-hour of the day, counted from midnight."""
    return int(random.integers(first_hour * 4, last_hour * 4))


_PLANS: dict[str, Callable[[np.random.Generator], tuple[str, int, float, str]]] = {
    "spike": _plan_spike,
    "stuck": _plan_stuck,
    "overload": _plan_overload,
    "night_run_on": _plan_night_run_on,
    "missed_cycle": _plan_missed_cycle,
    "counter_reset": _plan_counter_reset,
    "dropout": _plan_dropout,
}
