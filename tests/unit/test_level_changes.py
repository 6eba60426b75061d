"""A machine is judged by how it runs since its last lasting change of level."""

import numpy as np
import pandas as pd
import pytest
from meters import quarters, shifts, steady

from anomaly.detectors.signals.level_changes import level_change_time
from anomaly.readings.preprocessing import microseconds

DAYS = 56


def days_kept(power):
    ticks = microseconds(pd.Series(quarters(len(power) / 96)))
    since = level_change_time(power, ticks, np.zeros(len(power), np.int64), 1)
    return (ticks[-1] - since[0] + 900_000_000) / 86_400_000_000


def with_end(power, days, change):
    changed = power.copy()
    changed[-96 * days :] = change(power[-96 * days :])
    return changed


@pytest.mark.parametrize("usual", [steady, shifts])
def test_without_a_change_all_readings_count(usual):
    assert days_kept(usual(DAYS)) == DAYS


@pytest.mark.parametrize("usual", [steady, shifts])
@pytest.mark.parametrize("days", [14, 20, 35])
def test_a_machine_that_stopped_for_good_is_learnt_from_its_stop_on(usual, days):
    stopped = with_end(usual(DAYS), days, np.zeros_like)

    weekend = 2 if usual is shifts else 0  # it stood still just before as well
    assert days - 0.02 <= days_kept(stopped) <= days + weekend + 0.02


@pytest.mark.parametrize("usual", [steady, shifts])
@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_new_level_that_lasts_for_two_weeks_is_learnt_alone(usual, factor):
    moved = with_end(usual(DAYS), 18, lambda power: power * factor)

    assert days_kept(moved) == pytest.approx(18, abs=0.02)


@pytest.mark.parametrize("days", [3, 12])
def test_a_shorter_excursion_changes_nothing(days):
    moved = with_end(steady(DAYS), days, lambda power: power * 0.7)

    assert days_kept(moved) == DAYS


def test_the_latest_of_two_changes_counts():
    moved = with_end(with_end(steady(DAYS), 34, lambda power: power * 2), 15, np.zeros_like)

    assert days_kept(moved) == pytest.approx(15, abs=0.02)


def test_machines_that_differ_from_week_to_week_have_no_level_to_change():
    random = np.random.default_rng(5)
    irregular = np.repeat(random.choice([0.3, 30.0], DAYS), 96)

    assert days_kept(irregular) == DAYS


@pytest.mark.filterwarnings("error")
def test_a_machine_without_any_known_power_is_learnt_from_its_first_reading_on():
    ticks = microseconds(pd.Series(quarters(DAYS)))
    stopped = with_end(steady(DAYS), 20, np.zeros_like)
    power = np.concatenate([np.full(len(ticks), np.nan), stopped])

    since = level_change_time(power, np.tile(ticks, 2), np.repeat([0, 1], len(ticks)), 2)

    assert since[0] == ticks[0]
    assert (ticks[-1] - since[1]) // 86_400_000_000 == 19  # the other is judged as ever
