"""What a channel has heard decides what it is told: worse things, and ends of what it heard."""

import json
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from alert_receivers import Webhook

from anomaly.alerts.sending import send_alerts
from anomaly.database.alerts import add_events, add_incident_events, add_silence, end_silence
from anomaly.database.connection import SCORER
from anomaly.operations.purging import purge
from deployment import execute, rows

HOUR = timedelta(hours=1)
MINUTES_LATER = timedelta(minutes=10)
"""After this a message that was refused once is tried again."""


@pytest.fixture
def second():
    with Webhook() as server:
        yield server


class Story:
    """Incidents that publications change, and a sender."""

    def __init__(self, database, settings) -> None:
        self.database, self.settings = database, settings
        self.now = datetime.now(UTC)

    def incident(self, machine: str = "Saw", severity: str = "notice") -> int:
        """A new incident of a machine of its own that is open."""
        execute(
            self.database,
            "WITH machine AS (INSERT INTO anomaly.machines (machine_id, source_key, name, clock)"
            f" SELECT count(*) + 1, '{machine}', '{machine}', 'UTC' FROM anomaly.machines"
            " RETURNING machine_id)"
            " INSERT INTO anomaly.incidents (machine_id, kind, started_at, last_at, severity,"
            " reason, origin, opened_at, updated_at, told_at)"
            " SELECT machine_id, 'machine', now() - interval '1 h', now(),"
            f" '{severity}', '3 kW, above the usual', 'live', now(), now(), now()"
            " FROM machine",
        )
        ((number,),) = rows(self.database, "SELECT max(incident_id) FROM anomaly.incidents")
        self.published(number, "opened")
        return number

    def published(self, number: int, event: str, **changes: str) -> None:
        """Change an incident as a publication does, and write its event."""
        if "acknowledged_by" in changes:
            changes["acknowledged_at"] = "now()"
        if changes:
            every = ", ".join(
                f"{name} = {value if value == 'now()' else repr(value) if value else 'NULL'}"
                for name, value in changes.items()
            )
            execute(
                self.database,
                f"UPDATE anomaly.incidents SET {every} WHERE incident_id = {number}",
            )
        ((severity,),) = rows(
            self.database,
            f"SELECT severity FROM anomaly.incidents WHERE incident_id = {number}",
        )
        with self.database.transaction(SCORER) as transaction:
            add_incident_events(
                transaction,
                [
                    {
                        "event": event,
                        "kind": "machine",
                        "severity": severity,
                        "incident_id": number,
                        "created_at": self.now,
                    }
                ],
            )

    def over(self, number: int) -> None:
        self.published(number, "ended", state="closed", ended_at="now()")

    def silence(self, machine: str | None, hours: float) -> None:
        with self.database.transaction(SCORER) as transaction:
            found = None
            if machine is not None:
                ((found,),) = rows(
                    self.database,
                    f"SELECT machine_id FROM anomaly.machines WHERE name = '{machine}'",
                )
            add_silence(transaction, self.now + hours * HOUR, machine_id=found, by="Ann")

    def send(self, after: timedelta = timedelta(0)):
        return send_alerts(self.database, self.settings, self.now + after)

    def dropped(self) -> list[str]:
        return [
            why
            for (why,) in rows(
                self.database,
                "SELECT error FROM anomaly.alert_messages WHERE dropped_at IS NOT NULL"
                " ORDER BY message_id",
            )
        ]


@pytest.fixture
def story(database, settings, webhook):
    return Story(database, settings.changed(alert_routes=webhook.url))


def titles(server: Webhook) -> list[str]:
    return [one["title"] for one in server.received]


def test_only_a_rise_is_told_again(story, webhook):
    number = story.incident()
    for severity in ("notice", "warning", "warning", "notice", "warning", "critical", "critical"):
        story.published(number, "lasts", severity=severity)
        story.send()

    assert titles(webhook) == [
        "Notice: Saw is not as usual",
        "Warning now: Saw has become worse",
        "CRITICAL now: Saw has become worse",
    ]


def test_what_comes_back_is_told_again_after_its_end_was(story, webhook):
    number = story.incident()
    story.send()
    for _ in range(2):
        story.published(number, "ended", state="withdrawn")
        story.send()
        story.published(number, "opened", state="open")
        story.send()

    assert titles(webhook) == [
        "Notice: Saw is not as usual",
        "Over: Saw was as usual, its readings were corrected",
        "Notice: Saw is not as usual",
        "Over: Saw was as usual, its readings were corrected",
        "Notice: Saw is not as usual",
    ]


def test_what_comes_back_before_its_end_could_be_told_is_not_told_again(story, webhook):
    number = story.incident()
    story.send()
    webhook.answer = lambda _: 503
    story.over(number)
    assert story.send().failed == 1
    story.published(number, "opened", state="open", ended_at="")
    webhook.answer = lambda _: 200

    assert story.send(MINUTES_LATER).dropped == 2

    assert len(webhook.received) == 1
    assert story.dropped() == ["it came back", "it was told so before"]


def test_a_short_incident_that_a_channel_takes_late_is_one_message(story, webhook):
    number = story.incident(severity="critical")
    webhook.answer = lambda _: 500
    story.send()
    story.over(number)
    story.send()
    webhook.answer = lambda _: 200

    story.send(MINUTES_LATER)

    assert titles(webhook) == ["CRITICAL: Saw was not as usual"]
    assert story.dropped() == ["it was told so before"]


def test_an_end_never_overtakes_the_beginning(story, webhook):
    number = story.incident()
    webhook.answer = lambda _: 500
    story.send()
    story.over(number)
    webhook.answer = lambda _: 200

    assert story.send().sent == 0  # the beginning is tried again in a minute
    assert titles(webhook) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"state": "acknowledged", "acknowledged_by": "Ann"}, "Ann has taken it on"),
        ({"state": "withdrawn"}, "its readings were corrected"),
    ],
)
def test_what_was_answered_or_corrected_meanwhile_is_not_tried_again(story, webhook, changes, why):
    number = story.incident()
    webhook.answer = lambda _: 500
    story.send()
    story.published(number, "ended", **changes)
    webhook.answer = lambda _: 200

    story.send(MINUTES_LATER)

    assert webhook.received == []
    assert why in story.dropped()


def test_a_silence_keeps_back_what_was_refused_before_it_began(story, webhook):
    story.incident()
    webhook.answer = lambda _: 500
    story.send()
    story.silence("Saw", hours=2)
    webhook.answer = lambda _: 200

    waits = story.send(MINUTES_LATER)
    assert (waits.sent, waits.held) == (0, 1)
    assert story.send(HOUR).sent == 0
    assert story.send(2 * HOUR).sent == 1
    assert rows(story.database, "SELECT attempts FROM anomaly.alert_messages") == [(2,)]


def test_a_silence_that_is_ended_lets_go_what_it_held(story, webhook):
    held, refused = story.incident("Saw", "critical"), story.incident("Press")
    webhook.answer = lambda _: 500
    story.silence("Saw", hours=4)
    story.send()
    story.silence("Press", hours=4)
    webhook.answer = lambda _: 200
    story.send(MINUTES_LATER)
    assert webhook.received == []
    with story.database.transaction(SCORER) as transaction:
        assert [end_silence(transaction, number) is not None for number in (1, 2, 3)] == [
            True, True, False,
        ]  # fmt: skip

    story.send(MINUTES_LATER)

    assert sorted(titles(webhook)) == [
        "CRITICAL: Saw is not as usual", "Notice: Press is not as usual",
    ]  # fmt: skip
    assert (held, refused) == (1, 2)


def test_a_silence_takes_its_machine_out_of_a_message_about_many(story, webhook):
    story.settings = story.settings.changed(alert_group_from=2)
    story.incident("Saw")
    story.incident("Press")
    webhook.answer = lambda _: 500
    story.send()
    story.silence("Saw", hours=2)
    webhook.answer = lambda _: 200

    story.send(MINUTES_LATER)
    story.send(HOUR)
    assert titles(webhook) == ["Notice: Press is not as usual"]
    story.send(2 * HOUR)
    assert titles(webhook)[1:] == ["Notice: Saw is not as usual"]


def test_during_maintenance_nothing_is_told_and_afterwards_only_what_lasts(story, webhook):
    short, long = story.incident("Saw"), story.incident("Press")
    for number in (short, long):
        story.published(number, "lasts", state="silenced")
    assert story.send().held == 2
    story.published(short, "lasts", ended_at="now()")
    story.published(long, "lasts", state="open")

    story.send(HOUR)

    assert titles(webhook) == ["Notice: Press is not as usual"]


def label(story: Story, name: str) -> None:
    """Say what all machines have done since yesterday."""
    execute(
        story.database,
        "INSERT INTO anomaly.labels (machine_id, during, label, note, labelled_by)"
        " SELECT machine_id, tstzrange(now() - interval '1 day', now()), :name, '', 'Bob'"
        " FROM anomaly.machines",
        name=name,
    )


@pytest.mark.parametrize(("name", "state"), [("false_alarm", "closed"), ("real", "acknowledged")])
def test_what_people_explained_and_took_back_is_told(story, webhook, name, state):
    number = story.incident()
    story.published(number, "lasts", state=state)
    label(story, name)
    assert story.send().held == 1
    story.published(number, "lasts", state="open")
    taken_back = "withdrawn_as = 1, withdrawn_at = now(), withdrawn_by = 'Bob'"
    execute(story.database, f"UPDATE anomaly.labels SET {taken_back}")

    story.send(HOUR)

    assert titles(webhook) == ["Notice: Saw is not as usual"]


@pytest.mark.parametrize("taken_on", [True, False])
def test_what_was_taken_on_in_quiet_hours_is_not_told_once_it_is_over(story, webhook, taken_on):
    quiet = (story.now - HOUR, story.now + HOUR)
    hours = "-".join(f"{moment:%H:%M}" for moment in quiet)
    story.settings = story.settings.changed(alert_quiet_hours=hours)
    number = story.incident()
    story.send()
    if taken_on:
        story.published(number, "lasts", state="acknowledged", acknowledged_by="Ann")
    else:
        label(story, "real")
    story.over(number)

    story.send(2 * HOUR)

    assert webhook.received == []


def test_what_a_silence_covered_to_its_end_is_not_told_though_it_was_refused_before(story, webhook):
    number = story.incident()
    webhook.answer = lambda _: 500
    story.send()
    story.silence("Saw", hours=2)
    webhook.answer = lambda _: 200
    story.send(MINUTES_LATER)
    story.over(number)
    story.send(2 * HOUR)

    assert webhook.received == []
    assert story.dropped()[0] == "it was over before the silence ended"


def test_a_rise_that_was_told_by_the_first_message_is_escalated_and_not_before_its_time(
    database, settings, webhook, second
):
    routes = [
        {"name": "ops", "urls": [webhook.url]},
        {"name": "boss", "urls": [second.url], "escalation": True},
    ]
    story = Story(
        database,
        settings.changed(alert_routes=json.dumps(routes), alert_escalate_minutes=30),
    )
    number = story.incident()
    story.published(number, "lasts", severity="critical")
    story.send()
    assert titles(webhook) == ["CRITICAL: Saw is not as usual"]
    story.send(HOUR)
    assert len(titles(second)) == 1
    story.over(number)
    story.send(HOUR)
    story.published(number, "opened", state="open", ended_at="")
    story.send(2 * HOUR)
    assert len(titles(second)) == 2  # and its end: it has just come back
    story.send(3 * HOUR)
    assert len(titles(second)) == 3


def test_what_lasts_while_no_sender_runs_is_told_by_the_next(story, webhook):
    number = story.incident(severity="critical")
    execute(story.database, "UPDATE anomaly.incidents SET last_at = now() + interval '40 h'")

    story.send(40 * HOUR)

    assert titles(webhook) == ["CRITICAL: Saw is not as usual"]
    assert number


def test_what_a_backfill_opened_again_opens_when_it_lasts(story, webhook):
    number = story.incident()
    story.send()
    story.over(number)
    story.send()
    story.published(number, "lasts", state="open", ended_at="")  # no event says that it opened
    story.send()
    story.over(number)
    story.send()

    began, over = "Notice: Saw is not as usual", "Over: Saw is as usual again"
    assert titles(webhook) == [began, over, began, over]


def test_many_ends_at_once_are_one_message_that_says_so_and_trouble_has_its_own(story, webhook):
    story.settings = story.settings.changed(alert_group_from=2)
    saw, press = story.incident("Saw"), story.incident("Press", severity="critical")
    pipeline(story, "stale", "critical")
    story.send()
    for number in (saw, press):
        story.over(number)
    story.send()

    assert titles(webhook) == [
        "CRITICAL: 2 machines and meters at once",
        "CRITICAL: this is stale",
        "Over: 2 machines and meters are as usual again",
    ]
    first, then = (line for line in webhook.received[0]["message"].splitlines() if "- " in line[:2])
    assert first.startswith("- Press")
    assert then.startswith("- Saw")


def test_a_url_in_two_routes_gets_it_once(database, settings, webhook):
    routes = [
        {"name": "ops", "urls": [webhook.url]},
        {"name": "critical", "urls": [webhook.url], "severities": ["critical"]},
    ]
    story = Story(database, settings.changed(alert_routes=json.dumps(routes)))
    number = story.incident(severity="critical")
    story.send()
    story.over(number)
    story.send()

    assert len(webhook.received) == 2


def test_a_url_of_another_service_inherits_nothing(story, webhook, mailbox):
    story.incident()
    webhook.answer = lambda _: 500
    story.send()
    story.settings = story.settings.changed(alert_routes=mailbox.url)

    assert story.send(MINUTES_LATER).given_up == 1
    assert mailbox.messages == []


@pytest.mark.slow
def test_a_mail_server_that_thinks_for_long_has_it_once(story, mailbox):
    mailbox.delay = 20.0
    story.settings = story.settings.changed(alert_routes=mailbox.url)
    story.incident()

    assert (story.send().sent, story.send(HOUR).sent) == (1, 0)
    assert len(mailbox.messages) == 1


def test_an_end_goes_to_every_channel_that_got_the_beginning(
    database, settings, webhook, second, mailbox
):
    routes = [
        {"name": "notices", "urls": [webhook.url], "severities": ["notice"]},
        {"name": "critical", "urls": [second.url], "severities": ["critical"]},
        {"name": "boss", "urls": [mailbox.url], "escalation": True},
    ]
    story = Story(
        database,
        settings.changed(alert_routes=json.dumps(routes), alert_escalate_minutes=30),
    )
    number = story.incident()
    story.send()
    story.published(number, "lasts", severity="critical")
    story.send()
    story.send(HOUR)
    story.published(number, "ended", state="closed", ended_at="now()", severity="warning")
    story.send(HOUR)

    over = "Over: Saw is as usual again"
    assert titles(webhook) == ["Notice: Saw is not as usual", over]
    assert titles(second) == ["CRITICAL: Saw is not as usual", over]  # its first word of it
    subjects = [str(one["subject"]) for one in mailbox.messages]
    assert "NOBODY HAS ANSWERED" in subjects[0]
    assert subjects[1:] == [over]


def test_what_the_first_route_does_not_take_is_escalated_too(database, settings, webhook, second):
    routes = [
        {"name": "ops", "urls": [webhook.url]},
        {"name": "boss", "urls": [second.url], "escalation": True},
    ]
    story = Story(
        database,
        settings.changed(alert_routes=json.dumps(routes), alert_escalate_minutes=30),
    )
    webhook.answer = lambda _: 500
    story.incident(severity="critical")

    story.send()
    assert second.received == []
    story.send(HOUR)

    assert "NOBODY HAS ANSWERED" in titles(second)[0]


def test_in_quiet_hours_what_is_critical_is_told_and_in_the_morning_not_again(story, webhook):
    quiet_from = story.now - HOUR
    quiet_to = story.now + HOUR
    story.settings = story.settings.changed(
        alert_quiet_hours=f"{quiet_from:%H:%M}-{quiet_to:%H:%M}"
    )
    number = story.incident()
    assert story.send().held == 1
    story.published(number, "lasts", severity="critical")
    story.send()
    story.send(2 * HOUR)

    assert titles(webhook) == ["CRITICAL: Saw is not as usual"]


def pipeline(story: Story, event: str, severity: str) -> None:
    with story.database.transaction(SCORER) as transaction:
        add_events(
            transaction,
            [
                {
                    "key": f"{event}:1", "about": "stale:1", "event": event, "kind": "pipeline",
                    "severity": severity, "says": f"this is {event}", "created_at": story.now,
                    "incident_id": None,
                }
            ],
        )  # fmt: skip


def test_trouble_of_the_pipeline_and_its_end_in_a_silence_are_told_to_nobody(story, webhook):
    story.silence(None, hours=1)
    pipeline(story, "stale", "critical")
    story.send()
    pipeline(story, "stale_over", "notice")
    story.send()
    story.send(2 * HOUR)

    assert webhook.received == []


def test_that_trouble_is_over_goes_to_who_was_told_of_it(database, settings, webhook, second):
    routes = [
        {"name": "ops", "urls": [webhook.url], "severities": ["critical"]},
        {"name": "rest", "urls": [second.url], "severities": ["notice"]},
    ]
    story = Story(database, settings.changed(alert_routes=json.dumps(routes)))
    pipeline(story, "stale", "critical")
    story.send()
    pipeline(story, "stale_over", "notice")
    story.send()

    assert titles(webhook) == ["CRITICAL: this is stale", "Notice: this is stale_over"]
    assert second.received == []


def test_a_url_that_was_changed_knows_what_the_old_one_heard(story, webhook):
    number = story.incident()
    story.send()
    story.settings = story.settings.changed(alert_routes=f"{webhook.url}?token=new")
    story.over(number)

    story.send()

    assert titles(webhook) == ["Notice: Saw is not as usual", "Over: Saw is as usual again"]


def test_a_person_whom_the_server_refuses_costs_the_others_nothing(story, mailbox):
    url = mailbox.url.replace("to=ops@example.com", "to=ops@example.com,gone@example.com")
    story.settings = story.settings.changed(alert_routes=url)
    mailbox.refuses = {"gone@example.com"}
    story.incident()

    first = story.send()
    again = story.send(MINUTES_LATER)

    assert (first.sent, first.failed) == (1, 1)
    assert (again.sent, again.failed) == (0, 1)
    assert [one["to"] for one in mailbox.messages] == ["ops@example.com"]


def test_two_senders_at_once_send_each_message_once(story, webhook):
    numbers = [story.incident(f"Saw {number}") for number in range(3)]
    for number in numbers:
        story.published(number, "lasts", severity="critical")
    senders = [threading.Thread(target=story.send) for _ in range(4)]
    webhook.delay = 0.05
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    story.send()

    assert Counter(titles(webhook)) == {f"CRITICAL: Saw {n} is not as usual": 1 for n in range(3)}


def test_a_message_that_waited_for_a_sender_for_days_is_not_given_up_at_its_first_refusal(
    story, webhook
):
    number = story.incident()
    story.settings = story.settings.changed(alert_age_hours=99)
    webhook.answer = lambda _: 500
    story.send()
    assert story.send(48 * HOUR).given_up == 0
    story.over(number)
    webhook.answer = lambda _: 200
    story.send(49 * HOUR)

    assert titles(webhook) == ["Notice: Saw was not as usual"]


def test_what_a_publication_says_twice_is_written_once(story, webhook):
    number = story.incident()
    for _ in range(3):
        story.published(number, "lasts")
        story.published(number, "lasts", severity="warning")

    found = rows(
        story.database, "SELECT event, severity FROM anomaly.alert_events ORDER BY event_id"
    )
    assert found == [("opened", "notice"), ("worsened", "warning")]


def test_what_nobody_heard_of_has_opened_when_it_lasts_and_never_ends(story, webhook):
    number = story.incident()
    execute(story.database, "DELETE FROM anomaly.alert_events")
    story.over(number)
    assert rows(story.database, "SELECT event FROM anomaly.alert_events") == []
    story.published(number, "lasts", state="open", ended_at="")

    assert rows(story.database, "SELECT event FROM anomaly.alert_events") == [("opened",)]


@pytest.mark.parametrize(
    ("written", "origin", "told"),
    [
        (False, "live", ["Notice: Saw was not as usual"]),
        (False, "late", ["Notice: Saw was not as usual"]),
        (False, "backfill", []),
        (True, "live", []),
    ],
)
def test_what_is_over_and_nobody_heard_of_is_told_once_unless_a_backfill_found_it(
    story, webhook, written, origin, told
):
    number = story.incident()
    if written:
        story.over(number)
        story.send()
        webhook.received.clear()
    else:  # it was taken for a new normal when it was found
        execute(story.database, "DELETE FROM anomaly.alert_events")
    story.published(number, "found over", state="closed", ended_at="now()", origin=origin)
    story.published(number, "found over")
    story.send()

    assert titles(webhook) == told


def test_a_purge_deletes_old_alerts_and_nothing_of_what_lasts(story):
    ended, lasts, young = (story.incident(name) for name in ("Saw", "Press", "Lathe"))
    story.over(ended)
    story.send()
    execute(
        story.database,
        "UPDATE anomaly.alert_events SET created_at = created_at - interval '100 days'"
        f" WHERE incident_id <> {young}",
    )
    story.over(young)
    story.send()
    keeps = story.settings.changed(
        keep_ledger_months=2, keep_history_months=2, keep_results_months=2
    ).retention

    would = purge(story.database, keeps, story.now, dry_run=True).alert_events
    deleted = purge(story.database, keeps, story.now).alert_events

    assert (would, deleted) == (2, 2)
    left = rows(story.database, "SELECT DISTINCT incident_id FROM anomaly.alert_events ORDER BY 1")
    assert left == [(lasts,), (young,)]
    told = "SELECT DISTINCT incident_id FROM anomaly.alert_message_events JOIN"
    assert rows(story.database, f"{told} anomaly.alert_events USING (event_id) ORDER BY 1") == left
    assert rows(
        story.database,
        "SELECT count(*) FROM anomaly.alert_messages m WHERE NOT EXISTS (SELECT FROM"
        " anomaly.alert_message_events s WHERE s.message_id = m.message_id)",
    ) == [(0,)]
