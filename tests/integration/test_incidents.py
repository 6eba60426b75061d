"""Incidents on a real Postgres: late data, labels, maintenance, silence, budgets."""

import pytest

from anomaly.database.results import Origin
from anomaly.errors import LabelError, MachineError
from anomaly.incidents.labels import LabelName
from anomaly.incidents.operator_feedback import acknowledge, label
from anomaly.incidents.refresh import refresh_incidents
from anomaly.lifecycle.training import Trainer
from anomaly.operations.status import RATED, status
from anomaly.scoring.publishing import Job
from anomaly.scoring.reconciling import Reconciler
from anomaly.scoring.scorer import Scorer
from anomaly.settings import load_settings
from anomaly.windows import Window
from deployment import (
    QUARTER,
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
)
from integration_settings import SMALL

DAY = 96
TRAINED = 8 * DAY
FAULTS = TRAINED + 40
IN_FOUR_WEEKS = at(TRAINED) + RATED  # the newest four weeks hold two days of verdicts


@pytest.fixture
def settings(settings):
    """The prototype's detector: an alarm is where a counter leaps, and nowhere else.

    Six of the 1,536 readings trained on are leaps: the threshold lies between them and the rest.
    """
    return load_settings(
        {}, models_url=settings.models.models_url, **SMALL | {"forest_contamination": 5.5 / 1535}
    )


@pytest.fixture
def readings(database):
    """Ten days of two machines that draw what they always do, but for three leaps each."""
    insert(database, counters(10 * DAY))
    for machine, kwh in ((1, 12), (2, 40)):
        leap(database, *range(DAY, 7 * DAY, 2 * DAY), kwh=kwh, machine=machine)


def leap(database, *quarters: int, kwh: float = 12, machine: int = 1) -> None:
    """Let a counter run ahead at some quarter-hours, and stay ahead."""
    for quarter in quarters:
        change(database, quarter, f"machine_{machine} + {kwh}", machine, onward=True)


def take_back(database, *quarters: int, kwh: float = 12, machine: int = 1) -> None:
    leap(database, *quarters, kwh=-kwh, machine=machine)


def incidents(database, *, kind: str = "machine", machine: int = 1) -> list[tuple]:
    """Identity, state, first and last quarter-hour of each incident after training."""
    found = rows(
        database,
        "SELECT incident_id, state, started_at, last_at, merged_into FROM anomaly.incidents"
        " WHERE kind = :kind AND machine_id = :machine AND started_at >= :trained"
        " ORDER BY incident_id",
        trained=at(TRAINED),
        kind=kind,
        machine=machine,
    )
    return [
        (number, state, (first - START) // QUARTER, (last - START) // QUARTER, merged)
        for number, state, first, last, merged in found
    ]


def reconcile(database, settings):
    window = Window(at(TRAINED), at(10 * DAY))
    return Reconciler(database, settings).reconcile(window, TESTS, allow_retract=True)


@pytest.fixture
def scored(database, settings, readings):
    """Score everything, with four leaps three quarter-hours apart."""
    train(database, settings, TRAINED)
    leap(database, *range(FAULTS, FAULTS + 12, 3))
    score(database, settings, 0, 10 * DAY)
    ((number, *rest),) = incidents(database)
    assert rest == ["closed", FAULTS, FAULTS + 9, None]
    return number


# Late and corrected readings


def test_a_correction_in_its_middle_splits_an_incident_and_the_larger_part_keeps_its_number(
    database, settings, scored
):
    take_back(database, FAULTS + 3)
    reconcile(database, settings)

    (larger, smaller) = incidents(database)

    assert larger == (scored, "closed", FAULTS + 6, FAULTS + 9, None)
    assert smaller[1:] == ("closed", FAULTS, FAULTS, None)


def test_a_late_leap_between_two_incidents_merges_them(database, settings, scored):
    take_back(database, FAULTS + 3)
    reconcile(database, settings)
    leap(database, FAULTS + 3)
    reconcile(database, settings)

    ((first, *one), (second, *other)) = incidents(database)

    assert (first, *one) == (scored, "closed", FAULTS, FAULTS + 9, None)
    assert (second, *other) == (second, "merged", FAULTS, FAULTS, scored)


def test_an_incident_whose_readings_are_corrected_away_is_withdrawn_and_can_come_back(
    database, settings, scored
):
    take_back(database, *range(FAULTS, FAULTS + 12, 3))
    reconcile(database, settings)
    assert [row[:2] for row in incidents(database)] == [(scored, "withdrawn")]

    leap(database, FAULTS + 6)
    reconcile(database, settings)
    assert incidents(database) == [(scored, "closed", FAULTS + 6, FAULTS + 6, None)]


def test_deleted_readings_in_an_incident_open_one_of_the_meter(database, settings, scored):
    delete(database, FAULTS + 2, FAULTS + 8)
    reconcile(database, settings)

    (silence,) = incidents(database, kind="meter")

    assert silence[1:] == ("closed", FAULTS + 2, FAULTS + 7, None)


def test_scoring_again_changes_no_incident(database, settings, scored):
    before = rows(database, "SELECT * FROM anomaly.incidents ORDER BY incident_id")

    score(database, settings, TRAINED, 10 * DAY)

    assert rows(database, "SELECT * FROM anomaly.incidents ORDER BY incident_id") == before


def test_a_backfill_finds_closed_incidents_only(database, settings, scored):
    assert rows(database, "SELECT DISTINCT state, origin::text FROM anomaly.incidents") == [
        ("closed", "backfill")
    ]


# Live


@pytest.fixture
def live(database, settings, readings):
    """A model, and ticks up to a leap at `FAULTS`."""
    train(database, settings, TRAINED)
    leap(database, FAULTS)
    tick(database, settings, FAULTS + 1)
    ((number, state, *_),) = incidents(database)
    assert state == "open"
    return number


def test_publishing_hands_out_the_incidents_that_it_opened_and_closed(database, settings, readings):
    train(database, settings, TRAINED)
    leap(database, FAULTS)

    opened = tick(database, settings, FAULTS + 1).incidents
    again = tick(database, settings, FAULTS + 1).incidents
    closed = tick(database, settings, FAULTS + 5).incidents

    ((number, *_),) = incidents(database)
    assert [incident.incident_id for incident in opened.opened] == [number]
    assert opened.closed == []
    assert number not in [change.now.incident_id for change in again.changes]
    assert [incident.incident_id for incident in closed.closed] == [number]


def test_an_incident_is_open_while_it_lasts_and_closed_an_hour_later(database, settings, live):
    tick(database, settings, FAULTS + 4)
    assert incidents(database) == [(live, "open", FAULTS, FAULTS, None)]

    tick(database, settings, FAULTS + 5)
    assert incidents(database) == [(live, "closed", FAULTS, FAULTS, None)]
    ended = rows(database, "SELECT ended_at FROM anomaly.incidents WHERE incident_id = :n", n=live)
    assert ended == [(at(FAULTS + 1),)]


def test_maintenance_silences_an_incident_until_it_outlasts_it(database, settings, live):
    label(
        database,
        settings.meter,
        settings.incidents,
        "1",
        Window(at(FAULTS), at(FAULTS + 2)),
        LabelName.MAINTENANCE,
        by="tests",
    )
    assert incidents(database)[0][1] == "silenced"

    leap(database, FAULTS + 2)
    tick(database, settings, FAULTS + 3)
    assert incidents(database) == [(live, "open", FAULTS, FAULTS + 2, None)]


def test_maintenance_announced_beforehand_silences_what_comes_in_it(database, settings, live):
    label(
        database,
        settings.meter,
        settings.incidents,
        "machine_2",
        Window(at(FAULTS + 1), at(FAULTS + 9)),
        LabelName.MAINTENANCE,
        by="tests",
    )
    leap(database, FAULTS + 2, kwh=80, machine=2)
    tick(database, settings, FAULTS + 3)

    assert [row[1] for row in incidents(database, machine=2)] == ["silenced"]


@pytest.mark.parametrize(
    ("said", "state"), [(LabelName.REAL, "acknowledged"), (LabelName.FALSE_ALARM, "closed")]
)
def test_a_label_acts_on_the_incident_at_once(database, settings, live, said, state):
    done = label(
        database,
        settings.meter,
        settings.incidents,
        "1",
        Window(at(FAULTS), at(FAULTS + 1)),
        said,
        by="tests",
    )

    assert (done.incidents_changed, incidents(database)[0][1]) == (1, state)


def test_a_label_that_was_a_mistake_is_undone_by_the_next(database, settings, live):
    during = Window(at(FAULTS), at(FAULTS + 1))
    label(
        database, settings.meter, settings.incidents, "1", during, LabelName.FALSE_ALARM, by="tests"
    )
    label(database, settings.meter, settings.incidents, "1", during, LabelName.REAL, by="tests")

    (machine, *_) = status(database, settings, IN_FOUR_WEEKS).machines

    assert incidents(database)[0][1] == "acknowledged"
    assert machine.precision == 1.0


def test_an_incident_taken_on_stays_so_until_it_is_over(database, settings, live):
    assert (
        acknowledge(database, settings.meter, settings.incidents, live, by="a person on duty")
        == "acknowledged"
    )
    leap(database, FAULTS + 2)
    tick(database, settings, FAULTS + 3)
    assert incidents(database) == [(live, "acknowledged", FAULTS, FAULTS + 2, None)]

    tick(database, settings, FAULTS + 9)
    assert incidents(database) == [(live, "closed", FAULTS, FAULTS + 2, None)]
    with pytest.raises(LabelError, match="only an open one can be acknowledged"):
        acknowledge(database, settings.meter, settings.incidents, live, by="tests")


def test_unknown_incidents_and_machines_are_named(database, settings, live):
    with pytest.raises(LabelError, match="no incident 99"):
        acknowledge(database, settings.meter, settings.incidents, 99, by="tests")
    with pytest.raises(
        MachineError, match="no machine is called 'press': write a name, or an id: 1, 2"
    ):
        label(
            database,
            settings.meter,
            settings.incidents,
            "press",
            Window(at(0), at(1)),
            LabelName.REAL,
            by="tests",
        )


def test_a_machine_that_falls_silent_while_others_go_on_opens_an_incident_of_its_meter(
    database, settings, live
):
    execute(
        database,
        "UPDATE anomaly.meter_readings SET machine_2 = NULL WHERE utc_timestamp >= :t",
        t=at(FAULTS + 1),
    )
    tick(database, settings, FAULTS + 4)
    assert incidents(database, kind="meter", machine=2) == []

    tick(database, settings, FAULTS + 6)
    ((number, *rest),) = incidents(database, kind="meter", machine=2)
    assert rest == ["open", FAULTS + 1, FAULTS + 5, None]

    execute(
        database,
        "UPDATE anomaly.meter_readings SET machine_2 = known.machine_2"
        " + extract(epoch FROM meter_readings.utc_timestamp - known.utc_timestamp) / 360"
        " FROM anomaly.meter_readings AS known WHERE known.utc_timestamp = :last"
        " AND meter_readings.utc_timestamp >= :t",
        last=at(FAULTS),
        t=at(FAULTS + 7),
    )
    tick(database, settings, FAULTS + 12)
    assert incidents(database, kind="meter", machine=2) == [
        (number, "closed", FAULTS + 1, FAULTS + 6, None)
    ]


def test_when_nothing_arrives_at_all_no_machine_is_blamed(database, settings, live):
    delete(database, FAULTS + 1, 10 * DAY)
    tick(database, settings, FAULTS + 40)

    assert rows(database, "SELECT count(*) FROM anomaly.incidents WHERE kind = 'meter'") == [(0,)]


def test_a_dry_run_writes_no_incident(database, settings, live):
    leap(database, FAULTS + 1)
    score(database, settings, FAULTS, FAULTS + 2, dry_run=True)

    assert incidents(database) == [(live, "open", FAULTS, FAULTS, None)]


# Labels and training


def test_training_leaves_out_what_was_no_normal_and_keeps_false_alarms(
    database, settings, readings
):
    trainer = Trainer(database, settings)
    window = Window(at(0), at(TRAINED))
    everything = len(trainer.train(window).sound)
    day = Window(at(DAY), at(2 * DAY))
    for name, left_out in [
        (LabelName.FALSE_ALARM, 0),
        (LabelName.REAL, DAY),
        (LabelName.MAINTENANCE, DAY),
        (LabelName.METER_FAULT, DAY),
    ]:
        label(database, settings.meter, settings.incidents, "1", day, name, by="tests")
        assert everything - len(trainer.train(window).sound) == left_out, name
    label(database, settings.meter, settings.incidents, "1", day, LabelName.FALSE_ALARM, by="tests")
    assert len(trainer.train(window).sound) == everything


def test_precision_is_what_people_said_of_the_alerts(database, settings, scored):
    leap(database, 9 * DAY + 40)
    reconcile(database, settings)
    label(
        database,
        settings.meter,
        settings.incidents,
        "1",
        Window(at(FAULTS), at(FAULTS + 1)),
        LabelName.REAL,
        by="tests",
    )
    label(
        database,
        settings.meter,
        settings.incidents,
        "1",
        Window(at(9 * DAY + 40), at(9 * DAY + 41)),
        LabelName.FALSE_ALARM,
        by="tests",
    )
    execute(database, "UPDATE anomaly.machines SET alert_budget = 2 WHERE machine_id = 2")

    first, second, *_ = status(database, settings, IN_FOUR_WEEKS).machines

    assert (first.alerts_a_week, first.precision, first.alert_budget) == (7.0, 0.5, 1.0)
    assert (second.alerts_a_week, second.precision, second.alert_budget) == (0.0, None, 2.0)


def test_alerts_a_week_are_of_the_time_that_was_judged(database, settings, scored):
    soon, later, last = (
        status(database, settings, at(moment) + RATED).machines[0].alerts_a_week
        for moment in (TRAINED, 9 * DAY, 9 * DAY + 1)
    )

    assert soon == pytest.approx(1 / (2 / 7))  # one alert in the two days left of the verdicts
    assert (later, last) == (0.0, None)  # a day without any, and less than a day


def test_what_a_maintenance_silenced_throughout_is_no_alert(database, settings, scored):
    leap(database, 9 * DAY + 40)
    reconcile(database, settings)
    counted = {}
    for name, start in [("throughout", 9 * DAY + 39), ("at its end", 9 * DAY + 41)]:
        execute(database, "DELETE FROM anomaly.labels")
        label(
            database,
            settings.meter,
            settings.incidents,
            "1",
            Window(at(start), at(9 * DAY + 60)),
            LabelName.MAINTENANCE,
            by="tests",
        )
        if name == "at its end":
            leap(database, 9 * DAY + 42)
            reconcile(database, settings)
        assert incidents(database)[-1][1] == "silenced"
        counted[name] = status(database, settings, IN_FOUR_WEEKS).machines[0].alerts_a_week

    assert counted == {"throughout": 3.5, "at its end": 7.0}


def test_an_incident_speaks_only_of_verdicts_in_the_same_transaction(database, settings, live):
    """A publication that fails leaves neither."""
    leap(database, FAULTS + 1)
    execute(
        database,
        "ALTER TABLE anomaly.incidents ADD CONSTRAINT none_longer CHECK (last_at = started_at)",
    )

    with pytest.raises(Exception, match="none_longer"):
        tick(database, settings, FAULTS + 2)

    assert rows(
        database, "SELECT count(*) FROM anomaly.anomaly_results WHERE utc_timestamp > :t",
        t=at(FAULTS),
    ) == [(0,)]  # fmt: skip


def test_a_meter_that_is_read_every_ninety_minutes_is_not_quiet_between_its_readings(
    database, settings, monkeypatch
):
    slow = settings.changed(interval_minutes=90)
    interval = slow.meter.interval
    frame = counters(8 * DAY // 6).assign(
        utc_timestamp=lambda frame: [START + n * interval for n in range(len(frame))]
    )
    insert(database, frame)
    train_in_force(database, slow, Window(START, START + 100 * interval))
    refreshed = []

    def refresh(transaction, change, *arguments):
        refreshed.append(change)
        return refresh_incidents(transaction, change, *arguments)

    monkeypatch.setattr("anomaly.scoring.publishing.refresh_incidents", refresh)
    Scorer(database, slow).score_range(
        Window(START + 100 * interval, START + 120 * interval), Job(Origin.BACKFILL, TESTS)
    )

    (change,) = refreshed
    assert set(change.quiet) == {3, 4, 5}  # columns of the wide table without a reading
