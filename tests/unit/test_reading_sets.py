"""Several sets of readings from one TOML file: read, refused, evaluated and replayed."""

import os
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from anomaly.detectors.signals.signals import NAMES
from anomaly.detectors.signals.training import RULES
from anomaly.errors import IngestError, SettingsError, SourceError, TrainingError
from anomaly.evaluation.evaluate import evaluate_sets, left_out
from anomaly.evaluation.our_detector import SignalsContender
from anomaly.evaluation.reading_sets import ReadingSet, read_sets, side_by_side
from anomaly.evaluation.subsequence_baselines import KMeansCourses, SubsequencePCA
from anomaly.evaluation.train_test_weeks import Injector, spread_splits
from anomaly.lifecycle.promotion import NextStep
from anomaly.lifecycle.replay import FIRST_TRAINING, Replay, ReplayedWeek, replay, summary
from anomaly.settings import Promotion, load_settings

DAY = timedelta(days=1)
WEEK = timedelta(weeks=1)
START = pd.Timestamp("2026-01-05", tz="UTC")
SETTINGS = load_settings({}, reading_kind="power_w", interval_minutes=30)


def plant(days, seed=1):
    """A machine in shifts and one that runs round the clock, in W, each half-hour."""
    times = pd.date_range(START, START + days * DAY, freq="30min", inclusive="left")
    rng = np.random.default_rng(seed)
    works = (times.hour >= 6) & (times.hour < 22) & (times.day_of_week < 5)
    shift = np.where(works, 20e3, 1e3) * rng.normal(1, 0.05, len(times))
    daily = 1 + 0.2 * np.sin((times.hour + times.minute / 60 - 8) * np.pi / 12)
    steady = 9e3 * daily * rng.normal(1, 0.03, len(times))
    return pd.concat(
        pd.DataFrame({"utc_timestamp": times, "machine_id": machine, "reading": watts.round()})
        for machine, watts in ((1, shift), (2, steady))
    )


def a_set(days=70, **settings):
    return ReadingSet("plant", plant(days), SETTINGS.changed(**settings), "UTC")


def text(tables):
    console = Console(file=StringIO(), width=250)
    for table in tables:
        console.print(table)
    return console.file.getvalue()


def test_sets_are_read_with_their_own_settings_and_machines(tmp_path):
    (tmp_path / "a.csv").write_text(
        "machine_id,utc_timestamp,power_w\npress,2026-01-05T00:00Z,12000\n"
        "saw,2026-01-05T00:00Z,500\npress,2026-01-05T00:30Z,12500\n"
    )
    (tmp_path / "b.csv").write_text(
        "utc_timestamp,machine_1,machine_3\n2026-01-05T00:15Z,5.5,7\n2026-01-05T00:30Z,5.75,7.5\n"
    )
    (tmp_path / "sets.toml").write_text(
        "[a]\nfile = 'a.csv'\ntime_zone = 'Asia/Seoul'\nmachines = ['press']\nholidays = 'KR'\n"
        "source_layout = 'long'\nsource_value_column = 'power_w'\nreading_kind = 'power_w'\n"
        "interval_minutes = 30\n[b]\nfile = 'b.csv'\nmachines = [3]\ntimestamp_label = 'end'\n"
    )

    first, second = read_sets(tmp_path / "sets.toml", load_settings({}))

    assert (first.name, first.zone, first.settings.meter.interval_minutes) == (
        "a",
        "Asia/Seoul",
        30,
    )
    assert first.readings["reading"].tolist() == [12000, 12500]
    assert first.settings.training.holidays == "KR"
    assert (second.zone, second.settings.meter.reading_kind.value) == ("UTC", "energy_kwh")
    assert second.readings[["machine_id", "reading"]].to_numpy().tolist() == [[3, 7], [3, 7.5]]
    assert second.readings["utc_timestamp"].iloc[0] == START, "labelled at its end"


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("", "names no set: write [plant]"),
        ("x = ", "is not TOML"),
        ("x = 3", "set 'x' has no file"),
        ("[x]\nfile = 3", "set 'x' has no file"),
        ("[x]\nfile = 'x.csv'\ntime_zone = 'Mars/Base'", "set 'x' has the time_zone 'Mars/Base'"),
        (
            "[x]\nfile = 'x.csv'\ncolour = 'red'",
            "has the key 'colour', which is no setting",
        ),
        ("[x]\nfile = 'x.csv'\ninterval_minutes = 0", "set 'x': ANOMALY_INTERVAL_MINUTES"),
        ("[x]\nfile = 'x.csv'\nmachines = [9]", "has no machine '9': there are 1, 2"),
        ("[x]\nfile = 'x.csv'\nmachines = 1", "set 'x' has machines = 1: write a list, [1, 2]"),
        ("[x]\nfile = 'x.csv'\ntime_zon = 'UTC'", "did you mean 'time_zone'?"),
        ("[x]\nfile = 'x.csv'\nANOMALY_INTERVAL_MINUTES = 5", "you mean 'interval_minutes'?"),
        ("[x]\nfile = 'x.csv'\ndatabase_url = 'x'", "has the key 'database_url'"),
        ("[x]\nfile = 'x.csv'\nmachines = []", "set 'x' has machines = []: write a list"),
    ],
)
def test_a_wrong_set_is_one_clear_line(tmp_path, toml, message):
    (tmp_path / "x.csv").write_text(
        "utc_timestamp,machine_1,machine_2\n2026-01-05T00:00Z,5.5,7\n2026-01-05T00:30Z,5.6,7\n"
    )
    (tmp_path / "sets.toml").write_text(toml)

    with pytest.raises(SettingsError) as refused:
        read_sets(tmp_path / "sets.toml", load_settings({}))

    assert message in str(refused.value)
    assert str(tmp_path / "sets.toml") in str(refused.value)


def test_missing_files_are_named(tmp_path):
    (tmp_path / "sets.toml").write_text("[x]\nfile = 'none.csv'")

    with pytest.raises(SettingsError, match="No such file"):
        read_sets(tmp_path / "none.toml", load_settings({}))
    with pytest.raises(IngestError, match=r"set 'x': .*none\.csv does not exist"):
        read_sets(tmp_path / "sets.toml", load_settings({}))


def test_a_set_read_at_another_interval_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text(
        "utc_timestamp,machine_1\n2026-01-05T00:00Z,5.5\n2026-01-05T00:30Z,5.6\n"
    )
    (tmp_path / "sets.toml").write_text("[x]\nfile = 'x.csv'\nmachines = ['machine_1']")

    with pytest.raises(SourceError, match=r"set 'x': readings are 30 minutes apart, not 15: set"):
        read_sets(tmp_path / "sets.toml", load_settings({}))


def test_test_weeks_are_spread_over_the_readings_and_never_overlap():
    year = plant(365)
    splits = spread_splits(year, meter=SETTINGS.meter, count=12, train=8 * WEEK)
    short = spread_splits(plant(68), meter=SETTINGS.meter, count=12, train=8 * WEEK)

    assert len(splits) == 12
    assert len(short) == 5
    assert splits[0].test.start == START + 8 * WEEK
    assert splits[-1].test.end > START + 365 * DAY - WEEK
    for chosen in (splits, short):
        assert all(a.test.end <= b.test.start for a, b in pairwise(chosen))
        assert all(one.train.end == one.test.start for one in chosen)
        assert all(one.train.end - one.train.start <= 8 * WEEK for one in chosen)
    assert short[0].train.end - short[0].train.start == 5 * WEEK
    with pytest.raises(TrainingError, match=r"last 39.0 days, and 40 are needed"):
        spread_splits(plant(39), meter=SETTINGS.meter, count=1, train=8 * WEEK)


@pytest.mark.parametrize("kind", [SubsequencePCA, KMeansCourses])
def test_the_subsequence_baselines_score_strange_courses_highest(kind):
    readings, length = plant(35), 12
    baseline = kind(SETTINGS.meter, SETTINGS.training)
    fitted = baseline.fit(readings)
    shown = plant(7, seed=2)
    strange = shown.assign(reading=shown["reading"].to_numpy().copy())
    places = np.flatnonzero(strange["machine_id"] == 2)[150:156]
    strange.iloc[places, 2] = [1e3, 16e3, 1e3, 16e3, 1e3, 16e3]
    gap = shown.drop(shown.index[100])  # of both machines

    [scored, known, holed] = (one.score for one in fitted.score([strange, shown, gap]))

    mine = strange["machine_id"].to_numpy() == 2
    assert np.nanargmax(np.where(mine, scored, -1)) in range(places[0], places[-1] + length)
    assert np.nanmax(scored[mine]) > 3 * np.nanmax(known[mine])
    assert np.isnan(known[: length - 1]).all()
    assert np.isfinite(known[length : len(shown) // 2]).all()
    assert np.isnan(holed[100 : 100 + length - 1]).all()
    assert np.isfinite(holed[100 + length])
    assert len(fitted.training_scores().score) == len(readings)


@pytest.mark.slow
def test_several_sets_are_evaluated_with_both_injectors():
    sets = [a_set(54), ReadingSet("other", plant(54, seed=3), SETTINGS, "Asia/Seoul")]

    found = evaluate_sets(sets, budgets=[1.0], seeds=3, weeks=1)
    shown = text(found.tables())

    assert [(part.name, part.injector) for part in found.parts] == [
        (name, injector) for name in ("plant", "other") for injector in Injector
    ]
    families = [set(part.report.events["family"]) for part in found.parts]
    assert families[0].isdisjoint(families[1])
    assert found.as_dict()["sets"][3]["injector"] == "physical"
    for words in ("plant, curve faults", "KMeansAD", "subsequence PCA", "physical faults found at"):
        assert words in shown


def test_a_set_in_which_no_fault_is_possible_has_false_alerts_alone():
    still = plant(54).query("machine_id == 1").assign(reading=0.0)
    found = evaluate_sets(
        [ReadingSet("still", still, SETTINGS, "UTC")], budgets=[1.0], seeds=1, weeks=1
    )

    assert all(set(part.report.events["family"].tolist()) <= {"dropout"} for part in found.parts)
    assert "still, physical faults" in text(found.tables())
    assert len(found.as_dict()["sets"]) == 2


def test_a_signal_left_out_counts_for_nothing():
    readings = plant(35)
    kinds = {name: SignalsContender(SETTINGS.meter, SETTINGS.training, without=name)
             for name in (None, "change", "throughout_4h")}  # fmt: skip
    fitted = {name: kind.fit(readings) for name, kind in kinds.items()}

    assert kinds["change"].name == "without change"
    assert [kind.without for kind in left_out(SETTINGS.meter, SETTINGS.training, "UTC")] == [
        None,
        *NAMES,
        *RULES,
    ]
    evidence = {name: one.training_scores().score for name, one in fitted.items()}
    for name in ("change", "throughout_4h"):
        assert (evidence[name] <= evidence[None]).all()
        assert (evidence[name] < evidence[None]).any()
    shown = [fitted[name].score([readings])[0].score for name in (None, "change")]
    assert (shown[0] > shown[1]).any()
    assert (shown[0] >= shown[1]).all()


def test_a_set_that_is_too_short_is_named():
    with pytest.raises(TrainingError, match=r"set plant: the readings last 30\.0 days, and 40"):
        evaluate_sets([a_set(30)], budgets=[1.0], seeds=1, weeks=1)
    with pytest.raises(TrainingError, match=r"set plant: its readings end before the first week"):
        replay(a_set(38))


@pytest.mark.slow
def test_a_replay_trains_each_week_and_promotes_what_the_gate_lets_through():
    found = replay(a_set(50))

    weeks = found.weeks
    assert [week.trained for week in weeks] == [2, 3]
    assert [week.in_force for week in weeks] == [1, 2]
    assert weeks[0].start == START + FIRST_TRAINING + WEEK
    assert {week.champion_age for week in weeks} == {2 * WEEK}
    assert all(set(week.alerts) == {1, 2} for week in weeks)
    assert found.alert_rate == sum(found.by_machine().values()) / 2
    assert "put in force" in text([found.table(), summary([found])])
    assert found.as_dict()["weeks"][0]["step"] == NextStep.PROMOTE


@pytest.mark.slow
def test_a_version_that_stays_in_force_grows_old_in_a_replay():
    by_hand = replay(a_set(50, promotion=Promotion.MANUAL))
    kept = by_hand.weeks
    forced = replay(a_set(50, promotion=Promotion.MANUAL), gated=False).weeks

    assert [week.in_force for week in kept] == [1, 1]
    assert text([by_hand.table()]).count("waits to be put in force by hand") == 2
    assert {week.person for week in (*kept, *forced)} == {""}
    assert [week.champion_age / WEEK for week in kept] == [2, 3]
    assert [week.in_force for week in forced] == [1, 2]


@pytest.mark.slow
def test_a_replay_refuses_what_production_refuses():
    hole = plant(64)
    empty = hole["utc_timestamp"].between(START + 42 * DAY, START + 49 * DAY, inclusive="left")
    unjudged = replay(ReadingSet("hole", hole[~empty], SETTINGS, "UTC")).weeks[1]
    short = replay(a_set(50, judging_days=0.5))

    assert (unjudged.step, unjudged.in_force) == (NextStep.KEEP, 2)
    assert "there are no readings in" in unjudged.refusals[0]
    assert short.refused == len(short.weeks)
    assert all("at least one is needed" in week.refusals[0] for week in short.weeks)
    assert short.weeks[-1].in_force == 1
    with pytest.raises(TrainingError, match=r"set plant: 28\.0 days of readings to train on"):
        replay(a_set(64, training_min_days=60))
    with pytest.raises(SettingsError, match=r"set plant: there is no holiday calendar 'XX'"):
        replay(a_set(64, holidays="XX"))


def test_a_gate_that_is_locked_does_not_look_healthy_in_the_summary():
    week = ReplayedWeek(START, 1, 2 * WEEK, {1: 0}, 2, NextStep.ASK, ["no"])
    weeks = [
        replace(week, champion_age=age * WEEK, person="2 in a row" if age > 3 else "")
        for age in range(2, 42)
    ]
    found = Replay("plant", 1.0, True, weeks)

    assert (found.oldest, found.oldest_unasked) == (41 * WEEK, 3 * WEEK)
    assert text([summary([found])]).splitlines()[-2].split()[-2:] == ["41", "3"]


@pytest.mark.slow
def test_each_machine_of_a_deployment_keeps_its_own_budget_and_calendar_in_a_replay():
    plain = a_set(50)
    generous = plain.known_machines.assign(alert_budget=[30.0, np.nan])
    own = ReadingSet("plant", plain.readings, SETTINGS, "UTC", generous)

    usual, more = (replay(chosen).by_machine() for chosen in (plain, own))

    assert more[1] > usual[1]
    assert more[2] == usual[2]


def test_work_side_by_side_comes_back_in_order():
    assert side_by_side(divmod, [(7, 2), (9, 4), (5, 5)]) == [(3, 1), (2, 1), (1, 0)]
    assert side_by_side(os.path.join, [("a", "b")]) == ["a/b"]
    with pytest.raises(ZeroDivisionError):
        side_by_side(divmod, [(7, 0), (1, 1)])
