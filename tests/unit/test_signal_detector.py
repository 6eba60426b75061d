"""The detector `signals` finds what is news, keeps its budget, and lets a machine settle."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meters import MONDAY, SETTINGS, machines, measure_readings, measured, shifts, steady

from anomaly.detectors.signals.calibration import next_caution
from anomaly.detectors.signals.detector import BY_ROW, SignalDetector
from anomaly.detectors.signals.shape import misfit
from anomaly.detectors.signals.training import train_signals
from anomaly.incidents.episodes import find_episodes
from anomaly.incidents.incident import Incident
from anomaly.incidents.states import with_states
from anomaly.settings import ReadingKind, load_settings

DAYS = 35


def score(detector, power, machine):
    frame = measured({machine: power})
    return detector.score(frame, np.ones(len(frame), dtype=bool))


@pytest.fixture(scope="module")
def detector():
    learnt = measured({1: shifts(DAYS), 2: steady(DAYS), 5: np.zeros(96 * DAYS)})
    often_flat = [False, False, True]
    return train_signals(
        learnt, machines(1, 2, 5, often_flat=often_flat), SETTINGS.meter, SETTINGS.training
    ).detector


def test_usual_weeks_raise_next_to_nothing(detector):
    for machine, power in ((1, shifts(14, seed=8)), (2, steady(14, seed=8))):
        alarms = np.flatnonzero(score(detector, power, machine).anomaly)
        assert (np.diff(alarms, prepend=-9) > 4).sum() <= 4


def test_a_night_run_on_and_an_overload_are_found(detector):
    run_on, overload = shifts(3, seed=9), steady(3, seed=9)
    run_on[96 + 88 : 96 + 96] = 8.0
    overload[100:120] *= 1.2

    assert score(detector, run_on, 1).anomaly[96 + 88 : 96 + 100].any()
    assert score(detector, overload, 2).anomaly[100:120].any()


def test_a_shift_that_does_not_begin_is_found(detector):
    late = shifts(3, seed=9)
    late[96 + 32 : 96 + 56] = 0.3

    assert score(detector, late, 1).anomaly[96 + 32 : 96 + 60].any()


@pytest.mark.parametrize("minutes", [5, 10, 15, 30, 60])
@pytest.mark.parametrize("kind", ReadingKind)
def test_faults_are_found_at_any_interval_in_each_kind_of_reading(minutes, kind):
    settings = load_settings({}, interval_minutes=minutes, reading_kind=kind)
    random, count = np.random.default_rng(4), 24 * 60 // minutes
    hour = np.arange(count * 31) % count * minutes / 60
    noise = 1 + 0.02 * random.standard_normal(len(hour))
    power = np.where((hour >= 8) & (hour < 18), 30.0, 0.3) * noise
    power[-count:][(hour >= 22)[-count:]] = 20.0  # a night run-on, at the end
    power[-4 * count :][((hour >= 10) & (hour < 16))[-4 * count : -3 * count].nonzero()] *= 1.6
    stamps = pd.date_range(MONDAY, periods=len(power), freq=f"{minutes}min")
    counted = np.round(np.cumsum(power) * minutes / 60, 3)
    today = np.round(np.cumsum(power.reshape(-1, count) * minutes / 60, axis=1), 3)
    frame = pd.DataFrame(
        {
            "utc_timestamp": stamps.astype("datetime64[us, UTC]"),
            "machine_id": 1,
            "reading": {
                ReadingKind.ENERGY_KWH: counted,
                ReadingKind.POWER_W: power * 1000,
                ReadingKind.ENERGY_KWH_PER_INTERVAL: power * minutes / 60,
                ReadingKind.ENERGY_KWH_TODAY: today.ravel(),
            }[kind],
            "duplicate": False,
        }
    )
    frame = measure_readings(frame, settings)
    until = len(frame) - 5 * count
    detector = train_signals(frame[:until], machines(1), settings.meter, settings.training).detector

    anomaly = detector.score(frame, np.arange(len(frame)) >= until).anomaly.reshape(5, count)

    found = anomaly.any(axis=1)
    assert found[1]
    assert found[4]
    assert not found[0]


def test_hours_that_training_never_saw_are_not_known(detector):
    learnt = measured({1: steady(DAYS)})
    day = learnt["utc_timestamp"].dt.hour.between(8, 17)
    detector = train_signals(learnt[day], machines(1), SETTINGS.meter, SETTINGS.training).detector

    scores = score(detector, steady(7, seed=9), 1)

    night = np.isnan(scores.expected_kw).reshape(7, 96)
    assert night[:, :24].all()
    assert not night[:, 36:68].any()
    assert scores.anomaly.sum() <= 4


def test_a_monstrous_spike_scores_above_a_large_one(detector):
    scores = []
    for factor in (1.1, 1.3, 2.0, 4.0):
        power = steady(3, seed=9)
        power[200] *= factor
        scores.append(score(detector, power, 2).score[200])

    assert scores == sorted(scores)
    assert scores[0] < scores[-1] <= 1


def test_a_machine_that_stands_still_for_ever_never_alarms_and_does_when_it_starts(detector):
    power = np.zeros(96 * 7)
    power[96 * 6 :] = 5.0

    anomaly = score(detector, power, 5).anomaly

    assert not anomaly[: 96 * 6].any()
    assert anomaly[96 * 6 : 96 * 6 + 4].any()


@pytest.mark.parametrize("more", [-3.0, 4.0])
@pytest.mark.parametrize("seed", range(9, 13))
def test_a_new_level_alarms_for_no_longer_than_a_day(detector, more, seed):
    undisturbed, power = steady(10, seed=seed), steady(10, seed=seed)
    power[96 * 3 :] += more

    alarms = score(detector, power, 2)
    usual = score(detector, undisturbed, 2)

    assert alarms.anomaly[96 * 3 : 96 * 4].any()
    more_alarms = np.flatnonzero(alarms.anomaly[96 * 4 :] & ~usual.anomaly[96 * 4 :])
    assert (np.diff(more_alarms, prepend=-9) > 4).sum() <= 1, "in six days, at one a week"
    later = alarms.reason[96 * 4 :][alarms.anomaly[96 * 4 :]]
    assert not any("no hour was" in reason for reason in later), "the level is no news any more"


def test_rules_left_out_of_a_training_do_nothing():
    power = np.concatenate([steady(20), steady(18) + 5.0])
    learnt = measured({2: power})
    known = machines(2).assign(holidays="DE")
    whole, *without = (
        train_signals(learnt, known, SETTINGS.meter, SETTINGS.training, without=parts).detector
        for parts in ([], ["level change"], ["floor"], ["holidays"], ["news"])
    )
    later = steady(10, seed=9) + 5.0
    later[96 * 3 :] += 4.0

    old_levels, no_floor, workdays, no_news = without
    assert old_levels.usual.weeks[0] > 5 > whole.usual.weeks[0]
    assert no_floor.usual.worth_telling[0] == 0 < whole.usual.worth_telling[0]
    assert (whole.usual.calendar[0], workdays.usual.calendar[0]) == (0, -1)
    on, off = (score(detector, later, 2).anomaly[96 * 5 :] for detector in (whole, no_news))
    assert off.mean() > 0.9 > 0.1 > on.mean(), "a level that stays goes on alarming"


@pytest.mark.parametrize("times", [1.5, 0.0])
def test_a_machine_in_shifts_that_has_changed_for_good_is_told_on_three_days(detector, times):
    power = shifts(21, seed=9)
    power[power > 1] *= times
    frame = measured({1: power})
    scores = detector.score(frame, np.ones(len(frame), dtype=bool))
    verdicts = frame[["machine_id", "utc_timestamp", "power_kw"]].assign(
        anomaly=scores.anomaly.astype(int), anomaly_score=scores.score, threshold=0.5,
        reason=scores.reason, quality="ok", expected_kw=scores.expected_kw,
        previous_at=frame["utc_timestamp"].shift(),
    )  # fmt: skip
    episodes = find_episodes(
        verdicts, [], frame["utc_timestamp"].iloc[-1], SETTINGS.meter, SETTINGS.incidents
    )

    told = with_states(
        [Incident(e) for e in episodes],
        [],
        episodes[-1].last_at,
        SETTINGS.meter,
        SETTINGS.incidents,
    )

    news = [i.episode.started_at for i in told if not i.settled]
    assert news
    assert max(news) < MONDAY + pd.Timedelta(days=3, hours=12)
    assert len(told) > len(news)


def test_a_machine_that_stopped_two_weeks_ago_is_expected_to_stand_still():
    stopped = shifts(DAYS)
    stopped[-96 * 14 :] = 0.0
    detector = train_signals(
        measured({1: stopped}), machines(1, often_flat=True), SETTINGS.meter, SETTINGS.training
    ).detector

    scores = score(detector, np.zeros(96 * 7), 1)

    assert not scores.anomaly.any()
    assert np.nanmax(scores.expected_kw) == 0


@pytest.mark.parametrize("machine", [2, 77])
def test_a_first_reading_never_alarms(detector, machine):
    assert not score(detector, np.array([500.0, 500.0]), machine).anomaly[0]


# Machines that training has not seen ------------------------------------------


def fleet_of(*powers):
    ids = range(1, len(powers) + 1)
    return train_signals(
        measured(dict(zip(ids, powers, strict=True))),
        machines(*ids),
        SETTINGS.meter,
        SETTINGS.training,
    ).detector


@pytest.fixture(scope="module")
def equals():
    """Fleets of six machines that do the same."""
    return {power: fleet_of(*(power(DAYS, seed=n) for n in range(6))) for power in (steady, shifts)}


def alerts(scores):
    return (np.diff(np.flatnonzero(scores.anomaly), prepend=-9) > 4).sum()


@pytest.mark.parametrize("power", [steady, shifts])
def test_a_new_machine_of_a_fleet_of_equals_is_judged_nearly_as_the_old(equals, power):
    leap = power(7, seed=21)
    noon = 96 + 48
    leap[noon : noon + 8] *= 5

    usual, found = score(equals[power], power(14, seed=20), 77), score(equals[power], leap, 77)

    assert alerts(usual) <= 4
    assert found.anomaly[noon : noon + 4].all()
    assert all(reason.endswith("; not trained yet") for reason in found.reason[found.anomaly])
    assert np.isnan(found.expected_kw).all()


@pytest.mark.parametrize("times", [0.1, 3, 40])
def test_a_machine_of_another_size_does_not_alarm_by_being_commissioned(equals, times):
    scores = score(equals[steady], times * steady(14, seed=22), 77)

    assert not scores.anomaly[: 16 * 4].any()
    assert alerts(scores) <= 4


@pytest.mark.parametrize("power", [steady, shifts])
def test_a_new_machine_that_stands_still_never_alarms(equals, power):
    assert not score(equals[power], np.zeros(96 * 7), 77).anomaly.any()


def test_in_a_fleet_of_all_sizes_only_what_is_monstrous_alarms():
    sizes = 10 ** np.linspace(0, 3, 8)
    detector = fleet_of(*(shifts(DAYS, size, seed=n) for n, size in enumerate(sizes)))
    large, monstrous = steady(3, 2.0, seed=23), steady(3, 2.0, seed=23)
    large[200:204] *= 5
    monstrous[200:204] = 16_000

    assert not score(detector, large, 77).anomaly.any()
    assert score(detector, monstrous, 77).anomaly[200:204].all()


@pytest.mark.parametrize("days", [1, DAYS])
def test_of_a_fleet_of_one_nothing_is_known_and_nothing_alarms(days):
    power = steady(3, seed=24)
    power[200] = 16_000

    scores = score(fleet_of(steady(days)), power, 77)

    assert ((scores.score >= 0) & (scores.score < 0.5)).all()


def test_a_fleet_stands_on_the_clock_of_most_of_its_machines():
    zones = ["Asia/Tokyo", "Europe/Berlin", "Europe/Berlin"]
    learnt = measured({n: steady(14, seed=n) for n in (1, 2, 3)})

    usual = train_signals(
        learnt, machines(1, 2, 3, time_zone=zones), SETTINGS.meter, SETTINGS.training
    ).detector.usual

    assert usual.time_zones.tolist() == [*zones, "Europe/Berlin"]


def test_the_last_row_is_the_fleets_in_every_array(detector):
    usual, ticks = detector.usual, np.arange(0, 8 * 86_400_000_000, 900_000_000)
    count = len(usual.machine_ids)

    new, last = (usual.cells(ticks, np.full(len(ticks), row)) for row in (-1, count))

    by_slot, by_hour, by_week = (
        np.arange(array.size) for array in (usual.median, usual.weight, usual.usually_runs)
    )
    for places, one, other in zip((by_slot, by_hour, by_week), new, last, strict=True):
        np.testing.assert_array_equal(places[one], places[other])
    assert {len(getattr(detector, name)) for name in BY_ROW} == {count + 1}
    assert usual.lower.shape[1] == usual.upper.shape[1] == count + 1
    assert np.isinf(usual.running_above[-1])
    assert not usual.usually_runs[-1].any()


def test_how_a_fleet_is_learnt_changes_nothing_for_machines_that_training_saw(monkeypatch):
    learnt = measured({1: shifts(14), 2: steady(14), 3: steady(14, seed=3)})
    whole = train_signals(learnt, machines(1, 2, 3), SETTINGS.meter, SETTINGS.training).detector
    monkeypatch.setattr("anomaly.detectors.signals.fleet.MOST_MACHINES", 2)
    part = train_signals(learnt, machines(1, 2, 3), SETTINGS.meter, SETTINGS.training).detector

    for name in BY_ROW:
        np.testing.assert_array_equal(getattr(whole, name)[:-1], getattr(part, name)[:-1])
    assert whole.limit[-1] != part.limit[-1]
    for name in ("median", "weight", "least", "running_above", "usually_runs"):
        one, other = getattr(whole.usual, name), getattr(part.usual, name)
        np.testing.assert_array_equal(one[:-1], other[:-1])
    for power, machine in ((shifts(3, seed=9) * 1.3, 1), (steady(3, seed=9) * 1.3, 2)):
        np.testing.assert_array_equal(
            score(whole, power, machine).score, score(part, power, machine).score
        )


# ------------------------------------------------------------------------------


def test_no_readings_give_no_scores(detector):
    frame = measured({2: steady(1)})

    scores = detector.score(frame, np.zeros(len(frame), dtype=bool))

    assert len(scores.score) == len(scores.reason) == 0


def test_machines_do_not_influence_each_others_verdicts(detector):
    both = measured({1: shifts(3, seed=9), 2: steady(3, seed=9)})
    alone = both[both["machine_id"] == 2].reset_index(drop=True)

    together = detector.score(both, (both["machine_id"] == 2).to_numpy())

    np.testing.assert_array_equal(
        together.score, detector.score(alone, np.ones(len(alone), dtype=bool)).score
    )


def test_a_course_is_the_same_bit_for_bit_alone_and_among_others(detector):
    frame = measured({0: steady(4), 1: shifts(4), 3: steady(4, seed=9)})  # 0 and 3 are strangers
    readings = detector.readings(frame)
    every = np.arange(len(frame))

    together = misfit(readings, every)
    alone = [misfit(readings, every[place : place + 1])[0] for place in every]
    mixed = misfit(readings, every[::97])

    assert np.isfinite(together).sum() > 300
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[::97], mixed)
    assert np.isnan(together[readings.rows == -1]).all()


def test_a_larger_budget_of_a_machine_lowers_its_limit_alone():
    learnt = measured({1: shifts(DAYS), 2: steady(DAYS)})
    usual = train_signals(learnt, machines(1, 2), SETTINGS.meter, SETTINGS.training).detector
    larger = train_signals(
        learnt, machines(1, 2, alert_budget=[np.nan, 3.0]), SETTINGS.meter, SETTINGS.training
    ).detector

    assert larger.limit[0] == usual.limit[0]
    assert larger.limit[1] < usual.limit[1]
    assert larger.realised_rate[1] >= usual.realised_rate[1]


def test_evidence_of_training_readings_is_held_out_and_keeps_the_budget():
    learnt = measured({2: steady(DAYS)})

    trained = train_signals(learnt, machines(2), SETTINGS.meter, SETTINGS.training)

    assert len(trained.evidence) == len(learnt)
    assert trained.detector.realised_rate[0] <= SETTINGS.training.alert_budget
    assert trained.limit(0.5)[0] > trained.limit(3.0)[0]


def test_training_twice_gives_the_same_detector():
    learnt = measured({1: shifts(14), 2: steady(14)})
    one, other = (
        train_signals(learnt, machines(1, 2), SETTINGS.meter, SETTINGS.training).detector
        for _ in range(2)
    )

    np.testing.assert_array_equal(one.limit, other.limit)
    np.testing.assert_array_equal(
        score(one, shifts(3, seed=9), 1).score, score(other, shifts(3, seed=9), 1).score
    )


def test_a_detector_made_again_from_its_arrays_scores_the_same_bit_for_bit(detector):
    again = SignalDetector.from_arrays(detector.arrays())
    power = shifts(3, seed=9)
    power[96 + 88 : 96 + 96] = 8.0

    one, other = score(detector, power, 1), score(again, power, 1)

    np.testing.assert_array_equal(one.score, other.score)
    assert one.reason.tolist() == other.reason.tolist()


def test_scoring_imports_no_forests():
    code = (
        "import sys, anomaly.detectors.signals.signals, anomaly.detectors.signals.detector;"
        "sys.exit('sklearn.ensemble' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_training_of_a_day_sets_limits_that_an_anomaly_passes():
    detector = train_signals(
        measured({2: steady(1)}), machines(2), SETTINGS.meter, SETTINGS.training
    ).detector
    power = steady(1, seed=9)
    power[80:] *= 3

    assert np.isfinite(detector.limit[:-1]).all()
    assert score(detector, power, 2).anomaly[80:].any()


def test_the_caution_moves_with_what_was_raised_and_stays_in_bounds():
    was = np.array([1.5, 1.5, 1.5, 1.5, 1.5])

    now = next_caution(was, np.array([1, 2, 0, 1000, 0]), np.array([1, 1, 1, 1, 1000]))

    assert now[0] == 1.5
    assert now[1] / was[1] == pytest.approx(was[2] / now[2]) == pytest.approx(1.16, abs=0.005)
    assert now[3:].tolist() == [12.0, 0.75]


@given(rate=st.floats(0.8, 6.0), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_week_by_week_the_budget_is_kept_whatever_the_machine_does(rate, seed):
    """Incidents come at random, the more the smaller the caution is."""
    random, caution, raised = np.random.default_rng(seed), 1.5, []
    for _ in range(150):
        raised.append(random.poisson(rate * 1.5 / caution))
        caution = float(next_caution(np.array(caution), np.array(raised[-1]), np.array(1.0)))

    assert 0.7 < np.mean(raised[30:]) < 1.3
