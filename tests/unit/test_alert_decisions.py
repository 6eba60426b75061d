"""Who is told of an event, what waits, and what nobody is told."""

from datetime import UTC, datetime, time, timedelta

import pytest

from anomaly.alerts.decisions import RECHECK, cause, decide, quiet_until, unheard
from anomaly.settings import load_settings

NOW = datetime(2026, 3, 4, 21, 30, tzinfo=UTC)  # 22:30 in Berlin
HOUR = timedelta(hours=1)
SETTINGS = load_settings({}).alerts
QUIET = load_settings({}, alert_quiet_hours="22:00-06:00").alerts
REASON = "power 12.3 kW is above the usual 5.1 kW of Mon 10:00 for 45 min"


def event(**changes):
    """An event of an incident that is open now, and of which its channel has heard nothing."""
    changes = {"severity_now": changes.get("severity", "warning")} | changes
    return {
        "event_id": 1, "event": "opened", "kind": "machine", "severity": "warning",
        "incident_id": 7, "created_at": NOW - HOUR, "held_until": None, "decided_at": None,
        "waited": None, "settled": False, "label": None, "last_at": None, "is_over": False,
        "worst": None, "heard_over": None,
        "machine_id": 3, "site": "Hall 1", "clock": "Europe/Berlin", "state": "open",
        "ended_at": None, "reason": REASON, "acknowledged_by": None,
    } | changes  # fmt: skip


def decided(*, silences=(), false_alarms=(), alerts=SETTINGS, now=NOW, **changes):
    return decide(event(**changes), now, silences, false_alarms, alerts)


def silence(**changes):
    nothing = {"machine_id": None, "site": None}
    return nothing | {"ends_at": NOW + HOUR, "silenced_by": "Ann"} | changes


def false_alarm(**changes):
    same = {"machine_id": 3, "kind": "machine", "severity": "warning", "reason": REASON}
    return same | {"label_id": 5, "labelled_by": "Bob"} | changes


def test_an_open_incident_is_told():
    assert decided().tells


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"state": "merged"}, "it is a part of another incident now"),
        ({"state": "withdrawn"}, "its readings were corrected"),
        ({"state": "acknowledged", "acknowledged_by": "Ann"}, "Ann has taken it on"),
        ({"state": "closed", "ended_at": NOW, "acknowledged_by": "Ann"}, "Ann has taken it on"),
        ({"state": "closed", "ended_at": NOW, "label": "real"}, "people said what it is"),
        ({"state": "closed", "event": "ended"}, "people said what it is"),
        ({"state": "closed", "settled": True}, "it has become the machine's new normal"),
        ({"state": "closed", "ended_at": NOW, "event": "escalated"}, "it is over"),
        ({"state": "open", "event": "ended"}, "it came back"),
        ({"state": "merged", "event": "ended"}, "it is a part of another incident now"),
        (
            {"state": "closed", "ended_at": NOW, "waited": "silenced by Ann"},
            "it was over before the silence ended",
        ),
    ],
)
def test_what_nobody_needs_to_hear_is_not_told(changes, why):
    found = decided(**changes)

    assert (found.tells, found.until, found.why) == (False, None, why)


def test_a_short_incident_that_is_over_already_is_told():
    assert decided(state="closed", ended_at=NOW).tells


def test_what_people_explained_is_looked_at_again_while_it_lasts_for_they_may_take_it_back():
    found = decided(state="closed", label="false_alarm")

    assert (found.tells, found.until, found.why) == (False, NOW + RECHECK, "people said what it is")
    assert decided(state="acknowledged", label="real").until == NOW + RECHECK
    assert decided(state="acknowledged", label="real", event="worsened").tells


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"worst": "notice", "heard_over": False}, ""),
        ({"worst": "warning", "heard_over": False}, "it was told so before"),
        ({"worst": "critical", "heard_over": False}, "it was told so before"),
        ({"heard_over": True}, ""),  # it came back
        ({"event": "worsened"}, ""),
        ({"event": "worsened", "worst": "critical", "heard_over": False}, "it was told so before"),
        ({"event": "escalated", "worst": "critical", "heard_over": False}, ""),
        ({"event": "ended"}, "it was not told that it began"),
        ({"event": "ended", "worst": "notice", "heard_over": False}, ""),
        ({"event": "ended", "heard_over": True}, "it was told so before"),
        ({"event": "stale", "incident_id": None}, ""),
        ({"event": "stale_over", "incident_id": None}, "it was not told that it began"),
        ({"event": "stale_over", "incident_id": None, "heard_over": False}, ""),
    ],
)
def test_a_channel_hears_what_is_worse_than_it_has_heard_and_ends_of_what_it_heard(changes, why):
    assert unheard(event(**changes)) == why


def test_that_something_is_over_wakes_nobody():
    over = {"event": "ended", "state": "closed", "ended_at": NOW, "severity": "critical"}

    assert decided(alerts=QUIET, **over).why == "quiet hours"
    assert decided(**over).tells


def test_what_was_told_in_time_may_be_tried_for_longer():
    assert decided(created_at=NOW - timedelta(hours=40), decided_at=NOW - HOUR).tells


def test_an_acknowledged_incident_that_becomes_worse_is_told():
    assert decided(state="acknowledged", event="worsened").tells


def test_maintenance_is_looked_at_again_later():
    found = decided(state="silenced")

    assert (found.tells, found.until, found.why) == (False, NOW + RECHECK, "maintenance")


@pytest.mark.parametrize("changes", [{}, {"machine_id": 3}, {"site": "Hall 1"}])
def test_a_silence_keeps_back_what_it_is_about(changes):
    found = decided(silences=[silence(**changes)])

    assert (found.until, found.why) == (NOW + HOUR, "silenced by Ann")


@pytest.mark.parametrize("changes", [{"machine_id": 4}, {"site": "Hall 2"}, {"site": ""}])
def test_a_silence_of_something_else_keeps_nothing_back(changes):
    assert decided(silences=[silence(**changes)]).tells


def test_of_several_silences_the_longest_counts():
    longer = silence(ends_at=NOW + 5 * HOUR, silenced_by="Bob")

    assert decided(silences=[silence(), longer, silence()]).until == NOW + 5 * HOUR


def test_quiet_hours_are_those_of_the_machines_clock_and_never_of_what_is_critical():
    until = datetime(2026, 3, 5, 5, tzinfo=UTC)  # 06:00 in Berlin

    assert decided(alerts=QUIET).until == until
    assert decided(alerts=QUIET, clock="Europe/London").tells
    assert decided(alerts=QUIET, severity="critical").tells


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-03-28T21:00Z", "2026-03-29T04:00Z"),  # the clock goes forward in this night
        ("2026-10-24T21:00Z", "2026-10-25T05:00Z"),  # and back
        ("2026-06-01T03:59Z", "2026-06-01T04:00Z"),
        ("2026-06-01T04:00Z", None),
        ("2026-06-01T19:59Z", None),
        ("2026-06-01T20:00Z", "2026-06-02T04:00Z"),
    ],
)
def test_quiet_hours_over_midnight_and_over_a_change_of_the_clock(now, until):
    found = quiet_until(datetime.fromisoformat(now), "Europe/Berlin", time(22), time(6))

    assert found == (until and datetime.fromisoformat(until))


def test_quiet_hours_by_day():
    noon = datetime(2026, 6, 1, 12, 30, tzinfo=UTC)

    assert quiet_until(noon, "UTC", time(12), time(13)) == noon + HOUR / 2
    assert quiet_until(noon + HOUR, "UTC", time(12), time(13)) is None


def test_the_same_cause_as_a_false_alarm_is_not_told_again():
    again = "power 14.9 kW is above the usual 6.0 kW of Tue 11:00 for 30 min"

    found = decided(false_alarms=[false_alarm(reason=again)])

    why = "the same was a false alarm (label 5 by Bob)"
    assert (found.tells, found.until, found.why) == (False, NOW + RECHECK, why)  # or taken back
    over = decided(false_alarms=[false_alarm(reason=again)], state="closed", ended_at=NOW)
    assert (over.until, over.why) == (None, why)


def test_a_false_alarm_hides_nothing_that_is_more_severe():
    assert decided(severity="critical", false_alarms=[false_alarm()]).tells
    assert not decided(severity="notice", false_alarms=[false_alarm()]).tells


def test_what_was_over_during_maintenance_is_not_looked_at_again():
    found = decided(state="silenced", ended_at=NOW)

    assert (found.until, found.why) == (None, "it was over during maintenance")


@pytest.mark.parametrize(
    "changes",
    [
        {"machine_id": 4},
        {"kind": "meter"},
        {"reason": "power 0.1 kW is below the usual 5.1 kW of Mon 10:00 for 45 min"},
    ],
)
def test_another_machine_kind_or_cause_is_told(changes):
    assert decided(false_alarms=[false_alarm(**changes)]).tells


def test_the_same_cause_has_the_same_words_whatever_the_numbers():
    assert cause("power 1 kW is above 2 kW") == cause("power 17.5 kW is above 0.3 kW")
    assert cause("power is above") != cause("power is below")


def test_what_could_not_be_sent_in_time_is_not_sent_late():
    late = decided(created_at=NOW - timedelta(hours=25))

    assert (late.tells, late.why) == (False, "older than 24 h when it could be sent")
    assert decided(created_at=NOW - timedelta(hours=40), held_until=NOW - HOUR).tells
    assert decided(created_at=NOW - timedelta(hours=40), last_at=NOW - HOUR).tells  # it lasts


def test_what_is_about_no_machine_is_told_and_can_be_silenced():
    none = {
        "incident_id": None, "kind": "pipeline", "event": "stale", "severity": "critical",
        "machine_id": None, "site": "", "clock": None, "state": None, "reason": None,
    }  # fmt: skip

    assert decided(**none).tells
    assert decided(**none, silences=[silence()]).until == NOW + HOUR
    assert decided(**none, silences=[silence(machine_id=3)]).tells
    assert decided(**none, is_over=True).why == "it was over before"
