"""Meter faults told apart from machine anomalies, on three readings each."""

import numpy as np
import pandas as pd

from anomaly.readings.measuring import measure
from anomaly.readings.meter_faults import (
    explain_faults,
    final_quality,
    in_hindsight,
    profile_machines,
)
from anomaly.readings.quality import Quality, quality_column
from anomaly.readings.transformers import PowerDiff
from anomaly.settings import load_settings

SETTINGS = load_settings({})
WATTS = load_settings({}, reading_kind="power_w")


def measured(*values, minutes=15, settings=SETTINGS, max_power_kw=np.nan, rolls_over_at=np.nan):
    times = pd.date_range("2017-03-07", periods=len(values), freq=f"{minutes}min", tz="UTC")
    long = pd.DataFrame(
        {"machine_id": 1, "utc_timestamp": times, "reading": values, "duplicate": False}
    ).astype({"reading": float})
    machines = pd.DataFrame(
        {"machine_id": [1], "max_power_kw": [max_power_kw], "rolls_over_at": [rolls_over_at]}
    )
    return measure(PowerDiff().transform(long), machines, settings.meter)


def seen(longest_flat_hours=1.0, flat_share=0.0, highest_kw=np.nan):
    row = {
        "readings": 9,
        "longest_flat_hours": longest_flat_hours,
        "flat_share": flat_share,
        "highest_kw": highest_kw,
    }
    return pd.DataFrame([row], index=pd.Index([1], name="machine_id"))


def test_the_first_reading_has_no_power_and_no_change():
    frame = measured(100.0)

    assert frame["quality"].tolist() == [Quality.FIRST]
    assert np.isnan(frame["power_kw"][0])
    assert frame["power_diff"][0] == 0.0


def test_a_counter_that_falls_is_a_reset_and_the_next_reading_is_right_again():
    frame = measured(100.0, 3.0, 4.0)

    assert frame["quality"].tolist() == [Quality.FIRST, Quality.RESET, Quality.OK]
    assert frame["power_kw"].isna().tolist() == [True, True, False]
    assert frame["power_diff"][2] == 4.0


def test_a_counter_that_rolls_over_is_recognised_and_keeps_its_power():
    frame = measured(999_999.0, 1.0, rolls_over_at=1_000_000.0)

    assert frame["quality"].tolist()[1] == Quality.ROLLOVER
    assert frame["power_kw"][1] == 8.0


def test_a_reading_beyond_what_the_machine_can_draw_is_impossible():
    frame = measured(0.0, 20.0, 21.0, max_power_kw=45.0)

    assert frame["quality"].tolist()[1:] == [Quality.IMPOSSIBLE, Quality.OK]


def test_watts_keep_their_sign_and_have_no_resets():
    frame = measured(5000.0, -200.0, settings=WATTS)

    assert frame["power_kw"].tolist()[1] == -0.2
    assert frame["quality"].tolist()[1] == Quality.OK


def test_flat_for_longer_than_ever_before_is_stuck():
    frame = measured(1.0, *[2.0] * 14, 3.0)

    quality = final_quality(frame, seen(longest_flat_hours=1.0), SETTINGS.meter)

    stuck = np.flatnonzero(quality == Quality.STUCK)
    assert frame["flat_hours"][stuck[0]] == 3.25  # an hour, and a margin of two
    assert quality[-1] == Quality.OK


def test_a_machine_that_is_often_flat_is_off_not_stuck():
    frame = measured(1.0, *[2.0] * 14)

    assert Quality.STUCK not in final_quality(frame, seen(1.0, flat_share=0.5), SETTINGS.meter)


def test_flat_time_is_measured_for_a_day_at_most():
    frame = measured(*[7.0] * 200)

    assert frame["flat_hours"].max() == 24.0


def test_flat_time_does_not_depend_on_where_reading_starts():
    values = [1.0, *[2.0] * 150, 3.0, *[4.0] * 20]
    whole = measured(*values)

    # Off the grid: the earliest reading within the last day counts, not the run's first.
    tail = measured(*values).iloc[60:].reset_index(drop=True)
    again = measure(
        PowerDiff().transform(tail[["machine_id", "utc_timestamp", "reading", "duplicate"]]),
        pd.DataFrame({"machine_id": [1], "max_power_kw": [np.nan], "rolls_over_at": [np.nan]}),
        SETTINGS.meter,
    )

    assert again["flat_hours"].tolist()[97:] == whole["flat_hours"].tolist()[157:]


def test_a_machine_that_training_did_not_see_is_learning():
    frame = measured(1.0, 2.0)

    assert quality_column(final_quality(frame, seen().iloc[:0], SETTINGS.meter)).tolist() == [
        "first",
        "learning",
    ]


def test_meter_faults_are_explained_in_words():
    frame = in_hindsight(measured(50.0, 70.0, 3.0, max_power_kw=45.0), seen(), SETTINGS.meter)

    reasons = explain_faults(frame, final_quality(frame, seen(), SETTINGS.meter))

    assert reasons.tolist() == [
        None,
        "impossible: 80.0 kW, it draws 45.0 kW at most",
        "meter reset: the counter fell by 67.000 kWh",
    ]


def test_a_profile_remembers_the_longest_flat_run():
    frame = measured(1.0, *[2.0] * 5, 3.0, 3.0)

    row = profile_machines(frame).loc[1]

    assert (row["longest_flat_hours"], row["readings"]) == (1.0, 8)
    assert row["flat_share"] == 5 / 8


def test_a_flat_run_that_began_before_the_training_counts_from_its_first_reading():
    times = pd.date_range("2026-03-02", periods=40, freq="15min", tz="UTC")
    runs, stands = np.arange(40.0), np.minimum(np.arange(40.0), 10)
    long = pd.DataFrame(
        {
            "machine_id": np.repeat([1, 2], 40),
            "utc_timestamp": times.append(times),
            "reading": np.append(runs, stands),
            "duplicate": False,
        }
    )
    machines = pd.DataFrame({"machine_id": [1, 2], "max_power_kw": np.nan, "rolls_over_at": np.nan})
    everything = measure(PowerDiff().transform(long), machines, SETTINGS.meter)
    trained_on = everything[everything["utc_timestamp"] >= times[20]].reset_index(drop=True)

    assert profile_machines(trained_on)["longest_flat_hours"].to_dict() == {1: 0.0, 2: 19 / 4}
