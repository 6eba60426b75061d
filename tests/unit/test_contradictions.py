"""Counters that go there and back again, or catch up, on a handful of readings each."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.readings.measuring import measure
from anomaly.readings.meter_faults import explain_faults, final_quality, in_hindsight
from anomaly.readings.quality import quality_column
from anomaly.readings.transformers import PowerDiff
from anomaly.settings import load_settings

SETTINGS = load_settings({})
LEVEL = 10_000.0
"""Where the counter of a machine stands that draws 12 kW and has never drawn more than 13."""


def counter(*steps, start=LEVEL):
    """Readings a quarter-hour apart, each so many kWh after the one before."""
    return np.cumsum([start, *steps])


def usual(count):
    return [3.0] * count


def looked_back_at(readings, *, minutes=15, times=None, highest_kw=13.0, flat_share=0.0, **limits):
    if times is None:
        times = pd.date_range("2026-03-02", periods=len(readings), freq=f"{minutes}min", tz="UTC")
    long = pd.DataFrame(
        {"machine_id": 1, "utc_timestamp": times, "reading": readings, "duplicate": False}
    ).astype({"reading": float})
    machine = {"machine_id": 1, "max_power_kw": np.nan, "rolls_over_at": np.nan} | limits
    profile = {
        "readings": 999,
        "longest_flat_hours": 0.0,
        "flat_share": flat_share,
        "highest_kw": highest_kw,
    }
    profiles = pd.DataFrame([profile], index=pd.Index([1], name="machine_id"))
    measured = measure(PowerDiff().transform(long), pd.DataFrame([machine]), SETTINGS.meter)
    seen = in_hindsight(measured, profiles, SETTINGS.meter)
    quality = final_quality(seen, profiles, SETTINGS.meter)
    return seen.assign(quality=quality_column(quality), reason=explain_faults(seen, quality))


WRONG = [0.0, -1.0, 5.0, 4321.0, LEVEL + 500, 123_456.0, 2.0**32 - 1, 99_999_999.0]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("times", [1, 2, 8, 40])
def test_a_counter_that_comes_back_was_wrong_meanwhile(wrong, times):
    readings = counter(*usual(8 + times + 5))
    readings[8 : 8 + times] = wrong

    seen = looked_back_at(readings)

    assert seen["quality"][:8].tolist() == ["first", *["ok"] * 7]
    assert seen["quality"][8 : 8 + times].tolist() == ["contradicted"] * times
    assert seen["quality"][8 + times :].tolist() == ["catch_up", *["ok"] * 5]
    assert seen["power_kw"][8 : 8 + times].isna().all()
    assert seen["power_kw"][8 + times] == pytest.approx(12.0)
    assert seen["reason"][8 + times] == (
        f"meter right again: {3.0 * (times + 1):.1f} kWh in the last {(times + 1) / 4:.1f} h"
    )


def test_garbage_that_changes_from_one_reading_to_the_next_is_wrong_throughout():
    readings = counter(*usual(20))
    readings[8:12] = [0.0, 77_777.0, 3.0, 4_294_967_295.0]

    assert looked_back_at(readings)["quality"][7:14].tolist() == [
        "ok", *["contradicted"] * 4, "catch_up", "ok",
    ]  # fmt: skip


@pytest.mark.parametrize("error", [-40.0, -9.0, -3.5, 3.5, 5.0, 40.0])
def test_a_single_small_error_is_the_meters_too(error):
    readings = counter(*usual(12))
    readings[6] += error

    seen = looked_back_at(readings)

    assert seen["quality"].tolist()[1:] == [
        *["ok"] * 5, "contradicted", "catch_up", *["ok"] * 5,
    ]  # fmt: skip
    assert seen["power_kw"][7] == pytest.approx(12.0)


def test_a_reading_sent_again_a_little_lower_says_nothing():
    readings = pd.Series(counter(*usual(8)))
    sent_again = readings[4] - 0.01
    times = pd.date_range("2026-03-02", periods=9, freq="15min", tz="UTC").tolist()
    times.insert(5, times[4] + pd.Timedelta(seconds=40))
    values = [*readings[:5], sent_again, *readings[5:]]

    seen = looked_back_at(values, times=times)

    assert seen["quality"].tolist()[1:] == [
        *["ok"] * 4, "contradicted", "catch_up", *["ok"] * 3,
    ]  # fmt: skip
    assert seen["power_kw"][6] == pytest.approx(12.0)


def test_a_counter_that_counts_on_elsewhere_for_an_hour_was_wrong_meanwhile():
    readings = counter(*usual(20))
    readings[8:12] = [500.0, 503.0, 506.0, 509.0]

    assert looked_back_at(readings)["quality"][7:13].tolist() == [
        "ok", *["contradicted"] * 4, "catch_up",
    ]  # fmt: skip


def test_a_meter_that_starts_again_at_nought_is_reset_and_right_from_then_on():
    readings = np.append(counter(*usual(8)), counter(*usual(40), start=0.0))

    seen = looked_back_at(readings)

    assert seen["quality"][9:].tolist() == ["reset", *["ok"] * 40]


def test_a_meter_that_was_exchanged_for_one_with_a_higher_counter_is_no_machine():
    readings = np.append(counter(*usual(8)), counter(*usual(8), start=LEVEL + 49_784))

    seen = looked_back_at(readings)

    assert seen["quality"][9:].tolist() == ["impossible", *["ok"] * 8]


def test_a_counter_of_energy_today_is_reset_each_midnight_and_contradicts_no_day():
    days = [0.0, *usual(95)] * 3
    readings = np.concatenate([np.cumsum(days[:96])] * 3)

    seen = looked_back_at(readings)

    assert seen["quality"].value_counts()[["ok", "reset", "contradicted"]].tolist() == [285, 2, 0]


def test_an_excursion_of_more_than_a_day_is_not_told_from_two_exchanges():
    readings = counter(*usual(120))
    readings[8:110] = counter(*usual(101), start=50.0)

    seen = looked_back_at(readings)

    assert "contradicted" not in seen["quality"].tolist()
    assert (seen["quality"][8], seen["quality"][110]) == ("reset", "impossible")


def test_a_frozen_counter_that_catches_up_did_not_stand_still():
    readings = counter(*usual(4), *[0.0] * 6, 21.0, *usual(4))

    seen = looked_back_at(readings)

    assert seen["quality"][4:13].tolist() == [
        "ok", *["contradicted"] * 6, "catch_up", "ok",
    ]  # fmt: skip
    assert seen["power_kw"][11] == pytest.approx(12.0)


def test_a_counter_frozen_for_days_that_catches_up_has_no_power_at_that_moment():
    frozen = 96 * 3
    readings = counter(*usual(4), *[0.0] * frozen, 3.0 * frozen, *usual(4))

    seen = looked_back_at(readings)

    place = 4 + frozen + 1
    assert (seen["quality"][place - 1], seen["quality"][place]) == ("stuck", "catch_up")
    assert np.isnan(seen["power_kw"][place])
    assert "belongs to the time before" in seen["reason"][place]


def test_a_machine_that_often_stands_still_and_starts_has_caught_nothing_up():
    readings = counter(*usual(4), *[0.0] * 6, 3.0, *usual(4))

    assert set(looked_back_at(readings, flat_share=0.4)["quality"][1:]) == {"ok"}


@pytest.mark.parametrize(("frozen", "told"), [(8, "contradicted"), (96 * 2, "ok")])
def test_nor_does_it_draw_more_than_it_can_when_a_frozen_meter_catches_up(frozen, told):
    readings = counter(*usual(4), *[0.0] * frozen, 3.0 * frozen, *usual(4))

    seen = looked_back_at(readings, flat_share=0.4)

    assert seen["quality"][4 + frozen :].tolist() == [told, "catch_up", *["ok"] * 4]


def test_a_meter_that_has_not_moved_since_it_fell_is_stuck_at_once():
    readings = np.append(counter(*usual(8)), [0.0] * 4)

    assert looked_back_at(readings)["quality"][8:].tolist() == ["ok", "reset", *["stuck"] * 3]


@pytest.mark.parametrize("fall", [1.1e-16, 1e-9, 1e-4, 0.001])
def test_a_fall_by_rounding_is_none(fall):
    readings = counter(*usual(4))
    readings = np.append(readings, [readings[-1] - fall, readings[-1], readings[-1] + 3])

    seen = looked_back_at(readings, flat_share=0.5)

    assert seen["quality"].tolist()[1:] == ["ok"] * 7
    assert seen["power_kw"][5] == 0.0


def test_a_counter_kept_in_single_precision_does_not_fall_by_its_rounding():
    total = np.float32(1_234_567.9)
    readings = [float(total), float(np.nextafter(total, np.float32(0))), float(total) + 3]

    assert looked_back_at(readings)["quality"].tolist()[1:] == ["ok", "ok"]


@pytest.mark.parametrize("size", [838.86, 9_999.9, 1_000_000.0])
def test_a_counter_that_rolls_over_keeps_its_power_however_small_it_is(size):
    readings = counter(*usual(9), start=size - 10) % size

    seen = looked_back_at(readings, rolls_over_at=size)

    assert seen["quality"].value_counts()["rollover"] == 1
    assert seen["power_kw"][1:].to_numpy() == pytest.approx(12.0)


def test_a_fall_that_would_be_too_much_power_for_a_roll_over_is_a_reset():
    readings = np.append(counter(*usual(8), start=500.0), counter(*usual(8), start=0.0))

    seen = looked_back_at(readings, rolls_over_at=838.86)

    assert seen["quality"][9:].tolist() == ["reset", *["ok"] * 8]


@pytest.mark.parametrize("absurd", [1e13, 1e308, -1e308])
def test_an_absurd_reading_costs_nothing_but_itself(absurd):
    readings = counter(*usual(9))
    readings[5] = absurd

    seen = looked_back_at(readings)

    assert seen["quality"].tolist() == ["first", *["ok"] * 4, "impossible", *["ok"] * 4]
    assert seen["power_kw"][6] == pytest.approx(12.0)
    assert seen["reason"][5] == f"impossible: the meter reads {absurd:.3g}"


@given(
    st.lists(st.sampled_from([0.0, 0.5, 3.0, 3.2, -7.0, 40.0, -9_000.0, 1e9]), max_size=60),
    st.integers(0, 10),
)
def test_what_lies_more_than_a_day_back_or_ahead_changes_nothing(steps, cut):
    hourly = [step for step in steps for _ in range(3)]  # 20 minutes apart: up to 60 hours
    readings = counter(*hourly)
    whole = looked_back_at(readings, minutes=20)
    first, last = cut, len(readings) - cut

    part = looked_back_at(readings[first:last], minutes=20) if last > first else whole[:0]

    day = 72 + 1
    told = slice(2 * day, len(part) - day)
    columns = ["quality", "power_kw", "power_diff"]
    expected = whole[first:last].reset_index(drop=True)
    pd.testing.assert_frame_equal(part[columns][told], expected[columns][told])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("still", [0, 3, 60])
def test_a_cut_between_machines_makes_them_none_the_same(still):
    """What is trained on begins in the middle of each machine's readings."""
    times = pd.date_range("2026-03-02", periods=120, freq="15min", tz="UTC")
    readings = {
        1: counter(*usual(119), start=LEVEL),
        2: counter(*usual(30), *[0.0] * still, *usual(89 - still), start=LEVEL + 6),
    }
    long = pd.concat(
        pd.DataFrame(
            {"machine_id": machine, "utc_timestamp": times, "reading": reading, "duplicate": False}
        )
        for machine, reading in readings.items()
    ).reset_index(drop=True)
    known = pd.DataFrame({"machine_id": [1, 2], "max_power_kw": np.nan, "rolls_over_at": np.nan})
    profile = {"readings": 999, "longest_flat_hours": 0.0, "flat_share": 0.0, "highest_kw": 13.0}
    profiles = pd.DataFrame([profile] * 2, index=pd.Index([1, 2], name="machine_id"))
    measured = measure(PowerDiff().transform(long), known, SETTINGS.meter)
    cut = measured[measured["utc_timestamp"] >= times[32]].reset_index(drop=True)

    together = final_quality(in_hindsight(cut, profiles, SETTINGS.meter), profiles, SETTINGS.meter)

    alone = [
        final_quality(
            in_hindsight(rows.reset_index(drop=True), profiles, SETTINGS.meter),
            profiles,
            SETTINGS.meter,
        )
        for _, rows in cut.groupby("machine_id")
    ]
    assert together.tolist() == np.concatenate(alone).tolist()
    assert (together[:88] == 0).all()
