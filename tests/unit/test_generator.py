"""Generated readings are repeatable, grow at their end only, and look like a plant's."""

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import PROPERTY

from anomaly.demo.generator import ZONE, Fault, GeneratedReadings, generate
from anomaly.errors import WindowError
from anomaly.readings.record import METERS, RECORD

QUARTER = timedelta(minutes=15)
START = datetime(2024, 1, 1, tzinfo=UTC)
TEN_WEEKS = timedelta(weeks=10)

Faulty = Callable[[str], tuple[Fault, pd.Series, pd.Series]]


@pytest.fixture(scope="module")
def plant() -> GeneratedReadings:
    return generate(START, START + TEN_WEEKS)


@pytest.fixture(scope="module")
def power(plant: GeneratedReadings) -> pd.DataFrame:
    """Mean power in kW by local time, without faults or missing readings."""
    healthy = generate(START, START + TEN_WEEKS, faults=False).frame
    return local_power(healthy)


def local_power(frame: pd.DataFrame) -> pd.DataFrame:
    counters = frame.set_index("utc_timestamp")[list(METERS)].tz_convert(ZONE)
    return counters.interpolate().diff() * 4


@pytest.fixture(scope="module")
def faulty() -> Faulty:
    """Find a fault of a kind, with its machine's counter with and without faults."""
    end = START + timedelta(weeks=26)
    disturbed, healthy = generate(START, end), generate(START, end, faults=False)

    def find(kind: str) -> tuple[Fault, pd.Series, pd.Series]:
        fault = next(fault for fault in disturbed.faults if fault.kind == kind)
        inside = (healthy.frame["utc_timestamp"] >= fault.start - QUARTER) & (
            healthy.frame["utc_timestamp"] < fault.end
        )
        return fault, disturbed.frame[fault.machine][inside], healthy.frame[fault.machine][inside]

    return find


# The record ---------------------------------------------------------------


def test_the_frame_is_the_record_of_22_fields(plant: GeneratedReadings) -> None:
    assert list(plant.frame.columns) == list(RECORD)
    assert plant.frame["utc_timestamp"].dtype == "datetime64[us, UTC]"
    assert set(plant.frame[list(METERS)].dtypes) == {np.dtype(float)}


def test_there_is_one_row_a_quarter_hour_and_the_end_is_not_included(
    plant: GeneratedReadings,
) -> None:
    moments = plant.frame["utc_timestamp"]

    assert len(moments) == 6720
    assert (moments.iloc[0], moments.iloc[-1]) == (START, START + TEN_WEEKS - QUARTER)
    assert moments.diff().dropna().eq(QUARTER).all()


def test_ends_between_quarter_hours_move_to_the_next() -> None:
    minutes = timedelta(minutes=7)

    moments = generate(START + minutes, START + 2 * QUARTER + minutes).frame["utc_timestamp"]

    assert moments.tolist() == [START + QUARTER, START + 2 * QUARTER]


def test_local_time_is_written_as_in_the_public_data() -> None:
    start = datetime(2017, 3, 26, 0, 45, tzinfo=UTC)

    frame = generate(start, start + 2 * QUARTER).frame

    assert frame["cet_cest_timestamp"].tolist() == [
        "2017-03-26T01:45:00+0100",
        "2017-03-26T03:00:00+0200",
    ]


def test_counters_have_a_resolution_of_a_thousandth(plant: GeneratedReadings) -> None:
    counters = plant.frame[list(METERS)]

    assert counters.equals(counters.round(3))


def test_counters_never_fall_without_faults() -> None:
    counters = generate(START, START + TEN_WEEKS, faults=False).frame[list(METERS)]

    assert (counters.ffill().diff().dropna() >= 0).all(axis=None)


def test_about_one_cell_in_a_thousand_is_missing() -> None:
    counters = generate(START, START + TEN_WEEKS, faults=False).frame[list(METERS)]

    assert 0.0007 < counters.isna().mean(axis=None) < 0.0013


@pytest.mark.parametrize("end", [START, START - QUARTER])
def test_an_empty_range_is_refused(end: datetime) -> None:
    with pytest.raises(WindowError, match="is empty"):
        generate(START, end)


def test_a_range_without_a_zone_is_refused() -> None:
    with pytest.raises(WindowError, match="has no time zone"):
        generate(datetime(2024, 1, 1), datetime(2024, 1, 2))


def test_ten_weeks_take_less_than_a_second() -> None:
    began = time.perf_counter()
    generate(START, START + TEN_WEEKS)

    assert time.perf_counter() - began < 1


# Repeatable ---------------------------------------------------------------


@PROPERTY
@given(
    start=st.datetimes(datetime(2015, 1, 1), datetime(2030, 1, 1)),
    quarters=st.integers(1, 1500),
    more=st.integers(1, 200),
    seed=st.integers(0, 2**32),
    faults=st.booleans(),
)
def test_a_later_end_only_appends(
    start: datetime, quarters: int, more: int, seed: int, faults: bool
) -> None:
    start = start.replace(tzinfo=UTC)
    end = start + quarters * QUARTER

    shorter = generate(start, end, seed=seed, faults=faults)
    longer = generate(start, end + more * QUARTER, seed=seed, faults=faults)

    pd.testing.assert_frame_equal(shorter.frame, longer.frame.head(quarters), check_exact=True)
    assert shorter.faults == longer.faults[: len(shorter.faults)]


def test_every_single_quarter_hour_of_a_week_may_be_the_end() -> None:
    whole = generate(START, START + timedelta(weeks=1)).frame

    for rows in range(1, len(whole), 5):
        part = generate(START, START + rows * QUARTER).frame
        pd.testing.assert_frame_equal(part, whole.head(rows), check_exact=True)


@PROPERTY
@given(seed=st.integers(0, 2**32))
def test_another_seed_is_another_plant(seed: int) -> None:
    day = START + timedelta(days=1)

    one, other = (generate(START, day, seed=n).frame for n in (seed, seed + 1))

    assert not one["machine_2"].diff().equals(other["machine_2"].diff())


def test_the_power_at_a_moment_does_not_depend_on_the_start() -> None:
    end = START + timedelta(weeks=2)

    early = local_power(generate(START, end).frame)["machine_3"]
    late = local_power(generate(START + timedelta(days=9), end).frame)["machine_3"].iloc[1:]

    assert np.allclose(early.loc[late.index], late, atol=0.26)  # a pulse a quarter-hour


# Like a plant -------------------------------------------------------------


def test_machine_1_idles_at_night_and_runs_with_the_shifts_of_working_days(
    power: pd.DataFrame,
) -> None:
    machine = power["machine_1"].dropna()
    night = machine.between_time("22:15", "05:45")
    running = machine[machine > 20]

    assert night.between(0.1, 0.6).all()
    assert running.median() == pytest.approx(31, abs=2)
    assert 36 < machine.max() < 46
    assert set(running.index.day_of_week) == {0, 1, 2, 3, 4}
    assert 0.1 < len(running) / len(machine) < 0.5


def test_machine_2_and_3_hold_their_base_load(power: pd.DataFrame) -> None:
    assert power["machine_2"].median() == pytest.approx(9.25, abs=0.1)
    assert power["machine_3"].median() == pytest.approx(16.1, abs=0.2)


def test_machine_3_is_busiest_on_wednesday_and_thursday(power: pd.DataFrame) -> None:
    of_weekday = power["machine_3"].groupby(power.index.day_of_week).mean()

    assert set(of_weekday.nlargest(2).index) == {2, 3}


def test_machine_4_is_nearly_always_off_and_machine_5_always(power: pd.DataFrame) -> None:
    assert (power["machine_4"] < 0.1).mean() > 0.9
    assert power["machine_4"].max() > 2
    assert power["machine_5"].max() == 0


@pytest.mark.parametrize("meter", ["compressor", "ventilation", "cooling_pumps"])
def test_the_building_follows_the_shifts(meter: str, power: pd.DataFrame) -> None:
    working = power[meter][power.index.day_of_week < 5].between_time("08:00", "13:00")
    sunday = power[meter][power.index.day_of_week == 6].between_time("08:00", "13:00")

    assert working.mean() > 2 * sunday.mean()


@pytest.mark.parametrize("meter", ["pv_roof", "pv_facade"])
def test_photovoltaics_follow_the_sun(meter: str, power: pd.DataFrame) -> None:
    assert power[meter].between_time("21:00", "04:00").max() == 0
    assert power[meter].between_time("11:00", "14:00").mean() > 1


def test_cars_charge_in_the_evening(power: pd.DataFrame) -> None:
    charging = power["ev"][power["ev"] > 3]

    assert charging.between_time("16:15", "23:30").size == charging.size > 0


def test_what_the_plant_draws_comes_from_the_grid_or_the_sun(power: pd.DataFrame) -> None:
    sun = power["pv_roof"] + power["pv_facade"]
    used = power.drop(columns=["grid_import", "pv_roof", "pv_facade"]).sum(axis=1)

    assert power["grid_import"].sum() >= (used - sun).sum() - 1


# Faults -------------------------------------------------------------------


def test_two_or_three_faults_fall_in_each_week() -> None:
    faults = generate(START, START + timedelta(weeks=26)).faults
    weeks = Counter(fault.start.astimezone(ZONE).isocalendar().week for fault in faults)

    assert set(weeks.values()) <= {1, 2, 3}
    assert 2 <= len(faults) / 26 <= 3


@PROPERTY
@given(seed=st.integers(0, 1000), weeks=st.integers(0, 500))
def test_three_weeks_hold_a_handful_of_faults(seed: int, weeks: int) -> None:
    start = START + timedelta(weeks=weeks)

    faults = generate(start, start + timedelta(weeks=3), seed=seed).faults

    assert 4 <= len(faults) <= 9
    assert len({fault.kind for fault in faults}) >= 3


def test_faults_come_in_seven_kinds_and_the_counter_reset_is_the_rarest() -> None:
    faults = generate(START, START + timedelta(weeks=104)).faults
    kinds = Counter(fault.kind for fault in faults)

    assert len(kinds) == 7
    assert kinds.most_common()[-1][0] == "counter_reset"


@PROPERTY
@given(seed=st.integers(0, 1000))
def test_faults_of_one_machine_do_not_overlap(seed: int) -> None:
    faults = generate(START, START + TEN_WEEKS, seed=seed).faults

    for machine in ("machine_1", "machine_2", "machine_3"):
        own = [fault for fault in faults if fault.machine == machine]
        assert all(one.end <= other.start for one, other in pairwise(own))


def test_without_faults_there_are_none() -> None:
    assert generate(START, START + TEN_WEEKS, faults=False).faults == []


def test_readings_of_machines_without_a_fault_are_the_same_with_and_without_faults(
    plant: GeneratedReadings,
) -> None:
    healthy = generate(START, START + TEN_WEEKS, faults=False).frame

    same = ["compressor", "machine_4", "machine_5", "ev"]
    pd.testing.assert_frame_equal(plant.frame[same], healthy[same])


def test_a_spike_is_one_reading_of_a_multiple(faulty: Faulty) -> None:
    fault, disturbed, healthy = faulty("spike")

    assert fault.end - fault.start == QUARTER
    assert disturbed.diff().iloc[-1] > healthy.diff().iloc[-1] + 5


def test_an_overload_draws_a_third_more(faulty: Faulty) -> None:
    fault, disturbed, healthy = faulty("overload")

    assert fault.end - fault.start >= timedelta(hours=4)
    assert 1.25 < disturbed.diff().mean() / healthy.diff().mean() < 1.65


def test_a_stuck_meter_stands_still_and_then_catches_up(faulty: Faulty) -> None:
    _, disturbed, healthy = faulty("stuck")

    assert disturbed.dropna().iloc[:-1].nunique() == 1
    assert disturbed.diff().iloc[-1] == pytest.approx(healthy.diff().sum(), abs=0.01)


def test_a_dropout_has_no_readings(faulty: Faulty) -> None:
    _, disturbed, _ = faulty("dropout")

    assert disturbed.iloc[1:].isna().all()


def test_a_reset_counter_begins_again_near_0(faulty: Faulty) -> None:
    _, disturbed, healthy = faulty("counter_reset")

    assert healthy.iloc[-1] > 1000
    assert 0 <= disturbed.iloc[-1] < 50


def test_a_machine_that_runs_on_draws_full_power_at_night(faulty: Faulty) -> None:
    fault, disturbed, healthy = faulty("night_run_on")

    assert fault.start.astimezone(ZONE).hour == 21
    assert disturbed.diff().iloc[8:].mean() * 4 == pytest.approx(30, abs=1.5)
    assert healthy.diff().iloc[8:].mean() * 4 < 0.5


def test_a_missed_cycle_leaves_the_machine_off_on_a_working_day(faulty: Faulty) -> None:
    fault, disturbed, healthy = faulty("missed_cycle")

    assert fault.start.astimezone(ZONE).weekday() < 5
    assert disturbed.diff().mean() * 4 < 0.5
    assert healthy.diff().mean() * 4 > 15
