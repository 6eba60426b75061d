"""Alerts from publishing to a real mail server and a real webhook: one true message, never two."""

import json
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from anomaly.alerts.sending import send_alerts
from anomaly.database.alerts import add_silence
from anomaly.database.connection import SCORER
from anomaly.database.results import Origin
from anomaly.incidents.labels import LabelName
from anomaly.incidents.operator_feedback import acknowledge, label_incident
from anomaly.operations.machine_changes import change_machine
from anomaly.operations.site_changes import change_price
from anomaly.scoring.publishing import Job
from anomaly.scoring.scorer import Scorer
from anomaly.scoring.ticks import score_tick
from anomaly.windows import Window, floor_to_interval
from deployment import QUARTER, TESTS, counters_until, execute, insert, rows, train_in_force

DAY = 96
TRAINED, QUARTERS = 8 * DAY, 10 * DAY
ODD = 9 * DAY + 8
"""From this quarter on machine 1 draws much more than usual, for three hours."""


def readings(end: datetime, odd: tuple[int, ...] = (1,), lasts: int = 12) -> pd.DataFrame:
    frame = counters_until(end, QUARTERS)
    for machine in odd:
        steps = frame[f"machine_{machine}"].diff()
        steps.iloc[ODD : ODD + lasts] += 5.0
        frame[f"machine_{machine}"] = steps.fillna(frame[f"machine_{machine}"].iloc[0]).cumsum()
    return frame


class Plant:
    """A deployment whose ticks are run one after the other."""

    def __init__(self, database, settings, frame: pd.DataFrame) -> None:
        self.database, self.frame = database, frame
        self.settings = settings
        self.start = frame["utc_timestamp"].iloc[0].to_pydatetime()
        insert(database, frame)
        train_in_force(database, settings, Window(self.start, self.at(TRAINED)))

    def at(self, quarter: int) -> datetime:
        return self.start + quarter * QUARTER

    def ticks(self, first: int, end: int) -> None:
        scorer = Scorer(self.database, self.settings)
        for quarter in range(first, end):
            score_tick(scorer, Window(self.at(quarter), self.at(quarter + 1)), TESTS)

    def send(self, after: timedelta = timedelta(0)):
        return send_alerts(self.database, self.settings, datetime.now(UTC) + after)

    def events(self) -> list[tuple[str, str]]:
        return rows(
            self.database,
            "SELECT event, coalesce(decision, '') FROM anomaly.alert_events ORDER BY event_id",
        )


@pytest.fixture
def end() -> datetime:
    return floor_to_interval(datetime.now(UTC), QUARTER)


def routed(settings, *urls: str, **fields):
    """Settings with one route of urls, which tell of things as old as the readings here."""
    return settings.changed(
        alert_routes=" ".join(urls), alert_age_hours=240, detector="signals", **fields
    )


def quiet_first(plant: Plant) -> None:
    """Score up to the deviation, and throw away what chance alarms tell."""
    plant.ticks(9 * DAY, ODD)
    execute(plant.database, "DELETE FROM anomaly.alert_events")


def test_an_incident_is_told_by_mail_with_a_picture_and_so_is_its_end(
    database, settings, mailbox, webhook, end
):
    settings = routed(settings, mailbox.url, webhook.url)
    plant = Plant(database, settings, readings(end))
    said = {"name": "Saw *3*", "site": "Hall <2>", "time_zone": "Europe/Berlin"}
    change_machine(database, "1", said)
    change_price(database, None, 0.25, "EUR", (end - timedelta(days=30)).date())
    quiet_first(plant)

    plant.ticks(ODD, ODD + 2)
    first = plant.send()
    again = plant.send(timedelta(days=1))
    plant.ticks(ODD + 2, ODD + 40)
    last = plant.send()

    assert (first.sent, again.sent) == (2, 0)
    assert last.sent >= 2
    ((number,),) = rows(
        database,
        "SELECT incident_id FROM anomaly.incidents"
        " WHERE machine_id = 1 AND kind = 'machine' AND readings > 5",
    )
    opened, over = mailbox.messages[0], mailbox.messages[-1]
    text, says_over = mailbox.texts()[0], mailbox.texts()[-1]
    assert "Saw *3* (Hall <2>) is not as usual" in opened["subject"]
    assert "above the usual" in text
    assert f"--incident {number} false_alarm" in text
    assert "Energy beyond the usual" in text
    assert "EUR" in text
    assert ("CET" in text) or ("CEST" in text)
    assert opened["from"] == "plant@example.com"
    (picture,) = opened.iter_attachments()
    assert picture.get_content()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "Saw *3* (Hall <2>) is as usual again" in over["subject"]
    assert "EUR" in says_over
    assert len(webhook.received) == len(mailbox.messages)
    assert len(set(webhook.numbers())) == len(webhook.received)


def test_a_backfill_tells_nobody(database, settings, webhook, end):
    settings = routed(settings, webhook.url)
    plant = Plant(database, settings, readings(end))

    Scorer(database, settings).score_range(Window(plant.at(0), end), Job(Origin.BACKFILL, TESTS))

    found = rows(database, "SELECT count(*) FROM anomaly.incidents WHERE machine_id = 1")
    assert found > [(0,)]
    assert plant.events() == []
    assert plant.send().sent == 0


def test_what_a_backfill_found_is_told_when_it_lasts_and_its_correction_too(
    database, settings, webhook, end
):
    settings = routed(settings, webhook.url)
    plant = Plant(database, settings, readings(end))
    quiet_first(plant)
    backfill = Window(plant.at(ODD), plant.at(ODD + 3))

    Scorer(database, settings).score_range(backfill, Job(Origin.BACKFILL, TESTS))
    assert plant.events() == []
    plant.ticks(ODD + 3, ODD + 4)
    plant.send()
    (opened,) = [one["title"] for one in webhook.received if "machine_1" in one["title"]]
    assert opened.endswith("is not as usual")

    # The excess was the table's fault: corrected, it is told that it is over, by whoever sees it.
    execute(database, "DELETE FROM anomaly.meter_readings")
    insert(database, counters_until(end, QUARTERS))
    Scorer(database, settings).score_range(
        Window(plant.at(ODD), plant.at(ODD + 4)), Job(Origin.BACKFILL, TESTS)
    )
    plant.send()
    last = webhook.received[-1]["title"]
    assert "machine_1" in last
    assert last.startswith("Over:")


def test_what_was_over_long_ago_tells_nobody(database, settings, webhook, end):
    settings = routed(settings, webhook.url).changed(alert_age_hours=1)
    plant = Plant(database, settings, readings(end))

    plant.ticks(ODD, ODD + 30)

    found = rows(database, "SELECT count(*) FROM anomaly.incidents WHERE machine_id = 1")
    assert found > [(0,)]
    assert plant.events() == []


def test_a_channel_that_fails_gets_it_later_once_and_no_other_waits_for_it(
    database, settings, mailbox, webhook, end
):
    settings = routed(settings, webhook.url, mailbox.url)
    plant = Plant(database, settings, readings(end))
    quiet_first(plant)
    plant.ticks(ODD, ODD + 2)

    webhook.answer = lambda _: 429
    refused = plant.send()
    mailbox.answer = "451 later"
    soon = plant.send(timedelta(seconds=20))
    webhook.answer = lambda _: 200
    later = plant.send(timedelta(minutes=5))

    assert (refused.sent, refused.failed) == (1, 1)
    assert (soon.sent, soon.failed) == (0, 0)
    assert (later.sent, later.failed) == (1, 0)
    assert (len(webhook.received), len(mailbox.messages)) == (1, 1)


def test_what_cannot_be_sent_for_a_day_is_given_up_and_listed(database, settings, webhook, end):
    settings = routed(settings, webhook.url)
    plant = Plant(database, settings, readings(end))
    quiet_first(plant)
    plant.ticks(ODD, ODD + 2)
    webhook.answer = lambda _: 500

    assert plant.send().failed == 1
    assert [plant.send(timedelta(hours=25 + n)).given_up for n in range(4)] == [0, 0, 0, 1]
    webhook.answer = lambda _: 200
    assert plant.send(timedelta(hours=30)).sent == 0
    ((error, attempts),) = rows(database, "SELECT error, attempts FROM anomaly.alert_messages")
    assert "500" in error
    assert attempts == 5


def test_a_url_that_was_changed_gets_what_the_old_one_did_not_take(
    database, settings, mailbox, webhook, end
):
    plant = Plant(database, routed(settings, webhook.url, mailbox.url), readings(end))
    quiet_first(plant)
    plant.ticks(ODD, ODD + 2)
    webhook.answer = lambda _: 401
    first = plant.send()
    webhook.answer = lambda _: 200

    changed = f"{webhook.url}?token=new"
    plant.settings = routed(settings, changed, mailbox.url)
    moved = plant.send(timedelta(minutes=10))
    plant.settings = routed(settings, mailbox.url)
    gone = plant.send(timedelta(minutes=20))

    assert (first.sent, first.failed) == (1, 1)
    assert (moved.sent, moved.failed, gone.sent) == (1, 0, 0)
    assert (len(webhook.received), len(mailbox.messages)) == (1, 1)


def test_a_route_that_was_taken_away_gives_its_messages_up(database, settings, webhook, end):
    plant = Plant(database, routed(settings, webhook.url), readings(end))
    quiet_first(plant)
    plant.ticks(ODD, ODD + 2)
    webhook.answer = lambda _: 401
    assert plant.send().failed == 1

    plant.settings = routed(settings)

    assert plant.send(timedelta(minutes=10)).given_up == 1
    ((error,),) = rows(database, "SELECT error FROM anomaly.alert_messages")
    assert error == "the route 'everything' has this URL no longer"


def test_a_sender_that_dies_after_the_channel_took_it_repeats_it_once_under_its_number(
    database, settings, webhook, end, monkeypatch
):
    settings = routed(settings, webhook.url)
    plant = Plant(database, settings, readings(end))
    quiet_first(plant)
    plant.ticks(ODD, ODD + 2)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("anomaly.alerts.sending.outbox.message_sent", die)
        with pytest.raises(Killed):
            plant.send()
    assert plant.send(timedelta(minutes=1)).sent == 0  # it may still be at work
    assert plant.send(timedelta(minutes=6)).sent == 1
    assert plant.send(timedelta(minutes=12)).sent == 0

    first, second = webhook.numbers()
    assert first == second


def test_many_machines_at_once_are_one_message(database, settings, webhook, end):
    settings = routed(settings, webhook.url, alert_group_from=2)
    plant = Plant(database, settings, readings(end, odd=(1, 2)))
    quiet_first(plant)

    plant.ticks(ODD, ODD + 2)
    assert plant.send().sent == 1

    (one,) = webhook.received
    assert "2 machines and meters at once" in one["title"]
    assert "machine_1" in one["message"]
    assert "machine_2" in one["message"]


def test_silences_maintenance_and_what_people_said_keep_it_back(database, settings, webhook, end):
    settings = routed(settings, webhook.url)
    plant = Plant(database, settings, readings(end))
    quiet_first(plant)
    now = datetime.now(UTC)
    with database.transaction(SCORER) as transaction:
        add_silence(transaction, now + timedelta(hours=1), machine_id=1, by="Ann")

    plant.ticks(ODD, ODD + 2)
    assert plant.send().held == 1
    assert plant.events()[0] == ("opened", "silenced by Ann")
    # The silence is over, and the incident lasts: now it is told.
    assert plant.send(timedelta(hours=2)).sent == 1


def test_nobody_is_told_of_what_somebody_has_taken_on_or_explained(
    database, settings, webhook, end
):
    settings = routed(settings, webhook.url)
    plant = Plant(database, settings, readings(end, odd=(1, 2)))
    quiet_first(plant)
    plant.ticks(ODD, ODD + 2)
    numbers = dict(
        rows(
            database,
            "SELECT machine_id, incident_id FROM anomaly.incidents WHERE state = 'open'"
            " AND kind = 'machine'",
        )
    )
    acknowledge(database, settings.meter, settings.incidents, numbers[1], by="Ann")
    label_incident(
        database, settings.meter, settings.incidents, numbers[2], LabelName.FALSE_ALARM, by="Bob"
    )

    first = plant.send()
    assert (first.untold, first.sent) == (1, 0)
    assert first.held >= 1  # Bob may take it back
    plant.ticks(ODD + 2, ODD + 40)
    plant.send(timedelta(hours=1))

    both = (
        "SELECT decision FROM anomaly.alert_events WHERE incident_id IN ({}, {}) AND event = '{}'"
    )
    why = rows(database, both.format(numbers[1], numbers[2], "opened"))
    assert sorted(why) == [
        ("nobody is told: Ann has taken it on",),
        ("nobody is told: people said what it is",),
    ]
    ((over,),) = rows(database, both.format(numbers[1], numbers[2], "ended"))
    assert over == "nobody is told: nobody was told that it began"
    assert not [one for one in webhook.numbers() if one in map(str, numbers.values())]


def test_a_critical_incident_that_nobody_answers_goes_to_the_second_route(
    database, settings, webhook, mailbox, end
):
    routes = [
        {"name": "ops", "urls": [webhook.url]},
        {"name": "boss", "urls": [mailbox.url], "escalation": True},
    ]
    settings = settings.changed(
        alert_routes=json.dumps(routes),
        alert_age_hours=240,
        alert_escalate_minutes=30,
        detector="signals",
    )
    plant = Plant(database, settings, readings(end))
    quiet_first(plant)
    plant.ticks(ODD, ODD + 4)
    execute(database, "UPDATE anomaly.incidents SET severity = 'critical' WHERE state = 'open'")
    execute(database, "UPDATE anomaly.alert_events SET severity = 'critical'")

    plant.send()
    assert plant.send(timedelta(minutes=10)).sent == 0
    assert plant.send(timedelta(minutes=40)).sent == 1
    assert plant.send(timedelta(minutes=90)).sent == 0

    (told,) = mailbox.messages
    assert "NOBODY HAS ANSWERED" in told["subject"]
