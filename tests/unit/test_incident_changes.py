"""What publishing hands out of incidents: opened, worsened, closed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from anomaly.incidents.changes import IncidentChanges
from anomaly.incidents.episodes import Episode, Kind, Severity
from anomaly.incidents.incident import Incident, State

AT = datetime(2026, 3, 2, tzinfo=UTC)
EPISODE = Episode(1, Kind.MACHINE, AT, AT, AT + timedelta(minutes=15), 1, "odd", Severity.NOTICE)
OPEN = Incident(EPISODE, 7)
WORSE = replace(OPEN, episode=replace(EPISODE, severity=Severity.CRITICAL))


def stand(incident, state):
    return replace(incident, state=state)


def of(*pairs):
    return IncidentChanges.of(pairs)


def test_an_incident_that_is_new_and_open_is_opened():
    changes = of((None, OPEN))

    assert (changes.opened, changes.worsened, changes.closed) == ([OPEN], [], [])


def test_an_incident_that_is_closed_from_the_start_opens_nothing():
    changes = of((None, stand(OPEN, State.CLOSED)))

    assert len(changes) == 1
    assert (changes.opened, changes.worsened, changes.closed) == ([], [], [])


def test_one_that_comes_back_after_it_was_withdrawn_is_opened_again():
    assert of((stand(OPEN, State.WITHDRAWN), OPEN)).opened == [OPEN]


def test_a_higher_severity_worsens_and_a_lower_one_says_nothing():
    assert of((OPEN, WORSE)).worsened == [WORSE]
    assert of((WORSE, OPEN)).worsened == []


def test_an_acknowledged_incident_can_worsen_too():
    taken_on = stand(WORSE, State.ACKNOWLEDGED)

    assert of((OPEN, taken_on)).worsened == [taken_on]
    assert of((OPEN, taken_on)).closed == []


def test_over_silenced_merged_and_withdrawn_all_close():
    for state in (State.CLOSED, State.SILENCED, State.MERGED, State.WITHDRAWN):
        ended = stand(OPEN, state)
        assert of((OPEN, ended)).closed == [ended], state


def test_what_did_not_change_is_left_out_and_changes_add_up():
    changes = of((OPEN, OPEN), (OPEN, WORSE)) + of((None, OPEN))

    assert (len(changes), len(changes.worsened), len(changes.opened)) == (2, 1, 1)
