"""Episodes, identities and states of incidents, as pure functions."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from anomaly.incidents.episodes import Episode, Kind, Severity, Silence, find_episodes
from anomaly.incidents.identity import match
from anomaly.incidents.incident import Incident, State
from anomaly.incidents.labels import Label, LabelName
from anomaly.incidents.states import look_back, with_states
from anomaly.settings import load_settings

SETTINGS = load_settings({})
QUARTER = SETTINGS.meter.interval
START = datetime(2026, 3, 2, tzinfo=UTC)
LATER = START + timedelta(days=30)


def at(quarter: int) -> datetime:
    return START + quarter * QUARTER


def alarms(*quarters: int, machine: int = 1, **columns: object) -> pd.DataFrame:
    """Verdicts with ``anomaly`` 1, unless a column says otherwise."""
    values = {
        "machine_id": machine,
        "utc_timestamp": pd.DatetimeIndex([at(quarter) for quarter in quarters]).as_unit("us"),
        "anomaly": 1,
        "anomaly_score": 0.6,
        "threshold": 0.5,
        "reason": "odd",
        "quality": "ok",
        "previous_at": pd.DatetimeIndex([at(quarter - 1) for quarter in quarters]).as_unit("us"),
    }
    return pd.DataFrame(values | columns)


def episodes(rows: pd.DataFrame, *silences: Silence, as_of: datetime = LATER) -> list[Episode]:
    return find_episodes(rows, silences, as_of, SETTINGS.meter, SETTINGS.incidents)


def episode(first: int, last: int, kind: Kind = Kind.MACHINE, machine: int = 1) -> Episode:
    return Episode(
        machine, kind, at(first), at(last), at(first + 1), 1, "odd", Severity.NOTICE, 0.6
    )


def known(number: int, first: int, last: int, **fields: object) -> Incident:
    return Incident(episode(first, last), number, **fields)


def matched(known_ones: list[Incident], *found: Episode) -> list[tuple]:
    """Identity, state and range in quarter-hours of each incident after matching."""
    return [
        (
            incident.incident_id,
            incident.state,
            (incident.episode.started_at - START) // QUARTER,
            (incident.episode.last_at - START) // QUARTER,
            incident.merged_into,
        )
        for incident in match(known_ones, found, QUARTER)
    ]


def state_of(incident: Incident, *labels: Label, as_of: int = 3) -> State:
    (told,) = with_states([incident], labels, at(as_of), SETTINGS.meter, SETTINGS.incidents)
    return told.state


# Episodes


def test_alarms_up_to_an_hour_apart_are_one_episode():
    found = episodes(alarms(0, 1, 5, 10))

    assert [(e.started_at, e.last_at, e.readings) for e in found] == [
        (at(0), at(5), 3),
        (at(10), at(10), 1),
    ]


def test_meter_faults_are_episodes_of_their_own():
    rows = alarms(0, 1, 2, anomaly=[1, 0, 0], quality=["ok", "stuck", "stuck"])

    assert [(e.kind, e.readings) for e in episodes(rows)] == [(Kind.MACHINE, 1), (Kind.METER, 2)]


def test_a_gap_is_an_episode_of_the_meter_from_its_first_missing_interval_to_its_last():
    rows = alarms(10, anomaly=0, quality="gap", previous_at=[pd.Timestamp(at(0))])

    (found,) = episodes(rows)

    assert (found.kind, found.started_at, found.last_at, found.reason) == (
        Kind.METER, at(1), at(9), "no readings for 2.2 h",
    )  # fmt: skip


def test_a_reading_behind_a_range_that_is_not_scored_yet_ends_no_silence():
    rows = alarms(10, quality="ok", previous_at=[pd.Timestamp(at(0))])

    assert [found.kind for found in episodes(rows)] == [Kind.MACHINE]


def test_three_missing_readings_are_no_episode():
    rows = alarms(4, anomaly=0, quality="gap", previous_at=[pd.Timestamp(at(0))])

    assert episodes(rows) == []


def test_a_machine_that_falls_silent_is_an_episode_up_to_the_newest_reading_of_others():
    (found,) = episodes(alarms(), Silence(1, at(0)), as_of=at(9))

    assert (found.started_at, found.last_at) == (at(1), at(8))


def test_a_machine_silent_for_good_is_silent_no_longer_than_the_longest_gap():
    (found,) = episodes(alarms(), Silence(1, at(0)))

    assert found.last_at == at(0) + SETTINGS.meter.max_gap


def test_a_retired_machine_is_not_silent():
    assert episodes(alarms(), Silence(1, at(0), active_to=at(2))) == []


# Identity


def test_an_episode_that_grows_keeps_its_incident():
    assert matched([known(7, 4, 8)], episode(2, 12)) == [(7, State.OPEN, 2, 12, None)]


def test_of_two_pieces_the_larger_keeps_the_incident_and_the_other_is_new():
    assert matched([known(7, 0, 20)], episode(0, 4), episode(10, 20)) == [
        (7, State.OPEN, 10, 20, None),
        (None, State.OPEN, 0, 4, None),
    ]


def test_of_two_equal_overlaps_the_earlier_incident_stays():
    found = matched([known(8, 10, 14), known(7, 0, 4)], episode(0, 14))

    assert found == [(7, State.OPEN, 0, 14, None), (8, State.MERGED, 10, 14, 7)]


def test_an_incident_without_an_episode_is_withdrawn_and_comes_back_with_it():
    (gone,) = match([known(7, 0, 4)], [], QUARTER)
    assert gone.state is State.WITHDRAWN

    assert matched([gone], episode(1, 4)) == [(7, State.OPEN, 1, 4, None)]


def test_a_merged_incident_takes_its_own_part_back_when_they_split_again():
    merged = known(8, 10, 14, state=State.MERGED, merged_into=7)

    found = matched([known(7, 0, 14), merged], episode(0, 6), episode(10, 14))

    assert found == [(7, State.OPEN, 0, 6, None), (8, State.OPEN, 10, 14, None)]


def test_incidents_of_another_machine_or_kind_are_left_alone():
    others = [
        Incident(episode(0, 4, machine=2), 7),
        Incident(episode(0, 4, kind=Kind.METER), 8),
    ]

    found = match(others, [episode(0, 4)], QUARTER)

    assert [(i.incident_id, i.state) for i in found] == [
        (7, State.WITHDRAWN),
        (8, State.WITHDRAWN),
        (None, State.OPEN),
    ]


# States


@pytest.mark.parametrize(
    ("label", "state"),
    [
        (LabelName.REAL, State.ACKNOWLEDGED),
        (LabelName.FALSE_ALARM, State.CLOSED),
        (LabelName.METER_FAULT, State.CLOSED),
        (LabelName.MAINTENANCE, State.SILENCED),
    ],
)
def test_what_people_say_decides_the_state_of_an_incident_that_lasts(label, state):
    assert state_of(known(1, 0, 2)) is State.OPEN
    assert state_of(known(1, 0, 2), Label(1, label, at(0), at(9))) is state


def test_a_meter_incident_labelled_so_is_acknowledged():
    incident = Incident(episode(0, 2, kind=Kind.METER), 1)

    assert state_of(incident, Label(1, LabelName.METER_FAULT, None, None)) is State.ACKNOWLEDGED


def test_an_incident_that_outlasts_its_maintenance_is_open_again():
    maintenance = Label(1, LabelName.MAINTENANCE, at(0), at(4))

    assert state_of(known(1, 0, 3), maintenance, as_of=4) is State.SILENCED
    assert state_of(known(1, 0, 4), maintenance, as_of=5) is State.OPEN


def test_an_incident_is_over_once_no_alarm_can_join_it_any_more():
    (lasting,) = with_states([known(1, 0, 4)], [], at(8), SETTINGS.meter, SETTINGS.incidents)
    (over,) = with_states([known(1, 0, 4)], [], at(9), SETTINGS.meter, SETTINGS.incidents)

    assert (lasting.state, lasting.ended_at) == (State.OPEN, None)
    assert (over.state, over.ended_at) == (State.CLOSED, at(5))


def test_a_machine_abnormal_for_three_days_on_end_has_a_new_normal():
    days = [known(day, 96 * day, 96 * day + 40) for day in range(5)]

    told = with_states(days, [], at(96 * 4 + 41), SETTINGS.meter, SETTINGS.incidents)

    assert [incident.state for incident in told] == [State.CLOSED] * 5
    assert [incident.settled for incident in told] == [False] * 3 + [True] * 2


def test_a_machine_that_works_in_shifts_has_a_new_normal_from_its_fourth_day_on():
    mondays = range(0, 4 * 7, 7)
    shifts = [known(day, 96 * day + 24, 96 * day + 72) for m in mondays for day in range(m, m + 5)]

    told = with_states(shifts, [], at(96 * 28), SETTINGS.meter, SETTINGS.incidents)

    news = [i.incident_id for i in told if not i.settled]
    assert news == [0, 1, 2]  # the first Monday, Tuesday and Wednesday; the weekends part nothing


def test_an_alarm_every_other_day_is_no_new_normal():
    told = with_states(
        [known(day, 96 * day, 96 * day + 8) for day in range(0, 14, 2)],
        [],
        at(1400),
        SETTINGS.meter,
        SETTINGS.incidents,
    )

    news = [i.incident_id for i in told if not i.settled]
    assert news == [0, 2, 4]


def test_what_is_a_new_normal_does_not_depend_on_how_far_back_incidents_are_known():
    random = np.random.default_rng(5)
    days = [
        replace(one, episode=replace(one.episode, severity=random.choice(list(Severity))))
        for day in np.flatnonzero(random.random(60) < 0.6).tolist()
        for one in [known(day, 96 * day, 96 * day + int(random.integers(1, 90)))]
    ]
    whole = with_states(days, [], at(96 * 60), SETTINGS.meter, SETTINGS.incidents)
    assert {incident.settled for incident in whole} == {True, False}

    for number, incident in enumerate(days):
        seen = incident.episode.last_at - look_back(SETTINGS.incidents)
        view = [other for other in days[: number + 1] if other.episode.last_at >= seen]
        assert (
            with_states(view, [], at(96 * 60), SETTINGS.meter, SETTINGS.incidents)[-1]
            == whole[number]
        )


def test_a_meter_at_fault_for_as_long_as_a_gap_may_last_has_stopped_for_good():
    week = SETTINGS.meter.max_gap // QUARTER

    def told(last: int) -> State:
        return state_of(Incident(episode(0, last, kind=Kind.METER), 1), as_of=last + 1)

    assert told(week - 1) is State.OPEN
    assert told(week) is State.CLOSED


def test_of_labels_that_contradict_each_other_the_last_counts():
    mistaken = Label(1, LabelName.FALSE_ALARM, at(0), at(9))
    real = Label(1, LabelName.REAL, at(0), at(9))

    assert state_of(known(1, 0, 2), mistaken, real) is State.ACKNOWLEDGED
    assert state_of(known(1, 0, 2), real, mistaken) is State.CLOSED


def test_a_label_that_lies_within_an_interval_touches_it():
    first, last = (START + timedelta(minutes=minutes) for minutes in (35, 44))

    assert state_of(known(1, 0, 2), Label(1, LabelName.FALSE_ALARM, first, last)) is State.CLOSED


def test_who_took_on_a_part_of_an_incident_took_on_the_whole():
    part = known(8, 10, 14, acknowledged=True)

    whole, merged = with_states(
        match([known(7, 0, 8), part], [episode(0, 14)], QUARTER),
        [],
        at(15),
        SETTINGS.meter,
        SETTINGS.incidents,
    )

    assert (whole.incident_id, whole.state) == (7, State.ACKNOWLEDGED)
    assert (merged.incident_id, merged.state) == (8, State.MERGED)


def test_telling_the_state_again_changes_nothing():
    days = [known(day, 96 * day, 96 * day + 40) for day in range(5)]

    once = with_states(days, [], at(96 * 4 + 41), SETTINGS.meter, SETTINGS.incidents)

    assert with_states(once, [], at(96 * 4 + 41), SETTINGS.meter, SETTINGS.incidents) == once


def test_an_incident_worse_than_those_before_it_is_news():
    days = [known(day, 96 * day, 96 * day + 40) for day in range(5)]
    worse = replace(days[4].episode, severity=Severity.CRITICAL)

    told = with_states(
        [*days[:4], Incident(worse, 4)], [], at(96 * 4 + 41), SETTINGS.meter, SETTINGS.incidents
    )

    assert told[4].state is State.OPEN


def test_an_incident_that_people_took_on_is_no_new_normal():
    long = known(1, 0, 96 * 4)
    real = Label(1, LabelName.REAL, at(0), at(96))

    assert state_of(long, as_of=96 * 4 + 1) is State.CLOSED
    assert state_of(long, real, as_of=96 * 4 + 1) is State.ACKNOWLEDGED
    assert state_of(replace(long, acknowledged=True), as_of=96 * 4 + 1) is State.ACKNOWLEDGED


def test_an_incident_that_outlasts_days_of_maintenance_is_open_again():
    maintenance = Label(1, LabelName.MAINTENANCE, at(0), at(96 * 4))

    assert state_of(known(1, 0, 96 * 4 + 16), maintenance, as_of=96 * 4 + 17) is State.OPEN
