"""Meters as they are: odd times, duplicates, new and vanishing machines, faults, repairs."""

from datetime import timedelta

import pandas as pd
import pytest

from anomaly.database.machines import register_machines
from anomaly.database.results import Origin
from anomaly.errors import SourceError
from anomaly.operations.status import is_stale, status
from anomaly.scoring.publishing import Job
from anomaly.scoring.reconciling import Reconciler
from anomaly.scoring.scorer import Scorer
from anomaly.scoring.window_reader import WindowReader
from anomaly.settings import Layout, load_settings
from anomaly.windows import Window
from deployment import (
    START,
    TESTS,
    at,
    change,
    counters,
    delete,
    execute,
    insert,
    rows,
    score,
    tick,
    train,
    train_in_force,
    verdicts,
)
from integration_settings import SMALL

DAY = 96


@pytest.fixture
def trained(database, settings):
    """Three days of two machines and a model of them."""
    insert(database, counters(3 * DAY))
    train(database, settings, end=3 * DAY)
    return database


def reconcile(database, settings, start=0, end=3 * DAY, **options):
    window = Window(at(start), at(end))
    return Reconciler(database, settings).reconcile(window, TESTS, **options)


def qualities(database, *quarters, machine=1):
    found = verdicts(database)
    return [found[machine, at(quarter)]["quality"] for quarter in quarters]


# Odd input ------------------------------------------------------------------


def test_a_reading_off_the_grid_and_several_in_an_interval_are_judged_by_their_own_time(
    trained, settings
):
    moment = at(10) + timedelta(minutes=7)
    value = counters(DAY)["machine_1"][10:12].mean()
    insert(trained, pd.DataFrame({"utc_timestamp": [moment], "machine_1": [value]}))

    score(trained, settings, 0, DAY)

    assert verdicts(trained)[1, moment]["quality"] == "ok"
    assert verdicts(trained)[1, at(11)]["quality"] == "ok"


def test_a_reading_a_minute_after_another_is_irregular_and_has_the_power_of_that_minute(
    trained, settings
):
    moment, value = at(10) + timedelta(minutes=1), counters(DAY)["machine_1"][10] + 0.1
    insert(trained, pd.DataFrame({"utc_timestamp": [moment], "machine_1": [value]}))

    score(trained, settings, 0, DAY)

    assert verdicts(trained)[1, moment]["quality"] == "irregular"
    assert verdicts(trained)[1, moment]["power_kw"] == pytest.approx(0.1 * 60)


def test_a_reading_that_is_sent_again_within_seconds_changes_no_other_verdict(trained, settings):
    score(trained, settings, 0, DAY)
    before = verdicts(trained)
    sent_again = [at(quarter) + timedelta(seconds=2) for quarter in (10, 40, 60)]
    values = counters(DAY)["machine_1"][[10, 40, 60]].tolist()
    insert(trained, pd.DataFrame({"utc_timestamp": sent_again, "machine_1": values}))

    score(trained, settings, 0, DAY)

    after = verdicts(trained)
    for moment in sent_again:
        original = before[1, moment - timedelta(seconds=2)]
        assert after[1, moment]["power_kw"] == pytest.approx(original["power_kw"], rel=0.01)
        assert after[1, moment]["anomaly"] == original["anomaly"]
    anomalies = {key for key, verdict in before.items() if verdict["anomaly"]}
    assert {key for key, verdict in after.items() if verdict["anomaly"]} == anomalies


def test_a_machine_that_appears_starts_as_learning(trained, settings):
    change(trained, 50, "7", machine=4, onward=True)

    score(trained, settings, 0, DAY)

    assert qualities(trained, 50, 51, machine=4) == ["first", "learning"]


def test_a_leap_of_a_machine_that_is_new_to_the_fleet_is_an_incident(database, settings):
    settings = load_settings({}, models_url=settings.models.models_url, training_min_days=7)
    readings, leap = counters(10 * DAY, machines=4), 9 * DAY + 40
    readings.loc[: 8 * DAY - 1, "machine_4"] = None
    readings.loc[leap:, "machine_4"] += 20
    insert(database, readings)
    train(database, settings, end=8 * DAY)

    score(database, settings, 8 * DAY, 10 * DAY)

    found = verdicts(database)[4, at(leap)]
    assert (found["power_kw"] > 80, found["quality"]) == (True, "learning")
    assert (found["anomaly_score"] > 0.5, found["expected_kw"]) == (True, None)
    assert found["reason"].endswith("; not trained yet")
    # Within its budget of one alert per week the day before may hold a false alert.
    ((started_at, excess),) = rows(
        database,
        "SELECT started_at, excess_kwh FROM anomaly.incidents"
        f" WHERE machine_id = 4 AND ended_at >= '{at(leap).isoformat()}'",
    )
    assert (started_at, excess) == (at(leap), None)


def test_a_new_column_is_a_new_machine(trained, settings):
    execute(trained, "ALTER TABLE anomaly.meter_readings ADD machine_17 double precision")
    change(trained, 5, "1", machine=17)

    score(trained, settings, 0, DAY)

    assert qualities(trained, 5, machine=17) == ["first"]
    assert rows(trained, "SELECT name FROM anomaly.machines WHERE machine_id = 17") == [
        ("machine_17",)
    ]


def test_a_machine_that_disappears_keeps_its_verdicts_and_fails_nobody(trained, settings):
    change(trained, 50, "NULL", machine=2, onward=True)

    report = score(trained, settings, 0, DAY)

    assert report.scored == DAY + 50


def test_a_machine_with_a_single_reading_gets_a_verdict(trained, settings):
    change(trained, 7, "3", machine=5)

    score(trained, settings, 0, DAY)

    assert qualities(trained, 7, machine=5) == ["first"]


def test_times_that_name_the_interval_s_end_are_stored_as_its_start(trained, settings):
    ends = load_settings({}, models_url=settings.models.models_url, timestamp_label="end", **SMALL)

    score(trained, ends, 10, 12)

    stored = rows(
        trained,
        "SELECT reading, utc_timestamp FROM anomaly.anomaly_results"
        " WHERE machine_id = 1 ORDER BY 2",
    )
    source = rows(
        trained,
        "SELECT machine_1, utc_timestamp - interval '15 minutes' FROM anomaly.meter_readings"
        " WHERE utc_timestamp > :a AND utc_timestamp <= :b ORDER BY 2",
        a=at(10),
        b=at(12),
    )
    assert stored == source


def test_a_local_day_of_23_hours_and_one_of_25_lose_no_machine(database, settings):
    execute(database, "CREATE TABLE anomaly.local_readings (at timestamp, machine_1 float8)")
    execute(
        database,
        "INSERT INTO anomaly.local_readings SELECT t AT TIME ZONE 'Europe/Berlin',"
        " extract(epoch FROM t - '2026-03-27Z'::timestamptz) / 3600 FROM generate_series("
        " '2026-03-27Z'::timestamptz, '2026-03-31Z'::timestamptz, interval '15 minutes') AS t",
    )
    execute(database, "GRANT SELECT ON anomaly.local_readings TO anomaly_source")
    local = load_settings(
        {},
        models_url=settings.models.models_url,
        source_table="local_readings",
        source_timestamp_column="at",
        source_ingested_at_column="",
        source_timezone="Europe/Berlin",
        **SMALL,
    )
    window = Window.parse("2026-03-27", "2026-03-31")
    train_in_force(database, local, window)
    report = Scorer(database, local).score_range(window, Job(Origin.BACKFILL, TESTS))

    assert report.read == 4 * DAY
    assert rows(
        database,
        "SELECT DISTINCT quality::text, round(power_diff::numeric, 6)"
        "  FROM anomaly.anomaly_results WHERE quality <> 'first'",
    ) == [("ok", 1)]


def test_a_column_that_is_no_machine_by_default_can_be_mapped(trained, settings):
    execute(trained, "UPDATE anomaly.meter_readings SET compressor = machine_1")
    mapped = load_settings(
        {},
        models_url=settings.models.models_url,
        source_machines={"compressor": 6, "machine_1": 1},
        **SMALL,
    )

    report = score(trained, mapped, 0, DAY)

    assert report.read == 2 * DAY
    assert verdicts(trained)[6, at(5)]["reading"] == verdicts(trained)[1, at(5)]["reading"]


def test_two_columns_of_one_machine_are_refused(trained, settings):
    execute(trained, "ALTER TABLE anomaly.meter_readings ADD machine_01 double precision")

    with pytest.raises(SourceError, match="would be machine 1, as 'machine_1' is"):
        score(trained, settings, 0, DAY)


def test_a_column_that_is_registered_keeps_its_id(trained, settings):
    remapped = load_settings(
        {}, models_url=settings.models.models_url, source_machines={"machine_1": 8}, **SMALL
    )

    with pytest.raises(SourceError, match="machine_1 would be machine 8, but is registered as 1"):
        score(trained, remapped, 0, DAY)


def test_a_long_table_taken_for_a_wide_one_is_recognised(database, settings):
    execute(
        database,
        "ALTER TABLE anomaly.meter_readings ADD machine_id int;"
        + " ".join(f"ALTER TABLE anomaly.meter_readings DROP machine_{n};" for n in range(1, 6)),
    )

    with pytest.raises(SourceError, match="set ANOMALY_SOURCE_LAYOUT=long for one row per machine"):
        score(database, settings, 0, DAY)


def test_a_row_from_the_future_does_not_blind_the_ticks(trained, settings):
    written = "UPDATE anomaly.meter_readings SET ingested_at = CAST(:w AS timestamptz)"
    for quarter, moment in ((2, "infinity"), (3, at(400_000).isoformat())):
        execute(trained, f"{written} WHERE utc_timestamp = :t", w=moment, t=at(quarter))
    tick(trained, settings, 10)

    ((seen,),) = rows(trained, "SELECT max(ingested_through) <= now() FROM anomaly.scoring_runs")

    assert seen


def test_machines_that_are_new_to_two_at_once_both_get_a_number(database):
    from concurrent.futures import ThreadPoolExecutor

    def register(key):
        with database.transaction("anomaly_scorer") as transaction:
            return register_machines(transaction, {key: 7 if key == "7" else None})

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(register, ["press", "oven", "7", "saw"]))

    assert made == [1, 1, 1, 1]
    assert len(rows(database, "SELECT machine_id FROM anomaly.machines")) == 4


def test_a_source_without_the_machines_of_the_settings_is_refused(trained, settings):
    wrong = load_settings({}, models_url=settings.models.models_url, source_machines={"pump": 1})

    with pytest.raises(SourceError, match="has no column 'pump'"):
        score(trained, wrong, 0, DAY)


# Meter faults ---------------------------------------------------------------


def test_a_counter_reset_is_no_anomaly_and_the_next_reading_is_right_again(trained, settings):
    change(trained, 60, "machine_1 - 60", machine=1, onward=True)

    score(trained, settings, 0, DAY)

    reset = verdicts(trained)[1, at(60)]
    assert (reset["quality"], reset["anomaly"], reset["anomaly_score"]) == ("reset", 0, None)
    assert reset["reason"].startswith("meter reset: the counter fell by")
    assert qualities(trained, 61) == ["ok"]


def test_a_roll_over_that_was_announced_keeps_its_power(trained, settings):
    score(trained, settings, 0, 1)
    execute(trained, "UPDATE anomaly.machines SET rolls_over_at = 1000 WHERE machine_id = 1")
    execute(
        trained, "UPDATE anomaly.meter_readings SET machine_1 = (990 + machine_1)::numeric % 1000"
    )

    score(trained, settings, 0, DAY)

    ((_, power),) = rows(
        trained,
        "SELECT utc_timestamp, power_kw FROM anomaly.anomaly_results WHERE quality = 'rollover'",
    )
    assert power == pytest.approx(5, abs=3)


def test_more_power_than_the_machine_can_draw_is_impossible(trained, settings):
    score(trained, settings, 0, 1)
    execute(trained, "UPDATE anomaly.machines SET max_power_kw = 50 WHERE machine_id = 1")
    change(trained, 40, "machine_1 + 100", onward=True)

    score(trained, settings, 0, DAY)

    assert qualities(trained, 40, 41, 42) == ["impossible", "ok", "ok"]


def test_a_meter_that_stands_still_is_stuck_and_learns_to_move_again(trained, settings):
    ((value,),) = rows(
        trained, "SELECT machine_1 FROM anomaly.meter_readings WHERE utc_timestamp = :t", t=at(20)
    )
    for quarter in range(21, 40):
        change(trained, quarter, str(value))

    score(trained, settings, 0, 40)

    assert qualities(trained, 21, 28, 29, 39) == ["ok", "ok", "stuck", "stuck"]
    assert "meter stuck: no change for" in verdicts(trained)[1, at(39)]["reason"]


def test_a_meter_that_catches_up_was_stuck_all_the_time(trained, settings):
    score(trained, settings, 0, DAY)
    before = verdicts(trained)
    ((value,),) = rows(
        trained, "SELECT machine_1 FROM anomaly.meter_readings WHERE utc_timestamp = :t", t=at(20)
    )
    for quarter in range(21, 40):
        change(trained, quarter, str(value))

    score(trained, settings, 0, DAY)

    assert qualities(trained, 20, 21, 39, 40, 41) == [
        "ok", "contradicted", "contradicted", "catch_up", "ok",
    ]  # fmt: skip
    drawn = sum(before[1, at(quarter)]["power_kw"] for quarter in range(21, 41)) / 4
    assert verdicts(trained)[1, at(40)]["power_kw"] == pytest.approx(drawn / 5)


def test_a_meter_that_froze_in_training_does_not_excuse_it_later(database, settings):
    last = 40 * DAY
    frame = counters(41 * DAY)
    for first in (2 * DAY, last):
        missing = frame.loc[first + 60, "machine_1"] - frame.loc[first, "machine_1"]
        frame.loc[first : first + 60, "machine_1"] = frame.loc[first, "machine_1"]
        frame.loc[first + 61 :, "machine_1"] -= missing  # a meter that does not catch up
    insert(database, frame)
    train(database, settings, end=last)

    score(database, settings, last, last + 41)

    assert qualities(database, last + 40) == ["ok"]  # 10 hours, as then

    score(database, settings, last, last + 61)

    assert qualities(database, last + 40, last + 60) == ["ok", "stuck"]  # 10 and 15 hours


def test_a_correction_far_into_a_flat_run_rescores_the_run_behind_it(trained, settings):
    ((value,),) = rows(
        trained, "SELECT machine_1 FROM anomaly.meter_readings WHERE utc_timestamp = :t", t=at(20)
    )
    for quarter in range(21, 60):
        change(trained, quarter, str(value))
    score(trained, settings, 0, 60)
    assert qualities(trained, 50) == ["stuck"]
    change(trained, 45, f"{value} - 1")

    score(trained, settings, 45, 46)

    assert qualities(trained, 44, 45, 46, 50) == ["stuck", "contradicted", "catch_up", "ok"]


# Late, corrected, deleted -----------------------------------------------------


def test_reconcile_finds_what_was_changed_without_a_trace(trained, settings):
    score(trained, settings, 0, 3 * DAY)
    change(trained, 9, "machine_1 + 0.2")
    delete(trained, 20)
    change(trained, 30, "NULL", machine=2)

    report = reconcile(trained, settings)
    again = reconcile(trained, settings)

    assert (report.missing, report.changed, report.deleted) == (0, 5, 3)  # with successors
    assert report.scores.retracted == 3
    assert (again.missing, again.changed, again.deleted, again.scores.windows) == (0, 0, 0, 0)


def test_reconcile_rescores_only_what_differs(trained, settings):
    score(trained, settings, 0, 3 * DAY)
    change(trained, 9, "machine_1 + 0.2")

    report = reconcile(trained, settings)

    assert report.scores.windows == 1
    assert report.scores.updated == 2  # the reading and its successor


def test_reconcile_withholds_a_mass_deletion_until_it_is_allowed(trained, settings):
    score(trained, settings, 0, 3 * DAY)
    delete(trained, 50, 100)

    withheld = reconcile(trained, settings)
    allowed = reconcile(trained, settings, allow_retract=True)

    assert (withheld.scores.retracted, withheld.scores.retraction_withheld) == (0, 100)
    assert allowed.scores.retracted == 100


def test_a_dry_reconciliation_writes_nothing(trained, settings):
    score(trained, settings, 0, 3 * DAY)
    delete(trained, 20)

    report = reconcile(trained, settings, dry_run=True)

    assert report.scores.retracted == 2
    assert len(verdicts(trained)) == 6 * DAY


def test_a_duplicate_that_arrives_later_is_marked_by_reconcile(database, settings):
    execute(database, "ALTER TABLE anomaly.meter_readings DROP CONSTRAINT meter_readings_pkey")
    insert(database, counters(3 * DAY))
    train(database, settings, end=3 * DAY)
    score(database, settings, 0, 3 * DAY)
    insert(database, counters(10).tail(1))

    reconcile(database, settings)

    assert qualities(database, 9) == ["duplicate"]


def test_a_writer_whose_transaction_was_open_across_a_tick_is_not_missed(trained, settings):
    late = counters(11).tail(1)
    delete(trained, 10)
    execute(trained, "UPDATE anomaly.meter_readings SET ingested_at = now() - interval '1 day'")
    with trained.engine.connect() as writer, writer.begin() as transaction:
        writer.exec_driver_sql(
            "INSERT INTO anomaly.meter_readings (utc_timestamp, machine_1, machine_2)"
            " VALUES (%s, %s, %s)",
            (late["utc_timestamp"].iloc[0].to_pydatetime(), 15.5, 30.0),
        )
        insert(trained, counters(3 * DAY + 1).tail(1))  # written and seen meanwhile
        tick(trained, settings, 3 * DAY + 1)
        transaction.commit()
    assert (1, at(10)) not in verdicts(trained)

    tick(trained, settings, 3 * DAY + 2)

    assert (1, at(10)) in verdicts(trained)


def test_loading_the_past_of_years_does_not_hold_up_the_ticks(trained, settings):
    old = counters(40).assign(utc_timestamp=[at(n) - timedelta(days=400) for n in range(40)])
    tick(trained, settings, 3 * DAY)
    insert(trained, old)

    tick(trained, settings, 3 * DAY)

    assert min(moment for _, moment in verdicts(trained)) == at(0)  # the rest is a backfill's work


# Status -----------------------------------------------------------------------


def test_status_of_an_empty_deployment_says_what_to_do(database, settings):
    found = status(database, settings, at(0))

    assert [problem.split(":")[0] for problem in found.problems] == [
        "no model is in force",
        "the meter table has no readings",
    ]


def test_status_speaks_of_lag_gaps_late_and_future_readings_and_machines(trained, settings):
    tick(trained, settings, 2 * DAY)
    change(trained, 9, "machine_1 + 0.2")
    execute(trained, "UPDATE anomaly.machines SET active_to = :t WHERE machine_id = 2", t=at(DAY))

    found = status(trained, settings, at(2 * DAY + 4))

    assert found.model_version == 1
    assert found.watermark == at(2 * DAY)
    assert found.lag_minutes == 60
    assert found.newest_reading == at(2 * DAY + 3)
    assert found.future_readings == DAY - 4
    assert found.unscored == 2 * (2 * DAY + 3) - 2 * 9  # the last interval has just ended
    assert not found.stale
    states = {machine.machine_id: machine.state for machine in found.machines}
    assert (states[1], states[2], states[3]) == ("ok", "retired", "new")
    assert found.runs[0]["command"] == "test"


def test_status_calls_a_machine_silent_and_after_a_week_retired(trained, settings):
    score(trained, settings, 0, 3 * DAY)

    soon = status(trained, settings, at(3 * DAY + 20))
    late = status(trained, settings, at(12 * DAY))

    assert {machine.state for machine in soon.machines[:2]} == {"silent"}
    assert {machine.state for machine in late.machines[:2]} == {"retired"}


def test_status_counts_a_deleted_reading_until_it_is_reconciled(trained, settings):
    score(trained, settings, 0, 3 * DAY)
    delete(trained, 20)

    before = status(trained, settings, at(3 * DAY))
    reconcile(trained, settings)
    after = status(trained, settings, at(3 * DAY))

    assert (before.without_reading, after.without_reading) == (2, 0)
    assert any("have lost their reading" in problem for problem in before.problems)
    assert after.problems == []


def test_status_is_stale_when_the_meters_fall_silent(trained, settings):
    found = status(trained, settings, at(3 * DAY) + timedelta(hours=3))

    assert found.stale
    assert any("the newest reading is from" in problem for problem in found.problems)


# The long layout ----------------------------------------------------------------


@pytest.fixture
def long(database, tmp_path):
    """A long table of watts with text ids, without a key, every five minutes."""
    execute(
        database,
        "CREATE TABLE anomaly.long_readings (meter text, at timestamptz, watts numeric,"
        " ingested_at timestamptz DEFAULT now())",
    )
    execute(
        database,
        "INSERT INTO anomaly.long_readings (meter, at, watts)"
        " SELECT meter, t, 1000 + 50 * random() FROM unnest(ARRAY['press', '12', 'oven']) AS meter,"
        " generate_series(CAST(:a AS timestamptz), CAST(:b AS timestamptz), interval '5 min') AS t",
        a=START,
        b=START + timedelta(days=2),
    )
    execute(database, "GRANT SELECT ON anomaly.long_readings TO anomaly_source")
    return load_settings(
        {},
        models_url=str(tmp_path / "models"),
        source_layout="long",
        source_table="long_readings",
        source_timestamp_column="at",
        source_machine_column="meter",
        source_value_column="watts",
        reading_kind="power_w",
        interval_minutes=5,
        **SMALL,
    )


def test_a_long_table_of_watts_is_trained_scored_and_reconciled(database, long):
    train(database, long, end=2 * DAY)
    report = score(database, long, 0, 2 * DAY)
    execute(
        database,
        "UPDATE anomaly.long_readings SET watts = 9000 WHERE meter = 'oven' AND at = :t",
        t=at(9),
    )

    repaired = reconcile(database, long, end=2 * DAY)

    assert report.read == 3 * 2 * 288
    assert rows(database, "SELECT machine_id, source_key FROM anomaly.machines ORDER BY 1") == [
        (12, "12"),
        (13, "oven"),
        (14, "press"),
    ]
    assert repaired.changed == 2  # the reading and its successor
    found = verdicts(database)[13, at(9)]
    assert (found["reading"], found["power_kw"], found["quality"]) == (9000.0, 9.0, "ok")


def test_the_latest_written_of_two_rows_for_one_reading_counts(database, long):
    train(database, long, end=2 * DAY)
    execute(
        database,
        "INSERT INTO anomaly.long_readings VALUES ('oven', :t, 5, now() + interval '1 hour')",
        t=at(9),
    )

    score(database, long, 0, DAY)

    found = verdicts(database)[13, at(9)]
    assert (found["reading"], found["quality"]) == (5.0, "duplicate")


# Contradicted, purged, previewed -------------------------------------------------


def go_wrong(database, quarters, value):
    for quarter in quarters:
        change(database, quarter, value)


@pytest.mark.parametrize("value", ["0", "machine_1 + 300", "4294967295"])
@pytest.mark.parametrize("lateness", [0, 2])
def test_ticks_through_a_counter_that_comes_back_end_where_a_backfill_does(
    trained, settings, value, lateness
):
    live = settings.changed(lateness_hours=lateness)
    go_wrong(trained, range(20, 23), value)
    seen = []
    for quarter in range(1, 40):
        tick(trained, live, quarter)
        seen += qualities(trained, 20) if quarter > 20 else []

    assert seen[0] in ("reset", "ok", "impossible")  # live, nothing contradicts it yet
    assert seen[-1] == "contradicted"
    assert qualities(trained, 19, 20, 21, 22, 23, 24) == [
        "ok", "contradicted", "contradicted", "contradicted", "catch_up", "ok",
    ]  # fmt: skip
    assert score(trained, settings, 0, 39).changed == 0


def test_a_contradiction_is_taken_back_when_the_reading_is_corrected(trained, settings):
    score(trained, settings, 0, DAY)
    before = verdicts(trained)
    ((value,),) = rows(
        trained, "SELECT machine_1 FROM anomaly.meter_readings WHERE utc_timestamp = :t", t=at(20)
    )
    change(trained, 20, "0")
    score(trained, settings, 20, 21)
    assert qualities(trained, 20, 21) == ["contradicted", "catch_up"]
    change(trained, 20, str(value))

    score(trained, settings, 20, 21)

    assert verdicts(trained) == before


def test_a_correction_of_the_way_back_is_news_for_the_readings_before_it(trained, settings):
    go_wrong(trained, range(20, 30), "machine_1 - 15")
    score(trained, settings, 0, DAY)
    assert qualities(trained, 20, 29, 30) == ["contradicted", "contradicted", "catch_up"]
    change(trained, 30, "machine_1 - 15", onward=True)

    score(trained, settings, 30, DAY)

    assert qualities(trained, 20, 21, 29, 30) == ["reset", "ok", "ok", "ok"]


@pytest.mark.parametrize("kept", [1, 30, DAY])
def test_a_purge_changes_no_verdict_and_no_incident(trained, settings, kept):
    go_wrong(trained, range(DAY - 3, DAY), "machine_2 + 20")
    score(trained, settings, 0, 2 * DAY)
    before = verdicts(trained), rows(trained, "SELECT * FROM anomaly.incidents ORDER BY 1")
    delete(trained, 0, 2 * DAY - kept)

    reports = [reconcile(trained, settings, 0, 2 * DAY).scores.changed]
    reports += [score(trained, settings, start, 2 * DAY).changed for start in (0, DAY, 2 * DAY - 1)]

    after = verdicts(trained), rows(trained, "SELECT * FROM anomaly.incidents ORDER BY 1")
    assert (after, reports) == (before, [0, 0, 0, 0])


def test_a_reading_behind_a_purge_that_is_corrected_is_still_compared_with_what_was(
    trained, settings
):
    score(trained, settings, 0, DAY)
    power = verdicts(trained)[1, at(50)]["power_kw"]
    delete(trained, 0, 50)
    change(trained, 50, "machine_1 + 0.25")

    reconcile(trained, settings, 0, DAY)

    assert qualities(trained, 50) == ["ok"]
    assert verdicts(trained)[1, at(50)]["power_kw"] == pytest.approx(power + 1)


TABLES = (
    "machines", "anomaly_results", "anomaly_results_history", "scoring_runs", "incidents",
    "labels", "model_versions", "model_in_force", "model_drafts",
)  # fmt: skip


def everything(database):
    found = {name: rows(database, f"SELECT * FROM anomaly.{name} ORDER BY 1, 2") for name in TABLES}
    return found | {"token": rows(database, "SELECT last_value FROM anomaly.fencing_token")}


@pytest.mark.parametrize("layout", ["wide", "long"])
def test_looking_and_previewing_write_nothing(trained, settings, layout):
    if layout == "long":
        execute(
            trained,
            "CREATE TABLE anomaly.long_readings AS SELECT utc_timestamp, ingested_at,"
            " 'press ' || n AS machine_id, machine_1 AS reading"
            " FROM anomaly.meter_readings, generate_series(1, 3) AS n;"
            " GRANT SELECT ON anomaly.long_readings TO anomaly_source",
        )
        settings = settings.changed(source_layout=Layout.LONG, source_table="long_readings")
    else:
        execute(trained, "ALTER TABLE anomaly.meter_readings ADD machine_17 double precision")
        change(trained, 0, "utc_timestamp::text::date - '2020-01-01'", machine=17, onward=True)
    before = everything(trained)

    previewed = score(trained, settings, 0, DAY, dry_run=True)
    Reconciler(trained, settings).reconcile(Window(at(0), at(DAY)), TESTS, dry_run=True)
    status(trained, settings, at(DAY))

    assert everything(trained) == before
    expected = (0, 3) if layout == "long" else (3 * DAY, 1)
    assert (previewed.inserted, previewed.new_machines) == expected


def test_status_reads_in_chunks_and_counts_the_same(trained, settings, monkeypatch):
    score(trained, settings, 0, 8 * DAY)
    change(trained, 5, "machine_1 + 1")
    delete(trained, 100, 101)
    change(trained, 6 * DAY, "machine_1 + 1", onward=True)
    whole = status(trained, settings, at(9 * DAY))

    small = settings.changed(chunk_readings=100)
    read = []
    original = WindowReader.read

    def counted(self, *arguments, **options):
        found = original(self, *arguments, **options)
        read.append(found.readings)
        return found

    monkeypatch.setattr(WindowReader, "read", counted)
    cut = status(trained, small, at(9 * DAY))

    counts = ("unscored", "outdated", "without_reading")
    assert [getattr(cut, name) for name in counts] == [getattr(whole, name) for name in counts]
    assert whole.outdated > 0
    assert max(read) <= 100


# What the source holds ------------------------------------------------------------


def make_source(database, ddl, **names):
    """Settings of a table plant.readings of these columns, readable."""
    execute(
        database,
        f"CREATE SCHEMA plant; {ddl}; GRANT USAGE ON SCHEMA plant TO anomaly_source;"
        " GRANT SELECT ON plant.readings TO anomaly_source",
    )
    return load_settings(
        {}, source_schema="plant", source_table="readings", source_layout="long", **names, **SMALL
    )


def fill(database, machine="1", reading="n / 2.0", written=None):
    columns = "utc_timestamp, machine_id, reading" + (", ingested_at" if written else "")
    execute(
        database,
        f"INSERT INTO plant.readings ({columns}) SELECT CAST(:start AS timestamptz)"
        f" + n * interval '15 min', {machine}, {reading} {', ' + written if written else ''}"
        f" FROM generate_series(0, {3 * DAY - 1}) AS n",
        start=START,
    )


def test_ids_that_are_the_same_number_are_machines_of_their_own(database, settings):
    ids = ["7", "007", "+7", "\u0667", " 7", "8"]
    mine = make_source(
        database,
        "CREATE TABLE plant.readings (utc_timestamp timestamptz, machine_id text, reading float8)",
        models_url=settings.models.models_url,
    )
    for key in ids:
        fill(database, machine=f"'{key}'")

    train(database, mine, end=3 * DAY)
    score(database, mine, 0, DAY)

    found = dict(rows(database, "SELECT source_key, machine_id FROM anomaly.machines"))
    assert (found["7"], found["8"], len({*found.values()})) == (7, 8, len(ids))
    assert len(verdicts(database)) == len(ids) * DAY


def test_two_keys_that_want_one_id_both_get_one(database):
    with database.transaction("anomaly_scorer") as transaction:
        register_machines(transaction, {"a": 7, "b": 7, "c": None})

    found = rows(database, "SELECT source_key, machine_id FROM anomaly.machines ORDER BY 1")
    assert found == [("a", 7), ("b", 8), ("c", 9)]


@pytest.mark.parametrize("kind", ["float8", "real", "numeric", "numeric(12, 3)"])
def test_a_column_that_holds_fractions_is_refused_as_a_machine_s_id(database, settings, kind):
    mine = make_source(
        database,
        f"CREATE TABLE plant.readings (utc_timestamp timestamptz, machine_id {kind}, reading real)",
        models_url=settings.models.models_url,
    )

    with pytest.raises(SourceError, match="holds fractions: it is a reading, not a machine's id"):
        score(database, mine, 0, DAY)


@pytest.mark.parametrize("kind", ["numeric(9, 0)", "plant.number", "bigint", "varchar(9)"])
def test_columns_of_a_domain_or_without_decimals_are_read(database, settings, kind):
    mine = make_source(
        database,
        "CREATE DOMAIN plant.whole AS integer; CREATE DOMAIN plant.number AS plant.whole;"
        " CREATE DOMAIN plant.moment AS timestamptz; CREATE DOMAIN plant.energy AS numeric(14, 3);"
        f" CREATE TABLE plant.readings (utc_timestamp plant.moment, machine_id {kind},"
        " reading plant.energy)",
        models_url=settings.models.models_url,
    )
    fill(database)

    train(database, mine, end=3 * DAY)

    assert score(database, mine, 0, DAY).read == DAY


@pytest.mark.parametrize("kind", ["text", "bigint", "date"])
def test_a_written_at_column_that_is_no_timestamp_is_refused_by_its_setting(
    database, settings, kind
):
    mine = make_source(
        database,
        "CREATE TABLE plant.readings (utc_timestamp timestamptz, machine_id int, reading float,"
        f" ingested_at {kind})",
        models_url=settings.models.models_url,
    )

    with pytest.raises(SourceError, match=rf"is {kind}, .* ANOMALY_SOURCE_INGESTED_AT_COLUMN"):
        score(database, mine, 0, DAY)


def test_a_number_that_a_double_cannot_hold_is_a_missing_reading_and_costs_no_other(
    database, settings
):
    mine = make_source(
        database,
        "CREATE TABLE plant.readings (utc_timestamp timestamptz, machine_id int, reading numeric)",
        models_url=settings.models.models_url,
    )
    fill(database)
    train(database, mine, end=3 * DAY)
    for quarter, value in ((5, "1e400"), (6, "-1e400"), (7, "NaN"), (8, "Infinity")):
        execute(
            database,
            f"UPDATE plant.readings SET reading = '{value}' WHERE utc_timestamp = :t",
            t=at(quarter),
        )
    execute(
        database, "UPDATE plant.readings SET reading = 1e-400 WHERE utc_timestamp = :t", t=at(0)
    )

    report = score(database, mine, 0, DAY)

    assert (report.read, report.missing) == (DAY - 4, 4)
    assert verdicts(database)[1, at(0)]["reading"] == 0


def test_a_written_at_moment_beyond_the_year_9999_does_not_stop_the_ticks(trained, settings):
    execute(
        trained,
        "UPDATE anomaly.meter_readings SET ingested_at = '12026-05-10Z' WHERE utc_timestamp = :t",
        t=at(3),
    )

    tick(trained, settings, 10)

    assert len(verdicts(trained)) > 0


def test_rows_without_a_value_keep_nothing_fresh(trained, settings):
    score(trained, settings, 0, 3 * DAY)
    execute(
        trained,
        "INSERT INTO anomaly.meter_readings (utc_timestamp, machine_1, machine_2) SELECT t, NULL,"
        " 'NaN' FROM generate_series(CAST(:a AS timestamptz), :b, interval '15 min') AS t",
        a=at(3 * DAY),
        b=at(3 * DAY + 40),
    )

    found = status(trained, settings, at(3 * DAY + 40))

    assert (found.stale, found.newest_reading) == (True, at(3 * DAY - 1))
    assert {machine.state for machine in found.machines[:2]} == {"silent"}


@pytest.mark.parametrize("minutes", [1, 15, 60, 240, 1440])
def test_a_source_that_is_on_time_is_never_stale_and_a_dead_one_is(minutes):
    settings = load_settings({}, interval_minutes=minutes)
    newest = at(0)
    due = newest + 2 * settings.meter.interval  # the reading after it

    assert not is_stale(newest, settings.meter, settings.scoring, due)
    assert is_stale(
        newest,
        settings.meter,
        settings.scoring,
        due + max(timedelta(hours=2), 2 * settings.meter.interval),
    )


def test_a_machine_is_registered_in_the_zone_of_the_source(database, settings):
    insert(database, counters(3 * DAY))
    seoul = load_settings(
        {}, models_url=settings.models.models_url, source_timezone="Asia/Seoul", **SMALL
    )

    train(database, seoul, end=3 * DAY)

    assert rows(database, "SELECT DISTINCT time_zone FROM anomaly.machines") == [("Asia/Seoul",)]
