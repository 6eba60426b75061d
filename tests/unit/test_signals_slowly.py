"""The signals, taken at once from running totals, are those taken one reading after the other."""

from bisect import bisect_left
from datetime import timedelta
from math import asinh, isfinite, log, log1p, nan
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from meters import (
    MONDAY,
    SETTINGS,
    machines,
    measure_readings,
    measured,
    odd_readings,
    shifts,
    steady,
)

from anomaly.detectors.signals.signals import NAMES, Readings, measure_signals
from anomaly.detectors.signals.training import train_signals
from anomaly.readings.quality import Quality

ZONES = {1: "Europe/Berlin", 2: "Asia/Kathmandu"}
HOUR, QUARTER = timedelta(hours=1), timedelta(minutes=15)
LOOKS, OUTLIERS = 16, 2


@pytest.fixture(scope="module")
def usual():
    learnt = measured({1: shifts(21), 2: steady(21)})
    known = machines(1, 2, time_zone=list(ZONES.values()))
    return train_signals(learnt, known, SETTINGS.meter, SETTINGS.training).detector.usual


@pytest.mark.parametrize("seed", range(4))
def test_signals_are_those_of_a_loop_over_the_readings_before_each(usual, seed):
    assert_signals_are_those_of_the_loop(usual, odd_readings(seed))


def test_a_machine_in_shifts_gives_every_signal(usual):
    power = shifts(4, seed=9)
    power[150:160], power[230:260], power[300:330] = 30.0, 0.0, 45.0
    reading = np.round(np.cumsum(power) / 4, 3)
    reading[200:220] = reading[200]
    stamps = pd.date_range(MONDAY, periods=len(power), freq="15min").astype("datetime64[us, UTC]")
    frame = pd.DataFrame({"utc_timestamp": stamps, "machine_id": 1, "reading": reading})
    frame = measure_readings(frame.drop(index=range(170, 174)).assign(duplicate=False))

    found = assert_signals_are_those_of_the_loop(usual, frame)

    told = np.isfinite(found) & (found != 0)
    assert dict(zip(NAMES, told.any(axis=0), strict=True)) == dict.fromkeys(NAMES, True)


def assert_signals_are_those_of_the_loop(usual, frame):
    found = measure_signals(Readings(frame, usual, QUARTER), np.arange(len(frame)))
    expected = []
    for machine_id, mine in frame.groupby("machine_id", sort=False):
        loop = Loop(usual, int(machine_id), mine)
        for row in range(len(mine)):
            signals = loop.signals(row)
            expected.append([signals[name] for name in NAMES])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    return found


class Loop:
    """One machine's readings as plain lists; every signal looks back from one reading."""

    def __init__(self, usual, machine_id, mine):
        place = list(usual.machine_ids).index(machine_id)
        self.times = [stamp.to_pydatetime() for stamp in mine["utc_timestamp"]]
        self.worth = usual.worth_telling[place]
        self.course, self.parts = usual.course[place], usual.course_parts[place]
        self.least, self.limit = usual.least[place], usual.running_above[place]
        self.flat = mine["flat_hours"].tolist()
        broken = (Quality.RESET, Quality.IMPOSSIBLE)
        self.power = [
            nan if quality in broken else power
            for power, quality in zip(mine["power_kw"], mine["quality"], strict=True)
        ]
        self.level, self.weight, self.runs, self.spreads = [], [], [], []
        for time, power in zip(self.times, self.power, strict=True):
            local = time.astimezone(ZoneInfo(ZONES[machine_id]))
            kind, hour = int(local.weekday() >= 5), local.hour
            slots = usual.median.shape[2]
            slot = (hour * 60 + local.minute) * slots // (24 * 60)
            self.level.append(power - usual.median[place, kind, slot])
            self.weight.append(usual.weight[place, kind, hour])
            self.runs.append(usual.usually_runs[place, local.weekday() * 24 + hour])
            self.spreads.append(
                [(usual.lower[k, place, kind, hour], usual.upper[k, place, kind, hour])
                 for k in range(2)]
            )  # fmt: skip

    def signals(self, row):
        level, throughout = self._news(row)
        running = [power if power > self.limit else nan for power in self.power]
        return {
            "level_1h": level,
            "throughout_4h": throughout,
            "power_1h": self._new_power(row),
            "change": asinh(self._change(row) / self.least),
            "shape_6h": self._shape(row),
            "running_4h": self._mean(running, row, 4),
            "run": self._ended(row, running=True),
            "pause": self._ended(row, running=False),
            "idle_6h": log1p(self._idle(row)),
            "flat": log1p(self.flat[row]),
        }

    def first(self, row, hours):
        """The earliest reading no more than so many hours before."""
        return bisect_left(self.times, self.times[row] - hours * HOUR)

    def within(self, row, hours):
        """Readings whose intervals lie wholly in the hours before."""
        return range(self.first(row, hours) + 1, row + 1)

    def elapsed(self, row):
        return (self.times[row] - self.times[row - 1]) / HOUR

    def _mean(self, values, row, hours):
        known = [k for k in self.within(row, hours) if isfinite(values[k])]
        covered = sum(self.elapsed(k) for k in known)
        if covered < hours / 2 - 1e-9:
            return nan
        return sum(values[k] * self.elapsed(k) for k in known) / covered

    def _news(self, row):
        usually, lately = self._deviations(row, 0.0), self._deviations(row, self._before(row))
        worth = (self.worth, 0.0)  # an hour's deviation must be worth telling, a lasting one is
        for one, other, (lower, upper), least in zip(
            usually, lately, self.spreads[row], worth, strict=True
        ):
            if not isfinite(one + other):
                yield nan
                continue
            spreads = [abs(away) / (upper if away > 0 else lower) for away in (one, other)]
            least = max(1.0, least / (upper if other > 0 else lower))
            news = max(min(spreads) - least, 0) if one * other >= 0 else 0
            yield asinh(np.sign(other) * news)

    def _new_power(self, row):
        """The usual power of the hour, and as much of the deviation as half a day ago lacked."""
        usual, away = self._mean(self.power, row, 1), self._mean(self.level, row, 1)
        lately = away - self._before(row)
        news = min(abs(away), abs(lately)) if not away * lately < 0 else 0
        return usual - away + np.sign(lately) * news

    def _shape(self, row):
        """Root mean square of 24 quarter-hours, less what mean course and components explain."""
        begin = row - 23
        if begin < 1 or any(
            not isfinite(self.power[k]) or abs(self.elapsed(k) * 4 - 1) > 0.5
            for k in range(begin, row + 1)
        ):
            return nan
        if abs((self.times[row] - self.times[begin]) / QUARTER - 23) > 0.5:
            return nan
        mean = sum(self.power[row - j] for j in range(24)) / 24
        away = [self.power[row - j] - mean - self.course[j] for j in range(24)]
        shares = [sum(a * w for a, w in zip(away, part, strict=True)) for part in self.parts]
        for share, part in zip(shares, self.parts, strict=True):
            away = [a - share * w for a, w in zip(away, part, strict=True)]
        return log(max((sum(a * a for a in away) / 24) ** 0.5, self.worth / 2) + self.least)

    def _deviations(self, row, level):
        looked = range(max(row - LOOKS + 1, self.first(row, 4) + 1), row + 1)
        levels = sorted(self.level[k] for k in looked if isfinite(self.level[k]))
        cut = len(levels) * OUTLIERS // LOOKS
        held = nan
        if len(levels) > LOOKS / 2:
            low, high = levels[cut] - level, levels[len(levels) - 1 - cut] - level
            held = low if low > 0 else min(high, 0.0)
        return self._mean(self.level, row, 1) - level, held

    def _before(self, row):
        early = [k for k in self.within(row, 24) if k <= self.first(row, 12)]
        known = [k for k in early if isfinite(self.level[k])]
        weights = [self.weight[k] * self.elapsed(k) for k in known]
        if sum(self.elapsed(k) for k in known) < 4 - 1e-9 or sum(weights) < 1e-9:
            return 0.0
        return sum(w * self.level[k] for w, k in zip(weights, known, strict=True)) / sum(weights)

    def _change(self, row):
        if row - 2 < self.first(row, 24):
            return nan
        change = self.power[row] - self.power[row - 1]
        return 0.0 if abs(change) < self.worth else change

    def _state(self, row):
        known = isfinite(self.power[row]) and isfinite(self.limit)
        return bool(self.power[row] > self.limit) if known else None

    def _ended(self, row, *, running):
        """Log hours since the run (or pause) began that this reading ends; 24 where not seen."""
        earliest = self.first(row, 24) + 2
        if row < earliest or self._state(row) is None or self._state(row - 1) is not running:
            return nan
        if self._state(row) is running:
            return nan
        start = row - 1
        while start > 0 and self._state(start - 1) is running:
            start -= 1
        if start < earliest:
            return log(24)
        if self._state(start - 1) is None:
            return nan
        return log((self.times[row] - self.times[start]) / HOUR)

    def _idle(self, row):
        within = self.within(row, 6)
        known = sum(self.elapsed(k) for k in within if isfinite(self.power[k]))
        if not isfinite(self.limit) or known < 3 - 1e-9:
            return nan
        return sum(self.elapsed(k) for k in within if self.power[k] <= self.limit and self.runs[k])
