"""Thresholds come from training readings alone, and contenders are treated alike."""

import json
from datetime import timedelta
from io import StringIO
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from anomaly.errors import SourceError, TrainingError
from anomaly.evaluation.alert_matching import group_incidents
from anomaly.evaluation.baselines import (
    AbsoluteChange,
    HourOfWeekResidual,
    JointForest,
    LibraryDetector,
    PrototypeForest,
    RandomAlerts,
    baselines,
)
from anomaly.evaluation.fault_injection import Family
from anomaly.evaluation.labelled_readings import judge_labelled, read_labelled
from anomaly.evaluation.protocol import Scored, evaluate
from anomaly.evaluation.report import PictureError
from anomaly.evaluation.thresholds import ladders, thresholds
from anomaly.evaluation.train_test_weeks import JUDGING_LOOK_BACK, finite_readings, rolling_splits
from anomaly.settings import load_settings

SETTINGS = load_settings({}, forest_trees=20)
START = pd.Timestamp("2017-03-06", tz="UTC")
WEEK = timedelta(weeks=1)
QUARTER = timedelta(minutes=15)


def counters(days=49):
    times = pd.date_range(START, START + pd.Timedelta(days=days), freq="15min", inclusive="left")
    rng = np.random.default_rng(5)
    works = (times.hour >= 8) & (times.hour < 18) & (times.day_of_week < 5)
    shift = np.where(works, 30.0, 0.0) + rng.gamma(2, 0.1, len(times))
    power = {1: shift, 2: 9 + rng.gamma(2, 0.5, len(times))}
    return pd.concat(
        pd.DataFrame(
            {"utc_timestamp": times, "machine_id": machine, "reading": np.cumsum(kilowatts) / 4}
        )
        for machine, kilowatts in power.items()
    )


@pytest.fixture(scope="module")
def readings():
    return counters()


@pytest.fixture(scope="module")
def splits(readings):
    return rolling_splits(readings, meter=SETTINGS.meter, count=2)


class Told:
    """A contender that knows the readings as they were: an oracle, a silent or a spying one."""

    def __init__(self, truth, silent=False, hard=True):
        self.truth = finite_readings(truth).assign(real=lambda frame: power(frame))
        self.name = "silent" if silent else "told"
        self.silent, self.hard, self.shown = silent, hard, []

    def fit(self, train):
        self.shown.append(("fit", train["utc_timestamp"].max()))
        self.train = train
        return self

    def training_scores(self):
        self.shown.append(("training_scores", self.train["utc_timestamp"].max()))
        return Scored(np.zeros(len(self.train)))

    def score(self, frames):
        self.shown.append(("score", max(frame["utc_timestamp"].max() for frame in frames)))
        return [self._score(frame) for frame in frames]

    def _score(self, frame):
        keys = ["machine_id", "utc_timestamp"]
        known = frame.assign(power=power(frame)).merge(self.truth, on=keys, how="left")
        score = (known["power"] - known["real"]).abs().to_numpy() * (not self.silent)
        first = frame["utc_timestamp"].min()
        all_rows = self.truth[self.truth["utc_timestamp"].between(first, frame[keys[1]].max())]
        missing = all_rows.merge(frame[keys], on=keys, how="left", indicator=True)
        missing = missing.loc[missing["_merge"] == "left_only", keys]
        hard = missing if self.hard and not self.silent else None
        return Scored(np.where(score > 1e-3, score, 0.0), hard)


def power(frame):
    apart = frame.groupby("machine_id")["utc_timestamp"].diff() / pd.Timedelta(hours=1)
    return (frame.groupby("machine_id")["reading"].diff() / apart).where(apart < 0.3)


def single(scores, every=15):
    times = pd.date_range(START, periods=len(scores), freq=f"{every}min")
    return pd.DataFrame({"machine_id": 1, "utc_timestamp": times}), np.asarray(scores, float)


def incidents(train, score, threshold):
    return len(group_incidents(train[score >= threshold], QUARTER))


def test_a_threshold_lets_through_as_many_incidents_as_the_budget_and_no_more():
    train, score = single(np.random.default_rng(0).random(2000))
    for budget in (0.5, 1, 3, 7):
        cut = thresholds(train, score, budget=budget, weeks=3, interval=QUARTER)[1]
        assert incidents(train, score, cut) == int(budget * 3)


def test_every_higher_threshold_keeps_the_budget_too():
    rng = np.random.default_rng(1)
    train, score = single(np.convolve(rng.normal(size=2000), np.ones(12), mode="same"))

    cut = thresholds(train, score, budget=4, weeks=3, interval=QUARTER)[1]

    assert max(incidents(train, score, level) for level in np.unique(score[score >= cut])) == 12


def test_scores_that_tie_are_let_through_together_or_not_at_all():
    score = np.zeros(500)
    score[[50, 150, 250, 350]] = 1.0
    train, score = single(score)

    assert thresholds(train, score, budget=3, weeks=1, interval=QUARTER)[1] > 1.0
    assert (
        incidents(train, score, thresholds(train, score, budget=4, weeks=1, interval=QUARTER)[1])
        == 4
    )


def test_a_constant_score_never_alarms():
    train, score = single(np.full(500, 0.3))

    assert thresholds(train, score, budget=3, weeks=1, interval=QUARTER)[1] > 0.3


def test_hard_alarms_use_up_the_budget():
    train, score = single(np.random.default_rng(0).random(2000))
    hard = train.iloc[[100, 300]]

    cut = thresholds(train, score, budget=3, weeks=1, interval=QUARTER, alarms=hard)[1]

    assert len(group_incidents(pd.concat([train[score >= cut], hard]), QUARTER)) == 3
    assert incidents(train, score, cut) == 1


def test_a_machine_without_scores_gets_no_alarm():
    train, score = single(np.full(20, np.nan))

    assert thresholds(train, score, budget=3, weeks=1, interval=QUARTER)[1] == np.inf


def test_thresholds_beyond_the_training_scores_rise_with_their_spread():
    ladder = ladders(*single(np.arange(101.0)), most=2, interval=QUARTER)[1]

    assert ladder.rungs[0] == pytest.approx(100)
    assert ladder.beyond(0.5) == pytest.approx(125)


def test_splits_train_on_at_least_five_weeks_and_test_on_weeks_that_do_not_overlap(readings):
    found = rolling_splits(counters(days=68), meter=SETTINGS.meter)

    assert len(found) == 5
    assert all(split.train.end - split.train.start >= 5 * WEEK for split in found)
    assert all(split.train.end == split.test.start for split in found)
    assert all(a.test.end == b.test.start for a, b in pairwise(found))
    assert [(o.test.end - o.test.start).days for o in found] == [7, 7, 7, 7, 5]


def test_readings_too_short_for_the_splits_are_refused(readings):
    with pytest.raises(TrainingError, match=r"last 49\.0 days: 5 splits need 68"):
        rolling_splits(readings, meter=SETTINGS.meter)


def test_a_contender_that_knows_the_truth_finds_all_and_raises_no_false_alert(readings, splits):
    report = evaluate(readings, [Told(readings)], meter=SETTINGS.meter, splits=splits, seeds=4)

    summary = report.summary()
    assert len(report.events) > 0
    assert (summary["recall"] == 1).all()
    assert (summary["false_alerts"] == 0).all()
    assert (report.quiet()["alerts"] == 0).all()


def test_a_silent_contender_finds_nothing(readings, splits):
    told = Told(readings, silent=True)

    report = evaluate(readings, [told], meter=SETTINGS.meter, splits=splits, seeds=2)

    assert (report.summary()["recall"] == 0).all()
    assert (report.alerts["alerts"] == 0).all()


def test_missing_readings_are_found_by_hard_alarms_only(readings, splits):
    found = {}
    for hard in (True, False):
        report = evaluate(
            readings,
            [Told(readings, hard=hard)],
            meter=SETTINGS.meter,
            splits=splits,
            seeds=12,
            budgets=(1,),
        )
        dropouts = report.events[report.events["family"] == Family.DROPOUT]
        found[hard] = dropouts["found"].mean()
    assert found == {True: 1, False: 0}


def test_a_test_week_is_shown_only_after_training_scores_were_asked_for(readings, splits):
    spy = Told(readings)

    evaluate(readings, [spy], meter=SETTINGS.meter, splits=splits, seeds=1)

    steps = [step for step, _ in spy.shown]
    assert steps == ["fit", "training_scores", "score"] * 2
    for (_, seen), split in zip(spy.shown[::3], splits, strict=True):
        assert seen < split.test.start


def test_frames_begin_with_context_and_end_with_the_test_week(readings, splits):
    shown = []

    class Spy(Told):
        def score(self, frames):
            shown.append((frames[0]["utc_timestamp"].min(), frames[0]["utc_timestamp"].max()))
            return super().score(frames)

    evaluate(readings, [Spy(readings)], meter=SETTINGS.meter, splits=splits, seeds=1)

    assert [first for first, _ in shown] == [
        split.test.start - JUDGING_LOOK_BACK for split in splits
    ]
    assert all(last < o.test.end for (_, last), o in zip(shown, splits, strict=True))


def test_poisoned_test_readings_leave_every_threshold_as_it_was(readings, splits):
    contenders = [
        HourOfWeekResidual(SETTINGS.meter, SETTINGS.training),
        PrototypeForest(SETTINGS.meter, SETTINGS.training),
        JointForest(SETTINGS.meter, SETTINGS.training),
    ]
    last, kept = splits[-1:], []
    for factor in (1, 1000):
        poisoned = readings.assign(
            reading=readings["reading"].where(
                readings["utc_timestamp"] < last[0].test.start, readings["reading"] * factor
            )
        )
        kept.append(
            evaluate(poisoned, contenders, meter=SETTINGS.meter, splits=last, seeds=1).thresholds
        )
    pd.testing.assert_frame_equal(*kept)


def test_a_contender_may_bring_thresholds_of_its_own(readings, splits):
    class Calibrated(Told):
        def thresholds(self, budget):
            return {1: np.inf, 2: np.inf}

    report = evaluate(
        readings,
        [Calibrated(readings, hard=False)],
        meter=SETTINGS.meter,
        splits=splits,
        seeds=2,
    )

    assert (report.summary()["recall"] == 0).all()
    assert report.swept["found"].max() > 0


def test_random_alerts_keep_their_budget_and_find_little(readings, splits):
    report = evaluate(
        readings,
        [RandomAlerts(SETTINGS.meter, SETTINGS.training)],
        meter=SETTINGS.meter,
        splits=splits,
        seeds=20,
    )

    summary = report.summary().set_index("budget")
    assert summary.loc[1.0, "false_alerts"] == pytest.approx(1, abs=0.6)
    assert summary.loc[1.0, "recall"] < 0.3
    assert (summary["recall_low"] <= summary["recall"]).all()
    assert (summary["recall"] <= summary["recall_high"]).all()


def test_a_contender_without_its_library_is_left_out_with_the_reason(readings, splits):
    missing = LibraryDetector(SETTINGS.meter, SETTINGS.training, algorithm="NotThere")

    report = evaluate(
        readings,
        [missing, AbsoluteChange(SETTINGS.meter, SETTINGS.training)],
        meter=SETTINGS.meter,
        splits=splits,
        seeds=1,
    )

    assert report.skipped["contender"].tolist() == ["PyOD NotThere"]
    assert "requirements-bench.txt" in report.skipped["reason"][0]
    assert report.contenders["contender"].tolist() == ["|diff|"]


@pytest.mark.parametrize("algorithm", ["ECOD", "KNN"])
def test_detectors_of_the_library_score_every_reading_that_has_a_predecessor(readings, algorithm):
    pytest.importorskip("pyod", reason="PyOD (requirements-bench.txt) is not installed")
    train = finite_readings(counters(days=10))

    scores = (
        LibraryDetector(SETTINGS.meter, SETTINGS.training, algorithm=algorithm)
        .fit(train)
        .training_scores()
        .score
    )

    assert np.isnan(scores).sum() == 4  # the first of a machine has no power, the next no change


def test_a_frames_scores_do_not_depend_on_the_frames_beside_it(readings):
    train, other = finite_readings(counters(days=21)), finite_readings(counters(days=8))
    frame = train[train["utc_timestamp"] >= START + pd.Timedelta(days=14)].reset_index(drop=True)
    for contender in (
        HourOfWeekResidual(SETTINGS.meter, SETTINGS.training),
        PrototypeForest(SETTINGS.meter, SETTINGS.training),
    ):
        fitted = contender.fit(train)
        alone, beside = fitted.score([frame])[0], fitted.score([other, frame])[1]
        assert np.array_equal(alone.score, beside.score, equal_nan=True)


def test_the_table_and_the_tables_behind_it_have_a_row_a_contender_and_budget(readings, splits):
    contenders = [
        RandomAlerts(SETTINGS.meter, SETTINGS.training),
        AbsoluteChange(SETTINGS.meter, SETTINGS.training),
    ]

    report = evaluate(readings, contenders, meter=SETTINGS.meter, splits=splits, seeds=3)

    assert report.table().row_count == len(report.summary()) == len(report.quiet()) == 6
    assert len(report.at_rates()) == 6
    families = report.families()
    total = families[families["magnitude"] == "all"].groupby(["contender", "budget"])["events"]
    assert (total.sum() == len(report.events) / 6).all()


def printed(tables, width=200):
    console = Console(width=width, file=StringIO())
    console.print(*tables, sep="\n")
    return console.file.getvalue()


def test_what_is_printed_has_intervals_and_every_family_at_every_magnitude(readings, splits):
    report = evaluate(
        readings,
        [
            AbsoluteChange(SETTINGS.meter, SETTINGS.training),
            RandomAlerts(SETTINGS.meter, SETTINGS.training),
        ],
        meter=SETTINGS.meter,
        splits=splits,
        seeds=6,
    )
    summary = report.summary().iloc[1]

    text = printed(report.tables())

    for name in ("recall", "precision", "delay_hours", "false_alerts"):
        low, high = summary[f"{name}_low"], summary[f"{name}_high"]
        assert f"{summary[name]:.2f} [{low:.2f},{high:.2f}]" in text
    families = set(report.events["family"])
    assert len(families) >= 6
    by_magnitude, by_contender = text.split("|diff|, by family and magnitude")[1].split("Events")
    for family in families:
        assert family in by_magnitude
        assert family in by_contender
    assert by_magnitude.count(" mild ") >= 6
    assert max(map(len, printed(report.tables(), width=80).splitlines())) <= 80


def test_everything_is_there_as_plain_values(readings, splits):
    report = evaluate(
        readings,
        [AbsoluteChange(SETTINGS.meter, SETTINGS.training)],
        meter=SETTINGS.meter,
        splits=splits,
        seeds=2,
    )

    told = json.loads(json.dumps(report.as_dict(), allow_nan=False))

    assert {row["magnitude"] for row in told["families"]} == {"all", "mild", "medium", "strong"}
    assert {"precision_low", "precision_high", "delay_hours_low"} <= set(told["summary"][0])
    assert len(told["undisturbed"]) == 3
    assert told["curves"]
    assert told["thresholds"]


def test_the_picture_is_a_png_or_says_what_it_needs(readings, splits, tmp_path):
    report = evaluate(
        readings,
        [AbsoluteChange(SETTINGS.meter, SETTINGS.training)],
        meter=SETTINGS.meter,
        splits=splits,
        seeds=1,
    )
    try:
        path = report.picture(tmp_path / "picture.png")
    except PictureError as error:
        assert "matplotlib" in str(error)  # noqa: PT017
    else:
        assert path.read_bytes().startswith(b"\x89PNG")


def labelled_csv(tmp_path, minutes=5, label=1):
    times = pd.date_range(START, START + pd.Timedelta(days=18), freq=f"{minutes}min")
    watts = 1000 + np.random.default_rng(0).normal(0, 10, len(times))
    marked = np.zeros(len(times), dtype=int)
    for day in (10, 12, 17):
        rows = slice(day * 1440 // minutes, (day * 1440 + 60) // minutes)
        watts[rows], marked[rows] = 3000, label
    path = tmp_path / "labelled.csv"
    table = {"utc_timestamp": times, "machine_id": "pump", "reading": watts, "label": marked}
    pd.DataFrame(table).to_csv(path, index=False)
    return path


def test_a_labelled_table_in_watts_at_any_interval_is_judged(tmp_path):
    settings = load_settings({}, reading_kind="power_w", interval_minutes=5)

    labelled = read_labelled(labelled_csv(tmp_path), settings.meter_table, settings.meter)
    report = judge_labelled(
        labelled,
        [HourOfWeekResidual(settings.meter, settings.training)],
        meter=settings.meter,
        budgets=(0.5, 1),
    )

    assert labelled.machines == {"pump": 1}
    assert [event.end - event.start for event in labelled.events] == [timedelta(minutes=55)] * 3
    assert report.summary()["recall"].tolist() == [1, 1]
    assert report.quiet().empty
    assert "labelled" in printed(report.tables())


def test_a_labelled_table_at_another_interval_than_the_settings_is_refused(tmp_path):
    with pytest.raises(SourceError, match="5 minutes apart, not 15: set ANOMALY_INTERVAL_MINUTES"):
        read_labelled(labelled_csv(tmp_path), SETTINGS.meter_table, SETTINGS.meter)


def test_a_label_that_is_neither_0_nor_1_is_refused(tmp_path):
    with pytest.raises(SourceError, match="label 2 in column 'label' is neither 0 nor 1"):
        read_labelled(
            labelled_csv(tmp_path, minutes=15, label=2), SETTINGS.meter_table, SETTINGS.meter
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: write a header"),
        (b"{head}\n", "there is no row below the header"),
        (b"{head}\n2024-01-01T00:00Z,1,5,0\n", "no machine has two readings"),
        (b"{head}\n{row},0\n2024-01-01T00:15Z,1,6,0\n", "that is less than 1 day, give more"),
        (b"{head}\n2024-01-01T00:00Z,\xff,5,0\n", "byte 0xff is not UTF-8: save the file as CSV"),
        (b"{head}\n{row},0\n{row},0,9\n", r"is not CSV \(Expected 4 fields in line 3, saw 5\)"),
        (b"{head}\n{row},0,9\n", "line 2 holds more fields than the header: name every column"),
        (b"{head}\n{row},0\n{row},no\n", "label 'no' in column 'label' is neither 0 nor 1"),
        (b"{head}\n,1,5,0\n", "column 'utc_timestamp' is empty in row 1: fill it in"),
        (b"{head}\n{row},0\n2024-01-01T00:15Z,1,x,0\n", "'x' in column 'reading' is not a number"),
        (b"{head}\n{row},0\n2024-01-01T00:15Z,,5,0\n", "column 'machine_id' is empty in row 2"),
    ],
)
def test_a_file_of_labels_that_cannot_be_judged_is_refused(tmp_path, content, message):
    path = tmp_path / "labels.csv"
    head, row = b"utc_timestamp,machine_id,reading,label", b"2024-01-01T00:00Z,1,5"
    path.write_bytes(content.replace(b"{head}", head).replace(b"{row}", row))

    with pytest.raises(SourceError, match=message):
        judge_labelled(
            read_labelled(path, SETTINGS.meter_table, SETTINGS.meter), [], meter=SETTINGS.meter
        )


def test_a_file_of_labels_that_is_no_good_is_named(tmp_path):
    path = tmp_path / "labels.csv.gz"
    path.write_bytes(b"utc_timestamp,reading,label\n")

    with pytest.raises(SourceError, match=r"labels\.csv\.gz is a damaged gzip file .*: copy it"):
        read_labelled(path, SETTINGS.meter_table, SETTINGS.meter)
    with pytest.raises(SourceError, match=r"labelled\.csv: readings are 5 minutes apart"):
        read_labelled(labelled_csv(tmp_path), SETTINGS.meter_table, SETTINGS.meter)


def test_numbers_too_large_for_an_id_are_names(tmp_path):
    path = labelled_csv(tmp_path, minutes=15)
    path.write_text(path.read_text().replace("pump", "9" * 20))

    assert read_labelled(path, SETTINGS.meter_table, SETTINGS.meter).machines == {"9" * 20: 1}


def test_a_labelled_table_without_labels_is_refused(tmp_path):
    with pytest.raises(SourceError, match="column 'truth' is missing"):
        read_labelled(
            labelled_csv(tmp_path, minutes=15), SETTINGS.meter_table, SETTINGS.meter, label="truth"
        )


def test_on_real_readings_luck_finds_far_less_than_a_change_of_power(shared_data):
    wide = pd.read_csv(shared_data / "industrial3_15min.csv", parse_dates=["utc_timestamp"])
    names = {f"machine_{number}": number for number in (1, 2, 3)}
    long = wide.rename(columns=names).melt(
        "utc_timestamp", list(names.values()), "machine_id", "reading"
    )

    report = evaluate(
        long,
        baselines(SETTINGS.meter, SETTINGS.training)[:2],
        meter=SETTINGS.meter,
        zone="Europe/Berlin",
        seeds=4,
    )

    recall = report.summary().set_index(["contender", "budget"])["recall"]
    assert recall["random", 1.0] < 0.15 < 0.35 < recall["|diff|", 1.0]
    assert report.thresholds["origin"].nunique() == 5
