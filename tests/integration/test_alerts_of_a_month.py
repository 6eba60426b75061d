"""A month of live ticks, killed and refused again and again: every event is told exactly once."""

import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alert_receivers import Webhook, number_of
from live_month import month_settings

from anomaly.alerts.sending import send_alerts
from anomaly.database.connection import Database
from anomaly.database.results import Origin
from anomaly.scoring.publishing import Job
from anomaly.scoring.scorer import Scorer
from anomaly.windows import Window, floor_to_interval
from deployment import QUARTER, TESTS, counters, execute, insert, rows, train_in_force

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SCRIPT = Path(__file__).parents[1] / "live_month.py"
DAY = 96
TRAINED, MONTH = 8 * DAY, 24 * DAY
"""A week less than alerts are told at most, as `end` may be a week ago."""
TICK = 32
MACHINES = 3
KILLS = 12
KILLED_AT_REQUESTS = (2, 7, 11, 19, 23)
"""The sender is killed while the webhook has these requests and has not answered them."""


def month(end: datetime):
    """Readings of the training and of the month, in which each machine deviates seven times.

    Twice it begins two and a half hours before a tick and lasts ten: the next tick finds it worse.
    """
    random_spans = random.Random(3)
    frame = counters(TRAINED + MONTH, machines=MACHINES)
    frame["utc_timestamp"] = [end - (len(frame) - n) * QUARTER for n in range(len(frame))]
    for machine in range(1, MACHINES + 1):
        steps = frame[f"machine_{machine}"].diff().fillna(1.0)
        for number in range(7):
            start = random_spans.randrange(TRAINED + DAY, len(frame) - DAY)
            lasts = random_spans.choice([4, 12, 30])
            change = random_spans.choice([-1, 3, 10])
            if number > 4:  # the two that become worse
                start, lasts, change = start - start % TICK - 10, 40, -1
            steps.iloc[start : start + lasts] += change * machine / 4
        frame[f"machine_{machine}"] = steps.clip(lower=0).cumsum().round(3)
    return frame


@pytest.fixture
def end():
    """The last Monday: what deviates is compared with the same hours of the week."""
    midnight = floor_to_interval(datetime.now(UTC), timedelta(days=1))
    return midnight - timedelta(days=midnight.weekday())


@pytest.fixture
def plants(postgres, migrated, tmp_path, end):
    """Gives deployments that are trained and have all readings, by their name."""
    frame = month(end)
    made = []

    def plant(name: str):
        postgres.create_database(f"month_{name}", template=migrated)
        settings = month_settings(str(tmp_path / name), "")
        database = Database(postgres.url(f"month_{name}"), settings.database)
        made.append((database, f"month_{name}"))
        execute(database, AUDIT)
        insert(database, frame)
        start = frame["utc_timestamp"].iloc[0].to_pydatetime()
        train_in_force(database, settings, Window(start, start + TRAINED * QUARTER))
        return database, settings

    yield plant
    for database, name in made:
        database.dispose()
        postgres.drop_database(name)


class Month:
    """The process that ticks and sends, started anew whenever it was killed."""

    def __init__(self, database, settings, route: str, end: datetime) -> None:
        url = database.engine.url.render_as_string(hide_password=False)
        told = {
            "database": url, "models": settings.models.models_url, "route": route,
            "first": (end - MONTH * QUARTER).isoformat(), "end": end.isoformat(),
            "now": datetime.now(UTC).isoformat(),
        }  # fmt: skip
        self.command = [sys.executable, str(SCRIPT), json.dumps(told)]
        self.process: subprocess.Popen | None = None

    def run(self, delays=()) -> int:
        """Run it to its end, killing it after each of `delays`; return how often it was killed."""
        delays, killed = list(delays), 0
        while True:
            self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE)
            if delays:
                deadline = time.monotonic() + delays.pop()
                while self.process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                self.process.kill()
            _, said = self.process.communicate()
            if self.process.returncode == 0:
                return killed
            assert self.process.returncode == -9, said.decode()
            killed += 1

    def kill(self) -> None:
        """Kill it at once, from the thread of a receiver."""
        self.process.kill()


AUDIT = """
CREATE TABLE published (
    number bigint GENERATED ALWAYS AS IDENTITY, publication xid8 DEFAULT pg_current_xact_id(),
    incident_id bigint, state text, severity text, is_over boolean, is_settled boolean);
GRANT INSERT ON published TO PUBLIC;
CREATE FUNCTION publish() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.published (incident_id, state, severity, is_over, is_settled)
    VALUES (NEW.incident_id, NEW.state, NEW.severity, NEW.ended_at IS NOT NULL, NEW.settled);
    RETURN NULL;
END $$;
CREATE TRIGGER publish AFTER INSERT OR UPDATE ON anomaly.incidents
    FOR EACH ROW EXECUTE FUNCTION publish();
"""
"""Notes each incident as every publication left it: the truth that messages are held to."""
RANKS = ["NOTICE", "WARNING", "CRITICAL"]


def published(database) -> dict[int, list[tuple[str, int, bool]]]:
    """State, severity and whether it is over of each incident, publication by publication.

    What has become the machine's new normal is over, but was not if nobody heard of it before.
    """
    found: dict[int, list[tuple[str, int, bool]]] = {}
    for number, state, severity, is_over in rows(
        database,
        "SELECT DISTINCT ON (publication, incident_id)"
        " incident_id, state, severity, is_over AND NOT is_settled"
        " FROM published ORDER BY publication, incident_id, number DESC",
    ):
        found.setdefault(number, []).append((state, RANKS.index(severity.upper()), is_over))
    return found


def should_hear(states) -> list[tuple[int | None, bool]]:
    """What people should hear of an incident: how severe, if that is new; whether it is over."""
    said: list[tuple[int | None, bool]] = []
    worst, over = None, True
    for state, rank, is_over in states:
        lasts = state in ("open", "acknowledged")
        if (lasts or (not said and state == "closed" and is_over)) and (
            over or worst is None or rank > worst
        ):
            worst, over = rank, not lasts
            said.append((rank, over))
        elif state in ("closed", "withdrawn") and said and not over:
            worst, over = None, True
            said.append((None, True))
    return said


def heard(webhook) -> dict[int, list[tuple[int | None, bool]]]:
    """What the webhook heard of each incident, as `should_hear` gives it; repeats are left out."""
    every = {number_of(body): body for body in webhook.received}
    found: dict[int, list[tuple[int | None, bool]]] = {}
    for body in every.values():
        about = int(re.search(r"^Incident (\d+), message", body["message"], re.MULTILINE).group(1))
        first = body["title"].split(":")[0].split()[0].upper()
        is_over = first == "OVER" or " was not as usual" in body["title"]
        is_over = is_over or " had trouble with" in body["title"] or " became " in body["title"]
        found.setdefault(about, []).append(
            (None if first == "OVER" else RANKS.index(first), is_over)
        )
    return found


def test_every_event_of_a_month_is_told_once_however_often_all_is_killed(
    plants, end, record_property
):
    whole, settings = plants("whole")
    with Webhook() as smooth:
        assert Month(whole, settings, smooth.url, end).run() == 0
    truth = {number: should_hear(states) for number, states in published(whole).items()}
    assert set(Counter(smooth.numbers()).values()) == {1}
    assert heard(smooth) == {number: says for number, says in truth.items() if says}
    assert len(truth) > 20
    assert any(len(says) > 2 for says in truth.values())

    killed, settings = plants("killed")
    draw = random.Random(11)
    answers = random.Random(12)
    with Webhook() as webhook:
        run = Month(killed, settings, webhook.url, end)

        def answer(request: int) -> int | None:
            if request in KILLED_AT_REQUESTS:
                run.kill()
                return 200
            drawn = answers.random()
            if drawn < 0.05:
                return None  # it has the message, and its sender does not know
            return 429 if drawn < 0.15 else 500 if drawn < 0.2 else 200

        webhook.answer = answer
        kills = run.run(draw.uniform(2.0, 6.0) for _ in range(KILLS))
    numbers = Counter(webhook.numbers())
    refused = Counter(number for number, status in webhook.answers if status not in (200, None))
    hung_up = sum(status is None for _, status in webhook.answers)
    repeats = sum(numbers.values()) - len(numbers)
    record_property("alerts of a month, events", sum(map(len, truth.values())))
    record_property("alerts of a month, messages", len(numbers))
    record_property("alerts of a month, kills", kills)
    record_property("alerts of a month, refused", sum(refused.values()))
    record_property("alerts of a month, taken without an answer", hung_up)
    record_property("alerts of a month, repeats", repeats)

    assert kills >= KILLS
    assert published(killed).keys() == published(whole).keys()
    got = heard(webhook)
    late = 0
    for number, states in published(killed).items():
        wanted, found = should_hear(states), got.get(number, [])
        if found == wanted:
            continue
        # Between two sends that were killed or refused several events became one message, or none
        # of what was corrected or became normal meanwhile. What is known in the end is the same.
        late += 1
        if not found:
            last, _, is_over = states[-1]
            assert last == "withdrawn" or (last == "closed" and not is_over), (states, wanted)
            continue
        assert len(found) < len(wanted)
        assert found[-1][1] == wanted[-1][1]
        severities = [rank for rank, _ in found if rank is not None]
        assert set(severities) <= {rank for _, rank, _ in states}
        assert max(severities) >= max(rank for rank, _ in wanted if rank is not None)
    record_property("alerts of a month, incidents told in fewer messages", late)
    assert not got.keys() - published(killed).keys()
    # What came again is what a sender that was killed, or hung up on, could not know was taken.
    attempts = dict(rows(killed, "SELECT message_id::text, attempts FROM anomaly.alert_messages"))
    assert all(times <= attempts[one] - refused[one] for one, times in numbers.items())
    assert 0 < repeats <= kills + hung_up

    backfilled, settings = plants("backfilled")
    with Webhook() as silent:
        settings = month_settings(settings.models.models_url, silent.url)
        span = Window(end - MONTH * QUARTER, end)
        Scorer(backfilled, settings).score_range(span, Job(Origin.BACKFILL, TESTS))
        assert rows(backfilled, "SELECT count(*) FROM anomaly.incidents") > [(20,)]
        send_alerts(backfilled, settings, datetime.now(UTC))
        assert silent.requests == 0
