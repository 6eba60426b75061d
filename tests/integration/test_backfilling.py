"""Backfills on a real Postgres: preview, modes, versions, stopping and going on, the report."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from anomaly.database.connection import SCORER
from anomaly.database.scoring_runs import RequestedBy
from anomaly.errors import AnomalyError, StaleAttemptError
from anomaly.lifecycle.promotion import Promoter
from anomaly.loading.files import ingest
from anomaly.operations import backfilling
from anomaly.operations.backfilling import Backfiller, Chunk, Mode, Request
from anomaly.operations.status import status
from anomaly.scoring.publishing import Publisher
from anomaly.scoring.scorer import Scorer
from anomaly.scoring.ticks import score_tick
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
    register_trained,
    rows,
    score,
    tick,
    train,
    train_in_force,
    verdicts,
)

DAY = 96
DUE = at(9 * DAY)
EVERY_TABLE = """
SELECT format('%I.%I', table_schema, table_name)
  FROM information_schema.tables
 WHERE table_schema = 'anomaly' AND table_type = 'BASE TABLE'
"""


@pytest.fixture
def trained(database, settings):
    """Nine days of two machines, a model trained on eight of them, nothing scored."""
    insert(database, counters(9 * DAY))
    train(database, settings)
    return database


@pytest.fixture
def backfiller(trained, settings, monkeypatch):
    """Pieces of two days of the table's five machines, so that a few days are several."""
    monkeypatch.setattr(backfilling, "PIECE_READINGS", 10 * DAY)
    return Backfiller(trained, settings.changed(chunk_days=1))


def request(backfiller, first=0, end=9 * DAY, **asked) -> Request:
    """Ask for quarter-hours `first` to `end`."""
    return backfiller.check(Window(at(first), at(end)), due=DUE, **asked)


def run(backfiller, asked, requested_by=TESTS):
    """Do all of a backfill; return its number and report."""
    number = backfiller.begin(asked, requested_by, "test")
    for chunk in backfiller.chunks(asked):
        backfiller.run(number, chunk, requested_by)
    return number, backfiller.report(number, is_finished=True)


def preview(backfiller, asked):
    """Preview all of a backfill."""
    total = backfilling.BackfillReport()
    for chunk in backfiller.chunks(asked):
        total += backfiller.preview(asked, chunk)
    return backfiller.joined(total)


def contents(database) -> dict[str, list[tuple]]:
    """Every row of every table of the product."""
    tables = [name for (name,) in rows(database, EVERY_TABLE)]
    return {
        name: rows(database, f"SELECT t::text, xmin::text FROM {name} t ORDER BY 1")
        for name in tables
    }


def test_a_preview_counts_what_the_backfill_then_does_and_writes_nothing(backfiller, trained):
    asked = request(backfiller)
    before = contents(trained)

    told = preview(backfiller, asked)

    assert contents(trained) == before
    assert before["anomaly.machines"]  # training has registered them
    _, done = run(backfiller, asked)
    assert (done.read, done.inserted, done.unchanged) == (18 * DAY, 18 * DAY, 0)
    same = {"seconds": 0.0, "incidents": None}
    assert told.as_dict() | same == done.as_dict() | same
    names = [name for name, found in vars(told.incidents).items() if found]
    assert names == [name for name, found in vars(done.incidents).items() if found]


def test_a_preview_of_machines_that_nobody_has_registered_writes_nothing(
    backfiller, trained, settings
):
    execute(trained, "DELETE FROM anomaly.machines")
    before = contents(trained)

    told = preview(backfiller, request(backfiller, mode="everything"))

    assert told.inserted == 18 * DAY
    assert contents(trained) == before


@pytest.mark.parametrize("mode", [*Mode])
def test_each_mode_scores_what_it_says(mode, backfiller, trained, settings):
    score(trained, settings, 0, 9 * DAY)
    change(trained, 500, "machine_1 + 0.1")
    execute(
        trained,
        "DELETE FROM anomaly.anomaly_results WHERE utc_timestamp >= :a AND utc_timestamp < :b",
        a=at(100),
        b=at(103),
    )
    delete(trained, 700)

    _, report = run(backfiller, request(backfiller, mode=mode))

    assert report.read == 18 * DAY - 2
    assert report.inserted == 6
    if mode is Mode.MISSING:
        assert (report.updated, report.retracted) == (0, 0)
    else:
        assert report.updated >= 2
        assert report.retracted == 2
    assert report.inserted + report.updated + report.unchanged == report.read
    scored = rows(trained, "SELECT sum(scored) FROM anomaly.scoring_runs WHERE backfill_id = 1")
    assert (scored[0][0] >= 18 * DAY - 2) == (mode is Mode.EVERYTHING)


def test_verdicts_on_older_features_are_made_anew(backfiller, trained, settings):
    score(trained, settings, 0, 9 * DAY)
    execute(
        trained,
        "UPDATE anomaly.anomaly_results SET features_version = 0 WHERE utc_timestamp < :t",
        t=at(5),
    )

    _, report = run(backfiller, request(backfiller))
    _, again = run(backfiller, request(backfiller))

    assert (report.updated, report.flips.of_machine) == (10, {})
    assert again.updated == 0


def test_only_the_machines_that_are_asked_for_are_scored(backfiller, trained):
    asked = request(backfiller, machines=["machine_2"])

    _, report = run(backfiller, asked)

    assert report.inserted == 9 * DAY
    counts = "SELECT machine_id, count(*) FROM anomaly.anomaly_results GROUP BY 1"
    assert rows(trained, counts) == [(2, 9 * DAY)]
    some = verdicts(trained)
    _, rest = run(backfiller, request(backfiller, machines=["1"]))
    assert rest.inserted == 9 * DAY
    assert {key: row for key, row in verdicts(trained).items() if key[0] == 2} == some


def test_groups_of_machines_give_the_verdicts_of_all_together(
    backfiller, trained, settings, monkeypatch
):
    score(trained, settings, 0, 9 * DAY)
    together = verdicts(trained)
    execute(trained, "DELETE FROM anomaly.anomaly_results")
    monkeypatch.setattr(backfilling, "GROUP_MACHINES", 1)
    asked = request(backfiller, mode="everything")

    chunks = backfiller.chunks(asked)
    run(backfiller, asked)

    assert {chunk.group for chunk in chunks} == {(n, n) for n in range(1, 6)}
    assert verdicts(trained) == together


def test_runs_of_other_machines_do_not_overtake_each_other(
    backfiller, trained, settings, monkeypatch
):
    """Two groups of one window may be published at the same time."""
    publish, between = Publisher.publish, []

    def publish_after_another(self, attempt, shape, job):
        if job.machines == (1,) and not between:
            between.append(score(trained, settings, 0, DAY, machines=(2,)))
        return publish(self, attempt, shape, job)

    monkeypatch.setattr(Publisher, "publish", publish_after_another)
    monkeypatch.setattr("anomaly.scoring.scorer._ATTEMPTS", 1)

    assert score(trained, settings, 0, DAY, machines=(1,)).inserted == DAY
    between.clear()
    monkeypatch.setattr(
        Publisher,
        "publish",
        lambda self, attempt, shape, job: (
            (between.append(1) or between[1:] or score(trained, settings, 0, DAY))
            and publish(self, attempt, shape, job)
        ),
    )
    with pytest.raises(StaleAttemptError):
        score(trained, settings, 0, DAY, machines=(1,))


def test_real_readings_get_the_verdicts_that_ticks_gave_them(database, settings, shared_data):
    file = shared_data / "industrial3_15min.csv"
    ingest(database, settings.meter_table, settings.meter, file)
    source = Scorer(database, settings).reader.source
    with database.transaction(SCORER, read_only=True) as transaction:
        first, last = source.extent(transaction, source.describe(transaction))
    train_in_force(database, settings, Window(first, first + timedelta(days=60)))
    for end in (first + QUARTER, first + timedelta(days=100), last + QUARTER):
        score_tick(Scorer(database, settings), Window(end - QUARTER, end), TESTS)
    live = verdicts(database)
    execute(database, "TRUNCATE anomaly.anomaly_results")
    backfiller = Backfiller(database, settings)

    _, report = run(backfiller, backfiller.check(Window(first, last + QUARTER), due=last + QUARTER))

    assert report.inserted == len(live) > 30_000
    assert verdicts(database) == live


# Versions -------------------------------------------------------------------------


@pytest.fixture
def second(trained, settings):
    """A second version, trained on fewer days, which is not in force."""
    return register_trained(trained, settings, Window(at(0), at(3 * DAY))).version


def test_another_version_is_put_in_force_for_the_range(backfiller, trained, settings, second):
    score(trained, settings, 0, 9 * DAY)
    asked = request(backfiller, 2 * DAY, 4 * DAY, version=second)
    before = contents(trained)

    told = preview(backfiller, asked)

    assert contents(trained) == before
    number, done = run(backfiller, asked)
    assert (told.updated, told.flips) == (done.updated, done.flips)
    assert done.updated >= 4 * DAY
    found = rows(
        trained,
        "SELECT model_version, count(*), min(utc_timestamp), max(utc_timestamp)"
        "  FROM anomaly.anomaly_results GROUP BY 1 ORDER BY 1",
    )
    assert found[1] == (second, 4 * DAY, at(2 * DAY), at(4 * DAY - 1))
    words = backfiller.as_markdown(asked, done, backfill_id=number)
    assert f"| versions | version 1 before; version {second} now |" in words
    unfinished = "SELECT count(*) FROM anomaly.model_in_force WHERE unfinished"
    assert rows(trained, unfinished) == [(0,)]


def test_flips_are_counted_per_machine_and_direction(backfiller, trained, settings):
    score(trained, settings, 0, 9 * DAY)
    was = verdicts(trained)
    execute(
        trained,
        "UPDATE anomaly.anomaly_results SET anomaly = 1 - anomaly, features_version = 0"
        " WHERE machine_id = 2 AND utc_timestamp < :t",
        t=at(10),
    )

    _, report = run(backfiller, request(backfiller))

    abnormal = sum(was[2, at(n)]["anomaly"] for n in range(10))
    assert report.flips.of_machine == {2: (abnormal, 10 - abnormal)}
    assert report.flipped_share == pytest.approx(10 / (18 * DAY))
    assert verdicts(trained) == was


def test_incidents_that_open_and_go_are_told(backfiller, trained, settings):
    score(trained, settings, 0, 9 * DAY)
    was = verdicts(trained)
    leap = next(
        quarter
        for quarter in range(DAY, 8 * DAY)
        if not any(was[1, at(near)]["anomaly"] for near in range(quarter - 16, quarter + 17))
    )
    change(trained, leap, "machine_1 + 8", onward=True)
    _, opened = run(backfiller, request(backfiller))
    change(trained, leap, "machine_1 - 8", onward=True)
    asked = request(backfiller)

    told = preview(backfiller, asked)
    _, done = run(backfiller, asked)

    (new,) = opened.incidents.opened
    assert (new["machine_id"], new["started_at"]) == (1, at(leap).isoformat())
    assert [one["incident_id"] for one in done.incidents.withdrawn] == [new["incident_id"]]
    assert done.incidents.opened == ()
    assert told.incidents == done.incidents
    assert done.flips.to_normal == told.flips.to_normal > 0
    anomalies = {key: verdict["anomaly"] for key, verdict in verdicts(trained).items()}
    assert anomalies == {key: verdict["anomaly"] for key, verdict in was.items()}


def test_a_verdict_at_the_border_of_two_pieces_counts_once(backfiller, trained, settings):
    score(trained, settings, 0, 9 * DAY)
    change(trained, 2 * DAY - 1, "machine_1 + 0.1")  # the last reading of the first piece
    asked = request(backfiller)

    told = preview(backfiller, asked)
    _, done = run(backfiller, asked)

    assert told.updated == done.updated == 2  # and its successor's
    assert told.flips == done.flips


# Stopped and gone on with ---------------------------------------------------------------


def test_what_is_finished_is_not_done_again(backfiller, trained, settings, monkeypatch):
    whole = backfiller.chunks(request(backfiller, mode="everything"))
    asked = request(backfiller, mode="everything")
    number = backfiller.begin(asked, TESTS, "test")
    publish, left = Publisher.publish, [3]

    def publish_thrice(self, attempt, shape, job):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return publish(self, attempt, shape, job)

    monkeypatch.setattr(Publisher, "publish", publish_thrice)
    (chunk,) = whole
    with pytest.raises(KeyboardInterrupt):
        backfiller.run(number, chunk, TESTS)
    monkeypatch.setattr(Publisher, "publish", publish)

    backfiller.run(number, chunk, TESTS)

    report = backfiller.report(number, is_finished=True)
    assert (report.read, report.inserted, report.unchanged) == (18 * DAY, 18 * DAY, 0)
    windows = rows(trained, "SELECT window_start, count(*) FROM anomaly.scoring_runs GROUP BY 1")
    assert {count for _, count in windows} == {1}
    assert len(windows) == 5  # nine days, two at once


def test_killed_between_publishing_and_its_mark_counts_nothing_twice(
    backfiller, trained, monkeypatch
):
    asked = request(backfiller, mode="everything")
    number = backfiller.begin(asked, TESTS, "test")
    (chunk,) = backfiller.chunks(asked)
    finish = backfilling.table.finish_piece

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(backfilling.table, "finish_piece", die)
    with pytest.raises(KeyboardInterrupt):
        backfiller.run(number, chunk, TESTS)
    monkeypatch.setattr(backfilling.table, "finish_piece", finish)
    backfiller.run(number, chunk, TESTS)

    report = backfiller.report(number, is_finished=True)
    assert (report.read, report.inserted) == (18 * DAY, 18 * DAY)


@pytest.mark.parametrize("factor", [0.5, 2])
def test_it_is_gone_on_with_as_it_was_cut(factor, backfiller, trained, monkeypatch):
    """Whatever has changed meanwhile: the settings, or the number of machines."""
    asked = request(backfiller, mode="everything")
    number = backfiller.begin(asked, TESTS, "test")
    (chunk,) = backfiller.chunks(asked)

    def stop(piece):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backfiller.run(number, chunk, TESTS, stop)
    monkeypatch.setattr(backfilling, "PIECE_READINGS", int(10 * DAY * factor))
    backfiller.run(number, chunk, TESTS)

    report = backfiller.report(number, is_finished=True)
    assert (report.read, report.inserted, report.unchanged) == (18 * DAY, 18 * DAY, 0)


def test_pieces_that_new_readings_cut_otherwise_are_counted_once(backfiller, trained):
    asked = request(backfiller, mode="everything")
    number = backfiller.begin(asked, TESTS, "test")
    (chunk,) = backfiller.chunks(asked)
    delete(trained, 5 * DAY, 7 * DAY)
    backfiller.run(number, chunk, TESTS)
    insert(trained, counters(7 * DAY).iloc[5 * DAY :])

    backfiller.run(number, chunk, TESTS)

    report = backfiller.report(number, is_finished=True)
    # Two pieces were finished, and are not looked at again: a reconciliation finds what came in.
    assert report.read == len(verdicts(trained)) == 16 * DAY


def test_a_run_that_is_begun_again_goes_on_with_its_backfill(backfiller, trained):
    run_of = RequestedBy("backfill_scores", "backfill_scores", "run 1")
    asked = request(backfiller)
    number = backfiller.begin(asked, run_of, "test")

    assert backfiller.begin(request(backfiller), run_of, "test") == number
    assert backfiller.begin(request(backfiller, mode="missing"), run_of, "test") != number
    backfiller.report(number, is_finished=True)
    assert backfiller.begin(asked, run_of, "test") != number


def test_a_chunk_may_be_begun_by_a_tick_meanwhile(backfiller, trained, settings):
    score(trained, settings, 0, 9 * DAY)
    alone = verdicts(trained)
    execute(trained, "DELETE FROM anomaly.anomaly_results")
    asked = request(backfiller, mode="everything")
    number = backfiller.begin(asked, TESTS, "test")
    (chunk,) = backfiller.chunks(asked)

    backfiller.run(number, chunk, TESTS, lambda piece: tick(trained, settings, 9 * DAY))

    assert verdicts(trained) == alone


def test_ticks_and_a_backfill_at_once_end_as_either_alone(backfiller, trained, settings):
    score(trained, settings, 0, 9 * DAY)
    alone = verdicts(trained)
    execute(trained, "DELETE FROM anomaly.anomaly_results")
    asked = request(backfiller, mode="everything", chunk_days=1)
    number = backfiller.begin(asked, TESTS, "test")
    chunks = backfiller.chunks(asked)

    with ThreadPoolExecutor(2) as pool:
        backfill = pool.submit(lambda: [backfiller.run(number, one, TESTS) for one in chunks])
        # Each looks at the two hours before it, which the backfill is writing as well.
        ticks = [tick(trained, settings, end) for end in range(8 * DAY, 9 * DAY + 1, 8)]
        backfill.result()

    assert verdicts(trained) == alone
    assert sum(one.read for one in ticks) > 2 * DAY
    assert backfiller.report(number, is_finished=True).read == 18 * DAY


def test_the_report_is_kept(backfiller, trained):
    number, report = run(
        backfiller, request(backfiller), RequestedBy("backfill_scores", "backfill_scores", "run 1")
    )

    ((command, run_id, finished, kept),) = rows(
        trained,
        "SELECT command, dag_run_id, finished_at > started_at, report  FROM anomaly.backfills",
    )
    assert (command, run_id, finished) == ("backfill_scores", "run 1", True)
    versions = {"versions_before": "version 1", "versions_after": "version 1"}
    assert kept == versions | report.as_dict()
    assert backfilling.BackfillReport.from_dict(kept).as_dict() == report.as_dict()
    assert number == 1


# Plans -----------------------------------------------------------------------------


def test_years_without_a_reading_are_leapt_over(backfiller, trained):
    execute(
        trained,
        "INSERT INTO anomaly.meter_readings (utc_timestamp, machine_1)"
        " VALUES ('2016-01-01T00:00Z', 1), ('2021-06-01T00:00Z', 2)",
    )
    asked = backfiller.check(Window.parse("2010-01-01", "2026-04-01"), chunk_days=5, due=DUE)

    chunks = [chunk.window for chunk in backfiller.chunks(asked)]

    assert chunks[0].start == asked.window.start
    assert chunks[-1].end == asked.window.end
    assert all(one.end == other.start for one, other in pairwise(chunks))
    assert len(chunks) == 4


def test_a_chunk_goes_through_xcom_and_names_what_it_covers():
    chunk = Chunk(Window(at(0), at(8 * DAY)), (3, 9))

    assert Chunk.from_dict(chunk.as_dict()) == chunk
    assert str(chunk) == "2026-03-02 00:00 to 2026-03-10 00:00, machines 3 to 9"
    assert str(Chunk(Window(at(0), at(4)))) == "2026-03-02 00:00 to 01:00"


# Refused before anything begins -----------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"machines": ["lathe"]}, "no machine is called 'lathe': write a name, or an id: 1, 2"),
        ({"version": 7}, "there is no model version 7"),
        ({"version": 1, "machines": ["1"]}, "version 1 would judge the range for every machine"),
        ({"version": 1, "mode": "missing"}, "mode 'missing' leaves those alone"),
        ({"mode": "all"}, "there is no mode 'all': write missing, changed, everything"),
    ],
)
def test_what_cannot_be_done_is_refused(asked, said, backfiller):
    with pytest.raises(AnomalyError) as error:
        request(backfiller, **asked)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("first", "end", "said"),
    [
        (-10, -5, "holds no reading: anomaly.meter_readings has readings from 2026-03-02 00:00 to"),
        (20 * DAY, 21 * DAY, "is not due yet"),
    ],
)
def test_a_range_without_readings_is_refused(first, end, said, backfiller):
    with pytest.raises(AnomalyError) as error:
        request(backfiller, first, end)
    assert said in str(error.value)


def test_the_part_that_is_due_is_scored(backfiller):
    asked = backfiller.check(Window(at(0), at(100 * DAY)), due=DUE + timedelta(minutes=3))

    assert asked.window == Window(at(0), at(9 * DAY))


def test_a_range_from_the_year_one_begins_with_the_first_reading(backfiller):
    asked = backfiller.check(Window.parse("0001-01-01", "2026-04-01"), due=DUE)

    assert asked.window == Window(at(0), at(9 * DAY))


def test_what_the_scheduled_scoring_has_not_reached_is_left_to_it(backfiller, trained, settings):
    """Else its incidents would be a backfill's, and alert nobody."""
    tick(trained, settings, 8 * DAY)

    assert request(backfiller).window.end == at(8 * DAY)
    with pytest.raises(AnomalyError, match="is for score_readings, which has scored up to"):
        request(backfiller, 8 * DAY, 9 * DAY)


def test_a_version_where_none_is_in_force_is_refused(backfiller, trained, second):
    execute(trained, "UPDATE anomaly.model_in_force SET superseded_at = now()")

    with pytest.raises(AnomalyError, match="no model version is in force"):
        request(backfiller, version=second)


def test_the_report_names_the_version_that_judges_in_the_end(backfiller, trained, settings, second):
    asked = request(backfiller, version=second)
    number = backfiller.begin(asked, TESTS, "test")
    Promoter(trained, settings).assign_range(1, at(0), at(9 * DAY), by="test", reason="no")

    report = backfiller.report(number, is_finished=False)

    words = backfiller.as_markdown(asked, report, backfill_id=number)
    assert "| versions | version 1 before; version 1 now |" in words


def test_a_stopped_backfill_with_a_version_needs_somebody(backfiller, trained, settings, second):
    asked = request(backfiller, version=second)
    number = backfiller.begin(asked, TESTS, "test")

    def problems(hours):
        found = status(trained, settings, datetime.now(UTC) + timedelta(hours=hours)).problems
        return [problem for problem in found if "backfill" in problem]

    assert problems(0) == []
    assert problems(2) == [
        f"backfill {number} has put a model version in force and has not scored all of its range:"
        f" clear its run in Airflow, or run `anomaly backfill --resume {number}`"
    ]
    for chunk in backfiller.chunks(asked):
        backfiller.run(number, chunk, TESTS)
    backfiller.report(number, is_finished=True)
    assert problems(2) == []


def test_a_preview_counts_what_mismatches_reach(backfiller, trained, settings):
    """Mode 'changed' scores spans only, and what they change around them counts as well."""
    signals = settings.changed(detector="signals", training_min_days=5)
    version = register_trained(trained, signals, Window(at(0), at(8 * DAY))).version
    Promoter(trained, settings).assign_range(version, at(0), at(9 * DAY), by="test", reason="test")
    score(trained, settings, 0, 9 * DAY)
    for quarter in (150, 152, 400, 560, 600):
        change(trained, quarter, "machine_1 + 6", onward=True)
    delete(trained, 300, 303)
    asked = request(backfiller)

    told = preview(backfiller, asked)
    _, done = run(backfiller, asked)

    assert (told.inserted, told.updated, told.retracted, told.flips) == (
        done.inserted,
        done.updated,
        done.retracted,
        done.flips,
    )
    assert done.updated > 10


def test_too_many_chunks_are_refused(backfiller, monkeypatch):
    monkeypatch.setattr(backfilling, "MOST_CHUNKS", 3)

    with pytest.raises(AnomalyError) as error:
        backfiller.chunks(request(backfiller, chunk_days=1))
    assert "9 chunks of 1 days, at most 3" in str(error.value)
