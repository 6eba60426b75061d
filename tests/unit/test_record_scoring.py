"""Records judged at once get the verdicts of the steps one after the other, or are refused."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from meters import MONDAY, SETTINGS, measured, shifts, steady
from meters import machines as known
from sklearn.pipeline import Pipeline

from anomaly.detectors.prototype import PrototypeDetector, fit_forest
from anomaly.detectors.signals.training import train_signals
from anomaly.errors import RecordError
from anomaly.models.drift import Reference
from anomaly.models.model import Model
from anomaly.models.verdicts import verdicts_on
from anomaly.readings.measuring import measure
from anomaly.readings.meter_faults import profile_machines
from anomaly.readings.record import METERS, RECORD
from anomaly.readings.transformers import MachineTimeSorter, PowerDiff, reading_steps
from anomaly.scoring.record_scoring import judge_records
from anomaly.settings import load_settings

UTC_SETTINGS = load_settings({}, source_timezone="UTC")
MACHINES = range(1, 6)
FIRST = {"utc_timestamp": "2024-02-10 14:30:00", "machine_1": 1200.5}


@pytest.fixture(scope="module")
def learnt():
    powers = [shifts(21), steady(21), shifts(21, 8.0, seed=4), steady(21, seed=5), steady(21, 1.0)]
    return measured(dict(zip(MACHINES, powers, strict=True)))


@pytest.fixture(scope="module")
def models(learnt):
    forest = fit_forest(learnt, load_settings({}, forest_trees=30).training)
    trained = train_signals(learnt, known(*MACHINES), SETTINGS.meter, SETTINGS.training)
    detectors = {
        "prototype": PrototypeDetector.compile(forest, SETTINGS.meter),
        "signals": trained.detector,
    }
    return {
        name: Model(detector, profile_machines(learnt), "energy_kwh", 15, Reference.of(learnt))
        for name, detector in detectors.items()
    }


def limits(**columns):
    table = pd.DataFrame({"machine_id": MACHINES, "max_power_kw": np.nan, "rolls_over_at": np.nan})
    return table.assign(**columns)


def slowly(records, model, previous=None, machines=None, settings=UTC_SETTINGS):
    """Each step after the other, as the pipeline has them, on a table."""
    steps = Pipeline(reading_steps(settings.meter_table, settings.meter))
    long = steps[:-2].transform(pd.DataFrame(records)).assign(wanted=1)
    if previous is not None:
        told = pd.MultiIndex.from_frame(long[["machine_id", "utc_timestamp"]])
        asked = pd.MultiIndex.from_frame(previous[["machine_id", "utc_timestamp"]])
        long = pd.concat([previous[~asked.isin(told)].assign(wanted=0), long], ignore_index=True)
    meter = settings.meter
    readings = PowerDiff(meter.interval_minutes, meter.max_gap_days, meter.change_scale).transform(
        MachineTimeSorter().transform(long)
    )
    frame = measure(readings, limits() if machines is None else machines, settings.meter)
    return verdicts_on(frame, frame["wanted"].to_numpy() == 1, model, settings.meter)


def as_records(learnt, start, count):
    """The 22-field record of each quarter-hour."""
    wide = learnt.pivot(index="utc_timestamp", columns="machine_id", values="reading")
    rows = wide.iloc[start : start + count]
    return [
        dict.fromkeys(RECORD, 0.0)
        | {"utc_timestamp": str(stamp.tz_localize(None)), "cet_cest_timestamp": "2017"}
        | {f"machine_{n}": float(row[n]) for n in MACHINES}
        for stamp, row in rows.iterrows()
    ]


@pytest.mark.parametrize("detector", ["prototype", "signals"])
@pytest.mark.parametrize("count", [1, 2, 300])
def test_verdicts_are_those_of_the_steps(models, learnt, detector, count):
    records = as_records(learnt, 700, count)

    ours = judge_records(records, models[detector], UTC_SETTINGS.meter_table, UTC_SETTINGS.meter)

    assert len(ours) == 5 * count
    pd.testing.assert_frame_equal(ours, slowly(records, models[detector]))


@pytest.mark.parametrize("detector", ["prototype", "signals"])
def test_previous_readings_give_the_verdicts_of_the_whole_series(models, learnt, detector):
    records = as_records(learnt, 700, 40)
    whole = judge_records(
        as_records(learnt, 500, 240), models[detector], UTC_SETTINGS.meter_table, UTC_SETTINGS.meter
    )
    stamps = learnt["utc_timestamp"]
    earlier = learnt[(stamps >= stamps[500]) & (stamps < stamps[705])]  # five of them corrected

    ours = judge_records(
        records, models[detector], UTC_SETTINGS.meter_table, UTC_SETTINGS.meter, previous=earlier
    )

    expected = whole[whole["utc_timestamp"] >= stamps[700]].reset_index(drop=True)
    pd.testing.assert_frame_equal(ours, expected)


@pytest.mark.parametrize(
    ("kind", "unit"),
    [("energy_kwh", ""), ("energy_kwh_today", "MWh"), ("energy_kwh_per_interval", "Wh")],
)
@hypothesis_settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_records_get_the_verdicts_of_the_steps(models, kind, unit, data):
    settings = UTC_SETTINGS.changed(reading_kind=kind, reading_unit=unit)
    numbers = st.none() | st.floats() | st.integers(-5, 5)
    columns = {f"machine_{n}": numbers for n in (3, 1, 12)} | {"ev": numbers}
    record = st.fixed_dictionaries({"utc_timestamp": st.integers(0, 40)} | columns)
    records = [
        row
        | {"utc_timestamp": (MONDAY + pd.Timedelta(minutes=5 * row["utc_timestamp"])).isoformat()}
        for row in data.draw(st.lists(record, min_size=1, max_size=20))
    ]
    previous = pd.DataFrame(
        {
            "machine_id": np.repeat([1, 3], 8),
            "utc_timestamp": [*pd.date_range(MONDAY, periods=8, freq="15min")] * 2,
            "reading": np.arange(16.0),
        }
    ).astype({"utc_timestamp": "datetime64[us, UTC]"})
    given_previous = data.draw(st.sampled_from([None, previous]))
    machines = limits(max_power_kw=3.0, rolls_over_at=1000.0)
    for model in models.values():
        ours = judge_records(
            records, model, settings.meter_table, settings.meter, given_previous, machines
        )

        expected = slowly(records, model, given_previous, machines, settings)
        pd.testing.assert_frame_equal(ours, expected)


@pytest.mark.parametrize(
    ("stamp", "settings"),
    [
        ("2024-02-10T14:30:00Z", {}),
        ("2024-02-10 15:30:00+01:00", {}),
        (datetime(2024, 2, 10, 14, 30, tzinfo=UTC), {}),
        ("2024-02-10 14:30:00", {}),
        ("2024-02-10 15:30:00", {"source_timezone": "Europe/Berlin"}),
        ("2024-02-10 14:45:00", {"timestamp_label": "end"}),
    ],
)
def test_a_timestamp_is_understood_as_the_steps_do(models, stamp, settings):
    record = {"utc_timestamp": stamp, "machine_1": 1.0}

    found = judge_records(
        [record],
        models["prototype"],
        load_settings({}, **settings).meter_table,
        load_settings({}, **settings).meter,
    )

    assert found["utc_timestamp"].tolist() == [pd.Timestamp("2024-02-10 14:30", tz="UTC")]


def test_no_records_give_no_verdicts(models):
    for model in models.values():
        found = judge_records([], model, SETTINGS.meter_table, SETTINGS.meter)

        assert len(found) == 0
        assert {"utc_timestamp", "machine_id", "anomaly", "quality"} <= {*found.columns}


def test_record_scoring_without_a_reading_give_no_verdict(models):
    records = [FIRST | {"machine_1": value} for value in (None, float("nan"), float("inf"))]

    assert judge_records(records, models["prototype"], SETTINGS.meter_table, SETTINGS.meter).empty


def test_a_number_may_be_a_text_as_it_might_for_the_prototype(models):
    records = [FIRST | {"machine_1": "1200.5", "ev": "0"}]

    found = judge_records(records, models["prototype"], SETTINGS.meter_table, SETTINGS.meter)

    assert found["reading"].tolist() == [1200.5]


def test_fields_that_no_verdict_needs_change_nothing(models):
    record = FIRST | {"id": "x", "ingested_at": None, "remark": ["any"]}

    found = judge_records([record], models["prototype"], SETTINGS.meter_table, SETTINGS.meter)

    assert found["machine_id"].tolist() == [1]


def test_of_two_records_of_one_time_the_higher_reading_is_judged_and_marked(models):
    records = [FIRST | {"machine_1": value} for value in (7.0, 9.0, 8.0)]

    found = judge_records(records, models["prototype"], SETTINGS.meter_table, SETTINGS.meter)

    assert found["reading"].tolist() == [9.0]


def test_a_field_that_is_mapped_to_a_machine_is_one(models):
    settings = load_settings({}, source_machines={"Pump A": 2, "ev": 7})
    record = {"utc_timestamp": "2024-02-10T14:30:00Z", "Pump A": 4.0, "ev": 1.0}

    found = judge_records([record], models["prototype"], settings.meter_table, settings.meter)

    assert found["machine_id"].tolist() == [2, 7]


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ({"utc_timestamp": "x"}, "records are dict: send a list"),
        ([FIRST, 3], "record 2 is 3: send an object"),
        ([{"machine_1": 1.0}], "record 1 has no utc_timestamp: send it"),
        ([FIRST | {"machine_2": 1}, FIRST], "record 2 has no machine_2: send it, null where"),
        ([FIRST, FIRST | {"machine_1": "1,2"}], "record 2: machine_1 is '1,2': send a number"),
        ([FIRST | {"machine_1": True}], "record 1: machine_1 is True: send a number"),
        ([FIRST | {"machine_1": 10**400}], "record 1: machine_1 is too large"),
        ([FIRST | {"ev": [1]}], r"record 1: ev is \[1\]: send a number"),
        ([FIRST | {"cet_cest_timestamp": 4}], "record 1: cet_cest_timestamp is 4: send ISO 8601"),
        ([FIRST | {"machnie_2": 1.0}], "field 'machnie_2' is not known: did you mean machine_2?"),
        ([FIRST | {"Machine_2": 1.0}], "field 'Machine_2' is not known: did you mean machine_2?"),
        ([FIRST | {"machine_01": 1.0}], "machine_1 and machine_01 are the same machine: send one"),
        ([FIRST | {"machine_9999999999": 1.0}], "'machine_9999999999' is no machine: the largest"),
        ([{"utc_timestamp": "2024", "ev": 1.0}], "no field of the records is a machine: send mach"),
        (
            [FIRST | {"utc_timestamp": "1969-12-31"}],
            "record 1: .*'1969-12-31': send a time from",
        ),
        (
            [FIRST | {"utc_timestamp": "9999-12-31"}],
            "record 1: .*'9999-12-31': send a time from",
        ),
        ([FIRST, FIRST | {"utc_timestamp": 17}], "record 2: utc_timestamp is 17: send ISO 8601"),
        ([FIRST, FIRST | {"utc_timestamp": "noon"}], "record 2: utc_timestamp is 'noon': send"),
        ([FIRST | {"utc_timestamp": "now"}], "record 1: utc_timestamp is 'now': send ISO 8601"),
        ([FIRST | {"utc_timestamp": " today"}], "record 1: utc_timestamp is ' today': send ISO"),
        ([FIRST | {"utc_timestamp": ""}], "record 1: utc_timestamp is '': send ISO 8601"),
        ([FIRST | {"utc_timestamp": "x" * 999}], r"record 1: utc_timestamp is 'x+\.\.\.: send"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(models, records, said):
    with pytest.raises(RecordError, match=said) as refusal:
        judge_records(records, models["prototype"], SETTINGS.meter_table, SETTINGS.meter)

    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_the_record_has_the_meters_of_the_prototype():
    assert len(RECORD) == 22
    assert {f"machine_{n}" for n in MACHINES} <= {*METERS}
