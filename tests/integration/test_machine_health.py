"""What ``bi.machine_health`` says of each machine, whatever became of its readings."""

from datetime import UTC, datetime, timedelta

import pytest

from anomaly.database.results import Origin
from anomaly.incidents.labels import LabelName
from anomaly.incidents.operator_feedback import label_incident
from anomaly.operations.machine_changes import change_machine
from anomaly.scoring.publishing import Job
from anomaly.scoring.scorer import Scorer
from anomaly.windows import Window, floor_to_interval
from deployment import QUARTER, TESTS, counters_until, execute, insert, rows, train_in_force

DAY = 96
NEWEST = "SELECT max(readings_to) FROM anomaly.scoring_runs"


@pytest.fixture
def now() -> datetime:
    """End of the newest interval."""
    return floor_to_interval(datetime.now(UTC), QUARTER)


def scored_until(database, settings, frame, now: datetime) -> None:
    """Train on eight days of readings and score all of them."""
    insert(database, frame)
    start = frame["utc_timestamp"].iloc[0].to_pydatetime()
    train_in_force(database, settings, Window(start, start + 8 * DAY * QUARTER))
    Scorer(database, settings).score_range(Window(start, now), Job(Origin.LIVE, TESTS))


def states(database) -> list[str]:
    return [
        state
        for (state,) in rows(
            database,
            "SELECT state FROM bi.machine_health WHERE machine_id <= 2 ORDER BY machine_id",
        )
    ]


def test_a_machine_is_silent_by_the_age_of_its_newest_reading(database, settings, now):
    scored_until(database, settings, counters_until(now, 10 * DAY), now)
    assert states(database) == ["normal", "normal"]

    for hours in (3, 24 * 3, 24 * 12):  # up to more than the longest gap, and of all machines
        execute(
            database,
            "DELETE FROM anomaly.anomaly_results WHERE machine_id = 1 AND utc_timestamp >= :t",
            t=now - timedelta(hours=hours),
        )
        expected = ["silent", "normal"] if hours < 24 * 10 else ["no verdict yet", "normal"]
        assert states(database) == expected, hours
    execute(
        database,
        "DELETE FROM anomaly.anomaly_results WHERE utc_timestamp >= :t",
        t=now - timedelta(hours=4),
    )
    assert states(database)[1] == "silent"
    ((since, silent),) = rows(
        database, "SELECT since, machines_silent FROM bi.machine_health, bi.pipeline_health"
        " WHERE machine_id = 2",
    )  # fmt: skip
    assert (since, silent) == (now - timedelta(hours=4), 1)
    change_machine(database, "2", {"active_to": (now - QUARTER).isoformat()})
    assert states(database)[1] == "retired"


def test_without_a_limit_no_machine_is_ever_silent(database, settings, now):
    settings = settings.changed(stale_after_hours=0)
    scored_until(database, settings, counters_until(now - timedelta(days=3), 10 * DAY), now)

    assert states(database) == ["normal", "normal"]


def test_a_fault_of_the_meter_that_is_a_false_alarm_is_none(database, settings, now):
    frame = counters_until(now, 10 * DAY)
    frame.loc[frame.index[-40:], "machine_1"] = frame["machine_1"].iloc[-41]  # stands still
    scored_until(database, settings, frame, now)
    assert states(database) == ["meter fault", "normal"]
    ((number,),) = rows(
        database,
        "SELECT incident_id FROM bi.incidents WHERE kind = 'meter' AND ended_at IS NULL",
    )

    label_incident(
        database, settings.meter, settings.incidents, number, LabelName.FALSE_ALARM, by="test"
    )

    assert states(database) == ["normal", "normal"]


def test_a_gap_does_not_hide_that_a_machine_is_being_learnt(database, settings, now):
    frame = counters_until(now, 10 * DAY)
    frame.loc[frame.index[: 9 * DAY], "machine_2"] = None  # new since yesterday
    frame.loc[frame.index[-4:-1], "machine_2"] = None  # too short for an incident
    scored_until(database, settings, frame, now)

    ((quality,),) = rows(
        database,
        "SELECT quality FROM bi.latest WHERE machine_id = 2",
    )
    assert quality == "gap"
    # What an alarm by chance would say comes first.
    execute(database, "UPDATE anomaly.incidents SET state = 'closed', ended_at = last_at")
    assert states(database) == ["normal", "learning"]
