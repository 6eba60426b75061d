"""The eight steps: the prototype's results, and where we differ from it on purpose."""

import doctest

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from anomaly import windows
from anomaly.detectors.prototype import PrototypeDetector, fit_forest
from anomaly.errors import SourceError
from anomaly.readings import quality
from anomaly.readings import transformers as preprocessing
from anomaly.readings.record import RECORD
from anomaly.readings.transformers import (
    ColumnDropper,
    MachineIdExtractor,
    MachineMelter,
    MachineTimeSorter,
    MissingDropper,
    PowerDiff,
    TimestampParser,
    build_pipeline,
    feature_columns,
)
from anomaly.settings import load_settings

STEPS = (
    ColumnDropper, TimestampParser, MachineMelter, MissingDropper, MachineIdExtractor,
    MachineTimeSorter, PowerDiff,
)  # fmt: skip


@pytest.fixture(scope="module")
def reference(shared_data):
    frame = pd.read_csv(shared_data / "prototype_reference.csv")
    return frame.assign(utc_timestamp=pd.to_datetime(frame["utc_timestamp"], utc=True))


def records(*values, machine="machine_1", start="2017-03-07 00:00+00:00"):
    times = pd.date_range(start, periods=len(values), freq="15min")
    return pd.DataFrame({"utc_timestamp": times.astype(str), machine: values})


@pytest.mark.parametrize("module", [preprocessing, quality, windows])
def test_the_examples_in_the_docstrings_hold(module):
    failed, attempted = doctest.testmod(module)

    assert failed == 0
    assert attempted > 0 or module is quality


def test_power_diff_equals_the_prototypes_on_every_real_reading(shared_data, reference):
    wide = pd.read_csv(shared_data / "industrial3_15min.csv")

    ours = build_pipeline(load_settings({}).meter_table, load_settings({}).meter)[:7].fit_transform(
        wide
    )

    both = ours.merge(reference, on=["machine_id", "utc_timestamp"], suffixes=("", "_reference"))
    assert len(both) == 33_025
    np.testing.assert_allclose(both["power_diff"], both["power_diff_reference"], atol=1e-6, rtol=0)


def test_a_forest_trained_as_the_prototypes_agrees_with_its_labels(shared_data, reference):
    sample = pd.read_csv(shared_data / "industrial3_power_diff_sample_2015_2017.csv")

    settings = load_settings({})
    detector = PrototypeDetector.compile(fit_forest(sample, settings.training), settings.meter)
    everything = np.ones(len(reference), dtype=bool)
    agreement = (detector.score(reference, everything).anomaly == reference["anomaly"]).mean()

    assert agreement >= 0.99


def test_the_whole_record_of_22_fields_goes_through_the_eight_steps():
    record = dict.fromkeys(RECORD, 1.0)
    record |= {"utc_timestamp": "2024-02-10 14:30:00", "cet_cest_timestamp": "2024-02-10 15:30:00"}

    features = build_pipeline(
        load_settings({}, source_timezone="UTC").meter_table,
        load_settings({}, source_timezone="UTC").meter,
    ).fit_transform(pd.DataFrame([record]))

    assert len(record) == 22
    assert features.shape == (5, 6)  # five machines; one column each, and power_diff


@pytest.mark.parametrize("step", STEPS)
def test_a_step_can_be_cloned_and_names_its_columns(step):
    pipeline = build_pipeline(load_settings({}).meter_table, load_settings({}).meter)
    wide = records(4.0, 5.0)
    for _, before in pipeline.steps:
        if isinstance(before, step):
            break
        wide = before.fit_transform(wide)

    copy = clone(before).set_output(transform="pandas")
    out = copy.fit_transform(wide)

    assert list(copy.get_feature_names_out()) == out.columns.tolist()


def test_a_two_hour_gap_is_not_an_eight_fold_spike():
    wide = records(0.0, 1.0, 2.0).assign(
        utc_timestamp=["2017-03-07 00:00Z", "2017-03-07 00:15Z", "2017-03-07 02:15Z"]
    )

    ours = build_pipeline(load_settings({}).meter_table, load_settings({}).meter)[:7].fit_transform(
        wide
    )

    assert ours["power_diff"].tolist() == [0.0, 4.0, 0.5]


def test_a_previous_reading_more_than_a_week_back_counts_as_none():
    wide = records(0.0, 1.0, 2.0).assign(
        utc_timestamp=["2017-03-01 00:00Z", "2017-03-08 00:00Z", "2017-03-15 00:15Z"]
    )

    ours = build_pipeline(load_settings({}).meter_table, load_settings({}).meter)[:7].fit_transform(
        wide
    )

    assert ours["elapsed_hours"].isna().tolist() == [True, False, True]
    assert ours["power_diff"].tolist()[2] == 0.0


def test_power_is_the_change_over_the_elapsed_time_however_short():
    wide = records(0.0, 1.0).assign(utc_timestamp=["2017-03-07 00:00Z", "2017-03-07 00:01Z"])

    ours = build_pipeline(load_settings({}).meter_table, load_settings({}).meter)[:7].fit_transform(
        wide
    )

    assert ours["power_diff"].tolist() == [0.0, 60.0]


def test_a_reading_within_seconds_of_another_is_compared_with_the_one_before():
    times = ["2017-03-07 00:00Z", "2017-03-07 00:15Z", "2017-03-07 00:15:02Z"]
    wide = records(0.0, 1.0, 1.0).assign(utc_timestamp=times)

    ours = build_pipeline(load_settings({}).meter_table, load_settings({}).meter)[:7].fit_transform(
        wide
    )

    assert ours["power_diff"].tolist() == pytest.approx([0.0, 4.0, 4.0], rel=0.01)


def test_categories_are_fixed_at_training_and_an_unseen_machine_breaks_nothing():
    trained = feature_columns().fit(pd.DataFrame({"machine_id": [1, 2], "power_diff": [0.0, 1.0]}))

    features = trained.transform(pd.DataFrame({"machine_id": [3], "power_diff": [5.0]}))

    assert features.tolist() == [[0.0, 0.0, 5.0]]


def test_of_two_rows_for_one_reading_the_later_ingested_stays_marked():
    long = pd.DataFrame(
        {"machine_id": 1, "utc_timestamp": [0, 0], "reading": [9.0, 4.0], "ingested_at": [1, 2]}
    )

    ours = MachineTimeSorter().transform(long)

    assert ours[["reading", "duplicate"]].values.tolist() == [[4.0, True]]


@pytest.mark.parametrize("instants", [5, 2**62])
def test_sorting_by_one_number_is_sorting_by_machine_and_time(instants):
    random = np.random.default_rng(3)
    ticks = np.linspace(-instants, instants, 5).astype(np.int64)
    long = pd.DataFrame(
        {
            "machine_id": random.integers(1, 4, 30),
            "utc_timestamp": pd.to_datetime(random.choice(ticks, 30), unit="us"),
            "ingested_at": random.integers(0, 3, 30),
            "reading": random.integers(0, 3, 30).astype(float),
        }
    )
    keys = ["machine_id", "utc_timestamp"]
    plain = long.sort_values([*keys, "ingested_at", "reading"], kind="stable", ignore_index=True)
    plain["duplicate"] = plain.duplicated(keys)
    plain = plain.drop_duplicates(keys, keep="last", ignore_index=True)

    pd.testing.assert_frame_equal(MachineTimeSorter().transform(long), plain)
    once = plain.drop(columns="duplicate")
    shuffled = once.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(
        MachineTimeSorter().transform(shuffled), once.assign(duplicate=False)
    )


def test_a_naive_timestamp_is_refused_unless_its_zone_is_set():
    naive = pd.DataFrame({"utc_timestamp": ["2024-02-10 14:30:00"]})

    with pytest.raises(SourceError, match="has no time zone: set ANOMALY_SOURCE_TIMEZONE"):
        TimestampParser(zone=None).transform(naive)
    berlin = TimestampParser(zone="Europe/Berlin").transform(naive)

    assert berlin["utc_timestamp"].astype(str).tolist() == ["2024-02-10 13:30:00+00:00"]


def test_an_end_label_is_turned_into_the_start_of_its_interval():
    ended = pd.DataFrame({"utc_timestamp": ["2024-02-10 14:30:00Z"]})

    ours = TimestampParser(label="end", interval_minutes=15).transform(ended)

    assert ours["utc_timestamp"].astype(str).tolist() == ["2024-02-10 14:15:00+00:00"]


def test_a_time_shown_twice_is_taken_as_its_second_one_skipped_as_standard_time_has_it():
    local = pd.DataFrame({"utc_timestamp": ["2024-10-27 02:30:00", "2024-03-31 02:30:00"]})

    ours = TimestampParser(zone="Europe/Berlin").transform(local)["utc_timestamp"]

    assert ours.astype(str).tolist() == ["2024-10-27 01:30:00+00:00", "2024-03-31 01:30:00+00:00"]


def test_an_unreadable_timestamp_is_named():
    with pytest.raises(SourceError, match="yesterday"):
        TimestampParser().transform(pd.DataFrame({"utc_timestamp": ["yesterday"]}))
