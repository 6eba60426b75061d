"""What of the pipeline and its models people are told: once while it lasts, and when it is over."""

from datetime import timedelta

import pytest

from anomaly.operations.alert_checks import check_pipeline, note_freshness_check, tell_question
from deployment import QUARTER, at, counters, execute, insert, rows

NOW = at(960)
HOUR = timedelta(hours=1)


@pytest.fixture
def plant(database, settings):
    """A deployment whose newest reading ended now, and whose newest scored window as well."""
    insert(database, counters(960))
    scored(database, NOW)
    return database


def scored(database, moment) -> None:
    execute(
        database,
        "INSERT INTO anomaly.scoring_runs (run_id, window_start, window_end, written_from,"
        " written_to, origin, command, readings, scored, inserted, package_version, published_at)"
        " SELECT count(*) + 1, :start, :end, CAST(:start AS timestamptz),"
        " CAST(:end AS timestamptz), 'live', 'score_readings', 2, 2, 2, 'test', :end"
        " FROM anomaly.scoring_runs",
        start=moment - QUARTER,
        end=moment,
    )


def told(database) -> list[tuple]:
    """What was written since the last look."""
    found = rows(
        database, "SELECT event, severity, says FROM anomaly.alert_events ORDER BY event_id"
    )
    execute(database, "UPDATE anomaly.alert_events SET says = '' WHERE says <> ''")
    return [row for row in found if row[2]]


def test_a_pipeline_that_is_well_tells_nothing(plant, settings):
    note_freshness_check(plant, NOW)

    assert check_pipeline(plant, settings, NOW) == 0


def test_meters_that_deliver_nothing_are_told_once_until_they_deliver_again(plant, settings):
    late = NOW + 3 * HOUR
    scored(plant, late)

    assert check_pipeline(plant, settings, late) == 1
    assert check_pipeline(plant, settings, late + QUARTER) == 0
    ((event, severity, says),) = told(plant)
    assert (event, severity) == ("stale", "critical")
    newest = f"{NOW - QUARTER:%Y-%m-%d %H:%M}"
    assert says.startswith(f"no meter has delivered a reading since {newest} UTC; look at what")

    frame = counters(961).tail(1).assign(utc_timestamp=[late - QUARTER])
    insert(plant, frame)
    assert check_pipeline(plant, settings, late) == 1
    assert check_pipeline(plant, settings, late) == 0
    assert told(plant) == [("stale_over", "notice", "meters deliver readings again")]

    again = late + 3 * HOUR
    scored(plant, again)
    assert check_pipeline(plant, settings, again) == 1
    assert [event for event, *_ in told(plant)] == ["stale"]


def test_a_loader_that_catches_up_slowly_is_one_message_and_one_end(plant, settings):
    late = NOW + 9 * HOUR
    scored(plant, late)
    for step in range(4):
        creeping = NOW + step * HOUR
        insert(plant, counters(961).tail(1).assign(utc_timestamp=[creeping]))
        check_pipeline(plant, settings, late)
    insert(plant, counters(961).tail(1).assign(utc_timestamp=[late - QUARTER]))
    check_pipeline(plant, settings, late)

    assert [event for event, *_ in told(plant)] == ["stale", "stale_over"]


@pytest.mark.parametrize(
    ("promotion", "says"),
    [
        ("approve", "answer the task `ask` of retrain_model, or run `anomaly models promote 7`"),
        ("manual", "a person must decide on it; run `anomaly models promote 7`"),
    ],
)
def test_a_version_that_waits_for_a_person_is_told_once(database, settings, promotion, says):
    settings = settings.changed(promotion=promotion)

    assert tell_question(database, settings, 7, NOW) == 1
    assert tell_question(database, settings, 7, NOW + HOUR) == 0

    ((event, severity, said),) = told(database)
    assert (event, severity) == ("asked", "notice")
    assert said.startswith("version 7 passed the gate, and a person must decide on it; ")
    assert says in said


def test_a_table_without_any_reading_is_no_delivery(database, settings):
    for _ in range(2):
        check_pipeline(database, settings, NOW)

    ((event, severity, says),) = told(database)
    assert (event, severity) == ("stale", "critical")
    assert says.startswith("no meter has ever delivered a reading; look at what fills")


def test_rows_without_values_are_no_delivery(plant, settings):
    late = NOW + 3 * HOUR
    scored(plant, late)
    empty = counters(961).tail(1).assign(utc_timestamp=[late], machine_1=[None], machine_2=["NaN"])
    insert(plant, empty)

    assert check_pipeline(plant, settings, late) == 1
    assert [event for event, *_ in told(plant)] == ["stale"]


def test_nothing_scored_and_nothing_checked_are_told_until_they_are(plant, settings):
    note_freshness_check(plant, NOW)
    late = NOW + 1.5 * HOUR

    assert check_pipeline(plant, settings, late) == 2
    assert check_pipeline(plant, settings, late) == 0
    found = {event: says for event, _, says in told(plant)}
    assert set(found) == {"unscored", "unchecked"}
    assert (
        f"nothing has been scored since {NOW:%Y-%m-%d %H:%M} UTC; look at the DAG"
        in (found["unscored"])
    )
    assert "task check_freshness of score_readings" in found["unchecked"]

    scored(plant, late)
    note_freshness_check(plant, late)
    assert check_pipeline(plant, settings, late) == 2
    assert sorted(event for event, *_ in told(plant)) == ["unchecked_over", "unscored_over"]


def test_the_limit_is_a_setting(plant, settings):
    patient = settings.changed(alert_unscored_minutes=120)

    assert check_pipeline(plant, patient, NOW + 1.5 * HOUR) == 0


def test_versions_that_are_refused_again_and_again_need_a_person(plant, settings):
    for version in range(1, settings.gate.gate_refusals + 1):
        execute(
            plant,
            "INSERT INTO anomaly.model_versions (version, detector, artefact, sha256, trained_from,"
            " trained_to, readings, parameters, library_versions, registered_by, status)"
            " VALUES (:version, 'signals', 'x' || :version, '{}', :start, :end, 1, '{}', '{}',"
            " 'test', 'refused')",
            version=version,
            start=at(0),
            end=NOW,
        )

    assert check_pipeline(plant, settings, NOW) == 1
    assert check_pipeline(plant, settings, NOW) == 0
    ((event, severity, says),) = told(plant)
    assert (event, severity) == ("refused", "warning")
    assert says.startswith("a person must decide on a model; the gate refused")
    assert f"`anomaly models promote {settings.gate.gate_refusals}`" in says


def test_far_more_alerts_than_are_bearable_are_told_once_a_week(plant, settings):
    execute(plant, "INSERT INTO anomaly.machines (machine_id, source_key, name)"
                   " VALUES (1, 'machine_1', 'Saw')")  # fmt: skip
    execute(plant, "SELECT anomaly.ensure_partitions(:start, :end)", start=at(0), end=NOW)
    execute(
        plant,
        "INSERT INTO anomaly.anomaly_results (machine_id, utc_timestamp, reading, anomaly_score,"
        " threshold, anomaly, quality, origin, model_version, run_id, scored_at, features_version)"
        " SELECT 1, t, 1, 0.1, 0.5, 0, 'ok', 'live', 1, 1, t, 2"
        " FROM generate_series(CAST(:start AS timestamptz), :end, interval '15 minutes') AS t",
        start=NOW - timedelta(days=7),
        end=NOW - QUARTER,
    )
    execute(
        plant,
        "INSERT INTO anomaly.incidents (machine_id, kind, started_at, ended_at, last_at, told_at,"
        " severity, reason, state, origin, opened_at, updated_at)"
        " SELECT 1, 'machine', t, t + interval '1 hour', t, t, 'notice', 'x', 'closed', 'live', t,"
        " t FROM generate_series(CAST(:start AS timestamptz), :end, interval '10 hours') AS t",
        start=NOW - timedelta(days=6),
        end=NOW - HOUR,
    )

    assert check_pipeline(plant, settings, NOW) == 1
    assert check_pipeline(plant, settings, NOW) == 0
    ((event, severity, says),) = told(plant)
    assert (event, severity) == ("over_budget", "notice")
    assert says.startswith("15 alerts in seven days, and 1 are bearable")
