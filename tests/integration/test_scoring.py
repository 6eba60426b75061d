"""Scoring on a real Postgres: what is read, judged and written, example by example."""

from datetime import timedelta

import pytest

from anomaly.database.results import Origin
from anomaly.errors import NoModelError, SettingsError
from anomaly.scoring.publishing import Job
from anomaly.scoring.scorer import Scorer
from anomaly.scoring.ticks import score_tick
from anomaly.settings import ReadingKind
from anomaly.windows import Window
from deployment import (
    QUARTER,
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
    verdicts,
)

DAY = 96


@pytest.fixture
def trained(database, settings):
    """Nine days of two machines, a model trained on eight of them, nothing scored."""
    insert(database, counters(9 * DAY))
    train(database, settings)
    return database


def test_every_reading_gets_one_verdict(trained, settings):
    report = score(trained, settings, 0, 9 * DAY)

    assert (report.read, report.inserted, report.updated) == (18 * DAY, 18 * DAY, 0)
    assert rows(trained, "SELECT count(*) FROM anomaly.anomaly_results") == [(18 * DAY,)]


def test_verdicts_around_a_window_count_only_where_they_change(trained, settings):
    score(trained, settings, DAY, 2 * DAY)

    before = score(trained, settings, 0, DAY)  # the day after it is judged again, too

    assert (before.inserted, before.unchanged) == (2 * DAY, 0)
    assert before.scored == 2 * DAY + before.updated


def test_writing_a_window_twice_changes_nothing(trained, settings):
    score(trained, settings, 0, DAY)
    before = rows(trained, "SELECT xmin::text, * FROM anomaly.anomaly_results ORDER BY 2, 3")

    again = score(trained, settings, 0, DAY)

    assert (again.unchanged, again.changed) == (2 * DAY, 0)
    assert (
        rows(trained, "SELECT xmin::text, * FROM anomaly.anomaly_results ORDER BY 2, 3") == before
    )
    assert rows(trained, "SELECT count(*) FROM anomaly.anomaly_results_history") == [(0,)]


def test_every_verdict_joins_the_ledger_row_that_wrote_it(trained, settings):
    score(trained, settings, 0, DAY)

    assert rows(
        trained,
        "SELECT count(*) FROM anomaly.anomaly_results JOIN anomaly.scoring_runs USING (run_id)",
    ) == [(2 * DAY,)]


def test_a_dry_run_counts_and_writes_nothing(trained, settings):
    report = score(trained, settings, 0, DAY, dry_run=True)

    assert report.inserted == 2 * DAY
    assert verdicts(trained) == {}
    assert rows(trained, "SELECT count(*) FROM anomaly.scoring_runs") == [(0,)]


def test_missing_and_infinite_readings_get_no_verdict_and_are_counted(trained, settings):
    change(trained, 5, "NULL")
    change(trained, 6, "'NaN'")
    change(trained, 7, "'Infinity'", machine=2)

    report = score(trained, settings, 0, DAY)

    assert (report.read, report.scored) == (2 * DAY - 3, 2 * DAY - 3)
    assert report.missing == 3 + 3 * DAY  # the three machines without any reading count too
    assert verdicts(trained)[1, at(7)]["quality"] == "gap"


def test_the_reading_before_the_window_is_looked_up(trained, settings):
    score(trained, settings, 5, 6)

    first = verdicts(trained)[1, at(5)]

    assert first["quality"] == "ok"
    assert first["power_diff"] == pytest.approx(5, abs=2.5)


def test_a_reading_after_an_outage_of_days_finds_its_predecessor(trained, settings):
    delete(trained, 1, 5 * DAY)

    score(trained, settings, 5 * DAY, 5 * DAY + 1)

    found = verdicts(trained)[1, at(5 * DAY)]
    assert found["quality"] == "gap"
    assert found["power_diff"] == pytest.approx(5, abs=0.5)


def test_a_corrected_reading_rescores_its_successor_behind_the_window(trained, settings):
    score(trained, settings, 0, DAY)
    change(trained, 9, "machine_1 + 0.5")

    report = score(trained, settings, 9, 10)

    assert report.updated == 2
    assert rows(
        trained, "SELECT utc_timestamp, cause FROM anomaly.anomaly_results_history ORDER BY 1"
    ) == [
        (at(9), "corrected"),
        (at(10), "rescored"),
    ]


def test_a_deleted_reading_is_retracted_within_the_limit_only(trained, settings):
    score(trained, settings, 0, DAY)
    delete(trained, 9)

    narrow = score(trained, settings, 8, 11)
    assert (narrow.retracted, narrow.retraction_withheld) == (0, 2)

    allowed = score(trained, settings, 8, 11, retractable=2)
    assert (allowed.retracted, allowed.retraction_withheld) == (2, 0)
    assert (1, at(9)) not in verdicts(trained)
    assert verdicts(trained)[1, at(10)]["quality"] == "gap"


def test_an_emptied_source_deletes_nothing(trained, settings):
    score(trained, settings, 0, DAY)
    execute(trained, "TRUNCATE anomaly.meter_readings")

    report = score(trained, settings, 0, DAY, retractable=10**9)

    assert report.retracted == 0
    assert len(verdicts(trained)) == 2 * DAY


def test_a_purged_past_keeps_its_verdicts(trained, settings):
    score(trained, settings, 0, DAY)
    delete(trained, 0, 50)

    report = score(trained, settings, 0, DAY, retractable=10**9)

    assert report.retracted == 0


def test_without_a_model_a_tick_says_what_to_do_and_loses_nothing(database, settings):
    insert(database, counters(9 * DAY))
    for end in (8 * DAY + 1, 8 * DAY + 2):
        with pytest.raises(NoModelError, match="anomaly train --promote"):
            tick(database, settings, end)
    train(database, settings)

    tick(database, settings, 8 * DAY + 30)

    scored = {moment for _, moment in verdicts(database)}
    assert min(scored) == at(8 * DAY) - settings.scoring.lateness(settings.meter.interval)
    assert max(scored) == at(8 * DAY + 29)


def test_before_there_is_enough_history_a_tick_says_how_much_is_missing(database, settings):
    insert(database, counters(8 * DAY))  # seven days of which judge, one is to train on
    young = settings.changed(training_min_days=7)

    with pytest.raises(NoModelError, match=r"; there are 1\.0 days .* wait for 6\.0 more days"):
        tick(database, young, 8 * DAY)


def test_an_outage_of_any_length_is_caught_up_by_the_next_tick(trained, settings):
    tick(trained, settings, 10)

    tick(trained, settings, 9 * DAY)

    assert {moment for _, moment in verdicts(trained)} == {at(n) for n in range(9 * DAY)}


def test_an_empty_span_is_leapt_over(trained, settings):
    tick(trained, settings, 10)
    later = counters(4).assign(utc_timestamp=[at(n) + timedelta(days=3650) for n in range(4)])
    insert(trained, later)

    ends = at(4) + timedelta(days=3650)
    report = score_tick(Scorer(trained, settings), Window(ends - QUARTER, ends), TESTS)

    assert report.windows < 6
    assert (1, ends - QUARTER) in verdicts(trained)


def test_a_reading_that_is_not_due_waits(trained, settings):
    tick(trained, settings, 10)

    assert max(moment for _, moment in verdicts(trained)) == at(9)


def test_a_late_reading_is_found_by_the_next_tick_and_marked_late(trained, settings):
    delete(trained, 9)
    for end in (10, 11):
        tick(trained, settings, end)
    insert(trained, counters(10).iloc[9:])

    tick(trained, settings, 12)

    assert rows(
        trained,
        "SELECT DISTINCT origin::text FROM anomaly.anomaly_results WHERE utc_timestamp = :t",
        t=at(9),
    ) == [("late",)]


def test_a_reading_later_than_the_lateness_is_found_by_its_ingestion_time(trained, settings):
    execute(trained, "UPDATE anomaly.meter_readings SET ingested_at = :t", t=at(0))
    late = counters(10).iloc[9:]
    delete(trained, 9)
    tick(trained, settings, 10)
    tick(trained, settings, 60)
    insert(trained, late)

    tick(trained, settings, 61)

    assert (1, at(9)) in verdicts(trained)
    assert verdicts(trained)[1, at(10)]["quality"] == "ok"  # re-scored with its predecessor


def test_a_second_version_judges_only_what_comes_after_it(trained, settings):
    score(trained, settings, 0, 20)
    before = verdicts(trained)
    train(trained, settings, end=4 * DAY)

    score(trained, settings, 0, 40)

    after = verdicts(trained)
    assert {key: after[key] for key in before} == before
    assert {after[1, at(n)]["model_version"] for n in range(20)} == {1}
    assert {after[1, at(n)]["model_version"] for n in range(20, 40)} == {2}


def test_an_overtaken_attempt_reads_again_and_the_newest_stays(trained, settings, monkeypatch):
    scorer = Scorer(trained, settings)
    original = scorer.reader.read
    overtaken = []

    def read_slowly(*arguments, **options):
        found = original(*arguments, **options)
        if not overtaken:
            overtaken.append(True)
            change(trained, 9, "machine_1 + 0.5")
            score(trained, settings, 5, 15)
        return found

    monkeypatch.setattr(scorer.reader, "read", read_slowly)
    report = scorer.score_window(Window(at(0), at(20)), Job(Origin.BACKFILL, TESTS))

    assert overtaken
    assert (report.inserted, report.updated) == (20, 0)
    assert (
        verdicts(trained)[1, at(9)]["reading"]
        == rows(
            trained,
            "SELECT machine_1 FROM anomaly.meter_readings WHERE utc_timestamp = :t",
            t=at(9),
        )[0][0]
    )


def test_a_model_of_watts_refuses_counters(trained, settings):
    watts = settings.changed(reading_kind=ReadingKind.POWER_W)

    with pytest.raises(SettingsError, match="was trained on energy_kwh"):
        score(trained, watts, 0, 10)


def test_a_tick_of_hourly_readings_waits_until_the_hour_is_over(trained, settings):
    hourly = settings.changed(interval_minutes=60)
    Scorer(trained, hourly)  # the model's interval differs, so only the window is looked at

    with pytest.raises(SettingsError, match="every 15 minutes"):
        score_tick(Scorer(trained, hourly), Window(at(4), at(5)), TESTS)
    none = settings.changed(interval_minutes=60, lateness_hours=0.0)
    assert score_tick(Scorer(trained, none), Window(at(4), at(5)), TESTS).windows == 0


def test_what_operators_saw_then_can_be_asked(trained, settings):
    score(trained, settings, 0, 20)
    ((then,),) = rows(trained, "SELECT clock_timestamp()")
    change(trained, 9, "machine_1 + 0.5")
    score(trained, settings, 0, 20)

    query = (
        "SELECT reading FROM anomaly.anomaly_results_as_of(:t)"
        " WHERE machine_id = 1 AND utc_timestamp = :r"
    )
    ((old,),) = rows(trained, query, t=then, r=at(9))
    ((now,),) = rows(trained, query, t=then + timedelta(hours=1), r=at(9))

    assert now == pytest.approx(old + 0.5)


def test_with_many_machines_a_shorter_range_is_read_at_once(trained, settings):
    small = settings.changed(chunk_readings=5 * DAY // 2)
    whole, cut = Scorer(trained, settings), Scorer(trained, small)

    assert (whole.longest_chunk(), cut.longest_chunk()) == (
        settings.scoring.chunk,
        timedelta(hours=12),
    )
    assert score(trained, small, 0, DAY).inserted == 2 * DAY
    assert rows(trained, "SELECT count(*) FROM anomaly.scoring_runs") == [(2,)]
    assert score(trained, settings, 0, DAY).unchanged == 2 * DAY


# The ledger and bi.pipeline_health -------------------------------------------------


def test_what_came_late_and_what_has_no_verdict_is_counted_once(database, settings):
    frame = counters(12 * DAY)
    insert(database, frame.iloc[: 9 * DAY])
    train(database, settings)
    tick(database, settings, 9 * DAY - 1)
    tick(database, settings, 9 * DAY)  # finds what was there before the first
    health = "SELECT late_24h, intervals_without_verdict_24h FROM bi.pipeline_health"
    ((late_before, _),) = rows(database, health)
    came_late = [9 * DAY + 30, 9 * DAY + 40]  # the second is found by the very next tick
    empty = 9 * DAY + 50
    for quarter in range(9 * DAY, 10 * DAY):
        row = frame.iloc[[quarter]].copy()
        if quarter == empty:
            row["machine_2"] = float("nan")
        if quarter not in came_late:
            insert(database, row)
        if quarter - 1 == came_late[1]:
            insert(database, frame.iloc[[came_late[1]]])
        tick(database, settings, quarter + 1)
    before = rows(database, health)
    insert(database, frame.iloc[[came_late[0]]])
    tick(database, settings, 10 * DAY + 1)

    assert before == [(late_before + 2, 3)]
    assert rows(database, health) == [(late_before + 4, 1)]
    assert rows(
        database, "SELECT DISTINCT meter_interval FROM anomaly.scoring_runs WHERE readings > 0"
    ) == [(timedelta(minutes=15),)]
